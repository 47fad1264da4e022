"""Equinox, in a loop of your own, with batches of any length to evaluate on."""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxloss

STEPS = 60

model = eqx.nn.MLP(64, 10, width_size=64, depth=1, key=jax.random.key(0))
optimizer = optax.adam(1e-2)
moments = optimizer.init(eqx.filter(model, eqx.is_inexact_array))


def fit(model, x, y):
    return jaxloss.Mean.of(jaxloss.softmax_cross_entropy(jax.vmap(model)(x), y))


@eqx.filter_jit
def step(model, moments, x, y):
    loss = lambda model: fit(model, x, y).compute()
    loss, grads = eqx.filter_value_and_grad(loss)(model)
    updates, moments = optimizer.update(grads, moments)
    return eqx.apply_updates(model, updates), moments, loss


(x, y), losses = load_digits(return_X_y=True), []
x, rng = (x / 16).astype("float32"), np.random.default_rng(0)
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    model, moments, loss = step(model, moments, x[rows], y[rows])
    losses.append(float(loss))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
parts = [slice(i, i + 500) for i in range(0, len(y), 500)]  # the last one is shorter
means = [eqx.filter_jit(fit)(model, x[part], y[part]) for part in parts]
loss_of_all = sum(means[1:], means[0]).compute()  # each example weighs the same
