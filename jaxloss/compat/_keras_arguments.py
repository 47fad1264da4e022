"""Labels and predictions as Keras gives them, for `jaxloss.compat.keras`."""

import sys
import warnings

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, stable, targets as target_transforms

# What Keras calls `epsilon`, which keeps it from a logarithm of 0.
EPSILON = 1e-7


def pair(
    name: str, y_true: ArrayLike, y_pred: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Both, floating and of one shape: `(n,)` is `(n, 1)` where the other one is."""
    (p,) = _checks.widened(name, y_pred=y_pred)
    (t,) = _checks.real(name, p, y_true=y_true)
    _checks.at_least_1d(name, y_true=t, y_pred=p)
    given = t.shape
    if p.ndim == t.ndim + 1:
        p, t = _same_rank(p, t)
    elif t.ndim == p.ndim + 1:
        t, p = _same_rank(t, p)
    if t.shape != p.shape:
        _checks.fail(
            name,
            "y_true",
            f"shape {given}",
            f"that of `y_pred`, {p.shape}: they must have the same shape (nothing is "
            "broadcast)",
        )
    return t, p


def _same_rank(longer: jax.Array, shorter: jax.Array) -> tuple[jax.Array, jax.Array]:
    """With one axis more or less if the last one of the longer is of length 1."""
    if longer.shape[-1] != 1:
        return longer, shorter
    if shorter.ndim == 1:
        return longer, shorter[:, None]
    return longer[..., 0], shorter


def bits(
    name: str, y_true: ArrayLike, y_pred: ArrayLike, smoothing: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Labels of two classes, smoothed, and what is predicted of them."""
    t, p = pair(name, y_true, y_pred)
    smoothing = jnp.asarray(smoothing)
    return target_transforms.smooth_binary_labels(t, smoothing=smoothing), p


def distributions(
    name: str, y_true: ArrayLike, y_pred: ArrayLike, axis: int, smoothing: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Labels, smoothed, and what is predicted of them, with the classes last."""
    t, p = pair(name, y_true, y_pred)
    axis = _checks.one_axis(name, axis, y_pred=p)
    t, p = (jnp.moveaxis(x, axis, -1) for x in (t, p))
    _warn_of_one_class(name, p)
    return target_transforms.smooth_labels(t, smoothing=jnp.asarray(smoothing)), p


def with_ids(
    name: str, y_true: ArrayLike, y_pred: ArrayLike, axis: int
) -> tuple[jax.Array, jax.Array]:
    """What is predicted, with the classes last, and one number per example."""
    (p,) = _checks.widened(name, y_pred=y_pred)
    given = _checks.array(name, "y_true", y_true)
    axis = _checks.one_axis(name, axis, y_pred=p)
    if given.ndim == p.ndim and given.shape[axis] == 1:
        given = jnp.squeeze(given, axis)
    p = jnp.moveaxis(p, axis, -1)
    _checks.has_shape(name, p.shape[:-1], "one class id per example", y_true=given)
    _warn_of_one_class(name, p)
    return p, given


def class_ids(name: str, given: jax.Array, classes: int) -> jax.Array:
    """Numbers as class ids; floating ones that are no class as -1."""
    if not jnp.issubdtype(given.dtype, jnp.floating):
        ids = given.astype(jnp.int32) if given.dtype == bool else given
        return _checks.class_ids(name, y_true=ids)
    if classes > 2 ** (jnp.finfo(given.dtype).nmant + 1) + 1:
        has = f"dtype {given.dtype}, which does not tell {classes} classes apart"
        _checks.wrong_kind(name, "y_true", has, "integers, or float32")
    known = (given == jnp.floor(given)) & (given >= 0) & (given < classes)
    return jnp.where(known, given, -1).astype(jnp.int32)


def shares(p: jax.Array) -> jax.Array:
    """Probabilities, divided by their sum as Keras does, clipped as Keras does."""
    return jnp.clip(p / jnp.sum(p, axis=-1, keepdims=True), EPSILON, 1 - EPSILON)


def of_probability(p: jax.Array, t: jax.Array) -> jax.Array:
    """Cross entropy of a clipped probability, for a label from 0 to 1."""
    p = jnp.clip(p, EPSILON, 1 - EPSILON)
    return -(t * jnp.log(p) + (1 - t) * stable.log1p(-p))


def signs(t: jax.Array) -> jax.Array:
    """0 and 1 as -1 and 1, if there is nothing else."""
    return jnp.where(jnp.all((t == 0) | (t == 1)), 2 * t - 1, t)


def groups(name: str, count: int, **labels: ArrayLike) -> jax.Array:
    """Labels to compare with one another, one per row."""
    ((argument, given),) = labels.items()
    x = _checks.array(name, argument, given)
    x = x[:, 0] if x.shape == (count, 1) else x
    _checks.has_shape(name, (count,), "one label per row", **{argument: x})
    return x


def _warn_of_one_class(name: str, p: jax.Array) -> None:
    """As Keras does: the loss of a softmax over one class is always 0."""
    if p.shape[-1] == 1:
        warnings.warn(
            f"{name}: `y_pred` has one class, whose loss is 0; of two classes there is "
            "binary_crossentropy",
            SyntaxWarning,
            stacklevel=2,
        )


def with_mask(losses: jax.Array, kept: jax.Array) -> jax.Array:
    """The losses, and to Keras, if it is there, which of them its mean counts."""
    if "keras" in sys.modules:
        from keras.src import backend

        backend.set_keras_mask(losses, kept)
    return losses
