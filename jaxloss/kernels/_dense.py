"""The linear cross entropy as its formula: all logits at once.  For reference."""

import jax

from jaxloss import classification
from jaxloss.kernels import _head
from jaxloss.kernels._head import Block, Head
from jaxloss.kernels._losses import Knobs
from jaxloss.kernels._plan import Plan
from jaxloss.reduce import Mean


def logits(plan: Plan, head: Head) -> jax.Array:
    """Every logit of every token."""
    whole = Block(head.kernel, head.bias, None, None)
    return _head.masked(_head.logits(head, plan, whole), whole)


def losses(plan: Plan, head: Head, ids: jax.Array, knobs: Knobs) -> jax.Array:
    """The loss of each token."""
    x = logits(plan, head)
    smoothing = 0.0 if knobs.label_smoothing is None else knobs.label_smoothing
    found = classification.softmax_cross_entropy(x, ids, label_smoothing=smoothing)
    if knobs.z_loss is not None:
        found = found + knobs.z_loss * classification.z_loss(x)
    return found


def total(
    plan: Plan, head: Head, ids: jax.Array, weights: jax.Array, knobs: Knobs
) -> jax.Array:
    """The weighted sum of the losses of all tokens."""
    return Mean.of(losses(plan, head, ids, knobs), weights=weights).total
