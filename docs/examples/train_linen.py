"""Flax Linen and its `TrainState`: the `batch_stats` are the carry of the objective."""

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

from jaxloss import Mean, softmax_cross_entropy, train

STEPS = 60
net = nn.Sequential([nn.Dense(64), nn.BatchNorm(False), nn.relu, nn.Dense(10)])


def fn(params, batch, *, carry):
    logits, carry = net.apply({"params": params, **carry}, batch["x"], mutable=carry)
    loss = softmax_cross_entropy(logits, batch["y"])
    return {"fit": Mean.of(loss)}, carry


@jax.jit
def step(state, held, batch):
    found = evaluate(state.params, held, batch)
    return state.apply_gradients(grads=found.grads), found.state, found.loss


x, y = load_digits(return_X_y=True)
x, rng, losses = (x / 16).astype("float32"), np.random.default_rng(0), []
carry = dict(net.init(jax.random.key(0), x))
params, tx = carry.pop("params"), optax.adam(1e-2)
state = TrainState.create(apply_fn=net.apply, params=params, tx=tx)
objective = train.objective(fn, carry=carry)
evaluate, held = train.value_and_grad(objective, microbatches=4), objective.init()
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    state, held, loss = step(state, held, {"x": x[rows], "y": y[rows]})
    losses += [float(loss)]
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
