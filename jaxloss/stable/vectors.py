"""Vectors along an axis: norms, directions, distances between rows."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss.stable import sharding, xla
from jaxloss.stable.scalars import magnitude, safe_divide, sqrt


def _power_of_two(x: jax.Array) -> jax.Array:
    """The largest power of two <= x, with which scaling is exact; 1 at 0, inf, NaN."""
    info = jnp.finfo(x.dtype)
    uint = jnp.uint32 if info.bits == 32 else jnp.uint64
    exponent = ((1 << info.nexp) - 1) << info.nmant
    bits = lax.bitcast_convert_type(x, uint) & jnp.asarray(exponent, uint)
    scale = lax.bitcast_convert_type(bits, x.dtype)
    usable = (scale > 0) & jnp.isfinite(scale)
    # Capped so that 1 / scale is a normal number too.
    return jnp.minimum(jnp.where(usable, scale, 1), 2.0 ** (info.maxexp - 3))


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`x` along its last axis brought to magnitude [1, 2), and the exact scale."""
    scale = _power_of_two(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    # Rounded, or of a constant x XLA takes the scale out of a sum of squares again.
    return xla.no_fma(x / scale), scale


@jax.custom_jvp
def _norm(x: jax.Array) -> jax.Array:
    y, scale = _scaled(x)
    return scale[..., 0] * jnp.sqrt(jnp.sum(jnp.square(y), axis=-1))


@_norm.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return _norm(x), jnp.sum(unit(x) * t, axis=-1)


@jax.custom_jvp
def unit(x: jax.Array) -> jax.Array:
    """`x / |x|` along the last axis, and 0 with derivative 0 where x is 0: 3 ulp."""
    y, _ = _scaled(x)
    length = jnp.sqrt(jnp.sum(jnp.square(y), axis=-1, keepdims=True))
    # Rounded, or a later subtraction is fused with the division's multiplication and
    # the difference of two identical directions is not 0.
    return xla.no_fma(jnp.where(length == 0, 0, y / jnp.where(length == 0, 1, length)))


@unit.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    u = unit(x)
    across = t - u * jnp.sum(u * t, axis=-1, keepdims=True)
    return u, safe_divide(across, _norm(x)[..., None])


def norm(x: jax.Array, axis: int = -1, ord: float = 2) -> jax.Array:
    """The p-norm along `axis`, p = `ord` >= 1: 3 ulp (derivatives 5, 16), 0 at 0.

    Scaled by a power of two, so that squares neither overflow from 1.8e19 on nor
    vanish below 1e-19.  The derivative at the zero vector is 0, not NaN.
    """
    x = jnp.moveaxis(x, axis, -1)
    if ord == 2:
        return _norm(x)
    if ord == 1:
        return jnp.sum(magnitude(x), axis=-1)
    if ord == math.inf:
        return _largest_magnitude(x)
    return _p_norm(x, float(ord))


@jax.custom_jvp
def _largest_magnitude(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x), axis=-1)


@_largest_magnitude.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    largest = _largest_magnitude(x)
    ties = jnp.abs(x) == largest[..., None]
    share = jnp.sign(x) / jnp.sum(ties, axis=-1, keepdims=True, dtype=x.dtype)
    return largest, jnp.sum(jnp.where(ties, share, 0) * t, axis=-1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _p_norm(x: jax.Array, p: float) -> jax.Array:
    y, scale = _scaled(x)
    total = jnp.sum(jnp.power(jnp.abs(y), p), axis=-1)
    return scale[..., 0] * jnp.power(total, 1 / p)


@_p_norm.defjvp
def _(p, primals, tangents):
    (x,), (t,) = primals, tangents
    length = _p_norm(x, p)
    ratio = safe_divide(x, jnp.broadcast_to(length[..., None], x.shape))
    zero = ratio == 0
    power = jnp.power(jnp.abs(jnp.where(zero, 1, ratio)), p - 1)
    slope = jnp.where(zero, 0, jnp.sign(ratio) * power)
    return length, jnp.sum(slope * t, axis=-1)


@sharding.automatic
def squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """`|a_i - b_j|^2` for rows of `(n, d)` and `(m, d)`, as `(n, m)`, by one matmul.

    Never negative, and exactly 0 with gradient 0 for identical rows.  The absolute
    error is a few eps of `|a_i|^2 + |b_j|^2`.  Rows nearer to each other than that
    cannot be distinguished, so centre embeddings that are far from the origin.
    """
    square = lambda x: jnp.sum(jnp.square(x), axis=-1)
    cross = jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)
    raw = square(a)[:, None] + square(b)[None, :] - 2 * cross
    return jnp.where((raw > 0) & ~_same_rows(a, b) | jnp.isnan(raw), raw, 0)


def distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """`|a_i - b_j|`; see `squared_distances`.  Gradient 0 where the distance is 0."""
    return sqrt(squared_distances(a, b))


def _same_rows(a: jax.Array, b: jax.Array) -> jax.Array:
    """Which rows of `a` equal which rows of `b` bit for bit, by 64-bit fingerprints.

    Comparing entries would take an (n, m, d) array.  Two different rows share a
    fingerprint with probability 2^-64.
    """
    (ha, la), (hb, lb) = _fingerprints(a), _fingerprints(b)
    return (ha[:, None] == hb[None, :]) & (la[:, None] == lb[None, :])


def _fingerprints(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Adding 0 turns -0, which equals it, into 0; a float64 gives two words.
    words = lax.bitcast_convert_type(x + 0, jnp.uint32).reshape(x.shape[0], -1)
    column = lax.broadcasted_iota(jnp.uint32, words.shape, 1)

    def fingerprint(seed: int) -> jax.Array:
        # The finaliser of MurmurHash3 (Appleby, public domain) mixes every bit.
        h = words ^ ((column + jnp.uint32(1)) * jnp.uint32(seed))
        h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
        h = (h ^ (h >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
        return jnp.sum(h ^ (h >> jnp.uint32(16)), axis=-1, dtype=jnp.uint32)

    return fingerprint(0x9E3779B1), fingerprint(0x7FEB352D)
