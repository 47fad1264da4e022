"""Claims of the likelihoods of counts."""

import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import component, exact, ladder, refused, refused_pairs, root
from jaxloss.testing import LossSpec, exact as digits
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

# --- negative binomial -------------------------------------------------------------


def dispersed(rng, shape):
    """Log-means, counts as integers, and log-dispersions."""
    x = 2 * rng.normal(size=shape)
    return x, rng.integers(1, 9, size=shape), 2 * rng.normal(size=shape) - 1


@digits.digits(90)
def negative_binomial_formula(x, t, d):
    """As in the textbook, by logarithms of gamma functions."""
    if x == -mp.inf:
        return mp.inf if t else mp.mpf(0)
    factorial = mp.loggamma(t + 1)
    if d == -mp.inf:
        return mp.exp(x) - t * x + factorial
    size = mp.exp(-d)
    gammas = mp.loggamma(size + t) - mp.loggamma(size) - factorial
    return (t + size) * mp.log1p(mp.exp(x + d)) - t * (x + d) - gammas


@digits.digits(150)
def negative_binomial_gradient(x, t, d):
    mean, w = mp.exp(x), mp.exp(x + d)
    if d == -mp.inf:
        return mean - t, mp.mpf(0)
    size = mp.exp(-d)
    # In d: -size times the slope in the size.
    gammas = mp.digamma(size + t) - mp.digamma(size) - mp.log1p(w)
    return (mean - t) / (1 + w), size * gammas + (mean - t) / (1 + w)


def negative_binomial_curve(x, t, d):
    mean, alpha = mp.exp(x), mp.exp(d)
    return mean * (1 + alpha * t) / (1 + alpha * mean) ** 2


@digits.digits(90)
def negative_binomial_curves(x, t, d):
    """Twice in the log-mean, and twice in the log-dispersion, which is finite."""
    w, size = mp.exp(x + d), mp.exp(-d)
    slope, _ = negative_binomial_gradient(x, t, d)
    gammas = mp.digamma(size + t) - mp.digamma(size) - mp.log1p(w)
    bend = size * (mp.psi(1, size + t) - mp.psi(1, size)) + w / (1 + w)
    in_dispersion = -size * (gammas + bend) - slope * w / (1 + w)
    return negative_binomial_curve(x, t, d), in_dispersion


def dispersions(dtype):
    """Any mean of counts 0, 1 and 1000; from Poisson to a dispersion of thousands."""
    x = ladder(dtype, float(np.log(root(dtype))))
    near = x[np.abs(x) < 40]
    for count in (0, 1, 1000):
        for d in (-np.inf, -30.0, -5.0, 0.0, 8.0):
            yield near, np.full(near.shape, count), np.full_like(near, d)
        if jnp.finfo(dtype).maxexp > 16:  # of float16, e^85 is infinite
            x = np.array([-85.0, 60.0, 85.0])
            for d in (-np.inf, -80.0, -30.0):
                yield x, np.full(x.shape, count), np.full_like(x, d)


def negative_binomial_outcomes(rng):
    """A distribution of mean up to 3 and dispersion below 1: little is beyond 400."""
    count = np.arange(400)
    log_mean, d = np.log(rng.uniform(0.3, 3)), rng.uniform(-3, 0)
    told = np.full(400, log_mean), count, np.full(400, d)
    losses = exact(negative_binomial_formula)(*told)
    return told, np.exp(-losses)


FEW, MANY = np.array([0.0, 1.0, 2.0, 7.0, 0.4]), np.array([30.0, 1000.0, 65504.0])


def negative_binomial_columns(x, counts, d):
    x, t = pairs(x, counts)
    return x, t, np.resize(d, x.size)


DISPERSIONS = np.array([-25.0, -12, -6, -3, -1, -0.2, 0.5, 2, 5])
NEAR_ONE = np.concatenate([line(-6, 6, points=17), decades(1e-4, 1, points=3), [0.0]])


def negative_binomial_cases() -> Iterator[Case]:
    few = negative_binomial_columns(NEAR_ONE, FEW, DISPERSIONS)
    many = negative_binomial_columns(line(0.5, 12, points=20), MANY, DISPERSIONS[::-1])
    for argument, name in ((0, "log_means"), (2, "log_dispersions")):
        for halves, columns in ((True, few), (False, many)):
            yield Case(
                name=f"in {name}{'' if halves else ', many'}",
                columns=columns,
                first=component(negative_binomial_gradient, argument // 2),
                second=component(negative_binomial_curves, argument // 2),
                argument=argument,
                conditioned=(True, True, True),
                bounds=(4, 3, 7),
                halves=halves,
            )


NEGATIVE_BINOMIAL_NLL = Claim(
    fn=jaxloss.negative_binomial_nll,
    domains={
        "log_means": domains.LOGARITHMS,
        "counts": domains.NOT_NEGATIVE,
        "log_dispersions": domains.LOG_DISPERSIONS,
    },
    settings=(
        LossSpec(
            name="negative_binomial_nll",
            fn=jaxloss.negative_binomial_nll,
            sample=dispersed,
            differentiable=(0, 2),
            reference=exact(negative_binomial_formula),
            gradient=exact(negative_binomial_gradient),
            curvature=exact(negative_binomial_curve),
            minimiser=lambda t, d: np.log(t),
            minimum=lambda t, d: exact(negative_binomial_formula)(np.log(t), t, d),
            convex=True,
            proper=negative_binomial_outcomes,
            forecast=(0, 2),
            extremes=dispersions,
            bad_calls=(
                refused("negative_binomial_nll", "counts", ONES, np.ones((3, 1)), ONES),
                refused("negative_binomial_nll", "log_dispersions", ONES, ONES, 0.0),
                refused(
                    "negative_binomial_nll",
                    "log_means",
                    np.ones(3, int),
                    ONES,
                    ONES,
                    error=TypeError,
                ),
                refused(
                    "negative_binomial_nll",
                    "counts",
                    ONES,
                    "many",
                    ONES,
                    error=TypeError,
                ),
            ),
        ),
    ),
    accuracy=tuple(negative_binomial_cases()),
    line=Line(
        "log-mean, of a count of 5",
        (-3, 4),
        lambda x, d: (x, 0 * x + 5, 0 * x + d),
        (
            ("Poisson", -np.inf),
            ("log-dispersion −1", -1.0),
            ("log-dispersion 1", 1.0),
        ),
    ),
)

CLAIMS = [POISSON_NLL, NEGATIVE_BINOMIAL_NLL]
