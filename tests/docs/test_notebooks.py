"""The notebooks run, and what is committed with them is what they print.

A notebook asserts its own claims in its cells; here it has to run without an error or
a warning.  Numbers may differ from the committed ones (another processor, another JAX),
the words around them may not.
"""

import pathlib
import re

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted(pathlib.Path(__file__).parents[2].glob("notebooks/*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?|[-+]?\b(?:nan|inf)\b")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(cell):
    """What a cell prints, without numbers and spaces, and how many pictures it has."""
    texts = [out.text for out in cell.outputs if out.output_type == "stream"]
    data = [out.data for out in cell.outputs if "data" in out]
    pictures = sum("image/png" in d for d in data)
    texts += [d["text/plain"] for d in data if "image/png" not in d]
    return re.sub(r"[\s#]+", " ", NUMBER.sub("#", "".join(texts))), pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_runs_as_committed(path, tmp_path):
    """Top to bottom, in an empty folder, in a fresh process."""
    committed = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    pairs = zip(code_cells(notebook), code_cells(committed), strict=True)
    for cell, before in pairs:
        warned = [o.text for o in cell.outputs if o.get("name") == "stderr"]
        assert not warned, f"{cell.source}\n{warned}"
        assert words(cell) == words(before), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_is_committed_as_executed(path):
    """Every code cell was run, once and in order, without an error or a warning."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    for cell in cells:
        assert not [o for o in cell.outputs if o.get("name") == "stderr"], cell.source
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.source


def test_all_ten_are_there():
    """They are numbered, so that they are read in order."""
    assert [name[:2] for name in NAMES] == [f"{i:02}" for i in range(1, 11)]
