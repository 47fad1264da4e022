"""The names and signatures of optax and Keras for the losses of this library."""

import typing as _typing

if _typing.TYPE_CHECKING:
    from jaxloss.compat import keras as keras, optax as optax


def __getattr__(name: str) -> _typing.Any:
    """Imports a module at its first use: it imports the library that it imitates."""
    if name in ("keras", "optax"):
        import importlib

        return importlib.import_module(f"jaxloss.compat.{name}")
    raise AttributeError(f"module 'jaxloss.compat' has no attribute {name!r}")
