"""What programs move on a GPU and a TPU: counted right, and no more than it was."""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from bench import (
    __main__ as command,
    accelerators,
    compiled,
    compiled_cases,
    compiled_tables,
    hlo,
    record,
)
from bench.accelerators import ACCELERATORS
from bench.compiled_tables import EXCHANGED
from jaxloss import catalogue

ROOT = pathlib.Path(command.__file__).parent.parent
STEPS = compiled_cases.steps()


# --- what a text says ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bytes"),
    [
        ("f32[]", 4),
        ("pred[7]", 7),
        ("bf16[8192,4096]{1,0:T(8,128)(2,1)}", 2 * 8192 * 4096),
        ("f32[3,5]{1,0:T(8,128)}", 4 * 8 * 128),
        ("f32[3,500]{0,1:T(8,128)}", 4 * 504 * 128),  # the first axis is the fastest
        ("f32[2,3,5]{2,1,0:T(8,128)}", 4 * 2 * 8 * 128),
        ("s32[1500]{0:T(1024)}", 4 * 2048),
        ("f8e4m3fn[16]{0}", 16),
        ("s4[16]{0}", 8),
    ],
)
def test_bytes_of_an_array(kind, bytes):
    """A TPU fills tiles up."""
    assert [array.bytes for array in hlo.arrays(kind)] == [bytes]


def test_arrays_of_a_tuple():
    """Those of a TPU's vector memory are told apart."""
    kind = "(f32[2]{0:T(128)S(1)}, /*index=1*/(bf16[2]{0}, u32[]{:S(2)}))"
    found = [(array.dtype, array.on_chip) for array in hlo.arrays(kind)]
    assert found == [("f32", True), ("bf16", False), ("u32", True)]


def moved(entry, *others):
    """Of a program whose first computation has these lines."""
    head = "ENTRY %main (a: f32[1]) -> f32[1] {"
    return hlo.moved(hlo.parse("\n".join([*others, head, entry, "}"])))


KB = 4 * 256
READ_SLICE = """\
%sliced (p: f32[8,256], i: s32[]) -> f32[1,256] {
  %p = f32[8,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %same = f32[8,256]{1,0} bitcast(%p)
  ROOT %row = f32[1,256]{1,0} dynamic-slice(%same, %i), dynamic_slice_sizes={1,256}
}"""
WRITE_SLICE = """\
%updated (p: f32[8,256], r: f32[1,256], i: s32[]) -> f32[8,256] {
  %p = f32[8,256]{1,0} parameter(0)
  %r = f32[1,256]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %whole = f32[8,256]{1,0} dynamic-update-slice(%p, %r, %i)
}"""
BODY = """\
%body (t: (s32[], f32[8,256])) -> (s32[], f32[8,256]) {
  %t = (s32[], f32[8,256]{1,0}) parameter(0)
  %x = f32[8,256]{1,0} get-tuple-element(%t), index=1
  %i = s32[] get-tuple-element(%t), index=0
  %y = f32[8,256]{1,0} negate(%x)
  ROOT %next = (s32[], f32[8,256]{1,0}) tuple(%i, %y)
}
%condition (t: (s32[], f32[8,256])) -> pred[] {
  %t = (s32[], f32[8,256]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %n = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}"""
ARRAY = "  %a = f32[8,256]{1,0} parameter(0)\n  %i = s32[] parameter(1)\n"


class TestMoved:
    def test_a_kernel_reads_its_operands_once_and_writes_its_result(self):
        found = moved(f"{ARRAY}  ROOT %b = f32[8,256]{{1,0}} multiply(%a, %a)")
        assert found == hlo.Moved(bytes=2 * 8 * KB, kernels=1)

    def test_a_slice_counts_as_the_slice(self):
        call = "  ROOT %b = f32[1,256]{1,0} fusion(%a, %i), kind=kLoop, calls=%sliced"
        assert moved(ARRAY + call, READ_SLICE).bytes == 2 * KB + 4

    def test_an_update_in_place_counts_as_the_update(self):
        lines = """\
  %r = f32[1,256]{1,0} parameter(2)
  ROOT %b = f32[8,256]{1,0} fusion(%a, %r, %i), kind=kLoop, calls=%updated"""
        assert moved(ARRAY + lines, WRITE_SLICE).bytes == 2 * KB + 4

    @pytest.mark.parametrize(
        ("config", "trips"),
        [("", 5), (', backend_config={"known_trip_count":{"n":"3"}}', 3)],
    )
    def test_a_loop_counts_as_often_as_it_runs(self, config, trips):
        lines = """\
  %t = (s32[], f32[8,256]{1,0}) tuple(%i, %a)
  ROOT %w = (s32[], f32[8,256]{1,0}) while(%t), condition=%condition, body=%body"""
        found = moved(ARRAY + lines + config, BODY)
        # The negation, and the comparison of 4 bytes with 4 that makes 1.
        assert found == hlo.Moved(trips * (2 * 8 * KB + 9), 0, trips * 2)

    def test_a_loop_that_depends_on_data_is_told(self):
        body = BODY.replace("direction=LT", "direction=NE")
        lines = "  ROOT %w = (s32[]) while(%a), condition=%condition, body=%body"
        assert moved(ARRAY + lines, body).unknown_loops == 1

    def test_what_a_chip_keeps_is_not_moved(self):
        lines = """\
  %b = f32[8,256]{1,0:T(8,128)S(1)} negate(%a)
  ROOT %c = f32[8,256]{1,0:T(8,128)} negate(%b)"""
        assert moved(ARRAY + lines) == hlo.Moved(2 * 8 * KB, 2 * 8 * KB, 2)

    def test_a_copy_that_is_started_is_one_copy(self):
        lines = """\
  %s = (f32[8,256]{1,0:S(1)}, f32[8,256]{1,0}, u32[]{:S(2)}) copy-start(%a)
  ROOT %c = f32[8,256]{1,0:S(1)} copy-done(%s)"""
        assert moved(ARRAY + lines) == hlo.Moved(8 * KB, 8 * KB, 1)

    def test_room_for_a_library_is_not_moved(self):
        call = (
            "  ROOT %b = (f32[8,8]{1,0}, s8[4194304]{0}) custom-call(%a, %a), "
            'custom_call_target="__cublas$lt$matmul"'
        )
        assert moved(ARRAY + call).bytes == 8 * KB + 4 * 64

    def test_of_two_branches_the_dearer_one_counts(self):
        branch = lambda name, op: (
            f"""\
%{name} (p: f32[8,256]) -> f32[8,256] {{
  %p = f32[8,256]{{1,0}} parameter(0)
  ROOT %q = f32[8,256]{{1,0}} {op}(%p)
}}"""
        )
        lines = (
            "  ROOT %b = f32[8,256]{1,0} conditional(%i, %a, %a), "
            "branch_computations={%left, %right}"
        )
        found = moved(
            ARRAY + lines, branch("left", "negate"), branch("right", "bitcast")
        )
        assert found.bytes == 2 * 8 * KB


class TestProducts:
    def test_a_loop_multiplies(self):
        """5 products of (2, 3) and (3, 3): 2 operations for each of 18 terms."""

        def program(x, w):
            return jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)[0]

        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 3), (3, 3))]
        found = compiled.products(jax.make_jaxpr(jax.jit(program))(*shapes))
        assert found == {"default": 5 * 2 * 18}

    @pytest.mark.parametrize(
        ("dtype", "precision", "kind"),
        [
            ("bfloat16", "highest", "half"),
            ("float32", None, "default"),
            ("float32", "high", "high"),
            ("float32", "highest", "highest"),
        ],
    )
    def test_exact_ones_are_told_apart(self, dtype, precision, kind):
        shape = jax.ShapeDtypeStruct((4, 4), dtype)
        product = lambda x, y: jnp.matmul(x, y, precision=precision)
        assert [*compiled.products(jax.make_jaxpr(product)(shape, shape))] == [kind]


# --- the steps -----------------------------------------------------------------------


class TestSteps:
    def test_every_loss_is_there_in_both_dtypes(self):
        names = {step.name for step in STEPS}
        assert len(names) == len(STEPS)
        for entry in catalogue.entries():
            for dtype in compiled_cases.DTYPES:
                assert [n for n in names if n.startswith(entry.name) and dtype in n]

    @pytest.mark.parametrize(
        "step", [s for s in STEPS if s.kind != "bench"], ids=lambda step: step.name
    )
    def test_ours_is_a_number(self, step):
        """Of arguments of these shapes; those of the benchmark have a test there."""
        ours = [run for name, run in step.run.items() if name.startswith("jaxloss")]
        assert ours
        with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
            for run in ours:
                assert jax.eval_shape(run, *step.shapes).shape == ()

    def test_no_argument_fits_into_the_memory_of_a_chip(self):
        """Of 128 MiB: or what is moved says nothing of larger arrays."""
        size = lambda x: math.prod(x.shape) * x.dtype.itemsize
        for step in STEPS:
            if step.kind in ("elementwise", "rows", "searches", "vectors"):
                assert size(step.shapes[0]) > 2**27, step.name


# --- results and pages ---------------------------------------------------------------


def results(device):
    return record.read(command.compiled_path(device))["runs"][0]


@pytest.mark.parametrize("device", ["h200", "v5e"])
def test_the_page_is_that_of_the_results(device):
    """`python -m bench compiled --for DEVICE --read FILE --write` writes it."""
    page = ROOT / "docs" / f"compiled-{device}.md"
    expected = compiled_tables.document(results(device), f"{page.stem}.png")
    assert page.read_text() == expected
    assert page.with_suffix(".png").exists()


@pytest.fixture
def run():
    """One step, of which everything is known."""
    program = {"argument_bytes": 60, "output_bytes": 40, "kernels": 1}
    program |= {"compile_seconds": 1.0, "temp_bytes": 2**20}
    ours = program | {"moved_bytes": 200, "products": {"half": 4000}}
    about = {"kind": "elementwise", "args": [[[10], "float32"]]}
    theirs = program | {"moved_bytes": 400, "products": {"half": 1000}}
    case = about | {"implementations": {"jaxloss": ours, "optax": theirs}}
    return {
        "platform": "gpu",
        "bandwidth": 100.0,
        "peaks": {"half": 1000.0},
        "cases": {"a, float32": case},
    }


def test_a_few_cases_replace_those_of_the_file(run):
    """If the compilers are the same; other implementations stay."""
    ours = {"implementations": {"jaxloss": {"moved_bytes": 1}}}
    cases = {"a, float32": ours, "b": {"implementations": {}}}
    now = run | {"versions": {"jax": "1"}, "cases": cases}
    found = compiled.merged(run | {"versions": {"jax": "1"}}, now)["cases"]
    assert found["a, float32"]["implementations"]["jaxloss"] == {"moved_bytes": 1}
    assert "optax" in found["a, float32"]["implementations"]
    assert [*found] == ["a, float32", "b"]
    assert compiled.merged(run | {"versions": {"jax": "0"}}, now) == now


class TestTables:
    def test_the_roof_is_the_lower_one(self, run):
        """200 bytes take 2 seconds, 4000 operations 4; the least is 1 of both."""
        [row] = compiled_tables.rows(run, "elementwise")
        assert compiled_tables.roof(run, row.ours, 200) == (4.0, "products")
        assert compiled_tables.roof(run, row.baseline, 400) == (4.0, "memory")
        assert compiled_tables.share(run, row) == 1 / 4
        row.baseline["products"] = {}  # done otherwise, and not counted
        assert compiled_tables.share(run, row) == 1

    def test_a_bound_that_is_missed_is_named(self, run):
        text = compiled_tables.misses(run)
        assert "| a, float32 | × floor 2 ≤ 1.01: missed by 98 % |" in text
        assert "temp ÷ argument 2.62e+04 ≤ 0.001: missed by a factor of" in text


# --- compiled here -------------------------------------------------------------------


def test_a_compiler_that_is_not_installed_is_named(monkeypatch):
    """With what brings it, before anything is compiled."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"libtpu: not installed; .*\[accelerators\]"):
        command.main(["compiled", "--for", "v5e"])


PART = (
    *("quantile_huber", "sigmoid_focal", "general_robust, bfloat16"),
    *("smoothed ids, float32", "masked tokens, bfloat16", "nll, distributions"),
    *("cosine_distance, float32", "linear CE N2048 D512 V32768 bfloat16"),
    "pallas and xla (8192, 4096)",
    *("weston_watkins_hinge, bfloat16", "orpo, bfloat16", "cosine_embedding, bfloat16"),
    *("cumulative_probit, bfloat16", "knowledge_distillation, float32"),
)
"""Of the steps, what is compiled again by every run of the tests."""
EIGHT = (
    "sharded, FSDP linear CE, 8 devices",
    "sharded, siglip, 8 devices",
    "sharded, vocabulary parallel linear CE, 8 devices",
)
SHARDED_PART = {
    "h200": EIGHT,
    "v5e": ("sharded, vocabulary parallel softmax CE, 4 devices",),
}
"""And of those of several devices: a TPU's take 6 seconds each, a GPU's one."""

HEAD = "linear CE N2048 D512 V32768 bfloat16"
MISSED: dict[tuple[str, str], dict[str, float]] = {
    ("h200", f"{HEAD}, fast"): {"temp ×": 1.33},
    ("h200", f"{HEAD}, lean"): {"temp ×": 0.193},
    # Two softmaxes: both arrays are read for their largest logits, for their sums, and
    # for the result, where a cross entropy reads its labels twice.
    ("h200", "knowledge_distillation, float32"): {"× floor": 2.34},
    ("v5e", "knowledge_distillation, float32"): {"× floor": 2.34},
    ("v5e", "cosine_distance, float32"): {"× floor": 3.67},
    ("v5e", "cosine_embedding, bfloat16"): {"× floor": 3.67},
    ("v5e", "weston_watkins_hinge, bfloat16"): {"× floor": 2.51},
    ("v5e", f"{HEAD}, fast"): {"temp ×": 2.01},
    # Fast has 8 parts of the tokens here, and XLA adds up the gradient after each.
    ("h200", f"{EIGHT[0]}, fast, jit"): {EXCHANGED: 2.01},
    ("h200", f"{EIGHT[0]}, fast, explicit mesh"): {EXCHANGED: 2.01},
    # Blocks of a sharded batch are for `shard_map`.
    ("h200", f"{EIGHT[1]}, blocks, jit"): {EXCHANGED: 16.1},
}
"""By device and program, what is more than asked for today: no more than this."""


@pytest.fixture(scope="module", params=["h200", "v5e"])
def part(request, tmp_path_factory):
    """Compiled in a process of its own, which has no other device."""
    device = request.param
    if absent := accelerators.missing(ACCELERATORS[device]):
        pytest.skip(f"{' and '.join(absent)}: not installed; {accelerators.EXTRA}")
    out = tmp_path_factory.mktemp("compiled") / f"{device}.json"
    texts = PART + SHARDED_PART[device]
    chosen = [word for text in texts for word in ("--case", text)]
    options = ["--for", device, "--out", str(out), *chosen, "--peer", "jaxloss"]
    call = [sys.executable, "-m", "bench", "compiled", *options, "--peer", "optax"]
    subprocess.run(call, cwd=ROOT, check=True, env=dict(os.environ))
    return device, json.loads(out.read_text())["runs"][0]


class TestCompiledHere:
    def test_bounds_hold(self, part):
        """Bytes and temporary memory; what is missed has not grown."""
        device, run = part
        found = [
            (row.name, verdict)
            for kind in compiled_cases.KINDS
            for row in compiled_tables.rows(run, kind)
            for verdict in compiled_tables.verdicts(run, row)
        ]
        assert len(found) > 20
        most = lambda name, v: MISSED.get((device, name), {}).get(v.what, v.allowed)
        now = lambda name, v: v._replace(allowed=most(name, v))
        grown = [(name, str(v)) for name, v in found if not now(name, v).reached]
        assert not grown

    def test_the_count_is_that_of_the_compiler(self, part):
        """Of a TPU, which has one: without loops and copies in the background."""
        device, run = part
        if ACCELERATORS[device].platform != "tpu":
            pytest.skip("the compiler for a GPU does not count")
        for name in ("quantile_huber, float32", "sigmoid_focal, bfloat16"):
            found = run["cases"][name]["implementations"]["jaxloss"]
            both = found["moved_bytes"] + found["on_chip_bytes"]
            assert both == pytest.approx(found["bytes_accessed"], rel=1e-3)
