"""Prints what 64 training runs cost as one program, in a loop, and compiled anew.

    python -m bench.sweep

Focal losses on scikit-learn's breast_cancer: 4 gammas, 4 alphas and 4 learning rates,
300 steps each, a network with one hidden layer under Adam.  Every way has the same
`train_fn`; `steps traced` counts how often the step of training was traced, which is
how often XLA compiled a program that trains.  The loop that recompiles is measured for
8 of the 64 configurations.  The numbers are in docs/exact-training.md.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer

from jaxloss import Mean, sigmoid_focal, train
from jaxloss.train import runs

STEPS, HIDDEN, REPEATS = 300, 32, 4
GRID = train.grid(
    gamma=[0, 0.5, 1, 2], alpha=[0.2, 0.4, 0.6, 0.8], lr=[0.001, 0.003, 0.01, 0.03]
)
SIZE = len(GRID["lr"])

Metrics = dict[str, Any]


def logits(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ params["hidden"] + params["bias"])
    return hidden @ params["out"]


def fn(params: Any, batch: Any, *, gamma: jax.Array, alpha: jax.Array) -> dict:
    found, y = logits(params, batch["x"]), batch["y"]
    return {"focal": Mean.of(sigmoid_focal(found, y, gamma=gamma, alpha=alpha))}


traced: list[None] = []


def train_fn(hyper: dict[str, Any], key: jax.Array, data: Any) -> train.Run:
    objective = train.objective(fn, gamma=hyper["gamma"], alpha=hyper["alpha"])
    optimizer = optax.adam(hyper["lr"])
    update = train.train_step(objective, optimizer)
    first = jax.random.normal(key, (HIDDEN, data["x"].shape[1] + 1), jnp.float32) / 6
    params = {
        "hidden": first[:, :-1].T,
        "bias": jnp.zeros((1, HIDDEN), jnp.float32),
        "out": first[:, -1],
    }

    def step(state: train.TrainState, i: jax.Array) -> train.TrainState:
        traced.append(None)
        return update(state, data)[0]

    def evaluate(state: train.TrainState) -> Metrics:
        found, y = logits(state.params, data["x"]), data["y"]
        cross_entropy = jnp.mean(sigmoid_focal(found, y, gamma=0, alpha=0.5))
        return {"loss": cross_entropy, "accuracy": jnp.mean((found > 0) == (y > 0))}

    state = train.TrainState.init(objective, optimizer, params)
    return train.Run(state, step, evaluate)


def alone(hyper: dict[str, Any], key: jax.Array, data: Any) -> Metrics:
    """One run, as a function to compile."""
    run = train_fn(hyper, key, data)
    body = lambda i, state: run.step(state, i)
    return run.evaluate(jax.lax.fori_loop(0, STEPS, body, run.state))


def loop(one: Callable[..., Metrics], data: Any, rows: Iterable[int]) -> np.ndarray:
    """The losses of one run after the other."""
    key, values = jax.random.key(0), lambda i: {k: float(x[i]) for k, x in GRID.items()}
    return np.array([one(values(i), key, data)["loss"] for i in rows])


def baked(hyper: dict[str, float], key: jax.Array, data: Any) -> Metrics:
    """Numbers in the program instead of arguments: each configuration compiles."""
    return jax.jit(lambda key, data: alone(hyper, key, data))(key, data)


class Measured(NamedTuple):
    first: float  # seconds, compiling included
    again: float  # seconds of the same once more
    steps: int  # traced
    losses: np.ndarray


def clock(fn: Callable[[], np.ndarray]) -> tuple[float, int, np.ndarray]:
    before, start = len(traced), time.perf_counter()
    found = fn()
    return time.perf_counter() - start, len(traced) - before, found


def by_sweep(data: Any, _: int) -> Measured:
    table = lambda: train.sweep(train_fn, GRID, [0], steps=STEPS, data=data)
    first, steps, losses = clock(lambda: table()["loss"])
    finals = runs(train_fn, GRID, steps=STEPS)
    once_more = lambda: finals(jax.random.key(0), data)["loss"]
    once_more()  # a sweep keeps nothing compiled, so these programs are new
    return Measured(first, clock(once_more)[0], steps, losses)


def by_loop(data: Any, _: int) -> Measured:
    one = jax.jit(lambda *arguments: alone(*arguments))  # new, like its programs
    every = lambda: loop(one, data, range(SIZE))
    first, steps, losses = clock(every)
    return Measured(first, clock(every)[0], steps, losses)


def by_baked_loop(data: Any, repeat: int) -> Measured:
    """Of every 32nd configuration, another in each repeat, and scaled."""
    rows = range(SIZE)[repeat * 13 :: 32]
    first, steps, losses = clock(lambda: loop(baked, data, rows))
    scale = SIZE // len(rows)
    return Measured(first * scale, first * scale, steps * scale, losses)


WAYS = {
    "`train.sweep`": by_sweep,
    "loop, hyperparameters traced": by_loop,
    "loop that recompiles": by_baked_loop,
}


def main() -> None:
    # Compiling is measured here: nothing may come from the disk.
    jax.config.update("jax_enable_compilation_cache", False)
    x, y = load_breast_cancer(return_X_y=True)
    x = np.float32((x - x.mean(axis=0)) / x.std(axis=0))
    data = jax.device_put({"x": x, "y": np.float32(y == 0)})
    # In turn, so that whatever else the machine does meets all of them.
    found = [{name: way(data, i) for name, way in WAYS.items()} for i in range(REPEATS)]

    print(f"jax {jax.__version__}, {jax.devices()[0].platform}; {SIZE} x {STEPS} steps")
    print(
        f"seconds: least (median) of {REPEATS}; the last way from 2 of {SIZE} a time\n"
    )
    print("| | seconds | ratio | seconds, compiled before | steps traced |")
    print("|---|---|---|---|---|")
    base = min(one["`train.sweep`"].first for one in found)
    for name in WAYS:
        first = [one[name].first for one in found]
        again = [one[name].again for one in found]
        (steps,) = {one[name].steps for one in found}
        ratio = f"{min(first) / base:.1f}"
        print(f"| {name} | {shown(first)} | {ratio} | {shown(again)} | {steps} |")
    swept, looped = (found[0][name].losses for name in [*WAYS][:2])
    finite, off = np.isfinite(swept).sum(), np.max(np.abs(swept - looped))
    print(f"\nfinite: {finite} of {SIZE}; losses of sweep and loop: {off:.0e} apart")


def shown(seconds: list[float]) -> str:
    return f"{min(seconds):.1f} ({np.median(seconds):.1f})"


if __name__ == "__main__":
    main()
