"""Other libraries' names and signatures for the losses of this one."""

import typing as _typing

if _typing.TYPE_CHECKING:
    from jaxloss.compat import keras as keras, optax as optax


def __getattr__(name: str) -> _typing.Any:
    """Imports a module when it is first used: it imports the library it imitates."""
    if name in ("keras", "optax"):
        import importlib

        return importlib.import_module(f"jaxloss.compat.{name}")
    raise AttributeError(f"module 'jaxloss.compat' has no attribute {name!r}")
