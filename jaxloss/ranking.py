"""Losses that ask for an order: which of two scores should be the higher."""

import jax
from jax.typing import ArrayLike

from jaxloss import _checks, margins


def margin_ranking(
    higher: ArrayLike, lower: ArrayLike, *, margin: float | jax.Array = 0.0
) -> jax.Array:
    r"""Margin ranking loss: by how much the better one fails to lead.

    .. math:: \ell = \max(0,\; m - (s_{\text{higher}} - s_{\text{lower}}))

    Args:
      higher: Floating array of any shape; scores of what should be ranked higher.
      lower: Array of the same shape; scores of what should be ranked lower.
      margin: Lead m asked for, in the units of the scores; >= 0.  A scalar, or an
        array that broadcasts to the shape of the scores.

    Returns:
      Per-pair losses >= 0 of the same shape, in the units of the scores.  As a
      difference of scores it is only as fine as they are.

    Raises:
      TypeError: If `higher` or `lower` is not floating.
      ValueError: If the shapes differ, or `margin` is a Python number < 0.

    Gradient:
      -1 with respect to `higher`, +1 to `lower` and to `margin` where the lead is less
      than the margin; 0 where it is not, at the kink too, so that at margin 0 two equal
      scores are at rest.  Convex.

    Reference:
      Herbrich et al., "Large Margin Rank Boundaries for Ordinal Regression", 2000.

    Example:
      >>> higher, lower = jnp.array([3.0, 1.0]), jnp.array([1.0, 1.5])
      >>> jaxloss.margin_ranking(higher, lower, margin=1.0)
      Array([0. , 1.5], dtype=float32)
    """
    higher, lower = _checks.floating("margin_ranking", higher=higher, lower=lower)
    _checks.same_shape("margin_ranking", higher=higher, lower=lower)
    margin = _checks.parameter("margin_ranking", higher, "[0, inf)", margin=margin)
    return margins.perceptron(higher - lower - margin)
