"""Claims of the losses that ask for a margin."""

import functools

import jax.numpy as jnp
import numpy as np

from jaxloss.claims.common import (
    big,
    exact,
    exact_rows,
    ladder,
    logits_and_ids,
    refused,
    refused_pairs,
    root,
    scores_and_signs,
)
from jaxloss.losses.classification import large_margin
from jaxloss.testing import LossSpec
from jaxloss.testing.exact import mp


def clip(x, low, high):
    return min(max(x, low), high)


# Value, slope and curvature of phi(margin), as published.
FORMULAS = {
    "hinge": (
        lambda m: max(0, 1 - m),
        lambda m: -int(m < 1),
        lambda m: 0,
    ),
    "squared_hinge": (
        lambda m: max(0, 1 - m) ** 2,
        lambda m: -2 * max(0, 1 - m),
        lambda m: 2 * int(m < 1),
    ),
    "logistic": (
        lambda m: mp.log1p(mp.exp(-m)),
        lambda m: -1 / (1 + mp.exp(m)),
        lambda m: 1 / (2 + mp.exp(m) + mp.exp(-m)),
    ),
    "exponential": (
        lambda m: mp.exp(-m),
        lambda m: -mp.exp(-m),
        lambda m: mp.exp(-m),
    ),
    "perceptron": (
        lambda m: max(0, -m),
        lambda m: -int(m < 0),
        lambda m: 0,
    ),
    "modified_huber": (
        lambda m: -4 * m if m < -1 else max(0, 1 - m) ** 2,
        lambda m: -2 * clip(1 - m, 0, 2),
        lambda m: 2 * int(-1 <= m < 1),
    ),
}


def top(name, dtype):
    """The largest score whose loss, and whose gradients in half precision, exist."""
    if name == "exponential":
        return 8.0 if jnp.finfo(dtype).maxexp < 100 else 80.0
    return root(dtype) if name == "squared_hinge" else big(dtype)


def extremes(name, dtype):
    scores = ladder(dtype, top(name, dtype))
    # Logistic: exp(-90) is flushed to zero, which 90 times it would not be.
    scores = scores[np.abs(scores) != 90]
    return [(scores, np.ones_like(scores)), (scores, -np.ones_like(scores))]


def binary(name):
    value, slope, curvature = FORMULAS[name]
    reaches_zero = name not in ("logistic", "exponential")
    return LossSpec(
        name=name,
        fn=getattr(large_margin, name),
        sample=scores_and_signs,
        differentiable=(0, 1),
        reference=exact(lambda s, y: value(y * s)),
        gradient=exact(lambda s, y: (y * slope(y * s), s * slope(y * s))),
        curvature=exact(lambda s, y: y**2 * curvature(y * s)),
        smooth=name in ("logistic", "exponential"),
        extremes=functools.partial(extremes, name),
        minimiser=(lambda y: 2 * y) if reaches_zero else None,
        convex=True,
        bad_calls=(
            *refused_pairs(name, "scores", "labels"),
            refused(name, "labels", np.ones(3), np.ones(3, bool), error=TypeError),
            refused(name, "labels", np.ones(3), np.ones(3, np.uint8), error=TypeError),
        ),
    )


def rivals(s, y):
    return [v for j, v in enumerate(s) if j != y]


@exact_rows(1, 0)
def crammer_singer(s, y, margin):
    return max(0, max(rivals(s, y)) - s[y] + margin)


@exact_rows(1, 0)
def crammer_singer_gradient(s, y, margin):
    strongest = max(rivals(s, y))
    active = int(strongest - s[y] + margin > 0)
    tied = mp.mpf(sum(v == strongest for v in rivals(s, y)))
    return [
        -active if j == y else active * int(v == strongest) / tied
        for j, v in enumerate(s)
    ]


@exact_rows(1, 0)
def weston_watkins(s, y, margin):
    return mp.fsum(max(0, v - s[y] + margin) for v in rivals(s, y))


@exact_rows(1, 0)
def weston_watkins_gradient(s, y, margin):
    active = [int(v - s[y] + margin > 0) for v in s]
    return [a if j != y else -sum(rivals(active, y)) for j, a in enumerate(active)]


def rows(dtype):
    """Ties, a clear win, a clear loss, and scores at which margins are lost in them."""
    large = big(dtype) / 4  # the sum over three wrong classes is still finite
    scores = np.array(
        [
            [0.0, 0.0, 0.0, 0.0],
            [8.0, 1.0, -1.0, 0.0],
            [-8.0, 1.0, 1.0, 0.0],
            [large, large, 0.0, 0.0],
            [-large, large, large, 0.0],
        ]
    )
    return [(scores, np.zeros(5, int)), (scores, np.full(5, 1))]


def multiclass(name, reference, gradient, margin):
    ones, ids = np.ones((3, 4)), np.zeros(3, int)
    return LossSpec(
        name=f"{name}(margin={margin})",
        fn=getattr(large_margin, name),
        params={"margin": margin},
        sample=logits_and_ids(),
        event_ndim=1,
        reference=reference,
        gradient=gradient,
        curvature=lambda s, y, margin: np.zeros((*s.shape, s.shape[-1])),
        smooth=False,
        extremes=rows,
        minimiser=lambda y, margin: 2 * margin * np.eye(4)[y],
        convex=True,
        bad_calls=(
            refused(name, "labels", ones, ids[:2]),
            refused(name, "labels", ones, ones, error=TypeError),
            refused(name, "labels", ones, ids == 0, error=TypeError),
            refused(name, "scores", ones.astype(int), ids, error=TypeError),
            refused(name, "axis", ones, ids, axis=2),
            refused(name, "margin", ones, ids, margin=-1.0),
            refused(name, "margin", ones, ids, margin=np.ones(4)),
        ),
    )


CRAMMER_SINGER = ("crammer_singer_hinge", crammer_singer, crammer_singer_gradient)
WESTON_WATKINS = ("weston_watkins_hinge", weston_watkins, weston_watkins_gradient)

SPECS = [
    *map(binary, FORMULAS),
    multiclass(*CRAMMER_SINGER, margin=1.0),
    multiclass(*CRAMMER_SINGER, margin=0.25),
    multiclass(*WESTON_WATKINS, margin=1.0),
    multiclass(*WESTON_WATKINS, margin=0.25),
]
