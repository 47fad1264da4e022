"""Rows of logits against distributions: cross entropy, and the gradient of others."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxloss.stable import sharding
from jaxloss.stable.rows import log_softmax, row, softmax, softmax_complement
from jaxloss.stable.scalars import log1p


@jax.custom_jvp
def softmax_cross_entropy(x: jax.Array, w: jax.Array) -> jax.Array:
    """`-sum(w log_softmax(x))` along the last axis: 4 ulp (derivatives 5, 8).

    A class of weight 0 costs nothing, even at a logit of -inf, another one there +inf;
    a row of -inf costs 0.
    """
    top, dead, _, rest = _against_largest(x)
    nothing = w == 0
    surprise = jnp.where(nothing, 0, (top - x) + log1p(rest)[..., None])
    losses = jnp.sum(jnp.where(nothing, 0, w * surprise), axis=-1)
    return jnp.where(dead, 0, losses)


@functools.partial(softmax_cross_entropy.defjvp, symbolic_zeros=True)
def _(primals, tangents):
    x, w = primals
    moving = []
    if not isinstance(tangents[0], SymbolicZero):
        moving.append(softmax_slope(x, w, w) * tangents[0])
    if not isinstance(tangents[1], SymbolicZero):
        moving.append(jnp.where(x == -jnp.inf, 0, -log_softmax(x)) * tangents[1])
    total = functools.reduce(operator.add, moving, jnp.zeros_like(x))
    return softmax_cross_entropy(x, w), jnp.sum(total, axis=-1)


def _against_largest(x: jax.Array) -> tuple[jax.Array, ...]:
    """(largest, whether there is none, `exp(x - largest)`, their sum but for one 1)."""
    largest, *_, e, rest = row(x)
    dead = largest == -jnp.inf
    top = jnp.where(dead, 0, largest)
    return top, dead[..., 0], e, jnp.where(top == jnp.inf, 1, rest)[..., 0]


@sharding.automatic
def _largest_and_others(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest along the last axis of v >= 0, and the sum of all but that one."""
    return lax.platform_dependent(v, cpu=_by_subtraction, default=_by_exclusion)


def _by_subtraction(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In sums that XLA:CPU makes vectors of.

    Added up without all that are the largest: only if they are several, the sum is far
    above one of them, and one can be subtracted.
    """
    largest = jnp.max(v, axis=-1)
    smaller = jnp.sum(jnp.where(v < largest[..., None], v, 0), axis=-1)
    total = jnp.sum(v, axis=-1)
    others = jnp.where(total - smaller > 1.5 * largest, total - largest, smaller)
    return largest, others


def _by_exclusion(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In one pass: of two parts of a row, the smaller of their largest is excluded."""

    def merged(a: list[jax.Array], b: list[jax.Array]) -> list[jax.Array]:
        (top_a, others_a), (top_b, others_b) = a, b
        others = others_a + others_b + jnp.minimum(top_a, top_b)
        return [jnp.maximum(top_a, top_b), others]

    zero = jnp.zeros((), v.dtype)
    found = lax.reduce([v, jnp.zeros_like(v)], [zero, zero], merged, [v.ndim - 1])
    return found[0], found[1]


@jax.custom_jvp
def softmax_slope(x: jax.Array, w: jax.Array, again: jax.Array) -> jax.Array:
    """The gradient of `-sum(w log p)` for constant w: `p sum(w) - w`; 5 ulp.

    As `p (sum(w) - w) - w (1 - p)`, in which nothing cancels.  So if p or w is nearly
    1, the other one keeps its digits, and a one-hot w gives what an id gives.
    `again` is w once more, computed in another way if an accelerator would write w out.
    """
    _, dead, e, rest = _against_largest(x)
    largest, smaller = _largest_and_others(w)
    others = (largest[..., None] - again) + smaller[..., None]
    scale = jnp.where(dead, 0, 1 / (1 + rest))[..., None]
    return (e * others - again * ((1 - e) + rest[..., None])) * scale


@softmax_slope.defjvp
def _(primals, tangents):
    _, moved = jax.jvp(_softmax_slope_plain, primals[:2], tangents[:2])
    return softmax_slope(*primals), moved


def _softmax_slope_plain(x: jax.Array, w: jax.Array) -> jax.Array:
    """`softmax_slope` of functions that have accurate derivatives."""
    alive = jnp.max(x, axis=-1, keepdims=True) != -jnp.inf
    return jnp.where(alive, softmax(x) * _others(x, w) - w * softmax_complement(x), 0)


def _others(x: jax.Array, w: jax.Array) -> jax.Array:
    """`sum(w) - w`; for the largest logit, whose w may move the most, a sum of others.

    Its probability may be nearly 1: then it is all that the second derivative has.
    """
    at = jnp.argmax(x, axis=-1, keepdims=True)
    largest = lax.broadcasted_iota(at.dtype, x.shape, x.ndim - 1) == at
    smaller = jnp.sum(jnp.where(largest, 0, w), axis=-1, keepdims=True)
    own = jnp.sum(jnp.where(largest, w, 0), axis=-1, keepdims=True)
    return jnp.where(largest, smaller, (smaller - w) + own)
