"""The arithmetic of `softmax`: a few rows of logits, processed a chunk at a time.

It is for the inside of a kernel, where the rows are on the chip, so that passes over
them cause no memory traffic.  The formulas are those of `stable.labelled`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxloss.stable import labelled, scalars


class Parts(NamedTuple):
    """What is computed: part of the program."""

    gradient: bool
    smooth: bool
    squared: bool
    """Whether there is a z-loss."""


class Numbers(NamedTuple):
    """The inputs of each row, one array of each."""

    ids: jax.Array
    """Class ids in [0, classes), as floating-point numbers."""
    weights: jax.Array
    """What the gradient is multiplied by."""
    label_smoothing: jax.Array
    z_loss: jax.Array


class Sums(NamedTuple):
    """The results of each row, one array of each."""

    largest: jax.Array
    label: jax.Array
    """The logit of the label."""
    others: jax.Array
    """The sum of `exp(logit - shift)` over the classes but the label."""
    below: jax.Array
    """The sum of half of `largest - logit` over the finite logits."""
    count: jax.Array
    """How many of those there are, or 1."""


class Tile(NamedTuple):
    """A few rows on the chip."""

    read: Callable[[Any], tuple[jax.Array, jax.Array]]
    """The logits of a chunk of the classes, -inf for a class that does not exist; and
    their class ids."""
    write: Callable[[Any, jax.Array], None]
    """Where the gradient of a chunk goes: 0 for a class that does not exist."""
    chunks: int

    def fold(self, step: Callable[[Any, Any], Any], start: Any) -> Any:
        if self.chunks == 1:
            return step(0, start)
        return lax.fori_loop(np.int32(0), np.int32(self.chunks), step, start)


def solve(tile: Tile, numbers: Numbers, parts: Parts) -> Sums:
    """The sums, and writes the gradient; of each row a column `(rows, 1)`."""
    if tile.chunks == 1:
        only = tile.read(0)
        tile = tile._replace(read=lambda _: only)
    ids = numbers.ids.astype(jnp.int32)
    sums = _sums(tile, ids, numbers.weights.dtype, parts)
    if parts.gradient:
        _write_gradient(tile, ids, numbers, sums, parts)
    return sums


def _sums(tile: Tile, ids: jax.Array, dtype: jnp.dtype, parts: Parts) -> Sums:
    zero = jnp.zeros(ids.shape, dtype)

    def largest_and_label(chunk: Any, found: tuple) -> tuple:
        x, columns = tile.read(chunk)
        largest, label, count = found
        largest = jnp.maximum(largest, jnp.max(x, axis=-1, keepdims=True))
        label += _sum(jnp.where(columns == ids, x, 0))
        if parts.smooth:
            count += _sum(jnp.where(x == -jnp.inf, 0, jnp.ones_like(x)))
        return largest, label, count

    start = zero - jnp.inf, zero, zero
    largest, label, count = tile.fold(largest_and_label, start)
    shift = labelled.shift_of(largest, label)
    half = _zero_without(largest, largest / 2)

    def exponentials(chunk: Any, found: tuple) -> tuple:
        x, columns = tile.read(chunk)
        others, below = found
        e = scalars.exp_difference(x, shift)
        others += _sum(jnp.where(columns == ids, 0, e))
        if parts.smooth:
            below += _sum(_zero_without(x, half - x / 2))
        return others, below

    others, below = tile.fold(exponentials, (zero, zero))
    return Sums(largest, label, others, below, jnp.maximum(count, 1))


def _write_gradient(
    tile: Tile, ids: jax.Array, numbers: Numbers, sums: Sums, parts: Parts
) -> None:
    """`scale e - even` of a class of exponential e, and `own` of the label."""
    shift = labelled.shift_of(sums.largest, sums.label)
    scale, even, own = _coefficients(ids, shift, numbers, sums, parts)

    def gradient(chunk: Any, done: tuple) -> tuple:
        x, columns = tile.read(chunk)
        slope = scale * scalars.exp_difference(x, shift)
        if parts.smooth:
            slope = _zero_without(x, slope - even)
        tile.write(chunk, jnp.where(columns == ids, own, slope))
        return done

    tile.fold(gradient, ())


def _coefficients(
    ids: jax.Array, shift: jax.Array, numbers: Numbers, sums: Sums, parts: Parts
) -> tuple[jax.Array, jax.Array, jax.Array]:
    largest, label, others, _, count = sums
    row = labelled.row_of_sums(ids >= 0, ids, largest, label, shift, others)
    total = row.total()
    p, part = row.own / total, numbers.label_smoothing
    scale, even, own = row.unit / total, jnp.zeros_like(total), -row.rest / total
    if parts.smooth:
        even = part / count
        own = (1 - part) * own + part * _zero_without(label, p - 1 / count)
    if parts.squared:
        logsumexp = _zero_without(largest, largest) + jnp.log(total)
        slope = 2 * numbers.z_loss * logsumexp
        scale, own = scale * (1 + slope), own + slope * p
    weight = _zero_without(largest, numbers.weights)
    # As `labelled`: no number for a label of +inf, unless the row does not count.
    weight = jnp.where((label < jnp.inf) | (weight == 0), weight, jnp.nan)
    return weight * scale, weight * even, weight * own


def _zero_without(x: jax.Array, value: jax.Array) -> jax.Array:
    """`value`, but 0 where `x` is -inf: of a class, or of a row without any."""
    return jnp.where(x == -jnp.inf, 0, value)


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=-1, keepdims=True)
