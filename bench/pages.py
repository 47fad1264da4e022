"""Tables of the guides that a benchmark prints, each behind a mark of its own."""

import pathlib
import re


def put(page: pathlib.Path, mark: str, table: str) -> None:
    """Puts a table behind its mark, in the place of the one that is there."""
    before, rest = page.read_text().split(mark)
    after = re.sub(r"^\s*(\|.*\n)*\s*", "", rest, count=1)
    page.write_text(f"{before}{mark}\n\n{table}\n\n{after}")
