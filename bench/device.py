"""What is to be known of a device, in one go: `bench/device.sh`.

First `python -m jaxloss verify`, by several processes, of which each has some of the
claims; then the cases that are sized for the device, as far as the time goes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from bench import cases, record
from bench.cases import Case

PEERS = ("jaxloss", "optax", "tokamax")  # what runs on the device, not beside it
REPEATS = 7
# What is left of the time when a case begins that may be the slowest of all.
SPARE = 45


def run(
    path: Path,
    seconds: float,
    chosen: Sequence[Case] | None = None,
    names: Sequence[str] = (),
) -> int:
    """Writes what was found after each part; returns the exit status."""
    end = time.monotonic() + seconds
    document: dict[str, Any] = {"runs": [], "verify": verified(seconds / 2, names)}
    keep = lambda results: record.save(document | results, path)
    keep({})
    every = cases.of_device(jax.default_backend()) if chosen is None else chosen
    found = record.run(
        _in_time(every, end), PEERS, repeats=REPEATS, errors=False, keep=keep
    )
    left = [case.name for case in every if case.name not in found["cases"]]
    document |= {"runs": [found], "left_out": left}
    record.save(document, path)
    print(*told(document), sep="\n")
    return 1 if failures(document) else 0


def _in_time(every: Sequence[Case], end: float):
    """The cases, up to the one for which there may be no time."""
    for case in every:
        if time.monotonic() > end - SPARE:
            return
        yield case


# --- the claims ----------------------------------------------------------------------


def verified(seconds: float, names: Sequence[str] = ()) -> dict[str, Any]:
    """What `verify` writes of all claims; of what it did not come to, the names."""
    from jaxloss.app import verify

    every = [verify.name_of(claim) for claim in verify.chosen(names)]
    processes = max(1, len(os.sched_getaffinity(0)) // 2)
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"{i}.json" for i in range(processes)]
        commands = [
            [sys.executable, "-m", "jaxloss", "verify", *share, "--out", str(out)]
            for share, out in zip(_dealt(every, processes), outs, strict=True)
            if share
        ]
        _all_of(commands, time.monotonic() + seconds)
        parts = [json.loads(out.read_text()) for out in outs if out.exists()]
    found = [claim for part in parts for claim in part["claims"]]
    left = sorted(set(every) - {claim["name"] for claim in found})
    about = {k: v for k, v in parts[0].items() if k != "claims"} if parts else {}
    return about | {"claims": found, "left_out": left}


def _dealt(names: Sequence[str], hands: int) -> list[list[str]]:
    """One after another, as cards are: neighbours cost about the same."""
    return [list(names[i::hands]) for i in range(hands)]


def _all_of(commands: Sequence[Sequence[str]], end: float) -> None:
    """Runs them side by side, and stops those that take longer."""
    # Each would take most of the memory of an accelerator for itself.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        for command in commands
    ]
    for process in running:
        try:
            process.wait(max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- what is said of it --------------------------------------------------------------


def failures(document: dict[str, Any]) -> list[str]:
    """Bounds that were exceeded, and cases that did not run."""
    claims = document["verify"]["claims"]
    beyond = [f"verify: {c['name']} is beyond a bound" for c in claims if not c["ok"]]
    return beyond + record.problems(document)


def told(document: dict[str, Any]) -> list[str]:
    """The summary, a line for each part."""
    claims, left = document["verify"]["claims"], document["verify"]["left_out"]
    lines = [f"{sum(c['ok'] for c in claims)} of {len(claims)} claims hold"]
    lines += [f"no time to verify {name}" for name in left]
    lines += [f"no time for {name}" for name in document["left_out"]]
    return lines + untimed(document) + failures(document)


def untimed(document: dict[str, Any]) -> list[str]:
    """What of ours this device cannot time, and why."""
    missing = record.told_of(document, "missing")
    return [line for line in missing if ", jaxloss" in line]
