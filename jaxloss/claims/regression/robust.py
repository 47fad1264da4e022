"""Claims of the losses that no outlier dominates."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims.common import big, refused, root, scale as scaled
from jaxloss.claims.regression.residual import (
    EVEN,
    ONES,
    apart,
    clip,
    huber,
    mean,
    median,
    of_difference,
    of_residual,
    sign,
    zero,
)
from jaxloss.testing.accuracy import FLUSH, Case, decades, derivative, pairs
from jaxloss.testing.exact import mp

HUBER = of_residual(
    jaxloss.huber,
    huber,
    [clip, lambda r, d: max(abs(r) - d, 0)],
    [lambda r, d: abs(r) <= d, lambda r, d: -(abs(r) > d)],
    settings=[{"params": {"delta": 1.0}}, {"params": {"delta": 0.1}}],
    sweep=(1.0, 2.0**-9, 50.0),
    bounds=(1, 1, 0),
    bad_calls=(
        refused("huber", "delta", ONES, ONES, delta=0.0),
        refused("huber", "delta", ONES, ONES, delta=-1.0),
        refused("huber", "delta", ONES, ONES, delta=np.ones((3, 1))),
        refused("huber", "delta", ONES, ONES, delta="one", error=TypeError),
    ),
)


def ramp(r, b):
    return clip(r / b, 1) if b else sign(r)


# Both are the absolute error at 0.
ABSOLUTE = {
    "smooth": False,
    "functional": median,
    "symmetries": (*EVEN, scaled(1, 0, 1)),
}

SMOOTH_L1 = of_residual(
    jaxloss.smooth_l1,
    lambda r, b: huber(r, b) / b if b else abs(r),
    [ramp, lambda r, b: -(ramp(r, b) ** 2) / 2],
    [
        lambda r, b: 1 / b if b and abs(r) <= b else mp.mpf(0),
        lambda r, b: r**2 / b**3 if b and abs(r) <= b else mp.mpf(0),
    ],
    settings=[{"params": {"beta": 1.0}}, {"params": {"beta": 0.0}, **ABSOLUTE}],
    sweep=(1.0, 2.0**-9, 50.0, 0.0),
    bounds=(2, 2, 4),
    drawn=({"beta": 0.0}, {"beta": 0.5}, {"beta": 2.0}),
    bad_calls=(refused("smooth_l1", "beta", ONES, ONES, beta=-0.5),),
)

LOG_COSH = of_residual(
    jaxloss.log_cosh,
    lambda r: mp.log1p(2 * mp.sinh(r / 2) ** 2),
    [lambda r: mp.tanh(r)],
    [lambda r: mp.sech(r) ** 2],
    bounds=(2, 3, 6),
)

EPSILON_INSENSITIVE = of_residual(
    jaxloss.epsilon_insensitive,
    lambda r, e: max(abs(r) - e, mp.mpf(0)),
    [lambda r, e: sign(r) * (abs(r) > e), lambda r, e: -(abs(r) > e)],
    [zero, zero],
    settings=[{"params": {"epsilon": 0.1}}, {"params": {"epsilon": 0.0}, **ABSOLUTE}],
    sweep=(0.1, 0.0, 10.0),
    bounds=(1, 0, 0),
    smooth=False,
    bad_calls=(refused("epsilon_insensitive", "epsilon", ONES, ONES, epsilon=-0.1),),
)


# --- Barron's family ---------------------------------------------------------------


def barron(r, alpha, scale):
    """The published formula, and its limits."""
    z = (r / scale) ** 2
    if alpha == 2:
        return z / 2
    if alpha == 0:
        return mp.log1p(z / 2)
    if mp.isinf(alpha):
        return mp.expm1(mp.sign(alpha) * z / 2) * mp.sign(alpha)
    b = abs(alpha - 2)
    return b / alpha * mp.expm1(alpha / 2 * mp.log1p(z / b))


def barron_power(r, alpha, scale):
    """`h^(alpha - 2)`."""
    z = (r / scale) ** 2
    if alpha == 2:
        return mp.mpf(1)
    if mp.isinf(alpha):
        return mp.exp(mp.sign(alpha) * z / 2)
    return (z / abs(alpha - 2) + 1) ** (alpha / 2 - 1)


def barron_slope(r, alpha, scale):
    return r / scale**2 * barron_power(r, alpha, scale)


def barron_slope_in_scale(r, alpha, scale):
    return -r / scale * barron_slope(r, alpha, scale)


def barron_curve(r, alpha, scale):
    w = (r / scale) ** 2 / abs(alpha - 2) if alpha != 2 else mp.mpf(0)
    bend = (1 + (alpha - 1) * w) / (1 + w)
    return barron_power(r, alpha, scale) * bend / scale**2


def barron_curve_if_convex(r, alpha, scale):
    # Below 1 it changes sign: the cases judge it by its condition number.
    return barron_curve(r, alpha, scale) if alpha >= 1 else mp.nan


# The members with names; and what is near a limit, or far from all of them.
MEMBERS = np.array([-20, -2, -(2**-12), 0, 2**-12, 0.5, 1, 1.5, 2, 2.25, 4])
OTHERS = [-1e6, -300, -1e-6, 1e-30, 0.9, 1.001, 2 - 2**-10, 2 - 2**-23, 2 + 2**-22]
SHAPES = np.concatenate([MEMBERS, OTHERS])
# What float16 holds; and what float32 does.
MODEST = np.concatenate([decades(1e-3, 1e3, points=5), np.linspace(0.3, 11, 8)])
WIDE = np.concatenate([decades(1e-30, 1e30, points=9), np.linspace(0.7, 19, 6)])

NAMES = "alpha", "scale"
family = of_difference(barron)
# Exponentials and powers of the residual are only as sure as their exponents.
barron_case = functools.partial(Case, names=NAMES, conditioned=(True, True, True))


def beside_two(alpha):
    """At 2, where the slope in alpha is infinite, the next smaller float32 counts."""
    return 2 - mp.mpf(2) ** -23 if alpha == 2 else alpha


def in_alpha(*places):
    """A derivative in alpha and other arguments."""
    slope = derivative(family, *((i, None) for i in places))
    return lambda p, t, alpha, scale: slope(p, t, beside_two(alpha), scale)


def summed(r, alpha):
    return jnp.sum(jaxloss.general_robust(r, jnp.zeros_like(r), alpha=alpha))


def barron_cases() -> Iterator[Case]:
    slope, curve = of_difference(barron_slope), of_difference(barron_curve)
    by_scale = of_difference(barron_slope_in_scale)
    r, alpha = pairs(MODEST, MEMBERS)
    modest = r + 1, np.ones_like(r), alpha, np.full_like(r, 0.5)
    r, alpha = pairs(WIDE, SHAPES)
    wide = r, 0 * r, alpha, np.ones_like(r)
    # A power that is flushed to zero is missing from its products with alpha and r.
    near = {"columns": modest, "floor": FLUSH}
    far = {"columns": wide, "floor": 64 * FLUSH, "halves": False}
    for where, claims in (("", near), (", far out", far)):
        case = functools.partial(barron_case, bounds=(2, 2, 3), **claims)
        yield case(name=f"in predictions{where}", first=slope, second=curve)
        second = derivative(by_scale, (3, None))
        yield case(name=f"in scale{where}", argument=3, first=by_scale, second=second)
    yield from alpha_cases()


def alpha_cases() -> Iterator[Case]:
    """The slope in alpha, and what it and the other slope have in common."""
    # Beyond, the second derivative of the largest alpha overflows.
    r, alpha = pairs(WIDE[(WIDE > 0) & (WIDE < 1e8)], SHAPES)
    columns = r, 0 * r, alpha, np.ones_like(r)
    case = functools.partial(barron_case, bounds=(3, 3, 5), halves=False)
    yield case(
        name="in alpha",
        columns=columns,
        argument=2,
        first=in_alpha(2),
        second=in_alpha(2, 2),
    )
    # Of fewer arguments, as these have three derivatives, each in all of them.
    at = lambda formula: lambda r, alpha: formula(r, mp.mpf(0), alpha, mp.mpf(1))
    columns = r[::2], alpha[::2]
    case = functools.partial(case, names=(), columns=columns, first=at(in_alpha(2, 0)))
    yield case(
        name="general_robust in predictions of the slope in alpha",
        fn=jax.grad(summed, 1),
        formula=at(in_alpha(2)),
        second=at(in_alpha(2, 0, 0)),
    )
    yield case(
        name="general_robust in alpha of the slope in predictions",
        fn=jax.grad(summed),
        formula=at(of_difference(barron_slope)),
        argument=1,
        second=at(in_alpha(2, 2, 0)),
    )


def member(alpha: float, scale: float, **more) -> dict:
    """A setting."""
    return {
        "params": {"alpha": alpha, "scale": scale},
        "extremes": apart(root if alpha > 1 else big),
        "convex": alpha >= 1,
        **more,
    }


bad = functools.partial(refused, "general_robust")
GENERAL_ROBUST = of_residual(
    jaxloss.general_robust,
    barron,
    [barron_slope],
    [barron_curve_if_convex],
    settings=[
        member(1.0, 0.5),
        member(0.0, 2.0),
        member(-2.0, 1.0),
        member(float("-inf"), 1.0),
        # At 2 the slope in alpha is infinite: no difference can be compared with it.
        member(
            2.0,
            0.5,
            params={"scale": 0.5},
            static={"alpha": 2.0},
            functional=mean,
            symmetries=(*EVEN, scaled(2, 0, 1)),
        ),
    ],
    accuracy=tuple(barron_cases()),
    bad_calls=(
        bad("scale", ONES, ONES, scale=0.0),
        bad("scale", ONES, ONES, scale=np.ones(2)),
        bad("alpha", ONES, ONES, alpha=float("nan")),
        bad("alpha", ONES, ONES, alpha="Welsch", error=TypeError),
    ),
)

CLAIMS = [HUBER, SMOOTH_L1, LOG_COSH, EPSILON_INSENSITIVE, GENERAL_ROBUST]
