"""Whether a loss sees the whole batch or only a part of it.

A loss that compares the examples of a batch with one another has another value on a
part of the batch, and its arguments do not show that they are a part.  Code that splits
a batch says so here while it traces, and such a loss asks.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import ParamSpec, TypeVar

from jaxloss import _checks

Given = ParamSpec("Given")
Result = TypeVar("Result")

BY_JIT = "jit of sharded arrays, not shard_map"
"""The remedy of a loss that has no form for `shard_map`."""

_cut: contextvars.ContextVar[bool] = contextvars.ContextVar("cut", default=False)
_axis: contextvars.ContextVar[Hashable] = contextvars.ContextVar("axis", default=None)


@contextlib.contextmanager
def part_of_batch(*, in_time: bool, axis_name: Hashable) -> Iterator[None]:
    """Code traced inside sees a micro-batch, or the part of one device, or both."""
    cut, axis = _cut.set(in_time), _axis.set(axis_name)
    try:
        yield
    finally:
        _cut.reset(cut)
        _axis.reset(axis)


def require(
    argument: str, gathered: str | None = None
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Makes a loss that compares the examples of a batch refuse a part of the batch.

    It raises a `ValueError` that names the argument.  `gathered` names the form of the
    loss that collects the examples of all devices, or another remedy.  That form itself
    passes None: it refuses micro-batches only.
    """

    def attach(loss: Callable[Given, Result]) -> Callable[Given, Result]:
        # In each call, outside of what `jit` caches: the shapes of a part do not show
        # that it is one.
        @functools.wraps(loss)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            _checks.not_called_by_keras(loss.__name__)
            if _cut.get():
                whole = "the whole batch, because it compares examples (microbatches=1)"
                has = "the examples of one micro-batch"
                _checks.fail(loss.__name__, argument, has, whole)
            if gathered is not None and _axis.get() is not None:
                has = f"the examples of one device of the axis {_axis.get()!r}"
                _checks.fail(
                    loss.__name__, argument, has, f"the whole batch: use {gathered}"
                )
            return loss(*args, **kwargs)

        return call

    return attach
