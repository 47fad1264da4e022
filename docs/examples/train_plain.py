"""Plain pytrees: two layers in a dict of arrays, trained on handwritten digits.

Three in ten digits have no label, so each micro-batch has another number of labels.
The objective returns a mean that is not divided yet; `train_step` adds up four of them
before it divides, and so gives the gradient of the whole batch.
"""

import jax
import jax.numpy as jnp
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


def initial_params():
    draw = lambda *shape: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)
    return {
        "hidden": draw(64, 64),
        "bias": jnp.zeros((1, 64), jnp.float32),
        "out": draw(64, 10),
    }


def loss_fn(params, batch):
    hidden = jax.nn.relu(batch["images"] @ params["hidden"] + params["bias"])
    logits = hidden @ params["out"]
    losses = jaxloss.softmax_cross_entropy(logits, batch["classes"])
    # A name for each term of the objective; the metrics have it, too.
    return {"fit": jaxloss.Mean.of(losses, where=batch["labelled"])}


objective = train.objective(loss_fn)
# A penalty on the kernels; `decayed` leaves out the biases.
objective = train.l2(objective, 1e-4, select=train.decayed)
optimizer = optax.adam(learning_rate=1e-2)
step = train.train_step(objective, optimizer, microbatches=4)
step = jax.jit(step, donate_argnums=0)  # the new state takes the place of the old one

state = train.TrainState.init(objective, optimizer, initial_params())
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

print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
