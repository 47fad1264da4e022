"""Numbers that divide the real line: the arguments of `two_hot` and `hl_gauss`."""

import functools
from collections.abc import Callable
from typing import ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxloss import _checks, stable

Given = ParamSpec("Given")


def increasing(
    argument: str,
) -> Callable[[Callable[Given, jax.Array]], Callable[Given, jax.Array]]:
    """Makes a function refuse an argument whose numbers do not increase.

    They are checked in each call, outside of the compiled program, unless they are
    tracers.
    """

    def attach(fn: Callable[Given, jax.Array]) -> Callable[Given, jax.Array]:
        @functools.wraps(fn)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> jax.Array:
            _require_increasing(fn.__name__, argument, kwargs.get(argument))
            return fn(*args, **kwargs)

        return call

    return attach


def _require_increasing(loss: str, argument: str, given: object) -> None:
    if any(isinstance(x, Tracer) for x in jax.tree.leaves(given)):
        return
    x = np.asarray(given)
    if x.ndim != 1 or x.dtype.kind == "O":  # what it is, the function itself says
        return
    # Two numbers may be one in the precision of JAX.
    x = x.astype(_checks.default_float())
    if not (np.all(np.diff(x) > 0) and np.all(np.isfinite(x))):
        expected = "finite numbers, each larger than the one before"
        _checks.fail(loss, argument, f"the numbers {x}", expected)


def read(
    loss: str, values: ArrayLike, **bins: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """The values and the numbers that divide the line, checked, in one dtype.

    Both have one more axis, for the distributions.
    """
    (values,) = _checks.widened(loss, values=values)
    (given,) = _checks.real(loss, values, **bins)
    if given.ndim != 1:
        _checks.fail(loss, next(iter(bins)), f"shape {given.shape}", "one axis")
    return values[..., None], given.reshape((1,) * values.ndim + given.shape)


def _share_dy(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    return -stable.safe_divide(jnp.ones_like(y), other - own)


def _share_dother(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    return stable.safe_divide(stable.safe_divide(y - own, other - own), other - own)


def _share_down(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    return stable.safe_divide(share(y, other, own), other - own)


# The quotient rule would subtract two numbers that are nearly equal near the other.
@stable.slopes(_share_dy, _share_dother, _share_down)
def share(y: jax.Array, other: jax.Array, own: jax.Array) -> jax.Array:
    """How near a number between two is to its own: 1 there, 0 at the other; 0 if the
    two are one."""
    return stable.safe_divide(other - y, other - own)
