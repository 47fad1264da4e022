"""Likelihoods of counts and amounts: facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn import metrics

import jaxloss

EPS = 2.0**-52
M = jnp.asarray(np.random.default_rng(0).normal(size=(3, 40))[0])


def close(actual, expected, ulps=8):
    np.testing.assert_allclose(actual, expected, rtol=ulps * EPS, atol=ulps * EPS)


# --- Poisson -----------------------------------------------------------------------


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


def test_poisson_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(TypeError, match=r"^poisson_nll: `log_rates` has dtype int64;"):
        jaxloss.poisson_nll(jnp.arange(3), jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"^poisson_nll: `counts` has shape \(3,\) but"
    ):
        jaxloss.poisson_nll(M, jnp.ones(3))
