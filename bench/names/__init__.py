"""Every loss of the libraries that people come from, and the same here.

Each library has a file of this folder.  Its first line is the name of the library and
its version; then each loss is a paragraph:

    L1Loss
    here: jaxloss.absolute_error(predictions, targets)
    number: abs(predictions - targets)

`here` is evaluated over the arrays of `data`, and so is `number`, the definition of
that library in NumPy.  `optax: ...` in its place calls optax.  Instead of both lines,
`as: F.l1_loss(` stands for the first row of `switching_rows` that begins so, whose
number was recorded from the library itself.  `within: 1e-6 why` is a difference that
has a reason.  A loss without an expression has the line `not here: why`; its paragraph
may name several losses.
"""

import dataclasses
import importlib
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special

from bench import switching
from bench.switching_rows import DATA, KERAS, ROUNDING, TORCH

FOLDER = pathlib.Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs/names.md"
FILES = (
    *("torch", "keras", "optax", "scikit-learn", "torchvision", "timm"),
    *("segmentation-models", "monai", "kornia", "metric-learning", "lightly"),
    *("rax", "tf-ranking", "trl", "pycox", "torchsurv", "coral", "scoringrules"),
    "entmax",
)
FIELDS = ("here", "number", "as", "optax", "within", "not here")
TOLERANCE = 1e-11


@dataclasses.dataclass(frozen=True)
class Name:
    """One loss of a library."""

    name: str
    here: str = ""
    """The expression for it."""
    number: str = ""
    """Its definition in NumPy, or the call of optax."""
    source: str = "number"
    """Where the number is from: a field of the file."""
    within: float = TOLERANCE
    why: str = ""
    """Why it is not here, or why the numbers differ."""


@dataclasses.dataclass(frozen=True)
class Library:
    """All of its losses."""

    title: str
    names: tuple[Name, ...]


def libraries() -> tuple[Library, ...]:
    """All of them, in the order of the page."""
    return tuple(_read(FOLDER / f"{file}.txt") for file in FILES)


def _read(path: pathlib.Path) -> Library:
    title, *paragraphs = path.read_text(encoding="utf-8").strip().split("\n\n")
    return Library(title, tuple(n for text in paragraphs for n in _names(path, text)))


def _names(path: pathlib.Path, text: str) -> list[Name]:
    """The losses of a paragraph."""
    names, *lines = text.split("\n")
    fields = dict(line.split(": ", 1) for line in lines)
    if not {*fields} <= {*FIELDS} or len(fields) != len(lines):
        raise ValueError(f"{path.name}: {text!r} has other lines than {FIELDS}")
    if "not here" in fields:
        return [Name(name, why=fields["not here"]) for name in names.split(", ")]
    return [_expressed(names, fields)]


def _expressed(name: str, fields: dict[str, str]) -> Name:
    if "as" in fields:
        row = _row(fields["as"])
        library = "torch" if fields["as"].startswith("F.") else "keras"
        within = row.within or ROUNDING[library]
        return Name(name, row.ours, row.theirs, library, within, row.why)
    source = "optax" if "optax" in fields else "number"
    within, _, why = fields.get("within", f"{TOLERANCE} ").partition(" ")
    return Name(name, fields["here"], fields[source], source, float(within), why)


def _row(start: str) -> switching.Row:
    """The first row of the guides that begins so."""
    groups = [*TORCH.values(), *KERAS.values()]
    return next(
        row for group in groups for row in group if row.theirs.startswith(start)
    )


# --- numbers -----------------------------------------------------------------------


def data() -> dict[str, np.ndarray]:
    """The arrays that the expressions name: those of the guides, and some more."""
    rng = np.random.default_rng(1)
    normal = rng.standard_normal
    segments = np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3], [4, 4, 0, 1, 2, 3, 3, 0, 1]])
    segments = segments.reshape(2, 3, 3)  # each image has each class
    return {
        **DATA,
        "image_probabilities": scipy.special.softmax(DATA["image_logits"], axis=1),
        "segments": segments,
        "boxes": np.array([[0.0, 0, 2, 2], [0, 0, 4, 1], [0.5, 0, 1, 3]]),
        "true_boxes": np.array([[1.0, 1, 3, 3], [0, 0, 1, 4], [3, 0.5, 4, 2]]),
        "masks": np.moveaxis(np.eye(5)[segments], -1, 1),
        "views": normal((3, 4, 5)),
        "chosen": -np.exp(normal(4)),
        "rejected": -np.exp(normal(4)),
        "chosen_before": -np.exp(normal(4)),
        "rejected_before": -np.exp(normal(4)),
        "token_log_probs": -np.exp(normal((2, 3, 4))),
        "old_token_log_probs": -np.exp(normal((2, 3, 4))),
        "rewards": normal((2, 3)),
        "answer": np.arange(4) < np.array([[[4], [2], [3]], [[1], [4], [2]]]),
        "events": np.array([1, 0, 1, 1]),
        "fractions": np.array([0.2, 0.9, 0.5, 0.1]),
        "members": normal((4, 3, 7)),
        "taus": np.array([0.1, 0.5, 0.9]),
    }


def ours(name: Name, arrays: Mapping[str, Any]) -> Any:
    """The value of an expression here."""
    return eval(name.here, {"lax": jax.lax, **switching.our_words(arrays)})


def theirs(name: Name, recorded: Mapping[str, Any]) -> np.ndarray:
    """The value of theirs, as numbers in float64."""
    if name.source in ("torch", "keras"):
        return np.asarray(recorded[name.source]["rows"][name.number]["value"])
    if name.source == "optax":
        arrays = {key: jnp.asarray(x) for key, x in data().items()}
        return np.asarray(eval(name.number, {**switching.their_words("optax", arrays)}))
    words = {"np": np, "math": math, "root": scipy.optimize.brentq}
    words |= vars(importlib.import_module("scipy.special"))
    return np.asarray(eval(name.number, {**words, **data()}), float).ravel()


# --- the page ----------------------------------------------------------------------

INTRODUCTION = """\
# Every name

This page lists the losses of {libraries} other libraries, with the expression here for
each. {here} of the {all} names have one; the others have the reason why not.
`python -m jaxloss list --search NAME` finds the common names, too.

The suite evaluates every expression in float64. It compares the value with the number
of the library itself for torch, Keras and optax, and with the definition of the library
in NumPy for the others. The two agree to rounding unless the row has a remark.

In the expressions, `logits` have shape `(batch, classes)`, `ids` are class ids, `bits`
are labels 0 and 1, `signs` are labels -1 and +1, `predictions` and `targets` are
numbers, `first`, `second` and `third` are embeddings, and `boxes` and `true_boxes` are
corners. `stable`, `margins` and `kernels` are modules of `jaxloss`. Expressions without
a mean give one number per element or example; [reductions](reductions.md) has the means
of torch, Keras and optax.
"""


def page() -> str:
    """All of it in Markdown."""
    found = libraries()
    every = [name for library in found for name in library.names]
    here = sum(bool(name.here) for name in every)
    counts = {"libraries": len(found), "here": here, "all": len(every)}
    parts = [INTRODUCTION.format(**counts)]
    for library in found:
        rows = [f"| `{n.name}` | {_cell(n)} |" for n in library.names]
        head = f"## {library.title}\n\n| there | here |\n|---|---|\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _cell(name: Name) -> str:
    if not name.here:
        return f"not here, because {name.why}"
    code = re.sub(r" +", " ", name.here).replace("|", r"\|")
    return f"`{code}`" + (f" ({name.why})" if name.why else "")
