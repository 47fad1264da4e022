"""Focal and polynomial losses: published numbers, identities, edges."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import jaxloss
from jaxloss import stable
from jaxloss.claims.classification.cross_entropy import softplus
from jaxloss.claims.classification.focal import GAMMAS, focal_bound, term
from jaxloss.testing import accuracy, assert_close
from jaxloss.testing.accuracy import FLUSH
from tests.losses.classification.test_cross_entropy import draw, one_hot

INF = jnp.inf
# Values that are equal on paper, by two formulas of at most 11 ulps each.
both = lambda a, b: assert_close(a, b, jnp.float32, ulps=22)


@jax.jit
def raised(x, y, gamma):
    return jaxloss.sigmoid_focal(x, y, gamma=gamma)


@jax.jit
def picked(x, y, gamma):
    return jaxloss.softmax_focal(x, y, gamma=gamma)


@jax.jit
def corrected(x, y, epsilon):
    return jaxloss.poly1(x, y, epsilon=epsilon)


# --- published numbers and identities ----------------------------------------------


def test_the_worked_example():
    """Five examples of three classes: 0.209585 at gamma = 2, 0.573011 at gamma = 0."""
    x = jnp.array(
        [[2, 0.5, -1], [0.1, 3, -0.5], [-1, 0.2, 1.5], [0.5, 0.3, 0.2], [0.1] * 3]
    )
    ids = jnp.array([0, 1, 2, 1, 0])
    for gamma, mean in ((2.0, 0.209585), (0.0, 0.573011)):
        assert round(float(jnp.mean(picked(x, ids, gamma))), 6) == mean


def test_well_classified_examples_fade():
    """At p = 0.9 and gamma = 2 the loss is 100 times less than cross entropy."""
    x = jnp.log(0.9) - jnp.log(0.1)
    ratio = raised(x, 1, 2.0) / jaxloss.sigmoid_cross_entropy(x, 1)
    assert_close(ratio, 0.01, ulps=64)


def test_gamma_zero_is_cross_entropy():
    """For hard and soft labels, ids and distributions."""
    x, ids, w = draw()
    both(raised(x, w, 0.0), jaxloss.sigmoid_cross_entropy(x, w))
    both(raised(x[:, 0], ids % 2, 0.0), raised(x[:, 0], ids % 2.0, 0.0))
    for labels in (ids, w):
        both(picked(x, labels, 0.0), jaxloss.softmax_cross_entropy(x, labels))


def test_two_classes_are_one_decision():
    """Softmax over [x, 0] is the sigmoid of x: the same loss for either label."""
    x, y = jnp.float32([-90, -3, 0, 0.5, 30]), jnp.array([1, 0, 1, 1, 0])
    two = jnp.stack([jnp.zeros_like(x), x], axis=-1)
    for gamma in GAMMAS[:4]:
        both(raised(x, y, gamma), picked(two, y, gamma))


def test_ids_are_one_hot_distributions():
    """The same loss and the same gradient, to rounding."""
    x, ids, _ = draw()
    alpha = jnp.linspace(0.2, 2.0, 5, dtype=jnp.float32)
    for gamma, a in ((2.0, None), (0.5, alpha)):

        def loss(x, y, gamma=gamma, alpha=a):
            return jnp.sum(jaxloss.softmax_focal(x, y, gamma=gamma, alpha=alpha))

        run = lambda y, loss=loss: jax.jit(jax.value_and_grad(loss))(x, y)
        for a, b in zip(run(ids), run(one_hot(ids)), strict=True):
            assert_close(a, b, jnp.float32, size=np.abs(b).max())
    run = lambda y: jaxloss.poly1(x, y)
    both(run(ids), run(one_hot(ids)))


def test_soft_labels_mix_the_two_terms():
    """y loss(1) + (1 - y) loss(0), which is linear in y."""
    x, _, y = draw()
    positive, negative = (raised(x, jnp.full_like(x, k), 2.0) for k in (1, 0))
    both(raised(x, y, 2.0), y * positive + (1 - y) * negative)
    slope = jax.grad(lambda y: jnp.sum(raised(x, y, 2.0)))(y)
    assert_close(slope, positive - negative, jnp.float32, size=positive + negative)


def test_the_slope_in_the_label_is_not_lost_near_zero():
    """At log-odds 1e-20 it is 2 x f'(0) = -x (gamma log 2 + 1) / 2^gamma, not 0."""
    x = jnp.float32([1e-20, -1e-20])
    for gamma in (0.0, 0.5, 2.0):
        slope = jax.grad(lambda y, g=gamma: jnp.sum(raised(x, y, g)))(jnp.zeros(2))
        want = -np.float64(x) * (gamma * np.log(2) + 1) / 2**gamma
        assert_close(slope, want, jnp.float32)


def test_alpha_weighs_positives_and_negatives():
    """alpha for a positive, 1 - alpha for a negative; its slope is their difference."""
    x, _, y = draw()
    positive, negative = (raised(x, jnp.full_like(x, k), 2.0) for k in (1, 0))
    loss = lambda a: jaxloss.sigmoid_focal(x, y, alpha=a)
    both(loss(0.25), 0.25 * y * positive + 0.75 * (1 - y) * negative)
    slope = jax.jvp(loss, (jnp.float32(0.25),), (jnp.float32(1),))[1]
    size = positive + negative
    assert_close(slope, y * positive - (1 - y) * negative, jnp.float32, size=size)
    assert jnp.all(jaxloss.sigmoid_focal(x, jnp.zeros_like(x), alpha=1.0) == 0)


def test_alpha_weighs_classes():
    """The weight of the label's class, a scalar that of all; its slope is the loss."""
    x, ids, w = draw()
    alpha = jnp.float32([0.25, 0.5, 1.0, 2.0, 4.0])
    loss = lambda a, y=ids: jaxloss.softmax_focal(x, y, alpha=a)
    plain = jaxloss.softmax_focal(x, ids)
    assert jnp.array_equal(loss(alpha), alpha[ids] * plain)
    assert jnp.array_equal(loss(2.0), 2 * plain)
    assert_close(jax.grad(lambda a: jnp.sum(loss(a)))(1.0), jnp.sum(plain), ulps=2**30)
    weighed = jaxloss.softmax_focal(x, w * jnp.stack([alpha] * 8))
    both(loss(alpha, w), weighed)


def test_poly_zero_is_cross_entropy():
    """Bit for bit at epsilon = 0; and epsilon (1 - p) is what it adds."""
    x, ids, w = draw()
    for labels in (ids, w):
        plain = jaxloss.softmax_cross_entropy(x, labels)
        assert jnp.array_equal(corrected(x, labels, 0.0), plain)
    p = np.exp(-np.float64(jaxloss.softmax_cross_entropy(x, ids)))
    both(corrected(x, ids, 2.0), -np.log(p) + 2 * (1 - p))


def test_gradients_are_those_of_the_docstrings():
    """A factor times p - e: 1 + epsilon p, and q^gamma (1 + gamma p nll / q)."""
    x, ids, _ = draw()
    run = jax.jit(jax.grad(lambda x, fn, g: jnp.sum(fn(x, ids, g))), static_argnums=1)
    grad = lambda fn, value: run(x, fn, value)
    wide = np.exp(np.float64(x))
    p = wide / wide.sum(-1, keepdims=True)
    e = np.float64(one_hot(ids))
    label = (p * e).sum(-1, keepdims=True)
    near = lambda a, b: assert_close(a, b, jnp.float32, ulps=22, size=np.abs(b).max())
    near(grad(corrected, 1.5), (1 + 1.5 * label) * (p - e))
    for gamma in GAMMAS:
        factor = (1 - label) ** gamma * (
            1 - gamma * label * np.log(label) / (1 - label)
        )
        near(grad(picked, gamma), factor * (p - e))


def test_the_classes_may_be_any_axis():
    """Moving the class axis moves nothing else; `where` leaves fewer classes."""
    x, ids, w = draw(shape=(2, 3, 5))
    alpha = jnp.linspace(0.2, 2.0, 5, dtype=jnp.float32)
    move = lambda a: jnp.moveaxis(a, -1, 1)
    for labels, moved in ((ids, ids), (w, move(w))):
        plain = jaxloss.softmax_focal(x, labels, alpha=alpha)
        again = jaxloss.softmax_focal(move(x), moved, axis=1, alpha=alpha)
        assert jnp.array_equal(again, plain)
        plain = jaxloss.poly1(x, labels)
        assert jnp.array_equal(jaxloss.poly1(move(x), moved, axis=1), plain)
    where = jnp.asarray(np.indices(x.shape)[-1] < 3)
    few = jaxloss.softmax_focal(x[..., :3], ids % 3)
    both(jaxloss.softmax_focal(x, ids % 3, where=where), few)


# --- edges -------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gamma_can_be_learned(gamma):
    """Its slope is the loss times log(1 - p), finite for every logit and gamma."""
    x = jnp.float32([-1e30, -90, -20, -1, 0, 1, 20, 90, 1e30, INF])
    y = jnp.ones_like(x)
    run = jax.jit(
        lambda g: jax.jvp(lambda g: raised(x, y, g), (g,), (jnp.ones_like(g),))
    )
    _, slope = run(jnp.float32(gamma))
    with mp.workdps(60):
        formula = lambda x: term(x, gamma)[0] * -softplus(x)
        want = [formula(mp.mpf(float(v))) for v in x[:-1]]
    errors = accuracy.ulps(slope[:-1], np.array(want), floor=FLUSH)
    assert errors.max() <= focal_bound(gamma)
    assert slope[-1] == 0
    ids, rows = jnp.zeros(10, int), jnp.stack([x, jnp.zeros_like(x)], axis=-1)[:-1]
    total = jax.grad(lambda g: jnp.sum(picked(rows, ids[:-1], g)))(jnp.float32(gamma))
    assert_close(total, np.sum(np.float64(slope)), jnp.float32, ulps=22)


def test_infinite_logits_of_one_decision():
    """+-inf: 0 with gradient 0 if the label agrees, +inf with slope +-1 if not."""
    x, y = jnp.float32([INF, -INF, INF, -INF]), jnp.float32([1, 0, 0, 1])
    for gamma in (0.0, 0.5, 2.0):
        loss = lambda x, g=gamma: raised(x, y, g)
        assert jnp.array_equal(loss(x), jnp.float32([0, 0, INF, INF]))
        slope = jax.jit(jax.grad(lambda x, loss=loss: jnp.sum(loss(x))))(x)
        assert jnp.array_equal(slope, jnp.float32([0, 0, 1, -1]))
        assert jnp.array_equal(jax.jvp(loss, (x,), (jnp.ones_like(x),))[1], slope)
        in_labels = jax.grad(lambda y, g=gamma: jnp.sum(raised(x, y, g)))(y)
        assert not jnp.any(jnp.isnan(in_labels))


@pytest.mark.parametrize("loss", [jaxloss.softmax_focal, jaxloss.poly1])
class TestLabels:
    def test_unknown_ids_are_nan(self, loss):
        """-1 and K are no class: NaN, value and gradient, for that example alone."""
        x, ids = jnp.float32([[2, 1, 0.1]] * 3), jnp.array([-1, 1, 3])
        value = loss(x, ids)
        slope = jax.jit(jax.grad(lambda x: jnp.sum(loss(x, ids))))(x)
        wrong = jnp.array([True, False, True])
        assert jnp.array_equal(jnp.isnan(value), wrong)
        assert jnp.array_equal(jnp.isnan(slope), jnp.stack([wrong] * 3, axis=-1))

    def test_unknown_ids_are_harmless_behind_a_mask(self, loss):
        """`mean(where=)` drops them, from the gradient too."""
        x, ids = jnp.float32([[2, 1, 0.1]] * 3), jnp.array([-1, 1, 3])
        mean = lambda x: jaxloss.mean(loss(x, ids), where=ids == 1)
        slope = jax.jit(jax.grad(mean))(x)
        assert jnp.all(jnp.isfinite(slope))
        assert jnp.array_equal(jnp.any(slope != 0, axis=1), ids == 1)

    def test_an_example_without_classes_is_nothing(self, loss):
        """Loss 0 and gradient 0, whatever its label."""
        x = jnp.float32([[-INF] * 3, [1, 2, -INF]])
        for labels in (jnp.array([-1, 0]), jnp.float32([[0.5, 0.5, 0]] * 2)):
            run = lambda x, y=labels: jnp.sum(loss(x, y))
            assert loss(x, labels)[0] == 0
            slope = jax.jit(jax.grad(run))(x)
            assert jnp.all(slope[0] == 0)
            assert jnp.all(jnp.isfinite(slope))

    def test_an_impossible_label_costs_infinity(self, loss):
        """+inf, with the finite gradient of cross entropy."""
        x = jnp.float32([-INF, 2, 3])
        for labels in (jnp.array(0), jnp.float32([1, 0, 0])):
            assert loss(x, labels) == INF
            slope = jax.jit(jax.grad(lambda x, y=labels: loss(x, y)))(x)
            assert_close(slope[1:], jax.nn.softmax(x[1:]), jnp.float32)
            assert jnp.all(jnp.isfinite(slope))

    def test_impossible_classes_leave_every_derivative_finite(self, loss):
        """Logits of -inf: gradient, jvp and Hessian, in logits, labels and setting."""
        x, w = jnp.float32([0.5, -INF, 1.0, 90.0]), jnp.float32([0.4, 0, 0.6, 0])
        name = "gamma" if loss is jaxloss.softmax_focal else "epsilon"
        for labels in (jnp.array(2), w):
            fn = lambda x, g, y=labels: loss(x, y, **{name: g})
            push = lambda *at, fn=fn: jax.jvp(fn, at, jax.tree.map(jnp.ones_like, at))
            for run in map(jax.jit, (push, jax.hessian(fn, (0, 1)))):
                for value in (0.0, 0.5, 2.0):
                    found = jax.tree.leaves(run(x, jnp.float32(value)))
                    assert all(jnp.all(jnp.isfinite(a)) for a in found)
        assert jnp.all(jnp.isfinite(jax.jit(jax.grad(loss, 1))(x, w)))


def test_optax_agrees_where_the_definitions_coincide():
    """Hard labels of the focal loss; Poly-1 with distributions."""
    import optax

    x, ids, w = draw()
    y = one_hot(ids)
    near = lambda a, b: assert_close(a, b, jnp.float32, ulps=32, size=1)
    with jax.numpy_rank_promotion("allow"):  # which optax needs
        theirs = optax.losses.sigmoid_focal_loss
        near(raised(x, y, 2.0), theirs(x, y, gamma=2.0))
        ours = jaxloss.sigmoid_focal(x, y, gamma=1.5, alpha=0.25)
        near(ours, theirs(x, y, gamma=1.5, alpha=0.25))
        theirs = optax.losses.poly_loss_cross_entropy
        near(corrected(x, w, 2.0), theirs(x, w, epsilon=2.0))


def test_misuse_is_refused():
    """A mask of another shape, and a weight for a class too few."""
    x, ids, _ = draw()
    with pytest.raises(ValueError, match=r"^softmax_focal: `where` has shape \(8,\)"):
        jaxloss.softmax_focal(x, ids, where=ids == 0)
    with pytest.raises(ValueError, match=r"^softmax_focal: `alpha` has shape \(4,\)"):
        jaxloss.softmax_focal(x, ids, alpha=jnp.ones(4))
    with pytest.raises(ValueError, match=r"^sigmoid_focal: `alpha` is 1.5; expected"):
        jaxloss.sigmoid_focal(x, x, alpha=1.5)


def test_log_probabilities_give_the_same_loss():
    """Softmax losses do not see a normalisation that was done already."""
    x, ids, _ = draw()
    logs = stable.log_softmax(x)
    both(picked(logs, ids, 2.0), picked(x, ids, 2.0))
    both(corrected(logs, ids, 1.0), corrected(x, ids, 1.0))


def test_an_impossible_class_of_weight_0():
    """Its infinite loss counts nothing, as an id and in a distribution."""
    x, weights = jnp.array([-jnp.inf, 0.0]), jnp.array([0.0, 1.0])
    assert jaxloss.softmax_focal(x, jnp.array(0), alpha=weights) == 0
    assert jaxloss.softmax_focal(x, jnp.array([0.0, 1.0])) == 0
    slopes = jax.grad(jaxloss.softmax_focal, (0, 1))(x, jnp.array([0.0, 1.0]))
    assert jnp.array_equal(jnp.stack(slopes), jnp.zeros((2, 2)))
