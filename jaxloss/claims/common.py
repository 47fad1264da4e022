"""What every spec needs: samples, extreme values, and formulas in 60 digits."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss.testing import Symmetry
from jaxloss.testing.exact import mp

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


# --- symmetries ---------------------------------------------------------------------


def shift(*positions: int) -> Symmetry:
    """The same number added to the arguments at `positions` of an example."""

    def move(rng: Rng, *args: np.ndarray) -> Args:
        step = 2.0 ** rng.integers(-2, 4, size=len(args[0]))
        return tuple(
            a + step.reshape(-1, *[1] * (a.ndim - 1)) if i in positions else a
            for i, a in enumerate(args)
        )

    return Symmetry("a shift", move)


def scale(power: float, *positions: int) -> Symmetry:
    """The arguments at `positions` k times as large: the loss k^power times."""
    factor = 4.0
    return Symmetry(
        f"a scale (of power {power:g})",
        lambda rng, *args: tuple(
            factor * a if i in positions else a for i, a in enumerate(args)
        ),
        lambda loss: factor**power * loss,
    )


def flip(*positions: int) -> Symmetry:
    """The other sign of the arguments at `positions`."""
    return Symmetry(
        "a flip of signs",
        lambda rng, *args: tuple(
            -a if i in positions else a for i, a in enumerate(args)
        ),
    )


def swap(first: int = 0, second: int = 1) -> Symmetry:
    """Two arguments change places."""

    def move(rng: Rng, *args: np.ndarray) -> Args:
        places = [*range(len(args))]
        places[first], places[second] = second, first
        return tuple(args[i] for i in places)

    return Symmetry("a swap of two arguments", move)


def permutation(*positions: int, ids: int | None = None, axis: int = 1) -> Symmetry:
    """The entries along `axis` (0 counts the examples of the batch of the law) in
    another order, and class ids at `ids` renamed with them."""

    def move(rng: Rng, *args: np.ndarray) -> Args:
        order = rng.permutation(args[positions[0]].shape[axis])
        moved = [
            np.take(a, order, axis) if i in positions else a for i, a in enumerate(args)
        ]
        if ids is not None:
            moved[ids] = np.argsort(order)[args[ids]]
        return tuple(moved)

    return Symmetry("a permutation", move)


# --- references: the formula of the paper, with 60 digits --------------------------


def exact(formula: Callable) -> Callable:
    """Lifts a formula of numbers over arrays, evaluated by mpmath with 60 digits.

    A float64 reference with `log(1 - p)` in it is less accurate than the code it
    should judge.  Floating arguments arrive as `mp.mpf`, booleans and integers as
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
            with mp.workdps(60):
                for index in np.ndindex(shape):
                    results.append(
                        formula(*(_number(a[index]) for a in arrays), **params)
                    )
            if isinstance(results[0], tuple):
                return tuple(_float(part, shape) for part in zip(*results, strict=True))
            return _float(results, shape)

        evaluate.formula = formula  # of one example, in mpmath
        return evaluate

    return lift


def component(gradient: Any, argument: int) -> Callable:
    """The slope in one argument, of one example, from a gradient in several."""
    formula = getattr(gradient, "formula", gradient)
    return lambda *args, **params: formula(*args, **params)[argument]


def _number(x: Any) -> Any:
    """One entry, or nested lists of them, as the exact numbers they are."""
    if np.ndim(x):
        return [_number(entry) for entry in x]
    return mp.mpf(float(x)) if np.issubdtype(x.dtype, np.floating) else int(x)


def _float(results: Sequence[Any], shape: Shape) -> np.ndarray:
    flat = np.vectorize(float, otypes=[float])(np.array(results, dtype=object))
    return flat.reshape(shape + flat.shape[1:])


# --- lines: `at(x, case)` gives the arguments at a point of a picture ---------------


def vector(*entries: Any) -> jax.Array:
    """Numbers, of which one depends on the point, as a vector."""
    return jnp.stack([jnp.asarray(x, float) for x in entries])


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


# --- laws that do not apply -----------------------------------------------------------

# Of a gradient that is, as published, not the derivative of the value.
OF_DERIVATIVES = "gradient_matches_differences", "second_order_is_finite"
