"""Keras on JAX: `compile` takes a loss of `jaxloss.compat.keras`.

Three in ten digits have no label, which is class -1.  Keras divides by the size of the
batch, and so the loss of a digit without a label counts as 0.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before the import of Keras

import keras
import numpy as np
from sklearn.datasets import load_digits

from jaxloss.compat import keras as keras_losses

STEPS = 60
BATCH_SIZE = 256

# The data: 1797 images of 64 pixels from 0 to 16, and their classes from 0 to 9.
rng = np.random.default_rng(seed=0)
images, classes = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
labelled = rng.random(len(classes)) < 0.7
classes = np.where(labelled, classes, -1)


def loss_fn(y_true, y_pred):
    return keras_losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=True, ignore_class=-1
    )


model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),  # logits: no softmax
    ]
)
model.compile(optimizer=keras.optimizers.Adam(learning_rate=1e-2), loss=loss_fn)

losses = []
for _ in range(STEPS):
    rows = rng.integers(0, len(classes), BATCH_SIZE)
    model.reset_metrics()  # or Keras returns the mean of all steps so far
    loss = model.train_on_batch(images[rows], classes[rows])
    losses.append(float(loss))

print("loss", [round(loss, 3) for loss in losses[:: STEPS // 4]])
