"""Negative log-likelihoods of predicted distributions."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses.distributions import _student_t
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
def laplace_nll(
    locations: ArrayLike, targets: ArrayLike, log_scales: ArrayLike
) -> jax.Array:
    r"""Laplace negative log-likelihood of a predicted median and scale.

    Also called: Laplace NLL, double exponential, Laplacian log-likelihood.

    .. math::
       \ell = \log 2 + s + |r|\,e^{-s}, \qquad
       r = \text{location} - \text{target},\; s = \log b

    Args:
      locations: Floating array of any shape: the predicted medians.
      targets: Array of the same shape.
      log_scales: Array of the same shape: the logarithm of the scale b, which is the
        mean absolute deviation.  Every real number is valid.

    Returns:
      Per-element losses of the same shape, in nats, with the constant: negative where
      the density exceeds 1.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `sign(r) exp(-s)` with respect to `locations`, 0 at the kink r = 0, minus that
      with respect to `targets`, and `1 - |r| exp(-s)` with respect to `log_scales`: 0
      where the scale is the absolute error.  Convex in the locations and in the
      log-scales, but not jointly.

    Use:
      task: regression
      activation: none
      range: (-inf, inf)
      robust: no
      convex: yes
      when: The noise differs from example to example and has heavier tails than a
        Gaussian, and the median should be predicted.
      not when: Some targets are far outliers: use `student_t_nll`, whose gradient goes
        to 0 there.

    Reference:
      Laplace, "Mémoire sur la probabilité des causes par les évènements", 1774; for
      networks, Kendall and Gal, "What Uncertainties Do We Need in Bayesian Deep
      Learning for Computer Vision?", NeurIPS 2017.

    Example:
      >>> jaxloss.laplace_nll(jnp.array([0.7]), jnp.zeros(1), jnp.log(jnp.array([0.5])))
      Array([1.4], dtype=float32)
    """
    name = "laplace_nll"
    locations, targets, log_scales = _checks.floating(
        name, locations=locations, targets=targets, log_scales=log_scales
    )
    _checks.same_shape(
        name, locations=locations, targets=targets, log_scales=log_scales
    )
    return math.log(2) + log_scales + _deviation(locations - targets, log_scales)


def _deviation_drds(r: jax.Array, s: jax.Array) -> jax.Array:
    return -_deviation_dr(r, s)


@stable.slopes(lambda r, s: jnp.zeros_like(r), _deviation_drds)
def _deviation_dr(r: jax.Array, s: jax.Array) -> jax.Array:
    return divided_by_exp(jnp.sign(r), s, 2)


def _deviation_ds(r: jax.Array, s: jax.Array) -> jax.Array:
    return -_deviation(r, s)


@stable.slopes(_deviation_dr, _deviation_ds)
def _deviation(r: jax.Array, s: jax.Array) -> jax.Array:
    """`|r| exp(-s)`, by two factors, of which one alone would overflow first."""
    return divided_by_exp(jnp.abs(r), s, 2)


@_jit.kernel(degrees="(0, inf]")
def student_t_nll(
    locations: ArrayLike,
    targets: ArrayLike,
    log_scales: ArrayLike,
    *,
    degrees: float | jax.Array,
) -> jax.Array:
    r"""Student-t negative log-likelihood, a Gaussian one with heavy tails.

    Also called: Student-t NLL, t-distribution, StudentT, Cauchy NLL (1 degree of
    freedom), Lorentzian.

    .. math::
       \ell = s + \tfrac12 \log(\nu\pi)
         - \log\frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2})}
         + \frac{\nu + 1}{2} \log\left(1 + \frac{r^2 e^{-2s}}{\nu}\right), \qquad
       r = \text{location} - \text{target},\; s = \log \sigma

    Args:
      locations: Floating array of any shape: the predicted centres.
      targets: Array of the same shape.
      log_scales: Array of the same shape: the logarithm of the scale σ, which is not
        the standard deviation.  Every real number is valid.
      degrees: Degrees of freedom ν in (0, inf]; 1 is Cauchy, infinity is Gaussian, and
        the variance is finite from 2 on.  A number, or an array that broadcasts to the
        shape of the locations, such as an output of the network.

    Returns:
      Per-element losses of the same shape, in nats, with the constant: negative where
      the density exceeds 1.

    Raises:
      TypeError: If an argument is not floating, or `degrees` is not a number.
      ValueError: If the shapes differ, or `degrees` is a Python number <= 0.

    Gradient:
      `(ν + 1) r / (ν σ² + r²)` with respect to `locations`, minus that with respect to
      `targets`, and 1 minus r times that with respect to `log_scales`.  It grows until
      |r| = σ sqrt(ν) and goes to 0 beyond.  Not convex, smooth; differentiable in ν.

    Use:
      task: regression
      activation: none
      range: (-inf, inf)
      robust: for degrees < inf
      convex: for degrees == inf
      when: The noise has far outliers that should have almost no influence, and its
        scale should be predicted.
      not when: The tails are Gaussian: use `gaussian_nll`, whose scale is learnt
        faster.

    Reference:
      Student, "The Probable Error of a Mean", Biometrika 6, 1908; Lange et al., "Robust
      Statistical Modeling Using the t Distribution", JASA 84, 1989.

    Example:
      >>> r, zero = jnp.array([0.7, 1e20]), jnp.zeros(2)
      >>> jaxloss.student_t_nll(r, zero, zero, degrees=3.0)
      Array([  1.3034678, 183.01047  ], dtype=float32)
    """
    name = "student_t_nll"
    locations, targets, log_scales = _checks.floating(
        name, locations=locations, targets=targets, log_scales=log_scales
    )
    _checks.same_shape(
        name, locations=locations, targets=targets, log_scales=log_scales
    )
    degrees = _checks.parameter(name, locations, degrees=degrees)
    degrees = jnp.broadcast_to(degrees, locations.shape)
    return _student_t.nll(locations - targets, log_scales, degrees)


@_jit.kernel()
def mixture_nll(log_weights: ArrayLike, component_nlls: ArrayLike) -> jax.Array:
    r"""Negative log-likelihood of a mixture, from those of its components.

    Also called: mixture density network, MDN loss, Gaussian mixture NLL,
    MixtureSameFamily.

    .. math::
       \ell = -\log \sum_k w_k\, e^{-\ell_k}, \qquad
       w = \text{softmax}(\text{log weights})

    Args:
      log_weights: Floating array with the components along the last axis; logits of
        their weights, which need not be normalised.  -inf leaves a component out.
      component_nlls: Array of the same shape: the negative log-likelihood of the target
        under each component, constants included, such as `gaussian_nll` gives it.

    Returns:
      One loss per example, of the shape without the last axis, in nats: negative where
      the density exceeds 1; 0 if every component is left out.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ, or there is no component.

    Gradient:
      `w - v` with respect to `log_weights`, and v with respect to `component_nlls`: v
      are the weights after the target was seen, the softmax of `log w -
      component_nlls`.  Not convex, smooth.

    Use:
      task: regression
      activation: none (logits)
      range: (-inf, inf)
      robust: yes
      convex: no
      when: The target may have one of several values, such as the ways around an
        obstacle, and their mean is none of them.
      not when: The distribution has one mode: use `gaussian_nll`, or `student_t_nll`
        if it has heavy tails.

    Reference:
      Bishop, "Mixture Density Networks", Aston University, 1994.

    Example:
      >>> means, targets = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.5]])
      >>> nlls = jaxloss.gaussian_nll(means, targets, jnp.zeros((1, 2)))
      >>> jaxloss.mixture_nll(jnp.zeros((1, 2)), nlls)
      Array([1.0439385], dtype=float32)
    """
    name = "mixture_nll"
    w, nlls = _checks.floating(
        name, log_weights=log_weights, component_nlls=component_nlls
    )
    _checks.at_least_1d(name, log_weights=w)
    _checks.same_shape(name, log_weights=w, component_nlls=nlls)
    _checks.row_axis(name, -1, "component", log_weights=w)
    left_out = w == -jnp.inf
    alive = ~jnp.all(left_out, axis=-1)
    # What is left out may have any likelihood, an infinite one too.
    joint = stable.log_softmax(w) - jnp.where(left_out, 0, nlls)
    return jnp.where(alive, -stable.logsumexp(joint), 0)
