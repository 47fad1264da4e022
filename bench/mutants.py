"""Which deliberate breaks of the package its tests catch: mutation testing.

    python -m bench mutants [--list] [--only TEXT ...] [--tree DIR] [--out FILE]

A mutant is one small change of one file, such as a reader might make by mistake.  The
mutants are in `breaks_of_stable.txt` and `breaks_of_losses.txt`, as blocks of this form
below a line `file PATH`:

    log1p: without the rounding error      what is broken, a name of its own
    > log1p squared_log_error              the words by which tests are found
    - return log + lost / w                the text, which the file has exactly once
    + return log                           what is put in its place; none: nothing

The tree is copied.  Every mutant in turn is put into the copy, and pytest runs the
tests of `STAGES` that are about it, up to the first failure: then it is caught.  A test
is about a mutant if its id has one of the words in it, not as a part of a longer name,
if `ABOUT` says so, or if its file mirrors a module that has a loss of that name.  At
the end, the tests that caught one run without a mutant: what was caught by a test that
fails anyway was not caught; a second run leaves it out.  With `--out`, results are kept
after every mutant, beside those that the file has of others.
"""

import argparse
import ast
import dataclasses
import fnmatch
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LISTS = (HERE / "breaks_of_stable.txt", HERE / "breaks_of_losses.txt")
LIMIT = 600  # seconds that the tests of one mutant may take


# --- which tests there are: the one place to adapt to another layout ---------------


@dataclasses.dataclass(frozen=True)
class Stage:
    """Tests of one kind; what a tree does not have is skipped."""

    kind: str
    """What is said of a mutant that such a test catches."""
    files: str
    """A glob of test files."""
    tests: str
    """A regular expression that the name of the test function begins with."""
    every: bool = False
    """Whether all are about a mutant of `jaxloss/stable`, and none about another."""
    mirror: bool = False
    """Whether those of a file are about all losses of the module that it mirrors."""


# In this order: what is quick and exact first.
STAGES = (
    Stage("accuracy", "tests/blocks/test_stable.py", "test_(is_)?accura"),
    Stage("accuracy", "tests/blocks/test_labelled.py", "test_cross_entropy_of_dist"),
    Stage("accuracy", "tests/losses/**/test_*.py", "test_(is_)?accura"),
    Stage("claims", "tests/**/test_claims*.py", "test_"),
    Stage("laws", "tests/laws/test_laws.py", "test_law"),
    Stage("facts", "tests/blocks/test_stable.py", "test_(?!accura)", every=True),
    Stage("facts", "tests/blocks/test_labelled.py", "test_", every=True),
    Stage("facts", "tests/losses/**/test_*.py", "test_(?!accura)", mirror=True),
)
# Tests whose ids do not have what they are about.
ABOUT = {"test_cross_entropy_of_distributions": "softmax_cross_entropy"}


def about(test: str, word: str) -> bool:
    """Whether a test, by its id, is about a loss or a primitive."""
    head, _, parameters = test.partition("[")
    return ABOUT.get(head.split("::")[-1]) == word or bool(
        re.search(rf"(?<!\w){word}(?!\w)", parameters)
    )


def selected(mutant: "Mutant", tests: Iterable[str]) -> dict[str, str]:
    """The tests that are about a mutant, in the order to run them; and their kinds."""
    chosen: dict[str, str] = {}
    tests = list(tests)
    for stage in STAGES:
        of_stage = [t for t in tests if _is_of(stage, t) and t not in chosen]
        if stage.every and mutant.path.startswith("jaxloss/stable/"):
            chosen |= dict.fromkeys(of_stage, stage.kind)
        elif stage.mirror:
            mirrored = [t for t in of_stage if _mirrors(t, mutant.words)]
            chosen |= dict.fromkeys(mirrored, stage.kind)
        elif not stage.every:
            for word in mutant.words:
                chosen |= {t: stage.kind for t in of_stage if about(t, word)}
    return chosen


def _mirrors(test: str, words: Iterable[str]) -> bool:
    """Whether the module that the file of a test mirrors has one of the losses."""
    file = test.partition("::")[0].replace("tests/", "jaxloss/").replace("test_", "")
    module = HERE.parent / file
    text = module.read_text() if module.exists() else ""
    return any(re.search(rf"^def {word}\(", text, re.MULTILINE) for word in words)


def _is_of(stage: Stage, test: str) -> bool:
    file, *_, name = test.partition("[")[0].split("::")
    fits = fnmatch.fnmatch(file, stage.files.replace("**/", "*"))
    return fits and re.match(stage.tests, name) is not None


# --- mutants -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One deliberate break."""

    name: str
    path: str
    words: tuple[str, ...]
    old: str
    new: str

    def put_into(self, text: str) -> str:
        """The text of the file with the break in it; raises unless it fits."""
        count = text.count(self.old)
        if count != 1:
            raise LookupError(f"{self.name}: {self.path} has its text {count} times")
        changed = text.replace(self.old, self.new)
        ast.parse(changed)
        return changed


def read(text: str) -> list[Mutant]:
    """The mutants of a list, which is described above."""
    found, path = [], ""
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("file "):
            path = block.split()[1]
        head, *lines = block.splitlines()
        if not lines or not lines[0].startswith("> "):
            continue
        words = tuple(lines[0][2:].split())
        old, new = ("\n".join(_after(sign, lines[1:])) for sign in "-+")
        found.append(Mutant(head.strip(), path, words, old, new))
    return found


def _after(sign: str, lines: Sequence[str]) -> list[str]:
    """What stands behind a sign; a line without one goes with the line above."""
    kept, current = [], ""
    for line in lines:
        if line[:2] in ("- ", "+ "):
            current, line = line[0], line[2:]
        if current == sign:
            kept.append(line)
    return kept


def every(only: Sequence[str] = ()) -> list[Mutant]:
    """All mutants; or those that have one of the texts in their name or path."""
    found = [m for path in LISTS for m in read(path.read_text())]
    return [
        m for m in found if not only or any(t in f"{m.path} {m.name}" for t in only)
    ]


def unfit(mutants: Iterable[Mutant], tree: Path) -> dict[str, str]:
    """Why some mutants cannot be put into the files of a tree."""
    found = {}
    for mutant in mutants:
        try:
            mutant.put_into((tree / mutant.path).read_text())
        except (LookupError, SyntaxError, OSError) as error:
            found[mutant.name] = f"{type(error).__name__}: {error}"
    return found


# --- pytest in a copy of the tree --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """What pytest said of some tests."""

    status: int | None
    """Its exit status; none: it took too long."""
    failed: frozenset[str]
    seconds: float
    cpu: float
    output: str


@dataclasses.dataclass(frozen=True)
class Copy:
    """A throw-away copy of a tree, whose package is imported by the tests in it."""

    folder: Path

    @classmethod
    def of(cls, tree: Path, folder: Path) -> "Copy":
        skipped = shutil.ignore_patterns(
            ".*", "__pycache__", "notebooks", "build", "docs"
        )
        copy = cls(Path(shutil.copytree(tree, folder / "tree", ignore=skipped)))
        code = "import jaxloss; print(jaxloss.__file__)"
        imported = copy._run(sys.executable, "-c", code).stdout.strip()
        if not Path(imported).resolve().is_relative_to(copy.folder.resolve()):
            raise SystemExit(f"the tests would import {imported!r}, not the copy")
        return copy

    def _run(self, *command: str, limit: float | None = None):
        # The bench switches off the cache of compiled programs, which saves much here.
        env = {
            k: v for k, v in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"
        }
        env |= {"PYTHONPATH": str(self.folder), "JAX_PLATFORMS": "cpu"}
        options: dict[str, Any] = {"capture_output": True, "text": True}
        return subprocess.run(
            command, cwd=self.folder, env=env, timeout=limit, check=False, **options
        )

    def _pytest(self, *arguments: str, limit: float | None = None):
        common = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider")
        return self._run(sys.executable, *common, *arguments, limit=limit)

    def tests(self) -> list[str]:
        """The ids of all tests in the files of `STAGES`."""
        globs = dict.fromkeys(stage.files for stage in STAGES)
        paths = [p for g in globs for p in sorted(self.folder.glob(g))]
        files = dict.fromkeys(str(p.relative_to(self.folder)) for p in paths)
        if not files:
            raise SystemExit("the tree has none of the test files of `bench.mutants`")
        listed = self._pytest("--collect-only", *files)
        if listed.returncode:
            raise SystemExit(
                f"pytest cannot collect the tests:\n{listed.stdout[-2000:]}"
            )
        return [t for t in listed.stdout.splitlines() if re.match(r"\S+\.py::", t)]

    def run(self, tests: Sequence[str], *options: str, limit: float = LIMIT) -> Run:
        """Runs tests in the given order."""
        report = self.folder / "mutant.xml"
        report.unlink(missing_ok=True)
        start, used = time.monotonic(), _cpu()
        try:
            done = self._pytest(f"--junitxml={report}", *options, *tests, limit=limit)
            status, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            status, output = None, ""
        seconds, cpu = time.monotonic() - start, _cpu() - used
        failed = _failed(report, tests) if report.exists() else frozenset()
        return Run(status, failed, seconds, cpu, output)

    def run_with(self, mutant: Mutant, tests: Sequence[str]) -> Run:
        """Runs tests up to the first failure while the mutant is in the copy."""
        path = self.folder / mutant.path
        text = path.read_text()
        try:
            self._write(path, mutant.put_into(text))
            return self.run(tests, "-x")
        finally:
            self._write(path, text)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        # Python compares only the size and the second of a file with its bytecode.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _failed(report: Path, tests: Iterable[str]) -> frozenset[str]:
    """The ids of the tests that a report of pytest has as failed."""
    by_name = {_in_report(t): t for t in tests}
    failed = [
        (case.get("classname", ""), case.get("name", ""))
        for case in ET.parse(report).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return frozenset(by_name.get(key, "::".join(key)) for key in failed)


def _in_report(test: str) -> tuple[str, str]:
    """The class and the name that a report of pytest has for the id of a test."""
    head, bracket, parameters = test.partition("[")
    file, *classes, name = head.split("::")
    module = file.removesuffix(".py").replace("/", ".")
    return ".".join([module, *classes]), name + bracket + parameters


# --- judging -----------------------------------------------------------------------


def judged(mutant: Mutant, copy: Copy, tests: Iterable[str]) -> dict[str, Any]:
    """What the tests say of a mutant: caught, survived, or why neither is known."""
    chosen = selected(mutant, tests)
    if not chosen:
        return {"outcome": "no test is about it"}
    run = copy.run_with(mutant, list(chosen))
    outcome = {0: "survived", 1: "caught", None: "took too long"}.get(
        run.status, "error"
    )
    found = {"outcome": outcome, "seconds": round(run.seconds, 1)}
    found |= {"cpu": round(run.cpu, 1), "tests": len(chosen)}
    if outcome == "caught":
        found["by"] = min(run.failed, default="")
        found["kind"] = chosen.get(found["by"], "")
    if outcome == "error":
        found["output"] = run.output[-2000:]
    return found


def confirm(copy: Copy, results: dict[str, Any]) -> None:
    """Takes back what was caught by a test that fails without a mutant, too."""
    found, passed = results["mutants"], set(results.get("passed", []))
    catching = {f["by"] for f in found.values() if f["outcome"] == "caught"}
    fresh = sorted(catching - passed)
    if fresh:
        run = copy.run(fresh, limit=6 * 3600)
        if run.status not in (0, 1):
            raise SystemExit(f"pytest failed without a mutant:\n{run.output[-2000:]}")
        results["failed"] = sorted({*results.get("failed", []), *run.failed})
        results["passed"] = sorted(passed | set(fresh) - run.failed)
    for f in found.values():
        if f["outcome"] == "caught" and f["by"] not in results["passed"]:
            f["outcome"] = "caught by a test that fails anyway"


def run_all(
    mutants: Sequence[Mutant],
    tree: Path,
    results: dict[str, Any],
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Judges mutants, one at a time, and adds what is found to the results."""
    broken = unfit(mutants, tree)
    found = results.setdefault("mutants", {})
    for name, why in broken.items():
        found[name] = {"outcome": "does not fit", "why": why}
    fitting = [m for m in mutants if m.name not in broken]
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy.of(tree, Path(folder))
        tests = copy.tests()
        tests = [t for t in tests if t not in results.get("failed", [])]
        for mutant in fitting:
            found[mutant.name] = judged(mutant, copy, tests)
            print(line(mutant.name, found[mutant.name]), flush=True)
            keep(results)
        confirm(copy, results)
        keep(results)
    return results


def line(name: str, found: dict[str, Any]) -> str:
    """One mutant and what became of it."""
    more = [f"{found['cpu']:.0f} s of CPU"] if "cpu" in found else []
    more += [f"by {found['by']}"] if "by" in found else []
    return f"{found['outcome']:9}  {name}  ({'; '.join(more) or found.get('why', '')})"


def summary(results: dict[str, Any]) -> str:
    """How many were caught, by which kinds of tests, and what was not."""
    found = results["mutants"]
    caught = [f for f in found.values() if f["outcome"] == "caught"]
    kinds = [f["kind"] for f in caught]
    counts = ", ".join(f"{kinds.count(k)} by {k}" for k in sorted(set(kinds)))
    cpu = sum(f.get("cpu", 0) for f in found.values())
    rest = [line(n, f) for n, f in found.items() if f["outcome"] != "caught"]
    bad = [f"fails without a mutant, left out: {t}" for t in results.get("failed", [])]
    first = (
        f"{len(caught)} of {len(found)} mutants caught ({counts}), {cpu:.0f} s of CPU"
    )
    return "\n".join([first, *rest, *bad])


def main(options: argparse.Namespace) -> int:
    """Lists or runs mutants; the status is 1 if any was neither caught nor survived."""
    mutants = every(options.only)
    if not mutants:
        raise SystemExit("no mutant has this text in its name; see `mutants --list`")
    if options.list:
        broken = unfit(mutants, options.tree)
        for m in mutants:
            print(f"{m.path}  {m.name}  {broken.get(m.name, '')}".rstrip())
        return 1 if broken else 0
    out = options.out
    results = json.loads(out.read_text()) if out and out.exists() else {}
    known, before = {m.name for m in every()}, results.get("mutants", {})
    results["mutants"] = {n: f for n, f in before.items() if n in known}
    keep = lambda found: out and out.write_text(json.dumps(found, indent=1) + "\n")
    results = run_all(mutants, options.tree.resolve(), results, keep)
    print(summary(results))
    ran = ("caught", "survived")
    found = results["mutants"]
    return 1 if any(found[m.name]["outcome"] not in ran for m in mutants) else 0
