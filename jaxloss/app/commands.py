"""What `jaxloss list`, `show` and `check` do."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import io
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxloss import _checks, catalogue, testing
from jaxloss.app import formula, tables
from jaxloss.testing import checking, spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Refusal(Exception):
    """An invalid request; the text names the value and the remedy."""


def complain(command: str, message: str) -> None:
    """One line on stderr; if that is closed or full, the exit status must suffice."""
    if sys.stderr is not None:  # `print` would take it for stdout
        with contextlib.suppress(OSError):
            print(f"jaxloss {command}".rstrip() + f": {message}", file=sys.stderr)


def choices(names: Iterable[str]) -> str:
    """The remedy for an unknown name."""
    return f"choose among {', '.join(names)}"


# --- list --------------------------------------------------------------------------

_COLUMNS = ("loss", "task", "last layer gives", "range", "robust", "convex")


def list_losses(task: str | None, words: str | None = None) -> None:
    """Prints a table of the losses, or of those of one task or with certain words."""
    if task is not None and task not in catalogue.TASKS:
        hint = _checks.nearest(task, catalogue.TASKS)
        remedy = choices(catalogue.TASKS)
        raise Refusal(f"--task: no task {task!r}{hint}; {remedy}")
    entries = catalogue.entries() if words is None else catalogue.search(words)
    rows = [_row(e) for e in entries if task is None or task in e.tasks]
    if not rows:
        raise Refusal(_nothing_found(task, words or ""))
    tables.show(_COLUMNS, rows)
    if sys.stdout.isatty():
        print(f"{len(rows)} losses; `jaxloss show NAME` says more.")


def _nothing_found(task: str | None, words: str) -> str:
    where = f" of the task {task}" if task else ""
    hint = "" if task else catalogue.hint(words)
    return f"--search: no loss{where} has {words!r} in a name or its summary{hint}"


def _row(entry: catalogue.Entry) -> tuple[str, ...]:
    claims = [c.removeprefix("for ").partition(" (")[0] for c in _claims(entry)]
    return entry.name, ", ".join(entry.tasks), entry.activation, entry.range, *claims


def _claims(entry: catalogue.Entry) -> tuple[str, str]:
    return entry.robust, entry.convex


# --- show --------------------------------------------------------------------------

PICTURES = (".png", ".svg", ".pdf")


def show(name: str, picture: Path | None) -> None:
    """Prints all that is known of a loss, and draws it into a file if one is named."""
    try:
        entry = catalogue.entry(name)
    except ValueError as error:
        raise Refusal(str(error).replace("`list`", "`jaxloss list`")) from None
    if picture is not None:
        _refuse_picture(picture)
    for paragraph in _description(entry):
        print(f"{paragraph}\n")
    if picture is not None:
        _draw(name, picture)
        print(picture)


def _description(entry: catalogue.Entry) -> list[str]:
    """Paragraphs for a terminal."""
    width = min(100, tables.terminal_width())
    formula = textwrap.indent(_readable(entry.formula), "  ")
    facts = {
        "also called": ", ".join(entry.also_called),
        "task": ", ".join(entry.tasks),
        "last layer": f"{entry.activation}: {catalogue.ACTIVATIONS[entry.activation]}",
        "range": entry.range,
        "robust": _claim(
            entry.robust,
            "the gradient stays bounded as an example gets ever worse",
            "the gradient has no bound as an example gets ever worse",
        ),
        "convex": _claim(entry.convex, *["in the first argument"] * 2),
        "when": entry.when,
        "not when": entry.not_when,
        "returns": entry.returns,
        "gradient": entry.gradient,
        "see also": ", ".join(entry.related),
        "reference": entry.reference,
    }
    arguments = {name: text for name, text in entry.arguments.items() if text}
    return [
        f"jaxloss.{entry.signature}",
        entry.summary,
        formula,
        *(textwrap.fill(text, width) for text in entry.notes.split("\n\n") if text),
        _pairs({k: v for k, v in facts.items() if v}, width),
        _pairs(arguments, width),
        textwrap.indent(entry.example, "  "),
    ]


def _readable(latex: str) -> str:
    """In Unicode; as it stands in the docstring where the output has no such signs."""
    text = formula.plain(latex)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return latex
    return text


def _claim(claim: str, bounded: str, unbounded: str) -> str:
    """Yes or no, or under which condition, and what that means."""
    words = claim.replace("for ", "if ", 1) if claim.startswith("for ") else claim
    return f"{words}: {unbounded if claim == 'no' else bounded}"


def _pairs(texts: dict[str, str], width: int) -> str:
    """Names on the left, texts beside them."""
    margin = 2 + max(map(len, texts))
    return "\n".join(
        textwrap.fill(
            text,
            max(width, margin + 40),
            initial_indent=name.ljust(margin),
            subsequent_indent=" " * margin,
            break_on_hyphens=False,
        )
        for name, text in texts.items()
    )


def _refuse_picture(path: Path) -> None:
    if path.suffix.lower() not in PICTURES:
        ends = ", ".join(PICTURES)
        raise Refusal(f"--plot {path} does not end in {ends}; rename it")
    if not path.absolute().parent.is_dir():
        raise Refusal(f"--plot {path}: {path.parent} is not a directory; name another")
    if importlib.util.find_spec("matplotlib") is None:
        raise Refusal("matplotlib not installed; run: pip install 'jaxloss[demo]'")


def _draw(name: str, path: Path) -> None:
    from jaxloss.app import gallery

    try:
        figure = gallery.picture(name)
        _entitle(figure, f"jaxloss.{name}")
        figure.savefig(path, dpi=200)
    except OSError as error:
        reason = error.strerror or error
        raise Refusal(f"--plot {path} cannot be written ({reason})") from None


def _entitle(figure: "Figure", title: str) -> None:
    """Above the legend if there is one, over which a title of the figure would be."""
    if figure.legends:
        figure.legends[0].set_title(title)
        figure.legends[0].get_title().set_fontsize(10)
    else:
        figure.suptitle(title, fontsize=10)


# --- check -------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of arguments: two arrays, drawn for a batch shape."""

    words: str
    event_ndim: int
    draw: Callable[[np.random.Generator, tuple[int, ...]], tuple]
    first: tuple[str, ...]
    """Names of the first argument that suggest it."""
    edges: tuple[Sequence, Sequence]
    """Extreme examples, for which the loss must be finite."""
    fill: float = 0.0
    """A number that both arrays may have."""


CLASSES = 4
# Beyond 88 an exponential overflows: no loss of logits may show it, one of scores may.
_LOGITS = [0.0, 1.0, 30.0, 300.0, -1.0, -30.0, -300.0]
_SCORES = [0.0, 1.0, 30.0, 80.0, -1.0, -30.0, -80.0]
_ROWS = [[0.0, 0.0, 0.0, 0.0], [30.0, 0.0, 0.0, -30.0], [1e4, 0.0, 0.0, -1e4]]

KINDS = {
    "numbers": Kind(
        "real predictions and targets",
        0,
        lambda rng, n: (3 * rng.normal(size=n), 3 * rng.normal(size=n)),
        ("predictions", "prediction", "preds", "pred", "outputs", "y_pred", "y_hat"),
        ([0.0, 0.0, 1e4, -1e4, 1e4], [0.0, 1.0, 0.0, 0.0, 1e4]),
    ),
    "binary": Kind(
        "logits, labels 0 and 1",
        0,
        lambda rng, n: (4 * rng.normal(size=n), 1.0 * rng.integers(0, 2, n)),
        ("logits", "logit"),
        (_LOGITS * 2, [0.0] * 7 + [1.0] * 7),
    ),
    "classes": Kind(
        "logits (n, k), integer class ids",
        1,
        lambda rng, n: (
            3 * rng.normal(size=(*n, CLASSES)),
            rng.integers(0, CLASSES, n),
        ),
        ("logits", "scores"),
        (_ROWS * 2, [0] * 3 + [3] * 3),
    ),
    "signs": Kind(
        "scores, labels -1 and +1",
        0,
        lambda rng, n: (3 * rng.normal(size=n), rng.choice([-1.0, 1.0], size=n)),
        ("scores", "score"),
        (_SCORES * 2, [-1.0] * 7 + [1.0] * 7),
    ),
    "distributions": Kind(
        "logits (n, k), probabilities (n, k)",
        1,
        lambda rng, n: (
            3 * rng.normal(size=(*n, CLASSES)),
            rng.dirichlet(np.ones(CLASSES), n),
        ),
        ("logits",),
        (_ROWS * 2, [[0.25] * 4] * 3 + [[1.0, 0.0, 0.0, 0.0]] * 3),
    ),
    "probabilities": Kind(
        "probabilities in (0, 1), labels 0 and 1",
        0,
        lambda rng, n: (rng.uniform(0.02, 0.98, n), 1.0 * rng.integers(0, 2, n)),
        ("probabilities", "probs", "p"),
        ([0.0, 1.0, 1e-4, 1e-4], [0.0, 1.0, 0.0, 1.0]),
        0.5,
    ),
    "positive": Kind(
        "positive predictions and targets",
        0,
        lambda rng, n: (np.exp(rng.normal(size=n)), np.exp(rng.normal(size=n))),
        ("rates", "amounts"),
        ([1e-4, 1e4, 1e-4, 1e4], [1e-4, 1e4, 1.0, 1.0]),
        1.0,
    ),
    "embeddings": Kind(
        "two embeddings (n, d)",
        1,
        lambda rng, n: (rng.normal(size=(*n, 5)), rng.normal(size=(*n, 5))),
        ("embeddings", "first", "anchors"),
        ([[0.0] * 5, [1.0] * 5, [1.0] * 5], [[0.0] * 5, [1.0] * 5, [-1.0] * 5]),
    ),
}


def check(target: str, kind: str | None, convex: bool) -> bool:
    """Checks a user's loss, prints the report, and returns whether it passed."""
    if kind is not None and kind not in KINDS:
        hint = _checks.nearest(kind, KINDS)
        raise Refusal(f"--sample: no kind {kind!r}{hint}; {_kinds()}")
    with contextlib.redirect_stdout(_Aside()) as aside:
        report = _examined(target, kind, convex)
        jax.effects_barrier()  # what `jax.debug.print` has not printed yet
    print(report)
    if aside.lines:
        lines = "1 line" if aside.lines == 1 else f"{aside.lines} lines"
        complain("check", f"{target} printed {lines}, which went to stderr")
    return report.passed


class _Aside(io.TextIOBase):
    """Sends what a user's code prints to stderr, so that stdout has the report only."""

    lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        if sys.stderr is not None:
            sys.stderr.write(text)
        return len(text)


def _examined(target: str, kind: str | None, convex: bool) -> testing.Report:
    loss = _load(target)
    if isinstance(loss, testing.LossSpec):
        if kind is not None or convex:
            raise Refusal(
                f"{target} is a LossSpec, which has its own sample and claims"
            )
        _shape(target, loss, loss.sample, (3,))
        fields = dict(vars(loss))
        return checking.examine(fields.pop("fn"), **fields)
    _refuse_signature(target, loss)
    chosen = KINDS[kind or _inferred(target, loss)]
    _shape(target, loss, chosen.draw, (3,))
    return checking.examine(
        loss,
        name=target.rpartition(":")[2],
        sample=chosen.draw,
        event_ndim=chosen.event_ndim,
        fill=chosen.fill,
        extremes=lambda dtype: [chosen.edges],
        convex=convex,
    )


def _kinds() -> str:
    every = "; ".join(f"{name} ({kind.words})" for name, kind in KINDS.items())
    return f"choose among {every}"


def _refuse_signature(target: str, loss: Any) -> None:
    """Refuses what cannot be called with two arrays."""
    if not callable(loss):
        has = type(loss).__name__
        raise Refusal(f"{target} is of type {has}; name a function or a LossSpec")
    try:
        inspect.signature(loss).bind(None, None)
    except TypeError as error:
        raise Refusal(
            f"{target} cannot be called with two arrays ({error}); give its other "
            "arguments defaults, or check a LossSpec"
        ) from None
    except ValueError:  # it does not tell its signature
        pass


def _inferred(target: str, loss: Callable[..., Any]) -> str:
    """The only kind that the first argument suggests and the loss takes."""
    names = [*_parameters(loss)]
    found = [k for k, kind in KINDS.items() if names and names[0].lower() in kind.first]
    if len(found) > 1:
        found = [name for name in found if _fits(target, loss, KINDS[name])]
    if len(found) == 1:
        return found[0]
    has = f"({', '.join(names)})"
    remedy = f"give the kind of its arguments by --sample; {_kinds()}"
    raise Refusal(f"{target}{has}: {remedy}")


def _parameters(loss: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(loss).parameters)
    except ValueError:
        return {}


def _fits(target: str, loss: Callable[..., Any], kind: Kind) -> bool:
    """Whether one number per example comes out, for two batch shapes."""
    return all(_shape(target, loss, kind.draw, n) == n for n in ((3,), (2, 3)))


def _shape(
    target: str, loss: Callable[..., Any], draw: Callable, batch: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The shape of the losses of a batch, or None if the loss raises an exception.

    Refuses a loss that ends the program or returns no array: every check would fail.
    """
    try:
        data = map(np.asarray, draw(np.random.default_rng(0), batch))
        return jax.eval_shape(lambda *a: spec.one_array(loss(*a)), *data).shape
    except spec.NotAnArray as error:
        raise Refusal(f"{target}: {error}") from None
    except KeyboardInterrupt:
        raise
    except Exception:
        return None
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Refusal(
            f"{target} ends the program ({reason}); return one number per example"
        ) from None


def _load(target: str) -> Any:
    """What `module:name` or `path/to/file.py:name` stands for."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise Refusal(
            f"{target!r} names no function; write mymodule:myloss or file.py:myloss"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _imported(place)
    if not hasattr(module, name):
        names = [n for n, value in vars(module).items() if callable(value)]
        hint = _checks.nearest(name, names) or "; check the spelling"
        raise Refusal(f"{place} has no {name!r}{hint}")
    return getattr(module, name)


def _imported(place: str) -> ModuleType:
    """The module of a dotted name or of a file."""
    path = Path(place)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise Refusal(f"there is no file {place}; check the path")
    try:
        return _from_file(path) if is_file else importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not is_file and f"{place}.".startswith(f"{missing}."):
            where = f"here ({Path.cwd()})"
            raise Refusal(f"there is no module {missing!r}; is it {where}?") from None
        raise Refusal(f"{place} cannot be imported ({error})") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file may call sys.exit
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Refusal(f"{place} cannot be imported ({reason})") from None


def _from_file(path: Path) -> ModuleType:
    """Under a name of its own: a file may have the name of a module that is in use."""
    name = f"_checked_{path.stem}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    sys.path.insert(0, str(path.absolute().parent))  # what lies beside it
    importlib.machinery.SourceFileLoader(name, str(path)).exec_module(module)
    return module
