"""Prints how far gradients are from the textbook's, however a batch is cut.

    python -m bench.exactness [--quick]

Six objectives, in 1 to 8 micro-batches, in nine ways to use eight devices (virtual
ones, of the CPU), each against `jax.grad` of its formula over the whole batch in
float64 on one device.  The second of the eight shards is padding throughout.  Fails if
an error exceeds the bound, or a compiled step says more to other devices than it must.
`--quick` has every objective and every way, with 1 or 4 micro-batches in turn.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxloss import Mean, train

DEVICES = 8
BATCH = 64
PARTS = (1, 2, 4, 8)
BOUND = 1e-5
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
# In `shard_map`: one of sums and gradients, if one number depends on parameters and
# data; with several, one of the sums comes before, since the slope at the whole batch
# is what is pulled back.  Under `jit` XLA may cut them in more, but no example of the
# batch has to move.
ALL_REDUCES = {
    "masked mean": 1,
    "two tasks": 2,
    "learnt weights": 2,
    "L2": 1,
    "Dice": 2,
    "root of mean": 1,
}

Params = dict[str, Any]
Arrays = dict[str, Any]


def make_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    padding = np.arange(BATCH) // (BATCH // DEVICES) == 1
    return {
        "x": rng.normal(size=(BATCH, 4)),
        "value": 3 * rng.normal(size=BATCH) + np.linspace(0, 4, BATCH),
        "class": rng.integers(0, 2, BATCH).astype(float),
        # Fewer and fewer labels from shard to shard: means of means would be far off.
        "valued": (rng.random(BATCH) < np.linspace(1, 0.2, BATCH)) & ~padding,
        "weight": rng.random(BATCH) * (rng.random(BATCH) < 0.4) * ~padding,
    }


def make_params() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {"first": (4, 8), "value": (8,), "class": (8,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def predictions(params: Params, batch: Arrays) -> tuple[jax.Array, jax.Array]:
    hidden = jnp.tanh(batch["x"] @ params["first"])
    return hidden @ params["value"], hidden @ params["class"]


# --- the objectives ------------------------------------------------------------------


def one_task(params: Params, batch: Arrays) -> Arrays:
    return {"value": two_tasks(params, batch)["value"]}


def two_tasks(params: Params, batch: Arrays) -> Arrays:
    value, logits = predictions(params, batch)
    entropy = jnp.logaddexp(0, logits) - logits * batch["class"]
    return {
        "value": Mean.of((value - batch["value"]) ** 2, where=batch["valued"]),
        "class": Mean.of(entropy, weights=batch["weight"]),
    }


def counts(params: Params, batch: Arrays) -> Arrays:
    p = jax.nn.sigmoid(predictions(params, batch)[1])
    y, w = batch["class"], batch["weight"]
    return {"dice": {"both": jnp.sum(w * p * y), "size": jnp.sum(w * (p + y))}}


def dice(state: train.ObjectiveState, totals: Arrays) -> tuple[jax.Array, dict]:
    return 1 - 2 * totals["dice"]["both"] / totals["dice"]["size"], {}


def root(state: train.ObjectiveState, totals: Arrays) -> tuple[jax.Array, dict]:
    return jnp.sqrt(totals["value"].compute()), {}


@functools.cache
def objectives() -> dict[str, train.Objective]:
    """Not when imported: they make arrays, and the devices have to be counted first."""
    task, tasks = train.objective(one_task), train.objective(two_tasks)
    return {
        "masked mean": task,
        "two tasks": train.weighted(tasks, {"value": 0.5, "class": 2}),
        "learnt weights": train.uncertainty_weighted(tasks, ["value", "class"]),
        "L2": train.l2(task, 0.125),
        "Dice": train.objective(counts, dice),
        "root of mean": train.objective(one_task, root),
    }


def parameters(name: str, params: Params) -> Params:
    """The parameters of an objective, of which one has its own."""
    if name != "learnt weights":
        return params
    ones = jnp.ones_like(params["value"][0])
    return {"model": params, "log_variances": {"value": ones / 2, "class": -ones / 4}}


# --- the same from the textbook ------------------------------------------------------


def means(params: Params, batch: Arrays) -> tuple[jax.Array, jax.Array]:
    h = jnp.tanh(jnp.einsum("bi,ij->bj", batch["x"], params["first"]))
    square = jnp.square(jnp.einsum("bj,j->b", h, params["value"]) - batch["value"])
    p = jax.nn.sigmoid(jnp.einsum("bj,j->b", h, params["class"]))
    nats = -jnp.log(jnp.where(batch["class"] == 1, p, 1 - p))
    m, w = batch["valued"], batch["weight"]
    return jnp.sum(m * square) / jnp.sum(m), jnp.sum(w * nats) / jnp.sum(w)


def kendall(params: Params, batch: Arrays) -> jax.Array:
    s = params["log_variances"]
    a, b = means(params["model"], batch)
    a, b = a * jnp.exp(-s["value"]), b * jnp.exp(-s["class"])
    return (a + b + s["value"] + s["class"]) / 2


def penalty(params: Params) -> jax.Array:
    return sum((jnp.sum(x * x) for x in params.values()), jnp.zeros(())) / 8


def overlap(params: Params, batch: Arrays) -> jax.Array:
    h = jnp.tanh(jnp.einsum("bi,ij->bj", batch["x"], params["first"]))
    p = 1 / (1 + jnp.exp(-jnp.einsum("bj,j->b", h, params["class"])))
    w, y = batch["weight"], batch["class"]
    return 1 - 2 * jnp.dot(w, p * y) / (jnp.dot(w, p) + jnp.dot(w, y))


TEXTBOOK: dict[str, Callable[[Params, Arrays], jax.Array]] = {
    "masked mean": lambda p, b: means(p, b)[0],
    "two tasks": lambda p, b: means(p, b)[0] / 2 + 2 * means(p, b)[1],
    "learnt weights": kendall,
    "L2": lambda p, b: means(p, b)[0] + penalty(p),
    "Dice": overlap,
    "root of mean": lambda p, b: jnp.sqrt(means(p, b)[0]),
}


def expected() -> dict[str, Any]:
    """Loss and gradient of each formula, in float64, of the rounded numbers."""
    params, batch = single(make_params()), single(make_batch())
    with jax.enable_x64(True):
        wide = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, float))
        found = {
            name: jax.value_and_grad(fn)(parameters(name, wide(params)), wide(batch))
            for name, fn in TEXTBOOK.items()
        }
        return jax.tree.map(np.asarray, found)


def single(tree: Any) -> Any:
    return {k: x if x.dtype == bool else np.float32(x) for k, x in tree.items()}


# --- the ways to use the devices -----------------------------------------------------

Step = Callable[[Params, Arrays], dict[str, Any]]
Make = Callable[[Any], Step]  # from an axis name
Program = tuple[Any, tuple[Params, Arrays]]  # under jit; and its arguments


def step(names: Sequence[str], parts: int, axis_name: Any = None) -> Step:
    """Loss and gradient of each objective, in one program: compiling is what costs."""

    def evaluate(params: Params, batch: Arrays) -> dict[str, Any]:
        found = {}
        for name in names:
            objective = objectives()[name]
            fn = train.value_and_grad(
                objective, microbatches=parts, axis_name=axis_name
            )
            own = fn(parameters(name, params), objective.init(), batch)
            found[name] = own.loss, own.grads
        return found

    return evaluate


def alone(make: Make, params: Params, batch: Arrays) -> Program:
    return jax.jit(make(None)), (params, batch)


def sharded(
    make: Make,
    params: Params,
    batch: Arrays,
    *,
    axis_type: AxisType = AxisType.Auto,
    fully: bool = False,
) -> Program:
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(axis_type,))
    place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
    cut = {"first": P(None, "data"), "value": P("data"), "class": P("data")}
    args = (
        {k: place(x, cut[k] if fully else P()) for k, x in params.items()},
        {k: place(x, P("data")) for k, x in batch.items()},
    )
    return jax.jit(make(None)), args


def mapped(
    make: Make,
    params: Params,
    batch: Arrays,
    *,
    check_vma: bool = True,
    shape: tuple[int, ...] = (DEVICES,),
    names: tuple[str, ...] = ("data",),
) -> Program:
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))
    fn = jax.shard_map(
        make(names if names[1:] else names[0]),
        mesh=mesh,
        in_specs=(P(), P(names)),
        out_specs=P(),
        check_vma=check_vma,
    )
    return jax.jit(fn), (params, batch)


def pmapped(make: Make, params: Params, batch: Arrays) -> Program:
    fn = jax.pmap(make("data"), axis_name="data", in_axes=(None, 0))
    return fn, (params, stacked(batch))


def vmapped(make: Make, params: Params, batch: Arrays) -> Program:
    fn = jax.vmap(make("data"), axis_name="data", in_axes=(None, 0))
    return jax.jit(fn), (params, stacked(batch))


def stacked(batch: Arrays) -> Arrays:
    return {k: x.reshape(DEVICES, -1, *x.shape[1:]) for k, x in batch.items()}


WAYS: dict[str, Callable[[Make, Params, Arrays], Program]] = {
    "jit": alone,
    "jit, sharded batch": sharded,
    "jit, FSDP": functools.partial(sharded, fully=True),
    "explicit mesh": functools.partial(sharded, axis_type=AxisType.Explicit),
    "shard_map": mapped,
    "shard_map, no vma": functools.partial(mapped, check_vma=False),
    "pmap": pmapped,
    "vmap": vmapped,
    "tuple of axes": functools.partial(mapped, shape=(4, 2), names=("data", "model")),
}


# --- the table -----------------------------------------------------------------------


def error(found: Any, expected: Any) -> float:
    """The worst relative error of a leaf, on the worst device; inf if not finite."""

    def of_leaf(x: Any, y: np.ndarray) -> float:
        x = np.asarray(x, np.float64).reshape(-1, *y.shape)
        off = np.sqrt(np.sum((x - y) ** 2, axis=tuple(range(1, x.ndim))))
        if not np.all(np.isfinite(off)):
            return float("inf")
        # Where the truth is 0, of a head without a loss, so must be what was found.
        return float(np.max(off) / (np.sqrt(np.sum(y**2)) or np.finfo(float).tiny))

    return max(jax.tree.leaves(jax.tree.map(of_leaf, found, expected)))


def errors(quick: bool) -> Iterator[tuple[str, str, int, float]]:
    """(objective, way, micro-batches, error) of every cell of the matrix."""
    want, params, batch = expected(), single(make_params()), single(make_batch())
    for i, (way, program) in enumerate(WAYS.items()):
        # In turn, as in a Latin square: 1 or 4 parts, and every other objective.
        names = [*TEXTBOOK][i // 2 % 2 :: 2] if quick else [*TEXTBOOK]
        for parts in (PARTS[i % 2 * 2],) if quick else PARTS:
            fn, args = program(functools.partial(step, names, parts), params, batch)
            found = fn(*args)
            for name in names:
                yield name, way, parts, error(found[name], want[name])


def collectives(name: str, way: str, parts: int = 4) -> dict[str, int]:
    """How many of each kind the compiled step of one objective has."""
    make = functools.partial(step, [name], parts)
    fn, args = WAYS[way](make, single(make_params()), single(make_batch()))
    text = fn.lower(*args).compile().as_text()
    counts = {x: text.count(f" {x}(") + text.count(f" {x}-start(") for x in COLLECTIVES}
    return {name: count for name, count in counts.items() if count}


def table(cells: list[tuple[str, str, int, float]]) -> Iterator[str]:
    """The worst error of each objective and way, over the micro-batches; Markdown."""
    worst: dict[tuple[str, str], float] = {}
    for name, way, _, off in cells:
        for row in (name, "**worst**"):
            worst[row, way] = max(off, worst.get((row, way), 0))
    shown = {at: f"{off:.1e}" for at, off in worst.items()}
    yield f"| | {' | '.join(WAYS)} |"
    yield f"|---|{'---|' * len(WAYS)}"
    for row in (*TEXTBOOK, "**worst**"):
        yield f"| {row} | {' | '.join(shown.get((row, way), '') for way in WAYS)} |"


def main(quick: bool) -> int:
    # Before JAX looks for devices; a count in XLA_FLAGS would contradict it.
    os.environ.pop("XLA_FLAGS", None)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    start = time.perf_counter()
    cells = list(errors(quick))
    print(f"jax {jax.__version__}, {DEVICES} devices, batch {BATCH}, float32")
    print("worst relative error of the loss and of each gradient\n")
    print(*table(cells), sep="\n")
    bad = [cell for cell in cells if not cell[-1] <= BOUND]
    print(f"\n{len(cells)} cells, {len(bad)} worse than {BOUND:g}", *bad, sep="\n  ")
    said = {name: collectives(name, "shard_map") for name in objectives()}
    print("collectives of a step in shard_map:", *said.items(), sep="\n  ")
    jitted = collectives("learnt weights", "jit, sharded batch")
    print(f"and under jit: {jitted}; in {time.perf_counter() - start:.0f} s")
    more = said != {name: {"all-reduce": n} for name, n in ALL_REDUCES.items()}
    return int(bool(bad) or more or bool(set(jitted) - {"all-reduce"}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every way once")
    sys.exit(main(**vars(parser.parse_args())))
