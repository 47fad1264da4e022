"""Embedding losses: facts of the textbooks, coinciding and zero vectors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

import jaxloss
from jaxloss import _whole_batch, stable, targets
from jaxloss.claims.embedding.tuples import cosine_pairs
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
FLOAT64 = tolerance(np.float64)


def test_cosine_hessian_is_accurate_in_every_block():
    """All second derivatives in both vectors, also the mixed ones, in both orders,
    are those of the formula in float64."""
    a, b, *_ = (x[:6].astype(np.float32) for x in cosine_pairs())

    def formula(a, b):
        return 1 - a @ b / (jnp.sqrt(a @ a) * jnp.sqrt(b @ b))

    exact = jax.vmap(jax.hessian(formula, (0, 1)))(a.astype(float), b.astype(float))
    for outer, inner in ((jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacfwd)):
        second = jax.vmap(outer(inner(stable.cosine_distance, (0, 1)), (0, 1)))
        for got, want in zip(
            *map(jax.tree.leaves, (jax.jit(second)(a, b), exact)), strict=True
        ):
            size = jnp.max(jnp.abs(want), axis=(1, 2), keepdims=True)
            assert jnp.all(jnp.abs(got - want) <= FLOAT32 * size)


# --- contrastive -------------------------------------------------------------------


def test_similar_pairs_pay_the_squared_distance():
    """Similar: d^2.  Dissimilar: max(0, m - d)^2.  Labels of any real kind."""
    d = jnp.array([0.0, 0.25, 0.5, 2.0])
    for kind in (bool, int, float):
        one, none = jnp.ones(4, kind), jnp.zeros(4, kind)
        np.testing.assert_array_equal(jaxloss.contrastive(d, one), d**2)
        apart = jaxloss.contrastive(d, none, margin=0.5)
        np.testing.assert_array_equal(apart, [0.25, 0.0625, 0, 0])


def test_contrastive_is_twice_the_published_one():
    """Hadsell et al. label similar pairs 0 and halve: pass `similar = 1 - y`."""
    d, y = jnp.array([0.2, 0.2, 1.5]), jnp.array([0, 1, 1])
    published = (1 - y) * d**2 / 2 + y * jnp.maximum(0, 1.25 - d) ** 2 / 2
    loss = jaxloss.contrastive(d, 1 - y, margin=1.25)
    np.testing.assert_allclose(loss, 2 * published, rtol=FLOAT64)


def test_soft_similarity_mixes_both():
    """A pair that is 30 % similar pays 30 % of one loss and 70 % of the other."""
    d = jnp.linspace(0, 2, 9)
    similar, apart = (jaxloss.contrastive(d, jnp.full(9, y)) for y in (1, 0))
    mixed = jaxloss.contrastive(d, jnp.full(9, 0.3))
    np.testing.assert_allclose(mixed, 0.3 * similar + 0.7 * apart, rtol=FLOAT64)


def test_an_infinite_distance_suits_a_dissimilar_pair():
    """Infinitely far apart costs 0 with gradient 0, or infinity if similar."""
    d, y = jnp.array([jnp.inf, jnp.inf]), jnp.array([0, 1])
    np.testing.assert_array_equal(jaxloss.contrastive(d, y), [0, jnp.inf])
    assert jax.grad(jaxloss.contrastive)(jnp.inf, 0) == 0


def test_a_pair_on_the_margin_is_at_rest():
    """At d = m a dissimilar pair has loss, slope and curvature 0, the flat side's."""
    apart = lambda d: jaxloss.contrastive(d, 0, margin=0.5)
    at = [f(0.5) for f in (apart, jax.grad(apart), jax.grad(jax.grad(apart)))]
    np.testing.assert_array_equal(at, 0)


# --- triplets ----------------------------------------------------------------------


def random_vectors(count, shape=(50, 8), dtype: DTypeLike = np.float64):
    rng = np.random.default_rng(2)
    return [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(count)]


def test_triplet_is_the_violation_of_the_margin():
    """max(0, d(a, p) - d(a, n) + m), with one margin for all or one for each."""
    near, far = jnp.array([0.5, 0.5, 2.0]), jnp.array([1.0, 2.0, 0.0])
    loss = jaxloss.triplet(near, far, margin=jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(loss, [0.5, 0, 2])


def test_triplet_adds_back_what_rounding_lost():
    """1 - 2^30 rounds to -2^30 in float32; with the margin 2^30 the loss is still 1."""
    big = jnp.float32(2.0**30)
    loss = jaxloss.triplet(jnp.float32(1), big, margin=big)
    assert loss == 1


@pytest.mark.parametrize("squared", [False, True])
def test_triplet_margin_is_triplet_of_the_distances(squared):
    """Embeddings and their distances, plain or squared, give the same loss."""
    a, p, n = random_vectors(3)
    power = 2 if squared else 1
    near, far = (stable.norm(a - x) ** power for x in (p, n))
    np.testing.assert_allclose(
        jaxloss.triplet_margin(a, p, n, squared=squared),
        jaxloss.triplet(near, far),
        atol=32 * FLOAT64,
    )


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_a_collapsed_batch_has_the_loss_m_and_no_gradient(squared, scale):
    """All embeddings equal: the margin, gradient 0 and Hessian 0, not NaN."""
    x = jnp.full((4, 3), scale, jnp.float32)
    loss = lambda *x: jnp.sum(jaxloss.triplet_margin(*x, margin=0.3, squared=squared))
    np.testing.assert_array_equal(loss(x, x, x), jnp.float32(0.3) * 4)
    for slope in jax.grad(loss, (0, 1, 2))(x, x, x):
        np.testing.assert_array_equal(slope, 0)
    np.testing.assert_array_equal(jax.jit(jax.hessian(loss))(x, x, x), 0)


@pytest.mark.parametrize("squared", [False, True])
def test_triplet_gradients_balance(squared):
    """Moving all three embeddings together changes nothing: gradients sum to 0."""
    vectors = random_vectors(3)
    total = lambda *x: jnp.sum(jaxloss.triplet_margin(*x, squared=squared))
    slopes = jax.grad(total, (0, 1, 2))(*vectors)
    np.testing.assert_allclose(sum(slopes), 0, atol=FLOAT64)


@pytest.mark.parametrize("power", [-90, 90])
def test_triplet_margin_has_the_units_of_the_embedding(power):
    """Scaling embeddings and margin by 2^90 or 2^-90 scales the loss, exactly."""
    vectors, scale = random_vectors(3, dtype=np.float32), 2.0**power
    loss = jaxloss.triplet_margin(*vectors, margin=0.5)
    scaled = jaxloss.triplet_margin(*(scale * x for x in vectors), margin=scale * 0.5)
    np.testing.assert_array_equal(scaled, scale * loss)


def test_a_negative_on_the_positive_costs_exactly_the_margin():
    """p = n: the loss is the margin, and the anchor feels nothing, at any distance."""
    a, p = random_vectors(2, dtype=np.float32)
    loss = lambda a: jaxloss.triplet_margin(a, p, p, margin=0.25)
    slope = jax.jit(jax.grad(lambda a: jnp.sum(loss(a))))
    for far in (1.0, 1e10):
        np.testing.assert_array_equal(jax.jit(loss)(far * a), 0.25)
        np.testing.assert_array_equal(slope(far * a), 0)


# --- the hardest of a batch ----------------------------------------------------------


def weighted(x, ids, margin: float | jax.Array = 1.0, where=None, *, squared=False):
    """One number of a batch, in which each anchor has a weight of its own."""
    losses = jaxloss.batch_hard_triplet(
        x, ids, margin=margin, where=where, squared=squared
    )
    return losses @ jnp.arange(1, len(losses) + 1, dtype=losses.dtype), losses


hardest = jax.jit(jax.grad(weighted, has_aux=True), static_argnames="squared")


def batch_hard(*args, **params):
    """The losses, and the gradient of their weighted sum."""
    return hardest(*args, **params)[::-1]


def draw(rows=12, size=5, dtype: DTypeLike = np.float64):
    """Embeddings, and groups of three in a random order."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(rows, size)), dtype)
    return x, jnp.asarray(rng.permutation(np.arange(rows) // 3))


@pytest.mark.parametrize("squared", [False, True])
def test_the_farthest_positive_and_the_nearest_negative(squared):
    """`triplet_margin` of those, by `pair_masks` and all differences of rows; the same
    gradient, though the choice has none."""
    x, ids = draw()
    positives, negatives = targets.pair_masks(ids)

    @functools.partial(jax.grad, has_aux=True)
    def by_hand(x):
        far = jnp.sum((x[:, None] - x[None]) ** 2, axis=-1)
        p = x[jnp.argmax(jnp.where(positives, far, 0), axis=1)]
        n = x[jnp.argmin(jnp.where(negatives, far, jnp.inf), axis=1)]
        losses = jaxloss.triplet_margin(x, p, n, squared=squared)
        return losses @ jnp.arange(1.0, 13), losses

    losses, slope = batch_hard(x, ids, squared=squared)
    want, value = jax.jit(by_hand)(x)
    assert jnp.any(losses > 0)
    np.testing.assert_allclose(losses, value, atol=FLOAT64)
    np.testing.assert_allclose(slope, want, rtol=0, atol=8 * FLOAT64)


def test_far_from_the_origin_the_choice_is_still_right():
    """Rows near 1000 or at the scales 1e-25 and 1e25, where squares of entries lose
    the differences, vanish or overflow: the triplets are those near 0."""
    x, ids = draw(dtype=np.float32)
    x = jnp.round(x * 256) / 256  # so that adding 1000 loses nothing
    losses, slope = batch_hard(x, ids)
    there, pull = batch_hard(x + 1000, ids)
    np.testing.assert_array_equal(there, losses)
    np.testing.assert_array_equal(pull, slope)
    for scale in (np.float32(2.0**-83), np.float32(2.0**83)):
        scaled, pull = batch_hard(scale * x, ids, margin=scale)
        np.testing.assert_array_equal(scaled, scale * losses)
        np.testing.assert_array_equal(pull, slope)


def test_a_masked_row_is_no_anchor_and_no_candidate():
    """Loss and gradient 0, though it be NaN; the others as in a batch without it."""
    x, ids = draw()
    where = jnp.arange(12) % 4 != 1
    dirty = jnp.where(where[:, None], x, jnp.nan)
    losses, slope = batch_hard(dirty, ids, where=where)
    alone, _ = batch_hard(x[where], ids[where])
    np.testing.assert_array_equal(losses[~where], 0)
    np.testing.assert_array_equal(slope[~where], 0)
    np.testing.assert_allclose(losses[where], alone, atol=FLOAT64)
    assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize("ids", [[1, 1, 1, 1], [1, 2, 3, 4]])
def test_without_a_triplet_there_is_no_loss(ids):
    """All alike, or all different: 0 with gradient 0 and no NaN on the way, even where
    squares overflow."""
    x = 1e30 * draw(rows=4, dtype=np.float32)[0]
    with jax.debug_nans(True):
        losses = jaxloss.batch_hard_triplet(x, jnp.array(ids), squared=True)
    for leaf in (losses, *batch_hard(x, jnp.array(ids), squared=True)):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_of_one_or_none_has_no_loss(rows):
    """An empty batch has no losses, a lone row the loss 0 and the gradient 0."""
    losses, slope = batch_hard(jnp.ones((rows, 3), np.float32), jnp.zeros(rows, int))
    np.testing.assert_array_equal(losses, np.zeros(rows))
    np.testing.assert_array_equal(slope, np.zeros((rows, 3)))
    assert losses.dtype == np.float32


def test_a_collapsed_batch_costs_its_margins():
    """All rows equal: each anchor its own margin, gradient 0, not NaN."""
    x, ids = draw()
    margins = jnp.linspace(0, 1, 12)
    losses, slope = batch_hard(0 * x + 0.3, ids, margins)
    np.testing.assert_array_equal(losses, margins)
    np.testing.assert_array_equal(slope, 0)


def test_a_nan_in_one_row_is_not_hidden():
    """All others are compared with it: all losses are NaN."""
    x, ids = draw()
    assert jnp.all(jnp.isnan(batch_hard(x.at[3, 1].set(jnp.nan), ids)[0]))


def test_leading_axes_are_separate_batches():
    """No batch sees the rows of another one, nor is it centred with it."""
    x, ids = draw()
    stacked = jnp.stack([x, x[::-1] + 3])
    losses = jax.jit(jaxloss.batch_hard_triplet)(stacked, jnp.stack([ids] * 2))
    for got, rows in zip(losses, stacked, strict=True):
        np.testing.assert_allclose(got, batch_hard(rows, ids)[0], atol=FLOAT64)


def test_no_array_has_two_batch_axes_and_components():
    """Value and gradient take the room of at most 8 matrices of distances, where all
    differences of rows would take 192 of them."""
    rows = 256
    x = jax.ShapeDtypeStruct((rows, 192), np.float32)
    ids = jax.ShapeDtypeStruct((rows,), np.int32)
    memory = hardest.lower(x, ids).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= 8 * rows * rows * 4


def test_a_cut_batch_is_refused():
    """By micro-batches and over devices alike."""
    cut = lambda **how: _whole_batch.part_of_batch(
        **{"in_time": False, "axis_name": None, **how}
    )
    refused = functools.partial(pytest.raises, ValueError)
    words = r"^batch_hard_triplet: `embeddings` has the examples of one "
    with cut(in_time=True), refused(match=f"{words}micro-batch"):
        jaxloss.batch_hard_triplet(*draw())
    with cut(axis_name="i"), refused(match=f"{words}device.*: use jit of sharded"):
        jaxloss.batch_hard_triplet(*draw())


# --- cosine ------------------------------------------------------------------------


def test_cosine_embedding_is_the_published_formula():
    """1 - cos for the label +1, max(0, cos - m) for -1, integer or floating."""
    a, b = random_vectors(2)
    cos = jnp.sum(a * b, axis=-1) / jnp.sqrt(jnp.sum(a**2, -1) * jnp.sum(b**2, -1))
    for y in (jnp.ones(50), jnp.ones(50, int)):
        np.testing.assert_allclose(
            jaxloss.cosine_embedding(a, b, y), 1 - cos, rtol=16 * FLOAT64
        )
        np.testing.assert_allclose(
            jaxloss.cosine_embedding(a, b, -y, margin=0.1),
            jnp.maximum(0, cos - 0.1),
            atol=FLOAT64,
        )


def test_identical_embeddings_have_no_distance_and_no_gradient():
    """a = b: exactly 0 with gradient 0, compiled too, where 1 - cos gives 2e-7 and the
    difference of equal products 6e-17."""
    for size in (4, 64):
        (a,) = random_vectors(1, shape=(200, size), dtype=np.float32)
        one = jnp.ones(200, np.float32)
        loss = lambda a, b, one=one: jaxloss.cosine_embedding(a, b, one)
        np.testing.assert_array_equal(jax.jit(loss)(a, a + 0), 0)
        pull = jax.jit(lambda a, b, f=loss, one=one: jax.vjp(f, a, b)[1](one))
        for slope in pull(a, a + 0):
            np.testing.assert_array_equal(slope, 0)
        np.testing.assert_array_equal(loss(a, -a), 2)


def test_a_zero_vector_has_cosine_zero_and_no_gradient():
    """Loss 1 if similar and 0 if not; gradient and Hessian 0 in both, not NaN."""
    zero, x = [0.0, 0.0, 0.0], [1.0, 2.0, -3.0]
    a, b = jnp.array([zero, x, zero] * 2), jnp.array([x, zero, zero] * 2)
    labels = jnp.array([1, 1, 1, -1, -1, -1])
    loss = lambda a, b: jaxloss.cosine_embedding(a, b, labels, margin=0.2)
    np.testing.assert_array_equal(loss(a, b), [1, 1, 1, 0, 0, 0])
    for derive in (jax.grad, jax.hessian):
        derivatives = jax.jit(derive(lambda a, b: jnp.sum(loss(a, b)), (0, 1)))
        for leaf in jax.tree.leaves(derivatives(a, b)):
            np.testing.assert_array_equal(leaf, 0)


def test_nearly_parallel_embeddings_stay_in_range():
    """No pair costs less than 0, nor has a cosine above 1, by rounding."""
    a, noise = random_vectors(2, shape=(2000, 5), dtype=np.float32)
    b = a + 1e-7 * noise
    alike = jnp.ones(2000, int)
    assert jnp.all(jaxloss.cosine_embedding(a, b, alike) >= 0)
    apart = jaxloss.cosine_embedding(a, b, -alike, margin=1.0)
    np.testing.assert_array_equal(apart, 0)


@pytest.mark.parametrize(("first", "second"), [(66, -66), (-66, -66), (66, 66)])
def test_cosine_embedding_does_not_depend_on_the_lengths(first, second):
    """Lengths of 1e20 and 1e-20 change no bit of the loss; the gradient is one over
    the length, and at a right angle to the embedding."""
    a, b = random_vectors(2, dtype=np.float32)
    labels = jnp.ones(50, int)
    total = lambda a, b: jnp.sum(jaxloss.cosine_embedding(a, b, labels))
    long, other = 2.0**first * a, 2.0**second * b
    np.testing.assert_array_equal(
        jaxloss.cosine_embedding(long, other, labels),
        jaxloss.cosine_embedding(a, b, labels),
    )
    slope = jax.grad(total)(long, other)
    np.testing.assert_array_equal(2.0**first * slope, jax.grad(total)(a, b))
    np.testing.assert_allclose(jnp.sum(slope * long, -1), 0, atol=FLOAT32)


def test_a_label_that_is_no_sign_gives_nan():
    """Labels 0 or 2 are mistakes, not classes: NaN, and only for that pair."""
    a, b = random_vectors(2, shape=(4, 3))
    loss = jaxloss.cosine_embedding(a, b, jnp.array([1, 0, -1, 2]))
    np.testing.assert_array_equal(jnp.isnan(loss), [False, True, False, True])


# --- all on embeddings -------------------------------------------------------------


def test_the_components_may_lie_along_any_axis():
    """`axis` says where the components are; the shape without it is the result's."""
    a, b, c = random_vectors(3, shape=(4, 5, 8))
    first, second, third = (jnp.moveaxis(x, -1, 0) for x in (a, b, c))
    labels = jnp.where(jnp.arange(20) % 2, 1, -1).reshape(4, 5)
    np.testing.assert_allclose(
        jaxloss.triplet_margin(first, second, third, axis=0),
        jaxloss.triplet_margin(a, b, c),
        rtol=FLOAT64,
    )
    np.testing.assert_allclose(
        jaxloss.cosine_embedding(first, second, labels, axis=0),
        jaxloss.cosine_embedding(a, b, labels),
        rtol=FLOAT64,
    )


def test_errors_name_the_loss_and_the_argument():
    """A wrong shape, dtype, margin or axis is refused with what was given."""
    x, d = jnp.ones((2, 3)), jnp.ones(2)
    with pytest.raises(ValueError, match=r"^contrastive: `similar` has shape \(2, 3\)"):
        jaxloss.contrastive(d, x)
    with pytest.raises(ValueError, match=r"^contrastive: `margin` is -1; expected a"):
        jaxloss.contrastive(d, d, margin=-1)
    with pytest.raises(
        TypeError, match=r"^triplet: `negative_distances` has dtype int"
    ):
        jaxloss.triplet(d, d.astype(int))
    with pytest.raises(
        ValueError, match=r"^triplet_margin: `axis` is 2; expected an ax"
    ):
        jaxloss.triplet_margin(x, x, x, axis=2)
    with pytest.raises(
        ValueError, match=r"`labels` has shape \(2, 3\); expected \(2,\)"
    ):
        jaxloss.cosine_embedding(x, x, x)
    with pytest.raises(
        TypeError, match=r"`labels` has dtype bool; expected -1 and \+1"
    ):
        jaxloss.cosine_embedding(x, x, d > 0)


def test_a_margin_that_leaves_the_rounding_of_the_difference():
    """2^-30 - 1 + 1 is 2^-30, of which float32 has nothing after the difference."""
    p, n = jnp.float32(2.0**-30), jnp.float32(1)
    assert jax.jit(jaxloss.triplet)(p, n, margin=1.0) == 2.0**-30
