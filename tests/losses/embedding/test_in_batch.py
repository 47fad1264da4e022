"""In-batch contrastive losses: peers, what changes nothing, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import _whole_batch, reduce
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
FLOAT64 = tolerance(np.float64)


def weighted(x, labels, temperature: float | jax.Array = 0.1, where=None):
    """One number of a batch, in which each anchor has a weight of its own."""
    losses = jaxloss.nt_xent(x, labels, temperature=temperature, where=where)
    return losses @ jnp.arange(1, len(losses) + 1, dtype=losses.dtype), losses


gradient = jax.jit(jax.grad(weighted, has_aux=True))
curves = jax.jit(jax.hessian(lambda *args: weighted(*args)[0], (0, 2)))


def nt_xent(x, labels, temperature: float | jax.Array = 0.1, where=None):
    """The losses, and the gradient of their weighted sum."""
    return gradient(x, labels, temperature, where)[::-1]


def draw(rows=12, size=5, dtype: type = np.float64, seed=0):
    """Embeddings, and groups of three in a random order."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(rows, size)), dtype)
    return x, jnp.asarray(rng.permutation(np.arange(rows) // 3))


def test_many_components_are_as_accurate():
    """64 rows of 256 components in float32, at 0.02, as in float64 and as defined."""
    x, labels = draw(rows=64, size=256, dtype=np.float32)
    x = x + x[labels]
    wide = np.asarray(x, np.float64)
    (losses, slope), (_, exact) = (nt_xent(v, labels, 0.02) for v in (x, wide))
    size = FLOAT32 / 0.02
    want = definition(wide, np.asarray(labels), 0.02)
    np.testing.assert_allclose(losses, want, rtol=size, atol=size)
    assert jnp.max(jnp.abs(slope - exact)) <= size * jnp.max(jnp.abs(exact))


# --- the definition, and its peers ---------------------------------------------------


def definition(x, labels, temperature):
    """A loop over the pairs, in float64."""
    u = x / np.linalg.norm(x, axis=-1, keepdims=True)
    powers = np.exp(u @ u.T / temperature)
    losses = np.zeros(len(x))
    for i, row in enumerate(powers):
        others = row[labels != labels[i]].sum()
        alike = [j for j in np.flatnonzero(labels == labels[i]) if j != i]
        losses[i] = sum(np.log1p(others / row[j]) for j in alike) / max(1, len(alike))
    return losses


def test_a_pair_competes_with_the_negatives_only():
    """-log(e^s / (e^s + the negatives)), averaged over the positives of an anchor."""
    x, labels = draw()
    losses, _ = nt_xent(x, labels, 0.2)
    want = definition(np.asarray(x), np.asarray(labels), 0.2)
    np.testing.assert_allclose(losses, want, rtol=FLOAT64)


def test_two_views_are_a_softmax_over_all_other_rows():
    """SimCLR: the cross entropy of the other view among 2 n - 1 candidates."""
    x, _ = draw()
    rows = jnp.arange(12)

    @functools.partial(jax.grad, has_aux=True)
    def simclr(x):
        u = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        losses = jaxloss.softmax_cross_entropy(
            u @ u.T / 0.1, rows ^ 1, where=~jnp.eye(12, dtype=bool)
        )
        return losses @ (1.0 + rows), losses

    losses, slope = nt_xent(x, rows // 2)
    want, value = jax.jit(simclr)(x)
    np.testing.assert_allclose(losses, value, rtol=8 * FLOAT64)
    np.testing.assert_allclose(slope, want, rtol=0, atol=FLOAT64 * np.abs(want).max())


def test_the_mean_over_pairs_is_the_one_of_optax():
    """Weighted by the number of positives, groups of different sizes included."""
    x, labels = draw()
    labels = jnp.minimum(labels, 2)
    pairs = jnp.sum(labels[:, None] == labels[None, :], axis=1) - 1

    def ours(x):
        losses = jaxloss.nt_xent(x, labels, temperature=0.2)
        return reduce.mean(losses, weights=pairs)

    theirs = lambda x: optax.losses.ntxent(x, labels, temperature=0.2)
    both = [jax.jit(jax.value_and_grad(fn))(x) for fn in (ours, theirs)]
    for got, want in zip(*both, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=8 * FLOAT64)


@pytest.mark.parametrize("temperature", [0.0225, 0.0125])
def test_well_separated_pairs_keep_a_tiny_loss(temperature):
    """Equal in pairs, at right angles else: log(1 + 2 e^(-1 / t)), 1e-19 or 4e-35, and
    its gradient, where the textbook's formula gives -0 and NaN."""
    x = jnp.repeat(jnp.eye(2, 5, dtype=np.float32), 2, axis=0)
    labels, odds = jnp.array([0, 0, 1, 1]), 2 * np.exp(-1 / np.float64(temperature))
    size = FLOAT32 / temperature
    losses, slope = nt_xent(x, labels, temperature)
    np.testing.assert_allclose(losses, np.full(4, odds), rtol=size)
    # Each row has the cosine 0 with two others, and a pair counts for both its ends.
    weights = np.array([2 * 1 + 3 + 4, 2 * 2 + 3 + 4, 2 * 3 + 1 + 2, 2 * 4 + 1 + 2])
    pull = odds / 2 / temperature * weights[:, None]
    np.testing.assert_allclose(slope, pull * x[::-1], rtol=size)


# --- pairs ---------------------------------------------------------------------------


def draw_pairs(rows=7, size=5, dtype: type = np.float64):
    """Two embeddings of each pair, that have to do with each other."""
    x, noise = np.random.default_rng(2).normal(size=(2, rows, size))
    return jnp.asarray(x, dtype), jnp.asarray(0.5 * x + noise, dtype)


def of_pairs(loss):
    """The losses; and the gradients of their weighted sum in all but the mask."""

    def total(x, y, temperature, where):
        losses = loss(x, y, temperature=temperature, where=where)
        return losses @ jnp.arange(1, len(losses) + 1, dtype=losses.dtype), losses

    run = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))

    def losses_and_gradients(x, y, temperature: float | jax.Array = 0.1, where=None):
        return run(x, y, temperature, where)[::-1]

    return losses_and_gradients


clip = of_pairs(jaxloss.clip)
info_nce = jax.jit(jaxloss.info_nce, static_argnames="normalize")
siglip = jax.jit(jaxloss.siglip, static_argnames="normalize")
supervised = jax.jit(jaxloss.supervised_contrastive)


def textbook_clip(x, y, *, temperature, where):
    """The loss of the paper: two cross entropies of the scores, one transposed."""
    u, v = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    scores, ids = u @ v.T / temperature, jnp.arange(len(x))
    losses = [jaxloss.softmax_cross_entropy(s, ids) for s in (scores, scores.T)]
    return (losses[0] + losses[1]) / 2


def test_clip_is_the_mean_of_two_cross_entropies():
    """Losses, and the gradients in both embeddings and in the temperature."""
    found, want = clip(*draw_pairs()), of_pairs(textbook_clip)(*draw_pairs())
    for got, exact in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        np.testing.assert_allclose(got, exact, rtol=0, atol=64 * FLOAT64)


def test_clip_does_not_tell_which_is_first():
    """Images and texts may change places."""
    x, y = draw_pairs()
    (losses, slopes), (swapped, back) = clip(x, y), clip(y, x)
    np.testing.assert_allclose(losses, swapped, rtol=8 * FLOAT64)
    np.testing.assert_allclose(slopes[0], back[1], rtol=0, atol=64 * FLOAT64)


def test_well_separated_pairs_of_clip_keep_a_tiny_loss():
    """At right angles to all others: log(1 + 3 e^(-1 / t)) of 6e-43 and its slope."""
    x, t = jnp.eye(4), 0.01
    losses, (slope, _, by_temperature) = clip(x, 7 * x, t)
    odds = 3 * np.exp(-1 / t)
    np.testing.assert_allclose(losses, np.full(4, odds), rtol=FLOAT64 / t)
    # A score counts in its row and in its column, with half the weight of each.
    pull = (1 + np.array([2, 3, 4])) / 2 * odds / 3 / t
    np.testing.assert_allclose(slope[0, 1:], pull, rtol=FLOAT64 / t)
    np.testing.assert_allclose(by_temperature, 10 * odds / t**2, rtol=FLOAT64 / t)


def test_a_masked_pair_is_not_there():
    """Neither anchor nor candidate: loss and gradients 0, though it be NaN, and the
    others as in a batch without it."""
    x, y = draw_pairs()
    where = jnp.arange(7) % 3 != 1
    dirty = [jnp.where(where[:, None], z, jnp.nan) for z in (x, y)]
    losses, slopes = clip(*dirty, where=where)
    alone, _ = clip(x[where], y[where])
    np.testing.assert_array_equal(losses[~where], 0)
    np.testing.assert_allclose(losses[where], alone, rtol=8 * FLOAT64)
    for slope in slopes[:2]:
        np.testing.assert_array_equal(slope[~where], 0)
        assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize("rows", [0, 1])
def test_one_pair_or_none_has_no_loss(rows):
    """A lone pair has the loss 0 and gradients 0, an empty batch has none."""
    x = jnp.ones((rows, 3), np.float32)
    for leaf in jax.tree.leaves(clip(x, x)):
        np.testing.assert_array_equal(leaf, jnp.zeros_like(leaf))


def test_info_nce_is_one_direction_of_clip():
    """And what it is in the other direction is the rest of it."""
    x, y = draw_pairs()
    there, back = (info_nce(*rows, temperature=0.1) for rows in ((x, y), (y, x)))
    both, _ = clip(x, y)
    np.testing.assert_allclose((there + back) / 2, both, rtol=8 * FLOAT64)


def test_siglip_classifies_every_combination():
    """The sum of sigmoid cross entropies of all scores, with the pairs as ones."""
    x, y = draw_pairs()
    losses = siglip(x, y, temperature=0.1, bias=-3.0)
    u, v = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    scores = jaxloss.sigmoid_cross_entropy(u @ v.T / 0.1 - 3, jnp.eye(7))
    np.testing.assert_allclose(losses, jnp.sum(scores, axis=1), rtol=64 * FLOAT64)


# --- scores that are no cosines ------------------------------------------------------


def exact_scores(far):
    """Embeddings whose inner products are of size `far`, and those over 0.5."""
    x, y = draw_pairs()
    x, y = x.at[:, 0].add(far), y.at[:, 0].add(-4.0)
    return x, y, np.asarray(x) @ np.asarray(y).T / 0.5


def nll_of_rows(scores):
    """Of the diagonal under the softmax of each row, in NumPy."""
    top = scores.max(axis=1, keepdims=True)
    odds = np.exp(scores - top)
    return np.log(odds.sum(axis=1)) + top[:, 0] - np.diag(scores)


@pytest.mark.parametrize("far", [0.0, 40.0, 4000.0])
def test_inner_products_count_as_they_are(far):
    """Without normalisation: the cross entropies of the matrix of inner products, also
    where every one of them is far below -1."""
    x, y, scores = exact_scores(far)
    given = {"temperature": 0.5, "normalize": False}
    near = functools.partial(np.testing.assert_allclose, rtol=1e-13, atol=1e-11)
    rows, columns = nll_of_rows(scores), nll_of_rows(scores.T)
    near(info_nce(x, y, **given), rows)
    both = jax.jit(functools.partial(jaxloss.clip, normalize=False))
    found = both(x, y, temperature=0.5)
    near(found, (rows + columns) / 2)
    signs = 1 - 2 * np.eye(7)
    want = np.logaddexp(0, signs * (scores + 1)).sum(axis=1)
    found = siglip(x, y, bias=1.0, **given)
    near(found, want)


def test_a_matrix_of_scores_has_the_losses_of_its_embeddings():
    """What the recipes say of scores that come from anywhere else."""
    x, y, scores = exact_scores(1.0)
    given = {"temperature": 0.5, "normalize": False}
    ids, rtol = jnp.arange(7), 64 * FLOAT64
    near = functools.partial(np.testing.assert_allclose, rtol=rtol)
    rows = jaxloss.softmax_cross_entropy(scores, ids)
    columns = jaxloss.softmax_cross_entropy(scores, ids, axis=0)
    near(rows, info_nce(x, y, **given))
    found = jaxloss.clip(x, y, **given)
    near((rows + columns) / 2, found)
    every = jaxloss.sigmoid_cross_entropy(scores - 3, jnp.eye(7)).sum(axis=-1)
    near(every, siglip(x, y, bias=-3.0, **given))


# --- groups against all others -------------------------------------------------------


def test_a_positive_competes_with_the_other_positives_too():
    """The mean over the positives of a cross entropy among all other rows."""
    x, labels = draw()
    losses = supervised(x, labels, temperature=0.1)
    u = np.asarray(x / jnp.linalg.norm(x, axis=-1, keepdims=True))
    scores, ids = u @ u.T / 0.1, np.asarray(labels)
    np.fill_diagonal(scores, -np.inf)
    nll = np.log(np.exp(scores).sum(axis=1, keepdims=True)) - scores
    alike = (ids[:, None] == ids) & ~np.eye(12, dtype=bool)
    want = np.where(alike, nll, 0).sum(axis=1) / alike.sum(axis=1)
    np.testing.assert_allclose(losses, want, rtol=64 * FLOAT64)


def test_of_two_views_both_losses_of_groups_are_one():
    """A lone positive has no other to compete with; its tiny loss is kept too."""
    ids = jnp.arange(12) // 2
    for x, t in ((draw()[0], 0.1), (jnp.repeat(jnp.eye(6, 5), 2, axis=0), 0.0225)):
        losses, (want, _) = supervised(x, ids, temperature=t), nt_xent(x, ids, t)
        np.testing.assert_allclose(losses, want, rtol=64 * FLOAT64)


def test_rows_without_a_positive_have_no_supervised_loss():
    """All different: 0; all alike: the log of how many positives an anchor has."""
    x = jnp.tile(draw(rows=1)[0], (12, 1))
    of = lambda ids: supervised(x, ids, temperature=0.1)
    np.testing.assert_array_equal(of(jnp.arange(12)), 0)
    np.testing.assert_allclose(of(jnp.zeros(12, int)), np.full(12, np.log(11)))


# --- a batch that is cut -------------------------------------------------------------

PARTS = {
    "nt_xent": lambda x: jaxloss.nt_xent(x, jnp.arange(4), temperature=1.0),
    "clip": lambda x: jaxloss.clip(x, x, temperature=1.0),
    "info_nce": lambda x: jaxloss.info_nce(x, x, temperature=1.0),
    "siglip": lambda x: jaxloss.siglip(x, x, temperature=1.0, bias=0.0),
    "supervised_contrastive": lambda x: jaxloss.supervised_contrastive(
        x, jnp.arange(4), temperature=1.0
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_cut_batch_is_refused(name):
    """By micro-batches, and over devices, for which there is another form of it."""
    cut = rf"^{name}: .*one micro-batch"
    with (
        _whole_batch.part_of_batch(in_time=True, axis_name=None),
        pytest.raises(ValueError, match=cut),
    ):
        PARTS[name](jnp.eye(4))
    other = rf"^{name}: .*parallel\.{name}"
    with (
        _whole_batch.part_of_batch(in_time=False, axis_name="i"),
        pytest.raises(ValueError, match=other),
    ):
        PARTS[name](jnp.eye(4))


# --- what changes nothing -----------------------------------------------------------


def test_rows_may_come_in_any_order():
    """A permutation of the batch permutes the losses."""
    x, labels = draw()
    order = np.random.default_rng(1).permutation(12)
    losses, moved = (nt_xent(x[at], labels[at])[0] for at in (slice(None), order))
    np.testing.assert_allclose(moved, losses[order], rtol=8 * FLOAT64)


def test_ids_are_only_compared():
    """Negative, unsigned or large: any integers, as long as groups stay apart."""
    x, labels = draw()
    losses, _ = nt_xent(x, labels)
    for ids in (-1 - labels, (80 * labels).astype(np.uint8), 2**40 * labels):
        np.testing.assert_array_equal(nt_xent(x, ids)[0], losses)


def test_lengths_do_not_matter():
    """Lengths of 1e20 and 1e-20 change no bit of the loss; the gradient is one over
    the length, and at a right angle to the embedding."""
    x, labels = draw(dtype=np.float32)
    lengths = 2.0 ** jnp.resize(jnp.array([-66, 0, 66], np.float32), (12, 1))
    losses, slope = nt_xent(x, labels)
    scaled, pull = nt_xent(lengths * x, labels)
    np.testing.assert_array_equal(scaled, losses)
    np.testing.assert_array_equal(lengths * pull, slope)
    size = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(slope, axis=-1)
    assert jnp.all(jnp.abs(jnp.sum(slope * x, -1)) <= FLOAT32 * size)


def test_leading_axes_are_separate_batches():
    """No batch sees the rows of another one; each anchor may have its temperature."""
    x, labels = draw()
    t, twice = jnp.linspace(0.05, 0.5, 12), jnp.stack([x, x[::-1]])
    stacked = jax.jit(jaxloss.nt_xent)(twice, jnp.stack([labels] * 2), temperature=t)
    for got, rows in zip(stacked, twice, strict=True):
        for i in (0, 5, 11):
            losses, _ = nt_xent(rows, labels, float(t[i]))
            np.testing.assert_allclose(got[i], losses[i], rtol=8 * FLOAT64)


# --- masks ---------------------------------------------------------------------------


def test_a_masked_row_is_not_there():
    """Neither anchor nor candidate: loss and gradient 0, though it be NaN, and the
    others as in a batch without it."""
    x, labels = draw()
    where = jnp.arange(12) % 4 != 1
    dirty = jnp.where(where[:, None], x, jnp.nan)
    losses, slope = nt_xent(dirty, labels, where=where)
    alone = definition(np.asarray(x[where]), np.asarray(labels[where]), 0.1)
    np.testing.assert_array_equal(losses[~where], 0)
    np.testing.assert_array_equal(slope[~where], 0)
    np.testing.assert_allclose(losses[where], alone, rtol=8 * FLOAT64)
    assert jnp.all(jnp.isfinite(slope))


def test_no_mask_is_a_mask_that_keeps_all():
    """`where` of nothing but true changes nothing."""
    x, labels = draw()
    losses, slope = nt_xent(x, labels)
    masked, pull = nt_xent(x, labels, where=jnp.full(12, True))
    np.testing.assert_allclose(masked, losses, rtol=8 * FLOAT64)
    np.testing.assert_allclose(pull, slope, rtol=0, atol=FLOAT64 * np.abs(slope).max())


# --- nothing to compare --------------------------------------------------------------


@pytest.mark.parametrize("ids", [[1, 1, 1, 1], [1, 2, 3, 4]])
def test_without_positives_or_negatives_there_is_no_loss(ids):
    """All alike, or all different: loss 0, gradient 0, Hessian 0."""
    x, labels = draw(rows=4)[0], jnp.array(ids)
    for leaf in (*nt_xent(x, labels), *jax.tree.leaves(curves(x, labels, 0.1))):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_of_one_or_none_has_no_loss(rows):
    """An empty batch has no losses, a lone row the loss 0 and the gradient 0."""
    x, labels = jnp.ones((rows, 3), np.float32), jnp.zeros(rows, int)
    losses, slope = nt_xent(x, labels)
    np.testing.assert_array_equal(losses, np.zeros(rows))
    np.testing.assert_array_equal(slope, np.zeros((rows, 3)))
    assert losses.dtype == np.float32


def test_a_zero_vector_has_cosine_zero_and_no_gradient():
    """Its scores are 0, its gradient is 0, and all second derivatives are finite."""
    x = jnp.array([[0.0, 0, 0, 0, 0], [3, 4, 0, 0, 0], [4, -3, 0, 0, 0], [0] * 5])
    labels = jnp.array([0, 0, 1, 1])
    losses, slope = nt_xent(x, labels)
    np.testing.assert_allclose(losses, np.full(4, np.log(3)), rtol=FLOAT64)
    np.testing.assert_array_equal(jnp.any(slope != 0, axis=1), [0, 1, 1, 0])
    for leaf in jax.tree.leaves(curves(x, labels, 0.1)):
        assert jnp.all(jnp.isfinite(leaf))


def test_a_collapsed_batch_has_the_loss_of_a_guess():
    """All rows equal: log(1 + the number of negatives), and no gradient beyond what
    the rounding of a cosine is worth."""
    x, labels = jnp.full((12, 5), 0.3, np.float32), draw()[1]
    losses, slope = nt_xent(x, labels, 0.01)
    np.testing.assert_allclose(losses, np.full(12, np.log(10)), rtol=FLOAT32)
    size = 12 / 0.01 / jnp.linalg.norm(x[0])
    assert jnp.max(jnp.abs(slope)) <= FLOAT32 * size


def test_nan_is_not_hidden():
    """A NaN in one row, which all others are compared with, makes all losses NaN."""
    x, labels = draw()
    assert jnp.all(jnp.isnan(nt_xent(x.at[3, 1].set(jnp.nan), labels)[0]))


# --- memory --------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_components():
    """Value and gradient take the room of at most 8 matrices, batch by batch: an array
    of differences or products of components would take 192 of them."""
    rows = 256
    x = jax.ShapeDtypeStruct((rows, 192), np.float32)
    labels = jax.ShapeDtypeStruct((rows,), np.int32)
    memory = gradient.lower(x, labels).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= 8 * rows * rows * 4


def test_errors_name_the_loss_and_the_argument():
    """A wrong shape, dtype or temperature is refused with what was given."""
    x, labels = draw()
    refused = functools.partial(pytest.raises, ValueError)
    with refused(match=r"^nt_xent: `embeddings` has shape \(5,\); expected shape \(\."):
        jaxloss.nt_xent(x[0], labels, temperature=0.1)
    with refused(
        match=r"^nt_xent: `labels` has shape \(1,\); expected \(12,\), one id"
    ):
        jaxloss.nt_xent(x, labels[:1], temperature=0.1)
    with refused(match=r"^nt_xent: `where` has shape \(1,\) but `labels` has shape"):
        jaxloss.nt_xent(x, labels, temperature=0.1, where=labels[:1] > 0)
    with refused(
        match=r"^nt_xent: `temperature` is 0; expected a number in \(0, inf\)"
    ):
        jaxloss.nt_xent(x, labels, temperature=0)
    with pytest.raises(TypeError, match=r"^nt_xent: `labels` has dtype float64; expec"):
        jaxloss.nt_xent(x, 1.0 * labels, temperature=0.1)
