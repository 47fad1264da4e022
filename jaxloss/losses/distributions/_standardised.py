"""Residuals in units of a scale that is known by its logarithm."""

import math

import jax
import jax.numpy as jnp


def divided_by_exp(r: jax.Array, s: jax.Array, parts: int) -> jax.Array:
    """`r exp(-2 s / parts)` by two factors `exp(-s / parts)`, for r = 0 too.

    Each factor is kept finite: where one would not be, the product with any r but 0
    is beyond the largest number anyway.
    """
    limit = math.log(float(jnp.finfo(s.dtype).max)) - 0.2
    factor = jnp.exp(jnp.clip(-s / parts, -limit, limit))
    return r * factor * factor
