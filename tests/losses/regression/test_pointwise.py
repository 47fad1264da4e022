"""Squared, absolute and asymmetric errors, and directions: facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

import jaxloss

EPS = 2.0**-52

# --- worked numbers ----------------------------------------------------------------

TARGETS = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
PREDICTIONS = jnp.array([1.1, 2.2, 2.8, 4.1, 4.9])


def close(actual, expected, ulps=8):
    np.testing.assert_allclose(actual, expected, rtol=ulps * EPS, atol=0)


def test_worked_errors():
    """The textbook's five examples, and with an outlier of 14 beside them."""
    squared = lambda p, t: jnp.mean(jaxloss.squared_error(p, t))
    absolute = lambda p, t: jnp.mean(jaxloss.absolute_error(p, t))
    r = np.array([0.1, 0.2, -0.2, 0.1, -0.1])
    # The residuals of 2.2 and 4.9 are rounded 20 times as coarsely as they are large.
    close(squared(PREDICTIONS, TARGETS), 0.022, ulps=64)
    close(absolute(PREDICTIONS, TARGETS), 0.14, ulps=64)
    p, t = jnp.append(PREDICTIONS, 20.0), jnp.append(TARGETS, 6.0)
    close(squared(p, t), (np.sum(r**2) + 14**2) / 6)
    close(squared(p, t), 32.685)
    close(absolute(p, t), 2.45)


def test_worked_prices():
    """Errors of 10, 20, 10, 20: 250 squared (some print 350) and 15 absolute."""
    p, t = jnp.array([290.0, 420, 360, 480]), jnp.array([300.0, 400, 350, 500])
    assert jnp.mean(jaxloss.squared_error(p, t)) == 250
    assert jnp.mean(jaxloss.absolute_error(p, t)) == 15


def test_worked_gradient():
    """The gradient of the mean squared error is 2 (p - t) / n."""
    p = jnp.array([240.0, 320, 390, 360, 480])
    t = jnp.array([250.0, 300, 400, 350, 500])
    value, slope = jax.value_and_grad(
        lambda p: jaxloss.mean(jaxloss.squared_error(p, t))
    )(p)
    assert value == 220
    np.testing.assert_allclose(slope, [-4, 8, -4, 4, -8], rtol=4 * EPS)


def test_linear_fit():
    """Gradient descent on the squared error of y = 2 x reaches the weight 2."""
    x = jnp.array([1.0, 2.0, 3.0, 4.0])
    loss = lambda w: jnp.mean(jaxloss.squared_error(w * x, 2 * x))
    step = lambda _, w: w - 0.05 * jax.grad(loss)(w)
    close(jax.lax.fori_loop(0, 200, step, 0.0), 2)


# --- what they estimate ------------------------------------------------------------

SAMPLE = np.random.default_rng(0).gamma(2.0, size=101)


def best_constant(loss):
    """The constant at which the mean loss over the sample has slope 0, by bisection."""
    slope = jax.jit(
        jax.grad(lambda c: jnp.mean(loss(jnp.full(SAMPLE.shape, c), SAMPLE)))
    )
    low, high = SAMPLE.min(), SAMPLE.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


def test_squared_error_estimates_the_mean():
    """The best constant prediction is the mean."""
    close(best_constant(jaxloss.squared_error), SAMPLE.mean(), ulps=64)


def test_absolute_error_estimates_the_median():
    """The best constant prediction is the median."""
    close(best_constant(jaxloss.absolute_error), np.median(SAMPLE))


@pytest.mark.parametrize("q", [0.1, 0.5, 0.77])
def test_pinball_estimates_the_quantile(q):
    """The best constant is the sample quantile: the smallest x with a share >= q."""
    found = best_constant(lambda p, t: jaxloss.pinball(p, t, quantile=q))
    close(found, np.quantile(SAMPLE, q, method="inverted_cdf"))


@pytest.mark.parametrize("q", [0.1, 0.5, 0.77])
def test_expectile_estimates_the_expectile(q):
    """The best constant is the published expectile; the mean at 1/2."""
    found = best_constant(lambda p, t: jaxloss.expectile(p, t, expectile=q))
    np.testing.assert_allclose(
        found, scipy.stats.expectile(SAMPLE, q), rtol=64 * EPS, atol=0
    )


def test_log_error_estimates_the_geometric_mean():
    """The best constant is the geometric mean of 1 + x, less 1."""
    found = best_constant(jaxloss.squared_log_error)
    close(found, scipy.stats.gmean(1 + SAMPLE) - 1, ulps=64)


def test_likelihoods():
    """Squared error is the log-density of a Gaussian of variance 1/2, absolute error
    that of a Laplace distribution of scale 1, up to constants."""
    p, t = jnp.linspace(-3, 3, 13), jnp.zeros(13)
    gaussian = scipy.stats.norm.logpdf(t, p, np.sqrt(0.5))
    np.testing.assert_allclose(
        jaxloss.squared_error(p, t),
        -gaussian - np.log(np.pi) / 2,
        atol=16 * EPS,
    )
    laplace = scipy.stats.laplace.logpdf(t, p)
    np.testing.assert_allclose(
        jaxloss.absolute_error(p, t), -laplace - np.log(2), atol=8 * EPS
    )


# --- relations ---------------------------------------------------------------------

P, T = (jnp.asarray(x) for x in np.random.default_rng(1).normal(size=(2, 40)))


def test_halves():
    """At 1/2, pinball and expectile are half the absolute and the squared error, and
    the quantile Huber loss is half the Huber loss."""
    np.testing.assert_array_equal(
        jaxloss.pinball(P, T), jaxloss.absolute_error(P, T) / 2
    )
    np.testing.assert_array_equal(
        jaxloss.expectile(P, T), jaxloss.squared_error(P, T) / 2
    )
    np.testing.assert_array_equal(jaxloss.quantile_huber(P, T), jaxloss.huber(P, T) / 2)


def test_quantile_huber_becomes_pinball():
    """Divided by a tiny delta it is the pinball loss, up to delta / 2."""
    huber = jaxloss.quantile_huber(P, T, quantile=0.8, delta=1e-9) / 1e-9
    np.testing.assert_allclose(huber, jaxloss.pinball(P, T, quantile=0.8), atol=0.5e-9)


def test_sides_swap():
    """Swapping predictions and targets swaps the quantile with its rest."""
    for fn, name in (
        (jaxloss.pinball, "quantile"),
        (jaxloss.expectile, "expectile"),
        (jaxloss.quantile_huber, "quantile"),
    ):
        np.testing.assert_array_equal(
            fn(P, T, **{name: 0.25}), fn(T, P, **{name: 0.75})
        )


def test_agrees_with_scikit_learn():
    """The means are scikit-learn's metrics, where those are defined."""
    p, t = jnp.abs(P), jnp.abs(T)
    for fn, metric in (
        (jaxloss.squared_error, metrics.mean_squared_error),
        (jaxloss.absolute_error, metrics.mean_absolute_error),
        (jaxloss.squared_log_error, metrics.mean_squared_log_error),
        (
            jaxloss.absolute_percentage_error,
            metrics.mean_absolute_percentage_error,
        ),
    ):
        close(jnp.mean(fn(p, t)), metric(np.asarray(t), np.asarray(p)), ulps=16)
    close(
        jnp.mean(jaxloss.pinball(P, T, quantile=0.9)),
        metrics.mean_pinball_loss(np.asarray(T), np.asarray(P), alpha=0.9),
        ulps=16,
    )


def test_several_quantiles_at_once():
    """One quantile per column, as a vector, is one call per column."""
    p = jnp.stack([P, P + 1], axis=-1)
    t = jnp.stack([T, T], axis=-1)
    both = jaxloss.pinball(p, t, quantile=jnp.array([0.1, 0.9]))
    np.testing.assert_array_equal(
        both[:, 0], jaxloss.pinball(P, T, quantile=jnp.asarray(0.1))
    )
    np.testing.assert_array_equal(
        both[:, 1], jaxloss.pinball(P + 1, T, quantile=jnp.asarray(0.9))
    )


# --- edges -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        jaxloss.absolute_error,
        jaxloss.pinball,
        jaxloss.absolute_percentage_error,
    ],
)
def test_is_at_rest_on_the_target(fn):
    """At the kink the gradient is 0 in both arguments, as is the second derivative."""
    x = jnp.array([0.0, 1.0, -3.0])
    total = lambda p, t: jnp.sum(fn(p, t))
    for slope in jax.grad(total, (0, 1))(x, x):
        np.testing.assert_array_equal(slope, 0)
    np.testing.assert_array_equal(jax.hessian(total)(x, x), 0)


def test_percentage_of_nothing():
    """Infinite where only the target is 0, 0 where both are; a mask on the losses
    removes both, from the gradient too."""
    p, t = jnp.array([1.0, 0.0, 3.0]), jnp.array([0.0, 0.0, 2.0])
    np.testing.assert_array_equal(
        jaxloss.absolute_percentage_error(p, t), [np.inf, 0, 0.5]
    )
    masked = lambda p: jaxloss.mean(
        jaxloss.absolute_percentage_error(p, t), where=t != 0
    )
    value, slope = jax.value_and_grad(masked)(p)
    assert value == 0.5
    np.testing.assert_array_equal(slope, [0, 0, 0.5])


def test_log_of_nothing():
    """A prediction of -1 is infinitely wrong; tiny amounts keep their digits."""
    assert jaxloss.squared_log_error(jnp.float32(-1), jnp.float32(0)) == jnp.inf
    np.testing.assert_allclose(
        jaxloss.squared_log_error(jnp.float32(1e-15), jnp.float32(0)),
        1e-30,
        rtol=4 * 2.0**-23,
    )


def test_half_precision_is_widened():
    """A half-precision residual is exact in float32, and its gradient is half again."""
    p, t = jnp.array([300.0], jnp.float16), jnp.array([1.0], jnp.float16)
    loss = jaxloss.squared_error(p, t)
    assert loss.dtype == jnp.float32
    assert loss[0] == 299**2  # more than float16 holds
    slope = jax.grad(lambda p: jnp.sum(jaxloss.squared_error(p, t)))(p)
    assert slope.dtype == jnp.float16
    assert slope[0] == 598


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(ValueError, match=r"^pinball: `quantile` is 1.5; .*\(0, 1\)\.$"):
        jaxloss.pinball(P, T, quantile=1.5)
    with pytest.raises(ValueError, match=r"^expectile: `expectile` is 0; .*\(0, 1\)"):
        jaxloss.expectile(P, T, expectile=0)
    with pytest.raises(
        ValueError, match=r"^squared_error: `targets` has shape \(40, 1\) but `predict"
    ):
        jaxloss.squared_error(P, T[:, None])
    with pytest.raises(TypeError, match=r"^absolute_error: `targets` has dtype int32;"):
        jaxloss.absolute_error(P, jnp.arange(40, dtype=jnp.int32))


def test_quantile_huber_whose_huber_overflows():
    """The share of a side is taken before the product with delta."""
    r, zero = np.array([1e38, -3e37], np.float32), np.zeros(2, np.float32)
    params = {"quantile": 0.99, "delta": 10.0}
    values = jaxloss.quantile_huber(r, zero, **params)
    np.testing.assert_allclose(values, [0.01 * 1e39, 0.99 * 3e38], 8 * 1.2e-7)
    slopes = jax.vmap(jax.grad(lambda r: jaxloss.quantile_huber(r, 0 * r, **params)))(r)
    np.testing.assert_allclose(slopes, [0.1, -9.9], 1e-6)
