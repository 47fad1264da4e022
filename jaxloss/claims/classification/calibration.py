"""Claims of the Brier score."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import exact_rows, permutation, refused, scale, swap, tiny
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp


def forecasts(rng, shape):
    """Distributions over four classes."""
    return rng.dirichlet(np.ones(4), size=shape)


def forecasts_and_ids(rng, shape):
    return forecasts(rng, shape), rng.integers(0, 4, size=shape)


def forecasts_and_distributions(rng, shape):
    return forecasts(rng, shape), forecasts(rng, shape)


@exact_rows(1, 0)
def score_of_id(p, y):
    return mp.fsum((v - int(j == y)) ** 2 for j, v in enumerate(p))


@exact_rows(1, 1)
def score_of_distribution(p, y):
    return mp.fsum((v - w) ** 2 for v, w in zip(p, y, strict=True))


def certain(dtype):
    """Certainty, the edges of it, and ties, about every class."""
    small = tiny(dtype)
    return np.array([[1.0, 0.0, 0.0, 0.0], [1.0, small, 0.0, 0.0], [0.25] * 4])


def hessian(p, y):
    return np.broadcast_to(2 * np.eye(4), (*p.shape, 4))


def true_forecast(outcomes, rng):
    """The same distribution whatever happens, and how often that does."""
    p = rng.dirichlet(np.ones(4))
    return (np.tile(p, (4, 1)), outcomes), p


ONES, IDS = np.ones((3, 4)), np.zeros(3, int)
COMMON = {
    "fn": jaxloss.brier,
    "event_ndim": 1,
    "curvature": hessian,
    "convex": True,
}
OF_IDS = LossSpec(
    name="brier(ids)",
    sample=forecasts_and_ids,
    reference=score_of_id,
    gradient=lambda p, y: 2 * (p - np.eye(4)[y]),
    minimiser=lambda y: np.eye(4)[y],
    proper=functools.partial(true_forecast, np.arange(4)),
    symmetries=(permutation(0, ids=1),),
    extremes=lambda dtype: [
        (certain(dtype), np.zeros(3, int)),
        (certain(dtype), np.ones(3, int)),
    ],
    bad_calls=(
        refused("brier", "labels", ONES, IDS[:2]),
        refused("brier", "labels", ONES, ONES.astype(int), error=TypeError),
        refused("brier", "labels", ONES, IDS == 0, error=TypeError),
        refused("brier", "probabilities", IDS, IDS, error=TypeError),
        refused("brier", "probabilities", np.ones(()), np.zeros((), int)),
        refused("brier", "axis", ONES, IDS, axis=2),
    ),
    **COMMON,
)
OF_DISTRIBUTIONS = LossSpec(
    name="brier(distributions)",
    sample=forecasts_and_distributions,
    differentiable=(0, 1),
    reference=score_of_distribution,
    gradient=lambda p, y: (2 * (p - y), 2 * (y - p)),
    minimiser=lambda y: y,
    proper=functools.partial(true_forecast, np.eye(4)),
    symmetries=(permutation(0, 1), swap(), scale(2, 0, 1)),
    extremes=lambda dtype: [
        (certain(dtype), certain(dtype)),
        (certain(dtype), certain(dtype)[::-1]),
    ],
    bad_calls=(refused("brier", "labels", ONES, np.ones((3, 3))),),
    **COMMON,
)


def spread(count=24, classes=4):
    """Rows of probabilities: spread out, concentrated, certain."""
    rng = np.random.default_rng(0)
    p = np.concatenate(
        [rng.dirichlet(np.full(classes, a), size=count // 3) for a in (10.0, 1.0, 0.05)]
    )
    p[-1] = np.eye(classes)[0]
    return p


ROWS = spread()
BETWEEN = {
    "formula": score_of_distribution.formula,
    "columns": (ROWS, ROWS[::-1]),
    "bounds": (2, 0.5, 0),
}
CLAIMS = [
    Claim(
        fn=jaxloss.brier,
        domains={
            "probabilities": domains.DISTRIBUTIONS,
            "labels": domains.classes("probabilities"),
        },
        settings=(OF_IDS, OF_DISTRIBUTIONS),
        accuracy=(
            Case(
                name="of ids",
                columns=(ROWS, np.arange(len(ROWS)) % 4),
                fixed=(1,),
                bounds=(2, 0.5, 0),
            ),
            Case(name="of distributions in probabilities", **BETWEEN),
            Case(name="of distributions in labels", argument=1, **BETWEEN),
        ),
        line=Line(
            "probability of the right class, the rest shared",
            (0, 1),
            lambda x, _: (jnp.stack([x, (1 - x) / 2, (1 - x) / 2]), 0),
        ),
    )
]
