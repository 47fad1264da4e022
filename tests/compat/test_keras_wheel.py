"""Keras' own tests of its losses, unedited from its wheel, on our adapters.

Their classes look the functions up in `keras.src.losses.losses`: in each test, what
they find there are those of `jaxloss.compat.keras`.  Nothing of theirs is copied.
"""

import importlib
import importlib.metadata
import os
import types
import unittest
from unittest import mock

import jax
import pytest

os.environ["KERAS_BACKEND"] = "jax"

import keras.src.losses.losses

from jaxloss.compat import keras as compat

# unittest looks at every module while it waits for a warning, and some then warn.
pytestmark = pytest.mark.filterwarnings("default")

NAMES = [
    name
    for name in vars(keras.losses)
    if getattr(vars(compat).get(name), "__module__", "") == compat.__name__
]
MODULE = importlib.import_module("keras.src.losses.losses_test")
CASES = {
    name: case
    for name, case in vars(MODULE).items()
    if isinstance(case, type) and issubclass(case, unittest.TestCase)
}
# As many as the wheel of this version has when it tests itself.
COUNTS = {"3.15.1": 167}
# Keras has another axis of classes on torch alone; these have a branch for it.
OF_AXIS = {
    "test_binary_segmentation_different_axis",
    "test_multi_class_segmentation_different_axis",
    "test_squeezes_singleton_class_dim_on_user_axis",
}
vars(MODULE.SparseCategoricalCrossentropyTest)[
    "test_squeezes_singleton_class_dim_on_user_axis"
].pytestmark.clear()
MODULE.CTCTest.test_correctness = pytest.mark.xfail(
    strict=True,
    reason="a label 0, which Keras reserves for padding, is passed over, not a class",
)(MODULE.CTCTest.test_correctness)
globals().update(CASES)  # where pytest collects them


@pytest.fixture(autouse=True)
def ours(request):
    """In float32, with our functions in the place of theirs."""
    functions = {name: getattr(compat, name) for name in NAMES}
    as_on_torch = types.SimpleNamespace(backend=lambda: "torch")
    branch = as_on_torch if request.node.name in OF_AXIS else MODULE.backend
    with (
        jax.enable_x64(False),
        mock.patch.multiple(keras.src.losses.losses, **functions),
        mock.patch.object(MODULE, "backend", branch),
    ):
        yield


def test_none_of_them_is_missing():
    """Every test of the wheel is collected here, and sees our functions."""
    names = [n for case in CASES.values() for n in dir(case) if n.startswith("test")]
    version = importlib.metadata.version("keras")
    assert len(names) == COUNTS.get(version, len(names))
    assert len(NAMES) == 22
    for name in NAMES:
        assert getattr(MODULE.losses, name) is getattr(compat, name)
