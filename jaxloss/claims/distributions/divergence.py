"""Claims of the divergences between distributions."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss import stable
from jaxloss.claims import common, domains
from jaxloss.claims.distributions.likelihood import VARIANCES
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import digits, mp

CLASSES = common.permutation(0, 1)
TARGETS = tuple((f"target {t}", t) for t in (0.5, 0.7, 0.95))
LOG_ODDS = Line(
    "log-odds of one of two classes",
    (-6, 6),
    lambda x, t: (stable.log_softmax(common.vector(x, 0)), common.vector(t, 1 - t)),
    TARGETS,
)


# --- between probabilities ---------------------------------------------------------


def distributions(rng, shape):
    """Log-probabilities, and probabilities of which none is 0, over four classes."""
    log_q = np.log(rng.dirichlet(np.ones(4), size=shape))
    return log_q, rng.dirichlet(np.ones(4), size=shape)


def entropic(x):
    """`x log x`, and 0 at 0."""
    return x * mp.log(x) if x else mp.mpf(0)


def edges(dtype):
    """Certain and impossible classes, on either side and on both; equal sides."""
    inf, big, tiny = np.inf, common.big(dtype), common.tiny(dtype)
    half, low = np.log(0.5), np.log(0.25)
    log_q = [
        [0.0, -inf, -inf, -inf],
        [half, half, -inf, -big],
        [-inf, 0.0, -inf, -50.0],
        [low, low, low, low],
        [0.0, -50.0, -80.0, -big],
        [-tiny, -17.0, -17.0, -17.0],
    ]
    t = [
        [1.0, 0.0, 0.0, 0.0],
        [1.0, tiny, 0.0, 0.0],
        [0.0, 0.5, 0.0, 0.5],
        [0.4, 0.3, 0.2, 0.1],
        [1.0, 0.0, tiny, 0.0],
        [1.0, 0.0, 0.0, 0.0],
    ]
    return [(np.array(log_q), np.array(t))]


def bad_calls(loss):
    row = np.full((3, 4), 0.25)
    return (
        common.refused(loss, "targets", np.log(row), row[:, :3]),
        common.refused(loss, "targets", np.log(row), row[0]),
        common.refused(loss, "targets", np.log(row), "row", error=TypeError),
        common.refused(loss, "log_predictions", row.astype(int), row, error=TypeError),
        common.refused(loss, "axis", np.log(row), row, axis=2),
        common.refused(loss, "axis", np.ones(()), np.ones(())),
        common.refused(loss, "axis", np.log(row), row, axis="c", error=TypeError),
    )


def divergence(fn: Callable, **laws: Any) -> LossSpec:
    """The laws of a loss of log-probabilities and probabilities, over classes."""
    usual = {
        "sample": distributions,
        "minimiser": lambda t: np.log(t),
        "symmetries": (CLASSES,),
        "fill": 0.25,
        "extremes": edges,
        "bad_calls": bad_calls(fn.__name__),
    }
    return LossSpec(
        name=fn.__name__,
        fn=fn,
        event_ndim=1,
        differentiable=(0, 1),
        **{**usual, **laws},
    )


def in_each(*arguments: str, where: str = "", **claims: Any) -> Iterator[Case]:
    """The same claims of the derivatives in each argument."""
    # A sum of terms of both signs is as exact as its arguments; the rarest class has a
    # small gradient, but the largest derivatives.
    usual = {"bounds": (2, 2, 2), "conditioned": (True, True, True)}
    for argument, name in enumerate(arguments):
        name = f"in {name}{where}"
        yield Case(name=name, argument=argument, **{**usual, **claims})


def typical() -> tuple[np.ndarray, np.ndarray]:
    """Unrelated, peaked and nearly equal pairs of distributions over three classes."""
    rng = np.random.default_rng(0)
    draw = lambda spread, n: rng.dirichlet(np.full(3, spread), size=n) + 1e-3
    near = draw(1.0, 4)
    steps = np.geomspace(1e-6, 0.3, 4)[:, None] * rng.normal(size=(4, 3))
    q = np.concatenate([draw(1.0, 2), draw(0.1, 2), near * np.exp(steps)])
    t = np.concatenate([draw(1.0, 2), draw(0.1, 2), near])
    return np.log(q / q.sum(1, keepdims=True)), t / t.sum(1, keepdims=True)


# Classes of probability 1e-30 and nearly 1, on either side and on both.
RARE = (
    np.array([[-1e-7, -16.0, -69.0], [-69.0, -1e-30, -50.0], [-0.3, -1.3, -80.0]]),
    np.array([[1.0, 1e-7, 1e-30], [1e-30, 1.0, 1e-20], [1e-30, 0.7, 0.3]]),
)
SIDES = "log_predictions", "targets"
OF_PROBABILITIES = (
    *in_each(*SIDES, where=", typical", columns=typical()),
    *in_each(*SIDES, where=", rare", columns=RARE, halves=False),
)


# --- Kullback-Leibler --------------------------------------------------------------


def kl(log_q, t):
    pairs = zip(log_q, t, strict=True)
    return mp.fsum(entropic(y) - x * y for x, y in pairs if y)


@common.exact_rows(1, 1)
def generalized(log_q, t):
    return kl(log_q, t) + mp.fsum(map(mp.exp, log_q)) - mp.fsum(t)


@common.exact_rows(1, 1)
def kl_gradient(log_q, t):
    slope = lambda x, y: mp.log(y) - x + 1 if y else mp.mpf(0)
    return [-y for y in t], [slope(x, y) for x, y in zip(log_q, t, strict=True)]


def agreeing() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of distributions over three classes, from 1e-6 apart to 0.3."""
    rng = np.random.default_rng(1)
    t = rng.dirichlet(np.ones(3), size=12) + 1e-3
    t = t / t.sum(1, keepdims=True)
    q = t * np.exp(np.geomspace(1e-6, 0.3, 12)[:, None] * rng.normal(size=(12, 3)))
    return np.log(q / q.sum(1, keepdims=True)), t


def near_agreement(formula, gradient, curvature, *columns) -> Iterator[Case]:
    """The value is that of the generalised divergence, whose condition number falls to
    0 with it; the derivatives are those of the plain one."""
    for argument, name in enumerate(("log_predictions", "targets")):
        yield Case(
            name=f"in {name}, near agreement",
            columns=columns,
            argument=argument,
            formula=formula.formula,
            first=common.component(gradient, argument),
            second=functools.partial(curvature, argument),
            bounds=(2, 2, 2),
            conditioned=(True, True, True),
            halves=False,  # which do not sum to 1
        )


def kl_curvature(argument, log_q, t):
    """The diagonal of the second derivative."""
    return [1 / y if argument else mp.mpf(0) for y in t]


KL_DIVERGENCE = Claim(
    fn=jaxloss.kl_divergence,
    domains={
        "log_predictions": domains.LOG_ROWS,
        "targets": domains.DISTRIBUTIONS,
    },
    settings=(
        divergence(
            jaxloss.kl_divergence,
            reference=common.exact_rows(1, 1)(kl),
            gradient=kl_gradient,
            curvature=lambda log_q, t: np.zeros((*t.shape, t.shape[-1])),
            convex=True,
        ),
    ),
    accuracy=(
        *OF_PROBABILITIES,
        *near_agreement(generalized, kl_gradient, kl_curvature, *agreeing()),
    ),
    line=LOG_ODDS,
)


def log_distributions(rng, shape):
    """Log-probabilities on both sides, over four classes."""
    log_q, t = distributions(rng, shape)
    return log_q, np.log(t)


def log_edges(dtype):
    """As `edges`, on a logarithmic scale, down to what no float can represent."""
    inf, big = np.inf, common.big(dtype)
    ((log_q, _),) = edges(dtype)
    log_t = [
        [0.0, -inf, -inf, -inf],
        [0.0, -big, -inf, -inf],
        [-inf, -0.7, -inf, -0.7],
        [-0.9, -1.2, -1.6, -2.3],
        [0.0, -inf, -80.0, -inf],
        [0.0, -inf, -inf, -inf],
    ]
    return [(log_q, np.array(log_t))]


def plain_kl_of_logs(log_q, log_t):
    pairs = [(x, y) for x, y in zip(log_q, log_t, strict=True) if y != -mp.inf]
    return mp.fsum(mp.exp(y) * (y - x) for x, y in pairs)


@common.exact_rows(1, 1)
def kl_of_logs(log_q, log_t):
    """Of masses that are equal to 15 digits, as `edges` have, as if they were equal."""
    surplus = mp.fsum(map(mp.exp, log_q)) - mp.fsum(map(mp.exp, log_t))
    soft = any(y not in (0, -mp.inf) for y in log_t)
    near = soft and abs(surplus) < 1e-15
    return plain_kl_of_logs(log_q, log_t) + (surplus if near else 0)


@common.exact_rows(1, 1)
def kl_of_logs_gradient(log_q, log_t):
    slope = lambda x, y: mp.exp(y) * (y - x + 1) if y != -mp.inf else mp.mpf(0)
    pairs = zip(log_q, log_t, strict=True)
    return [-mp.exp(y) for y in log_t], [slope(x, y) for x, y in pairs]


@common.exact_rows(1, 1)
def generalized_of_logs(log_q, log_t):
    return generalized.formula(log_q, [mp.exp(y) for y in log_t])


def kl_of_logs_curvature(argument, log_q, log_t):
    """The diagonal of the second derivative."""
    pairs = zip(log_q, log_t, strict=True)
    return [mp.exp(y) * (y - x + 2) if argument else mp.mpf(0) for x, y in pairs]


def bad_log_targets(loss):
    row = np.log(np.full((3, 4), 0.25))
    return (
        common.refused(loss, "log_targets", row, row[:2]),
        common.refused(loss, "log_targets", row, row.astype(int), error=TypeError),
        common.refused(loss, "axis", row, row, axis=2),
    )


def on_logarithms(x, t):
    """Two classes, as their logarithms on both sides."""
    log_q, t = LOG_ODDS.at(x, t)
    return log_q, jnp.log(t)


KL_DIVERGENCE_WITH_LOG_TARGETS = Claim(
    fn=jaxloss.kl_divergence_with_log_targets,
    domains={
        "log_predictions": domains.LOG_ROWS,
        "log_targets": domains.LOG_ROWS,
    },
    settings=(
        divergence(
            jaxloss.kl_divergence_with_log_targets,
            sample=log_distributions,
            reference=kl_of_logs,
            gradient=kl_of_logs_gradient,
            minimiser=lambda log_t: log_t,
            convex=True,
            extremes=log_edges,
            bad_calls=bad_log_targets("kl_divergence_with_log_targets"),
        ),
    ),
    accuracy=(
        *in_each(
            "log_predictions",
            "log_targets",
            columns=(typical()[0], np.log(typical()[1])),
            formula=plain_kl_of_logs,
        ),
        *near_agreement(
            generalized_of_logs,
            kl_of_logs_gradient,
            kl_of_logs_curvature,
            *(agreeing()[0], np.log(agreeing()[1])),
        ),
    ),
    line=LOG_ODDS._replace(at=on_logarithms),
)


# --- of intensities ----------------------------------------------------------------


def intensities(rng, shape):
    """Logarithms of positive intensities, and positive intensities."""
    log_q, t = rng.normal(size=(*shape, 4)), rng.normal(size=(*shape, 4))
    return log_q, np.exp(t)


@common.exact_rows(1, 1)
def generalized_gradient(log_q, t):
    slope = lambda x, y: mp.log(y) - x if y else mp.mpf(0)
    pairs = list(zip(log_q, t, strict=True))
    return [mp.exp(x) - y for x, y in pairs], [slope(x, y) for x, y in pairs]


def one_of_four(rng):
    """Four classes, of which one comes: the forecast is their log-probabilities."""
    p = rng.dirichlet(np.ones(4))
    return (np.tile(np.log(p), (4, 1)), np.eye(4)), p


# Far apart in both directions, 1e-3 apart, and rare.
INTENSITIES = (
    np.log(np.array([[2.0, 0.3], [1e-9, 40.0], [3.0, 7.0], [1.001, 0.25], [1e-20, 9]])),
    np.array([[1.0, 0.4], [5.0, 1e-3], [30.0, 0.5], [1.0, 0.2501], [1e-3, 1e-4]]),
)

GENERALIZED_KL_DIVERGENCE = Claim(
    fn=jaxloss.generalized_kl_divergence,
    domains={
        "log_predictions": domains.LOGARITHMS,
        "targets": domains.NOT_NEGATIVE,
    },
    settings=(
        divergence(
            jaxloss.generalized_kl_divergence,
            sample=intensities,
            reference=generalized,
            gradient=generalized_gradient,
            convex=True,
            proper=one_of_four,
        ),
    ),
    accuracy=tuple(
        in_each(
            *SIDES,
            columns=INTENSITIES,
            bounds=(4, 4, 2),
            # As exact as the given logarithm of q, whose digits are those of log q.
            conditioned=(True, True, False),
        )
    ),
    line=Line(
        "log-intensity",
        (-3, 2.5),
        lambda x, t: (common.vector(x), common.vector(t)),
        tuple((f"target {t}", float(t)) for t in (0, 1, 5)),
    ),
)


# --- Jensen-Shannon ----------------------------------------------------------------


@common.exact_rows(1, 1)
def js(log_q, t):
    total = mp.mpf(0)
    for x, y in zip(log_q, t, strict=True):
        q = mp.exp(x)
        total += (entropic(q) + entropic(y)) / 2 - entropic((q + y) / 2)
    return total


@common.exact_rows(1, 1)
def js_gradient(log_q, t):
    log_share = lambda part, s: mp.log(2 * part / s) if part else mp.mpf(0)
    q = [mp.exp(x) for x in log_q]
    pairs = list(zip(q, t, strict=True))
    in_log_q = [x * log_share(x, x + y) / 2 for x, y in pairs]
    return in_log_q, [log_share(y, x + y) / 2 for x, y in pairs]


SWAP = Symmetry(
    "a swap of the two distributions",
    lambda rng, log_q, t: (np.log(t), np.exp(log_q)),
)

JENSEN_SHANNON = Claim(
    fn=jaxloss.jensen_shannon,
    domains={
        "log_predictions": domains.LOG_ROWS,
        "targets": domains.DISTRIBUTIONS,
    },
    settings=(
        divergence(
            jaxloss.jensen_shannon,
            reference=js,
            gradient=js_gradient,
            symmetries=(CLASSES, SWAP),
        ),
    ),
    accuracy=OF_PROBABILITIES,
    line=LOG_ODDS,
)


# --- Gaussian ----------------------------------------------------------------------


@common.exact_rows(1, 1)
@digits(700)  # 1 + v + v^2/2 - (1 + v) at v = 1e-308
def gaussian(means, log_variances):
    pairs = zip(means, log_variances, strict=True)
    return mp.fsum(m**2 + mp.exp(v) - 1 - v for m, v in pairs) / 2


@common.exact_rows(1, 1)
def gaussian_gradient(means, log_variances):
    return means, [mp.expm1(v) / 2 for v in log_variances]


def moments(dtype):
    root, steps = common.root(dtype), common.ladder(dtype, top=50.0)
    zero = np.zeros_like(steps)
    low = np.full_like(steps, -common.big(dtype))
    return [
        (np.stack([zero, zero], -1), np.stack([steps, zero], -1)),
        (np.stack([steps, root + zero], -1), np.stack([zero, low], -1)),
    ]


def bad_moments(loss):
    ones = np.ones(3)
    return (
        common.refused(loss, "log_variances", np.ones((3, 4)), np.ones(4)),
        common.refused(loss, "axis", ones, ones, axis=1),
        common.refused(loss, "means", np.ones(3, int), ones, error=TypeError),
        common.refused(loss, "log_variances", ones, np.ones(3, bool), error=TypeError),
    )


MEANS = np.array([[0.3, -2.0], [1e-3, 1e-4], [50.0, 3.0], [0.0, 1e-3]])
LOG_VARIANCES = np.array([[0.7, -0.2], [1e-4, -1e-3], [-1.01, 1.99], [-9.0, 9.0]])
WIDE_MEANS = np.array([[1e18, 1.0], [1e-18, 1e-19], [1e-30, 0.0], [2.5e19, 1e-3]])
WIDE_VARIANCES = np.array([[80.0, -1e30], [1e-18, 1e-17], [1e-7, -1e-7], [2.01, -0.99]])


def gaussian_cases() -> Iterator[Case]:
    claims = {"bounds": (3, 2, 2), "conditioned": (False, False, False)}
    names = "means", "log_variances"
    yield from in_each(*names, columns=(MEANS, LOG_VARIANCES), **claims)
    wide = {"where": ", wide", "columns": (WIDE_MEANS, WIDE_VARIANCES)}
    yield from in_each(*names, **wide, halves=False, **claims)


GAUSSIAN_KL = Claim(
    fn=jaxloss.gaussian_kl,
    domains={"means": domains.REAL, "log_variances": domains.REAL},
    settings=(
        divergence(
            jaxloss.gaussian_kl,
            sample=common.vectors(2),
            reference=gaussian,
            gradient=gaussian_gradient,
            curvature=lambda means, _: np.broadcast_to(
                np.eye(means.shape[-1]), (*means.shape, means.shape[-1])
            ),
            minimiser=lambda log_variances: np.zeros_like(log_variances),
            minimum=lambda v: np.sum(np.expm1(v) - v, axis=-1) / 2,
            convex=True,
            fill=0.0,
            symmetries=(CLASSES, common.flip(0)),
            extremes=moments,
            bad_calls=bad_moments("gaussian_kl"),
        ),
    ),
    accuracy=tuple(gaussian_cases()),
    line=Line(
        "mean",
        (-3, 3),
        lambda x, s: (common.vector(x), common.vector(s)),
        VARIANCES,
    ),
)

CLAIMS = [
    KL_DIVERGENCE,
    KL_DIVERGENCE_WITH_LOG_TARGETS,
    GENERALIZED_KL_DIVERGENCE,
    JENSEN_SHANNON,
    GAUSSIAN_KL,
]
