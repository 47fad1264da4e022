"""What the losses of the bench are called with, drawn with a fixed seed.

NumPy only: a worker process draws the same arrays without importing JAX.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SEED = 0


class Arg(NamedTuple):
    """One array: how it is drawn, its shape, and the dtype it is passed in."""

    kind: str
    """A name in `DRAWS`."""
    shape: tuple[int, ...]
    dtype: str = "float32"
    below: int = 0
    """Class ids are less than this."""
    scale: float = 1.0
    """The standard deviation of what is normal."""


def _normal(rng: np.random.Generator, arg: Arg) -> np.ndarray:
    x = rng.standard_normal(arg.shape, np.float32)
    x *= np.float32(arg.scale)
    return x


def _distributions(rng: np.random.Generator, arg: Arg) -> np.ndarray:
    x = np.exp(_normal(rng, arg))
    return x / np.sum(x, axis=-1, keepdims=True)


def _boxes(rng: np.random.Generator, arg: Arg) -> np.ndarray:
    """Corners, which overlap those of other boxes often."""
    centre, half = _normal(rng, arg), np.exp(_normal(rng, arg))
    first = slice(0, 2)
    ends = centre[..., first] - half[..., first], centre[..., first] + half[..., first]
    return np.concatenate(ends, axis=-1)


DRAWS: dict[str, Callable[[np.random.Generator, Arg], np.ndarray]] = {
    "normal": _normal,
    "ids": lambda rng, arg: rng.integers(0, arg.below, arg.shape),
    # Of a sequence whose class 0 is the blank.
    "labels": lambda rng, arg: rng.integers(1, arg.below, arg.shape),
    "bits": lambda rng, arg: rng.random(arg.shape, np.float32) < 0.3,
    "mask": lambda rng, arg: rng.random(arg.shape, np.float32) < 0.8,
    "signs": lambda rng, arg: rng.choice([-1, 1], arg.shape),
    "zeros": lambda rng, arg: np.zeros(arg.shape),
    "positive": lambda rng, arg: np.exp(_normal(rng, arg)),
    "negative": lambda rng, arg: -np.exp(_normal(rng, arg)),
    "probabilities": lambda rng, arg: rng.uniform(0.05, 0.95, arg.shape),
    "counts": lambda rng, arg: rng.poisson(3, arg.shape),
    "boxes": _boxes,
    # One distribution per row.
    "distributions": _distributions,
    "log_distributions": lambda rng, arg: np.log(_distributions(rng, arg)),
    # Of each pixel one class.
    "one_hot": lambda rng, arg: np.eye(arg.shape[-1])[
        rng.integers(0, arg.shape[-1], arg.shape[:-1])
    ],
    "permutation": lambda rng, arg: rng.permutation(arg.shape[0]),
    # Two views of each example, one after the other.
    "views": lambda rng, arg: np.arange(arg.shape[0]) // 2,
}


def draw(args: tuple[Arg, ...]) -> list[np.ndarray]:
    """The arrays, with bfloat16 still to be rounded: NumPy does not know it."""
    rng = np.random.default_rng(SEED)
    dtype = lambda arg: "float32" if arg.dtype == "bfloat16" else arg.dtype
    return [DRAWS[a.kind](rng, a).astype(dtype(a), copy=False) for a in args]
