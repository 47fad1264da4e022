"""Cross entropies: published numbers, identities, labels and masks."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import jaxloss
from jaxloss import stable
from jaxloss.claims.classification.cross_entropy import log_probs
from jaxloss.testing import accuracy, assert_close

INF = jnp.inf
# Values that are equal on paper, by two formulas of at most 8 ulps each.
both = lambda a, b: assert_close(a, b, jnp.float32, ulps=16)


@jax.jit
def weigh(x, y, v):
    return jaxloss.sigmoid_cross_entropy(x, y, pos_weight=v)


@jax.jit
def smooth(x, y, part):
    return jaxloss.softmax_cross_entropy(x, y, label_smoothing=part)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_of_a_thousand_classes(dtype):
    """The loss is float32, and the gradient correctly rounded, of every component."""
    x = jnp.asarray(4 * np.random.default_rng(0).normal(size=(2, 1000)), dtype)
    ids = jnp.array([3, 1]).at[1].set(jnp.argmax(x[1]))
    loss = lambda x: jnp.sum(jaxloss.softmax_cross_entropy(x, ids))
    value, slope = jax.jit(jax.value_and_grad(loss))(x)
    logs = [log_probs([mp.mpf(float(v)) for v in row]) for row in x]
    truth = [
        [mp.expm1(v) if j == y else mp.exp(v) for j, v in enumerate(row)]
        for row, y in zip(logs, ids.tolist(), strict=True)
    ]
    total = -logs[0][int(ids[0])] - logs[1][int(ids[1])]
    assert_close(value, float(total), jnp.float32)
    assert slope.dtype == dtype
    errors = accuracy.ulps(slope, np.array(truth), dtype, floor=2.0**-24)
    assert errors.max() <= 0.51


# --- published numbers -------------------------------------------------------------


def test_binary_cross_entropy_of_probabilities():
    """Probabilities .9 .1 .8 .7 .2 of labels 1 0 1 1 0 cost 0.202737 on average."""
    p, y = np.array([0.9, 0.1, 0.8, 0.7, 0.2]), np.array([1, 0, 1, 1, 0])
    losses = jaxloss.sigmoid_cross_entropy(jnp.log(p / (1 - p)), y)
    assert_close(losses, -np.log([0.9, 0.9, 0.8, 0.7, 0.8]), ulps=32)
    assert round(float(jnp.mean(losses)), 6) == 0.202737


@pytest.mark.parametrize("p", [0.99, 0.51, 0.01])
def test_binary_cross_entropy_of_one_probability(p):
    """A positive given probability p costs -ln p: 0.01005, 0.67334, 4.60517."""
    loss = jaxloss.sigmoid_cross_entropy(jnp.log(p) - jnp.log(1 - p), 1)
    assert_close(loss, -np.log(p), ulps=512)  # of log(1 - p), for p = 0.99


def test_categorical_cross_entropy_of_probabilities():
    """p = [.1 .8 .1], [.7 .2 .1], [.3 .4 .3] of classes 1, 0, 2: mean 0.594597."""
    p = jnp.array([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.3, 0.4, 0.3]])
    losses = jaxloss.nll(jnp.log(p), jnp.array([1, 0, 2]))
    assert_close(losses, -np.log([0.8, 0.7, 0.3]))
    assert round(float(jnp.mean(losses)), 6) == 0.594597


@pytest.mark.parametrize(
    ("logits", "ids", "mean"),
    [
        (
            [
                [2, 0.5, -1],
                [0.1, 3, -0.5],
                [-1, 0.2, 1.5],
                [0.5, 0.3, 0.2],
                [0.1, 0.1, 0.1],
            ],
            [0, 1, 2, 1, 0],
            0.573011,
        ),
        ([[2, 1, 0.1], [0.5, 2.5, 0.3]], [0, 1], 0.318540),
    ],
)
def test_cross_entropy_of_logits(logits, ids, mean):
    """The worked examples of two textbooks."""
    losses = jaxloss.softmax_cross_entropy(jnp.array(logits), jnp.array(ids))
    assert round(float(jnp.mean(losses)), 6) == mean


def test_confident_and_right_is_not_free():
    """Logits [20, 0] cost log1p(exp(-20)) = 2.06e-9, and pull on both logits."""
    fn = lambda x: jaxloss.softmax_cross_entropy(x, jnp.array(0))
    value, slope = jax.jit(jax.value_and_grad(fn))(jnp.float32([20, 0]))
    small = np.log1p(np.exp(-20.0))
    assert_close(value, small, jnp.float32)
    assert_close(
        slope, np.exp(-20) / (1 + np.exp(-20)) * np.array([-1, 1]), jnp.float32
    )
    assert jnp.sum(slope) == 0


def test_far_from_the_origin():
    """An offset common to all logits costs no digits."""
    loss = jaxloss.softmax_cross_entropy(jnp.float32([1e4 + 5, 1e4, 1e4]), jnp.array(0))
    assert_close(loss, np.log1p(2 * np.exp(-5.0)), jnp.float32)


# --- identities --------------------------------------------------------------------


def draw(seed=0, shape=(8, 5)):
    """Logits, ids, and distributions."""
    rng = np.random.default_rng(seed)
    x = jnp.float32(3 * rng.normal(size=shape))
    w = jnp.float32(rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]))
    return x, jnp.asarray(rng.integers(shape[-1], size=shape[:-1])), w


def one_hot(ids, classes=5):
    return jnp.asarray(np.eye(classes)[np.asarray(ids)], jnp.float32)


def test_two_classes_are_one_decision():
    """Softmax over [x, 0] is the sigmoid of x: the same loss for either label."""
    x, y = jnp.float32([-90, -3, 0, 0.5, 30]), jnp.array([1, 0, 1, 1, 0])
    two = jnp.stack([jnp.zeros_like(x), x], axis=-1)
    both(
        jaxloss.sigmoid_cross_entropy(x, y),
        jaxloss.softmax_cross_entropy(two, y),
    )


def test_cross_entropy_is_divergence_plus_entropy():
    """CE(w, p) = KL(w || p) + H(w)."""
    x, _, w = draw()
    w64, p = np.float64(w), np.exp(np.float64(stable.log_softmax(x)))
    divergence = np.sum(w64 * np.log(w64 / p), axis=-1)
    entropy = -np.sum(w64 * np.log(w64), axis=-1)
    both(jaxloss.softmax_cross_entropy(x, w), divergence + entropy)


def test_the_gradient_is_prediction_minus_label():
    """p - y for the sigmoid and for the softmax, of ids and of distributions."""
    x, ids, w = draw()
    grad = lambda fn, y: jax.jit(jax.grad(lambda x: jnp.sum(fn(x, y))))(x)
    p = np.exp(np.float64(x)) / np.exp(np.float64(x)).sum(-1, keepdims=True)
    near = lambda a, b: assert_close(a, b, jnp.float32, size=1)
    near(grad(jaxloss.softmax_cross_entropy, ids), p - one_hot(ids))
    near(grad(jaxloss.softmax_cross_entropy, w), p - w)
    p = 1 / (1 + np.exp(-np.float64(x)))
    near(grad(jaxloss.sigmoid_cross_entropy, w), p - w)


def test_a_shift_of_the_logits_changes_nothing():
    """Bit for bit, where the shifted logits are exact."""
    x, ids, w = draw()
    x = jnp.round(8 * x) / 8
    for labels in (ids, w):
        loss = lambda x, y=labels: jaxloss.softmax_cross_entropy(x, y)
        assert jnp.array_equal(loss(x), loss(x + 1024))


@pytest.mark.parametrize("part", [0.0, 0.1, 1.0])
def test_ids_are_one_hot_distributions(part):
    """The same loss and gradient, by sums of other terms: to rounding."""
    x, ids, _ = draw()
    x = x.at[0, 1].set(-INF).at[1].set(0).at[2, 2].add(40)
    ids = ids.at[0].set(3)

    @jax.jit
    def run(labels):
        loss = lambda x: smooth(x, labels, part)
        return loss(x), jax.grad(lambda x: jnp.sum(loss(x)))(x)

    for a, b in zip(run(ids), run(one_hot(ids)), strict=True):
        # Ids subtract their rival from all logits, distributions the largest logit; and
        # all that is spread has the gradient p - 1/5.
        assert_close(a, b, jnp.float32, ulps=4, size=part / 5)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 1.0])
def test_smoothing_is_cross_entropy_against_smoothed_labels(part):
    """(1 - eps) y + eps / K, for ids and for distributions, as one number or many."""
    x, ids, w = draw()
    plain = jaxloss.softmax_cross_entropy
    for labels, full in ((ids, one_hot(ids)), (w, w)):
        target = (1 - part) * full + part / 5
        both(smooth(x, labels, part), plain(x, target))
        both(smooth(x, labels, jnp.full(8, part, jnp.float32)), plain(x, target))


def test_smoothing_spreads_over_the_classes_that_exist():
    """A masked or impossible class gets no share, and K counts the others."""
    x, ids, _ = draw()
    ids = ids % 3
    where = jnp.broadcast_to(jnp.arange(5) < 3, x.shape)
    few = smooth(x[:, :3], ids, 0.1)
    both(smooth(jnp.where(where, x, -INF), ids, 0.1), few)
    masked = jaxloss.softmax_cross_entropy(x, ids, where=where, label_smoothing=0.1)
    both(masked, few)


def test_no_smoothing_costs_nothing():
    """At eps = 0 the loss is bit for bit the unsmoothed one, impossible classes too."""
    x, ids, _ = draw()
    x = x.at[:, 4].set(-INF)
    ids = ids % 4
    plain = stable.softmax_nll(x, ids)
    assert jnp.array_equal(jaxloss.softmax_cross_entropy(x, ids), plain)


def test_smoothing_can_be_learned():
    """The slope in eps is `x_y - mean(x)` at every eps in [0, 1], from either end."""
    x, ids, _ = draw()
    loss = lambda part: smooth(x, ids, part)
    label = np.take_along_axis(np.float64(x), np.asarray(ids)[:, None], 1)[:, 0]
    want = label - np.float64(x).mean(axis=1)
    for part in (0.0, 0.3, 1.0):
        slope = jax.jvp(loss, (jnp.float32(part),), (jnp.float32(1),))[1]
        assert_close(slope, want, jnp.float32, size=np.abs(x).max())


def test_the_sum_of_a_distribution_is_a_weight():
    """Twice the labels cost exactly twice as much; no labels cost nothing."""
    x, _, w = draw()
    for part in (0.0, 0.2):
        assert jnp.array_equal(smooth(x, 2 * w, part), 2 * smooth(x, w, part))
        assert jnp.all(smooth(x, 0 * w, part) == 0)


def test_pos_weight_counts_positives():
    """Weight 3 is three copies of every positive, weight by class or for all."""
    x, _, y = draw()
    one = jaxloss.sigmoid_cross_entropy(x, y)
    positive = -stable.log_sigmoid(x)
    both(weigh(x, y, 3.0), one + 2 * y * positive)
    both(weigh(x, y, jnp.full(5, 3.0)), weigh(x, y, 3.0))
    slope = jax.grad(lambda v: jnp.sum(weigh(x, y, v)))(jnp.full(5, 3.0))
    assert_close(slope, jnp.sum(y * positive, axis=0), jnp.float32, ulps=16)


def test_labels_of_every_type_are_equal():
    """Booleans, integers and floating-point labels, ids of every integer type."""
    x, ids, _ = draw()
    y = ids % 2
    plain = jaxloss.sigmoid_cross_entropy(x[:, 0], y)
    for dtype in (bool, jnp.int8, jnp.uint32, jnp.float16, jnp.float32):
        again = jaxloss.sigmoid_cross_entropy(x[:, 0], y.astype(dtype))
        assert jnp.array_equal(again, plain)
    plain = jaxloss.softmax_cross_entropy(x, ids)
    for dtype in (jnp.int8, jnp.uint8, jnp.int16, jnp.uint32, jnp.int64):
        again = jaxloss.softmax_cross_entropy(x, ids.astype(dtype))
        assert jnp.array_equal(again, plain)


def test_small_integers_do_not_wrap_around():
    """An 8-bit id is one class of 300, not also the one 256 further on."""
    x = jnp.zeros(300).at[0].set(9.0)
    loss = jaxloss.softmax_cross_entropy(x, jnp.array(5, jnp.uint8))
    assert_close(loss, np.log(299 + np.exp(9.0)), ulps=64)


def test_the_classes_may_be_any_axis():
    """Moving the class axis moves nothing else, for ids, distributions and masks."""
    x, ids, w = draw(shape=(2, 3, 5))
    where = (one_hot(ids) > 0) | jnp.asarray(np.indices(x.shape)[-1] < 4)
    move = lambda a: jnp.moveaxis(a, -1, 1)
    loss = jaxloss.softmax_cross_entropy
    for labels, moved in ((ids, ids), (w, move(w))):
        for axis in (1, -2):
            again = loss(move(x), moved, axis=axis, where=move(where))
            assert jnp.array_equal(again, loss(x, labels, where=where))
    logs = stable.log_softmax(x)
    plain = jaxloss.nll(logs, ids)
    assert jnp.array_equal(jaxloss.nll(move(logs), ids, axis=1), plain)
    plain = jaxloss.z_loss(x)
    assert jnp.array_equal(jaxloss.z_loss(move(x), axis=1), plain)


def test_nll_of_log_softmax_is_cross_entropy():
    """For ids and for distributions."""
    x, ids, w = draw()
    logs = stable.log_softmax(x)
    for labels in (ids, w):
        plain = jaxloss.softmax_cross_entropy(x, labels)
        both(jaxloss.nll(logs, labels), plain)


def test_cross_entropy_and_z_loss_in_one_pass():
    """The values of the two functions and the gradient of their sum; but only as many
    exponentials of arrays of logits as the cross entropy has alone."""
    x = 3 * np.random.default_rng(0).normal(size=(64, 300)).astype(np.float32)
    ids = jnp.asarray(np.random.default_rng(1).integers(0, 300, 64))

    def apart(x):
        return jaxloss.softmax_cross_entropy(x, ids), jaxloss.z_loss(x)

    def train(losses, x):
        both = losses(x)
        return jnp.sum(both[0] + 1e-3 * both[1]), both

    together = lambda x: jaxloss.softmax_cross_entropy_with_z(x, ids)
    step = jax.jit(jax.value_and_grad(train, 1, has_aux=True), static_argnums=0)
    for got, want in zip(
        *map(jax.tree.leaves, (step(together, x), step(apart, x))), strict=True
    ):
        np.testing.assert_allclose(got, want, 4e-6, 1e-8)
    count = lambda fn, *args: fn.lower(*args).compile().as_text().count("exponential(")
    alone = jax.jit(jax.grad(lambda x: jnp.sum(jaxloss.softmax_cross_entropy(x, ids))))
    assert count(step, together, x) <= count(alone, x) < count(step, apart, x)


def test_an_unknown_id_costs_both_losses_nan_and_a_mask_takes_them_away():
    """And a row without classes costs nothing, with an unknown id as well."""
    x = jnp.array([[1.0, 2.0], [0.5, 0.0], [-jnp.inf, -jnp.inf]])
    ids, keep = jnp.array([0, 7, -1]), jnp.array([True, False, True])
    losses = jaxloss.softmax_cross_entropy_with_z(x, ids)
    for part in losses:
        np.testing.assert_array_equal(jnp.isnan(part), ~keep)
        assert part[2] == 0

    def total(x):
        parts = jaxloss.softmax_cross_entropy_with_z(x, ids)
        return sum(jaxloss.mean(part, where=keep) for part in parts)

    slope = jax.grad(total)(x)
    np.testing.assert_array_equal(slope[1:], np.zeros((2, 2)))
    p, lse = jax.nn.softmax(x[0]), jax.nn.logsumexp(x[0])
    want = (p - jnp.array([1.0, 0.0]) + 2 * lse * p) / 2
    np.testing.assert_allclose(slope[0], want, 1e-6)


def test_z_loss_pulls_the_partition_function_to_one():
    """Its gradient is 2 logsumexp p: 0 for log-probabilities, finite up to 1e30."""
    x, *_ = draw()
    grad = jax.jit(jax.grad(lambda x: jnp.sum(jaxloss.z_loss(x))))
    wide = np.exp(np.float64(x))
    want = 2 * np.log(wide.sum(-1, keepdims=True)) * wide / wide.sum(-1, keepdims=True)
    assert_close(grad(x), want, jnp.float32, ulps=16)
    assert jnp.all(grad(jnp.float32([[0.0, -INF], [0.0, -200.0]])) == 0)
    assert jnp.array_equal(grad(jnp.float32([[1e30, 0]])), jnp.float32([[2e30, 0]]))


def test_a_compiled_loss_can_be_differentiated():
    """`grad` outside of `jit`, with ids that are traced too: the same gradient."""
    x, ids, _ = draw()
    loss = lambda x, ids: jnp.sum(jaxloss.softmax_cross_entropy(x, ids))
    slope = jax.grad(loss)(x, ids)
    for fn in (jax.grad(jax.jit(loss)), jax.jit(jax.grad(jax.jit(loss)))):
        assert_close(fn(x, ids), slope, jnp.float32)


# --- labels that are no class, classes that do not exist ---------------------------


@pytest.mark.parametrize(
    ("loss", "compiled"),
    [
        (lambda x, ids: smooth(x, ids, 0.1), True),
        (jaxloss.nll, True),
        (jaxloss.nll, False),
    ],
    ids=["softmax_cross_entropy", "nll", "nll, eager"],
)
class TestUnknownIds:
    def test_are_nan(self, loss, compiled):
        """-1 and K are no class: NaN, value and gradient, for that example alone."""
        x = jnp.float32([[2, 1, 0.1]] * 4)
        ids = jnp.array([1, -1, 3, 0])
        run = lambda x: (loss(x, ids), jax.grad(lambda x: jnp.sum(loss(x, ids)))(x))
        value, slope = (jax.jit(run) if compiled else run)(x)
        wrong = jnp.array([False, True, True, False])
        assert jnp.array_equal(jnp.isnan(value), wrong)
        assert jnp.array_equal(jnp.any(jnp.isnan(slope), axis=-1), wrong)
        push = lambda x: jax.jvp(lambda x: loss(x, ids), (x,), (x,))[1]
        forward = (jax.jit(push) if compiled else push)(x)
        assert jnp.array_equal(jnp.isnan(forward), wrong)

    def test_are_harmless_behind_a_mask(self, loss, compiled):
        """`mean(where=)` drops them, from the gradient too, with or without `fill`."""
        x, ids = jnp.float32([[2, 1, 0.1]] * 3), jnp.array([1, -1, 7])
        where = ids == 1
        kept = jax.jit(jax.grad(lambda x: loss(x, ids[:1])[0]))(x[:1])

        def plain(x):
            return jaxloss.mean(loss(x, ids), where=where)

        def filled(x):
            return jaxloss.mean(loss(*jaxloss.fill(where, x, ids)), where=where)

        for fn in (plain, filled):
            run = jax.jit(jax.grad(fn)) if compiled else jax.grad(fn)
            slope = run(x)
            assert_close(slope[:1], kept, jnp.float32)
            assert jnp.all(slope[1:] == 0)


def test_an_example_without_classes_is_nothing():
    """Loss 0 and gradient 0, whatever its label, its NaNs and its smoothing."""
    x = jnp.float32([[1, 2, jnp.nan], [1, 2, 3]])
    where = jnp.array([[False] * 3, [True] * 3])
    for labels in (jnp.array([-1, 0]), jnp.float32([[0.2, 0.3, 0.5], [1, 0, 0]])):

        def loss(x, labels=labels):
            return jaxloss.softmax_cross_entropy(
                x, labels, where=where, label_smoothing=0.1
            )

        slope = jax.jit(jax.grad(lambda x, loss=loss: jnp.sum(loss(x))))(x)
        assert jax.jit(loss)(x)[0] == 0
        assert jnp.all(slope[0] == 0)
        assert jnp.all(jnp.isfinite(slope))
    z = lambda x: jnp.sum(jaxloss.z_loss(x, where=where)[0])
    assert z(x) == 0
    assert jnp.all(jax.jit(jax.grad(z))(x) == 0)
    assert jaxloss.nll(jnp.full((1, 3), -INF), jnp.array([2])) == 0


def test_a_masked_class_does_not_exist():
    """NaN behind `where` is never seen; the rest is cross entropy of fewer classes."""
    x, ids, w = draw()
    ids, few = ids % 3, w[:, :3]
    dirty = x.at[:, 3:].set(jnp.nan)
    where = jnp.broadcast_to(jnp.arange(5) < 3, x.shape)
    for labels, fewer in ((ids, ids), (w.at[:, 3:].set(0), few)):

        def loss(x, labels=labels):
            return jaxloss.softmax_cross_entropy(x, labels, where=where)

        both(loss(dirty), jaxloss.softmax_cross_entropy(x[:, :3], fewer))
        slope = jax.jit(jax.grad(lambda x, loss=loss: jnp.sum(loss(x))))(dirty)
        assert jnp.all(slope[:, 3:] == 0)
        assert jnp.all(jnp.isfinite(slope))


def test_an_impossible_label_costs_infinity():
    """A label masked out or of logit -inf: +inf, with a finite gradient, both modes."""
    x = jnp.float32([[1, 2, 3], [-INF, 2, 3]])
    where = jnp.array([[False, True, True], [True, True, True]])
    for labels in (jnp.array([0, 0]), jnp.float32([[1, 0, 0]] * 2)):

        def loss(x, labels=labels):
            return jaxloss.softmax_cross_entropy(x, labels, where=where)

        assert jnp.all(loss(x) == INF)
        slope = jax.jit(jax.grad(lambda x, loss=loss: jnp.sum(loss(x))))(x)
        p = jax.nn.softmax(jnp.float32([2, 3]))
        assert_close(slope[:, 1:], jnp.stack([p, p]), jnp.float32)
        assert jnp.all(jnp.isfinite(slope))
        assert jnp.all(jnp.isfinite(jax.jvp(loss, (x,), (jnp.ones_like(x),))[1]))


def test_impossible_classes_leave_every_derivative_finite():
    """Logits of -inf: gradient, jvp and Hessian, in logits and in labels."""
    x = jnp.float32([0.5, -INF, 1.0, -INF])
    w = jnp.float32([0.4, 0, 0.6, 0])
    for labels in (jnp.array(2), w):
        loss = lambda x, y=labels: smooth(x, y, 0.1)
        push = lambda x, loss=loss: jax.jvp(loss, (x,), (jnp.ones_like(x),))
        for fn in (push, jax.grad(loss), jax.hessian(loss)):
            assert all(
                jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(jax.jit(fn)(x))
            )
    in_labels = jax.jit(jax.grad(lambda w: smooth(x, w, 0.0)))(w)
    assert jnp.array_equal(in_labels == 0, x == -INF)
    logs = stable.log_softmax(x)
    loss, slopes = jax.jit(jax.value_and_grad(jaxloss.nll, (0, 1)))(logs, w)
    assert_close(loss, -0.4 * logs[0] - 0.6 * logs[2], jnp.float32)
    for slope in slopes:
        assert jnp.all(jnp.isfinite(slope))


def test_infinite_logits_of_one_decision():
    """+-inf: 0 with gradient 0 if the label agrees, +inf with slope +-1 if not."""
    x, y = jnp.float32([INF, -INF, INF, -INF]), jnp.float32([1, 0, 0, 1])
    for weight in (1.0, 2.0):
        loss = lambda x, v=weight: weigh(x, y, v)
        assert jnp.array_equal(loss(x), jnp.float32([0, 0, INF, INF]))
        slope = jax.jit(jax.grad(lambda x, loss=loss: jnp.sum(loss(x))))(x)
        assert jnp.array_equal(slope, jnp.float32([0, 0, 1, -weight]))
        assert jnp.array_equal(jax.jvp(loss, (x,), (jnp.ones_like(x),))[1], slope)


def test_curvature_is_positive_in_the_tails():
    """sigmoid' = s(x) s(-x) is not 0 at |x| = 60, where s(x) rounds to 1."""
    curve = jax.grad(jax.grad(jaxloss.sigmoid_cross_entropy))
    for x in (-60.0, 60.0):
        assert_close(curve(jnp.float32(x), 1.0), np.exp(-60.0), jnp.float32)


# --- misuse and peers --------------------------------------------------------------


BOTH_KINDS = (
    "expected integer class ids of shape (3,), or a floating-point distribution of the "
    "shape of `logits`, (3, 4)"
)


@pytest.mark.parametrize(
    ("labels", "error", "remedy"),
    [
        (jnp.ones((3, 4), int), TypeError, "; use `labels.astype(jnp.float32)`"),
        (jnp.ones((3, 4), bool), TypeError, "; use `labels.astype(jnp.float32)`"),
        (jnp.ones(3, bool), TypeError, "; use `labels.astype(int)`"),
        (jnp.ones(3), TypeError, "; use `labels.astype(int)`"),
        (jnp.ones(3, complex), TypeError, ""),
        (jnp.ones((3, 1), int), ValueError, "; use `labels[..., 0]`"),
        (jnp.ones(4, int), ValueError, "; `labels` fits `axis=0`"),
        (jnp.ones(5, int), ValueError, ""),
        (jnp.ones((3, 5)), ValueError, ""),
    ],
)
def test_the_message_names_both_kinds_of_labels(labels, error, remedy):
    """And what makes labels of these, if that is certain."""
    given = f"dtype {labels.dtype} and shape {labels.shape}"
    text = f"softmax_cross_entropy: `labels` has {given}; {BOTH_KINDS}{remedy}."
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        jaxloss.softmax_cross_entropy(jnp.ones((3, 4), jnp.float32), labels)


def test_labels_of_images_are_told_the_axis_of_the_classes():
    """Torch has the classes second; where two axes fit, none is named."""
    x, labels = jnp.ones((2, 5, 4, 4)), jnp.ones((2, 4, 4), int)
    with pytest.raises(ValueError, match=r"; `labels` fits `axis=1`\.$"):
        jaxloss.softmax_cross_entropy(x, labels)
    assert jaxloss.softmax_cross_entropy(x, labels, axis=1).shape == (2, 4, 4)
    with pytest.raises(ValueError, match=r"`logits`, \(4, 4, 5\)\.$"):
        jaxloss.softmax_cross_entropy(x[0].T, jnp.ones((4, 5), int))


def test_optax_agrees_where_it_is_accurate():
    """The same definitions as optax, on ordinary logits."""
    import optax

    x, ids, w = draw()
    x = jnp.clip(x, -3, 3)
    where = (one_hot(ids) > 0) | jnp.asarray(np.indices(x.shape)[-1] < 3)
    near = lambda a, b: assert_close(a, b, jnp.float32, size=4)
    ours, theirs = jaxloss, optax.losses
    sparse = theirs.softmax_cross_entropy_with_integer_labels
    with jax.numpy_rank_promotion("allow"):  # which optax needs
        near(
            ours.sigmoid_cross_entropy(x, w), theirs.sigmoid_binary_cross_entropy(x, w)
        )
        near(ours.softmax_cross_entropy(x, w), theirs.softmax_cross_entropy(x, w))
        near(ours.softmax_cross_entropy(x, ids), sparse(x, ids))
        near(
            ours.softmax_cross_entropy(x, ids, where=where), sparse(x, ids, where=where)
        )
        target = theirs.smooth_labels(one_hot(ids), 0.1)
        near(smooth(x, ids, 0.1), theirs.softmax_cross_entropy(x, target))


def test_more_classes_than_float32_counts():
    """Of 2^24 + 3 classes, two neighbours that float32 does not tell apart."""
    size = 2**24 + 3
    logits = jnp.zeros((1, size), jnp.float32).at[0, 2**24].set(20.0)
    losses = jax.jit(jaxloss.softmax_cross_entropy)
    rest = size - 1
    for label, share in ((2**24 + 1, 1), (2**24, np.exp(20.0))):
        want = np.log((rest + np.exp(20.0)) / share)
        np.testing.assert_allclose(losses(logits, jnp.array([label])), want, rtol=1e-5)


def test_smoothing_keeps_the_mass_of_a_distribution():
    """Twice the label is twice the loss, whatever is smoothed."""
    x = jnp.array([0.3, -1.0, 2.0])
    log_p = np.array(x) - np.log(np.sum(np.exp(x)))
    smoothed = 2 * (0.9 * np.array([1.0, 0, 0]) + 0.1 / 3)
    loss = jaxloss.softmax_cross_entropy(
        x, jnp.array([2.0, 0.0, 0.0]), label_smoothing=0.1
    )
    np.testing.assert_allclose(loss, -smoothed @ log_p, rtol=1e-14)


def test_classes_behind_the_mask_do_not_exist():
    """Not for smoothing, which is over the others, and whatever their logit is."""
    known = jnp.array([True, True, False])
    x = jnp.array([0.3, -1.0, jnp.nan])
    log_p = np.array([0.3, -1.0]) - np.logaddexp(0.3, -1.0)
    for labels, share in (
        (jnp.array(0), [1.0, 0.0]),
        (jnp.array([0.5, 0.5, 0.0]), [0.5, 0.5]),
    ):
        loss = lambda x, labels=labels: jaxloss.softmax_cross_entropy(
            x, labels, where=known, label_smoothing=0.1
        )
        smoothed = 0.9 * np.array(share) + 0.1 / 2
        value, slope = jax.value_and_grad(loss)(x)
        np.testing.assert_allclose(value, -smoothed @ log_p, rtol=1e-14)
        np.testing.assert_allclose(slope, [*(np.exp(log_p) - smoothed), 0], rtol=1e-13)


def test_infinite_logits_of_the_right_side():
    """They cost nothing; and all on the wrong one."""
    x = jnp.array([jnp.inf, -jnp.inf, jnp.inf, -jnp.inf])
    loss = jaxloss.sigmoid_cross_entropy(x, jnp.array([1.0, 0.0, 0.0, 1.0]))
    assert jnp.array_equal(loss, jnp.array([0, 0, jnp.inf, jnp.inf]))
