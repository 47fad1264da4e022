"""Sums over risk sets: beside sums over all pairs, and in a long row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxloss.losses import _risk_sets
from jaxloss.testing import ulp


def all_pairs(x, key, flags, strata):
    """For each entry the sums of its ties and of those behind them, by a matrix."""
    same = strata[:, None] == strata
    tied = same & (key[:, None] == key) & (flags[:, None] == flags)
    behind = same & ((key > key[:, None]) | ((key == key[:, None]) & flags))
    behind &= ~tied
    np.fill_diagonal(tied, False)
    log_sum = lambda mask: np.log(np.where(mask, np.exp(x), 0).sum(axis=1))
    with np.errstate(divide="ignore"):
        return log_sum(tied), log_sum(behind)


@pytest.mark.parametrize("n", [1, 2, 7, 63, 64, 65, 300])
def test_ties_and_those_behind(n):
    """Of one block of a row, of blocks that it fills, and of blocks of blocks."""
    rng = np.random.default_rng(n)
    x, key = rng.normal(size=n), rng.integers(0, max(2, n // 4), size=n)
    flags, strata = rng.random(n) < 0.5, rng.integers(-1, 2, size=n)
    sets = _risk_sets.by_key(*map(jnp.asarray, (key, flags, strata)))
    ordered = _risk_sets.in_order(jnp.asarray(x), sets.places)
    found = _risk_sets.ties_and_later(ordered, sets)
    expected = all_pairs(x, key, flags, strata)
    for log, want in zip(found, expected, strict=True):
        got = _risk_sets.as_given(log.value, sets.places)
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@functools.cache
def long_row(offset):
    """Numbers in float32, and the losses and the gradient of their sum in float64."""
    x = 3 * np.random.default_rng(0).normal(size=100_000) + offset
    wide = (x := x.astype(np.float32)).astype(np.float64)
    at_risk = np.logaddexp.accumulate(wide[::-1])[::-1]
    losses = np.append(np.logaddexp(0, at_risk[1:] - wide[:-1]), 0)
    # The share of each entry in the sets of all that are before it, and in its own.
    shares = np.exp(wide + np.logaddexp.accumulate(-at_risk))
    return x, losses, shares


def losses_of_row(x):
    sets = _risk_sets.by_key(jnp.arange(x.size))
    return _risk_sets.first_of_set(x, sets)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_row_of_a_hundred_thousand(offset):
    """It loses no digits on the way, wherever the numbers are: 3 ulp."""
    x, true, _ = long_row(offset)
    found = np.asarray(jax.jit(losses_of_row)(x), np.float64)
    assert found[-1] == 0
    assert (np.abs(found - true) <= 3 * ulp(true, np.float32)).all()


def test_rounded_sums_lose_digits():
    """What the library function of JAX makes of the same row."""
    x, true, _ = long_row(1000.0)
    found = np.asarray(lax.cumlogsumexp(x, reverse=True) - x, np.float64)
    assert (np.abs(found - true) / ulp(true, np.float32)).max() > 2000


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_gradient_of_a_hundred_thousand(offset):
    """Of the sum, whose terms are -1 and the shares of each entry: 26 ulp."""
    x, _, shares = long_row(offset)
    found = jax.jit(jax.grad(lambda x: losses_of_row(x).sum()))(x)
    error = np.abs(np.asarray(found, np.float64) - (shares - 1))
    assert (error <= 26 * ulp(1 + shares, np.float32)).all()


def test_memory_grows_with_the_row_and_not_with_its_square():
    """Value and gradient need at most 64 arrays of the length of the row."""
    n = 2**16
    keys = jax.ShapeDtypeStruct((n,), jnp.int32)
    x = jax.ShapeDtypeStruct((n,), jnp.float32)

    def loss(x, keys):
        sets = _risk_sets.by_key(keys)
        ordered = _risk_sets.in_order(x, sets.places)
        return jnp.sum(_risk_sets.first_of_set(ordered, sets))

    program = jax.jit(jax.value_and_grad(loss)).lower(x, keys).compile()
    about = program.memory_analysis()
    assert about is not None
    assert about.temp_size_in_bytes < 64 * 4 * n


def test_descending_keys():
    """The opposite order, also of the least integer, which has no negative."""
    for keys in (
        jnp.array([-(2**31), 5, 2**31 - 1], jnp.int32),
        jnp.array([0, 5, 2**32 - 1], jnp.uint32),
        jnp.array([-jnp.inf, 0.0, 3.0]),
        jnp.array([False, True]),
    ):
        turned = _risk_sets.descending(keys)
        assert turned.dtype == keys.dtype
        np.testing.assert_array_equal(jnp.argsort(turned), np.arange(keys.size)[::-1])
