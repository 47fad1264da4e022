"""Losses of many labels: published numbers, identities, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.testing import assert_close

INF = jnp.inf
both = lambda a, b: assert_close(a, b, jnp.float32, ulps=32)
X = jnp.float32([-90, -8, -3, -1.5, -0.3, 0, 0.2, 1, 4, 20, 90])
PLAIN = {"gamma_positive": 0.0, "gamma_negative": 0.0, "shift": 0.0}


@jax.jit
def shifted(x, y, up, down, c):
    return jaxloss.asymmetric(x, y, gamma_positive=up, gamma_negative=down, shift=c)


# --- asymmetric: published numbers and identities ----------------------------------


def test_both_labels_at_zero():
    """(1/2) log 2 of a positive; 0.45^4 (-log 0.55) of a negative."""
    found = jaxloss.asymmetric(jnp.zeros(2), jnp.array([1, 0]))
    assert_close(found, np.array([0.3465735903, 0.02451505351]), jnp.float32)


def test_the_formula_where_it_has_digits():
    """As the authors write it, in float64."""
    x = np.array([-2.5, -1, 0.3, 2, 5])
    p = 1 / (1 + np.exp(-x))
    for up, down, c in ((1, 4, 0.05), (0, 2, 0.2), (0.5, 0.5, 0.0), (2, 1, 0.9)):
        m = np.maximum(p - c, 0)
        found = [shifted(jnp.asarray(x), np.full(5, y), up, down, c) for y in (1, 0)]
        assert_close(found[0], -((1 - p) ** up) * np.log(p), ulps=2**10)
        assert_close(found[1], -(m**down) * np.log(1 - m), ulps=2**10)


def test_below_the_shift_nothing_counts():
    """Loss and gradient are 0, for every exponent; 0 and 0.5 are finite."""
    x = jnp.float32([-INF, -90, -10, -2.95])
    for gamma in (0.0, 0.5, 4.0):
        loss = lambda x, c, g=gamma: jnp.sum(shifted(x, jnp.zeros_like(x), 0.0, g, c))
        assert loss(x, 0.05) == 0
        slopes = jax.grad(loss, (0, 1))(x, jnp.float32(0.05))
        assert not jnp.any(slopes[0])
        assert slopes[1] == 0
        hessian = jax.hessian(loss, (0, 1))(x, jnp.float32(0.05))
        assert not any(jnp.any(h) for h in jax.tree.leaves(hessian))


def test_without_a_shift_it_is_focal_loss():
    """Of equal exponents: values and gradients, of hard and of soft labels."""
    for gamma in (0.0, 0.5, 2.0):
        for y in (0.0, 0.25, 1.0):
            y = jnp.full_like(X, y)
            ours = lambda x, y=y, g=gamma: shifted(x, y, g, g, 0.0)
            focal = lambda x, y=y, g=gamma: jaxloss.sigmoid_focal(x, y, gamma=g)
            both(ours(X), focal(X))
            slope = lambda loss: jax.grad(lambda x: jnp.sum(loss(x)))(X)
            size = np.abs(slope(focal)) + 1e-6
            assert_close(slope(ours), slope(focal), jnp.float32, size=size)


def test_without_anything_it_is_cross_entropy():
    """Exponents and shift 0, of labels of every kind."""
    for y in (X > 0, (X > 0).astype(int), jnp.linspace(0, 1, len(X), dtype=X.dtype)):
        found = jaxloss.asymmetric(X, y, **PLAIN)
        both(found, jaxloss.sigmoid_cross_entropy(X, y))


def test_soft_labels_mix_the_two_terms():
    """y loss(1) + (1 - y) loss(0), of which the slope in y is their difference."""
    y = jnp.linspace(0, 1, len(X), dtype=X.dtype)
    positive, negative = (jaxloss.asymmetric(X, jnp.full_like(X, k)) for k in (1, 0))
    both(jaxloss.asymmetric(X, y), y * positive + (1 - y) * negative)
    slope = jax.grad(lambda y: jnp.sum(jaxloss.asymmetric(X, y)))(y)
    assert_close(slope, positive - negative, jnp.float32, size=positive + negative)


def test_each_hyperparameter_may_be_an_array():
    """One of each class, as in calls of one class each."""
    x, y = jnp.stack([X, -X]), jnp.stack([X > 1, X > -1])
    many = (jnp.linspace(a, b, len(X), dtype=X.dtype) for a, b in ((0, 2), (0, 4)))
    up, down = many
    c = jnp.linspace(0, 0.9, len(X), dtype=X.dtype)
    found = shifted(x, y, up, down, c)
    for j, numbers in enumerate(zip(up, down, c, strict=True)):
        both(found[:, j], shifted(x[:, j], y[:, j], *numbers))


def test_infinite_logits():
    """Of the right sign they cost nothing; of the other one infinity, or, of a
    negative, at most `(1 - c)^g (-log c)`."""
    right = jaxloss.asymmetric(jnp.float32([INF, -INF]), jnp.array([1, 0]))
    assert jnp.all(right == 0)
    wrong = jaxloss.asymmetric(jnp.float32([-INF, INF]), jnp.array([1, 0]))
    assert_close(wrong, np.array([np.inf, -(0.95**4) * np.log(0.05)]), jnp.float32)
    assert jaxloss.asymmetric(jnp.float32(INF), 0, shift=0.0) == INF
    for x, y in ((INF, 1), (-INF, 0), (-INF, 1), (INF, 0)):
        slope = jax.grad(lambda x, y=y: jaxloss.asymmetric(x, y, shift=0.0))
        assert abs(slope(jnp.float32(x))) == (np.isinf(x) and (x < 0) == (y == 1))


# --- zlpr --------------------------------------------------------------------------


def test_one_of_three_at_zero():
    """log 2 of the label that holds, and log 3 of two that do not: log 6."""
    assert_close(jaxloss.zlpr(jnp.zeros(3), jnp.array([1, 0, 0])), np.log(6))


def test_the_formula_and_its_gradient():
    """Of labels that are booleans, integers and floats."""
    x = np.random.default_rng(0).normal(size=(5, 6))
    y = np.random.default_rng(1).integers(0, 2, size=x.shape)
    up = 1 + np.sum(y * np.exp(-x), axis=-1, keepdims=True)
    down = 1 + np.sum((1 - y) * np.exp(x), axis=-1, keepdims=True)
    slopes = np.where(y, -np.exp(-x) / up, np.exp(x) / down)
    for labels in (y == 1, y, y.astype(float)):
        found = jaxloss.zlpr(jnp.asarray(x), labels)
        assert_close(found, np.log(up[:, 0]) + np.log(down[:, 0]), ulps=32)
        slope = jax.grad(lambda x, y=labels: jnp.sum(jaxloss.zlpr(x, y)))
        assert_close(slope(jnp.asarray(x)), slopes, ulps=32)


def test_of_one_label_it_is_cross_entropy():
    """A row of one label has no rivals but 0."""
    for y in (0, 1):
        y = jnp.full(X.shape, y)
        found = jaxloss.zlpr(X[:, None], y[:, None])
        both(found, jaxloss.sigmoid_cross_entropy(X, y))


def test_without_positives_their_part_is_zero():
    """And without negatives theirs; without any label both."""
    x = jnp.float32([[1, -2, 3]])
    no, yes = jnp.zeros((1, 3)), jnp.ones((1, 3))
    total = np.log1p(np.exp([1.0, -2.0, 3.0]).sum())
    assert_close(jaxloss.zlpr(x, no), np.array([total]), jnp.float32)
    assert_close(jaxloss.zlpr(-x, yes), np.array([total]), jnp.float32)
    loss = lambda x: jaxloss.zlpr(x, no, where=jnp.zeros((1, 3), bool))[0]
    assert jax.value_and_grad(loss)(x)[0] == 0
    assert not jnp.any(jax.grad(loss)(x))


def test_masked_labels_are_in_neither_set():
    """Even if they are no label, or their logit is none."""
    x = jnp.float32([[0, 0, 0, jnp.nan], [1, 2, 3, -INF]])
    y = jnp.float32([[1, 0, 0, 0.5], [1, 0, 1, 1]])
    where = jnp.ones((2, 4), bool).at[:, 3].set(False)
    loss = lambda x: jnp.sum(jaxloss.zlpr(x, y, where=where))
    value, slope = jax.value_and_grad(loss)(x)
    expected, slopes = jax.value_and_grad(lambda x: jnp.sum(jaxloss.zlpr(x, y[:, :3])))(
        x[:, :3]
    )
    both(value, expected)
    both(slope[:, :3], slopes)
    assert not jnp.any(slope[:, 3])


@pytest.mark.parametrize("bad", [0.5, -1.0, 2.0, np.nan])
def test_a_soft_label_is_nan(bad):
    """Of its example alone; and the mean over the others has a gradient."""
    x, y = jnp.zeros((2, 3)), jnp.float32([[bad, 0, 1], [1, 0, 0]])
    found = jaxloss.zlpr(x, y)
    assert jnp.isnan(found[0])
    assert_close(found[1], np.log(6), jnp.float32)
    loss = lambda x: jaxloss.mean(jaxloss.zlpr(x, y), where=jnp.array([False, True]))
    assert jnp.all(jnp.isfinite(jax.grad(loss)(x)))


def test_infinite_logits_of_rows():
    """0 where they are right, infinity where one is wrong, with slopes in [-1, 1]."""
    y = jnp.array([1, 0])
    for x, value in (
        ([INF, -INF], 0),
        ([-INF, -INF], INF),
        ([INF, INF], INF),
        ([0, -INF], np.log(2)),
    ):
        found, slope = jax.value_and_grad(lambda x: jaxloss.zlpr(x, y))(jnp.float32(x))
        assert_close(found, value, jnp.float32)
        assert jnp.all(jnp.abs(slope) <= 1)
    slope = jax.grad(lambda x: jaxloss.zlpr(x, y))(jnp.float32([-INF, 0]))
    assert_close(slope, np.array([-1, 0.5]), jnp.float32)


def test_far_logits_cost_no_more_than_they_should():
    """Many wrong labels cost like the worst one; nothing overflows."""
    big = float(jnp.finfo(jnp.float32).max) / 4
    x = jnp.float32([[big, -big, 0], [200, 100, -300]])
    found = jaxloss.zlpr(x, jnp.array([[0, 1, 0], [0, 0, 1]]))
    assert_close(found, np.array([2 * big, 500]), jnp.float32)


def test_the_axis_of_the_labels():
    """In the middle, with a mask."""
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
    y, where = (jnp.asarray(rng.integers(0, 2, size=x.shape)) for _ in range(2))
    found = jaxloss.zlpr(x, y, axis=1, where=where == 1)
    last = lambda a: jnp.moveaxis(a, 1, -1)
    both(found, jaxloss.zlpr(last(x), last(y), where=last(where == 1)))
