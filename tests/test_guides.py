"""The guides are true: their code runs, in order, and prints what stands beside it."""

import contextlib
import functools
import io
import pathlib
import re

import jax
import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
GUIDES = ["quick-start", "which-loss", "reductions"]
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
