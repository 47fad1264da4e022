"""Generalised cross entropy: published numbers, identities, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.testing import assert_close
from tests.losses.classification.test_cross_entropy import draw, one_hot

INF = jnp.inf
# Values that are equal on paper, by two formulas of at most 8 ulps each.
both = lambda a, b: assert_close(a, b, jnp.float32, ulps=16)


@jax.jit
def general(x, y, q):
    return jaxloss.generalized_cross_entropy(x, y, q=q)


def probabilities(x, ids):
    """Of the labels, in float64."""
    e = np.exp(np.asarray(x, float))
    return (e / e.sum(axis=-1, keepdims=True))[np.arange(len(ids)), ids]


# --- published numbers and identities ----------------------------------------------


def test_a_label_of_probability_one_half():
    """(1 - 2^-q) / q: 0.5491825619 at q = 0.7, log 2 at 0, and 1/2 at 1."""
    x = jnp.zeros((1, 2))
    for q, value in ((0.7, 0.5491825619), (0.0, np.log(2)), (1.0, 0.5)):
        assert_close(general(x, jnp.array([0]), q), np.array([value]), jnp.float32)
    default = jaxloss.generalized_cross_entropy(x, jnp.array([0]))
    assert_close(default, np.array([(1 - 0.5**0.7) / 0.7]), jnp.float32)


def test_the_formula_where_it_has_digits():
    """(1 - p^q) / q of moderate probabilities, of ids and of distributions."""
    x, ids, w = draw()
    p = probabilities(x, ids)
    for q in (0.3, 0.7, 1.0):
        assert_close(general(x, ids, q), (1 - p**q) / q, jnp.float32, ulps=64)
        each = [probabilities(x, np.full(len(x), j)) for j in range(x.shape[-1])]
        value = np.sum(np.asarray(w) * (1 - np.array(each).T ** q) / q, axis=-1)
        assert_close(general(x, w, q), value, jnp.float32, ulps=64)


def test_its_ends_are_cross_entropy_and_the_probability_of_an_error():
    """At q = 0, values and gradients are those of cross entropy; at q = 1, of 1 - p."""
    x, ids, w = draw()
    slope = lambda loss: jax.grad(lambda x: jnp.sum(loss(x)))(x)
    for labels in (ids, w):
        first = lambda x, y=labels: general(x, y, 0.0)
        plain = lambda x, y=labels: jaxloss.softmax_cross_entropy(x, y)
        both(first(x), plain(x))
        assert_close(slope(first), slope(plain), jnp.float32, size=1)
    assert_close(general(x, ids, 1.0), 1 - probabilities(x, ids), jnp.float32, ulps=64)


def test_the_gradient_is_that_of_cross_entropy_times_a_power():
    """p^q (p_j - [j = y]): what the network thinks impossible hardly moves it."""
    x, ids, _ = draw()
    p = probabilities(x, ids)
    plain = jax.grad(lambda x: jnp.sum(jaxloss.softmax_cross_entropy(x, ids)))(x)
    slope = jax.grad(lambda x: jnp.sum(general(x, ids, 0.7)))(x)
    assert_close(slope, p[:, None] ** 0.7 * np.asarray(plain), jnp.float32, size=1)
    far = jax.grad(lambda x: general(x, 1, 0.7))(jnp.float32([60, 0, 0]))
    assert_close(far, np.exp(-42) * np.array([1, -1, 0]), jnp.float32, size=np.exp(-42))


def test_the_slope_in_q_begins_at_half_the_square():
    """d/dq at q = 0 is `-nll^2 / 2`, with the mixed slopes `-nll (p - e)`."""
    x, ids, _ = draw()
    for labels in (ids, one_hot(ids)):
        loss = lambda x, q, y=labels: jnp.sum(general(x, y, q))
        nll = jaxloss.softmax_cross_entropy(x, ids)
        by_q = jax.grad(loss, 1)(x, jnp.float32(0))
        assert_close(by_q, -jnp.sum(nll**2) / 2, jnp.float32, ulps=32)
        mixed = jax.jacfwd(jax.grad(loss), 1)(x, jnp.float32(0))
        plain = jax.grad(lambda x: jnp.sum(jaxloss.softmax_cross_entropy(x, ids)))(x)
        size = np.abs(nll[:, None] * plain).max()
        assert_close(mixed, -nll[:, None] * plain, jnp.float32, size=size)


def test_ids_are_one_hot_distributions():
    """The same loss and gradient, to rounding; q may be one per example."""
    x, ids, _ = draw()
    for q in (0.0, 0.7, jnp.linspace(0, 1, len(ids), dtype=x.dtype)):
        loss = lambda x, y, q=q: jnp.sum(general(x, y, q))
        run = lambda y, loss=loss: jax.jit(jax.value_and_grad(loss))(x, y)
        for a, b in zip(run(ids), run(one_hot(ids)), strict=True):
            assert_close(a, b, jnp.float32, size=np.abs(b).max())


def test_q_per_example_is_that_of_each():
    """As three calls with numbers."""
    x, ids, _ = draw()
    q = np.resize([0.0, 0.5, 1.0], len(ids)).astype(np.float32)
    alone = [general(x[i], ids[i], v) for i, v in enumerate(q)]
    both(general(x, ids, q), jnp.stack(alone))


# --- edges -------------------------------------------------------------------------


def test_the_smallest_losses_keep_their_digits():
    """At p = 1 - e^-60 it is e^-60 for every q; the textbook gives 0."""
    x = jnp.float32([[60, 0]])
    for q in (0.0, 0.5, 1.0):
        assert_close(general(x, jnp.array([0]), q), np.exp([-60.0]), jnp.float32)


def test_an_impossible_label_costs_one_over_q():
    """Infinity at q = 0; its gradient is that of cross entropy there, and 0 beyond."""
    x, ids = jnp.float32([[-INF, 0, 0]]), jnp.array([0])
    for labels in (ids, jnp.float32([[1, 0, 0]])):
        for q, value in ((0.0, INF), (0.5, 2), (1.0, 1)):
            loss = lambda x, q, y=labels: general(x, y, q)[0]
            found, (by_x, by_q) = jax.value_and_grad(loss, (0, 1))(x, jnp.float32(q))
            assert found == value
            assert jnp.all(jnp.isfinite(by_x))
            assert not jnp.isnan(by_q)
            plain = jax.grad(jaxloss.softmax_cross_entropy)(x[0], labels[0])
            assert_close(by_x[0], plain if q == 0 else 0 * plain, jnp.float32, size=1)
            assert_close(by_q, -1 / q**2 if q else 0, jnp.float32)


def test_masked_classes_are_not_there():
    """As without the column; a row without classes costs 0, whatever its label."""
    x, ids, _ = draw()
    ids = ids % 4
    where = jnp.arange(x.shape[-1]) < 4
    masked = jaxloss.generalized_cross_entropy(
        x, ids, where=jnp.broadcast_to(where, x.shape)
    )
    both(masked, jaxloss.generalized_cross_entropy(x[:, :4], ids))
    nothing = jaxloss.generalized_cross_entropy(
        x, ids - 9, where=jnp.zeros_like(x, bool)
    )
    assert jnp.all(nothing == 0)


def test_a_class_that_does_not_exist_is_nan_and_can_be_masked():
    """And the gradient of the mean over the others is not NaN."""
    x, ids = jnp.zeros((2, 3)), jnp.array([1, 3])
    loss = lambda x: jaxloss.mean(general(x, ids, 0.7), where=ids < 3)
    value, slope = jax.value_and_grad(loss)(x)
    assert jnp.isnan(general(x, ids, 0.7)[1])
    assert_close(value, (1 - 3.0**-0.7) / 0.7, jnp.float32)
    assert jnp.all(jnp.isfinite(slope))


def test_the_axis_of_the_classes():
    """In the middle, of ids and of distributions."""
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 4)), jnp.float32)
    ids = jnp.arange(8).reshape(2, 4) % 3
    moved = jnp.moveaxis(x, 1, -1)
    for labels in (ids, jnp.moveaxis(jax.nn.one_hot(ids, 3), -1, 1)):
        found = jaxloss.generalized_cross_entropy(x, labels, axis=1)
        both(found, jaxloss.generalized_cross_entropy(moved, ids))


def test_q_is_refused_outside_its_interval():
    """The message names the argument and the interval."""
    for q in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"`q` is {q}; expected a number in \[0"):
            jaxloss.generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), q=q)
