"""Shares of a number in intervals: linear, or the mass of a normal around it.

The mass is accurate far out in the tails, too.  In standard units an interval starts at
z and has the width w > 0, and its end is at least as far from the mean as its start.
With u the distance from its start, all is a moment of the density, relative to that at
the start (z >= -1) or at the mean:

    integral of u^n exp(-((z + u)^2 - top^2) / 2) for u from 0 to w, top = z or 0.

Differences of the distribution function would cancel, so a Gauss-Legendre rule computes
it, which only adds positive terms, where the density matters.  The derivatives of
moments are moments.  Those of an integral over a narrow interval would cancel in the
scale, and those of a mean over a wide one in its end: each has what does not.
"""

import decimal
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss.stable.scalars import Scalar, safe_divide
from jaxloss.stable.slopes import Elementwise, slopes


def _share_dy(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    return -safe_divide(jnp.ones_like(y), other - own)


def _share_dother(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    return safe_divide(safe_divide(y - own, other - own), other - own)


def _share_down(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    return safe_divide(linear_share(y, other, own), other - own)


# The quotient rule would subtract two numbers that are nearly equal near the other.
@slopes(_share_dy, _share_dother, _share_down)
def linear_share(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    """How near a number between two is to its own: 1 there, 0 at the other; 0 if the
    two are one."""
    return safe_divide(other - y, other - own)


# --- the normal distribution ---------------------------------------------------------


def interval_shares(x: jax.Array, edges: jax.Array, scale: jax.Array) -> jax.Array:
    """The share of each interval in the mass of a normal in all of them: 3 ulp.

    Means and standard deviations are `(..., 1)`, the increasing edges `(..., K + 1)`,
    the shares `(..., K)`.  The bounds of value (3), first (3) and second derivative (7)
    are times 1 + condition number: far from the mean, a rounding of the mean itself has
    more effect.
    """
    first, last = edges[..., :1], edges[..., -1:]
    beyond = x > last
    # From the first edge, unless the mean is well within or beyond the last one.
    from_first = (x < first) | ~beyond & (last - first <= scale)
    gap = jnp.where(from_first, first - x, jnp.where(beyond, x - last, 0))
    gap = _in_scales(gap, scale)
    fixed = lax.stop_gradient

    def mass(low: jax.Array, high: jax.Array) -> jax.Array:
        above, width = low - x > x - high, high - low
        start = jnp.where(above, low, high)
        z = _in_scales(jnp.where(above, low - x, x - high), scale)
        w = _in_scales(width, scale)
        d = jnp.where(from_first, start - first, last - start)
        d = jnp.where(from_first | beyond, _in_scales(d, scale), _top(z))
        # Of the density at the edge, or at the mean, so that something is left of it.
        relative = jnp.exp(-d * (gap + d / 2))
        # All masses of a row may be in any unit.  In this one they are neither 0 nor
        # infinite: a constant, which is multiplied by the scale or by the width.
        wide = _is_wide(z, w)
        length = jnp.where(wide, scale, width)
        share = jnp.where(wide, 1, w) * (1 + jnp.maximum(gap, 0))
        unit = fixed(jnp.maximum(length / (last - first), share))
        return relative * unit * (length / fixed(length)) * _density(z, w)

    return _shares(mass(edges[..., :-1], edges[..., 1:]), mass(first, last))


def _top(z: jax.Array) -> jax.Array:
    """Where the density is 1: at the start, or at the mean if that is well inside."""
    return jnp.where(z < -1, 0, z)


def _in_scales(x: jax.Array, scale: jax.Array) -> jax.Array:
    """`x / scale`, but not so large that its square is infinite."""
    limit = float(jnp.finfo(x.dtype).max) ** 0.4
    too_large = jnp.abs(x) > limit * scale
    return jnp.where(too_large, jnp.sign(x) * limit, jnp.where(too_large, 1, x) / scale)


@jax.custom_jvp
def _shares(mass: jax.Array, total: jax.Array) -> jax.Array:
    return jnp.minimum(mass / total, 1)


@_shares.defjvp
def _(primals, tangents):
    (mass, total), (t, t_total) = primals, tangents
    share = _shares(mass, total)
    moved = t / total - share * (t_total / total)
    # A share of nearly 1 changes by what all others lose, which is not a difference.
    most = share > 0.5
    others = jnp.sum(jnp.where(most, 0, moved), axis=-1, keepdims=True)
    return share, jnp.where(most, -others, moved)


# --- moments -------------------------------------------------------------------------


def _is_wide(z: jax.Array, w: jax.Array) -> jax.Array:
    """Whether the density at the end is much less than at the start."""
    return w * (jnp.maximum(z, 0) + w) > 1


@functools.cache
def _moment(n: int) -> Elementwise:
    """The integral of u^n in a wide interval, the mean of (u / w)^n in a narrow one."""

    @slopes(functools.partial(_moment_dz, n), functools.partial(_moment_dw, n))
    def moment(z: jax.Array, w: jax.Array) -> jax.Array:
        length, before, density, rule = _relevant(z, w)
        unit = jnp.where(_is_wide(z, w), length, 1)  # all of a narrow one is relevant
        term = lambda x, weight: weight * density(x) * (before + x * unit) ** n
        terms = jax.vmap(term, out_axes=-1)(*jnp.asarray(rule, z.dtype).T)
        return unit * jnp.sum(terms, axis=-1)

    return moment


def _moment_dz(n: int, z: jax.Array, w: jax.Array) -> jax.Array:
    longer = jnp.where(_is_wide(z, w), 1, w) * _moment(n + 1)(z, w)
    # Around the mean the integral of t = z + u would cancel: so by parts.
    start = n * _moment(n - 1)(z, w) if n else jnp.exp(-z * z / 2)
    around = start - jnp.power(w, n) * _density_at_end(z, w)
    return -jnp.where(z < -1, around, longer)


def _moment_dw(n: int, z: jax.Array, w: jax.Array) -> jax.Array:
    narrow = -(z * _moment(n + 1)(z, w) + w * _moment(n + 2)(z, w))
    wide = jnp.power(w, n) * _density_at_end(z, w)
    return jnp.where(_is_wide(z, w), wide, narrow)


def _density_at_end(z: jax.Array, w: jax.Array) -> jax.Array:
    end = jnp.where(z < -1, z + w, w)
    return jnp.exp(-end * (_top(z) + end / 2))


@slopes(functools.partial(_moment_dz, 0), functools.partial(_moment_dw, 0))
def _density(z: jax.Array, w: jax.Array) -> jax.Array:
    """`_moment(0)` in one kernel that writes no terms, but takes long to compile."""
    length, _, density, rule = _relevant(z, w)
    total = sum(weight * density(x) for x, weight in rule)
    return jnp.where(_is_wide(z, w), length, 1) * total


# --- the rule ------------------------------------------------------------------------

Rule = list[tuple[float, float]]


def _relevant(
    z: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array, Callable[[Scalar], jax.Array], Rule]:
    """The part of an interval that matters: its length, what is before it, the density
    at a share of it, and the shares with their weights."""
    # exp(-beside) is the least that matters beside the mean, exp(-around) around it.
    count, beside, around = (20, 27, 18) if z.dtype == jnp.float32 else (48, 46, 38)
    top, end = _top(z), (2 * around) ** 0.5
    root = jnp.maximum(top, jnp.sqrt(jnp.square(jnp.minimum(top, 1e6)) + 2 * beside))
    low, mean_inside = jnp.maximum(z, -end), z < -1
    longest = jnp.minimum(w, 2 * beside / (top + root))
    length = jnp.where(mean_inside, jnp.minimum(z + w, end) - low, longest)
    base = jnp.where(mean_inside, low, 0)
    before = jnp.where(mean_inside, low - z, 0)

    def density(share: Scalar) -> jax.Array:
        u = base + share * length
        return jnp.exp(-u * (top + u / 2))

    return length, before, density, _gauss_legendre(count)


@functools.cache
def _gauss_legendre(count: int) -> Rule:
    """Nodes in (0, 1) and their weights.  Those of NumPy are wrong by 100 ulp."""
    with decimal.localcontext() as context:
        context.prec = 40
        return [(float((1 + x) / 2), float(w / 2)) for x, w in _legendre(count)]


def _legendre(count: int) -> Iterator[tuple[decimal.Decimal, decimal.Decimal]]:
    """The zeros of a Legendre polynomial by Newton's method, and their weights."""
    for i in range(count):
        x = decimal.Decimal(math.cos(math.pi * (i + 0.75) / (count + 0.5)))
        slope = decimal.Decimal(1)
        for _ in range(5):
            before, p = decimal.Decimal(1), x
            for n in range(2, count + 1):
                before, p = p, ((2 * n - 1) * x * p - (n - 1) * before) / n
            slope = count * (x * p - before) / (x * x - 1)
            x -= p / slope
        yield x, 2 / ((1 - x * x) * slope * slope)
