"""Losses of lists, against loops over their items and against rax.

The loops are written in float64 NumPy from the papers.  Rax, where it is installed, is
called as well.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import margins
from tests.compat.peers import peer, same


@pytest.fixture(scope="module")
def rax():
    """The package, or the reason why there is none."""
    return peer("rax")


def graded_lists(count=20, items=8):
    """Scores, and grades with ties; in no list are all 0."""
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(count, items))
    relevance = rng.integers(0, 4, size=(count, items)).astype(float)
    assert relevance.any(axis=1).all()
    return jnp.asarray(scores), jnp.asarray(relevance)


def whole_orders():
    """Scores, and a relevance without ties."""
    scores, _ = graded_lists()
    rng = np.random.default_rng(5)
    order = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    return scores, jnp.asarray(rng.permuted(order, axis=1).astype(float))


def of_each_list(loop):
    """What a loop over the items of one list returns, of every list."""
    return lambda scores, relevance: np.array(
        [loop(*map(np.asarray, row)) for row in zip(scores, relevance, strict=True)]
    )


# --- loops over items ----------------------------------------------------------------


def order_by_choice(s, y):
    """Xia et al. 2008: items are drawn one by one, of those that are left."""
    left, loss = list(np.argsort(-y)), 0.0
    while left:
        loss += math.log(sum(math.exp(s[i]) for i in left)) - s[left.pop(0)]
    return loss


def all_pairs(phi):
    """Burges et al. 2005, with any loss of a lead."""

    def loop(s, y):
        pairs = itertools.permutations(range(len(s)), 2)
        return sum(phi(s[i] - s[j]) for i, j in pairs if y[i] > y[j])

    return loop


def dcg(gains, ranks):
    return sum(g / math.log2(1 + r) for g, r in zip(gains, ranks, strict=True))


def ideal(y):
    return dcg(np.sort(2**y - 1)[::-1], range(1, len(y) + 1))


def changes_by_swaps(s, y):
    """Burges 2010: the change of NDCG by a swap of each pair, and of nothing else."""
    n, gains = len(s), 2**y - 1
    ranks = np.empty(n)
    ranks[np.argsort(-s)] = 1 + np.arange(n)
    found = np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        swapped = ranks.copy()
        swapped[[i, j]] = ranks[[j, i]]
        change = abs(dcg(gains, ranks) - dcg(gains, swapped))
        found[i, j] = found[j, i] = change / ideal(y)
    return found


def lambda_rank(s, y):
    weights, n = changes_by_swaps(s, y), range(len(s))
    better = [(i, j) for i in n for j in n if y[i] > y[j]]
    return sum(weights[i, j] * math.log1p(math.exp(s[j] - s[i])) for i, j in better)


def smooth_ndcg(temperature):
    """Qin et al. 2010: ranks by sums of sigmoids."""

    def loop(s, y):
        step = lambda x: 1 / (1 + math.exp(-x / temperature))
        ranks = [
            1 + sum(step(other - own) for j, other in enumerate(s) if j != i)
            for i, own in enumerate(s)
        ]
        return 1 - dcg(2**y - 1, ranks) / ideal(y)

    return loop


PHI = {
    "logistic": lambda m: math.log1p(math.exp(-m)),
    "hinge": lambda m: max(0, 1 - m),
}


def ours_of_lambda_rank(scores, relevance):
    weights = jaxloss.ndcg_weights(scores, relevance)
    return jaxloss.pairwise_ranking(scores, relevance, weights=weights)


def test_list_mle():
    ours = jaxloss.list_mle(*whole_orders())
    same(ours, of_each_list(order_by_choice)(*whole_orders()))


@pytest.mark.parametrize("name", PHI)
def test_pairwise_ranking(name):
    margin_fn = getattr(margins, name)
    ours = jaxloss.pairwise_ranking(*graded_lists(), margin_fn=margin_fn)
    same(ours, of_each_list(all_pairs(PHI[name]))(*graded_lists()))


def test_ndcg_weights():
    ours = jaxloss.ndcg_weights(*graded_lists())
    same(ours, of_each_list(changes_by_swaps)(*graded_lists()))


def test_lambda_rank():
    ours = ours_of_lambda_rank(*graded_lists())
    same(ours, of_each_list(lambda_rank)(*graded_lists()))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_approx_ndcg(temperature):
    ours = jaxloss.approx_ndcg(*graded_lists(), temperature=temperature)
    same(ours, of_each_list(smooth_ndcg(temperature))(*graded_lists()))


# --- rax -----------------------------------------------------------------------------


def agree(ours, theirs, lists, factor=1.0):
    """Sums over all lists and their gradients; theirs is `factor` times ours."""
    scores, relevance = lists
    found = [
        jax.value_and_grad(lambda s, loss=loss: jnp.sum(loss(s, relevance)))(scores)
        for loss in (ours, theirs)
    ]
    for own, other in zip(*found, strict=True):
        same(factor * own, other)


def test_list_mle_of_rax(rax):
    theirs = lambda s, y: rax.listmle_loss(s, y, reduce_fn=jnp.sum)
    agree(jaxloss.list_mle, theirs, whole_orders())


@pytest.mark.parametrize("name", PHI)
def test_pairwise_ranking_of_rax(rax, name):
    theirs = getattr(rax, f"pairwise_{name}_loss")
    agree(
        lambda s, y: jaxloss.pairwise_ranking(s, y, margin_fn=getattr(margins, name)),
        lambda s, y: theirs(s, y, reduce_fn=jnp.sum),
        graded_lists(),
    )


def test_lambda_rank_of_rax(rax):
    """Its weights are multiplied by the number of items."""
    weights = lambda *args, **given: jax.lax.stop_gradient(
        rax.dcg_lambdaweight(*args, normalize=True, **given)
    )
    agree(
        ours_of_lambda_rank,
        lambda s, y: rax.pairwise_logistic_loss(
            s, y, lambdaweight_fn=weights, reduce_fn=jnp.sum
        ),
        graded_lists(),
        factor=8,
    )


def test_approx_ndcg_of_rax(rax):
    """What `approx_t12n` makes of its metric, which needs a `jax.util` that is gone."""

    def theirs(s, y):
        ranks = rax.utils.approx_ranks
        return 1 - rax.ndcg_metric(s, y, rank_fn=ranks, reduce_fn=None)

    ours = lambda s, y: jaxloss.approx_ndcg(s, y, temperature=1.0)
    agree(ours, theirs, graded_lists())
