"""A number with its uncertainty: the progression of diabetes, by several scores.

The same small network predicts a location and a scale for each patient, with several
losses, each on 20 splits of the data at once.  What counts are the patients left out:
the continuous ranked probability score of the prediction (CRPS, less is better), and
how many of them lie in the interval that should have 90 % of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from sklearn.datasets import load_diabetes

import jaxloss
from jaxloss import Mean, train

HIDDEN, STEPS, SPLITS, HELD_OUT, DRAWS = 16, 200, 20, 142, 199
x, progression = load_diabetes(return_X_y=True)
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
unit = progression.std()
y = ((progression - progression.mean()) / unit).astype("float32")


def gaussian(location, y, log_scale):
    return jaxloss.gaussian_nll(location, y, 2 * log_scale)


def student_t(location, y, log_scale):
    return jaxloss.student_t_nll(location, y, log_scale, degrees=4.0)


# A loss of location, target and log-scale; and the distribution that it predicts.
methods = [
    ("gaussian_nll", gaussian, scipy.stats.norm()),
    ("student_t_nll", student_t, scipy.stats.t(4)),
    ("crps_normal", jaxloss.crps_normal, scipy.stats.norm()),
]


def net(params, x):
    hidden = jnp.tanh(x @ params["hidden"] + params["shift"])
    out = hidden @ params["out"] + params["bias"]
    return out[:, 0], out[:, 1]


def predictions(loss, seed):
    """Trains on one split; returns location, target and log-scale of the rest."""

    def fit(params, batch):
        x, y = batch
        location, log_scale = net(params, x)
        return {"fit": Mean.of(loss(location, y, log_scale))}

    objective = train.l2(train.objective(fit), 1e-2, select=train.decayed)
    optimizer = optax.adam(1e-2)
    step = train.train_step(objective, optimizer)
    order, first, last = jax.random.split(seed, 3)
    rows = jax.random.permutation(order, len(y))
    held_out, rest = rows[:HELD_OUT], rows[HELD_OUT:]
    draw = lambda key, *shape: jax.random.normal(key, shape, x.dtype) / shape[0] ** 0.5
    params = {
        "hidden": draw(first, x.shape[1], HIDDEN),
        "shift": jnp.zeros((1, HIDDEN), x.dtype),
        "out": draw(last, HIDDEN, 2),
        "bias": jnp.zeros((1, 2), x.dtype),
    }
    data = jnp.asarray(x), jnp.asarray(y)
    batch = tuple(a[rest] for a in data)
    state = train.TrainState.init(objective, optimizer, params)
    state, _ = jax.lax.scan(
        lambda state, _: (step(state, batch)[0], None), state, length=STEPS
    )
    location, log_scale = net(state.params, data[0][held_out])
    return location, data[1][held_out], log_scale


found = {}
levels = (np.arange(DRAWS) + 0.5) / DRAWS
for name, loss, law in methods:
    run = jax.jit(jax.vmap(lambda seed, loss=loss: predictions(loss, seed)))
    location, target, log_scale = run(jax.random.split(jax.random.key(0), SPLITS))
    # The same score for every law: that of its quantiles, as an ensemble.
    quantiles = jnp.asarray(law.ppf(levels), x.dtype)[None, None]
    members = location[..., None] + jnp.exp(log_scale)[..., None] * quantiles
    crps = unit * np.asarray(jaxloss.crps_ensemble(members, target)).mean(axis=-1)
    within = jnp.abs(target - location) < law.ppf(0.95) * jnp.exp(log_scale)
    found[name] = crps, np.asarray(within).mean(axis=-1)
    print(
        f"{name:13} CRPS {crps.mean():.2f} ± {crps.std() / SPLITS**0.5:.2f}; "
        f"the 90 % interval has {np.mean(within):.1%}"
    )
