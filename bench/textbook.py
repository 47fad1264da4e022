"""The formulas as a textbook has them, to be computed in float64.

One loss per example, written for nothing but to be read; float64 pays for what they
lose by cancellation.  They use nothing of `jaxloss`.
"""

import jax
import jax.numpy as jnp

LOG_ZERO = -1e30


def huber(x: jax.Array, y: jax.Array) -> jax.Array:
    r = jnp.abs(x - y)
    return jnp.where(r <= 1, r**2 / 2, r - 0.5)


def log_cosh(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.log(jnp.cosh(x - y))


def sigmoid_cross_entropy(x: jax.Array, y: jax.Array) -> jax.Array:
    p = 1 / (1 + jnp.exp(-x))
    return -jnp.where(y == 1, jnp.log(p), jnp.log(1 - p))


def sigmoid_focal(x: jax.Array, y: jax.Array) -> jax.Array:
    p = 1 / (1 + jnp.exp(-x))
    p = jnp.where(y == 1, p, 1 - p)
    return -((1 - p) ** 2) * jnp.log(p)


def log_softmax(x: jax.Array) -> jax.Array:
    x = x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    return x - jnp.log(jnp.sum(jnp.exp(x), axis=-1, keepdims=True))


def softmax_cross_entropy(x: jax.Array, ids: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(log_softmax(x), ids[..., None], axis=-1)[..., 0]


def smoothed(x: jax.Array, ids: jax.Array) -> jax.Array:
    uniform = -jnp.mean(log_softmax(x), axis=-1)
    return 0.9 * softmax_cross_entropy(x, ids) + 0.1 * uniform


def listwise_softmax(x: jax.Array, relevance: jax.Array) -> jax.Array:
    return -jnp.sum(relevance * log_softmax(x), axis=-1)


def linear(hidden: jax.Array, kernel: jax.Array, ids: jax.Array) -> jax.Array:
    return softmax_cross_entropy(hidden @ kernel, ids)


def linear_smoothed(hidden: jax.Array, kernel: jax.Array, ids: jax.Array) -> jax.Array:
    return smoothed(hidden @ kernel, ids)


def token_log_probs(hidden: jax.Array, kernel: jax.Array, ids: jax.Array) -> jax.Array:
    return -linear(hidden, kernel, ids)


def dpo(
    hidden: jax.Array,
    kernel: jax.Array,
    ids: jax.Array,
    mask: jax.Array,
    reference: jax.Array,
) -> jax.Array:
    """Of the first half of the sequences over the second, with beta = 0.1."""
    tokens = jnp.where(mask, token_log_probs(hidden, kernel, ids), 0)
    ratio = jnp.sum(tokens, axis=-1) - reference
    chosen, rejected = jnp.split(ratio, 2)
    return jnp.log(1 + jnp.exp(-0.1 * (chosen - rejected)))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))


def clip(first: jax.Array, second: jax.Array) -> jax.Array:
    scores = _unit(first) @ _unit(second).T / 0.07
    itself = jnp.arange(len(scores))
    there = softmax_cross_entropy(scores, itself)
    return (there + softmax_cross_entropy(scores.T, itself)) / 2


def nt_xent(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Of two views of each example: the other view, against all other examples."""
    scores = _unit(x) @ _unit(x).T / 0.07
    same = ids[:, None] == ids[None, :]
    itself = jnp.eye(len(ids), dtype=bool)
    positive = jnp.sum(jnp.where(same & ~itself, scores, 0), axis=1)
    everyone = jnp.where(itself, 0, jnp.exp(scores))
    return jnp.log(jnp.sum(everyone, axis=1)) - positive


def cox(h: jax.Array, times: jax.Array, events: jax.Array) -> jax.Array:
    """The partial likelihood of n subjects at the times 0, 1, ..., n - 1."""
    ordered = h[jnp.argsort(times)]
    at_risk = jnp.cumsum(jnp.exp(ordered)[::-1])[::-1]
    return events * (jnp.log(at_risk)[times] - h)


def ctc(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """By the forward recursion over labels with blanks between them; blank is 0."""
    return jax.vmap(_ctc)(logits, ids)


def _ctc(logits: jax.Array, ids: jax.Array) -> jax.Array:
    states = jnp.zeros(2 * len(ids) + 1, ids.dtype).at[1::2].set(ids)
    may_skip = (
        jnp.zeros(len(states), bool)
        .at[2:]
        .set((states[2:] != 0) & (states[2:] != states[:-2]))
    )
    emits = log_softmax(logits)[:, states]
    late = lambda a, by: jnp.concatenate([jnp.full(by, LOG_ZERO), a[:-by]])

    def step(a: jax.Array, emit: jax.Array) -> tuple[jax.Array, None]:
        skip = jnp.where(may_skip, late(a, 2), LOG_ZERO)
        return jnp.logaddexp(jnp.logaddexp(a, late(a, 1)), skip) + emit, None

    first = jnp.where(jnp.arange(len(states)) < 2, emits[0], LOG_ZERO)
    last, _ = jax.lax.scan(step, first, emits[1:])
    return -jnp.logaddexp(last[-1], last[-2])
