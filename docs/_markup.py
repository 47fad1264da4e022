"""reStructuredText of the generated pages: titles, tables, pictures, code."""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

SPAN = re.compile(r"(?<![`\w])`([^`]+)`(?!`)(\w?)|[|]")


def marked(text: str, arguments: Iterable[str] = ()) -> str:
    """A docstring with its code marked as reStructuredText needs it.

    A name in backquotes may be a link, unless it is that of an argument; anything else
    in backquotes is code, whose bars, stars and angle brackets mean nothing else.
    """

    def mark(found: re.Match) -> str:
        code, after = found.groups()
        if code is None:
            return r"\|"
        link = re.fullmatch(r"[\w.]+", code) and code not in arguments
        quotes = "`" if link else "``"
        return f"{quotes}{code}{quotes}" + (rf"\ {after}" if after else "")

    return "\n\n".join(
        part if ">>>" in part or ".. math::" in part else SPAN.sub(mark, part)
        for part in text.split("\n\n")
    )


def summary(value: Any) -> str:
    """The first sentence, or paragraph, of a docstring in one line."""
    return (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")


def code(text: str) -> str:
    """An expression, with single spaces."""
    return f"``{' '.join(text.split())}``"


# Before the next word of a name, and after what opens, joins or assigns.
BREAK = re.compile(r"(?<=[(\[=._])(?=[A-Za-z])|(?<=[a-z])(?=[A-Z])")


def breakable(text: str) -> list[str]:
    """The parts of a text between which a browser may begin a new line."""
    return BREAK.split(text)


def title(text: str, mark: str = "=") -> str:
    return f"{text}\n{mark * len(text)}\n\n"


def rubric(text: str) -> str:
    """A heading inside of the description of a function, as `Gradient` has it."""
    return f".. rubric:: {text}\n\n"


def code_block(text: str, language: str) -> str:
    return f".. code-block:: {language}\n\n{indented(text)}\n"


def indented(text: str) -> str:
    return "".join(f"   {line}\n" if line else "\n" for line in text.split("\n"))


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], kind: str, options: str = ""
) -> str:
    """A table with a row for each of `rows`, of the CSS class `kind`."""
    parts = [".. list-table::\n   :header-rows: 1\n", f"   :class: {kind}\n"]
    parts += [options, "\n"]
    for row in (header, *rows):
        lead = ["   * - ", *["     - "] * (len(row) - 1)]
        parts += [f"{mark}{cell}\n" for mark, cell in zip(lead, row, strict=True)]
    return "".join([*parts, "\n"])


def picture(address: str, alt: str, kind: str = "picture", ending: str = "svg") -> str:
    """The two variants of a picture, of which a page shows the one that fits."""
    images = "".join(
        f".. image:: {address}.{variant}.{ending}\n"
        f"   :class: only-{variant}\n   :alt: {alt}\n\n"
        for variant in ("light", "dark")
    )
    return f".. container:: {kind}\n\n{indented(images)}"
