"""Equinox: the arrays of a module are the parameters, the rest of it is fixed.

Three in ten digits have no label.  The loss is the mean over those of the batch that
have one, although each step adds it up over four micro-batches.
"""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import train

STEPS = 60
BATCH_SIZE = 256

# The data: 1797 images of 64 pixels from 0 to 16, and their classes from 0 to 9.
rng = np.random.default_rng(seed=0)
images, classes = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
labelled = rng.random(len(classes)) < 0.7

model = eqx.nn.MLP(64, 10, width_size=64, depth=1, key=jax.random.key(0))
# What the optimiser changes, and what it does not: functions, sizes, flags.
params, static = eqx.partition(model, eqx.is_inexact_array)


def loss_fn(params, batch):
    model = eqx.combine(params, static)
    logits = jax.vmap(model)(batch["images"])
    losses = jaxloss.softmax_cross_entropy(logits, batch["classes"])
    return {"fit": jaxloss.Mean.of(losses, where=batch["labelled"])}


objective = train.objective(loss_fn)
# A penalty on the kernels; `decayed` leaves out the biases.
objective = train.l2(objective, 1e-4, select=train.decayed)
optimizer = optax.adam(learning_rate=1e-2)
step = train.train_step(objective, optimizer, microbatches=4)
step = jax.jit(step, donate_argnums=0)  # the new state takes the place of the old one

state = train.TrainState.init(objective, optimizer, params)
losses = []
for _ in range(STEPS):
    rows = rng.integers(0, len(classes), BATCH_SIZE)
    batch = {
        "images": images[rows],
        "classes": classes[rows],
        "labelled": labelled[rows],
    }
    state, metrics = step(state, batch)
    losses.append(float(metrics["loss"]))

# The trained module, to predict with or to save.
model = eqx.combine(state.params, static)
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
