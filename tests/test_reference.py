"""The API reference has a page for every public name."""

import importlib
import pathlib
import re

import optax

import jaxloss
from docs import _reference
from tests.specs import SPECS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    _reference.address(module, name)
    for module in _reference.modules()
    for name in _reference.public(module)
}


def test_every_loss_and_every_adapter_has_a_page():
    """What `jaxloss` exports, and the names of `optax.losses` that are those here."""
    exported = {f"jaxloss.{n}" for n, x in vars(jaxloss).items() if callable(x)}
    adapters = {
        f"jaxloss.compat.optax.{name}"
        for name, value in vars(optax.losses).items()
        if callable(value) and not name.startswith("_")
    }
    assert len(adapters) == 32
    assert exported | adapters <= PAGES


def test_what_the_guides_mention_has_a_page():
    """A callable in backquotes or in code, as `testing.check` or `train.l2`."""
    guides = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(guide.read_text(encoding="utf-8") for guide in guides)
    modules = "catalogue|kernels|landscape|parallel|plot|stable|testing|train"
    mentioned = {*re.findall(rf"\b(?<!\.)(?:jaxloss\.)?({modules})\.(\w+)", text)}
    assert len(mentioned) > 25
    for module, name in mentioned:
        if callable(getattr(importlib.import_module(f"jaxloss.{module}"), name, None)):
            assert f"jaxloss.{module}.{name}" in PAGES


def test_an_edge_is_shown_once():
    """Blocks of extremes overlap, as where both arguments are 0."""
    spec = next(spec for spec in SPECS if spec.fn is jaxloss.huber)
    rows = [tuple(row) for row in _reference.edges(spec)]
    assert ("``17``", "``0``", "``16.5``", "``1``") in rows
    assert len(rows) == len({*rows}) > 5
