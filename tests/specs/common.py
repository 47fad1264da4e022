"""What every spec needs: samples, extreme values, and formulas in 60 digits."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import mpmath
import numpy as np

Rng = np.random.Generator
Shape = tuple[int, ...]
Args = tuple[np.ndarray, ...]
BadCall = tuple[tuple, dict, type[Exception], str]


# --- samples: `sample(rng, shape)` draws float64 arguments of one batch shape ------


def pair(rng: Rng, shape: Shape, scale: float = 3.0) -> Args:
    """Two independent normal arrays: predictions and targets."""
    return scale * rng.normal(size=shape), scale * rng.normal(size=shape)


def positive_pair(rng: Rng, shape: Shape) -> Args:
    """Two independent positive arrays, a few orders of magnitude wide."""
    return np.exp(2 * rng.normal(size=shape)), np.exp(2 * rng.normal(size=shape))


def scores_and_signs(rng: Rng, shape: Shape) -> Args:
    """Scores, and labels in {-1, +1}."""
    return 3 * rng.normal(size=shape), rng.choice([-1.0, 1.0], size=shape)


def logits_and_bits(rng: Rng, shape: Shape) -> Args:
    """Logits, and labels in {0, 1} as floating-point numbers."""
    return 4 * rng.normal(size=shape), rng.integers(0, 2, size=shape).astype(float)


def logits_and_probabilities(rng: Rng, shape: Shape) -> Args:
    """Logits, and soft labels in (0, 1)."""
    return 4 * rng.normal(size=shape), rng.uniform(0.05, 0.95, size=shape)


def logits_and_ids(classes: int = 4) -> Callable[[Rng, Shape], Args]:
    """Rows of logits, and one integer class id per row."""

    def sample(rng: Rng, shape: Shape) -> Args:
        logits = 3 * rng.normal(size=(*shape, classes))
        return logits, rng.integers(0, classes, size=shape)

    return sample


def logits_and_distributions(classes: int = 4) -> Callable[[Rng, Shape], Args]:
    """Rows of logits, and one distribution over the classes per row."""

    def sample(rng: Rng, shape: Shape) -> Args:
        logits = 3 * rng.normal(size=(*shape, classes))
        return logits, rng.dirichlet(np.ones(classes), size=shape)

    return sample


def vectors(count: int, size: int = 4) -> Callable[[Rng, Shape], Args]:
    """`count` independent embeddings of `size` components."""

    def sample(rng: Rng, shape: Shape) -> Args:
        return tuple(rng.normal(size=(*shape, size)) for _ in range(count))

    return sample


# --- extremes: the edges of a dtype ------------------------------------------------


def big(dtype: Any) -> float:
    """A quarter of the largest finite number: two of them still add up."""
    return float(jnp.finfo(dtype).max) / 4


def root(dtype: Any) -> float:
    """A number whose square is still finite: a quarter of the root of the largest."""
    return float(np.sqrt(float(jnp.finfo(dtype).max))) / 4


def tiny(dtype: Any) -> float:
    """The smallest normal number."""
    return float(jnp.finfo(dtype).tiny)


def ladder(dtype: Any, top: float | None = None) -> np.ndarray:
    """0 and both signs of magnitudes from `tiny` through 1 to `top` (default `big`)."""
    info = jnp.finfo(dtype)
    top = big(dtype) if top is None else top
    steps = [float(info.tiny), float(info.eps) ** 2, float(info.eps), 1e-3, 0.3, 1.0]
    steps += [x for x in (7.5, 17.0, 50.0, 90.0, 1e4) if x < top] + [top]
    return np.array([0.0, *steps, *(-x for x in steps)])


# --- references: the formula of the paper, with 60 digits --------------------------


def exact(formula: Callable) -> Callable:
    """Lifts a formula of numbers over arrays, evaluated by mpmath with 60 digits.

    A float64 reference with `log(1 - p)` in it is less accurate than the code it
    should judge.  Floating arguments arrive as `mpmath.mpf`, booleans and integers as
    `int`, hyperparameters as the Python floats the loss sees.
    """
    return exact_rows()(formula)


def exact_rows(*event_ndims: int) -> Callable[[Callable], Callable]:
    """Like `exact`, for arguments whose last axes the formula consumes as lists.

    `@exact_rows(1, 0)` is for rows of logits and one class id per row: the formula
    receives a list of `mpf` and an `int`.  It returns a number, a list (one per
    component of the row), or a tuple of them (a gradient in several arguments).
    """

    def lift(formula: Callable) -> Callable:
        def evaluate(*arrays: np.ndarray, **params: Any) -> Any:
            events = (*event_ndims, *[0] * (len(arrays) - len(event_ndims)))
            arrays = tuple(map(np.asarray, arrays))
            shape = arrays[0].shape[: arrays[0].ndim - events[0]]
            results = []
            with mpmath.workdps(60):
                for index in np.ndindex(shape):
                    results.append(
                        formula(*(_number(a[index]) for a in arrays), **params)
                    )
            if isinstance(results[0], tuple):
                return tuple(_float(part, shape) for part in zip(*results, strict=True))
            return _float(results, shape)

        return evaluate

    return lift


def _number(x: Any) -> Any:
    """One entry, or nested lists of them, as the exact numbers they are."""
    if np.ndim(x):
        return [_number(entry) for entry in x]
    return mpmath.mpf(float(x)) if np.issubdtype(x.dtype, np.floating) else int(x)


def _float(results: Sequence[Any], shape: Shape) -> np.ndarray:
    flat = np.vectorize(float, otypes=[float])(np.array(results, dtype=object))
    return flat.reshape(shape + flat.shape[1:])


# --- bad calls ---------------------------------------------------------------------


def refused(
    loss: str,
    argument: str,
    *args: Any,
    error: type[Exception] = ValueError,
    **params: Any,
) -> BadCall:
    """A call that must raise exactly `error`, naming the loss and the argument."""
    return args, params, error, rf"^{loss}: .*`{argument}`"


def refused_pairs(loss: str, first: str, second: str) -> tuple[BadCall, ...]:
    """What every loss of two equal shapes refuses: broadcasting, integers, strings."""
    ones = np.ones(3)
    return (
        refused(loss, second, ones, np.ones((3, 1))),
        refused(loss, second, ones, np.ones(4)),
        refused(loss, first, np.ones(3, int), ones, error=TypeError),
        refused(loss, first, "three", ones, error=TypeError),
    )
