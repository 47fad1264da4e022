"""Compiles steps for a device that is not here, and writes down what they take."""

import collections
import datetime
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from bench import hlo, peers, record
from bench.accelerators import Accelerator, devices
from bench.compiled_cases import Step
from bench.compiled_sharded import ShardedStep
from bench.measure import told

PEERS = tuple(name for name in peers.PEERS if name != "torch")
PACKAGES = (
    *("jax", "jaxlib", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12", "libtpu"),
    *PEERS[1:],
)


def run(
    accelerator: Accelerator,
    steps: Iterable[Step | ShardedStep],
    *,
    packages: Sequence[str] = PEERS,
    keep: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Compiles the steps one after another; a line of progress for each.

    `keep` gets what there is so far.
    """
    found = surroundings(accelerator)
    for step in steps:
        names = [name for name in step.run if name.split()[0] in packages]
        programs = {name: compiled(accelerator, step, name) for name in names}
        found["cases"][step.name] = step.described() | {"implementations": programs}
        keep(found)
        print(f"{step.name:60} {summary(programs)}", flush=True)
    return found


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was compiled now, and by the same compilers before."""
    if before.get("versions") != now["versions"]:
        return now
    cases = dict(before["cases"])
    for name, about in now["cases"].items():
        known = cases.get(name, {}).get("implementations", {})
        cases[name] = about | {"implementations": known | about["implementations"]}
    return now | {"cases": cases}


def surroundings(accelerator: Accelerator) -> dict[str, Any]:
    versions = {name: v for name in PACKAGES if (v := record.version(name))}
    return {
        "device": accelerator.title,
        "platform": accelerator.platform,
        "bandwidth": accelerator.bandwidth,
        "peaks": dict(accelerator.peaks),
        "source": accelerator.source,
        "python": platform.python_version(),
        "versions": versions,
        "revision": record.revision(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cases": {},
    }


def summary(programs: Mapping[str, dict[str, Any]]) -> str:
    text = lambda x: f"{times_floor(x):.2f}" if "moved_bytes" in x else "–"
    return ", ".join(f"{name} {text(x)}" for name, x in programs.items())


def times_floor(found: Mapping[str, Any]) -> float:
    """The bytes that are moved, as a multiple of arguments and results."""
    return found["moved_bytes"] / (found["argument_bytes"] + found["output_bytes"])


# --- one program ---------------------------------------------------------------------


def compiled(
    accelerator: Accelerator, step: Step | ShardedStep, name: str
) -> dict[str, Any]:
    """What a program takes, or why there is none."""
    if reason := peers.missing(name):
        return {"missing": reason}
    try:
        return facts(accelerator, step, name)
    except Exception as e:
        return {"error": told(e)}


def facts(
    accelerator: Accelerator, step: Step | ShardedStep, name: str
) -> dict[str, Any]:
    """All that the compiler says; of several devices, what it says of one."""
    places = devices(accelerator, step.devices)
    start = processor_seconds()
    # Kernels choose their blocks when they are traced, by the platform they are on.
    with mock.patch.object(jax, "default_backend", return_value=accelerator.platform):
        traced = step.trace(name, places)
        program = traced.lower().compile()
    seconds = processor_seconds() - start
    module = hlo.parse(program.as_text() or "")
    moved = hlo.moved(module)
    found = {
        "compile_seconds": round(seconds, 2),
        **peers.memory(program),
        **peers.work(program),  # of a GPU, nothing
        "moved_bytes": moved.bytes,
        "on_chip_bytes": moved.on_chip_bytes,
        "kernels": moved.kernels,
        "unknown_loops": moved.unknown_loops,
    }
    if isinstance(step, ShardedStep):
        return found | exchanged(module)
    return found | {"products": dict(products(traced.jaxpr))}


def exchanged(module: hlo.Module) -> dict[str, Any]:
    """How often a device exchanges arrays with others, and how large they are."""
    found = hlo.collectives(module)
    kinds = sorted({one.kind for one in found})
    of_kind = lambda kind: [one for one in found if one.kind == kind]
    sums = {
        kind: {
            "count": sum(one.times for one in of_kind(kind)),
            "bytes": sum(one.times * one.bytes for one in of_kind(kind)),
        }
        for kind in kinds
    }
    gathered = [one for one in found if one.kind not in hlo.SUMS]
    return {
        "collectives": sums,
        "most_exchanged_bytes": max(
            (one.times * one.bytes for one in found), default=0
        ),
        "most_gathered_bytes": max((one.bytes for one in gathered), default=0),
    }


def processor_seconds() -> float:
    """Of all threads, and of the assembler that a compiler calls."""
    return sum(os.times()[:4])


# --- the arithmetic of matrix products -----------------------------------------------


def products(jaxpr: Any) -> collections.Counter[str]:
    """Operations of the matrix products of a program, by how exact they are."""
    total: collections.Counter[str] = collections.Counter()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            total[exactness(equation)] += operations(equation)
        inner = [products(x) for x in inner_programs(equation.params.values())]
        if equation.primitive.name == "cond":
            total += max(inner, key=lambda counts: counts.total())
        else:
            passes = equation.params.get("length", 1)  # of a scan
            for counts in inner:
                total += collections.Counter({k: passes * n for k, n in counts.items()})
    return total


def inner_programs(values: Iterable[Any]) -> Iterator[Any]:
    """The programs among the parameters of an equation."""
    for value in values:
        if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
            yield value
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from inner_programs(value)


def operations(equation: Any) -> int:
    """A product and a sum for each entry of the result and each term of it."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    terms = math.prod(shape[axis] for axis in contracted)
    return 2 * math.prod(equation.outvars[0].aval.shape) * terms


def exactness(equation: Any) -> str:
    """A key of `Accelerator.peaks`."""
    if all(jnp.dtype(x.aval.dtype).itemsize <= 2 for x in equation.invars):
        return "half"
    asked = equation.params["precision"]
    asked = asked if isinstance(asked, tuple) else (asked,)
    levels = (jax.lax.Precision.HIGHEST, "highest"), (jax.lax.Precision.HIGH, "high")
    return next((name for level, name in levels if level in asked), "default")
