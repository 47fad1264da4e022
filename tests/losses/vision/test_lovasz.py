"""Lovász losses: values by hand, all corners, many pixels, empty masks, voids."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike
from mpmath import mp

import jaxloss
from jaxloss.claims.vision.lovasz import jaccard_of_mistakes
from jaxloss.losses.vision import lovasz
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
FLOAT64 = tolerance(np.float64)
BOTH = pytest.mark.parametrize(
    "loss", [jaxloss.lovasz_hinge, jaxloss.lovasz_softmax], ids=lambda f: f.__name__
)


def drawn(shape=(3, 6, 5), dtype: DTypeLike = np.float64):
    """Predictions that both losses may have, and masks."""
    rng = np.random.default_rng(3)
    p = jnp.asarray(rng.uniform(size=shape), dtype)
    return p, jnp.asarray(rng.integers(0, 2, size=shape))


# --- by hand -----------------------------------------------------------------------


def test_values_by_hand():
    """Two pixels of a mask, each missed one half of it; and the largest error of
    an empty target."""
    z = jnp.array([[0.5, -0.5], [0.5, -0.5]])
    loss = jaxloss.lovasz_hinge(z, jnp.array([[1, 1], [1, 0]]), axis=-1)
    np.testing.assert_array_equal(loss, [(1.5 + 0.5) / 2, 0.5])
    z = jnp.array([0.5, -2.0, -3.0])
    assert jaxloss.lovasz_hinge(z, jnp.zeros(3, int), axis=0) == 1.5
    p = jnp.array([0.25, 0.75, 0.5])
    assert jaxloss.lovasz_softmax(p, jnp.zeros(3, bool), axis=0) == 0.75


def test_of_one_pixel_it_is_the_hinge():
    z, t = 3 * drawn()[0] - 1.5, drawn()[1]
    same = lambda z: jaxloss.lovasz_hinge(z[..., None], t[..., None], axis=-1)
    hinge = lambda z: jaxloss.hinge(z, 2 * t - 1)
    for fn, other in ((same, hinge), (jax.grad(total(same)), jax.grad(total(hinge)))):
        np.testing.assert_array_equal(fn(z), other(z))


def total(fn):
    return lambda *args: jnp.sum(fn(*args))


# --- the Jaccard loss of sets --------------------------------------------------------

CORNERS = np.array([*itertools.product([0, 1], repeat=5)])


def jaccard_of_corners():
    """Of all 2^5 predictions and all 2^5 masks: one minus intersection over union."""
    found = np.zeros((32, 32))
    for i, j in np.ndindex(32, 32):
        one, other = ({*np.flatnonzero(CORNERS[k])} for k in (i, j))
        found[i, j] = 1 - len(one & other) / len(one | other) if one | other else 0
    return found


def test_at_all_corners_it_is_the_jaccard_loss():
    """Probabilities of 0 and 1: the loss of sets.  A hinge of errors 0 and 1 too: of
    scores +1 and 0 in the mask, and -1 and 0 outside."""
    p, t = (jnp.asarray(x) for x in np.broadcast_arrays(CORNERS[:, None], CORNERS))
    wanted = jaccard_of_corners()
    found = jaxloss.lovasz_softmax(p.astype(float), t, axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=FLOAT64)
    z = jnp.where(p == t, 2.0 * t - 1, 0.0)
    found = jaxloss.lovasz_hinge(z, t, axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=FLOAT64)
    np.testing.assert_allclose(
        jaxloss.jaccard(p.astype(float), t, axis=-1), wanted, rtol=0, atol=FLOAT64
    )


@BOTH
def test_ties_may_be_in_any_order(loss):
    """Pixels of equal error change places: neither value moves."""
    rng = np.random.default_rng(0)
    p = rng.integers(0, 3, size=(200, 8)) / 2
    t = rng.integers(0, 2, size=p.shape)
    order = rng.permutation(8)
    args = [(jnp.asarray(p[:, o]), jnp.asarray(t[:, o])) for o in (range(8), order)]
    one, other = (loss(*a, axis=-1) for a in args)
    np.testing.assert_allclose(one, other, rtol=FLOAT64)


def test_it_is_the_average_of_the_jaccard_losses_of_all_thresholds():
    """The extension of a function of sets: an integral over the sets of errors above
    a threshold, without an order and without weights."""
    p, t = (np.asarray(x).reshape(3, -1) for x in drawn())
    for row, mask, found in zip(
        p, t, jaxloss.lovasz_softmax(p, t, axis=-1), strict=True
    ):
        errors, mask = abs(mask - row), {*np.flatnonzero(mask)}
        steps = np.sort([0, *errors])
        above = [{*np.flatnonzero(errors > step)} for step in steps[:-1]]
        parts = [float(jaccard_of_mistakes(wrong, mask)) for wrong in above]
        np.testing.assert_allclose(found, np.diff(steps) @ parts, rtol=FLOAT64)


# --- many pixels --------------------------------------------------------------------

HUGE = 2**24 + 1  # is no float32


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("every", [HUGE, 2 * HUGE + 1, 3])
def test_counts_above_2_to_the_24(positive, every):
    """Each weight is off by rounding alone, even where a difference of counts is 1."""
    for so_far in (every, every - 1, every - 2, 1):
        for wrong in (1, 3, HUGE, 3 * HUGE):
            place = so_far + wrong - 1
            hit, *counts = map(jnp.asarray, (positive, place, so_far, every))
            found = lovasz._weight(hit, counts[0], counts[1], counts[2], jnp.float32)
            union = mp.mpf(every + wrong)
            negative = mp.mpf(every - so_far) / (union - 1) / union
            wanted = 1 / union if positive else negative
            np.testing.assert_allclose(found, float(wanted), rtol=4 * 2.0**-24)


def test_weights_of_many_pixels_sum_to_the_loss_of_all():
    """Of an image with all pixels wrong the loss is 1, and the gradient sums to it."""
    t = jnp.asarray(np.random.default_rng(0).integers(0, 2, size=(256, 256)))
    z = jnp.zeros(t.shape, jnp.float32)
    loss = lambda z: jaxloss.lovasz_hinge(z, t, axis=(0, 1))
    value, slopes = jax.value_and_grad(loss)(z)
    np.testing.assert_allclose(value, 1, rtol=4 * FLOAT32)
    size = jnp.sum(jnp.abs(slopes), dtype=jnp.float64)
    np.testing.assert_allclose(size, 1, rtol=4 * FLOAT32)
    assert np.all(slopes * (1 - 2 * t) >= 0)


# --- edges -------------------------------------------------------------------------


@BOTH
def test_of_an_empty_target_the_largest_error_counts(loss):
    p = jnp.array([0.25, 0.75, 0.5])
    fn = lambda p: loss(p, jnp.zeros(3, int), axis=-1)
    np.testing.assert_array_equal(jax.grad(fn)(p), [0, 1, 0])


@BOTH
def test_no_pixel_has_no_loss(loss):
    """All masked, or none there."""
    p, t = drawn()
    fn = lambda p: loss(p, t, axis=(1, 2), where=jnp.zeros(p.shape, bool))
    np.testing.assert_array_equal(fn(p), 0)
    np.testing.assert_array_equal(jax.grad(total(fn))(p), 0)
    np.testing.assert_array_equal(loss(p[:, :0], t[:, :0], axis=(1, 2)), np.zeros(3))


@BOTH
def test_masked_pixels_do_not_exist(loss):
    """Whatever is in them: NaN, a target of 255, and with what target."""
    p, t = drawn((2, 12))
    where = jnp.arange(12) % 3 != 0
    x = jnp.where(where, p, jnp.nan)
    y = jnp.where(where, t, 255)
    fn = lambda x: loss(x, y, axis=-1, where=jnp.broadcast_to(where, x.shape))
    kept = lambda x: loss(x, t[:, where], axis=-1)
    np.testing.assert_allclose(fn(x), kept(p[:, where]), rtol=FLOAT64)
    slopes = jax.grad(total(fn))(x)
    np.testing.assert_array_equal(slopes[:, ~where], 0)
    np.testing.assert_array_equal(slopes[:, where], jax.grad(total(kept))(p[:, where]))


@BOTH
def test_a_target_between_0_and_1_is_refused_by_nan(loss):
    """Of its image alone: an order of soft targets has no sets."""
    p, t = drawn((3, 4))
    soft = t.astype(p.dtype).at[1, 2].set(0.5)
    found = loss(p, soft, axis=-1)
    np.testing.assert_array_equal(jnp.isnan(found), [False, True, False])
    np.testing.assert_array_equal(found[::2], loss(p, t, axis=-1)[::2])


@BOTH
def test_targets_have_any_type_and_no_gradient(loss):
    p, t = drawn((3, 4), np.float32)
    wanted = loss(p, t, axis=-1)
    for dtype in (bool, np.uint8, np.float32, jnp.bfloat16):
        np.testing.assert_array_equal(loss(p, t.astype(dtype), axis=-1), wanted)
    fn = lambda t: jnp.sum(loss(p, t, axis=-1))
    np.testing.assert_array_equal(jax.grad(fn)(t.astype(np.float32)), 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_nan_of_either_sign_is_seen(sign):
    """A sort puts one of them first and the other last."""
    z = jnp.array([0.5, np.copysign(np.nan, sign), -0.5, 3.0], jnp.float32)
    for t in ([1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]):
        assert jnp.isnan(jaxloss.lovasz_hinge(z, jnp.array(t), axis=-1))
        assert jnp.isnan(jaxloss.lovasz_softmax(z, jnp.array(t), axis=-1))


def test_infinite_logits():
    """Right ones have no error; of two wrong ones the loss is infinite, though the
    second adds nothing to the Jaccard loss."""
    z = jnp.array([[jnp.inf, -jnp.inf], [jnp.inf, jnp.inf]])
    t = jnp.array([[1, 0], [0, 0]])
    np.testing.assert_array_equal(jaxloss.lovasz_hinge(z, t, axis=-1), [0, jnp.inf])


def test_at_the_kink_the_gradient_is_0():
    """A margin of exactly 1, and a probability that is the target."""
    z, t = jnp.array([1.0, -1.0, 2.0]), jnp.array([1, 0, 1])
    hinge = lambda z: jaxloss.lovasz_hinge(z, t, axis=-1)
    np.testing.assert_array_equal(jax.grad(hinge)(z), 0)
    softmax = lambda p: jaxloss.lovasz_softmax(p, t, axis=-1)
    np.testing.assert_array_equal(jax.grad(softmax)(t.astype(float)), 0)


# --- axes --------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("axis", [0, -1, (1, 2), (2, 1), (0, 2), (0, 1, 2)])
def test_axes_are_what_one_loss_is_of(loss, axis):
    """Their order, and where they stand, change nothing."""
    p, t = drawn()
    axes = np.atleast_1d(axis) % 3
    kept = [i for i in range(3) if i not in axes]
    shape = tuple(p.shape[i] for i in kept)
    flat = [jnp.transpose(x, (*kept, *axes)).reshape(*shape, -1) for x in (p, t)]
    found = loss(p, t, axis=axis)
    assert found.shape == shape
    np.testing.assert_allclose(found, loss(*flat, axis=-1), rtol=FLOAT64)


def test_present_classes_only():
    """The published mean over classes: a mask of the mean of ours."""
    ids = jnp.array([[0, 0, 2], [1, 1, 1]])
    p = jax.nn.softmax(drawn((2, 3, 4))[0], axis=-1)
    t = jax.nn.one_hot(ids, 4)
    losses = jaxloss.lovasz_softmax(p, t, axis=1)
    found = jaxloss.mean(losses, where=t.any(axis=1))
    wanted = (losses[0, 0] + losses[0, 2] + losses[1, 1]) / 3
    np.testing.assert_allclose(found, wanted, rtol=FLOAT64)


# --- errors ------------------------------------------------------------------------


def test_refused():
    """The argument is named as it is called."""
    p, t = drawn((2, 3))
    refuse = pytest.raises
    with refuse(
        ValueError, match=r"^lovasz_hinge: `targets` has shape \(3,\) but `log"
    ):
        jaxloss.lovasz_hinge(p, t[0], axis=-1)
    with refuse(TypeError, match=r"^lovasz_softmax: `probabilities` has dtype int"):
        jaxloss.lovasz_softmax(t, t, axis=-1)
    with refuse(
        ValueError, match=r"^lovasz_hinge: `axis` is 2; expected an axis of `l"
    ):
        jaxloss.lovasz_hinge(p, t, axis=(0, 2))
    with refuse(
        ValueError, match=r"^lovasz_softmax: `axis` has an axis twice in \(1, -"
    ):
        jaxloss.lovasz_softmax(p, t, axis=(1, -1))
    with refuse(TypeError, match=r"^lovasz_hinge: `where` has dtype int"):
        jaxloss.lovasz_hinge(p, t, axis=-1, where=t)
