"""Steps that devices share: what they compute, and what their programs exchange."""

import os
import pathlib
import subprocess
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench import compiled, compiled_sharded, compiled_tables, hlo, textbook
from bench.accelerators import ACCELERATORS
from jaxloss.testing import tolerance
from tests.bench.test_compiled import ARRAY, BODY, KB

ROOT = pathlib.Path(__file__).parents[2]
EIGHT = compiled_sharded.steps([8])
SMALL = compiled_sharded.Sizes(16, features=8, classes=32, components=4)

# --- what a text says ----------------------------------------------------------------


def collectives(entry, *others):
    """Of a program whose first computation has these lines."""
    head = "ENTRY %main (a: f32[1]) -> f32[1] {"
    return hlo.collectives(hlo.parse("\n".join([*others, head, entry, "}"])))


LOOP = BODY.replace("negate(%x)", "all-reduce(%x), channel_id=1, to_apply=%sum")
SCATTER = """\
%all-reduce-scatter.1 (p: f32[8,256]) -> f32[2,256] {
  %p = f32[8,256]{1,0} parameter(0)
  %i = s32[] constant(0)
  %sum = f32[8,256]{1,0} all-reduce(%p), channel_id=2, to_apply=%add
  ROOT %mine = f32[2,256]{1,0} dynamic-slice(%sum, %i, %i)
}"""


def part(name):
    return f"""\
%{name} (p: f32[8,256]) -> f32[32,256] {{
  %p = f32[8,256]{{1,0}} parameter(0)
  ROOT %all = f32[32,256]{{1,0}} all-gather(%p), channel_id=3, dimensions={{0}}
}}"""


class TestCollectives:
    def test_what_is_larger_counts(self):
        """The result of a gather, what is given of a sum that is scattered."""
        lines = """\
  %b = f32[32,256]{1,0} all-gather(%a), channel_id=1, dimensions={0}
  ROOT %c = f32[2,256]{1,0} reduce-scatter(%a), channel_id=2, to_apply=%sum"""
        expected = [
            hlo.Collective("all-gather", 32 * KB, 1),
            hlo.Collective("reduce-scatter", 8 * KB, 1),
        ]
        assert collectives(ARRAY + lines) == expected

    def test_in_a_loop_as_often_as_it_runs(self):
        lines = """\
  %t = (s32[], f32[8,256]{1,0}) tuple(%i, %a)
  ROOT %w = (s32[], f32[8,256]{1,0}) while(%t), condition=%condition, body=%body"""
        found = collectives(ARRAY + lines, LOOP)
        assert found == [hlo.Collective("all-reduce", 8 * KB, 5)]

    @pytest.mark.parametrize(
        ("start", "kind", "size"),
        [
            ("(f32[8,256]{1,0}, f32[32,256]{1,0}) all-gather", "all-gather", 32),
            ("f32[8,256]{1,0} all-reduce", "all-reduce", 8),
            (
                "(f32[8,256]{1,0}, f32[8,256]{1,0}, u32[], u32[]) collective-permute",
                "collective-permute",
                8,
            ),
        ],
    )
    def test_one_that_is_started_is_one(self, start, kind, size):
        lines = f"""\
  %s = {start}-start(%a), channel_id=1
  ROOT %d = f32[8,256]{{1,0}} {kind}-done(%s)"""
        assert collectives(ARRAY + lines) == [hlo.Collective(kind, size * KB, 1)]
        head = "ENTRY %main (a: f32[1]) -> f32[1] {"
        found = hlo.moved(hlo.parse("\n".join([head, ARRAY + lines, "}"])))
        assert found.bytes == (8 + size) * KB
        assert found.kernels == 1

    def test_a_sum_of_which_a_part_is_kept_is_scattered(self):
        """A TPU's: in a kernel that has the name of both."""
        call = "  ROOT %b = f32[2,256]{1,0} fusion(%a), calls=%all-reduce-scatter.1"
        found = collectives(ARRAY + call, SCATTER)
        assert found == [hlo.Collective("reduce-scatter", 8 * KB, 1)]

    def test_one_in_the_background_is_in_two_kernels(self):
        """In the one that starts it and in the one that waits for it."""
        lines = """\
  %s = f32[32,256]{1,0} fusion(%a), calls=%start
  ROOT %d = f32[32,256]{1,0} fusion(%a), calls=%done"""
        found = collectives(ARRAY + lines, part("start"), part("done"))
        assert found == [hlo.Collective("all-gather", 32 * KB, 1)]

    def test_they_are_added_up_by_kind(self):
        lines = """\
  %b = f32[8,256]{1,0} all-reduce(%a), channel_id=1, to_apply=%sum
  %d = f32[4,256]{1,0} all-gather(%i), channel_id=3, dimensions={0}
  ROOT %c = f32[1,256]{1,0} all-reduce(%i), channel_id=2, to_apply=%sum"""
        head = "ENTRY %main (a: f32[1]) -> f32[1] {"
        module = hlo.parse("\n".join([head, ARRAY + lines, "}"]))
        assert compiled.exchanged(module) == {
            "collectives": {
                "all-gather": {"count": 1, "bytes": 4 * KB},
                "all-reduce": {"count": 2, "bytes": 9 * KB},
            },
            "most_exchanged_bytes": 8 * KB,
            "most_gathered_bytes": 4 * KB,
        }


# --- the table -----------------------------------------------------------------------


def run_of(gathered, exchanged):
    """A step whose largest exchanges have so many bytes, and its logits 1000."""
    program = {"moved_bytes": 2**21, "temp_bytes": 2**20, "argument_bytes": 1}
    program |= {"output_bytes": 1, "most_exchanged_bytes": exchanged}
    program |= {"collectives": {"all-gather": {"count": 3, "bytes": 2**22}}}
    program["most_gathered_bytes"] = gathered
    about = {"kind": "sharded", "args": [[[1], "float32"]], "logits_bytes": 1000}
    case = about | {"devices": 4, "implementations": {"jaxloss jit": program}}
    return {"platform": "tpu", "cases": {"sharded, a, 4 devices": case}}


def test_exchanged_logits_are_a_bound_that_is_missed():
    """Gathered at once, or piece by piece; and half as much is neither."""
    text = compiled_tables.misses(run_of(1000, 1000))
    assert "a, 4 devices, jit | largest gather ÷ logits 1 ≤ 0.5: missed" in text
    text = compiled_tables.misses(run_of(10, 1000))
    assert "a, 4 devices, jit | largest exchange ÷ logits 1 ≤ 0.5: missed" in text
    assert "gather" not in text
    assert "None." in compiled_tables.misses(run_of(500, 500))


def test_the_section_says_what_is_exchanged():
    run = run_of(120, 250)
    row = (
        "| a, 4 devices, jit | 1.00 : – | 2.00 : – | 3 all-gather 4.00 | 0.12 | 0.25 |"
    )
    assert row in compiled_tables.sharded(run)
    assert not compiled_tables.sharded(run | {"cases": {}})


# --- what the steps compute ----------------------------------------------------------


def test_there_are_steps_for_each_number_of_devices():
    """That is a mesh: one device exchanges nothing."""
    for accelerator in ACCELERATORS.values():
        steps = compiled_sharded.steps(accelerator.meshes)
        assert len({step.name for step in steps}) == len(steps)
        assert {step.devices for step in steps} == {*accelerator.meshes} - {1}


def arguments(step):
    """Numbers in the place of shapes; a mask that is not the same for each device."""
    rng = np.random.default_rng(0)

    def draw(x):
        if x.dtype == jnp.float32:
            return np.asarray(rng.normal(size=x.shape), np.float32)
        return np.asarray(
            rng.integers(0, 2 if x.dtype == bool else 32, x.shape), x.dtype
        )

    return jax.tree.map(draw, step.args)


def expected(step, params, batch):
    """By the textbook, in float64, on one device."""

    def of_model(params):
        h = jnp.tanh(batch["x"].astype(float) @ params["body"])
        losses = textbook.linear(h, params["head"], batch["ids"])
        return jnp.sum(losses * batch["mask"]) / jnp.sum(batch["mask"])

    def of_clip(params):
        return jnp.mean(textbook.clip(params["first"], params["second"]))

    def of_siglip(params):
        unit = lambda x: x / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))
        scores = unit(params["first"]) @ unit(params["second"]).T / 0.1 - 10
        signs = 2 * jnp.eye(len(scores)) - 1
        return jnp.mean(jnp.sum(jnp.log(1 + jnp.exp(-signs * scores)), axis=1))

    formula = of_model
    if "first" in params:
        formula = of_siglip if "siglip" in step.name else of_clip
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, float), params)
        return jax.tree.map(np.asarray, jax.value_and_grad(formula)(wide))


def check(name):
    """Every program of a step computes the loss and the gradient of its formula."""
    make = compiled_sharded.of_tokens
    if name in compiled_sharded.OF_PAIRS:
        make = compiled_sharded.of_batch
    step = make(name, 8, SMALL)
    args = arguments(step)
    want = expected(step, *args)
    for program in step.run:
        traced = step.trace(program, jax.devices())
        compiled_ = traced.lower().compile()
        placed = jax.device_put(args, compiled_.input_shardings[0])
        found = compiled_(*placed)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
            bound = 8 * tolerance(np.float32) * np.linalg.norm(y)
            assert np.linalg.norm(np.asarray(x) - y) <= bound, (program, x, y)


def eight_devices():
    """Runs every check, and prints what went wrong."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    for name in (*compiled_sharded.OF_TOKENS, *compiled_sharded.OF_PAIRS):
        try:
            check(name)
        except Exception:
            print(name)
            traceback.print_exc(file=sys.stdout)
    print("done")


def test_every_program_computes_its_formula():
    """On eight devices, which need a process of their own."""
    code = "from tests.bench import test_compiled_sharded as t; t.eight_devices()"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "done\n", done.stdout + done.stderr
