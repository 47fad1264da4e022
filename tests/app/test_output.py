"""Stdout that is closed or full, and losses that print, exit or return no array."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from jaxloss import testing
from jaxloss.app import cli
from jaxloss.testing import checking

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


def run(capsys, *arguments):
    """Status, output and error of a command."""
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    out, error = capsys.readouterr()
    return int(status or 0), out, error


def refusal(capsys, *arguments):
    """The one line said of a request that cannot be met: status 2, no output."""
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    return error


# --- stdout ------------------------------------------------------------------------

COMMANDS = [
    ["--help"],
    ["list"],
    ["list", "--help"],
    ["show", "huber"],
    ["check", "mine.py:good"],
    ["verify", "huber"],
    ["sweep", "--seeds", "1", "--steps", "1"],
]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@every_command
def test_a_closed_stdout_is_refused(mine, capsys, monkeypatch, command):
    """In one line, before anything is done: a sweep would train for nobody."""
    before = sorted(mine.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        error = refusal(capsys, *command)
    assert error == (
        "jaxloss: standard output is closed; redirect it, say to /dev/null\n"
    )
    assert sorted(mine.iterdir()) == before


@FULL
@every_command
def test_a_full_stdout_is_refused(mine, capsys, monkeypatch, command):
    """In one line that has the reason of the system; a sweep does not begin."""
    before = sorted(mine.iterdir())
    with monkeypatch.context() as patch, open("/dev/full", "w", buffering=1) as full:
        patch.setattr(sys, "stdout", full)
        error = refusal(capsys, *command)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    name = "" if "--help" in command else f" {command[0]}"
    assert error == (
        f"jaxloss{name}: standard output cannot be written (No space left on device); "
        "redirect it\n"
    )
    assert sorted(mine.iterdir()) == before


@pytest.mark.parametrize("place", ["/dev/full", "&-"])
@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_process_of_its_own_ends_without_a_traceback(place, stream):
    """Nor with the complaint of Python about what it could not write at its exit."""
    if place == "/dev/full" and not os.path.exists(place):
        pytest.skip("no /dev/full here")
    what = "show huber" if stream == "1" else "show hubr"
    command = f"{sys.executable} -m jaxloss {what} {stream}>{place}"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == (stream == "1")
    assert done.stderr.startswith("jaxloss" if stream == "1" else "")


@FULL
def test_a_full_file_of_verify_is_refused(capsys):
    """By its own name, not by that of stdout."""
    status, _, error = run(capsys, "verify", "absolute_error", "--out", "/dev/full")
    assert status == 2
    assert error == (
        "jaxloss verify: --out /dev/full cannot be written (No space left on device); "
        "name another\n"
    )


# --- losses that return, exit or print ---------------------------------------------

MINE = """\
import sys

import jaxloss
from jaxloss.testing import LossSpec


def good(predictions, targets):
    return jaxloss.huber(predictions, targets)


def none(predictions, targets):
    jaxloss.huber(predictions, targets)


def dictionary(predictions, targets):
    return {"loss": jaxloss.huber(predictions, targets)}


def pair(logits, labels):
    return jaxloss.sigmoid_cross_entropy(logits, labels), logits


def exits(predictions, targets):
    sys.exit("no\\ngood")


def exits_for_any_kind(logits, labels):
    sys.exit(3)


class Stop(BaseException):
    pass


def stops(predictions, targets):
    raise Stop("here")


def prints(predictions, targets):
    print("I am", "called")
    return jaxloss.huber(predictions, targets)


def exits_late(predictions, targets):
    if predictions.ndim > 1:
        sys.exit(3)
    return jaxloss.huber(predictions, targets)


SPEC = LossSpec(
    name="mine", fn=dictionary, sample=lambda rng, n: (rng.normal(size=n),) * 2
)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with losses of a user's own."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "loud.py").write_text(f"print('imported')\n{MINE}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    laws = {
        fn: needs
        for fn, needs in testing.LAWS.items()
        if fn.__name__ in ("output_shape_and_dtype", "strict_promotion")
    }
    monkeypatch.setattr(checking, "LAWS", laws)
    yield tmp_path
    for name in ("_checked_mine", "_checked_loud"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", ": it returned None; expected one array, a number per example"),
        ("dictionary", ": it returned a dict; expected one array, a number per"),
        ("pair", ": it returned a tuple; expected one array, a number per example"),
        ("SPEC", ": it returned a dict; expected one array, a number per example"),
        ("exits", " ends the program (SystemExit: no); return one number per"),
        ("exits_for_any_kind", " ends the program (SystemExit: 3); return one number"),
        ("stops", " ends the program (Stop: here); return one number per example"),
    ],
)
def test_check_refuses_what_is_no_loss(mine, capsys, name, words):
    """One line, rather than every law's exception from inside of JAX, or an exit."""
    error = refusal(capsys, "check", f"mine.py:{name}")
    assert error.startswith(f"jaxloss check: mine.py:{name}{words}")


def test_check_survives_an_exit_in_the_middle(mine, capsys):
    """It is a broken law like any other exception: status 1, and a report."""
    status, out, error = run(capsys, "check", "mine.py:exits_late")
    assert (status, error) == (1, "")
    assert "failed       output_shape_and_dtype\n               SystemExit: 3" in out


def test_what_a_loss_prints_is_not_in_the_report(mine, capsys):
    """It goes to stderr, with a line that says so; the report stays as it would be."""
    quiet = run(capsys, "check", "mine.py:good")
    assert quiet[0] == 0
    assert quiet[2] == ""
    texts = {"mine.py:prints": "I am called", "loud.py:good": "imported"}
    for place, text in texts.items():
        status, out, error = run(capsys, "check", place)
        name = place.partition(":")[2]
        assert (status, out) == (0, quiet[1].replace("good:", f"{name}:"))
        *printed, last = error.splitlines()
        assert set(printed) == {text}
        lines = "1 line" if len(printed) == 1 else f"{len(printed)} lines"
        assert last == f"jaxloss check: {place} printed {lines}, which went to stderr"


@pytest.mark.parametrize("returned", [None, {"loss": 1.0}, (1.0, 2.0), [1.0], "loss"])
def test_a_loss_returns_one_array(returned: Any):
    """Outside of the command line, too: each law says what came back."""
    kind = "None" if returned is None else f"a {type(returned).__name__}"
    sample = np.array([1.0, 2.0]), np.array([0.0, 1.0])
    loss: Any = lambda x, y: returned
    report = testing.check(loss, sample=sample, name="mine")
    held = [row for row in report.rows if row.outcome != "not claimed"]
    assert len(held) > 5
    for row in held:
        words = f"it returned {kind}; expected one array, a number per example"
        assert row.outcome == "failed"
        assert words in row.detail
