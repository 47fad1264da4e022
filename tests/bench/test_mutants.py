"""Mutation testing: every break fits the source, and what catches it is told."""

import argparse
import ast
import json
import pathlib

import pytest

import jaxloss
from bench import __main__ as command, mutants

ROOT = pathlib.Path(mutants.__file__).parent.parent
ALL = mutants.every()
# A package of one function and its law, and breaks of it.
FAKE = {
    "jaxloss/__init__.py": "def double(x):\n    return 2 * x  # not 1 + x\n",
    "tests/laws/test_laws.py": (
        "import jaxloss, pytest\n"
        '@pytest.mark.parametrize("x", [1], ids=["double(x=1)-law"])\n'
        "def test_law(x):\n    assert jaxloss.double(x) == 2 * x\n"
        '@pytest.mark.parametrize("x", [1], ids=["undouble"])\n'
        "def test_law_of_another(x):\n    raise AssertionError\n"
    ),
}
BREAKS = """
file jaxloss/__init__.py

double: three times
> double
- 2 * x
+ 3 * x

double: the same for 1
> double
- 2 * x  # not 1 + x
+ 1 + x

double: of a text that is gone
> double
- 4 * x
+ 5 * x

nothing: no test has the word
> nothing
- 2 * x
+ 3 * x

double: by a test that always fails
> undouble
- # not
+ # nor
"""
OUTCOMES = {
    "double: three times": "caught",
    "double: the same for 1": "survived",
    "double: of a text that is gone": "does not fit",
    "nothing: no test has the word": "no test is about it",
    "double: by a test that always fails": "caught by a test that fails anyway",
}


@pytest.fixture
def fake(tmp_path):
    for path, text in FAKE.items():
        file = tmp_path / "fake" / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return tmp_path / "fake"


def test_every_break_fits_the_source():
    """Its text is found exactly once, and the changed file is still Python."""
    assert mutants.unfit(ALL, ROOT) == {}
    for mutant in ALL:
        text = (ROOT / mutant.path).read_text()
        assert mutant.put_into(text) != text
        assert ast.dump(ast.parse(mutant.put_into(text))) != ast.dump(ast.parse(text))


def test_there_are_enough():
    """At least 100 in all, 40 of the primitives, and others in ten losses."""
    assert len({m.name for m in ALL}) == len(ALL) >= 100
    stable = [m for m in ALL if m.path.startswith("jaxloss/stable/")]
    losses = {m.words[0] for m in ALL if m not in stable}
    assert len(stable) >= 40
    assert len(losses) >= 10
    assert all(hasattr(jaxloss, name) for name in losses)


def test_outcomes_are_told_apart(fake):
    """Caught, survived, or why neither is known; the tree itself is not changed."""
    kept = []
    found = mutants.run_all(mutants.read(BREAKS), fake, {}, kept.append)
    outcomes = {name: f["outcome"] for name, f in found["mutants"].items()}
    assert outcomes == OUTCOMES
    assert found["mutants"]["double: three times"]["kind"] == "laws"
    assert "1 of 5 mutants caught (1 by laws)" in mutants.summary(found)
    assert kept[-1] is found
    assert (fake / "jaxloss/__init__.py").read_text() == FAKE["jaxloss/__init__.py"]


def test_tests_are_found_by_words():
    """A word is a whole name; the facts come last, of a primitive or a module."""
    law, accuracy = "tests/laws/test_laws.py::", "tests/blocks/test_stable.py::"
    tests = [
        f"{law}test_law[huber(delta=1.0)-is_convex]",
        f"{law}test_law[quantile_huber-is_convex]",
        f"{accuracy}test_limits",
        f"{accuracy}test_accuracy[huber]",
        f"{law}TestOfHuber::test_law[huber::x]",
        "tests/losses/regression/test_robust.py::test_limits",
        "tests/losses/regression/test_pointwise.py::test_limits",
    ]
    of = lambda path: mutants.Mutant("name", path, ("huber",), "old", "new")
    of_loss = mutants.selected(of("jaxloss/losses/robust.py"), tests)
    assert list(of_loss) == [tests[3], tests[0], tests[4], tests[5]]
    of_primitive = mutants.selected(of("jaxloss/stable/scalars.py"), tests)
    assert list(of_primitive.items())[-2:] == [
        (t, "facts") for t in (tests[2], tests[5])
    ]
    assert tests[1] not in of_primitive


def test_the_command_lists_and_keeps(fake, monkeypatch, tmp_path, capsys):
    """`--list` says what does not fit; `--out` keeps what other mutants had."""
    monkeypatch.setattr(mutants, "LISTS", [tmp_path / "breaks.txt"])
    for name in ("XLA_PYTHON_CLIENT_PREALLOCATE", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.setenv(name, "false")  # as the command does, and back afterwards
    (tmp_path / "breaks.txt").write_text(BREAKS)
    tree = ["mutants", "--tree", str(fake)]
    assert command.main([*tree, "--list"]) == 1
    assert "has its text 0 times" in capsys.readouterr().out
    out = tmp_path / "found.json"
    names = ["double: the same for 1", "gone"]
    before = {name: {"outcome": "survived"} for name in names}
    out.write_text(json.dumps({"mutants": before}))
    assert command.main([*tree, "--only", "three", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["mutants"]
    assert [found[k]["outcome"] for k in found] == ["survived", "caught"]


def test_what_cannot_run_is_refused(fake, tmp_path):
    """A name that no mutant has; a tree that has no tests, or no package."""
    options = argparse.Namespace(only=["no such mutant"])
    with pytest.raises(SystemExit, match="no mutant has this text"):
        mutants.main(options)
    (fake / "tests/laws/test_laws.py").unlink()
    with pytest.raises(SystemExit, match="none of the test files"):
        mutants.Copy.of(fake, tmp_path).tests()
