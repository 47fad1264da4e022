"""The losses for NDCG: worked values, bounds, and hard ranks as the limit."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
SCORES, RELEVANCE = jnp.array([2.0, 1.0, 3.0]), jnp.array([1, 0, 2])


def ndcg(scores, relevance, k=None):
    """Of hard ranks, by sorting."""
    gains = 2.0 ** np.asarray(relevance, float) - 1
    discounts = 1 / np.log2(2 + np.arange(len(gains)))
    discounts[len(gains) if k is None else k :] = 0
    order = np.argsort(-np.asarray(scores), kind="stable")
    return gains[order] @ discounts / (np.sort(gains)[::-1] @ discounts)


# --- weights of pairs ----------------------------------------------------------------


def test_worked_weights():
    """Gains 1, 0, 3; discounts 1 / log2 3, 1/2, 1."""
    second = 1 / math.log2(3)
    ideal = 3 + second
    expected = np.array([[0, second - 0.5, 2 * (1 - second)], [0, 0, 1.5], [0, 0, 0]])
    expected = (expected + expected.T) / ideal
    published = expected[0, 1], expected[2, 0], expected[2, 1]
    np.testing.assert_allclose(published, [0.03605956668, 0.203292419, 0.4131173286])
    found = jaxloss.ndcg_weights(SCORES, RELEVANCE)
    np.testing.assert_allclose(found, expected, rtol=8 * FLOAT32)


@pytest.mark.parametrize("k", [None, 1, 3, 9])
def test_weights_are_what_a_swap_changes(k):
    """Of NDCG at any rank, by sorting."""
    rng = np.random.default_rng(0)
    s, y = rng.normal(size=6), rng.integers(0, 4, size=6)
    found = jaxloss.ndcg_weights(s, y, k=k)
    for i, j in itertools.combinations(range(6), 2):
        swapped = s.copy()
        swapped[[i, j]] = s[[j, i]]
        change = abs(ndcg(s, y, k) - ndcg(swapped, y, k))
        np.testing.assert_allclose(found[i, j], change, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(found[j, i], change, rtol=1e-12, atol=1e-15)


def test_weights_far_down_a_list_are_accurate():
    """Neighbours at rank 1000, whose discounts differ by 3e-6 of their size."""
    s, y = jnp.arange(2000.0)[::-1], (jnp.arange(2000) == 999).astype(int)
    found = jaxloss.ndcg_weights(s, y)[999, 1000]
    expected = (1 / np.log2(np.float64(1001)) - 1 / np.log2(np.float64(1002))) / 1.0
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    found = jaxloss.ndcg_weights(s.astype(jnp.float32), y)[999, 1000]
    np.testing.assert_allclose(found, expected, rtol=8 * FLOAT32)


def test_weights_are_constants():
    """Of the scores and of the relevance."""
    total = lambda s, y: jnp.sum(jaxloss.ndcg_weights(s, y))
    slopes = jax.grad(total, (0, 1))(SCORES, RELEVANCE.astype(float))
    np.testing.assert_array_equal(slopes, 0)


def test_no_relevance_no_weights():
    np.testing.assert_array_equal(jaxloss.ndcg_weights(SCORES, jnp.zeros(3)), 0)
    gone = jaxloss.ndcg_weights(SCORES, RELEVANCE, where=jnp.zeros(3, bool))
    np.testing.assert_array_equal(gone, 0)


def test_weights_of_masked_items():
    """They have no rank, and their pairs no weight."""
    nan = jnp.nan
    s, y = jnp.array([2.0, nan, 1.0, 3.0]), jnp.array([1.0, nan, 0.0, 2.0])
    where = jnp.array([True, False, True, True])
    found = jaxloss.ndcg_weights(s, y, where=where)
    expected = jaxloss.ndcg_weights(SCORES, RELEVANCE)
    left = jnp.array([0, 2, 3])
    np.testing.assert_allclose(found[left][:, left], expected, rtol=FLOAT32)
    np.testing.assert_array_equal(found[1], 0)
    np.testing.assert_array_equal(found[:, 1], 0)


# --- soft ranks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relevance", "temperature", "expected"),
    [
        ([1, 0, 2], 1.0, 0.1683469185),
        ([0, 1, 2], 1.0, 0.1934613352),
        ([0, 1, 2], 0.1, 0.0360854965),
    ],
)
def test_worked_losses(relevance, temperature, expected):
    """By the formula as it is published, and to the digits that are known."""
    s, gains = np.asarray(SCORES, float), 2.0 ** np.array(relevance) - 1
    sigmoids = 1 / (1 + np.exp(-(s - s[:, None]) / temperature))
    ranks = 1 + sigmoids.sum(axis=1) - 0.5
    ideal = np.sort(gains)[::-1] @ (1 / np.log2([2, 3, 4]))
    formula = 1 - gains @ (1 / np.log2(1 + ranks)) / ideal
    np.testing.assert_allclose(formula, expected, rtol=3e-9)
    y = jnp.array(relevance)
    found = jaxloss.approx_ndcg(SCORES, y, temperature=temperature)
    np.testing.assert_allclose(found, formula, rtol=1e-13)


def test_cold_ranks_are_hard():
    """At a low temperature it is 1 - NDCG by sorting."""
    rng = np.random.default_rng(1)
    s, y = rng.permuted(np.tile(np.arange(8.0), (5, 1)), axis=1), rng.integers(0, 4, 40)
    y = y.reshape(5, 8)
    found = jaxloss.approx_ndcg(s, y, temperature=0.01)
    expected = [1 - ndcg(*row) for row in zip(s, y, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_soft_ranks_never_beat_the_ideal_order():
    """They are the scores of a tournament: a convex sum is largest at a permutation."""
    rng = np.random.default_rng(2)
    s = rng.normal(size=(500, 7)) * 10 ** rng.uniform(-2, 2, size=(500, 1))
    y = rng.integers(0, 5, size=(500, 7))
    losses = jaxloss.approx_ndcg(s, y, temperature=1.0)
    assert (losses >= 0).all()
    assert (losses <= 1).all()


def test_nearly_perfect():
    """One relevant item of two, 20 temperatures above: rank 1 + 2.06e-9."""
    late = math.exp(-20) / (1 + math.exp(-20))
    expected = math.log1p(late / 2) / (math.log(2) + math.log1p(late / 2))
    for dtype, rtol in ((jnp.float64, 1e-13), (jnp.float32, 8 * FLOAT32)):
        s = jnp.array([20.0, 0.0], dtype)
        found = jaxloss.approx_ndcg(s, jnp.array([1, 0]), temperature=1.0)
        np.testing.assert_allclose(found, expected, rtol=rtol)


def test_long_lists_in_single_precision():
    """Sums of 300 sigmoids, and an ideal rank far from the soft one."""
    rng = np.random.default_rng(3)
    s = rng.normal(size=(6, 300)).astype(np.float32)
    y = rng.integers(0, 4, size=(6, 300))
    both = [
        jaxloss.approx_ndcg(s.astype(dtype), y, temperature=0.25)
        for dtype in (np.float32, np.float64)
    ]
    np.testing.assert_allclose(*both, rtol=16 * FLOAT32)


def test_relevance_whose_power_overflows():
    """Gains count by their ratio alone: 2^300 and 2^298 as 4 and 1 nearly."""
    s, where = jnp.array([0.0, 1.0]), jnp.ones(2, bool)
    rank = 1 + 1 / (1 + math.exp(-1))
    dcg = 4 / math.log2(1 + rank) + 1 / math.log2(1 + 3 - rank)
    expected = 1 - dcg / (4 + 1 / math.log2(3))
    for dtype, rtol in ((jnp.float64, 1e-13), (jnp.float32, 8 * FLOAT32)):
        found = jaxloss.approx_ndcg(
            s.astype(dtype), jnp.array([300, 298]), temperature=1.0, where=where
        )
        np.testing.assert_allclose(found, expected, rtol=rtol)


def test_no_relevance_costs_nothing():
    loss = lambda s: jaxloss.approx_ndcg(s, jnp.zeros(3), temperature=1.0)
    value, slope = jax.value_and_grad(loss)(SCORES)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


def test_items_that_are_never_first():
    """Scores of -inf are equal to each other and below all others."""
    inf = jnp.inf
    s, y = jnp.array([-inf, 0.0, -inf]), jnp.array([0, 1, 0])
    loss = lambda s: jaxloss.approx_ndcg(s, y, temperature=1.0)
    value, slope = jax.value_and_grad(loss)(s)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    relevant = jaxloss.approx_ndcg(s, jnp.array([1, 0, 0]), temperature=1.0)
    np.testing.assert_allclose(relevant, 1 - 1 / math.log2(3.5), rtol=1e-13)


def test_masked_items_are_in_no_rank():
    nan = jnp.nan
    s, y = jnp.array([2.0, nan, 1.0, 3.0]), jnp.array([1.0, nan, 0.0, 2.0])
    where = jnp.array([True, False, True, True])
    loss = lambda s: jaxloss.approx_ndcg(s, y, temperature=1.0, where=where)
    value, slope = jax.value_and_grad(loss)(s)
    plain = lambda s: jaxloss.approx_ndcg(s, RELEVANCE, temperature=1.0)
    expected, rest = jax.value_and_grad(plain)(SCORES)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(slope, [rest[0], 0, *rest[1:]], rtol=1e-14)


def test_one_temperature_for_each_list():
    s, y = jnp.stack([SCORES, SCORES]), jnp.stack([RELEVANCE, RELEVANCE])
    found = jaxloss.approx_ndcg(s, y, temperature=jnp.array([1.0, 0.5]))
    rows = [jaxloss.approx_ndcg(SCORES, RELEVANCE, temperature=t) for t in (1.0, 0.5)]
    np.testing.assert_allclose(found, rows, rtol=1e-14)
    along = jaxloss.approx_ndcg(s.T, y.T, temperature=jnp.array([1.0, 0.5]), axis=0)
    np.testing.assert_allclose(along, rows, rtol=1e-14)
