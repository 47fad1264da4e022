"""Facts about the reductions that the laws of each loss do not reach."""

import fractions
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxloss
from jaxloss import Mean, kernels

LOSSES = jnp.array([1.0, 2.0, 4.0, 8.0])
WEIGHTS = jnp.array([1.0, 0.0, 2.0, 3.0])
WHERE = jnp.array([True, True, True, False])
untyped: Any = jaxloss  # the type checker would refuse some calls
NAN = np.float32(np.nan)


@pytest.mark.parametrize(
    ("denominator", "expected"),
    [("weights", 9 / 3), ("valid", 9 / 3), ("count", 9 / 4)],
)
def test_denominators(denominator, expected):
    """Sum of w l over the sum of weights, the number kept, or the number of all."""
    weights = jnp.array([1.0, 0.0, 2.0, 3.0])  # kept: 1 1 + 0 2 + 2 4 = 9
    value = jaxloss.mean(LOSSES, weights=weights, where=WHERE, denominator=denominator)
    assert value == expected


def test_weights_and_valid_differ():
    """Weights 1 and 3: over 4 copies, not over 2 examples."""
    losses, weights = jnp.array([2.0, 6.0]), jnp.array([1.0, 3.0])
    assert jaxloss.mean(losses, weights=weights) == 20 / 4
    assert jaxloss.mean(losses, weights=weights, denominator="valid") == 20 / 2
    assert jaxloss.mean(losses, weights=weights, denominator="count") == 20 / 2


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1)])
def test_axis(axis):
    """Along an axis, each slice has its own weights and its own count."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 4)), rng.random((3, 4))
    m = rng.random((3, 4)) < 0.6
    expected = (x * w * m).sum(axis) / (w * m).sum(axis)
    value = jaxloss.mean(x, weights=w, where=m, axis=axis)
    np.testing.assert_allclose(value, expected, rtol=1e-14, equal_nan=False)
    total = jaxloss.sum(x, weights=w, where=m, axis=axis)
    np.testing.assert_allclose(
        total, (x * w * m).sum(axis), rtol=1e-13, equal_nan=False
    )


@pytest.mark.parametrize(
    "reduction",
    [
        jaxloss.mean,
        jaxloss.sum,
        jaxloss.mean_nonzero,
        lambda x, where: jaxloss.top_k_mean(x, 2, where=where),
    ],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_nothing_selected(reduction, transform):
    """Nothing to reduce is 0 with gradient 0, even if all of it is NaN."""
    none = jnp.zeros(3, bool)
    f = transform(jax.value_and_grad(lambda x: reduction(x, where=none)))
    value, gradient = f(jnp.full(3, jnp.nan))
    assert value == 0
    assert jnp.all(gradient == 0)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_what_is_masked_reaches_nothing(bad):
    """A NaN or infinity behind the mask is in neither value nor gradient."""
    dirty = LOSSES.at[3].set(bad)
    for reduction in (jaxloss.mean, jaxloss.sum, jaxloss.mean_nonzero):
        value, gradient = jax.value_and_grad(reduction)(dirty, where=WHERE)
        clean = reduction(LOSSES[:3])
        assert value == clean
        assert jnp.all(jnp.isfinite(gradient))
        assert gradient[3] == 0


def test_fill_protects_the_loss_before_it():
    """Masking a loss afterwards multiplies 0 by its NaN slope; `fill` does not."""
    predictions, keep = jnp.array([4.0, -1.0]), jnp.array([True, False])
    loss = lambda p: jnp.sqrt(p)  # NaN, with NaN slope, at -1
    after = jax.grad(lambda p: jaxloss.mean(loss(p), where=keep))(predictions)
    before = jax.grad(
        lambda p: jaxloss.mean(loss(*jaxloss.fill(keep, p, value=1.0)), where=keep)
    )(predictions)
    assert jnp.isnan(after[1])
    assert jnp.array_equal(before, jnp.array([0.25, 0.0]))


def test_fill_has_a_mask_over_leading_axes():
    """One flag an example clears all of its entries, and keeps dtypes."""
    keep = jnp.array([True, False])
    x, ids = jaxloss.fill(keep, jnp.full((2, 3), jnp.nan), jnp.array([5, -100]))
    assert jnp.all(jnp.isnan(x[0]))
    assert jnp.all(x[1] == 0)
    assert ids.dtype == jnp.array([5]).dtype
    assert jnp.array_equal(ids, jnp.array([5, 0]))


def test_weight_zero_removes_nan_but_keeps_its_own_gradient():
    """0 NaN is 0 here; and a learnt weight of 0 still has the slope of its loss."""
    losses, weights = jnp.array([3.0, 5.0, jnp.nan]), jnp.array([1.0, 0.0, 0.0])
    f = lambda w: jaxloss.sum(losses, weights=w)
    value, gradient = jax.value_and_grad(f)(weights)
    assert value == 3
    assert jnp.array_equal(gradient, jnp.array([3.0, 5.0, 0.0]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_can_count(dtype):
    """Ones beyond 256 or 2048 are counted, and 70000 of them do not overflow."""
    ones = jnp.ones(70_000, dtype)
    assert jaxloss.mean(ones) == 1
    assert jaxloss.sum(ones) == 70_000
    assert jaxloss.sum(ones).dtype == jnp.float32
    assert jax.grad(jaxloss.mean)(ones).dtype == dtype


def test_means_add_where_means_of_means_do_not():
    """Two Means added are the Mean of both parts, whatever their sizes and masks."""
    parts = [Mean.of(LOSSES, weights=WEIGHTS, where=WHERE), Mean.of(LOSSES[:1])]
    both = sum(parts)
    assert isinstance(both, Mean)
    assert both.compute() == (1 + 8 + 1) / (1 + 2 + 1)
    naive = (parts[0].compute() + parts[1].compute()) / 2
    assert naive != both.compute()


def test_a_constant_is_counted_once():
    """The sum of equal constants is the constant: a penalty per batch, not per part."""
    total = sum([Mean.constant(0.7)] * 8)
    assert isinstance(total, Mean)
    np.testing.assert_allclose(total.compute(), 0.7, rtol=2**-22)


def test_a_number_per_batch_is_averaged_over_parts():
    """Each part counts once, whatever its size; half precision adds up in float32."""
    total = sum([Mean.per_batch(x) for x in (0.5, jnp.float16(1.25), 2)])
    assert isinstance(total, Mean)
    assert total.compute() == 1.25
    with pytest.raises(TypeError, match=r"^Mean.per_batch: `value` has dtype complex"):
        Mean.per_batch(1j)


def test_mean_is_a_pytree():
    """A Mean passes through jit, vmap and scan."""
    rows = jnp.arange(6.0).reshape(2, 3)
    mapped = jax.jit(jax.vmap(Mean.of))(rows)
    assert jnp.array_equal(mapped.compute(), rows.mean(axis=1))
    start = Mean(jnp.zeros(()), jnp.zeros(()))
    total, _ = jax.lax.scan(lambda m, row: (m + Mean.of(row), None), start, rows)
    assert total.compute() == rows.mean()


MANY = 1_000_000


@pytest.mark.parametrize(
    ("total", "weight"), [(97.3, 1000.0), (0.1, 1.0), (-3e-5, 0.7), (1e30, 3e4)]
)
@pytest.mark.parametrize("count", [4_000, MANY])
def test_a_million_additions_are_as_exact_as_one(total, weight, count):
    """float32 alone is off by 3e-5 after four thousand, and by 3e-3 after 2e5."""
    one = Mean(jnp.float32(total), jnp.float32(weight))
    start = jax.tree.map(jnp.zeros_like, one)
    add = lambda _, sums: sums + one
    sums = jax.jit(lambda: jax.lax.fori_loop(0, count, add, start))()
    exact = [count * np.float64(x) for x in (one.total, one.weight)]
    np.testing.assert_allclose(sums.total, exact[0], rtol=2**-24)
    np.testing.assert_allclose(sums.weight, exact[1], rtol=2**-24)
    np.testing.assert_allclose(sums.compute(), exact[0] / exact[1], rtol=2**-22)
    assert sums.total.dtype == jnp.float32


def test_counting_does_not_stop_at_2_to_the_24():
    """A weight of 1 is no part of a float32 sum from there on, but of its rest."""
    large = Mean(jnp.float32(2**24), jnp.float32(2**24))
    one = Mean.of(jnp.ones(1, jnp.float32))
    sums = sum([one] * 9, large)
    assert sums.weight == 2**24 + 9 - 1  # the nearest float32, ties to even
    assert np.float64(sums.weight) + np.float64(sums.weight_rest) == 2**24 + 9
    assert (large + one).weight == 2**24


def test_different_terms_are_added_up_like_fractions():
    """Numbers of every size and sign, in any order, against exact rational sums."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=3000) * 10.0 ** rng.integers(-6, 7, 3000)).astype(np.float32)
    w = rng.random(3000).astype(np.float32)
    start = Mean(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))
    add = lambda sums, xw: (sums + Mean(*xw), None)
    sums, _ = jax.jit(lambda x, w: jax.lax.scan(add, start, (x, w)))(x, w)
    exact = [float(sum(map(fractions.Fraction, v.tolist()))) for v in (x, w)]
    np.testing.assert_allclose(sums.total, exact[0], rtol=2**-23)
    np.testing.assert_allclose(sums.weight, exact[1], rtol=2**-23)


def test_the_gradient_of_a_sum_of_means():
    """1 / weight for every total, whatever the rests are; in both modes."""
    start = Mean(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))
    means = lambda x: sum([Mean(v, 0 * v + 3) for v in x], start)
    x = jnp.array([1e8, 1.0, -1e8, 3e-7], jnp.float32)
    slope = jax.grad(lambda x: means(x).compute())(x)
    np.testing.assert_allclose(slope, 1 / 12, rtol=2**-22)
    forward = jax.jacfwd(lambda x: means(x).compute())(x)
    np.testing.assert_allclose(forward, 1 / 12, rtol=2**-22)
    np.testing.assert_allclose(means(x).total, 1 + 3e-7, rtol=2**-23)


@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, NAN, -NAN])
def test_what_is_not_finite_stays_so(bad):
    """An infinite total is no NaN, and one that diverged is not forgotten."""
    sums = Mean.of(jnp.array([bad])) + Mean.of(jnp.ones(3)) + Mean.of(jnp.ones(2))
    np.testing.assert_array_equal(sums.compute(), np.float64(bad))
    np.testing.assert_array_equal(jnp.isnan(sums.weight_rest), False)


def test_means_add_over_devices_and_trees():
    """By `psum` and by `tree.map(jnp.add)`, rests and all; and of two fields alone."""
    rows = jnp.arange(8.0).reshape(4, 2)
    over = lambda row: jax.lax.psum(Mean.of(row) + Mean.of(row), "i")
    total = jax.vmap(over, axis_name="i", out_axes=None)(rows)
    assert total.compute() == rows.mean()
    assert total.weight == 16
    both = jax.tree.map(jnp.add, Mean.of(rows[0]), Mean.of(rows[1:]))
    assert both.compute() == rows.mean()
    old = Mean(**{"total": jnp.array(6.0), "weight": jnp.array(3.0)})
    assert jax.tree.structure(old) == jax.tree.structure(both)
    assert (old + both).compute() == (6 + 28) / 11


def test_means_of_two_dtypes_add():
    """In the wider one, under strict promotion too; of Python numbers as well."""
    with jax.numpy_dtype_promotion("strict"):
        sums = Mean.of(jnp.ones(2, jnp.float32)) + Mean.of(jnp.ones(2))
    assert sums.total.dtype == jnp.float64
    one: Any = untyped.Mean(97.3, 1000)
    sums = sum([one] * 4000, one) + one
    np.testing.assert_allclose(sums.compute(), 0.0973, rtol=2**-50)


def test_mean_nonzero():
    """Zeros leave the denominator too; NaN comes out instead of vanishing."""
    losses = jnp.array([0.0, 3.0, 0.0, 5.0])
    value, gradient = jax.value_and_grad(jaxloss.mean_nonzero)(losses)
    assert value == 4
    assert jnp.array_equal(gradient, jnp.array([0.0, 0.5, 0.0, 0.5]))
    assert jnp.isnan(jaxloss.mean_nonzero(losses.at[0].set(jnp.nan)))


def test_class_weights_are_those_of_the_paper():
    """(1 - beta) / (1 - beta^n), made to have the mean 1, in float64."""
    counts = np.array([5000, 2000, 40, 3, 1])
    for beta in (0.0, 0.9, 0.999, 0.9999):
        beta = float(np.float32(beta))
        with np.errstate(divide="ignore"):
            weights = (1 - beta) / (1 - beta ** counts.astype(float))
        found = jaxloss.class_weights(counts, beta=beta)
        np.testing.assert_allclose(found, weights / weights.mean(), rtol=2e-6)


def test_class_weights_end_in_frequencies_and_in_none():
    """The inverse frequency at beta = 1, also of counts that float32 cannot tell from
    their neighbours; ones at beta = 0; and between them what goes to both."""
    counts = jnp.array([1, 10, 1000, 2**30])
    inverse = 1 / np.asarray(counts, float)
    found = jaxloss.class_weights(counts, beta=1.0)
    np.testing.assert_allclose(found, inverse / inverse.mean(), rtol=1e-6)
    np.testing.assert_array_equal(jaxloss.class_weights(counts, beta=0.0), np.ones(4))
    near = jaxloss.class_weights(counts[:3], beta=jnp.float32(1 - 2.0**-24))
    at = jaxloss.class_weights(counts[:3], beta=1.0)
    np.testing.assert_allclose(near, at, rtol=1e-4)


def test_classes_without_examples_weigh_nothing():
    """And the mean over the others is 1; without any example all weights are 0."""
    for beta in (0.0, 0.5, 1.0):
        found = jaxloss.class_weights(jnp.array([0, 8, 2, 0]), beta=beta)
        assert found[0] == found[3] == 0
        np.testing.assert_allclose(found[1] + found[2], 2, rtol=1e-6)
        assert not jnp.any(jaxloss.class_weights(jnp.zeros(3), beta=beta))


def test_class_weights_have_a_slope_in_beta():
    """Finite at both ends, and that of the formula between them."""
    counts = np.array([3.0, 1.0])
    run = jax.jit(jax.jacfwd(lambda beta: jaxloss.class_weights(counts, beta=beta)))
    np.testing.assert_allclose(run(jnp.float32(0)), [-0.5, 0.5], rtol=1e-6)
    assert jnp.all(jnp.isfinite(run(jnp.float32(1))))

    def formula(beta):
        weights = 1 / (1 - beta**counts)
        return weights / weights.mean()

    step = 1e-5
    slope = (formula(0.6 + step) - formula(0.6 - step)) / (2 * step)
    np.testing.assert_allclose(run(jnp.float32(0.6)), slope, rtol=1e-4)


def test_class_weights_of_several_rows():
    """The classes are along the last axis."""
    counts = jnp.array([[4, 1], [1, 9]])
    rows = [jaxloss.class_weights(c, beta=0.9) for c in counts]
    found = jaxloss.class_weights(counts, beta=0.9)
    np.testing.assert_allclose(found, jnp.stack(rows), rtol=1e-6)


@pytest.mark.parametrize(
    ("counts", "beta", "message"),
    [
        ([1, 2], 1.5, "`beta` is 1.5"),
        ([1, 2], -0.1, "`beta` is -0.1"),
        (np.zeros(0), 0.9, "`counts` has shape"),
        (3, 0.9, "`counts` is a scalar"),
    ],
)
def test_class_weights_refuse(counts, beta, message):
    with pytest.raises(ValueError, match=f"class_weights: {message}"):
        jaxloss.class_weights(np.asarray(counts), beta=beta)


def test_top_k_mean():
    """The k largest that count, with their weights; all, where fewer count."""
    losses = jnp.array([[1.0, 9.0, 5.0], [4.0, 2.0, 8.0]])
    assert jaxloss.top_k_mean(losses, 2) == (9 + 8) / 2
    by_row = jaxloss.top_k_mean(losses, 2, axis=1)
    assert jnp.array_equal(by_row, jnp.array([7.0, 6.0]))
    by_column = jaxloss.top_k_mean(losses, 1, axis=0)
    assert jnp.array_equal(by_column, jnp.array([4.0, 9.0, 8.0]))
    where = jnp.array([[True, False, False], [True, True, False]])
    assert jaxloss.top_k_mean(losses, 5, where=where) == (1 + 4 + 2) / 3
    weights = jnp.array([[1.0, 3.0, 1.0], [1.0, 1.0, 1.0]])
    assert jaxloss.top_k_mean(losses, 2, weights=weights) == (3 * 9 + 8) / 4
    gradient = jax.grad(lambda x: jaxloss.top_k_mean(x, 2))(losses)
    assert jnp.array_equal(gradient, jnp.array([[0, 0.5, 0], [0, 0, 0.5]]))


@pytest.mark.parametrize("nan", [NAN, -NAN, "inf - inf"])
@pytest.mark.parametrize("others", [[1.0, 9.0], [-np.inf, 3.0], [np.inf, 0.0]])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_a_nan_of_either_sign_shows(nan, others, place, dtype):
    """What diverged is the hardest example of all: NaN from every reduction, for any k,
    unless it is masked or has the weight 0."""
    infinite = jnp.full((), jnp.inf, dtype)
    nan = infinite - infinite if isinstance(nan, str) else jnp.asarray(nan, dtype)
    losses = jnp.insert(jnp.asarray(others, dtype), place, nan)
    for k in (1, 2, 3):
        assert jnp.isnan(jaxloss.top_k_mean(losses, k))
        assert jnp.isnan(jaxloss.top_k_mean(losses[:, None], k, axis=0)[0])
        kept = ~jnp.isnan(losses)
        without = jaxloss.top_k_mean(losses[kept], k)
        assert jaxloss.top_k_mean(losses, k, where=kept) == without
    for reduction in (jaxloss.mean, jaxloss.sum, jaxloss.mean_nonzero):
        assert jnp.isnan(reduction(losses))
    absent = jaxloss.top_k_mean(losses, 3, weights=kept.astype(dtype))
    assert absent == jnp.mean(losses[kept], dtype=absent.dtype)


def test_the_hardest_example_in_rows():
    """One row that diverged leaves the others alone, in value and in gradient."""
    losses = jnp.array([[1.0, -NAN, 9.0], [4.0, 2.0, 8.0]], jnp.float32)
    best = lambda x: jaxloss.top_k_mean(x, 1, axis=1)
    assert jnp.array_equal(best(losses), jnp.array([jnp.nan, 8.0]), equal_nan=True)
    gradient = jax.grad(lambda x: best(x)[1])(losses)
    assert jnp.array_equal(gradient, jnp.array([[0, 0, 0], [0, 0, 1.0]]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxloss.mean(LOSSES, weights=WEIGHTS[:, None]), ValueError, "weights"),
        (lambda: jaxloss.mean(LOSSES, where=WHERE[:3]), ValueError, "where"),
        (lambda: jaxloss.mean(LOSSES, where=WEIGHTS), TypeError, "where"),
        (lambda: jaxloss.mean(LOSSES, axis=1), ValueError, "axis"),
        (lambda: jaxloss.mean(LOSSES, axis=(0, 1)), ValueError, "axis"),
        (lambda: untyped.mean(LOSSES, denominator="n"), ValueError, "denominator"),
        (lambda: jaxloss.mean(jnp.ones(2, complex)), TypeError, "losses"),
        (lambda: jaxloss.top_k_mean(LOSSES, 0), ValueError, "k"),
        (lambda: jaxloss.fill(WHERE, jnp.ones((3, 4))), ValueError, "arrays"),
        (lambda: jaxloss.fill(WEIGHTS, LOSSES), TypeError, "where"),
    ],
)
def test_misuse_is_refused(call, error, message):
    """The message names the function and the argument as the caller wrote it."""
    with pytest.raises(error, match=rf"^\w+: .*`{message}`"):
        call()


# --- what to do instead --------------------------------------------------------------

REDUCTIONS = {
    "mean": lambda where: jaxloss.mean(LOSSES, where=where),
    "sum": lambda where: jaxloss.sum(LOSSES, where=where),
    "mean_nonzero": lambda where: jaxloss.mean_nonzero(LOSSES, where=where),
    "top_k_mean": lambda where: jaxloss.top_k_mean(LOSSES, 2, where=where),
    "Mean.of": lambda where: jaxloss.Mean.of(LOSSES, where=where),
    "linear_softmax_cross_entropy": lambda where: kernels.linear_softmax_cross_entropy(
        jnp.ones((4, 1)), jnp.ones((1, 2)), jnp.zeros(4, int), where=where
    ),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_numbers_as_a_mask_are_told_of_weights(name, dtype):
    """What to do with them: a comparison, or the other argument."""
    told = (
        rf"^{name}: `where` has dtype {dtype}; expected a boolean mask, such as "
        r"`where != 0` \(use `weights=` for numbers\)\.$"
    )
    with pytest.raises(TypeError, match=told):
        REDUCTIONS[name](jnp.ones(LOSSES.shape, dtype))


def test_weights_of_classes_are_told_how_they_become_weights_of_examples():
    """One number per class is not one per loss; nor is a column of numbers."""
    losses, labels, weights = jnp.ones(5), jnp.arange(5) % 3, jnp.array([1.0, 2.0, 4.0])
    message = r"`weights` has shape \(3,\) .* per class use `weights\[labels\]`\.$"
    with pytest.raises(ValueError, match=f"^mean: {message}"):
        jaxloss.mean(losses, weights=weights)
    with pytest.raises(ValueError, match=f"^sum: {message}"):
        jaxloss.sum(losses, weights=weights)
    with pytest.raises(ValueError, match=message):
        Mean.of(losses, weights=weights)
    assert jaxloss.mean(losses, weights=weights[labels]) == 1
    with pytest.raises(ValueError, match=r"; use `weights\[\.\.\., 0\]`\.$"):
        jaxloss.mean(losses, weights=jnp.ones((5, 1)))


def test_without_weights_nothing_is_said_of_them():
    """`fill` has a mask alone."""
    told = r"^fill: .*; expected a boolean mask, such as `where != 0`\.$"
    with pytest.raises(TypeError, match=told):
        jaxloss.fill(WEIGHTS, LOSSES)


class NamedArray:
    """An array with names of its axes, as Haliax has them."""

    def __init__(self, array):
        self.array = array


def test_boxed_arrays_are_told_how_to_open_them():
    """Of the metadata of Flax and of named axes; of what is no box, nothing."""
    mean: Any = jaxloss.mean
    cases = {
        r"an array or a number, such as `losses\.unbox\(\)`\.$": nn.Partitioned(
            LOSSES, names=("batch",)
        ),
        r"an array or a number, such as `losses\.array`\.$": NamedArray(LOSSES),
        r"an array or a number\.$": object(),
    }
    for told, given in cases.items():
        with pytest.raises(TypeError, match=rf"^mean: `losses` is .*; expected {told}"):
            mean(given)
