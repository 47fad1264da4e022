"""Flax Linen, many classes: a method that stops before a head with a boxed kernel."""

import jax
import numpy as np
import optax
from flax import linen as nn

from jaxloss import kernels, train

STEPS, WIDTH = 60, 32
text = " ".join(str(x.__doc__) for x in vars(np).values())
words, ids = np.unique(text.split(), return_inverse=True)
boxed = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "vocabulary"))


class Model(nn.Module):
    def setup(self):
        self.embed, self.mix = nn.Embed(len(words), WIDTH), nn.Dense(WIDTH)
        self.head = nn.Dense(len(words), kernel_init=boxed)

    def hidden(self, word):
        return nn.tanh(self.mix(self.embed(word)))

    def __call__(self, word):  # all logits: to initialise, and to predict
        return self.head(self.hidden(word))


def fn(params, batch):
    hidden = net.apply({"params": params}, batch["word"], method="hidden")
    head = nn.unbox(params["head"]) | {"labels": batch["next"]}  # and its bias
    return {"nats": kernels.linear_softmax_cross_entropy(hidden, **head)}


net, adam, objective = Model(), optax.adam(1e-2), train.objective(fn)
state = train.TrainState.init(objective, adam, **net.init(jax.random.key(0), ids[:1]))
step, losses = jax.jit(train.train_step(objective, adam)), []
for at in np.random.default_rng(0).integers(0, len(ids) - 1, (STEPS, 256)):
    state, metrics = step(state, {"word": ids[at], "next": ids[at + 1]})
    losses += [float(metrics["loss"])]
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
