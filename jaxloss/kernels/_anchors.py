"""Some anchors at a time: the loops of the contrastive kernels, and their masks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def one_by_one(fn: Callable, *arrays: jax.Array) -> jax.Array:
    """A function of a batch, of one batch after the other along the leading axes."""
    leading = arrays[-1].shape[:-1]
    if arrays[-1].size == 0:
        return jnp.zeros(arrays[-1].shape, arrays[0].dtype)
    if not leading:
        return fn(*arrays)
    flat = [x.reshape(-1, *x.shape[len(leading) :]) for x in arrays]
    return lax.map(lambda batch: fn(*batch), flat).reshape(arrays[-1].shape)


def by_block(rows: int, fn: Callable, *anchors: jax.Array) -> Any:
    """A function of anchors, of some of them at a time."""
    if rows == len(anchors[0]):
        return fn(*anchors)
    blocks = [in_blocks(rows, x) for x in anchors]
    found = lax.map(lambda block: jax.checkpoint(fn)(*block), blocks)
    return jax.tree.map(lambda x: x.reshape(-1)[: len(anchors[0])], found)


def in_blocks(rows: int, x: jax.Array) -> jax.Array:
    """Rows of an array, some at a time; the last block is padded with its last row,
    which every mask excludes."""
    count = -(-len(x) // rows)
    padding = [(0, count * rows - len(x))] + [(0, 0)] * (x.ndim - 1)
    padded = jnp.pad(x, padding, mode="constant" if x.dtype == bool else "edge")
    return padded.reshape(count, rows, *x.shape[1:])


def alike(
    at: jax.Array,
    own_ids: jax.Array,
    present: jax.Array,
    ids: jax.Array,
    valid: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Which candidates of a block of anchors are positives, and which negatives."""
    both, same = present[:, None] & valid[None], own_ids[:, None] == ids[None]
    others = at[:, None] != jnp.arange(len(ids))[None]
    return both & same & others, both & ~same


def coupled(
    at: jax.Array, present: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The same of pairs: the other one of the pair, and all others."""
    both = present[:, None] & valid[None]
    itself = at[:, None] == jnp.arange(len(valid))[None]
    return both & itself, both & ~itself
