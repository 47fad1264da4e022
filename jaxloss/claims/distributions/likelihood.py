"""Claims of the negative log-likelihoods."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import (
    Args,
    component,
    exact,
    flip,
    ladder,
    refused,
    root,
    shift,
    swap,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case, decades, line, pairs
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

ONES = np.ones(3)

# Told apart in pictures.
VARIANCES = (
    ("log-variance −1", -1.0),
    ("log-variance 0", 0.0),
    ("log-variance 1", 1.0),
)


# --- Gaussian ----------------------------------------------------------------------


def gaussians(rng, shape):
    """Means, targets and log-variances."""
    return tuple(rng.normal(size=shape) for _ in range(3))


@exact
def gaussian_nll(m, t, s):
    return (mp.log(2 * mp.pi) + s + (m - t) ** 2 * mp.exp(-s)) / 2


@exact
def gaussian_slopes(m, t, s):
    pull = (m - t) * mp.exp(-s)
    return pull, -pull, (1 - (m - t) * pull) / 2


def precision(m, t, s):
    return mp.exp(-s)


def curve_in_log_variance(m, t, s):
    return (m - t) ** 2 * mp.exp(-s) / 2


def spreads(dtype):
    """No error at any variance; any error at its own variance, and at variance 1."""
    high = min(80.0, float(np.log(root(dtype))))
    s = np.linspace(-high, high, 9)
    r, zero = ladder(dtype, root(dtype)), np.zeros_like(s)
    return [
        (zero, zero, s),
        (r, r, np.zeros_like(r)),
        (np.exp(s), zero, 2 * s),
        (zero, np.exp(s / 2), s),
        (r, np.zeros_like(r), np.zeros_like(r)),
    ]


def normal_outcomes(rng):
    """A Gaussian, at the nodes of a Gauss-Hermite quadrature, exact for squares."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    mean, log_variance = rng.normal(size=2)
    targets = mean + np.exp(log_variance / 2) * nodes
    told = np.full_like(nodes, mean), targets, np.full_like(nodes, log_variance)
    return told, weights / np.sum(weights)


# What float16 holds; and what float32 does, with variances of 1e-65 to 1e87.
MODEST = pairs(
    np.concatenate([decades(1e-3, 100, points=5), [0.0]]), line(-6, 6, points=9)
)
WIDE = pairs(
    np.concatenate([decades(1e-37, 1e30, points=9), [0.0]]),
    np.concatenate([line(-150, 200, points=15), [0.0, 88.0, -88.0]]),
)


def cases_of_scales(
    names: tuple[str, str, str],
    slopes: Any,
    curves: tuple[Callable, Callable, Callable],
    near: Args,
    far: Args,
    conditioned: tuple[bool, bool],
    bounds: tuple[float, float, float],
) -> Iterator[Case]:
    """Of a location, a target and the logarithm of a scale, in each of them."""
    for argument, name in enumerate(names):
        for halves, columns in ((True, near), (False, far)):
            yield Case(
                name=f"in {name}{'' if halves else ', far out'}",
                first=component(slopes, argument),
                second=curves[argument],
                columns=columns,
                argument=argument,
                # The slope in the scale changes sign.
                conditioned=(conditioned[0], argument == 2, conditioned[1]),
                bounds=bounds,
                halves=halves,
            )


def gaussian_cases() -> Iterator[Case]:
    r, s = MODEST
    return cases_of_scales(
        ("means", "targets", "log_variances"),
        gaussian_slopes,
        (precision, precision, curve_in_log_variance),
        near=(r + 1, np.ones_like(r), s),
        far=(WIDE[0], 0 * WIDE[0], WIDE[1]),
        conditioned=(True, False),  # the value changes sign
        bounds=(2, 4, 6),
    )


GAUSSIAN_NLL = Claim(
    fn=jaxloss.gaussian_nll,
    domains={
        "means": domains.REAL,
        "targets": domains.REAL,
        "log_variances": domains.REAL,
    },
    settings=(
        LossSpec(
            name="gaussian_nll",
            fn=jaxloss.gaussian_nll,
            sample=gaussians,
            differentiable=(0, 1, 2),
            reference=gaussian_nll,
            gradient=gaussian_slopes,
            curvature=exact(precision),
            minimiser=lambda t, s: t,
            minimum=lambda t, s: (np.log(2 * np.pi) + s) / 2,
            convex=True,
            functional=lambda t, s: np.average(t, weights=np.exp(-s)),
            proper=normal_outcomes,
            forecast=(0, 2),
            symmetries=(shift(0, 1), flip(0, 1), swap()),
            extremes=spreads,
            bad_calls=(
                refused("gaussian_nll", "targets", ONES, np.ones((3, 1)), ONES),
                refused("gaussian_nll", "log_variances", ONES, ONES, np.float64(0)),
                refused(
                    "gaussian_nll",
                    "log_variances",
                    ONES,
                    ONES,
                    ONES > 0,
                    error=TypeError,
                ),
                refused(
                    "gaussian_nll",
                    "means",
                    np.ones(3, int),
                    ONES,
                    ONES,
                    error=TypeError,
                ),
            ),
        ),
    ),
    accuracy=tuple(gaussian_cases()),
    line=Line(
        "mean − target",
        (-4, 4),
        lambda x, s: (x, 0 * x, 0 * x + s),
        VARIANCES,
    ),
)

CLAIMS = [GAUSSIAN_NLL]
