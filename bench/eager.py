"""What one call costs where nothing around it is compiled: `python -m bench eager`.

Ours and optax's run in turn.  Calls and imports are timed as a user waits for them, and
as CPU time of all threads of the process, which other programs disturb less.  What
happens once, that is tracing, lowering, compiling and the first call, is timed as CPU
time only.
"""

import concurrent.futures
import gc
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from bench import measure, record
from bench.eager_cases import CASES, EagerCase

Times = dict[str, list[float]]
"""Milliseconds of each round, by what was measured."""


class Rounds(NamedTuple):
    """How often each thing is measured."""

    calls: int
    compilations: int
    first: int
    imports: int


FULL = Rounds(calls=11, compilations=3, first=2, imports=7)
QUICK = Rounds(calls=5, compilations=1, first=1, imports=3)

# What is differentiated or not, in everything that is compiled.
FORMS: dict[str, Callable[[Callable], Callable]] = {
    "value": lambda fn: fn,
    "gradient": jax.value_and_grad,
}
IMPORTS = """
import json, time
import jax
now = lambda: (time.perf_counter(), time.process_time())
start = now()
import optax
between = now()
import jaxloss
end = now()
print(json.dumps([start, between, end]))
"""


def run(
    cases: Sequence[EagerCase],
    rounds: Rounds,
    *,
    keep: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Measures imports, calls, compilations and first calls, one after another.

    `keep` gets what there is so far, in case that the next one does not come back.
    """
    here = record.surroundings()
    here["rounds"] = rounds._asdict()
    here["imports"] = imports(rounds.imports)
    here["cases"] = {case.name: described(case) for case in cases}
    parts = {
        "calls": lambda case: calls(case, rounds.calls),
        "compilations": lambda case: compilations(case, rounds.compilations),
        "first calls": lambda case: first_calls(case, rounds.first),
    }
    for part, times in parts.items():
        for case in cases:
            print(f"{part}: {case.name}", flush=True)
            put(here["cases"][case.name]["implementations"], times, case)
        here["load_after"] = record.load()
        keep({"runs": [here]})
    return here


def described(case: EagerCase) -> dict[str, Any]:
    return {
        "loss": case.loss,
        "peer": case.peer,
        "args": [[a.kind, list(a.shape), a.dtype] for a in case.args],
        "implementations": {side: {"ms": {}} for side in case.sides},
    }


def put(
    found: dict[str, Any],
    times: Callable[[EagerCase], dict[str, Times]],
    case: EagerCase,
) -> None:
    """Adds what one part finds of one case, or why it finds nothing."""
    try:
        for side, more in times(case).items():
            found[side]["ms"] |= more
    except Exception as e:
        error = {"error": measure.told(e)}
        found |= {side: {**about, **error} for side, about in found.items()}


# --- calls ---------------------------------------------------------------------------


class Calls:
    """A function that is called again and again, and waited for each time."""

    def __init__(self, fn: Callable, args: Sequence[jax.Array]) -> None:
        self.fn, self.args = fn, args
        self.cpu: list[float] = []
        """Milliseconds of CPU time of one call, by repeat."""
        # The first call compiles; of a second one nothing should be left to do.
        self.time(2)

    def time(self, calls: int) -> float:
        start, clock = time.perf_counter(), Clock()
        for _ in range(calls):
            jax.block_until_ready(self.fn(*self.args))
        self.cpu.append(clock.lap() / calls)
        return 1e3 * (time.perf_counter() - start) / calls


def calls(case: EagerCase, rounds: int) -> dict[str, Times]:
    """The losses, their mean, and its gradient, each function made once."""
    args = case.arrays()
    programs = {
        (side, what): Calls(fn, args)
        for what, by_side in functions(case).items()
        for side, fn in by_side.items()
    }
    names = {f"{side} {what}": (side, what) for side, what in programs}
    with steady():
        found = measure.interleave(
            {name: programs[key] for name, key in names.items()}, rounds
        )
    times: dict[str, Times] = {side: {} for side in case.sides}
    for name, (side, what) in names.items():
        times[side][what] = found[name][0]
        times[side][f"{what} cpu"] = programs[side, what].cpu[-rounds:]
    return times


def functions(case: EagerCase) -> dict[str, dict[str, Callable]]:
    """By what is measured and by side; the two sides follow each other."""
    means = {side: case.mean(side) for side in case.sides}
    alone = {s: fn for s, fn in case.sides.items() if s not in case.scalar}
    gradients = {side: jax.grad(fn) for side, fn in means.items()}
    return {"losses": alone, "mean": means, "gradient": gradients}


@contextmanager
def steady() -> Iterator[None]:
    """No garbage is collected where the clock runs, and what there was is no matter."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


# --- inside of `jit` -----------------------------------------------------------------


def compilations(case: EagerCase, rounds: int) -> dict[str, Times]:
    """Tracing, lowering and compiling the mean inside of a caller's `jit`."""
    args = case.arrays()
    times: dict[str, Times] = {side: {} for side in case.sides}
    sides = [*case.sides]
    with steady():
        for i in range(rounds):
            for side in sides[:: -1 if i % 2 else 1]:
                for form in FORMS:
                    for step, ms in steps(case.mean(side), form, args).items():
                        times[side].setdefault(f"{form} {step}", []).append(ms)
    return times


def steps(fn: Callable, form: str, args: Sequence[jax.Array]) -> dict[str, float]:
    """Milliseconds of each step of compiling, with all caches of JAX empty.

    Then of tracing again, by a function that JAX has not seen, with what it remembers
    of those inside.
    """
    fresh = lambda: jax.jit(FORMS[form](lambda *args: fn(*args)))
    jax.clear_caches()
    gc.collect()
    clock = Clock()
    traced = fresh().trace(*args)
    found = {"trace": clock.lap()}
    lowered = traced.lower()
    found["lower"] = clock.lap()
    lowered.compile()
    found["compile"] = clock.lap()
    fresh().trace(*args)
    return found | {"retrace": clock.lap()}


class Clock:
    """The CPU time of this process, since the last look at it."""

    def __init__(self) -> None:
        self.last = time.process_time()

    def lap(self) -> float:
        now = time.process_time()
        spent, self.last = now - self.last, now
        return 1e3 * spent


# --- first calls ---------------------------------------------------------------------


def first_calls(case: EagerCase, rounds: int) -> dict[str, Times]:
    """Of the mean, and then of its gradient, each pair in a process of its own."""
    times: dict[str, Times] = {side: {} for side in case.sides}
    sides = [*case.sides]
    for i in range(rounds):
        for side in sides[:: -1 if i % 2 else 1]:
            for what, ms in in_new_process(case, side).items():
                times[side].setdefault(what, []).append(ms)
    return times


def in_new_process(case: EagerCase, side: str) -> dict[str, float]:
    """`first_call`, in a process that has the packages imported and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(first_call, CASES.index(case), side).result()


def first_call(index: int, side: str) -> dict[str, float]:
    case = CASES[index]
    # The backend starts with the first array, which is no matter of the loss.
    args = jax.block_until_ready(case.arrays())
    fn = case.mean(side)
    clock = Clock()
    jax.block_until_ready(fn(*args))
    value = clock.lap()
    jax.block_until_ready(jax.grad(fn)(*args))
    gradient = clock.lap()
    return {"first": value + gradient, "first value": value, "first gradient": gradient}


def imports(rounds: int) -> dict[str, Times]:
    """Of optax after JAX, and of ours after both, in new processes."""
    command = [sys.executable, "-c", IMPORTS]
    found: dict[str, Times] = {
        s: {"ms": [], "cpu_ms": []} for s in ("optax", "jaxloss")
    }
    # The first one may have to write byte code.
    for i in range(rounds + 1):
        done = subprocess.run(
            command, cwd=record.ROOT, check=True, capture_output=True, text=True
        )
        spent = 1e3 * np.diff(json.loads(done.stdout), axis=0)
        for times, (wall, cpu) in zip(found.values(), spent.tolist(), strict=True):
            if i:
                times["ms"].append(wall)
                times["cpu_ms"].append(cpu)
    return found
