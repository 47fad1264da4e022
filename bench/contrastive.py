"""Times contrastive losses and their memory: by blocks, dense, and as users write them.

    python -m bench.contrastive clip [--batch 8192] [--components 256] [--block 128]
    python -m bench.contrastive nt_xent [--batch 2048] [--components 128]

Value and gradient under jit of one batch in float32, in one process, turn by turn.
`optax.losses.ntxent` takes 1 KiB for each pair of a batch: 4 GiB at 2048, 17 at 4096.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxloss
from jaxloss import kernels

Loss = Callable[..., jax.Array]


def textbook_clip(x: jax.Array, y: jax.Array, *, temperature: float) -> jax.Array:
    """Two cross entropies of optax: of the matrix of scores, and of its transpose."""
    u, v = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    scores, ids = u @ v.T / temperature, jnp.arange(len(x))
    ce = optax.softmax_cross_entropy_with_integer_labels
    return 0.5 * (ce(scores, ids) + ce(scores.T, ids))


def losses(name: str, block: int | None) -> dict[str, Loss]:
    """What is compared, as functions of two embeddings of each pair."""
    if name == "clip":
        return {
            "optax ce": textbook_clip,
            "dense": jaxloss.clip,
            "blocks": functools.partial(kernels.clip, block=block),
        }

    def of_views(fn: Loss, **options) -> Loss:
        return lambda x, y, **kw: fn(
            jnp.concatenate([x, y]), jnp.arange(2 * len(x)) % len(x), **options, **kw
        )

    return {
        "optax": of_views(optax.losses.ntxent),
        "dense": of_views(jaxloss.nt_xent),
        "blocks": of_views(kernels.nt_xent, block=block),
    }


def seconds(step: Callable, *args: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    return time.perf_counter() - start


def mebibytes(step: jax.stages.Compiled) -> float:
    memory = step.memory_analysis()
    if memory is None:
        raise SystemExit("this device does not tell how much memory a program takes")
    return memory.temp_size_in_bytes / 2**20


def main(
    loss: str, batch: int, components: int, block: int | None, repeats: int
) -> None:
    pairs = batch if loss == "clip" else batch // 2
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, pairs, components)).astype(np.float32)
    args = jnp.asarray(x), jnp.asarray(x + noise)
    steps = {}
    for name, fn in losses(loss, block).items():
        mean = lambda x, y, fn=fn: jnp.mean(fn(x, y, temperature=0.07))
        step = jax.jit(jax.value_and_grad(mean, (0, 1)))
        steps[name] = step.lower(*args).compile()
    values = [float(step(*args)[0]) for step in steps.values()]  # and warm up
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(1e3 * seconds(step, *args))
    print(
        f"jax {jax.__version__}, {jax.default_backend()}, value and gradient of {loss}"
    )
    print(f"batch {batch}, components {components}, float32, {repeats} repeats")
    columns = ("min ms", "median", "ratio", "temp MiB", "ratio", "loss")
    print(f"{'':9}", *(f"{c:>9}" for c in columns))
    rooms = [mebibytes(step) for step in steps.values()]
    fastest = min(next(iter(times.values())))
    for (name, runs), room, value in zip(times.items(), rooms, values, strict=True):
        low, middle = min(runs), float(np.median(runs))
        print(
            f"{name:9} {low:9.1f} {middle:9.1f} {low / fastest:9.3f}"
            f" {room:9.1f} {room / rooms[0]:9.4f} {value:9.6f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.contrastive")
    parser.add_argument("loss", choices=["clip", "nt_xent"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--components", type=int)
    parser.add_argument("--block", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    given = vars(parser.parse_args())
    sizes = (8192, 256) if given["loss"] == "clip" else (2048, 128)
    given["batch"] = given["batch"] or sizes[0]
    given["components"] = given["components"] or sizes[1]
    main(**given)
