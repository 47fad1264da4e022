"""Flax NNX: BatchNorm and Dropout, four micro-batches a step, everything donated."""

import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import train
from jaxloss.train.nnx import train_step

STEPS = 60


def fn(model, batch):
    losses = jaxloss.softmax_cross_entropy(model(batch["x"]), batch["y"])
    return {"fit": jaxloss.Mean.of(losses, where=batch["labelled"])}


rngs = nnx.Rngs(0)
model = nnx.Sequential(
    nnx.Linear(64, 64, rngs=rngs),
    nnx.BatchNorm(64, rngs=rngs),
    nnx.relu,
    nnx.Dropout(0.2, rngs=rngs),
    nnx.Linear(64, 10, rngs=rngs),
)
objective = train.l2(train.objective(fn), 1e-4, select=train.decayed)
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
step = nnx.jit(train_step(objective, microbatches=4), donate_argnums=(0, 1, 2))
x, y = load_digits(return_X_y=True)
x, rng = (x / 16).astype("float32"), np.random.default_rng(0)
state, losses, labelled = objective.init(), [], rng.random(len(y)) < 0.7
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    batch = {"x": x[rows], "y": y[rows], "labelled": labelled[rows]}
    state, metrics = step(model, optimizer, state, batch)
    losses.append(float(metrics["loss"]))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
