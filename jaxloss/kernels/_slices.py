"""Consecutive entries of an array along an axis: read, written, added to.

All entries, where there are no more: XLA does not see that such a slice is the array.
"""

import jax
from jax import lax

from jaxloss.stable import xla


def read(x: jax.Array, start: jax.Array, width: int, axis: int) -> jax.Array:
    """`width` entries from `start` on."""
    if x.shape[axis] == width:
        return x
    if x.dtype.itemsize < 4:
        # A CPU widens bfloat16 before it takes a slice, and the whole array of it,
        # once, before a loop, unless the array seems to be another one in each step.
        x, start = xla.barrier((x, start))
    return lax.dynamic_slice_in_dim(x, start, width, axis)


def write(x: jax.Array, piece: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """`x` with a piece, cast to its dtype, in the place of what was there."""
    if x.shape == piece.shape:
        return piece.astype(x.dtype)
    return lax.dynamic_update_slice_in_dim(x, piece.astype(x.dtype), start, axis)


def add(x: jax.Array, piece: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """`x` with a piece added to what was there."""
    before = lax.dynamic_slice_in_dim(x, start, piece.shape[axis], axis)
    return write(x, before + piece.astype(x.dtype), start, axis)
