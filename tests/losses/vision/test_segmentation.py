"""Segmentation losses: published values, empty masks, classes, voids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

import jaxloss
from jaxloss import stable
from jaxloss.claims.vision.segmentation import by_logits
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
FLOAT64 = tolerance(np.float64)

LOSSES = (jaxloss.dice, jaxloss.jaccard, jaxloss.tversky)


# --- published values --------------------------------------------------------------

# Logits and one-hot targets of the tests of MONAI: (image, class, pixel).
PAIR = jnp.array(
    [[[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
)
PAIR_TARGETS = jnp.array([[[0, 1, 1], [1, 0, 0]], [[0, 0, 1], [1, 1, 0]]])
SQUARE, SQUARE_TARGETS = jnp.array([1.0, -1.0, -1.0, 1.0]), jnp.array([1, 0, 1, 1])
# The tolerance of those tests; some values are off by one in the last digit.
as_printed = functools.partial(np.testing.assert_allclose, rtol=1e-5)


def test_losses_of_monai():
    """`DiceLoss` per image and class; `jaccard=True`, whose smoothing is twice ours;
    `GeneralizedDiceLoss` per image, where the rarest class has one pixel."""
    p, t = jax.nn.sigmoid(PAIR), PAIR_TARGETS
    dice = jaxloss.dice(p, t, axis=-1, smooth=1e-4)
    as_printed(dice, [[0.296529, 0.415136], [0.599976, 0.428559]])
    one = jax.nn.sigmoid(SQUARE)
    jaccard = jaxloss.jaccard(one, SQUARE_TARGETS, axis=-1, smooth=1e-5 / 2)
    as_printed(jaccard, 0.470451)
    p = jax.nn.softmax(PAIR, axis=1)
    as_printed(jnp.mean(jaxloss.dice(p, t, axis=-1, smooth=1e-4)), 0.383713)
    loss = jaxloss.generalized_dice(p, t, axis=-1, class_axis=1, smooth=1e-4)
    as_printed(loss, [0.273476, 0.555539])


def test_alpha_is_the_price_of_false_positives():
    """MONAI's and Keras's values; Keras before 3.16 took alpha for the other one."""
    loss = functools.partial(jaxloss.tversky, axis=-1)
    p = jax.nn.sigmoid(SQUARE)
    as_printed(loss(p, SQUARE_TARGETS, alpha=0.7, beta=0.3, smooth=1e-6), 0.247366)
    p, t = jnp.array([0.4, 0.0, 0.0, 0.9]), jnp.array([1, 1, 0, 0])
    as_printed(loss(p, t), 0.75757575)
    as_printed(loss(p, t, alpha=0.2, beta=0.8), 0.78494626)
    as_printed(loss(p, t, alpha=0.8, beta=0.2), 0.7222222)


# --- identities --------------------------------------------------------------------


def random_masks(shape=(5, 8), dtype: DTypeLike = np.float64):
    rng = np.random.default_rng(3)
    p, t, q = rng.uniform(size=(3, *shape))
    return jnp.asarray(p, dtype), jnp.asarray(t, dtype), jnp.asarray(q, dtype)


def test_dice_and_jaccard_are_settings_of_tversky():
    """Weights of 1/2 and half the smoothing: dice, bit for bit.  Weights of 1:
    jaccard, which is also 2 d / (1 + d)."""
    p, t, q = random_masks()
    loss = lambda fn, **kw: fn(p, t, axis=-1, complements=q, **kw)
    dice, jaccard, tversky = LOSSES
    for s in (0.0, 1.0):
        half = loss(tversky, smooth=s / 2)
        np.testing.assert_array_equal(loss(dice, smooth=s), half)
        whole = loss(tversky, alpha=1, beta=1, smooth=s)
        np.testing.assert_allclose(loss(jaccard, smooth=s), whole, rtol=FLOAT64)
    d = loss(dice)
    np.testing.assert_allclose(loss(jaccard), 2 * d / (1 + d), rtol=FLOAT64)


def test_false_positives_of_one_mask_are_false_negatives_of_the_other():
    """Swapping masks and weights changes nothing."""
    p, t, _ = random_masks()
    one = jaxloss.tversky(p, t, axis=-1, alpha=0.2, beta=0.9, smooth=0.3)
    other = jaxloss.tversky(t, p, axis=-1, alpha=0.9, beta=0.2, smooth=0.3)
    np.testing.assert_allclose(one, other, rtol=FLOAT64)


def test_generalized_dice_of_one_class_is_dice():
    """A single class has the weight 1, smoothed too, and so has its gradient."""
    p, t, q = random_masks()
    one = lambda p, t, q: jaxloss.dice(p, t, axis=-1, complements=q, smooth=0.5)
    every = lambda *x: jaxloss.generalized_dice(
        *(v[..., None] for v in x[:2]),
        axis=1,
        complements=x[2][..., None],
        smooth=0.5,
    )
    np.testing.assert_array_equal(every(p, t, q), one(p, t, q))
    for x, y in zip(
        *(jax.vjp(fn, p, t, q)[1](jnp.ones(5)) for fn in (every, one)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=0, atol=FLOAT64)


def test_pixels_and_classes_have_no_order():
    """Another order of the pixels or of the classes gives the same loss."""
    p, t, q = random_masks((6, 3))
    loss = lambda *x: jaxloss.generalized_dice(*x[:2], axis=0, complements=x[2])
    turned = loss(*(jnp.flip(x, axis=(0, 1)) for x in (p, t, q)))
    np.testing.assert_allclose(turned, loss(p, t, q), rtol=FLOAT64)


def test_generalized_dice_is_the_published_ratio():
    """Sudre et al.: weights 1 / n^2 and one ratio, not a mean of ratios; of absent
    classes the largest weight, as MONAI has it."""
    p, t = np.asarray(random_masks((6, 4))[0]), np.eye(4)[[0, 0, 0, 2, 2, 3]]
    n, hit, whole = t.sum(0), (p * t).sum(0), (p + t).sum(0)
    for classes in ([0, 2, 3], [0, 1, 2, 3]):
        w = np.array([1 / n[c] ** 2 if n[c] else 1.0 for c in classes])
        want = 1 - 2 * (w @ hit[classes]) / (w @ whole[classes])
        got = jaxloss.generalized_dice(p[:, classes], t[:, classes], axis=0)
        np.testing.assert_allclose(got, want, rtol=FLOAT64)


# --- edges -------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES, ids=lambda fn: fn.__name__)
def test_two_empty_masks_agree(loss):
    """0/0: loss 0 with gradient 0 and Hessian 0; smoothed, the true slope in p."""
    zero = jnp.zeros(3, jnp.float32)
    fn = lambda p, t: loss(p, t, axis=-1)
    assert fn(zero, zero) == 0
    for derive in (jax.grad, jax.hessian):
        for leaf in jax.tree.leaves(jax.jit(derive(fn, (0, 1)))(zero, zero)):
            np.testing.assert_array_equal(leaf, 0)
    smoothed = lambda p: jaxloss.dice(p, zero, axis=-1, smooth=0.5)
    np.testing.assert_array_equal(jax.grad(smoothed)(zero), 2)


@pytest.mark.parametrize("size", [0.7, 1e-15, 1e-30])
def test_an_empty_target_has_loss_1_and_is_no_guide(size):
    """However small the prediction: no gradient in p and no curvature, not NaN; in t
    it is -2 p / sum(p)."""
    p, zero = jnp.full(3, size, jnp.float32), jnp.zeros(3, jnp.float32)
    loss = lambda p, t: jaxloss.dice(p, t, axis=-1)
    assert loss(p, zero) == 1
    in_p, in_t = jax.jit(jax.grad(loss, (0, 1)))(p, zero)
    np.testing.assert_array_equal(in_p, 0)
    np.testing.assert_allclose(in_t, -2 / 3, rtol=FLOAT32)
    np.testing.assert_array_equal(jax.jit(jax.hessian(loss))(p, zero), 0)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda fn: fn.__name__)
def test_masks_with_nothing_in_common_have_loss_exactly_1(loss):
    """Also compiled; and a gradient that brings them together."""
    t = jnp.arange(40).reshape(8, 5) % 2
    p = jnp.where(t == 1, 0, random_masks((8, 5), np.float32)[0])
    total = jax.jit(lambda p: (loss(p, t, axis=-1), jnp.sum(loss(p, t, axis=-1))))
    np.testing.assert_array_equal(total(p)[0], 1)
    slope = jax.jit(jax.grad(lambda p: total(p)[1]))(p)
    assert jnp.all(jnp.where(t == 1, slope < 0, slope == 0))


def test_a_nearly_perfect_mask_keeps_its_loss_and_its_gradient():
    """Logits of 20 and -20: q = 2e-9 is missing or too much of each pixel, of 4 in
    all; without complements only what is too much is seen, as 1 - q is 1."""
    t = jnp.array([1, 1, 0])
    x = jnp.where(t == 1, 20.0, -20.0).astype(jnp.float32)
    loss = lambda x: by_logits(jaxloss.dice)(x, t)
    q = np.exp(-20.0) / (1 + np.exp(-20.0))
    np.testing.assert_allclose(loss(x), 3 * q / 4, rtol=FLOAT32)
    slope = q * np.array([-0.25, -0.25, 0.25])
    np.testing.assert_allclose(jax.grad(loss)(x), slope, rtol=2 * FLOAT32)
    rounded = jaxloss.dice(stable.sigmoid(x), t, axis=-1)
    np.testing.assert_allclose(rounded, q / 4, rtol=FLOAT32)


def test_voids_do_not_exist():
    """What `where` leaves out may be NaN or infinite: loss and gradients are those of
    the rest; with nothing left, 0."""
    p, t, q = random_masks((4, 6), np.float32)
    keep = jnp.arange(6) % 3 != 1
    where = jnp.broadcast_to(keep, p.shape).at[3].set(False)
    dirty = [
        jnp.where(where, x, bad)
        for x, bad in ((p, jnp.nan), (t, jnp.inf), (q, jnp.nan))
    ]

    def total(loss, p, t, q, where=None):
        losses = loss(p, t, axis=-1, complements=q, where=where)
        return jnp.sum(losses), losses

    for fn in LOSSES:
        run = jax.grad(functools.partial(total, fn), (0, 1, 2), has_aux=True)
        slopes, losses = jax.jit(run)(*dirty, where)
        rest = [x[:3, keep] for x in (p, t, q)]
        want, clean = jax.jit(run)(*rest)
        np.testing.assert_allclose(losses, [*clean, 0], rtol=FLOAT32)
        for slope, truth in zip(slopes, want, strict=True):
            np.testing.assert_allclose(slope[:3, keep], truth, rtol=8 * FLOAT32)
            np.testing.assert_array_equal(jnp.where(where, 0, slope), 0)
    without = jaxloss.dice(dirty[0], dirty[1], axis=-1, where=where)
    assert jnp.all(jnp.isfinite(without))


def test_nan_stays_in_its_own_mask():
    """A NaN probability or target makes its loss NaN and no other."""
    p, t, _ = random_masks((3, 4))
    bad = jnp.array([True, True, False])
    for loss in LOSSES:
        losses = loss(p.at[0, 1].set(jnp.nan), t.at[1, 2].set(jnp.nan), axis=-1)
        np.testing.assert_array_equal(jnp.isnan(losses), bad)


# --- axes, dtypes, weights ---------------------------------------------------------


def test_the_axis_decides_between_image_and_batch():
    """Per image and class, per class of the batch, one ratio of everything: counts are
    added up before they are divided."""
    p, t, _ = random_masks((2, 3, 4, 3))
    for axis in ((1, 2), (0, 1, 2), (-4, -3, -2, -1), 1):
        hit, both = (np.sum(x, axis=axis) for x in (p * t, p + t))
        got = jaxloss.dice(p, t, axis=axis)
        np.testing.assert_allclose(got, 1 - 2 * hit / both, rtol=8 * FLOAT64)
    last = jaxloss.generalized_dice(p, t, axis=(1, 2))
    first = jaxloss.generalized_dice(
        jnp.moveaxis(p, -1, 0), jnp.moveaxis(t, -1, 0), axis=(2, 3), class_axis=0
    )
    assert last.shape == (2,)
    np.testing.assert_allclose(first, last, rtol=FLOAT64)


def test_one_weight_per_class():
    """`alpha`, `beta` and `smooth` may be arrays with an entry for each class."""
    p, t, _ = random_masks((2, 6, 3))
    alpha, smooth = jnp.array([0.1, 0.5, 0.9]), jnp.array([0.0, 1.0, 2.0])
    every = jaxloss.tversky(p, t, axis=1, alpha=alpha, beta=1 - alpha, smooth=smooth)
    for c in range(3):
        one = jaxloss.tversky(
            p[..., c],
            t[..., c],
            axis=1,
            alpha=alpha[c],
            beta=1 - alpha[c],
            smooth=smooth[c],
        )
        np.testing.assert_allclose(every[:, c], one, rtol=FLOAT64)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float16])
def test_targets_of_any_kind(kind):
    """Masks come as booleans, bytes or numbers."""
    p, t, _ = random_masks(dtype=np.float32)
    hard = t > 0.5
    loss = lambda t: jaxloss.dice(p, t, axis=-1)
    np.testing.assert_array_equal(
        loss(hard.astype(kind)), loss(hard.astype(jnp.float32))
    )


def test_half_precision_counts_a_million_pixels():
    """float16 stops counting at 2048: sums are carried in float32, and returned."""
    rng = np.random.default_rng(4)
    p = rng.uniform(size=(1000, 1000, 1)).astype(np.float16)
    t = rng.uniform(size=p.shape) < 0.3
    got = jaxloss.dice(p, t, axis=(0, 1))
    hit, both = np.sum(p * t, dtype=float), np.sum(p, dtype=float) + np.sum(t)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [1 - 2 * hit / both], rtol=FLOAT32)


def test_weights_of_large_images_stay_in_range():
    """A class of one pixel in a million: weights 1 and 1e-12, of which neither may be
    in half precision, nor the counts, where masks are."""
    size = 10**6
    t = jnp.zeros((size, 2), bool).at[:, 1].set(True).at[0].set([True, False])
    p = jnp.full((size, 2), 0.5, jnp.float16)
    n = np.array([1.0, size - 1.0])
    w, hit, whole = 1 / n**2, n, n + size / 2
    got = jaxloss.generalized_dice(p, t, axis=0)
    np.testing.assert_allclose(got, 1 - w @ hit / (w @ whole), rtol=FLOAT32)


def test_weights_of_nearly_absent_classes_stay_finite():
    """Soft classes of 1e-25 and 2e-25 in all: it is the ratio of the sizes that counts,
    and its derivative, not 1 / n^2, which is infinite."""
    p = jnp.array([[0.5, 0.25]], jnp.float32)
    t = jnp.array([[1e-25, 2e-25]], jnp.float32)
    loss = lambda p, t: jaxloss.generalized_dice(p, t, axis=0)
    assert loss(p, t) == 1
    want = jax.grad(loss, (0, 1))(p.astype(float), t.astype(float))
    for got, truth in zip(jax.jit(jax.grad(loss, (0, 1)))(p, t), want, strict=True):
        np.testing.assert_allclose(got, truth, rtol=4 * FLOAT32)


def test_the_weights_are_differentiated_also_where_classes_tie():
    """The slope in soft targets is that of the whole formula, with equally frequent
    classes, where the least has two of them; constant weights would give another."""
    p = jnp.array([[0.9, 0.3], [0.2, 0.6]])
    t = jnp.array([[0.75, 0.25], [0.25, 0.75]])
    step = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    loss = jax.jit(lambda h: jaxloss.generalized_dice(p, t + h * step, axis=0))
    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(mode(loss))(0.0), slope, rtol=1e-8)
    equal = lambda h: jaxloss.dice(p, t + h * step, axis=(0, 1))
    constant = jax.jit(jax.grad(equal))(0.0)
    assert abs(constant - slope) > 0.01


def test_errors_name_the_loss_and_the_argument():
    """A wrong shape, dtype, axis or weight is refused with what was given."""
    p, t = jnp.ones((2, 3)), jnp.ones((2, 3), int)
    refuse = pytest.raises
    with refuse(ValueError, match=r"^dice: `targets` has shape \(3,\) but `probabil"):
        jaxloss.dice(p, t[0], axis=-1)
    with refuse(TypeError, match=r"^dice: `probabilities` has dtype int"):
        jaxloss.dice(t, t, axis=-1)
    with refuse(ValueError, match=r"^jaccard: `complements` has shape \(2,\) but"):
        jaxloss.jaccard(p, t, axis=-1, complements=p[:, 0])
    with refuse(
        TypeError, match=r"^jaccard: `where` has dtype int\d+; expected a bool"
    ):
        jaxloss.jaccard(p, t, axis=-1, where=t)
    with refuse(ValueError, match=r"^dice: `axis` is 2; expected an axis of `probabil"):
        jaxloss.dice(p, t, axis=(0, 2))
    with refuse(ValueError, match=r"^dice: `axis` has an axis twice in \(1, -1\); exp"):
        jaxloss.dice(p, t, axis=(1, -1))
    with refuse(ValueError, match=r"^tversky: `alpha` is -1; expected a number in \[0"):
        jaxloss.tversky(p, t, axis=-1, alpha=-1)
    with refuse(
        ValueError, match=r"^generalized_dice: `class_axis` has the value -1; "
    ):
        jaxloss.generalized_dice(p, t, axis=1)
    with refuse(TypeError, match=r"^generalized_dice: `class_axis` has the value True"):
        jaxloss.generalized_dice(p, t, axis=1, class_axis=True)


def test_shares_whose_square_underflows():
    """The slope of 1 - s / (sum(p) + s) is s / (sum(p) + s)^2, a number like 1.6e20."""
    p = jnp.array([1e-21, 0.5e-21], jnp.float32)
    loss = lambda p: jaxloss.dice(p, jnp.zeros_like(p), axis=-1, smooth=1e-21)
    np.testing.assert_allclose(jax.grad(loss)(p), 1e-21 / 2.5e-21 / 2.5e-21, rtol=1e-6)
