"""Claims of the losses of amounts: Tweedie and gamma."""

from collections.abc import Iterator

import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import (
    component,
    exact,
    ladder,
    refused,
    refused_pairs,
    root,
)
from jaxloss.claims.distributions.counts import ONES, counts
from jaxloss.testing import LossSpec, exact as digits
from jaxloss.testing.accuracy import Case, decades, line, pairs
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- Tweedie -----------------------------------------------------------------------


def grown(x, rate):
    """`(exp(rate x) - 1) / rate`, and its limit."""
    if not rate:
        return x
    return mp.expm1(rate * x) / rate


@digits.digits(100)
def tweedie_formula(x, t, power):
    p = mp.mpf(power)
    return grown(x, 2 - p) - (t * grown(x, 1 - p) if t else 0)


def tweedie_gradient(x, t, power):
    p = mp.mpf(power)
    return mp.exp((1 - p) * x) * (mp.exp(x) - t), -grown(x, 1 - p)


def tweedie_curvature(x, t, power):
    p = mp.mpf(power)
    return (2 - p) * mp.exp((2 - p) * x) - (1 - p) * t * mp.exp((1 - p) * x)


def grown_twice(x, rate):
    """The first and the second derivative of `grown` in the rate, which is not 0."""
    e = mp.exp(rate * x)
    first = x * e / rate - (e - 1) / rate**2
    return first, x * x * e / rate - 2 * first / rate


@digits.digits(100)
def tweedie_slopes(x, t, power):
    p = mp.mpf(power)
    in_power = 0
    if p not in (1, 2):
        in_power = t * grown_twice(x, 1 - p)[0] - grown_twice(x, 2 - p)[0]
    return *tweedie_gradient(x, t, power), in_power


@digits.digits(100)
def tweedie_curves(x, t, power):
    p = mp.mpf(power)
    in_power = 0
    if p not in (1, 2):
        in_power = grown_twice(x, 2 - p)[1] - t * grown_twice(x, 1 - p)[1]
    return tweedie_curvature(x, t, power), mp.mpf(0), in_power


def amounts(dtype):
    """Means from e^-20 to e^20, of amounts 0, 1 and 1000."""
    x = ladder(dtype)
    x = x[np.abs(x) < 20]
    return [(x, np.full_like(x, t)) for t in (0.0, 1.0, 1000.0)]


def of_power(power, **more):
    loss = "tweedie_deviance"
    return LossSpec(
        name=f"{loss}(power={power:g})",
        fn=jaxloss.tweedie_deviance,
        sample=counts,
        params={"power": power},
        differentiable=(0, 1),
        reference=exact(tweedie_formula),
        gradient=exact(tweedie_gradient),
        curvature=exact(tweedie_curvature),
        second_ulps=32,  # of an exponential of 30, a product
        minimiser=lambda t, power: np.log(t),
        minimum=lambda t, power: exact(tweedie_formula)(np.log(t), t, power=power),
        functional=lambda t, power: np.log(np.mean(t)),
        extremes=amounts,
        bad_calls=(
            *(
                (args, {"power": power, **params}, error, text)
                for args, params, error, text in refused_pairs(
                    loss, "log_means", "targets"
                )
            ),
            refused(loss, "power", ONES, ONES, power=-0.5),
            refused(loss, "power", ONES, ONES, power=np.ones(4)),
            refused(loss, "targets", ONES, "much", power=1.5, error=TypeError),
        ),
        **more,
    )


POWERS = np.array([0.0, 1.0, 2.0, 1.5, 1.0 + 2.0**-20, 2.0 - 2.0**-12, 3.0, 0.5, 1.2])
MEANS = np.concatenate([line(-8, 8, points=17), decades(1e-4, 1, points=4), [0.0]])


def tweedie_cases() -> Iterator[Case]:
    x, t = pairs(MEANS, np.array([0.0, 1.0, 2.5, 300.0]))
    power = np.resize(POWERS, x.size)
    for argument, name in enumerate(("log_means", "targets", "power")):
        # The closed forms of the slopes in the power have no limit at 1 and 2.
        chosen = ~np.isin(power, (1, 2)) if argument == 2 else slice(None)
        yield Case(
            name=f"in {name}",
            first=component(tweedie_slopes, argument),
            second=component(tweedie_curves, argument),
            columns=(x[chosen], t[chosen], power[chosen]),
            names=("power",),
            argument=argument,
            conditioned=(True, True, True),
            bounds=(2, 2, 4),
            halves=False,  # powers of 1 + 2^-20 are none of half precision
        )


TWEEDIE_DEVIANCE = Claim(
    fn=jaxloss.tweedie_deviance,
    domains={"log_means": domains.LOGARITHMS, "targets": domains.NOT_NEGATIVE},
    settings=(of_power(1.5, convex=True), of_power(2.5), of_power(0.5)),
    accuracy=tuple(tweedie_cases()),
    line=Line(
        "log-mean, of a target of 2",
        (-2.5, 2.5),
        lambda x, _: (x, 0 * x + 2),
    ),
    drawn=tuple({"power": p} for p in (0.0, 1.0, 1.5, 2.0)),
)


# --- gamma -------------------------------------------------------------------------


def positive(rng, shape):
    """Log-means and positive amounts."""
    return 2 * rng.normal(size=shape), np.exp(2 * rng.normal(size=shape))


@digits.digits(100)
def gamma_formula(x, t, shape):
    """As in the textbook: the density of shape k and rate k / mean."""
    k, rate = mp.mpf(shape), mp.mpf(shape) * mp.exp(-x)
    return mp.loggamma(k) - k * mp.log(rate) - (k - 1) * mp.log(t) + rate * t


@digits.digits(150)
def gamma_gradient(x, t, shape):
    k, ratio = mp.mpf(shape), t * mp.exp(-x)
    return k * (1 - ratio), (k * ratio - k + 1) / t


def gamma_slopes(x, t, shape):
    k, ratio = mp.mpf(shape), t * mp.exp(-x)
    in_shape = ratio - 1 - mp.log(ratio) + mp.digamma(k) - mp.log(k)
    return *gamma_gradient(x, t, shape), in_shape


def gamma_curves(x, t, shape):
    k = mp.mpf(shape)
    return k * t * mp.exp(-x), (k - 1) / t**2, mp.psi(1, k) - 1 / k


def positive_amounts(dtype):
    """Means from tiny to huge of amounts 0.01, 1 and 1000, and their own means."""
    x = ladder(dtype, float(np.log(root(dtype))) / 2)
    own = np.linspace(-6, 6, 9)
    return [*((x, np.full_like(x, t)) for t in (0.01, 1.0, 1000.0)), (own, np.exp(own))]


def gamma_outcomes(rng):
    """An exponential distribution, at the nodes of Gauss and Laguerre."""
    nodes, weights = np.polynomial.laguerre.laggauss(60)
    log_mean = rng.normal()
    return (np.full(60, log_mean), np.exp(log_mean) * nodes), weights


def of_shape(shape, **more):
    loss = "gamma_nll"
    return LossSpec(
        name=f"{loss}(shape={shape:g})",
        fn=jaxloss.gamma_nll,
        sample=positive,
        params={"shape": shape},
        differentiable=(0, 1),
        reference=exact(gamma_formula),
        gradient=exact(gamma_gradient),
        curvature=exact(component(gamma_curves, 0)),
        minimiser=lambda t, shape: np.log(t),
        minimum=lambda t, shape: exact(gamma_formula)(np.log(t), t, shape=shape),
        convex=True,
        functional=lambda t, shape: np.log(np.mean(t)),
        extremes=positive_amounts,
        bad_calls=(
            *(
                (args, {"shape": shape, **params}, error, text)
                for args, params, error, text in refused_pairs(
                    loss, "log_means", "targets"
                )
            ),
            refused(loss, "shape", ONES, ONES, shape=0.0),
            refused(loss, "shape", ONES, ONES, shape=np.ones(4)),
        ),
        **more,
    )


SHAPES = np.array([0.05, 0.5, 1.0, 2.0, 3.7, 11.0, 300.0, 3e4])


def gamma_cases() -> Iterator[Case]:
    x, ratio = pairs(
        line(-5, 5, points=11), np.array([1e-3, 0.3, 0.9, 0.999, 1.0, 1.4, 4.0, 50.0])
    )
    t = (np.exp(x) * ratio).astype(np.float32).astype(float)
    columns = x, t, np.resize(np.concatenate([SHAPES, SHAPES[::-1], [2.0]]), x.size)
    for argument, name in enumerate(("log_means", "targets", "shape")):
        yield Case(
            name=f"in {name}",
            first=component(gamma_slopes, argument),
            second=component(gamma_curves, argument),
            columns=columns,
            names=("shape",),
            argument=argument,
            conditioned=(True, True, True),
            bounds=(3, 3, 4),
            halves=argument < 2,
        )


GAMMA_NLL = Claim(
    fn=jaxloss.gamma_nll,
    domains={"log_means": domains.REAL, "targets": domains.POSITIVE},
    settings=(of_shape(1.0, proper=gamma_outcomes), of_shape(2.5)),
    accuracy=tuple(gamma_cases()),
    line=Line(
        "log-mean, of a target of 1",
        (-2.5, 3),
        lambda x, _: (x, 0 * x + 1),
    ),
    drawn=tuple({"shape": k} for k in (0.5, 1.0, 4.0)),
)

CLAIMS = [TWEEDIE_DEVIANCE, GAMMA_NLL]
