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


# --- Laplace and Student's t -------------------------------------------------------


def test_laplace_is_the_negative_log_density():
    m, t, s = map(np.asarray, (M, T, S))
    close(
        jaxloss.laplace_nll(M, T, S),
        -scipy.stats.laplace.logpdf(t, m, np.exp(s)),
        ulps=64,
    )
    r, half = jnp.array([0.7]), jnp.log(jnp.array([0.5]))
    close(jaxloss.laplace_nll(r, 0 * r, half), 1.4)


def test_laplace_of_one_is_absolute_error():
    """Of scale 1, up to log 2: value and gradient, at the kink too."""
    zero = jnp.zeros_like(M)
    close(
        jaxloss.laplace_nll(M, T, zero) - np.log(2),
        jaxloss.absolute_error(M, T),
        ulps=32,
    )
    assert jax.grad(lambda m: jaxloss.laplace_nll(m, 1.0, 0.0))(1.0) == 0


def test_student_t_is_the_negative_log_density():
    m, t, s = map(np.asarray, (M, T, S))
    for nu in (0.5, 1.0, 3.0, 30.0):
        density = scipy.stats.t.logpdf(t, nu, m, np.exp(s))
        found = jaxloss.student_t_nll(M, T, S, degrees=nu)
        np.testing.assert_allclose(found, -density, rtol=1e-12)


def test_student_t_of_any_degrees():
    """In float32, where the difference of two `gammaln` gives 0.876 at 1e7."""
    nu = jnp.array([5, 1, 1e7, jnp.inf], jnp.float32)
    r, zero = jnp.full(4, 0.7, jnp.float32), jnp.zeros(4, jnp.float32)
    found = jaxloss.student_t_nll(r, zero, zero, degrees=nu)
    expected = [1.249090618, 1.543506006, 1.163938577, 1.163938533]
    np.testing.assert_allclose(found, expected, rtol=2 * 2.0**-23)


def test_student_t_of_infinite_degrees_is_gaussian():
    """Value, and the gradient in every argument; the slope in the degrees is 0."""
    loss = lambda m, t, s: jaxloss.student_t_nll(m, t, s, degrees=jnp.inf).sum()
    gaussian = lambda m, t, s: jaxloss.gaussian_nll(m, t, 2 * s).sum()
    close(loss(M, T, S), gaussian(M, T, S), ulps=64)
    for ours, theirs in zip(
        jax.grad(loss, (0, 1, 2))(M, T, S),
        jax.grad(gaussian, (0, 1, 2))(M, T, S),
        strict=True,
    ):
        close(ours, theirs, ulps=64)
    slope = jax.grad(lambda nu: jaxloss.student_t_nll(M, T, S, degrees=nu).sum())
    assert slope(jnp.inf) == 0


def test_student_t_of_far_outliers():
    """Through log |z|: no square overflows; and their gradient goes to 0."""
    r, zero = jnp.array([1e20], jnp.float32), jnp.zeros(1, jnp.float32)
    loss = lambda r: jaxloss.student_t_nll(r, zero, zero, degrees=3.0).sum()
    np.testing.assert_allclose(loss(r), 183.0104717, rtol=2.0**-23)
    np.testing.assert_allclose(jax.grad(loss)(r), 4e-20, rtol=2 * 2.0**-23)


# --- mixtures ----------------------------------------------------------------------


def test_mixture_of_two_halves():
    """Of N(0, 1) and N(1, 1), at 0.5; by SciPy's densities."""
    nlls = jaxloss.gaussian_nll(
        jnp.array([0.0, 1.0]), jnp.array([0.5, 0.5]), jnp.zeros(2)
    )
    densities = scipy.stats.norm.pdf(0.5, [0, 1], 1)
    found = jaxloss.mixture_nll(jnp.zeros(2), nlls)
    close(found, -np.log(np.mean(densities)))
    np.testing.assert_allclose(found, 1.043938533, rtol=1e-9)


def test_mixture_of_one_component_is_that_component():
    """Bit for bit: with one, or with others whose weight is -inf."""
    nlls = jnp.asarray(np.random.default_rng(4).normal(size=(20, 1)), jnp.float32)
    one = jaxloss.mixture_nll(jnp.full_like(nlls, 3.7), nlls)
    np.testing.assert_array_equal(one, nlls[:, 0])
    others = jnp.concatenate([nlls, jnp.full((20, 2), jnp.inf)], axis=1)
    weights = jnp.broadcast_to(jnp.array([0.3, -jnp.inf, -jnp.inf]), others.shape)
    found = jaxloss.mixture_nll(weights.astype(jnp.float32), others)
    np.testing.assert_array_equal(found, nlls[:, 0])


def test_mixture_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(ValueError, match=r"^mixture_nll: `component_nlls` has shape"):
        jaxloss.mixture_nll(jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"no component along axis"):
        jaxloss.mixture_nll(jnp.zeros((3, 0)), jnp.zeros((3, 0)))
    with pytest.raises(ValueError, match=r"^student_t_nll: `degrees` is 0"):
        jaxloss.student_t_nll(M, T, S, degrees=0)
