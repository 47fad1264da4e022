"""Losses that weight the pairs of a batch: worked values, definitions, memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import stable, train
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
FLOAT64 = tolerance(np.float64)
LOSSES = (jaxloss.multi_similarity, jaxloss.circle, jaxloss.semi_hard_triplet)
losses = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def draw(rows=12, size=5, dtype: type = np.float64, seed=0):
    """Embeddings, and groups of three in a random order."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(rows, size)), dtype)
    return x, jnp.asarray(rng.permutation(np.arange(rows) // 3))


def weighted(loss, **params):
    """One number of a batch, in which each anchor has a weight of its own."""

    def total(x, labels, where=None):
        found = loss(x, labels, where=where, **params)
        return found @ jnp.arange(1, len(found) + 1, dtype=found.dtype)

    return total


# --- of cosines ----------------------------------------------------------------------


def trio(positive, negative):
    """An anchor, a positive and a negative at these cosines, of several lengths."""
    sine = lambda c: math.sqrt(1 - c * c)
    rows = [[1, 0, 0], [positive, sine(positive), 0], [negative, 0, sine(negative)]]
    return np.array(rows) * [[1], [3], [0.25]], np.array([7, 7, -1])


def test_a_pair_at_the_base_has_half_of_its_weight():
    """log(2) / alpha + log(2) / beta = .3604365339."""
    found = jaxloss.multi_similarity(*trio(0.5, 0.5))[0]
    np.testing.assert_allclose(found, math.log(2) * (1 / 2 + 1 / 50), rtol=FLOAT64)
    np.testing.assert_allclose(found, 0.3604365339, rtol=1e-9)


@pytest.mark.parametrize(("gamma", "told"), [(1, 0.6956503056), (80, 0.9130152524)])
def test_a_circle_of_one_pair_each(gamma, told):
    """softplus(gamma (.55 * .05 - .45 * .05)), for cosines .8 and .3."""
    found = jaxloss.circle(*trio(0.8, 0.3), gamma=gamma, margin=0.25)[0]
    exact = np.logaddexp(0, gamma * (0.55 * 0.05 - 0.45 * 0.05))
    np.testing.assert_allclose(found, exact, rtol=gamma * FLOAT64)
    np.testing.assert_allclose(found, told, rtol=1e-9)


def cosines_of(x):
    u = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return u @ u.T


def rows_of(s, labels):
    """Of each anchor, the cosines of the positives and of the negatives."""
    for i, row in enumerate(s):
        same = labels == labels[i]
        yield row[same & (np.arange(len(s)) != i)], row[~same]


def test_multi_similarity_is_the_published_sum():
    """Eq. 15, with exponentials in NumPy."""
    x, labels = map(np.asarray, draw())
    pull = lambda s: np.log(1 + np.sum(np.exp(-3 * (s - 0.2)))) / 3
    push = lambda s: np.log(1 + np.sum(np.exp(20 * (s - 0.2)))) / 20
    want = [pull(p) + push(n) for p, n in rows_of(cosines_of(x), labels)]
    found = jaxloss.multi_similarity(x, labels, alpha=3.0, beta=20.0, base=0.2)
    np.testing.assert_allclose(found, want, rtol=20 * FLOAT64)


def test_circle_is_the_published_sum():
    """Eq. 6 of the weights of eq. 5 and the margins of eq. 8."""
    x, labels = map(np.asarray, draw())
    plus = lambda v: np.maximum(v, 0)
    pull = lambda s: np.exp(-9 * plus(1.3 - s) * (s - 0.7)).sum()
    push = lambda s: np.exp(9 * plus(s + 0.3) * (s - 0.3)).sum()
    want = [np.log(1 + push(n) * pull(p)) for p, n in rows_of(cosines_of(x), labels)]
    found = jaxloss.circle(x, labels, gamma=9.0, margin=0.3)
    np.testing.assert_allclose(found, want, rtol=20 * FLOAT64)


def circle_of_keras(x, labels, gamma, margin):
    """The same value; its weights have a gradient."""
    lack = 1 - stable.unit(x) @ stable.unit(x).T
    near, far = jaxloss.pair_masks(labels)
    pull = stable.logsumexp(gamma * (lack**2 - margin**2), where=near)
    weight = jax.nn.relu(1 + margin - lack)
    push = stable.logsumexp(gamma * weight * (1 - margin - lack), where=far)
    return stable.softplus(pull + push)


def test_the_weights_of_circle_are_constants():
    """The value of Keras, but not its gradient, which is about twice as long."""
    x, labels = draw()
    total = lambda fn: lambda x: jnp.sum(fn(x, labels, gamma=8.0, margin=0.25))
    ours = lambda x, labels, **p: jaxloss.circle(x, labels, **p)
    value, slope = jax.value_and_grad(total(ours))(x)
    theirs, steeper = jax.value_and_grad(total(circle_of_keras))(x)
    np.testing.assert_allclose(value, theirs, rtol=20 * FLOAT64)
    assert jnp.linalg.norm(steeper) > 1.3 * jnp.linalg.norm(slope)


@pytest.mark.parametrize("gamma", [80.0, 256.0, 1e4, 1e30])
def test_a_steep_circle_does_not_overflow(gamma):
    """A far positive and a near negative: gamma (1.49 + .4 + ...) and its slope."""
    x, labels = trio(-0.9, 0.95)
    x = jnp.asarray(x, jnp.float32)
    found, slope = jax.value_and_grad(
        lambda x: jaxloss.circle(x, labels, gamma=gamma)[0]
    )(x)
    exact = gamma * (2.3 * 1.5 + 1.35 * 0.55)
    np.testing.assert_allclose(found, exact, rtol=8 * FLOAT32)
    assert jnp.isfinite(slope).all()
    assert (jnp.abs(slope).max(axis=-1) > 0).all()


def test_second_derivatives_of_circle_are_finite():
    """At one point, at zero, and masked: no law says so of the published gradient."""
    x = jnp.array([[1.0, 2.0], [0.0, 0.0], [-3.0, 1.0], [1e20, 1e20]], jnp.float32)
    rows = jnp.stack([jnp.ones_like(x), jnp.zeros_like(x), x])
    ids, where = jnp.array([0, 0, 1, 1]), jnp.array([True, True, True, False])
    for kept in (None, where):
        total = lambda x, kept=kept: jaxloss.circle(x, ids, where=kept).sum()
        found = jax.jit(jax.vmap(jax.hessian(total)))(rows)
        assert jnp.isfinite(found).all()


def test_perfect_groups_cost_next_to_nothing():
    """Equal in pairs, at right angles else: exponentials of -alpha / 2 and -beta / 2,
    and of -gamma m^2, twice."""
    x = jnp.repeat(jnp.eye(2, 5, dtype=np.float32), 2, axis=0)
    ids = jnp.array([0, 0, 1, 1])
    found = jaxloss.multi_similarity(x, ids, alpha=80.0, beta=50.0)
    exact = math.exp(-40) / 80 + 2 * math.exp(-25) / 50
    np.testing.assert_allclose(found, np.full(4, exact), rtol=50 * FLOAT32)
    found = jaxloss.circle(x, ids, gamma=160.0)
    exact = 2 * math.exp(-2 * 160 * 0.4**2)
    np.testing.assert_allclose(found, np.full(4, exact), rtol=50 * FLOAT32)


# --- triplets ------------------------------------------------------------------------


def semi_hard(x, labels, margin, squared):
    """A loop over anchors, positives and negatives, in float64."""
    found = np.zeros(len(x))
    for i, row in enumerate(x):
        d = np.linalg.norm(x - row, axis=1) ** (2 if squared else 1)
        alike = [j for j in np.flatnonzero(labels == labels[i]) if j != i]
        others = d[labels != labels[i]]
        for j in alike if len(others) else ():
            farther = others[others > d[j]]
            negative = farther.min() if len(farther) else others.max()
            found[i] += max(0, d[j] - negative + margin) / len(alike)
    return found


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("groups", [2, 4, 9, 40])
def test_semi_hard_is_its_definition(groups, squared):
    """For few and many groups, some of them with one row."""
    rng = np.random.default_rng(groups)
    x, labels = rng.normal(size=(40, 3)), rng.integers(groups, size=40)
    found = jaxloss.semi_hard_triplet(x, labels, margin=0.7, squared=squared)
    want = semi_hard(x, labels, 0.7, squared)
    np.testing.assert_allclose(found, want, rtol=FLOAT64, atol=16 * FLOAT64)


def test_the_mean_over_pairs_is_the_published_one():
    """The sum over all positive pairs over their number, of unit vectors, squared."""
    x, labels = map(np.asarray, draw())
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.minimum(labels, 2)
    pairs = np.sum(labels[:, None] == labels, axis=1) - 1
    each = jaxloss.semi_hard_triplet(x, labels, squared=True)
    want = np.sum(semi_hard(x, labels, 1.0, True) * pairs) / np.sum(pairs)
    np.testing.assert_allclose(jaxloss.mean(each, weights=pairs), want, rtol=FLOAT64)


def test_ties_are_decided():
    """On a line: a negative as far as the positive is not farther; of two equal ones
    the first moves, and the last if none is farther."""
    x = jnp.array([[0.0], [2.0], [-2.0], [3.0], [-3.0]])
    slope = jax.grad(lambda x, ids: jaxloss.semi_hard_triplet(x, ids, margin=2.0)[0])
    labels = jnp.array([0, 0, 1, 2, 3])
    assert jaxloss.semi_hard_triplet(x, labels, margin=2.0)[0] == 2 - 3 + 2
    np.testing.assert_array_equal(slope(x, labels), [[0.0], [1], [0], [-1], [0]])
    x = jnp.array([[0.0], [4.0], [3.0], [-3.0], [1.0]])
    assert jaxloss.semi_hard_triplet(x, labels, margin=2.0)[0] == 4 - 3 + 2
    np.testing.assert_array_equal(slope(x, labels), [[-2.0], [1], [0], [1], [0]])


def test_near_rows_far_from_the_origin_keep_their_digits():
    """A positive at 2^-12, by a matmul 0 or 8 times as far, and its direction."""
    far = 1000.0
    x = jnp.array([[far, far], [far + 2**-12, far], [far, far + 0.5]], jnp.float32)
    total = lambda x: jaxloss.semi_hard_triplet(x, jnp.array([0, 0, 1]), margin=0.5)[0]
    loss, slope = jax.value_and_grad(total)(x)
    assert loss == 2**-12
    np.testing.assert_array_equal(slope, [[-1.0, 1.0], [1, 0], [0, -1]])


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_any_size(size):
    """The loss of larger rows is larger, with the same gradient."""
    x, labels = draw(dtype=np.float32)
    run = jax.value_and_grad(weighted(jaxloss.semi_hard_triplet, margin=0.0))
    (loss, slope), (one, same) = run(size * x, labels), run(x, labels)
    np.testing.assert_allclose(loss, size * one, rtol=8 * FLOAT32)
    np.testing.assert_allclose(slope, same, rtol=8 * FLOAT32, atol=64 * FLOAT32)


@pytest.mark.parametrize("squared", [False, True])
def test_a_collapsed_batch_is_at_rest(squared):
    x, labels = jnp.ones((12, 3)), draw()[1]
    run = jax.value_and_grad(weighted(jaxloss.semi_hard_triplet, squared=squared))
    loss, slope = run(x, labels)
    assert loss == sum(range(13))
    np.testing.assert_array_equal(slope, 0)


# --- of all --------------------------------------------------------------------------


@losses
def test_a_masked_row_is_not_there(loss):
    """Neither anchor nor candidate: loss and gradient 0, though it be NaN, and the
    others as in a batch without it."""
    x, labels = draw()
    where = jnp.arange(12) % 4 != 1
    for bad in (jnp.nan, jnp.inf):
        dirty = jnp.where(where[:, None], x, bad)
        found = loss(dirty, labels, where=where)
        np.testing.assert_array_equal(found[~where], 0)
        alone = loss(x[where], labels[where])
        np.testing.assert_allclose(found[where], alone, rtol=64 * FLOAT64)
        slope = jax.grad(weighted(loss))(dirty, labels, where)
        np.testing.assert_array_equal(slope[~where], 0)
        assert jnp.isfinite(slope).all()


@losses
def test_a_row_that_is_no_number_shows(loss):
    """NaN, as it is a positive or a negative of everyone."""
    x, labels = draw()
    for sign in (1, -1):
        bad = x.at[4, 2].set(jnp.copysign(jnp.nan, sign))
        assert jnp.isnan(loss(bad, labels)).all()


def test_the_nan_of_a_gpu_shows():
    """It has all bits of a NaN, where that of a processor has one."""
    x, labels = draw()
    nan = np.uint32(0x7FFFFFFF).view(np.float32)
    x = jnp.asarray(x, jnp.float32).at[2].set(nan)
    found = jaxloss.semi_hard_triplet(x, labels)
    assert jnp.isnan(found).all()


@losses
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_without_negatives_or_positives(loss, labels):
    """0 with gradient 0, but for the part of `multi_similarity` that is there."""
    x, ids = draw(rows=3)[0], jnp.array(labels)
    found, slope = loss(x, ids), jax.grad(weighted(loss))(x, ids)
    one = loss is jaxloss.multi_similarity
    assert ((found > 0) == one).all()
    assert (jnp.abs(slope).max() > 0) == one
    assert jnp.isfinite(slope).all()


@losses
def test_leading_axes_are_batches(loss):
    x, labels = draw(rows=24)
    x, labels = x.reshape(2, 2, 6, 5), labels.reshape(2, 2, 6) % 2
    margin = {} if loss is jaxloss.multi_similarity else {"margin": 0.3}
    found = loss(x, labels, **margin)
    for i, j in np.ndindex(2, 2):
        one = loss(x[i, j], labels[i, j], **margin)
        np.testing.assert_allclose(found[i, j], one, rtol=64 * FLOAT64)


@losses
@pytest.mark.parametrize("rows", [0, 1])
def test_one_row_or_none(loss, rows):
    x, ids = jnp.ones((rows, 3)), jnp.zeros(rows, int)
    np.testing.assert_array_equal(loss(x, ids), jnp.zeros(rows))
    np.testing.assert_array_equal(jax.grad(weighted(loss))(x, ids), 0 * x)


@losses
def test_no_array_has_two_batch_axes_and_components(loss):
    """256 rows of 256 components: the program, with its gradient, takes a few matrices
    of pairs, and not the 64 MiB of all differences."""
    rows = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    ids = jax.ShapeDtypeStruct((256,), jnp.int32)
    step = jax.value_and_grad(lambda x, ids: jaxloss.mean(loss(x, ids)))
    with jax.default_device(jax.devices("cpu")[0]):
        memory = jax.jit(step).lower(rows, ids).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= 20 * 4 * 256**2


@losses
def test_a_part_of_the_batch_is_refused(loss):
    """By `train.value_and_grad` with micro-batches."""
    x, labels = draw(dtype=np.float32)
    objective = train.objective(
        lambda w, batch: {"one": jaxloss.Mean.of(loss(batch["x"] * w, batch["y"]))}
    )
    step = train.value_and_grad(objective, microbatches=2)
    with pytest.raises(ValueError, match=rf"^{loss.__name__}: .*one micro-batch"):
        step(jnp.float32(1), objective.init(), {"x": x, "y": labels})
