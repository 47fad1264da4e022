"""Plain pytrees: digits, two layers, some labels missing, four micro-batches a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import train

STEPS = 60


def fn(params, batch):
    hidden = jax.nn.relu(batch["x"] @ params["hidden"] + params["bias"])
    losses = jaxloss.softmax_cross_entropy(hidden @ params["out"], batch["y"])
    return {"fit": jaxloss.Mean.of(losses, where=batch["labelled"])}


objective = train.l2(train.objective(fn), 1e-4, select=train.decayed)
optimizer = optax.adam(1e-2)
step = jax.jit(train.train_step(objective, optimizer, microbatches=4), donate_argnums=0)

rng = np.random.default_rng(0)
x, y = load_digits(return_X_y=True)
x, labelled = (x / 16).astype("float32"), rng.random(len(y)) < 0.7
draw = lambda *shape: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)
bias = jnp.zeros((1, 64), jnp.float32)
params = {"hidden": draw(64, 64), "bias": bias, "out": draw(64, 10)}
state = train.TrainState.init(objective, optimizer, params)
losses = []
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    batch = {"x": x[rows], "y": y[rows], "labelled": labelled[rows]}
    state, metrics = step(state, batch)
    losses.append(float(metrics["loss"]))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
