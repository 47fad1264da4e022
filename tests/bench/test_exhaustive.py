"""The bench of every float: what it judges, that it sees faults, and what was written.

No sweep here is of all floats: those results are in `bench/results`.
"""

import dataclasses
import inspect
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from bench import __main__ as command, exhaustive as bench, record
from jaxloss import stable
from jaxloss.stable import scalars
from jaxloss.testing import exhaustive

ROOT = pathlib.Path(__file__).parent.parent.parent
PATH = record.RESULTS / "amd-epyc-2-cores-exhaustive.json"
[RUN] = record.read(PATH)["runs"]
FOUND = RUN["functions"]
EPS = 2.0**-23


def bits(x: float) -> int:
    return int(np.float32(x).view(np.uint32))


def blocks_at(*numbers: float, size: int = 2**10) -> list[range]:
    starts = (bits(x) // size * size for x in numbers)
    return [range(start, start + size) for start in starts]


def swept(question: exhaustive.Question, at: float) -> dict:
    [numbers] = blocks_at(at)
    return exhaustive.summary(question, exhaustive.sweep(question, numbers))


class TestForms:
    def test_every_function_of_one_number_has_one(self):
        unary = {
            name
            for name, fn in vars(stable).items()
            if getattr(fn, "__module__", "") == scalars.__name__
            and len(inspect.signature(fn).parameters) == 1
        }
        assert unary == bench.FUNCTIONS.keys()

    @pytest.mark.parametrize("name", bench.FUNCTIONS)
    def test_are_right(self, name):
        """To 2^-45, by mpmath, where they were found and at random."""
        at = [x for what in ("value", "slope") for x in FOUND[name][what]["at"]]
        x = np.concatenate([np.array(at, np.float32), bench.sample(60, seed=1)])
        error, _ = bench.form_error(name, x)
        assert error < bench.BOUND

    def test_one_that_is_off_is_refused(self, monkeypatch):
        """By one part in 2^40, at the inputs that a sweep says are the worst."""
        tanh = bench.FUNCTIONS["tanh"]
        value = lambda x: tanh.value(x) * (1 + 2.0**-40)
        bent = dataclasses.replace(tanh, value=value)
        monkeypatch.setitem(bench.FUNCTIONS, "tanh", bent)
        question = bench.question("tanh")
        state = exhaustive.sweep(question, *blocks_at(0.3))
        with pytest.raises(ArithmeticError, match="form of tanh is off by 9"):
            bench.check("tanh", question, state)


class TestSweep:
    def test_finds_the_recorded_worst_input(self):
        """Of sigmoid at -4.157294: 2.40 ulp."""
        found = swept(bench.question("sigmoid"), -4.157294)
        assert found["value"]["at"] == FOUND["sigmoid"]["value"]["at"]
        recorded = FOUND["sigmoid"]["value"]["ulps"]
        assert found["value"]["ulps"] == pytest.approx(recorded)

    @pytest.mark.parametrize("what", ["value", "slope"])
    def test_finds_one_float_that_is_off(self, what):
        """Of magnitude, which is exact: by an ulp at 1.25, in one of its results."""
        grown = jnp.float32(1.25) * jnp.float32(1 + EPS)

        @jax.custom_jvp
        def bent(x):
            exact = jnp.abs(x)
            return jnp.where(x == 1.25, grown, exact) if what == "value" else exact

        @bent.defjvp
        def _(primals, tangents):
            slope = jnp.sign(primals[0]) * tangents[0]
            off = jnp.where(primals[0] == 1.25, 1 + EPS, 1).astype(jnp.float32)
            return bent(*primals), slope * off if what == "slope" else slope

        found = swept(bench.question("magnitude", bent), 1.25)
        assert found[what]["ulps"] == 1
        assert found[what]["at"] == [1.25]
        assert found[what]["above"]["0.5"] == 1
        assert found["slope" if what == "value" else "value"]["ulps"] == 0

    def test_finds_a_nan_that_is_lost(self):
        """And an infinity that is not one."""
        lossy = lambda x: jnp.where(jnp.isfinite(x), jnp.abs(x), 7.0)
        found = swept(bench.question("magnitude", lossy), math.inf)["value"]
        assert found["special"] == 0
        assert found["special_off"] == 2**10

    def test_finds_a_finite_number_made_nan(self):
        spoilt = lambda x: jnp.where(x == 1.25, jnp.nan, jnp.abs(x))
        found = swept(bench.question("magnitude", spoilt), 1.25)["value"]
        assert (found["ulps"], found["at"]) == (math.inf, [1.25])

    def test_flushed_numbers_have_a_class(self):
        """A zero is none in ulps near the smallest normal number; far above it is."""
        zero = lambda x: 0 * x
        near = swept(bench.question("magnitude", zero), 2.0**-120)["value"]
        far = swept(bench.question("magnitude", zero), 2.0**-100)["value"]
        assert (near["flushed"], near["ulps"]) == (2**10, 0)
        assert far["flushed"] == 0
        assert far["ulps"] >= 2**23

    def test_subnormal_inputs_have_a_class(self):
        """They are judged by what they are, but count in no ulps."""
        numbers = range(2**10, 2**11)
        zero = bench.question("magnitude", lambda x: 0 * x)
        found = exhaustive.summary(zero, exhaustive.sweep(zero, numbers))
        assert found["value"]["unread"] == 2**10
        assert found["slope"]["unread_off"] == 2**10
        assert found["slope"]["ulps"] == 0

    def test_refuses_parts_of_chunks(self):
        with pytest.raises(ValueError, match="whole chunks of 512"):
            exhaustive.sweep(bench.question("magnitude"), range(700), chunk=512)


def small(name: str) -> dict[str, exhaustive.Question]:
    """The 2^12 smallest floats of a function."""
    return {name: dataclasses.replace(bench.question(name), inputs=2**12)}


class TestRun:
    def test_goes_on_where_it_was_stopped(self, tmp_path):
        """To the same counts, with only what was left to do."""
        part, numbers = tmp_path / "part.json", range(bits(1.0), bits(1.0) + 2**12)
        question, moved = bench.question("sigmoid"), []

        def stop(count):
            moved.append(count)
            if len(moved) == 1:
                raise KeyboardInterrupt

        measure = lambda move, part: bench.measured(
            question, part, move, numbers, chunk=2**10
        )
        with pytest.raises(KeyboardInterrupt):
            measure(stop, part)
        done = len(record.read(part)["done"])
        assert 1 <= done < 4
        resumed = measure(stop, part)
        assert len(moved) == 1 + 4 - done
        at_once = measure(lambda count: None, tmp_path / "other.json")
        for what in ("value", "slope"):
            assert resumed[what] == at_once[what]

    def test_another_function_begins_anew(self, tmp_path):
        part, numbers = tmp_path / "part.json", range(2**12)
        run = lambda fn: bench.measured(
            bench.question("magnitude", fn), part, numbers=numbers
        )
        assert run(None)["value"]["special_off"] == 0
        assert run(lambda x: x * jnp.nan)["value"]["unread_off"] == 2**12 - 1

    def test_keeps_the_results_of_other_functions(self, tmp_path):
        """And leaves no parts behind."""
        path = tmp_path / "machine.json"
        for name in ("magnitude", "sqrt"):
            bench.run(small(name), path)
        [run] = record.read(path)["runs"]
        assert [*run["functions"]] == ["magnitude", "sqrt"]
        assert run["functions"]["sqrt"]["value"]["inputs"] == 2**12
        assert [*tmp_path.iterdir()] == [path]

    def test_the_command(self, tmp_path, monkeypatch, capsys):
        """Sweeps what is named, prints a table and writes it on a page."""
        page = tmp_path / "page.md"
        page.write_text(f"before\n\n{bench.MARK}\n\n| old |\n\nafter\n")
        monkeypatch.setattr(bench, "PAGE", page)
        monkeypatch.setattr(bench, "questions", lambda: small("magnitude"))
        out = str(tmp_path / "machine.json")
        assert command.main(["exhaustive", "magnitude", "--out", out, "--write"]) == 0
        assert "| `magnitude`, value | 0.00 |" in capsys.readouterr().out
        written = page.read_text()
        assert "| `magnitude`, slope | 0.00 |" in written
        assert "old" not in written
        assert written.endswith("\n\nafter\n")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["cosh"], "no function is called 'cosh'; there are log1p, expm1,"),
        ],
    )
    def test_the_command_refuses(self, arguments, message):
        with pytest.raises(SystemExit, match=message):
            command.main(["exhaustive", *arguments])


class TestPairs:
    @pytest.mark.parametrize("name", exhaustive.PAIRS)
    def test_losses_are_accurate(self, name):
        """On a sample: all first arguments, with one target or both labels."""
        labelled = exhaustive.PAIRS[name].labelled
        start = 0 if labelled else 0x3FC0 << 16  # 1.5
        found = exhaustive.pairs(
            name, getattr(jaxloss, name), numbers=range(start, start + 2**17)
        )
        value, gradient = exhaustive.PAIRS[name].bounds
        assert found["value"]["ulps"] <= value
        assert found["gradient"]["ulps"] <= gradient
        for result in found.values():
            assert result["inputs"] == 2**17
            assert result["special_off"] == result["tiny_off"] == 0
            assert result["special"] >= 254 * (1 + labelled)

    def test_finds_one_pair_that_is_off(self):
        """With a hyperparameter, as a loss has it."""
        at = 2.5

        def bent(p, t, delta):
            off = jnp.where((p == at) & (t == 1.5), 1 + 2.0**-7, 1)
            return off.astype(jnp.float32) * jaxloss.huber(p, t, delta=delta)

        start = 0x3FC0 << 16
        numbers = range(start, start + 2**16)
        found = exhaustive.pairs("huber", bent, numbers=numbers, delta=2.0)
        assert found["value"]["at"] == [at, 1.5]
        assert found["value"]["ulps"] == 2**16
        assert found["gradient"]["at"] == [at, 1.5]

    def test_nothing_is_said_of_the_sign_of_a_subnormal_difference(self):
        """1.18468e-38 less 2^-126 may be 0, and its sign, which is 128 ulps off."""
        found = exhaustive.pairs(
            "absolute_error",
            jaxloss.absolute_error,
            numbers=range(0x0080 << 16, (0x0080 << 16) + 2**16),
        )
        assert found["gradient"]["ulps"] == 0
        assert found["gradient"]["free"] >= 127

    def test_labels_are_all_there_is(self):
        assert exhaustive.pair_question("huber", jaxloss.huber).inputs == 2**32
        focal = exhaustive.pair_question("sigmoid_focal", jaxloss.sigmoid_focal)
        assert focal.inputs == 2**17


# Of which primitive the derivative is the second derivative of another one.
DERIVATIVES = {
    **dict.fromkeys(("sigmoid", "sigmoid_less_half"), "sigmoid_slope"),
    **dict.fromkeys(("softplus", "log_sigmoid"), "sigmoid"),
    **dict.fromkeys(("log1p_exp", "log1p_exp_opaque"), "sigmoid"),
    "tanh": "sech2",
    "log_cosh": "tanh",
}


def are_of_every_float(name):
    """All are counted; no infinity, no NaN and no tiny number is off."""
    for what in ("value", "slope"):
        found = FOUND[name][what]
        counts = [found[key] for key in ("inputs", "special_off", "tiny_off")]
        assert counts == [2**32, 0, 0], what


def are_against_a_form_that_is_exact(name):
    """To 45 bits at least."""
    assert (FOUND[name]["form"]["bits"] or 53) > 45


def are_those_of_the_docstring(name):
    """Rounded up."""
    expected = [math.ceil(FOUND[name][what]["ulps"]) for what in ("value", "slope")]
    doc = " ".join((getattr(stable, name).__doc__ or "").split())
    bounds = r"At most (\d+) ulp over all floats, the derivative (\d+)\b"
    stated = re.findall(bounds, doc)
    if expected == [0, 0]:
        assert "exact over all floats" in doc
    else:
        assert stated == [tuple(map(str, expected))]


def are_those_of_the_second_derivative(name):
    """Which is the derivative of another primitive."""
    if name in DERIVATIVES:
        doc = getattr(stable, name).__doc__ or ""
        [stated] = re.findall(r"the second one (\d+)\.", doc)
        assert int(stated) == math.ceil(FOUND[DERIVATIVES[name]]["slope"]["ulps"])


OF_A_FUNCTION = (
    are_of_every_float,
    are_against_a_form_that_is_exact,
    are_those_of_the_docstring,
    are_those_of_the_second_derivative,
)


class TestResults:
    def test_are_of_every_function(self):
        assert FOUND.keys() == bench.FUNCTIONS.keys() >= DERIVATIVES.keys()

    @pytest.mark.parametrize("name", bench.FUNCTIONS)
    def test_of_a_function(self, subtests, name):
        """They are complete and what is written; every complaint is listed."""
        for check in OF_A_FUNCTION:
            with subtests.test(check.__name__.replace("_", " ")):
                check(name)

    def test_the_table_is_that_of_the_guide(self):
        """`python -m bench exhaustive --read … --write` was run."""
        assert f"{bench.MARK}\n\n{bench.table(RUN)}\n\n" in bench.PAGE.read_text()

    def test_the_row_of_primitives_is_the_largest(self):
        [row] = re.findall(r"^\| primitives.*$", bench.PAGE.read_text(), re.M)
        largest = lambda what, names: max(FOUND[name][what]["ulps"] for name in names)
        expected = [
            largest("value", FOUND),
            largest("slope", FOUND),
            largest("slope", ("sigmoid", "tanh", "sigmoid_slope", "sech2")),
        ]
        cells = [float(cell) for cell in row.split("|")[2:5]]
        assert cells == [math.ceil(10 * x) / 10 for x in expected]
