"""Results as Markdown tables."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench import numbers
from bench.cases import BASELINE
from bench.peers import PEERS

EMPTY = "–"
ABOUT = """\
Each case is jitted, and all implementations run in turn, one repeat each, in the same
run. *Time* is the ratio of the least milliseconds, then the median of the ratios of the
rounds with its quartiles; *temp* is XLA's temporary memory, without arguments and
results (of torch, the growth of its process in its first call, less the results);
*error* is the largest of the value and, after the stroke, that of the gradient relative
to its norm, against the textbook formula in float64; *copy* is the speed of reading the
arguments and writing the results once, as a part of the speed of a copy.

A large result is fresh memory, and its page faults can cost more than the arithmetic.
`GLIBC_TUNABLES=glibc.malloc.hugetlb=1` makes the pages larger, hence fewer; where both
settings were measured, both are below. Donating an argument avoids the faults as well.
"""


def document(results: dict[str, Any], picture: str | None) -> str:
    """The whole page."""
    parts = ["# Time, memory and error, measured", ABOUT]
    if picture:
        parts.append(f"![Ratio to {BASELINE}, case by case]({picture})")
    for run in results["runs"]:
        parts += [heading(run), against_baseline(run), every_peer(run), reasons(run)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def heading(run: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    copy = run["copy_bytes_per_second"] / 1e9
    return (
        f"## {run['device']}, {run['cores']} cores, {allocator(run)}\n\n"
        f"{versions}, Python {run['python']}; revision {run['revision']}, "
        f"{run['date'][:10]}; a copy reads and writes {copy:.0f} GB/s; load "
        f"{run['load_before']:g} before and {run['load_after']:g} after."
    )


def allocator(run: dict[str, Any]) -> str:
    return run["glibc_tunables"] or "default allocator"


def against_baseline(run: dict[str, Any]) -> str:
    """One row per case and implementation of ours."""
    head = (
        "case",
        f"ms, {BASELINE}",
        "time ×",
        "MiB temp",
        "temp ×",
        "error",
        "compile s",
        "copy",
        "asked for",
    )
    cells = [cells_of(row, run) for row in numbers.rows(run)]
    return table(head, cells)


def cells_of(row: numbers.Row, run: dict[str, Any]) -> list[str]:
    ours, baseline = row.ours, row.baseline or {}
    if "ms" not in ours:
        return [row.title, ours.get("error") or ours["missing"], *[EMPTY] * 7]
    share = lambda x: numbers.bandwidth(x, run["copy_bytes_per_second"])
    return [
        row.title,
        pair(least(ours), least(baseline)),
        spread(numbers.time_ratio(ours, row.baseline)),
        pair(mebibytes(ours), mebibytes(baseline), fixed),
        or_empty(numbers.temp_ratio(ours, row.baseline), digits),
        pair(error(ours), error(baseline), str),
        pair(ours["compile_seconds"], baseline.get("compile_seconds"), fixed),
        pair(share(ours), share(baseline), lambda x: f"{100 * x:.0f} %"),
        "; ".join(map(str, numbers.verdicts(row))) or EMPTY,
    ]


def every_peer(run: dict[str, Any]) -> str:
    """Milliseconds of everyone, and how many times the baseline's they are."""
    found = {n for c in run["cases"].values() for n in c["implementations"]}
    names = sorted(found, key=lambda n: (PEERS.index(n.split()[0]), n))
    rows = [[case, *beside(about, names)] for case, about in run["cases"].items()]
    return "Least milliseconds of each, and their ratio:\n\n" + table(
        ("case", *names), rows
    )


def beside(about: dict[str, Any], names: Sequence[str]) -> Iterable[str]:
    baseline = numbers.timed(about, BASELINE)
    for name in names:
        found = numbers.timed(about, name)
        ratio = numbers.time_ratio(found, baseline) if found else None
        text = digits(min(found["ms"])) if found else ""
        yield text + (f" (×{ratio.least:.2f})" if ratio and name != BASELINE else "")


def reasons(run: dict[str, Any]) -> str:
    """Why some cells are empty."""
    lines: dict[str, list[str]] = {}
    for case, about in run["cases"].items():
        for name, found in about["implementations"].items():
            if "missing" in found:
                lines.setdefault(f"{name}: {found['missing']}", [])
            elif "error" in found:
                lines.setdefault(f"{name}: {found['error']}", []).append(case)
    return "\n".join(
        f"* {line}" + (f" ({', '.join(cases)})" if cases else "")
        for line, cases in lines.items()
    )


# --- cells ---------------------------------------------------------------------------


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def digits(x: float) -> str:
    """Three of them, without an exponent where it can be."""
    return f"{x:.3g}" if 1e-4 <= abs(x) < 1000 or x == 0 else f"{x:.0f}"


def fixed(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def or_empty(x: Any, form: Callable[[Any], str]) -> str:
    return EMPTY if x is None else form(x)


def pair(a: Any, b: Any, form: Callable[[Any], str] = digits) -> str:
    """Ours, and that of the baseline."""
    return f"{or_empty(a, form)} : {or_empty(b, form)}"


def spread(ratio: numbers.Ratio | None) -> str:
    if ratio is None:
        return EMPTY
    return (
        f"**{ratio.least:.2f}**, {ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
    )


def least(found: numbers.Found) -> float | None:
    return min(found["ms"]) if "ms" in found else None


def mebibytes(found: numbers.Found) -> float | None:
    return found["temp_bytes"] / 2**20 if "temp_bytes" in found else None


def error(found: numbers.Found) -> str | None:
    names = ("value_error", "gradient_error")
    return " / ".join(f"{found[n]:.1g}" for n in names if n in found) or None
