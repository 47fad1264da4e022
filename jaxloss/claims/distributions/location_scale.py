"""Claims of the likelihoods of a location and a scale, and of their mixtures."""

from collections.abc import Iterator

import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import (
    component,
    exact,
    exact_rows,
    flip,
    ladder,
    permutation,
    refused,
    root,
    shift,
    swap,
    vector,
)
from jaxloss.claims.distributions.likelihood import (
    MODEST,
    ONES,
    WIDE,
    cases_of_scales,
)
from jaxloss.testing import LossSpec, exact as digits
from jaxloss.testing.accuracy import FLUSH, Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

DOMAINS = {
    "locations": domains.REAL,
    "targets": domains.REAL,
    "log_scales": domains.REAL,
}


def locations(rng, shape):
    """Locations, targets and log-scales."""
    return tuple(rng.normal(size=shape) for _ in range(3))


def spreads(dtype):
    """No error at any scale; any error at its own scale, and at scale 1."""
    high = min(80.0, float(np.log(root(dtype))))
    s = np.linspace(-high, high, 9)
    r, zero = ladder(dtype, root(dtype)), np.zeros_like(s)
    return [(zero, zero, s), (r, r, np.zeros_like(r)), (np.exp(s), zero, s)]


def refused_scales(loss, **params):
    """What every loss of a location and a scale refuses."""
    call = lambda *args, **kw: refused(loss, *args, **params, **kw)
    return (
        call("targets", ONES, np.ones((3, 1)), ONES),
        call("log_scales", ONES, ONES, np.float64(0)),
        call("log_scales", ONES, ONES, ONES > 0, error=TypeError),
        call("locations", np.ones(3, int), ONES, ONES, error=TypeError),
    )


# --- Laplace -----------------------------------------------------------------------


@exact
def laplace_nll(m, t, s):
    return mp.log(2) + s + abs(m - t) * mp.exp(-s)


@exact
def laplace_slopes(m, t, s):
    pull = mp.sign(m - t) * mp.exp(-s)
    return pull, -pull, 1 - abs(m - t) * mp.exp(-s)


def laplace_cases() -> Iterator[Case]:
    r, s = MODEST
    zero = lambda m, t, s: mp.mpf(0)
    return cases_of_scales(
        ("locations", "targets", "log_scales"),
        laplace_slopes,
        (zero, zero, lambda m, t, s: abs(m - t) * mp.exp(-s)),
        near=(r + 1, np.ones_like(r), s),
        far=(WIDE[0], 0 * WIDE[0], WIDE[1] / 2),
        conditioned=(True, False),  # the value changes sign
        bounds=(2, 4, 4),
    )


def weighted_median(t, s):
    """Of targets that weigh `exp(-s)`: the least of half of the weight or more."""
    order = np.argsort(t)
    weight = np.cumsum(np.exp(-s)[order])
    return t[order][np.searchsorted(weight, weight[-1] / 2)]


def laplace_outcomes(rng):
    """A Laplace distribution: both halves at the nodes of Gauss and Laguerre."""
    nodes, weights = np.polynomial.laguerre.laggauss(30)
    location, log_scale = rng.normal(size=2)
    nodes = np.concatenate([-nodes, nodes])
    targets = location + np.exp(log_scale) * nodes
    told = np.full(60, location), targets, np.full(60, log_scale)
    return told, np.tile(weights / 2, 2)


LAPLACE_NLL = Claim(
    fn=jaxloss.laplace_nll,
    domains=DOMAINS,
    settings=(
        LossSpec(
            name="laplace_nll",
            fn=jaxloss.laplace_nll,
            sample=locations,
            differentiable=(0, 1, 2),
            smooth=False,
            reference=laplace_nll,
            gradient=laplace_slopes,
            minimiser=lambda t, s: t,
            minimum=lambda t, s: np.log(2) + s,
            convex=True,
            functional=weighted_median,
            proper=laplace_outcomes,
            forecast=(0, 2),
            symmetries=(shift(0, 1), flip(0, 1), swap()),
            extremes=spreads,
            bad_calls=refused_scales("laplace_nll"),
        ),
    ),
    accuracy=tuple(laplace_cases()),
    line=Line(
        "location − target",
        (-4, 4),
        lambda x, s: (x, 0 * x, 0 * x + s),
        (("log-scale −1", -1.0), ("log-scale 0", 0.0), ("log-scale 1", 1.0)),
    ),
)


# --- Student's t -------------------------------------------------------------------

NU = "degrees"


@digits.digits(150)
def student_formula(m, t, s, degrees):
    """As in the textbook; of infinitely many degrees the Gaussian."""
    nu = mp.mpf(degrees)
    square = (m - t) ** 2 * mp.exp(-2 * s)
    if mp.isinf(nu):
        return s + (mp.log(2 * mp.pi) + square) / 2
    gammas = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2)
    tail = (nu + 1) / 2 * mp.log1p(square / nu)
    return s + mp.log(nu * mp.pi) / 2 - gammas + tail


def student_pull(m, t, s, degrees):
    """`(nu + 1) r / (nu sigma^2 + r^2)`."""
    nu, r, variance = mp.mpf(degrees), m - t, mp.exp(2 * s)
    if mp.isinf(nu):
        return r / variance
    return (nu + 1) * r / (nu * variance + r * r)


student_t_nll = exact(student_formula)


@digits.digits(150)
def student_gradient(m, t, s, degrees):
    pull = student_pull(m, t, s, degrees)
    return pull, -pull, 1 - (m - t) * pull


student_slopes = exact(student_gradient)


@digits.digits(150)
def student_curves(m, t, s, degrees):
    """Twice in the location, in the target, and in the log-scale."""
    nu, r, variance = mp.mpf(degrees), m - t, mp.exp(2 * s)
    whole = (nu * variance + r * r) ** 2
    curve = (nu + 1) * (nu * variance - r * r) / whole
    return curve, curve, 2 * (nu + 1) * nu * r * r * variance / whole


def student_outcomes(rng):
    """Of three degrees of freedom: at tan(x) times their root, for angles x even in
    their distance, the density is cos(x)^2, and the slopes are exact."""
    angles = np.pi * ((np.arange(64) + 0.5) / 64 - 0.5)
    location, log_scale = rng.normal(size=2)
    targets = location + np.exp(log_scale) * np.sqrt(3) * np.tan(angles)
    told = np.full(64, location), targets, np.full(64, log_scale)
    return told, np.cos(angles) ** 2 / 32


def heavy_tails(dtype):
    """Also errors of any size at scale 1, of which the loss is the logarithm."""
    r = ladder(dtype)
    zero = np.zeros_like(r)
    return [*spreads(dtype), (r, zero, zero)]


def of_degrees(degrees, **more):
    loss = "student_t_nll"
    return LossSpec(
        name=f"{loss}(degrees={degrees})",
        fn=jaxloss.student_t_nll,
        sample=locations,
        params={NU: degrees},
        differentiable=(0, 1, 2),
        reference=student_t_nll,
        gradient=student_slopes,
        minimiser=lambda t, s, degrees: t,
        minimum=lambda t, s, degrees: student_t_nll(0 * t, 0 * t, s, degrees=degrees),
        symmetries=(shift(0, 1), flip(0, 1), swap()),
        bad_calls=(
            *refused_scales(loss, degrees=3.0),
            refused(loss, NU, ONES, ONES, ONES, degrees=0.0),
            refused(loss, NU, ONES, ONES, ONES, degrees=np.ones(4)),
            refused(loss, NU, ONES, ONES, ONES, degrees="many", error=TypeError),
        ),
        **more,
    )


DEGREES = np.array([0.3, 1.0, 2.5, 5.0, 40.0, 1e4, 1e7, 1e12])


def student_cases() -> Iterator[Case]:
    r, s = MODEST
    wide = WIDE[0], 0 * WIDE[0], WIDE[1] / 2
    for argument, name in enumerate(("locations", "targets", "log_scales", "degrees")):
        for halves, columns in ((True, (r + 1, np.ones_like(r), s)), (False, wide)):
            if argument == 3 and not halves:
                continue  # its slope there is that of a logarithm, and of nothing else
            # In half precision 1e7 is infinity.
            degrees = DEGREES[:6] if halves and argument < 3 else DEGREES
            closed = {}
            if argument < 3:
                closed["first"] = component(student_gradient, argument)
                closed["second"] = component(student_curves, argument)
            yield Case(
                name=f"in {name}{'' if halves else ', far out'}",
                **closed,
                columns=(*columns, np.resize(degrees, columns[0].size)),
                names=(NU,),
                argument=argument,
                conditioned=(True, True, True),
                bounds=(3, 4, 6),
                # (nu + 1) / r^2 is representable where 1 / r^2 is not.
                floor=FLUSH,
                halves=halves and argument < 3,
            )


STUDENT_T_NLL = Claim(
    fn=jaxloss.student_t_nll,
    domains=DOMAINS,
    settings=(
        of_degrees(
            3.0,
            extremes=heavy_tails,
            curvature=exact(component(student_curves, 0)),
            proper=student_outcomes,
            forecast=(0, 2),
        ),
        of_degrees(float("inf"), extremes=spreads, convex=True),
    ),
    accuracy=tuple(student_cases()),
    line=Line(
        "location − target",
        (-6, 6),
        lambda x, s: (x, 0 * x, 0 * x + s),
        (("log-scale 0", 0.0),),
    ),
    drawn=tuple({NU: nu} for nu in (1.0, 4.0, float("inf"))),
)


# --- mixtures ----------------------------------------------------------------------


def log_likelihoods(w, nlls):
    """`log w - nll` of each component, of weights as they are; and log sum w."""
    total = mp.log(mp.fsum(mp.exp(v) for v in w))
    return [
        v - nll if v > -mp.inf else -mp.inf for v, nll in zip(w, nlls, strict=True)
    ], total


def mixture_formula(w, nlls):
    if max(w) == -mp.inf:
        return mp.mpf(0)
    logs, total = log_likelihoods(w, nlls)
    return total - mp.log(mp.fsum(mp.exp(v) for v in logs))


mixture_nll = exact_rows(1, 1)(mixture_formula)


@exact_rows(1, 1)
def mixture_slopes(w, nlls):
    if max(w) == -mp.inf:
        return [mp.mpf(0)] * len(w), [mp.mpf(0)] * len(w)
    logs, total = log_likelihoods(w, nlls)
    evidence = mp.fsum(mp.exp(v) for v in logs)
    seen = [mp.exp(v) / evidence for v in logs]
    before = [mp.exp(v - total) for v in w]
    return [p - v for p, v in zip(before, seen, strict=True)], seen


def components(rng, shape):
    """Logits of weights, and losses of components."""
    size = (*shape, 4)
    return 3 * rng.normal(size=size), 3 * rng.normal(size=size) + 2


def mixture_outcomes(rng):
    """A mixture of four distributions of five outcomes."""
    log_weights, chances = rng.normal(size=4), rng.dirichlet(np.ones(5), size=4)
    told = np.tile(log_weights, (5, 1)), -np.log(chances.T)
    weights = np.exp(log_weights) / np.sum(np.exp(log_weights))
    return told, weights @ chances


def mixtures(dtype):
    """One component of many, none, all alike, likelihoods that are far apart."""
    far = min(1e4, root(dtype))
    off = -np.inf
    rows = (
        ([0, 0, 0, 0], [1, 1, 1, 1]),
        ([0, off, off, off], [3, -7, 0, 50]),
        ([off, off, off, off], [1, 2, 3, 4]),
        ([1, 2, off, 3], [far, far, 0, far]),
        ([1, 2, 3, 4], [-far, far, far, far]),
        ([far, 0, 0, 0], [far, 0, 0, 0]),
    )
    w, nlls = (np.array(side, float) for side in zip(*rows, strict=True))
    return [(w, nlls)]


def mixture_cases() -> Iterator[Case]:
    rng = np.random.default_rng(3)
    scale = np.array([0.1, 1, 10, 30])[np.arange(24) % 4, None]
    columns = scale * rng.normal(size=(24, 3)), 2 * scale * rng.normal(size=(24, 3)) + 1
    for argument, name in enumerate(("log_weights", "component_nlls")):
        yield Case(
            name=f"in {name}",
            columns=columns,
            argument=argument,
            rowwise=True,
            conditioned=(True, True, True),
            bounds=(2, 3, 4),
        )


MIXTURE_NLL = Claim(
    fn=jaxloss.mixture_nll,
    domains={"log_weights": domains.LOGITS, "component_nlls": domains.REAL},
    settings=(
        LossSpec(
            name="mixture_nll",
            fn=jaxloss.mixture_nll,
            sample=components,
            event_ndim=1,
            differentiable=(0, 1),
            reference=mixture_nll,
            gradient=mixture_slopes,
            proper=mixture_outcomes,
            symmetries=(shift(0), permutation(0, 1)),
            extremes=mixtures,
            bad_calls=(
                refused("mixture_nll", "component_nlls", ONES, np.ones((3, 1))),
                refused("mixture_nll", "component_nlls", ONES, np.ones(4)),
                refused("mixture_nll", "log_weights", np.ones((2, 0)), np.ones((2, 0))),
                refused(
                    "mixture_nll", "log_weights", np.ones(3, int), ONES, error=TypeError
                ),
                refused("mixture_nll", "log_weights", 1.0, 1.0),
            ),
        ),
    ),
    accuracy=tuple(mixture_cases()),
    line=Line(
        "target between components at −2 and 2",
        (-5, 5),
        lambda x, w: (
            vector(w, 0.0),
            jaxloss.gaussian_nll(vector(-2.0, 2.0), vector(x, x), vector(0.0, 0.0)),
        ),
        (("equal weights", 0.0), ("log weight 2 of the first", 2.0)),
    ),
)

CLAIMS = [LAPLACE_NLL, STUDENT_T_NLL, MIXTURE_NLL]
