"""What is claimed of every loss of `jaxloss.losses.classification.noise`."""

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification import cross_entropy
from jaxloss.claims.classification.cross_entropy import log_probs, setting
from jaxloss.claims.classification.focal import row_formulas
from jaxloss.testing import LossSpec, accuracy
from jaxloss.testing.accuracy import FLUSH, Case
from jaxloss.testing.claim import Claim
from jaxloss.testing.exact import mp

GCE = "generalized_cross_entropy"


def value(v, j, q):
    """Of the logarithm v of a probability."""
    return -mp.expm1(q * v) / q if q else -v


def slope(v, j, q):
    return -mp.exp(q * v) if q else mp.mpf(-1)


@common.exact_rows(1, 0)
def curvature(x, y, where=None, q=0.0):
    """`p^q` times that of cross entropy, less the part of rank one by `p^q` itself."""
    logs = log_probs(cross_entropy.masked(x, where))
    if not logs:
        return [[mp.mpf(0)] * len(x)] * len(x)
    q, p = mp.mpf(q), [mp.exp(v) for v in logs]
    own = [mp.expm1(v) if j == y else mp.exp(v) for j, v in enumerate(logs)]
    entropy = lambda i, j: -p[i] * (mp.expm1(logs[i]) if i == j else p[j])
    factor = -slope(logs[y], y, q)
    return [
        [factor * (entropy(i, j) - q * own[i] * own[j]) for j in range(len(x))]
        for i in range(len(x))
    ]


def rows(kind, sample, edges, q, name="", **more):
    x, ids = np.ones((3, 4)), np.zeros(3, int)
    params, labels = {"q": q}, ("ids", "distributions")[kind]
    return LossSpec(
        name=f"{GCE}({labels}, {setting(params)}{name})",
        fn=jaxloss.generalized_cross_entropy,
        sample=sample,
        params=params,
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        extremes=edges,
        convex=q == 0,
        # Between a label and another class two terms of it cancel.
        second_ulps=40,
        bad_calls=(
            *cross_entropy.bad_labels(GCE),
            *cross_entropy.bad_masks(GCE, ids),
            *(common.refused(GCE, "q", x, ids, q=bad) for bad in (-0.5, 1.5)),
        ),
        **row_formulas(kind, value, slope),
        **more,
    )


LOGITS = accuracy.rows(3)
CLASSES = np.arange(len(LOGITS)) // 2 % 3
WEIGHTS = cross_entropy.distributions(len(LOGITS), 3)
QS = np.array([0.0, 1e-4, 0.3, 0.7, 1.0])


def cases():
    # Every row, and every q, but not each with each.
    at, q = (c[::2] for c in accuracy.pairs(np.arange(len(LOGITS)), QS))
    at = at.astype(int)
    ids = {"columns": (LOGITS[at], CLASSES[at], q), "fixed": (1,), "names": ("q",)}
    some = slice(None, None, 2)
    soft = {
        "columns": (LOGITS[at][some], WEIGHTS[at][some], q[some]),
        "names": ("q",),
        "halves": False,
    }
    more = {"conditioned": (True, True, True), "floor": FLUSH}
    yield Case(name="of ids", bounds=(2, 3, 4), **ids, **more)
    yield Case(name="in q", argument=2, bounds=(2, 3, 6), **ids, **more)
    yield Case(name="of distributions", bounds=(2, 3, 4), **soft, **more)
    yield Case(name="in the distribution", argument=1, bounds=(2, 3, 0), **soft, **more)


CLAIMS = [
    Claim(
        fn=jaxloss.generalized_cross_entropy,
        domains=domains.ROWS,
        settings=(
            rows(
                0,
                common.logits_and_ids(),
                cross_entropy.id_edges,
                0.7,
                curvature=curvature,
                symmetries=cross_entropy.OF_IDS,
            ),
            rows(
                0,
                cross_entropy.logits_ids_mask,
                cross_entropy.mask_edges,
                0.0,
                ", where",
                keywords=("where",),
                curvature=curvature,
                symmetries=cross_entropy.OF_MASKED_IDS,
            ),
            rows(
                1,
                common.logits_and_distributions(),
                cross_entropy.distribution_edges,
                0.5,
                symmetries=cross_entropy.OF_DISTRIBUTIONS,
            ),
        ),
        accuracy=tuple(cases()),
        line=cross_entropy.CLASS_LOGIT,
        drawn=tuple({"q": q} for q in (0.0, 0.5, 0.7, 1.0)),
    ),
]
