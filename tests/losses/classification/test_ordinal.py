"""Ordinal losses: identities, what an order changes, edges."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxloss
from jaxloss import stable, targets
from jaxloss.losses.classification import _normal
from jaxloss.testing import tolerance

FLOAT64 = tolerance(np.float64)
INF = jnp.inf


def test_a_thousand_classes_are_as_accurate():
    """Loss and gradient in float32 as in float64, for sums of a thousand."""
    x = jnp.asarray(3 * np.random.default_rng(0).normal(size=(2, 1000)), np.float32)
    ids = jnp.array([300, 999])
    run = jax.jit(jax.vmap(jax.value_and_grad(jaxloss.squared_emd)))
    (losses, slopes), (truth, exact) = run(x, ids), run(x.astype(np.float64), ids)
    np.testing.assert_allclose(losses, truth, rtol=tolerance(np.float32, 4))
    size = jnp.max(jnp.abs(exact), axis=1, keepdims=True)
    assert jnp.all(jnp.abs(slopes - exact) <= tolerance(np.float32, 4) * size)


# --- thresholds --------------------------------------------------------------------


def test_coral_is_a_binary_cross_entropy_per_threshold():
    """The sum of sigmoid cross entropies of the levels of the label, exactly."""
    x = jnp.asarray(3 * np.random.default_rng(0).normal(size=(5, 4)))
    ids = jnp.arange(5)
    levels = targets.ordinal_levels(ids, num_classes=5)
    each = jaxloss.sigmoid_cross_entropy(x, levels)
    np.testing.assert_allclose(
        jaxloss.coral(x, ids), jnp.sum(each, axis=-1), rtol=FLOAT64
    )


def test_coral_of_two_classes_is_the_binary_loss():
    """One threshold is one decision; no threshold is none, and costs nothing."""
    x, y = jnp.array([[2.0], [-1.0], [INF]]), jnp.array([0, 1, 1])
    np.testing.assert_array_equal(
        jaxloss.coral(x, y), jaxloss.sigmoid_cross_entropy(x[:, 0], y)
    )
    np.testing.assert_array_equal(jaxloss.coral(jnp.ones((2, 0)), jnp.zeros(2, int)), 0)


def test_the_number_of_positive_logits_is_the_class():
    """At -50 or 50 nats, right at each threshold, little is left; one step off costs
    one threshold and two steps off cost two."""
    ids = jnp.arange(5)
    x = jnp.where(ids[:, None] > jnp.arange(4)[None], 50.0, -50.0)
    assert jnp.all(jaxloss.coral(x, jnp.sum(x > 0, axis=-1)) < 1e-20)
    cost = [jaxloss.coral(x[0], jnp.array(y)) for y in range(5)]
    np.testing.assert_allclose(cost, 50 * np.arange(5), atol=1e-20)


@pytest.mark.parametrize("loss", [jaxloss.coral, jaxloss.corn, jaxloss.squared_emd])
def test_an_id_that_is_no_class_gives_nan(loss):
    """In loss and gradient of that example alone; under a mask it is harmless."""
    x, ids = jnp.ones((4, 3)), jnp.array([-1, 2, 4, 2])
    run = jax.jit(lambda x, keep: jnp.sum(jnp.where(keep, loss(x, ids), 0)))
    np.testing.assert_array_equal(jnp.isnan(loss(x, ids)), [1, 0, 1, 0])
    for keep in (jnp.ones(4, bool), ids == 2):
        slope = jax.grad(run)(x, keep)
        bad = jnp.isnan(slope).all(axis=1)
        np.testing.assert_array_equal(bad, keep & (ids != 2))
    # Three thresholds have four classes, three logits three.
    last = loss(x[:1], jnp.array([3]))
    assert jnp.isnan(last[0]) == (loss is jaxloss.squared_emd)


# --- thresholds, one after another ---------------------------------------------------


def test_corn_of_zeros():
    """Each decision that is asked costs log 2; the last one is not asked twice."""
    losses = jaxloss.corn(jnp.zeros((3, 2)), jnp.arange(3))
    np.testing.assert_allclose(losses, np.log(2) * np.array([1, 2, 2]), rtol=FLOAT64)


def test_corn_is_a_negative_log_likelihood():
    """Of the classes whose probabilities of being exceeded are cumulative products."""
    x = jnp.asarray(3 * np.random.default_rng(0).normal(size=4))
    above = jnp.cumprod(stable.sigmoid(x))
    p = -jnp.diff(jnp.concatenate([jnp.ones(1), above, jnp.zeros(1)]))
    losses = jaxloss.corn(jnp.tile(x, (5, 1)), jnp.arange(5))
    np.testing.assert_allclose(losses, -jnp.log(p), rtol=64 * FLOAT64)


def test_a_decision_after_the_label_is_not_asked():
    """Even a NaN there reaches neither the loss nor the gradient."""
    x = jnp.array([1.0, jnp.nan, jnp.inf])
    value, slope = jax.value_and_grad(jaxloss.corn)(x, jnp.array(0))
    np.testing.assert_allclose(value, np.log1p(np.e), rtol=4 * FLOAT64)
    np.testing.assert_array_equal(slope[1:], 0)


# --- one score between cutpoints -----------------------------------------------------

CUMULATIVE = (jaxloss.cumulative_logit, jaxloss.cumulative_probit)
links = pytest.mark.parametrize("loss", CUMULATIVE, ids=lambda loss: loss.__name__)


def test_proportional_odds_by_hand():
    """Of cutpoints at odds 1/3 and 3; and 61.1 nats from a class."""
    cuts = jnp.log(jnp.array([1 / 3, 3.0]))
    scores, ids = jnp.array([0.0, 0.0, 0.0, 60.0]), jnp.array([0, 1, 2, 0])
    losses = jaxloss.cumulative_logit(scores, ids, cuts)
    want = [np.log(4), np.log(2), np.log(4), 60 + np.log(3)]
    np.testing.assert_allclose(losses, want, rtol=4 * FLOAT64)
    np.testing.assert_allclose(losses[3], 61.09861229, rtol=1e-9)


def test_one_cutpoint_is_a_binary_loss():
    """Of the score less the cutpoint."""
    x, y = jnp.array([2.0, -1.0, 0.3]), jnp.array([0, 1, 1])
    losses = jaxloss.cumulative_logit(x, y, jnp.array([0.5]))
    want = jaxloss.sigmoid_cross_entropy(x - 0.5, y)
    np.testing.assert_allclose(losses, want, rtol=4 * FLOAT64)


def test_proportional_odds_are_robust_in_the_scores():
    """However far a score is, its slope is 1; the probit's grows with the distance."""
    far, ids, cuts = jnp.array([1e6, -1e6]), jnp.array([0, 2]), jnp.array([-1.0, 1.0])
    slope = lambda loss: jax.grad(lambda x: jnp.sum(loss(x, ids, cuts)))(far)
    np.testing.assert_array_equal(slope(jaxloss.cumulative_logit), [1, -1])
    np.testing.assert_allclose(abs(slope(jaxloss.cumulative_probit)), 1e6, rtol=2e-6)


@links
def test_the_classes_of_a_score_share_one(loss):
    """Their probabilities sum to 1, wherever the score is."""
    cuts = jnp.array([-1.0, 0.2, 0.3, 4.0])
    for x in (-9.0, -1.5, 0.25, 2.0, 12.0):
        losses = loss(jnp.full(5, x), jnp.arange(5), cuts)
        np.testing.assert_allclose(jnp.exp(-losses).sum(), 1, rtol=16 * FLOAT64)


@links
def test_cutpoints_may_be_shared_or_not(loss):
    """One row for all scores, or the same row for each; its gradient is the sum."""
    rng = np.random.default_rng(0)
    x, ids = jnp.asarray(rng.normal(size=(2, 5))), jnp.asarray(rng.integers(4, size=10))
    ids, cuts = ids.reshape(2, 5), jnp.array([-1.0, 0.2, 0.9])
    total = lambda cuts: jnp.sum(loss(x, ids, cuts))
    value, slope = jax.value_and_grad(total)(cuts)
    each, slopes = jax.value_and_grad(total)(jnp.broadcast_to(cuts, (2, 5, 3)))
    np.testing.assert_allclose(each, value, rtol=4 * FLOAT64)
    np.testing.assert_allclose(slopes.sum((0, 1)), slope, rtol=64 * FLOAT64)


@links
def test_cutpoints_that_do_not_increase_show(loss):
    """Every loss is NaN, and so is its gradient; a mask takes both away."""
    x, ids = jnp.zeros(3), jnp.array([0, 1, 2])
    for cuts in ([1.0, 1.0], [2.0, 1.0], [0.0, jnp.nan]):
        losses = lambda x, cuts=cuts: loss(x, ids, jnp.array(cuts))
        run = lambda x, keep, of=losses: jnp.sum(jnp.where(keep, of(x), 0))
        assert jnp.isnan(jax.grad(run)(x, jnp.ones(3, bool))).all()
        np.testing.assert_array_equal(jax.grad(run)(x, jnp.zeros(3, bool)), 0)


@links
def test_a_label_beyond_the_cutpoints_is_no_class(loss):
    """Two cutpoints have three classes."""
    losses = loss(jnp.zeros(5), jnp.arange(-1, 4), jnp.array([-1.0, 1.0]))
    np.testing.assert_array_equal(jnp.isnan(losses), [1, 0, 0, 0, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probit_is_half_a_square_far_out(dtype):
    """At a score of 1e4, by Mills' ratio: Q(a) = phi(a) / a (1 - a^-2 + ...)."""
    x, ids = jnp.array([1e4, -1e4, 1e4], dtype), jnp.array([1, 1, 0])
    cuts = jnp.array([-1.0, 1.0], dtype)
    run = jax.value_and_grad(lambda x: jnp.sum(jaxloss.cumulative_probit(x, ids, cuts)))
    losses, (_, slopes) = jaxloss.cumulative_probit(x, ids, cuts), run(x)
    a = np.array([1e4 - 1, 1e4 - 1, 1e4 + 1])
    want = a**2 / 2 + np.log(2 * np.pi) / 2 + np.log(a) + a**-2.0
    np.testing.assert_allclose(losses, want, rtol=tolerance(dtype, 4))
    steep = (a + 1 / a) * np.array([1, -1, 1])
    np.testing.assert_allclose(slopes, steep, rtol=tolerance(dtype, 4))


def test_probit_further_out():
    """Wherever its square is finite in float32."""
    run = jax.value_and_grad(jaxloss.cumulative_probit)
    for x, y in ((np.float32(1e18), 0), (np.float32(-1e18), 1)):
        value, slope = run(x, jnp.array(y), jnp.zeros(1, np.float32))
        eps = tolerance(np.float32, 4)
        np.testing.assert_allclose(value, float(x) ** 2 / 2, rtol=eps)
        np.testing.assert_allclose(slope, x, rtol=eps)


def test_the_coefficients_of_mills_ratio():
    """Both series of Chebyshev polynomials, by mpmath, wherever the tail begins."""
    x = np.concatenate([[0.0, 1e-9], np.geomspace(1e-3, 1e9, 25)])
    for dtype in (np.float32, np.float64):
        tail = _normal._tail(jnp.asarray(x, dtype))
        for at, ratio, rest in zip(tail.x, tail.ratio, tail.rest, strict=True):
            with mpmath.workdps(60):
                v = mpmath.mpf(float(at))
                # Q / phi = the integral of exp(-x s - s^2 / 2) over s > 0.
                mills = mpmath.sqrt(mpmath.pi / 2) * mpmath.erfc(v / mpmath.sqrt(2))
                mills *= mpmath.exp(v * v / 2)
                want = float((1 + v) * mills), float((1 + v) ** 2 * (1 - v * mills))
            np.testing.assert_allclose([ratio, rest], want, rtol=tolerance(dtype, 4))


def test_probit_in_the_middle():
    """One cutpoint at the score halves the distribution; two at +-1 hold 68.3 %."""
    half = jaxloss.cumulative_probit(jnp.zeros(2), jnp.arange(2), jnp.zeros(1))
    np.testing.assert_allclose(half, np.log(2), rtol=4 * FLOAT64)
    cuts = jnp.array([-1.0, 1.0])
    inner = jaxloss.cumulative_probit(jnp.zeros(()), jnp.array(1), cuts)
    np.testing.assert_allclose(jnp.exp(-inner), 0.682689492137086, rtol=1e-14)


@links
def test_a_narrow_class_keeps_its_digits(loss):
    """Of width 1e-6 it has the density times the width, in float32 too; its slope in
    the score is that of the density."""
    center, width = np.float32(0.75), np.float32(2**-20)
    cuts = jnp.array([center - width / 2, center + width / 2], np.float32)
    x, ids = jnp.zeros((), np.float32), jnp.array(1)
    value, slope = jax.value_and_grad(loss)(x, ids, cuts)
    e = np.exp(-0.75)
    density, steep = {
        "cumulative_logit": (e / (1 + e) ** 2, (e - 1) / (1 + e)),
        "cumulative_probit": (np.exp(-(0.75**2) / 2) / np.sqrt(2 * np.pi), -0.75),
    }[loss.__name__]
    eps = tolerance(np.float32, 4)
    np.testing.assert_allclose(value, -np.log(density * width), rtol=eps)
    np.testing.assert_allclose(slope, steep, rtol=eps)


# --- distributions -----------------------------------------------------------------


def test_certainty_costs_how_far_it_is_from_the_label():
    """All mass on class i, the label j: |i - j|, for ids and for distributions."""
    x = jnp.where(jnp.eye(5, dtype=bool), 0, -INF)
    i, j = (v.ravel() for v in jnp.indices((5, 5)))
    for labels in (j, jnp.eye(5)[j]):
        np.testing.assert_array_equal(jaxloss.squared_emd(x[i], labels), abs(i - j))


def test_it_is_the_squared_difference_of_cumulative_distributions():
    """As defined, for any distribution; the two ends of the order may change places."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(6, 5)), rng.dirichlet(np.ones(5), size=6)
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    want = np.square(np.cumsum(p - w, axis=1)).sum(axis=1)
    np.testing.assert_allclose(jaxloss.squared_emd(x, w), want, rtol=8 * FLOAT64)
    turned = jaxloss.squared_emd(x[:, ::-1], w[:, ::-1])
    np.testing.assert_allclose(turned, want, rtol=8 * FLOAT64)


def test_two_classes_have_half_the_brier_score():
    """The one threshold has the error of either probability."""
    x, y = jnp.array([[1.0, -2.0], [0.3, 0.5]]), jnp.array([0, 0])
    np.testing.assert_allclose(
        jaxloss.squared_emd(x, y),
        jaxloss.brier(stable.softmax(x), y) / 2,
        rtol=4 * FLOAT64,  # the score subtracts from 1 what is 1 - 0.05
    )


def test_confidence_keeps_its_digits():
    """[20, 0]: the square of 2.06e-9, where 1 - p gives 0; its slope likewise."""
    loss = lambda x, y: jaxloss.squared_emd(x, y)[()]
    x, odds = jnp.array([20.0, 0.0], np.float32), np.exp(-20.0)
    p = odds / (1 + odds)
    for y, logits in ((0, x), (1, x[::-1])):
        value, slope = jax.value_and_grad(loss)(logits, jnp.array(y))
        eps = tolerance(np.float32, 8)
        np.testing.assert_allclose(value, p**2, rtol=eps)
        steep = 2 * p**2 / (1 + odds) * np.where(np.arange(2) == y, -1, 1)
        np.testing.assert_allclose(slope, steep, rtol=eps)


def test_a_class_without_a_probability_only_lengthens_the_way():
    """A class of logit -inf in the middle repeats a threshold; the derivatives are
    finite, and those of a row without any class are 0, as its loss is."""
    x = jnp.array([[0.5, -INF, 1.0], [-INF, -INF, -INF], [0.5, 1.0, -INF]])
    ids = jnp.array([0, 2, 0])
    total = lambda x: jnp.sum(jaxloss.squared_emd(x, ids) * jnp.array([1.0, 2.0, 4.0]))
    p = 1 / (1 + np.exp(-0.5))
    losses = jaxloss.squared_emd(x, ids)
    np.testing.assert_allclose(losses, [2 * p**2, 0, p**2], rtol=FLOAT64)
    slope, curve = jax.jit(lambda x: (jax.grad(total)(x), jax.hessian(total)(x)))(x)
    np.testing.assert_allclose(slope[0, 2], 4 * p**2 * (1 - p), rtol=FLOAT64)
    assert jnp.all(jnp.isfinite(curve))
    for derivative in (slope[1], slope[0, 1], curve[1]):
        np.testing.assert_array_equal(derivative, 0)


def test_the_sum_of_a_distribution_weighs_the_example():
    """By its square: twice the distribution costs four times as much, none nothing;
    and it matters not to which end the difference of two sums is added up."""
    x, w = jnp.array([0.3, -1.0, 2.0]), jnp.array([0.2, 0.5, 0.3])
    run = jax.jit(jax.value_and_grad(jaxloss.squared_emd, (0, 1)))
    (loss, slopes), (double, steep) = run(x, w), run(x, 2 * w)
    np.testing.assert_allclose(double, 4 * loss, rtol=FLOAT64)
    np.testing.assert_allclose(steep[0], 4 * slopes[0], rtol=FLOAT64)
    np.testing.assert_allclose(steep[1], 2 * slopes[1], rtol=FLOAT64)
    for leaf in jax.tree.leaves(run(x, 0 * w)):
        np.testing.assert_array_equal(leaf, 0)
    # Thirds of float32 do not sum to 1, and the loss of even logits is still 0.
    third = jnp.full(3, 1 / 3, np.float32)
    assert jaxloss.squared_emd(jnp.zeros(3, np.float32), third) < 1e-14


def test_classes_may_lie_along_any_axis():
    """`axis` says where; ids and one-hot distributions agree."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    ids = jnp.array([0, 2, 1, 1])
    for loss in (jaxloss.coral, jaxloss.corn, jaxloss.squared_emd):
        np.testing.assert_allclose(loss(x.T, ids, axis=0), loss(x, ids), rtol=FLOAT64)
    np.testing.assert_allclose(
        jaxloss.squared_emd(x, jnp.eye(3)[ids]),
        jaxloss.squared_emd(x, ids),
        rtol=FLOAT64,
    )
