"""Flax Linen with FSDP: parameters, optimiser and batch sharded over two devices."""

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

from jaxloss import Mean, softmax_cross_entropy, train

STEPS = 60
jax.config.update("jax_num_cpu_devices", 2)  # virtual ones: leave it out elsewhere
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
shards = jax.NamedSharding(mesh, jax.P("data"))  # of the first axis of an array
net = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])


def fn(params, batch):
    loss = softmax_cross_entropy(net.apply({"params": params}, batch["x"]), batch["y"])
    return {"fit": Mean.of(loss, where=batch["mask"])}


@jax.jit
def step(state, batch):
    found = evaluate(state.params, held, batch)
    return state.apply_gradients(grads=found.grads), found


(x, y), objective = load_digits(return_X_y=True), train.objective(fn)
x, rng, losses = (x / 16).astype("float32"), np.random.default_rng(0), []
params = jax.device_put(net.init(jax.random.key(0), x)["params"], shards)
state = TrainState.create(apply_fn=net.apply, params=params, tx=optax.adam(1e-2))
evaluate, held = train.value_and_grad(objective, microbatches=4), objective.init()
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    batch = {"x": x[rows], "y": y[rows], "mask": np.sort(rng.random(256)) < 0.3}
    state, found = step(state, jax.device_put(batch, shards))
    losses.append(float(found.loss))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
