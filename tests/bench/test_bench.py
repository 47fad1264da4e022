"""The bench: cases that fit their losses, and results that say what was measured."""

import copy
import dataclasses
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from bench import (
    __main__ as command,
    cases,
    compare,
    losses,
    measure,
    numbers,
    peers,
    record,
    textbook,
)
from bench.arguments import Arg, draw

TINY = dataclasses.replace(
    cases.small_softmax(6, 3),
    name="tiny",
    targets={"jaxloss": cases.Target(time=1e6, mebibytes=1e-9, error=1e-3)},
)
MISSING = "no_such_loss"
BROKEN = dataclasses.replace(
    TINY,
    name="broken",
    run={"jaxloss": lambda x, ids: getattr(jaxloss, MISSING)(x, ids)},
)


@pytest.fixture(scope="module")
def results():
    """Of two cases, one of which does not run, with a peer that is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "REPEAT_MS", 0.0)
        patch.setattr(measure, "STREAM_BYTES", 2**12)
        absent = dict.fromkeys(("keras", "torch"), "not installed")
        patch.setattr(measure, "missing", lambda name: absent.get(name.split()[0]))
        return {"runs": [record.run([TINY, BROKEN], peers.PEERS, repeats=5)]}


def programs():
    """Each case with each of its implementations whose package is installed."""
    every = {case.name: case for case in [*cases.CASES, *cases.SCALING]}
    return [
        pytest.param(case, name, id=f"{case.name}: {name}")
        for case in every.values()
        for name in case.run
        if peers.missing(name) is None
    ]


@pytest.mark.parametrize(("case", "name"), programs())
def test_every_implementation_fits_its_case(case, name):
    """It takes the arguments of the case, and its loss has the textbook's shape."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        found = jax.eval_shape(case.run[name], *case.shapes)
    each = jax.eval_shape(case.textbook, *case.shapes)
    assert found.shape == (each.shape if case.per_example else ())
    assert all(0 <= i < len(case.args) for i in (*case.wrt, *case.shared))
    assert case.targets.keys() <= case.run.keys()
    if case.wrt:
        assert case.wrt[0] == 0  # what errors of gradients are measured by
        grad = jax.eval_shape(jax.grad(case.textbook_sum, case.wrt), *case.shapes)
        assert [g.shape for g in grad] == [case.args[i].shape for i in case.wrt]


def test_torch_has_the_losses_that_cases_name():
    """Read from the source, since torch is not there."""
    source = pathlib.Path(peers.__file__).with_name("torch_worker.py").read_text()
    names = {case.torch for case in [*cases.CASES, *cases.SCALING]} - {""}
    assert not [name for name in names if f'"{name}":' not in source]


def test_names_are_unique():
    for table in (cases.CASES, cases.SCALING):
        assert len({case.name for case in table}) == len(table)


def test_arguments_do_not_change():
    """A worker process draws what the bench draws."""
    args = (Arg("normal", (3, 2)), Arg("ids", (3,), "int32", below=2))
    for a, b, arg in zip(draw(args), draw(args), args, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a.shape, str(a.dtype)) == (arg.shape, arg.dtype)


class TestTextbook:
    def test_knows_the_value_of_a_small_problem(self):
        """Huber of 0, 1/2 and 3; all in float64, whatever is drawn."""
        case = dataclasses.replace(
            next(c for c in cases.CASES if c.name == "huber (1024,)"), block=2
        )
        args = [jnp.array([0.0, 0.5, 3.0], jnp.float32), jnp.zeros(3, jnp.float32)]
        truth = measure.reference(case, args)
        np.testing.assert_allclose(truth.value, (0 + 1 / 8 + 2.5) / 3, rtol=1e-15)
        assert truth.slope is not None
        np.testing.assert_allclose(truth.slope, np.array([0, 0.5]) / 3, rtol=1e-15)

    def test_ctc_adds_up_paths(self):
        """6 of the 8 equally likely paths of blank and 1 become [1]."""
        logits, ids = jnp.zeros((1, 3, 2)), jnp.array([[1]])
        np.testing.assert_allclose(jax.jit(textbook.ctc)(logits, ids), [-np.log(6 / 8)])

    def test_agrees_with_ours(self, results):
        """A wrong formula would show as an error that no rounding makes."""
        for name in ("jaxloss", "optax"):
            found = implementations(results, "tiny")[name]
            assert found["value_error"] < 1e-4
            assert found["gradient_error"] < 1e-3


def small(case, *shapes):
    """A case with other shapes; class ids stay below 3."""
    args = [
        arg._replace(shape=shape, below=min(arg.below, 3))
        for arg, shape in zip(case.args, shapes, strict=True)
    ]
    return dataclasses.replace(case, args=tuple(args))


@pytest.mark.parametrize(
    "case",
    [
        small(cases.nt_xent(4, 2), (4, 2), (4,)),
        small(cases.clip(3, 2), (3, 2), (3, 2)),
        small(cases.linear(5, 2, 3), (5, 2), (2, 3), (5,)),
        small(
            next(c for c in cases.CASES if c.torch == "dpo"),
            *((2, 4, 2), (2, 3), (2, 4), (2, 4), (2,)),
        ),
    ],
    ids=lambda case: case.torch or "nt_xent",
)
def test_textbook_agrees_with_optax(case):
    """In rounding errors, at cases in blocks and in one."""
    case = dataclasses.replace(case, block=case.block and 2)
    found = measure.measure(case, ["optax"], repeats=1)["optax"]
    assert found["value_error"] < 1e-5
    assert found["gradient_error"] < 1e-5


def implementations(results, case):
    return results["runs"][0]["cases"][case]["implementations"]


class TestRun:
    def test_keeps_all_repeats(self, results):
        for name in ("jaxloss", "optax"):
            found = implementations(results, "tiny")[name]
            assert len(found["ms"]) == 5
            assert min(found["ms"]) > 0
            assert found["compile_seconds"] > 0
            assert found["argument_bytes"] == 4 * (6 * 3 + 6)

    def test_says_what_is_missing_and_what_failed(self, results):
        assert implementations(results, "tiny")["torch"] == {"missing": "not installed"}
        [problem] = record.problems(results)
        assert problem.startswith("broken, jaxloss: AttributeError")

    def test_says_where_it_was(self, results):
        [run] = results["runs"]
        assert {"jax", "jaxlib", "optax"} <= run["versions"].keys()
        assert run["cores"] >= 1
        assert run["copy_bytes_per_second"] > 0
        assert re.fullmatch(r"([0-9a-f]+|unknown)\+?", run["revision"])

    def test_takes_the_bytes_that_there_are(self, monkeypatch):
        """A program that does not fit is refused before it brings the machine down."""
        monkeypatch.setattr(peers, "free_bytes", lambda: 0)
        with pytest.raises(peers.Refusal, match=r"needs 0\.0 GiB, of which 0\.0 GiB"):
            peers.JaxProgram(jnp.negative, (), [jnp.ones(3)])

    def test_alternates(self):
        """Each repeat of one is between repeats of the others."""
        order = []
        turns = {name: Recorder(name, order) for name in "abc"}
        times = measure.interleave(turns, 4)
        rounds = [sorted(order[i : i + 3]) for i in range(3, len(order), 3)]
        assert rounds == [list("abc")] * 4
        assert {order[3], order[6], order[9]} == set("abc")  # no fixed neighbours
        assert all(len(runs) == 4 for runs, _ in times.values())


class Recorder:
    """A program that writes down when it ran."""

    def __init__(self, name, order):
        self.name, self.order, self.facts = name, order, {}

    def first(self, rows):
        raise NotImplementedError

    def time(self, calls):
        self.order.append(self.name)
        return 10.0

    def close(self):
        raise NotImplementedError


def test_a_program_that_fails_is_closed(monkeypatch):
    """And the reason is kept in one line."""
    closed = []

    class Failing(Recorder):
        def first(self, rows):
            raise peers.Refusal("torch has no such thing")

        def close(self):
            closed.append(self.name)

    monkeypatch.setattr(measure, "Worker", lambda case: Failing(case.name, []))
    monkeypatch.setattr(measure, "missing", lambda name: None)
    found = measure.measure(TINY, ["torch"], repeats=1, errors=False)
    assert found == {"torch": {"error": "torch has no such thing"}}
    assert closed == ["tiny"]


def test_a_peer_may_be_unknown_or_absent(monkeypatch):
    assert peers.missing("sonnet") == "no peer is called sonnet"
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.missing("torch") == "torch is not installed"


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    path = tmp_path / "machine.json"
    record.save(results, path)
    assert command.main(["report", str(path), "--to", str(tmp_path)]) == 0
    assert (tmp_path / "bench-machine.png").stat().st_size > 1000
    return (tmp_path / "bench-machine.md").read_text()


class TestReport:
    def test_has_every_case_and_reason(self, page):
        assert "![Ratio to optax, case by case](bench-machine.png)" in page
        assert "| tiny |" in page
        assert "* torch: not installed" in page
        assert re.search(r"\* jaxloss: AttributeError.*\(broken\)", page)

    def test_says_which_targets_are_reached(self, page):
        [row] = [x for x in page.splitlines() if x.startswith("| tiny |") and "≤" in x]
        assert re.search(r"time × \S+ ≤ 1e\+06: reached", row)
        assert re.search(r"MiB \S+ ≤ 1e-09: missed by a factor of", row)
        assert re.search(r"error \S+ ≤ 0.001: reached", row)

    def test_ratios_are_those_of_the_repeats(self):
        ours = {"ms": [1.0, 2.0, 4.0], "temp_bytes": 1}
        base = {"ms": [2.0, 2.0, 4.0], "temp_bytes": 4}
        assert numbers.time_ratio(ours, base) == (0.5, 1.0, 0.75, 1.0)
        assert numbers.temp_ratio(ours, base) == 0.25
        assert numbers.temp_ratio(ours, base | {"temp_bytes": 0}) is None


def shifted(results, name, factor, **facts):
    """The results with one implementation of `tiny` that takes `factor` as long."""
    changed = copy.deepcopy(results)
    found = implementations(changed, "tiny")[name]
    found["ms"] = [factor * ms for ms in found["ms"]]
    found |= facts
    return changed


class TestCompare:
    @pytest.fixture
    def noisy(self, results):
        """Repeats with a spread of 10 %, in place of those of this machine."""
        fixed = copy.deepcopy(results)
        rng = np.random.default_rng(0)
        for name, ms in (("jaxloss", 2.0), ("optax", 3.0)):
            times = ms * (1 + 0.1 * rng.random(9))
            implementations(fixed, "tiny")[name]["ms"] = list(times)
        return fixed

    def test_finds_what_was_planted(self, noisy):
        after = shifted(noisy, "jaxloss", 1.3, temp_bytes=2**30, value_error=0.5)
        changes, one_sided = compare.compare(noisy, after)
        assert one_sided == []
        assert [c.what for c in changes] == [
            "time of optax's",
            "MiB temp",
            "value error",
        ]
        np.testing.assert_allclose(changes[0].after / changes[0].before, 1.3)

    @pytest.mark.parametrize("factor", [0.96, 1.0, 1.04])
    def test_ignores_noise(self, noisy, factor):
        assert compare.compare(noisy, shifted(noisy, "jaxloss", factor)) == ([], [])

    def test_a_slower_machine_moves_nothing_of_ours(self, noisy):
        slow = shifted(shifted(noisy, "jaxloss", 2.0), "optax", 2.0)
        [change] = compare.compare(noisy, slow)[0]
        assert (change.implementation, change.what) == ("optax", "ms")

    def test_names_what_only_one_has(self, noisy):
        less = copy.deepcopy(noisy)
        del implementations(less, "tiny")["optax"]
        assert compare.compare(noisy, less)[1] == ["only in the first: tiny, optax"]
        del less["runs"][0]["cases"]["tiny"]
        assert compare.compare(less, noisy)[1] == ["only in the second: tiny"]

    def test_exit_status_says_whether_something_moved(self, noisy, tmp_path, capsys):
        files = [tmp_path / "a.json", tmp_path / "b.json"]
        for path, document in zip(
            files, (noisy, shifted(noisy, "jaxloss", 2.0)), strict=True
        ):
            path.write_text(json.dumps(document))
        assert command.main(["compare", *map(str, files)]) == 1
        assert "tiny, jaxloss: time of optax's" in capsys.readouterr().out
        assert command.main(["compare", str(files[0]), str(files[0])]) == 0


def test_scaling_draws_each_series(tmp_path, monkeypatch):
    """Tables and curves of what is measured, from a run to the page."""
    sizes = [
        dataclasses.replace(
            cases.nt_xent(n, 2), run={"jaxloss": losses.NT_XENT["jaxloss"]}
        )
        for n in (2, 4)
    ]
    monkeypatch.setattr(cases, "SCALING", cases.series("pairs: N", "N", sizes))
    monkeypatch.setattr(measure, "REPEAT_MS", 0.0)
    monkeypatch.setattr(measure, "STREAM_BYTES", 2**12)
    out = str(tmp_path / "small.json")
    few = ["--repeats", "2", "--no-errors"]
    assert command.main(["scaling", "--out", out, "--to", str(tmp_path), *few]) == 0
    page = (tmp_path / "bench-small.md").read_text()
    assert "### pairs: N" in page
    assert re.search(r"\| jaxloss \| \S+ : \S+ \| \S+ : \S+ \|", page)
    assert (tmp_path / "bench-small.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--case", "no such"], "no case has 'no such' in its name"),
        (["run", "--peer", "sonnet"], "no peer is called 'sonnet'"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(arguments, message):
    with pytest.raises(SystemExit, match=message):
        command.main(arguments)
