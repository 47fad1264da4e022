"""Student's t: its surprise, and the derivatives of that.

With z = r exp(-s), the residual in units of the scale, and h = z^2 / nu, the loss is

    s + log(2 pi) / 2 - log_gamma_ratio(nu / 2, 1/2) + (nu + 1) / 2 log1p(h).

Where h <= 1, everything is a function of z and 1 / nu, so nu = inf is the Gaussian.
Where h > 1, of log h or 1 / h, so z^2 is never formed: it overflows first.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxloss import stable
from jaxloss.losses.distributions._standardised import divided_by_exp
from jaxloss.stable import xla
from jaxloss.stable.gamma import ratio_dx, ratio_dxx


class _Residual(NamedTuple):
    """A residual in units of the scale, near and far out."""

    far: jax.Array
    """Whether h > 1."""
    z: jax.Array
    """0 far out."""
    inverse: jax.Array
    """`1 / z` far out, and 0 elsewhere."""
    h: jax.Array
    """`z^2 / nu`, and `nu / z^2` far out."""


def _standardised(r: jax.Array, s: jax.Array, nu: jax.Array) -> _Residual:
    largest = float(jnp.finfo(r.dtype).max)
    z = jnp.clip(divided_by_exp(r, s, 2), -largest, largest)
    h = (z / nu) * z
    far = h > 1
    inverse = jnp.where(far, 1 / jnp.where(far, z, 1), 0)
    reciprocal = (jnp.where(far, nu, 0) * inverse) * inverse
    return _Residual(far, jnp.where(far, 0, z), inverse, jnp.where(far, reciprocal, h))


def _scaled(r: jax.Array, s: jax.Array, z: jax.Array, far: jax.Array) -> jax.Array:
    """`z exp(-s)`, and `1 / r` far out."""
    return jnp.where(far, 1 / jnp.where(far, r, 1), divided_by_exp(z, s, 2))


# --- second derivatives --------------------------------------------------------------


def _nll_drr(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, z, _, h = _standardised(r, s, nu)
    one = jnp.where(far, nu + 1, 1 + 1 / nu)
    precision = divided_by_exp(jnp.ones_like(s), s, 1)
    inverse = _scaled(r, s, z, far)
    curve = jnp.where(far, (one * inverse) * inverse, one * precision)
    return curve * jnp.where(far, h - 1, 1 - h) / jnp.square(1 + h)


def _nll_drds(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, _, _, h = _standardised(r, s, nu)
    return -2 * _nll_dr(r, s, nu) * jnp.where(far, h, 1) / (1 + h)


def _nll_dss(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, z, inverse, h = _standardised(r, s, nu)
    finite = jnp.where(far, nu, 0)
    share = ((finite + 1) * inverse) * (finite * inverse)
    share = jnp.where(far, share, (1 + 1 / nu) * (z * z))
    return 2 * share / jnp.square(1 + h)


def _nll_drdnu(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, z, _, h = _standardised(r, s, nu)
    part = jnp.where(far, 1 - h / nu, (h - 1 / nu) / nu)
    return _scaled(r, s, z, far) * part / jnp.square(1 + h)


def _nll_dsdnu(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, z, _, h = _standardised(r, s, nu)
    part = jnp.where(far, 1 - h / nu, z * (z / nu) * (h - 1 / nu))
    return -part / jnp.square(1 + h)


def _nll_dnunu(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, _, _, h = _standardised(r, s, nu)
    bend = jnp.where(far, (2 * h + 1) / nu - 1, h * ((2 + h) / nu - h))
    half = jnp.full_like(nu, 0.5)
    return 0.5 * (bend / nu) / jnp.square(1 + h) - 0.25 * ratio_dxx(0.5 * nu, half)


# --- first derivatives ---------------------------------------------------------------


@jax.jit
@stable.slopes(_nll_drr, _nll_drds, _nll_drdnu)
def _nll_dr(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, z, _, h = _standardised(r, s, nu)
    return jnp.where(far, nu + 1, 1 + 1 / nu) * _scaled(r, s, z, far) / (1 + h)


@jax.jit
@stable.slopes(_nll_drds, _nll_dss, _nll_dsdnu)
def _nll_ds(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, z, _, h = _standardised(r, s, nu)
    return jnp.where(far, h - nu, (1 - z) * (1 + z)) / (1 + h)


@jax.jit
@stable.slopes(_nll_drdnu, _nll_dsdnu, _nll_dnunu)
def _nll_dnu(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    far, _, _, h = _standardised(r, s, nu)
    # log1p(h) - h / (1 + h) = h^2 (1 / (1 + h) - log1p_excess_over_square(h)).
    inner = h * h * (1 / (1 + h) - stable.log1p_excess_over_square(h))
    outer = _log_h(r, s, nu, far) + stable.log1p(h) - 1 / (1 + h)
    bend = jnp.where(far, outer, inner) - jnp.where(far, 1, h) / nu / (1 + h)
    return 0.5 * (bend - ratio_dx(0.5 * nu, jnp.full_like(nu, 0.5)))


def _log_h(r: jax.Array, s: jax.Array, nu: jax.Array, far: jax.Array) -> jax.Array:
    """`log h` far out, where it is positive; 0 elsewhere."""
    size = jnp.log(jnp.abs(jnp.where(far, r, 1)))
    return 2 * (size - jnp.where(far, s, 0)) - jnp.log(jnp.where(far, nu, 1))


@xla.rematerialised
@jax.jit
@stable.slopes(_nll_dr, _nll_ds, _nll_dnu)
def nll(r: jax.Array, s: jax.Array, nu: jax.Array) -> jax.Array:
    """The loss of a residual r, a log-scale s and nu degrees of freedom."""
    far, z, _, h = _standardised(r, s, nu)
    log = stable.log1p(h)
    # (nu + 1) / 2 log1p(h), by nu log1p(h) = z^2 (1 - h log1p_excess_over_square(h)).
    near = 0.5 * (z * z) * (1 - h * stable.log1p_excess_over_square(h)) + 0.5 * log
    outer = 0.5 * (jnp.where(far, nu, 1) + 1) * (_log_h(r, s, nu, far) + log)
    half = jnp.full_like(nu, 0.5)
    normaliser = 0.5 * math.log(2 * math.pi) - stable.log_gamma_ratio(0.5 * nu, half)
    return s + (normaliser + jnp.where(far, outer, near))
