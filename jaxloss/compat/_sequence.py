"""The sequence losses of `jaxloss.compat.optax`."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit
from jaxloss.losses.language import sequence


@_jit.kernel("blank_id", ids="labels")
def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
):
    """`jaxloss.ctc`: inf if no alignment exists, and no upper limit otherwise.

    `log_epsilon` stands for log(0) in optax.  Here log(0) is -inf, and `log_epsilon`
    has no effect.
    """
    del log_epsilon
    x, ids, where, label_where = _sequences(
        "ctc_loss", logits, logit_paddings, labels, label_paddings
    )
    return sequence.ctc(x, ids, where=where, label_where=label_where, blank=blank_id)


@_jit.kernel("blank_id", ids="labels")
def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
):
    """`jaxloss.ctc_forward`, with the frames first in the forward variables.

    `log_epsilon` stands for log(0) in optax.  Here log(0) is -inf, and `log_epsilon`
    has no effect.
    """
    del log_epsilon
    x, ids, where, label_where = _sequences(
        "ctc_loss_with_forward_probs", logits, logit_paddings, labels, label_paddings
    )
    losses, *alphas = sequence.ctc_forward(
        x, ids, where=where, label_where=label_where, blank=blank_id
    )
    blank, label = (jnp.moveaxis(alpha, 1, 0) for alpha in alphas)
    return losses, blank, label


def _sequences(
    name: str,
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
) -> tuple[jax.Array, ...]:
    (x,) = _checks.floating(name, logits=logits)
    ids = _checks.class_ids(name, labels=labels)
    for argument, array, rank in (("logits", x, 3), ("labels", ids, 2)):
        if array.ndim != rank:
            _checks.fail(name, argument, f"shape {array.shape}", f"{rank} axes")
    frames, places = jnp.asarray(logit_paddings), jnp.asarray(label_paddings)
    _checks.has_shape(name, x.shape[:2], "that of the frames", logit_paddings=frames)
    _checks.has_shape(name, ids.shape, "that of `labels`", label_paddings=places)
    return x, ids, frames == 0, places == 0
