"""The bench of calls outside of `jit`: every loss is in it, and tables say what it saw.

Nothing here asserts a time.
"""

import re

import jax
import numpy as np
import optax
import pytest

from bench import (
    __main__ as command,
    eager,
    eager_cases,
    eager_tables,
    numbers,
    record,
)

NAMES = [case.name for case in eager_cases.CASES]


@pytest.fixture(autouse=True)
def as_users_run_it():
    """Not as strictly as the suite runs JAX: that is no matter of optax."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        yield


class TestCases:
    def test_every_loss_has_one(self):
        assert eager_cases.missing() == []

    def test_a_loss_without_one_is_named(self, monkeypatch):
        fewer = [case for case in eager_cases.CASES if case.loss != "huber"]
        monkeypatch.setattr(eager_cases, "CASES", fewer)
        assert eager_cases.missing() == ["huber"]

    def test_every_loss_of_optax_has_one(self):
        public = {
            name
            for name, value in vars(optax.losses).items()
            if callable(value) and not name.startswith("_")
        }
        peers = {case.peer for case in eager_cases.PAIRED}
        assert public == peers | eager_cases.WITHOUT_CASE.keys()

    def test_names_are_unique(self):
        assert len(set(NAMES)) == len(NAMES)

    @pytest.mark.parametrize("case", eager_cases.CASES, ids=NAMES)
    def test_sides_return_what_the_case_says(self, case):
        """One number where it says so, else several; and the mean is one number."""
        args = case.arrays()
        for side, fn in case.sides.items():
            found = jax.eval_shape(fn, *args)
            assert (found.shape == ()) == (side in case.scalar)
            mean, slope = jax.eval_shape(jax.value_and_grad(case.mean(side)), *args)
            assert mean.shape == ()
            assert slope.shape == args[0].shape

    @pytest.mark.parametrize(
        "case", eager_cases.PAIRED, ids=lambda case: f"{case.name}: {case.peer}"
    )
    def test_both_sides_compute_the_same(self, case):
        """To float32 rounding; where a case says why not, they do differ."""
        args = case.arrays()
        ours, theirs = (float(jax.jit(case.mean(side))(*args)) for side in case.sides)
        assert np.isfinite(ours)
        assert (abs(ours - theirs) > 1e-5 * abs(theirs)) == bool(case.differs)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of a case with optax and one without, by the command, in one round of each."""
    once = eager.Rounds(calls=1, compilations=1, first=1, imports=1)
    path = tmp_path_factory.mktemp("eager") / "machine.json"
    chosen = ["--case", "perceptron", "--case", "l2", "--out", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "QUICK", once)
        patch.setattr(eager.measure, "REPEAT_MS", 0.0)
        # The rest of the suite needs them.
        patch.setattr(jax, "clear_caches", lambda: None)
        with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
            assert command.main(["eager", "--quick", *chosen]) == 0
    return record.read(path)


class TestRun:
    def test_measures_everything_of_both_sides(self, results):
        [run] = results["runs"]
        assert [*run["cases"]] == ["perceptron", "l2"]
        keys = {measure.key for measure in eager_tables.MEASURES}
        for side in ("jaxloss", "optax"):
            found = run["cases"]["perceptron"]["implementations"][side]["ms"]
            assert keys <= found.keys()
            assert all(len(ms) == 1 and ms[0] > 0 for ms in found.values())
            assert [len(ms) for ms in run["imports"][side].values()] == [1, 1]
        alone = run["cases"]["l2"]["implementations"]
        assert keys - alone["jaxloss"]["ms"].keys() == {"losses", "losses cpu"}
        assert "optax" not in alone

    def test_says_where_it_was(self, results):
        [run] = results["runs"]
        assert run["rounds"] == {
            "calls": 1,
            "compilations": 1,
            "first": 1,
            "imports": 1,
        }
        assert run["versions"].keys() >= {"jax", "optax"}

    def test_a_case_that_fails_is_told(self):
        """And what other parts found of it stays."""
        case = next(c for c in eager_cases.CASES if c.name == "perceptron")
        about = eager.described(case)
        found = about["implementations"]
        eager.put(found, lambda case: {"jaxloss": {"mean": [1.0]}}, case)
        eager.put(found, lambda case: {}["no such"], case)
        problems = record.problems({"runs": [{"cases": {case.name: about}}]})
        assert problems[0] == "perceptron, jaxloss: KeyError: 'no such'"
        assert found["jaxloss"]["ms"] == {"mean": [1.0]}


def given(ours, theirs):
    """A run of three cases: two with optax, of these rounds, and one without."""
    side = lambda ms: {"ms": {m.key: ms for m in eager_tables.MEASURES}}
    case = lambda peer, **sides: {"peer": peer, "implementations": sides}
    return {
        "device": "abacus",
        "cores": 1,
        "versions": {"jax": "0", "optax": "1"},
        "python": "3",
        "revision": "abc",
        "date": "2001-01-01T00:00:00",
        "load_before": 0.0,
        "load_after": 0.5,
        "imports": {
            "jaxloss": {"ms": [100.0, 120.0, 140.0], "cpu_ms": [90.0, 100.0, 110.0]},
            "optax": {"ms": [30.0, 40.0, 50.0], "cpu_ms": [30.0, 30.0, 30.0]},
        },
        "cases": {
            "slow": case("slow_loss", jaxloss=side(ours), optax=side(theirs)),
            "same": case("same_loss", jaxloss=side(theirs), optax=side(theirs)),
            "new": case("", jaxloss=side(ours)),
        },
    }


RUN = given(ours=[30.0, 40.0, 60.0], theirs=[10.0, 10.0, 10.0])


class TestTables:
    def test_ratios_are_medians_of_rounds(self):
        found = eager_tables.ratios(RUN, "mean")
        assert found == {
            "slow": numbers.Ratio(3.0, 4.0, 3.5, 5.0),
            "same": numbers.Ratio(1.0, 1.0, 1.0, 1.0),
        }

    def test_sums_are_over_the_cases_of_both(self):
        """40, 50 and 70 to 20 in each round."""
        assert eager_tables.total(RUN, "first") == (2.0, 2.5, 2.25, 3.0)

    def test_summary_says_what_is_reached(self):
        table = eager_tables.summary(RUN)
        [mean] = [x for x in table.splitlines() if "| call: their mean |" in x]
        assert "| 2.5 | 4 (slow) | – |" in mean
        assert "median 2.5 ≤ 1: missed by a factor of 2.5" in mean
        assert "worst 4 ≤ 2: missed by a factor of 2" in mean
        [first] = [x for x in table.splitlines() if "| first calls" in x]
        assert "| 2.5 (2.25–3) | summed 2.5 ≤ 1: missed" in first
        [imported] = [x for x in table.splitlines() if "`import jaxloss`" in x]
        assert "| 0.12 s (0.11–0.13), of CPU time 0.10 s |" in imported
        assert "seconds 0.12 ≤ 0.15: reached" in imported

    def test_summary_leaves_out_what_was_not_measured(self):
        """A run of losses that optax does not have has only its imports."""
        run = {**RUN, "cases": {"new": RUN["cases"]["new"]}}
        assert len(eager_tables.summary(run).splitlines()) == 3
        assert "| new | – |" in eager_tables.alone(run)

    def test_a_case_beside_optax_names_both(self):
        [row] = [x for x in eager_tables.beside(RUN).splitlines() if "slow" in x]
        assert row.startswith("| slow : `slow_loss` | 4 (3.5–5) |")
        assert "new" not in eager_tables.beside(RUN)

    def test_a_case_alone_is_in_units_of_optax(self):
        [row] = [x for x in eager_tables.alone(RUN).splitlines() if "new" in x]
        assert row.startswith("| new | 4 (3.5–5) |")

    def test_are_written_again_and_again(self, tmp_path):
        """On a page like the guide, whose text stays."""
        page = tmp_path / "speed.md"
        text = eager_tables.PAGE.read_text()
        page.write_text(text)
        eager_tables.write(RUN, page)
        written = page.read_text()
        assert "| slow : `slow_loss` |" in written
        eager_tables.write(RUN, page)
        assert page.read_text() == written
        prose = lambda text: re.sub(r"\n+", "\n", re.sub(r"(?m)^\|.*$", "", text))
        assert prose(written) == prose(text)


class TestCommand:
    def test_reads_an_earlier_run(self, tmp_path, capsys):
        path = tmp_path / "machine.json"
        record.save({"runs": [RUN]}, path)
        assert command.main(["eager", "--read", str(path)]) == 0
        assert "abacus, 1 cores, jax 0, optax 1" in capsys.readouterr().out

    def test_lists_the_cases(self, capsys):
        assert command.main(["eager", "--list"]) == 0
        assert capsys.readouterr().out.split("\n")[:-1] == NAMES

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--case", "no such"], "no case has 'no such' in its name"),
            (["--case", "huber", "--write"], "--write is for all cases"),
        ],
    )
    def test_refuses_what_cannot_be_met(self, arguments, message):
        with pytest.raises(SystemExit, match=message):
            command.main(["eager", *arguments])
