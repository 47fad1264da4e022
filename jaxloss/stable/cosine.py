"""The cosine of the angle between two vectors, shared by every loss that needs one.

Along the last axis, for equal shapes.  Scale-free: components of 1e-30 or 1e30 are as
good as of 1.  A zero vector has similarity 0, distance 1 and derivatives 0.

The textbook `1 - u.v`, of unit vectors u and v, has lost all digits once half of
theirs agree, and `u.v` can exceed 1.  Here everything follows from the part of v
across u, whose length is the sine: 1 - |cos| = sin^2 / (1 + |cos|).
"""

import jax
import jax.numpy as jnp

from jaxloss.stable.scalars import safe_divide
from jaxloss.stable.vectors import norm, unit


@jax.custom_jvp
def cosine_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """`1 - cos(a, b)` in [0, 2], exactly 0 where a = b; gradient 0 at a zero vector."""
    cosine, gap = _cosine(a, b)
    return jnp.where(cosine > 0.5, gap, jnp.where(cosine < -0.5, 2 - gap, 1 - cosine))


@jax.custom_jvp
def cosine_similarity(a: jax.Array, b: jax.Array) -> jax.Array:
    """`cos(a, b)` in [-1, 1], exactly 1 where a = b; gradient 0 at a zero vector."""
    cosine, gap = _cosine(a, b)
    near = jnp.copysign(1 - gap, cosine)
    return jnp.where(jnp.abs(cosine) > 0.5, near, cosine)


@cosine_similarity.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    moving = _slope(a, b) * da + _slope(b, a) * db
    return cosine_similarity(a, b), jnp.sum(moving, axis=-1)


@cosine_distance.defjvp
def _(primals, tangents):
    _, moving = jax.jvp(cosine_similarity, primals, tangents)
    return cosine_distance(*primals), -moving


@jax.custom_jvp
def _slope(a: jax.Array, b: jax.Array) -> jax.Array:
    """The gradient of the cosine in `a`: the part of v across u, over |a|."""
    return safe_divide(_across(a, b), _length(a))


@_slope.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    u, v, across = unit(a), unit(b), _across(a, b)
    turn = u * _dot(across, da) + across * _dot(u, da) + _dot(u, v) * _project(u, da)
    # One length at a time: their product under- or overflows before the quotient.
    change = safe_divide(_project(u, _project(v, db)), _length(b))
    change = change - safe_divide(turn, _length(a))
    return _slope(a, b), safe_divide(change, _length(a))


def _cosine(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(cosine, 1 - |cosine|)."""
    cosine = jnp.sum(unit(a) * unit(b), axis=-1)
    square = jnp.sum(jnp.square(_across(a, b)), axis=-1)
    return cosine, square / (1 + jnp.abs(cosine))


def _across(a: jax.Array, b: jax.Array) -> jax.Array:
    """`v - (u.v) u` for the directions u of a and v of b, without that cancellation.

    The large component of u is eliminated from v first, which leaves 0 there without
    a rounding, and what is left along u is small.
    """
    u, v = unit(a), unit(b)
    at = jnp.argmax(jnp.abs(u), axis=-1, keepdims=True)
    pick = lambda x: jnp.take_along_axis(x, at, axis=-1)
    rest = pick(u) * v - pick(v) * u
    rest = rest - u * _dot(u, rest)
    across = safe_divide(rest, jnp.broadcast_to(pick(u), u.shape))
    # Equal products need not cancel: the compiler rounds one of them only (FMA).
    return jnp.where(jnp.all(a == b, axis=-1, keepdims=True), 0, across)


def _project(u: jax.Array, t: jax.Array) -> jax.Array:
    """`t - u (u.t)` for a unit vector u and any t: what is left of t at right angles.

    By the reflection that takes u to an axis, dropping that axis, and reflecting back:
    a symmetric product, as accurate transposed (in reverse mode) as it is here.
    """
    at = jnp.argmax(jnp.abs(u), axis=-1, keepdims=True)
    axis = jax.lax.broadcasted_iota(at.dtype, u.shape, u.ndim - 1) == at
    to_axis = u + jnp.where(axis, jnp.copysign(jnp.ones_like(u), u), 0)
    half = 1 + jnp.max(jnp.abs(u), axis=-1, keepdims=True)
    reflect = lambda x: x - to_axis * (_dot(to_axis, x) / half)
    return reflect(jnp.where(axis, 0, reflect(t)))


def _dot(u: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.sum(u * v, axis=-1, keepdims=True)


def _length(x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(norm(x)[..., None], x.shape)
