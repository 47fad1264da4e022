"""One catalogue of the losses, read from their docstrings when it is asked for.

    for entry in catalogue.entries():
        print(entry.name, entry.tasks, entry.range)

A loss is a public function of `jaxloss` whose docstring has a section `Use:`, of lines
in a fixed form: what the loss is for (`task`), what the last layer must give
(`activation`), where its values lie (`range`), whether the gradient in the predictions
stays bounded as an example gets ever worse (`robust`), whether it is convex in its
first argument (`convex`), and when to choose it, or another one.  The suite holds these
lines against the specs of the loss.
"""

import ast
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping
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
    "multi-label": "several labels, any number of which hold",
    "multi-class": "one of several classes",
    "ordinal": "a class in an order",
    "distribution": "a distribution, to match another one",
    "segmentation": "a mask of an image",
    "sequence": "a sequence without an alignment",
    "embedding": "what is alike and what is not",
    "ranking": "an order of items",
    "preference": "which answer of a language model is better",
    "regularization": "nothing: a penalty beside another loss",
}

ACTIVATIONS = {
    "none": "a real number, as the last layer gives it",
    "none (logits)": "scores of any size: neither sigmoid nor softmax",
    "none (logarithms)": "the logarithm of what is positive: no exponential",
    "none (embeddings)": "vectors of any length, not normalised",
    "none (distances)": "distances of embeddings, as `stable.norm(first - second)`",
    "none (parameters)": "a pytree of parameters, not an output",
    "log-softmax": "log-probabilities, at most 0",
    "softmax": "probabilities that sum to 1",
    "sigmoid or softmax": "probabilities",
    "softplus or exp": "an amount that is not negative",
}

SECTIONS = ("Args", "Returns", "Raises", "Gradient", "Use", "Reference", "Example")
FIELDS = ("task", "activation", "range", "robust", "convex", "when", "not when")


class CatalogueError(ValueError):
    """A docstring that the catalogue cannot read; the text names function and field."""


class Interval(NamedTuple):
    """What the field `range` says; an end that is no member is approached."""

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
    formula: str
    """LaTeX, as in the docstring."""
    notes: str
    """What stands between the formula and the arguments; mostly nothing."""
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
    """Likewise."""
    when: str
    not_when: str
    related: tuple[str, ...]
    """Other public names that the docstring mentions, in its order."""
    reference: str
    example: str

    @property
    def signature(self) -> str:
        """Name, arguments and defaults, without types."""
        given = inspect.signature(self.function)
        bare = [p.replace(annotation=p.empty) for p in given.parameters.values()]
        return f"{self.name}{inspect.Signature(bare)}"

    def interval(self, classes: float = math.inf) -> Interval:
        """`range` as numbers, for so many classes K."""
        return interval(self.range, classes)


def entries() -> tuple[Entry, ...]:
    """Every loss, in the order of `TASKS`.

    Raises:
      CatalogueError: If a field is missing or not in its fixed form.

    Example:
      >>> from jaxloss import catalogue
      >>> [e.name for e in catalogue.entries() if "ordinal" in e.tasks]
      ['coral', 'squared_emd']
    """
    tasks = [*TASKS]
    found = [_read(fn) for fn in _public().values() if _is_loss(fn)]
    return tuple(sorted(found, key=lambda e: tasks.index(e.tasks[0])))


def entry(name: str) -> Entry:
    """The loss of that name.

    Raises:
      ValueError: If no loss has that name; the message has the nearest one.
      CatalogueError: If a field is missing or not in its fixed form.

    Example:
      >>> from jaxloss import catalogue
      >>> catalogue.entry("huber").range
      '[0, inf)'
    """
    losses = {n: fn for n, fn in _public().items() if _is_loss(fn)}
    if name not in losses:
        word = name.lower().rpartition(".")[2]  # `jaxloss.huber` or `Huber`, too
        within = [n for n in losses if len(word) > 2 and word in n]
        meant = [word] if word in losses else within
        hint = f" (did you mean {' or '.join(map(repr, meant))}?)" if meant else ""
        hint = hint or _checks.nearest(name, losses)
        raise ValueError(f"no loss is {name!r}{hint}; `list` has their names")
    return _read(losses[name])


def interval(text: str, classes: float = math.inf) -> Interval:
    """The interval that a `range` says, for so many classes K.

    Raises:
      ValueError: If it is none, or an end is not a number this module knows.

    Example:
      >>> from jaxloss import catalogue
      >>> catalogue.interval("[0, K - 1]", classes=5).high
      4
    """
    ends = {
        "log 2": math.log(2),
        "log K": math.log(classes),
        "K - 1": classes - 1,
    }
    found = re.fullmatch(r"([\[(])(.+), (.+)([\])])", text)
    if not found:
        raise ValueError(f"{text!r} is no interval such as [0, inf)")
    opening, low, high, closing = found.groups()
    low, high = (ends[e] if e in ends else float(e) for e in (low, high))
    return Interval(low, high, opening == "[", closing == "]")


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
    preamble, sections = _sections(fn)
    for section in SECTIONS:
        if section not in sections:
            _refuse(fn, f"no section `{section}:`")
    use = _items(sections["Use"])
    if tuple(use) != FIELDS:
        _refuse(fn, f"the lines {', '.join(use)} in `Use:`, not {', '.join(FIELDS)}")
    summary, formula, notes = _preamble(fn, preamble)
    given = inspect.signature(fn).parameters.values()
    found = Entry(
        name=fn.__name__,
        module=fn.__module__.removeprefix("jaxloss.losses."),
        function=fn,
        summary=summary,
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
    """Refuses words and forms that nothing could be done with."""
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
        if condition is not None and not _names(condition) <= {*found.hyperparameters}:
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
    """The words in one line: how a docstring breaks them means nothing."""
    return " ".join(text.split())


def _is_hyperparameter(p: inspect.Parameter) -> bool:
    """By keyword, and neither a mask nor an axis."""
    axis, mask = p.name.endswith("axis"), p.annotation == ArrayLike | None
    return p.kind is p.KEYWORD_ONLY and not axis and not mask


def _related(fn: Callable[..., Any]) -> tuple[str, ...]:
    own = {fn.__name__, *inspect.signature(fn).parameters}
    words = re.findall(r"`(?:jaxloss\.)?(\w+)`", inspect.getdoc(fn) or "")
    return tuple(dict.fromkeys(w for w in words if w in _public() and w not in own))
