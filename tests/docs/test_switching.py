"""The guides for users of torch, Keras and optax give the expressions of the bench.

Neither torch nor Keras is needed: their numbers are in `bench/results/switching.json`,
which `python -m bench.switching --record` makes where they are installed.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench import switching
from bench.switching_rows import DATA, EDGES, KERAS, REDUCTIONS, TORCH

RECORDED = json.loads(switching.RECORD.read_text())
ROWS = [
    (library, row) for library in switching.LIBRARIES for row in switching.rows(library)
]
CELLS = r"^\| `(.*)` \| `(.*)` \| (.*) \|$"
EDGE_CELLS = r"^\| `(.*)` \| (.*) \| `(.*)` \| (.*) \|$"


def written(page, name, cells):
    """The rows of a table, read from its page."""
    _, rest = switching.PAGES[page].read_text().split(switching.mark(name))
    table = re.match(r"\s*((?:\|.*\n)*)", rest)
    assert table
    return re.findall(cells, table[1], re.M)


TABLES = [
    *[("torch", f"torch: {name}", group) for name, group in TORCH.items()],
    *[("keras", f"keras: {name}", group) for name, group in KERAS.items()],
    *[("reductions", f"reductions: {name}", rows) for name, rows in REDUCTIONS.items()],
]


def test_the_pages_have_the_rows_of_the_bench(subtests):
    """`python -m bench.switching --write` was run since the rows changed."""
    for page, name, group in TABLES:
        with subtests.test(name):
            found = written(page, name, CELLS)
            rows = [row[:2] for row in found]
            assert rows == [(row.theirs, row.ours) for row in group]
            differences = zip((row[2] for row in found), group, strict=True)
            assert not [d for d, row in differences if not is_as_stated(d, row.why)]


def is_as_stated(difference, why):
    """Whether a cell gives the reason of a difference, if it is not rounding."""
    return difference.endswith(why) if why else difference == "rounding"


def test_no_page_has_another_row(subtests):
    """What stands behind a mark is all there is in expressions side by side."""
    for page, path in switching.PAGES.items():
        with subtests.test(page):
            rows = re.findall(CELLS, path.read_text(), re.M)
            assert len(rows) == sum(len(group) for p, _, group in TABLES if p == page)
            edges = re.findall(EDGE_CELLS, path.read_text(), re.M)
            assert len(edges) == len(EDGES.get(page, []))


@pytest.fixture(scope="module")
def ours():
    """The value of every expression, in one program."""
    with jax.enable_x64(True):
        data = {name: jnp.asarray(x) for name, x in DATA.items()}
        every = lambda data: [
            eval(row.ours, switching.our_words(data)) for _, row in ROWS
        ]
        return [np.asarray(x).ravel() for x in jax.jit(every)(data)]


def test_ours_are_the_numbers_of_theirs(ours):
    """To rounding, or to the bound of a row that says why."""
    for (library, row), found in zip(ROWS, ours, strict=True):
        theirs = RECORDED[library]["rows"][row.theirs]["value"]
        assert found.shape == np.shape(theirs), row.theirs
        assert switching.error(found, theirs) <= switching.bound(library, row), row


@pytest.mark.parametrize("library", EDGES)
def test_edges_are_as_written(library):
    """Their values are the recorded ones, ours those of now."""
    found = written(library, f"{library}: edges", EDGE_CELLS)
    recorded = RECORDED[library]["edges"]
    assert [(f[0], f[2]) for f in found] == [(e.theirs, e.ours) for e in EDGES[library]]
    for theirs, old, ours, new in found:
        assert old == recorded[theirs]
        assert new == switching.our_edge(ours)


def test_the_record_is_of_these_rows(subtests):
    """Nothing is left in it of a row that is gone."""
    for library in switching.LIBRARIES:
        with subtests.test(library):
            rows = dict.fromkeys(row.theirs for row in switching.rows(library))
            assert [*RECORDED[library]["rows"]] == [*rows]


def test_optax_is_as_recorded():
    """What is always installed is evaluated anew."""
    row = REDUCTIONS["optax"][2]
    found = switching.their_values("optax", row)
    expected = RECORDED["optax"]["rows"][row.theirs]
    for part in ("value", "gradient"):
        assert switching.error(found[part], expected[part]) < 1e-14
