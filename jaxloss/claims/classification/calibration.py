"""Claims of the Brier score."""

import numpy as np

import jaxloss
from jaxloss.claims.common import exact_rows, refused, tiny
from jaxloss.testing import LossSpec
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


ONES, IDS = np.ones((3, 4)), np.zeros(3, int)
COMMON = {
    "fn": jaxloss.brier,
    "event_ndim": 1,
    "curvature": hessian,
    "convex": True,
}
SPECS = [
    LossSpec(
        name="brier(ids)",
        sample=forecasts_and_ids,
        reference=score_of_id,
        gradient=lambda p, y: 2 * (p - np.eye(4)[y]),
        minimiser=lambda y: np.eye(4)[y],
        extremes=lambda dtype: [
            (certain(dtype), np.zeros(3, int)),
            (certain(dtype), np.ones(3, int)),
        ],
        bad_calls=(
            refused("brier", "labels", ONES, IDS[:2]),
            refused("brier", "labels", ONES, ONES.astype(int)),
            refused("brier", "labels", ONES, IDS == 0, error=TypeError),
            refused("brier", "probabilities", IDS, IDS, error=TypeError),
            refused("brier", "probabilities", np.ones(()), np.zeros((), int)),
            refused("brier", "axis", ONES, IDS, axis=2),
        ),
        **COMMON,
    ),
    LossSpec(
        name="brier(distributions)",
        sample=forecasts_and_distributions,
        differentiable=(0, 1),
        reference=score_of_distribution,
        gradient=lambda p, y: (2 * (p - y), 2 * (y - p)),
        minimiser=lambda y: y,
        extremes=lambda dtype: [
            (certain(dtype), certain(dtype)),
            (certain(dtype), certain(dtype)[::-1]),
        ],
        bad_calls=(refused("brier", "labels", ONES, np.ones((3, 3))),),
        **COMMON,
    ),
]
