"""What the guides recommend has no NaN at the edges: in value, and in every gradient.

Certain and impossible classes, probabilities 0 and 1, rates of 0, equal pairs, zero
vectors, weights of 0; of everything that is a number in a recipe.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench import switching
from bench.switching_rows import DATA

INF = np.inf
EDGES = {
    "predictions": {0: DATA["targets"][0], 1: 0},
    "targets": {1: 0},
    "rates": {0: 0, 1: 1e-30},
    "counts": {0: [0, 0, 3]},
    "log_rates": {0: -INF, 1: 80},
    "logits": {0: [200, -200, 0, 0, 50], 1: 0, 2: [9, -1e4, 0, 0, 30]},
    "labels": {0: [0, 0, 1, 0, 0], 1: [0.5, 0.5, 0, 0, 0]},
    "shares": {0: [0, 0, 1, 0, 0], 1: [0.5, 0.5, 0, 0, 0], 2: [1, 0, 0, 0, 0]},
    "probabilities": {
        0: DATA["bits"][0],
        1: 1 - DATA["bits"][1],
        2: [1e-30, 1, 0, 0, 1],
    },
    "first": {0: DATA["second"][0], 1: 0},
    "third": {1: 0, 2: DATA["first"][2]},
    "embeddings": {1: DATA["embeddings"][0]},
    "distances": {0: 0, 1: 1},
    "one": {0: DATA["other"][0]},
    "frames": {0: [0, -INF, 0, 0, 0], 1: 0},
    "hidden": {0: 0},
    "image_logits": {0: 0, 1: 100},
    **{name: {0: 0} for name in ("class_weights", "each_weight", "weights")},
}
ROWS = [
    (library, row.ours)
    for library in switching.LIBRARIES
    for row in switching.rows(library)
]


def edge_data():
    """The arrays of the rows, with some of their examples at an edge, in float32."""
    data = {name: np.array(x) for name, x in DATA.items()}
    for name, examples in EDGES.items():
        for at, edge in examples.items():
            data[name][at] = edge
    single = lambda x: x.astype(np.float32) if x.dtype.kind == "f" else x
    return {name: jnp.asarray(single(x)) for name, x in data.items()}


def derivatives(call, data):
    """The value of a recipe, and its gradient in all of its floating arrays."""
    words = {"logits" if w == "each" else w for w in re.findall(r"\w+", call)}
    moving = {k: x for k, x in data.items() if k in words and x.dtype == np.float32}

    def total(moving):
        value = eval(call, switching.our_words({**data, **moving}))
        return jnp.sum(value), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(moving)
    return {"value": value, **gradient}


@pytest.fixture(scope="module")
def found():
    """Of every recipe, in one program."""
    with jax.enable_x64(False):
        every = lambda data: [derivatives(call, data) for _, call in ROWS]
        return jax.jit(every)(edge_data())


def test_no_recipe_has_a_nan(found):
    """Where a loss is infinite it may be, and its slope; but none is NaN."""
    wrong = [
        f"{library}, {what}: {call}"
        for (library, call), parts in zip(ROWS, found, strict=True)
        for what, x in parts.items()
        if np.isnan(x).any()
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("call", "by", "value", "slope"),
    [
        # -log of the share of the label, whose slope is -1 / share.
        (
            "jaxloss.nll(stable.log_probabilities(p), ids)",
            [0.25, 0.75, 0],
            1.3862944,
            -4,
        ),
        # Of a Bernoulli, right and certain, -1 / p.
        ("-stable.xlogy(t, p) - stable.xlog1py(1 - t, -p)", [1, 0, 0], [0, 0, 0], -1),
        # rate - count log rate has the slope 1 at a rate of 0 that counted nothing.
        ("p - stable.xlogy(0 * t, p)", [0, 0.5, 0], [0, 0.5, 0], 1),
    ],
)
def test_slopes_at_an_edge_are_the_true_ones(call, by, value, slope):
    """Of the first entry."""
    words = {"t": jnp.float32([1, 0, 0]), "ids": jnp.array(0)}
    run = lambda p: eval(call, switching.our_words({**words, "p": p}))
    p = jnp.float32(by)
    np.testing.assert_allclose(run(p), value, 1e-6)
    gradient = jax.grad(lambda p: jnp.sum(run(p)))(p)
    assert gradient[0] == slope
    assert not np.isnan(gradient).any()


def test_no_recipe_takes_a_bare_logarithm():
    """But of variances, which are not 0."""
    bare = [call for _, call in ROWS if re.search(r"jnp\.log\((?!variances)", call)]
    assert not bare
