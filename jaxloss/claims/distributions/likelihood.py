"""Claims of the negative log-likelihoods."""

import numpy as np

import jaxloss
from jaxloss.claims.common import exact, ladder, refused, refused_pairs, root
from jaxloss.testing import LossSpec
from jaxloss.testing.exact import mp

ONES = np.ones(3)


def gaussians(rng, shape):
    """Means, targets and log-variances."""
    return tuple(rng.normal(size=shape) for _ in range(3))


@exact
def gaussian_nll(m, t, s):
    return (mp.log(2 * mp.pi) + s + (m - t) ** 2 * mp.exp(-s)) / 2


@exact
def gaussian_slopes(m, t, s):
    pull = (m - t) * mp.exp(-s)
    return pull, -pull, (1 - (m - t) * pull) / 2


def spreads(dtype):
    """No error at any variance; any error at its own variance, and at variance 1."""
    high = min(80.0, float(np.log(root(dtype))))
    s = np.linspace(-high, high, 9)
    r, zero = ladder(dtype, root(dtype)), np.zeros_like(s)
    return [
        (zero, zero, s),
        (r, r, np.zeros_like(r)),
        (np.exp(s), zero, 2 * s),
        (zero, np.exp(s / 2), s),
        (r, np.zeros_like(r), np.zeros_like(r)),
    ]


def counts(rng, shape):
    """Log-rates, and counts as floating-point numbers."""
    return 2 * rng.normal(size=shape), rng.integers(1, 9, size=shape).astype(float)


@exact
def poisson_nll(x, t):
    return mp.exp(x) - t * x


@exact
def poisson_slopes(x, t):
    return mp.exp(x) - t, -x


def rates(dtype):
    """Rates from nothing to the largest representable, of counts 0, 1 and 1000."""
    x = ladder(dtype, float(np.log(root(dtype))))
    return [(x, np.full_like(x, t)) for t in (0.0, 1.0, 1000.0)]


SPECS = [
    LossSpec(
        name="gaussian_nll",
        fn=jaxloss.gaussian_nll,
        sample=gaussians,
        differentiable=(0, 1, 2),
        reference=gaussian_nll,
        gradient=gaussian_slopes,
        curvature=exact(lambda m, t, s: mp.exp(-s)),
        minimiser=lambda t, s: t,
        minimum=lambda t, s: (np.log(2 * np.pi) + s) / 2,
        convex=True,
        extremes=spreads,
        bad_calls=(
            refused("gaussian_nll", "targets", ONES, np.ones((3, 1)), ONES),
            refused("gaussian_nll", "log_variances", ONES, ONES, np.float64(0)),
            refused(
                "gaussian_nll", "log_variances", ONES, ONES, ONES > 0, error=TypeError
            ),
            refused(
                "gaussian_nll", "means", np.ones(3, int), ONES, ONES, error=TypeError
            ),
        ),
    ),
    LossSpec(
        name="poisson_nll",
        fn=jaxloss.poisson_nll,
        sample=counts,
        differentiable=(0, 1),
        reference=poisson_nll,
        gradient=poisson_slopes,
        curvature=exact(lambda x, t: mp.exp(x)),
        minimiser=lambda t: np.log(t),
        minimum=lambda t: t - t * np.log(t),
        convex=True,
        extremes=rates,
        bad_calls=(
            *refused_pairs("poisson_nll", "log_rates", "counts"),
            refused("poisson_nll", "counts", ONES, "many", error=TypeError),
            refused("poisson_nll", "counts", ONES, ONES * 1j, error=TypeError),
        ),
    ),
]
