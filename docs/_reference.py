"""The pages of the site that nobody writes: reference, gallery, cheat sheet, examples.

A page for each public name, found by walking the package; `_losses` has what a page
says of a loss beside its docstring, `_edges` what it gives at its edges.
"""

import ast
import functools
import importlib
import inspect
import pkgutil
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxloss
from docs import _edges, _examples, _losses, _pictures
from docs._losses import LOSSES, value
from docs._markup import (
    code_block,
    indented,
    marked,
    picture,
    rubric,
    summary,
    table,
    title,
)
from jaxloss import catalogue

# Modules that readers import although their package shows its names, too.
IMPORTED = ("compat.keras", "compat.optax", "train.nnx")


def write(docs: Path) -> None:
    """Writes `generated/`, and copies what lies outside of the folder of the site."""
    generated = docs / "generated"
    shutil.rmtree(generated, ignore_errors=True)
    shutil.copytree(docs.parent / "notebooks", generated / "notebooks")
    for folder in ("api", "pictures", "examples"):
        (generated / folder).mkdir()
    pictures = generated / "pictures"
    _pictures.draw_landscape(pictures)
    seen.update({name: _pictures.draw_loss(name, pictures) for name in LOSSES})
    found = modules()
    for module in found:
        names = [address(module, name) for name in public(module)]
        save(generated / "api" / f"{module.__name__}.rst", module_page(module, names))
        for name in names:
            save(generated / "api" / f"{name}.rst", name_page(name))
    save(generated / "api" / "index.rst", index_page(found))
    save(generated / "gallery.rst", gallery_page())
    save(generated / "cheat-sheet.rst", _losses.cheat_sheet())
    for name, text in _examples.pages(docs / "examples").items():
        save(generated / "examples" / f"{name}.rst", text)


# What the picture of each loss shows, in words.
seen: dict[str, str] = {}


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


# --- pages of names ----------------------------------------------------------------


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
    """Names, each a link with the first line of its documentation."""
    link = lambda name: f":py:obj:`{name.removeprefix('jaxloss.')} <{name}>`"
    return glossary([(link(name), summary(value(name))) for name in names])


def glossary(rows: Iterable[tuple[str, str]]) -> str:
    """Links, each with what a docstring says of it."""
    lines = "".join(f"{link}\n   {marked(text)}\n\n" for link, text in rows)
    return f".. container:: listing\n\n{indented(lines)}\n"


def name_page(name: str) -> str:
    """One function or class; `complete` has what follows its docstring."""
    kind = "autoclass" if inspect.isclass(value(name)) else "autofunction"
    parts = [index_entries(name), title(name)]
    parts.append(f".. currentmodule:: {name.rpartition('.')[0]}\n\n")
    parts.append(f".. {kind}:: {name}\n")
    parts.append("   :members:\n\n" if kind == "autoclass" else "\n")
    return "".join(parts)


def index_entries(name: str) -> str:
    """All names of a loss: the index has them, and the search puts its page first."""
    entry = LOSSES.get(name.removeprefix("jaxloss."))
    if entry is None:
        return ""
    own = [entry.name.replace("_", mark) for mark in ("_", " ", "")]
    # `iou` does not find `IoU loss`: a search wants half of the letters of an entry.
    short = [name.removesuffix(" loss") for name in entry.also_called]
    typed = [name.replace(" ", "_") for name in entry.also_called]  # as `l1_loss`
    names = dict.fromkeys((*own, *entry.also_called, *short, *typed))
    return "".join([".. index::\n", *(f"   ! single: {n}\n" for n in names), "\n"])


def complete(name: str, lines: list[str]) -> list[str]:
    """The documentation of a function, with what is not in its docstring.

    That is an example of a primitive; of all functions the edges; of a loss its picture
    after the formula, and at the end its names elsewhere and its neighbours.
    """
    loss = name.removeprefix("jaxloss.")
    if loss in LOSSES:
        lines = _losses.with_picture(lines, loss, seen.get(loss, loss))
    parts = []
    if example := _edges.example(value(name)):
        parts.append(code_block(example, "pycon"))
    parts.append(edges(value(name)))
    if loss in LOSSES:
        parts += [_losses.same(loss), _losses.see_also(loss)]
    return [*lines, "", *"".join(parts).split("\n")]


def edges(fn: Any) -> str:
    """What a function gives at the edges of its arguments, as a table."""
    intro, rows = _edges.of_function(fn)
    if not rows:
        return ""
    header, *cells = rows
    return f"{rubric('At the edges')}{intro}\n\n{table(header, cells, 'edges')}"


# --- pages of everything -----------------------------------------------------------

INDEX = """\
The losses by what they predict, then the modules, then every name from A to Z. The
:doc:`cheat sheet </generated/cheat-sheet>` has the losses on a page to print, and
:doc:`every name </names>` those of other libraries.

"""


def index_page(found: list[ModuleType]) -> str:
    """The losses by task, the modules, and every name."""
    hidden = "\n".join(f"   {module.__name__}" for module in found)
    parts = [title("API reference"), INDEX]
    parts.append(f".. toctree::\n   :hidden:\n\n   /names\n{hidden}\n\n")
    parts.append(title("Losses by task", "-"))
    for task, entries in _losses.by_task().items():
        parts.append(title(f"{task.capitalize()}: {catalogue.TASKS[task]}", "~"))
        parts.append(listing([f"jaxloss.{entry.name}" for entry in entries]))
    parts.append(title("Modules", "-"))
    link = lambda module: f":doc:`{heading(module)} <{module.__name__}>`"
    parts.append(glossary([(link(module), summary(module)) for module in found]))
    parts += [title("A to Z", "-"), letters(found)]
    return "".join(parts)


def letters(found: list[ModuleType]) -> str:
    """Every name, by its last part, in columns."""
    names = {address(module, name) for module in found for name in public(module)}
    last = lambda name: (name.rpartition(".")[2].lower(), name)
    links = "".join(
        f"   * :py:obj:`{name.removeprefix('jaxloss.')} <{name}>`\n"
        for name in sorted(names, key=last)
    )
    return f".. container:: letters\n\n{links}\n"


GALLERY = """\
Every loss, drawn by the function itself; its page has the slope, too. A loss of vectors
is drawn along one line through its arguments, which the picture on its page names.
``jaxloss show NAME --plot FILE`` draws one of them.

Three compositions are worked out on real data in the :doc:`recipes </recipes>`: classes
in an order, cross entropy with a margin between classes, and the absolute error of
pixels with a perceptual one.

.. toctree::
   :hidden:

   cheat-sheet

"""


def gallery_page() -> str:
    """A thumbnail of each loss, which leads to its page: common ones, then by task."""
    common = [LOSSES[name] for name in _losses.COMMON]
    parts = [title("Gallery"), GALLERY, title("Common losses", "-"), thumbnails(common)]
    for task, entries in _losses.by_task().items():
        parts += [title(task.capitalize(), "-"), thumbnails(entries)]
    return "".join(parts)


def thumbnails(entries: list[catalogue.Entry]) -> str:
    return f".. container:: thumbnails\n\n{indented(''.join(map(thumbnail, entries)))}"


def thumbnail(entry: catalogue.Entry) -> str:
    link = f":py:obj:`{entry.name} <jaxloss.{entry.name}>`\n\n"
    alt = f"The shape of {entry.name}."
    images = picture(f"pictures/{entry.name}.small", alt, "drawing")
    inside = f"{images}{link}{marked(entry.summary)}\n"
    return f".. container:: thumbnail\n\n{indented(inside)}\n"
