"""The README is true: its examples print what it says, and it has every loss."""

import contextlib
import inspect
import io
import pathlib
import re

import jax
import mpmath
import numpy as np

import jaxloss
from bench import tail
from jaxloss import catalogue

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
HOME = (ROOT / "docs" / "index.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_examples_run():
    """The examples run in order, as in a reader's session, and print what they say."""
    session, printed = {}, io.StringIO()
    with jax.enable_x64(False), contextlib.redirect_stdout(printed):
        for example in EXAMPLES:
            exec(compile(example, "README.md", "exec"), session)
    assert jax.tree.all(
        jax.tree.map(lambda x: bool(jax.numpy.isfinite(x).all()), session["gradient"])
    )
    comments = re.findall(r"^print\(.*\)  # (.*)$", README, re.M)
    assert printed.getvalue().splitlines() == comments == ["[0.]", "[2.0611537e-09]"]


def test_the_home_page_begins_with_the_same_example():
    """One example, and one number of losses, on both pages."""
    assert EXAMPLES[0] in HOME
    for page in (README, HOME):
        counts = re.findall(r"(\d+) losses\b", page)
        assert {*map(int, counts)} == {len(catalogue.entries())}


def test_table_has_every_public_function(subtests):
    """Each of them is in the README."""
    for name, value in vars(jaxloss).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            with subtests.test(name):
                assert f"`{name}`" in README or f"jaxloss.{name}" in README


def test_the_picture_shows_the_truth_and_what_is_missing_of_it():
    """log(1 + exp(-x)) to a few ulps, where optax has 0 from 14.5 on."""
    with jax.enable_x64(False):
        found = tail.losses()
    with mpmath.workdps(40):
        truth = [float(mpmath.log1p(mpmath.exp(-float(x)))) for x in found["x"]]
    ulp = np.spacing(np.asarray(truth, np.float32))
    assert (np.abs(found["jaxloss"] - truth) <= 2 * ulp).all()
    assert (found["optax"][found["x"] >= 14.5] == 0).all()
    assert (found["optax"][found["x"] < 14.5] > 0).all()
    assert "x = 14.5" in README.replace("\n", " ")
    picture = re.search(r"!\[[^]]*\]\((.*?)\)", README)
    assert picture
    assert (ROOT / picture[1]).is_file()
