"""Scores that are used twice: for their row and for their column.

Derivatives are given by hand, so that the cosines of a block are computed once forward
and once in reverse for both uses.  JAX transposes the functions below that are linear
in the tangents, and differentiates them for second derivatives.  The temperature is in
the vectors, so its derivative follows from theirs.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss import _pairs, stable
from jaxloss.kernels import _anchors


def clip(rows: int, x: jax.Array, y: jax.Array, valid: jax.Array) -> jax.Array:
    """The losses of the scores x y, of one batch."""
    own = jnp.sum(x * y, axis=-1)
    (largest, rivals), (highest, others) = _rivals(rows, x, y, valid)
    there = stable.softplus((largest - own) + rivals)
    return 0.5 * (there + stable.softplus((highest - own) + others))


Totals = tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rivals(rows: int, x: jax.Array, y: jax.Array, valid: jax.Array) -> Totals:
    """Of each row and of each column: the largest score but the own one, a constant,
    and the logsumexp of all but the own one, less that."""
    everyone = jnp.arange(len(x))

    @jax.checkpoint
    def step(columns, block):
        top, total = columns
        anchors, at, present = block
        scores = _pairs.cosines(anchors, y)
        _, negative = _anchors.coupled(at, present, valid)
        scores = jnp.where(negative, scores, -jnp.inf)
        fixed = lax.stop_gradient(scores)
        largest = jnp.max(fixed, axis=-1, initial=lowest)
        highest = jnp.maximum(top, jnp.max(fixed, axis=0))
        by_row = _pairs.log_total(scores - largest[:, None])
        total = total * jnp.exp(top - highest)
        total = total + jnp.sum(jnp.exp(scores - highest[None]), axis=0)
        return (highest, total), (largest, by_row)

    lowest = jnp.finfo(x.dtype).min
    start = jnp.full_like(x[:, 0], lowest), jnp.zeros_like(x[:, 0])
    blocks = [_anchors.in_blocks(rows, part) for part in (x, everyone, valid)]
    (highest, total), found = lax.scan(step, start, blocks)
    largest, by_row = (part.reshape(-1)[: len(x)] for part in found)
    return (largest, by_row), (highest, jnp.log(total))


@_rivals.defjvp
def _(rows, primals, tangents):
    (x, y, valid), (dx, dy, _) = primals, tangents
    totals = _rivals(rows, *primals)
    (largest, by_row), (highest, by_column) = totals
    shift, column_shift = (_finite(v) for v in (by_row, by_column))

    @jax.checkpoint
    def step(column, block):
        anchors, turn, at, present, largest, shift = block
        _, keep = _anchors.coupled(at, present, valid)
        scores = _pairs.cosines(anchors, y)
        moving = _pairs.cosines(turn, y) + _pairs.cosines(anchors, dy)
        share = lambda top, rest: jnp.exp(
            jnp.where(keep, (scores - top) - rest, -jnp.inf)
        )
        row = jnp.sum(share(largest[:, None], shift[:, None]) * moving, axis=-1)
        p = share(highest[None], column_shift[None])
        return column + jnp.sum(p * moving, axis=0), row

    parts = (x, dx, jnp.arange(len(x)), valid, largest, shift)
    blocks = [_anchors.in_blocks(rows, part) for part in parts]
    column, row = lax.scan(step, jnp.zeros_like(shift), blocks)
    still = jnp.zeros_like(shift)
    return totals, ((still, row.reshape(-1)[: len(x)]), (still, column))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def nt_xent(rows: int, x: jax.Array, ids: jax.Array, valid: jax.Array) -> jax.Array:
    """The losses of the scores x x, of one batch."""
    return _statistics(rows, x, ids, valid)[0]


def _statistics(
    rows: int, x: jax.Array, ids: jax.Array, valid: jax.Array
) -> tuple[jax.Array, ...]:
    """Of each anchor: the loss; the largest score of its negatives, a constant, and
    their logsumexp less that; the slope in the latter; one over its positives."""

    def of_block(anchors, at, own_ids, present):
        positive, negative = _anchors.alike(at, own_ids, present, ids, valid)
        scores = _pairs.cosines(anchors, x)
        fixed = jnp.where(negative, lax.stop_gradient(scores), -jnp.inf)
        largest = jnp.max(fixed, axis=-1, initial=jnp.finfo(x.dtype).min)
        scores = scores - largest[:, None]
        rivals = _pairs.log_total(jnp.where(negative, scores, -jnp.inf))
        lead = jnp.where(positive, rivals[:, None] - scores, -jnp.inf)
        share = 1 / jnp.maximum(jnp.sum(positive, axis=-1, dtype=x.dtype), 1)
        loss = share * jnp.sum(stable.softplus(lead), axis=-1)
        slope = share * jnp.sum(stable.sigmoid(lead), axis=-1)
        return loss, largest, rivals, slope, share

    return _anchors.by_block(rows, of_block, x, jnp.arange(len(x)), ids, valid)


@nt_xent.defjvp
def _(rows, primals, tangents):
    (x, ids, valid), (dx, *_) = primals, tangents
    loss, *known = _statistics(rows, *primals)
    known[1] = _finite(known[1])

    @jax.checkpoint
    def step(column, block):
        anchors, turn, at, own_ids, present, *own = block
        positive, negative = _anchors.alike(at, own_ids, present, ids, valid)
        scores, moving = (_pairs.cosines(part, x) for part in (anchors, turn))

        def slopes(largest, rivals, slope, share):
            lead = (scores - largest) - rivals
            attracted = share * stable.sigmoid(jnp.where(positive, -lead, -jnp.inf))
            repelled = slope * jnp.exp(jnp.where(negative, lead, -jnp.inf))
            return repelled - attracted

        row = jnp.sum(slopes(*(v[:, None] for v in own)) * moving, axis=-1)
        of_others = slopes(*(v[None] for v in known))
        return column + jnp.sum(of_others * moving, axis=0), row

    parts = (x, dx, jnp.arange(len(x)), ids, valid, *known)
    blocks = [_anchors.in_blocks(rows, part) for part in parts]
    column, row = lax.scan(step, jnp.zeros_like(loss), blocks)
    return loss, row.reshape(-1)[: len(x)] + column


def _finite(rivals: jax.Array) -> jax.Array:
    """What to subtract in an exponent: 0 where there are none, which is masked."""
    return jnp.where(rivals == -jnp.inf, 0, rivals)
