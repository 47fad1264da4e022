"""Digits of which 40 % of the labels are wrong: generalised cross entropy, by its q.

A wrong label is one of the nine other classes.  A small network learns 1200 of the 1797
images with each q and five seeds, each with a split and wrong labels of its own, in one
compiled sweep.  What counts is the share of right predictions on the images left out,
of which the labels are right.
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import Mean, generalized_cross_entropy, train

STEPS, SEEDS, HIDDEN = 600, 5, 128
FIT, WRONG = 1200, 0.4
QS = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0]
images, digits = load_digits(return_X_y=True)
FITTED = jnp.arange(len(digits)) < FIT
data = {"x": (images / 16).astype("float32"), "y": digits.astype("int32")}


def net(params, x):
    return jax.nn.relu(x @ params["hidden"] + params["shift"]) @ params["out"]


def loss(params, batch, q):
    x, labels = batch
    return {"fit": Mean.of(generalized_cross_entropy(net(params, x), labels, q=q))}


def run(hyper, key, data):
    """One network: its own split, its own wrong labels, its q."""
    keys = jax.random.split(key, 5)
    rows = jax.random.permutation(keys[0], len(data["y"]))
    x, y = data["x"][rows], data["y"][rows]
    other = (y + jax.random.randint(keys[1], y.shape, 1, 10)) % 10
    labels = jnp.where(jax.random.uniform(keys[2], y.shape) < WRONG, other, y)
    objective = train.objective(loss, q=hyper["q"])
    optimizer = optax.adam(0.01)
    draw = lambda key, *shape: jax.random.normal(key, shape, x.dtype) / shape[0] ** 0.5
    params = {
        "hidden": draw(keys[3], 64, HIDDEN),
        "shift": jnp.zeros((1, HIDDEN), x.dtype),
        "out": draw(keys[4], HIDDEN, 10),
    }
    step = train.train_step(objective, optimizer)

    def evaluate(state):
        found = jnp.argmax(net(state.params, x), axis=-1)
        by_heart = jaxloss.mean(found == labels, where=(labels != y) & FITTED)
        return {"held out": jnp.mean((found == y)[FIT:]), "by heart": by_heart}

    batch = x[:FIT], labels[:FIT]
    state = train.TrainState.init(objective, optimizer, params)
    return train.Run(state, lambda state, _: step(state, batch)[0], evaluate)


table = train.sweep(run, train.grid(q=QS), range(SEEDS), steps=STEPS, data=data)
held_out, by_heart = (
    table[name].reshape(len(QS), SEEDS) for name in ("held out", "by heart")
)
for q, right, learnt in zip(QS, held_out, by_heart, strict=True):
    error = right.std(ddof=1) / SEEDS**0.5
    print(
        f"q {q}: {right.mean():.1%} ± {100 * error:.1f} of the held-out digits right, "
        f"{learnt.mean():.0%} of the wrong labels learnt"
    )
