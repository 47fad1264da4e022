"""Claims of the functions of a margin."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxloss import margins
from jaxloss.testing.accuracy import EDGES, Case, decades, line
from jaxloss.testing.claim import Claim
from jaxloss.testing.exact import mp

MARGINS = np.concatenate([line(), decades(), EDGES])


class Phi(NamedTuple):
    """A function of the margin as published, in mpmath, and the bounds of ours in ulps.

    At a kink the slope is 0 and the curvature that of the side of larger margins.
    """

    value: Callable
    slope: Callable
    curvature: Callable
    bounds: tuple[float, float, float]


def step(condition):
    return mp.mpf(bool(condition))


def clip(x, low, high):
    return min(max(x, low), high)


FORMULAS = {
    "hinge": Phi(
        lambda m: max(0, 1 - m),
        lambda m: -step(m < 1),
        lambda m: mp.mpf(0),
        (0.5, 0, 0),
    ),
    "squared_hinge": Phi(
        lambda m: max(0, 1 - m) ** 2,
        lambda m: -2 * max(0, 1 - m),
        lambda m: 2 * step(m < 1),
        (2, 0.5, 0),
    ),
    "smooth_hinge": Phi(
        lambda m: mp.mpf(1) / 2 - m if m < 0 else max(0, 1 - m) ** 2 / 2,
        lambda m: -clip(1 - m, 0, 1),
        lambda m: step(0 <= m < 1),
        (2, 0.5, 0),
    ),
    "logistic": Phi(
        lambda m: mp.log1p(mp.exp(-m)),
        lambda m: -1 / (1 + mp.exp(m)),
        lambda m: 1 / (2 + mp.exp(m) + mp.exp(-m)),
        (3, 3, 4),
    ),
    "exponential": Phi(
        lambda m: mp.exp(-m),
        lambda m: -mp.exp(-m),
        lambda m: mp.exp(-m),
        (6, 6, 6),
    ),
    "perceptron": Phi(
        lambda m: max(0, -m),
        lambda m: -step(m < 0),
        lambda m: mp.mpf(0),
        (0, 0, 0),
    ),
    "modified_huber": Phi(
        lambda m: -4 * m if m < -1 else max(0, 1 - m) ** 2,
        lambda m: -2 * clip(1 - m, 0, 2),
        lambda m: 2 * step(-1 <= m < 1),
        (2, 0.5, 0),
    ),
    "squared": Phi(
        lambda m: (1 - m) ** 2,
        lambda m: -2 * (1 - m),
        lambda m: mp.mpf(2),
        (2, 0.5, 0),
    ),
}


def claim(name: str) -> Claim:
    phi = FORMULAS[name]
    case = Case(
        name="of the margin",  # the loss of the same name is of scores and labels
        formula=phi.value,
        first=phi.slope,
        second=phi.curvature,
        columns=(MARGINS,),
        bounds=phi.bounds,
        halves=False,  # the losses widen half precision before they come here
    )
    return Claim(fn=getattr(margins, name), accuracy=(case,))


CLAIMS = [*map(claim, FORMULAS)]
