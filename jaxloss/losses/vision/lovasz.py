"""Lovász losses of segmentation masks: the Jaccard index of sets, made convex.

The Jaccard loss of a set of wrong pixels is a number per set.  Its Lovász extension is
one per vector of errors: the pixels are taken in the order of decreasing error, and
each error weighs what its pixel adds to the Jaccard loss of those before it.

With G positive pixels in the target, and n negative ones among those taken so far, the
intersection is out of a union of G + n.  A positive pixel adds 1 / (G + n), and a
negative one (G - c) / ((G + n - 1) (G + n)), where c positive pixels are before it.
These are no differences, so no digit is lost however many pixels there are.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxloss import _checks, _classes, _jit
from jaxloss.losses import _risk_sets
from jaxloss.losses.vision import _masks


@_jit.kernel("axis")
def lovasz_hinge(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int | tuple[int, ...],
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Lovász hinge: the convex surrogate of the Jaccard loss, for logits.

    Also called: Lovász loss, lovasz_hinge_loss, LovaszLoss, binary Lovász loss.

    .. math::
       \ell = \sum_i w_i \max(0, e_{\pi_i}), \qquad
       e_i = 1 - s_i z_i, \qquad
       w_i = \Delta(\pi_1, …, \pi_i) - \Delta(\pi_1, …, \pi_{i-1})

    where s is +1 in the mask and -1 outside, the order π has decreasing errors e, and
    Δ(M) is the Jaccard loss `1 - intersection / union` if exactly the pixels M are
    wrong.  Ties may be in any order.  Of one pixel it is `hinge`.

    Args:
      logits: Floating array of scores z; the decision is their sign.
      targets: Same shape; 0 or 1, boolean, integer or floating.
      axis: What one loss is of: the pixels, for one per image; or the batch too.
      where: Boolean mask of the same shape: the pixels that count.

    Returns:
      Losses >= 0 of the shape of `logits` without `axis`, in the units of the logits: 0
      if no pixel counts.  If the target is empty, it is the largest error.  NaN where a
      target is neither 0 nor 1.

    Raises:
      TypeError: If an array has the wrong kind of dtype, or `axis` is not an integer.
      ValueError: If the shapes differ, or `axis` is not one of theirs or named twice.

    Gradient:
      `-s w` with respect to a logit whose error is > 0, else 0; the order is constant.
      The weights are at most 1, and at most 1 in sum.  0 with respect to the targets.
      Convex, linear in pieces: the second derivative is 0.

    Use:
      task: segmentation
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Intersection over union of the mask is what is reported, at a threshold.
      not when: Probabilities are needed: use `sigmoid_cross_entropy`, or the sum of
        both.

    Reference:
      Yu and Blaschko, "Learning Submodular Losses with the Lovász Hinge", ICML 2015;
      Berman, Rannen Triki and Blaschko, "The Lovász-Softmax Loss", CVPR 2018.

    Example:
      >>> z = jnp.array([[0.5, -0.5], [0.5, -0.5]])
      >>> jaxloss.lovasz_hinge(z, jnp.array([[1, 1], [1, 0]]), axis=-1)
      Array([1. , 0.5], dtype=float32)
    """
    z, t, counts, known = _pixels("lovasz_hinge", axis, targets, where, logits=logits)
    return _classes.nan_unless(known, _of_errors(jnp.where(t, 1 - z, 1 + z), t, counts))


@_jit.kernel("axis")
def lovasz_softmax(
    probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int | tuple[int, ...],
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Lovász softmax: the Jaccard loss of probabilities, convex in each class.

    Also called: Lovász-Softmax loss, lovasz_softmax_loss, Lovász Jaccard loss.

    .. math::
       \ell = \sum_i w_i e_{\pi_i}, \qquad
       e_i = |t_i - p_i|, \qquad
       w_i = \Delta(\pi_1, …, \pi_i) - \Delta(\pi_1, …, \pi_{i-1})

    where the order π has decreasing errors e, and Δ(M) is the Jaccard loss
    `1 - intersection / union` if exactly the pixels M are wrong.  Ties may be in any
    order.  At probabilities of 0 and 1 it is `jaccard`; between them it is linear in
    pieces, and `jaccard` is a ratio.

    Args:
      probabilities: Floating array of probabilities p in [0, 1], not logits; along a
        class axis, if any, their softmax.
      targets: Same shape; 0 or 1, boolean, integer or floating.  One-hot along any
        class axis.
      axis: What one loss is of: the pixels, for one per image and class; or the batch
        too.  The published loss is its mean over the classes that are in the target,
        `jaxloss.mean(losses, where=targets.any(axis))`.
      where: Boolean mask of the same shape: the entries that count.  Broadcast a mask
        of pixels over the classes with `jnp.broadcast_to`.

    Returns:
      Losses in [0, 1] of the shape of `probabilities` without `axis`, without unit: 0
      if no pixel counts.  If the target is empty, it is the largest probability.  NaN
      where a target is neither 0 nor 1.

    Raises:
      TypeError: If an array has the wrong kind of dtype, or `axis` is not an integer.
      ValueError: If the shapes differ, or `axis` is not one of theirs or named twice.

    Gradient:
      `w sign(p - t)` with respect to a probability, 0 where it is the target; the order
      is constant.  The weights are at most 1, and at most 1 in sum.  0 with respect to
      the targets.  Convex, linear in pieces: the second derivative is 0.

    Use:
      task: segmentation
      activation: sigmoid or softmax
      range: [0, 1]
      robust: yes
      convex: yes
      when: Intersection over union of several classes is what is reported.
      not when: There is one logit for each pixel: use `lovasz_hinge`.

    Reference:
      Berman, Rannen Triki and Blaschko, "The Lovász-Softmax Loss: A Tractable Surrogate
      for the Optimization of the Intersection-over-Union Measure in Neural Networks",
      CVPR 2018.

    Example:
      >>> p = jnp.array([[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])
      >>> t = jnp.array([[1, 0], [1, 0], [0, 1]])
      >>> jaxloss.lovasz_softmax(p, t, axis=0)
      Array([0.375     , 0.29166666], dtype=float32)
    """
    name = "lovasz_softmax"
    p, t, counts, known = _pixels(
        name, axis, targets, where, probabilities=probabilities
    )
    errors = jnp.where(t, 1 - p, p)
    return _classes.nan_unless(known, _of_errors(jnp.abs(errors), t, counts))


# --- arguments -------------------------------------------------------------------


def _pixels(
    loss: str,
    axis: int | tuple[int, ...],
    targets: ArrayLike,
    where: ArrayLike | None,
    **predictions: ArrayLike,
) -> tuple[jax.Array, ...]:
    """(predictions, positive, counts, known) with all that is of one loss last.

    The predictions are 0 where they do not count; known is which losses are numbers.
    """
    ((name, _),) = predictions.items()
    (x,) = _checks.floating(loss, **predictions)
    (t,) = _checks.real(loss, x, targets=targets)
    _checks.same_shape(loss, **{name: x}, targets=t)
    counts = jnp.ones(x.shape, bool)
    if where is not None:
        (counts,) = _checks.boolean(loss, where=where)
        _checks.same_shape(loss, **{name: x}, where=counts)
        x = jnp.where(counts, x, 0)
    axes = _masks.axes(loss, axis, **{name: x})
    x, t, counts = (_flat(a, axes) for a in (x, t, counts))
    positive = counts & (t == 1)
    return x, positive, counts, jnp.all(~counts | (t == 0) | (t == 1), axis=-1)


def _flat(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The axes as one, which is the last."""
    kept = [i for i in range(x.ndim) if i not in axes]
    shape = tuple(x.shape[i] for i in kept)
    size = math.prod(x.shape[i] for i in axes)
    return jnp.transpose(x, (*kept, *axes)).reshape(*shape, size)


# --- the extension ---------------------------------------------------------------


def _of_errors(errors: jax.Array, positive: jax.Array, counts: jax.Array) -> jax.Array:
    """The Lovász extension of the Jaccard loss at the errors that are > 0."""
    return _extension(jnp.where(counts, errors, -jnp.inf), positive)[0]


@jax.custom_jvp
def _extension(errors: jax.Array, positive: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The value, and its slope in each error, which is constant between two ties."""
    place = lax.broadcasted_iota(jnp.int32, errors.shape, errors.ndim - 1)
    falling, hits, place = lax.sort((-errors, positive, place), num_keys=1)
    weights, sizes = _weights_in_order(hits, errors.dtype), jnp.maximum(-falling, 0)
    # A pixel that adds nothing to infinity: 0, and not 0 times infinity.
    sizes = jnp.where((weights == 0) & (sizes == jnp.inf), 0, sizes)
    slopes = jnp.where(falling < 0, weights, 0)
    return jnp.sum(weights * sizes, axis=-1), _as_given(slopes, place)


@_extension.defjvp
def _(primals, tangents):
    value, slopes = _extension(*primals)
    along = jnp.sum(slopes * tangents[0], axis=-1)
    return (value, slopes), (along, jnp.zeros_like(slopes))


def _weights_in_order(hits: jax.Array, dtype: DTypeLike) -> jax.Array:
    """What each pixel adds to the Jaccard loss, those of the largest errors first.

    Counts are integers until they are divided: a float32 has none from 2^24 on.
    """
    place = lax.broadcasted_iota(jnp.int32, hits.shape, hits.ndim - 1)
    so_far = jnp.cumsum(hits, axis=-1, dtype=jnp.int32)
    every = so_far[..., -1:]
    return _weight(hits, place, so_far, every, dtype)


def _weight(
    hits: jax.Array,
    place: jax.Array,
    so_far: jax.Array,
    every: jax.Array,
    dtype: DTypeLike,
) -> jax.Array:
    """The weight of the pixel at a place, 0 of the first, if so many positive pixels
    are among those up to it; every one of them is positive in the target."""
    union = every + (place + 1 - so_far)
    # Of an empty target, the first pixel is all that can be wrong.
    first = (place == 0).astype(jnp.int32)
    left = jnp.where(every == 0, first, every - so_far)
    before = jnp.maximum(union - 1, 1)
    left, before, union = (x.astype(dtype) for x in (left, before, union))
    return jnp.where(hits, 1, left / before) / union


def _as_given(x: jax.Array, place: jax.Array) -> jax.Array:
    """Numbers in the order that the pixels had before they were sorted."""

    def by_sort(x: jax.Array, place: jax.Array) -> jax.Array:
        return lax.sort((place, x), num_keys=1)[1]

    # A TPU writes to random places one number after the other.
    return lax.platform_dependent(x, place, tpu=by_sort, default=_risk_sets.as_given)
