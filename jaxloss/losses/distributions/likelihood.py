"""Negative log-likelihoods of predicted distributions."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses.distributions._standardised import divided_by_exp


@_jit.kernel()
def gaussian_nll(
    means: ArrayLike, targets: ArrayLike, log_variances: ArrayLike
) -> jax.Array:
    r"""Gaussian negative log-likelihood of a predicted mean and variance.

    Also called: Gaussian NLL, GaussianNLLLoss, normal log-likelihood, heteroscedastic
    regression.

    .. math::
       \ell = \tfrac12 \left(\log 2\pi + s + r^2 e^{-s}\right), \qquad
       r = \text{mean} - \text{target},\; s = \log \sigma^2

    Args:
      means: Floating array of any shape.
      targets: Array of the same shape.
      log_variances: Array of the same shape.  Every real number is valid: the output of
        a network needs no activation, and the loss needs no smallest variance.

    Returns:
      Per-element losses of the same shape, in nats, with the constant: negative where
      the density exceeds 1.  PyTorch omits `log(2 pi) / 2` = 0.919.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `r exp(-s)` with respect to `means`, minus that with respect to `targets`, and
      `(1 - r^2 exp(-s)) / 2` with respect to `log_variances`: 0 where the variance is
      the squared error.  Convex in the means and in the log-variances, but not jointly.

    Use:
      task: regression
      activation: none
      range: (-inf, inf)
      robust: no
      convex: yes
      when: The noise differs from example to example, and its variance should be
        predicted too.
      not when: Outliers occur: use `huber`, because this loss squares the residuals.

    Reference:
      Nix and Weigend, "Estimating the Mean and Variance of the Target Probability
      Distribution", ICNN 1994.

    Example:
      >>> jaxloss.gaussian_nll(jnp.array([0.0, 3.0]), jnp.zeros(2), jnp.zeros(2))
      Array([0.9189385, 5.4189386], dtype=float32)
    """
    means, targets, log_variances = _checks.floating(
        "gaussian_nll", means=means, targets=targets, log_variances=log_variances
    )
    _checks.same_shape(
        "gaussian_nll", means=means, targets=targets, log_variances=log_variances
    )
    normaliser = 0.5 * (math.log(2 * math.pi) + log_variances)
    return normaliser + _surprise(means - targets, log_variances)


def _precision(r: jax.Array, s: jax.Array) -> jax.Array:
    return jnp.exp(-s)


def _surprise_drds(r: jax.Array, s: jax.Array) -> jax.Array:
    return -_surprise_dr(r, s)


@stable.slopes(_precision, _surprise_drds)
def _surprise_dr(r: jax.Array, s: jax.Array) -> jax.Array:
    """`r exp(-s)`."""
    return divided_by_exp(r, s, 2)


def _surprise_ds(r: jax.Array, s: jax.Array) -> jax.Array:
    return -_surprise(r, s)


@stable.slopes(_surprise_dr, _surprise_ds)
def _surprise(r: jax.Array, s: jax.Array) -> jax.Array:
    """`r^2 exp(-s) / 2`, never forming `r^2` or `exp(-s)`, which overflow first."""
    z = divided_by_exp(r, s, 4)
    return 0.5 * z * z


@_jit.kernel()
def poisson_nll(log_rates: ArrayLike, counts: ArrayLike) -> jax.Array:
    r"""Poisson negative log-likelihood of counts, from logarithms of rates.

    Also called: Poisson loss, PoissonNLLLoss, Poisson regression, HalfPoissonLoss.

    .. math:: \ell = e^{x} - t x, \qquad x = \text{log rate},\; t = \text{count}

    Args:
      log_rates: Floating array of any shape; -inf is a rate of 0.
      counts: Array of the same shape, integers or floating, >= 0; cast to the dtype of
        `log_rates`.

    Returns:
      Per-element losses of the same shape, in nats, without `log(t!)`, which does not
      depend on the prediction; so the least value is `t - t log t`, not 0.  A rate of 0
      costs 0 if the count is 0, and infinity otherwise.

    Raises:
      TypeError: If `log_rates` is not floating or `counts` is not real.
      ValueError: If the shapes differ.

    Gradient:
      `exp(x) - t` with respect to `log_rates`, `-x` with respect to `counts`.  Convex,
      smooth.

    Use:
      task: count
      activation: none (logarithms)
      range: (-inf, inf]
      robust: no
      convex: yes
      when: Targets are counts of independent events, whose variance is about their
        mean.
      not when: Targets are real amounts that may be negative: use `squared_error`.

    Reference:
      Nelder and Wedderburn, "Generalized Linear Models", JRSS A 135, 1972.

    Example:
      >>> jaxloss.poisson_nll(jnp.array([0.0, 0.5]), jnp.array([0, 4]))
      Array([ 1.        , -0.35127878], dtype=float32)
    """
    (log_rates,) = _checks.floating("poisson_nll", log_rates=log_rates)
    (counts,) = _checks.real("poisson_nll", log_rates, counts=counts)
    _checks.same_shape("poisson_nll", log_rates=log_rates, counts=counts)
    return _poisson(log_rates, counts)


def _rate(x: jax.Array, t: jax.Array) -> jax.Array:
    return jnp.exp(x)


@stable.slopes(_rate, lambda x, t: -jnp.ones_like(x))
def _exceeds(x: jax.Array, t: jax.Array) -> jax.Array:
    """`exp(x) - t`, by the exact difference of t from 1 where the rate is near 1."""
    near = jnp.abs(x) < 0.5
    return jnp.where(near, stable.expm1(x) + (1 - t), jnp.exp(x) - t)


@stable.slopes(_exceeds, lambda x, t: -x)
def _poisson(x: jax.Array, t: jax.Array) -> jax.Array:
    rate = jnp.exp(x)
    # 0 at a rate of 0 never counted; and an infinite rate outweighs any count.
    return rate - t * jnp.where((t == 0) | (rate == jnp.inf), 0, x)
