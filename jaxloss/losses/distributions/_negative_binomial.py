"""The negative binomial distribution: its surprise, and the derivatives of that.

With mean mu = exp(x), dispersion alpha = exp(d) = 1 / size and P = alpha t / (1 + alpha
t), a count t > 0 costs (Loader, 2000, for R)

    t log(t / mu) - (t + size) log((1 + alpha t) / (1 + alpha mu))
      + log(2 pi t (1 + alpha t)) / 2 + S(t) + S(size) - S(size + t),

S being `stable.stirling_error`: a deviance, which is 0 where the mean is the count, and
what the count costs there.  No term is negative, while the logarithms of gamma
functions in the textbook are as large as t log t, and cancel.
"""

import math

import jax
import jax.numpy as jnp

from jaxloss import stable
from jaxloss.stable import gamma, xla

# --- derivatives ---------------------------------------------------------------------
#
# With w = alpha mu and v = alpha (t - mu) / (1 + w): 1 + v = (1 + alpha t) / (1 + w).


def _dispersed(x: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`mu / (1 + w)` and `1 / (1 + w)`."""
    z = x + d
    rest = stable.sigmoid(-z)
    positive = z > 0
    mean = jnp.exp(jnp.where(positive, -d, x)) * stable.sigmoid(jnp.abs(z))
    return mean, rest


def _nll_dxx(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    mean, rest = _dispersed(x, d)
    return rest * (mean + t * stable.sigmoid(x + d))  # mu (1 + alpha t) / (1 + w)^2


def _nll_dxdd(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    return -_nll_dx(x, t, d) * stable.sigmoid(x + d)


def _nll_dxdt(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    return -stable.sigmoid(-x - d)


def _nll_dtt(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    size, one = jnp.exp(-d), jnp.ones_like(t)
    return gamma.ratio_daa(one, t) - gamma.ratio_daa(size, t)


def _nll_dtdd(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    size = jnp.exp(-d)
    at = jnp.minimum(size, float(jnp.finfo(size.dtype).max))
    slope = at * gamma.ratio_dxda(size, t)
    return stable.sigmoid(x + d) + jnp.where(jnp.isinf(size), 0, slope)


@jax.jit
@stable.slopes(_nll_dxdt, _nll_dtt, _nll_dtdd)
def _nll_dt(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    size, one = jnp.exp(-d), jnp.ones_like(t)
    counted = gamma.ratio_da(one, t) - gamma.ratio_da(size, t)
    return counted + (stable.softplus(x + d) - x)


def _log(t: jax.Array) -> jax.Array:
    """The logarithm of a count, of which none is taken at 0."""
    return jnp.where(t > 0, jnp.log(jnp.where(t > 0, t, 1)), -jnp.inf)


def _parts(log: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The size, and P and 1 - P of the logarithm of a count."""
    return jnp.exp(-d), stable.sigmoid(log + d), stable.sigmoid(-log - d)


def _deviance(
    x: jax.Array, t: jax.Array, d: jax.Array, size: jax.Array, rest: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`size (v - log1p(v))`, and its slope in -d."""
    r = -_nll_dx(x, t, d)
    v = jnp.exp(d) * r
    low, far = v < -0.5, (v < -0.5) | (v > 1)
    inner = jnp.where(far, 0, v)
    half = stable.log1p_excess_over_square(inner)
    # Where 1 + v has more digits than v, it is a ratio of the two that have them.
    ratio = stable.sigmoid(-x - d) / jnp.where(low, rest, 1)
    log = jnp.where(low, jnp.log(ratio), stable.log1p(jnp.where(low, 0, v)))
    size = jnp.where(far, size, 0)
    slope = r * stable.sigmoid(x + d) + size * (v * rest - log)
    return (
        jnp.where(far, size * (v - log), r * inner * half),
        jnp.where(far, slope, r * inner * (half - rest)),
    )


def _nll_ddd(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    size, p, rest = _parts(_log(t), d)
    _, deviance = _deviance(x, t, d, size, rest)
    at = size + t
    moved = p * stable.stirling_error_slope(at)
    moved = rest * (moved - rest * gamma.stirling_error_curve(at))
    moved = moved + gamma.stirling_error_curve(size)
    general = deviance + 0.5 * p * rest + moved
    return jnp.where(t == 1, _of_one_ddd(x, d, size), general)


# Of a count of 1 all terms cancel that do not depend on the mean.


def _log1p_remainder(
    x: jax.Array, d: jax.Array, size: jax.Array, square: float
) -> jax.Array:
    """`size (log1p(w) - w / (1 + w) - square (w / (1 + w))^2)`."""
    z = x + d
    near = z < 0
    w, share = jnp.exp(jnp.where(near, z, 0)), stable.sigmoid(z)
    bend = stable.sigmoid(-z) - stable.log1p_excess_over_square(w)
    bend = jnp.exp(jnp.where(near, x, 0)) * w * (bend - square * jnp.square(1 - share))
    outer = stable.softplus(z) - share - square * jnp.square(share)
    return jnp.where(near, bend, jnp.where(near, 0, size) * outer)


def _of_one_dd(x: jax.Array, d: jax.Array, size: jax.Array) -> jax.Array:
    return stable.sigmoid(x + d) - _log1p_remainder(x, d, size, 0.0)


def _of_one_ddd(x: jax.Array, d: jax.Array, size: jax.Array) -> jax.Array:
    return stable.sigmoid_slope(x + d) + _log1p_remainder(x, d, size, 1.0)


@jax.jit
@stable.slopes(_nll_dxx, _nll_dxdt, _nll_dxdd)
def _nll_dx(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    """`(mu - t) / (1 + w)`, by the exact difference of t from 1 where mu is near 1."""
    mean, rest = _dispersed(x, d)
    near = jnp.abs(x) < 0.5
    close = stable.expm1(jnp.where(near, x, 0)) + (1 - t)
    return jnp.where(near, close * rest, mean - t * rest)


@jax.jit
@stable.slopes(_nll_dxdd, _nll_dtdd, _nll_ddd)
def _nll_dd(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    """`-size (v - log1p(v)) + P / 2`, and the slopes of S."""
    size, p, rest = _parts(_log(t), d)
    deviance, _ = _deviance(x, t, d, size, rest)
    moved = stable.stirling_error_slope(size)
    moved = moved - rest * stable.stirling_error_slope(size + t)
    general = 0.5 * p - deviance + moved
    return jnp.where(t == 1, _of_one_dd(x, d, size), general)


# --- value ---------------------------------------------------------------------------


def _bregman(q: jax.Array, p: jax.Array) -> jax.Array:
    """`log1p(p expm1(q)) / p - q` >= 0 for 0 <= p <= 1/2: half of q^2 (1 - p) near 0.

    expm1(q) - q, which it is at p = 0, less what the logarithm is below its argument.
    """
    near = jnp.abs(q) < 1.5
    inner = jnp.where(near, q, 0)
    w = stable.expm1(inner)
    close = p * w * w * stable.log1p_excess_over_square(p * w)
    close = stable.expm1_excess(inner) - close
    # Far out p may be 0, or its product with an exponential that is infinite.
    limit = math.log(float(jnp.finfo(q.dtype).max)) - 0.2
    outer = jnp.where(near, 2, q)
    grown = stable.expm1(jnp.minimum(outer, limit))
    v = p * grown
    ratio = 1 - jnp.minimum(v, 1) * stable.log1p_excess_over_square(jnp.minimum(v, 1))
    large = jnp.where(v > 1, p, 1)
    log = (stable.log1p(v) + jnp.maximum(outer - limit, 0)) / large
    small = jnp.where(outer > limit, jnp.inf, grown * ratio)
    return jnp.where(near, close, jnp.where(v > 1, log, small) - outer)


def _large(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    """The loss of a count t >= 1."""
    log = jnp.log(t)
    size, p, rest = _parts(log, d)
    q = x - log
    even = p <= 0.5
    deviance = _bregman(jnp.where(even, q, -q), jnp.where(even, p, rest))
    deviance = deviance * jnp.where(even, t, size)
    spread = 0.5 * (math.log(2 * math.pi) + log + stable.softplus(log + d))
    at = size + t
    stirling = stable.stirling_error(size) - stable.stirling_error(at)
    return deviance + (spread + stirling + stable.stirling_error(t))


def _small(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    """The loss of a count t < 1: by the textbook, of which no term is large."""
    size, mean = jnp.exp(-d), jnp.exp(x)
    z = x + d
    low = z < 0
    w = jnp.exp(jnp.where(low, z, 0))
    none = jnp.where(low, mean, 0) * (1 - w * stable.log1p_excess_over_square(w))
    softplus = stable.softplus(z)
    none = jnp.where(low, none, jnp.where(low, 0, size) * softplus)
    counted = stable.log_gamma_ratio(jnp.ones_like(t), t)
    counted = counted - stable.log_gamma_ratio(size, t)
    rate = jnp.where(t == 0, 0, t * (softplus - jnp.where(t == 0, 0, x)))
    return none + (counted + rate)


@xla.rematerialised
@jax.jit
@stable.slopes(_nll_dx, _nll_dt, _nll_dd)
def nll(x: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    """The loss of a log-mean x, a count t and a log-dispersion d."""
    large, no_rate = t >= 1, x == -jnp.inf
    losses = jnp.where(
        large,
        _large(jnp.where(no_rate, 0, x), jnp.where(large, t, 1), d),
        _small(x, jnp.where(large, 0, t), d),
    )
    return jnp.where(no_rate & (t > 0), jnp.inf, losses)
