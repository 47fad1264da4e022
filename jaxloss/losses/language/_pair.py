"""What a pair of answers costs, given their log-probabilities.

Each loss in one piece, of which XLA writes no part out for the gradient: see
`stable.xla`.
"""

import jax
import jax.numpy as jnp

from jaxloss import margins, stable
from jaxloss.stable import xla


def gain(
    better: jax.Array,
    worse: jax.Array,
    better_before: jax.Array,
    worse_before: jax.Array,
) -> jax.Array:
    """How much more the chosen answer has gained than the rejected one."""
    return (better - better_before) - (worse - worse_before)


@xla.rematerialised_unless_cpu
def squared_miss(
    better: jax.Array,
    worse: jax.Array,
    better_before: jax.Array,
    worse_before: jax.Array,
    beta: jax.Array,
) -> jax.Array:
    gained = gain(better, worse, better_before, worse_before)
    return jnp.square(gained - 0.5 / beta)


@xla.rematerialised_unless_cpu
def simple(
    better: jax.Array, worse: jax.Array, beta: jax.Array, gamma: jax.Array
) -> jax.Array:
    return margins.logistic(beta * (better - worse) - gamma)


@xla.rematerialised_unless_cpu
def with_odds(better: jax.Array, worse: jax.Array, beta: jax.Array) -> jax.Array:
    return beta * _odds_against(-better, -worse) - better


def _odds_against(x: jax.Array, y: jax.Array) -> jax.Array:
    """`log(1 + expm1(x) / expm1(y))`: the logistic loss of the log of an odds ratio.

    At x near 0, a chosen answer that is nearly certain, not by its odds, near infinity:
    the second derivative of their logarithm would cancel.
    """
    against = -y - stable.log1mexp(y)
    near = x < 1
    small, large = jnp.where(near, x, 1), jnp.where(near, 1, x)
    odds = stable.log1p(stable.expm1(small) * jnp.exp(against))
    lead = -large - stable.log1mexp(large) - against
    return jnp.where(near, odds, margins.logistic(lead))
