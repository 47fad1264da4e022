"""The README is true: its examples run and its table has every loss."""

import inspect
import pathlib
import re

import jax
import pytest

import jaxloss

README = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_examples_run():
    """The examples run in order, as in a reader's session."""
    session = {}
    with jax.enable_x64(False):
        for example in EXAMPLES:
            exec(compile(example, "README.md", "exec"), session)
    assert jax.tree.all(
        jax.tree.map(lambda x: bool(jax.numpy.isfinite(x).all()), session["gradient"])
    )


@pytest.mark.parametrize(
    "name",
    [n for n, f in vars(jaxloss).items() if inspect.isfunction(f) and n[0] != "_"],
)
def test_table_has(name):
    """Every public function is in the README."""
    assert f"`{name}`" in README or f"jaxloss.{name}" in README
