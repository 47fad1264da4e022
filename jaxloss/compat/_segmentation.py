"""The segmentation losses of `jaxloss.compat.optax`."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, reduce, stable
from jaxloss.compat import _arrays
from jaxloss.losses.vision import segmentation

Reduction = Literal["mean", "sum", "none"]


def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    apply_softmax: bool = True,
    reduction: Reduction = "mean",
    ignore_background: bool = False,
    axis: _checks.Axis = None,
):
    """`jaxloss.tversky` per image and class, reduced over the classes.

    With `apply_softmax=False` the predictions are probabilities, under `jit` and `vmap`
    too; outside them, their values are checked.
    """
    if not apply_softmax:
        _check("dice_loss", predictions, targets)
    return _dice_loss(
        predictions,
        targets,
        class_weights=class_weights,
        smooth=smooth,
        alpha=alpha,
        beta=beta,
        apply_softmax=apply_softmax,
        reduction=reduction,
        ignore_background=ignore_background,
        axis=axis,
    )


@_jit.kernel(
    *("apply_softmax", "reduction", "ignore_background", "axis"),
    class_weights="[0, inf)",
)
def _dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None,
    smooth: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    apply_softmax: bool,
    reduction: Reduction,
    ignore_background: bool,
    axis: _checks.Axis,
) -> jax.Array:
    name = "dice_loss"
    _checks.one_of(name, get_args(Reduction), reduction=reduction)
    predictions, targets = _with_channel(jnp.asarray(predictions), jnp.asarray(targets))
    predictions, targets = _arrays.alike(name, predictions=predictions, targets=targets)
    p, q = _class_probabilities(name, predictions, apply_softmax)
    losses = segmentation.tversky(
        p,
        targets,
        axis=tuple(range(1, p.ndim - 1)) if axis is None else axis,
        complements=q,
        alpha=jnp.asarray(alpha),
        beta=jnp.asarray(beta),
        smooth=jnp.asarray(smooth),
    )
    if class_weights is not None:
        losses *= _checks.parameter(name, losses, class_weights=class_weights)
    if ignore_background and losses.shape[-1] > 1:
        losses = losses[..., 1:]
    if reduction == "none":
        return losses
    return jnp.sum(losses, -1) if reduction == "sum" else jnp.mean(losses, -1)


def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
):
    """The mean over the images of `jaxloss.generalized_dice`.

    It is the ratio of weighted sums of Sudre et al., with the weights of each image;
    optax averages weighted ratios.
    """
    name = "multiclass_generalized_dice_loss"
    if not apply_softmax:
        _check(name, predictions, targets)
    return _generalized_dice_loss(
        predictions,
        targets,
        smooth=smooth,
        apply_softmax=apply_softmax,
        ignore_background=ignore_background,
    )


@_jit.kernel("apply_softmax", "ignore_background")
def _generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike,
    apply_softmax: bool,
    ignore_background: bool,
) -> jax.Array:
    name = "multiclass_generalized_dice_loss"
    predictions, targets = _arrays.alike(name, predictions=predictions, targets=targets)
    p, q = _class_probabilities(name, predictions, apply_softmax)
    if ignore_background and p.shape[-1] > 1:
        p, q, targets = p[..., 1:], q[..., 1:], targets[..., 1:]
    losses = segmentation.generalized_dice(
        p,
        targets,
        axis=tuple(range(1, p.ndim - 1)),
        complements=q,
        # Dice's own smoothing counts twice: 2 TP + s, where `dice_loss` has TP + s.
        smooth=2 * jnp.asarray(smooth),
    )
    return reduce.mean(losses)


def binary_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
):
    """`dice_loss` of one class, with or without an axis of one channel."""
    predictions, targets = _one_channel(predictions, targets)
    return dice_loss(predictions, targets, smooth=smooth, apply_softmax=apply_sigmoid)


@_jit.kernel()
def _one_channel(p: ArrayLike, t: ArrayLike) -> tuple[jax.Array, jax.Array]:
    p, t = jnp.asarray(p), jnp.asarray(t)
    if p.ndim == t.ndim and p.shape[-1:] != (1,):
        return p[..., None], t[..., None]
    return p, t


def _with_channel(p: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both with the axis of the one channel that either of them has."""
    p = p[..., None] if p.ndim == t.ndim - 1 else p
    return p, t[..., None] if t.ndim == p.ndim - 1 else t


def _class_probabilities(
    name: str, predictions: jax.Array, from_logits: bool
) -> tuple[jax.Array, jax.Array]:
    """Probabilities of the last axis and their complements; one class is a sigmoid."""
    single = predictions.shape[-1] == 1
    if from_logits and single:
        return stable.sigmoid(predictions), stable.sigmoid(-predictions)
    if from_logits:
        return stable.softmax(predictions), stable.softmax_complement(predictions)
    return predictions, 1 - predictions


def _check(name: str, predictions: ArrayLike, targets: ArrayLike) -> None:
    """Catches logits that were passed as probabilities, where values are known."""
    if isinstance(predictions, Tracer):
        return
    p = jnp.asarray(predictions)
    single = p.ndim < jnp.ndim(targets) or p.shape[-1] == 1
    # bfloat16 probabilities add up to 1 only within 2^-8.
    off = p - jnp.clip(p, 0, 1) if single else jnp.sum(p, axis=-1) - 1
    if jnp.any(jnp.abs(off) > 0.01):
        _checks.fail(
            name,
            "predictions",
            f"values from {jnp.min(p)} to {jnp.max(p)}",
            "valid probability distributions that sum to 1 over the last axis",
        )
