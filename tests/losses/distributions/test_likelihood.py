"""Negative log-likelihoods: facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxloss

EPS = 2.0**-52

# --- worked numbers ----------------------------------------------------------------

M, T, S = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(3, 40)))


def close(actual, expected, ulps=8):
    np.testing.assert_allclose(actual, expected, rtol=ulps * EPS, atol=ulps * EPS)


def test_gaussian_is_the_negative_log_density():
    """It is SciPy's normal log-density, negative, constant included."""
    m, t, s = map(np.asarray, (M, T, S))
    density = scipy.stats.norm.logpdf(t, m, np.exp(s / 2))
    close(jaxloss.gaussian_nll(M, T, S), -density, ulps=64)


def test_gaussian_of_variance_one_half_is_squared_error():
    """Of variance 1/2, up to the constant log(pi) / 2; its gradient is 2 (p - t)."""
    s = jnp.full_like(M, np.log(0.5))
    squared = jaxloss.squared_error(M, T)
    close(jaxloss.gaussian_nll(M, T, s) - np.log(np.pi) / 2, squared, ulps=32)
    slope = jax.grad(lambda m: jnp.sum(jaxloss.gaussian_nll(m, T, s)))(M)
    close(slope, 2 * (M - T))


def test_gaussian_learns_the_variance():
    """For a constant error the best log-variance is the log of its square: the slope
    there is 0, and the least loss is that of a Gaussian of that variance."""
    r = jnp.array([1e-10, 0.1, 1.0, 1e10])
    best = 2 * jnp.log(r)
    loss = lambda s: jnp.sum(jaxloss.gaussian_nll(r, jnp.zeros(4), s))
    # 46 roundings of a log-variance of 46, and two of its exponential.
    np.testing.assert_allclose(jax.grad(loss)(best), 0, atol=64 * EPS)
    least = (np.log(2 * np.pi) + 2 * np.log(np.asarray(r)) + 1) / 2
    close(jaxloss.gaussian_nll(r, jnp.zeros(4), best), least, ulps=64)


def test_gaussian_needs_no_smallest_variance():
    """Neither r^2 nor exp(-s), which float32 does not hold, is formed: 1e-30 off at a
    variance of 1e-60 is one standard deviation, as 1e30 off is at one of 1e60."""
    r = jnp.array([1e-30, 1e30], jnp.float32)
    s = 2 * jnp.log(r)
    value, slope = jax.value_and_grad(
        lambda s: jnp.sum(jaxloss.gaussian_nll(r, jnp.zeros_like(r), s))
    )(s)
    # Of each the loss is (log 2 pi + s + 1) / 2, and the two s cancel.
    np.testing.assert_allclose(value, np.log(2 * np.pi) + 1, rtol=1e-4)
    np.testing.assert_allclose(slope, 0, atol=1e-4)


def test_gaussian_without_error():
    """An exact mean costs (log 2 pi + s) / 2 at every s, and pulls nowhere."""
    s = jnp.array([-1e4, -400.0, 0.0, 400.0, 1e4], jnp.float32)
    zero = jnp.zeros_like(s)
    expected = (np.log(2 * np.pi) + np.asarray(s, float)) / 2
    np.testing.assert_allclose(
        jaxloss.gaussian_nll(zero, zero, s), expected, rtol=4 * 2.0**-23
    )
    total = lambda m, s: jnp.sum(jaxloss.gaussian_nll(m, zero, s))
    by_mean, by_variance = jax.grad(total, (0, 1))(zero, s)
    np.testing.assert_array_equal(by_mean, 0)
    np.testing.assert_array_equal(by_variance, 0.5)


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(
        ValueError, match=r"^gaussian_nll: `log_variances` has shape \(\) but `means`"
    ):
        jaxloss.gaussian_nll(M, T, 0.0)


def test_right_and_infinitely_sure():
    """The precision exp(400) is beyond every float; an error of 0 is still none."""
    s = jnp.array([-400.0, 400.0], jnp.float32)
    value, slope = jax.value_and_grad(
        lambda m: jnp.sum(jaxloss.gaussian_nll(m, jnp.ones(2, jnp.float32), s))
    )(jnp.ones(2, jnp.float32))
    np.testing.assert_allclose(value, np.log(2 * np.pi), rtol=1e-5)
    assert jnp.array_equal(slope, jnp.zeros(2))
