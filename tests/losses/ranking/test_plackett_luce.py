"""The likelihood of an order: worked values, ties, and the partial likelihood."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
SCORES = jnp.log(jnp.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("relevance", "expected"), [([0, 1, 2], 3), ([2, 1, 0], 15), ([1, 1, 0], 18)]
)
def test_worked_values(relevance, expected):
    """6/3 * 3/2; 6/1 * 5/2; and both of the ties against all three."""
    loss = jaxloss.list_mle(SCORES, jnp.array(relevance))
    np.testing.assert_allclose(loss, math.log(expected), rtol=4 * FLOAT32)


def test_nearly_certain():
    loss = jaxloss.list_mle(jnp.array([20.0, 0.0]), jnp.array([1, 0]))
    np.testing.assert_allclose(loss, math.log1p(math.exp(-20)), rtol=4 * FLOAT32)


def test_is_a_partial_likelihood():
    """Of an event of every item, at minus the relevance as time."""
    rng = np.random.default_rng(0)
    s = jnp.asarray(rng.normal(size=(4, 9)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 4, size=(4, 9)), jnp.float32)
    events = jaxloss.cox_ph_breslow(s, -y, jnp.ones(y.shape, bool)).sum(axis=-1)
    np.testing.assert_allclose(jaxloss.list_mle(s, y), events, rtol=4 * FLOAT32)


def test_probabilities_of_all_orders_sum_to_one():
    orders = jnp.array(
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    )
    losses = jaxloss.list_mle(jnp.tile(SCORES, (6, 1)), orders)
    np.testing.assert_allclose(jnp.exp(-losses).sum(), 1, rtol=4 * FLOAT32)


def test_kinds_of_relevance():
    """Booleans, unsigned integers and the least integer are in order, too."""
    right = jaxloss.list_mle(SCORES, jnp.array([0.0, 0.0, 1.0]))
    unsigned, least = np.array([0, 0, 9], np.uint8), -(2**31)
    for y in ([False, False, True], unsigned, np.array([least, least, 2], np.int32)):
        assert jaxloss.list_mle(SCORES, jnp.asarray(y)) == right


def test_masked_items_do_not_exist():
    s, y = jnp.array([0.0, jnp.nan, 1.0, 2.0]), jnp.array([2.0, 1.0, jnp.nan, 0.0])
    where = jnp.array([True, False, False, True])
    loss = lambda s: jaxloss.list_mle(s, y, where=where)
    value, slope = jax.value_and_grad(loss)(s)
    np.testing.assert_allclose(value, math.log1p(math.exp(2)), rtol=4 * FLOAT32)
    assert (slope[1:3] == 0).all()
    assert jnp.isfinite(slope).all()


def test_along_another_axis():
    s = jnp.stack([SCORES, SCORES[::-1]], axis=1)
    y = jnp.array([[0, 1], [1, 1], [2, 0]])
    rows = [jaxloss.list_mle(s[:, i], y[:, i]) for i in (0, 1)]
    np.testing.assert_allclose(jaxloss.list_mle(s, y, axis=0), rows, rtol=FLOAT32)


def test_items_that_cannot_come_first():
    """Probability 0: infinity before another item, nothing after all."""
    s = jnp.array([-jnp.inf, 0.0, 0.0])
    assert jaxloss.list_mle(s, jnp.array([1, 0, 2])) == jnp.inf
    last = jaxloss.list_mle(s, jnp.array([0, 1, 2]))
    np.testing.assert_allclose(last, math.log(2), rtol=4 * FLOAT32)
