"""What is claimed of the likelihood of an order of items."""

import itertools

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import bad_masks
from jaxloss.claims.ranking.lists import graded_lists, list_edges
from jaxloss.claims.survival.formulas import breslow_of, of_subjects
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case, rows
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp


def _items(s, y, where):
    """The loss and the slopes of each item."""
    times = [-v for v in y]
    return of_subjects(breslow_of, s, times, [1] * len(s), None, where)


@common.exact_rows(1, 1, 1)
def reference(s, y, where=None):
    return mp.fsum(loss for loss, _ in _items(s, y, where))


@common.exact_rows(1, 1, 1)
def gradient(s, y, where=None):
    slopes = [slopes for _, slopes in _items(s, y, where)]
    return [mp.fsum(column) for column in zip(*slopes, strict=True)]


@common.exact_rows(1, 1, 1)
def gradient_cancels(s, y, where=None):
    slopes = [slopes for _, slopes in _items(s, y, where)]
    return [mp.fsum(map(abs, column)) for column in zip(*slopes, strict=True)]


def every_order(rng):
    """Three items in each order, as likely as they are drawn without replacement."""
    s = rng.normal(size=3)
    orders = np.array([*itertools.permutations(range(3))])
    e = np.exp(s)[orders]
    p = np.prod(e / np.cumsum(e[:, ::-1], axis=1)[:, ::-1], axis=1)
    y = -np.argsort(orders, axis=1).astype(float)
    return (np.tile(s, (6, 1)), y, np.ones((6, 3), bool)), p


def edges(dtype):
    """Those of graded lists, and a list of one item."""
    alone = np.eye(4)[:1] == 1
    return [*list_edges(dtype), (np.ones((1, 4)), np.ones((1, 4)), alone)]


def monotone(rng, s, y, where):
    return s, 2.0**y, where


NAME, ONES = "list_mle", np.ones((3, 4))
S = rows(4, count=8)
Y = np.random.default_rng(2).integers(0, 3, size=S.shape).astype(float)
CLAIMS = [
    Claim(
        fn=jaxloss.list_mle,
        domains={"scores": domains.LOGITS, "relevance": domains.REAL},
        settings=(
            LossSpec(
                name=NAME,
                fn=jaxloss.list_mle,
                sample=graded_lists,
                keywords=("where",),
                event_ndim=1,
                reference=reference,
                gradient=gradient,
                gradient_cancels=gradient_cancels,
                convex=True,
                proper=every_order,
                symmetries=(
                    common.shift(0),
                    common.permutation(0, 1, 2),
                    Symmetry("other grades in the same order", monotone),
                ),
                extremes=edges,
                bad_calls=(
                    *common.refused_pairs(NAME, "scores", "relevance"),
                    *bad_masks(NAME, ONES),
                    common.refused(NAME, "relevance", ONES, ONES + 0j, error=TypeError),
                    common.refused(NAME, "scores", np.ones(()), np.ones(())),
                    common.refused(NAME, "axis", ONES, ONES, axis=2),
                ),
            ),
        ),
        accuracy=(
            Case(
                columns=(S, Y),
                fixed=(1,),
                rowwise=True,
                conditioned=(True, True, True),
                bounds=(1, 2, 2),
                halves=False,  # a law has the value and the gradient in all dtypes
            ),
        ),
        line=Line(
            "score of the relevant item, two others 0",
            (-6, 6),
            lambda x, _: (common.vector(x, 0, 0), common.vector(1, 0, 0)),
        ),
    )
]
