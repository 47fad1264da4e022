"""Huber and its relatives, and Barron's family: facts."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import HuberRegressor, LinearRegression

import jaxloss

EPS = 2.0**-52

# --- worked numbers ----------------------------------------------------------------


def close(actual, expected, ulps=8):
    np.testing.assert_allclose(actual, expected, rtol=ulps * EPS, atol=0)


def test_worked_huber():
    """The textbook's five examples, and with an outlier of 14: (0.055 + 13.5) / 6."""
    t, p = jnp.array([1.0, 2, 3, 4, 5]), jnp.array([1.1, 2.2, 2.8, 4.1, 4.9])
    # The residuals of 2.2 and 4.9 are rounded 20 times as coarsely as they are large.
    close(jnp.mean(jaxloss.huber(p, t)), 0.011, ulps=64)
    t, p = jnp.append(t, 6.0), jnp.append(p, 20.0)
    close(jnp.mean(jaxloss.huber(p, t)), (5 * 0.011 + 14 - 0.5) / 6)


def test_worked_smooth_l1():
    """PyTorch's smooth L1 (beta 0.5) and Huber (delta 0.5) of residuals 0.3 and 2."""
    r, zero = jnp.array([0.3, 2.0]), jnp.zeros(2)
    close(jaxloss.smooth_l1(r, zero, beta=0.5), [0.09, 1.75])
    close(jaxloss.huber(r, zero, delta=0.5), [0.045, 0.875])


def test_line_with_outliers():
    """Of 200 points with slope 3, ten have +50: least squares is drawn away, Huber
    stays, and both are where scikit-learn's estimators are."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 200)
    y = 3 * x + 0.5 * rng.normal(size=200)
    y[-10:] += 50

    def fit(loss):
        mean = lambda w: jnp.mean(loss(w[0] * x + w[1], jnp.asarray(y)))
        step = lambda _, w: w - 0.5 * jax.grad(mean)(w)
        return jax.lax.fori_loop(0, 3000, step, jnp.zeros(2))

    column = x[:, None]
    least = fit(jaxloss.squared_error)
    huber = fit(lambda p, t: jaxloss.huber(p, t, delta=1.35 * 0.5))
    close(least[0], LinearRegression().fit(column, y).coef_[0], ulps=256)
    assert abs(least[0] - 3) > 5
    assert abs(huber[0] - 3) < 0.5
    theirs = HuberRegressor(epsilon=1.35, alpha=0, tol=1e-8).fit(column, y)
    # They estimate the scale too, so that the two agree in what they withstand only.
    assert abs(huber[0] - theirs.coef_[0]) < 0.2


# --- relations ---------------------------------------------------------------------

P, T = (jnp.asarray(x) for x in 3 * np.random.default_rng(1).normal(size=(2, 40)))


def test_wide_huber_is_half_the_squared_error():
    """With delta beyond every residual, up to an infinite one, nothing is linear."""
    half = jaxloss.squared_error(P, T) / 2
    np.testing.assert_array_equal(jaxloss.huber(P, T, delta=1e9), half)
    np.testing.assert_array_equal(jaxloss.huber(P, T, delta=jnp.asarray(jnp.inf)), half)


def test_smooth_l1_is_huber_over_beta():
    """For every beta; and for beta 0 it is the absolute error, gradient and all."""
    for beta in (0.1, 1.0, 7.0):
        close(
            jaxloss.smooth_l1(P, T, beta=beta), jaxloss.huber(P, T, delta=beta) / beta
        )
    sharp = lambda p, t: jaxloss.smooth_l1(p, t, beta=0.0)
    np.testing.assert_array_equal(sharp(P, T), jaxloss.absolute_error(P, T))
    at = jnp.append(P, T[0]), jnp.append(T, T[0])
    total = lambda fn: lambda p: jnp.sum(fn(p, at[1]))
    np.testing.assert_array_equal(
        jax.grad(total(sharp))(at[0]), jax.grad(total(jaxloss.absolute_error))(at[0])
    )


def test_tiny_beta_is_not_flushed():
    """At beta 1e-30, whose square float32 does not hold, the loss is still right."""
    r = jnp.array([0.0, 1e-31, 1.0], jnp.float32)
    loss = jaxloss.smooth_l1(r, jnp.zeros_like(r), beta=1e-30)
    np.testing.assert_allclose(loss, [0, 0.5e-32, 1], rtol=4 * 2.0**-23, atol=0)


def test_agrees_with_optax():
    """Huber and log-cosh are optax's, where that is accurate."""
    close(jaxloss.huber(P, T, delta=0.7), optax.losses.huber_loss(P, T, delta=0.7), 64)
    close(jaxloss.log_cosh(P, T), optax.losses.log_cosh(P, T), 64)


def test_log_cosh_lies_between():
    """Below half the squared error, and less than log 2 below the absolute one."""
    loss, size = jaxloss.log_cosh(P, T), jaxloss.absolute_error(P, T)
    assert jnp.all(loss <= size**2 / 2)
    assert jnp.all((size - np.log(2) <= loss) & (loss <= size))


def test_log_cosh_of_a_tiny_residual():
    """In float32, 3e-8 costs 4.5e-16 and not 6e-8, and never less than 0."""
    loss = jaxloss.log_cosh(jnp.float32(3e-8), jnp.float32(0))
    np.testing.assert_allclose(loss, 4.5e-16, rtol=4 * 2.0**-23)
    r = jnp.geomspace(1e-5, 1e-3, 100, dtype=jnp.float32)
    assert jnp.all(jaxloss.log_cosh(r, jnp.zeros_like(r)) > 0)


def test_tube_is_free():
    """Inside the tube and on its edge: loss 0 and gradient 0; beyond it, the rest."""
    r, zero = jnp.array([0.0, 0.25, -0.25, 1.0]), jnp.zeros(4)
    loss = lambda r: jaxloss.epsilon_insensitive(r, zero, epsilon=0.25)
    np.testing.assert_array_equal(loss(r), [0, 0, 0, 0.75])
    np.testing.assert_array_equal(jax.grad(lambda r: jnp.sum(loss(r)))(r), [0, 0, 0, 1])
    no_tube = jaxloss.epsilon_insensitive(P, T, epsilon=0.0)
    np.testing.assert_array_equal(no_tube, jaxloss.absolute_error(P, T))


@pytest.mark.parametrize("fn", [jaxloss.huber, jaxloss.smooth_l1, jaxloss.log_cosh])
def test_outlier_is_not_squared(fn):
    """A residual whose square overflows has a finite loss and a slope of 1."""
    value, slope = jax.value_and_grad(fn)(jnp.float32(1e30), jnp.float32(0))
    np.testing.assert_allclose(value, 1e30, rtol=2.0**-22)
    assert slope == 1


def test_tiny_slope_is_not_rounded():
    """Huber's gradient at 1e-8 is 1e-8, where adding and taking delta away gives 0."""
    slope = jax.grad(lambda r: jaxloss.huber(r, jnp.float32(0), delta=100.0))
    assert slope(jnp.float32(1e-8)) == jnp.float32(1e-8)


# --- Barron's family ---------------------------------------------------------------

R = jnp.asarray(np.concatenate([np.linspace(-4, 4, 33), [1e-6, 30.0, -400.0]]))
Z = np.asarray(R) ** 2


def robustly(alpha, scale: float | jax.Array = 1.0):
    return jaxloss.general_robust(R, jnp.zeros_like(R), alpha=alpha, scale=scale)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (2, Z / 2),
        (1, np.sqrt(Z + 1) - 1),
        (0, np.log1p(Z / 2)),
        (-2, 2 * Z / (Z + 4)),
        (-np.inf, -np.expm1(-Z / 2)),
        (4, Z / 2 + Z**2 / 8),
    ],
)
def test_members_of_the_family(alpha, expected):
    """Squared, Charbonnier, Cauchy, Geman-McClure, Welsch; and a quartic."""
    # The formula above of Charbonnier cancels.
    size = 1.0 if alpha == 1 else 0.0
    jaxloss.testing.assert_close(robustly(alpha), expected, ulps=16, size=size)


def test_infinite_alpha():
    """At +inf it is exp(z/2) - 1, infinite where that is; -1e15 is as good as -inf."""
    ordinary = Z < 100
    close(robustly(np.inf)[ordinary], np.expm1(Z[ordinary] / 2), ulps=64)
    np.testing.assert_array_equal(robustly(np.inf)[-1], np.inf)
    np.testing.assert_allclose(robustly(-1e15), robustly(-np.inf), rtol=1e-13)


def test_limits_are_approached():
    """Beside 0 and 2 the loss differs from that at 0 and 2 by what alpha does."""
    for limit, step in ((0.0, 1e-9), (2.0, 1e-9)):
        # The slope in alpha is less than z log(z / b), b the distance from 2.
        slack = step * (1 + Z * (1 + np.abs(np.log(1 + Z / step))))
        for alpha in (limit - step, limit + step):
            assert np.all(np.abs(robustly(alpha) - robustly(limit)) <= slack)


def test_is_monotone_in_alpha():
    """A larger alpha never costs less: the slope in alpha is positive."""
    alphas = jnp.array([-1e3, -3, -1, -1e-7, 0, 1e-7, 0.5, 1, 1.5, 2, 2.5, 4])
    losses = jax.vmap(robustly)(alphas)
    assert jnp.all(jnp.diff(losses, axis=0) >= -4 * EPS * losses[1:])
    slopes = jax.vmap(jax.jacfwd(robustly))(alphas)
    assert jnp.all(jnp.isfinite(slopes))
    assert jnp.all(slopes[:, R != 0] > 0)
    np.testing.assert_array_equal(slopes[:, R == 0], 0)


def test_slope_in_alpha_is_continuous_through_zero():
    """Nothing happens to it at 0."""
    slope = jax.jit(jax.jacfwd(robustly))
    np.testing.assert_allclose(slope(-1e-9), slope(0.0), rtol=1e-6)
    np.testing.assert_allclose(slope(1e-9), slope(0.0), rtol=1e-6)


def test_slope_in_alpha_at_two():
    """Infinite in truth; what is given is that of the float below: about
    z / 4 (log(z / eps) - 2) for ordinary residuals."""
    slope = jax.jacfwd(robustly)(2.0)
    far = Z > 1e-3
    expected = Z / 4 * (np.log(np.where(far, Z, 1) / EPS) - 2)
    np.testing.assert_allclose(slope[far], expected[far], rtol=1e-9)
    assert jnp.all(jnp.isfinite(slope))


def test_outliers_in_alpha():
    """The gradient of 1e30 is: as large as it, 1, vanishing; and none squares it."""
    gradient = jax.vmap(
        jax.value_and_grad(lambda r, a: jaxloss.general_robust(r, 0 * r, alpha=a)),
        (None, 0),
    )
    value, slope = gradient(
        jnp.float32(1e30), jnp.array([2, 1, 0, -2, -jnp.inf], jnp.float32)
    )
    expected = [np.inf, 1e30, 2 * np.log(1e30) - np.log(2), 2, 1]
    np.testing.assert_allclose(value, expected, rtol=4 * 2.0**-23)
    np.testing.assert_allclose(slope, [1e30, 1, 2e-30, 0, 0], rtol=4 * 2.0**-23)


@pytest.mark.parametrize("alpha", [2, 0, -0.0, -2, -math.inf])
def test_residuals_that_are_no_numbers(alpha):
    """A NaN is not lost, and infinity costs the limit, which may be infinite."""
    r = jnp.array([jnp.nan, -jnp.nan, jnp.inf, -jnp.inf], jnp.float32)
    loss = lambda r: jaxloss.general_robust(r, jnp.zeros_like(r), alpha=alpha)
    far = {-2: 2, -math.inf: 1}.get(alpha, math.inf)
    np.testing.assert_array_equal(loss(r), [np.nan, np.nan, far, far])
    slope = jax.grad(lambda r: loss(r).sum())
    assert jnp.all(jnp.isnan(slope(r)[:2]))
    assert jnp.all(jnp.isnan(jax.grad(lambda r: slope(r).sum())(r)[:2]))


def test_scale_is_a_unit():
    """Residual and scale in other units give the same loss."""
    losses = jaxloss.general_robust(8 * R, jnp.zeros_like(R), alpha=0.7, scale=8.0)
    np.testing.assert_array_equal(losses, robustly(0.7))


def test_shape_per_element():
    """One alpha and one scale for every element, as for every output of a network."""
    alpha = jnp.linspace(-2, 2, R.size)
    scale = jnp.linspace(0.5, 2, R.size)
    at_once = robustly(alpha, scale)
    one = lambda r, a, c: jaxloss.general_robust(r, 0 * r, alpha=a, scale=c)
    close(at_once, jax.vmap(one)(R, alpha, scale), ulps=16)


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(ValueError, match=r"^huber: `delta` is 0; .* in \(0, inf\)\.$"):
        jaxloss.huber(P, T, delta=0)
    with pytest.raises(ValueError, match=r"^smooth_l1: `beta` is -1; .*\[0, inf\)"):
        jaxloss.smooth_l1(P, T, beta=-1)
    with pytest.raises(ValueError, match=r"^general_robust: `scale` has shape \(3,\);"):
        jaxloss.general_robust(P, T, scale=jnp.ones(3))
    with pytest.raises(TypeError, match=r"^log_cosh: `predictions` has dtype int64;"):
        jaxloss.log_cosh(jnp.arange(40), T)


@pytest.mark.parametrize(
    ("predictions", "targets", "error", "remedy"),
    [
        ((3, 1), (3,), ValueError, "; use `predictions[..., 0]`"),
        ((3,), (3, 1), ValueError, "; use `targets[..., 0]`"),
        ((3, 2), (3,), ValueError, ""),
        ((3, 1), (1, 3), ValueError, ""),
    ],
)
def test_a_column_is_told_how_to_become_a_vector(predictions, targets, error, remedy):
    """Of an axis of size 1 there is one way out; of other shapes nothing is said."""
    text = f"expected equal shapes (nothing is broadcast){remedy}."
    with pytest.raises(error, match=re.escape(text) + "$"):
        jaxloss.huber(jnp.ones(predictions), jnp.ones(targets))


@pytest.mark.parametrize("dtype", [int, bool, np.uint8])
def test_integers_are_told_how_to_become_numbers(dtype):
    """Both arguments of a residual are floating."""
    x, integers = jnp.ones(3, jnp.float32), np.ones(3, dtype)
    message = (
        r"^huber: `targets` has dtype .*; use `targets\.astype\(jnp\.float32\)`\.$"
    )
    with pytest.raises(TypeError, match=message):
        jaxloss.huber(x, integers)
    assert (jaxloss.huber(x, integers.astype(jnp.float32)) == 0).all()
