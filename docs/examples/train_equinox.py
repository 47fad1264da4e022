"""Equinox: the arrays are the parameters, the rest of the module is closed over."""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import train

STEPS = 60

model = eqx.nn.MLP(64, 10, width_size=64, depth=1, key=jax.random.key(0))
params, static = eqx.partition(model, eqx.is_inexact_array)


def fn(params, batch):
    logits = jax.vmap(eqx.combine(params, static))(batch["x"])
    losses = jaxloss.softmax_cross_entropy(logits, batch["y"])
    return {"fit": jaxloss.Mean.of(losses, where=batch["labelled"])}


objective = train.l2(train.objective(fn), 1e-4, select=train.decayed)
optimizer = optax.adam(1e-2)
step = jax.jit(train.train_step(objective, optimizer, microbatches=4), donate_argnums=0)

x, y = load_digits(return_X_y=True)
x, rng = (x / 16).astype("float32"), np.random.default_rng(0)
labelled, losses = rng.random(len(y)) < 0.7, []
state = train.TrainState.init(objective, optimizer, params)
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    batch = {"x": x[rows], "y": y[rows], "labelled": labelled[rows]}
    state, metrics = step(state, batch)
    losses.append(float(metrics["loss"]))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
model = eqx.combine(state.params, static)
