"""Times the linear cross entropy and its memory beside optax, in one process.

    python -m bench.linear [--cases 0 1 ...] [--repeats 5]

Value and gradient, and per token the log-probability, under jit, turn by turn.  What
is compared with is `optax.softmax_cross_entropy_with_integer_labels` of all logits.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxloss import kernels

SHAPES = ((2048, 512, 32768), (4096, 256, 131072), (1024, 1024, 131072))
CASES = [(*shape, dtype) for dtype in ("float32", "bfloat16") for shape in SHAPES]


class Side(NamedTuple):
    """One of the programs that are timed in turn."""

    name: str
    step: Callable
    log_probs: bool


def data(tokens: int, features: int, classes: int, dtype: str) -> tuple[jax.Array, ...]:
    """Hidden states, a kernel that makes logits of size 2 of them, and labels."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((tokens, features), np.float32)
    kernel = rng.standard_normal((features, classes), np.float32)
    kernel *= 2 / np.sqrt(features)
    labels = rng.integers(0, classes, tokens).astype(np.int32)
    return jnp.asarray(hidden, dtype), jnp.asarray(kernel, dtype), jnp.asarray(labels)


def theirs(hidden: jax.Array, kernel: jax.Array, labels: jax.Array) -> jax.Array:
    logits = hidden @ kernel
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def ours(memory: str) -> Callable:
    def loss(hidden: jax.Array, kernel: jax.Array, labels: jax.Array) -> jax.Array:
        return kernels.linear_softmax_cross_entropy(
            hidden, kernel, labels, memory=memory
        ).compute()

    return loss


def sides() -> Iterator[Side]:
    """What is timed in turn; the first of each kind is what the others are beside."""
    both = lambda fn: jax.value_and_grad(fn, (0, 1))
    yield Side("optax", both(lambda *args: jnp.mean(theirs(*args))), False)
    for memory in ("fast", "lean"):
        yield Side(memory, both(ours(memory)), False)
    yield Side("optax, log-probs", theirs, True)
    yield Side("log-probs", kernels.linear_token_log_probs, True)


def exact(hidden: jax.Array, kernel: jax.Array, labels: jax.Array) -> float:
    """The mean loss in float64, some tokens at a time."""
    x, w, y = (np.asarray(a.astype(jnp.float32)) for a in (hidden, kernel, labels))
    losses = []
    for i in range(0, len(x), 64):
        z = x[i : i + 64].astype(np.float64) @ w.astype(np.float64)
        top = z.max(1)
        lse = top + np.log(np.exp(z - top[:, None]).sum(1))
        losses.append(lse - z[np.arange(len(z)), y[i : i + 64].astype(int)])
    return float(np.mean(np.concatenate(losses)))


def seconds(step: Callable, *args: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    return time.perf_counter() - start


def mebibytes(step: jax.stages.Compiled) -> float:
    memory = step.memory_analysis()
    if memory is None:
        raise SystemExit("this device does not tell how much memory a program takes")
    return memory.temp_size_in_bytes / 2**20


def report(case: tuple[int, int, int, str], repeats: int) -> None:
    args, every = data(*case), list(sides())
    steps = [jax.jit(side.step).lower(*args).compile() for side in every]
    rooms = [mebibytes(step) for step in steps]
    values = [jax.tree.leaves(step(*args))[0] for step in steps]  # and warm up
    runs = [[seconds(step, *args) for step in steps] for _ in range(repeats)]
    times, truth = 1e3 * np.array(runs), exact(*args)
    print("tokens {}, features {}, classes {}, {}".format(*case))
    base = 0
    for i, side in enumerate(every):
        base = i if side.name.startswith("optax") else base
        ratio = times[:, i].min() / times[:, base].min()
        median = float(np.median(times[:, i]) / np.median(times[:, base]))
        error = abs(abs(float(jnp.mean(values[i]))) / truth - 1)
        print(
            f"{side.name:18} min {times[:, i].min():8.0f} ms ({ratio:.2f})"
            f"  median {np.median(times[:, i]):8.0f} ms ({median:.2f})"
            f"  temp {rooms[i]:7.1f} MiB ({rooms[i] / rooms[base]:.3f})"
            f"  loss error {error:.0e}",
            flush=True,
        )


def main(cases: list[int], repeats: int) -> None:
    print(f"jax {jax.__version__}, {jax.default_backend()}, {repeats} repeats")
    for case in cases:
        report(CASES[case], repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.linear")
    every = list(range(len(CASES)))
    parser.add_argument("--cases", type=int, nargs="*", default=every, choices=every)
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
