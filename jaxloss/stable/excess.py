"""`exp(x) - 1 - x`, which the divergences of distributions are made of."""

import math

import jax
import jax.numpy as jnp

from jaxloss.stable.scalars import expm1, polynomial
from jaxloss.stable.slopes import slopes


@slopes(expm1)
def expm1_excess(x: jax.Array) -> jax.Array:
    """`exp(x) - 1 - x` >= 0: 3 ulp (derivatives 2, 2).

    By its Taylor series where the subtraction cancels.
    """
    near = (x > -1) & (x < 2)
    inner = series(jnp.where(near, x, 0))
    # Beyond every exp that is finite, x no longer counts: inf - inf would be NaN.
    return jnp.where(near, inner, jnp.exp(x) - (1 + jnp.minimum(x, 1e3)))


def series(x: jax.Array) -> jax.Array:
    """`expm1_excess` for -1 < x < 2."""
    terms = 14 if x.dtype == jnp.float32 else 23
    rest = polynomial(x, [1 / math.factorial(k + 2) for k in range(terms)])
    return x * x * rest
