"""optax's own tests of its losses, unedited from its wheel, on our adapters.

They import private modules of optax; while they are imported here, each of those is a
proxy onto `jaxloss.compat.optax`.  Nothing of theirs is copied.
"""

import importlib
import importlib.metadata
import types
import unittest
from unittest import mock

import jax
import numpy as np
import optax.losses
import pytest

from jaxloss.compat import optax as compat

# unittest looks at every module while it waits for a warning, and some then warn.
pytestmark = pytest.mark.filterwarnings("default")

TESTED = (
    "_classification",
    "_fenchel_young",
    "_ranking",
    "_regression",
    "_segmentation",
    "_self_supervised",
    "_smoothing",
)
# As many as the wheel of this version has when it tests itself.
COUNTS = {"0.2.8": 178}


def on_our_adapters(name):
    """A test module of optax's wheel that sees our functions as the module it tests."""
    proxy = types.ModuleType(f"proxy of optax.losses.{name}")
    ours = {key: x for key, x in vars(compat).items() if not key.startswith("_")}
    vars(proxy).update(ours)
    with mock.patch.object(optax.losses, name, proxy):
        return importlib.import_module(f"optax.losses.{name}_test")


MODULES = {name: on_our_adapters(name) for name in TESTED}
CASES = {
    name: case
    for module in MODULES.values()
    for name, case in vars(module).items()
    if isinstance(case, type) and issubclass(case, unittest.TestCase)
}
globals().update(CASES)  # where pytest collects them


@pytest.fixture(autouse=True)
def as_optax_runs_them():
    """In float32, and with a seed for the random arrays they draw."""
    np.random.seed(0)
    with jax.enable_x64(False):
        yield


def test_none_of_them_is_missing():
    """Every test of the wheel is collected here, and each tests our functions."""
    names = [n for case in CASES.values() for n in dir(case) if n.startswith("test")]
    version = importlib.metadata.version("optax")
    assert len(names) == COUNTS.get(version, len(names))
    for name, module in MODULES.items():
        assert vars(module)[name].__name__ == f"proxy of optax.losses.{name}"
