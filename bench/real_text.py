"""Prints what goes wrong with masked means on real text, and by how much.

    python -m bench.real_text

The text is Python's own documentation (`pydoc_data.topics`, in the standard library),
one example per paragraph, so that examples differ in length as sentences do.  Eight
virtual devices; the numbers are in docs/exact-training.md.
"""

from collections.abc import Callable
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, PartitionSpec as P

import jaxloss
from jaxloss import train

DEVICES, BATCH, LENGTH, CONTEXT, WIDTH = 8, 16, 256, 8, 96
STEPS, SEEDS = 400, 3
CHARACTERS = [chr(c) for c in range(32, 127)]

Params = dict[str, jax.Array]


def paragraphs() -> tuple[np.ndarray, np.ndarray]:
    """Character ids `[n, CONTEXT + LENGTH]`, 0 before the first; and what is text."""
    ids = {c: i + 1 for i, c in enumerate(CHARACTERS)}
    texts = [" ".join(p.split()) for t in topics.values() for p in t.split("\n\n")]
    texts = [t[:LENGTH] for t in texts if len(t) >= 20 and t.isascii()]
    rows = np.zeros((len(texts), CONTEXT + LENGTH), np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[CONTEXT : CONTEXT + len(text)] = [ids[c] for c in text]
    return rows, rows[:, CONTEXT:] > 0


def first_params(seed: int) -> Params:
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {
        "embed": (len(CHARACTERS) + 1, 16),
        "hidden": (16 * CONTEXT, WIDTH),
        "head": (WIDTH, len(CHARACTERS) + 1),
    }
    draw = lambda k, s: jax.random.normal(k, s) / np.sqrt(s[0])
    return {n: draw(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def logits(params: Params, rows: jax.Array) -> jax.Array:
    """Of each character, from the ones before it."""
    window = jnp.arange(LENGTH)[:, None] + jnp.arange(CONTEXT)[None]
    seen = params["embed"][rows[:, window]].reshape(len(rows), LENGTH, -1)
    return jnp.tanh(seen @ params["hidden"]) @ params["head"]


def terms(params: Params, batch: dict[str, jax.Array]) -> dict[str, jaxloss.Mean]:
    losses = jaxloss.softmax_cross_entropy(
        logits(params, batch["rows"]), batch["rows"][:, CONTEXT:]
    )
    return {"nats": jaxloss.Mean.of(losses, where=batch["text"])}


OBJECTIVE = train.objective(terms)


def exact(params: Params, batch: Any) -> Params:
    return train.value_and_grad(OBJECTIVE)(params, OBJECTIVE.init(), batch).grads


def mean_of_means(count: int) -> Callable[[Params, Any], Params]:
    """What averaging the gradients of parts gives, as `pmean` and accumulation do."""

    def grads(params: Params, batch: Any) -> Params:
        cut = lambda x: x.reshape(count, -1, *x.shape[1:])
        each = jax.vmap(exact, (None, 0))(params, jax.tree.map(cut, batch))
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), each)

    return grads


def sum_and_divide(check_vma: bool) -> Callable[[Params, Any], Params]:
    """The recipe of many trainers: psum the sums, psum the gradients, divide."""

    def local(params: Params, batch: Any) -> Params:
        total = lambda p: terms(p, batch)["nats"].total
        count = jax.lax.psum(terms(params, batch)["nats"].weight, "data")
        grads = jax.lax.psum(jax.grad(total)(params), "data")
        return jax.tree.map(lambda g: g / count, grads)

    return over_devices(local, check_vma)


def ours(check_vma: bool) -> Callable[[Params, Any], Params]:
    evaluate = train.value_and_grad(OBJECTIVE, axis_name="data", microbatches=2)
    local = lambda params, batch: evaluate(params, OBJECTIVE.init(), batch).grads
    return over_devices(local, check_vma)


def over_devices(local: Callable, check_vma: bool) -> Callable:
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    specs = (P(), P("data"))
    return jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check_vma
    )


def off(found: Params, expected: Params) -> float:
    """The relative error of a gradient."""
    norm = lambda tree: float(optax.global_norm(tree))
    return norm(jax.tree.map(jnp.subtract, found, expected)) / norm(expected)


def errors(params: Params, batches: list[Any]) -> None:
    """Of one batch after another, at the same parameters."""
    recipes: dict[str, Callable] = {
        f"mean of the means of {k} parts": mean_of_means(k) for k in (2, 4, 8)
    }
    for vma in (True, False):
        recipes[f"psum, psum, divide; check_vma={vma}"] = sum_and_divide(vma)
        recipes[f"train.value_and_grad; check_vma={vma}"] = ours(vma)
    print("| gradient | relative error, mean (largest) |\n|---|---|")
    truth = [jax.jit(exact)(params, b) for b in batches]
    for name, recipe in recipes.items():
        compiled = jax.jit(recipe)
        found = [
            off(compiled(params, b), t) for b, t in zip(batches, truth, strict=True)
        ]
        print(f"| {name} | {np.mean(found):.2g} ({np.max(found):.2g}) |", flush=True)


def quality(draw: Callable[[np.random.Generator], Any], held_out: Any) -> None:
    """Held-out nats per character after training with either gradient."""
    optimizer = optax.adam(3e-3)

    def trained(seed: int, gradient: Callable) -> float:
        @jax.jit
        def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(gradient(params, batch), state, params)
            return optax.apply_updates(params, updates), state

        params = first_params(seed)
        state, rng = optimizer.init(params), np.random.default_rng(seed)
        for _ in range(STEPS):
            params, state = step(params, state, draw(rng))
        state = OBJECTIVE.init()
        return float(train.evaluate(OBJECTIVE, params, state, held_out)[0])

    print("\n| trained with | held-out nats per character |\n|---|---|")
    for name, gradient in (("mean of 8 means", mean_of_means(8)), ("exact", exact)):
        found = [trained(seed, gradient) for seed in range(SEEDS)]
        spread = np.std(found, ddof=1) / np.sqrt(SEEDS)
        print(f"| {name} | {np.mean(found):.4f} ± {spread:.4f} |", flush=True)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    rows, text = paragraphs()
    order = np.random.default_rng(0).permutation(len(rows))
    train_rows, test_rows = order[256:], order[:256]
    batch = lambda at: {"rows": rows[at], "text": text[at]}
    draw = lambda rng: batch(rng.choice(train_rows, BATCH, replace=False))
    print(f"{len(rows)} paragraphs, {text.sum()} characters\n")
    rng = np.random.default_rng(1)
    errors(first_params(0), [draw(rng) for _ in range(20)])
    quality(draw, [batch(at) for at in test_rows.reshape(-1, 64)])


if __name__ == "__main__":
    main()
