"""What is claimed of the losses for NDCG."""

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import bad_masks
from jaxloss.claims.ranking.lists import graded_lists, list_edges
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case, rows
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- the measure, as it is published -------------------------------------------------


def discount(rank, k=None):
    return mp.mpf(0) if k is not None and rank > k else 1 / mp.log(1 + rank, 2)


def gain(y):
    return mp.mpf(2) ** y - 1


def present(s, where):
    return [i for i in range(len(s)) if where is None or where[i]]


def ideal(y, items, k=None):
    """DCG of the ideal order."""
    best = sorted((gain(y[i]) for i in items), reverse=True)
    return mp.fsum(g * discount(rank, k) for rank, g in enumerate(best, start=1))


# --- weights of pairs ----------------------------------------------------------------


def weights(s, y, where=None, k=None):
    """Of each pair, what a swap changes; 0 where an item is masked."""
    items, n = present(s, where), len(s)
    order = sorted(items, key=lambda i: -s[i])
    discounts = {i: discount(rank, k) for rank, i in enumerate(order, start=1)}
    best = ideal(y, items, k)
    found = [[mp.mpf(0)] * n for _ in range(n)]
    for i in items:
        for j in items:
            change = abs(gain(y[i]) - gain(y[j])) * abs(discounts[i] - discounts[j])
            found[i][j] = change / best if best else mp.mpf(0)
    return found


def summed(s, y, where=None, k=None):
    """One number of all weights, in which no two count equally."""
    found, n = weights(s, y, where, k), len(s)
    return mp.fsum((1 + i * n + j) * found[i][j] for i in range(n) for j in range(n))


def constant(s, *_, **__):
    return [mp.mpf(0)] * len(s)


class OfPairs(LossSpec):
    """The laws see one number of the weights of a list."""

    def __call__(self, *args, **overrides):
        found = super().__call__(*args, **overrides)
        n = found.shape[-1]
        factors = np.arange(1, 1 + n * n).reshape([1] * (found.ndim - 2) + [n, n])
        return (found * factors.astype(found.dtype)).sum(axis=(-2, -1))


def of_pairs(k):
    name = "ndcg_weights"
    refuse = lambda argument, *args, **given: common.refused(
        name, argument, *args, **given
    )
    top = lambda formula: common.exact_rows(1, 1, 1)(
        lambda s, y, where=None: formula(s, y, where, k)
    )
    return OfPairs(
        name=f"{name}(k={k})",
        fn=jaxloss.ndcg_weights,
        static={"k": k},
        sample=graded_lists,
        keywords=("where",),
        event_ndim=1,
        reference=top(summed),
        gradient=common.exact_rows(1, 1, 1)(constant),
        symmetries=(common.shift(0), common.scale(0, 0)),
        extremes=list_edges,
        bad_calls=(
            *common.refused_pairs(name, "scores", "relevance"),
            *bad_masks(name, ONES),
            refuse("relevance", ONES, ONES + 0j, error=TypeError),
            refuse("scores", np.ones(()), np.ones(())),
            refuse("axis", ONES, ONES, axis=2),
            refuse("k", ONES, ONES, k=0),
            refuse("k", ONES, ONES, k="all", error=TypeError),
        ),
    )


# --- soft ranks ----------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + mp.exp(-x)) if x > 0 else mp.exp(x) / (1 + mp.exp(x))


def lead(s, i, j, temperature):
    return (s[j] - s[i]) / temperature


def soft_ranks(s, items, temperature):
    return {
        i: 1 + mp.fsum(sigmoid(lead(s, i, j, temperature)) for j in items if j != i)
        for i in items
    }


def loss(s, y, where=None, temperature=None):
    """`1 - NDCG`, in as many digits as show the smallest float64."""
    items = present(s, where)
    with mp.workdps(400):
        best, ranks = ideal(y, items), soft_ranks(s, items, temperature)
        reached = mp.fsum(gain(y[i]) * discount(ranks[i]) for i in items)
        return 1 - reached / best if best else mp.mpf(0)


def slopes_in_ranks(s, y, where, temperature):
    """h: the slope of the loss in each soft rank."""
    items = present(s, where)
    best, ranks = ideal(y, items), soft_ranks(s, items, temperature)
    if best == 0:
        return dict.fromkeys(items, mp.mpf(0))
    slope = lambda r: mp.log(2) / ((1 + r) * mp.log(1 + r) ** 2)
    return {i: gain(y[i]) * slope(ranks[i]) / best for i in items}


def pulls(s, y, where, temperature, join):
    """By item, the sum over the others of their slopes, joined with its own."""
    h = slopes_in_ranks(s, y, where, temperature)
    found = [mp.mpf(0)] * len(s)
    for k in h:
        for i in h:
            x = lead(s, k, i, temperature)
            bend = sigmoid(x) * sigmoid(-x) / temperature
            found[k] += bend * join(h[i], h[k]) if i != k else 0
    return found


def gradient(s, y, where=None, temperature=None):
    return pulls(s, y, where, temperature, lambda other, own: other - own)


def gradient_cancels(s, y, where=None, temperature=None):
    return pulls(s, y, where, temperature, lambda other, own: other + own)


def cancels(s, y, where=None, temperature=None):
    """What the pairs in the wrong order cost, if none of them gained."""
    h = slopes_in_ranks(s, y, where, temperature)
    total = mp.mpf(0)
    for i in h:
        for j in h:
            if i != j:
                total += h[i] * sigmoid(-abs(lead(s, i, j, temperature)))
    return total


def lifted(formula):
    return common.exact_rows(1, 1, 1)(formula)


def far_apart(dtype):
    """Those of lists; one item alone, and grades whose powers overflow."""
    yield from list_edges(dtype)
    alone = np.eye(4)[:1] == 1
    yield np.ones((1, 4)), np.ones((1, 4)), alone
    every, grades = np.ones((2, 4), bool), np.array([[300.0, 299, 0, 1], [2e3] * 4])
    yield np.array([[0.0, 1, 2, 3], [1, 0, 0, 2]]), grades, every


NAME, ONES = "approx_ndcg", np.ones((3, 4))


def refuse(argument, *args, **given):
    return common.refused(NAME, argument, *args, **{"temperature": 1.0, **given})


SOFT = LossSpec(
    name=NAME,
    fn=jaxloss.approx_ndcg,
    params={"temperature": 0.75},
    sample=graded_lists,
    keywords=("where",),
    event_ndim=1,
    reference=lifted(loss),
    cancels=lifted(cancels),
    gradient=lifted(gradient),
    gradient_cancels=lifted(gradient_cancels),
    symmetries=(common.shift(0), common.permutation(0, 1, 2)),
    extremes=far_apart,
    bad_calls=(
        *common.refused_pairs(NAME, "scores", "relevance"),
        *bad_masks(NAME, ONES),
        refuse("relevance", ONES, ONES + 0j, error=TypeError),
        refuse("scores", np.ones(()), np.ones(())),
        refuse("axis", ONES, ONES, axis=2),
        refuse("temperature", ONES, ONES, temperature=0.0),
        refuse("temperature", ONES, ONES, temperature=np.ones((3, 4))),
        refuse("temperature", ONES, ONES, temperature=True, error=TypeError),
    ),
)

# Ordinary leads, sure ones, and equal scores; not thousands of temperatures, where the
# loss is that of hard ranks.
S = rows(4, count=12)
Y = np.random.default_rng(3).integers(0, 4, size=S.shape).astype(float)
TEMPERATURES = np.resize([1.0, 0.1, 7.0], len(S))


def cases():
    by_name = lambda formula: lambda s, y, t: formula(s, y, None, t)
    shared = {
        "columns": (S, Y, TEMPERATURES),
        "names": ("temperature",),
        "fixed": (1,),
        "formula": by_name(loss),
        "conditioned": (True, True, True),
        "halves": False,  # a law has the value and the gradient in all dtypes
    }
    yield Case(
        name="in scores",
        rowwise=True,
        first=by_name(gradient),
        bounds=(3, 2, 3),
        **shared,
    )
    yield Case(name="in temperature", argument=2, bounds=(3, 2, 1), **shared)


LISTS = {"scores": domains.LOG_ODDS, "relevance": domains.NOT_NEGATIVE}
CLAIMS = [
    Claim(
        fn=jaxloss.ndcg_weights,
        domains=LISTS,
        settings=(of_pairs(None), of_pairs(2)),
    ),
    Claim(
        fn=jaxloss.approx_ndcg,
        domains=LISTS,
        settings=(SOFT,),
        accuracy=tuple(cases()),
        line=Line(
            "score of the relevant item, two others 0",
            (-6, 6),
            lambda x, _: (common.vector(x, 0, 0), common.vector(1, 0, 0)),
        ),
        drawn=({"temperature": 0.1}, {"temperature": 1.0}, {"temperature": 3.0}),
    ),
]
