"""Prints how far the losses of torch, Keras and optax are from their forms here.

    python -m bench.switching [--record] [--write]

Every row evaluates an expression of theirs and the one the guides give for it, values
and gradients, in float64.  What is not installed is said to be, and then the numbers in
`bench/results/switching.json` stand for it: `--record` makes that file, `--write` the
tables of the guides.
"""

import argparse
import functools
import importlib
import importlib.util
import json
import math
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from bench.optax_edges import array_of, rows_of, shown
from bench.pages import put
from bench.switching_rows import (
    DATA,
    EDGES,
    KERAS,
    PREDICTED,
    REDUCTIONS,
    ROUNDING,
    TORCH,
    Row,
)
from jaxloss import kernels, margins, stable

ROOT = pathlib.Path(__file__).parent.parent
RECORD = ROOT / "bench/results/switching.json"
LIBRARIES = ("torch", "keras", "optax")
LOSSES = {"torch": TORCH, "keras": KERAS}
PAGES = {
    "torch": ROOT / "docs/switching-from-torch.md",
    "keras": ROOT / "docs/switching-from-keras.md",
    "reductions": ROOT / "docs/reductions.md",
}
Found = dict[str, list[float]]
"""The value of a row and its gradient, both flattened."""


def rows(library: str) -> list[Row]:
    """All rows of a library."""
    groups = [*LOSSES.get(library, {}).values(), REDUCTIONS[library]]
    return [row for group in groups for row in group]


def differentiated(row: Row) -> str:
    """The array that the gradient is of."""
    words = set(re.findall(r"\w+", f"{row.ours} {row.theirs}"))
    return next(name for name in PREDICTED if name in words)


# --- ours --------------------------------------------------------------------------


def our_words(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an expression of ours may name."""
    words = {
        "jax": jax,
        "jnp": jnp,
        "math": math,
        "jaxloss": jaxloss,
        "kernels": kernels,
        "margins": margins,
        "stable": stable,
        "gammaln": jax.scipy.special.gammaln,
        "logit": jax.scipy.special.logit,
        **data,
    }
    if "logits" in data:
        words["each"] = jaxloss.softmax_cross_entropy(data["logits"], data["ids"])
    return words


def traced(call: str, words: Callable[[Mapping[str, Any]], dict], by: str) -> Any:
    """Value and gradient of an expression that JAX can trace, in float64."""
    data = {name: jnp.asarray(x) for name, x in DATA.items()}

    def total(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = eval(call, words({**data, by: x}))
        return jnp.sum(value), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(data[by])
    return value, gradient


@functools.cache
def our_values(row: Row) -> Found:
    with jax.enable_x64(True):
        return _found(*traced(row.ours, our_words, differentiated(row)))


# --- theirs ------------------------------------------------------------------------


def version(library: str) -> str | None:
    """Of what is installed."""
    if library == "keras":
        os.environ.setdefault("KERAS_BACKEND", "jax")
    if importlib.util.find_spec(library) is None:
        return None
    return importlib.import_module(library).__version__


def their_words(library: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """What an expression of theirs may name."""
    module = importlib.import_module(library)
    if library == "torch":
        return {"torch": module, "F": module.nn.functional, **data}
    return {"jax": jax, "jnp": jnp, **vars(module.losses), **data}


def their_values(library: str, row: Row) -> Found:
    by = differentiated(row)
    if library != "torch":
        words = lambda data: their_words(library, data)
        with jax.enable_x64(True):
            return _found(*traced(row.theirs, words, by))
    torch = importlib.import_module("torch")
    data = {name: torch.tensor(x) for name, x in DATA.items()}
    data[by].requires_grad_()
    value = eval(row.theirs, their_words(library, data))
    value.sum().backward()
    return _found(value.detach(), data[by].grad)


def _found(value: Any, gradient: Any) -> Found:
    numbers = lambda x: np.asarray(x, float).ravel().tolist()
    return {"value": numbers(value), "gradient": numbers(gradient)}


# --- where they differ -------------------------------------------------------------


def _torch_words() -> dict[str, Any]:
    torch = importlib.import_module("torch")

    def grad(fn: Callable) -> Callable:
        return lambda x: torch.autograd.grad(fn(x.requires_grad_()).sum(), x)[0]

    array = lambda dtype: lambda *x: torch.tensor(rows_of(x), dtype=dtype)
    dtypes = {"f32": torch.float32, "f16": torch.float16, "ids": torch.int64}
    return {"grad": grad, **{name: array(dtype) for name, dtype in dtypes.items()}}


def _jax_words() -> dict[str, Any]:
    dtypes = {"f32": jnp.float32, "f16": jnp.float16, "ids": jnp.int32}
    return {
        "grad": lambda fn: jax.grad(lambda x: fn(x).sum()),
        **{name: array_of(dtype) for name, dtype in dtypes.items()},
    }


def edge(call: str, words: dict[str, Any]) -> str:
    """What an expression gives, in float32: a number, or the name of the error."""
    numbers = {"inf": math.inf, "nan": math.nan}
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return shown(eval(call, {**words, **numbers}))
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            return type(error).__name__


def our_edge(call: str) -> str:
    return edge(call, {**our_words({}), **_jax_words()})


def their_edge(library: str, call: str) -> str:
    words = _torch_words() if library == "torch" else _jax_words()
    return edge(call, {**their_words(library, {}), **words})


# --- the record and the tables -----------------------------------------------------


def record() -> dict[str, Any]:
    """All numbers of theirs that can be had here; else those of the last record."""
    found = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for library in LIBRARIES:
        installed = version(library)
        if installed:
            found[library] = {
                "version": installed,
                "rows": {r.theirs: their_values(library, r) for r in rows(library)},
                "edges": {
                    e.theirs: their_edge(library, e.theirs)
                    for e in EDGES.get(library, [])
                },
            }
    return found


def error(found: list[float], truth: list[float]) -> float:
    """The largest difference, relative to the largest entry."""
    a, b = np.asarray(found), np.asarray(truth)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def errors(row: Row, theirs: Found) -> tuple[float, float]:
    """Of value and gradient."""
    ours = our_values(row)
    value, gradient = (error(ours[x], theirs[x]) for x in ("value", "gradient"))
    return value, gradient


def described(found: tuple[float, float], row: Row) -> str:
    if not row.why:
        return "rounding"
    return f"{found[0]:.0e} · {found[1]:.0e}: {row.why}"


def bound(library: str, row: Row) -> float:
    return row.within or ROUNDING[library]


def tables(recorded: dict[str, Any]) -> dict[str, str]:
    """The Markdown tables of each page, by the page and the name of the table."""
    found = {}
    for library in LIBRARIES:
        groups = LOSSES.get(library, {})
        theirs = recorded[library]["rows"]
        for name, group in [*groups.items(), ("reductions", REDUCTIONS[library])]:
            page = f"{library}: {name}" if name in groups else f"reductions: {library}"
            head = f"| {library} | jaxloss | difference |\n|---|---|---|"
            body = (
                f"| `{r.theirs}` | `{r.ours}` | "
                f"{described(errors(r, theirs[r.theirs]), r)} |"
                for r in group
            )
            found[page] = "\n".join([head, *body])
        if library in EDGES:
            head = f"| {library} | | jaxloss | |\n|---|---|---|---|"
            body = (
                f"| `{e.theirs}` | {recorded[library]['edges'][e.theirs]} | "
                f"`{e.ours}` | {our_edge(e.ours)} |"
                for e in EDGES[library]
            )
            found[f"{library}: edges"] = "\n".join([head, *body])
    return found


def mark(name: str) -> str:
    return f"<!-- {name}: python -m bench.switching --write -->"


def write(recorded: dict[str, Any]) -> None:
    """Puts each table behind its mark."""
    for name, table in tables(recorded).items():
        put(PAGES[name.split(":")[0]], mark(name), table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Losses of others, and the same here.")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    parser.add_argument("--write", action="store_true", help="the tables of the guides")
    asked = parser.parse_args()
    recorded = record()
    print("largest difference of value and gradient, relative to the largest entry")
    for library in LIBRARIES:
        here = "installed" if version(library) else "not installed; as recorded"
        print(f"\n{library} {recorded[library]['version']} ({here})")
        for row in rows(library):
            found = errors(row, recorded[library]["rows"][row.theirs])
            verdict = "" if max(found) <= bound(library, row) else "  TOO FAR"
            print(f"  {found[0]:8.1e} {found[1]:8.1e}  {row.theirs}{verdict}")
    if asked.record:
        RECORD.write_text(json.dumps(recorded, indent=1) + "\n")
    if asked.write:
        write(recorded)


if __name__ == "__main__":
    main()
