"""Claims of the losses between real-valued predictions and targets."""

from collections.abc import Iterator

import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import (
    big,
    component,
    exact,
    flip,
    ladder,
    pair,
    positive_pair,
    refused,
    refused_pairs,
    root,
    scale,
    shift,
    swap,
    tiny,
)
from jaxloss.claims.regression.residual import (
    EVEN,
    ONES,
    apart,
    clip,
    huber,
    mean,
    median,
    of_residual,
    sign,
    weight,
    zero,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case, decades, pairs
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import digits, mp

LEVELS = (0.5, 0.9, 2.0**-10)

SQUARED_ERROR = of_residual(
    jaxloss.squared_error,
    lambda r: r**2,
    [lambda r: 2 * r],
    [lambda r: mp.mpf(2)],
    bounds=(1, 0, 0),
    extremes=apart(root),
    functional=mean,
    symmetries=(*EVEN, scale(2, 0, 1)),
)

ABSOLUTE_ERROR = of_residual(
    jaxloss.absolute_error,
    abs,
    [sign],
    [zero],
    bounds=(1, 0, 0),
    smooth=False,
    functional=median,
    symmetries=(*EVEN, scale(1, 0, 1)),
)


# --- asymmetric --------------------------------------------------------------------


def sample_quantile(targets, quantile):
    """The smallest target with a share of at least `quantile` up to it."""
    return np.quantile(targets, quantile, method="inverted_cdf")


PINBALL = of_residual(
    jaxloss.pinball,
    lambda r, q: max(-q * r, (1 - q) * r),
    [lambda r, q: sign(r) * weight(r, q), lambda r, q: -r],
    [zero, zero],
    settings=[
        {"params": {"quantile": 0.5}, "symmetries": (*EVEN, scale(1, 0, 1))},
        {"params": {"quantile": 0.9}},
    ],
    sweep=LEVELS,
    bounds=(1, 1, 0),
    smooth=False,
    functional=sample_quantile,
    symmetries=(shift(0, 1), scale(1, 0, 1)),
    bad_calls=(
        refused("pinball", "quantile", ONES, ONES, quantile=0.0),
        refused("pinball", "quantile", ONES, ONES, quantile=1.0),
        refused("pinball", "quantile", ONES, ONES, quantile=np.full((3, 1), 0.5)),
        refused("pinball", "quantile", ONES, ONES, quantile="low", error=TypeError),
    ),
)


def sample_expectile(targets, expectile):
    """The mean of the targets, those above it weighed by the level, by iteration."""
    found = np.mean(targets)
    for _ in targets:
        weights = np.where(targets > found, expectile, 1 - expectile)
        found = np.average(targets, weights=weights)
    return found


EXPECTILE = of_residual(
    jaxloss.expectile,
    lambda r, q: weight(r, q) * r**2,
    [lambda r, q: 2 * weight(r, q) * r, lambda r, q: -r * abs(r)],
    [lambda r, q: 2 * weight(r, q), zero],
    settings=[
        {"params": {"expectile": 0.5}, "symmetries": (*EVEN, scale(2, 0, 1))},
        {"params": {"expectile": 0.1}},
    ],
    sweep=LEVELS,
    bounds=(2, 1, 0),
    extremes=apart(root),
    functional=sample_expectile,
    symmetries=(shift(0, 1), scale(2, 0, 1)),
    bad_calls=(
        refused("expectile", "expectile", ONES, ONES, expectile=-0.1),
        refused("expectile", "expectile", ONES, ONES, expectile=1.0),
    ),
)

QUANTILE_HUBER = of_residual(
    jaxloss.quantile_huber,
    lambda r, q, d: weight(r, q) * huber(r, d),
    [
        lambda r, q, d: weight(r, q) * clip(r, d),
        lambda r, q, d: -sign(r) * huber(r, d),
        lambda r, q, d: weight(r, q) * max(abs(r) - d, 0),
    ],
    [
        lambda r, q, d: weight(r, q) * (abs(r) <= d),
        zero,
        lambda r, q, d: -weight(r, q) * (abs(r) > d),
    ],
    settings=[
        {"params": {"quantile": 0.25, "delta": 1.0}},
        {"params": {"quantile": 0.9, "delta": 0.1}},
    ],
    sweep=[(q, d) for q in (0.5, 0.9) for d in (1.0, 0.1)],
    bounds=(2, 2, 0),
    symmetries=(shift(0, 1),),
    bad_calls=(
        refused("quantile_huber", "quantile", ONES, ONES, quantile=1.5),
        refused("quantile_huber", "delta", ONES, ONES, delta=0.0),
    ),
)


# --- of logarithms -----------------------------------------------------------------


@digits(700)  # 1e-310 beside 1
def log_ratio(p, t):
    return mp.log((1 + p) / (1 + t))


@exact
def slopes_of_logs(p, t):
    return 2 * log_ratio(p, t) / (1 + p), -2 * log_ratio(p, t) / (1 + t)


def amounts(dtype):
    """Amounts of every size, also just above -1, against 0, 1 and each other."""
    x = np.append(np.unique(np.abs(ladder(dtype))), [-0.5, -0.9375])
    against = [np.full_like(x, t) for t in (0.0, 1.0, -0.9375, big(dtype))]
    return [(a, b) for t in against for a, b in ((x, t), (t, x))] + [(x, x)]


AMOUNTS = np.concatenate(
    [np.abs(decades(1e-7, 6e4, points=7)[:7]), [0.0, 1.0, 1.7, 100.0, -0.5, -0.96875]]
)


def log_cases() -> Iterator[Case]:
    p, t = pairs(AMOUNTS, AMOUNTS)
    close = np.array([3.0, 1e-3, 500.0, -0.5])
    far = np.array([1e36, -1 + 2**-23, 1e-30, 1e30])
    columns = np.append(p, close * (1 + 2.0**-9)), np.append(t, close)
    for argument, name in enumerate(("predictions", "targets")):
        for halves, (a, b) in ((True, columns), (False, (far, far[[1, 0, 3, 2]]))):
            yield Case(
                name=f"in {name}{'' if halves else ', far out'}",
                columns=(a, b),
                argument=argument,
                # The second derivative changes sign where the ratio is e.
                conditioned=(False, False, True),
                bounds=(4, 4, 3),
                halves=halves,
            )


SQUARED_LOG_ERROR = Claim(
    fn=jaxloss.squared_log_error,
    domains={
        "predictions": domains.ABOVE_MINUS_ONE,
        "targets": domains.ABOVE_MINUS_ONE,
    },
    settings=(
        LossSpec(
            name="squared_log_error",
            fn=jaxloss.squared_log_error,
            sample=positive_pair,
            differentiable=(0, 1),
            reference=exact(lambda p, t: log_ratio(p, t) ** 2),
            gradient=slopes_of_logs,
            minimiser=lambda t: t,
            functional=lambda t: np.expm1(np.mean(np.log1p(t))),
            symmetries=(swap(),),
            extremes=amounts,
            bad_calls=refused_pairs("squared_log_error", "predictions", "targets"),
        ),
    ),
    accuracy=tuple(log_cases()),
    line=Line("prediction, target 1", (0, 6), lambda x, _: (x, 0 * x + 1)),
)


# --- relative ----------------------------------------------------------------------


@exact
def relative_slopes(p, t):
    if p == t:
        return 0, 0
    side = sign(p - t) * sign(t)
    return side / t, -side * p / t**2


def relative_curve_in_targets(p, t):
    return 2 * sign(p - t) * p / abs(t) ** 3


def parts_of_targets(dtype):
    """Both 0, one on the other, and either much the larger."""
    # The second derivative in t, of size 1 / low^3, is still a number.
    low = 2 * np.cbrt(tiny(dtype))
    t = ladder(dtype, root(dtype))
    t = np.append(t[np.abs(t) >= low], low)
    p = ladder(dtype, root(dtype))
    one = np.ones_like(t)
    return [(p, p), (t, t), (0 * t, t), (one, t), (-t, t), (p, np.ones_like(p))]


def median_by_size(targets):
    """The median of the targets, each weighed by the inverse of its size."""
    t = np.sort(targets)
    below = np.cumsum(1 / np.abs(t))
    return t[np.searchsorted(below, below[-1] / 2)]


def relative_cases() -> Iterator[Case]:
    t = np.array([1.0, -3.0, 1e-3, -4e4, 0.3])
    near = pairs(np.concatenate([t, decades(1e-4, 5e4, points=6), [0.0, 1.001]]), t)
    far = pairs(decades(1e-20, 1e20, points=9), -decades(1e-20, 1e20, points=9)[::-1])
    curves = zero, relative_curve_in_targets
    for argument, name in enumerate(("predictions", "targets")):
        for halves, columns in ((True, near), (False, far)):
            yield Case(
                name=f"in {name}{'' if halves else ', far out'}",
                first=component(relative_slopes, argument),
                second=curves[argument],
                columns=columns,
                argument=argument,
                bounds=(2, 2, 3),
                halves=halves,
            )


ABSOLUTE_PERCENTAGE_ERROR = Claim(
    fn=jaxloss.absolute_percentage_error,
    domains={"predictions": domains.REAL, "targets": domains.NOT_ZERO},
    settings=(
        LossSpec(
            name="absolute_percentage_error",
            fn=jaxloss.absolute_percentage_error,
            sample=pair,
            differentiable=(0, 1),
            reference=exact(lambda p, t: abs(p - t) / abs(t) if p != t else 0),
            gradient=relative_slopes,
            curvature=exact(zero),
            smooth=False,
            minimiser=lambda t: t,
            convex=True,
            functional=median_by_size,
            symmetries=(flip(0, 1), scale(0, 0, 1)),
            extremes=parts_of_targets,
            bad_calls=refused_pairs(
                "absolute_percentage_error", "predictions", "targets"
            ),
        ),
    ),
    accuracy=tuple(relative_cases()),
    line=Line(
        "prediction",
        (-1, 4),
        lambda x, t: (x, t),
        (("target 1", 1.0), ("target 2", 2.0)),
    ),
)

CLAIMS = [
    SQUARED_ERROR,
    ABSOLUTE_ERROR,
    PINBALL,
    EXPECTILE,
    QUANTILE_HUBER,
    SQUARED_LOG_ERROR,
    ABSOLUTE_PERCENTAGE_ERROR,
]
