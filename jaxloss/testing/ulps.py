"""Tolerances in units in the last place."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
DTYPES = (DOUBLE, SINGLE, np.dtype(jnp.bfloat16), np.dtype(np.float16))


def wide(dtype: DTypeLike) -> np.dtype:
    """The dtype a loss is computed and returned in: at least float32."""
    return DOUBLE if dtype == DOUBLE else SINGLE


def ulp(x: ArrayLike, dtype: DTypeLike) -> np.ndarray:
    """The unit in the last place of `dtype` at `x`: the gap to the next number.

    Example:
      >>> float(jaxloss.testing.ulp(1.0, jnp.bfloat16))
      0.0078125
    """
    info = jnp.finfo(dtype)
    lowest, digits = int(info.minexp), int(info.nmant)
    # Not frexp(x) itself: it gives 0 the exponent of 1/2.
    _, exponent = np.frexp(np.maximum(np.abs(np.asarray(x, DOUBLE)), 2.0**lowest))
    return np.ldexp(1.0, exponent - 1 - digits)


def tolerance(dtype: DTypeLike, ulps: float = 8) -> float:
    """`ulps` units in the last place at 1, as a relative tolerance.

    Example:
      >>> jaxloss.testing.tolerance(jnp.bfloat16, ulps=2)
      0.015625
    """
    return float(ulps * jnp.finfo(dtype).eps)


def assert_close(
    actual: ArrayLike,
    desired: ArrayLike,
    dtype: DTypeLike = DOUBLE,
    *,
    ulps: float = 8,
    size: ArrayLike = 0.0,
    what: str = "the result",
) -> None:
    """Raises unless equal up to a few units in the last place; NaN is never equal.

    Args:
      actual: The computed values.
      desired: The right values, of the same shape.
      dtype: The dtype whose units are counted.
      ulps: The number of units that are allowed.
      size: The magnitude of the terms that were added or subtracted, where it is
        larger than the result; there is no other absolute tolerance.
      what: The name of the values, for the message.

    Raises:
      AssertionError: At the first difference, with both values.

    Example:
      >>> jaxloss.testing.assert_close(3 * jnp.float32(0.1), 0.3, jnp.float32)
    """
    got, want = np.asarray(actual, DOUBLE), np.asarray(desired, DOUBLE)
    if got.shape != want.shape:
        raise AssertionError(f"{what} has shape {got.shape}; expected {want.shape}")
    allowed = ulps * ulp(np.maximum(np.abs(want), np.abs(size)), dtype)
    with np.errstate(invalid="ignore"):  # inf - inf, where they are equal
        wrong = ~((got == want) | (np.abs(got - want) <= allowed))
    if np.any(wrong):
        at = tuple(np.argwhere(wrong)[0].tolist())
        where = f" at {list(at)}" if at else ""
        raise AssertionError(f"{what} is {got[at]}{where}; expected {want[at]}")
