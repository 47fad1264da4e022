"""Scores of probabilistic forecasts, in the unit of the targets.

Each is proper: in expectation it is least for the distribution that the targets have.
None subtracts the spread of a forecast from its error: the score of an ensemble is a
sum of terms >= 0, and that of a normal distribution a polynomial where it is small.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.losses.distributions import _ranks
from jaxloss.losses.distributions._standardised import divided_by_exp

# --- the normal distribution ---------------------------------------------------------


@_jit.kernel()
def crps_normal(
    means: ArrayLike, targets: ArrayLike, log_scales: ArrayLike
) -> jax.Array:
    r"""Continuous ranked probability score of a normal distribution.

    Also called: CRPS, continuous ranked probability score, Gaussian CRPS,
    crps_gaussian.

    .. math::
       \ell = r \operatorname{erf}(z / \sqrt 2)
       + \sigma \left(2 \varphi(z) - \frac{1}{\sqrt\pi}\right), \qquad
       r = \text{mean} - \text{target},\; z = r / \sigma

    It is the integral of the squared difference of the predicted cumulative
    distribution and that of the target, which is a step.  With a scale of 0 it is the
    absolute error.

    Args:
      means: Floating array of any shape.
      targets: Array of the same shape.
      log_scales: Array of the same shape, the logarithms of the standard deviations;
        -inf is a scale of 0.  The output of a network needs no activation, and the
        loss needs no smallest scale.

    Returns:
      Per-element losses >= 0 of the same shape, in the unit of the targets: 0.2337
      scales where the mean is right, and 0.5642 scales less than `|r|` where it is far
      off.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `erf(z / sqrt(2))` with respect to `means`, minus that with respect to `targets`,
      and `sigma (2 phi(z) - 1 / sqrt(pi))` with respect to `log_scales`, with the
      normal density phi: no division by the scale.  Convex in the means and in the
      scales, but not in their logarithms.  Smooth.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: no (in the scales; yes in the means)
      convex: yes
      when: Mean and spread should be predicted, with some outliers: it is linear in an
        error, where a likelihood is quadratic.
      not when: Densities matter, as for anomalies: use `gaussian_nll`.

    Reference:
      Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
      JASA 102, 2007; Gneiting et al., "Calibrated Probabilistic Forecasting Using
      Ensemble Model Output Statistics and Minimum CRPS Estimation", Monthly Weather
      Review 133, 2005.

    Example:
      >>> jaxloss.crps_normal(jnp.array([0.0, 3.0]), jnp.zeros(2), jnp.zeros(2))
      Array([0.23369497, 2.4365747 ], dtype=float32)
    """
    name = "crps_normal"
    means, targets, log_scales = _checks.floating(
        name, means=means, targets=targets, log_scales=log_scales
    )
    _checks.same_shape(name, means=means, targets=targets, log_scales=log_scales)
    return _normal(means - targets, log_scales)


_LIMIT = 1e4
"""Standard deviations from which on nothing changes: the density is 0."""
_NEAR = 1.5
_ABOVE = 1 / math.sqrt(math.pi)
_LEAST = math.sqrt(2 / math.pi) - _ABOVE
# Minimax coefficients of (C(z) - C(0)) / z^2 in z^2 on [0, 9/4], where C is the score
# of scale 1: 0.07 ulp of float32.
_CRPS = [
    0.39894224378907567,
    -0.033244803930935735,
    0.003323227736456161,
    -0.0002948956578128029,
    2.1626623245877524e-05,
    -1.0180930905336966e-06,
]
# Its Taylor series, to 2 digits more than float64 has.
_TAYLOR = [
    math.sqrt(2 / math.pi) * (-1) ** n / (2 ** (n + 1) * math.factorial(n + 1))
    / (2 * n + 1)
    for n in range(18)
]  # fmt: skip


def _standardised(r: jax.Array, s: jax.Array) -> jax.Array:
    return jnp.clip(divided_by_exp(r, s, 2), -_LIMIT, _LIMIT)


def _times_scale(x: jax.Array, s: jax.Array) -> jax.Array:
    """`x exp(s)` for |x| <= 1, finite where exp(s) alone would not be."""
    root = jnp.exp(0.5 * s)
    return root * (root * x)


def _density(z: jax.Array) -> jax.Array:
    """Twice that of the normal distribution."""
    return math.sqrt(2 / math.pi) * jnp.exp(-0.5 * z * z)


def _normal_drdr(r: jax.Array, s: jax.Array) -> jax.Array:
    """`2 phi(z) / sigma`, as a square: neither factor is finite alone."""
    z = _standardised(r, s)
    root = divided_by_exp(jnp.exp(-0.25 * z * z), s, 4)
    return math.sqrt(2 / math.pi) * root * root


def _normal_drds(r: jax.Array, s: jax.Array) -> jax.Array:
    z = _standardised(r, s)
    return -z * _density(z)


def _normal_dsds(r: jax.Array, s: jax.Array) -> jax.Array:
    z = _standardised(r, s)
    return _times_scale(_density(z) * (1 + z * z) - _ABOVE, s)


@stable.slopes(_normal_drdr, _normal_drds)
def _normal_dr(r: jax.Array, s: jax.Array) -> jax.Array:
    return lax.erf(_standardised(r, s) * math.sqrt(0.5))


@stable.slopes(_normal_drds, _normal_dsds)
def _normal_ds(r: jax.Array, s: jax.Array) -> jax.Array:
    return _times_scale(_density(_standardised(r, s)) - _ABOVE, s)


@stable.slopes(_normal_dr, _normal_ds)
def _normal(r: jax.Array, s: jax.Array) -> jax.Array:
    z = jnp.abs(_standardised(r, s))
    square = jnp.minimum(z * z, _NEAR**2)
    series = _CRPS if r.dtype == jnp.float32 else _TAYLOR
    near = _times_scale(_LEAST + square * stable.polynomial(square, series), s)
    # |r| plus twice the expected excess over it, which is small, less a constant share.
    excess = _density(z) - z * lax.erfc(z * math.sqrt(0.5))
    far = jnp.abs(r) + _times_scale(excess - _ABOVE, s)
    return jnp.where(z < _NEAR, near, far)


# --- ensembles -----------------------------------------------------------------------


@_jit.kernel()
def crps_ensemble(
    members: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    r"""Continuous ranked probability score of an ensemble, as a distribution.

    Also called: ensemble CRPS, empirical CRPS, CRPS of samples, crps_sample.

    .. math::
       \ell = \frac{1}{M} \sum_i |x_i - y|
       - \frac{1}{2 M^2} \sum_{i,j} |x_i - x_j|

    The M members are the whole forecast: M equally likely values.  If they are
    draws, the score is on average larger than that of their distribution, by the mean
    distance of two draws over 2 M; `crps_ensemble_fair` corrects this.

    Args:
      members: Floating array `(..., members)`; their order does not matter.
      targets: Array of the shape of `members` without its last axis.
      where: Boolean mask of the shape of `members`, default all true.  A masked member
        does not exist.

    Returns:
      One loss >= 0 for each ensemble, of the shape of `targets`, in their unit: a sum
      of terms >= 0, from the ranks of the members.  That of one member is the absolute
      error, and that of none is 0.

    Raises:
      TypeError: If `members` or `targets` are not floating, or `where` not boolean.
      ValueError: If a shape does not fit, or there is no member.

    Gradient:
      `sign(x_i - y) / M - (b_i - a_i) / M^2` with respect to a member with b_i others
      below and a_i above it, and `sign(0) = 0`; minus their sum with respect to the
      target.  Constant between two orders, so the second derivative is 0.  Not convex:
      it rewards spread.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: no
      when: A forecast is a set of scenarios, which is used as it is.
      not when: The members are draws from a model that is trained: use
        `crps_ensemble_fair`.

    Reference:
      Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
      JASA 102, 2007.

    Example:
      >>> jaxloss.crps_ensemble(jnp.array([1.0, 2.0, 4.0]), jnp.array(2.0))
      Array(0.33333334, dtype=float32)
    """
    x, y, valid = _ensembles("crps_ensemble", members, targets, where)
    return _ranks.score(x, y, valid, False)


@_jit.kernel()
def crps_ensemble_fair(
    members: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    r"""Continuous ranked probability score of what an ensemble is drawn from.

    Also called: fair CRPS, unbiased CRPS, fCRPS, CRPS by probability-weighted moments.

    .. math::
       \ell = \frac{1}{M} \sum_i |x_i - y|
       - \frac{1}{2 M (M - 1)} \sum_{i,j} |x_i - x_j|

    Its expectation over M independent draws is the score of their distribution,
    whatever M is: so forecasts of different sizes can be compared, and a model that is
    trained by few draws is not rewarded for too little spread.

    Args:
      members: Floating array `(..., members)` of at least two members; their order does
        not matter.
      targets: Array of the shape of `members` without its last axis.
      where: Boolean mask of the shape of `members`, default all true.  A masked member
        does not exist.

    Returns:
      One loss >= 0 for each ensemble, of the shape of `targets`, in their unit: a sum
      of terms >= 0, from the ranks of the members.  It is 0 for every target
      between two members, and where the target is the middle one of three.  That of no
      member is 0, and that of one is NaN.

    Raises:
      TypeError: If `members` or `targets` are not floating, or `where` not boolean.
      ValueError: If a shape does not fit, or there are fewer than two members.

    Gradient:
      `sign(x_i - y) / M - (b_i - a_i) / (M (M - 1))` with respect to a member with b_i
      others below and a_i above it, and `sign(0) = 0`; minus their sum with respect to
      the target.  Constant between two orders, so the second derivative is 0.  Not
      convex: it rewards spread.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: no
      when: The members are draws from a generative model, few for each example.
      not when: The members are the forecast itself, and not draws: use `crps_ensemble`.

    Reference:
      Ferro, "Fair Scores for Ensemble Forecasts", Quarterly Journal of the Royal
      Meteorological Society 140, 2014.

    Example:
      >>> jaxloss.crps_ensemble_fair(jnp.array([1.0, 2.0, 4.0]), jnp.array(0.0))
      Array(1.3333334, dtype=float32)
    """
    name = "crps_ensemble_fair"
    x, y, valid = _ensembles(name, members, targets, where)
    if x.shape[-1] == 1:
        expected = "at least two: of one member the spread is not known"
        _checks.fail(name, "members", f"shape {x.shape}, one member each", expected)
    count = jnp.sum(valid, axis=-1)
    losses = _ranks.score(x, y, valid, True)
    return _classes.nan_unless(count != 1, losses)


def _ensembles(
    name: str, members: ArrayLike, targets: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Members, 0 where masked; targets; and the mask: checked."""
    x, y = _checks.floating(name, members=members, targets=targets)
    _checks.at_least_1d(name, members=x)
    _checks.row_axis(name, -1, "member", members=x)
    _checks.has_shape(name, x.shape[:-1], "one target per ensemble", targets=y)
    if where is None:
        return x, y, jnp.ones(x.shape, bool)
    (valid,) = _checks.boolean(name, where=where)
    _checks.same_shape(name, members=x, where=valid)
    return jnp.where(valid, x, 0), y, valid


# --- ensembles of vectors ------------------------------------------------------------


@_jit.kernel()
def energy_score(members: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Energy score: the ranked probability score of an ensemble of vectors.

    Also called: energy score, multivariate CRPS, es_ensemble.

    .. math::
       \ell = \frac{1}{M} \sum_i \|x_i - y\|_2
       - \frac{1}{2 M^2} \sum_{i,j} \|x_i - x_j\|_2

    Args:
      members: Floating array `(..., members, components)`; the order of the members
        does not matter.
      targets: Array `(..., components)`.

    Returns:
      One loss >= 0 for each ensemble, of shape `(...,)`, in the unit of the targets:
      for one component that of `crps_ensemble`, up to rounding; for one member the
      distance.  Where M^2 vectors are many numbers, the pairs are computed in blocks,
      one after the other.

    Raises:
      TypeError: If `members` or `targets` are not floating.
      ValueError: If a shape does not fit, or there is no member or no component.

    Gradient:
      `u(x_i - y) / M - sum_j u(x_i - x_j) / M^2` with respect to a member, where u is
      the unit vector and `u(0) = 0`; `-sum_i u(x_i - y) / M` with respect to the
      target.  Not convex: it rewards spread.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: no
      when: A forecast is a set of scenarios of several quantities at once, such as the
        next 24 hours.
      not when: Each quantity is looked at alone: use `crps_ensemble`.

    Reference:
      Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
      JASA 102, 2007.

    Example:
      >>> members = jnp.array([[0.0, 0.0], [3.0, 4.0]])
      >>> jaxloss.energy_score(members, jnp.zeros(2))
      Array(1.25, dtype=float32)
    """
    name = "energy_score"
    x, y = _checks.floating(name, members=members, targets=targets)
    if x.ndim < 2:
        _checks.fail(name, "members", f"shape {x.shape}", "(..., members, components)")
    _checks.row_axis(name, -2, "member", members=x)
    _checks.row_axis(name, -1, "component", members=x)
    shape = (*x.shape[:-2], x.shape[-1])
    _checks.has_shape(name, shape, "one vector per ensemble", targets=y)
    errors = stable.norm(x - y[..., None, :])
    return jnp.mean(errors, axis=-1) - _half_distance(x)


@jax.custom_jvp
def _half_distance(x: jax.Array) -> jax.Array:
    """Half of the mean distance of two members."""

    def of(member: jax.Array) -> jax.Array:
        return jnp.mean(stable.norm(member[..., None, :] - x), axis=-1)

    return jnp.mean(_by_member(of, x), axis=-1) / 2


@_half_distance.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    # Autodiff would keep all pairs, and add up each direction twice.
    return _half_distance(x), jnp.sum(_half_distance_dx(x) * t, axis=(-2, -1))


def _half_distance_dx(x: jax.Array) -> jax.Array:
    def of(member: jax.Array) -> jax.Array:
        return jnp.sum(stable.unit(member[..., None, :] - x), axis=-2)

    return _by_member(of, x) / x.shape[-2] ** 2


_PAIRS = 2**20
"""The most numbers in an array of pairs."""


def _by_member(of: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """A function of one member, in an axis where the members were; it also has all.

    By blocks if an array of pairs would be large; derivatives compute each again.
    """
    known = [n for n in x.shape if isinstance(n, int)]  # of an export some are not
    of_one = math.prod(known)
    members = jnp.moveaxis(x, -2, 0)
    if of_one * x.shape[-2] <= _PAIRS:
        found = jax.vmap(of)(members)
    else:
        size = max(1, _PAIRS // of_one)
        found = lax.map(jax.checkpoint(of), members, batch_size=size)
    return jnp.moveaxis(found, 0, x.ndim - 2)
