"""Two boxes, given by their corners, without a difference of nearly equal areas.

Along each axis a box is an interval.  Of two, ours and theirs: what only one of them
covers is a sum of differences of coordinates, exact for boxes that nearly agree, and
areas are sums of products of such lengths.  The textbook subtracts areas instead, and
has lost all digits once the boxes agree to half of theirs.

Lengths are relative to the enclosing box, axis by axis, so sides of 1e-20 and 1e20 are
as good as of 1.  Those scales are constants of every derivative: no loss depends on
them.  At a side of the other box, a slope is the mean of those on both sides of it.
"""

import functools
import operator
from collections.abc import Sequence
from itertools import starmap
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss.stable import xla
from jaxloss.stable.scalars import safe_divide


class Parts(NamedTuple):
    """What two intervals cover."""

    both: jax.Array
    ours: jax.Array
    """What only ours covers."""
    theirs: jax.Array

    @property
    def size(self) -> jax.Array:
        return self.both + self.ours

    @property
    def their_size(self) -> jax.Array:
        return self.both + self.theirs


class Around(NamedTuple):
    """The interval around two, and what is left of it."""

    beside_ours: jax.Array
    """What of it is not theirs, the gap included."""
    beside_theirs: jax.Array
    gap: jax.Array
    whole: jax.Array
    """1, or 0 where it is a point."""


class Ends(NamedTuple):
    """Where boxes begin and end along an axis; none ends before it begins."""

    start: jax.Array
    end: jax.Array


Box = Sequence[jax.Array]
"""x1, y1, x2 and y2, each an array: a sum over them would be a kernel of its own."""


def ends(box: Box) -> tuple[Ends, Ends]:
    """Along x and along y."""
    x1, y1, x2, y2 = box
    return Ends(x1, jnp.where(x2 < x1, x1, x2)), Ends(y1, jnp.where(y2 < y1, y1, y2))


def differ(box: Box, target: Box) -> jax.Array:
    """Whether any corner does."""
    by_corner = [a != b for a, b in zip(box, target, strict=True)]
    return functools.reduce(operator.or_, by_corner)


def parts(box: Box, target: Box) -> tuple[tuple[Parts, Parts], tuple[Around, Around]]:
    """The two boxes along x and along y; NaN where a coordinate is not finite."""
    known = [jnp.abs(corner) < jnp.inf for corner in (*box, *target)]
    finite = functools.reduce(operator.and_, known)
    pairs = [*zip(ends(box), ends(target), strict=True)]
    (x, around_x), (y, around_y) = (_along(*pair, finite) for pair in pairs)
    return (x, y), (around_x, around_y)


def reciprocal(length: jax.Array) -> jax.Array:
    """1 over it, as a constant; 0 for 0."""
    length = lax.stop_gradient(length)
    # That of a subnormal may be infinite.
    some = length >= float(jnp.finfo(length.dtype).tiny)
    return jnp.where(some, 1 / jnp.where(some, length, 1), 0)


def _along(ours: Ends, theirs: Ends, finite: jax.Array) -> tuple[Parts, Around]:
    start, end, their_start, their_end = *ours, *theirs
    last, first = jnp.maximum(end, their_end), jnp.minimum(start, their_start)
    scale = reciprocal(last - first)
    scale = scale + xla.nan_unless(finite, scale)
    starts, ends = scale * (their_start - start), scale * (end - their_end)
    overlap = jnp.minimum(end, their_end) - jnp.maximum(start, their_start)
    overlap = scale * overlap
    only_ours = jnp.maximum(starts, 0) + jnp.maximum(ends, 0)
    only_theirs = jnp.maximum(-starts, 0) + jnp.maximum(-ends, 0)
    meet = overlap > 0
    found = Parts(
        jnp.maximum(overlap, 0),
        jnp.where(meet, only_ours, scale * (end - start)),
        jnp.where(meet, only_theirs, scale * (their_end - their_start)),
    )
    gap = jnp.maximum(-overlap, 0)
    return found, Around(only_ours, only_theirs, gap, scale * (last - first))


def uncovered(x: Parts, y: Parts, around_x: Around, around_y: Around) -> jax.Array:
    """The part of the enclosing box that neither box covers."""
    corners = around_x.beside_ours * around_y.beside_theirs
    corners = corners + around_x.beside_theirs * around_y.beside_ours
    between = x.both * around_y.gap + around_x.gap * y.both
    return corners + (between - around_x.gap * around_y.gap)


# --- one less the ratio of what both cover -------------------------------------------


@jax.custom_jvp
def missed_share(x: Parts, y: Parts) -> jax.Array:
    """`1 - I / U` of the areas I of what both cover and U of what either does; 0 where
    there are none."""
    missed, union = _areas(x, y)
    return missed / union


@missed_share.defjvp
def _(primals, tangents):
    (x, y), (x_moved, y_moved) = primals, tangents
    along_x, along_y = _slopes(x, y), _slopes(y, x)
    moves = zip((*along_x, *along_y), (*x_moved, *y_moved), strict=True)
    terms = starmap(operator.mul, moves)
    return missed_share(x, y), functools.reduce(operator.add, terms)


def _slopes(x: Parts, y: Parts) -> Parts:
    """By the lengths along x.  Not by the quotient rule, which subtracts what nearly
    agrees where the boxes have little in common: no term here is subtracted."""
    _, union = _areas(x, y)
    ours, theirs = y.size / union, y.their_size / union
    share = x.both * (y.both / union)
    alone = x.ours * ours + x.theirs * theirs
    return Parts(-(y.both / union) * alone, share * ours, share * theirs)


def _areas(x: Parts, y: Parts) -> tuple[jax.Array, jax.Array]:
    """Of what one box covers, and of what either does, but 1 where that is 0."""
    ours = x.ours * y.size + x.both * y.ours
    theirs = x.theirs * y.their_size + x.both * y.theirs
    missed = ours + theirs
    union = missed + x.both * y.both
    return missed, jnp.where(union == 0, 1, union)


# --- where boxes are, and of which form ----------------------------------------------


def centre_distance(box: Box, target: Box) -> jax.Array:
    """The squared distance of the centres over the squared diagonal around both."""
    steps, sides = [], []
    for ours, theirs in zip(ends(box), ends(target), strict=True):
        first = jnp.minimum(ours.start, theirs.start)
        sides.append(jnp.maximum(ours.end, theirs.end) - first)
        steps.append((ours.start - theirs.start, ours.end - theirs.end))
    scale = reciprocal(jnp.maximum(*sides))
    x, y = (0.5 * (scale * start + scale * end) for start, end in steps)
    width, height = (scale * side for side in sides)
    return safe_divide(x * x + y * y, width * width + height * height)


def direction(box: Box) -> tuple[jax.Array, jax.Array]:
    """Width and height, relative to the larger one."""
    width, height = (end - start for start, end in ends(box))
    scale = reciprocal(jnp.maximum(width, height))
    # Or the sides of identical boxes differ by the rounding error of one of them.
    return xla.no_fma(scale * width), xla.no_fma(scale * height)
