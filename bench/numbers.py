"""What results say: ratios, their spread, and whether a target is reached."""

from typing import Any, NamedTuple

import numpy as np

from bench.cases import BASELINE

Found = dict[str, Any]
"""One implementation of one case."""


class Row(NamedTuple):
    """Ours in one case, and the baseline beside it."""

    case: str
    implementation: str
    ours: Found
    baseline: Found | None
    target: dict[str, float | None]

    @property
    def title(self) -> str:
        variant = self.implementation.removeprefix("jaxloss").strip()
        return f"{self.case}, {variant}" if variant else self.case


class Ratio(NamedTuple):
    """Of ours to the baseline; the quartiles are of the rounds of the interleaving."""

    least: float
    median: float
    low: float
    high: float


def rows(run: dict[str, Any]) -> list[Row]:
    """Every implementation of ours that was to run."""
    return [
        Row(case, name, found, timed(about, BASELINE), about["targets"].get(name, {}))
        for case, about in run["cases"].items()
        for name, found in about["implementations"].items()
        if name.split()[0] == "jaxloss"
    ]


def timed(about: dict[str, Any], name: str) -> Found | None:
    """An implementation that was measured; None if it is missing or failed."""
    found = about["implementations"].get(name, {})
    return found if "ms" in found else None


def time_ratio(ours: Found, baseline: Found | None) -> Ratio | None:
    """Of the least times; and of each round, which both saw the same weather in."""
    if baseline is None or "ms" not in ours:
        return None
    a, b = np.array(ours["ms"]), np.array(baseline["ms"])
    quartiles = np.quantile(a / b, [0.5, 0.25, 0.75])
    return Ratio(float(a.min() / b.min()), *map(float, quartiles))


def temp_ratio(ours: Found, baseline: Found | None) -> float | None:
    if baseline is None or "temp_bytes" not in ours:
        return None
    if not baseline.get("temp_bytes"):
        return None if ours["temp_bytes"] else 1.0
    return ours["temp_bytes"] / baseline["temp_bytes"]


def bandwidth(found: Found, copy: float) -> float | None:
    """The speed of reading arguments and writing results once, of that of a copy."""
    if "argument_bytes" not in found or "ms" not in found:
        return None
    moved = found["argument_bytes"] + found["output_bytes"]
    return moved / (min(found["ms"]) / 1e3) / copy


class Verdict(NamedTuple):
    """One thing that was asked for."""

    what: str
    found: float | None
    allowed: float

    @property
    def reached(self) -> bool:
        return self.found is not None and self.found <= self.allowed

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.what} ≤ {self.allowed:g}: not measured"
        text = f"{self.what} {self.found:.3g} ≤ {self.allowed:g}"
        if self.reached:
            return f"{text}: reached"
        factor = self.found / self.allowed
        if factor < 2:
            return f"{text}: missed by {100 * (factor - 1):.0f} %"
        return f"{text}: missed by a factor of {factor:.3g}"


def verdicts(row: Row) -> list[Verdict]:
    """What was asked for in this row, each with what was found."""
    ratio = time_ratio(row.ours, row.baseline)
    temp = row.ours.get("temp_bytes")
    found = {
        "time": ratio and ratio.least,
        "temp": temp_ratio(row.ours, row.baseline),
        "mebibytes": temp if temp is None else temp / 2**20,
        "error": row.ours.get("value_error"),
    }
    units = {"time": "time ×", "temp": "temp ×", "mebibytes": "MiB", "error": "error"}
    return [
        Verdict(units[what], found[what], allowed)
        for what, allowed in row.target.items()
        if allowed is not None
    ]
