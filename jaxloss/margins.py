"""Functions of a margin: the formulas of margin losses.

A margin m is positive when the decision is right.  It is label times score for a binary
classifier, the difference of two scores for a ranking, of two distances for a triplet,
of two rewards for a preference, and the output of the critic for a GAN.  Each function
here maps a floating array of margins to losses of the same shape and dtype.  It checks
no argument.

Derivatives are given by hand.  At a kink the derivative is that of the flat side, 0, so
that an example that just satisfies its margin has no gradient; autodiff of `maximum`
would give half the slope there.
"""

import jax
import jax.numpy as jnp

from jaxloss import _jit, stable


def _between(low: float, m: jax.Array, high: float) -> jax.Array:
    """1 where `low <= m < high`, else 0."""
    return jnp.where((m >= low) & (m < high), jnp.ones_like(m), 0)


@_jit.kernel()
@stable.slopes(lambda m: -_between(-jnp.inf, m, 1))
def hinge(m: jax.Array) -> jax.Array:
    """`max(0, 1 - m)`; slope -1 below 1, 0 from 1 on.

    Reference:
      Cortes and Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.
    """
    return jnp.maximum(1 - m, 0)


@_jit.kernel()
@stable.slopes(lambda m: -2 * hinge(m))
def squared_hinge(m: jax.Array) -> jax.Array:
    """`max(0, 1 - m)^2`; slope `-2 max(0, 1 - m)`.

    Reference:
      Chang et al., "Coordinate Descent Method for Large-scale L2-loss Linear Support
      Vector Machines", JMLR 9, 2008.
    """
    return jnp.square(hinge(m))


@_jit.kernel()
@stable.slopes(lambda m: _smooth_hinge_dm(m))
def smooth_hinge(m: jax.Array) -> jax.Array:
    """`1/2 - m` up to 0, `max(0, 1 - m)^2 / 2` from 0 on; slope `-clip(1 - m, 0, 1)`.

    Reference:
      Rennie and Srebro, "Loss Functions for Preference Levels", IJCAI workshop, 2005.
    """
    return jnp.where(m < 0, 0.5 - m, 0.5 * squared_hinge(m))


@stable.slopes(lambda m: _between(0, m, 1))
def _smooth_hinge_dm(m: jax.Array) -> jax.Array:
    return -jnp.clip(1 - m, 0, 1)


@_jit.kernel()
def logistic(m: jax.Array) -> jax.Array:
    """`log(1 + exp(-m))`, in nats; slope `-sigmoid(-m)`.

    Reference:
      Friedman et al., "Additive Logistic Regression", Annals of Statistics 28, 2000.
    """
    return stable.softplus(-m)


@_jit.kernel()
def exponential(m: jax.Array) -> jax.Array:
    """`exp(-m)`; slope `-exp(-m)`.

    Reference:
      Freund and Schapire, "A Decision-Theoretic Generalization of On-Line Learning and
      an Application to Boosting", JCSS 55, 1997.
    """
    return jnp.exp(-m)


@_jit.kernel()
@stable.slopes(lambda m: -_between(-jnp.inf, m, 0))
def perceptron(m: jax.Array) -> jax.Array:
    """`max(0, -m)`; slope -1 below 0, 0 from 0 on.

    Reference:
      Rosenblatt, "The Perceptron", Psychological Review 65, 1958.
    """
    return jnp.maximum(-m, 0)


@_jit.kernel()
@stable.slopes(lambda m: _modified_huber_dm(m))
def modified_huber(m: jax.Array) -> jax.Array:
    """`-4 m` below -1, `max(0, 1 - m)^2` from -1 on; slope `-2 clip(1 - m, 0, 2)`.

    Reference:
      Zhang, "Solving Large Scale Linear Prediction Problems Using Stochastic Gradient
      Descent Algorithms", ICML 2004.
    """
    return jnp.where(m < -1, -4 * m, jnp.square(jnp.clip(1 - m, 0, 2)))


@stable.slopes(lambda m: 2 * _between(-1, m, 1))
def _modified_huber_dm(m: jax.Array) -> jax.Array:
    return -2 * jnp.clip(1 - m, 0, 2)


@_jit.kernel()
@stable.slopes(lambda m: -2 * (1 - m))
def squared(m: jax.Array) -> jax.Array:
    """`(1 - m)^2`, for least-squares classifiers and GANs; slope `-2 (1 - m)`.

    Reference:
      Suykens and Vandewalle, "Least Squares Support Vector Machine Classifiers",
      Neural Processing Letters 9, 1999.
    """
    return jnp.square(1 - m)
