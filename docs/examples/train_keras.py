"""Keras on JAX: digits, some of them without a label, which is class -1."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from sklearn.datasets import load_digits

from jaxloss.compat import keras as keras_losses

STEPS = 60


def loss(y_true, y_pred):
    return keras_losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=True, ignore_class=-1
    )


hidden, logits = keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)
model = keras.Sequential([keras.Input((64,)), hidden, logits])
model.compile(keras.optimizers.Adam(1e-2), loss=loss)

x, y = load_digits(return_X_y=True)
x, rng = (x / 16).astype("float32"), np.random.default_rng(0)
y, losses = np.where(rng.random(len(y)) < 0.7, y, -1), []
for _ in range(STEPS):
    rows = rng.integers(0, len(y), 256)
    model.reset_metrics()  # or Keras returns the mean of all steps so far
    losses.append(float(model.train_on_batch(x[rows], y[rows])))
print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
