"""Runs the implementations of a case in turn and writes down all that is seen."""

import math
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.arguments import draw
from bench.cases import Case
from bench.peers import (
    JaxProgram,
    Program,
    Refusal,
    Result,
    Timed,
    Worker,
    missing,
    untimed,
)

REPEATS = 11
# A repeat is as many calls as take this long: a clock read costs, and so does waking.
REPEAT_MS = 5.0
MOST_CALLS = 2000
# Of the gradient, as many rows as this are compared with float64.
ROWS = 256
STREAM_BYTES = 2**28


def measure(
    case: Case, peers: Sequence[str], *, repeats: int = REPEATS, errors: bool = True
) -> dict[str, Any]:
    """By implementation: raw repeats and facts, or why there are none."""
    found: dict[str, dict[str, Any]] = {}
    programs: dict[str, Program] = {}
    arrays = draw(case.args)
    args = [jnp.asarray(x, a.dtype) for a, x in zip(case.args, arrays, strict=True)]
    truth = reference(case, args) if errors else None
    try:
        for name in implementations(case, peers):
            found[name] = prepare(case, name, args, truth, programs)
        times = interleave(programs, min(repeats, case.repeats or repeats))
    finally:
        for program in programs.values():
            program.close()
    for name, (runs, calls) in times.items():
        found[name] |= {"ms": runs, "calls": calls}
    return found


def implementations(case: Case, peers: Sequence[str]) -> list[str]:
    """Those of the case whose package was asked for."""
    every = [*case.run, *(["torch"] if case.torch else [])]
    return [name for name in every if name.split()[0] in peers]


def prepare(
    case: Case, name: str, args: list, truth: Result | None, programs: dict
) -> dict[str, Any]:
    """Compiles and runs once; what went wrong, if anything does."""
    reason = missing(name) or untimed(name)
    if reason is not None:
        return {"missing": reason}
    try:
        program = (
            Worker(case)
            if name == "torch"
            else JaxProgram(case.run[name], case.wrt, args)
        )
        programs[name] = program
        result = program.first(ROWS)
        return program.facts | (compared(result, truth) if truth else {})
    except Exception as e:
        if name in programs:
            programs.pop(name).close()
        return {"error": told(e)}


def told(e: Exception) -> str:
    """One line of it; the end of the traceback is for whoever watches."""
    if isinstance(e, Refusal):
        return str(e)
    traceback.print_exception(e, limit=-3)
    return f"{type(e).__name__}: {str(e).partition(chr(10))[0]}"


# --- time ----------------------------------------------------------------------------


def interleave(
    programs: Mapping[str, Timed], repeats: int
) -> dict[str, tuple[list[float], int]]:
    """One repeat of each in turn, so that all see the same weather."""
    calls = {name: calls_of(program) for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    names = list(programs)
    for i in range(repeats):
        # Nobody always comes after the same neighbour, whose traces are in the cache.
        for name in np.roll(names, -i):
            times[name].append(programs[name].time(calls[name]))
    return {name: (times[name], calls[name]) for name in names}


def calls_of(program: Timed) -> int:
    """How many calls one repeat is."""
    quick = program.time(1)
    if quick < REPEAT_MS:
        quick = min(quick, program.time(1))
    return min(max(math.ceil(REPEAT_MS / max(quick, 1e-6)), 1), MOST_CALLS)


def copy_bandwidth(repeats: int = 9) -> float:
    """Bytes per second read and written by scaling an array in place.

    In place, because the pages of a fresh output cost more than the copy does.
    """
    x = jnp.ones(STREAM_BYTES // 4, jnp.float32)
    scale = jax.jit(lambda x: x * 0.5, donate_argnums=0)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        x = jax.block_until_ready(scale(x))
        times.append(time.perf_counter() - start)
    return 2 * STREAM_BYTES / min(times)


# --- error ---------------------------------------------------------------------------


def reference(case: Case, args: list) -> Result:
    """The textbook formula in float64, at exactly the rounded arguments."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = [_widened(x) for x in args]
        size = len(wide[0])
        block = case.block or size
        blocks = range(0, size, block)
        whole = range(len(wide)) if block == size else case.shared
        cut = lambda at: [
            x if i in whole else x[at : at + block] for i, x in enumerate(wide)
        ]
        losses = jax.jit(case.textbook)
        found = np.concatenate([np.asarray(losses(*cut(at))) for at in blocks])
        mean = np.asarray(np.mean(found))
        if not case.wrt:
            return Result(found if case.per_example else mean, None)
        slope = jax.jit(jax.grad(case.textbook_sum))(*cut(0))[:ROWS]
        return Result(mean, np.asarray(slope) / found.size)


def _widened(x: jax.Array) -> jax.Array:
    host = np.asarray(x)
    return jnp.asarray(
        host.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else host
    )


def compared(found: Result, truth: Result) -> dict[str, float]:
    """The largest error of the value, and the relative one of the gradient's norm."""
    errors = {"value_error": float(np.max(np.abs(found.value - truth.value)))}
    if found.slope is not None and truth.slope is not None:
        rows = slice(len(truth.slope))
        off = np.linalg.norm(found.slope[rows] - truth.slope)
        errors["gradient_error"] = float(off / np.linalg.norm(truth.slope))
    return errors
