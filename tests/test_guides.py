"""The guides are true: their code runs, in order, and prints what stands beside it."""

import contextlib
import functools
import io
import pathlib
import re

import jax
import numpy as np
import pytest

from bench import naive
from bench.optax_edges import shown

DOCS = pathlib.Path(__file__).parents[1] / "docs"
GUIDES = ["quick-start", "which-loss", "reductions", "numerics"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
PRINTED = re.compile(r"^\s*print\(.*\)  # (\[?-?[\d.].*)$", re.MULTILINE)


@functools.cache
def printed(name):
    """What a reader sees who runs all code of a page, block after block."""
    seen, names = io.StringIO(), {}
    text = (DOCS / f"{name}.md").read_text()
    with jax.enable_x64(False), contextlib.redirect_stdout(seen):
        for block in BLOCK.findall(text):
            exec(compile(block, f"{name}.md", "exec"), names)
    return text, seen.getvalue().splitlines()


@pytest.mark.parametrize("name", GUIDES)
def test_code_runs(name):
    """What a page claims of numbers it asserts, or prints."""
    printed(name)


def test_the_quick_start_prints_what_it_says():
    """Numbers in the comment behind a `print`, to rounding."""
    text, lines = printed("quick-start")
    comments = PRINTED.findall(text)
    assert len(comments) == 4
    for comment, line in zip(comments, lines, strict=False):
        expected, found = (
            np.array(NUMBER.findall(x.split("]")[0]), float) for x in (comment, line)
        )
        np.testing.assert_allclose(found, expected, 1e-6)


def test_errors_are_quoted():
    """The messages in the comments are those that are raised."""
    text, lines = printed("quick-start")
    raised = [line for line in lines if "expected" in line]
    assert len(raised) == 2
    for message in raised:
        assert message in text.replace("\n# ", " ")


class TestNumerics:
    def test_the_table_of_naive_formulas_is_that_of_the_bench(self):
        """`python -m bench.naive --write docs/numerics.md` was run."""
        text, _ = printed("numerics")
        cells = r"^\| `(.*)` \| (.*) \| (.*) \| (.*) \| `(.*)` \|$"
        rows = re.findall(cells, text, re.M)
        assert [(r[0], r[2], r[4]) for r in rows] == [
            (row.naive, shown(row.truth), row.ours) for row in naive.ROWS
        ]
        for typed, wrong, _, right, called in rows:
            assert wrong == shown(naive.value(typed)), typed
            assert right == shown(naive.value(called)), called

    def test_ours_are_true_and_naive_ones_are_not(self):
        """Within ulps; and without one digit that is right."""
        for row in naive.ROWS:
            truth = np.float32(row.truth)
            error = np.abs(naive.value(row.ours) - truth)
            assert (error <= row.ulps * np.spacing(np.abs(truth))).all(), row
            wrong = naive.value(row.naive)
            assert not (np.abs(wrong - truth) <= 0.9 * np.abs(truth)).all() or (
                not np.isfinite(wrong).all()
            ), row

    def test_the_errors_are_those_of_the_readme(self):
        """One table, on two pages."""
        head = "| | value | gradient | second derivative |"
        text, readme = printed("numerics")[0], (DOCS.parent / "README.md").read_text()
        tables = [x[x.index(head) :].split("\n\n")[0] for x in (text, readme)]
        assert tables[0] == tables[1]
