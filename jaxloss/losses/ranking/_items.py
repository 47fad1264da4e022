"""Lists of items: their scores, their relevance, and which of them exist."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.losses import _risk_sets
from jaxloss.stable import xla


class Items(NamedTuple):
    """Checked lists, with the items last."""

    scores: jax.Array
    """0 of a masked item; NaN where the relevance is."""
    relevance: jax.Array
    """As keys are, a constant; 0 of a masked item."""
    valid: jax.Array
    """Which items are not masked."""

    @property
    def pairs(self) -> jax.Array:
        """Which pairs of items exist."""
        return pairs(self.valid)

    def hidden(self) -> "Items":
        """The same items, of which an accelerator compares all pairs again.

        It would write out what two sums share, an array of pairs.
        """
        floating = jnp.issubdtype(self.relevance.dtype, jnp.floating)
        hide = xla.hidden if floating else xla.hidden_bits
        of_scores, of_valid = xla.hidden(self.scores), xla.hidden_bits(self.valid)
        return Items(of_scores, hide(self.relevance), of_valid)


def checked(
    loss: str,
    scores: ArrayLike,
    relevance: ArrayLike,
    axis: int,
    where: ArrayLike | None,
) -> Items:
    """Checks and converts the arguments of a loss of lists."""
    (s,) = _checks.floating(loss, scores=scores)
    _checks.at_least_1d(loss, scores=s)
    axis = _checks.row_axis(loss, axis, "item", scores=s)
    y = _risk_sets.keys(loss, relevance=relevance)
    _checks.same_shape(loss, scores=s, relevance=y)
    valid = jnp.ones(s.shape, bool)
    if where is not None:
        (valid,) = _checks.boolean(loss, where=where)
        _checks.same_shape(loss, scores=s, where=valid)
        s, y = (jnp.where(valid, x, jnp.zeros_like(x)) for x in (s, y))
    s = _risk_sets.nan_where_nan(s, y)
    return Items(*(jnp.moveaxis(x, axis, -1) for x in (s, y, valid)))


def rows(x: jax.Array) -> jax.Array:
    """What the first item of each pair `(..., n, n)` has."""
    n = x.shape[-1]
    return jnp.broadcast_to(x[..., :, None], (*x.shape, n))


def columns(x: jax.Array) -> jax.Array:
    """What the second item of each pair has."""
    n = x.shape[-1]
    return jnp.broadcast_to(x[..., None, :], (*x.shape, n))


def pairs(valid: jax.Array) -> jax.Array:
    """Of which pairs both items are valid."""
    return rows(valid) & columns(valid)


def order(valid: jax.Array, *keys: jax.Array) -> jax.Array:
    """Where the items of each list are, the best first and the masked ones last.

    The larger of the first keys that differ is better; of equal ones, the first given.
    """
    axis = valid.ndim - 1
    positions = lax.broadcasted_iota(jnp.int32, valid.shape, axis)
    falling = [lax.stop_gradient(-key) for key in keys]
    operands = (~valid, *falling, positions)
    return lax.sort(operands, dimension=axis, num_keys=len(operands))[-1]


def ranks(like: jax.Array) -> jax.Array:
    """1, 2, 3 … along each list."""
    return 1 + lax.broadcasted_iota(like.dtype, like.shape, like.ndim - 1)
