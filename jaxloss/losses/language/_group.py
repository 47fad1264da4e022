"""Rewards of the answers of a group, and the clipped surrogate that uses them."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss import stable
from jaxloss.stable import xla


def advantages(rewards: jax.Array, given: jax.Array) -> jax.Array:
    """Rewards, shifted and scaled to mean 0 and standard deviation 1 in each group.

    0 where all of them are equal, and for an answer that is not given.
    """
    # Of equal rewards the mean may be rounded to another number: of their distances
    # from the largest one it is 0.
    lowest = float(jnp.finfo(rewards.dtype).min)
    largest = jnp.max(rewards, axis=-1, keepdims=True, where=given, initial=lowest)
    largest = lax.stop_gradient(largest)  # which no advantage depends on
    below = jnp.where(given, rewards, largest) - largest
    count = jnp.sum(given, axis=-1, keepdims=True, dtype=rewards.dtype)
    mean = jnp.sum(below, axis=-1, keepdims=True) / jnp.maximum(count, 1)
    return stable.unit(jnp.where(given, below - mean, 0)) * stable.sqrt(count)


@xla.rematerialised_unless_cpu
def surrogate(
    new: jax.Array, old: jax.Array, a: jax.Array, low: jax.Array, high: jax.Array
) -> jax.Array:
    """`-min(rho a, clip(rho) a)`, with rho = exp(new - old)."""
    change = new - old
    bound = jnp.where(a > 0, 1 + high, 1 - low)
    beyond = jnp.where(a > 0, change >= jnp.log1p(high), change <= jnp.log1p(-low))
    beyond = beyond | (a == 0)
    # In the exponent, too: where a ratio does not count it may overflow.
    ratio = jnp.exp(jnp.where(beyond, 0, change))
    return -a * jnp.where(beyond, bound, ratio)


excess = xla.rematerialised_unless_cpu(stable.expm1_excess)
