"""Penalties and entropy: identities, pytrees, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.testing import tolerance

# --- penalties -------------------------------------------------------------------

TREE = {"kernel": jnp.array([[3.0, -4.0], [0.0, 1.0]]), "bias": jnp.array([-2.0])}


def test_penalties_by_hand():
    """Sums over every leaf of the tree; l2 is not halved."""
    assert jaxloss.l1(TREE) == 3 + 4 + 1 + 2
    assert jaxloss.l2(TREE) == 9 + 16 + 1 + 4
    assert jaxloss.elastic_net(TREE, l1_ratio=0.25) == 0.25 * 10 + 0.75 * 30
    assert jaxloss.l2(TREE["bias"]) == 4


def test_gradients_by_hand():
    """sign(w) with 0 at 0, and 2 w."""
    slopes = jax.grad(jaxloss.l1)(TREE)
    np.testing.assert_array_equal(slopes["kernel"], [[1, -1], [0, 1]])
    np.testing.assert_array_equal(slopes["bias"], [-1])
    slopes = jax.grad(jaxloss.l2)(TREE)
    np.testing.assert_array_equal(slopes["kernel"], 2 * TREE["kernel"])
    slopes = jax.grad(jaxloss.elastic_net)(TREE)
    np.testing.assert_array_equal(slopes["kernel"], [[3.5, -4.5], [0, 1.5]])


def test_elastic_net_contains_both():
    """A share of 1 is l1, a share of 0 is l2; its slope is their difference."""
    assert jaxloss.elastic_net(TREE, l1_ratio=1.0) == jaxloss.l1(TREE)
    assert jaxloss.elastic_net(TREE, l1_ratio=0.0) == jaxloss.l2(TREE)
    slope = jax.grad(lambda r: jaxloss.elastic_net(TREE, l1_ratio=r))
    for share in (0.0, 0.5, 1.0):
        assert slope(share) == jaxloss.l1(TREE) - jaxloss.l2(TREE)


def test_elastic_net_whose_squares_overflow():
    """A share of the squares may be a number where they are none; no share is 0 of
    them, not 0 times infinity."""
    w = np.array([2e19, -3e18, 1e-20], np.float32)
    value, slope = jax.value_and_grad(jaxloss.elastic_net)(w, l1_ratio=1.0)
    np.testing.assert_allclose(value, 2.3e19, tolerance(np.float32))
    np.testing.assert_array_equal(slope, [1, -1, 1])
    value = jaxloss.elastic_net(w, l1_ratio=0.75)
    want = 0.25 * (4e38 + 9e36) + 0.75 * 2.3e19
    np.testing.assert_allclose(value, want, tolerance(np.float32))


def test_l1_finds_zeros_and_l2_does_not():
    """Of (w - a)^2 + penalty: l1 gives max(0, a - 1/2), l2 gives a / 2."""
    a = jnp.array([0.25, 2.0])

    def fitted(penalty):
        w = jnp.full(2, 0.6)
        for step in 0.5 ** np.arange(1, 25):
            for _ in range(4):
                slope = jax.grad(lambda w: jnp.sum((w - a) ** 2) + penalty(w))(w)
                w = w - step * slope
        return w

    np.testing.assert_allclose(fitted(jaxloss.l1), [0, 1.5], atol=1e-6)
    np.testing.assert_allclose(fitted(jaxloss.l2), [0.125, 1.0], rtol=1e-6)


@pytest.mark.parametrize("penalty", [jaxloss.l1, jaxloss.l2, jaxloss.elastic_net])
class TestEveryPenalty:
    def test_sums_in_float32(self, penalty):
        """4096 ones in half precision sum to 4096, with gradients in that dtype."""
        for dtype in (jnp.bfloat16, jnp.float16):
            w = {"a": jnp.ones(4095, dtype), "b": jnp.ones((), dtype)}
            value, slope = jax.value_and_grad(penalty)(w)
            assert value.dtype == jnp.float32
            assert value == 4096
            assert {x.dtype for x in jax.tree.leaves(slope)} == {jnp.dtype(dtype)}

    def test_mixes_dtypes(self, penalty):
        """The widest leaf decides the dtype of the result."""
        w = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float64)}
        assert penalty(w).dtype == jnp.float64
        assert penalty(w) == 4

    def test_is_zero_without_parameters(self, penalty):
        """An empty tree costs 0, in the default float."""
        for empty in ({}, (), None):
            assert penalty(empty) == 0
            assert penalty(empty).dtype == jnp.result_type(float)

    def test_names_what_it_refuses(self, penalty):
        """An integer or boolean leaf is refused by its path, also while tracing."""
        for leaf in (np.zeros(2, int), np.zeros(2, bool)):
            tree = {"layers": [{"w": np.ones(2)}, {"count": leaf}]}
            path = r"`params\['layers'\]\[1\]\['count'\]`"
            with pytest.raises(
                TypeError, match=rf"^{penalty.__name__}: {path} has dtype"
            ):
                jax.eval_shape(penalty, tree)

    def test_transforms(self, penalty):
        """Compiled, batched and by hand: the same number."""
        w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
        one_by_one = [penalty({"w": row}) for row in w]
        np.testing.assert_allclose(
            jax.jit(jax.vmap(lambda w: penalty({"w": w})))(w), one_by_one, rtol=1e-15
        )


def test_elastic_net_refuses():
    """A share outside [0, 1] or one per parameter is refused."""
    with pytest.raises(ValueError, match=r"^elastic_net: `l1_ratio` is 1\.5"):
        jaxloss.elastic_net(TREE, l1_ratio=1.5)
    with pytest.raises(ValueError, match=r"^elastic_net: `l1_ratio` has shape"):
        jaxloss.elastic_net(TREE, l1_ratio=jnp.ones(2))


# --- entropy ---------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_entropy_of_equal_logits(classes):
    """log K wherever the logits lie, and at rest: the gradient is exactly 0."""
    for level in (0.0, 0.1, -1e4, 3e38):
        z = jnp.full(classes, level, jnp.float32)
        value, slope = jax.value_and_grad(jaxloss.entropy)(z)
        np.testing.assert_allclose(value, np.log(classes), rtol=3e-7)
        np.testing.assert_array_equal(slope, 0)


def test_entropy_of_a_certain_prediction():
    """From a lead of 20 on it is e^-20 (1 + 20), not 0, and its slope -20 e^-20."""
    z = jnp.array([20.0, 0.0], jnp.float32)
    tail = np.exp(-20.0)
    p = tail / (1 + tail)
    value, slope = jax.value_and_grad(jaxloss.entropy)(z)
    np.testing.assert_allclose(value, np.log1p(tail) + 20 * p, rtol=1e-6)
    np.testing.assert_allclose(slope, [-20 * p * (1 - p), 20 * p * (1 - p)], rtol=1e-6)


def test_gradient_as_documented():
    """-p (log p + H), which sums to 0."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)))
    value, slope = jax.vmap(jax.value_and_grad(jaxloss.entropy))(z)
    log_p = jax.nn.log_softmax(z)
    np.testing.assert_allclose(
        slope, -jnp.exp(log_p) * (log_p + value[:, None]), rtol=1e-12
    )
    np.testing.assert_allclose(jnp.sum(slope, axis=1), 0, atol=1e-15)


def test_entropy_is_cross_entropy_with_itself():
    """H(p) = cross entropy of p against p, between 0 and log K."""
    z = jnp.asarray(3 * np.random.default_rng(1).normal(size=(6, 5)))
    p = np.asarray(jax.nn.softmax(z))
    np.testing.assert_allclose(
        jaxloss.entropy(z), -np.sum(p * np.log(p), 1), rtol=1e-13
    )
    assert np.all(jaxloss.entropy(z) >= 0)
    assert np.all(jaxloss.entropy(z) <= np.log(5))


def test_excluded_classes_do_not_exist():
    """-inf and a false mask leave the entropy of the others, gradients and Hessian."""
    z = jnp.array([1.0, -0.5, 2.0])
    wide = jnp.insert(z, 1, -jnp.inf)
    where = jnp.array([True, False, True, True])
    masked = lambda x: jaxloss.entropy(x, where=where)
    for fn, x in ((jaxloss.entropy, wide), (masked, jnp.nan_to_num(wide))):
        np.testing.assert_array_equal(fn(x), jaxloss.entropy(z))
        slope, curvature = jax.grad(fn)(x), jax.hessian(fn)(x)
        np.testing.assert_array_equal(slope[where], jax.grad(jaxloss.entropy)(z))
        assert slope[1] == 0
        np.testing.assert_allclose(
            jnp.delete(jnp.delete(curvature, 1, 0), 1, 1),
            jax.hessian(jaxloss.entropy)(z),
            rtol=1e-12,
        )
        np.testing.assert_array_equal(curvature[1], 0)


def test_entropy_of_nothing():
    """Without any class value and gradient are 0; NaN behind a mask does not show."""
    nothing = jnp.full((2, 3), -jnp.inf)
    np.testing.assert_array_equal(jaxloss.entropy(nothing), 0)
    slope = jax.grad(lambda z: jnp.sum(jaxloss.entropy(z)))(nothing)
    np.testing.assert_array_equal(slope, 0)
    z, where = jnp.array([jnp.nan, 1.0]), jnp.array([False, True])
    value, slope = jax.value_and_grad(lambda z: jaxloss.entropy(z, where=where))(z)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    assert jnp.isnan(jaxloss.entropy(z))


def test_entropy_of_a_pytree():
    """A tree of logits gives the tree of their entropies, each with its own mask."""
    z = {"a": jnp.zeros((2, 3)), "b": [jnp.zeros(4)]}
    got = jaxloss.entropy(z)
    np.testing.assert_allclose(got["a"], [np.log(3)] * 2, rtol=1e-15)
    np.testing.assert_allclose(got["b"][0], np.log(4), rtol=1e-15)
    masks = jax.tree.map(lambda x: jnp.ones_like(x, bool).at[..., 0].set(False), z)
    got = jaxloss.entropy(z, where=masks)
    np.testing.assert_allclose(got["a"], [np.log(2)] * 2, rtol=1e-15)
    np.testing.assert_allclose(got["b"][0], np.log(3), rtol=1e-15)


def test_entropy_along_any_axis():
    """The class axis is the last one unless said otherwise."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)))
    np.testing.assert_array_equal(
        jaxloss.entropy(z, axis=1), jaxloss.entropy(jnp.moveaxis(z, 1, -1))
    )


def test_entropy_refuses():
    """Integers, an axis that is none, a mask that is none or does not fit."""
    with pytest.raises(TypeError, match=r"^entropy: `logits` has dtype int"):
        jaxloss.entropy(np.ones(3, int))
    with pytest.raises(ValueError, match=r"^entropy: `axis` is 1"):
        jaxloss.entropy(jnp.ones(3), axis=1)
    with pytest.raises(TypeError, match=r"^entropy: `where` has dtype float"):
        jaxloss.entropy(jnp.ones(3), where=jnp.ones(3))
    with pytest.raises(ValueError, match=r"^entropy: `where` has shape \(2,\)"):
        jaxloss.entropy(jnp.ones(3), where=jnp.ones(2, bool))


def test_strict_promotion():
    """Leaves of different dtypes are widened by a cast, not by promotion."""
    w = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}
    with jax.numpy_dtype_promotion("strict"):
        assert (
            jaxloss.l1(w)
            == jaxloss.l2(w)
            == jaxloss.elastic_net(w, l1_ratio=jnp.float16(1))
            == 4
        )
        assert jaxloss.entropy(w["a"]).dtype == jnp.float32
