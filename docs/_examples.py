"""The programs of `docs/examples` as pages: what each shows, and its source."""

import ast
import re
from pathlib import Path

from docs._markup import title

# The steps of the frameworks that people come from stand first; the others follow.
FIRST = ("train_plain", "train_linen", "train_nnx", "train_equinox", "train_keras")
INDEX = """\
Whole programs to start from. Each runs on a CPU in a minute, on data that comes with
scikit-learn or that it makes, and the test suite runs it.

"""


def pages(folder: Path) -> dict[str, str]:
    """The text of each page by its name, and of the page that lists them."""
    known = {path.stem: path for path in sorted(folder.glob("*.py"))}
    names = list(dict.fromkeys((*FIRST, *known)))
    texts = {name: page(known[name]) for name in names}
    rows = [f":doc:`{subject(known[n])} <{n}>`\n   {_summary(known[n])}" for n in names]
    toctree = "\n".join(f"   {name}" for name in names)
    listed = "\n\n".join(rows)
    hidden = f".. toctree::\n   :hidden:\n\n{toctree}\n\n"
    return {**texts, "index": f"{title('Examples')}{INDEX}{hidden}{listed}\n"}


def page(path: Path) -> str:
    """The first sentence is the title; below it the docstring, and the program."""
    source = f".. literalinclude:: /examples/{path.name}\n   :language: python\n"
    start = f"   :lines: {_first_line(path)}-\n"
    link = f"The file is :download:`{path.name} </examples/{path.name}>`.\n\n"
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", _docstring(path))
    return f"{title(subject(path))}{text}\n\n{link}{source}{start}"


def subject(path: Path) -> str:
    """What an example is about: its first sentence up to the colon, without marks."""
    return re.split(r":\s|\.$", _summary(path))[0].replace("`", "")


def _summary(path: Path) -> str:
    first = _docstring(path).split("\n\n")[0]
    return re.sub(r"`([^`]+)`", r"``\1``", " ".join(first.split()))


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _first_line(path: Path) -> int:
    """Where the program begins, after the docstring."""
    _, first, *_ = ast.parse(path.read_text(encoding="utf-8")).body
    return first.lineno
