"""Results as pictures.

Colours are those of Okabe and Ito; each thing that is compared has a marker of its own
as well, for print.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import numbers
from bench.cases import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, ASKED, OTHER, GRID = "#0072B2", "#D55E00", "#009E73", "#DDDDDD"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = "os^Dv*"
# Where a ratio of 0 is drawn.
LEAST = 1e-4


def ratios(run: dict[str, Any], to: Path) -> None:
    """Time and temporary memory of ours to the baseline, one line per case."""
    from matplotlib.figure import Figure

    rows = [row for row in numbers.rows(run) if row.baseline and "ms" in row.ours]
    figure = Figure(figsize=(10, 1.6 + 0.27 * len(rows)), layout="constrained")
    time, temp = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    draw_times(time, rows, run)
    draw_temps(temp, rows)
    for ax in (time, temp):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.axvline(1, color="black", linewidth=1, zorder=1)
        ax.grid(axis="x", color=GRID, zorder=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    time.set_yticks(range(len(rows)), [row.title for row in rows])
    time.set_ylim(len(rows) - 0.5, -0.5)
    handles = dict(zip(*reversed(time.get_legend_handles_labels()), strict=True))
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper center", ncols=4
    )
    figure.savefig(to, dpi=150)


def draw_times(ax: "Axes", rows: list[numbers.Row], run: dict[str, Any]) -> None:
    """Bars from 1, so that both directions of a factor are as long."""
    found = [numbers.time_ratio(row.ours, row.baseline) for row in rows]
    least = np.array([r.least for r in found if r])
    low, high = (np.array([getattr(r, n) for r in found if r]) for n in ("low", "high"))
    at = np.arange(len(rows))
    ax.hlines(at, np.minimum(least, 1), np.maximum(least, 1), color=OURS, linewidth=5,
              alpha=0.35, zorder=2)  # fmt: skip
    ax.hlines(at, low, high, color="black", linewidth=1.2, zorder=4,
              label="quartiles of the rounds")  # fmt: skip
    ax.plot(least, at, "o", color=OURS, zorder=5, label="jaxloss")
    for i, row in enumerate(rows):
        asked_for(ax, i, row.target.get("time"))
        torch = numbers.timed(run["cases"][row.case], "torch")
        ratio = numbers.time_ratio(torch, row.baseline) if torch else None
        if ratio:
            ax.plot(ratio.least, i, "s", color=OTHER, mfc="none", label="torch")
    ax.set_xlabel(f"time, as a multiple of {BASELINE}'s")


def draw_temps(ax: "Axes", rows: list[numbers.Row]) -> None:
    right = 2.0
    for i, row in enumerate(rows):
        ratio = numbers.temp_ratio(row.ours, row.baseline)
        asked_for(ax, i, allowed_temp(row))
        if ratio is None:
            continue
        shown = max(ratio, LEAST)
        right = max(right, 2 * ratio)
        ends = min(shown, 1), max(shown, 1)
        ax.hlines(i, *ends, color=OURS, linewidth=5, alpha=0.35, zorder=2)
        ax.plot(shown, i, "o" if ratio >= LEAST else "<", color=OURS, zorder=5)
    ax.set_xlim(LEAST / 2, right)
    ax.set_xlabel("temporary memory, likewise")


def allowed_temp(row: numbers.Row) -> float | None:
    """As a ratio, also where mebibytes were asked for."""
    mebibytes, base = row.target.get("mebibytes"), row.baseline or {}
    if mebibytes is None or not base.get("temp_bytes"):
        return row.target.get("temp")
    return mebibytes * 2**20 / base["temp_bytes"]


def asked_for(ax: "Axes", at: int, limit: float | None) -> None:
    if limit is not None:
        ax.plot(limit, at, "|", color=ASKED, markersize=13, markeredgewidth=2.5,
                zorder=6, label="asked for: at most")  # fmt: skip


# --- scaling -------------------------------------------------------------------------

Curves = dict[str, dict[str, list[tuple[int, numbers.Found]]]]
"""By title and implementation: what was measured at each size."""


def scaling(curves: Curves, to: Path) -> None:
    """Milliseconds and mebibytes against the size that grows, one row per series."""
    from matplotlib.figure import Figure

    size = (10, 0.6 + 3.2 * len(curves))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(curves), 2, squeeze=False)
    for (time, temp), (title, lines) in zip(grid, curves.items(), strict=True):
        for i, (name, points) in enumerate(lines.items()):
            style = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": LINES[i]}
            sizes = [n for n, _ in points]
            time.plot(sizes, [min(x["ms"]) for _, x in points], label=name, **style)
            temps = [(n, x["temp_bytes"] / 2**20) for n, x in points if x["temp_bytes"]]
            temp.plot(*zip(*temps, strict=True) if temps else ((), ()), **style)
        for ax, label in ((time, "milliseconds"), (temp, "MiB of temporary memory")):
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.set_xlabel(title)
            ax.set_ylabel(label)
            ax.grid(color=GRID)
            ax.spines[["top", "right"]].set_visible(False)
        time.legend(frameon=False)
    figure.savefig(to, dpi=150)


# --- compiled for a device -----------------------------------------------------------


def moved(run: dict[str, Any], to: Path) -> None:
    """What programs move beside their arguments and results, a panel for each dtype."""
    from matplotlib.figure import Figure

    dtypes = ("float32", "bfloat16")
    cases = {name.rpartition(", ")[0]: None for name in run["cases"] if ", " in name}
    names = [n for n in cases if all(f"{n}, {d}" in run["cases"] for d in dtypes)]
    figure = Figure(figsize=(10, 1.4 + 0.2 * len(names)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, dtype in zip(panels, dtypes, strict=True):
        for peer, marker, colour in ((BASELINE, "s", ASKED), ("jaxloss", "o", OURS)):
            times = [_times(run["cases"][f"{n}, {dtype}"], peer) for n in names]
            style = {"color": colour, "mfc": "none" if peer == BASELINE else colour}
            ax.plot(times, range(len(names)), marker, label=peer, **style)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.axvline(1, color="black", linewidth=1, zorder=1)
        ax.grid(color=GRID, zorder=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(f"bytes moved by arguments and results, {dtype}")
    panels[0].set_yticks(range(len(names)), names, fontsize=7)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    panels[0].legend(loc="lower right", framealpha=1)
    figure.suptitle(run["device"])
    figure.savefig(to, dpi=130)


def _times(about: dict[str, Any], peer: str) -> float:
    """The multiple; not a number, which is not drawn, where there is none."""
    found = about["implementations"].get(peer, {})
    floor = found.get("argument_bytes", 0) + found.get("output_bytes", 0)
    return found["moved_bytes"] / floor if "moved_bytes" in found else float("nan")
