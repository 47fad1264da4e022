"""Claims of the scores of probabilistic forecasts."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.classification.cross_entropy import bad_masks
from jaxloss.claims.common import (
    big,
    component,
    exact,
    exact_rows,
    flip,
    ladder,
    permutation,
    refused,
    root,
    scale,
    shift,
    swap,
    tiny,
    vector,
)
from jaxloss.claims.distributions.likelihood import MODEST, cases_of_scales, gaussians
from jaxloss.claims.embedding.formulas import length, minus, unit
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case, decades, line, pairs
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

ONES = np.ones(3)


# --- the normal distribution -------------------------------------------------------


def _density(z):
    """Twice that of the normal distribution; 0 where it has 400 000 zeros."""
    return 0 if abs(z) > 2000 else mp.sqrt(2 / mp.pi) * mp.exp(-z * z / 2)


@exact
def crps_normal(m, t, s):
    r, sigma = m - t, mp.exp(s)
    # By the upper tail, as mpmath subtracts two numbers that are nearly 1.
    rest = _density(r / sigma) - 1 / mp.sqrt(mp.pi)
    return abs(r) * mp.erf(abs(r) / sigma / mp.sqrt(2)) + sigma * rest


@exact
def normal_slopes(m, t, s):
    z = (m - t) * mp.exp(-s)
    pull = mp.erf(z / mp.sqrt(2))
    return pull, -pull, mp.exp(s) * (_density(z) - 1 / mp.sqrt(mp.pi))


def normal_curve(m, t, s):
    return _density((m - t) * mp.exp(-s)) * mp.exp(-s)


def normal_curve_in_log_scale(m, t, s):
    z = (m - t) * mp.exp(-s)
    return mp.exp(s) * (_density(z) * (1 + z * z) - 1 / mp.sqrt(mp.pi))


def scales(dtype):
    """No error at any scale; any error at its own scale, at scale 1, and at the
    smallest and largest."""
    high = min(80.0, float(np.log(root(dtype))))
    s = np.linspace(-high, high, 9)
    r, zero = ladder(dtype, root(dtype)), np.zeros_like(s)
    return [
        (zero, zero, s),
        (r, r, np.zeros_like(r)),
        (np.exp(s), zero, s),
        (zero, np.exp(s / 2), s),
        (r, np.zeros_like(r), np.zeros_like(r)),
    ]


def normal_outcomes(rng):
    """A normal distribution, by the trapezoidal rule, whose error is 1e-30 here."""
    nodes = np.linspace(-12, 12, 193)
    mean, log_scale = rng.normal(size=2)
    weights = np.exp(-nodes * nodes / 2)
    targets = mean + np.exp(log_scale) * nodes
    told = np.full_like(nodes, mean), targets, np.full_like(nodes, log_scale)
    return told, weights / np.sum(weights)


WIDE = pairs(
    np.concatenate([decades(1e-37, 1e30, points=7), [0.0]]),
    np.concatenate([line(-75, 75, points=7), [0.0, -1e4]]),
)
# Around the standard deviation at which the two formulas of the value meet.
MEETING = pairs(np.concatenate([line(-4, 4, points=21), [1.5, -1.5]]), np.zeros(1))


def normal_cases() -> Iterator[Case]:
    near = tuple(np.concatenate(x) for x in zip(MODEST, MEETING, strict=True))
    near, far = ((r, np.zeros_like(r), s) for r, s in (near, WIDE))
    return cases_of_scales(
        ("means", "targets", "log_scales"),
        normal_slopes,
        (normal_curve, normal_curve, normal_curve_in_log_scale),
        near,
        far,
        # The density far out has few digits, as its logarithm is a square.
        conditioned=(False, True),
        bounds=(3, 3, 3.5),
    )


CRPS_NORMAL = Claim(
    fn=jaxloss.crps_normal,
    domains={
        "means": domains.REAL,
        "targets": domains.REAL,
        "log_scales": domains.LOGARITHMS,
    },
    settings=(
        LossSpec(
            name="crps_normal",
            fn=jaxloss.crps_normal,
            sample=gaussians,
            differentiable=(0, 1, 2),
            reference=crps_normal,
            gradient=normal_slopes,
            curvature=exact(normal_curve),
            # Eight standard deviations out, the density has this part of its digits.
            second_ulps=64,
            minimiser=lambda t, s: t,
            minimum=lambda t, s: (np.sqrt(2) - 1) / np.sqrt(np.pi) * np.exp(s),
            convex=True,
            proper=normal_outcomes,
            forecast=(0, 2),
            symmetries=(shift(0, 1), flip(0, 1), swap()),
            extremes=scales,
            bad_calls=(
                refused("crps_normal", "targets", ONES, np.ones((3, 1)), ONES),
                refused("crps_normal", "log_scales", ONES, ONES, np.float64(0)),
                refused(
                    "crps_normal", "log_scales", ONES, ONES, ONES > 0, error=TypeError
                ),
                refused(
                    "crps_normal", "means", np.ones(3, int), ONES, ONES, error=TypeError
                ),
            ),
        ),
    ),
    accuracy=tuple(normal_cases()),
    line=Line(
        "mean − target",
        (-4, 4),
        lambda x, s: (x, 0 * x, 0 * x + s),
        tuple((f"scale {k:g}", float(np.log(k))) for k in (0.25, 1, 2)),
    ),
)


# --- ensembles ---------------------------------------------------------------------


def ensembles(rng, shape):
    """Four members, some of them masked but the first two, and a target."""
    size = (*shape, 4)
    where = rng.random(size) < [1, 1, 0.6, 0.6]
    return 3 * rng.normal(size=size), 3 * rng.normal(size=shape), where


def ensemble_formulas(fair: bool) -> dict[str, Any]:
    """Value and slopes, from all pairs of members."""

    def existing(x, where):
        return [v for i, v in enumerate(x) if where is None or where[i]]

    def total(x):
        """The number of pairs, of all members or of different ones."""
        return max(len(x) * (len(x) - 1 if fair else len(x)), 1)

    def value(x, y, where=None):
        x = existing(x, where)
        spread = mp.fsum(abs(v - w) for v in x for w in x) / 2
        return mp.fsum(abs(v - y) for v in x) / max(len(x), 1) - spread / total(x)

    def slopes(x, y, where=None):
        members = existing(x, where)
        count, whole = max(len(members), 1), total(members)
        by_member = [
            mp.sign(v - y) / count - mp.fsum(mp.sign(v - w) for w in members) / whole
            if where is None or where[i]
            else mp.mpf(0)
            for i, v in enumerate(x)
        ]
        return by_member, -mp.fsum(mp.sign(v - y) for v in members) / count

    lift = exact_rows(1, 0, 1)
    return {"reference": lift(value), "gradient": lift(slopes)}


def ensemble_edges(dtype):
    """Far members and near ones, equal ones, and equal to the target."""
    b, t, e = big(dtype), tiny(dtype), float(jnp.finfo(dtype).eps)
    x = np.array(
        [
            [0, 0, 0, 0],
            [1, 1, 2, 2],
            [b, -b, b, -b],
            [b, b, b, b],
            [t, -t, 2 * t, 0],
            [1, 1 + e, 1 - e, 1],
            [-5, 50, 0, 1e4],
        ]
    )
    y = np.array([0, 1, 0, -b, t, 1, 50])
    masks = ([True] * 4, [True, True, False, True])
    return [(x, y, np.tile(mask, (len(x), 1))) for mask in masks]


def equal_outcomes(rng):
    """Four values, equally likely: the forecast has them as its members."""
    x = rng.normal(size=4)
    return (np.tile(x, (4, 1)), x, np.ones((4, 4), bool)), np.full(4, 0.25)


def member_rows() -> tuple[np.ndarray, np.ndarray]:
    """Seven members, near each other, far apart, equal, and equal to the target."""
    rng = np.random.default_rng(0)
    size = np.resize([1e-30, 1e-3, 1.0, 1e4, 1e30], 20)
    x, y = size[:, None] * rng.normal(size=(20, 7)), size * rng.normal(size=20)
    x[5:10] += 8 * size[5:10, None]  # on one side of the target
    x[10:15, 1:3], x[10:15, 3] = x[10:15, :1], y[10:15]
    x[15:20] = 1 + 1e-3 * rng.normal(size=(5, 7))
    y[15:20] = [1, 1.0001, 0.9999, 7, -1]
    return x, y


def ensemble_cases(formulas: dict[str, Any], bounds: Any) -> Iterator[Case]:
    for argument, name in enumerate(("members", "targets")):
        nothing = [mp.mpf(0)] * 7 if argument == 0 else mp.mpf(0)
        yield Case(
            name=f"in {name}",
            columns=member_rows(),
            argument=argument,
            first=component(formulas["gradient"], argument),
            second=lambda *a, nothing=nothing: nothing,
            bounds=bounds,
            halves=False,  # of which float16 has no 1e30
        )


def ensemble_claim(fn: Any, fair: bool, bounds: Any, **more: Any) -> Claim:
    name, rows, formulas = fn.__name__, np.ones((3, 4)), ensemble_formulas(fair)
    spec = LossSpec(
        name=name,
        fn=fn,
        sample=ensembles,
        keywords=("where",),
        event_ndim=1,
        differentiable=(0, 1),
        **formulas,
        curvature=lambda x, y, where: np.zeros((*x.shape, x.shape[-1])),
        smooth=False,
        minimiser=lambda y, where: np.broadcast_to(y[..., None], where.shape),
        functional=lambda y, where: np.median(y),
        symmetries=(shift(0, 1), flip(0, 1), scale(1, 0, 1), permutation(0, 2)),
        extremes=ensemble_edges,
        bad_calls=(
            *bad_masks(name, ONES),
            refused(name, "targets", rows, rows),
            refused(name, "targets", rows, np.ones(4)),
            refused(name, "members", np.ones(()), np.ones(())),
            refused(name, "members", np.ones((3, 0)), ONES),
            refused(name, "members", np.ones((3, 4), int), ONES, error=TypeError),
            *((refused(name, "members", np.ones((3, 1)), ONES),) if fair else ()),
        ),
        **more,
    )
    return Claim(
        fn=fn,
        domains={"members": domains.REAL, "targets": domains.REAL},
        settings=(spec,),
        accuracy=tuple(ensemble_cases(formulas, bounds)),
        line=Line(
            "mean of three members − target",
            (-4, 4),
            lambda x, gap: (vector(x - gap, x, x + gap), 0 * x),
            tuple((f"members {gap:g} apart", gap) for gap in (0.0, 0.5, 1.0, 2.0)),
        ),
    )


CRPS_ENSEMBLE = ensemble_claim(
    jaxloss.crps_ensemble, False, (2, 1.5, 0), proper=equal_outcomes
)
CRPS_ENSEMBLE_FAIR = ensemble_claim(jaxloss.crps_ensemble_fair, True, (2, 1.5, 0))


# --- ensembles of vectors ----------------------------------------------------------


def vectors(rng, shape):
    """Three members of two components, and a target."""
    return rng.normal(size=(*shape, 3, 2)), rng.normal(size=(*shape, 2))


@exact_rows(2, 1)
def energy_score(x, y):
    spread = mp.fsum(length(minus(v, w)) for v in x for w in x)
    errors = mp.fsum(length(minus(v, y)) for v in x)
    return errors / len(x) - spread / (2 * len(x) ** 2)


def _terms(x, y):
    """What the slope in each member is the sum of."""
    count = len(x)
    for v in x:
        error = [u / count for u in unit(minus(v, y))]
        yield [error, *([-u / count**2 for u in unit(minus(v, w))] for w in x)]


@exact_rows(2, 1)
def energy_slopes(x, y):
    summed = lambda terms: [mp.fsum(column) for column in zip(*terms, strict=True)]
    by_member = [summed(terms) for terms in _terms(x, y)]
    return by_member, [-u for u in summed(terms[0] for terms in _terms(x, y))]


@exact_rows(2, 1)
def energy_cancels(x, y):
    errors = mp.fsum(length(minus(v, y)) for v in x)
    return 2 * errors / len(x)


@exact_rows(2, 1)
def energy_slopes_cancel(x, y):
    return [[mp.mpf(1) / len(x)] * len(v) for v in x], [mp.mpf(1)] * len(y)


def vector_edges(dtype):
    """Far members, equal ones, and equal to the target."""
    b, t = root(dtype), tiny(dtype)
    x = np.array(
        [
            [[0, 0], [0, 0], [0, 0]],
            [[1, 2], [1, 2], [3, 4]],
            [[b, -b], [-b, b], [b, b]],
            [[t, 0], [0, t], [-t, t]],
            [[1e4, 0], [1e4, 1], [0, 1e4]],
        ]
    )
    return [(x, np.zeros((5, 2))), (x, x[:, 0])]


def equal_vectors(rng):
    """Four vectors, equally likely: the forecast has them as its members."""
    x = rng.normal(size=(4, 2))
    return (np.tile(x, (4, 1, 1)), x), np.full(4, 0.25)


def flat_energy_score(x, y):
    """Of members in one row, as a grid of arguments has them."""
    return jaxloss.energy_score(x.reshape(*x.shape[:-1], 3, 2), y)


def _members(x):
    return [x[0:2], x[2:4], x[4:6]]


def energy_cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    size = np.resize([1e-15, 1e-3, 1.0, 1e4, 1e15], 15)[:, None]
    x, y = size * rng.normal(size=(15, 6)), size * rng.normal(size=(15, 2))
    x[5:10] += 8 * size[5:10]
    for argument, name in enumerate(("members", "targets")):
        yield Case(
            name=f"energy_score in {name}",
            fn=flat_energy_score,
            formula=lambda x, y: energy_score.formula(_members(x), y),
            columns=(x, y),
            argument=argument,
            # The spread is subtracted from the error; and unit vectors from another.
            conditioned=(True, True, True),
            rowwise=True,
            bounds=(1.5, 1.2, 1.2),
            halves=False,
        )


NAME, MEMBERS = "energy_score", np.ones((3, 4, 2))
ENERGY_SCORE = Claim(
    fn=jaxloss.energy_score,
    domains={"members": domains.REAL, "targets": domains.REAL},
    settings=(
        LossSpec(
            name=NAME,
            fn=jaxloss.energy_score,
            sample=vectors,
            event_ndim=2,
            differentiable=(0, 1),
            reference=energy_score,
            cancels=energy_cancels,
            gradient=energy_slopes,
            gradient_cancels=energy_slopes_cancel,
            minimiser=lambda y: np.broadcast_to(y[:, None], (len(y), 3, 2)),
            proper=equal_vectors,
            symmetries=(shift(0, 1), flip(0, 1), scale(1, 0, 1), permutation(0)),
            extremes=vector_edges,
            bad_calls=(
                refused(NAME, "targets", MEMBERS, np.ones((4, 2))),
                refused(NAME, "targets", MEMBERS, np.ones((3, 3))),
                refused(NAME, "members", np.ones(3), np.ones(())),
                refused(NAME, "members", np.ones((3, 0, 2)), np.ones((3, 2))),
                refused(NAME, "members", np.ones((3, 4, 0)), np.ones((3, 0))),
                refused(
                    NAME,
                    "members",
                    np.ones((3, 4, 2), int),
                    np.ones((3, 2)),
                    error=TypeError,
                ),
            ),
        ),
    ),
    accuracy=tuple(energy_cases()),
    line=Line(
        "mean of three members − target",
        (-4, 4),
        lambda x, gap: (
            jnp.stack([vector(x - gap, 0), vector(x, gap), vector(x + gap, 0)]),
            vector(0, 0),
        ),
        tuple((f"members {gap:g} apart", gap) for gap in (0.0, 0.5, 1.0, 2.0)),
    ),
)

CLAIMS = [CRPS_NORMAL, CRPS_ENSEMBLE, CRPS_ENSEMBLE_FAIR, ENERGY_SCORE]
