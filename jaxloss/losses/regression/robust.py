"""Regression losses that no single outlier can dominate."""

import jax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses.regression import _barron, _residual


@_jit.kernel(delta="(0, inf)")
def huber(
    predictions: ArrayLike, targets: ArrayLike, *, delta: float | jax.Array = 1.0
) -> jax.Array:
    r"""Huber loss: quadratic near zero, linear in the tails.

    Also called: Huber loss, HuberLoss, huber_loss.

    .. math::
       \ell(r) = \begin{cases} r^2/2 & |r| \le \delta \\
                               \delta(|r| - \delta/2) & |r| > \delta \end{cases}
       \qquad r = \text{prediction} - \text{target}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.
      delta: Size of the residual at which the loss turns from quadratic to linear; > 0.
        A scalar, or an array that broadcasts to the shape of the losses.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual squared.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `delta` is a Python number <= 0.

    Gradient:
      `clip(r, -delta, delta)` with respect to `predictions`, so the gradient of an
      outlier is at most `delta`.  `max(0, |r| - delta)` with respect to `delta`.
      Convex, once continuously differentiable.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: Outliers occur, and the size of an ordinary error is known: the first choice
        with outliers.
      not when: Outliers should be ignored altogether: use `general_robust` with `alpha`
        < 0.

    Reference:
      Huber, "Robust Estimation of a Location Parameter", Ann. Math. Stat. 35, 1964.

    Example:
      >>> jaxloss.huber(jnp.array([0.5, 3.0]), jnp.zeros(2))
      Array([0.125, 2.5  ], dtype=float32)
    """
    predictions, targets = _residual.pair("huber", predictions, targets)
    delta = _checks.parameter("huber", predictions, delta=delta)
    return _huber(predictions, targets, delta)


@_jit.kernel(beta="[0, inf)")
def smooth_l1(
    predictions: ArrayLike, targets: ArrayLike, *, beta: float | jax.Array = 1.0
) -> jax.Array:
    r"""Smooth L1 loss: absolute error, but quadratic near zero.

    Also called: SmoothL1Loss, smooth L1 loss, smooth absolute error, box regression
    loss.

    .. math::
       \ell(r) = \begin{cases} r^2/(2\beta) & |r| \le \beta \\
                               |r| - \beta/2 & |r| > \beta \end{cases}
       \qquad r = \text{prediction} - \text{target}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.
      beta: Size of the residual at which the loss turns from quadratic to linear; >= 0.
        0 gives the absolute error.  A scalar, or an array that broadcasts to the shape
        of the losses.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual.  Each is
      `huber` with `delta=beta`, divided by `beta`.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `beta` is a Python number < 0.

    Gradient:
      `g = clip(r / beta, -1, 1)` with respect to `predictions`, and `-g^2 / 2` with
      respect to `beta`; both are 0 at r = 0.  Convex; once continuously differentiable
      for `beta` > 0.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: An absolute error without a kink is wanted, as for the boxes of a detector.
      not when: The loss of small residuals should not depend on `beta`: use `huber`.

    Reference:
      Girshick, "Fast R-CNN", ICCV 2015.

    Example:
      >>> jaxloss.smooth_l1(jnp.array([0.25, 3.0]), jnp.zeros(2), beta=0.5)
      Array([0.0625, 2.75  ], dtype=float32)
    """
    r = _residual.of("smooth_l1", predictions, targets)
    beta = _checks.parameter("smooth_l1", r, beta=beta)
    return _residual.smooth_l1(r, beta)


@_jit.kernel()
def log_cosh(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Log-cosh loss: a Huber loss that is smooth everywhere.

    Also called: log-cosh loss, LogCosh, logarithm of the hyperbolic cosine.

    .. math:: \ell = \log\cosh r, \qquad r = \text{prediction} - \text{target}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.

    Returns:
      Per-element losses >= 0 of the same shape: about `r^2 / 2` for small residuals and
      `|r| - log 2` for large ones.  The bend is at |r| = 1, so first divide the
      residuals by their typical size.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `tanh(r)` with respect to `predictions`.  Convex, smooth.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: A second-order method needs a robust loss that is smooth everywhere.
      not when: You need to choose where the bend is: use `huber`.

    Reference:
      Saleh and Saleh, "Statistical Properties of the log-cosh Loss Function Used in
      Machine Learning", 2022.

    Example:
      >>> jaxloss.log_cosh(jnp.array([1e-4, 3.0]), jnp.zeros(2))
      Array([5.000000e-09, 2.309328e+00], dtype=float32)
    """
    return _log_cosh(*_residual.pair("log_cosh", predictions, targets))


@_jit.kernel(epsilon="[0, inf)")
def epsilon_insensitive(
    predictions: ArrayLike, targets: ArrayLike, *, epsilon: float | jax.Array = 0.1
) -> jax.Array:
    r"""Epsilon-insensitive loss: absolute error beyond a tolerance.

    Also called: SVR loss, support vector regression, tube loss.

    .. math::
       \ell = \max(0,\; |r| - \varepsilon), \qquad
       r = \text{prediction} - \text{target}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.
      epsilon: Half the width of the tube in which errors cost nothing, in units of the
        residual; >= 0.  A scalar, or an array that broadcasts to the shape of the
        losses.

    Returns:
      Per-element losses >= 0 of the same shape, in units of the residual.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `epsilon` is a Python number < 0.

    Gradient:
      Outside the tube, `sign(r)` with respect to `predictions` and -1 with respect to
      `epsilon`; inside it and on its edge, 0.  Convex.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: Errors within a tolerance do not matter, as in support vector regression.
      not when: Every error matters, small ones less: use `huber`.

    Reference:
      Drucker et al., "Support Vector Regression Machines", NIPS 1996.

    Example:
      >>> jaxloss.epsilon_insensitive(jnp.array([0.1, 3.0]), jnp.zeros(2), epsilon=0.5)
      Array([0. , 2.5], dtype=float32)
    """
    r = _residual.of("epsilon_insensitive", predictions, targets)
    epsilon = _checks.parameter("epsilon_insensitive", r, epsilon=epsilon)
    return _residual.excess(r, epsilon)


@_jit.kernel(alpha="[-inf, inf]", scale="(0, inf)")
def general_robust(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    alpha: float | jax.Array = 1.0,
    scale: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Barron's family of losses, from squared error to ignoring outliers.

    Also called: Barron loss, adaptive robust loss, Charbonnier loss, pseudo-Huber loss,
    Cauchy loss, Lorentzian, Geman-McClure loss, Welsch loss, Leclerc loss.

    .. math::
       \ell = \frac{|\alpha - 2|}{\alpha} \left(\left(
              \frac{z}{|\alpha - 2|} + 1 \right)^{\alpha/2} - 1\right), \qquad
       z = (r / c)^2,\; r = \text{prediction} - \text{target}

    Args:
      predictions: Floating array of any shape.
      targets: Array of the same shape.
      alpha: Shape α, any real number or an infinity; where the formula is undefined,
        its limit is taken.  2: `z/2`; 1: `sqrt(z + 1) - 1` (Charbonnier); 0:
        `log(z/2 + 1)` (Cauchy); -2: `2z / (z + 4)` (Geman-McClure); -inf:
        `1 - exp(-z/2)` (Welsch).  To learn α, add the log of the normaliser: without
        it, the loss is least at α = -inf.
      scale: Scale c of an ordinary residual, in its units; > 0.  `alpha` and `scale`
        may be scalars or arrays that broadcast to the shape of the losses.

    Returns:
      Per-element losses >= 0 of the same shape, without unit: about `z/2` for small
      residuals at every α, and at most `|α - 2| / |α|` for α < 0.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `scale` is a Python number <= 0.

    Gradient:
      `r / c^2 (z/|α-2| + 1)^(α/2 - 1)` with respect to `predictions`: at most `1/c` for
      α <= 1, and falling to 0 for large residuals if α < 1.  `-r/c` times that with
      respect to `scale`.  Convex for α >= 1; smooth.  The derivative in α grows like
      `z log(z/|α-2|) / 4` towards α = 2, where it is infinite; at α = 2 that of the
      next smaller number is returned.

    Use:
      task: regression
      activation: none
      range: [0, inf)
      robust: for alpha <= 1
      convex: for alpha >= 1
      when: The robustness of the loss is a hyperparameter, to be swept or learnt.
      not when: A convex loss suffices: use `huber`.

    Reference:
      Barron, "A General and Adaptive Robust Loss Function", CVPR 2019.

    Example:
      >>> r = jnp.array([0.01, 1.0, 100.0])
      >>> jaxloss.general_robust(r, jnp.zeros(3), alpha=0.0)
      Array([4.9998752e-05, 4.0546513e-01, 8.5173931e+00], dtype=float32)
    """
    r = _residual.of("general_robust", predictions, targets)
    alpha = _checks.parameter("general_robust", r, alpha=alpha)
    scale = _checks.parameter("general_robust", r, scale=scale)
    return _barron.loss(r, alpha, scale)


_huber = _residual.of_difference(_residual.huber)
_log_cosh = _residual.of_difference(stable.log_cosh)
