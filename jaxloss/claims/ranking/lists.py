"""Claims of the losses that ask for an order."""

from collections.abc import Iterator

import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.classification.cross_entropy import (
    bad_masks,
    log_probs,
    logit_rows,
    masked,
    softmax_formulas,
)
from jaxloss.claims.common import (
    component,
    exact,
    exact_rows,
    ladder,
    pair,
    permutation,
    refused,
    refused_pairs,
    scale,
    shift,
    vector,
)
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case, decades, line, pairs, rows
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

ONES = np.ones(3)


# --- pairs -------------------------------------------------------------------------


@exact
def shortfall(higher, lower, margin):
    return max(mp.mpf(0), margin - (higher - lower))


def active(higher, lower, margin):
    return int(margin - (higher - lower) > 0)


@exact
def slopes(higher, lower, margin):
    return -active(higher, lower, margin), active(higher, lower, margin)


REVERSED = Symmetry(
    "an exchange of the two, with the other signs", lambda rng, h, w: (-w, -h)
)


def leads(dtype):
    """Leads of every size, either way, and equal scores of every size."""
    s = ladder(dtype)
    return [(s, np.zeros_like(s)), (np.zeros_like(s), s), (s, s)]


def margin_ranking(margin, *symmetries):
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
        symmetries=(shift(0, 1), REVERSED, *symmetries),
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


SCORES = np.concatenate([line(-9, 9, points=13), decades(1e-4, 6e4, points=7), [0.0]])
HIGHER, LOWER = pairs(SCORES, SCORES)


def margin_cases() -> Iterator[Case]:
    firsts = component(slopes, 0), component(slopes, 1), active
    for argument, name in enumerate(("higher", "lower", "margin")):
        yield Case(
            name=f"in {name}",
            columns=(HIGHER, LOWER, np.resize([0.0, 0.3, 7.0], HIGHER.size)),
            names=("margin",),
            first=firsts[argument],
            second=lambda *a: mp.mpf(0),
            argument=argument,
            # A difference of scores and a margin: two roundings of what it cancels.
            conditioned=(True, False, False),
            bounds=(1, 0, 0),
        )


MARGIN_RANKING = Claim(
    fn=jaxloss.margin_ranking,
    domains={"higher": domains.REAL, "lower": domains.REAL},
    settings=(margin_ranking(0.0, scale(1, 0, 1)), margin_ranking(0.5)),
    accuracy=tuple(margin_cases()),
    line=Line("higher − lower", (-3, 3), lambda x, _: (x, 0 * x)),
    drawn=({"margin": 0.0}, {"margin": 0.5}, {"margin": 1.0}),
)


# --- lists -------------------------------------------------------------------------


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


def present(y, where):
    """The relevance of the items that exist, as weights."""
    return (
        y if where is None else [v if m else 0 for v, m in zip(y, where, strict=True)]
    )


@exact_rows(1, 1, 1)
def listwise(s, y, where=None):
    return FORMULAS["reference"].formula(s, present(y, where), where)


@exact_rows(1, 1, 1)
def curvature_of_lists(s, y, where):
    return FORMULAS["curvature"].formula(s, present(y, where), where)


@exact_rows(1, 1, 1)
def slopes_of_lists(s, y, where):
    logs = log_probs(masked(s, where))
    y = present(y, where)
    others = [sum(y[:i]) + sum(y[i + 1 :]) for i in range(len(y))]
    found = zip(logs, y, others, strict=True)
    by_score = [mp.exp(v) * rest + own * mp.expm1(v) for v, own, rest in found]
    return by_score, [-v if m else 0 for v, m in zip(logs, where, strict=True)]


def one_relevant(rng):
    """Four items, of which one is relevant: the forecast is their log-probabilities."""
    p = rng.dirichlet(np.ones(4))
    return (np.tile(np.log(p), (4, 1)), np.eye(4), np.ones((4, 4), bool)), p


def list_cases() -> Iterator[Case]:
    """Grades that do not sum to 1, for scores near, far apart, and far from 0."""
    s = rows(3, count=8)
    y = np.random.default_rng(1).integers(0, 4, size=s.shape).astype(float)
    y[0], y[1] = [0, 0, 2], [1e-6, 3, 0]
    yield Case(
        name="in scores",
        columns=(s, y),
        bounds=(4, 4, 4),
        # Where p sum(y) = y the gradient is 0; its terms are not.
        conditioned=(False, True, False),
    )
    yield Case(
        name="in relevance",
        columns=(s, y),
        argument=1,
        bounds=(4, 3, 0),
        halves=False,
    )


NAME, ROWS = "listwise_softmax", np.ones((3, 4))
LISTWISE_SOFTMAX = Claim(
    fn=jaxloss.listwise_softmax,
    domains={"scores": domains.LOGITS, "relevance": domains.NOT_NEGATIVE},
    settings=(
        LossSpec(
            name=NAME,
            fn=jaxloss.listwise_softmax,
            sample=graded_lists,
            keywords=("where",),
            event_ndim=1,
            differentiable=(0, 1),
            reference=listwise,
            gradient=slopes_of_lists,
            curvature=curvature_of_lists,
            convex=True,
            proper=one_relevant,
            symmetries=(shift(0), scale(1, 1), permutation(0, 1, 2)),
            extremes=list_edges,
            bad_calls=(
                *refused_pairs(NAME, "scores", "relevance"),
                *bad_masks(NAME, ROWS),
                refused(NAME, "relevance", ROWS, ROWS + 0j, error=TypeError),
                refused(NAME, "scores", np.ones(()), np.ones(())),
                refused(NAME, "axis", ROWS, ROWS, axis=2),
            ),
        ),
    ),
    accuracy=tuple(list_cases()),
    line=Line(
        "score of the relevant item, two others 0",
        (-6, 6),
        lambda x, _: (vector(x, 0, 0), vector(1, 0, 0)),
    ),
)

CLAIMS = [MARGIN_RANKING, LISTWISE_SOFTMAX]
