"""Flax Linen: its `TrainState` trains, and jaxloss gives it the loss and the gradient.

The network has a BatchNorm.  Its running statistics are no parameters: they are the
carry of the objective, which each of the four micro-batches hands on to the next one.
"""

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import train

STEPS = 60
BATCH_SIZE = 256

# The data: 1797 images of 64 pixels from 0 to 16, and their classes from 0 to 9.
rng = np.random.default_rng(seed=0)
images, classes = load_digits(return_X_y=True)
images = (images / 16).astype("float32")

net = nn.Sequential(
    [
        nn.Dense(64),
        nn.BatchNorm(use_running_average=False),
        nn.relu,
        nn.Dense(10),
    ]
)
variables = dict(net.init(jax.random.key(0), images))
params = variables.pop("params")  # what is left are the `batch_stats`


def loss_fn(params, batch, *, carry):
    logits, carry = net.apply(
        {"params": params, **carry}, batch["images"], mutable=["batch_stats"]
    )
    losses = jaxloss.softmax_cross_entropy(logits, batch["classes"])
    return {"fit": jaxloss.Mean.of(losses)}, carry


objective = train.objective(loss_fn, carry=variables)
evaluate = train.value_and_grad(objective, microbatches=4)


@jax.jit
def step(state, held, batch):
    found = evaluate(state.params, held, batch)
    state = state.apply_gradients(grads=found.grads)
    return state, found.state, found.loss


optimizer = optax.adam(learning_rate=1e-2)
state = TrainState.create(apply_fn=net.apply, params=params, tx=optimizer)
held = objective.init()  # what the objective holds between steps: the statistics
losses = []
for _ in range(STEPS):
    rows = rng.integers(0, len(classes), BATCH_SIZE)
    batch = {"images": images[rows], "classes": classes[rows]}
    state, held, loss = step(state, held, batch)
    losses.append(float(loss))

print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
