"""Times NT-Xent and its memory beside optax, in one process, turn by turn.

    python -m bench.nt_xent [--batch 1024] [--components 256] [--repeats 5]

Value and gradient under jit of one batch in float32, with two views of each example.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxloss.similarity


def ours(x: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jaxloss.similarity.nt_xent(x, labels, temperature=0.07))


def theirs(x: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.losses.ntxent(x, labels, temperature=0.07)


def seconds(step: Callable, *args: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    return time.perf_counter() - start


def mebibytes(step: jax.stages.Compiled) -> float:
    memory = step.memory_analysis()
    if memory is None:
        raise SystemExit("this device does not tell how much memory a program takes")
    return memory.temp_size_in_bytes / 2**20


def main(batch: int, components: int, repeats: int) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, components)), jnp.float32)
    args = x, jnp.arange(batch) // 2
    steps = {
        name: jax.jit(jax.value_and_grad(fn)).lower(*args).compile()
        for name, fn in (("jaxloss", ours), ("optax", theirs))
    }
    values = [float(step(*args)[0]) for step in steps.values()]  # and warm up
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(1e3 * seconds(step, *args))
    room = {name: mebibytes(step) for name, step in steps.items()}
    print(f"jax {jax.__version__}, {jax.default_backend()}, value and gradient")
    print(f"batch {batch}, components {components}, float32, {repeats} repeats")
    print(f"{'':8} {'min ms':>9} {'median':>9} {'max':>9} {'temp MiB':>9} {'loss':>10}")
    for (name, runs), value in zip(times.items(), values, strict=True):
        columns = min(runs), float(np.median(runs)), max(runs), room[name]
        print(f"{name:8}", *(f"{c:9.1f}" for c in columns), f"{value:10.6f}")
    (fast, slow), (small, large) = (list(map(min, times.values())), room.values())
    print(
        f"jaxloss is {slow / fast:.0f} times faster, in 1/{large / small:.0f} the room"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.nt_xent")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--components", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
