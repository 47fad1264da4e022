"""In the place of `optax.MultiSteps`: four ragged batches, and their exact gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from jaxloss import train

STEPS = 60


def loss_fn(params, batch):  # as it was: a mean, and of how many
    hidden = jax.nn.relu(batch["x"] @ params["hidden"])
    losses = optax.softmax_cross_entropy_with_integer_labels(
        hidden @ params["out"], batch["y"]
    )
    count = batch["mask"].sum()
    return (losses * batch["mask"]).sum() / count, count


objective = train.objective_from_mean(loss_fn)
add, finish = map(jax.jit, train.accumulate(objective))
rng, optimizer = np.random.default_rng(0), optax.adam(1e-2)  # not MultiSteps(..., 4)
x, y = load_digits(return_X_y=True)
x, held, sums, losses = (x / 16).astype("float32"), objective.init(), None, []
draw = lambda *shape: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)
params = {"hidden": draw(64, 64), "out": draw(64, 10)}
opt_state = optimizer.init(params)
for i in range(4 * STEPS):
    rows, kept = rng.integers(0, len(y), 64), np.arange(64) < rng.choice([0, 2, 64])
    batch = {"x": x[rows], "y": y[rows], "mask": kept.astype("float32")}
    sums = add(params, held, batch, sums)
    if i % 4 == 3:
        found, sums = finish(params, held, sums), None
        updates, opt_state = optimizer.update(found.grads, opt_state, params)
        params, held = optax.apply_updates(params, updates), found.state
        losses.append(float(found.loss))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
