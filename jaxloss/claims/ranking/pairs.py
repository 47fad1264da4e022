"""What is claimed of the loss of all pairs of a list."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss import margins
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import bad_masks
from jaxloss.claims.margins import FORMULAS
from jaxloss.claims.ranking.lists import graded_lists, list_edges
from jaxloss.claims.ranking.plackett_luce import monotone
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case, rows
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.domain import Argument, Complaint
from jaxloss.testing.exact import mp


def formulas(phi: Any, *, weighted: bool) -> dict[str, Any]:
    """Value and slopes of the sum over pairs, in mpmath."""

    def pairs(s, y, weights, where):
        exists = lambda i: where is None or where[i]
        for i in filter(exists, range(len(s))):
            for j in filter(exists, range(len(s))):
                if y[i] > y[j]:
                    yield i, j, weights[i][j] if weighted else 1, s[i] - s[j]

    def value(s, y, weights=None, where=None):
        found = pairs(s, y, weights, where)
        return mp.fsum(w * phi.value(lead) for _, _, w, lead in found)

    def terms(s, y, weights, where):
        found = [[] for _ in s]
        for i, j, w, lead in pairs(s, y, weights, where):
            found[i].append(w * phi.slope(lead))
            found[j].append(-w * phi.slope(lead))
        return found

    def gradient(s, y, weights=None, where=None):
        return [mp.fsum(terms_of) for terms_of in terms(s, y, weights, where)]

    def size(s, y, weights=None, where=None):
        return [mp.fsum(map(abs, terms_of)) for terms_of in terms(s, y, weights, where)]

    def lifted(formula):
        if weighted:
            return common.exact_rows(1, 1, 2, 1)(formula)
        masked = lambda s, y, where=None: formula(s, y, None, where)
        return common.exact_rows(1, 1, 1)(masked)

    return {
        "reference": lifted(value),
        "gradient": lifted(gradient),
        "gradient_cancels": lifted(size),
    }


def weighted_lists(rng, shape):
    s, y, where = graded_lists(rng, shape)
    return s, y, rng.uniform(size=(*shape, 4, 4)), where


def weighted_edges(dtype):
    """Equal scores, and leads on both sides of the kink, of small and large weights."""
    s = np.array([[0.0] * 4, [20, 0, -0.5, -20], [-50, 0, 0.25, 50], [1e4] * 4])
    y, every = np.tile([2.0, 0, 1, 1], (4, 1)), np.ones((4, 4), bool)
    for size in (0.0, 1e-6, 1.0, 1e3):
        yield s, y, np.full((4, 4, 4), size), every


def moved_with_pairs(rng, s, y, weights, where):
    order = rng.permutation(s.shape[-1])
    both = weights[:, order][:, :, order]
    return s[:, order], y[:, order], both, where[:, order]


def _weights(argument: Argument) -> Complaint | None:
    """None for no weights; those of pairs may be anything where a mask is."""
    where = argument.given.get("where")
    if where is not None:
        exists = np.moveaxis(np.asarray(where), argument.axis, -1)
        both = exists[..., :, None] & exists[..., None, :]
        argument = argument._replace(x=np.where(both, argument.x, 0))
    rest = {k: v for k, v in argument.given.items() if k != "where"}
    return domains.NOT_NEGATIVE(argument._replace(given=rest))


NAME, ONES = "pairwise_ranking", np.ones((3, 4))


def refuse(argument, *args, **given):
    return common.refused(NAME, argument, *args, **given)


BAD_CALLS = (
    *common.refused_pairs(NAME, "scores", "relevance"),
    *bad_masks(NAME, ONES),
    refuse("relevance", ONES, ONES + 0j, error=TypeError),
    refuse("scores", np.ones(()), np.ones(())),
    refuse("scores", np.ones((3, 0)), np.ones((3, 0))),
    refuse("axis", ONES, ONES, axis=2),
    refuse("weights", ONES, ONES, weights=ONES),
    refuse("weights", ONES, ONES, weights=np.ones((3, 4, 4)) + 0j, error=TypeError),
    refuse("margin_fn", ONES, ONES, margin_fn="hinge", error=TypeError),
    refuse("margin_fn", ONES, ONES, margin_fn=jnp.sum),
)
PLAIN = LossSpec(
    name=NAME,
    fn=jaxloss.pairwise_ranking,
    sample=graded_lists,
    keywords=("where",),
    event_ndim=1,
    convex=True,
    symmetries=(
        common.shift(0),
        common.permutation(0, 1, 2),
        Symmetry("other grades in the same order", monotone),
    ),
    extremes=list_edges,
    bad_calls=BAD_CALLS,
    **formulas(FORMULAS["logistic"], weighted=False),
)
WEIGHTED = LossSpec(
    name=f"{NAME}(weights, hinge)",
    fn=jaxloss.pairwise_ranking,
    static={"margin_fn": margins.hinge},
    sample=weighted_lists,
    keywords=("weights", "where"),
    event_ndim=1,
    convex=True,
    smooth=False,
    symmetries=(
        common.scale(1, 2),
        Symmetry("a permutation", moved_with_pairs),
    ),
    extremes=weighted_edges,
    **formulas(FORMULAS["hinge"], weighted=True),
)

S = rows(4, count=12)
Y = np.random.default_rng(3).integers(0, 3, size=S.shape).astype(float)
CLAIMS = [
    Claim(
        fn=jaxloss.pairwise_ranking,
        domains={
            "scores": domains.REAL,
            "relevance": domains.REAL,
            "weights": _weights,
        },
        settings=(PLAIN, WEIGHTED),
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
        drawn=({"margin_fn": margins.logistic}, {"margin_fn": margins.hinge}),
    )
]
