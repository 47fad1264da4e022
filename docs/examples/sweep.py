"""64 focal losses with 3 seeds each on real data: one program, and one table."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_breast_cancer

from jaxloss import Mean, sigmoid_focal, train

STEPS = 300
x, y = load_breast_cancer(return_X_y=True)
x, malignant = ((x - x.mean(0)) / x.std(0)).astype("float32"), y == 0
data = {"fit": (x[::2], malignant[::2]), "test": (x[1::2], malignant[1::2])}
net = lambda params, x: jnp.tanh(x @ params["hidden"]) @ params["out"]


def fn(params, batch, **focal):
    return {"fit": Mean.of(sigmoid_focal(net(params, batch[0]), batch[1], **focal))}


def train_fn(hyper, key, data):
    objective = train.objective(fn, gamma=hyper["gamma"], alpha=hyper["alpha"])
    optimizer, (x, malignant) = optax.adam(hyper["lr"]), data["test"]
    params = jax.random.normal(key, (31, 32), jnp.float32) / 6
    params = {"hidden": params[:30], "out": params[30]}
    state = train.TrainState.init(objective, optimizer, params)
    step = train.train_step(objective, optimizer)
    right = lambda state: jnp.mean((net(state.params, x) > 0) == malignant)
    evaluate = lambda state: {"accuracy": right(state)}
    return train.Run(state, lambda state, i: step(state, data["fit"])[0], evaluate)


rates = [0.001, 0.003, 0.01, 0.03]
grid = train.grid(gamma=[0, 0.5, 1, 2], alpha=[0.2, 0.4, 0.6, 0.8], lr=rates)
table = train.sweep(train_fn, grid, range(3), steps=STEPS, data=data)
mean = table["accuracy"].reshape(64, 3).mean(axis=1)
print(f"accuracy {mean.max():.3f} with {train.grid_labels(grid)[mean.argmax()]}")
