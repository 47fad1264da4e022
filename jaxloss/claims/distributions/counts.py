"""Claims of the likelihoods of counts."""

import math
from collections.abc import Iterator

import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import component, exact, ladder, refused, refused_pairs, root
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case, decades, line, pairs
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

ONES = np.ones(3)

# --- Poisson -----------------------------------------------------------------------


def counts(rng, shape):
    """Log-rates, and counts as floating-point numbers."""
    return 2 * rng.normal(size=shape), rng.integers(1, 9, size=shape).astype(float)


@exact
def poisson_nll(x, t):
    return mp.exp(x) - t * x


@exact
def poisson_slopes(x, t):
    return mp.exp(x) - t, -x


def rate(x, t):
    return mp.exp(x)


def rates(dtype):
    """Rates from nothing to the largest representable, of counts 0, 1 and 1000."""
    x = ladder(dtype, float(np.log(root(dtype))))
    return [(x, np.full_like(x, t)) for t in (0.0, 1.0, 1000.0)]


def poisson_outcomes(rng):
    """A Poisson distribution of rate up to 6: beyond 60 nothing is left of it."""
    count, log_rate = np.arange(60.0), np.log(rng.uniform(0.1, 6))
    log_factorials = np.array([math.lgamma(k + 1) for k in count])
    probabilities = np.exp(count * log_rate - np.exp(log_rate) - log_factorials)
    return (np.full_like(count, log_rate), count), probabilities


X, COUNTS = pairs(
    np.concatenate([line(-10, 10, points=21), decades(1e-4, 1, points=5), [0.0]]),
    np.array([0.0, 1.0, 2.0, 7.0, 1000.0, 0.4]),
)
FAR_X, FAR_COUNTS = pairs(
    np.concatenate([line(-100, 88, points=12), decades(1e-37, 1e30, points=9)]),
    np.array([0.0, 1.0, 1e-3, 1e9]),
)


def poisson_cases() -> Iterator[Case]:
    curves = rate, lambda x, t: mp.mpf(0)
    for argument, name in enumerate(("log_rates", "counts")):
        for halves, columns in ((True, (X, COUNTS)), (False, (FAR_X, FAR_COUNTS))):
            yield Case(
                name=f"in {name}{'' if halves else ', far out'}",
                first=component(poisson_slopes, argument),
                second=curves[argument],
                columns=columns,
                argument=argument,
                # Where the rate is the count, the slope in the log-rate is 0.
                conditioned=(True, argument == 0, False),
                bounds=(2, 2, 2),
                halves=halves,
            )


POISSON_NLL = Claim(
    fn=jaxloss.poisson_nll,
    domains={"log_rates": domains.LOGARITHMS, "counts": domains.NOT_NEGATIVE},
    settings=(
        LossSpec(
            name="poisson_nll",
            fn=jaxloss.poisson_nll,
            sample=counts,
            differentiable=(0, 1),
            reference=poisson_nll,
            gradient=poisson_slopes,
            curvature=exact(rate),
            minimiser=lambda t: np.log(t),
            minimum=lambda t: t - t * np.log(t),
            convex=True,
            functional=lambda t: np.log(np.mean(t)),
            proper=poisson_outcomes,
            extremes=rates,
            bad_calls=(
                *refused_pairs("poisson_nll", "log_rates", "counts"),
                refused("poisson_nll", "counts", ONES, "many", error=TypeError),
                refused("poisson_nll", "counts", ONES, ONES * 1j, error=TypeError),
            ),
        ),
    ),
    accuracy=tuple(poisson_cases()),
    line=Line(
        "log-rate",
        (-3, 2.5),
        lambda x, t: (x, 0 * x + t),
        tuple((f"count {t}", float(t)) for t in (0, 1, 5)),
    ),
)

CLAIMS = [POISSON_NLL]
