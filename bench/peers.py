"""Programs that can be told to run once: of JAX in this process, of torch beside it."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from bench.cases import Case

PEERS = ("jaxloss", "optax", "keras", "rax", "tokamax", "torch")


class Refusal(Exception):
    """What was asked cannot be done; the text says why."""


class Result(NamedTuple):
    """What a program computes, of the gradient by the first argument the first rows."""

    value: np.ndarray
    slope: np.ndarray | None


class Timed(Protocol):
    """What can be told to run."""

    def time(self, calls: int) -> float:
        """Runs a few times; milliseconds of one."""
        ...


class Program(Timed, Protocol):
    """One implementation of one case, ready to run."""

    facts: dict[str, Any]

    def first(self, rows: int) -> Result:
        """Runs once, and returns the result."""
        ...

    def close(self) -> None: ...


def missing(implementation: str) -> str | None:
    """Why an implementation cannot run here; None if it can."""
    package = implementation.split()[0]
    if package not in PEERS:
        return f"no peer is called {package}"
    if package == "keras":
        os.environ.setdefault("KERAS_BACKEND", "jax")
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if package == "torch":
        return None  # imported in a process of its own
    try:
        module = importlib.import_module(package)
    except Exception as e:
        return f"{package} cannot be imported: {e}"
    if package == "keras" and module.backend.backend() != "jax":
        return f"Keras runs on {module.backend.backend()}, not on JAX"
    return None


def untimed(implementation: str) -> str | None:
    """Why its time would say nothing here; None if it says something."""
    if implementation.endswith("pallas") and jax.default_backend() == "cpu":
        return "not timed: a CPU interprets what Pallas compiles for an accelerator"
    return None


def free_bytes() -> int:
    """How much memory there is for what a program needs beside its arguments."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvail"))


class JaxProgram:
    """A compiled function and its arguments."""

    def __init__(self, fn: Callable, wrt: tuple[int, ...], args: list) -> None:
        self.args, self.wrt = args, wrt
        start = time.perf_counter()
        step = jax.value_and_grad(fn, wrt) if wrt else fn
        self.compiled = jax.jit(step).lower(*args).compile()
        self.facts = {"compile_seconds": time.perf_counter() - start}
        self.facts |= memory(self.compiled) | work(self.compiled)
        need = self.facts.get("temp_bytes", 0) + self.facts.get("output_bytes", 0)
        if need > free_bytes():
            gib = [f"{x / 2**30:.1f} GiB" for x in (need, free_bytes())]
            raise Refusal("needs {}, of which {} are free".format(*gib))

    def first(self, rows: int) -> Result:
        found = jax.block_until_ready(self.compiled(*self.args))
        value, slope = (found[0], found[1][0][:rows]) if self.wrt else (found, None)
        wide = lambda x: None if x is None else np.asarray(x, np.float64)
        return Result(np.asarray(value, np.float64), wide(slope))

    def time(self, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            found = self.compiled(*self.args)
        jax.block_until_ready(found)
        return 1e3 * (time.perf_counter() - start) / calls

    def close(self) -> None:
        pass


def memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """What XLA says of the room a program takes; nothing where it does not say."""
    found = compiled.memory_analysis()
    if found is None:
        return {}
    names = ("temp", "output", "argument")
    sizes = {f"{n}_bytes": getattr(found, f"{n}_size_in_bytes") for n in names}
    all_at_once = sum(sizes.values()) - found.alias_size_in_bytes
    peak = getattr(found, "peak_memory_in_bytes", 0) or all_at_once
    return sizes | {"peak_bytes": peak}


def work(compiled: jax.stages.Compiled) -> dict[str, float]:
    """XLA's own count; it takes the body of a loop for one pass."""
    cost: Any = compiled.cost_analysis() or {}
    names = {"flops": "flops", "bytes accessed": "bytes_accessed"}
    return {to: float(cost[name]) for name, to in names.items() if name in cost}


class Worker:
    """The torch side of a case, in a process that runs when told to."""

    def __init__(self, case: Case) -> None:
        command = [sys.executable, "-m", "bench.torch_worker"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        self.folder = tempfile.TemporaryDirectory()
        self.facts: dict[str, Any] = {}
        device = "cpu" if jax.default_backend() == "cpu" else "cuda"
        order = {"loss": case.torch, "args": case.args, "wrt": case.wrt}
        try:
            self._ask(do="prepare", device=device, **order)
        except Refusal:
            self.close()
            raise

    def first(self, rows: int) -> Result:
        to = str(Path(self.folder.name) / "result.npz")
        self.facts |= self._ask(do="first", rows=rows, to=to)
        with np.load(to) as found:
            return Result(found["value"], found.get("slope"))

    def time(self, calls: int) -> float:
        return self._ask(do="time", calls=calls)

    def close(self) -> None:
        self.process.communicate()  # which ends its input
        self.folder.cleanup()

    def _ask(self, **order: Any) -> Any:
        to, back = self.process.stdin, self.process.stdout
        if to is None or back is None:
            raise Refusal("the process of torch has no pipes")
        to.write(json.dumps(order) + "\n")
        to.flush()
        line = back.readline()
        if not line:
            raise Refusal("the process of torch died")
        reply = json.loads(line)
        if "error" in reply:
            raise Refusal(reply["error"])
        return reply["result"]
