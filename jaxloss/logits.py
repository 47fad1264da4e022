"""Transforms of logits, to be applied before a loss: logits in, logits out."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable


@_jit.kernel(temperature="(0, inf)")
def temperature(
    logits: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    r"""Divides logits by a temperature: softer above 1, sharper below.

    .. math:: \tilde z = z / T

    Args:
      logits: Floating array of any shape; -inf, a class of probability 0, stays -inf.
      temperature: T > 0; a scalar, or an array that broadcasts to the shape of
        `logits`.  `fit_temperature` finds the T that calibrates a classifier.

    Returns:
      Logits of the same shape, at least float32.  Dividing by one positive number never
      swaps two logits, so the largest one stays the largest.

    Raises:
      TypeError: If `logits` is not floating.
      ValueError: If `temperature` is a Python number <= 0 or does not broadcast.

    Gradient:
      `1 / T` with respect to `logits`; `-z / T^2` with respect to `temperature`, 0
      where z is infinite.

    Reference:
      Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Example:
      >>> jaxloss.temperature(jnp.array([3.0, 1.0, -jnp.inf]), temperature=2.0)
      Array([ 1.5,  0.5, -inf], dtype=float32)
    """
    (logits,) = _checks.floating("temperature", logits=logits)
    divisor = _checks.parameter("temperature", logits, temperature=temperature)
    return _divided(logits, divisor)


@_jit.kernel("axis", strength="(-inf, inf)")
def adjust_logits(
    logits: ArrayLike,
    priors: ArrayLike,
    *,
    axis: int = -1,
    strength: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Adds the log priors of the classes, to treat rare classes fairly.

    .. math:: \tilde z_j = z_j + \tau \log \pi_j

    Train on the adjusted logits and predict with the plain ones: they give the class
    that would be most likely if all classes were equally frequent.  For a model that is
    already trained, subtract the log priors: `strength=-1`.

    Args:
      logits: Floating array with the classes along `axis`.
      priors: Class frequencies `(K,)` > 0.  Counts serve as well, because softmax
        ignores a common factor.  A prior of 0 makes the class impossible: its logit
        becomes -inf.
      axis: The class axis.
      strength: Exponent tau of the priors, a scalar; 0 changes nothing.

    Returns:
      Logits of the same shape, at least float32.

    Raises:
      TypeError: If `logits` is not floating or `priors` is not real.
      ValueError: If `priors` is not one number per class, `axis` is not an axis of
        `logits`, or `strength` is not a finite scalar.

    Gradient:
      1 with respect to `logits`, `log prior` with respect to `strength`,
      `strength / prior` with respect to `priors`; for a prior of 0, 0 with respect to
      both.

    Reference:
      Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021.

    Example:
      >>> jaxloss.adjust_logits(jnp.zeros((1, 3)), jnp.array([1.0, 1.0, 0.0]))
      Array([[  0.,   0., -inf]], dtype=float32)
    """
    loss = "adjust_logits"
    (logits,) = _checks.floating(loss, logits=logits)
    (priors,) = _checks.real(loss, logits, priors=priors)
    axis = _checks.one_axis(loss, axis, logits=logits)
    classes = (logits.shape[axis],)
    _checks.has_shape(loss, classes, "one prior per class", priors=priors)
    scalar = jnp.zeros((), logits.dtype)
    tau = _checks.parameter(loss, scalar, strength=strength)
    shift = _log_power(priors, jnp.broadcast_to(tau, classes))
    along = [1] * logits.ndim
    along[axis] = -1
    return logits + shift.reshape(along)


# An infinite logit stays infinite at any temperature.  The derivative of the quotient
# is infinite there, and times the derivative 0 of the probability it would be NaN.
@stable.slopes(
    lambda x, t: stable.safe_divide(jnp.ones_like(t), t),
    lambda x, t: _divided_dt(jnp.where(jnp.isinf(x), 0, x), t),
)
def _divided(x: jax.Array, t: jax.Array) -> jax.Array:
    return x / t


def _divided_dt(x: jax.Array, t: jax.Array) -> jax.Array:
    t = jnp.broadcast_to(t, x.shape)
    return -stable.safe_divide(stable.safe_divide(x, t), t)


@stable.slopes(
    lambda prior, tau: stable.safe_divide(tau, prior),
    lambda prior, tau: jnp.log(jnp.where(prior == 0, 1, prior)),
)
def _log_power(prior: jax.Array, tau: jax.Array) -> jax.Array:
    """`tau log prior`, and 0 where tau is 0."""
    return tau * jnp.log(jnp.where(tau == 0, 1, prior))
