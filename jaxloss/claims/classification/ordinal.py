"""What is claimed of every loss of `jaxloss.losses.classification.ordinal`."""

import functools

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import (
    bad_labels,
    class_forecast,
    distribution,
    distribution_edges,
    distributions,
    id_edges,
    log_probs,
    sigmoid,
    softplus,
)
from jaxloss.testing import LossSpec, Symmetry, accuracy
from jaxloss.testing.accuracy import FLUSH, Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- thresholds --------------------------------------------------------------------


@common.exact_rows(1, 0)
def coral_reference(x, y):
    return mp.fsum(softplus(-v) if y > k else softplus(v) for k, v in enumerate(x))


@common.exact_rows(1, 0)
def coral_gradient(x, y):
    return [-sigmoid(-v) if y > k else sigmoid(v) for k, v in enumerate(x)]


@common.exact_rows(1, 0)
def coral_curvature(x, y):
    slopes = [sigmoid(v) * sigmoid(-v) for v in x]
    return [[s * (i == j) for j in range(len(x))] for i, s in enumerate(slopes)]


def thresholds_and_ids(rng, shape):
    """Four log-odds, which need not fall, and one of five classes."""
    return 4 * rng.normal(size=(*shape, 4)), rng.integers(0, 5, size=shape)


def threshold_edges(dtype):
    """Every magnitude at every threshold, below and above the label; the ends of it."""
    x = common.ladder(dtype)
    rows = np.stack([x, -x, np.roll(x, 3), np.zeros_like(x)], axis=-1)
    return [(rows, np.full(len(rows), y)) for y in (0, 2, 4)]


def threshold_forecast(rng):
    """The log-odds that a class is above each threshold; every class."""
    q = rng.dirichlet(np.ones(5))
    below, above = np.cumsum(q)[:-1], np.cumsum(q[::-1])[-2::-1]
    return (np.tile(np.log(above / below), (5, 1)), np.arange(5)), q


# --- thresholds, one after another ---------------------------------------------------


@common.exact_rows(1, 0)
def corn_reference(x, y):
    counted = [(k, v) for k, v in enumerate(x) if k <= y]
    return mp.fsum(softplus(-v) if y > k else softplus(v) for k, v in counted)


@common.exact_rows(1, 0)
def corn_gradient(x, y):
    slope = lambda k, v: -sigmoid(-v) if y > k else sigmoid(v)
    return [slope(k, v) if k <= y else mp.mpf(0) for k, v in enumerate(x)]


@common.exact_rows(1, 0)
def corn_curvature(x, y):
    slopes = [sigmoid(v) * sigmoid(-v) * (k <= y) for k, v in enumerate(x)]
    return [[s * (i == j) for j in range(len(x))] for i, s in enumerate(slopes)]


def chain_forecast(rng):
    """The log-odds of a class above each, of those that are not below; every class."""
    q = rng.dirichlet(np.ones(5))
    above = np.cumsum(q[::-1])[-2::-1]
    return (np.tile(np.log(above / q[:-1]), (5, 1)), np.arange(5)), q


def in_thresholds(name, **claims):
    """A loss of K - 1 logits and one of K classes."""
    x, ids = np.ones((3, 4)), np.zeros(3, int)
    refused = functools.partial(common.refused, name)
    return LossSpec(
        name=name,
        fn=getattr(jaxloss, name),
        sample=thresholds_and_ids,
        event_ndim=1,
        convex=True,
        minimiser=lambda y: np.where(y[..., None] > np.arange(4), 800.0, -800.0),
        extremes=threshold_edges,
        bad_calls=(
            refused("labels", x, ids[:2]),
            refused("labels", x, ids[:, None]),
            refused("labels", x, ids.astype(float), error=TypeError),
            refused("labels", x, ids == 0, error=TypeError),
            refused("logits", x.astype(int), ids, error=TypeError),
            refused("axis", np.ones(()), np.zeros((), int)),
            refused("axis", x, ids, axis=2),
        ),
        **claims,
    )


def coral():
    return in_thresholds(
        "coral",
        reference=coral_reference,
        gradient=coral_gradient,
        curvature=coral_curvature,
        proper=threshold_forecast,
        symmetries=(
            Symmetry("the other direction", lambda rng, x, y: (-x[..., ::-1], 4 - y)),
        ),
    )


def corn():
    return in_thresholds(
        "corn",
        reference=corn_reference,
        gradient=corn_gradient,
        curvature=corn_curvature,
        proper=chain_forecast,
        symmetries=(Symmetry("other logits after the label", after_the_label),),
    )


def after_the_label(rng, x, y):
    later = np.arange(x.shape[-1]) > y[..., None]
    return np.where(later, x + rng.normal(size=x.shape), x), y


# --- distributions -----------------------------------------------------------------


# Nothing below is a difference from 1: 60 digits do not hold 1 - 1e-300.


def gaps(p, w):
    """Carried over each threshold: p_i w_j - w_i p_j summed over i <= k < j."""
    classes = range(len(p))
    return [
        mp.fsum(
            p[i] * w[j] - w[i] * p[j] for i in classes for j in classes if i <= k < j
        )
        for k in classes[:-1]
    ]


def lead(d, i, j):
    """`T_j - T_i`: what is carried between the two classes, with its sign."""
    return mp.fsum(d[j:i]) - mp.fsum(d[i:j])


def emd_formulas(kind):
    """Value and gradient, for one kind of labels."""
    lift = common.exact_rows(1, kind)

    @lift
    def reference(x, y):
        p = [mp.exp(v) for v in log_probs(x)]
        return mp.fsum(d**2 for d in gaps(p, distribution(y, len(x)))) if p else 0

    @lift
    def gradient(x, y):
        p, w = [mp.exp(v) for v in log_probs(x)], distribution(y, len(x))
        if not p:
            return [mp.mpf(0)] * len(x)
        d, classes, mass = gaps(p, w), range(len(x)), mp.fsum(w)
        in_logits = [
            2 * mass * p[j] * mp.fsum(p[i] * lead(d, i, j) for i in classes)
            for j in classes
        ]
        if kind == 0:
            return in_logits
        # Towards class j goes what is not there yet: all classes beyond a threshold
        # before it, all up to a threshold after it.
        far = lambda j, k: mp.fsum(p[: k + 1]) if k < j else -mp.fsum(p[k + 1 :])
        return in_logits, [
            2 * mp.fsum(d[k] * far(j, k) for k in classes[:-1]) for j in classes
        ]

    return {"reference": reference, "gradient": gradient}


def emd(kind, sample, edges, name, **more):
    return LossSpec(
        name=f"squared_emd({name})",
        fn=jaxloss.squared_emd,
        sample=sample,
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        extremes=edges,
        bad_calls=bad_labels("squared_emd"),
        **emd_formulas(kind),
        **more,
    )


def emd_cases():
    yield Case(
        name="of ids",
        columns=(X, IDS),
        fixed=(1,),
        # A middle class is pulled from both sides.
        conditioned=(False, True, True),
        bounds=(3, 3, 4),
        floor=FLUSH,
    )
    for argument, name in enumerate(("logits", "distribution")):
        yield Case(
            name=f"of distributions, in the {name}",
            columns=(X, distributions(8)),
            argument=argument,
            # Of two nearly equal distributions little is left.
            conditioned=(True, True, True),
            bounds=(2, 2, 3),
            floor=FLUSH,
        )


X, IDS = accuracy.rows(4, count=8), np.arange(8) % 4
IN_ORDER = tuple((f"label {k}", k) for k in range(4))
CLAIMS = [
    Claim(
        fn=jaxloss.coral,
        domains={
            "logits": domains.LOG_ODDS,
            "labels": domains.classes("logits", more=1),
        },
        settings=(coral(),),
        accuracy=(Case(columns=(X[:, :3], IDS), fixed=(1,), bounds=(2, 2, 2)),),
        line=Line(
            "score, thresholds at −2, 0, 2",
            (-6, 6),
            lambda x, k: (x + common.vector(2, 0, -2), k),
            IN_ORDER,
        ),
    ),
    Claim(
        fn=jaxloss.corn,
        domains={
            "logits": domains.LOG_ODDS,
            "labels": domains.classes("logits", more=1),
        },
        settings=(corn(),),
        accuracy=(Case(columns=(X[:, :3], IDS), fixed=(1,), bounds=(1, 2, 2)),),
        line=Line(
            "logits 0 and 1, of 2 classes below and 2 above",
            (-6, 6),
            lambda x, k: (common.vector(x, x, 0), k),
            IN_ORDER,
        ),
    ),
    Claim(
        fn=jaxloss.squared_emd,
        domains=domains.ROWS,
        settings=(
            emd(
                0,
                common.logits_and_ids(),
                id_edges,
                "ids",
                proper=class_forecast,
                symmetries=(
                    common.shift(0),
                    Symmetry(
                        "the other direction",
                        lambda rng, x, y: (x[..., ::-1], 3 - y),
                    ),
                ),
            ),
            emd(
                1,
                common.logits_and_distributions(),
                distribution_edges,
                "distributions",
                minimiser=np.log,
                symmetries=(
                    common.shift(0),
                    common.scale(2, 1),
                    Symmetry(
                        "the other direction",
                        lambda rng, x, w: (x[..., ::-1], w[..., ::-1]),
                    ),
                ),
            ),
        ),
        accuracy=tuple(emd_cases()),
        line=Line(
            "logit of class 2, those of 0 and 1 are 0",
            (-6, 6),
            lambda x, k: (common.vector(0, 0, x), k),
            IN_ORDER[:3],
        ),
    ),
]
