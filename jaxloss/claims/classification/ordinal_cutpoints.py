"""What is claimed of the ordinal losses of one score and cutpoints."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import sigmoid
from jaxloss.testing import LossSpec, Symmetry, accuracy
from jaxloss.testing.accuracy import FLUSH, Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import digits, mp

# Enough for the largest score beside the smallest width, in float64.
ALL_DIGITS = 640
# The same for scores of 1e4; and for slopes that cancel all but the width's square.
SQUARED_DIGITS = 400


def ends(x, y, cuts):
    """Where the class begins and ends, seen from the score."""
    y = int(y)
    high = cuts[y] - x if y < len(cuts) else mp.inf
    low = cuts[y - 1] - x if y else -mp.inf
    return low, high


def share(low, high):
    """Of the logistic distribution between two numbers, on the side where it ends."""
    if low + high > 0:
        low, high = -high, -low
    return sigmoid(high) - sigmoid(low)


def cumulative_logit(x, y, cuts):
    return -mp.log(share(*ends(x, y, cuts)))


def at_cutpoints(y, cuts, above, below):
    """A gradient in the cutpoints, of which at most two count."""
    slopes = {y: above, y - 1: below}
    return [slopes.get(k, mp.mpf(0)) for k in range(len(cuts))]


@common.exact_rows(0, 0, 1)
@digits(ALL_DIGITS)
def cumulative_logit_gradient(x, y, cuts):
    low, high = ends(x, y, cuts)
    inner = 1 / mp.expm1(high - low)
    above, below = -sigmoid(-high) - inner, sigmoid(low) + inner
    return sigmoid(-high) - sigmoid(low), at_cutpoints(y, cuts, above, below)


@common.exact_rows(0, 0, 1)
@digits(ALL_DIGITS)
def cumulative_logit_curvature(x, y, cuts):
    return mp.fsum(sigmoid(v) * sigmoid(-v) for v in ends(x, y, cuts))


def score_and_cutpoints(rng, shape):
    """A score, one of four classes, and the cutpoints between them."""
    cuts = np.cumsum(np.exp(rng.normal(size=(*shape, 3))), axis=-1) - 2
    return 2 * rng.normal(size=shape), rng.integers(0, 4, size=shape), cuts


def cutpoint_edges(dtype, top=common.big):
    """Every magnitude of score in each class; classes of nearly no width; far ones."""
    x = common.ladder(dtype, top(dtype))
    least = float(jnp.finfo(dtype).tiny) ** 0.5  # its square is in a second derivative
    for cuts in ([-1.0, 0.5, 2.0], [0.0, least, 1e-2], [-1e4, 0.0, 1e4]):
        rows = np.tile(np.array(cuts), (len(x), 1))
        yield from ((x, np.full(len(x), y), rows) for y in range(4))


def cut_forecast(quantile):
    """The score 0, and the quantiles of every class as cutpoints."""

    def draw(rng):
        q = rng.dirichlet(np.ones(4))
        cuts = quantile(np.cumsum(q)[:-1])
        return (np.zeros(4), np.arange(4), np.tile(cuts, (4, 1))), q

    return draw


def in_cutpoints(name, **claims):
    """A loss of a score, a class, and cutpoints."""
    x, ids, cuts = np.ones(3), np.zeros(3, int), np.arange(4.0)
    refused = functools.partial(common.refused, name)
    return LossSpec(
        name=name,
        fn=getattr(jaxloss, name),
        sample=score_and_cutpoints,
        differentiable=(0, 2),
        convex=True,
        forecast=(0, 2),
        symmetries=(
            common.shift(0, 2),
            Symmetry(
                "the other direction",
                lambda rng, x, y, cuts: (-x, 3 - y, -cuts[..., ::-1]),
            ),
        ),
        bad_calls=(
            refused("labels", x, ids[:2], cuts),
            refused("labels", x, ids.astype(float), cuts, error=TypeError),
            refused("scores", x.astype(int), ids, cuts, error=TypeError),
            refused("cutpoints", x, ids, cuts.astype(int), error=TypeError),
            refused("cutpoints", x, ids, np.ones(())),
            refused("cutpoints", x, ids, cuts[:0]),
            refused("cutpoints", x, ids, np.ones((2, 4))),
        ),
        **claims,
    )


def logit_setting():
    return in_cutpoints(
        "cumulative_logit",
        reference=common.exact_rows(0, 0, 1)(digits(ALL_DIGITS)(cumulative_logit)),
        gradient=cumulative_logit_gradient,
        curvature=cumulative_logit_curvature,
        # exp(-90), of which the score less a cutpoint is rounded.
        second_ulps=64,
        extremes=cutpoint_edges,
        proper=cut_forecast(lambda q: np.log(q / (1 - q))),
    )


def normal(x):
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def normal_share(low, high):
    """Of the normal distribution between two numbers, on the side where it ends."""
    if low + high < 0:
        low, high = -high, -low
    upper = lambda x: mp.erfc(x / mp.sqrt(2)) / 2
    return upper(low) - upper(high)


def normal_parts(x, y, cuts):
    low, high = ends(x, y, cuts)
    p = normal_share(low, high)
    at = lambda v: mp.mpf(0) if mp.isinf(v) else normal(v) / p
    return low, high, at(low), at(high)


def cumulative_probit(x, y, cuts):
    return -mp.log(normal_share(*ends(x, y, cuts)))


@common.exact_rows(0, 0, 1)
@digits(SQUARED_DIGITS)
def cumulative_probit_gradient(x, y, cuts):
    *_, at_low, at_high = normal_parts(x, y, cuts)
    return at_high - at_low, at_cutpoints(y, cuts, -at_high, at_low)


@common.exact_rows(0, 0, 1)
@digits(SQUARED_DIGITS)
def cumulative_probit_curvature(x, y, cuts):
    low, high, at_low, at_high = normal_parts(x, y, cuts)
    inner = at_high * (high if at_high else 0) - at_low * (low if at_low else 0)
    return inner + (at_high - at_low) ** 2


def quantile(q):
    """Of the normal distribution."""
    return np.array([float(-mp.sqrt(2) * mp.erfinv(1 - 2 * v)) for v in q])


def probit_setting():
    return in_cutpoints(
        "cumulative_probit",
        reference=common.exact_rows(0, 0, 1)(digits(SQUARED_DIGITS)(cumulative_probit)),
        gradient=cumulative_probit_gradient,
        curvature=cumulative_probit_curvature,
        # exp(-17^2 / 2), likewise, and so is the square.
        second_ulps=512,
        # Formulas of squares need twice the digits, and more time.
        extremes=functools.partial(cutpoint_edges, top=lambda dtype: 1e4),
        proper=cut_forecast(quantile),
    )


def cut_grid():
    """Scores near and far, each class, wide and narrow ones."""
    x, k = accuracy.pairs(accuracy.line(-50, 50, 9), np.arange(4))
    cuts = np.array([[-1.0, 0.5, 2.0], [0.0, 1e-3, 0.1], [-9.0, 0.0, 30.0]])
    return x, k.astype(int), cuts[np.arange(len(x)) % 3]


def cut_cases(formula, **claims):
    for argument, name in ((0, "in scores"), (2, "in cutpoints")):
        yield Case(
            name=name,
            formula=formula,
            columns=cut_grid(),
            fixed=(1,),
            argument=argument,
            conditioned=(True, True, True),
            floor=FLUSH,
            halves=False,
            **claims,
        )


CUT = {
    "scores": domains.REAL,
    "labels": domains.classes("cutpoints", more=1),
    "cutpoints": domains.INCREASING,
}
BETWEEN = Line(
    "score, cutpoints at −2, 0, 2",
    (-6, 6),
    lambda x, k: (x, jnp.full_like(x, k, int), jnp.array([-2.0, 0.0, 2.0])),
    tuple((f"label {k}", k) for k in range(4)),
)
CLAIMS = [
    Claim(
        fn=jaxloss.cumulative_logit,
        domains=CUT,
        settings=(logit_setting(),),
        accuracy=(*cut_cases(cumulative_logit, bounds=(1, 2, 1)),),
        line=BETWEEN,
    ),
    Claim(
        fn=jaxloss.cumulative_probit,
        domains=CUT,
        settings=(probit_setting(),),
        accuracy=(*cut_cases(cumulative_probit, bounds=(2, 2, 3)),),
        line=BETWEEN,
    ),
]
