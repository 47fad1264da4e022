"""Signatures with their types as the source has them.

Sphinx would write out aliases: `ArrayLike` is a union of eight types.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def signature(fn: Callable[..., Any]) -> tuple[str, str] | None:
    """Arguments and result; None if there is no source, or it has other arguments."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(fn)))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return None
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef):
        return None
    written = [a.arg for a in ast.walk(found.args) if isinstance(a, ast.arg)]
    if {*written} != {*inspect.signature(fn).parameters}:
        return None
    result = ast.unparse(found.returns) if found.returns else ""
    return f"({ast.unparse(found.args)})", result
