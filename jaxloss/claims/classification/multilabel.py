"""What is claimed of every loss of `jaxloss.losses.classification.multilabel`."""

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification import cross_entropy
from jaxloss.claims.classification.cross_entropy import setting, sigmoid
from jaxloss.claims.classification.focal import term
from jaxloss.testing import LossSpec, Symmetry, accuracy
from jaxloss.testing.accuracy import EDGES, FLUSH, Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- the asymmetric loss -----------------------------------------------------------


def negative(x, gamma, shift):
    """The loss of a negative label with log-odds x, and its slope."""
    shift = mp.mpf(shift)
    p, n = sigmoid(x), sigmoid(-x) + shift
    m = p - shift
    if m <= 0:
        return mp.mpf(0), mp.mpf(0)
    steep = gamma * -mp.log1p(-m) / m if m < 0.5 else gamma * -mp.log(n) / m
    value = m**gamma * (-mp.log1p(-m) if m < 0.5 else -mp.log(n))
    return value, p * sigmoid(-x) * m**gamma * (steep + 1 / n)


@common.exact
def asymmetric(x, y, gamma_positive, gamma_negative, shift):
    up, down = term(x, gamma_positive), negative(x, gamma_negative, shift)
    return y * up[0] + (1 - y) * down[0]


@common.exact
def asymmetric_slopes(x, y, gamma_positive, gamma_negative, shift):
    up, down = term(x, gamma_positive), negative(x, gamma_negative, shift)
    return y * up[1] + (1 - y) * down[1], up[0] - down[0]


def clear_of_the_shift(sample):
    """Logits where differences in the shift have digits: 1 - m is not small, and a
    probability is either below the shift of 0.05 or well above it."""

    def draw(rng, shape):
        x, y = sample(rng, shape)
        x = np.clip(0.75 * x, -7, 3.5)
        return np.where(x < -2, x - 2, x), y

    return draw


def setting_of_asymmetric(sample, *numbers, **more):
    loss, names = "asymmetric", ("gamma_positive", "gamma_negative", "shift")
    params = dict(zip(names, numbers, strict=True))
    refused = lambda **bad: common.refused(loss, *bad, *np.ones((2, 3)), **bad)
    return LossSpec(
        name=f"{loss}({setting(params)})",
        fn=jaxloss.asymmetric,
        sample=clear_of_the_shift(sample),
        params=params,
        differentiable=(0, 1),
        reference=asymmetric,
        gradient=asymmetric_slopes,
        ulps=16,
        extremes=cross_entropy.ladders,
        bad_calls=(
            *common.refused_pairs(loss, "logits", "labels"),
            refused(gamma_positive=-1.0),
            refused(gamma_negative=-1.0),
            refused(gamma_negative=np.ones(4)),
            refused(shift=1.0),
            refused(shift=-0.1),
        ),
        **more,
    )


# Exponents of both labels, and shifts.
HYPERS = (
    (1.0, 4.0, 0.05),
    (0.0, 0.0, 0.0),
    (0.5, 0.5, 0.0),
    (2.0, 0.5, 0.25),
    (0.0, 2.0, 0.0),
    (0.0, 0.0, 0.9),
)


def asymmetric_cases():
    """Also next to the shift of 0.05, from where on a negative costs something."""
    shifted = np.log(0.05 / 0.95) + np.array([-1e-2, 1e-3, 1e-2, 0.1])
    far = accuracy.decades(largest=1e4, points=3)
    x = np.concatenate([accuracy.line(points=7), far, EDGES, shifted])
    at, which = accuracy.pairs(np.arange(len(x)), np.arange(len(HYPERS)))
    hypers = np.array(HYPERS)[which.astype(int)].T
    x = x[at.astype(int)]
    names = ("gamma_positive", "gamma_negative", "shift")
    places = ("the logit", "the label", *names)
    for y in (0.0, 0.3, 1.0):
        part = slice(None) if y == 0 else slice(int(y), None, 3)
        columns = tuple(c[part] for c in (x, np.full_like(x, y), *hypers))
        for argument in range(5) if y == 0.3 else (0,):
            yield Case(
                name=f"of labels {y:g}, in {places[argument]}",
                columns=columns,
                names=names,
                argument=argument,
                bounds=(3, 3, 4),
                first=common.component(asymmetric_slopes, 0) if argument == 0 else None,
                conditioned=(True, True, True),
                floor=FLUSH,
                halves=y != 0.3,
            )


# --- zlpr --------------------------------------------------------------------------


def split(x, y, where):
    """Exponentials of what costs, of the labels that hold and of the others."""
    kept = [True] * len(x) if where is None else where
    together = [(v, t) for v, t, k in zip(x, y, kept, strict=True) if k]
    return [mp.exp(-v) for v, t in together if t], [
        mp.exp(v) for v, t in together if not t
    ]


@common.exact_rows(1, 1)
def zlpr(x, y, where=None):
    return mp.fsum(mp.log1p(mp.fsum(part)) for part in split(x, y, where))


def shares(x, y, where=None):
    """The slope of each label, without its sign: its share of 1 + sum."""
    kept = [True] * len(x) if where is None else where
    up, down = (1 + mp.fsum(part) for part in split(x, y, where))
    return [
        (mp.exp(-v) / up if t else mp.exp(v) / down) if k else mp.mpf(0)
        for v, t, k in zip(x, y, kept, strict=True)
    ]


@common.exact_rows(1, 1)
def zlpr_slopes(x, y, where=None):
    found = shares(x, y, where)
    return [-a if t else a for a, t in zip(found, y, strict=True)]


@common.exact_rows(1, 1)
def zlpr_curvature(x, y, where=None):
    found = shares(x, y, where)
    return [
        [
            (a * (1 - a) if i == j else -a * b) if y[i] == y[j] else mp.mpf(0)
            for j, b in enumerate(found)
        ]
        for i, a in enumerate(found)
    ]


def logits_and_labels(rng, shape):
    """Rows of logits, and which of four labels hold: none or all of them too."""
    x = 3 * rng.normal(size=(*shape, 4))
    return x, rng.integers(0, 2, size=x.shape).astype(float)


def logits_labels_mask(rng, shape):
    x, y = logits_and_labels(rng, shape)
    return x, y, rng.random(x.shape) < 0.6


def zlpr_edges(dtype):
    """Every edge with no label, one, two and all of them."""
    x = cross_entropy.logit_rows(dtype)
    labels = ([0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1])
    return [(x, np.tile(np.array(y, float), (len(x), 1))) for y in labels]


def zlpr_mask_edges(dtype):
    x, few, none = np.zeros((2, 4)), [True, False, False, False], [False] * 4
    return [(x, np.ones((2, 4)), np.array([few, none]))]


def setting_of_zlpr(sample, edges, name="", **more):
    x, y = np.ones((3, 4)), np.zeros((3, 4))
    refused = lambda argument, *args, **kw: common.refused(
        "zlpr", argument, *args, **kw
    )
    return LossSpec(
        name=f"zlpr({name})",
        fn=jaxloss.zlpr,
        sample=sample,
        event_ndim=1,
        differentiable=0,
        reference=zlpr,
        gradient=zlpr_slopes,
        curvature=zlpr_curvature,
        convex=True,
        minimiser=lambda y, where=None: 800 * (2 * y - 1),
        extremes=edges,
        bad_calls=(
            *common.refused_pairs("zlpr", "logits", "labels"),
            refused("logits", np.ones(()), np.ones(())),
            refused("labels", x, y[:, :3]),
            refused("labels", x, y * 1j, error=TypeError),
            refused("axis", x, y, axis=2),
            *cross_entropy.bad_masks("zlpr", y),
        ),
        **more,
    )


def zlpr_cases():
    x = accuracy.rows(4)
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, size=x.shape).astype(float)
    y[0], y[1], y[-1] = 0, 1, [1, 0, 0, 0]
    yield Case(
        name="",
        columns=(x, y),
        fixed=(1,),
        bounds=(2, 3, 5),
        conditioned=(True, True, True),
        floor=FLUSH,
    )


OTHER_LABELS = Symmetry(
    "the other labels with the other sign of the logits",
    lambda rng, x, y, *rest: (-x, 1 - y, *rest),
)

CLAIMS = [
    Claim(
        fn=jaxloss.asymmetric,
        domains=domains.ONE_LOGIT,
        settings=(
            setting_of_asymmetric(common.logits_and_bits, 1.0, 4.0, 0.05),
            setting_of_asymmetric(common.logits_and_probabilities, 0.0, 0.5, 0.0),
        ),
        accuracy=tuple(asymmetric_cases()),
        line=Line(
            "logit",
            (-6, 6),
            lambda x, y: (x, 0 * x + y),
            (("label 1", 1.0), ("label 0", 0.0)),
        ),
    ),
    Claim(
        fn=jaxloss.zlpr,
        domains={"logits": domains.LOG_ODDS, "labels": domains.HARD},
        settings=(
            setting_of_zlpr(
                logits_and_labels,
                zlpr_edges,
                symmetries=(common.permutation(0, 1), OTHER_LABELS),
            ),
            setting_of_zlpr(
                logits_labels_mask,
                zlpr_mask_edges,
                "where",
                keywords=("where",),
                symmetries=(common.permutation(0, 1, 2),),
            ),
        ),
        accuracy=tuple(zlpr_cases()),
        line=Line(
            "logit of the label that holds, two others 0",
            (-6, 6),
            lambda x, _: (common.vector(x, 0, 0), common.vector(1, 0, 0)),
        ),
    ),
]
