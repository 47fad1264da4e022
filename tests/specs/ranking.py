"""Claims of the losses that ask for an order."""

import numpy as np

from jaxloss import ranking
from jaxloss.testing import LossSpec
from tests.specs.common import exact, ladder, pair, refused, refused_pairs

ONES = np.ones(3)


@exact
def shortfall(higher, lower, margin):
    return max(0, margin - (higher - lower))


@exact
def slopes(higher, lower, margin):
    active = int(margin - (higher - lower) > 0)
    return -active, active


def leads(dtype):
    """Leads of every size, either way, and equal scores of every size."""
    s = ladder(dtype)
    return [(s, np.zeros_like(s)), (np.zeros_like(s), s), (s, s)]


def margin_ranking(margin):
    return LossSpec(
        name=f"margin_ranking(margin={margin})",
        fn=ranking.margin_ranking,
        params={"margin": margin},
        sample=pair,
        differentiable=(0, 1),
        reference=shortfall,
        gradient=slopes,
        curvature=lambda higher, lower, margin: np.zeros_like(higher),
        smooth=False,
        minimiser=lambda lower, margin: lower + margin,
        convex=True,
        extremes=leads,
        bad_calls=(
            *refused_pairs("margin_ranking", "higher", "lower"),
            refused("margin_ranking", "margin", ONES, ONES, margin=-0.5),
            refused("margin_ranking", "margin", ONES, ONES, margin=np.ones((3, 1))),
            refused(
                "margin_ranking", "margin", ONES, ONES, margin=True, error=TypeError
            ),
        ),
    )


SPECS = [margin_ranking(0.0), margin_ranking(0.5)]
