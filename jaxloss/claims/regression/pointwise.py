"""Claims of the losses between real-valued predictions and targets."""

import numpy as np

import jaxloss
from jaxloss.claims.common import (
    big,
    exact,
    ladder,
    pair,
    positive_pair,
    refused,
    refused_pairs,
    root,
    tiny,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.exact import mp

ONES = np.ones(3)


def sign(x):
    return (x > 0) - (x < 0)


def clip(x, limit):
    return min(max(x, -limit), limit)


def apart(top):
    """Residuals of every size from either side, and predictions on their targets."""

    def edges(dtype):
        r = ladder(dtype, top(dtype))
        return [(r, np.zeros_like(r)), (np.zeros_like(r), r), (r, r)]

    return edges


def of_residual(
    fn, value, slope, curve, *, top=big, convex=True, bad_calls=(), **claims
):
    """The spec of a loss of r = p - t with these derivatives in r."""
    settings = {**claims.get("params", {}), **claims.get("static", {})}
    settings = ", ".join(f"{k}={v}" for k, v in settings.items())
    name = fn.__name__

    @exact
    def gradient(p, t, **params):
        return slope(p - t, **params), -slope(p - t, **params)

    return LossSpec(
        name=f"{name}({settings})" if settings else name,
        fn=fn,
        sample=pair,
        differentiable=(0, 1),
        reference=exact(lambda p, t, **params: value(p - t, **params)),
        gradient=gradient,
        curvature=exact(lambda p, t, **params: curve(p - t, **params)),
        minimiser=lambda t, **params: t,
        convex=convex,
        extremes=apart(top),
        bad_calls=(
            *refused_pairs(name, "predictions", "targets"),
            refused(name, "targets", ONES, ONES > 0, error=TypeError),
            *bad_calls,
        ),
        **claims,
    )


def weight(r, level):
    """Below the target the level, above it the rest; on it, whatever."""
    return 1 - level if r > 0 else mp.mpf(level)


def pinball(quantile):
    return of_residual(
        jaxloss.pinball,
        value=lambda r, quantile: max(-quantile * r, (1 - quantile) * r),
        slope=lambda r, quantile: sign(r) * weight(r, quantile),
        curve=lambda r, quantile: 0,
        params={"quantile": quantile},
        smooth=False,
        bad_calls=(
            refused("pinball", "quantile", ONES, ONES, quantile=0.0),
            refused("pinball", "quantile", ONES, ONES, quantile=1.0),
            refused("pinball", "quantile", ONES, ONES, quantile=np.full((3, 1), 0.5)),
            refused("pinball", "quantile", ONES, ONES, quantile="low", error=TypeError),
        ),
    )


def expectile(level):
    return of_residual(
        jaxloss.expectile,
        value=lambda r, expectile: weight(r, expectile) * r**2,
        slope=lambda r, expectile: 2 * weight(r, expectile) * r,
        curve=lambda r, expectile: 2 * weight(r, expectile) if r else mp.nan,
        top=root,
        params={"expectile": level},
        bad_calls=(
            refused("expectile", "expectile", ONES, ONES, expectile=-0.1),
            refused("expectile", "expectile", ONES, ONES, expectile=1.0),
        ),
    )


def huber(r, delta):
    return r**2 / 2 if abs(r) <= delta else delta * (abs(r) - mp.mpf(delta) / 2)


def quantile_huber(quantile, delta):
    return of_residual(
        jaxloss.quantile_huber,
        value=lambda r, quantile, delta: weight(r, quantile) * huber(r, delta),
        slope=lambda r, quantile, delta: weight(r, quantile) * clip(r, delta),
        curve=lambda r, quantile, delta: (
            weight(r, quantile) * (abs(r) < delta)
            if abs(r) not in (0, delta)
            else mp.nan
        ),
        params={"quantile": quantile, "delta": delta},
        bad_calls=(
            refused("quantile_huber", "quantile", ONES, ONES, quantile=1.5),
            refused("quantile_huber", "delta", ONES, ONES, delta=0.0),
        ),
    )


def log_ratio(p, t):
    # 1e-310 beside 1 needs more than the usual digits.
    with mp.workdps(700):
        return mp.log((1 + p) / (1 + t))


@exact
def slopes_of_logs(p, t):
    return 2 * log_ratio(p, t) / (1 + p), -2 * log_ratio(p, t) / (1 + t)


def amounts(dtype):
    """Amounts of every size, also just above -1, against 0, 1 and each other."""
    x = np.append(np.unique(np.abs(ladder(dtype))), [-0.5, -0.9375])
    against = [np.full_like(x, t) for t in (0.0, 1.0, -0.9375, big(dtype))]
    return [(a, b) for t in against for a, b in ((x, t), (t, x))] + [(x, x)]


def squared_log_error():
    name = "squared_log_error"
    return LossSpec(
        name=name,
        fn=jaxloss.squared_log_error,
        sample=positive_pair,
        differentiable=(0, 1),
        reference=exact(lambda p, t: log_ratio(p, t) ** 2),
        gradient=slopes_of_logs,
        minimiser=lambda t: t,
        extremes=amounts,
        bad_calls=refused_pairs(name, "predictions", "targets"),
    )


@exact
def relative_slopes(p, t):
    if p == t:
        return 0, 0
    side = sign(p - t) * sign(t)
    return side / t, -side * p / t**2


def parts_of_targets(dtype):
    """Both 0, one on the other, and either much the larger."""
    # The second derivative in t, of size 1 / low^3, is still a number.
    low = 2 * np.cbrt(tiny(dtype))
    t = ladder(dtype, root(dtype))
    t = np.append(t[np.abs(t) >= low], low)
    p = ladder(dtype, root(dtype))
    one, zero = np.ones_like(t), np.zeros_like(t)
    return [(p, p), (t, t), (zero, t), (one, t), (-t, t), (p, np.ones_like(p))]


def absolute_percentage_error():
    name = "absolute_percentage_error"
    return LossSpec(
        name=name,
        fn=jaxloss.absolute_percentage_error,
        sample=pair,
        differentiable=(0, 1),
        reference=exact(lambda p, t: abs(p - t) / abs(t) if p != t else 0),
        gradient=relative_slopes,
        curvature=exact(lambda p, t: 0),
        smooth=False,
        minimiser=lambda t: t,
        convex=True,
        extremes=parts_of_targets,
        bad_calls=refused_pairs(name, "predictions", "targets"),
    )


SPECS = [
    of_residual(
        jaxloss.squared_error,
        value=lambda r: r**2,
        slope=lambda r: 2 * r,
        curve=lambda r: 2,
        top=root,
    ),
    of_residual(
        jaxloss.absolute_error,
        value=abs,
        slope=sign,
        curve=lambda r: 0,
        smooth=False,
    ),
    pinball(0.5),
    pinball(0.9),
    expectile(0.5),
    expectile(0.1),
    quantile_huber(0.25, 1.0),
    quantile_huber(0.9, 0.1),
    squared_log_error(),
    absolute_percentage_error(),
]
