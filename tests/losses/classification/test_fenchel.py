"""Losses of sparse predictions: definitions, published values, identities, edges."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import entmax15, fenchel_young, sparsemax
from jaxloss.claims.classification import fenchel
from jaxloss.claims.classification.cross_entropy import distributions
from jaxloss.claims.classification.fenchel import logits
from jaxloss.testing import assert_close, tolerance

INF = jnp.inf
POWERS = {sparsemax: 1, entmax15: 2}


def by_row(loss):
    """Value, gradient in both arguments and Hessian in the logits of each row."""
    one = lambda z, y: (
        *jax.value_and_grad(loss, (0, 1))(z, y),
        jax.jacfwd(jax.grad(loss))(z, y),
    )
    return jax.jit(jax.vmap(one))


DERIVED = {loss: by_row(loss) for loss in POWERS}
both = pytest.mark.parametrize("loss", POWERS)

# --- definitions, many classes -----------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
def test_the_formulas_are_the_definition(power):
    """What the formulas predict is on the simplex, and no point between it and another
    one is better."""
    gain = lambda p, z: float(fenchel.dot(p, z) - fenchel.omega(p, power))
    mix = lambda p, q, part: [a + part * (b - a) for a, b in zip(p, q, strict=True)]
    others = np.random.default_rng(0).dirichlet(np.ones(4), size=5)
    for row in (*logits()[:8], np.zeros(4)):
        z = [mp.mpf(float(v)) for v in row]
        p = fenchel.probabilities(z, power)
        assert min(p) >= 0
        assert abs(mp.fsum(p) - 1) < 1e-14
        for q in (*others, *np.eye(4)):
            near, far = (gain(mix(p, q, part), z) for part in (1e-3, 0.5))
            assert max(near, far) <= gain(p, z) + 1e-12


def bisected(z, power):
    """The probabilities, in float64, by halving the interval of the threshold."""
    z = z / power - z.max() / power
    low, high = -1.0, 0.0
    for _ in range(60):
        tau = (low + high) / 2
        more = np.sum(np.maximum(z - tau, 0) ** power) > 1
        low, high = (tau, high) if more else (low, tau)
    return np.maximum(z - low, 0) ** power


@both
def test_many_classes(loss):
    """One class in front of 20 000 that share the rest: the probabilities sum to 1 to
    the last bits, and each of them is right."""
    noise, power = 1e-4 * np.random.default_rng(0).random(20_000), POWERS[loss]
    run = jax.jit(lambda z: predict(loss, z))
    for level in (-0.9, -0.3):
        z = power * np.append(0.0, level + noise).astype(np.float32)
        found, expected = run(z), bisected(z.astype(float), power)
        assert np.sum(expected > 0) > 100
        np.testing.assert_allclose(np.sum(found, dtype=float), 1, rtol=3e-7)
        size = expected[1:].max()
        np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6 * size)


# --- published values, identities --------------------------------------------------


def predict(loss, z):
    """The gradient at the first class, plus 1 there."""
    return jax.grad(loss)(z, 0).at[0].add(1)


def test_published_probabilities():
    """Those of [-2, 0, 0.5] in the documentation of the package entmax."""
    z = jnp.array([-2.0, 0.0, 0.5])
    np.testing.assert_array_equal(predict(sparsemax, z), [0, 0.25, 0.75])
    np.testing.assert_allclose(predict(entmax15, z), [0, 0.3260, 0.6740], atol=5e-5)


def test_two_classes():
    """Sparsemax of two logits is JAX's sparse_plus of the difference."""
    d = jnp.linspace(-3, 3, 25)
    z = jnp.stack([jnp.zeros_like(d), d], axis=-1)
    losses = sparsemax(z, jnp.zeros(25, int))
    np.testing.assert_allclose(losses, jax.nn.sparse_plus(d), atol=1e-15)


def test_agrees_with_optax():
    """Sparsemax, its gradient and the generic loss are optax's, on ordinary logits."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(30, 5)))
    y = jnp.arange(30) % 5
    near = lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance(z.dtype, 4))
    run = lambda loss: jax.jit(jax.value_and_grad(lambda z: jnp.sum(loss(z, y))))(z)
    theirs = run(optax.losses.multiclass_sparsemax_loss)
    for ours, expected in zip(run(sparsemax), theirs, strict=True):
        near(ours / 30, expected / 30)
    w, total = jax.nn.one_hot(y, 5), jax.nn.logsumexp
    expected = optax.losses.make_fenchel_young_loss(cast("Any", total))(z, w)
    near(fenchel_young(z, w, max_fun=total), expected)


@both
def test_ids_are_one_hot_distributions(loss):
    """Bit for bit, in value and gradient."""
    z, y = jnp.asarray(logits(), jnp.float32), jnp.arange(12) % 4
    run = jax.jit(jax.value_and_grad(lambda z, y: jnp.sum(loss(z, y))))
    hard, soft = run(z, y), run(z, jax.nn.one_hot(y, 4, dtype=z.dtype))
    jax.tree.map(np.testing.assert_array_equal, hard, soft)


@both
def test_a_lead_is_enough(loss):
    """With a lead of 1, or of 2, the loss and its gradient are 0; with less, not."""
    lead, rest = POWERS[loss], np.array([0.0, 0.0, -1.0])
    z = np.resize([[lead, *rest], [lead + 9, *rest], [lead - 1e-3, *rest]], (12, 4))
    value, (slope, _), _ = DERIVED[loss](z, np.tile(np.eye(4)[0], (12, 1)))
    np.testing.assert_array_equal(value[:3] == 0, [True, True, False])
    np.testing.assert_array_equal(np.all(slope[:3] == 0, 1), [True, True, False])


@both
def test_a_sum_of_labels_weighs(loss):
    """Weights instead of a distribution multiply the loss; without any it is 0."""
    z, w = logits(), distributions(12)
    once, four_times = DERIVED[loss](z, w), DERIVED[loss](z, 4 * w)
    assert_close(four_times[0], 4 * once[0], ulps=4)
    assert_close(four_times[2], 4 * once[2], ulps=4)
    value, (by_logit, by_label), curve = DERIVED[loss](z, 0 * w)
    for found in (value, by_logit, curve):
        np.testing.assert_array_equal(found, 0)
    assert np.all(np.isfinite(by_label))


@both
def test_knows_differences_only(loss):
    """A shift that is exact changes no bit, up to where nothing but ties is left."""
    z = np.array([[0.25, 0.0, -0.5, -4.0]], np.float32)
    w = np.array([[0.5, 0.25, 0.125, 0.125]], np.float32)
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    same(DERIVED[loss](z + np.float32(2**14), w), DERIVED[loss](z, w))
    same(DERIVED[loss](0 * z + np.float32(1e30), w), DERIVED[loss](0 * z, w))


def test_published_failures():
    """Ties at 1e30 have probabilities 1/3; at 1e4 the loss keeps its digits."""
    y = jnp.zeros((), int)
    slope = jax.grad(sparsemax)(jnp.full(3, 1e30, jnp.float32), y)
    np.testing.assert_allclose(slope, [-2 / 3, 1 / 3, 1 / 3], rtol=3e-7)
    z = jnp.array([1e4 + 0.5, 1e4, 1e4 - 2], jnp.float32)
    assert sparsemax(z, y) == 0.0625


@both
def test_second_derivatives_in_reverse_mode(loss):
    """Transposed, the derivative of the threshold keeps the digits of classes that are
    nearly sure, and of those that are nearly not."""
    z = np.array([0.0, 2.0**-15 - 1, -1.5], np.float32) * POWERS[loss]
    found = jax.jit(jax.jacrev(jax.jacfwd(loss)))(z, 0)
    truth = fenchel.hessian([mp.mpf(float(v)) for v in z], 0, POWERS[loss])
    assert_close(found, np.array(truth, float), jnp.float32, ulps=4)


# --- edges -------------------------------------------------------------------------


@both
def test_impossible_classes_do_not_exist(loss):
    """A logit of -inf leaves the loss of the others, in every derivative."""
    z, w = logits(3), distributions(12, 3)
    wide, weights = np.insert(z, 1, -INF, axis=1), np.insert(w, 1, 0, axis=1)
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)
    value, slopes, curve = DERIVED[loss](wide, weights)
    expected, expected_slopes, expected_curve = DERIVED[loss](z, w)
    near(value, expected)
    for found, truth in zip(slopes, expected_slopes, strict=True):
        near(np.delete(found, 1, axis=1), truth)
        np.testing.assert_array_equal(found[:, 1], 0)
    near(np.delete(np.delete(curve, 1, axis=1), 1, axis=2), expected_curve)
    np.testing.assert_array_equal([curve[:, 1], curve[:, :, 1]], 0)


@both
def test_impossible_labels_and_choices(loss):
    """A label of logit -inf costs +inf, with the finite derivatives of the others; no
    finite logit at all costs 0, with derivatives 0."""
    z = np.array([[-INF, 0.0, 0.5, 1.0], [-INF] * 4])
    value, (by_logit, by_label), curve = DERIVED[loss](z, np.tile(np.eye(4)[0], (2, 1)))
    np.testing.assert_array_equal(value, [INF, 0])
    expected = bisected(np.array([0.0, 0.5, 1.0]), POWERS[loss])
    np.testing.assert_allclose(by_logit[0], [-1, *expected], atol=1e-15)
    for found in (by_label, curve):
        assert np.all(np.isfinite(found))
    np.testing.assert_array_equal(by_logit[1], 0)
    np.testing.assert_array_equal(curve[1], 0)
    ids = jax.jit(loss)(z, np.zeros(2, int))
    np.testing.assert_array_equal(ids, [INF, 0])
    reverse = jax.jit(jax.jacrev(jax.jacfwd(loss)))(z[0], np.eye(4)[0])
    np.testing.assert_allclose(reverse, curve[0], atol=1e-15)


@both
def test_one_class(loss):
    """With nothing to choose from there is nothing to learn."""
    for found in jax.tree.leaves(DERIVED[loss](np.full((2, 1), 7.0), np.ones((2, 1)))):
        np.testing.assert_array_equal(found, 0)


@both
def test_nan_and_unknown_labels(loss):
    """NaN in, NaN out; an id that is no class gives NaN, harmless behind a mask."""
    bad = np.array([[np.nan, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, np.nan]])
    value, (slope, _), _ = DERIVED[loss](bad, np.tile(np.eye(4)[1], (2, 1)))
    assert np.all(np.isnan(value))
    assert np.all(np.isnan(slope))
    z, y = np.zeros((3, 2)), np.array([-1, 2, 0])

    @jax.jit
    def run(z):
        losses = loss(z, y)
        return jaxloss.mean(losses, where=y == 0), losses

    slope, losses = jax.grad(run, has_aux=True)(z)
    np.testing.assert_array_equal(np.isnan(losses), [True, True, False])
    np.testing.assert_array_equal(slope[:2], 0)
    np.testing.assert_allclose(slope[2], [-0.5, 0.5], rtol=1e-15)


@both
def test_takes_classes_along_any_axis(loss):
    """The class axis is the last one unless said otherwise, for both labels."""
    z, w = (v.reshape(3, 4, 4) for v in (logits(), distributions(12)))
    y = np.arange(12).reshape(3, 4) % 4

    @jax.jit
    def run(z, w):
        first = lambda v: jnp.moveaxis(v, -1, 0)
        hard = loss(first(z), y, axis=0), loss(z, y)
        return hard, (loss(first(z), first(w), axis=0), loss(z, w))

    for found, expected in run(z, w):
        np.testing.assert_array_equal(found, expected)


# --- a max function of your own ----------------------------------------------------


def test_of_logsumexp_and_max():
    """They give the softmax cross entropy and the perceptron of classes."""
    s, y = jnp.asarray(logits()), jnp.arange(12) % 4
    one_hot = jax.nn.one_hot(y, 4, dtype=bool)
    found = fenchel_young(s, one_hot, max_fun=jax.nn.logsumexp)
    expected = jaxloss.softmax_cross_entropy(s, y)
    assert_close(found, expected, size=np.abs(s).max(1))
    found = fenchel_young(s, one_hot.astype(int), max_fun=jnp.max)
    np.testing.assert_array_equal(found, jnp.max(s, 1) - s[jnp.arange(12), y])


@both
def test_of_the_conjugate(loss):
    """What it lacks to a loss with a known regulariser is Omega(y)."""
    z, w = logits()[:6], distributions(6)
    conjugate = lambda z: loss(z, 0) + z[0]  # Omega of a corner is 0
    power = POWERS[loss]
    omega = [fenchel.omega([mp.mpf(float(v)) for v in y], power) for y in w]
    found = jax.jit(lambda z, w: fenchel_young(z, w, max_fun=conjugate))(z, w)
    total, size = found + np.array(omega, float), np.abs(z).max(1)
    assert_close(total, DERIVED[loss](z, w)[0], size=size)


def test_an_impossible_score():
    """0 times -inf is 0, in the value and both derivatives; else the loss is +inf."""
    s, y = jnp.array([-INF, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
    loss = lambda s, y: fenchel_young(s, y, max_fun=jaxloss.stable.logsumexp)
    np.testing.assert_allclose(loss(s, y), np.log(2), rtol=1e-15)
    for derive in (jax.grad, jax.jacfwd):
        by_score, by_target = derive(loss, (0, 1))(s, y)
        np.testing.assert_allclose(by_score, [0, -0.5, 0.5], rtol=1e-15)
        np.testing.assert_array_equal(by_target, 0)
    tangents = jnp.ones(3), jnp.zeros(3)
    np.testing.assert_allclose(jax.jvp(loss, (s, y), tangents)[1], 0, atol=1e-15)
    assert loss(s, jnp.array([1.0, 0.0, 0.0])) == INF


def test_the_function_sees_one_vector():
    """Whatever the batch and the axis; so it may sort, or scan."""
    shapes = []

    def top_two(s):
        shapes.append(s.shape)
        return jnp.sum(jnp.sort(s)[-2:])

    s = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)))
    y = jnp.zeros_like(s).at[:2].set(1)
    found = fenchel_young(s, y, max_fun=top_two, axis=0)
    expected = np.sort(s, axis=0)[-2:].sum(0) - s[:2].sum(0)
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert set(shapes) == {(4,)}
    assert (
        fenchel_young(s.astype(jnp.bfloat16), y, max_fun=top_two).dtype == jnp.float32
    )


def test_messages():
    """A max function that is none, or returns no number, is named."""
    s = jnp.ones((3, 2))
    none: Any = "max"
    with pytest.raises(TypeError, match=r"^fenchel_young: `max_fun` has type str; "):
        fenchel_young(s, s, max_fun=none)
    with pytest.raises(ValueError, match=r"^fenchel_young: `max_fun` has .*\(2,\); "):
        fenchel_young(s, s, max_fun=jnp.square)
