"""Many configurations trained as one program: hyperparameters under `vmap`.

A hyperparameter that is an array, not a Python number, can be mapped over like any
other array.  `grid` lays out the combinations, `sweep` trains all of them at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import _checks

PyTree = Any


def grid(**axes: Sequence[float]) -> dict[str, np.ndarray]:
    """Every combination of the values, as flat float32 arrays of one length.

    Args:
      **axes: The values of each hyperparameter; the last one varies fastest.

    Returns:
      One array per hyperparameter, each as long as the product of their numbers.

    Raises:
      ValueError: If a hyperparameter has no values.

    Example:
      >>> from jaxloss.train.sweep import grid
      >>> grid(gamma=[0.0, 2.0], alpha=[0.25, 0.5])["gamma"]
      array([0., 0., 2., 2.], dtype=float32)
    """
    for name, values in axes.items():
        if len(values) == 0:
            _checks.fail("grid", name, "no values", "at least one")
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    return {n: x.ravel().astype(np.float32) for n, x in zip(axes, mesh, strict=True)}


def sweep(
    init: Callable[[jax.Array, dict[str, jax.Array]], PyTree],
    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    evaluate: Callable[[PyTree, PyTree], PyTree],
    hyperparameters: Mapping[str, np.ndarray],
    *,
    data: Callable[[int], tuple[PyTree, PyTree]],
    seeds: Iterable[int],
    steps: int,
    batch_size: int,
    chunk: int = 50,
    progress: Callable[[int], None] = lambda steps: None,
) -> Iterator[PyTree]:
    """Trains every configuration at once, one seed after the other.

    A seed fixes the key of `init`, the data and the order of the batches, the same for
    every configuration, so that these differ by their hyperparameters alone.
    Each of the three functions is compiled once, whatever the number of seeds and
    steps; results of finished seeds are out of the generator before the next begins.

    Args:
      init: Makes the training state from a key and the hyperparameters of one
        configuration, scalars by name.
      step: Maps a state and a batch to the next state and metrics, which are
        dropped: what `train_step` returns.
      evaluate: Maps a final state and `held_out` to anything worth keeping.
      hyperparameters: Arrays of one length, one entry per configuration.
      data: From a seed to (train, held_out), of the same shapes for every seed.  A
        batch is `batch_size` rows of every leaf of `train`, drawn with replacement;
        `held_out` is what `evaluate` needs.
      seeds: One integer per repetition.
      steps: Steps of training, at least 1.
      batch_size: Rows per batch, at least 1.
      chunk: Steps between two calls of `progress`; between them Python, and with it
        an interrupt, waits.
      progress: Called with the number of steps that have just been made.

    Yields:
      For each seed, the results of `evaluate` with a leading axis of configurations.

    Raises:
      TypeError: If `steps`, `batch_size` or `chunk` is not a Python integer.
      ValueError: If one of them is below 1.
    """
    _checks.positive_integer("sweep", steps=steps)
    _checks.positive_integer("sweep", batch_size=batch_size)
    _checks.positive_integer("sweep", chunk=chunk)
    begin, advance, finish = _programs(init, step, evaluate, batch_size)
    values = {name: jnp.asarray(x) for name, x in hyperparameters.items()}

    def results() -> Iterator[PyTree]:
        for seed in seeds:
            first, order = jax.random.split(jax.random.key(seed))
            state = begin(first, values)
            train, held_out = jax.tree.map(jnp.asarray, data(seed))
            for start in range(0, steps, chunk):
                stop = min(start + chunk, steps)
                state = jax.block_until_ready(advance(state, order, start, stop, train))
                progress(stop - start)
            yield jax.tree.map(np.asarray, finish(state, held_out))

    return results()


def _programs(init, step, evaluate, batch_size):
    """The three compiled functions: all configurations begin, advance and finish."""

    @jax.jit
    def begin(key, hyperparameters):
        state = jax.vmap(init, in_axes=(None, 0))(key, hyperparameters)
        # A weakly typed leaf (a Python number in an optimiser's state) would come back
        # strongly typed from the first step, and everything would be compiled again.
        return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)

    @jax.jit
    def advance(state, key, start, stop, train):
        rows = jax.tree.leaves(train)[0].shape[0]

        def one(i, state):
            drawn = jax.random.randint(
                jax.random.fold_in(key, i), (batch_size,), 0, rows
            )
            batch = jax.tree.map(lambda x: x[drawn], train)
            return jax.vmap(step, in_axes=(0, None))(state, batch)[0]

        # Traced bounds: one program for every number of steps, the last chunk included.
        return jax.lax.fori_loop(start, stop, one, state)

    @jax.jit
    def finish(state, held_out):
        # One configuration at a time: the held-out set may be large.
        return jax.lax.map(lambda one: evaluate(one, held_out), state)

    return begin, advance, finish
