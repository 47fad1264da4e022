"""The results of `python -m bench eager` as tables of `docs/speed.md`."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from bench import numbers, pages, report

PAGE = pathlib.Path(__file__).parent.parent / "docs/speed.md"
SIDES = ("jaxloss", "optax")
Run = dict[str, Any]


class Measure(NamedTuple):
    """One thing that is measured of every case, and what is asked of ours in it."""

    key: str
    title: str
    median: float | None = None
    worst: float | None = None
    summed: float | None = None


MEASURES = (
    Measure("losses", "call: the losses"),
    Measure("losses cpu", "the same, CPU time"),
    Measure("mean", "call: their mean", median=1, worst=2),
    Measure("mean cpu", "the same, CPU time", median=1, worst=2),
    Measure("gradient", "call: the gradient of the mean", median=1, worst=2),
    Measure("gradient cpu", "the same, CPU time", median=1, worst=2),
    Measure("first", "first calls: mean and gradient", summed=1),
    Measure("value trace", "tracing the mean"),
    Measure("gradient trace", "tracing mean and gradient", worst=2),
    Measure("gradient retrace", "tracing mean and gradient again", worst=2),
    Measure("gradient lower", "lowering mean and gradient"),
    Measure("value compile", "compiling the mean"),
    Measure("gradient compile", "compiling mean and gradient"),
)
# One clock for all of them: CPU time, which has the smaller spread.
COLUMNS = {
    "losses cpu": "losses",
    "mean cpu": "mean",
    "gradient cpu": "gradient",
    "first": "first calls",
    "gradient trace": "trace",
    "gradient compile": "compile",
}
CALLED = ("losses", "mean", "gradient")
# A sum of their times would be that of the one slowest case.
CALLS = tuple(f"{x}{clock}" for x in CALLED for clock in ("", " cpu"))
IMPORT_SECONDS = 0.15


# --- numbers -------------------------------------------------------------------------


def ratios(run: Run, key: str) -> dict[str, numbers.Ratio]:
    """Of ours to optax's, by case; only where both were measured."""
    found = {}
    for case, about in run["cases"].items():
        ours, theirs = (timed(about, side, key) for side in SIDES)
        if ours and (ratio := numbers.time_ratio(ours, theirs)):
            found[case] = ratio
    return found


def timed(about: Run, side: str, key: str) -> numbers.Found | None:
    """The rounds of one measure of one side of a case."""
    ms = about["implementations"].get(side, {}).get("ms", {}).get(key)
    return {"ms": ms} if ms else None


def total(run: Run, key: str) -> numbers.Ratio | None:
    """Of the sums over the cases that both have, round by round."""
    both = [run["cases"][case] for case in ratios(run, key)]
    if not both:
        return None
    sums = ({"ms": _summed(both, side, key)} for side in SIDES)
    return numbers.time_ratio(*sums)


def _summed(cases: list[Run], side: str, key: str) -> np.ndarray:
    return np.sum([about["implementations"][side]["ms"][key] for about in cases], 0)


def unit(run: Run, key: str) -> float | None:
    """The milliseconds of optax, in the median of its cases."""
    every = (timed(about, "optax", key) for about in run["cases"].values())
    found = [float(np.median(x["ms"])) for x in every if x]
    return float(np.median(found)) if found else None


def verdicts(measure: Measure, run: Run) -> list[numbers.Verdict]:
    """What is asked, each with what was found."""
    each = [ratio.median for ratio in ratios(run, measure.key).values()]
    sums = total(run, measure.key)
    found = {
        "median": float(np.median(each)) if each else None,
        "worst": max(each, default=None),
        "summed": sums and sums.median,
    }
    return [
        numbers.Verdict(what, found[what], allowed)
        for what in found
        if (allowed := getattr(measure, what)) is not None
    ]


# --- tables --------------------------------------------------------------------------


def summary(run: Run) -> str:
    """Everything that is measured, over the cases that optax has, too."""
    head = ("ours : optax's", "median", "worst", "summed", "asked for")
    rows = [summary_row(measure, run) for measure in MEASURES]
    return report.table(head, [row for row in rows if row] + [import_row(run)])


def summary_row(measure: Measure, run: Run) -> list[str]:
    each = ratios(run, measure.key)
    sums = total(run, measure.key)
    if not each or sums is None:
        return []
    worst = max(each, key=lambda case: each[case].median)
    medians = [ratio.median for ratio in each.values()]
    return [
        measure.title,
        report.digits(float(np.median(medians))),
        f"{report.digits(each[worst].median)} ({worst})",
        report.EMPTY if measure.key in CALLS else spread(sums),
        "; ".join(map(str, verdicts(measure, run))) or report.EMPTY,
    ]


def import_row(run: Run) -> list[str]:
    """Seconds, since optax is not what a user would import instead."""
    seconds = {side: np.array(run["imports"][side]["ms"]) / 1e3 for side in SIDES}
    cpu = np.median(run["imports"]["jaxloss"]["cpu_ms"]) / 1e3
    low, median, high = np.quantile(seconds["jaxloss"], [0.25, 0.5, 0.75])
    return [
        "`import jaxloss` after JAX and optax",
        f"{median:.2f} s ({low:.2f}–{high:.2f}), of CPU time {cpu:.2f} s",
        report.EMPTY,
        f"optax after JAX: {np.median(seconds['optax']):.2f} s",
        str(numbers.Verdict("seconds", float(median), IMPORT_SECONDS)),
    ]


def beside(run: Run) -> str:
    """A row per case that optax has, too: medians of the rounds, with quartiles."""
    by_key = {key: ratios(run, key) for key in COLUMNS}
    rows = [
        [
            f"{case} : `{about['peer']}`",
            *(_cell(by_key[key].get(case)) for key in COLUMNS),
        ]
        for case, about in run["cases"].items()
        if about["peer"]
    ]
    return report.table(("ours : optax's", *COLUMNS.values()), rows)


def _cell(ratio: numbers.Ratio | None) -> str:
    return report.or_empty(ratio, spread)


def alone(run: Run) -> str:
    """A row per loss that optax does not have, in units of optax's median case."""
    units = {key: unit(run, key) for key in COLUMNS}
    rows = []
    for case, about in run["cases"].items():
        if not about["peer"]:
            found = {key: timed(about, "jaxloss", key) for key in COLUMNS}
            rows.append([case, *(_multiple(found[k], units[k]) for k in COLUMNS)])
    return report.table(("", *COLUMNS.values()), rows)


def _multiple(found: numbers.Found | None, unit: float | None) -> str:
    if found is None or unit is None:
        return report.EMPTY
    low, median, high = np.quantile(found["ms"], [0.25, 0.5, 0.75]) / unit
    return spread(numbers.Ratio(low, median, low, high))


def spread(ratio: numbers.Ratio) -> str:
    """The median and the quartiles, if these are not the same to three digits."""
    low, median, high = map(report.digits, (ratio.low, ratio.median, ratio.high))
    return median if low == high else f"{median} ({low}–{high})"


def where(run: Run) -> str:
    """What was measured, and when: above the tables, where they are printed."""
    versions = ", ".join(f"{k} {run['versions'][k]}" for k in ("jax", "optax"))
    return (
        f"{run['device']}, {run['cores']} cores, {versions}, Python {run['python']}; "
        f"revision {run['revision']}, {run['date'][:10]}; load {run['load_before']:g} "
        f"before and {run['load_after']:g} after"
    )


TABLES = {"in short": summary, "beside optax": beside, "without a counterpart": alone}


def document(run: Run) -> str:
    parts = [where(run), *(table(run) for table in TABLES.values())]
    return "\n\n".join(parts)


def mark(name: str) -> str:
    return f"<!-- eager, {name}: python -m bench eager --write -->"


def write(run: Run, page: pathlib.Path) -> None:
    """Puts each table behind its mark."""
    for name, table in TABLES.items():
        pages.put(page, mark(name), table(run))
