"""Nuclei: Dice, Jaccard and Lovász, each with cross entropy and without.

The image is that of notebook 03: fluorescence microscopy, with 125 labelled nuclei, from
the wheel of stardist.  A small convolutional network learns on crops of its left half
which pixels are in a nucleus; what counts is the intersection over union on 16 crops
of the right half, at the threshold of one half that nobody tuned.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from skimage import io

import jaxloss
from jaxloss import Mean, stable, train

SEEDS, STEPS, CROPS, SIDE, CHANNELS = 5, 150, 8, 48, 8
PIXELS = (1, 2)

wheel = pathlib.Path(importlib.util.find_spec("stardist").origin).parent
image = np.sqrt(io.imread(wheel / "data/images/img2d.tif").astype("float32"))
image = (image - image.mean()) / image.std()
inside = io.imread(wheel / "data/images/mask2d.tif") > 0


def halved(x):
    """Means of 2 x 2 pixels."""
    return x.reshape(x.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))


image, inside = halved(image), halved(inside.astype("float32")) >= 0.5
print(image.shape, inside.mean())
