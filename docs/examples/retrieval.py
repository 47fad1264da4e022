"""Digits that find their like: plain softmax and an angular margin.

A small network maps a handwritten digit to 8 numbers.  It is trained to classify, with
a linear layer on top.  Then the layer is dropped, and each held-out digit looks for the
held-out digits most similar to it, by the cosine.  Plain softmax is content if the
right class wins; a margin asks for embeddings that are alike.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import stable

STEPS, SEEDS = 300, 4
SIZES, TRAINED, BATCH = (64, 64, 64, 8), 900, 128
PICTURE = pathlib.Path(__file__).with_name("retrieval.png")
# As dark on white as they are light on black.
INK, BLUE, ORANGE = "#777777", "#2e86d1", "#e0701f"

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
images, digits = jnp.float32(images[order] / 16), jnp.int32(digits[order])
seen, known = images[:TRAINED], digits[:TRAINED]
unseen, truth = images[TRAINED:], digits[TRAINED:]


def draw(key):
    keys = jax.random.split(key, len(SIZES))
    wide = zip(keys, SIZES, (*SIZES[1:], 10), strict=True)
    kernels = [jax.random.normal(k, (n, m)) * n**-0.5 for k, n, m in wide]
    return [{"kernel": w, "bias": jnp.zeros((1, w.shape[1]))} for w in kernels]


def embed(params, x):
    *hidden, last, _ = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def plain(params, x, y):
    top = params[-1]
    logits = embed(params, x) @ top["kernel"] + top["bias"]
    return jaxloss.softmax_cross_entropy(logits, y)


def angular(params, x, y, margin):
    classes = params[-1]["kernel"].T
    logits = jaxloss.angular_margin(
        embed(params, x), classes, y, scale=16.0, margin=margin
    )
    return jaxloss.softmax_cross_entropy(logits, y)


def cosines(params):
    """Of every held-out digit with every other one; and which are the same digit."""
    directions = stable.unit(embed(params, unseen))
    itself = jnp.eye(len(truth), dtype=bool)
    same = (truth[:, None] == truth[None]) & ~itself
    return jnp.where(itself, -jnp.inf, directions @ directions.T), same


def judge(params):
    """How often the nearest one is the same digit; and the mean average precision."""
    found, same = cosines(params)
    ranks = jnp.argsort(-found, axis=1)
    hits = jnp.take_along_axis(same, ranks, axis=1)
    precision = jnp.cumsum(hits, axis=1) / jnp.arange(1, 1 + len(truth))[None]
    average = jnp.sum(precision * hits, axis=1) / jnp.sum(hits, axis=1)
    return {"nearest": hits[:, 0].mean(), "precision": average.mean()}


def fit(loss, key):
    """A trained network and its scores."""
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))
    first, *keys = jax.random.split(key, 1 + STEPS)
    params = draw(first)

    def step(state, key):
        params, moments = state
        rows = jax.random.randint(key, (BATCH,), 0, TRAINED)
        mean = lambda params: jaxloss.mean(loss(params, seen[rows], known[rows]))
        updates, moments = optimizer.update(jax.grad(mean)(params), moments)
        return (optax.apply_updates(params, updates), moments), None

    state = params, optimizer.init(params)
    (params, _), _ = lax.scan(step, state, jnp.stack(keys))
    return params, judge(params)


losses = {"softmax": plain}
losses |= {f"margin {m}": functools.partial(angular, margin=m) for m in (0.0, 0.3, 0.5)}
scores, shown = {}, {}
for name, loss in losses.items():
    every = jax.jit(jax.vmap(functools.partial(fit, loss)))
    params, found = every(jax.random.split(jax.random.key(0), SEEDS))
    scores[name] = {what: np.asarray(x, float) for what, x in found.items()}
    shown[name] = cosines(jax.tree.map(lambda x: x[0], params))
    spread = {what: (x.mean(), x.std(ddof=1)) for what, x in scores[name].items()}
    print(f"{name:12}", {w: f"{m:.4f} ± {s:.4f}" for w, (m, s) in spread.items()})

ink = dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color"), INK
)
with rc_context({**ink, "font.size": 11}):
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, name in zip(
        figure.subplots(1, 2), ("softmax", "margin 0.5"), strict=True
    ):
        found, same = map(np.asarray, shown[name])
        for mask, what, colour in (
            (same, "the same digit", BLUE),
            (~same & np.isfinite(found), "different digits", ORANGE),
        ):
            bins, values = np.linspace(-1, 1, 61), found[mask]
            axes.hist(values, bins, density=True, color=colour, alpha=0.8, label=what)
        axes.set(title=name, xlabel="cosine of two held-out digits")
        axes.set(xticks=[-1, -0.5, 0, 0.5, 1], yticks=[])
        axes.spines[["top", "right", "left"]].set_visible(False)
    marks = axes.get_legend_handles_labels()
    figure.legend(*marks, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(PICTURE, dpi=100, transparent=True)
