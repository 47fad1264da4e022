"""Losses between real-valued predictions and targets."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses.regression import _residual
from jaxloss.stable import xla


@_jit.kernel()
def squared_error(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Squared error: its minimiser is the mean.

    Also called: MSE, mean squared error, MSELoss, L2 loss, quadratic loss, least
    squares, RMSE (the root of its mean).

    .. math:: \ell = r^2, \qquad r = \text{prediction} - \text{target}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual squared; not
      halved.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `2 r` with respect to `predictions`: it grows with the residual, so outliers
      dominate.  Convex, smooth.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: no
      convex: yes
      when: The mean is wanted and errors are about normal: the first choice without
        outliers.
      not when: Outliers occur: use `huber`.

    Reference:
      Gauss, "Theoria Motus Corporum Coelestium", 1809.

    Example:
      >>> jaxloss.squared_error(jnp.array([0.5, 3.0]), jnp.zeros(2))
      Array([0.25, 9.  ], dtype=float32)
    """
    return jnp.square(_residual.of("squared_error", predictions, targets))


@_jit.kernel()
def absolute_error(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Absolute error: its minimiser is the median.

    Also called: MAE, mean absolute error, L1 loss, L1Loss, LAD, least absolute
    deviations.

    .. math:: \ell = |r|, \qquad r = \text{prediction} - \text{target}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `sign(r)` with respect to `predictions`, and 0 at r = 0.  Convex.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: The median is wanted, or there are many outliers.
      not when: The gradient should go to 0 with the error: use `huber` or `log_cosh`.

    Reference:
      Laplace, "Théorie Analytique des Probabilités", 2nd supplement, 1818.

    Example:
      >>> jaxloss.absolute_error(jnp.array([0.5, -3.0]), jnp.zeros(2))
      Array([0.5, 3. ], dtype=float32)
    """
    return stable.magnitude(_residual.of("absolute_error", predictions, targets))


@_jit.kernel(quantile="(0, 1)")
def pinball(
    predictions: ArrayLike, targets: ArrayLike, *, quantile: float | jax.Array = 0.5
) -> jax.Array:
    r"""Pinball loss: its minimiser is the given quantile of the targets.

    Also called: quantile loss, quantile regression, check loss, tilted loss,
    PinballLoss, QuantileLoss.

    .. math::
       \ell = \max(\tau u,\; (\tau - 1) u), \qquad u = \text{target} - \text{prediction}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.  For several quantiles at once, give both a
        last axis of quantiles and `quantile` one value for each.
      quantile: The quantile τ in (0, 1): a target above the prediction costs τ per
        unit, a target below it 1 - τ.  A scalar, or an array that broadcasts to the
        shape of the losses.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `quantile` is a Python number outside (0, 1).

    Gradient:
      With respect to `predictions`: `-τ` where the prediction is below the target,
      `1 - τ` where it is above, and 0 where they are equal. With respect to `quantile`:
      `u`.  Convex.  At τ = 1/2 the loss is half the absolute error.

    Use:
      task: quantile
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: A quantile is wanted, such as the ends of a prediction interval, or a stock
        that suffices nine times out of ten.
      not when: The kink at the target disturbs the optimiser: use `quantile_huber`.

    Reference:
      Koenker and Bassett, "Regression Quantiles", Econometrica 46, 1978.

    Example:
      >>> jaxloss.pinball(jnp.array([0.0, 2.0]), jnp.ones(2), quantile=0.75)
      Array([0.75, 0.25], dtype=float32)
    """
    r = _residual.of("pinball", predictions, targets)
    quantile = _checks.parameter("pinball", r, quantile=quantile)
    return _side(r, quantile) * stable.magnitude(r)


@_jit.kernel(expectile="(0, 1)")
def expectile(
    predictions: ArrayLike, targets: ArrayLike, *, expectile: float | jax.Array = 0.5
) -> jax.Array:
    r"""Expectile loss: squared error with unequal weights on the two sides.

    Also called: expectile regression, asymmetric least squares, asymmetric squared
    error.

    .. math::
       \ell = |\tau - 1[u < 0]|\, u^2, \qquad u = \text{target} - \text{prediction}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.
      expectile: The expectile τ in (0, 1): the weight of a target above the prediction;
        a target below it has weight 1 - τ.  A scalar, or an array that broadcasts to
        the shape of the losses.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual squared.  At τ
      = 1/2 the loss is half the squared error.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `expectile` is a Python number outside
        (0, 1).

    Gradient:
      `-2 |τ - 1[u < 0]| u` with respect to `predictions`, and `u |u|` with respect to
      `expectile`.  Convex, once continuously differentiable.

    Use:
      task: quantile
      activation: none
      range: [0, inf)
      robust: no
      convex: yes
      when: An asymmetric mean is wanted, as for values in offline reinforcement
        learning.
      not when: The share of targets below the prediction should be known, or outliers
        occur: use `pinball`.

    Reference:
      Newey and Powell, "Asymmetric Least Squares Estimation and Testing",
      Econometrica 55, 1987.

    Example:
      >>> jaxloss.expectile(jnp.array([0.0, 3.0]), jnp.ones(2), expectile=0.75)
      Array([0.75, 1.  ], dtype=float32)
    """
    r = _residual.of("expectile", predictions, targets)
    level = _checks.parameter("expectile", r, expectile=expectile)
    return _square_on_sides(r, level)


def _square_on_sides_dr(r: jax.Array, level: jax.Array) -> jax.Array:
    return 2 * _side(r, level) * r


@stable.slopes(_square_on_sides_dr, lambda r, level: -r * stable.magnitude(r))
def _square_on_sides(r: jax.Array, level: jax.Array) -> jax.Array:
    return _side(r, level) * r * r  # not w r^2, which overflows first


@_jit.kernel(quantile="(0, 1)", delta="(0, inf)")
def quantile_huber(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    quantile: float | jax.Array = 0.5,
    delta: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Quantile Huber loss: a pinball loss that is smooth at the target.

    Also called: QR-DQN loss, Huber quantile loss, smooth quantile loss, HuberQLoss.

    .. math::
       \ell = |\tau - 1[u < 0]|\, \text{huber}_\delta(u),
       \qquad u = \text{target} - \text{prediction}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.
      quantile: The quantile τ in (0, 1), as for `pinball`.
      delta: Size of the residual at which the loss turns from quadratic to linear; > 0.
        The loss is not divided by it: as `delta` falls to 0, `quantile_huber / delta`
        becomes `pinball`.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual squared.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `quantile` or `delta` is a Python number
        outside its range.

    Gradient:
      `-|τ - 1[u < 0]| clip(u, -delta, delta)` with respect to `predictions`.  Convex,
      once continuously differentiable.

    Use:
      task: quantile
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: Quantiles are learnt with a smooth gradient, as in distributional
        reinforcement learning.
      not when: The quantile must be exact: use `pinball`. Within `delta` this loss has
        an expectile as its minimiser.

    Reference:
      Dabney et al., "Distributional Reinforcement Learning with Quantile Regression",
      AAAI 2018.

    Example:
      >>> jaxloss.quantile_huber(jnp.array([0.0, 3.0]), jnp.ones(2), quantile=0.75)
      Array([0.375, 0.375], dtype=float32)
    """
    r = _residual.of("quantile_huber", predictions, targets)
    quantile = _checks.parameter("quantile_huber", r, quantile=quantile)
    delta = _checks.parameter("quantile_huber", r, delta=delta)
    return _huber_part(_side(r, quantile), r, delta)


@stable.slopes(
    lambda part, r, delta: _residual.huber(r, delta),
    lambda part, r, delta: part * _residual.clipped(r, delta),
    lambda part, r, delta: part * _residual.excess(r, delta),
)
def _huber_part(part: jax.Array, r: jax.Array, delta: jax.Array) -> jax.Array:
    """`part * huber`, which overflows first."""
    a = jnp.abs(r)
    inner = jnp.minimum(a, delta)
    return (part * inner) * (a - 0.5 * inner)


@_jit.kernel()
def squared_log_error(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Squared log error: squared error of the logarithm of 1 + x.

    Also called: MSLE, mean squared logarithmic error, RMSLE (the root of its mean).

    .. math:: \ell = \left(\log\frac{1 + p}{1 + t}\right)^2

    Args:
      predictions: Floating array of any shape; > -1, usually an amount >= 0.
      targets: Array of the same shape; > -1.

    Returns:
      Per-element losses >= 0 of the same shape, without unit.  For amounts well above 1
      a small error costs its relative size squared.  An underestimate costs more than
      an overestimate by the same amount.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `2 log((1 + p) / (1 + t)) / (1 + p)` with respect to `predictions`.  Convex only
      up to a ratio of e; smooth.

    Use:
      task: regression, count
      activation: softplus or exp
      range: [0, inf)
      robust: no
      convex: no
      when: Targets are amounts over several orders of magnitude, and ratios matter.
      not when: The network can predict the logarithm itself: use `squared_error` of
        logarithms, which is convex.

    Reference:
      Törnqvist et al., "How Should Relative Changes Be Measured?", The American
      Statistician 39, 1985.

    Example:
      >>> jaxloss.squared_log_error(jnp.array([0.0, 1e-4]), jnp.array([1.0, 0.0]))
      Array([4.8045301e-01, 9.9990008e-09], dtype=float32)
    """
    predictions, targets = _residual.pair("squared_log_error", predictions, targets)
    return _squared_log_ratio(predictions, targets)


@stable.slopes(lambda p, t: 1 / (1 + p), lambda p, t: -1 / (1 + t))
def _log_ratio(p: jax.Array, t: jax.Array) -> jax.Array:
    """`log((1 + p) / (1 + t))`: neither a difference of logarithms nor of 1 + x."""
    ratio = (1 + p) / (1 + t)
    near = (ratio > 0.5) & (ratio < 2)
    close = stable.log1p(jnp.where(near, (p - t) / (1 + t), 0))
    # A ratio out of range has logarithms so far apart that their difference is safe.
    apart = stable.log1p(p) - stable.log1p(t)
    far = jnp.where((ratio > 0) & (ratio < jnp.inf), jnp.log(ratio), apart)
    return jnp.where(near, close, far)


_squared_log_ratio = xla.rematerialised_unless_cpu(
    lambda p, t: jnp.square(_log_ratio(p, t))
)


@_jit.kernel()
def absolute_percentage_error(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Absolute percentage error: absolute error as a fraction of the target.

    Also called: MAPE, mean absolute percentage error.

    .. math:: \ell = \frac{|p - t|}{|t|}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.  No `eps` is added to a target of 0: mask it
        with `jaxloss.mean(losses, where=targets != 0)`.

    Returns:
      Per-element losses >= 0 of the same shape: a fraction, 0.1 for ten percent;
      infinite where only the target is 0, and 0 where both are.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `sign(p - t) / |t|` with respect to `predictions`.  It is 0 at p = t and where the
      target is 0, so it is enough to mask the losses.  Convex.

    Use:
      task: regression
      activation: none
      range: [0, inf]
      robust: no
      convex: yes
      when: Errors are reported in percent and no target is near 0.
      not when: Some targets are near 0, and each of them outweighs all others: use
        `absolute_error` or `squared_log_error`.

    Reference:
      Hyndman and Koehler, "Another Look at Measures of Forecast Accuracy",
      International Journal of Forecasting 22, 2006.

    Example:
      >>> p, t = jnp.array([90.0, 0.0, 1.0]), jnp.array([100.0, 0.0, 0.0])
      >>> jaxloss.absolute_percentage_error(p, t)
      Array([0.1, 0. , inf], dtype=float32)
    """
    predictions, targets = _residual.pair(
        "absolute_percentage_error", predictions, targets
    )
    return _relative(predictions, targets)


def _relative_dp(p: jax.Array, t: jax.Array) -> jax.Array:
    # |p / t - 1| is linear in the quotient on either side of 1; on it, t plays no part.
    side = jnp.sign(p - t) * jnp.sign(t)
    return side * stable.safe_divide(jnp.ones_like(t), jnp.where(side == 0, 1, t))


def _relative_dt(p: jax.Array, t: jax.Array) -> jax.Array:
    side = jnp.sign(p - t) * jnp.sign(t)
    t = jnp.where(side == 0, 1, t)
    return -side * stable.safe_divide(stable.safe_divide(p, t), t)


@stable.slopes(_relative_dp, _relative_dt)
def _relative(p: jax.Array, t: jax.Array) -> jax.Array:
    r = jnp.abs(p - t)
    return jnp.where(r == 0, 0, r / jnp.where(r == 0, 1, jnp.abs(t)))


def _side(r: jax.Array, level: jax.Array) -> jax.Array:
    """The weight of a residual: `level` where the prediction is too low."""
    return jnp.where(r > 0, 1 - level, level)
