"""Lists of items: their scores, their relevance, and which of them exist."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _risk_sets


class Items(NamedTuple):
    """Checked lists, with the items last."""

    scores: jax.Array
    """0 of a masked item; NaN where the relevance is."""
    relevance: jax.Array
    """In the dtype that it has, a constant; 0 of a masked item."""
    valid: jax.Array
    """Which items are not masked."""

    @property
    def pairs(self) -> jax.Array:
        """Which pairs of items exist."""
        return rows(self.valid) & columns(self.valid)


def checked(
    loss: str,
    scores: ArrayLike,
    relevance: ArrayLike,
    axis: int,
    where: ArrayLike | None,
) -> Items:
    """Checks and converts the arguments of a loss of lists."""
    (s,) = _checks.floating(loss, scores=scores)
    _checks.at_least_1d(loss, scores=s)
    axis = _checks.row_axis(loss, axis, "item", scores=s)
    y = _risk_sets.keys(loss, relevance=relevance)
    _checks.same_shape(loss, scores=s, relevance=y)
    valid = jnp.ones(s.shape, bool)
    if where is not None:
        (valid,) = _checks.boolean(loss, where=where)
        _checks.same_shape(loss, scores=s, where=valid)
        s, y = (jnp.where(valid, x, jnp.zeros_like(x)) for x in (s, y))
    s = _risk_sets.nan_where_nan(s, y)
    return Items(*(jnp.moveaxis(x, axis, -1) for x in (s, y, valid)))


def rows(x: jax.Array) -> jax.Array:
    """What the first item of each pair `(..., n, n)` has."""
    n = x.shape[-1]
    return jnp.broadcast_to(x[..., :, None], (*x.shape, n))


def columns(x: jax.Array) -> jax.Array:
    """What the second item of each pair has."""
    n = x.shape[-1]
    return jnp.broadcast_to(x[..., None, :], (*x.shape, n))


def precedes(valid: jax.Array, *keys: jax.Array) -> jax.Array:
    """Whether the second item of each pair stands before the first, `(..., n, n)`.

    The larger of the first keys that differ is before; without any, the first given.
    """
    shape = (*valid.shape, valid.shape[-1])
    of = lambda axis: lax.broadcasted_iota(jnp.int32, shape, len(shape) - axis)
    before = of(1) < of(2)
    for key in reversed(keys):
        first, second = rows(key), columns(key)
        before = jnp.where(first == second, before, second > first)
    return before & rows(valid) & columns(valid)
