"""Five preference losses, trained from hidden states: no logits of all tokens.

The answers are paragraphs of Python's documentation, the preferred ones as they were
written, the others with their words shuffled.  A small model of the next word learns
from both kinds; then each loss in turn makes it prefer what was written.
"""

from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxloss
from jaxloss import kernels, train

LENGTH, BEFORE, WIDTH, PAIRS, STEPS = 24, 3, 48, 32, 40

texts = [p.split()[:LENGTH] for t in topics.values() for p in t.split("\n\n")]
texts = [t for t in texts if len(t) >= 12]
words = {w: i + 1 for i, w in enumerate(sorted({w for t in texts for w in t}))}
rng = np.random.default_rng(0)
pairs = np.zeros((len(texts), 2, LENGTH), np.int32)
for pair, text in zip(pairs, texts, strict=True):
    ids = [words[w] for w in text]
    pair[0, : len(ids)], pair[1, : len(ids)] = ids, rng.permutation(ids)


def token_log_probs(params, ids):
    """Of each word, from the ones before it; of no word, 0."""
    padded = jnp.pad(ids, ((0, 0), (0, 0), (BEFORE, 0)))
    seen = [padded[..., k : k + LENGTH] for k in range(BEFORE)]
    seen = params["embed"][jnp.stack(seen, axis=-1)].reshape(*ids.shape, -1)
    hidden, head = jnp.tanh(seen @ params["mix"]), params["head"]
    return kernels.linear_token_log_probs(hidden, head, ids, where=ids > 0)


def imitation(params, batch):
    text = batch["ids"] > 0
    return {"nats": jaxloss.Mean.of(-token_log_probs(params, batch["ids"]), where=text)}


def preference(name):
    """The objective of a loss; `old` is of the model it starts from."""

    def fn(params, batch):
        ids, old, text = batch["ids"], batch["old"], batch["ids"] > 0
        now = token_log_probs(params, ids)
        whole, before = now.sum(axis=-1).T, old.sum(axis=-1).T
        mean = whole / text.sum(axis=-1).T
        good = jnp.broadcast_to(jnp.array([[True], [False]]), whole.shape)
        neutral = jax.lax.stop_gradient(jnp.mean(jnp.maximum(whole - before, 0)))
        rewards = good.T.astype(now.dtype)
        loss = {
            "dpo": lambda: jaxloss.dpo(*whole, *before),
            "simpo": lambda: jaxloss.simpo(*mean, beta=2.0, gamma=0.5),
            "kto": lambda: jaxloss.kto(whole, before, good, baseline=neutral),
            "orpo": lambda: jaxloss.orpo(*mean),
            "grpo": lambda: jaxloss.grpo(now, old, rewards, where=text),
        }[name]()
        return {name: jaxloss.Mean.of(loss, where=text if name == "grpo" else None)}

    return fn


def fit(objective, params, data):
    """Parameters after some steps."""
    optimizer = optax.adam(3e-3)
    step = jax.jit(train.train_step(objective, optimizer), donate_argnums=0)
    state = train.TrainState.init(objective, optimizer, params)
    for _ in range(STEPS):
        rows = rng.integers(0, len(pairs), PAIRS)
        state, _ = step(state, {name: x[rows] for name, x in data.items()})
    return state.params


def preferred(params):
    """How often what was written is the likelier answer."""
    whole = token_log_probs(params, pairs[:256]).sum(axis=-1)
    return round(float(jnp.mean(whole[:, 0] > whole[:, 1])), 2)


size = len(words) + 1
shapes = {"embed": (size, 16), "mix": (16 * BEFORE, WIDTH), "head": (WIDTH, size)}
first = {k: rng.normal(0, s[0] ** -0.5, s).astype("float32") for k, s in shapes.items()}
start = fit(train.objective(imitation), first, {"ids": pairs})
right = {"imitation of both": preferred(start)}
data = {"ids": pairs, "old": np.asarray(token_log_probs(start, pairs))}
for name in ("dpo", "simpo", "kto", "orpo", "grpo"):
    params = jax.tree.map(jnp.copy, start)
    right[name] = preferred(fit(train.objective(preference(name)), params, data))
print(right)
