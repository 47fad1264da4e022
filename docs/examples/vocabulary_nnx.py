"""Flax NNX, many classes: a method that stops before the head, a tied embedding."""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxloss import kernels, train
from jaxloss.train.nnx import train_step

STEPS, WIDTH = 60, 32
text = " ".join(str(x.__doc__) for x in vars(np).values())
words, ids = np.unique(text.split(), return_inverse=True)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(len(words), WIDTH, rngs=rngs)
        self.mix = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def hidden(self, word):
        return jnp.tanh(self.mix(self.embed(word)))

    def __call__(self, word):  # all logits: to predict
        return self.embed.attend(self.hidden(word))


def fn(model, batch):
    given = model.hidden(batch["word"]), model.embed.embedding[...], batch["next"]
    return {"nats": kernels.linear_softmax_cross_entropy(*given, kernel_layout="vd")}


model, objective, losses = Model(nnx.Rngs(0)), train.objective(fn), []
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
step, state = nnx.jit(train_step(objective)), objective.init()
for at in np.random.default_rng(0).integers(0, len(ids) - 1, (STEPS, 256)):
    batch = {"word": ids[at], "next": ids[at + 1]}
    state, metrics = step(model, optimizer, state, batch)
    losses += [float(metrics["loss"])]
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
