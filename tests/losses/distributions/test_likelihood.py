"""Negative log-likelihoods: facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn import metrics

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


def test_poisson_is_the_negative_log_probability():
    """With log(t!) it is SciPy's Poisson log-probability, negative."""
    t = np.arange(40) % 7
    probability = scipy.stats.poisson.logpmf(t, np.exp(np.asarray(M)))
    ours = jaxloss.poisson_nll(M, t) + scipy.special.gammaln(t + 1)
    close(ours, -probability, ulps=64)


def test_poisson_is_half_the_deviance():
    """Less its least value it is half of scikit-learn's Poisson deviance."""
    t = np.arange(1, 41) % 7 + 1
    excess = jnp.mean(jaxloss.poisson_nll(M, t)) - np.mean(t - t * np.log(t))
    deviance = metrics.mean_poisson_deviance(t, np.exp(np.asarray(M)))
    close(excess, deviance / 2, ulps=256)


def test_poisson_estimates_the_mean_rate():
    """The slope of the mean loss vanishes where the rate is the mean count."""
    t = jnp.array([0, 1, 1, 2, 6])
    slope = jax.grad(lambda x: jnp.mean(jaxloss.poisson_nll(jnp.full(5, x), t)))
    np.testing.assert_allclose(slope(jnp.log(2.0)), 0, atol=4 * EPS)


def test_poisson_gradient_keeps_its_digits():
    """In float32, at a rate of 1 + 1e-8 and a count of 1 the slope is 1e-8, not 0."""
    slope = jax.grad(jaxloss.poisson_nll)(jnp.float32(1e-8), 1)
    np.testing.assert_allclose(slope, 1e-8, rtol=2 * 2.0**-23)


def test_poisson_rate_of_zero():
    """A log-rate of -inf costs nothing with gradient 0 if nothing was counted, and
    infinity, with a finite gradient, if something was."""
    x, t = jnp.full(2, -jnp.inf), jnp.array([0, 3])
    np.testing.assert_array_equal(jaxloss.poisson_nll(x, t), [0, np.inf])
    slope = lambda x: jax.grad(lambda x: jnp.sum(jaxloss.poisson_nll(x, t)))(x)
    np.testing.assert_array_equal(slope(x), [0, -3])
    _, forward = jax.jvp(lambda x: jaxloss.poisson_nll(x, t), (x,), (jnp.ones(2),))
    np.testing.assert_array_equal(forward, [0, -3])


def test_poisson_takes_integer_and_floating_counts():
    """Counts of any real dtype are cast to that of the log-rates."""
    t = np.arange(40) % 5
    expected = jaxloss.poisson_nll(M, t.astype(float))
    for dtype in (np.int32, np.uint8, np.float32):
        np.testing.assert_array_equal(jaxloss.poisson_nll(M, t.astype(dtype)), expected)


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(
        ValueError, match=r"^gaussian_nll: `log_variances` has shape \(\) but `means`"
    ):
        jaxloss.gaussian_nll(M, T, 0.0)
    with pytest.raises(TypeError, match=r"^poisson_nll: `log_rates` has dtype int64;"):
        jaxloss.poisson_nll(jnp.arange(3), jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"^poisson_nll: `counts` has shape \(3,\) but"
    ):
        jaxloss.poisson_nll(M, jnp.ones(3))


def test_right_and_infinitely_sure():
    """The precision exp(400) is beyond every float; an error of 0 is still none."""
    s = jnp.array([-400.0, 400.0], jnp.float32)
    value, slope = jax.value_and_grad(
        lambda m: jnp.sum(jaxloss.gaussian_nll(m, jnp.ones(2, jnp.float32), s))
    )(jnp.ones(2, jnp.float32))
    np.testing.assert_allclose(value, np.log(2 * np.pi), rtol=1e-5)
    assert jnp.array_equal(slope, jnp.zeros(2))
