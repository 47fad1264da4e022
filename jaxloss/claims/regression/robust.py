"""Claims of the losses that no outlier dominates."""

import numpy as np

import jaxloss
from jaxloss.claims.common import big, refused, root
from jaxloss.claims.regression.pointwise import (
    ONES,
    clip,
    huber as huber_value,
    of_residual,
    sign,
)
from jaxloss.testing.exact import mp


def huber(delta):
    return of_residual(
        jaxloss.huber,
        value=huber_value,
        slope=lambda r, delta: clip(r, delta),
        curve=lambda r, delta: int(abs(r) < delta) if abs(r) != delta else mp.nan,
        params={"delta": delta},
        bad_calls=(
            refused("huber", "delta", ONES, ONES, delta=0.0),
            refused("huber", "delta", ONES, ONES, delta=-1.0),
            refused("huber", "delta", ONES, ONES, delta=np.ones((3, 1))),
            refused("huber", "delta", ONES, ONES, delta="one", error=TypeError),
        ),
    )


def smooth_l1(beta):
    return of_residual(
        jaxloss.smooth_l1,
        value=lambda r, beta: (
            r**2 / (2 * beta) if abs(r) < beta else abs(r) - mp.mpf(beta) / 2
        ),
        slope=lambda r, beta: clip(r / beta, 1) if beta else sign(r),
        curve=lambda r, beta: (
            (1 / mp.mpf(beta) if abs(r) < beta else 0) if abs(r) != beta else mp.nan
        ),
        params={"beta": beta},
        smooth=beta > 0,
        bad_calls=(refused("smooth_l1", "beta", ONES, ONES, beta=-0.5),),
    )


def epsilon_insensitive(epsilon):
    return of_residual(
        jaxloss.epsilon_insensitive,
        value=lambda r, epsilon: max(0, abs(r) - epsilon),
        slope=lambda r, epsilon: sign(r) * (abs(r) > epsilon),
        curve=lambda r, epsilon: 0,
        params={"epsilon": epsilon},
        smooth=False,
        bad_calls=(
            refused("epsilon_insensitive", "epsilon", ONES, ONES, epsilon=-0.1),
        ),
    )


def barron(r, alpha, scale):
    """The published formula, and its limits."""
    z = (r / scale) ** 2
    if alpha == 2:
        return z / 2
    if alpha == 0:
        return mp.log1p(z / 2)
    if mp.isinf(alpha):
        return mp.expm1(mp.sign(alpha) * z / 2) * mp.sign(alpha)
    b = abs(mp.mpf(alpha) - 2)
    return b / alpha * mp.expm1(mp.mpf(alpha) / 2 * mp.log1p(z / b))


def barron_slope(r, alpha, scale):
    z = (r / scale) ** 2
    return r / mp.mpf(scale) ** 2 * barron_power(z, alpha)


def barron_power(z, alpha):
    """`h^(alpha - 2)`."""
    if alpha == 2:
        return mp.mpf(1)
    if mp.isinf(alpha):
        return mp.exp(mp.sign(alpha) * z / 2)
    return (z / abs(mp.mpf(alpha) - 2) + 1) ** (mp.mpf(alpha) / 2 - 1)


def barron_curve(r, alpha, scale):
    # Below 1 it changes sign: `test_robust.py` judges it by its condition number.
    if alpha < 1:
        return mp.nan
    z = (r / scale) ** 2
    w = z / abs(mp.mpf(alpha) - 2) if alpha != 2 else mp.mpf(0)
    bend = (1 + (alpha - 1) * w) / (1 + w)
    return barron_power(z, alpha) * bend / mp.mpf(scale) ** 2


def general_robust(alpha, scale, *, learnt=True):
    """With `learnt`, the slope in alpha is claimed too."""
    bad = lambda argument, **params: refused(
        "general_robust", argument, ONES, ONES, **params
    )
    given = lambda formula: (
        formula if learnt else lambda r, scale: formula(r, alpha, scale)
    )
    settings = {"params": {"alpha": alpha, "scale": scale}}
    if not learnt:
        settings = {"params": {"scale": scale}, "static": {"alpha": alpha}}
    return of_residual(
        jaxloss.general_robust,
        value=given(barron),
        slope=given(barron_slope),
        curve=given(barron_curve),
        top=root if alpha > 1 else big,
        convex=alpha >= 1,
        bad_calls=(
            bad("scale", scale=0.0),
            bad("scale", scale=np.ones(2)),
            bad("alpha", alpha=float("nan")),
            bad("alpha", alpha="Welsch", error=TypeError),
        ),
        **settings,
    )


SPECS = [
    huber(1.0),
    huber(0.1),
    smooth_l1(1.0),
    smooth_l1(0.0),
    of_residual(
        jaxloss.log_cosh,
        value=lambda r: mp.log1p(2 * mp.sinh(r / 2) ** 2),
        slope=lambda r: mp.tanh(r),
        curve=lambda r: mp.sech(r) ** 2,
    ),
    epsilon_insensitive(0.1),
    epsilon_insensitive(0.0),
    general_robust(1.0, 0.5),
    general_robust(0.0, 2.0),
    general_robust(-2.0, 1.0),
    general_robust(float("-inf"), 1.0),
    # At 2 the slope in alpha is infinite, so no difference can be compared with it.
    general_robust(2.0, 0.5, learnt=False),
]
