"""Flax NNX: `nnx.Optimizer` trains a module with BatchNorm and Dropout in place.

Three in ten digits have no label.  The loss is the mean over those of the batch that
have one, although each step adds it up over four micro-batches.
"""

import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import train
from jaxloss.train.nnx import train_step

STEPS = 60
BATCH_SIZE = 256

# The data: 1797 images of 64 pixels from 0 to 16, and their classes from 0 to 9.
rng = np.random.default_rng(seed=0)
images, classes = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
labelled = rng.random(len(classes)) < 0.7

rngs = nnx.Rngs(0)
model = nnx.Sequential(
    nnx.Linear(64, 64, rngs=rngs),
    nnx.BatchNorm(64, rngs=rngs),
    nnx.relu,
    nnx.Dropout(0.2, rngs=rngs),
    nnx.Linear(64, 10, rngs=rngs),
)


def loss_fn(model, batch):
    logits = model(batch["images"])
    losses = jaxloss.softmax_cross_entropy(logits, batch["classes"])
    return {"fit": jaxloss.Mean.of(losses, where=batch["labelled"])}


objective = train.objective(loss_fn)
# A penalty on the kernels; `decayed` leaves out biases and the scales of BatchNorm.
objective = train.l2(objective, 1e-4, select=train.decayed)
optimizer = nnx.Optimizer(model, optax.adam(learning_rate=1e-2), wrt=nnx.Param)
step = train_step(objective, microbatches=4)
# The model, the optimiser and the state are changed where they are.
step = nnx.jit(step, donate_argnums=(0, 1, 2))

state = objective.init()
losses = []
for _ in range(STEPS):
    rows = rng.integers(0, len(classes), BATCH_SIZE)
    batch = {
        "images": images[rows],
        "classes": classes[rows],
        "labelled": labelled[rows],
    }
    state, metrics = step(model, optimizer, state, batch)
    losses.append(float(metrics["loss"]))

print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
