"""The loss of each token, from the statistics of its row of logits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss import _labels
from jaxloss.kernels._head import Rows
from jaxloss.reduce import Mean


class Knobs(NamedTuple):
    """Numbers a loss depends on beside its logits; None for one that is 0."""

    label_smoothing: Any
    z_loss: Any


def losses(rows: Rows, knobs: Knobs) -> jax.Array:
    """One loss per token."""
    found = rows.nll
    if knobs.label_smoothing is not None:
        part = jnp.broadcast_to(knobs.label_smoothing, found.shape)
        found = _labels.blend(part, found, rows.spread, rows.spread - found)
    if knobs.z_loss is not None:
        found = found + knobs.z_loss * jnp.square(rows.lse)
    return found


def weighted(rows: Rows, weights: jax.Array, knobs: Knobs) -> jax.Array:
    """Their weighted sum, in which an infinite loss of weight 0 is 0."""
    return Mean.of(losses(rows, knobs), weights=weights).total
