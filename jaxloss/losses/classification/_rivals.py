"""Scores of the other classes against that of the label."""

import jax
import jax.numpy as jnp

from jaxloss import margins, stable
from jaxloss.stable import xla


@jax.custom_jvp
def strongest(x: jax.Array) -> jax.Array:
    """The maximum of each row; its gradient is shared equally among ties."""
    return jnp.max(x, axis=-1)


@strongest.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    largest = strongest(x)
    count = jnp.sum(x == largest[..., None], axis=-1, dtype=x.dtype)
    share = jnp.broadcast_to((1 / count)[..., None], x.shape)
    # Hidden, or XLA:GPU writes the comparison out.
    ties = xla.hidden(x) == largest[..., None]
    return largest, jnp.sum(jnp.where(ties, share, 0) * t, axis=-1)


def violation(rivals: jax.Array, own: jax.Array, margin: jax.Array) -> jax.Array:
    """`max(0, margin + rivals - own)`, without the rounding of the difference."""
    lead, error = stable.difference(own, rivals)
    return margins.perceptron((lead - margin) + error)


@jax.custom_jvp
def violations(
    x: jax.Array, at_label: jax.Array, own: jax.Array, margin: jax.Array
) -> jax.Array:
    """The sum of `violation` over the wrong classes that exist."""
    return jnp.sum(_each_violation(x, at_label, own, margin), axis=-1)


@violations.defjvp
def _(primals, tangents):
    x, *rest = primals
    by_x, _, by_own, by_margin = tangents
    # Hidden, or XLA:GPU writes out the violations, and where there are any.
    counted, again = (_each_violation(xla.hidden(x, i), *rest) > 0 for i in (1, 2))
    count = jnp.sum(counted, axis=-1, dtype=x.dtype)
    moved = jnp.sum(again.astype(x.dtype) * by_x, axis=-1)
    return violations(*primals), moved + count * (by_margin - by_own)


def _each_violation(
    x: jax.Array, at_label: jax.Array, own: jax.Array, margin: jax.Array
) -> jax.Array:
    wrong = ~at_label & (x != -jnp.inf)
    # Replaced in the input too, where -inf - (-inf) would be NaN.
    rivals = jnp.where(wrong, x, 0)
    return jnp.where(wrong, violation(rivals, own[..., None], margin[..., None]), 0)
