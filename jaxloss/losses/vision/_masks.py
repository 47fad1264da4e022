"""What the losses of masks share."""

import jax

from jaxloss import _checks


def axes(loss: str, axis: int | tuple[int, ...], **array: jax.Array) -> tuple[int, ...]:
    """The axes that a loss sums over, counted from the front; each at most once."""
    every = axis if isinstance(axis, tuple) else (axis,)
    found = tuple(_checks.one_axis(loss, a, **array) for a in every)
    if len(set(found)) < len(found):
        _checks.fail(loss, "axis", f"an axis twice in {axis}", "different axes")
    return found
