"""mpmath, which only the evaluation of a formula needs: imported by its first use."""

import functools
import importlib
from collections.abc import Callable
from typing import Any


class _OnFirstUse:
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(importlib.import_module("mpmath"), name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "jaxloss.claims: formulas are evaluated by mpmath, which is not "
                "installed; pip install 'jaxloss[verify]'"
            ) from error


mp: Any = _OnFirstUse()


def digits(count: int) -> Callable[[Callable], Callable]:
    """Has a formula evaluated with so many digits: those that its terms cancel."""

    def lift(formula: Callable) -> Callable:
        @functools.wraps(formula)
        def evaluate(*args: Any, **params: Any) -> Any:
            with mp.workdps(count):
                return formula(*args, **params)

        return evaluate

    return lift
