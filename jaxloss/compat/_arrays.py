"""Array arguments as other libraries take them: several axes, masks of two shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss import _checks


def alike(name: str, **arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """One floating array and others, cast to its dtype, of its shape."""
    first, *rest = arrays
    (x,) = _checks.floating(name, **{first: arrays[first]})
    others = _checks.real(name, x, **{key: arrays[key] for key in rest})
    converted = (x, *others)
    _checks.same_shape(name, **dict(zip(arrays, converted, strict=True)))
    return converted


def residual(
    name: str, predictions: ArrayLike, targets: ArrayLike | None
) -> tuple[jax.Array, ...]:
    """Predictions and targets; without targets, the predictions are a residual."""
    if targets is None:
        (predictions,) = _checks.floating(name, predictions=predictions)
        return predictions, jnp.zeros_like(predictions)
    return alike(name, predictions=predictions, targets=targets)


def vectors(
    name: str,
    axis: _checks.Axis,
    where: ArrayLike | None,
    predictions: ArrayLike,
    targets: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """Both with their components last, 0 where they are masked."""
    given = {"predictions": predictions, "targets": targets}
    a, b, _ = rows(name, axis, where, fills=(0.0, 0.0), **given)
    return a, b


def rows(
    name: str,
    axis: _checks.Axis,
    where: ArrayLike | None,
    fills: tuple[float, ...] = (-jnp.inf, 0.0),
    **arrays: ArrayLike,
) -> tuple[Any, ...]:
    """The arrays with the axes `axis` as their one last axis, and the mask likewise.

    Masked entries are replaced by the fill of each array: no probability, no label.
    """
    ((first, x), *_) = named = list(zip(arrays, alike(name, **arrays), strict=True))
    consumed = axes(name, axis, **{first: x})
    count = len(consumed)
    last = lambda x: _flat(jnp.moveaxis(x, consumed, range(-count, 0)), count)
    if where is None:
        return *(last(x) for _, x in named), None
    (where,) = _checks.boolean(name, where=where)
    examples = tuple(n for i, n in enumerate(x.shape) if i not in consumed)
    if where.shape == examples:
        where = jnp.broadcast_to(jnp.expand_dims(where, consumed), x.shape)
    if where.shape != x.shape:
        whole = f"{x.shape}, or {examples} to mask whole examples"
        _checks.fail(name, "where", f"shape {where.shape}", whole)
    pairs = zip(named, fills, strict=False)
    return *(last(jnp.where(where, x, fill)) for (_, x), fill in pairs), last(where)


def axes(name: str, axis: _checks.Axis, **array: jax.Array) -> tuple[int, ...]:
    """`axis` as distinct axes of the array, counted from the first."""
    ((_, x),) = array.items()
    given = range(x.ndim) if axis is None else axis
    given = tuple(given) if isinstance(given, tuple | list | range) else (given,)
    found = tuple(_checks.one_axis(name, i, **array) for i in given)
    if len(set(found)) != len(found):
        _checks.fail(name, "axis", f"{axis}", "distinct axes")
    return found


def _flat(x: jax.Array, count: int) -> jax.Array:
    """`x` with its last `count` axes as one."""
    kept = x.ndim - count
    return x.reshape(*x.shape[:kept], int(np.prod(x.shape[kept:])))
