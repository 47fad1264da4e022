"""T5's loss: smoothing over the other classes, a z-loss, padding, micro-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import entr

from jaxloss import Mean, softmax_cross_entropy, train, z_loss


def t5_losses(logits, ids, smoothing=0.1, z=1e-4):
    others = logits.shape[-1] - 1
    every = smoothing * (others + 1) / others  # ours is over all classes
    least = entr(1 - smoothing) + others * entr(smoothing / others)
    losses = softmax_cross_entropy(logits, ids, label_smoothing=every)
    return losses - least + z * z_loss(logits)


def net(params, words):
    x = params["words"][words].reshape(len(words), -1)
    return jax.nn.relu(x @ params["hidden"]).reshape(len(x), 8, -1) @ params["out"]


def fn(params, batch):
    losses = t5_losses(net(params, batch["from"]), batch["to"])
    return {"fit": Mean.of(losses, where=batch["to"] > 0)}


K, rng = 20, np.random.default_rng(0)  # 20 words, of which 0 is padding
objective, optimizer = train.objective(fn), optax.adam(1e-2)
draw = lambda *shape: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)
params = {"words": draw(K, 16), "hidden": draw(128, 256), "out": draw(32, K)}
step = jax.jit(train.train_step(objective, optimizer, microbatches=4))
state, losses = train.TrainState.init(objective, optimizer, params), []
for _ in range(100):
    words = rng.integers(1, K, (64, 8)) * (np.arange(8) < rng.integers(1, 9, (64, 1)))
    state, metrics = step(state, {"from": words, "to": (K - words) % K})
    losses.append(float(metrics["loss"]))
print("loss", [round(loss, 3) for loss in losses[::25]])
