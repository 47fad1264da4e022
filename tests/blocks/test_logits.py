"""Logit transforms: what they never change, published identities, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import logits

# --- temperature -----------------------------------------------------------------


@pytest.mark.parametrize("t", [1e-3, 0.3, 1.0, 7.0, 1e4])
def test_temperature_never_changes_the_argmax(t):
    """The largest logit stays the largest, and the order of all stays what it was."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(200, 7)), jnp.float32)
    scaled = logits.temperature(z, temperature=t)
    np.testing.assert_array_equal(jnp.argmax(scaled, -1), jnp.argmax(z, -1))
    assert jnp.all(jnp.diff(jnp.take_along_axis(scaled, jnp.argsort(z), -1)) >= 0)


def test_temperature_softens_and_sharpens():
    """Above 1 the winner's probability falls, below 1 it rises, towards 1/K and 1."""
    z = jnp.array([2.0, 1.0, -1.0])
    p = lambda t: jax.nn.softmax(logits.temperature(z, temperature=t))[0]
    assert p(2.0) < p(1.0) < p(0.5)
    np.testing.assert_allclose(p(1e9), 1 / 3, rtol=1e-8)
    np.testing.assert_array_equal(p(1e-3), 1)


def test_temperature_keeps_excluded_classes():
    """-inf stays -inf, and no gradient through a softmax becomes NaN, at any order."""
    z = jnp.array([1.0, -jnp.inf, 0.0])
    loss = lambda z, t: jaxloss.softmax_cross_entropy(
        logits.temperature(z, temperature=t), 0
    )
    assert logits.temperature(z, temperature=0.5)[1] == -jnp.inf
    value, (by_logit, by_t) = jax.value_and_grad(loss, (0, 1))(z, 2.0)
    kept = jnp.array([1.0, 0.0])
    expected, (slope, expected_t) = jax.value_and_grad(loss, (0, 1))(kept, 2.0)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(by_logit, [slope[0], 0, slope[1]])
    np.testing.assert_array_equal(by_t, expected_t)
    assert jnp.all(jnp.isfinite(jax.hessian(loss, 1)(z, 2.0)))


def test_temperature_broadcasts_within_the_logits():
    """One temperature per row or per class; its gradient has its shape."""
    z = jnp.arange(6.0).reshape(2, 3)
    per_row = jnp.array([[1.0], [2.0]])
    np.testing.assert_array_equal(
        logits.temperature(z, temperature=per_row), z / per_row
    )
    per_class = jnp.array([1.0, 2.0, 4.0])
    slope = jax.grad(lambda t: jnp.sum(logits.temperature(z, temperature=t)))(per_class)
    np.testing.assert_array_equal(slope, -jnp.sum(z, 0) / per_class**2)


def test_temperature_refuses():
    """Temperatures that are not positive or do not fit, and integer logits."""
    with pytest.raises(ValueError, match=r"^temperature: `temperature` is 0"):
        logits.temperature(jnp.ones(3), temperature=0)
    with pytest.raises(ValueError, match=r"^temperature: `temperature` has shape"):
        logits.temperature(jnp.ones(3), temperature=jnp.ones(2))
    with pytest.raises(TypeError, match=r"^temperature: `logits` has dtype int"):
        logits.temperature(np.ones(3, int))


# --- priors ----------------------------------------------------------------------


def test_adjustment_is_bayes_rule():
    """The softmax of the adjusted logits is the posterior under those priors."""
    z, prior = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.7, 0.1, 0.2])
    likelihood = jnp.exp(z) * prior
    np.testing.assert_allclose(
        jax.nn.softmax(logits.adjust_logits(z, prior)),
        likelihood / jnp.sum(likelihood),
        rtol=1e-14,
    )


def test_counts_serve_as_priors():
    """A common factor of the priors shifts all logits alike: the loss is the same."""
    z, counts = jnp.array([[1.0, -2.0, 0.5]]), np.array([900, 90, 10])
    loss = lambda priors: jaxloss.softmax_cross_entropy(
        logits.adjust_logits(z, priors), jnp.array([2])
    )
    np.testing.assert_allclose(loss(counts), loss(counts / 1000), rtol=1e-14)


def test_adjustment_moves_the_decision():
    """Subtracting the priors of a trained model lets the rare class win a near tie."""
    z, prior = jnp.array([1.0, 0.5]), jnp.array([0.9, 0.1])
    assert jnp.argmax(z) == 0
    assert jnp.argmax(logits.adjust_logits(z, prior, strength=-1.0)) == 1
    np.testing.assert_array_equal(logits.adjust_logits(z, prior, strength=0.0), z)


def test_prior_of_zero_is_an_impossible_class():
    """Its logit is -inf, and every gradient of a loss on the others is finite."""
    z, prior = jnp.array([1.0, 2.0, 0.0]), jnp.array([0.5, 0.0, 0.5])
    loss = lambda z, prior, strength: jaxloss.softmax_cross_entropy(
        logits.adjust_logits(z, prior, strength=strength), 0
    )
    assert logits.adjust_logits(z, prior)[1] == -jnp.inf
    np.testing.assert_array_equal(logits.adjust_logits(z, prior, strength=0.0), z)
    slopes = jax.grad(loss, (0, 1, 2))(z, prior, 1.0)
    assert all(bool(jnp.all(jnp.isfinite(s))) for s in slopes)
    np.testing.assert_array_equal(slopes[0][1], 0)
    curvature = jax.hessian(loss, (0, 1, 2))(z, prior, 1.0)
    assert jax.tree.all(
        jax.tree.map(lambda h: bool(jnp.all(jnp.isfinite(h))), curvature)
    )


def test_adjustment_along_any_axis():
    """The class axis is the last one unless said otherwise."""
    z, prior = jnp.ones((2, 3, 4)), jnp.array([1.0, 2.0, 4.0])
    first = logits.adjust_logits(jnp.moveaxis(z, 1, -1), prior)
    np.testing.assert_array_equal(
        logits.adjust_logits(z, prior, axis=1), jnp.moveaxis(first, -1, 1)
    )


def test_adjustment_refuses():
    """Priors of another shape, a strength per class, an axis that is none."""
    z = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=r"^adjust_logits: `priors` has shape \(2,\)"):
        logits.adjust_logits(z, jnp.ones(2))
    with pytest.raises(ValueError, match=r"^adjust_logits: `strength` has shape"):
        logits.adjust_logits(z, jnp.ones(3), strength=jnp.ones(3))
    with pytest.raises(ValueError, match=r"^adjust_logits: `axis` is 2"):
        logits.adjust_logits(z, jnp.ones(3), axis=2)
    with pytest.raises(TypeError, match=r"^adjust_logits: `logits` has dtype int"):
        logits.adjust_logits(np.ones((2, 3), int), jnp.ones(3))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_widened(dtype):
    """The result is float32, the gradient the caller's dtype."""
    z = jnp.ones(3, dtype)
    for fn in (logits.temperature, lambda z: logits.adjust_logits(z, jnp.ones(3))):
        assert fn(z).dtype == jnp.float32
        assert jax.grad(lambda z, fn=fn: jnp.sum(fn(z)))(z).dtype == dtype


def test_strict_promotion():
    """No transform mixes dtypes implicitly, whatever the hyperparameters' own."""
    z = jnp.ones((2, 3), jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        scaled = logits.temperature(z, temperature=jnp.float16(2))
        shifted = logits.adjust_logits(z, np.array([1, 2, 3]), strength=jnp.float32(1))
    assert scaled.dtype == shifted.dtype == jnp.float32
