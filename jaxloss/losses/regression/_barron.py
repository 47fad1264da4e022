"""Barron's family of robust losses, accurate for every shape and every residual.

With x = r / scale, b = |alpha - 2| and h = sqrt(1 + x^2 / b) the loss is

  rho = b / alpha (h^alpha - 1),   with slope psi = x h^(alpha - 2) in x.

As powers of h, both are right up to the largest residuals, whose square overflows.  Two
ways to h share the work: "near", where x^2 < b, by b log(h) = x^2 / 2 log1p(w) / w with
w = x^2 / b, which has a limit for infinite b (Welsch); "far", by h itself, which has
one for b = 0 (squared error).

Reference:
  Barron, "A General and Adaptive Robust Loss Function", CVPR 2019.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import stable
from jaxloss.stable import xla

# An alpha that is infinite to double precision, but makes no NaNs.
_ENDLESS = 2.0**80


class _Stretch(NamedTuple):
    """What every formula here is made of."""

    alpha: jax.Array
    b: jax.Array
    near: jax.Array
    h: jax.Array
    share: jax.Array
    """`x^2 / (b + x^2)`"""
    b_log_h: jax.Array
    power: jax.Array
    """`h^(alpha - 2)`, which far out is flushed to zero for alpha up to 1"""
    grown: jax.Array
    """`h^alpha`, which far out overflows before the loss does for alpha above 1"""
    flat: jax.Array
    """whether to use `grown` instead of `power`"""


def _stretch(x: jax.Array, alpha: jax.Array) -> _Stretch:
    alpha = jnp.clip(alpha, -_ENDLESS, _ENDLESS)
    b = jnp.abs(alpha - 2)
    # At b = 0, where only h^0 occurs, any h will do.
    y = jnp.abs(x) / jnp.sqrt(jnp.where(b == 0, 1, b))
    # A tiny b must not make an infinity of a finite x.
    y = jnp.where(jnp.isfinite(x), jnp.minimum(y, jnp.finfo(x.dtype).max), y)
    near = (y < 1) & (b > 0)
    small = jnp.minimum(y, 1e10)
    root = jnp.sqrt(1 + small * small)
    h = jnp.where(y < 1e10, root, y)
    share = jnp.where(y < 1e10, jnp.square(small / root), 1)
    z = jnp.square(jnp.where(near, x, 0))
    ratio = _over(stable.log1p, z / jnp.where(near, b, 1))
    b_log_h = jnp.where(near, 0.5 * z * ratio, b * jnp.log(h))
    # alpha - 2 is exact from 1 on; below, its rounding would be multiplied by log(h).
    # Pinned, or XLA divides by h * h, which overflows.
    grown = jnp.power(h, alpha)
    far = jnp.where(
        alpha < 1, xla.no_reassociation(grown / h) / h, jnp.power(h, alpha - 2)
    )
    power = jnp.where(near, jnp.exp(jnp.sign(alpha - 2) * b_log_h), far)
    flat = ~near & ((alpha < 1) | (alpha < 1.25) & (grown < jnp.inf))
    return _Stretch(alpha, b, near, h, share, b_log_h, power, grown, flat)


def _over(fn, x: jax.Array) -> jax.Array:
    """`fn(x) / x`, and 1 at 0."""
    flat = x == 0
    return jnp.where(flat, 1, fn(x) / jnp.where(flat, 1, x))


def _rho(x: jax.Array, alpha: jax.Array) -> jax.Array:
    s = _stretch(x, alpha)
    u = s.alpha / jnp.where(s.b == 0, 1, s.b) * s.b_log_h  # alpha log(h)
    # Not the product 0 * inf: beside it h^0 is 1, and NaN and infinity would cost 0.
    u = jnp.where(s.alpha == 0, 0, u)
    alpha = jnp.where(s.alpha == 0, 1, s.alpha)
    # expm1(u) / alpha, for alpha through 0.
    by_log = s.b_log_h * _over(stable.expm1, jnp.clip(u, -0.5, 0.5))
    growth = jnp.where(s.near, stable.expm1(u), s.grown - 1)
    rho = jnp.where(jnp.abs(u) < 0.5, by_log, s.b / alpha * growth)
    # b h^alpha = (b + x^2) h^(alpha - 2), for b through 0.
    by_square = x * (x * (s.power / alpha)) + s.b * ((s.power - 1) / alpha)
    return jnp.where(s.near | s.flat, rho, by_square)


# --- slopes in x ----------------------------------------------------------------------


def _psi_dx(x: jax.Array, alpha: jax.Array) -> jax.Array:
    s = _stretch(x, alpha)
    return s.power * (jnp.square(1 / s.h) + (s.alpha - 1) * s.share)


def _psi_dalpha(x: jax.Array, alpha: jax.Array) -> jax.Array:
    return _psi(x, _beside_two(alpha)) * _lag(_log_h(x, _beside_two(alpha)))


@stable.slopes(_psi_dx, _psi_dalpha)
def _psi(x: jax.Array, alpha: jax.Array) -> jax.Array:
    s = _stretch(x, alpha)
    flat = jnp.sign(x) * jnp.sqrt(s.b * s.share) * (s.grown / s.h)
    return jnp.where(s.flat, flat, x * s.power)


def _loss_dr(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    """The slope of the loss in r."""
    return stable.safe_divide(_psi(stable.safe_divide(r, scale), alpha), scale)


# --- slopes in scale ------------------------------------------------------------------


def _exponent(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    """The power of x by which `x psi` grows: from 2 at 0 to alpha far out."""
    s = _stretch(stable.safe_divide(r, scale), alpha)
    return 2 * jnp.square(1 / s.h) + s.alpha * s.share


def _x_psi_dr(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    return _loss_dr(r, alpha, scale) * _exponent(r, alpha, scale)


def _x_psi_dalpha(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    x, alpha = stable.safe_divide(r, scale), _beside_two(alpha)
    return _x_psi(r, alpha, scale) * _lag(_log_h(x, alpha))


def _x_psi_dscale(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    return -stable.safe_divide(
        _x_psi(r, alpha, scale) * _exponent(r, alpha, scale), scale
    )


@stable.slopes(_x_psi_dr, _x_psi_dalpha, _x_psi_dscale)
def _x_psi(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    """`x psi`, where psi alone is flushed to zero for large x and alpha < 0."""
    x = stable.safe_divide(r, scale)
    s = _stretch(x, alpha)
    return jnp.where(s.flat, s.b * s.share * s.grown, x * (x * s.power))


# --- slopes in alpha ------------------------------------------------------------------
#
# The slope of rho in alpha is 2 k^2 h^alpha |chi(alpha k) - chi(2 k)| with k = log(h)
# and chi(s) = (exp(-s) - 1 + s) / s^2, the integral of (1 - t) exp(-s t) over [0, 1].
# The difference cancels for small arguments, and for alpha near 2.


def _log_h_dx(x: jax.Array, alpha: jax.Array) -> jax.Array:
    return stable.safe_divide(_stretch(x, alpha).share, x)


def _log_h_dalpha(x: jax.Array, alpha: jax.Array) -> jax.Array:
    return stable.safe_divide(_stretch(x, alpha).share / 2, 2 - alpha)


@stable.slopes(_log_h_dx, _log_h_dalpha)
def _log_h(x: jax.Array, alpha: jax.Array) -> jax.Array:
    s = _stretch(x, alpha)
    return s.b_log_h / s.b


def _beside_two(alpha: jax.Array) -> jax.Array:
    """`alpha` without its infinities and without 2, where the slope in it diverges."""
    alpha = jnp.clip(alpha, -_ENDLESS, _ENDLESS)
    return jnp.where(alpha == 2, 2 - jnp.finfo(alpha.dtype).eps, alpha)


def _lag(k: jax.Array) -> jax.Array:
    """`log(h) - share / 2`, the slope of `log(psi)` in alpha, as `2 k^2 chi(2 k)`."""
    return 2 * k * k * _chi(2 * k)


def _chi(s: jax.Array) -> jax.Array:
    """`(exp(-s) - 1 + s) / s^2` for s >= -1, by its Taylor series below 1."""
    small, large = jnp.clip(s, -1, 1), jnp.maximum(s, 1)
    terms = 11 if s.dtype == jnp.float32 else 19
    series = stable.polynomial(
        -small, [1 / math.factorial(n + 2) for n in range(terms)]
    )
    closed = (stable.expm1(-large) + large) / (large * large)
    return jnp.where(s < 1, series, closed)


def _rho_dalpha_plain(x: jax.Array, alpha: jax.Array) -> jax.Array:
    alpha = _beside_two(alpha)
    k = _log_h(x, alpha)
    middle = (k < 3) & (jnp.abs(2 - alpha) * k < 6)
    tail = ~middle & (k >= 3) & (alpha >= 1)
    # Each form gets arguments it can bear, so that none makes a NaN for another.
    only = lambda where, v, other: jnp.where(where, v, other)
    difference = _by_difference(
        only(middle | tail, 3, k), only(middle | tail, 0, alpha)
    )
    quadrature = _by_quadrature(only(middle, k, 0), only(middle, alpha, 1))
    square = _by_square(only(tail, x, 0), only(tail, k, 3), only(tail, alpha, 1))
    return jnp.where(tail, square, jnp.where(middle, quadrature, difference))


def _gauss_legendre(points: int) -> list[tuple[float, float]]:
    """Nodes t, and weights times 1 - t, on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    t = (1 + nodes) / 2
    return list(zip(t.tolist(), (weights / 2 * (1 - t)).tolist(), strict=True))


# Exact to double precision for exponents up to 12.
_NODES = _gauss_legendre(12)


def _by_quadrature(k: jax.Array, alpha: jax.Array) -> jax.Array:
    """As the integral of a difference, in which nothing cancels."""
    total = jnp.zeros_like(k)
    for t, weight in _NODES:
        gap = stable.expm1((2 - alpha) * k * t)
        total = total + weight * jnp.exp((alpha - 2 * t) * k) * gap
    return 2 * k * k * jnp.sign(2 - alpha) * total


def _by_difference(k: jax.Array, alpha: jax.Array) -> jax.Array:
    """As it stands; where h^alpha vanishes, with h^alpha chi(alpha k) in one piece."""
    low, high = jnp.minimum(alpha * k, -1), jnp.maximum(alpha * k, -1)
    faded = (low * jnp.exp(low) - stable.expm1(low)) / (low * low)
    vanishing = 2 * k * k * faded - jnp.exp(low) * _lag(k)
    half = jnp.exp(high / 2)  # the whole overflows before the result does
    growing = half * (2 * k * k * _chi(high) - _lag(k)) * half
    return jnp.sign(2 - alpha) * jnp.where(alpha * k < -1, vanishing, growing)


def _by_square(x: jax.Array, k: jax.Array, alpha: jax.Array) -> jax.Array:
    """By `b h^alpha = (b + x^2) h^(alpha - 2)`: nothing here is divided by b."""
    b, gap = jnp.abs(2 - alpha), (2 - alpha) * k
    c = (alpha + 2) / (2 * alpha * alpha)
    total = _x_psi(x, alpha, jnp.ones_like(alpha)) + b * jnp.exp(-gap)
    rest = b * c - jnp.sign(2 - alpha) / 2 * stable.expm1(-gap)
    return total * (k / alpha - c) + rest


def _rho_dalpha2(x: jax.Array, alpha: jax.Array) -> jax.Array:
    along = lambda alpha: _rho_dalpha_plain(x, alpha)
    return jax.jvp(along, (alpha,), (jnp.ones_like(alpha),))[1]


@stable.slopes(_psi_dalpha, _rho_dalpha2)
def _rho_dalpha(x: jax.Array, alpha: jax.Array) -> jax.Array:
    """The slope of rho in alpha; at alpha = 2 that at the next smaller number."""
    return _rho_dalpha_plain(x, alpha)


# --- the loss -------------------------------------------------------------------------


def _loss_dalpha(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    return _rho_dalpha(stable.safe_divide(r, scale), alpha)


def _loss_dscale(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    return -stable.safe_divide(_x_psi(r, alpha, scale), scale)


@xla.rematerialised_unless_cpu
@stable.slopes(_loss_dr, _loss_dalpha, _loss_dscale)
def loss(r: jax.Array, alpha: jax.Array, scale: jax.Array) -> jax.Array:
    """Barron's loss of residuals r; `|r / scale|` must be representable."""
    return _rho(stable.safe_divide(r, scale), alpha)
