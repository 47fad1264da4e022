"""Negative log-likelihoods of counts and of amounts."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable


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
