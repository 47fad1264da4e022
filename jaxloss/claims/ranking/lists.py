"""Claims of the losses that ask for an order."""

import functools

import numpy as np

import jaxloss
from jaxloss.claims.classification.cross_entropy import (
    bad_masks,
    log_probs,
    logit_rows,
    masked,
    softmax_formulas,
)
from jaxloss.claims.common import (
    exact,
    exact_rows,
    ladder,
    pair,
    refused,
    refused_pairs,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.exact import mp

ONES = np.ones(3)


@exact
def shortfall(higher, lower, margin):
    return max(0, margin - (higher - lower))


@exact
def slopes(higher, lower, margin):
    active = int(margin - (higher - lower) > 0)
    return -active, active


def leads(dtype):
    """Leads of every size, either way, and equal scores of every size."""
    s = ladder(dtype)
    return [(s, np.zeros_like(s)), (np.zeros_like(s), s), (s, s)]


def margin_ranking(margin):
    return LossSpec(
        name=f"margin_ranking(margin={margin})",
        fn=jaxloss.margin_ranking,
        params={"margin": margin},
        sample=pair,
        differentiable=(0, 1),
        reference=shortfall,
        gradient=slopes,
        curvature=lambda higher, lower, margin: np.zeros_like(higher),
        smooth=False,
        minimiser=lambda lower, margin: lower + margin,
        convex=True,
        extremes=leads,
        bad_calls=(
            *refused_pairs("margin_ranking", "higher", "lower"),
            refused("margin_ranking", "margin", ONES, ONES, margin=-0.5),
            refused("margin_ranking", "margin", ONES, ONES, margin=np.ones((3, 1))),
            refused(
                "margin_ranking", "margin", ONES, ONES, margin=True, error=TypeError
            ),
        ),
    )


def graded_lists(rng, shape):
    """Lists of up to four items, graded 0 to 3."""
    size = (*shape, 4)
    y = rng.integers(0, 4, size=size).astype(float)
    return 3 * rng.normal(size=size), y, rng.random(size) < [1, 0.6, 0.6, 0.6]


def list_edges(dtype):
    """Every edge of the scores, with one relevant item, all of them, and none."""
    s, every = logit_rows(dtype), np.ones((7, 4), bool)
    gains = ([0, 2, 0, 0], [1, 3, 0.5, 1e-6], [0] * 4)
    return [(s, np.tile(np.array(y, float), (7, 1)), every) for y in gains]


FORMULAS = softmax_formulas(1)  # of a cross entropy with weights


def present(name, s, y, where):
    """A formula of the weights of the items that exist."""
    return FORMULAS[name](s, np.where(where, y, 0), where)


@exact_rows(1, 1, 1)
def slopes_of_lists(s, y, where):
    logs = log_probs(masked(s, where))
    y = [v * m for v, m in zip(y, where, strict=True)]
    others = [sum(y[:i]) + sum(y[i + 1 :]) for i in range(len(y))]
    found = zip(logs, y, others, strict=True)
    by_score = [mp.exp(v) * rest + own * mp.expm1(v) for v, own, rest in found]
    return by_score, [-v if m else 0 for v, m in zip(logs, where, strict=True)]


def listwise_softmax():
    name, ones = "listwise_softmax", np.ones((3, 4))
    return LossSpec(
        name=name,
        fn=jaxloss.listwise_softmax,
        sample=graded_lists,
        keywords=("where",),
        event_ndim=1,
        differentiable=(0, 1),
        reference=functools.partial(present, "reference"),
        gradient=slopes_of_lists,
        curvature=functools.partial(present, "curvature"),
        convex=True,
        extremes=list_edges,
        bad_calls=(
            *refused_pairs(name, "scores", "relevance"),
            *bad_masks(name, ones),
            refused(name, "relevance", ones, ones + 0j, error=TypeError),
            refused(name, "scores", np.ones(()), np.ones(())),
            refused(name, "axis", ones, ones, axis=2),
        ),
    )


SPECS = [margin_ranking(0.0), margin_ranking(0.5), listwise_softmax()]
