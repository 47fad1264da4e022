"""Time, memory and error of the losses beside their peers: `python -m bench`.

python -m bench run [--case TEXT ...] [--peer NAME ...] [--thp] [--out FILE]
python -m bench report FILE [--to DIR]        tables in Markdown, and a picture
python -m bench compare BEFORE AFTER          what moved by more than the noise
python -m bench scaling [--out FILE]          cost as a problem grows
python -m bench eager [--case TEXT ...] [--quick] [--out FILE] [--read FILE] [--write]
                                              calls without `jit`, and first ones
python -m bench device [--out FILE]           all claims and the time of the cases, on
                                              the device that is here: device.sh
python -m bench compiled --for h200|v5e|v6e [--case TEXT ...] [--peer NAME ...]
                         [--list] [--out FILE] [--read FILE] [--write]
                                              programs for an H200 or a TPU, compiled
                                              where there is none, and what they move
python -m bench mutants [--list] [--only TEXT ...] [--tree DIR] [--out FILE]
                                              deliberate breaks that the tests catch
python -m bench exhaustive [NAME ...] [--out FILE] [--read FILE] [--write]
                                              every float32, through every primitive
                                              of one number: half an hour on 2 cores

All implementations of a case run in turn in one run. A fresh array costs its page
faults, which can be more than the arithmetic: --thp runs everything twice, as it is and
under GLIBC_TUNABLES=glibc.malloc.hugetlb=1. The exit status is 1 if an implementation
failed, or if something moved.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.accelerators import ACCELERATORS, prepare

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def run(options: argparse.Namespace) -> int:
    from bench import cases

    chosen = select(cases.CASES, options.case)
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    return measured(chosen, options, "")


def scaling(options: argparse.Namespace) -> int:
    from bench import cases, picture, record, scaling

    path = options.out or record.default_path("-scaling")
    options.out = path
    options.peer = options.peer or ["jaxloss", "optax"]
    status = measured(select(cases.SCALING, options.case), options, "-scaling")
    results = record.read(path)["runs"][0]
    image = options.to / f"bench-{path.stem}.png"
    options.to.mkdir(parents=True, exist_ok=True)
    picture.scaling(scaling.curves(results), image)
    write(scaling.document(results, image.name), image.with_suffix(".md"))
    return status


def eager(options: argparse.Namespace) -> int:
    from bench import eager, eager_cases, eager_tables, record

    chosen = select(eager_cases.CASES, options.case, "eager --list")
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    if options.write and options.case:
        raise SystemExit("--write is for all cases, and --case chooses some")
    if options.read:
        results = record.read(options.read)
    else:
        path = options.out or record.default_path("-eager")
        rounds = eager.QUICK if options.quick else eager.FULL
        keep = lambda results: record.save(results, path)
        results = {"runs": [eager.run(chosen, rounds, keep=keep)]}
        print(f"wrote {path}")
    [found] = results["runs"]
    print(eager_tables.document(found))
    if options.write:
        eager_tables.write(found, eager_tables.PAGE)
    without = [f"{name} has no case to be called in" for name in eager_cases.missing()]
    return told([*without, *record.problems(results)])


def exhaustive(options: argparse.Namespace) -> int:
    from bench import exhaustive, record

    asked = exhaustive.questions()
    if unknown := [name for name in options.name if name not in asked]:
        known = ", ".join(asked)
        raise SystemExit(f"no function is called {unknown[0]!r}; there are {known}")
    path = options.out or record.default_path("-exhaustive")
    if options.read:
        [found] = record.read(options.read)["runs"]
    else:
        chosen = options.name or asked
        found = exhaustive.run({name: asked[name] for name in chosen}, path)
        print(f"wrote {path}")
    print(exhaustive.document(found))
    if options.write:
        exhaustive.write(found, exhaustive.PAGE)
    return 0


def compiled(options: argparse.Namespace) -> int:
    accelerator = ACCELERATORS[options.device]
    if not (options.list or options.read):
        prepare(accelerator)  # before JAX is imported
    from bench import (
        compiled,
        compiled_cases,
        compiled_sharded,
        compiled_tables,
        record,
    )

    names = f"compiled --for {options.device} --list"
    sharded = compiled_sharded.steps(accelerator.meshes)
    chosen = select([*compiled_cases.steps(), *sharded], options.case, names)
    if options.list:
        print("\n".join(step.name for step in chosen))
        return 0
    path = options.read or options.out or compiled_path(options.device)
    if not options.read:
        # A few cases replace what the file has of them.
        known = options.case and path.exists()
        before = record.read(path)["runs"][0] if known else {}
        keep = lambda now: record.save({"runs": [compiled.merged(before, now)]}, path)
        packages = options.peer or compiled.PEERS
        compiled.run(accelerator, chosen, packages=packages, keep=keep)
        print(f"wrote {path}")
    results = record.read(path)
    if options.write:
        compiled_tables.write(results["runs"][0], options.to, options.device)
    # A peer that refuses bfloat16 is part of the result.
    ours = [line for line in record.problems(results) if ", jaxloss" in line]
    return told(ours)


def report(options: argparse.Namespace) -> int:
    from bench import picture, record, report

    results = record.read(options.file)
    image = options.to / f"bench-{options.file.stem}.png"
    options.to.mkdir(parents=True, exist_ok=True)
    picture.ratios(results["runs"][0], image)
    write(report.document(results, image.name), image.with_suffix(".md"))
    return 0


def compare(options: argparse.Namespace) -> int:
    from bench import compare, record

    files = (options.before, options.after)
    changes, one_sided = compare.compare(*map(record.read, files))
    print(*one_sided, *changes, sep="\n" if one_sided or changes else "")
    if not changes:
        print("nothing moved by more than the noise")
    return 1 if changes else 0


def device(options: argparse.Namespace) -> int:
    from bench import device, record

    path = options.out or record.default_path()
    status = device.run(path, options.seconds)
    print(f"wrote {path}")
    return status


def mutants(options: argparse.Namespace) -> int:
    from bench import mutants

    return mutants.main(options)


# --- parts ---------------------------------------------------------------------------


def select(
    cases: Sequence[Any], texts: Sequence[str], names: str = "run --list"
) -> list[Any]:
    """Those whose name has one of the texts in it; all if none is given."""
    chosen = [c for c in cases if not texts or any(t in c.name for t in texts)]
    unmet = [t for t in texts if not any(t in c.name for c in cases)]
    if unmet:
        raise SystemExit(f"no case has {unmet[0]!r} in its name; see `{names}`")
    return chosen


def measured(cases: Sequence[Any], options: argparse.Namespace, suffix: str) -> int:
    """Runs, saves, and says what failed."""
    from bench import peers, record

    unknown = set(options.peer) - set(peers.PEERS)
    if unknown:
        known = ", ".join(peers.PEERS)
        raise SystemExit(f"no peer is called {min(unknown)!r}; there are {known}")
    path = options.out or record.default_path(suffix)
    if getattr(options, "thp", False):
        with tempfile.TemporaryDirectory() as folder:
            passed = [a for a in sys.argv[1:] if a != "--thp"]
            results = record.under_both_allocators(passed, Path(folder))
    else:
        found = record.run(
            cases,
            options.peer or peers.PEERS,
            repeats=options.repeats,
            errors=not options.no_errors,
            keep=lambda results: record.save(results, path),
        )
        results = {"runs": [found]}
    record.save(results, path)
    print(f"wrote {path}")
    return told(record.problems(results))


def told(problems: Sequence[str]) -> int:
    """The exit status, after a line for each."""
    print(*(f"failed: {line}" for line in problems), sep="\n", file=sys.stderr)
    return 1 if problems else 0


def compiled_path(device: str) -> Path:
    return ROOT / "bench" / "results" / f"{device}-compiled.json"


def write(text: str, path: Path) -> None:
    path.write_text(text)
    print(f"{text}\nwrote {path} and {path.with_suffix('.png').name}")


def parser() -> argparse.ArgumentParser:
    help_form = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=help_form
    )
    commands = top.add_subparsers(required=True, metavar="command")
    add = lambda fn, text: _with(commands.add_parser(fn.__name__, help=text), fn)
    for fn, text in ((run, "measure the cases"), (scaling, "measure how cost grows")):
        command = add(fn, text)
        command.add_argument("--case", action="append", default=[], metavar="TEXT")
        command.add_argument("--peer", action="append", default=[], metavar="NAME")
        command.add_argument("--repeats", type=int, default=11)
        command.add_argument("--no-errors", action="store_true", help="no float64")
        command.add_argument("--out", type=Path)
        if fn is run:
            command.add_argument("--thp", action="store_true", help="huge pages, too")
            command.add_argument("--list", action="store_true", help="only the names")
        else:
            command.add_argument("--to", type=Path, default=DOCS)
    command = add(eager, "measure calls without `jit`, and first ones")
    command.add_argument("--case", action="append", default=[], metavar="TEXT")
    command.add_argument("--quick", action="store_true", help="fewer rounds")
    command.add_argument("--list", action="store_true", help="only the names")
    command.add_argument("--out", type=Path)
    command.add_argument("--read", type=Path, help="the results of an earlier run")
    command.add_argument("--write", action="store_true", help="the tables of the guide")
    command = add(exhaustive, "judge every float32 of the unary primitives")
    command.add_argument("name", nargs="*", metavar="NAME")
    command.add_argument("--out", type=Path)
    command.add_argument("--read", type=Path, help="the results of an earlier run")
    command.add_argument("--write", action="store_true", help="the table of the guide")
    command = add(compiled, "compile for an accelerator, and count what is moved")
    command.add_argument(
        "--for", required=True, dest="device", choices=list(ACCELERATORS)
    )
    command.add_argument("--case", action="append", default=[], metavar="TEXT")
    command.add_argument("--peer", action="append", default=[], metavar="NAME")
    command.add_argument("--list", action="store_true", help="only the names")
    command.add_argument("--out", type=Path)
    command.add_argument("--read", type=Path, help="the results of an earlier run")
    command.add_argument("--write", action="store_true", help="the page of the device")
    command.add_argument("--to", type=Path, default=DOCS)
    command = add(report, "tables and a picture")
    command.add_argument("file", type=Path)
    command.add_argument("--to", type=Path, default=DOCS)
    command = add(compare, "what moved")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    command = add(device, "all claims and the time of the cases, on one device")
    command.add_argument("--out", type=Path)
    command.add_argument("--seconds", type=float, default=470, help="default: 470")
    command = add(mutants, "deliberate breaks that the tests catch")
    command.add_argument("--list", action="store_true", help="only the names")
    command.add_argument("--only", action="append", default=[], metavar="TEXT")
    command.add_argument("--tree", type=Path, default=ROOT, help="default: this one")
    command.add_argument("--out", type=Path, help="results, kept and used again")
    return top


def _with(command: argparse.ArgumentParser, fn: Callable) -> argparse.ArgumentParser:
    command.set_defaults(fn=fn)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    # Another process wants some of an accelerator's memory; what compiling costs must
    # not depend on what was compiled before.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    options = parser().parse_args(arguments)
    return options.fn(options)


if __name__ == "__main__":
    sys.exit(main())
