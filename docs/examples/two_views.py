"""Digits without labels: Barlow Twins and VICReg of two views of each image.

A small network sees two random turns, shifts and stretches of each image, and learns to
give both the same embedding.  The squared error of the two alone is least if all images
have one embedding, which is what it finds (collapse).  Both losses prevent that by what
the components of the embeddings are over a batch.

The nearest neighbour of each held-out image shows how good an embedding is: how often
it is the same digit, if all other images have labels, and if ten of each digit have.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy.ndimage import map_coordinates
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import jaxloss

STEPS, SEEDS, BATCH = 400, 3, 256
FOLDER = pathlib.Path(__file__).parent
images, digits = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8).astype("float32") / 16
order = np.random.default_rng(0).permutation(len(images))
seen, held_out = order[:1200], order[1200:]
ten_each = np.concatenate([seen[digits[seen] == digit][:10] for digit in range(10)])

# --- two views -----------------------------------------------------------------------


def view(key, image):
    """Turned by up to 16 degrees, stretched by up to 15 %, shifted by 0.7 pixels."""
    turn, stretch, shift = jax.random.split(key, 3)
    angle = jax.random.uniform(turn, minval=-0.28, maxval=0.28)
    sizes = jnp.exp(jax.random.uniform(stretch, (2, 1), minval=-0.14, maxval=0.14))
    origin = 3.5 + jax.random.uniform(shift, (2, 1, 1), minval=-0.7, maxval=0.7)
    c, s = jnp.cos(angle), jnp.sin(angle)
    pixels = jnp.stack(jnp.mgrid[:8, :8]) - 3.5
    places = jnp.tensordot(sizes * jnp.array([[c, -s], [s, c]]), pixels, 1) + origin
    return map_coordinates(image, [*places], order=1)


def two_views(key, images):
    keys = jax.random.split(key, (2, len(images)))
    return [jax.vmap(view)(k, images) for k in keys]


# --- losses --------------------------------------------------------------------------


def squared_error_alone(first, second):
    return jaxloss.mean(jaxloss.squared_error(first, second))


def vicreg(first, second):
    views = jnp.stack([first, second])
    invariance = jaxloss.mean(jaxloss.squared_error(first, second))
    variance = jaxloss.mean(jaxloss.variance_hinge(views))
    covariance = 2 * jaxloss.mean(jaxloss.covariance_penalty(views))
    return 25 * invariance + 25 * variance + covariance


def barlow_twins(first, second):
    return jnp.sum(jaxloss.barlow_twins(first, second))


LOSSES = {
    "squared error alone": squared_error_alone,
    "Barlow Twins": barlow_twins,
    "VICReg": vicreg,
}

# --- the network ---------------------------------------------------------------------

SHAPES = [(3, 3, 1, 24), (3, 3, 24, 64), (1024, 128), (128, 64)]


def embed(params, images):
    """Two convolutions and two dense layers: 64 components."""
    x = images[..., None]
    for stride, (kernel, bias) in zip((1, 2), params[:2], strict=True):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=numbers
        )
        x = jax.nn.relu(x + bias)
    (kernel, bias), (last, _) = params[2:]
    x = x.reshape(len(x), -1) @ kernel
    return jax.nn.relu(x + bias[0, 0]) @ last


def fit(loss, seed=0):
    draw = np.random.default_rng(seed)
    scales = [(2 / np.prod(shape[:-1])) ** 0.5 for shape in SHAPES]
    normal = lambda shape, scale: jnp.asarray(draw.normal(0, scale, shape), "float32")
    params = [
        (normal(shape, scale), jnp.zeros((1, 1, 1, shape[-1]), "float32"))
        for shape, scale in zip(SHAPES, scales, strict=True)
    ]
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, STEPS))

    @jax.jit
    def step(params, state, key, images):
        first, second = two_views(key, images)
        of_views = lambda params: loss(embed(params, first), embed(params, second))
        gradient = jax.grad(of_views)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for key in jax.random.split(jax.random.key(seed), STEPS):
        chosen = draw.choice(seen, BATCH, replace=False)
        params, state = step(params, state, key, images[chosen])
    return np.asarray(jax.jit(embed)(params, images))


# --- nearest neighbours --------------------------------------------------------------


def accuracy(x, labelled):
    """How often the nearest labelled image, by cosine, is the same digit."""
    u = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    nearest = labelled[np.argmax(u[held_out] @ u[labelled].T, axis=1)]
    return float(np.mean(digits[nearest] == digits[held_out]))


def judge(x):
    return {
        "all labels": accuracy(x, seen),
        "ten of each": accuracy(x, ten_each),
        "least deviation": float(np.std(x[held_out], axis=0, ddof=1).min()),
    }


# --- what is drawn -------------------------------------------------------------------

# Ink, pixels, and a colour for each loss: on light pages, and on dark ones.
COLOURS = {
    "light": ("#24292f", "#888888", "#d55e00", "#0072b2", "#009e73"),
    "dark": ("#ced4da", "#888888", "#ff8a3d", "#4ea8f0", "#2ecc9a"),
}


def draw_accuracies(axes, colours):
    """Those with ten labels of each digit."""
    for place, (colour, scores) in enumerate(zip(colours, found.values(), strict=True)):
        right = float(np.mean([score["ten of each"] for score in scores]))
        axes.barh(place, right, color=colour, height=0.6)
        axes.text(right + 0.02, place, f"{right:.3f}", va="center")
    axes.set_yticks(range(len(found)), found)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.15), xlabel="nearest neighbour is the same digit")


def draw_deviations(axes, colours):
    """Of each component over the held-out images, the largest first."""
    for colour, (title, x) in zip(colours, embeddings.items(), strict=True):
        deviations = np.sort(np.std(x[held_out], axis=0, ddof=1))[::-1]
        axes.plot(1 + np.arange(deviations.size), deviations, color=colour, label=title)
    axes.set(xlabel="component", ylabel="standard deviation", ylim=(-0.05, None))
    axes.legend(frameon=False, fontsize=9, loc=(0.02, 0.1))


def draw(path, ink, *colours):
    """Without a background, which is that of the page."""
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor")
    settings = dict.fromkeys((*inked, "xtick.color", "ytick.color"), ink)
    empty = dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none")
    with rc_context({**settings, **empty}):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_accuracies(left, colours)
        draw_deviations(right, colours[1:])
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=160)


embeddings, found = {}, {"the pixels": [judge(images.reshape(-1, 64))]}
for title, loss in LOSSES.items():
    every = [fit(loss, seed) for seed in range(SEEDS)]
    embeddings[title], found[title] = every[0], [judge(x) for x in every]
for title, scores in found.items():
    each = {name: [score[name] for score in scores] for name in scores[0]}
    print(f"{title:20}", {name: np.round(values, 4) for name, values in each.items()})
for variant, colours in COLOURS.items():
    draw(FOLDER / f"two_views.{variant}.png", *colours)
