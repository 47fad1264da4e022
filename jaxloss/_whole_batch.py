"""Whether the examples that are being looked at are all of the batch.

A loss that compares the examples of a batch with one another means something else on
a part of it, and nothing in its arguments tells.  Whoever cuts a batch says so here
while it traces, and such a loss asks.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import ParamSpec, TypeVar

from jaxloss import _checks

Given = ParamSpec("Given")
Result = TypeVar("Result")

_cut: contextvars.ContextVar[bool] = contextvars.ContextVar("cut", default=False)
_axis: contextvars.ContextVar[Hashable] = contextvars.ContextVar("axis", default=None)


@contextlib.contextmanager
def part_of_batch(*, in_time: bool, axis_name: Hashable) -> Iterator[None]:
    """What is traced inside sees a micro-batch, or the part of a device, or both."""
    cut, axis = _cut.set(in_time), _axis.set(axis_name)
    try:
        yield
    finally:
        _cut.reset(cut)
        _axis.reset(axis)


def require(
    argument: str, gathered: str | None = None
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Makes a loss that couples the examples of a batch refuse a part of it.

    With a `ValueError` that names the argument.  `gathered` is the form of the loss
    that collects the examples of all devices, or another way to see them; that form
    itself passes None, and minds micro-batches alone.
    """

    def attach(loss: Callable[Given, Result]) -> Callable[Given, Result]:
        # In each call, outside of what `jit` remembers: the shapes of a part tell
        # nothing.
        @functools.wraps(loss)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            _checks.not_called_by_keras(loss.__name__)
            if _cut.get():
                whole = "the whole batch, whose examples it compares (microbatches=1)"
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
