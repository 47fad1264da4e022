"""Negative log-likelihoods of counts and of amounts."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses.distributions import _negative_binomial
from jaxloss.losses.distributions._standardised import divided_by_exp
from jaxloss.stable import gamma, xla


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


@_jit.kernel()
def negative_binomial_nll(
    log_means: ArrayLike, counts: ArrayLike, log_dispersions: ArrayLike
) -> jax.Array:
    r"""Negative binomial negative log-likelihood: counts of any dispersion.

    Also called: negative binomial, NB2, NegativeBinomial, overdispersed Poisson,
    gamma-Poisson mixture, negative binomial regression.

    .. math::
       \ell = -\log \frac{\Gamma(t + \frac1\alpha)}{\Gamma(\frac1\alpha)\, t!}
         + \left(t + \tfrac1\alpha\right) \log(1 + \alpha\mu) - t \log(\alpha\mu),
       \qquad \mu = e^x,\; \alpha = e^d, \qquad
       x = \text{log mean},\; d = \text{log dispersion}

    Args:
      log_means: Floating array of any shape; -inf is a mean of 0.
      counts: Array of the same shape, integers or floating, >= 0; cast to the dtype of
        `log_means`.
      log_dispersions: Array of the shape of `log_means`: the logarithm of α, with which
        the variance is μ + α μ².  -inf is a Poisson distribution; `1 / α`, which is
        called size, r or total count elsewhere, must be a number: at most 80 in
        float32.

    Returns:
      Per-element losses >= 0 of the same shape, in nats, with all constants, `log(t!)`
      too, which `poisson_nll` leaves out.  A mean of 0 costs 0 if the count is 0, and
      infinity otherwise.

    Raises:
      TypeError: If `log_means` or `log_dispersions` is not floating, or `counts` is not
        real.
      ValueError: If the shapes differ.

    Gradient:
      `(μ - t) / (1 + α μ)` with respect to `log_means`.  Convex in them, smooth.  With
      respect to `log_dispersions` it is about `-α ((μ - t)^2 - t) / 2` for small α: 0
      where the variance is that of the data.

    Use:
      task: count
      activation: none (logarithms)
      range: [0, inf]
      robust: no
      convex: yes
      when: Counts vary more than a Poisson distribution of their mean allows, as those
        of visits, of words and of RNA molecules do.
      not when: The variance is about the mean: use `poisson_nll`.

    Reference:
      Cameron and Trivedi, "Econometric Models Based on Count Data", J. Appl.
      Econometrics 1, 1986; the deviance as in Loader, "Fast and Accurate Computation of
      Binomial Probabilities", 2000.

    Example:
      >>> log_means, counts = jnp.array([1.0, 1.0]), jnp.array([3, 3])
      >>> jaxloss.negative_binomial_nll(log_means, counts, jnp.log(jnp.array([0.5, 0])))
      Array([1.9846348, 1.5100412], dtype=float32)
    """
    name = "negative_binomial_nll"
    x, d = _checks.floating(name, log_means=log_means, log_dispersions=log_dispersions)
    (t,) = _checks.real(name, x, counts=counts)
    _checks.same_shape(name, log_means=x, counts=t)
    _checks.same_shape(name, log_means=x, log_dispersions=d)
    return _negative_binomial.nll(x, t, d)


@_jit.kernel(power="[0, inf)")
def tweedie_deviance(
    log_means: ArrayLike, targets: ArrayLike, *, power: float | jax.Array
) -> jax.Array:
    r"""Half the Tweedie deviance of amounts, up to terms of the target.

    Also called: Tweedie loss, TweedieLoss, HalfTweedieLoss, compound Poisson-gamma,
    pure premium.

    .. math::
       \ell = \frac{e^{(2 - p) x} - 1}{2 - p} - t\, \frac{e^{(1 - p) x} - 1}{1 - p},
       \qquad x = \text{log mean},\; t = \text{target}

    Args:
      log_means: Floating array of any shape; -inf is a mean of 0.
      targets: Array of the same shape, integers or floating, >= 0; cast to the dtype of
        `log_means`.  From a power of 2 on, a target of 0 has no best mean.
      power: p >= 0, with which the variance is proportional to the mean to the p: 0 is
        half the squared error of the mean, 1 Poisson, between 1 and 2 sums of amounts
        of which there may be none, 2 gamma, 3 inverse Gaussian.  A number, or an array
        that broadcasts to the shape of the means.

    Returns:
      Per-element losses of the same shape, 0 at a mean of 1.  Half the deviance less
      what does not depend on the mean, so that it is continuous in the power: at 1
      `poisson_nll` less 1, at 0 half of `(e^x - t)^2 - (1 - t)^2`.  From a power of 1
      on, a mean of 0 costs infinity unless the target is 0.

    Raises:
      TypeError: If `log_means` is not floating or `targets` is not real.
      ValueError: If the shapes differ, or `power` is a Python number < 0.

    Gradient:
      `exp((1 - p) x) (exp(x) - t)` with respect to `log_means`.  Smooth; convex in them
      for 1 <= p <= 2.

    Use:
      task: regression
      activation: none (logarithms)
      range: (-inf, inf]
      robust: no
      convex: for 1 <= power <= 2
      when: Targets are amounts >= 0, many of them 0 and some large, such as the claims
        of an insurance; the power is then between 1 and 2.
      not when: Targets are counts: use `poisson_nll`, or `negative_binomial_nll` if
        they vary more than their mean allows.

    Reference:
      Tweedie, "An Index which Distinguishes between Some Important Exponential
      Families", Indian Statistical Institute Golden Jubilee 1984; Jørgensen,
      "Exponential Dispersion Models", JRSS B 49, 1987.

    Example:
      >>> log_means, targets = jnp.array([0.3, 0.0]), jnp.array([2.0, 5.0])
      >>> jaxloss.tweedie_deviance(log_means, targets, power=1.5)
      Array([-0.23349959,  0.        ], dtype=float32)
    """
    name = "tweedie_deviance"
    (x,) = _checks.floating(name, log_means=log_means)
    (t,) = _checks.real(name, x, targets=targets)
    _checks.same_shape(name, log_means=x, targets=t)
    power = _checks.parameter(name, x, power=power)
    return _tweedie(x, t, jnp.broadcast_to(power, x.shape))


def _exp_of_product(x: jax.Array, rate: jax.Array) -> jax.Array:
    """`exp(rate x)`, and 1 at a rate of 0, even of an infinite x."""
    return jnp.exp(rate * jnp.where(rate == 0, 0, x))


def _tweedie_dxx(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    up, e = (x > 0) | (t == 0), jnp.exp(-jnp.abs(x))
    gap = jnp.where(up, (2 - p) - t * (1 - p) * e, (2 - p) * e - t * (1 - p))
    return _times(gap, _exp_of_product(x, jnp.where(up, 2 - p, 1 - p)))


def _times(weight: jax.Array, x: jax.Array) -> jax.Array:
    """`weight * x`, and 0 of an infinite x without weight."""
    return weight * jnp.where(weight == 0, 0, x)


def _tweedie_dxdt(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    return -_exp_of_product(x, 1 - p)


def _tweedie_dxdp(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    return -_times(_tweedie_dx(x, t, p), x)


@stable.slopes(_tweedie_dxx, _tweedie_dxdt, _tweedie_dxdp)
def _tweedie_dx(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    """`exp((1 - p) x) (exp(x) - t)`, by the exact difference of t from 1 near 1."""
    near = jnp.abs(x) < 0.5
    inner = jnp.where(near, x, 0)
    close = _exp_of_product(inner, 1 - p) * (stable.expm1(inner) + (1 - t))
    # The larger of two exponentials is a factor, so that inf - inf is none.
    up, e = (x > 0) | (t == 0), jnp.exp(-jnp.abs(x))
    gap = jnp.where(up, 1 - t * e, e - t)
    far = _times(gap, _exp_of_product(x, jnp.where(up, 2 - p, 1 - p)))
    return jnp.where(near, close, far)


def _tweedie_parts(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    counted = jnp.where(t == 0, 0, x)  # a mean of 0 that is right costs nothing more
    grows, falls = stable.boxcox(x, 2 - p), t * stable.boxcox(counted, 1 - p)
    # Above 1 the first outgrows the second, and below 1 the second the first.
    endless = jnp.where(x > 0, grows, -falls) == jnp.inf
    return jnp.where(endless, jnp.inf, grows - jnp.where(endless, 0, falls))


def _tweedie_dt(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    return -stable.boxcox(x, 1 - p)


def _tweedie_dp(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    return jax.jvp(lambda p: _tweedie_parts(x, t, p), (p,), (jnp.ones_like(p),))[1]


@xla.rematerialised
@stable.slopes(_tweedie_dx, _tweedie_dt, _tweedie_dp)
def _tweedie(x: jax.Array, t: jax.Array, p: jax.Array) -> jax.Array:
    return _tweedie_parts(x, t, p)


@_jit.kernel(shape="(0, inf)")
def gamma_nll(
    log_means: ArrayLike, targets: ArrayLike, *, shape: float | jax.Array
) -> jax.Array:
    r"""Gamma negative log-likelihood of positive amounts.

    Also called: gamma NLL, gamma regression, HalfGammaLoss, GammaLoss.

    .. math::
       \ell = k\left(\frac{t}{\mu} + x - \log t\right) - k \log k + \log \Gamma(k)
       + \log t, \qquad \mu = e^x,\; x = \text{log mean},\; t = \text{target}

    Args:
      log_means: Floating array of any shape.
      targets: Array of the same shape, integers or floating, > 0; cast to the dtype of
        `log_means`.
      shape: Shape k > 0 of the distribution, whose coefficient of variation is `k **
        -0.5`; 1 is the exponential distribution.  A number, or an array that broadcasts
        to the shape of the means, such as an output of the network.

    Returns:
      Per-element losses of the same shape, in nats, with the constant: negative where
      the density exceeds 1.

    Raises:
      TypeError: If `log_means` is not floating or `targets` is not real.
      ValueError: If the shapes differ, or `shape` is a Python number <= 0.

    Gradient:
      `k (1 - t / μ)` with respect to `log_means`: convex in them, smooth.  With respect
      to the shape, `t / μ - 1 - log(t / μ) + digamma(k) - log k`.

    Use:
      task: regression
      activation: none (logarithms)
      range: (-inf, inf)
      robust: no
      convex: yes
      when: Targets are positive amounts, whose standard deviation is proportional to
        their mean, such as durations, costs and amounts of rain.
      not when: Some targets are 0: use `tweedie_deviance` with a power between 1 and 2.

    Reference:
      McCullagh and Nelder, "Generalized Linear Models", Chapman and Hall, 1989.

    Example:
      >>> jaxloss.gamma_nll(jnp.array([1.0]), jnp.array([1.0]), shape=2.0)
      Array([1.3494645], dtype=float32)
    """
    name = "gamma_nll"
    (x,) = _checks.floating(name, log_means=log_means)
    (t,) = _checks.real(name, x, targets=targets)
    _checks.same_shape(name, log_means=x, targets=t)
    k = jnp.broadcast_to(_checks.parameter(name, x, shape=shape), x.shape)
    return _gamma(x, t, k)


def _logs(x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`log(t / mean)`, whether that is near 0, and `t / mean`."""
    q = jnp.log(t) - x
    return q, jnp.abs(q) < 1, divided_by_exp(t, x, 2)


def _beyond(x: jax.Array, t: jax.Array) -> jax.Array:
    """`t / mean - 1`."""
    q, near, ratio = _logs(x, t)
    return jnp.where(near, stable.expm1(jnp.where(near, q, 0)), ratio - 1)


def _gamma_dxx(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return k * divided_by_exp(t, x, 2)


def _gamma_dxdt(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return divided_by_exp(-k, x, 2)


def _gamma_dxdk(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return -_beyond(x, t)


@jax.jit
@stable.slopes(_gamma_dxx, _gamma_dxdt, _gamma_dxdk)
def _gamma_dx(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return -k * _beyond(x, t)


def _gamma_dtt(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return ((k - 1) / t) / t


def _gamma_dtdk(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return _beyond(x, t) / t


@jax.jit
@stable.slopes(_gamma_dxdt, _gamma_dtt, _gamma_dtdk)
def _gamma_dt(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    # k / mean - (k - 1) / t, of which the terms are alike where k is large.
    alike = (k * _beyond(x, t) + 1) / t
    return jnp.where(k < 2, divided_by_exp(k, x, 2) - (k - 1) / t, alike)


def _gamma_dkk(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return gamma.ratio_dxda(k, jnp.zeros_like(k))  # trigamma(k) - 1 / k


@jax.jit
@stable.slopes(_gamma_dxdk, _gamma_dtdk, _gamma_dkk)
def _gamma_dk(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    return _surplus(x, t) - (0.5 + stable.stirling_error_slope(k)) / k


def _surplus(x: jax.Array, t: jax.Array) -> jax.Array:
    """`t / mean - 1 - log(t / mean)` >= 0."""
    q, near, ratio = _logs(x, t)
    return jnp.where(near, stable.expm1_excess(jnp.where(near, q, 0)), ratio - 1 - q)


@xla.rematerialised
@jax.jit
@stable.slopes(_gamma_dx, _gamma_dt, _gamma_dk)
def _gamma(x: jax.Array, t: jax.Array, k: jax.Array) -> jax.Array:
    """By `stable.stirling_error`: k - k log k cancels most of log Gamma(k).

    A shape near 1 and a target far from the mean keep their terms apart: of an
    exponential distribution the loss is `t / mean + x`.
    """
    normaliser = 0.5 * (math.log(2 * math.pi) - jnp.log(k)) + stable.stirling_error(k)
    together = k * _surplus(x, t) + (normaliser + jnp.log(t))
    _, near, ratio = _logs(x, t)
    small = jnp.minimum(k, 2)
    constant = stable.log_gamma_ratio(jnp.ones_like(k), small - 1) - stable.xlogy(
        small, small
    )
    apart = small * ratio + (small * x - (small - 1) * jnp.log(t)) + constant
    return jnp.where(near | (k >= 2), together, apart)
