"""Losses that ask for a margin: published values, identities, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import margins
from jaxloss.testing import tolerance

BINARY = [
    jaxloss.hinge,
    jaxloss.squared_hinge,
    jaxloss.logistic,
    jaxloss.exponential,
    jaxloss.perceptron,
    jaxloss.modified_huber,
]
MULTICLASS = [jaxloss.crammer_singer_hinge, jaxloss.weston_watkins_hinge]

# --- two classes -----------------------------------------------------------------


def test_worked_hinge():
    """Of five examples one lacks 0.2 and one 0.5 of the margin: the mean is 0.14."""
    losses = jaxloss.hinge(
        jnp.array([2.1, -1.5, 0.8, 3.0, -0.5], jnp.float64),
        jnp.array([1, -1, 1, 1, -1]),
    )
    np.testing.assert_allclose(losses, [0, 0, 0.2, 0, 0.5], rtol=1e-15)
    np.testing.assert_allclose(jnp.mean(losses), (0.2 + 0.5) / 5, rtol=1e-15)


def test_gradients_compared():
    """Undecided, hinge and exponential pull twice as hard as logistic; well beyond the
    margin only hinge lets go; badly wrong, only the exponential one grows."""
    slope = lambda fn, s: float(jax.grad(fn)(jnp.float64(s), 1))
    pulls = {fn: [slope(fn, s) for s in (0, 5, -5)] for fn in BINARY[:4]}
    e5 = np.exp(5)
    np.testing.assert_allclose(pulls[jaxloss.hinge], [-1, 0, -1])
    np.testing.assert_allclose(pulls[jaxloss.exponential], [-1, -1 / e5, -e5])
    np.testing.assert_allclose(
        pulls[jaxloss.logistic], [-1 / 2, -1 / (1 + e5), -1 / (1 + 1 / e5)]
    )
    np.testing.assert_allclose(pulls[jaxloss.squared_hinge], [-2, 0, -12])


@pytest.mark.parametrize("fn", BINARY)
def test_is_phi_of_the_margin(fn):
    """Each is its function of the margin; turning score and label changes nothing."""
    s, y = jnp.linspace(-3, 3, 13), jnp.where(jnp.arange(13) % 2, 1, -1)
    np.testing.assert_array_equal(fn(s, y), getattr(margins, fn.__name__)(s * y))
    np.testing.assert_array_equal(fn(s, y), fn(-s, -y))
    np.testing.assert_array_equal(fn(s, y), fn(s, y.astype(jnp.int8)))
    np.testing.assert_array_equal(fn(s, y), fn(s, y.astype(jnp.float16)))


def test_logistic_is_sigmoid_cross_entropy():
    """With labels 0 and 1 in place of -1 and +1 it is the cross entropy."""
    s, y = jnp.linspace(-40, 40, 33), jnp.arange(33) % 2
    np.testing.assert_allclose(
        jaxloss.logistic(s, 2 * y - 1),
        jaxloss.sigmoid_cross_entropy(s, y),
        rtol=tolerance(s.dtype, 4),
    )


def test_agrees_with_optax():
    """Hinge, perceptron and the multi-class hinge are optax's, where that is exact."""
    s = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)))
    y = jnp.where(s[:, 1] > 0, 1.0, -1.0)
    np.testing.assert_array_equal(
        jaxloss.hinge(s[:, 0], y), optax.losses.hinge_loss(s[:, 0], y)
    )
    np.testing.assert_array_equal(
        jaxloss.perceptron(s[:, 0], y), optax.losses.perceptron_loss(s[:, 0], y)
    )
    ids = jnp.arange(50) % 4
    np.testing.assert_allclose(
        jaxloss.crammer_singer_hinge(s, ids),
        optax.losses.multiclass_hinge_loss(s, ids),
        atol=tolerance(s.dtype, 4),
    )


@pytest.mark.parametrize("fn", BINARY)
def test_infinite_scores(fn):
    """A certain right answer costs 0 with gradients 0, in score and in label."""
    s, y = jnp.array([jnp.inf, -jnp.inf]), jnp.array([1.0, -1.0])
    np.testing.assert_array_equal(fn(s, y), 0)
    by_score, by_label = jax.grad(lambda *a: jnp.sum(fn(*a)), (0, 1))(s, y)
    np.testing.assert_array_equal(by_score, 0)
    np.testing.assert_array_equal(by_label, 0)
    np.testing.assert_array_equal(fn(s, -y), jnp.inf)


def test_refuses_zero_one_labels():
    """Booleans and unsigned integers, which have no -1, are refused with the remedy."""
    for labels in (np.array([True, False]), np.array([1, 0], np.uint8)):
        with pytest.raises(TypeError, match=r"^hinge: `labels` .*`2 \* y - 1`"):
            jaxloss.hinge(jnp.ones(2), labels)


def test_linear_machine_converges():
    """Squared hinge and an L2 penalty on the points -1, +1: the weight 1 / (1 + λ)."""
    x, penalty = jnp.array([-1.0, 1.0]), 0.25
    objective = lambda w: (
        jnp.mean(jaxloss.squared_hinge(w * x, jnp.sign(x))) + penalty * w**2
    )
    w = jnp.float64(0)
    for _ in range(60):
        w = w - 0.2 * jax.grad(objective)(w)
    np.testing.assert_allclose(w, 1 / (1 + penalty), rtol=1e-12)


# --- many classes ----------------------------------------------------------------


def test_margin_survives_large_scores():
    """Of [1e8, 1e8, 0] the label still lacks the whole margin: 1, not 0."""
    s = jnp.array([[1e8, 1e8, 0]], jnp.float32)
    for fn in MULTICLASS:
        np.testing.assert_array_equal(jax.jit(fn)(s, jnp.array([0])), 1)
        # 1e8 - 0.25 is rounded to 1e8, but only 0.25 of that margin are missing.
        s_two = jnp.array([1e8, 0.25], jnp.float32)
        assert jax.jit(fn)(s_two, 0, margin=1e8) == 0.25


def test_two_classes_are_a_hinge():
    """With two classes both are the hinge of the label's lead."""
    s = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)))
    y = jnp.arange(20) % 2
    expected = jaxloss.hinge(s[:, 1] - s[:, 0], 2 * y - 1)
    for fn in MULTICLASS:
        np.testing.assert_allclose(fn(s, y), expected, atol=1e-15)


def test_sum_bounds_maximum():
    """Weston-Watkins sums what Crammer-Singer takes the largest of."""
    s = jnp.asarray(np.random.default_rng(1).normal(size=(40, 5)))
    y = jnp.arange(40) % 5
    own = jnp.take_along_axis(s, y[:, None], 1)
    each = np.where(np.eye(5)[y], 0, np.maximum(0, 1 + s - own))
    np.testing.assert_allclose(
        jaxloss.weston_watkins_hinge(s, y), each.sum(1), rtol=1e-14
    )
    np.testing.assert_allclose(
        jaxloss.crammer_singer_hinge(s, y), each.max(1), rtol=1e-14
    )


@pytest.mark.parametrize("fn", MULTICLASS)
class TestManyClasses:
    def test_scales_with_its_margin(self, fn):
        """Scores and margin in other units give the loss in those units."""
        s, y = (
            jnp.asarray(np.random.default_rng(2).normal(size=(8, 3))),
            jnp.arange(8) % 3,
        )
        np.testing.assert_array_equal(fn(4 * s, y, margin=4.0), 4 * fn(s, y))

    def test_takes_a_margin_per_example(self, fn):
        """An array of margins is one per example, and its gradient is too."""
        s, y = jnp.zeros((2, 3)), jnp.array([0, 1])
        per_class = 1 if fn is jaxloss.crammer_singer_hinge else 2
        margin = jnp.array([1.0, 3.0])
        np.testing.assert_array_equal(fn(s, y, margin=margin), per_class * margin)
        slope = jax.grad(lambda m: jnp.sum(fn(s, y, margin=m)))(margin)
        np.testing.assert_array_equal(slope, [per_class] * 2)

    def test_excluded_classes_do_not_exist(self, fn):
        """A score of -inf leaves the loss of the others, and no NaN anywhere."""
        s = jnp.asarray(np.random.default_rng(3).normal(size=(6, 3)))
        wide = jnp.insert(s, 1, -jnp.inf, axis=1)
        value, slope = jax.vmap(jax.value_and_grad(fn))(wide, jnp.full(6, 2))
        expected, expected_slope = jax.vmap(jax.value_and_grad(fn))(s, jnp.full(6, 1))
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(jnp.delete(slope, 1, axis=1), expected_slope)
        np.testing.assert_array_equal(slope[:, 1], 0)

    def test_nothing_to_lead(self, fn):
        """One class, or all others excluded, or all excluded: loss and gradient 0."""
        inf = jnp.inf
        s = jnp.array([[0.5, -inf, -inf], [-inf, -inf, -inf]])
        value, slope = jax.vmap(jax.value_and_grad(fn))(s, jnp.zeros(2, int))
        np.testing.assert_array_equal(value, 0)
        np.testing.assert_array_equal(slope, 0)
        assert fn(jnp.ones((1, 1)), jnp.zeros(1, int))[0] == 0

    def test_excluded_label_costs_infinity(self, fn):
        """A label that was excluded cannot be met, and its gradient is finite."""
        s = jnp.array([-jnp.inf, 1.0, 2.0])
        assert fn(s, 0) == jnp.inf
        assert jnp.all(jnp.isfinite(jax.grad(fn)(s, 0)))

    def test_unknown_label_gives_nan(self, fn):
        """An id outside the classes gives NaN, and is harmless behind a mask."""
        s, y = jnp.ones((3, 2)), jnp.array([-1, 2, 0])
        np.testing.assert_array_equal(jnp.isnan(fn(s, y)), [True, True, False])
        masked = lambda s: jaxloss.mean(fn(s, y), where=y == 0)
        value, slope = jax.value_and_grad(masked)(s)
        assert value == 1
        np.testing.assert_array_equal(slope, [[0, 0], [0, 0], [-1, 1]])

    def test_takes_classes_along_any_axis(self, fn):
        """The class axis is the last one unless said otherwise."""
        s = jnp.asarray(np.random.default_rng(4).normal(size=(2, 3, 4)))
        y = jnp.asarray(np.random.default_rng(5).integers(0, 3, size=(2, 4)))
        last = fn(jnp.moveaxis(s, 1, -1), y)
        np.testing.assert_array_equal(fn(s, y, axis=1), last)
        np.testing.assert_array_equal(fn(s, y, axis=-2), last)

    def test_narrow_ids_know_all_classes(self, fn):
        """An int8 id is not compared modulo 256."""
        s = jnp.zeros((1, 300)).at[0, 256].set(5.0)
        expected = fn(s, jnp.array([0]))
        np.testing.assert_array_equal(fn(s, jnp.array([0], jnp.int8)), expected)
