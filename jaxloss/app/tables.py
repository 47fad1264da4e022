"""A table of words: in columns where they fit the terminal, else a record per row."""

import importlib.util
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

Row = Sequence[str]


def show(heads: Row, rows: Sequence[Row]) -> None:
    """Prints a table, whose first column has the names, as wide as there is room."""
    if not sys.stdout.isatty():
        _print_columns(heads, rows)
    elif sum(_widths(heads, rows)) + 2 * (len(heads) - 1) > terminal_width():
        _print_records(heads, rows)
    elif importlib.util.find_spec("rich"):
        _print_table(heads, rows)
    else:
        _print_columns(heads, rows)


def terminal_width() -> int:
    """In columns; 100 where there is no terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def _widths(heads: Row, rows: Sequence[Row]) -> list[int]:
    return [max(map(len, column)) for column in zip(heads, *rows, strict=True)]


def _print_columns(heads: Row, rows: Sequence[Row]) -> None:
    """Aligned, and nothing cut: columns are two blanks apart, for `cut` and `awk`."""
    widths = _widths(heads, rows)
    for row in (heads, *rows):
        cells = [cell.ljust(n) for cell, n in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _print_records(heads: Row, rows: Sequence[Row]) -> None:
    """The facts below each name: in a narrow table, names would be cut to pieces."""
    for name, *facts in rows:
        pairs = [f"{head} {fact}" for head, fact in zip(heads[1:], facts, strict=True)]
        # Lines break between facts, and within one only where a line is too short.
        joined = "; ".join(pair.replace(" ", "\xa0") for pair in pairs)
        lines = textwrap.fill(joined, max(1, terminal_width() - 2))
        print(name)
        print(textwrap.indent(lines.replace("\xa0", " "), "  "))


def _print_table(heads: Row, rows: Sequence[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # Two blanks between columns, as in the plain one.
    form: dict[str, Any] = {"show_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False, **form)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(table)
