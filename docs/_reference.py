"""The pages of the site that nobody writes: the API reference and the gallery.

A page for each public name, found by walking the package; under a loss its picture, and
what it gives at the edges of its arguments.
"""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt

import jaxloss
from docs import _edges
from jaxloss import catalogue
from jaxloss.app import gallery

# Modules that readers import although their package shows its names, too.
IMPORTED = ("compat.keras", "compat.optax", "train.nnx")
LOSSES = {entry.name: entry for entry in catalogue.entries()}


def write(docs: Path) -> None:
    """Writes `generated/`, and copies what lies outside of the folder of the site."""
    generated = docs / "generated"
    shutil.rmtree(generated, ignore_errors=True)
    shutil.copytree(docs.parent / "notebooks", generated / "notebooks")
    for folder in ("api", "pictures"):
        (generated / folder).mkdir()
    found = modules()
    for module in found:
        names = [address(module, name) for name in public(module)]
        save(generated / "api" / f"{module.__name__}.rst", module_page(module, names))
        for name in names:
            save(generated / "api" / f"{name}.rst", name_page(name))
    save(generated / "api" / "index.rst", index_page(found))
    for name in LOSSES:
        figure = gallery.picture(name)
        figure.savefig(generated / "pictures" / f"{name}.png", dpi=110)
        plt.close(figure)
    save(generated / "gallery.rst", gallery_page())


def save(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


# --- what there is -----------------------------------------------------------------


def modules() -> list[ModuleType]:
    """The modules that a reader imports or finds names of, those of losses first."""
    names = [info.name for info in pkgutil.walk_packages(jaxloss.__path__, "jaxloss.")]
    found = map(importlib.import_module, filter(is_public, names))
    with_names = [module for module in found if public(module)]
    return sorted(with_names, key=lambda m: (not is_exported(m), m.__name__))


def is_public(name: str) -> bool:
    """Whether a module is one that a reader imports."""
    parts = name.split(".")[1:]
    if any(part.startswith("_") for part in parts) or parts[0] == "app":
        return False
    return len(parts) == 1 or parts[0] == "losses" or ".".join(parts) in IMPORTED


@functools.cache  # it reads the source, and is asked for each name
def public(module: ModuleType) -> list[str]:
    """The public names that a module defines or passes on, in their order."""
    home, passed_on = f"{module.__name__}.", exported(module)
    return [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and (
            f"{getattr(value, '__module__', '')}.".startswith(home) or name in passed_on
        )
    ]


def exported(module: ModuleType) -> set[str]:
    """What a module imports for others, which is written `import name as name`."""
    tree = ast.parse(inspect.getsource(module))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {n.name for node in imports for n in node.names if n.name == n.asname}


def is_exported(module: ModuleType) -> bool:
    """Whether the names of a module are those of `jaxloss` itself."""
    return all(
        getattr(jaxloss, name, None) is getattr(module, name) for name in public(module)
    )


def address(module: ModuleType, name: str) -> str:
    """Under which full name a reader uses it."""
    return f"jaxloss.{name}" if is_exported(module) else f"{module.__name__}.{name}"


# --- docstrings --------------------------------------------------------------------

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


# --- pages -------------------------------------------------------------------------


def title(text: str, mark: str = "=") -> str:
    return f"{text}\n{mark * len(text)}\n\n"


def index_page(found: list[ModuleType]) -> str:
    """All modules, with one line of each name."""
    hidden = "\n".join(f"   {module.__name__}" for module in found)
    toctree = f".. toctree::\n   :hidden:\n\n{hidden}\n\n"
    parts = [title("API reference"), toctree]
    for module in found:
        parts.append(title(heading(module), "-"))
        parts.append(listing([address(module, name) for name in public(module)]))
    return "".join(parts)


def module_page(module: ModuleType, names: list[str]) -> str:
    """What a module is for, and its names."""
    members = "\n".join(f"   {name}" for name in names)
    return "".join(
        [
            title(heading(module)),
            f"{marked(inspect.getdoc(module) or '')}\n\n",
            listing(names),
            f".. toctree::\n   :hidden:\n\n{members}\n",
        ]
    )


def heading(module: ModuleType) -> str:
    """The name of a module; of losses, whose modules nobody imports, the topic."""
    topic = module.__name__.removeprefix("jaxloss.losses.")
    if topic == module.__name__:
        return topic
    return ": ".join(topic.replace("_", " ").split(".")).capitalize()


def listing(names: list[str]) -> str:
    """A table of names, each a link with the first line of its documentation."""
    rows = [".. list-table::\n   :widths: 40 60\n\n"]
    for name in names:
        first = (inspect.getdoc(value(name)) or "").split("\n\n")[0].replace("\n", " ")
        rows.append(f"   * - :py:obj:`{name}`\n     - {marked(first)}\n")
    return "".join([*rows, "\n"])


def name_page(name: str) -> str:
    """One function or class; for a loss its picture and its edges too."""
    kind = "autoclass" if inspect.isclass(value(name)) else "autofunction"
    parts = [index_entries(name), title(name)]
    parts.append(f".. currentmodule:: {name.rpartition('.')[0]}\n\n")
    parts.append(f".. {kind}:: {name}\n")
    parts.append("   :members:\n\n" if kind == "autoclass" else "\n")
    short = name.removeprefix("jaxloss.")
    if short in LOSSES:
        parts.append(f".. image:: ../pictures/{short}.png\n   :alt: {short}\n\n")
    if kind == "autofunction":
        if example := _edges.example(value(name)):
            code = example.replace("\n", "\n   ")
            parts.append(f".. code-block:: pycon\n\n   {code}\n\n")
        parts.append(edges(value(name)))
    return "".join(parts)


def index_entries(name: str) -> str:
    """All names of a loss: the index has them, and the search puts its page first."""
    entry = LOSSES.get(name.removeprefix("jaxloss."))
    if entry is None:
        return ""
    own = (entry.name, entry.name.replace("_", " "))
    # `iou` does not find `IoU loss`: a search wants half of the letters of an entry.
    short = (name.removesuffix(" loss") for name in entry.also_called)
    names = dict.fromkeys((*own, *entry.also_called, *short))
    return "".join([".. index::\n", *(f"   ! single: {n}\n" for n in names), "\n"])


def edges(fn: Any) -> str:
    """What a function gives at the edges of its arguments, as a table."""
    intro, rows = _edges.of_function(fn)
    if not rows:
        return ""
    parts = [title("At the edges", "-"), f"{intro}\n\n"]
    parts.append(".. list-table::\n   :header-rows: 1\n   :class: edges\n\n")
    for row in rows:
        lead = ["   * - ", *["     - "] * (len(row) - 1)]
        parts += [f"{mark}{cell}\n" for mark, cell in zip(lead, row, strict=True)]
    return "".join([*parts, "\n"])


def value(name: str) -> Any:
    """What a full name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def gallery_page() -> str:
    """One picture per loss, by task."""
    parts = [title("Gallery"), f"{GALLERY}\n\n"]
    task = ""
    for entry in LOSSES.values():
        if entry.tasks[0] != task:
            task = entry.tasks[0]
            parts.append(title(task.capitalize(), "-"))
        parts.append(title(entry.name, "~"))
        parts.append(
            f"{marked(entry.summary)}  See :py:obj:`jaxloss.{entry.name}`.\n\n"
        )
        parts.append(f".. image:: pictures/{entry.name}.png\n   :alt: {entry.name}\n\n")
    return "".join(parts)


GALLERY = """\
Value and gradient of every loss, drawn from the functions themselves. A loss of vectors
is drawn along one line through its arguments, which the axis names.
``python -m jaxloss show NAME --plot FILE`` draws one of them.

Two compositions are worked out on real data in the :doc:`recipes </recipes>`: classes
in an order, and the absolute error of pixels with a perceptual one."""
