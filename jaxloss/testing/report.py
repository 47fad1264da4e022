"""The results of the checks of a loss, as rows and as text."""

import collections
import dataclasses
import textwrap


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of one check: "passed", "failed" or "not claimed", and details."""

    law: str
    outcome: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of all checks of one loss; `print` shows them as a table."""

    name: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every check that applies passed."""
        return all(row.outcome != "failed" for row in self.rows)

    def __str__(self) -> str:
        tally = collections.Counter(row.outcome for row in self.rows)
        counts = [f"{tally[o]} {o}" for o in ("passed", "failed", "not claimed")]
        lines = [f"{self.name}: {', '.join(counts)}"]
        for row in self.rows:
            needs = f" ({row.detail})" if row.outcome == "not claimed" else ""
            lines.append(f"  {row.outcome:<11}  {row.law}{needs}")
            if row.outcome == "failed":
                indent = " " * 15
                lines += textwrap.wrap(
                    row.detail, 88, initial_indent=indent, subsequent_indent=indent
                )
        return "\n".join(lines)
