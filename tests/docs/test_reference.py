"""The API reference has a page for every public name."""

import importlib
import pathlib
import re

import optax
import pytest

import jaxloss
from docs import _edges, _reference
from jaxloss import catalogue, stable
from jaxloss.claims import SPECS

ROOT = pathlib.Path(__file__).parents[2]
PAGES = {
    _reference.address(module, name)
    for module in _reference.modules()
    for name in _reference.public(module)
}


def test_every_loss_and_every_adapter_has_a_page():
    """What `jaxloss` exports, and the names of other libraries that are those here."""
    exported = {
        f"jaxloss.{name}"
        for name, value in vars(jaxloss).items()
        if callable(value) and not name.startswith("_")
    }
    adapters = {
        f"jaxloss.compat.optax.{name}"
        for name, value in vars(optax.losses).items()
        if callable(value) and not name.startswith("_")
    }
    assert len(adapters) == 32
    assert exported | adapters <= PAGES
    assert (
        len([name for name in PAGES if name.startswith("jaxloss.compat.keras.")]) == 22
    )


def test_the_index_has_every_name_of_a_loss():
    """So that the search puts its page first; the page has them in words, too."""
    page = _reference.name_page("jaxloss.sigmoid_cross_entropy")
    for name in ("sigmoid_cross_entropy", "sigmoid cross entropy", "BCE", "log loss"):
        assert f"   ! single: {name}\n" in page
    assert "   ! single: IoU\n" in _reference.name_page("jaxloss.jaccard")
    assert ".. index::" not in _reference.name_page("jaxloss.stable.softplus")
    for entry in catalogue.entries():
        page = _reference.name_page(f"jaxloss.{entry.name}")
        assert not [n for n in entry.also_called if f" ! single: {n}\n" not in page]
        assert not [n for n in entry.also_called if ";" in n]  # it would be two


def test_what_the_guides_mention_has_a_page():
    """A callable in backquotes or in code, as `testing.check` or `train.l2`."""
    guides = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(guide.read_text(encoding="utf-8") for guide in guides)
    modules = "catalogue|kernels|landscape|parallel|plot|stable|testing|train"
    mentioned = {*re.findall(rf"\b(?<!\.)(?:jaxloss\.)?({modules})\.(\w+)", text)}
    assert len(mentioned) > 25
    callables = {
        f"jaxloss.{module}.{name}"
        for module, name in mentioned
        if callable(getattr(importlib.import_module(f"jaxloss.{module}"), name, None))
    }
    assert callables <= PAGES


def test_an_edge_is_shown_once():
    """Blocks of extremes overlap, as where both arguments are 0."""
    spec = next(spec for spec in SPECS if spec.fn is jaxloss.huber)
    rows = [tuple(row) for row in _edges.of_spec(spec)]
    assert ("``17``", "``0``", "``16.5``", "``1``") in rows
    assert len(rows) == len({*rows}) > 5


def test_every_loss_has_its_edges(subtests):
    """From its spec, or stated in words; and none is stated that the spec has."""
    for entry in catalogue.entries():
        with subtests.test(entry.name):
            specs = [s for s in SPECS if s.fn is entry.function and s.extremes]
            small = bool(specs and _edges.examples(specs[0]))
            assert small != (entry.name in _edges.CASES)


@pytest.mark.parametrize("name", ["entropy", "l2", "nt_xent"])
def test_cases_in_words_say_what_comes_out(name):
    """The header, a row per case, and a gradient that is a number."""
    _, (header, *rows) = _edges.of_function(getattr(jaxloss, name))
    assert header == ["case", "loss", "gradient"]
    assert [row[0] for row in rows] == [case.words for case in _edges.CASES[name]]
    assert not any("nan" in cell for row in rows for cell in row)


def test_a_primitive_is_shown_at_its_limits():
    """Values and slopes at 0 and at infinity, from closed forms."""
    _, (header, *rows) = _edges.of_function(stable.log_cosh)
    assert header == ["x", "value", "gradient in x"]
    assert ["``0``", "``0``", "``0``"] in rows
    assert ["``-inf``", "``inf``", "``-1``"] in rows
    assert _edges.of_function(stable.difference) == ("", [])  # two numbers, no slope
    _, (_, *rows) = _edges.of_function(stable.xlogy)
    assert ["``0``", "``0``", "``0``", "``0``"] in rows
    _, call, printed = _edges.example(stable.norm).split("\n")
    assert call == ">>> stable.norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]))"
    assert printed == "Array([5., 0.], dtype=float32)"
