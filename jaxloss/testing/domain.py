"""Which values an argument of a loss may have, as data.

A domain looks at the concrete values of one argument, and returns what is wrong with
them, or None.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxloss import _checks


class Complaint(NamedTuple):
    """What an argument has, and what was expected, in the words of an error."""

    has: str
    expected: str


class Argument(NamedTuple):
    """One argument of a call."""

    x: np.ndarray
    """Its values: in float64, unless they are integers or booleans."""
    dtype: np.dtype
    """As the caller passed it."""
    given: Mapping[str, Any]
    """All arguments of the call by their names, defaults included."""

    def counted(self, mask: str) -> np.ndarray:
        """Which of its entries the boolean argument `mask` leaves in."""
        where = self.given.get(mask)
        if where is None:
            return np.ones(self.x.shape, bool)
        where = np.asarray(where)
        if where.ndim > self.x.ndim:  # one label for a row of classes
            where = np.any(where, axis=self.given.get("axis", -1))
        more = (1,) * (self.x.ndim - where.ndim)  # one flag for a row of components
        return np.broadcast_to(where.reshape(where.shape + more), self.x.shape)

    @property
    def axis(self) -> int:
        """The axis of the classes."""
        return self.given.get("axis", -1)

    @property
    def rounding(self) -> float:
        """How far a row of probabilities may be from a sum of 1: 1 %, or what is left
        of a softmax that is rounded to half precision."""
        whole = not jnp.issubdtype(self.dtype, jnp.floating)
        return 0.01 if whole else max(0.01, float(jnp.finfo(self.dtype).eps) ** 0.5)


Domain = Callable[[Argument], Complaint | None]


def entries(
    within: Callable[[np.ndarray], np.ndarray], expected: str, mask: str = "where"
) -> Domain:
    """Every entry that the mask leaves in is one of those that `within` accepts."""

    def look(argument: Argument) -> Complaint | None:
        bad = argument.counted(mask) & ~within(argument.x)
        return Complaint(_first(argument.x, bad), expected) if bad.any() else None

    return look


def interval(text: str, expected: str, mask: str = "where") -> Domain:
    """Numbers in an interval such as `"(0, 1]"`; the words name it and a remedy."""
    low, high, has_low, has_high = _checks.bounds(text)

    def within(x: np.ndarray) -> np.ndarray:
        above = x >= low if has_low else x > low
        return above & (x <= high if has_high else x < high)

    return entries(within, expected, mask)


def rows_sum_to_one(expected: str, *, logarithms: bool = False) -> Domain:
    """Rows along the axis of the classes sum to 1, up to rounding; or the exponentials
    of their logarithms do."""
    words = "a row whose exponentials sum to" if logarithms else "a row that sums to"

    def look(argument: Argument) -> Complaint | None:
        x = np.exp(argument.x) if logarithms else argument.x
        sums = np.sum(x, axis=argument.axis)
        bad = ~(np.abs(sums - 1) <= argument.rounding)
        return Complaint(_first(sums, bad, words), expected) if bad.any() else None

    return look


def all_of(*domains: Domain) -> Domain:
    """The first complaint of several domains."""

    def look(argument: Argument) -> Complaint | None:
        found = (domain(argument) for domain in domains)
        return next((complaint for complaint in found if complaint), None)

    return look


def _first(x: np.ndarray, bad: np.ndarray, words: str = "the value") -> str:
    """The first bad entry, where it is, and how many there are."""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    value = f"{x[place]:.6g}" if x.dtype == np.float64 else str(x[place])
    at = f" at {list(place)}" if place else ""
    count = int(bad.sum())
    more = f", the first of {count} such among {bad.size}" if count > 1 else ""
    return f"{words} {value}{at}{more}"
