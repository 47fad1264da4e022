"""Classes in an order: five stages of diabetes, with and without knowing the order.

The progression of 442 patients after a year, in fifths: level 0 to 4.  The same small
network learns them with five objectives, each on 20 splits of the data at once.  What
counts is by how many levels a prediction is off, on the patients left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import jaxloss
from jaxloss import Mean, train

LEVELS, HIDDEN, STEPS, SPLITS, HELD_OUT = 5, 16, 200, 20, 142
x, progression = load_diabetes(return_X_y=True)
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
edges = np.quantile(progression, np.arange(1, LEVELS) / LEVELS)
y = np.searchsorted(edges, progression).astype("int32")


def coral(out, y):
    """One score and a bias for each threshold, as in the paper."""
    return jaxloss.coral(out, y)


def focal(out, y):
    """The same thresholds, each with another binary loss."""
    levels = jaxloss.ordinal_levels(y, num_classes=LEVELS)
    return jaxloss.sigmoid_focal(out, levels).sum(axis=-1)


def number(out, y):
    """No classes at all: the level as a number."""
    return jaxloss.squared_error(out[:, 0], y.astype(out.dtype))


def likeliest(out):
    return jnp.argmax(out, axis=-1)


def middle(out):
    """The median of the predicted distribution: least expected distance."""
    return jnp.sum(jnp.cumsum(jax.nn.softmax(out), axis=-1) < 0.5, axis=-1)


def above(out):
    return jnp.sum(out > 0, axis=-1)


def nearest(out):
    return jnp.clip(jnp.round(out[:, 0]), 0, LEVELS - 1)


methods = {  # a loss, how many outputs, whether they share a score, and who decides
    "cross entropy": (
        jaxloss.softmax_cross_entropy,
        LEVELS,
        False,
        [likeliest, middle],
    ),
    "squared_emd": (jaxloss.squared_emd, LEVELS, False, [likeliest, middle]),
    "coral": (coral, LEVELS - 1, True, [above]),
    "ordinal_levels, focal": (focal, LEVELS - 1, True, [above]),
    "squared error of the level": (number, 1, False, [nearest]),
}


def net(params, x):
    hidden = jnp.tanh(x @ params["hidden"] + params["shift"])
    return hidden @ params["out"] + params["bias"]


def distances(loss, outputs, shared, rules, seed):
    """Trains on one split, and returns the rank errors of the rest, by each rule."""
    fn = lambda params, batch: {"fit": Mean.of(loss(net(params, batch[0]), batch[1]))}
    objective = train.l2(train.objective(fn), 1e-2, select=train.decayed)
    optimizer = optax.adam(1e-2)
    step = train.train_step(objective, optimizer)
    order, first, last = jax.random.split(seed, 3)
    rows = jax.random.permutation(order, len(y))
    held_out, rest = rows[:HELD_OUT], rows[HELD_OUT:]
    columns = 1 if shared else outputs
    draw = lambda key, *shape: jax.random.normal(key, shape, x.dtype) / shape[0] ** 0.5
    params = {
        "hidden": draw(first, x.shape[1], HIDDEN),
        "shift": jnp.zeros((1, HIDDEN), x.dtype),
        "out": draw(last, HIDDEN, columns),
        "bias": jnp.linspace(1, -1, outputs, dtype=x.dtype)[None] * shared,
    }
    data = jnp.asarray(x), jnp.asarray(y)
    batch = tuple(a[rest] for a in data)
    state = train.TrainState.init(objective, optimizer, params)
    state, _ = jax.lax.scan(
        lambda state, _: (step(state, batch)[0], None), state, length=STEPS
    )
    out = net(state.params, data[0][held_out])
    return jnp.stack([jnp.abs(rule(out) - data[1][held_out]) for rule in rules])


found = {}
for name, method in methods.items():
    run = jax.jit(jax.vmap(lambda seed, method=method: distances(*method, seed)))
    off = np.asarray(run(jax.random.split(jax.random.key(0), SPLITS)))
    for k, rule in enumerate(method[-1]):
        mean = off[:, k].mean(axis=-1)
        found[name, rule.__name__] = mean
        print(
            f"{name:26} {rule.__name__:9} off by {mean.mean():.3f} levels, "
            f"± {mean.std() / SPLITS**0.5:.3f}; {np.mean(off[:, k] == 0):.1%} right"
        )
