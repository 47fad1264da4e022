"""The loss of all pairs: worked values, and the losses that it is."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import margins
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
SCORES, RELEVANCE = jnp.array([2.0, 1.0, 3.0]), jnp.array([1, 0, 2])


def softplus(x):
    return math.log1p(math.exp(x))


def test_worked_value():
    """Two pairs lead by 1, one by 2."""
    expected = 2 * softplus(-1) + softplus(-2)
    assert abs(expected - 0.7534513861) < 1e-10
    loss = jaxloss.pairwise_ranking(SCORES, RELEVANCE)
    np.testing.assert_allclose(loss, expected, rtol=4 * FLOAT32)


def test_hinge_is_the_ranking_svm():
    """All pairs of `margin_ranking`."""
    scores = jnp.array([2.0, 2.5, 3.0])
    loss = jaxloss.pairwise_ranking(scores, RELEVANCE, margin_fn=margins.hinge)
    pairs = jnp.array([[0, 1], [2, 0], [2, 1]])
    higher, lower = scores[pairs].T
    expected = jaxloss.margin_ranking(higher, lower, margin=1.0).sum()
    np.testing.assert_allclose(loss, expected, rtol=4 * FLOAT32)
    assert loss == 1.5 + 0.0 + 0.5


def test_one_relevant_item_is_bpr():
    """The sum over the others of -log sigmoid of its lead."""
    scores = jnp.array([0.5, -1.0, 2.0, 0.0])
    loss = jaxloss.pairwise_ranking(scores, jnp.array([True, False, False, False]))
    expected = sum(softplus(float(x) - 0.5) for x in scores[1:])
    np.testing.assert_allclose(loss, expected, rtol=4 * FLOAT32)


def test_weights_count_pairs():
    """Only those of the pairs in which the first item is the more relevant."""
    weights = jnp.array([[9.0, 2.0, 9.0], [9.0, 9.0, 9.0], [3.0, 5.0, 9.0]])
    loss = lambda s, w: jaxloss.pairwise_ranking(s, RELEVANCE, weights=w)
    value, slope = jax.value_and_grad(loss, 1)(SCORES, weights)
    expected = 2 * softplus(-1) + 3 * softplus(-1) + 5 * softplus(-2)
    np.testing.assert_allclose(value, expected, rtol=4 * FLOAT32)
    of_pairs = [[0, softplus(-1), 0], [0, 0, 0], [softplus(-1), softplus(-2), 0]]
    np.testing.assert_allclose(slope, of_pairs, rtol=4 * FLOAT32)


def test_gradient_of_the_worked_value():
    """`sigmoid(-lead)` of each pair, towards the more relevant item."""
    one, two = 1 / (1 + math.e), 1 / (1 + math.exp(2))
    slope = jax.grad(jaxloss.pairwise_ranking)(SCORES, RELEVANCE)
    np.testing.assert_allclose(slope, [one - one, one + two, -one - two], atol=1e-7)


def test_only_the_order_of_relevance_counts():
    """Booleans, unsigned and large integers too: 2^24 + 1 is above 2^24."""
    two = jnp.array([0.5, 1.0])
    expected = softplus(-0.5)
    large = np.array([2**24, 2**24 + 1], np.int32)
    for y in ([False, True], np.array([0, 9], np.uint8), large):
        loss = jaxloss.pairwise_ranking(two, jnp.asarray(y))
        np.testing.assert_allclose(loss, expected, rtol=4 * FLOAT32)


def test_nothing_to_order_costs_nothing():
    assert jaxloss.pairwise_ranking(SCORES, jnp.ones(3)) == 0
    where = jnp.array([True, False, False])
    assert jaxloss.pairwise_ranking(SCORES, RELEVANCE, where=where) == 0


def test_masked_items_do_not_exist():
    """Nor do the weights of their pairs."""
    nan = jnp.nan
    s, y = jnp.array([2.0, nan, 3.0]), jnp.array([1.0, nan, 2.0])
    weights = jnp.array([[nan, nan, 1.0], [nan] * 3, [2.0, nan, nan]])
    where = jnp.array([True, False, True])
    loss = lambda s, w: jaxloss.pairwise_ranking(s, y, weights=w, where=where)
    value, slopes = jax.value_and_grad(loss, (0, 1))(s, weights)
    np.testing.assert_allclose(value, 2 * softplus(-1), rtol=4 * FLOAT32)
    pull = 2 / (1 + math.e)
    np.testing.assert_allclose(slopes[0], [pull, 0, -pull], rtol=4 * FLOAT32)
    assert jnp.isfinite(slopes[1]).all()


def test_an_unknown_relevance_is_not_silent():
    """In which pairs the item is, nobody knows."""
    y = jnp.array([1.0, jnp.nan, 2.0])
    assert jnp.isnan(jaxloss.pairwise_ranking(SCORES, y))


def test_along_another_axis():
    """The pairs of the weights are last, whatever the axis of the items."""
    s = jnp.stack([SCORES, SCORES[::-1]], axis=1)
    y = jnp.array([[1, 0], [0, 1], [2, 2]])
    weights = jaxloss.ndcg_weights(s, y, axis=0)
    assert weights.shape == (2, 3, 3)
    found = jaxloss.pairwise_ranking(s, y, weights=weights, axis=0)
    rows = [
        jaxloss.pairwise_ranking(s[:, i], y[:, i], weights=weights[i]) for i in (0, 1)
    ]
    np.testing.assert_allclose(found, rows, rtol=FLOAT32)


def test_a_margin_fn_of_a_traced_number():
    """It may close over what is differentiated: here the slope of RankNet."""

    def loss(slope):
        phi = lambda lead: margins.logistic(slope * lead)
        return jaxloss.pairwise_ranking(SCORES, RELEVANCE, margin_fn=phi)

    value, change = jax.jit(jax.value_and_grad(loss))(2.0)
    expected = 2 * softplus(-2) + softplus(-4)
    np.testing.assert_allclose(value, expected, rtol=4 * FLOAT32)
    expected = -2 / (1 + math.exp(2)) - 2 / (1 + math.exp(4))
    np.testing.assert_allclose(change, expected, rtol=4 * FLOAT32)
    every = jax.vmap(loss)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(every[1], value, rtol=4 * FLOAT32)


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(
        ValueError, match=r"`weights` has shape \(3,\); expected \(3, 3\), one weight"
    ):
        jaxloss.pairwise_ranking(SCORES, RELEVANCE, weights=SCORES)
    with pytest.raises(
        ValueError, match=r"`margin_fn` has results of shape \(\) for margins"
    ):
        jaxloss.pairwise_ranking(SCORES, RELEVANCE, margin_fn=jnp.sum)
