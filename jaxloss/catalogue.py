"""A catalogue of the losses, read from their docstrings at each call.

    for entry in catalogue.entries():
        print(entry.name, entry.tasks, entry.range)

`search` finds the losses that a name stands for, such as `mse` or `BCEWithLogitsLoss`.

A loss is a public function of `jaxloss` whose docstring has a section `Use:` with lines
of a fixed form: what the loss is for (`task`), what the last layer must give
(`activation`), the interval of its values (`range`), whether the gradient in the
predictions stays bounded as an example gets ever worse (`robust`), whether it is convex
in its first argument (`convex`), and when to choose it or another loss.  The suite
checks these lines with the specs of the loss.  A line `Also called:` under the summary
has its names in papers and in other libraries.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

import jaxloss
from jaxloss import _checks

TASKS = {
    "regression": "a real number, or a direction",
    "quantile": "a quantile or an expectile",
    "count": "a number of events, an intensity",
    "binary": "yes or no",
    "multi-label": "several labels, any number of which may hold",
    "multi-class": "one of several classes",
    "ordinal": "one of several ordered classes",
    "distribution": "a distribution",
    "segmentation": "a mask of an image",
    "detection": "a box in an image",
    "sequence": "a sequence without an alignment",
    "survival": "a time until an event, perhaps not observed",
    "embedding": "an embedding: similar examples near each other",
    "ranking": "an order of items",
    "preference": "which answer of a language model is better",
    "regularization": "nothing: a penalty added to another loss",
}

ACTIVATIONS = {
    "none": "a real number, as the last layer gives it",
    "none (logits)": "scores of any size, without sigmoid or softmax",
    "none (logarithms)": "the logarithm of a positive number, without an exponential",
    "none (embeddings)": "vectors of any length, normalised or not",
    "none (boxes)": "corners x1, y1, x2, y2, in the unit of the targets",
    "none (distances)": "distances of embeddings: `stable.norm(first - second)`",
    "none (parameters)": "a pytree of parameters, not an output",
    "log-softmax": "log-probabilities, at most 0",
    "softmax": "probabilities that sum to 1",
    "sigmoid or softmax": "probabilities",
    "softplus or exp": "an amount >= 0",
}

SECTIONS = ("Args", "Returns", "Raises", "Gradient", "Use", "Reference", "Example")
FIELDS = ("task", "activation", "range", "robust", "convex", "when", "not when")


class CatalogueError(ValueError):
    """A docstring that the catalogue cannot read; the text names function and field."""


class Interval(NamedTuple):
    """The field `range`; an end that does not belong to it is approached."""

    low: float
    high: float
    has_low: bool
    has_high: bool

    def __contains__(self, x: object) -> bool:
        if not isinstance(x, int | float):
            return False
        above = self.low <= x if self.has_low else self.low < x
        return above and (x <= self.high if self.has_high else x < self.high)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the docstring and the signature of one loss say."""

    name: str
    module: str
    """The family and the file: `regression.pointwise`."""
    function: Callable[..., jax.Array]
    summary: str
    also_called: tuple[str, ...]
    """Names of other libraries, of papers and of habit, in the docstring's order."""
    formula: str
    """LaTeX, as in the docstring."""
    notes: str
    """The text between the formula and the arguments; mostly empty."""
    arguments: Mapping[str, str]
    hyperparameters: Mapping[str, Any]
    """Defaults by name; `inspect.Parameter.empty` where there is none."""
    returns: str
    gradient: str
    tasks: tuple[str, ...]
    activation: str
    range: str
    robust: str
    """`yes`, `no`, or `for` and a condition on the hyperparameters."""
    convex: str
    """As `robust`."""
    when: str
    not_when: str
    related: tuple[str, ...]
    """Other public names that the docstring mentions, in its order."""
    reference: str
    example: str

    @property
    def signature(self) -> str:
        """Name, arguments and defaults, without types."""
        return f"{self.name}{inspect.Signature(self.parameters)}"

    @property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """The arguments without types, with the defaults as the source has them."""
        given = inspect.signature(self.function).parameters.values()
        return tuple(
            p.replace(annotation=p.empty, default=_as_written(p.default)) for p in given
        )

    def interval(self, classes: float = math.inf) -> Interval:
        """`range` as numbers, for K `classes`."""
        return interval(self.range, classes)


def entries() -> tuple[Entry, ...]:
    """Every loss, in the order of `TASKS`.

    Raises:
      CatalogueError: If a field is missing or not in its fixed form.

    Example:
      >>> from jaxloss import catalogue
      >>> [e.name for e in catalogue.entries() if "ordinal" in e.tasks]
      ['coral', 'corn', 'cumulative_logit', 'cumulative_probit', 'squared_emd']
    """
    tasks = [*TASKS]
    found = [_read(fn) for fn in _public().values() if _is_loss(fn)]
    return tuple(sorted(found, key=lambda e: tasks.index(e.tasks[0])))


def entry(name: str) -> Entry:
    """The loss of that name.

    Raises:
      ValueError: If no loss has that name; the message suggests the nearest name.
      CatalogueError: If a field is missing or not in its fixed form.

    Example:
      >>> from jaxloss import catalogue
      >>> catalogue.entry("huber").range
      '[0, inf)'
    """
    losses = {n: fn for n, fn in _public().items() if _is_loss(fn)}
    if name not in losses:
        raise ValueError(f"there is no loss {name!r}{hint(name)}; `list` has all names")
    return _read(losses[name])


def search(words: str) -> tuple[Entry, ...]:
    """The losses that have these words in a name or in the summary, nearest first.

    Names are those of this library and those of `Also called:`.  Case, hyphens,
    underscores, a final `loss`, and a module before a dot are ignored.

    Example:
      >>> from jaxloss import catalogue
      >>> [e.name for e in catalogue.search("nn.BCEWithLogitsLoss")]
      ['sigmoid_cross_entropy']
    """
    ranked = [(rank, e) for e in entries() if (rank := _rank(words, e)) is not None]
    return tuple(e for _, e in sorted(ranked, key=lambda pair: pair[0]))


def hint(name: str) -> str:
    """`" (did you mean 'x'?)"` for a name that no loss has here, or nothing.

    Example:
      >>> from jaxloss import catalogue
      >>> catalogue.hint("l1_loss")
      " (did you mean 'absolute_error' or 'l1'?)"
    """
    ranked = [(_rank(name, e), e.name) for e in search(name)]
    called = [n for rank, n in ranked if rank in _CALLED]
    parts = [n for rank, n in ranked if rank in _PARTS]
    meant = (called or parts)[:3] or _misspelt(name)
    return f" (did you mean {' or '.join(map(repr, meant))}?)" if meant else ""


def interval(text: str, classes: float = math.inf) -> Interval:
    """The interval that a `range` stands for, for K `classes`.

    Raises:
      ValueError: If it is not an interval, or an end is not a number known here.

    Example:
      >>> from jaxloss import catalogue
      >>> catalogue.interval("[0, K - 1]", classes=5).high
      4
    """
    ends = {
        "-log 2": -math.log(2),
        "log 2": math.log(2),
        "log K": math.log(classes),
        "K - 1": classes - 1,
    }
    found = re.fullmatch(r"([\[(])(.+), (.+)([\])])", text)
    if not found:
        raise ValueError(f"{text!r} is not an interval such as [0, inf)")
    opening, low, high, closing = found.groups()
    low, high = (ends[e] if e in ends else float(e) for e in (low, high))
    return Interval(low, high, opening == "[", closing == "]")


# --- names -------------------------------------------------------------------------

# How near words are to a loss: its name, its name up to `loss`, a part of its name in
# this library, a part of another name of it, or words of the summary.
_CALLED, _PARTS, _SUMMARY = (0, 1), (2, 3), 4


def _rank(words: str, entry: Entry) -> int | None:
    """How near words are to a loss, 0 the nearest; None if they do not match it."""
    plain, bare = _plain(words), _bare(words)
    names = (entry.name, *entry.also_called)
    if plain in map(_plain, names):
        return _CALLED[0]
    if bare in map(_bare, names):
        return _CALLED[1]
    if len(plain) > 2 and any(plain in _plain(name) for name in names):
        return _PARTS[plain not in _plain(entry.name)]
    whole = rf"\b{re.escape(words.strip())}\b"
    said = bool(plain) and re.search(whole, entry.summary, re.IGNORECASE)
    return _SUMMARY if said else None


def _misspelt(name: str) -> list[str]:
    """The loss with the name that differs least from it in its letters, if any."""
    known = {_plain(n): e.name for e in entries() for n in (e.name, *e.also_called)}
    return [known[n] for n in _near(_plain(name), known)]


def _near(word: str, words: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word, words, n=1, cutoff=0.75)


def _plain(name: str) -> str:
    """Letters and digits alone, in lower case and American spelling."""
    last = re.sub(r"^(\w+\.)+(?=[a-zA-Z])", "", name.strip())  # `nn.MSELoss`
    text = re.sub(r"[^a-z0-9]", "", last.lower())
    return re.sub(r"is(?=ation|ed)", "iz", text)


def _bare(name: str) -> str:
    return _plain(name).removesuffix("loss")


# --- docstrings --------------------------------------------------------------------


def _public() -> dict[str, Callable[..., Any]]:
    """The functions that `jaxloss` exports, by name, in the order of its source."""
    return {
        name: value
        for name, value in vars(jaxloss).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def _is_loss(fn: Callable[..., Any]) -> bool:
    return "\nUse:\n" in (inspect.getdoc(fn) or "")


def _read(fn: Callable[..., Any]) -> Entry:
    return _entry(fn, fn.__doc__)


@functools.cache  # to suggest a name, all docstrings are looked at
def _entry(fn: Callable[..., Any], _doc: str | None) -> Entry:
    preamble, sections = _sections(fn)
    for section in SECTIONS:
        if section not in sections:
            _refuse(fn, f"no section `{section}:`")
    use = _items(sections["Use"])
    if tuple(use) != FIELDS:
        _refuse(fn, f"the lines {', '.join(use)} in `Use:`, not {', '.join(FIELDS)}")
    preamble, also_called = _also_called(fn, preamble)
    summary, formula, notes = _preamble(fn, preamble)
    given = inspect.signature(fn).parameters.values()
    found = Entry(
        name=fn.__name__,
        module=fn.__module__.removeprefix("jaxloss.losses."),
        function=fn,
        summary=summary,
        also_called=also_called,
        formula=formula,
        notes=notes,
        arguments=_items(sections["Args"]),
        hyperparameters={p.name: p.default for p in given if _is_hyperparameter(p)},
        returns=_flow(sections["Returns"]),
        gradient=_flow(sections["Gradient"]),
        tasks=tuple(use["task"].split(", ")),
        activation=use["activation"],
        range=use["range"],
        robust=use["robust"],
        convex=use["convex"],
        when=use["when"],
        not_when=use["not when"],
        related=_related(fn),
        reference=_flow(sections["Reference"]),
        example=inspect.cleandoc(sections["Example"]),
    )
    _check(fn, found)
    return found


def _refuse(fn: Callable[..., Any], has: str) -> None:
    raise CatalogueError(f"the docstring of `{fn.__name__}` has {has}")


def _check(fn: Callable[..., Any], found: Entry) -> None:
    """Refuses unknown words and forms."""
    for task in found.tasks:
        if task not in TASKS:
            _refuse(fn, f"the unknown task {task!r}{_checks.nearest(task, TASKS)}")
    if found.activation not in ACTIVATIONS:
        hint = _checks.nearest(found.activation, ACTIVATIONS)
        _refuse(fn, f"the unknown activation {found.activation!r}{hint}")
    try:
        interval(found.range)
    except ValueError as error:
        _refuse(fn, f"a `range` that cannot be read: {error}")
    for field in ("robust", "convex"):
        claim = getattr(found, field)
        condition = claim.removeprefix("for ") if claim.startswith("for ") else None
        if condition is None and not re.fullmatch(r"(yes|no)( \(.+\))?", claim):
            _refuse(fn, f"`{field}: {claim}`, neither yes, no, nor for a condition")
        if condition is not None and not _names(condition) <= {
            *found.hyperparameters,
            "inf",
        }:
            _refuse(fn, f"`{field}: {claim}`, no condition on its hyperparameters")


def _names(condition: str) -> set[str]:
    """The names in a Python expression; something impossible if it is none."""
    try:
        tree = ast.parse(condition, mode="eval")
    except SyntaxError:
        return {condition}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _sections(fn: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What stands before the sections, and the body of each by its name."""
    heading = re.compile(rf"^({'|'.join(SECTIONS)}):$", re.MULTILINE)
    preamble, *parts = heading.split(inspect.getdoc(fn) or "")
    return preamble, dict(zip(parts[::2], parts[1::2], strict=True))


def _also_called(fn: Callable[..., Any], text: str) -> tuple[str, tuple[str, ...]]:
    """The text without the line `Also called:`, and the names in it."""
    found = re.search(r"^Also called: ((?:.+\n)+)\n", text, re.MULTILINE)
    if not found:
        _refuse(fn, "no line `Also called:`")
        return text, ()
    names = _flow(found[1]).removesuffix(".").split(", ")
    bare = tuple(re.sub(r" \(.*\)$", "", name) for name in names)
    return text.replace(found[0], ""), bare


def _preamble(fn: Callable[..., Any], text: str) -> tuple[str, str, str]:
    """Summary, formula and notes."""
    summary, _, rest = text.partition("\n")
    found = re.search(r"^\.\. math::(.*\n(?:[ \t]+.*\n|\n)*)", rest, re.MULTILINE)
    if not found:
        _refuse(fn, "no formula: no block `.. math::`")
        return summary, "", rest
    head, _, block = found[1].partition("\n")
    formula = "\n".join((head.strip(), inspect.cleandoc(f"\n{block}"))).strip()
    notes = rest[: found.start()] + rest[found.end() :]
    paragraphs = [_flow(p) for p in notes.split("\n\n")]
    return summary, formula, "\n\n".join(p for p in paragraphs if p)


def _items(section: str) -> dict[str, str]:
    """The lines `name: text` of a section, with what is indented further below them."""
    found = re.split(r"^  \*{0,2}(\w[\w ]*): ", section, flags=re.MULTILINE)
    return {k: _flow(v) for k, v in zip(found[1::2], found[2::2], strict=True)}


def _flow(text: str) -> str:
    """The words in one line: the line breaks of a docstring have no meaning."""
    return " ".join(text.split())


def _is_hyperparameter(p: inspect.Parameter) -> bool:
    """By keyword, and neither a mask nor an axis."""
    axis, mask = p.name.endswith("axis"), p.annotation == ArrayLike | None
    return p.kind is p.KEYWORD_ONLY and not axis and not mask


class _Written(str):
    """A default as the source has it."""

    __repr__ = str.__str__


def _as_written(default: Any) -> Any:
    """A function by its module and name, and not by its address."""
    if not inspect.isfunction(default):
        return default
    return _Written(f"{default.__module__.rpartition('.')[2]}.{default.__name__}")


def _related(fn: Callable[..., Any]) -> tuple[str, ...]:
    own = {fn.__name__, *inspect.signature(fn).parameters}
    words = re.findall(r"`(?:jaxloss\.)?(\w+)`", inspect.getdoc(fn) or "")
    others = _public().keys() - own
    return tuple(dict.fromkeys(w for w in words if w in others))
