"""Flax NNX with metrics: of the objective, and of `nnx.metrics` from the logits."""

import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from jaxloss import Mean, softmax_cross_entropy, train
from jaxloss.train.nnx import train_step

STEPS = 60


def fn(model, batch):
    logits = model(batch["x"])
    losses = softmax_cross_entropy(logits, batch["y"])
    right = logits.argmax(-1) == batch["y"]
    terms = {"fit": Mean.of(losses, where=batch["labelled"])}
    terms["accuracy"] = train.metric(Mean.of(right, where=batch["labelled"]))
    return terms, logits


rngs = nnx.Rngs(0)
layers = [nnx.Linear(64, 64, rngs=rngs), nnx.relu, nnx.Linear(64, 10, rngs=rngs)]
model = nnx.Sequential(*layers)
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
objective = train.objective(fn)
step = nnx.jit(train_step(objective, microbatches=4), donate_argnums=(0, 1, 2))
averages = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average())
x, y = load_digits(return_X_y=True)
x, y, rng = (x / 16).astype("float32"), y.astype("int32"), np.random.default_rng(0)
state, losses, labelled = objective.init(), [], rng.random(len(y)) < 0.7
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    batch = {"x": x[rows], "y": y[rows], "labelled": labelled[rows]}
    state, metrics = step(model, optimizer, state, batch)
    averages.update(logits=metrics["aux"], labels=y[rows], values=metrics["loss"])
    losses.append(float(metrics["loss"]))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]], metrics["accuracy"])
print("over all steps, labelled or not", averages.compute())
