"""The ranked probability score of ensembles, from the ranks of their members.

The textbook has all pairs of members, `sum |x_i - x_j|`, which is `2 sum x_i (b_i -
a_i)` with b_i members below and a_i above x_i.  So the score is linear in the distances
from the target, with weights that are whole numbers over M^2; none of the terms is
below 0, where the textbook subtracts two means.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_COMPARED = 256
"""The most members that are compared with each other; more are sorted."""
_SUMMED = 32


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def score(x: jax.Array, y: jax.Array, valid: jax.Array, fair: bool) -> jax.Array:
    """Of the valid members of each row; 0 of none."""
    weights, _ = _weights(x, y, valid, fair)
    return _sum(weights, x, y, valid)


@score.defjvp
def _(fair, primals, tangents):
    (x, y, valid), (dx, dy, _) = primals, tangents
    # Ranks change only where two members meet, and so do the weights.
    weights, of_target = _weights(x, y, valid, fair)
    moved = jnp.sum(weights * dx, axis=-1) - of_target * dy
    return _sum(weights, x, y, valid), moved


def _sum(weights: jax.Array, x: jax.Array, y: jax.Array, valid: jax.Array) -> jax.Array:
    # A weight of 0 is that of no distance, though that be infinite.
    counts = valid & (weights != 0)
    return jnp.sum(jnp.where(counts, weights * (x - y[..., None]), 0), axis=-1)


def _weights(
    x: jax.Array, y: jax.Array, valid: jax.Array, fair: bool
) -> tuple[jax.Array, jax.Array]:
    """That of each member, and their sum: of it, the ranks cancel."""
    x, y = lax.stop_gradient((x, y))
    count = jnp.sum(valid, axis=-1, dtype=x.dtype)
    signs = jnp.where(valid, jnp.sign(x - y[..., None]), 0)
    pairs = count - 1 if fair else count
    parts = signs * pairs[..., None] - _balance(x, valid)
    whole = jnp.maximum(count * pairs, 1)[..., None]
    weights = jnp.where(valid, parts / whole, 0)
    return weights, jnp.sum(signs, axis=-1) / jnp.maximum(count, 1)


def _balance(x: jax.Array, valid: jax.Array) -> jax.Array:
    """How many more valid members of the row are below each than are above it."""
    # NaN, whose place in a sort depends on its sign, counts as infinity.
    key = jnp.where(valid & ~jnp.isnan(x), x, jnp.inf)
    compared = x.shape[-1] <= _COMPARED
    found = _by_comparison(key, valid) if compared else _by_sorting(key, valid)
    return found.astype(x.dtype)


def _by_comparison(key: jax.Array, valid: jax.Array) -> jax.Array:
    # XLA adds up the pairs as it compares them: no array in memory.  Of a longer
    # sum XLA:CPU makes a tree, whose leaves it writes out.
    found = jnp.zeros(key.shape, jnp.int32)
    own = key[..., :, None]
    for start in range(0, key.shape[-1], _SUMMED):
        part = slice(start, start + _SUMMED)
        other, counts = key[..., None, part], valid[..., None, part]
        below, above = (counts & c for c in (other < own, other > own))
        steps = below.astype(jnp.int32) - above.astype(jnp.int32)
        found = found + jnp.sum(steps, axis=-1, dtype=jnp.int32)
    return found


def _by_sorting(key: jax.Array, valid: jax.Array) -> jax.Array:
    axis = key.ndim - 1
    places = lax.broadcasted_iota(jnp.int32, key.shape, axis)
    last = key.shape[-1] - 1
    ordered, order = lax.sort((key, places), dimension=axis, num_keys=1)
    ends = (places == last) | (ordered != jnp.roll(ordered, -1, axis))
    starts = jnp.roll(ends, 1, axis)  # the last member always ends its ties
    first = lax.cummax(jnp.where(starts, places, 0), axis)
    final = lax.cummin(jnp.where(ends, places, last), axis, reverse=True)
    # The masked ones are behind all others, or tied with infinite ones.
    count = jnp.sum(valid, axis=-1, keepdims=True, dtype=jnp.int32)
    balance = first - jnp.maximum(count - 1 - final, 0)
    return lax.sort((order, balance), dimension=axis, num_keys=1)[1]
