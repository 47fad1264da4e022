"""A `pmap` loop: two devices, of which one may have no label, and one gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from jaxloss import Mean, softmax_cross_entropy, train

STEPS = 60
jax.config.update("jax_num_cpu_devices", 2)  # virtual ones: leave it out elsewhere


def fn(params, batch):
    hidden = jax.nn.relu(batch["x"] @ params["hidden"])
    losses = softmax_cross_entropy(hidden @ params["out"], batch["y"])
    return {"fit": Mean.of(losses, where=batch["mask"])}


rng = np.random.default_rng(0)
x, y = load_digits(return_X_y=True)
x, losses = (x / 16).astype("float32"), []
draw = lambda *shape: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)
objective, tx = train.objective(fn), optax.sgd(0.5)  # Adam would hide a wrong scale
state = train.TrainState.init(
    objective, tx, {"hidden": draw(64, 64), "out": draw(64, 10)}
)
state = jax.tree.map(lambda x: jnp.stack([x, x]), state)
take = train.train_step(
    objective, tx, axis_name="devices"
)  # no pmean, no psum of yours
step = jax.pmap(take, axis_name="devices", donate_argnums=0)
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    batch = {"x": x[rows], "y": y[rows], "mask": np.arange(256) < rng.integers(1, 256)}
    parts = jax.tree.map(lambda x: x.reshape(2, 128, *x.shape[1:]), batch)
    state, metrics = step(state, parts)
    losses += [float(metrics["loss"][0])]
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
