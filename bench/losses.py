"""Each problem as every implementation solves it: functions of the same arguments.

The first word of an implementation's name is the package it needs.  Packages other
than jaxloss and optax are imported when a function is traced, and only then.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxloss
from jaxloss import stable

Implementations = dict[str, Callable[..., jax.Array]]
TEMPERATURE = 0.07
SMOOTHING = 0.1


def _package(name: str) -> Any:
    return importlib.import_module(name)


def _keras(name: str, *args: Any, **options: Any) -> jax.Array:
    """A function of `keras.losses`, which has the targets first."""
    return jnp.mean(getattr(_package("keras").losses, name)(*args, **options))


def _mean_of(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return lambda *args: jnp.mean(fn(*args))


# --- element by element --------------------------------------------------------------

HUBER: Implementations = {
    "jaxloss": _mean_of(jaxloss.huber),
    "optax": _mean_of(optax.huber_loss),
    "keras": lambda x, y: _keras("huber", y, x),
}
LOG_COSH: Implementations = {
    "jaxloss": _mean_of(jaxloss.log_cosh),
    "optax": _mean_of(optax.log_cosh),
    "keras": lambda x, y: _keras("log_cosh", y, x),
}
SIGMOID_CROSS_ENTROPY: Implementations = {
    "jaxloss": _mean_of(jaxloss.sigmoid_cross_entropy),
    "optax": _mean_of(optax.sigmoid_binary_cross_entropy),
    "keras": lambda x, y: _keras("binary_crossentropy", y, x, from_logits=True),
}
SIGMOID_FOCAL: Implementations = {
    "jaxloss": _mean_of(jaxloss.sigmoid_focal),
    "optax": _mean_of(optax.sigmoid_focal_loss),
    "keras": lambda x, y: _keras("binary_focal_crossentropy", y, x, from_logits=True),
}

# --- row by row ----------------------------------------------------------------------


def _smoothed_by_optax(logits: jax.Array, ids: jax.Array) -> jax.Array:
    one_hot = jax.nn.one_hot(ids, logits.shape[-1])
    labels = optax.smooth_labels(one_hot, SMOOTHING)
    return optax.softmax_cross_entropy(logits, labels)


SOFTMAX_CROSS_ENTROPY: Implementations = {
    "jaxloss": _mean_of(jaxloss.softmax_cross_entropy),
    "optax": _mean_of(optax.softmax_cross_entropy_with_integer_labels),
    "keras": lambda x, ids: _keras(
        "sparse_categorical_crossentropy", ids, x, from_logits=True
    ),
}


def _one_read(implementation: str) -> Callable[..., jax.Array]:
    """The function of `jaxloss.kernels`, by its kernel in Pallas or by XLA."""

    def mean(logits: jax.Array, ids: jax.Array) -> jax.Array:
        losses = _kernel(
            "softmax_cross_entropy", logits, ids, implementation=implementation
        )
        return jaxloss.mean(losses)  # whose gradient the kernel writes with the value

    return mean


ONE_READ: Implementations = {
    "jaxloss pallas": _one_read("pallas"),
    "jaxloss xla": _one_read("xla"),
    "optax": SOFTMAX_CROSS_ENTROPY["optax"],
}
SMOOTHED: Implementations = {
    "jaxloss": lambda x, ids: jnp.mean(
        jaxloss.softmax_cross_entropy(x, ids, label_smoothing=SMOOTHING)
    ),
    "optax": _mean_of(_smoothed_by_optax),
}
LISTWISE_SOFTMAX: Implementations = {
    "jaxloss": _mean_of(jaxloss.listwise_softmax),
    "optax": lambda x, y: optax.losses.ranking_softmax_loss(x, y, reduce_fn=jnp.mean),
    "rax": lambda x, y: _package("rax").softmax_loss(x, y, reduce_fn=jnp.mean),
}

# --- a linear layer before it --------------------------------------------------------


def _kernel(name: str, *args: jax.Array, **options: Any) -> jax.Array:
    """A function of `jaxloss.kernels`; of a mean, the mean."""
    found = getattr(_package("jaxloss.kernels"), name)(*args, **options)
    return found.compute() if isinstance(found, jaxloss.Mean) else found


def _linear_by_tokamax(hidden: jax.Array, kernel: jax.Array, ids: jax.Array):
    # What it chooses by itself on a CPU or GPU has all logits in memory.
    fn = _package("tokamax").linear_softmax_cross_entropy_loss
    return fn(hidden, ids, kernel, reduction="mean", implementation="chunked_xla")


def _dense(hidden: jax.Array, kernel: jax.Array, ids: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ kernel, ids)


LINEAR: Implementations = {
    "jaxloss fast": lambda *args: _kernel(
        "linear_softmax_cross_entropy", *args, memory="fast"
    ),
    "jaxloss lean": lambda *args: _kernel(
        "linear_softmax_cross_entropy", *args, memory="lean"
    ),
    "optax": lambda hidden, kernel, ids: jnp.mean(_dense(hidden, kernel, ids)),
    "tokamax": _linear_by_tokamax,
}


def _after_a_head(run: Implementations) -> Implementations:
    """Of the logits that a linear layer computes in the same program."""
    return {
        name: lambda hidden, kernel, ids, fn=fn: fn(hidden @ kernel, ids)
        for name, fn in run.items()
    }


HEAD = _after_a_head(SOFTMAX_CROSS_ENTROPY)
HEAD_SMOOTHED = _after_a_head(SMOOTHED)
TOKEN_LOG_PROBS: Implementations = {
    "jaxloss": lambda *args: _kernel("linear_token_log_probs", *args),
    "optax": lambda hidden, kernel, ids: -_dense(hidden, kernel, ids),
}


def _per_sequence(
    tokens: jax.Array, mask: jax.Array, reference: jax.Array
) -> tuple[jax.Array, ...]:
    """Log-probabilities of the chosen and the rejected ones, and of the reference."""
    log_probs = jnp.sum(tokens * mask, axis=-1)
    return *jnp.split(log_probs, 2), *jnp.split(reference, 2)


def _dpo(
    hidden: jax.Array,
    kernel: jax.Array,
    ids: jax.Array,
    mask: jax.Array,
    ref: jax.Array,
) -> jax.Array:
    tokens = _kernel("linear_token_log_probs", hidden, kernel, ids)
    each = _package("jaxloss").dpo(*_per_sequence(tokens, mask, ref), beta=0.1)
    return jnp.mean(each)


def _dpo_by_optax(
    hidden: jax.Array,
    kernel: jax.Array,
    ids: jax.Array,
    mask: jax.Array,
    ref: jax.Array,
) -> jax.Array:
    tokens = -_dense(hidden, kernel, ids)
    chosen, rejected, *refs = _per_sequence(tokens, mask, ref)
    margins = 0.1 * ((chosen - rejected) - (refs[0] - refs[1]))
    return jnp.mean(optax.sigmoid_binary_cross_entropy(margins, jnp.ones_like(margins)))


DPO: Implementations = {"jaxloss": _dpo, "optax": _dpo_by_optax}

# --- pairs and sequences -------------------------------------------------------------

NT_XENT: Implementations = {
    "jaxloss": lambda x, ids: jnp.mean(
        jaxloss.nt_xent(x, ids, temperature=TEMPERATURE)
    ),
    "jaxloss blockwise": lambda x, ids: jnp.mean(
        _kernel("nt_xent", x, ids, temperature=TEMPERATURE)
    ),
    "optax": lambda x, ids: optax.losses.ntxent(x, ids, temperature=TEMPERATURE),
}


def _clip_by_optax(first: jax.Array, second: jax.Array) -> jax.Array:
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    scores = unit(first) @ unit(second).T / TEMPERATURE
    itself = jnp.arange(len(first))
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return (entropy(scores, itself) + entropy(scores.T, itself)) / 2


CLIP: Implementations = {
    "jaxloss": lambda x, y: jnp.mean(jaxloss.clip(x, y, temperature=TEMPERATURE)),
    "jaxloss blockwise": lambda x, y: jnp.mean(
        _kernel("clip", x, y, temperature=TEMPERATURE)
    ),
    "optax": _mean_of(_clip_by_optax),
}


def _ctc_by_optax(logits: jax.Array, ids: jax.Array) -> jax.Array:
    frames, labels = jnp.zeros(logits.shape[:2]), jnp.zeros(ids.shape)
    return optax.ctc_loss(logits, frames, ids, labels)


def _ctc_by_keras(logits: jax.Array, ids: jax.Array) -> jax.Array:
    batch = len(logits)
    lengths = [jnp.full(batch, x.shape[1], jnp.int32) for x in (ids, logits)]
    return _package("keras").ops.ctc_loss(ids, logits, *lengths, mask_index=0)


CTC: Implementations = {
    "jaxloss": _mean_of(jaxloss.ctc),
    "optax": _mean_of(_ctc_by_optax),
    "keras": _mean_of(_ctc_by_keras),
}

# --- times until an event ------------------------------------------------------------


def _by_risk_matrix(h: jax.Array, times: jax.Array, events: jax.Array) -> jax.Array:
    """As it is usually written, for times without ties."""
    at_risk = times >= times[:, None]
    rows = jnp.broadcast_to(h, at_risk.shape)
    return events * (stable.logsumexp(rows, where=at_risk) - h)


COX: Implementations = {
    "jaxloss": _mean_of(jaxloss.cox_ph),
    "jaxloss risk matrix": _mean_of(_by_risk_matrix),
}
