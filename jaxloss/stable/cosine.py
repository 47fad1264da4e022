"""The angle between two vectors and its cosine, shared by all losses that need them.

Vectors lie along the last axis, and shapes are equal.  The result does not depend on
the scale: components of 1e-30 or 1e30 are as good as 1.  A zero vector has similarity
0, distance 1, a right angle to every vector, and derivatives 0.

The textbook formula `1 - u.v` of unit vectors u and v has no digits left once half of
their digits agree, and `u.v` can exceed 1.  Here everything follows from the part of v
orthogonal to u, whose length is the sine: 1 - |cos| = sin^2 / (1 + |cos|).

That part is computed without cancellation from vectors x and y that are scaled to a
largest component of 4, not to a length of 1.  First a round multiple of x, such as x
itself, is subtracted from y: if the two are nearly parallel, their large components are
the same number, and nothing is left of them.  The rest along x is small, and is
subtracted in a second step.  This needs the largest magnitude and a few plain sums of
each row, which a compiler for a GPU makes one kernel of.  A component that is picked by
the index of a maximum would need a second kernel.

The angle is the `atan2` of sine and cosine.  An `arccos` has no digits left near 0 and
pi, and an infinite slope there.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxloss.stable.scalars import safe_divide
from jaxloss.stable.vectors import norm, unit


@jax.custom_jvp
def cosine_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """`1 - cos(a, b)` in [0, 2], exactly 0 where a = b; gradient 0 at a zero vector."""
    either, near, sign = _cosine(a, b)
    far = jnp.where(near, 2, 1) - either
    return jnp.where(near & (sign > 0), either, far)


@jax.custom_jvp
def cosine_similarity(a: jax.Array, b: jax.Array) -> jax.Array:
    """`cos(a, b)` in [-1, 1], exactly 1 where a = b; gradient 0 at a zero vector."""
    either, near, sign = _cosine(a, b)
    # Not by `copysign`, at which XLA:GPU ends the kernel, and reads both five times.
    return jnp.where(near, jnp.where(sign < 0, either - 1, 1 - either), either)


@jax.custom_jvp
def angle(a: jax.Array, b: jax.Array) -> jax.Array:
    """The angle between `a` and `b` in [0, pi]; derivatives 0 at 0, at pi and at zero.

    The angle has a kink where one vector is a multiple of the other: its slope is 1 in
    every direction away from there.
    """
    rest, xx, xy, *_ = _rest(a, b)
    across, along = norm(rest), jnp.sqrt(xx) * xy
    along = along[..., 0]
    zero = (across == 0) & (along == 0)
    found = jnp.arctan2(across, jnp.where(zero, 1, along))
    return jnp.where(zero, 0.5 * math.pi, found)


def _change(slope, primals, tangents) -> jax.Array:
    """How far a symmetric function moves, whose gradient in the first is `slope`."""
    (a, b), (da, db) = primals, tangents
    change = jnp.zeros(a.shape[:-1], a.dtype)
    if not isinstance(da, SymbolicZero):
        change = change + jnp.sum(slope(a, b) * da, axis=-1)
    if not isinstance(db, SymbolicZero):
        change = change + jnp.sum(slope(b, a) * db, axis=-1)
    return change


def _similarity_jvp(primals, tangents):
    return cosine_similarity(*primals), _change(_similarity_da, primals, tangents)


def _distance_jvp(primals, tangents):
    return cosine_distance(*primals), -_change(_similarity_da, primals, tangents)


def _angle_jvp(primals, tangents):
    return angle(*primals), -_change(_approach, primals, tangents)


cosine_similarity.defjvp(_similarity_jvp, symbolic_zeros=True)
cosine_distance.defjvp(_distance_jvp, symbolic_zeros=True)
angle.defjvp(_angle_jvp, symbolic_zeros=True)


@jax.custom_jvp
def _similarity_da(a: jax.Array, b: jax.Array) -> jax.Array:
    """The gradient of the cosine in `a`: the part of v across u, over |a|."""
    rest, xx, _, yy, size = _rest(a, b)
    # Not in one go: the product of the lengths could overflow.  And by `size` as it was
    # reduced: with an operation in between, XLA:GPU reads both arguments once more.
    return _over(_over(rest, 0.25 * xx * jnp.sqrt(xx * yy)), size)


@_similarity_da.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    u, v = unit(a), unit(b)
    rest, xx, _, yy, _ = _rest(a, b)
    across = _over(rest, xx * jnp.sqrt(yy))  # v - (u.v) u
    turn = u * _dot(across, da) + across * _dot(u, da) + _dot(u, v) * _project(u, da)
    # One length at a time: their product under- or overflows before the quotient.
    change = safe_divide(_project(u, _project(v, db)), _length(b))
    change = change - safe_divide(turn, _length(a))
    return _similarity_da(a, b), safe_divide(change, _length(a))


@jax.custom_jvp
def _approach(a: jax.Array, b: jax.Array) -> jax.Array:
    """The gradient in `a` of minus the angle: the direction across u to v, over |a|."""
    rest, *_ = _rest(a, b)
    return safe_divide(unit(rest), _length(a))


@_approach.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    rest, xx, xy, yy, _ = _rest(a, b)
    u, e = unit(a), unit(rest)
    sine = norm(rest)[..., None] / jnp.where(xx * yy == 0, 1, xx * jnp.sqrt(yy))
    cosine = xy / jnp.sqrt(jnp.where(xx * yy == 0, 1, xx * yy))
    # What is left of t at right angles to both vectors, which turns the plane of both.
    aside = lambda t: _over(_project(e, _project(u, t)), sine)
    turn = u * _dot(e, da) + e * _dot(u, da) + cosine * aside(da)
    # One length at a time: their product under- or overflows before the quotient.
    change = safe_divide(aside(db), _length(b)) - safe_divide(turn, _length(a))
    return _approach(a, b), safe_divide(change, _length(a))


def _cosine(a: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
    """1 - |cosine| where that is below 1/2, else the cosine; which; its sign."""
    rest, xx, xy, *_ = _rest(a, b)
    xx, xy = xx[..., 0], xy[..., 0]
    # Of a right triangle with y for its hypotenuse, all sides squared and times xx^2.
    along, across = xx * xy * xy, jnp.sum(jnp.square(rest), axis=-1)
    # At least 1, but at a zero vector; the smallest number would make xx / whole inf.
    whole = jnp.maximum(along + across, float(jnp.finfo(xx.dtype).tiny) ** 0.5)
    near = 4 * along > whole
    gap = across / (whole + jnp.sqrt(along) * jnp.sqrt(whole))
    return jnp.where(near, gap, xy * jnp.sqrt(xx / whole)), near, xy


def _over(x: jax.Array, length: jax.Array) -> jax.Array:
    """`x / length`, and 0 where the length is."""
    zero = length == 0
    return x * jnp.where(zero, 0, 1 / jnp.where(zero, 1, length))


def _rest(a: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
    """`x.x y - (x.y) x`, x.x, x.y and y.y for a and b scaled to x and y; max |a|."""
    (x, size), (y, _) = _scaled(a), _scaled(b)
    xx, xy = _dot(x, x), _dot(x, y)
    ratio = xy / jnp.maximum(xx, float(jnp.finfo(x.dtype).tiny))
    # So few digits that 1 is found in spite of its rounding, and enough for the large
    # components of any two vectors; the second step corrects the others.
    near = lax.round(2048 * ratio, lax.RoundingMethod.TO_NEAREST_EVEN) / 2048
    rest = y - near * x
    return xx * rest - _dot(x, rest) * x, xx, xy, _dot(y, y), size


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`x` scaled to a largest magnitude of 4, or 0 if it is; what that was before."""
    size = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    # 4, because XLA multiplies by a reciprocal, and that of `size` may be subnormal.
    y = x / jnp.maximum(0.25 * size, float(jnp.finfo(x.dtype).tiny))
    # Clamped, which changes nothing, or that multiplication is fused with a later
    # subtraction, and the difference of two identical vectors is not 0.
    most = jnp.full((), 4, x.dtype)
    return lax.clamp(-most, y, most), size


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
