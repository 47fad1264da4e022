"""An image that looks right: absolute error of pixels, squared error of features.

A small network takes noise off a photograph.  Alone, an error of pixels makes it answer
with the average of all images that are possible, and averages are smooth.  Features
that respond to edges, whatever their sign, ask for the edges back.

Papers take the features from VGG trained on ImageNet.  Nothing is downloaded here:
these are fixed Gabor filters, and any function of images may take their place.
"""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images

import jaxloss
from jaxloss import Mean, stable, train

STEPS, BATCH, SIDE, WIDTH, NOISE = 400, 8, 32, 32, 0.2
PICTURE = pathlib.Path(__file__).with_name("perceptual.png")
photograph = load_sample_images().images[0].mean(axis=-1) / 255  # a pagoda
unseen, seen = np.split(photograph.astype("float32"), [240], axis=1)
rng = np.random.default_rng(0)


def convolve(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def gabor(orientations=6, size=7):
    """Pairs of an even and an odd wave in a window, per orientation: (7, 7, 1, 12)."""
    row, column = np.mgrid[:size, :size] - size // 2
    window = np.exp(-(row**2 + column**2) / (size / 2) ** 2)
    angles = np.arange(orientations) * np.pi / orientations
    phases = [1.5 * (row * np.sin(a) + column * np.cos(a)) for a in angles]
    waves = [window * wave(phase) for phase in phases for wave in (np.cos, np.sin)]
    return np.stack([w - w.mean() for w in waves], -1)[:, :, None].astype("float32")


BANK = gabor()


def features(images):
    """How strong an edge is in each direction, at three scales."""
    found = []
    for _ in range(3):
        pairs = convolve(images, BANK)
        found.append(stable.norm(pairs.reshape(*pairs.shape[:3], -1, 2)))
        n, height, width, _ = images.shape
        images = images.reshape(n, height // 2, 2, width // 2, 2, 1).mean(axis=(2, 4))
    return found


def blocks(x):
    """Squares of 2 by 2 pixels become 4 channels: half the work, twice the view."""
    n, height, width, _ = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 2, 4)
    return x.reshape(n, height // 2, width // 2, 4)


def pixels(x):
    """The inverse of `blocks`."""
    n, height, width, _ = x.shape
    x = x.reshape(n, height, width, 2, 2).transpose(0, 1, 3, 2, 4)
    return x.reshape(n, 2 * height, 2 * width, 1)


def net(params, noisy):
    x = blocks(noisy)
    for layer in params[:-1]:
        x = jax.nn.relu(convolve(x, layer["kernel"]) + layer["bias"])
    return noisy + pixels(convolve(x, params[-1]["kernel"]))


def fn(params, batch):
    clean, noisy = batch
    out = net(params, noisy)
    pairs = zip(features(out), features(clean), strict=True)
    return {
        "pixels": Mean.of(jaxloss.absolute_error(out, clean)),
        "features": sum(Mean.of(jaxloss.squared_error(a, b)) for a, b in pairs),
    }


def fit(weight, seed=1):
    """A network trained on crops of the right part, with a weight of the features."""
    draw = np.random.default_rng(seed)
    widths = [4, WIDTH, WIDTH, WIDTH, 4]
    params = [
        {
            "kernel": jnp.asarray(
                draw.normal(0, (9 * n) ** -0.5, (3, 3, n, m)), "float32"
            ),
            "bias": jnp.zeros((1, 1, 1, m), "float32"),
        }
        for n, m in itertools.pairwise(widths)
    ]
    objective = train.objective(fn, weights={"features": weight})
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, STEPS))
    step = jax.jit(train.train_step(objective, optimizer), donate_argnums=0)
    state = train.TrainState.init(objective, optimizer, params)
    for _ in range(STEPS):
        top = draw.integers(0, seen.shape[0] - SIDE, BATCH)
        left = draw.integers(0, seen.shape[1] - SIDE, BATCH)
        clean = np.stack(
            [seen[i : i + SIDE, j : j + SIDE] for i, j in zip(top, left, strict=True)]
        )[..., None]
        noise = draw.normal(0, NOISE, clean.shape).astype("float32")
        state, _ = step(state, (clean, clean + noise))
    return state.params


def similarity(a, b):
    """SSIM: how alike two images are, window by window."""
    local = lambda x: np.asarray(convolve(x, np.ones((7, 7, 1, 1), "float32") / 49))
    mean = [local(x) for x in (a, b)]
    spread = [local(x * x) - m * m for x, m in zip((a, b), mean, strict=True)]
    both = local(a * b) - mean[0] * mean[1]
    light = (2 * mean[0] * mean[1] + 1e-4) / (mean[0] ** 2 + mean[1] ** 2 + 1e-4)
    return float(np.mean(light * (2 * both + 9e-4) / (spread[0] + spread[1] + 9e-4)))


def judge(image):
    """What was trained for, and two measures that were not."""
    pairs = zip(features(image), features(clean), strict=True)
    return {
        "absolute error": float(np.mean(np.abs(image - clean))),
        "of features": sum(float(np.mean((a - b) ** 2)) for a, b in pairs),
        "PSNR, dB": -10 * np.log10(np.mean((image - clean) ** 2)),
        "SSIM": similarity(image, clean),
    }


clean = unseen[None, 128:352, 8:232, None]
noisy = clean + rng.normal(0, NOISE, clean.shape).astype("float32")
images = {"clean": clean, "noisy": noisy}
for title, weight in {"pixels": 0.0, "pixels and features": 0.3}.items():
    images[title] = np.asarray(jax.jit(net)(fit(weight), noisy))
scores = {title: judge(images[title]) for title in images if title != "clean"}
for title, score in scores.items():
    print(f"{title:20}", {name: round(float(x), 3) for name, x in score.items()})

figure = Figure(figsize=(12, 3.4), layout="constrained")
for axes, (title, image) in zip(figure.subplots(1, 4), images.items(), strict=True):
    axes.imshow(image[0, 40:168, 40:168, 0], cmap="gray", vmin=0, vmax=1)
    decibels = f": {scores[title]['PSNR, dB']:.1f} dB" if title in scores else ""
    axes.set_title(title + decibels)
    axes.set_axis_off()
figure.savefig(PICTURE, dpi=100, bbox_inches="tight")
