"""What `jaxloss sweep` trains: losses, their grids, one small network.

One compiled program trains all configurations.  The loss of a configuration is a
number, as are its hyperparameters and its learning rate: everything that differs
between configurations is an array, and the program is mapped over it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss import datasets

if TYPE_CHECKING:
    from jaxloss import train

HIDDEN, BATCH = 32, 128


class Loss(NamedTuple):
    """A loss that can be swept: for which task, and over which hyperparameters."""

    task: str
    function: Callable[..., jax.Array]
    hyperparameters: tuple[str, ...] = ()

    def call(self, values: Mapping[str, float] | None = None) -> str:
        """The line of code that uses this loss with these hyperparameters, or any."""
        binary = self.task == datasets.BINARY
        data = "logits, labels" if binary else "predictions, targets"
        own = [
            f"{name}={values[name]:g}" if values else f"{name}="
            for name in self.hyperparameters
            if not values or name in values
        ]
        return f"jaxloss.{self.function.__name__}({', '.join([data, *own])})"


class Range(NamedTuple):
    """The values a hyperparameter may take, and those it takes by default."""

    interval: str
    default: tuple[float, ...]


LOSSES = {
    "sigmoid_cross_entropy": Loss(
        datasets.BINARY, jaxloss.sigmoid_cross_entropy, ("pos_weight",)
    ),
    "sigmoid_focal": Loss(datasets.BINARY, jaxloss.sigmoid_focal, ("gamma", "alpha")),
    "squared_error": Loss(datasets.REGRESSION, jaxloss.squared_error),
    "absolute_error": Loss(datasets.REGRESSION, jaxloss.absolute_error),
    "huber": Loss(datasets.REGRESSION, jaxloss.huber, ("delta",)),
    "log_cosh": Loss(datasets.REGRESSION, jaxloss.log_cosh),
    "pinball": Loss(datasets.REGRESSION, jaxloss.pinball, ("quantile",)),
}

ALIASES = {
    "cross_entropy": "sigmoid_cross_entropy",
    "weighted_cross_entropy": "sigmoid_cross_entropy",
    "focal": "sigmoid_focal",
    "squared": "squared_error",
    "absolute": "absolute_error",
}
"""What they were called before they had the names of the library."""

HYPERPARAMETERS = {
    "learning_rate": Range("(0, inf)", (0.001, 0.003, 0.01, 0.03)),
    "gamma": Range("[0, inf)", (0.0, 0.5, 1.0, 2.0, 5.0)),
    "alpha": Range("(0, 1)", (0.25, 0.5, 0.75, 0.9)),
    "pos_weight": Range("(0, inf)", (1.0, 2.0, 5.0, 10.0)),
    "delta": Range("(0, inf)", (0.1, 0.3, 1.0, 3.0)),
    "quantile": Range("(0, 1)", (0.1, 0.5, 0.9)),
}


class Simpler(NamedTuple):
    """A value of a hyperparameter at which a loss is another one, but for a factor."""

    hyperparameter: str
    value: float
    loss: str
    hyperparameters: Callable[[Mapping[str, float]], dict[str, float]]
    words: str


# A factor of the loss is one of the learning rate, and Adam ignores even that.
SIMPLER = {
    "sigmoid_focal": Simpler(
        "gamma",
        0.0,
        "sigmoid_cross_entropy",
        lambda own: {"pos_weight": own["alpha"] / (1 - own["alpha"])},
        "with pos_weight = alpha / (1 - alpha)",
    ),
    "pinball": Simpler("quantile", 0.5, "absolute_error", lambda own: {}, "halved"),
}


class Configurations(NamedTuple):
    """The loss and the own hyperparameters of each configuration, as a list.

    `arrays` has the same as arrays of one length, with some valid number where a loss
    lacks a hyperparameter: a NaN there would reach the gradients of the others. A cross
    entropy without a `pos_weight` has 1.
    `notes` say which losses go by a simpler name.
    """

    losses: list[str]
    hyperparameters: list[dict[str, float]]
    arrays: dict[str, np.ndarray]
    notes: list[str]


def configurations(
    losses: Sequence[str], values: Mapping[str, Sequence[float]]
) -> Configurations:
    """Every loss with every combination of its hyperparameters and learning rates.

    Each goes by its simplest name, once: a focal loss without focus is no focal loss.
    """
    from jaxloss.train.sweep import grid

    found: dict[tuple, dict[str, float]] = {}
    notes: list[str] = []
    for name in losses:
        own = ("learning_rate", *LOSSES[name].hyperparameters)
        columns = grid(**{key: values[key] for key in own})
        for row in zip(*columns.values(), strict=True):
            # As it was written: 0.9, not the float32 next to it.
            given = {k: float(str(x)) for k, x in zip(own, row, strict=True)}
            simple, plain, note = simplest(name, given)
            notes += [note] * (note not in ("", *notes))
            key = simple, *((k, np.float32(x)) for k, x in plain.items())
            found.setdefault(key, plain)
    order = list(dict.fromkeys(name for name, *_ in found))
    both = [(name, row) for (name, *_), row in found.items()]
    both.sort(key=lambda x: (order.index(x[0]), len(x[1])))  # the plain loss first
    names, rows = [name for name, _ in both], [row for _, row in both]
    filled = {key: x[0] for key, x in values.items()} | {"pos_weight": 1.0}
    taken = (
        "learning_rate",
        *(h for name in order for h in LOSSES[name].hyperparameters),
    )
    arrays = {
        key: np.array([row.get(key, filled[key]) for row in rows], np.float32)
        for key in taken
    }
    which = [order.index(name) for name in names]
    arrays["loss"] = np.array(which, np.float32)
    return Configurations(names, rows, arrays, notes)


def simplest(
    name: str, values: Mapping[str, float]
) -> tuple[str, dict[str, float], str]:
    """The loss that this one is, its hyperparameters, and a note if the name is new."""
    rule = SIMPLER.get(name)
    rate, note = {"learning_rate": values["learning_rate"]}, ""
    if rule and values[rule.hyperparameter] == rule.value:
        note = (
            f"{name} with {rule.hyperparameter}={rule.value:g} is {rule.loss} "
            f"{rule.words}, and is listed so"
        )
        name, values = rule.loss, {**rate, **rule.hyperparameters(values)}
    if values.get("pos_weight") == 1:  # the loss as it is
        values = rate
    return name, dict(values), note


class Standardiser(NamedTuple):
    """Shift and scale fitted on training rows; a constant column is only shifted."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray) -> "Standardiser":
        # Rounding leaves a constant column of 0.1 with a deviation of 1e-17.
        scale, noise = x.std(axis=0), 1e-12 * np.abs(x).max(axis=0)
        return cls(x.mean(axis=0), np.where(scale > noise, scale, 1.0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) / self.scale).astype(np.float32)

    def undo(self, x: np.ndarray) -> np.ndarray:
        return x * self.scale + self.mean


class HeldOut(NamedTuple):
    """Rows that were not trained on.

    Attributes:
      predictions: Shape `(configurations, n)`: logits of a binary task, else in the
        unit of the target.
      targets: Shape `(n,)`.
    """

    predictions: np.ndarray
    targets: np.ndarray


def run(
    data: datasets.Dataset,
    chosen: Configurations,
    *,
    seeds: int,
    steps: int,
    progress: Callable[[int], None] = lambda steps: None,
) -> Iterator[dict[str, HeldOut]]:
    """Trains all configurations, seed by seed: the weights, the batches and the split.

    Yields:
      For each seed the `validation` and the `test` rows.
    """
    from jaxloss.train.sweep import runs

    losses = [LOSSES[name] for name in dict.fromkeys(chosen.losses)]
    batch = min(BATCH, len(datasets.split(data).train))
    train_all = runs(
        _trainer(data.features.shape[1], losses, batch),
        chosen.arrays,
        steps=steps,
        chunk=max(1, steps // 20),
        progress=progress,
    )
    for seed in range(seeds):
        parts = datasets.split(data, seed=seed)
        inputs, outputs = _standardisers(data, parts.train)
        x = {
            part: inputs(data.features[rows]) for part, rows in parts._asdict().items()
        }
        rows = x.pop("train"), outputs(data.targets[parts.train])
        yield {
            part: HeldOut(outputs.undo(found), data.targets[getattr(parts, part)])
            for part, found in train_all(jax.random.key(seed), rows, x).items()
        }


def _standardisers(
    data: datasets.Dataset, train: np.ndarray
) -> tuple[Standardiser, Standardiser]:
    """For the features and the targets; the labels of a binary task stay."""
    inputs = Standardiser.fit(data.features[train])
    if data.task == datasets.BINARY:
        return inputs, Standardiser(np.zeros(()), np.ones(()))
    return inputs, Standardiser.fit(data.targets[train])


def _trainer(
    features: int, losses: Sequence[Loss], size: int
) -> Callable[..., "train.Run"]:
    """How one configuration begins, makes a step with `size` rows, and predicts."""
    import optax
    from flax import nnx

    from jaxloss import train

    def network(key: jax.Array) -> nnx.Module:
        rngs = nnx.Rngs(key)
        hidden = nnx.Linear(features, HIDDEN, param_dtype=jnp.float32, rngs=rngs)
        last = nnx.Linear(HIDDEN, 1, param_dtype=jnp.float32, rngs=rngs)
        return nnx.Sequential(hidden, nnx.relu, last)

    graph = nnx.graphdef(nnx.eval_shape(lambda: network(jax.random.key(0))))

    def apply(params: nnx.State, inputs: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(inputs)[:, 0]

    def fit(params, batch, *, loss, **values):
        inputs, targets = batch
        branches = [_branch(one, targets, values) for one in losses]
        which, predictions = loss.astype(jnp.int32), apply(params, inputs)
        return {"fit": jaxloss.Mean.of(jax.lax.switch(which, branches, predictions))}

    def train_fn(values, key, rows, held_out):
        first, order = jax.random.split(key)
        optimizer = optax.inject_hyperparams(optax.adam)(
            learning_rate=values["learning_rate"]
        )
        objective = train.objective(
            fit, **{k: x for k, x in values.items() if k != "learning_rate"}
        )
        update = train.train_step(objective, optimizer)

        def step(state, i):
            key, count = jax.random.fold_in(order, i), len(rows[1])
            drawn = jax.random.randint(key, (size,), 0, count)
            return update(state, jax.tree.map(lambda x: x[drawn], rows))[0]

        params = nnx.state(network(first), nnx.Param)
        return train.Run(
            train.TrainState.init(objective, optimizer, params),
            step,
            lambda state: {
                part: apply(state.params, x) for part, x in held_out.items()
            },
        )

    return train_fn


def _branch(
    loss: Loss, targets: jax.Array, values: Mapping[str, jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    own = {name: values[name] for name in loss.hyperparameters}
    return lambda predictions: loss.function(predictions, targets, **own)
