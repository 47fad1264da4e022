"""Prints memory and time of the score of an ensemble: `python -m bench.crps`.

Value and gradient of the mean score of 50 000 forecasts of 50 members, in float32: by
`crps_ensemble`, by all pairs, as the textbook has it, and by a sort.  All take turns.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

import jaxloss

Score = Callable[[jax.Array, jax.Array], jax.Array]


def by_pairs(x: jax.Array, y: jax.Array) -> jax.Array:
    """The textbook: an array of all pairs of members."""
    spread = jnp.mean(jnp.abs(x[..., :, None] - x[..., None, :]), axis=(-2, -1)) / 2
    return jnp.mean(jnp.abs(x - y[..., None]), axis=-1) - spread


def by_sorting(x: jax.Array, y: jax.Array) -> jax.Array:
    """The spread as a sum over the members in order."""
    count = x.shape[-1]
    weights = 2 * jnp.arange(count) - (count - 1)
    spread = jnp.sum(weights * jnp.sort(x, axis=-1), axis=-1) / count**2
    return jnp.mean(jnp.abs(x - y[..., None]), axis=-1) - spread


SCORES: dict[str, Score] = {
    "jaxloss": jaxloss.crps_ensemble,
    "all pairs": by_pairs,
    "sorted": by_sorting,
}


def compiled(score: Score, x: jax.Array, y: jax.Array) -> jax.stages.Compiled:
    """Value and gradient of the mean."""
    mean = lambda x, y: jnp.mean(score(x, y))
    return jax.jit(jax.value_and_grad(mean)).lower(x, y).compile()


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(step())
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forecasts", type=int, default=50_000)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (options.forecasts, options.members))
    y = jax.random.normal(keys[1], (options.forecasts,))
    steps = {name: compiled(score, x, y) for name, score in SCORES.items()}
    for step in steps.values():
        jax.block_until_ready(step(x, y))
    taken = {name: [] for name in steps}
    for _ in range(options.turns):
        for name, step in steps.items():
            taken[name].append(seconds(functools.partial(step, x, y)))
    print(f"jax {jax.__version__}, {jax.default_backend()}, {x.shape} in {x.dtype}")
    for name, step in steps.items():
        memory = step.memory_analysis()
        extra = memory.temp_size_in_bytes / 2**20 if memory else float("nan")
        median = statistics.median(taken[name])
        print(f"{name:10} {extra:7.1f} MiB beside its arrays, {1e3 * median:7.1f} ms")


if __name__ == "__main__":
    main()
