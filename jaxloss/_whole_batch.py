"""Whether the examples that are being looked at are all of the batch.

A loss that compares the examples of a batch with one another means something else on
a part of it, and nothing in its arguments tells.  Whoever cuts a batch says so here
while it traces, and such a loss asks.
"""

import contextlib
import contextvars
from collections.abc import Hashable, Iterator

from jaxloss import _checks

_cut: contextvars.ContextVar[bool] = contextvars.ContextVar("cut", default=False)
_axis: contextvars.ContextVar[Hashable] = contextvars.ContextVar("axis", default=None)


@contextlib.contextmanager
def split(*, in_time: bool, axis_name: Hashable) -> Iterator[None]:
    """What is traced inside sees a micro-batch, or the part of a device, or both."""
    cut, axis = _cut.set(in_time), _axis.set(axis_name)
    try:
        yield
    finally:
        _cut.reset(cut)
        _axis.reset(axis)


def require(loss: str, argument: str, gathered: str | None = None) -> None:
    """Raises `ValueError` where a batch that this loss couples is cut.

    `gathered` is the form of it that collects the examples of all devices, or another
    way to see them; that form itself passes None, and minds micro-batches alone.
    """
    if _cut.get():
        whole = "the whole batch, whose examples it compares (microbatches=1)"
        _checks.fail(loss, argument, "the examples of one micro-batch", whole)
    if gathered is not None and _axis.get() is not None:
        has = f"the examples of one device of the axis {_axis.get()!r}"
        _checks.fail(loss, argument, has, f"the whole batch: use {gathered}")
