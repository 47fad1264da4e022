"""The command line: `jaxloss sweep | list | show | check | verify`.

A mistake in a request is reported before training begins, by one line on stderr and
exit status 2.  Packages that take long to import (optax, flax, scikit-learn,
matplotlib, rich) are imported where they are used.
"""

import argparse
import contextlib
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import jax

import jaxloss
from jaxloss import _checks, catalogue, datasets
from jaxloss.app import commands, experiment, sweep
from jaxloss.app.commands import Refusal, complain

OVERVIEW = "Numerically exact, composable loss functions for JAX."

SAME = "`python -m jaxloss` is the same as `jaxloss`."

SWEEP = """\
Which loss is right for my data?

Trains one small network with every loss, hyperparameter, learning rate and seed in a
single compiled program. Chooses the best configuration of each loss on validation
rows, and measures all configurations on test rows, which no choice depends on. Prints
a table, and writes DIR/results.csv and DIR/sweep.png.
"""

EXAMPLES = """\
examples:
  jaxloss sweep
  jaxloss sweep --losses sigmoid_focal --grid gamma=0,1,2,3,4,5
  jaxloss sweep --data loans.csv --target default --drop id,name --out loans
  jaxloss sweep --data houses.csv --target price --losses huber,pinball \\
      --grid delta=0.1,1,10 learning_rate=0.001,0.01 --seeds 20 --steps 2000

losses:
{losses}

  A setting that gives a simpler loss, up to a factor, is listed as that loss:
{simpler}

hyperparameters, their default values, and the intervals of valid values:
{hyperparameters}

data:
  A CSV file with a header. Every column is a feature, except the target and those of
  --drop. A feature has numbers, or at most 20 different words, which are one-hot
  encoded. A target with two values, numbers or words, is a binary task, whose positive
  class is the larger number or the later word; any other numeric target is a
  regression. A quarter of the rows is for testing, the same for every seed. Of the
  other rows, each seed uses two thirds for training and one third for validation.
  Features, and targets of a regression, are standardised on the training rows, so
  `delta` is in standard deviations of the target.

metrics, each as mean ± standard error over the seeds:
  binary      average precision, log loss, and the expected calibration error in 15
              bins
  regression  mean absolute, root mean squared and median absolute error, and the share
              of targets at or below the prediction: 0.5 for the median
  The first metric on the validation rows chooses the configuration.

Interrupting (Ctrl-C) keeps the results of the seeds that are finished. Exit status:
0 done, 2 invalid request, 130 interrupted.
"""


COLUMNS = """\
columns:
  last layer gives  the first argument of the loss: `none` means no activation
  range             the values of the loss, for valid arguments
  robust            whether the gradient stays bounded as an example gets ever worse
  convex            whether the loss is convex in its first argument

`robust` and `convex` may depend on a hyperparameter; then the condition is given.
"""

CHECK = """\
Is my loss correct?

Draws examples and runs the checks of jaxloss.testing that apply: shapes and dtypes, jit
and vmap, forward and reverse mode, masks, weights, second derivatives, NaN. A LossSpec
has more to check: a formula, a gradient, a minimiser, extremes.
"""

CHECK_EXAMPLES = """\
examples:
  jaxloss check mylosses:trimmed --sample numbers
  jaxloss check src/losses.py:focal --sample binary
  jaxloss check src/losses.py:hinge --sample signs --convex

Exit status: 0 all checks pass, 1 a check fails, 2 invalid request.
"""


VERIFY = """\
How accurate are the losses on this device?

Compares value, gradient and second derivative with mpmath at the arguments of each
claim, and prints the worst errors, in units in the last place, and the claimed bounds.
The bounds are those of a CPU; the table shows where a device exceeds them, as with a
less accurate exponential.
"""

VERIFY_EXAMPLES = """\
examples:
  jaxloss verify huber sigmoid_focal
  jaxloss verify --dtype bfloat16 --out claims.json
  jaxloss verify stable.scalars.softplus
  jaxloss verify --exhaustive

Exit status: 0 no bound is exceeded, 1 a bound is exceeded, 2 invalid request.
"""


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the usage that argparse repeats."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def print_help(self, file: Any = None) -> None:
        """To stdout, and with an error if that is full, which argparse passes over."""
        print(self.format_help(), end="", file=file, flush=True)


class Version(argparse.Action):
    """Prints the versions for a bug report, with an error if stdout is full."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        python = platform.python_version()
        versions = f"jax {jax.__version__}, Python {python}"
        print(f"jaxloss {jaxloss.__version__} ({versions})", flush=True)
        parser.exit()


class Output:
    """Standard output, whose errors are not mistaken for those of other files."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _refusal_of_stdout():
            return self._stream.write(text)

    def flush(self) -> None:
        with _refusal_of_stdout():
            self._stream.flush()


@contextlib.contextmanager
def _refusal_of_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # its reader has seen enough
        raise
    except OSError as error:
        raise Refusal(
            f"standard output cannot be written ({error.strerror}); redirect it"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    command = ""
    try:
        if sys.stdout is None:
            raise Refusal("standard output is closed; redirect it, say to /dev/null")
        with contextlib.redirect_stdout(Output(sys.stdout)):
            options = _options(arguments)
            command = options.command or ""
            status = options.run(options)
            sys.stdout.flush()
            return status
    except (Refusal, datasets.DataError) as error:
        complain(command, str(error))
        return 2
    except KeyboardInterrupt:
        complain(command, "interrupted")
        return 130


def _path(text: str) -> Path:
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} has a NUL, as no path has")
    return Path(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [name for name in vars(options) if name not in ("command", "run")]
        known += ["help"] if options.command else ["help", "version"]
        hint = _checks.nearest(unknown[0], [f"--{name}" for name in known])
        subject = f"{options.command} has" if options.command else "there is"
        parser.error(f"{subject} no argument {unknown[0]}{hint}")
    return options


# --- what there is to ask for ------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(
        prog="jaxloss", description=OVERVIEW, epilog=SAME, allow_abbrev=False
    )
    # No command is no mistake: the user asks which commands there are.
    parser.set_defaults(run=lambda options: parser.print_help() or 0)
    parser.add_argument(
        "--version",
        action=Version,
        nargs=0,
        help="print the versions of jaxloss, JAX, Python",
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for add in (_add_sweep, _add_list, _add_show, _add_check, _add_verify):
        add(commands)
    return parser


def _command(
    parsers: argparse._SubParsersAction, run: Callable, name: str, **texts: Any
) -> argparse.ArgumentParser:
    command = parsers.add_parser(
        name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **texts,
    )
    command.set_defaults(run=run)
    return command


def _add_list(parsers: argparse._SubParsersAction) -> None:
    tasks = "\n".join(f"  {name:<16}{what}" for name, what in catalogue.TASKS.items())
    command = _command(
        parsers,
        lambda options: commands.list_losses(options.task, options.search) or 0,
        "list",
        help="table of all losses: task, last layer, range, robust, convex",
        description="Which losses are there?",
        epilog=f"tasks, by what is predicted:\n{tasks}\n\n{COLUMNS}",
    )
    command.add_argument("--task", metavar="TASK", help="only the losses of a task")
    command.add_argument(
        "--search",
        metavar="WORDS",
        help="only the losses with these words in a name or in the summary, such as "
        "BCE or 'quantile loss'; names in other libraries are searched too",
    )


def _add_show(parsers: argparse._SubParsersAction) -> None:
    command = _command(
        parsers,
        lambda options: commands.show(options.name, options.plot) or 0,
        "show",
        help="one loss: formula, arguments, gradient, advice, example, picture",
        description="What is this loss, and when should I choose it?",
    )
    command.add_argument("name", metavar="NAME", help="a loss, such as huber")
    command.add_argument(
        "--plot",
        metavar="FILE",
        type=_path,
        help="draw the loss and its derivative, as .png, .svg or .pdf",
    )


def _add_check(parsers: argparse._SubParsersAction) -> None:
    kinds = "\n".join(f"  {k:<16}{x.words}" for k, x in commands.KINDS.items())
    command = _command(
        parsers,
        lambda options: (
            not commands.check(options.loss, options.sample, options.convex)
        ),
        "check",
        help="check your own loss: shapes, gradients, masks, extremes",
        description=CHECK,
        epilog=f"kinds:\n{kinds}\n\n{CHECK_EXAMPLES}",
    )
    command.add_argument(
        "loss", metavar="MODULE:NAME", help="a function, or a jaxloss.testing.LossSpec"
    )
    command.add_argument(
        "--sample",
        metavar="KIND",
        help="kind of its arguments (default: from the name of the first one, if only "
        "one kind fits)",
    )
    command.add_argument(
        "--convex", action="store_true", help="check that it is convex, too"
    )


def _add_verify(parsers: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from jaxloss.app import verify

        try:
            off = verify.verify(
                options.names, options.dtype, options.out, exhaustive=options.exhaustive
            )
        except OSError as error:  # of stdout, it would be a Refusal
            raise Refusal(
                f"--out {options.out} cannot be written ({error.strerror}); name "
                "another"
            ) from None
        return bool(off)

    command = _command(
        parsers,
        run,
        "verify",
        help="measure how accurate the losses are on this device",
        description=VERIFY,
        epilog=VERIFY_EXAMPLES,
    )
    command.add_argument(
        "names", metavar="NAME", nargs="*", help="a loss (default: all losses)"
    )
    command.add_argument(
        "--dtype",
        metavar="DTYPE",
        action="append",
        default=[],
        help="float32 (default), bfloat16, float16 or float64; may be repeated",
    )
    command.add_argument(
        "--exhaustive",
        action="store_true",
        help="all 2^32 pairs of bfloat16 numbers, for losses of two numbers",
    )
    command.add_argument(
        "--out", metavar="FILE", type=_path, help="write all results as JSON"
    )


def _add_sweep(parsers: argparse._SubParsersAction) -> None:
    parser = _command(
        parsers,
        sweep.sweep,
        "sweep",
        help="train with many losses on real data and compare them",
        description=SWEEP,
        epilog=EXAMPLES.format(
            losses="\n".join(
                f"  {name:<24}{loss.task:<12}{loss.call()}"
                for name, loss in experiment.LOSSES.items()
            ),
            simpler="\n".join(
                f"  {name} {x.hyperparameter}={x.value:g} is {x.loss} {x.words}."
                for name, x in experiment.SIMPLER.items()
            ),
            hyperparameters="\n".join(
                f"  {f'{name}={sweep.listing(x.default)}':<36}{x.interval}"
                for name, x in experiment.HYPERPARAMETERS.items()
            ),
        ),
    )
    parser.add_argument(
        "--data",
        metavar="FILE.csv",
        type=_path,
        help="your own data (default: scikit-learn's handwritten digits, 8 against "
        "the rest, about 1 to 10)",
    )
    parser.add_argument("--target", metavar="COLUMN", help="the column to predict")
    parser.add_argument(
        "--drop",
        metavar="COLUMN",
        nargs="+",
        action="extend",
        default=[],
        help="columns to leave out, separated by commas or spaces",
    )
    parser.add_argument(
        "--losses",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="losses, separated by commas or spaces (default: all that fit the target)",
    )
    parser.add_argument(
        "--grid",
        metavar="NAME=VALUES",
        nargs="+",
        action="extend",
        default=[],
        help="values of a hyperparameter, such as gamma=0,0.5,1,2,5",
    )
    parser.add_argument(
        "--seeds",
        metavar="N",
        default="10",
        help="runs with different weights, batches and training rows (default: 10)",
    )
    parser.add_argument(
        "--steps", metavar="N", default="500", help="training steps (default: 500)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=_path,
        default=Path("jaxloss-sweep"),
        help="directory of the results (default: jaxloss-sweep)",
    )
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="print the table only",
    )
