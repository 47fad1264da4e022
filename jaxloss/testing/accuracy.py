"""The error of a result, in units in the last place of the true value.

The true value is a formula evaluated by mpmath at exactly the arguments that the
function received, so the measured error is that of the function alone.  Its derivatives
are taken by differences with hundreds of digits, so they are independent of our
derivations.  `python -m bench.accuracy` prints the errors that the tests bound.
"""

import dataclasses
import itertools
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss.testing import programs
from jaxloss.testing.exact import mp
from jaxloss.testing.programs import Function
from jaxloss.testing.spec import LossSpec

CHECKS = os.environ.get("JAXLOSS_CHECKS", "")
DIGITS = 60
# Differences of order three with steps of 1e-40 keep 240 - 120 digits; mpmath is five
# times faster with 240 than with 500.
DIFFERENCE_DIGITS, STEP = 240, 1e-40

# XLA:CPU flushes subnormal numbers, so a product that is representable may have a
# factor that is not: results below this are allowed to be zero where a case says so.
FLUSH = 2.0**-116


# --- arguments -------------------------------------------------------------------


def line(low=-110.0, high=110.0, points=111) -> np.ndarray:
    """Evenly spaced arguments, not round numbers, in the range of exponentials."""
    return np.linspace(low, high, points) * (1 + 2.0**-20)


def decades(smallest=1e-37, largest=1e30, points=45) -> np.ndarray:
    """Log-spaced arguments of both signs, from the smallest normal ones to 1e30."""
    positive = np.geomspace(smallest, largest, points) * (1 + 2.0**-13)
    return np.concatenate([-positive[::-1], positive])


EDGES = np.array([0.0, 1.0, -1.0, 88.0, -88.0, 104.0, -104.0])


def pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every element of `first` with every element of `second`, as two columns."""
    a, b = np.meshgrid(first, second, indexing="ij")
    return a.ravel(), b.ravel()


def rows(classes: int, count: int = 16, seed: int = 0) -> np.ndarray:
    """Rows of logits: ordinary, confident, far from the origin, tied."""
    rng = np.random.default_rng(seed)
    scales = np.array([0.01, 1.0, 10.0, 40.0])[np.arange(count) % 4]
    x = scales[:, None] * rng.normal(size=(count, classes))
    x[-1] = 0.0
    x[-2] = 1e4
    x[-3, 1:], x[-3, 0] = 0.0, 20.0
    x[-4, 1:], x[-4, 0] = 1e4, 1e4 + 5
    return x


# --- truth -----------------------------------------------------------------------


def _examples(columns: Sequence[np.ndarray]) -> Iterator[tuple]:
    """One example at a time, as numbers (or lists of them, for a column of rows)."""
    lift = np.vectorize(lambda v: mp.mpf(float(v)), otypes=[object])
    wide = [lift(np.asarray(c, np.float64)) for c in columns]
    for row in zip(*wide, strict=True):
        yield tuple(list(x) if isinstance(x, np.ndarray) else x for x in row)


def truth(formula: Callable, *columns: np.ndarray) -> np.ndarray:
    """The formula over columns of arguments, one example a row, in 60 digits."""
    with mp.workdps(DIGITS):
        return np.array([formula(*example) for example in _examples(columns)], object)


Place = tuple[int, int | None]  # an argument, and an entry of it if it is a row


def derivative(formula: Callable, *places: Place) -> Callable:
    """The partial derivative of a scalar formula in the given places, in turn."""

    def evaluate(*args):
        with mp.workdps(DIFFERENCE_DIGITS):
            steps = [STEP * max(abs(_get(args, p)), mp.mpf(1e-30)) for p in places]
            total = mp.mpf(0)
            for signs in itertools.product((1, -1), repeat=len(places)):
                moved = args
                for place, step, sign in zip(places, steps, signs, strict=True):
                    moved = _moved(moved, place, sign * step)
                total += mp.fprod(signs) * formula(*moved)
            return total / mp.fprod([2 * s for s in steps])

    return evaluate


def _get(args: tuple, place: Place):
    argument, entry = place
    return args[argument] if entry is None else args[argument][entry]


def _moved(args: tuple, place: Place, step) -> tuple:
    argument, entry = place
    if entry is None:
        changed = args[argument] + step
    else:
        changed = list(args[argument])
        changed[entry] = changed[entry] + step
    return (*args[:argument], changed, *args[argument + 1 :])


# --- errors ----------------------------------------------------------------------


def ulps(
    actual, expected: np.ndarray, dtype=jnp.float32, *, scale=None, floor=None
) -> np.ndarray:
    """Error of each entry, in ulps of the truth; infinite where it is NaN or wrong.

    `scale` (default: the truth) is the number whose ulp counts.  An error below
    `floor` (default: the smallest normal number) is none.  A truth too large for
    `dtype` must come out as infinity of its sign.
    """
    info = jnp.finfo(dtype)
    floor = float(info.tiny) if floor is None else floor
    values = np.ravel(np.asarray(actual, np.float64))
    expected = np.ravel(expected)
    scale = expected if scale is None else np.ravel(scale)
    errors = []
    for a, t, s in zip(values, expected, scale, strict=True):
        if mp.isnan(t) or np.isnan(a):
            errors.append(0.0 if mp.isnan(t) and np.isnan(a) else np.inf)
        elif np.isinf(a) or abs(t) > float(info.max):
            largest = float(info.max) * (1 - 2.0 ** (3 - info.nmant))
            right = abs(t) >= largest and (a > 0) == (t > 0) and abs(a) >= largest
            errors.append(0.0 if right else np.inf)
        else:
            error = abs(mp.mpf(float(a)) - t)
            exponent = max(int(mp.frexp(s)[1]) - 1, info.minexp) if s else 0
            unit = mp.ldexp(1, exponent - info.nmant)
            errors.append(0.0 if error <= floor else float(error / unit))
    return np.array(errors)


@dataclasses.dataclass(frozen=True)
class Worst:
    """The worst error over a grid, and the arguments it was met at."""

    error: float
    at: tuple


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """The claimed accuracy of one function of columns of arguments, in one of them.

    A column of shape `(n, k)` is one argument of `n` examples that are rows; the
    derivative is then taken entry by entry, and the second one is the Hessian's
    diagonal.
    """

    name: str = ""
    """Its name among the cases of a claim: "in predictions"."""
    columns: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()
    """Names of trailing columns that `fn` takes by keyword: hyperparameters, masks."""
    static: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other keyword arguments, fixed; the formula does not receive them."""
    fn: Any = None
    """The function: by default that of the claim, whose name then leads `name`."""
    formula: Any = None
    """The same function of one example, in mpmath, all columns by position: by default
    the formula of the claim's first setting."""
    bounds: tuple[float, float, float] = (8, 8, 12)
    """Ulps allowed of the value, the first and the second derivative."""
    argument: int = 0
    """The argument that is differentiated."""
    fixed: tuple[int, ...] = ()
    """Arguments without rounding, such as class ids: not cast, no condition number."""
    conditioned: tuple[bool, bool, bool] = (False, False, False)
    """Whether to allow the bound times 1 + condition number, in all arguments."""
    rowwise: bool = False
    """Whether an entry of a gradient counts in ulps of its row's largest entry."""
    first: Callable | None = None
    second: Callable | None = None
    """Closed forms of the derivatives, where differences do not apply."""
    floor: float = 2.0**-126
    halves: bool = True
    """Whether to check bfloat16 and float16 arguments too."""
    terms: Callable | None = None
    """Size of the terms that cancel in the second derivative: an admitted limit."""
    _known: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def arrays(self, dtype) -> list[np.ndarray]:
        # Half precision is widened to float32 first: every other example is enough.
        every = 2 if jnp.finfo(dtype).bits == 16 else 1
        return [
            np.asarray(c[::every]) if i in self.fixed else np.asarray(c[::every], dtype)
            for i, c in enumerate(self.columns)
        ]

    def call(self, *columns: jax.Array) -> jax.Array:
        """The function of whole columns."""
        split = len(columns) - len(self.names)
        named = dict(zip(self.names, columns[split:], strict=True))
        return self.fn(*columns[:split], **named, **self.static)

    def _of_example(self, *entries: jax.Array) -> jax.Array:
        return self.call(*(x[None] for x in entries))[0]

    def formulas(self) -> list[Callable]:
        first = self.first or self._by_differences(1)
        return [self.formula, first, self.second or self._by_differences(2)]

    def _by_differences(self, order: int) -> Callable:
        def evaluate(*args):
            x = args[self.argument]
            if not isinstance(x, list):
                return derivative(self.formula, *[(self.argument, None)] * order)(*args)
            return [
                derivative(self.formula, *[(self.argument, j)] * order)(*args)
                for j in range(len(x))
            ]

        return evaluate

    def derivatives(self, dtype, mode: str = "reverse") -> tuple[np.ndarray, ...]:
        """Value, first and second derivative in the argument.

        One program has them for all arguments.  Where it says NaN, the argument has a
        program of its own: the infinite slope in another, times its step of 0, is NaN.
        """
        static = repr(sorted(self.static.items()))
        key = (LossSpec, self.fn, self.names, static)
        every = Function(key, self._of_example, whole=self.call)
        found = self._derivatives(every, dtype, mode)
        if any(np.isnan(np.asarray(a, np.float64)).any() for a in found):
            alone = every._replace(alone=self.argument)
            return self._derivatives(alone, dtype, mode)
        return found

    def _derivatives(
        self, function: Function, dtype, mode: str
    ) -> tuple[np.ndarray, ...]:
        """The second is reverse mode differentiated by forward mode or, in mode
        "forward", forward mode by reverse mode."""
        columns = self.arrays(dtype)
        moving = function.moving(columns)
        place = moving.index(self.argument)
        if mode == "reverse":
            found, _ = programs.derivatives(function, columns)
            slope, curve = found.gradient[place], found.hessian[place][place]
            curve = curve if slope.ndim == 1 else np.diagonal(curve, axis1=1, axis2=2)
            return found.value, slope, curve
        x, parts = columns[self.argument], []
        for j in range(x.shape[1] if x.ndim == 2 else 1):
            steps = [np.zeros_like(columns[i]) for i in moving]
            steps[place].reshape(len(x), -1)[:, j] = 1
            found, lost = programs.derivatives(function, columns, steps)
            if lost:
                raise lost["forward mode"]
            turned = found.turned[place].reshape(len(x), -1)[:, j]
            parts.append((found.under_jvp, found.slope, turned))
        value, *rest = zip(*parts, strict=True)
        join = lambda a: np.stack(a, axis=-1) if x.ndim == 2 else a[0]
        return value[0], *map(join, rest)

    def measure(self, dtype=jnp.float32, mode: str = "reverse") -> list[Worst]:
        """The worst error of value, first and second derivative, under jit.

        The function widens half precision, so its value is compared in float32, and its
        gradient in the half precision that it must have.
        """
        arrays, half = self.arrays(dtype), jnp.finfo(dtype).bits == 16
        found = []
        results = self.derivatives(dtype, mode)[: 2 if half else 3]
        for order, actual in enumerate(results):
            held_to = jnp.float32 if half and order == 0 else dtype
            expected, scale = self._truth(order, dtype)
            floor = max(self.floor, float(jnp.finfo(held_to).tiny) if half else 0)
            if held_to == jnp.float64:
                floor = float(jnp.finfo(held_to).tiny) * self.floor * 2.0**126
            errors = ulps(actual, expected, held_to, scale=scale, floor=floor)
            example = int(np.argmax(errors)) // max(1, errors.size // len(arrays[0]))
            at = tuple(a[example].tolist() for a in arrays)
            found.append(Worst(float(errors.max()), at))
        return found

    def _truth(self, order: int, dtype) -> tuple[np.ndarray, np.ndarray]:
        """The true values of one derivative, and the numbers whose ulps count."""
        if (order, dtype) not in self._known:
            self._known[order, dtype] = self._find_truth(order, dtype)
        return self._known[order, dtype]

    def _find_truth(self, order: int, dtype) -> tuple[np.ndarray, np.ndarray]:
        arrays, formula = self.arrays(dtype), self.formulas()[order]
        expected = truth(formula, *map(np.asarray, arrays))
        scale = np.abs(expected)
        if self.conditioned[order]:
            scale = scale + self._conditioning(formula, arrays)
        if self.terms and order == 2:
            scale = np.abs(truth(self.terms, *map(np.asarray, arrays)))
        if self.rowwise and scale.ndim == 2:
            scale = np.broadcast_to(scale.max(axis=1, keepdims=True), scale.shape)
        return expected, scale

    def _conditioning(self, formula, arrays) -> np.ndarray:
        """Sum over entries x of all arguments of |x . df/dx|, example by example."""
        totals = []
        for args in _examples([np.asarray(a) for a in arrays]):
            total = mp.mpf(0)
            for i, x in enumerate(args):
                if i in self.fixed:
                    continue
                entries = range(len(x)) if isinstance(x, list) else [None]
                for j in entries:
                    slope = _difference(formula, args, (i, j))
                    total = total + np.abs(slope * _get(args, (i, j)))
            totals.append(total)
        return np.array(totals, object)

    def check(self) -> None:
        """Asserts the bounds: in float32 in both modes, and in one half precision.

        The truth of the other is more work for mpmath: it takes part with
        `JAXLOSS_CHECKS=full`; with `brief` neither does, and only every eighth case.
        """
        code = zlib.crc32(self.name.encode())
        if CHECKS == "brief" and code % 8:
            return
        both = (jnp.bfloat16, jnp.float16)
        chosen = {"full": both, "brief": ()}.get(CHECKS, both[code % 2 :][:1])
        ways = [(jnp.float32, "reverse"), (jnp.float32, "forward")]
        ways += [(dtype, "reverse") for dtype in chosen if self.halves]
        for dtype, mode in ways:
            self._assert_within(jnp.dtype(dtype), mode)

    def allowed(self, dtype: np.dtype, mode: str = "reverse") -> tuple[float, ...]:
        """The bounds in one dtype and mode of differentiation."""
        value, first, second = self.bounds
        if dtype.itemsize == 2:
            # A half-precision gradient is rounded once, from what float32 gave.
            return value, 0.5 + first * 2.0**-12
        # Reverse over forward mode sums the terms of the second derivative in another
        # order than forward over reverse mode, of which the bound is claimed.
        return value, first, second * (2 if mode == "forward" else 1)

    def _assert_within(self, dtype: np.dtype, mode: str) -> None:
        found = self.measure(dtype, mode)
        for bound, worst, what in zip(
            self.allowed(dtype, mode), found, WHAT, strict=False
        ):
            assert worst.error <= bound, (
                f"{self.name}, {what}, {dtype.name}, {mode}: "
                f"{worst.error:.4g} ulp at {worst.at}; the bound is {bound}"
            )


WHAT = ("value", "first derivative", "second derivative")


def _difference(formula: Callable, args: tuple, place: Place):
    """The slope of a formula whose value may be a list, as a number or an array."""
    with mp.workdps(DIFFERENCE_DIGITS):
        # A wider step than the formula's own differences use inside.
        step = 1e-30 * max(abs(_get(args, place)), mp.mpf(1e-30))
        high = np.array(formula(*_moved(args, place, step)), object)
        low = np.array(formula(*_moved(args, place, -step)), object)
        return (high - low) / (2 * step)
