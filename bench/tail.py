"""The picture of the README: the loss of a confident prediction, in float32.

    python -m bench.tail docs/tail.png

The logits are [x, 0] and the label is 0, so the loss is log(1 + exp(-x)).  optax
computes it as a difference of two numbers near x, and from x = 14.5 on these are equal.
"""

import pathlib
import sys

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import jaxloss


def losses() -> dict[str, np.ndarray]:
    """The logit of the right class, and the loss by both libraries."""
    x = jnp.arange(0, 41, 0.25, dtype=jnp.float32)
    logits = jnp.stack([x, jnp.zeros_like(x)], axis=-1)
    labels = jnp.zeros(x.shape, int)
    theirs = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    ours = jaxloss.softmax_cross_entropy(logits, labels)
    return {"x": np.array(x), "optax": np.array(theirs), "jaxloss": np.array(ours)}


def picture() -> Figure:
    """Both losses, and a mark where that of optax becomes 0."""
    found = losses()
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    positive = found["optax"] > 0
    last = int(positive.nonzero()[0].max())
    axes.semilogy(found["x"], found["jaxloss"], label="jaxloss", lw=2.5)
    axes.semilogy(
        found["x"][positive], found["optax"][positive], "--", label="optax", lw=2.5
    )
    axes.plot(found["x"][last], found["optax"][last], "o", color="C1")
    axes.annotate(
        "optax: 0 from here on",
        (found["x"][last], found["optax"][last]),
        xytext=(20, 1e-4),
        arrowprops={"arrowstyle": "->"},
    )
    axes.set_xlabel("logit of the right class; the other one is 0")
    axes.set_ylabel("cross entropy")
    axes.legend()
    return figure


if __name__ == "__main__":
    picture().savefig(pathlib.Path(sys.argv[1]), dpi=150)
