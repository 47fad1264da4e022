"""Nuclei: Dice against the Lovász hinge, each alone and with cross entropy.

The image is that of notebook 03, from the wheel of stardist: fluorescence microscopy,
with 125 labelled nuclei.  A small convolutional network learns from crops of its left
half which pixels are in a nucleus.  What counts is the mean intersection over union
of 8 crops of the right half, where a pixel is in a nucleus if its logit is positive.
"""

import functools
import importlib.util
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from skimage import io

import jaxloss
from jaxloss import Mean, stable, train

SEEDS, STEPS, CROPS, SIDE, CHANNELS = 6, 150, 4, 40, 8
PIXELS = (1, 2)  # one loss for each crop


def halved(x):
    """Means of 2 x 2 pixels."""
    return x.reshape(x.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))


spec = importlib.util.find_spec("stardist")  # it would import a framework
assert spec
assert spec.origin
wheel = pathlib.Path(spec.origin).parent
image = np.sqrt(io.imread(wheel / "data/images/img2d.tif").astype("float32"))
image = jnp.asarray(halved((image - image.mean()) / image.std()))
inside = jnp.asarray(halved(io.imread(wheel / "data/images/mask2d.tif") > 0) >= 0.5)
tiles = lambda x: x[:, 128:].reshape(4, 64, 2, 64).swapaxes(1, 2).reshape(8, 64, 64)
held_out, truth = tiles(image), tiles(inside)


# A setting weighs the three losses, so one compiled program trains all of them.
LOSSES = "cross entropy", "Dice", "Lovász"
METHODS = {
    "cross entropy": (1, 0, 0),
    "Dice": (0, 1, 0),
    "Lovász": (0, 0, 1),
    "cross entropy + Dice": (1, 1, 0),
    "cross entropy + Lovász": (1, 0, 1),
}


def losses_of(params, batch):
    x, t = net(params, batch[0]), batch[1]
    entropy = jaxloss.sigmoid_cross_entropy(x, t)
    p, q = stable.sigmoid(x), stable.sigmoid(-x)
    dice = jaxloss.dice(p, t, axis=PIXELS, complements=q, smooth=1.0)
    lovasz = jaxloss.lovasz_hinge(x, t, axis=PIXELS)
    losses: dict[str, jax.Array] = dict(
        zip(LOSSES, (entropy, dice, lovasz), strict=True)
    )
    return {name: Mean.of(each) for name, each in losses.items()}


def first_params(key):
    sizes = [1, CHANNELS, CHANNELS, CHANNELS, 1]
    draw = lambda key, m, n: jax.random.normal(key, (9 * m, n)) / (3 * m**0.5)
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [{"w": draw(k, m, n), "b": jnp.zeros((1, n))} for k, m, n in pairs]


def around(x, reach):
    """Each pixel and 8 others, side by side."""
    wide = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    rows, columns = x.shape[1:3]
    starts = itertools.product((0, reach, 2 * reach), repeat=2)
    parts = [wide[:, i : i + rows, j : j + columns] for i, j in starts]
    return jnp.concatenate(parts, axis=-1)


def net(params, x):
    """A logit for each pixel, which sees 31 x 31 of them.

    Products of matrices: the gradient of a dilated convolution is slow on a CPU.
    """
    x = x[..., None]
    for depth, layer in enumerate(params):
        x = around(jax.nn.relu(x) if depth else x, 2**depth)
        shape = x.shape[:-1]
        x = x.reshape(-1, x.shape[-1]) @ layer["w"] + layer["b"]
        x = x.reshape(*shape, -1)
    return x[..., 0]


def crops(key):
    """Some of the left half, each turned by a multiple of 90 degrees."""
    at = jax.random.randint(key, (CROPS, 2), 0, jnp.array([[256, 128]]) - SIDE)
    cut = lambda x, at: lax.dynamic_slice(x, at, (SIDE, SIDE))
    x, t = (jax.vmap(functools.partial(cut, a))(at) for a in (image, inside))
    turned = lambda a: jnp.concatenate(
        [jnp.rot90(a[k::4], k, axes=PIXELS) for k in range(4)]
    )
    return turned(x), turned(t)


def iou(x, t):
    hit = x > 0
    return (hit & t).sum(PIXELS) / (hit | t).sum(PIXELS)


@jax.jit
def trained(weights, seed):
    """The mean IoU of the crops held out, after training on the others."""
    objective = train.objective(losses_of, weights=weights)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, STEPS))
    step = train.train_step(objective, optimizer)
    first, key = jax.random.split(jax.random.key(seed))
    state = train.TrainState.init(objective, optimizer, first_params(first))
    one = lambda state, i: (step(state, crops(jax.random.fold_in(key, i)))[0], None)
    state, _ = lax.scan(one, state, jnp.arange(STEPS))
    return iou(net(state.params, held_out), truth).mean()


found = {}
for name, numbers in METHODS.items():
    weights = dict(zip(LOSSES, map(float, numbers), strict=True))
    ious = np.array([trained(weights, seed) for seed in range(SEEDS)])
    print(f"{name:23} mean IoU {ious.mean():.3f} ± {ious.std():.3f}", end=", ")
    print(f"median {np.median(ious):.3f}, least {ious.min():.3f}", flush=True)
    found[name] = ious
