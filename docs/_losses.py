"""What the site says of a loss beside its docstring: picture, names, neighbours.

All of it is derived: the picture from the claim, the names from `bench/names`, the
neighbours from the docstrings and the modules.  The cheat sheet has all losses.
"""

import functools
import inspect
import re
from typing import Any

import jaxloss
from bench import names
from docs import _markup
from jaxloss import catalogue, kernels, parallel

LOSSES = {entry.name: entry for entry in catalogue.entries()}
# With these begins who looks for a loss, so the gallery shows them first.
COMMON = (
    *("squared_error", "absolute_error", "huber", "pinball", "gaussian_nll"),
    *("poisson_nll", "sigmoid_cross_entropy", "sigmoid_focal", "hinge"),
    *("softmax_cross_entropy", "softmax_focal", "kl_divergence", "dice", "jaccard"),
    *("ctc", "triplet_margin", "info_nce", "nt_xent", "listwise_softmax", "dpo"),
)
# Those that people come from; the page of all names has the others.
FIRST = ("torch.nn", "keras.losses", "optax.losses")
MOST = 6


def by_task() -> dict[str, list[catalogue.Entry]]:
    """The losses of each task: the common ones first, in the order they are known."""
    common = {name: place for place, name in enumerate(COMMON)}
    known = sorted(LOSSES.values(), key=lambda e: common.get(e.name, len(common)))
    return {
        task: [entry for entry in known if task in entry.tasks]
        for task in catalogue.TASKS
    }


def with_picture(lines: list[str], name: str, alt: str) -> list[str]:
    """A docstring with the picture of the loss after its first formula."""
    start = next(i for i, line in enumerate(lines) if line.startswith(".. math::"))
    rest = range(start + 1, len(lines))
    end = next(i for i in rest if lines[i] and not lines[i].startswith(" "))
    picture = _markup.picture(f"/generated/pictures/{name}", alt)
    return [*lines[:end], *picture.split("\n"), *lines[end:]]


# --- the same in other libraries ---------------------------------------------------


@functools.cache
def others() -> dict[str, list[tuple[str, names.Name]]]:
    """By the name of a loss, the names in other libraries whose expression calls it."""
    found: dict[str, list[tuple[str, names.Name]]] = {name: [] for name in LOSSES}
    for library in names.libraries():
        for name in library.names:
            called = re.findall(r"\bjaxloss\.(\w+)\(", name.here)
            for loss in dict.fromkeys(called):
                if loss in found:
                    found[loss].append((library.title, name))
    return found


def same(name: str) -> str:
    """The loss in torch, Keras and optax; if none has it, in the libraries that do."""
    every = others()[name]
    rows = [row for row in every if row[0].startswith(FIRST)] or every
    if not rows:
        return ""
    cells = [
        (title.split(" ")[0], f"``{there.name}``", _markup.code(there.here))
        for title, there in rows
    ]
    more = ":doc:`Every name </names>` has those of all libraries.\n\n"
    table = _markup.table(("library", "there", "here"), cells, "names")
    return _markup.rubric("The same in other libraries") + table + more


# --- neighbours --------------------------------------------------------------------


def neighbours(name: str) -> list[str]:
    """Full names of what a reader of this loss may want instead, nearest first.

    What its docstring mentions; the same for large batches, or with shards; the losses
    whose docstrings mention it; and those of its module.
    """
    entry = LOSSES[name]
    larger = [
        f"{module.__name__}.{other}"
        for module in (kernels, parallel)
        for other, found in vars(module).items()
        if other in (name, f"linear_{name}") and callable(found)
    ]
    mentioning = [other.name for other in LOSSES.values() if name in other.related]
    beside = [other.name for other in LOSSES.values() if other.module == entry.module]
    near = dict.fromkeys((*entry.related, *mentioning, *beside))
    losses = [f"jaxloss.{x}" for x in near if x in LOSSES and x != name]
    return [*losses[: MOST - len(larger)], *larger]


def see_also(name: str) -> str:
    """The neighbours of a loss, each with the line that says what it is."""
    parts = [_markup.rubric("See also")]
    for other in neighbours(name):
        short = other.removeprefix("jaxloss.")
        said = _markup.marked(_markup.summary(value(other)))
        parts.append(f"* :py:obj:`{short} <{other}>`: {said}\n")
    return "".join([*parts, "\n"])


def value(name: str) -> Any:
    """What a full name below `jaxloss` stands for."""
    found = jaxloss
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


# --- the cheat sheet ---------------------------------------------------------------

CHEAT_SHEET = """\
All losses by task, with how to call each, what the targets are, and what comes out.
Most losses take what the last layer gives, without an activation; the second column
says which do not. ``jaxloss.mean(losses, where=mask, weights=weights)`` makes one
number of the losses. Print this page on A4, landscape.
"""


def cheat_sheet() -> str:
    parts = [_markup.title("Cheat sheet"), CHEAT_SHEET, "\n"]
    for task, entries in by_task().items():
        head = f"{task.capitalize()}: {catalogue.TASKS[task]}"
        rows = [
            (
                f":py:obj:`{_call(entry)} <jaxloss.{entry.name}>`",
                _markup.marked(entry.activation),
                targets(entry),
                f"per {unit(entry)}, {entry.range}",
            )
            for entry in entries
        ]
        header = (head, "activation of the last layer", "targets", "losses")
        widths = "   :widths: 41 16 27 16\n"
        parts.append(_markup.table(header, rows, "cheat-sheet", widths))
    return "".join(parts)


def _call(entry: catalogue.Entry) -> str:
    """The call as it is typed; the axis has a default mostly, and is left out then."""
    shown = [
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in entry.parameters
        if not (p.default is not p.empty and p.name in ("axis", "where"))
    ]
    return f"{entry.name}({', '.join(shown)})"


def targets(entry: catalogue.Entry) -> str:
    """What the second argument is, up to the first detail."""
    given = inspect.signature(entry.function).parameters.values()
    positional = [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(positional) < 2:
        return "none"
    name = positional[1]
    detail = re.compile(r"[.;](?: |$)|, (?:of the shape|cast|as for)")
    said = detail.split(entry.arguments[name])[0]
    said = said.replace("Array of the same shape, ", "")
    return _markup.marked(f"`{name}`: {said[0].lower()}{said[1:]}")


def unit(entry: catalogue.Entry) -> str:
    """What each number that a loss returns is of: an element, an example, a pair."""
    forms = (
        r"^Per-(\w+)",
        r"^One \w+ .*?(?:per|for each) (\w+)",
        r"^(?:Losses|One loss) .*\b(without|batch)\b",
        r"^(Scalar)",
    )
    words = {"without": "example", "batch": "pair", "Scalar": "tree"}
    for form in forms:
        if found := re.search(form, entry.returns):
            return words.get(found[1], found[1])
    raise ValueError(f"what `{entry.name}` returns is per what? {entry.returns!r}")
