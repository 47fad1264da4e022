"""What moved between two results by more than the noise of their repeats."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bench import numbers
from bench.cases import BASELINE

# Two runs are never the same to less than this: other pages, other cores.
TIME_FLOOR = 0.03
TEMP_FLOOR = 0.01
# Errors of roundings move with the order of a sum; those this small never matter.
ERROR_FACTOR, ERROR_FLOOR = 2.0, 1e-7


Key = tuple[str, str, str]
Both = tuple[numbers.Found, numbers.Found | None]


class Change(NamedTuple):
    """One quantity of one implementation in one case."""

    allocator: str
    case: str
    implementation: str
    what: str
    before: float
    after: float

    def __str__(self) -> str:
        where = named(*self[:3])
        way = f"{self.after / self.before:.2f} times" if self.before else "was 0"
        return f"{where}: {self.what} {self.before:.3g} → {self.after:.3g}, {way}"


def compare(a: dict[str, Any], b: dict[str, Any]) -> tuple[list[Change], list[str]]:
    """The changes, and what only one of the two has."""
    first, second = flat(a), flat(b)
    changes = [
        change
        for key in first.keys() & second.keys()
        for change in moved(key, first[key], second[key])
    ]
    order = {key: i for i, key in enumerate(first)}
    changes.sort(key=lambda c: order[c[:3]])
    return changes, [*only(first, second, "first"), *only(second, first, "second")]


def only(a: dict[Key, Both], b: dict[Key, Both], which: str) -> list[str]:
    """What one has alone: a line per case, or per implementation of a shared case."""
    shared = {key[:2] for key in b}
    lines = {
        f"only in the {which}: {named(*(key if key[:2] in shared else key[:2]))}": None
        for key in a
        if key not in b
    }
    return list(lines)


def named(allocator: str, *rest: str) -> str:
    return ", ".join(rest) + (f" ({allocator})" if allocator else "")


def flat(results: dict[str, Any]) -> dict[Key, Both]:
    """By allocator, case and implementation: what was measured, and the baseline."""
    return {
        (run["glibc_tunables"], case, name): (found, numbers.timed(about, BASELINE))
        for run in results["runs"]
        for case, about in run["cases"].items()
        for name, found in about["implementations"].items()
        if "ms" in found
    }


def moved(key: Key, a: Both, b: Both) -> Iterator[Change]:
    relative = key[2] != BASELINE and a[1] is not None and b[1] is not None
    times = [series(*both, relative) for both in (a, b)]
    quartiles = [np.quantile(t, [0.25, 0.5, 0.75]) for t in times]
    (low, before, high), (low_after, after, high_after) = quartiles
    apart = low_after > high or high_after < low
    if apart and abs(np.log(after / before)) > np.log1p(TIME_FLOOR):
        what = f"time of {BASELINE}'s" if relative else "ms"
        yield Change(*key, what, float(before), float(after))
    before, after = (x[0].get("temp_bytes", 0) / 2**20 for x in (a, b))
    if abs(after - before) > TEMP_FLOOR * max(before, after):
        yield Change(*key, "MiB temp", before, after)
    for name in ("value_error", "gradient_error"):
        before, after = (x[0].get(name, 0.0) for x in (a, b))
        small, large = sorted((before, after))
        if name in a[0] and name in b[0] and large > ERROR_FACTOR * small + ERROR_FLOOR:
            yield Change(*key, name.replace("_", " "), before, after)


def series(
    found: numbers.Found, baseline: numbers.Found | None, relative: bool
) -> np.ndarray:
    """Milliseconds; or ratios to the baseline round by round, which cancel the state
    that the machine was in."""
    ms = np.array(found["ms"])
    return ms / np.array(baseline["ms"]) if relative and baseline else ms
