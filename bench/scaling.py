"""How cost grows with one size of a problem: a table and the curves of a picture."""

from typing import Any

from bench import report
from bench.picture import Curves


def curves(run: dict[str, Any]) -> Curves:
    """By series and implementation, from the smallest size to the largest."""
    found: Curves = {}
    for about in run["cases"].values():
        series = about["series"]
        size = about["sizes"][series["grows"]]
        for name, one in about["implementations"].items():
            if "ms" in one and "temp_bytes" in one:
                lines = found.setdefault(series["title"], {})
                lines.setdefault(name, []).append((size, one))
    for lines in found.values():
        for points in lines.values():
            points.sort(key=lambda point: point[0])
    return found


def document(run: dict[str, Any], picture: str) -> str:
    """The whole page."""
    parts = [
        "# Cost as a problem grows",
        "Least milliseconds : MiB of temporary memory, of value and gradient.",
        f"![Milliseconds and mebibytes]({picture})",
        report.heading(run),
    ]
    for title, lines in curves(run).items():
        sizes = sorted({size for points in lines.values() for size, _ in points})
        body = [[name, *cells(points, sizes)] for name, points in lines.items()]
        parts += [f"### {title}", report.table(("", *map(str, sizes)), body)]
    parts.append(report.reasons(run))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def cells(points: list, sizes: list[int]) -> list[str]:
    at = dict(points)
    text = lambda x: report.pair(min(x["ms"]), x["temp_bytes"] / 2**20)
    return [text(at[size]) if size in at else report.EMPTY for size in sizes]
