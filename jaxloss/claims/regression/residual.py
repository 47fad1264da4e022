"""All that is claimed of a loss of the residual r = prediction - target, from its value
and its derivatives in r and in each hyperparameter."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxloss.claims import domains
from jaxloss.claims.common import (
    big,
    exact,
    flip,
    ladder,
    pair,
    refused,
    refused_pairs,
    shift,
    swap,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import EDGES, Case, decades, line
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

ONES = np.ones(3)
RESIDUAL = Line("prediction − target", (-4, 4), lambda x, _: (x, 0 * x))
# Of a loss that does not know the sign of the residual.
EVEN = (shift(0, 1), flip(0, 1), swap())


def of_residual(
    fn: Callable,
    value: Callable,
    slopes: Sequence[Callable],
    curves: Sequence[Callable],
    *,
    settings: Sequence[dict] = ({},),
    sweep: Sequence = ((),),
    bounds: tuple[float, float, float] = (8, 8, 12),
    accuracy: tuple[Case, ...] = (),
    drawn: tuple[dict, ...] = (),
    **laws: Any,
) -> Claim:
    """The claim of a loss from formulas of r and the hyperparameters, in turn.

    `slopes` and `curves` are its derivatives in r, then in each hyperparameter.  `laws`
    are the fields of all settings, where they are not the usual ones; those of one of
    `settings` go before.  `sweep` has the hyperparameters of the cases of accuracy.
    """
    specs = [_spec(fn, value, slopes[0], curves[0], {**laws, **s}) for s in settings]
    return Claim(
        fn=fn,
        domains=domains.RESIDUAL,
        settings=tuple(specs),
        accuracy=accuracy or tuple(_cases(fn, slopes, curves, sweep, bounds)),
        line=RESIDUAL,
        drawn=drawn,
    )


# --- formulas of a residual ---------------------------------------------------------


def zero(r, *hyperparameters):
    return mp.mpf(0)


def sign(r):
    return (r > 0) - (r < 0)


def clip(r, limit):
    return min(max(r, -limit), limit)


def weight(r, level):
    """Up to the target the level, above it the rest."""
    return 1 - level if r > 0 else level


def huber(r, delta):
    return r**2 / 2 if abs(r) <= delta else delta * (abs(r) - delta / 2)


# --- laws --------------------------------------------------------------------------


def mean(targets, **params):
    return np.mean(targets)


def median(targets, **params):
    return np.median(targets)


def apart(top: Callable) -> Callable:
    """Residuals of every size from either side, and predictions on their targets."""

    def edges(dtype):
        r = ladder(dtype, top(dtype))
        return [(r, np.zeros_like(r)), (np.zeros_like(r), r), (r, r)]

    return edges


USUAL = {"convex": True, "symmetries": EVEN, "extremes": apart(big)}


def _spec(fn, value, slope, curve, laws) -> LossSpec:
    """One setting, at `params`, of which those in `static` are not differentiated."""
    name, fixed = fn.__name__, laws.get("static", {})
    given = {**laws.get("params", {}), **fixed}
    said = ", ".join(f"{k}={v}" for k, v in given.items())
    lift = lambda formula: exact(_by_name(formula, _hyperparameters(fn), fixed))
    common_calls = (
        *refused_pairs(name, "predictions", "targets"),
        refused(name, "targets", ONES, ONES > 0, error=TypeError),
    )
    own = {**USUAL, **laws}
    own["bad_calls"] = (*common_calls, *laws.get("bad_calls", ()))
    return LossSpec(
        name=f"{name}({said})" if said else name,
        fn=fn,
        sample=pair,
        differentiable=(0, 1),
        reference=lift(value),
        gradient=lift(lambda r, *h: (slope(r, *h), -slope(r, *h))),
        curvature=lift(curve),
        minimiser=lambda t, **params: t,
        **own,
    )


def _by_name(formula: Callable, names: list[str], fixed: dict) -> Callable:
    """A formula of r as one of p and t, with hyperparameters by name, or fixed."""

    def evaluate(p, t, **params):
        given = {**fixed, **params}
        return formula(p - t, *(mp.mpf(given[name]) for name in names))

    return evaluate


def _hyperparameters(fn: Callable) -> list[str]:
    given = inspect.signature(fn).parameters.values()
    return [p.name for p in given if p.kind is p.KEYWORD_ONLY]


# --- accuracy ----------------------------------------------------------------------

# What float16 holds; and what float32 holds.
MODEST = np.concatenate([decades(1e-7, 6e4, points=25), line(-9, 9, points=25), EDGES])
WIDE = decades(1e-37, 1e30, points=35)
OFFSETS = np.array([100.1, -3e4, 7.0, 2**-11])  # beside 100, -2.9e4, 6.5, 2**-12

PREDICTED = np.concatenate([MODEST, 0 * MODEST, OFFSETS, EDGES])
TRUE = np.concatenate([0 * MODEST, MODEST, [100, -2.9e4, 6.5, 2**-12], EDGES])


def _crossed(p: np.ndarray, t: np.ndarray, sweep: Sequence) -> tuple[np.ndarray, ...]:
    """Predictions and targets, with every setting of the hyperparameters."""
    chosen = np.repeat(np.array(sweep).reshape(len(sweep), -1), len(p), axis=0)
    return *(np.tile(c, len(sweep)) for c in (p, t)), *chosen.T


def _cases(fn, slopes, curves, sweep, bounds) -> Iterator[Case]:
    """The same claims in every argument, in and beyond float16."""
    names = tuple(_hyperparameters(fn))
    grids = {"": (PREDICTED, TRUE), ", far out": (WIDE, 0 * WIDE)}
    for argument, name in enumerate(("predictions", "targets", *names)):
        at, side = max(argument - 1, 0), -1 if argument == 1 else 1
        # The slope in the targets is that in the predictions, turned.
        for where in ("",) if name == "targets" else grids:
            yield Case(
                name=f"in {name}{where}",
                names=names,
                first=of_difference(slopes[at], side),
                second=of_difference(curves[at]),
                columns=_crossed(*grids[where], sweep),
                argument=argument,
                bounds=bounds,
                halves=not where,
            )


def of_difference(formula: Callable, side: int = 1) -> Callable:
    """A formula of r as one of p and t, with hyperparameters in turn."""
    return lambda p, t, *h: side * formula(p - t, *h)
