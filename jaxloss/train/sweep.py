"""Whole training runs as one program: hyperparameters and seeds under `vmap`.

A hyperparameter that is an array, not a Python number, can be mapped over like any
other array, and so can a key.  `grid` makes all combinations; `sweep` trains all of
them, with every seed, and returns a table; `runs` does the training, if you need
something else than a table.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.train import _terms

PyTree = Any
Values = Sequence[float] | ArrayLike
AXIS = "sweep"


class Run(NamedTuple):
    """One run as a function of its hyperparameters: what a `train_fn` returns.

    Attributes:
      state: The state before the first step: any pytree, such as a `TrainState`.
      step: (state, i) -> the next state.  `i` counts the steps from 0, an int32
        scalar; fold it into the key to draw a batch.
      evaluate: last state -> results; in `sweep` a dict of scalars, the metrics.
    """

    state: PyTree
    step: Callable[[PyTree, jax.Array], PyTree]
    evaluate: Callable[[PyTree], PyTree]


def grid(**axes: Values) -> dict[str, np.ndarray]:
    """Every combination of the values, as flat float32 arrays of one length.

    Args:
      **axes: The values of each hyperparameter; the last one varies fastest.

    Returns:
      One array per hyperparameter, each as long as the product of their numbers.

    Raises:
      TypeError: If the values of a hyperparameter are not numbers.
      ValueError: If there is no hyperparameter, or one without values.

    Example:
      >>> from jaxloss import train
      >>> train.grid(gamma=[0.0, 2.0], alpha=[0.25, 0.5])["gamma"]
      array([0., 0., 2., 2.], dtype=float32)
    """
    values = [_column("grid", name, x) for name, x in axes.items()]
    if not values:
        _checks.fail("grid", "axes", "no names", "at least one, as gamma=[0, 2]")
    mesh = np.meshgrid(*values, indexing="ij")
    return {name: x.ravel() for name, x in zip(axes, mesh, strict=True)}


def grid_labels(grid: Mapping[str, Values]) -> list[str]:
    """A short text for each configuration, for a legend or the rows of a table.

    Args:
      grid: As in `sweep`.

    Returns:
      One text per configuration, in the order of the arrays.  Numbers have as many
      digits as are needed to distinguish one float32 from all others.

    Raises:
      TypeError: See `sweep`.
      ValueError: See `sweep`.

    Example:
      >>> from jaxloss import train
      >>> train.grid_labels(train.grid(gamma=[2], lr=[0.001, 0.1]))
      ['gamma=2, lr=0.001', 'gamma=2, lr=0.1']
    """
    columns = _columns("grid_labels", grid)
    short = [[str(x).removesuffix(".0") for x in xs] for xs in columns.values()]
    return [
        ", ".join(f"{name}={x}" for name, x in zip(columns, row, strict=True))
        for row in zip(*short, strict=True)
    ]


def sweep(
    train_fn: Callable[..., Run],
    grid: Mapping[str, Values],
    seeds: Iterable[int],
    *,
    steps: int,
    data: PyTree = None,
    chunk: int = 50,
    progress: Callable[[int], object] = lambda steps: None,
) -> dict[str, np.ndarray]:
    """Trains every configuration with every seed, all as one program.

    Runs are mapped over and distributed over all local devices, which do not
    communicate.  Each of three programs (begin, `chunk` steps, evaluate) is compiled
    once, whatever the number of runs and steps.

    Args:
      train_fn: (hyperparameters, key) -> Run, a pure function: it receives one value of
        each hyperparameter, float32 scalars by name, and the key of a seed, and returns
        one run.  It is called while tracing, once per program.  Use the hyperparameters
        like numbers, but not in an `if`, a shape or a range.
      grid: Arrays of one length, one entry per configuration: the result of
        `train.grid`, or a random search.  They become float32.
      seeds: Integers from 0 to 2**32 - 1, all different.  `train_fn` receives
        `jax.random.key(seed)`, the same for every configuration.
      steps: Steps of training, at least 1.
      data: A pytree of arrays.  If given, it is the third argument of `train_fn`;
        arrays that a function closes over become constants of the program, which takes
        time and memory if they are large.
      chunk: Number of steps between two calls of `progress`.  Python, and so an
        interrupt, waits until a chunk is finished.
      progress: Called, outside of all tracing, with the number of steps that all runs
        have just made; these add up to `steps`.

    Returns:
      A tidy table: a dict of NumPy arrays of one length, one entry per run; seeds vary
      fastest.  The columns are the hyperparameters, `seed`, and the metrics in
      alphabetical order.  Pass it to `pandas.DataFrame` as it is.

    Raises:
      TypeError: If an argument is of the wrong kind; if `train_fn` does not return a
        `Run`, or its `evaluate` not a dict.
      ValueError: If there are no configurations or no seeds, arrays differ in length,
        or a number is out of range; if `data` has an integer that JAX would cut to 32
        bits; if a metric is not a scalar, or has the name of another column.  All of
        these are raised before the training.

    Example:
      >>> from jaxloss import train
      >>> def train_fn(hyperparameters, key):
      ...     descend = lambda x, i: x - hyperparameters["lr"] * x
      ...     first = jax.random.uniform(key, minval=1.0)
      ...     return train.Run(first, descend, lambda x: {"left": x / first})
      >>> table = train.sweep(train_fn, train.grid(lr=[0.5, 1]), range(2), steps=3)
      >>> for name, column in table.items():
      ...     print(name, column)
      lr [0.5 0.5 1.  1. ]
      seed [0 1 0 1]
      left [0.125 0.125 0.    0.   ]
    """
    configurations, whole = _columns("sweep", grid), _seeds(seeds)
    values = {name: np.repeat(x, len(whole)) for name, x in configurations.items()}
    size = len(next(iter(configurations.values())))
    columns = {**values, "seed": np.tile(whole, size)}

    def checked(*arguments: Any) -> Run:
        run = train_fn(*arguments)
        if not isinstance(run, Run):
            has = f"a result of type {_terms.kind(run)}"
            expected = "a train.Run(state, step, evaluate)"
            _checks.wrong_kind("sweep", "train_fn", has, expected)
        return run._replace(evaluate=lambda x: _metrics(run.evaluate(x), columns))

    if not callable(train_fn):
        has = f"type {_terms.kind(train_fn)}"
        _checks.wrong_kind("sweep", "train_fn", has, "a function that returns a Run")
    finals = runs(checked, values, steps=steps, chunk=chunk, progress=progress)
    keys = jax.vmap(jax.random.key)(columns["seed"].astype(np.uint32))
    # One seed has one key: batches that are drawn by it are drawn once for all.
    keys = keys if len(whole) > 1 else keys[0]
    return columns | finals(keys, *(() if data is None else (data,)))


def runs(
    train_fn: Callable[..., Run],
    hyperparameters: Mapping[str, np.ndarray],
    *,
    steps: int,
    chunk: int = 50,
    progress: Callable[[int], object] = lambda steps: None,
) -> Callable[..., PyTree]:
    """All runs of a `sweep` at once, as a function of their keys.

    Args:
      train_fn: `(hyperparameters, key, *data) -> Run`, as in `sweep`; `evaluate` may
        return any pytree of arrays.
      hyperparameters: Arrays of one length, one entry per run.
      steps: As in `sweep`.
      chunk: As in `sweep`.
      progress: As in `sweep`.

    Returns:
      `fn(keys, *data)`, which returns what `evaluate` returns, as NumPy arrays with a
      leading axis of runs.  `keys` is one key for all runs, or an array with one key
      for each.  With keys and data of the same shapes, further calls compile nothing.

    Raises:
      TypeError: If `steps` or `chunk` is not a Python integer.
      ValueError: If one of them is below 1.

    Example:
      >>> from jaxloss import train
      >>> def train_fn(hyperparameters, key):
      ...     descend = lambda x, i: x - hyperparameters["lr"] * x
      ...     return train.Run(jnp.ones(2), descend, lambda x: x)
      >>> train.runs(train_fn, train.grid(lr=[0.5, 1]), steps=1)(jax.random.key(0))
      array([[0.5, 0.5],
             [0. , 0. ]], dtype=float32)
    """
    _checks.positive_integer("sweep", steps=steps)
    _checks.positive_integer("sweep", chunk=chunk)
    size = len(next(iter(hyperparameters.values())))
    mesh, rows = _shares(size)
    begin, advance, finish = _programs(train_fn, mesh)

    def place(tree: PyTree, *, along: bool) -> PyTree:
        taken = jax.tree.map(lambda x: x[rows], tree) if along else tree
        return jax.device_put(taken, NamedSharding(mesh, P(AXIS) if along else P()))

    values = place(dict(hyperparameters), along=True)

    def finals(keys: jax.Array, *data: PyTree) -> PyTree:
        for one in data:
            _checks.no_wide_integers("sweep", data=one)
        given = values, place(keys, along=keys.ndim > 0), place(data, along=False)
        state = begin(None, *given)
        # What is wrong with `evaluate` is said now, not after hours of training.
        jax.eval_shape(finish, state, *given)
        for start in range(0, steps, chunk):
            stop = min(start + chunk, steps)
            state = advance(state, *given, np.int32(start), np.int32(stop))
            jax.block_until_ready(state)
            progress(stop - start)
        return jax.tree.map(lambda x: np.asarray(x)[:size], finish(state, *given))

    return finals


def _shares(size: int) -> tuple[Mesh, np.ndarray]:
    """As few devices as have equal shares of the runs, and the runs, filled up.

    Devices of other hosts are left to these: each host makes all the runs it asks for.
    """
    devices = jax.local_devices()
    share = -(-size // len(devices))
    used = -(-size // share)
    mesh = jax.make_mesh(
        (used,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:used]
    )
    return mesh, np.minimum(np.arange(used * share), size - 1)


def _programs(
    train_fn: Callable[..., Run], mesh: Mesh
) -> tuple[Callable, Callable, Callable]:
    """The three compiled functions: all runs begin, advance and finish."""

    def begin(_, values, key, data):
        return train_fn(values, key, *data).state

    def advance(state, values, key, data, start, stop):
        step = train_fn(values, key, *data).step
        # Traced bounds: one program for every number of steps, the last chunk included.
        return jax.lax.fori_loop(start, stop, lambda i, state: step(state, i), state)

    def finish(state, values, key, data):
        return train_fn(values, key, *data).evaluate(state)

    at_once = lambda fn, runs: jax.vmap(fn)(runs)
    return (
        _program(begin, mesh, at_once),
        _program(advance, mesh, at_once),
        # One run after the other: the held-out set may be large.
        _program(finish, mesh, jax.lax.map),
    )


def _program(fn: Callable, mesh: Mesh, over: Callable) -> Callable:
    """`fn` of one run, of all of them, each device having its share of the runs."""

    def share(state, values, keys, *rest):
        if keys.ndim:
            return over(lambda run: fn(*run, *rest), (state, values, keys))
        return over(lambda run: fn(*run, keys, *rest), (state, values))

    @functools.wraps(fn)
    def program(state, values, keys, *rest):
        runs, same = P(AXIS), P()
        specs = runs, runs, runs if keys.ndim else same, *(same for _ in rest)
        # Not left to the partitioner, which asks other devices where it is at a loss,
        # as in a loop over runs or a matrix factorisation.
        found = jax.shard_map(
            share, mesh=mesh, in_specs=specs, out_specs=runs, check_vma=False
        )(state, values, keys, *rest)
        # A weakly typed leaf (a Python number in an optimiser's state) would come back
        # strongly typed from the first step, and everything would be compiled again.
        return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), found)

    return jax.jit(program)


def _column(function: str, name: str, values: Any) -> np.ndarray:
    """The values of one hyperparameter as a flat float32 array."""
    expected = "a sequence of numbers, such as [0.0, 2.0]"
    numbers = np.asarray(_checks.number(function, name, values, expected))
    if numbers.ndim != 1:
        _checks.fail(function, name, f"shape {numbers.shape}", "one axis of values")
    if not len(numbers):
        _checks.fail(function, name, "no values", "at least one")
    return numbers.astype(np.float32)


def _columns(function: str, grid: Any) -> dict[str, np.ndarray]:
    """The hyperparameters of a sweep as float32 arrays of one length."""
    expected = "a dict {name: values}, such as train.grid(gamma=[0, 2])"
    if not isinstance(grid, Mapping):
        _checks.wrong_kind(function, "grid", f"type {_terms.kind(grid)}", expected)
    if not grid:
        _checks.fail(function, "grid", "no hyperparameters", expected)
    columns = {name: _column(function, name, x) for name, x in grid.items()}
    lengths = {name: len(x) for name, x in columns.items()}
    if len(set(lengths.values())) > 1:
        has = f"arrays of different lengths, {lengths}"
        _checks.fail(function, "grid", has, "one entry per configuration in each")
    if "seed" in columns:
        has = "a hyperparameter 'seed', which is the name of another column"
        _checks.fail(function, "grid", has, "another name for it")
    return columns


def _seeds(seeds: Any) -> np.ndarray:
    expected = "different integers from 0 to 2**32 - 1, such as range(10)"
    if not isinstance(seeds, Iterable):
        _checks.wrong_kind("sweep", "seeds", f"type {_terms.kind(seeds)}", expected)
    whole = list(seeds)
    for seed in whole:
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            has = f"{seed!r} of type {_terms.kind(seed)}"
            _checks.wrong_kind("sweep", "seeds", has, expected)
        # More bits, or a sign, would be cut off where 64-bit types are off: two seeds
        # could be the same run.
        if not 0 <= seed < 2**32:
            _checks.fail("sweep", "seeds", f"the value {seed}", expected)
    if not whole or len(set(whole)) < len(whole):
        has = "the same value twice" if whole else "no values"
        _checks.fail("sweep", "seeds", has, expected)
    return np.array(whole, np.int64)


def _metrics(found: Any, columns: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """What one run's `evaluate` returned, if it can be a row of the table."""
    expected = "a dict of scalars, such as {'accuracy': accuracy}"
    if not isinstance(found, Mapping):
        has = f"a result of type {_terms.kind(found)}"
        _checks.wrong_kind("sweep", "evaluate", has, expected)
    for name in found:
        if name in columns:
            has = f"a metric {name!r}, which is the name of another column"
            _checks.fail("sweep", "evaluate", has, "a name of its own")
    return {name: _scalar(name, x) for name, x in found.items()}


def _scalar(name: str, value: Any) -> jax.Array:
    """A metric: a truth value, an integer, or a number of at least float32."""
    expected = f"one number as the metric {name!r}"
    # The check takes no truth values, but whether a run diverged is worth a column.
    truth = isinstance(value, jax.Array) and value.dtype == bool
    x = value if truth else _checks.number("sweep", "evaluate", value, expected)
    if x.shape:
        _checks.fail("sweep", "evaluate", f"shape {x.shape}", expected)
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return x.astype(jnp.float32) if narrow else x
