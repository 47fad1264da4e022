"""Claims of the losses that ask for a margin."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import (
    big,
    exact,
    exact_rows,
    flip,
    ladder,
    logits_and_ids,
    permutation,
    refused,
    refused_pairs,
    root,
    scale,
    scores_and_signs,
    shift,
)
from jaxloss.claims.margins import FORMULAS
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import EDGES, Case, decades, line, pairs, rows
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- two classes -------------------------------------------------------------------

SMOOTH = ("logistic", "exponential")
# The score that is best where the label is +1 with probability q.
BEST_SCORES = {
    "squared_hinge": lambda q: 2 * q - 1,
    "logistic": lambda q: np.log(q / (1 - q)),
    "exponential": lambda q: np.log(q / (1 - q)) / 2,
    "modified_huber": lambda q: 2 * q - 1,
}
OF_MARGIN = Line("label × score", (-3, 3), lambda x, _: (x, 0 * x + 1))
# What float16 holds; those of `jaxloss.claims.margins` go from 1e-37 to 1e30.
SCORES, LABELS = pairs(
    np.concatenate([line(points=111), decades(1e-7, 6e4, points=35), EDGES]),
    np.array([-1.0, 1.0]),
)


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


def forecast(best, rng):
    """One score, and both labels with their probabilities."""
    q = rng.uniform(0.02, 0.98)
    return (np.full(2, best(q)), np.array([1.0, -1.0])), np.array([q, 1 - q])


def binary(name):
    phi, fn = FORMULAS[name], getattr(jaxloss, name)
    gradient = lambda s, y: (y * phi.slope(y * s), s * phi.slope(y * s))
    best = BEST_SCORES.get(name)
    to_value, to_slope, to_curvature = phi.bounds
    spec = LossSpec(
        name=name,
        fn=fn,
        sample=scores_and_signs,
        differentiable=(0, 1),
        reference=exact(lambda s, y: phi.value(y * s)),
        gradient=exact(gradient),
        curvature=exact(lambda s, y: y**2 * phi.curvature(y * s)),
        smooth=name in SMOOTH,
        extremes=functools.partial(extremes, name),
        minimiser=None if name in SMOOTH else lambda y: 2 * y,
        convex=True,
        proper=best and functools.partial(forecast, best),
        symmetries=(flip(0, 1), *[scale(1, 0)] * (name == "perceptron")),
        bad_calls=(
            *refused_pairs(name, "scores", "labels"),
            refused(name, "labels", np.ones(3), np.ones(3, bool), error=TypeError),
            refused(name, "labels", np.ones(3), np.ones(3, np.uint8), error=TypeError),
        ),
    )
    in_scores = Case(
        name="in scores",
        first=lambda s, y: gradient(s, y)[0],
        second=lambda s, y: phi.curvature(y * s),
        columns=(SCORES, LABELS),
        bounds=phi.bounds,
    )
    in_labels = Case(
        name="in labels",
        first=lambda s, y: gradient(s, y)[1],
        second=lambda s, y: s**2 * phi.curvature(y * s),
        columns=(SCORES, LABELS),
        argument=1,
        # The product with the score rounds once more; and a slope that was flushed to
        # zero is missing from its products with s < 2^7.
        bounds=(to_value + 1, to_slope + 1, to_curvature + 1),
        floor=2.0**-112,
    )
    return Claim(
        fn=fn,
        domains=domains.SIGNED,
        settings=(spec,),
        accuracy=(in_scores, in_labels),
        line=OF_MARGIN,
    )


# --- many classes ------------------------------------------------------------------

OF_RIGHT_CLASS = Line(
    "score of the right class, two others 0",
    (-4, 4),
    lambda x, _: (jnp.stack([x, 0 * x, 0 * x]), 0),
)


def rivals(s, y):
    return [v for j, v in enumerate(s) if j != y]


def crammer_singer(s, y, margin):
    return max(0, max(rivals(s, y)) - s[int(y)] + margin)


def crammer_singer_gradient(s, y, margin):
    strongest = max(rivals(s, y))
    active = int(strongest - s[int(y)] + margin > 0)
    tied = mp.mpf(sum(v == strongest for v in rivals(s, y)))
    return [
        mp.mpf(-active) if j == y else active * int(v == strongest) / tied
        for j, v in enumerate(s)
    ]


def weston_watkins(s, y, margin):
    return mp.fsum(max(0, v - s[int(y)] + margin) for v in rivals(s, y))


def weston_watkins_gradient(s, y, margin):
    active = [mp.mpf(v - s[int(y)] + margin > 0) for v in s]
    return [a if j != y else -sum(rivals(active, y)) for j, a in enumerate(active)]


def edges(dtype):
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


def multiclass_setting(fn, value, gradient, margin):
    name, ones, ids = fn.__name__, np.ones((3, 4)), np.zeros(3, int)
    return LossSpec(
        name=f"{name}(margin={margin})",
        fn=fn,
        params={"margin": margin},
        sample=logits_and_ids(),
        event_ndim=1,
        reference=exact_rows(1, 0)(value),
        gradient=exact_rows(1, 0)(gradient),
        curvature=lambda s, y, margin: np.zeros((*s.shape, s.shape[-1])),
        smooth=False,
        extremes=edges,
        minimiser=lambda y, margin: 2 * margin * np.eye(4)[y],
        convex=True,
        symmetries=(shift(0), permutation(0, ids=1)),
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


def multiclass_cases(gradient, classes):
    """In the scores and in the margin, each piecewise linear."""
    s = rows(classes)
    common = {
        "columns": (s, np.arange(len(s)) % classes, np.linspace(0.25, 2, len(s))),
        "names": ("margin",),
        "fixed": (1,),
    }
    yield Case(
        name=f"of {classes} classes",
        first=gradient,
        second=lambda s, y, margin: [mp.mpf(0)] * len(s),
        bounds=(2, 0.5, 0),
        **common,
    )
    yield Case(
        name=f"of {classes} classes in margin",
        first=lambda s, y, margin: -gradient(s, y, margin)[int(y)],
        second=lambda s, y, margin: mp.mpf(0),
        bounds=(2, 0, 0),
        argument=2,
        **common,
    )


def multiclass(fn, value, gradient):
    setting = functools.partial(multiclass_setting, fn, value, gradient)
    return Claim(
        fn=fn,
        domains=domains.SCORED,
        settings=(setting(1.0), setting(0.25)),
        accuracy=(*multiclass_cases(gradient, 2), *multiclass_cases(gradient, 5)),
        line=OF_RIGHT_CLASS,
    )


CLAIMS = [
    binary("hinge"),
    binary("squared_hinge"),
    binary("logistic"),
    binary("exponential"),
    binary("perceptron"),
    binary("modified_huber"),
    multiclass(jaxloss.crammer_singer_hinge, crammer_singer, crammer_singer_gradient),
    multiclass(jaxloss.weston_watkins_hinge, weston_watkins, weston_watkins_gradient),
]
