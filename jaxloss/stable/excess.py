"""`exp(x) - 1 - x` and `x - log(1 + x)`, of which divergences are made."""

import math

import jax
import jax.numpy as jnp

from jaxloss.stable.scalars import atanh_series, expm1, log1p, polynomial
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


@slopes(lambda x: 1 / jnp.square(1 + x))
def _log1p_excess_dx(x: jax.Array) -> jax.Array:
    return x / (1 + x)


@slopes(_log1p_excess_dx)
def log1p_excess(x: jax.Array) -> jax.Array:
    """`x - log(1 + x)` >= 0 for x > -1: 3 ulp (derivatives 2, 2)."""
    near = (x > -0.5) & (x < 1)
    inner = jnp.where(near, x, 0)
    return jnp.where(near, inner * inner * _over_square(inner), x - log1p(x))


def log1p_excess_over_square(x: jax.Array) -> jax.Array:
    """`(x - log(1 + x)) / x^2` for x > -1, and 1/2 at 0: 3 ulp."""
    near = (x > -0.5) & (x < 1)
    outer = jnp.where(near, 1, x)
    return jnp.where(
        near, _over_square(jnp.where(near, x, 0)), (1 - log1p(outer) / outer) / outer
    )


def _over_square(x: jax.Array) -> jax.Array:
    """`log1p_excess_over_square` for -1/2 < x < 1.

    `log(1 + x)` is `2 atanh(s)` with s = x / (2 + x), and `x - 2 s` is x^2 / (2 + x):
    what is left to subtract is small.
    """
    y = 1 / (2 + x)
    return y - (x * y) * (y * y) * atanh_series(jnp.square(x * y))
