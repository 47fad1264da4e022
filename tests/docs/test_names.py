"""Every name of the other libraries has an expression here, or a reason."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from bench import names, switching

RECORDED = json.loads(switching.RECORD.read_text())
LIBRARIES = {library.title: library for library in names.libraries()}
# Words of the reasons that are neither: other modules, and arguments.
KNOWN = {"jax", "jnp", "arccos", "predictions", "pos_weight", "weights"}
HERE = [(t, n) for t, library in LIBRARIES.items() for n in library.names if n.here]


def test_no_row_is_empty():
    """A name stands once in its library, with an expression or with a reason."""
    for title, library in LIBRARIES.items():
        every = [name.name for name in library.names]
        assert len({*every}) == len(every), title
        assert not [n.name for n in library.names if not (n.here or n.why)]
    assert sum(len(library.names) for library in LIBRARIES.values()) >= 420


def test_optax_and_keras_are_complete():
    """As they are installed, or recorded."""
    of_optax = {n.name for n in LIBRARIES["optax.losses 0.2.8"].names}
    known = vars(optax.losses).items()
    assert of_optax == {n for n, fn in known if callable(fn) and not n.startswith("_")}
    of_keras = {n.number.split("(")[0] for n in LIBRARIES["keras.losses 3.15.1"].names}
    recorded = RECORDED["keras"]["rows"]
    functions = {r.split("(")[0] for r in recorded if re.match("[a-z]", r)}
    assert of_keras == functions


def test_reasons_name_what_there_is():
    """What is in backquotes is a function here, or a name of the page."""
    rows = {n.name for library in LIBRARIES.values() for n in library.names}
    for library in LIBRARIES.values():
        for name in library.names:
            for word in re.findall(r"`(\w+)\(?[^`]*`", name.why):
                assert word in rows | KNOWN or hasattr(jaxloss, word)


@pytest.fixture(scope="module")
def ours():
    """The value of every expression, in one program."""
    # As a reader has it, whose expressions may broadcast.
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        arrays = {key: jnp.asarray(x) for key, x in names.data().items()}
        every = lambda arrays: [names.ours(name, arrays) for _, name in HERE]
        return [np.asarray(x).ravel() for x in jax.jit(every)(arrays)]


def test_expressions_are_the_losses_of_the_others(ours, subtests):
    """To rounding, or to the bound of a row that says why."""
    for (title, name), found in zip(HERE, ours, strict=True):
        with (
            subtests.test(f"{title}: {name.name}"),
            jax.enable_x64(True),
            jax.numpy_rank_promotion("allow"),
        ):
            truth = names.theirs(name, RECORDED).ravel()
            assert found.shape == truth.shape
            assert switching.error(found.tolist(), truth.tolist()) <= name.within


def test_a_bound_beyond_rounding_has_a_reason():
    """And none is wider than a relative 1e-2."""
    for _, name in HERE:
        wide = name.within > 1e-6
        assert name.within <= 1e-2
        assert name.why or not wide, name


def test_the_page_is_written():
    """`python -m bench.names --write` was run since a row changed."""
    assert names.PAGE.read_text(encoding="utf-8") == names.page()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A 1\n\nx\nhre: 1", "has other lines"),
        ("A 1\n\nx\nhere: 1\nhere: 2", "has other lines"),
    ],
)
def test_a_file_with_other_lines_is_refused(tmp_path, text, message):
    """A line that is misspelt or twice there would be lost."""
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        names._read(path)
