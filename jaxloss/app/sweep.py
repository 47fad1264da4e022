"""What `jaxloss sweep` does.

Packages that take long to import (optax, flax, scikit-learn, matplotlib, rich) are
imported where they are used.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import shutil
import tempfile
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxloss import _checks, datasets
from jaxloss.app import experiment, report
from jaxloss.app.commands import Refusal, choices, complain

EXTRAS = ("flax", "sklearn", "matplotlib", "rich")


def sweep(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    seeds, steps = _whole("--seeds", options.seeds), _whole("--steps", options.steps)
    losses, grid = _losses(options.losses or []), _grid(options.grid)
    _refuse_missing_extras()
    data = _data(options.data, options.target, options.drop)
    parts = datasets.split(data)
    chosen = _configurations(data, losses, grid)
    _refuse_unwritable(options.out)
    if not options.quiet:
        rows = [len(part) for part in parts]
        print(data.describe())
        print(f"{rows[0]} rows train, {rows[1]} choose, {rows[2]} test")
        for note in chosen.notes:
            print(note)
        size = f"{len(chosen.losses)} configurations, seeds: {seeds}, steps: {steps}"
        print(size, flush=True)  # before the progress bar, which is on stderr
    results = report.Results(
        data.title,
        data.task,
        chosen.losses,
        chosen.hyperparameters,
        float(np.median(data.targets[[*parts.train, *parts.validation]])),
    )
    table = options.out / "results.csv"
    try:
        with _progress(options.quiet, seeds * steps) as advance:
            for held_out in experiment.run(
                data, chosen, seeds=seeds, steps=steps, progress=advance
            ):
                results.add(held_out)
                _write(table, report.to_csv(results).encode())
    except KeyboardInterrupt:
        finished = len(results.predictions)
        if not finished:
            complain("sweep", "interrupted before the first seed; nothing was written")
            return 130
        _finish(results, options, started)
        complain("sweep", f"interrupted; {finished} of {seeds} seeds are in {table}")
        return 130
    _finish(results, options, started)
    return 0


def _finish(
    results: report.Results, options: argparse.Namespace, started: float
) -> None:
    """Writes and prints the results."""
    table, picture = options.out / "results.csv", options.out / "sweep.png"
    _write(table, report.to_csv(results).encode())
    image = io.BytesIO()
    report.to_picture(results).savefig(image, format="png")
    _write(picture, image.getvalue())
    _print_table(results, options.quiet)
    advised, sentence = report.verdict(results)
    if advised is None:
        complain("sweep", sentence)
    if options.quiet:
        return
    seeds, width = len(results.predictions), min(99, shutil.get_terminal_size().columns)
    if seeds > 1:
        note = (
            f"± is the standard error over {seeds} seeds, which differ in weights, "
            "batches and training rows; the test rows are always the same."
        )
        print(textwrap.fill(note, width))
    if advised is not None:
        loss = experiment.LOSSES[results.losses[advised]]
        print(f"\n{textwrap.fill(sentence, width)}")
        print(f"  {loss.call(results.hyperparameters[advised])}")
    print(f"\n{table} has all {len(results.losses)} configurations\n{picture}")
    print(f"{time.perf_counter() - started:.1f} s")


def _print_table(results: report.Results, quiet: bool) -> None:
    from rich.console import Console

    # Names of columns are the user's: brackets in them are not markup.
    console = Console(markup=False, emoji=False, highlight=False, no_color=quiet)
    plain = quiet or not console.is_terminal
    if not console.is_terminal:
        console.width = 120
    console.print(report.to_table(results, plain=plain))


@contextlib.contextmanager
def _progress(quiet: bool, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if that is a terminal; yields what moves it."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task("compiling", total=total)
        yield lambda steps: bar.update(task, advance=steps, description="training")


def _whole(option: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise Refusal(f"{option} is {text!r}; give a whole number of at least 1")
    return int(text)


def _losses(words: Sequence[str]) -> list[str]:
    """The names of `--losses`, without repetitions; refuses an unknown one."""
    names = [name for word in words for name in word.split(",") if name]
    if words and not names:
        raise Refusal(f"--losses is empty; {choices(experiment.LOSSES)}")
    known = {name: name for name in experiment.LOSSES} | experiment.ALIASES
    for name in names:
        if name not in known:
            hint = _checks.nearest(name, known)
            remedy = choices(experiment.LOSSES)
            raise Refusal(f"--losses: no loss {name!r}{hint}; {remedy}")
    return list(dict.fromkeys(known[name] for name in names))


def _grid(words: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The values of `--grid`, by hyperparameter; refuses invalid values."""
    grid: dict[str, tuple[float, ...]] = {}
    for word in words:
        name, _, values = word.partition("=")
        if name not in experiment.HYPERPARAMETERS:
            hint = _checks.nearest(name, experiment.HYPERPARAMETERS)
            remedy = choices(experiment.HYPERPARAMETERS)
            raise Refusal(f"--grid: no hyperparameter {name!r}{hint}; {remedy}")
        if name in grid:
            raise Refusal(f"--grid has {name!r} twice; join the values with commas")
        if not values.strip(","):
            example = f"{name}={listing(experiment.HYPERPARAMETERS[name].default)}"
            raise Refusal(f"--grid: {word!r} has no values; write, say, {example}")
        numbers = [_number(name, text) for text in values.split(",") if text]
        grid[name] = tuple(dict.fromkeys(numbers))
    return grid


def _number(name: str, text: str) -> float:
    interval = experiment.HYPERPARAMETERS[name].interval
    try:
        value = datasets.number(text)
        _checks.in_interval("--grid", interval, **{name: value})
    except ValueError:
        raise Refusal(
            f"--grid: {name} is {text!r}; give a number in {interval}"
        ) from None
    return value


def _refuse_missing_extras() -> None:
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        raise Refusal(
            f"{', '.join(missing)} not installed; run: pip install 'jaxloss[demo]'"
        )


def _data(
    path: Path | None, target: str | None, drop: Sequence[str]
) -> datasets.Dataset:
    if path is None:
        for option, value in {"--target": target, "--drop": " ".join(drop)}.items():
            if value:
                raise Refusal(
                    f"{option} {value} is of no use without --data; add FILE.csv"
                )
        return datasets.digits()
    if target is None:
        names = ", ".join(datasets.column_names(path))
        raise Refusal(f"--data needs --target, one of the columns {names}")
    return datasets.read_csv(path, target, drop=_dropped(path, drop))


def _dropped(path: Path, words: Sequence[str]) -> list[str]:
    """The columns of `--drop`; a comma is between two of them, or part of a name."""
    if not any("," in word for word in words):
        return list(words)
    names, found = datasets.column_names(path), []
    for word in words:
        whole = unicodedata.normalize("NFC", word) in names
        found += [word] if whole else [name for name in word.split(",") if name]
    if not found:
        raise Refusal(f"--drop is empty; {choices(names)}")
    return found


def _configurations(
    data: datasets.Dataset, losses: list[str], grid: dict[str, tuple[float, ...]]
) -> experiment.Configurations:
    """Losses of the task with their grids; refuses those that do not fit the data."""
    fitting = [n for n, loss in experiment.LOSSES.items() if loss.task == data.task]
    for name in losses:
        if name not in fitting:
            raise Refusal(
                f"--losses: {name} is not for {data.target_name!r}, a {data.task} "
                f"target; {choices(fitting)}"
            )
    losses = losses or fitting
    used = {h for name in losses for h in experiment.LOSSES[name].hyperparameters}
    for name in grid:
        if name not in {"learning_rate", *used}:
            raise Refusal(
                f"--grid: {name} is no hyperparameter of {', '.join(losses)}; "
                f"{choices(['learning_rate', *sorted(used)])}"
            )
    default = {name: x.default for name, x in experiment.HYPERPARAMETERS.items()}
    return experiment.configurations(losses, {**default, **grid})


def _refuse_unwritable(out: Path) -> None:
    """Refuses a place where no directory could be made; makes none yet."""
    places = [out.absolute(), *out.absolute().parents]
    there = next(place for place in places if os.path.lexists(place))
    if not there.is_dir():
        raise Refusal(f"--out {out}: {there} is not a directory; name another place")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise Refusal(
            f"--out {out}: {there} cannot be written ({error.strerror}); name another "
            "place"
        ) from None


def _write(path: Path, content: bytes) -> None:
    """Writes all or nothing: an interrupt leaves the old file, or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise Refusal(
            f"{path} cannot be written ({error.strerror}); name another --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def listing(values: Iterable[float]) -> str:
    """Numbers as `--grid` takes them."""
    return ",".join(f"{x:g}" for x in values)
