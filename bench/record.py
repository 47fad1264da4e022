"""A run as JSON: where, when and with what it was measured, and all raw repeats."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from bench import measure
from bench.cases import Case

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "optax", "numpy", "keras", "rax", "tokamax", "torch")
ALLOCATOR = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def run(
    cases: Iterable[Case],
    peers: Sequence[str],
    *,
    repeats: int = measure.REPEATS,
    errors: bool = True,
    keep: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Measures the cases one after another; a line of progress for each.

    `keep` gets what there is so far, in case that the next one does not come back.
    """
    here = surroundings()
    here["copy_bytes_per_second"] = measure.copy_bandwidth()
    here["cases"] = {}
    for case in cases:
        found = measure.measure(case, peers, repeats=repeats, errors=errors)
        here["cases"][case.name] = described(case) | {"implementations": found}
        here["load_after"] = load()
        keep({"runs": [here]})
        print(f"{case.name:42} {summary(found)}", flush=True)
    bandwidths = here["copy_bytes_per_second"], measure.copy_bandwidth()
    return here | {"copy_bytes_per_second": max(bandwidths)}


def described(case: Case) -> dict[str, Any]:
    """What a reader of the results needs to know of a case."""
    return {
        "args": [[a.kind, list(a.shape), a.dtype] for a in case.args],
        "wrt": list(case.wrt),
        "sizes": case.sizes,
        "series": case.series,
        "targets": {name: vars(target) for name, target in case.targets.items()},
    }


def summary(found: dict[str, dict[str, Any]]) -> str:
    text = lambda x: f"{min(x['ms']):.4g} ms" if "ms" in x else "–"
    return ", ".join(f"{name} {text(x)}" for name, x in found.items())


def problems(document: dict[str, Any]) -> list[str]:
    """What should have run and did not; a package that is not installed is none."""
    return told_of(document, "error")


def told_of(document: dict[str, Any], key: str) -> list[str]:
    """What the implementations have under a key: "error" or "missing"."""
    return [
        f"{case}, {name}: {x[key]}"
        for run in document["runs"]
        for case, about in run["cases"].items()
        for name, x in about["implementations"].items()
        if key in x
    ]


# --- the surroundings ----------------------------------------------------------------


def surroundings() -> dict[str, Any]:
    return {
        "device": device(),
        "backend": jax.default_backend(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: v for name in PACKAGES if (v := version(name))},
        "glibc_tunables": os.environ.get(ALLOCATOR, ""),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "revision": revision(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_before": load(),
    }


def load() -> float:
    """Of the last minute: far more than the cores means that others were running."""
    return round(os.getloadavg()[0], 2)


def device() -> str:
    """The name of the accelerator, or of the processor."""
    kind = jax.devices()[0].device_kind
    if kind != "cpu":
        return kind
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return models[0].strip() if models else platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def revision() -> str:
    """Of the repository, with a + if files that it knows have changed since."""
    git = lambda *args: subprocess.run(
        ["git", *args], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    dirty = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if dirty else "")


# --- files ---------------------------------------------------------------------------


def default_path(suffix: str = "") -> Path:
    cores = f" {len(os.sched_getaffinity(0))} cores"
    name = device() + (cores if jax.default_backend() == "cpu" else "")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return RESULTS / f"{slug}{suffix}.json"


def save(document: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def under_both_allocators(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """`python -m bench` twice: as it is, and with transparent huge pages for malloc.

    glibc reads the setting when a process starts.
    """
    runs = []
    for i, tunables in enumerate(("", HUGE_PAGES)):
        out = folder / f"{i}.json"
        print(f"{ALLOCATOR}={tunables}", flush=True)
        command = [sys.executable, "-m", "bench", *arguments, "--out", str(out)]
        environment = os.environ | {ALLOCATOR: tunables}
        subprocess.run(command, env=environment, cwd=ROOT, check=False)
        if not out.exists():
            raise SystemExit(f"the run with {ALLOCATOR}={tunables} left no results")
        runs += read(out)["runs"]
    return {"runs": runs}
