"""Likelihoods of counts and amounts: facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
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


# --- negative binomial -------------------------------------------------------------


def of_one(loss, *args, **more):
    """A loss of numbers, in float32."""
    given = (jnp.full(1, x, jnp.float32) for x in args)
    return float(loss(*given, **more)[0])


@pytest.mark.parametrize(
    ("t", "mean", "dispersion", "expected"),
    [
        (3, np.e, 0.5, 1.984634847),
        (3, np.e, 1e-8, 1.510041312),
        (3, np.e, 0.0, 1.510041298),
        (0, 1.0, 1.0, np.log(2)),
    ],
)
def test_negative_binomial_of_one_count(t, mean, dispersion, expected):
    """Where the difference of two `gammaln` gives 54 at a dispersion of 1e-8."""
    with np.errstate(divide="ignore"):
        x, d = np.log(mean), np.log(dispersion)
    found = of_one(jaxloss.negative_binomial_nll, x, t, d)
    np.testing.assert_allclose(found, expected, rtol=4 * 2.0**-23)


def test_negative_binomial_is_the_negative_log_probability():
    """SciPy's, with n = 1 / alpha and p = n / (n + mean)."""
    rng = np.random.default_rng(1)
    x, d = rng.normal(size=60), rng.normal(size=60)
    t, size = rng.integers(0, 20, size=60), np.exp(-d)
    probability = scipy.stats.nbinom.logpmf(t, size, size / (size + np.exp(x)))
    found = jaxloss.negative_binomial_nll(x, t, d)
    np.testing.assert_allclose(found, -probability, rtol=1e-12)


def test_negative_binomial_without_dispersion_is_poisson():
    """With its constant `log(t!)`, and no gradient in the dispersion."""
    t = jnp.arange(40) % 7
    none = jnp.full(40, -jnp.inf)
    full = jaxloss.poisson_nll(M, t) + scipy.special.gammaln(np.asarray(t) + 1)
    close(jaxloss.negative_binomial_nll(M, t, none), full, ulps=64)
    slope = jax.grad(lambda d: jaxloss.negative_binomial_nll(M, t, d).sum())(none)
    np.testing.assert_array_equal(slope, 0)


def test_negative_binomial_of_one_of_size_is_geometric():
    """P(t) = p (1 - p)^t with p = 1 / (1 + mean)."""
    t, mean = np.arange(30), 2.5
    p = 1 / (1 + mean)
    found = jaxloss.negative_binomial_nll(np.full(30, np.log(mean)), t, np.zeros(30))
    close(found, -np.log(p) - t * np.log1p(-p), ulps=16)


def test_negative_binomial_keeps_the_digits_of_large_counts():
    """In float32, though `gammaln` of its counts is 1e7: 2 ulp of some 7 nats."""
    t = np.array([1e3, 1e5, 1e6])
    size, mean = 20.0, 1.1 * t
    expected = scipy.stats.nbinom.logpmf(t, size, size / (size + mean))
    x, t = jnp.float32(np.log(mean)), jnp.float32(t)
    d = jnp.full(3, -np.log(size), jnp.float32)
    found = jaxloss.negative_binomial_nll(x, t, d)
    np.testing.assert_allclose(found, -expected, rtol=4 * 2.0**-23)


def test_negative_binomial_mean_of_zero():
    """It costs nothing if nothing was counted, and infinity otherwise."""
    x, t, d = jnp.full(2, -jnp.inf), jnp.array([0, 3]), jnp.zeros(2)
    np.testing.assert_array_equal(jaxloss.negative_binomial_nll(x, t, d), [0, np.inf])
    slope = jax.grad(lambda x: jaxloss.negative_binomial_nll(x, t, d).sum())(x)
    np.testing.assert_array_equal(slope, [0, -3])


def test_negative_binomial_of_a_huge_mean():
    """The mean is nearly all of it, as of a Poisson distribution."""
    x = jnp.array([85.0, 85.0], jnp.float32)
    d = jnp.array([-jnp.inf, -120.0], jnp.float32)
    found = jaxloss.negative_binomial_nll(x, jnp.array([3, 0]), d)
    np.testing.assert_allclose(found, np.exp(85.0), rtol=3e-6)


# --- Tweedie and gamma -------------------------------------------------------------

POSITIVE = jnp.exp(jnp.asarray(np.random.default_rng(2).normal(size=40)))


def test_tweedie_of_one_amount():
    """The number of the textbook, of which the loss leaves out two terms."""
    left_out = 2 / 0.5 + 1 / 0.5
    found = of_one(jaxloss.tweedie_deviance, 0.3, 2.0, power=1.5) + left_out
    np.testing.assert_allclose(found, 5.766500391, rtol=2.0**-22)


@pytest.mark.parametrize("power", [1.5, 1.9, 3.0])
def test_tweedie_is_half_the_deviance(power):
    """scikit-learn's, of which the differences between two means are compared."""
    loss = lambda x: float(jnp.mean(jaxloss.tweedie_deviance(x, POSITIVE, power=power)))
    theirs = lambda x: metrics.mean_tweedie_deviance(
        np.asarray(POSITIVE), np.exp(np.asarray(x)), power=power
    )
    np.testing.assert_allclose(
        loss(M) - loss(0 * M), (theirs(M) - theirs(0 * M)) / 2, rtol=1e-11
    )


def test_tweedie_ends_in_other_losses():
    """Power 0 is half the squared error of the mean, 1 Poisson, 2 gamma; each less
    what it is at a mean of 1."""
    t = POSITIVE
    differs = lambda loss: loss(M) - loss(0 * M)
    for power, loss in (
        (0.0, lambda x: jaxloss.squared_error(jnp.exp(x), t) / 2),
        (1.0, lambda x: jaxloss.poisson_nll(x, t)),
        (2.0, lambda x: jaxloss.gamma_nll(x, t, shape=1.0)),
    ):
        close(jaxloss.tweedie_deviance(M, t, power=power), differs(loss), ulps=128)


def test_tweedie_mean_of_zero():
    """Infinite from a power of 1 on, unless the target is 0 as well."""
    none, power = jnp.full(4, -jnp.inf), jnp.array([1.0, 1.5, 2.0, 3.0])
    found = jaxloss.tweedie_deviance(none, jnp.ones(4), power=power)
    np.testing.assert_array_equal(found, np.inf)
    loss = lambda x: jaxloss.tweedie_deviance(x, 0.0, power=1.5)
    assert jax.value_and_grad(loss)(-jnp.inf) == (-2, 0)


def test_tweedie_overflows_to_infinity():
    """In float32, and not to inf - inf."""
    x = jnp.array([-90.0, 89.0, 200.0], jnp.float32)
    power = jnp.array([3.0, 0.0, 0.5], jnp.float32)
    found = jaxloss.tweedie_deviance(x, jnp.ones(3), power=power)
    np.testing.assert_array_equal(found, np.inf)


def test_tweedie_is_continuous_in_its_power():
    """In float32 and its first two derivatives, through 1 and 2."""
    loss = lambda p: jaxloss.tweedie_deviance(jnp.float32(0.7), 3.0, power=p)
    for power in (1.0, 2.0):
        for fn in (loss, jax.grad(loss), jax.grad(jax.grad(loss))):
            here, beside = fn(jnp.float32(power)), fn(jnp.float32(power + 2e-7))
            np.testing.assert_allclose(here, beside, rtol=4e-6)


def test_gamma_of_one_amount():
    found = of_one(jaxloss.gamma_nll, 1.0, 1.0, shape=2.0)
    np.testing.assert_allclose(found, 1.349464521, rtol=2.0**-22)


def test_gamma_is_the_negative_log_density():
    """SciPy's, of shape k and scale mean / k, from far below to far above 1."""
    t, mean = np.asarray(POSITIVE), np.exp(np.asarray(M))
    for k in (0.1, 1.0, 7.5, 400.0):
        density = scipy.stats.gamma.logpdf(t, k, scale=mean / k)
        found = jaxloss.gamma_nll(M, t, shape=k)
        np.testing.assert_allclose(found, -density, rtol=1e-11)


def test_gamma_learns_its_shape():
    """The best shape solves digamma(k) - log k = mean(log t) - log(mean(t))."""
    t, log_mean = POSITIVE, jnp.full(40, jnp.log(jnp.mean(POSITIVE)))
    slope = jax.grad(lambda k: jnp.mean(jaxloss.gamma_nll(log_mean, t, shape=k)))
    gap = np.mean(np.log(t)) - np.log(np.mean(t))
    equation = lambda k: scipy.special.digamma(k) - np.log(k) - gap
    best = scipy.optimize.brentq(equation, 0.1, 10, xtol=1e-14)
    np.testing.assert_allclose(slope(best), 0, atol=1e-13)
