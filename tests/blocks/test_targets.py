"""Target transforms: values, conserved sums, randomness, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import targets
from jaxloss.testing import tolerance

# --- smoothing -------------------------------------------------------------------


def test_smoothing_under_a_mask_stays_among_the_classes_that_exist():
    """As if the masked classes were not there; all zeros where none is, not NaN."""
    y = jnp.array(
        [[0.0, 1.0, 0.0, jnp.nan], [0.7, 0.0, 0.3, 0.0], [1.0, 0.0, 0.0, 0.0]]
    )
    where = jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    smooth = lambda y: targets.smooth_labels(y, smoothing=0.2, where=where)
    expected = [[0.1, 0.9, 0, 0], [0.61, 0.05, 0.29, 0.05], [0, 0, 0, 0]]
    np.testing.assert_allclose(smooth(y), expected, rtol=tolerance(np.float64))
    slopes = jax.grad(lambda y: jnp.sum(smooth(y)))(y)
    np.testing.assert_allclose(slopes, 0.8 * where, rtol=tolerance(np.float64))
    with pytest.raises(ValueError, match=r"^smooth_labels: `where` has shape"):
        targets.smooth_labels(y, where=where[0])
    with pytest.raises(TypeError, match=r"^smooth_labels: `where` has dtype"):
        targets.smooth_labels(y, where=y)


def test_the_values_of_smoothed_labels():
    """The right class gets 1 - e + e/K, each other e/K; a binary 1 gets 1 - e/2."""
    e, k = 0.1, 4
    expected = np.where(np.eye(k)[[2, 0]], 1 - e + e / k, e / k)
    for labels in (np.eye(k)[[2, 0]], np.array([2, 0]), np.array([2, 0], np.int8)):
        given = None if labels.ndim == 2 else k
        got = targets.smooth_labels(labels, smoothing=e, num_classes=given)
        np.testing.assert_allclose(got, expected, rtol=tolerance(got.dtype, 2))
    got = targets.smooth_binary_labels(jnp.array([0.0, 1.0]), smoothing=e)
    np.testing.assert_allclose(got, [e / 2, 1 - e / 2], rtol=1e-15)


def test_agrees_with_optax():
    """On distributions it is optax's function of the same name."""
    y = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(5), size=8))
    np.testing.assert_allclose(
        targets.smooth_labels(y, smoothing=0.3), optax.smooth_labels(y, 0.3), rtol=1e-15
    )


def test_smoothing_preserves_sums():
    """Distributions stay distributions, whatever their total."""
    y = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(5), size=8))
    for smoothing in (0.0, 0.1, 1.0):
        sums = jnp.sum(targets.smooth_labels(y, smoothing=smoothing), axis=-1)
        np.testing.assert_allclose(sums, 1, rtol=1e-15)


def test_no_smoothing_and_all_of_it():
    """0 returns the labels, 1 the uniform distribution, exactly."""
    y = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), size=3))
    np.testing.assert_array_equal(targets.smooth_labels(y, smoothing=0.0), y)
    np.testing.assert_array_equal(targets.smooth_labels(y, smoothing=1.0), 1 / 4)
    np.testing.assert_array_equal(targets.smooth_binary_labels(y, smoothing=1.0), 1 / 2)


def test_two_classes_are_the_binary_case():
    """The second weight of a smoothed pair is the smoothed binary label."""
    y = jnp.array([0.0, 0.25, 1.0])
    pair = targets.smooth_labels(jnp.stack([1 - y, y], axis=-1), smoothing=0.2)
    np.testing.assert_allclose(
        pair[:, 1], targets.smooth_binary_labels(y, smoothing=0.2), rtol=1e-15
    )


def test_smoothing_is_what_cross_entropy_does():
    """Cross entropy of smoothed labels is the cross entropy that smooths itself."""
    z, ids = jnp.array([[2.0, 0.5, -1.0], [0.1, 3.0, -0.5]]), jnp.array([0, 2])
    labels = targets.smooth_labels(ids, smoothing=0.1, num_classes=3)
    np.testing.assert_allclose(
        jaxloss.softmax_cross_entropy(z, labels.astype(z.dtype)),
        jaxloss.softmax_cross_entropy(z, ids, label_smoothing=0.1),
        rtol=tolerance(labels.dtype, 4),
    )


def test_smoothing_takes_an_array():
    """One share per example or per class, with a gradient of its shape."""
    y, shares = jnp.eye(2), jnp.array([[0.0], [0.5]])
    got = targets.smooth_labels(y, smoothing=shares)
    np.testing.assert_array_equal(got, [[1, 0], [0.25, 0.75]])
    slope = jax.grad(lambda e: jnp.sum(targets.smooth_labels(y, smoothing=e)[:, 0]))(
        shares
    )
    np.testing.assert_array_equal(slope, [[-0.5], [0.5]])


def test_unknown_id_gives_nan():
    """An id outside the classes gives a row of NaN, never another class."""
    got = targets.smooth_labels(np.array([-1, 3, 2]), num_classes=3)
    np.testing.assert_array_equal(jnp.all(jnp.isnan(got), 1), [True, True, False])
    np.testing.assert_allclose(got[2], [0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "params", "error", "message"),
    [
        (np.eye(3, dtype=int), {}, TypeError, "`labels` has dtype int.*`num_classes`"),
        (np.eye(3) > 0, {}, TypeError, "`labels` has dtype bool"),
        (np.ones(()), {}, ValueError, "`labels` is a scalar"),
        (np.eye(3), {"num_classes": 4}, ValueError, r"`labels` has shape \(3, 3\)"),
        (np.ones(3, int), {"num_classes": 3.0}, TypeError, "`num_classes` is float"),
        (np.ones(3, int), {"num_classes": 0}, ValueError, "`num_classes` is 0"),
        (np.eye(3), {"smoothing": 1.5}, ValueError, r"`smoothing` is 1\.5"),
        (np.eye(3), {"smoothing": np.ones(2)}, ValueError, "`smoothing` has shape"),
    ],
)
def test_smooth_labels_refuses(labels, params, error, message):
    """What is not a distribution or ids with their number of classes is refused."""
    with pytest.raises(error, match=f"^smooth_labels: {message}"):
        targets.smooth_labels(labels, **params)


def test_smooth_binary_labels_refuses():
    """Shares outside [0, 1] and words are refused; booleans and integers are not."""
    with pytest.raises(
        ValueError, match=r"^smooth_binary_labels: `smoothing` is -0\.1"
    ):
        targets.smooth_binary_labels(jnp.ones(2), smoothing=-0.1)
    with pytest.raises(TypeError, match=r"^smooth_binary_labels: `labels`"):
        targets.smooth_binary_labels(np.ones(2, complex))
    for labels in (np.array([False, True]), np.array([0, 1], np.uint8)):
        got = targets.smooth_binary_labels(labels, smoothing=0.5)
        assert got.dtype == jnp.float64
        np.testing.assert_array_equal(got, [0.25, 0.75])


IDS = np.array([2, 0, 1], np.int32)
OF_INTEGERS = {
    "smooth_labels": lambda y: jaxloss.smooth_labels(y, num_classes=3, smoothing=0.1),
    "smooth_binary_labels": lambda y: jaxloss.smooth_binary_labels(y != 1),
    "ordinal_levels": lambda y: jaxloss.ordinal_levels(y, num_classes=3),
    "mean": jaxloss.mean,
    "sum": lambda y: jaxloss.sum(y != 0),
    "mean_nonzero": jaxloss.mean_nonzero,
    "top_k_mean": lambda y: jaxloss.top_k_mean(y, 2),
    "Mean.of": lambda y: jaxloss.Mean.of(y).compute(),
    "Mean.constant": lambda y: jaxloss.Mean.constant(y).total,
    "l1": lambda y: jaxloss.l1({}),
}


@pytest.mark.parametrize("name", OF_INTEGERS)
@pytest.mark.parametrize(
    "kind", [np.asarray, jnp.asarray, lambda y: y.astype(np.uint8)]
)
def test_integers_become_the_default_float(name, kind):
    """float64 where `jax_enable_x64` is on, float32 where it is off; compiled too."""
    for x64, expected in ((True, np.float64), (False, np.float32)):
        with jax.enable_x64(x64):
            ids = kind(IDS)
            assert OF_INTEGERS[name](ids).dtype == expected
            assert jax.jit(OF_INTEGERS[name])(ids).dtype == expected


def test_losses_of_smoothed_ids_are_as_exact_as_their_logits():
    """To 1e-15 in float64, where labels rounded to float32 leave an error of 4e-8."""
    rng = np.random.default_rng(5)
    z, ids, e, k = 4 * rng.normal(size=(7, 6)), rng.integers(0, 6, 7), 0.3, 6
    y = np.eye(k)[ids] * (1 - e) + e / k
    log_p = z - z.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    smoothed = jaxloss.smooth_labels(ids, num_classes=k, smoothing=e)
    np.testing.assert_allclose(smoothed, y, rtol=2**-51)
    loss = jaxloss.softmax_cross_entropy(z, smoothed)
    np.testing.assert_allclose(loss, -(y * log_p).sum(1), rtol=1e-14)
    bits = ids % 2
    y = bits * (1 - e) + e / 2
    loss = jaxloss.sigmoid_cross_entropy(
        z[:, 0], jaxloss.smooth_binary_labels(bits, smoothing=e)
    )
    exact = np.logaddexp(0, z[:, 0]) - y * z[:, 0]
    np.testing.assert_allclose(loss, exact, rtol=1e-14)


# --- levels ----------------------------------------------------------------------


def test_a_label_is_above_as_many_classes_as_its_id():
    """The first y of K - 1 levels are 1; ids of 8 bits too, of any shape."""
    ids = np.arange(6, dtype=np.int8).reshape(2, 3)
    levels = targets.ordinal_levels(ids, num_classes=6)
    assert levels.shape == (2, 3, 5)
    assert levels.dtype == jnp.float64
    np.testing.assert_array_equal(levels, np.arange(5) < ids[..., None])
    np.testing.assert_array_equal(jnp.sum(levels, axis=-1), ids)
    many = targets.ordinal_levels(np.array(3, np.uint8), num_classes=300)
    np.testing.assert_array_equal(many, np.arange(299) < 3)
    assert targets.ordinal_levels(np.zeros(2, int), num_classes=1).shape == (2, 0)


def test_levels_of_no_class_are_nan():
    """An id below or above the classes gives a row of NaN, not a label at an end."""
    levels = targets.ordinal_levels(np.array([-1, 0, 3, 4]), num_classes=4)
    bad = jnp.isnan(levels)
    np.testing.assert_array_equal(bad.all(axis=1), [True, False, False, True])
    np.testing.assert_array_equal(bad.any(axis=1), bad.all(axis=1))


@pytest.mark.parametrize(
    ("labels", "num_classes", "error", "message"),
    [
        (np.ones(3), 3, TypeError, "`labels` has dtype float64; expected integer"),
        (np.ones(3, bool), 3, TypeError, "`labels` has dtype bool"),
        (np.ones(3, int), 3.0, TypeError, "`num_classes` is float"),
        (np.ones(3, int), 0, ValueError, "`num_classes` is 0; expected at least 1"),
    ],
)
def test_ordinal_levels_refuses(labels, num_classes, error, message):
    """What are no ids, or no number of classes, is refused."""
    with pytest.raises(error, match=f"^ordinal_levels: {message}"):
        targets.ordinal_levels(labels, num_classes=num_classes)


# --- pairs -----------------------------------------------------------------------


def test_pairs_are_told_apart_by_their_ids():
    """Positives have one id, negatives two; no example is its own positive, and a
    masked one is in no pair; batches do not mix."""
    ids = np.array([[4, -1, 4, 4], [2, 2, 9, 9]], np.int8)
    where = np.array([[True, True, False, True], [True] * 4])
    for mask in (None, where):
        positives, negatives = targets.pair_masks(ids, where=mask)
        kept = np.ones_like(where) if mask is None else mask
        both = kept[:, :, None] & kept[:, None, :]
        same = ids[:, :, None] == ids[:, None, :]
        np.testing.assert_array_equal(positives, both & same & ~np.eye(4, dtype=bool))
        np.testing.assert_array_equal(negatives, both & ~same)


@pytest.mark.parametrize(
    ("labels", "where", "error", "message"),
    [
        (np.ones(3), None, TypeError, "`labels` has dtype float64"),
        (np.array(3), None, ValueError, "`labels` is a scalar"),
        (np.ones(3, int), np.ones(2, bool), ValueError, r"`where` has shape \(2,\)"),
        (np.ones(3, int), np.ones(3), TypeError, "`where` has dtype float64"),
    ],
)
def test_pair_masks_refuses(labels, where, error, message):
    """What are no ids of a batch, or no mask of it, is refused."""
    with pytest.raises(error, match=f"^pair_masks: {message}"):
        targets.pair_masks(labels, where=where)


# --- mixup -----------------------------------------------------------------------


def mixed_indices(n=64, alpha=1.0, seed=0):
    """A batch of examples that are their own indices, one-hot as labels, mixed."""
    x, y = jnp.arange(float(n)), jnp.eye(n)
    return targets.mixup(jax.random.key(seed), x, y, alpha=alpha)


def test_mixes_inputs_and_labels_alike():
    """One ratio and one partner per example, for input and label: labels, read as
    weights of the examples, reproduce the inputs."""
    inputs, labels = mixed_indices()
    np.testing.assert_allclose(labels @ jnp.arange(64.0), inputs, rtol=1e-6)
    assert jnp.all(jnp.sum(labels > 0, axis=1) <= 2)
    assert len(np.unique(np.asarray(jnp.diag(labels)))) > 32  # the ratios differ


def test_mixing_preserves_sums():
    """Distributions stay distributions, and a constant batch stays itself."""
    inputs, labels = mixed_indices()
    eps = tolerance(jnp.float32, 1)
    np.testing.assert_allclose(jnp.sum(labels, axis=1), 1, rtol=eps)
    constant = jnp.full((5, 2), 3.0)
    inputs, _ = targets.mixup(jax.random.key(0), constant, constant)
    np.testing.assert_allclose(inputs, constant, rtol=eps)


def test_mixing_preserves_means_in_expectation():
    """Over many keys the mean of the mixed batch is the mean of the batch."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=16), jnp.float32)
    mix = lambda key: targets.mixup(key, x, x, alpha=1.0)[0]
    means = jnp.mean(jax.vmap(mix)(jax.random.split(jax.random.key(0), 4000)), axis=1)
    error = jnp.std(means) / jnp.sqrt(4000)
    assert abs(jnp.mean(means) - jnp.mean(x)) < 4 * error


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_ratios_follow_their_distribution(alpha):
    """Beta(alpha, alpha) has mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    x = jnp.array([0.0, 1.0])
    mix = lambda key: targets.mixup(key, x, x, alpha=alpha)[0]
    mixed = np.asarray(jax.vmap(mix)(jax.random.split(jax.random.key(1), 8000)))
    # Where the second example moved, the two were partners, and the first one shows
    # its own ratio.
    ratios = 1 - mixed[mixed[:, 1] < 0.9, 0]
    n, variance = len(ratios), 1 / (4 * (2 * alpha + 1))
    assert abs(ratios.mean() - 1 / 2) < 4 * np.sqrt(variance / n)
    # The fourth central moment of what lies in [0, 1] is at most variance / 4.
    assert abs(ratios.var() - variance) < 4 * np.sqrt(variance / 4 / n)


def test_mixes_pytrees_in_their_own_dtypes():
    """Every leaf is mixed with the same ratios and comes back in its dtype."""
    x = jnp.arange(8.0)
    inputs = {"image": x.astype(jnp.bfloat16), "text": jnp.stack([x, -x], axis=1)}
    mixed, labels = targets.mixup(jax.random.key(0), inputs, x, alpha=1.0)
    dtypes = lambda tree: [x.dtype for x in jax.tree.leaves(tree)]
    assert dtypes(mixed) == dtypes(inputs)
    np.testing.assert_array_equal(mixed["text"][:, 0], labels)
    np.testing.assert_array_equal(mixed["text"][:, 1], -labels)
    np.testing.assert_array_equal(mixed["image"], labels.astype(jnp.bfloat16))


def test_mixup_is_a_function_of_its_key():
    """The same key gives the same batch, compiled or not; another gives another."""
    first, second = mixed_indices(), mixed_indices()
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[1], mixed_indices(seed=1)[1])
    x = jnp.arange(6.0)
    jitted = jax.jit(targets.mixup)(jax.random.key(0), x, x, alpha=jnp.float32(0.4))
    np.testing.assert_allclose(
        jitted[0], targets.mixup(jax.random.key(0), x, x, alpha=0.4)[0], rtol=1e-6
    )


def test_mixup_trains_through_cross_entropy():
    """The loss of a mixture is the mixture of the losses of its two labels."""
    z, y = (
        jnp.asarray(np.random.default_rng(0).normal(size=(6, 3))),
        jnp.eye(3)[jnp.arange(6) % 3],
    )
    _, mixed = targets.mixup(jax.random.key(0), z, y, alpha=1.0)
    each = jnp.stack(
        [jaxloss.softmax_cross_entropy(z, jnp.full(6, k)) for k in range(3)], -1
    )
    np.testing.assert_allclose(
        jaxloss.softmax_cross_entropy(z, mixed), jnp.sum(mixed * each, -1)
    )


@pytest.mark.parametrize(
    ("inputs", "labels", "alpha", "error", "message"),
    [
        (np.ones(4), np.ones(4, int), 0.2, TypeError, "`labels` has dtype int"),
        (
            {"a": np.ones(4, int)},
            np.ones(4),
            0.2,
            TypeError,
            r"`inputs\['a'\]` has dtype",
        ),
        (np.ones(4), np.ones(3), 0.2, ValueError, r"`labels` has shape \(3,\)"),
        ([np.ones(4), 1.0], np.ones(4), 0.2, ValueError, r"`inputs\[1\]` is a scalar"),
        (np.ones(4), np.ones(4), 0.0, ValueError, r"`alpha` is 0\.0"),
        (np.ones(4), np.ones(4), np.ones(4), ValueError, "`alpha` has shape"),
    ],
)
def test_mixup_refuses(inputs, labels, alpha, error, message):
    """Integers, different batch sizes and concentrations that are none are refused."""
    with pytest.raises(error, match=f"^mixup: {message}"):
        targets.mixup(jax.random.key(0), inputs, labels, alpha=alpha)


def test_reads_as_documented():
    """Mixing ids takes one line: `smooth_labels` of them with `smoothing=0`."""
    one_hot = targets.smooth_labels(np.array([0, 2]), smoothing=0.0, num_classes=3)
    np.testing.assert_array_equal(one_hot, np.eye(3)[[0, 2]])
    assert jaxloss.mean(one_hot) == pytest.approx(1 / 3)


def test_strict_promotion():
    """No transform mixes dtypes implicitly, whatever the labels' own."""
    ids = np.array([0, 2], np.int8)
    with jax.numpy_dtype_promotion("strict"):
        labels = targets.smooth_labels(ids, num_classes=3, smoothing=jnp.float32(0.1))
        binary = targets.smooth_binary_labels(ids, smoothing=jnp.bfloat16(0.5))
        inputs, _ = targets.mixup(jax.random.key(0), labels, labels, alpha=1)
        levels = targets.ordinal_levels(ids, num_classes=3)
    assert {x.dtype for x in (labels, binary, inputs, levels)} == {
        jnp.dtype(jnp.float64)
    }
