"""Shared by the losses of a residual: its checks, and functions with a limit.

The derivatives are given by hand: autodiff of `maximum` and `clip` gives half the slope
where the residual is at the limit, and rounds a tiny slope to 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, stable
from jaxloss.stable import xla


def of(loss: str, predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """`predictions - targets`, checked."""
    predictions, targets = pair(loss, predictions, targets)
    return predictions - targets


def of_difference(kernel: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of a residual (and more), as one of predictions and targets.

    The subtraction is inside of `xla.rematerialised`: outside, the loss and its
    gradient would share its result.
    """
    return xla.rematerialised(lambda p, t, *more: kernel(p - t, *more))


def pair(
    loss: str, predictions: ArrayLike, targets: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Both as floating arrays of one dtype; raises unless their shapes are equal."""
    p, t = _checks.floating(loss, predictions=predictions, targets=targets)
    _checks.same_shape(loss, predictions=p, targets=t)
    return p, t


def _outside(r: jax.Array, limit: jax.Array) -> jax.Array:
    """`sign(r)` where `|r| > limit`, else 0."""
    return jnp.where(jnp.abs(r) <= limit, 0, jnp.sign(r))


def _is_outside(r: jax.Array, limit: jax.Array) -> jax.Array:
    return jnp.abs(_outside(r, limit))


@stable.slopes(_outside, lambda r, limit: -_is_outside(r, limit))
def excess(r: jax.Array, limit: jax.Array) -> jax.Array:
    """`max(0, |r| - limit)`; derivatives 0 at the limit."""
    return jnp.maximum(jnp.abs(r) - limit, 0)


@stable.slopes(lambda r, limit: 1 - _is_outside(r, limit), _outside)
def clipped(r: jax.Array, limit: jax.Array) -> jax.Array:
    """`r` between `-limit` and `limit`; slope 1 at the limit."""
    return jnp.clip(r, -limit, limit)


@stable.slopes(clipped, excess)
def huber(r: jax.Array, delta: jax.Array) -> jax.Array:
    """`r^2 / 2` up to delta, `delta |r| - delta^2 / 2` beyond it."""
    (half,) = xla.opaque_constants(r, 0.5)
    a = jnp.abs(r)
    inner = jnp.minimum(a, delta)  # `clip` would not be taken up into a sum
    return inner * (a - half * inner)  # the outlier is never squared


def _ramp_dr(r: jax.Array, beta: jax.Array) -> jax.Array:
    inverse = stable.safe_divide(jnp.ones_like(beta), beta)
    return jnp.where(jnp.abs(r) <= beta, inverse, 0)


def _ramp_dbeta(r: jax.Array, beta: jax.Array) -> jax.Array:
    return -_ramp(r, beta) * _ramp_dr(r, beta)


@stable.slopes(_ramp_dr, _ramp_dbeta)
def _ramp(r: jax.Array, beta: jax.Array) -> jax.Array:
    """`clip(r / beta, -1, 1)`, and 0 at 0 / 0."""
    return jnp.where(jnp.abs(r) <= beta, stable.safe_divide(r, beta), jnp.sign(r))


@stable.slopes(_ramp, lambda r, beta: -0.5 * jnp.square(_ramp(r, beta)))
def smooth_l1(r: jax.Array, beta: jax.Array) -> jax.Array:
    """`huber / beta`; not computed so, for a beta of 1e-30 would square to 0."""
    return _ramp(r, beta) * (r - clipped(r, beta) / 2)
