"""Claims of the losses of a row of logits, or of its log-probabilities."""

from typing import Any

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import (
    CLASS_LOGIT,
    OF_DISTRIBUTIONS,
    OF_IDS,
    OF_MASKED_IDS,
    bad_labels,
    bad_masks,
    class_forecast,
    distribution,
    distribution_edges,
    distributions,
    dot,
    id_edges,
    log_probs,
    log_sum,
    logits_ids_mask,
    mask_edges,
    masked,
    softmax_formulas,
    softmax_value,
)
from jaxloss.testing import LossSpec, accuracy
from jaxloss.testing.accuracy import FLUSH, Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- logits ------------------------------------------------------------------------


def softmax(kind, sample, edges, name, **more):
    loss, ids = "softmax_cross_entropy", np.zeros(3, int)
    x = np.ones((3, 4))
    return LossSpec(
        name=f"{loss}({name})",
        fn=jaxloss.softmax_cross_entropy,
        sample=sample,
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        convex=True,
        extremes=edges,
        bad_calls=(
            *bad_labels(loss),
            *bad_masks(loss, ids),
            common.refused(loss, "label_smoothing", x, ids, label_smoothing=1.5),
            common.refused(loss, "label_smoothing", x, ids, label_smoothing=np.ones(4)),
        ),
        **softmax_formulas(kind),
        **more,
    )


def softmax_cases():
    x = accuracy.rows(3, count=8)
    ids, w = np.arange(len(x)) % 3, distributions(len(x), 3)
    part = np.resize([0.0, 1e-4, 0.1, 0.9], len(x))
    yield Case(name="of ids", columns=(x, ids), fixed=(1,), bounds=(2, 2, 3))
    # Where p sum(w) = w the gradient is 0; its terms are not.
    cancels = {"bounds": (3, 4, 4), "conditioned": (False, True, False)}
    yield Case(name="of distributions", columns=(x, w), **cancels)
    more = {"argument": 1, "bounds": (3, 3, 0), "halves": False}
    yield Case(name="in the distribution", columns=(x, w), **more)
    more = {"names": ("label_smoothing",), "formula": softmax_value, "halves": False}
    more |= cancels
    yield Case(name="of smoothed ids", columns=(x, ids, part), fixed=(1,), **more)
    yield Case(name="in the smoothing", columns=(x, w, part), argument=2, **more)


# --- log-probabilities -------------------------------------------------------------


def nll_value(logs, y):
    return -dot(distribution(y, len(logs)), logs)


def nll_slope(logs, y):
    return [-w for w in distribution(y, len(logs))]


def normalised(sample):
    """Log-probabilities instead of logits."""

    def draw(rng, shape):
        x, y = sample(rng, shape)
        return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True)), y

    return draw


def log_prob_rows(dtype):
    low = np.log(0.25)
    return np.array(
        [
            [low] * 4,
            [0.0, -50.0, -common.big(dtype), -90.0],
            [-1e-30, -70.0, -70.0, -70],
        ]
    )


def nll(kind, name, sample, labels, **more):
    lift = common.exact_rows(1, kind)
    soft = lambda logs, w: (nll_slope(logs, w), [-v for v in logs])
    return LossSpec(
        name=f"nll({name})",
        fn=jaxloss.nll,
        sample=normalised(sample),
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        reference=lift(nll_value),
        gradient=lift(soft if kind else nll_slope),
        curvature=lambda logs, y: np.zeros((*logs.shape, logs.shape[-1])),
        convex=True,
        extremes=lambda dtype: [(log_prob_rows(dtype), y) for y in labels],
        bad_calls=bad_labels("nll", "log_probs"),
        **more,
    )


# --- no label ----------------------------------------------------------------------


@common.exact_rows(1, 1)
def z_reference(x, where=None):
    x = masked(x, where)
    return log_sum(x) ** 2 if log_probs(x) else mp.mpf(0)


@common.exact_rows(1, 1)
def z_gradient(x, where=None):
    x = masked(x, where)
    logs = log_probs(x)
    return [2 * log_sum(x) * mp.exp(v) for v in logs] if logs else [mp.mpf(0)] * len(x)


def logits_and_masks(rng, shape):
    x = 3 * rng.normal(size=(*shape, 4))
    return x, rng.random(x.shape) < 0.7


def z_edges(dtype):
    r = common.root(dtype)
    x = np.array([[0.0] * 4, [r, r, 0, 0], [-r] * 4, [20, 0, -20, 5]])
    return [(x, np.ones(x.shape, bool)), (x, np.zeros(x.shape, bool))]


class WithZ(LossSpec):
    """Two losses per example, of which the laws see the sum of one and half the other,
    the loss of a training."""

    def losses_in(self, returned):
        cross_entropy, z = returned
        return cross_entropy + z / 2


def both(kind, sample, edges, name, **more):
    """Formulas: the sum of those of each."""
    loss, ids, lift = WITH_Z.__name__, np.zeros(3, int), common.exact_rows(1, kind)
    plain = softmax_formulas(kind)
    cross_entropy, slopes = (plain[k].formula for k in ("reference", "gradient"))

    @lift
    def reference(x, y, where=None):
        return cross_entropy(x, y, where) + z_reference.formula(x, where) / 2

    @lift
    def gradient(x, y, where=None):
        of_z = [v / 2 for v in z_gradient.formula(x, where)]
        found = slopes(x, y, where)
        in_logits = found[0] if kind else found
        in_logits = [s + t for s, t in zip(in_logits, of_z, strict=True)]
        return (in_logits, found[1]) if kind else in_logits

    @lift
    def cancels(x, y, where=None):
        """The logsumexp, whose error is an eps of 1 at least, squared and halved."""
        x = masked(x, where)
        return abs(log_sum(x)) if log_probs(x) else mp.mpf(0)

    @lift
    def gradient_cancels(x, y, where=None):
        """And that of its slope."""
        logs = log_probs(masked(x, where))
        sizes = [mp.exp(v) for v in logs] if logs else [mp.mpf(0)] * len(x)
        return (sizes, [mp.mpf(0)] * len(x)) if kind else sizes

    return WithZ(
        name=f"{loss}({name})",
        fn=WITH_Z,
        sample=sample,
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        reference=reference,
        cancels=cancels,
        gradient=gradient,
        gradient_cancels=gradient_cancels,
        extremes=edges,
        bad_calls=(*bad_labels(loss), *bad_masks(loss, ids)),
        **more,
    )


def both_edges(edges):
    """Logits whose squares are finite."""

    def inside(dtype):
        for x, *rest in edges(dtype):
            yield np.clip(x, -common.root(dtype), common.root(dtype)), *rest

    return inside


WITH_Z: Any = jaxloss.softmax_cross_entropy_with_z  # its value is two losses


CLAIMS = [
    Claim(
        fn=jaxloss.softmax_cross_entropy,
        domains=domains.ROWS,
        settings=(
            softmax(
                0,
                common.logits_and_ids(),
                id_edges,
                "ids",
                proper=class_forecast,
                symmetries=OF_IDS,
            ),
            softmax(
                1,
                common.logits_and_distributions(),
                distribution_edges,
                "distributions",
                minimiser=np.log,
                minimum=common.exact_rows(1)(lambda w: -dot(w, map(mp.log, w))),
                symmetries=OF_DISTRIBUTIONS,
            ),
            softmax(
                0,
                common.logits_and_ids(),
                id_edges,
                "ids, label_smoothing=0.1",
                params={"label_smoothing": 0.1},
                symmetries=OF_IDS,
            ),
            softmax(
                0,
                logits_ids_mask,
                mask_edges,
                "where",
                keywords=("where",),
                symmetries=OF_MASKED_IDS,
            ),
        ),
        accuracy=tuple(softmax_cases()),
        line=CLASS_LOGIT,
    ),
    Claim(
        fn=jaxloss.nll,
        domains={
            "log_probs": domains.LOG_ROWS,
            "labels": domains.classes("log_probs"),
        },
        settings=(
            nll(
                0,
                "ids",
                common.logits_and_ids(),
                [np.array([0, 1, 2])],
                proper=class_forecast,
                symmetries=(common.permutation(0, ids=1), common.scale(1, 0)),
            ),
            nll(
                1,
                "distributions",
                common.logits_and_distributions(),
                [np.full((3, 4), 0.25), np.eye(4)[:3]],
                symmetries=(common.permutation(0, 1), common.scale(2, 0, 1)),
            ),
        ),
        accuracy=(
            Case(
                columns=(-np.abs(accuracy.rows(3, count=8)), distributions(8, 3)),
                bounds=(3, 0, 0),
            ),
        ),
        line=Line(
            "log-probability of the right class",
            (-6, 0),
            lambda x, _: (common.vector(x, 0), 0),
        ),
    ),
    Claim(
        fn=WITH_Z,
        domains=domains.ROWS,
        settings=(
            both(0, common.logits_and_ids(), both_edges(id_edges), "ids"),
            both(
                1,
                common.logits_and_distributions(),
                both_edges(distribution_edges),
                "distributions",
            ),
            both(
                0,
                logits_ids_mask,
                mask_edges,
                "where",
                keywords=("where",),
                symmetries=(common.permutation(0, 2, ids=1),),
            ),
        ),
    ),
    Claim(
        fn=jaxloss.z_loss,
        domains={"logits": domains.LOGITS},
        settings=(
            LossSpec(
                name="z_loss",
                fn=jaxloss.z_loss,
                sample=logits_and_masks,
                keywords=("where",),
                event_ndim=1,
                reference=z_reference,
                gradient=z_gradient,
                symmetries=(common.permutation(0, 1),),
                extremes=z_edges,
                bad_calls=(
                    *bad_masks("z_loss"),
                    common.refused(
                        "z_loss", "logits", np.ones(3, int), error=TypeError
                    ),
                    common.refused("z_loss", "logits", np.ones(())),
                    common.refused("z_loss", "axis", np.ones((3, 4)), axis=-3),
                ),
            ),
        ),
        accuracy=(
            Case(
                columns=(accuracy.rows(3, count=8),),
                bounds=(4, 4, 4),
                # logsumexp crosses 0, and so do all its multiples.
                conditioned=(True, True, True),
                floor=FLUSH,
            ),
        ),
        line=Line(
            "logit of a class, two others 0",
            (-6, 6),
            lambda x, _: (common.vector(x, 0, 0),),
        ),
    ),
]
