"""The README is true: its examples run and its table has every loss."""

import inspect
import pathlib
import re

import jax

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


def test_table_has_every_public_function(subtests):
    """Each of them is in the README."""
    for name, value in vars(jaxloss).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            with subtests.test(name):
                assert f"`{name}`" in README or f"jaxloss.{name}" in README
