"""What is claimed of every loss of `jaxloss.losses.survival.hazards`."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import (
    logit_rows,
    sigmoid,
    softplus,
)
from jaxloss.claims.embedding.in_batch import OfBatch, other_ids, weighted
from jaxloss.claims.survival import formulas
from jaxloss.testing import LossSpec, Symmetry, accuracy
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.domain import interval
from jaxloss.testing.exact import mp

# --- the partial likelihood ----------------------------------------------------------


def studies(rng, shape):
    """Five subjects with ties; half of the studies have strata, half have padding."""
    size = (*shape, 5)
    half = rng.integers(2, size=(2, *shape, 1))
    times, events = rng.integers(1, 4, size=size), rng.random(size) < 0.7
    strata = np.where(half[0] == 1, rng.integers(-1, 1, size=size), 7)
    where = half[1] * rng.random(size) <= 0.7
    return 2 * rng.normal(size=size), times.astype(float), events, strata, where


# All at one time, each at another, some tied; the last ones never.
TIMES = ([2.0] * 5, [3, 1, 5, 2, 4], [1, 1, 0, 0, 1], [-1, np.inf, -1, np.inf, 2])


def study_edges(dtype):
    """Log hazards that are equal, confident, far from 0, and at the ends of the dtype;
    with events of all subjects, of some, and of none."""
    b, one = common.big(dtype) / 32, [7] * 5
    rows = np.array(
        [
            [0.0, 0, 0, 0, 0],
            [20, 0, -20, 0, 20],
            [-50, 50, 0, 50, 0],
            [1e4, 1e4 + 5, 1e4, 1e4, 1e4 + 5],
            [b, -b, 0, 1, b],
        ]
    )
    events = np.array([[True] * 5, [False] * 5, [True, True, False, False, True]])
    for times, happened in ((t, e) for t in TIMES for e in (0, 2)):
        yield _study(rows, times, events[happened], one, [True] * 5)
    # Strata; nobody; nobody with an event; one that is masked, some of hazard 0.
    yield _study(rows[1:2], TIMES[2], events[0], [7, 7, 7, 1, 1], [True] * 5)
    yield _study(rows[1:2], TIMES[2], events[0], one, [False] * 5)
    yield _study(rows[1:2], TIMES[2], events[1], one, [True] * 5)
    gone = [True, False, True, True, True]
    excluded = np.array([[0.5, 9e4, 1, 0, 2]])
    yield _study(excluded, [1, np.inf, 1, 2, 2], events[0], one, gone)
    barely = np.array([[0.5, 1, -np.inf, -np.inf, 2]])
    yield _study(
        barely, TIMES[2], np.array([True, True, False, False, True]), one, gone
    )


def _study(rows, *columns):
    return (rows, *(np.tile(np.array(x), (len(rows), 1)) for x in columns))


def study(fn, of):
    name, x, ids = fn.__name__, np.ones((3, 4)), np.zeros((3, 4), int)
    refused = lambda argument, *args, **kw: common.refused(name, argument, *args, **kw)
    yes = ids == 0
    return OfBatch(
        name=name,
        fn=fn,
        sample=studies,
        keywords=("strata", "where"),
        event_ndim=1,
        convex=True,
        symmetries=(
            common.shift(0),
            Symmetry("another unit of time", _later),
            other_ids(3),
        ),
        extremes=study_edges,
        bad_calls=(
            refused("log_hazards", x.astype(int), x, yes, error=TypeError),
            refused("log_hazards", np.ones(()), np.ones(()), np.ones((), bool)),
            refused("times", x, x[:2], yes),
            refused("times", x, x + 0j, yes, error=TypeError),
            refused("events", x, x, yes[:, :1]),
            refused("events", x, x, ids, error=TypeError),
            refused("strata", x, x, yes, strata=ids[0]),
            refused("strata", x, x, yes, strata=x, error=TypeError),
            refused("where", x, x, yes, where=yes[:2]),
            refused("where", x, x, yes, where=x, error=TypeError),
        ),
        **formulas.of_study(of),
    )


def _later(rng, h, times, *rest):
    return h, 4 * times + 3, *rest


def study_case(fn, of, bounds):
    """Six subjects, of which three have an event at one time; some are censored."""
    times, events = [2.0, 1, 2, 2, 3, 1], [True, True, True, True, False, False]

    def evaluate(h):
        like = lambda x: jnp.broadcast_to(jnp.array(x), h.shape)
        return weighted(fn(h, like(times), like(events)))

    def formula(h):
        found = formulas.of_subjects(of, h, times, events)
        return mp.fsum((i + 1) * loss for i, (loss, _) in enumerate(found))

    return Case(
        name=fn.__name__,
        fn=evaluate,
        formula=formula,
        columns=(accuracy.rows(6, count=12),),
        rowwise=True,
        conditioned=(True, True, True),
        bounds=bounds,
        halves=False,  # a law has the value and the gradient in all dtypes
    )


TIMED = {
    "log_hazards": interval(
        "[-inf, inf)", "finite log hazards, or -inf for a hazard of 0"
    ),
    "times": interval("[-inf, inf]", "times that are no NaN"),
    "strata": domains.ANY_IDS,
}
RIVALS = Line(
    "log hazard of the subject with the event, two others 0",
    (-6, 6),
    lambda x, _: (
        common.vector(x, 0, 0),
        jnp.array([1, 2, 3]),
        jnp.array([True, False, False]),
    ),
)

# --- discrete times ------------------------------------------------------------------


@common.exact_rows(1, 0, 0)
def hazard_reference(x, b, event):
    b = int(b)
    last = softplus(-x[b]) if event else softplus(x[b])
    return mp.fsum([*map(softplus, x[:b]), last])


@common.exact_rows(1, 0, 0)
def hazard_gradient(x, b, event):
    slopes = [sigmoid(v) if j <= b else mp.mpf(0) for j, v in enumerate(x)]
    slopes[b] = -sigmoid(-x[b]) if event else slopes[b]
    return slopes


@common.exact_rows(1, 0, 0)
def hazard_curvature(x, b, event):
    slopes = [sigmoid(v) * sigmoid(-v) * (j <= b) for j, v in enumerate(x)]
    return [[s * (i == j) for j in range(len(x))] for i, s in enumerate(slopes)]


def _outcomes(x, b, event):
    """Classes that are ruled out, and those that are possible."""
    possible = [int(b)] if event else [*range(int(b) + 1, len(x))]
    return [j for j in range(len(x)) if j not in possible], possible


def _shares(x, classes):
    """The softmax over some of the classes, 0 of the others."""
    top = max(x[j] for j in classes)
    e = [mp.exp(v - top) if j in classes else mp.mpf(0) for j, v in enumerate(x)]
    return [v / mp.fsum(e) for v in e]


def _odds(x, classes):
    """The logarithm of what some of the classes sum to."""
    top = max(x[j] for j in classes)
    return top + mp.log(mp.fsum(mp.exp(x[j] - top) for j in classes))


@common.exact_rows(1, 0, 0)
def time_reference(x, b, event):
    ruled_out, possible = _outcomes(x, b, event)
    return softplus(_odds(x, ruled_out) - _odds(x, possible))


@common.exact_rows(1, 0, 0)
def time_gradient(x, b, event):
    ruled_out, possible = _outcomes(x, b, event)
    lost = sigmoid(_odds(x, ruled_out) - _odds(x, possible))
    pairs = zip(_shares(x, ruled_out), _shares(x, possible), strict=True)
    return [lost * (p - q) for p, q in pairs]


def subjects(classes):
    """Four periods: logits of each, and the bin and the end of a subject."""

    def sample(rng, shape):
        bins, events = rng.integers(0, 4, size=shape), rng.random(shape) < 0.6
        return 3 * rng.normal(size=(*shape, classes)), bins, events

    return sample


def period_edges(dtype):
    """Every magnitude at every period, before, at and after the last one."""
    x = common.ladder(dtype)
    rows = np.stack([x, -x, np.roll(x, 3), np.zeros_like(x)], axis=-1)
    ends = [(b, e) for b in (0, 2, 3) for e in (True, False)]
    return [(rows, np.full(len(rows), b), np.full(len(rows), e)) for b, e in ends]


def class_edges(dtype):
    """The edges of a softmax; classes that are excluded."""
    x = logit_rows(dtype)
    x = np.concatenate([x, x[:, :1]], axis=1)
    gone = np.array([[0.0, 1, -np.inf, 2, -np.inf], [-np.inf, 0, 1, -np.inf, 0.5]])
    for b, e in ((0, True), (2, True), (0, False), (3, False)):
        yield x, np.full(len(x), b), np.full(len(x), e)
    yield gone, np.array([1, 2]), np.array([True, True])
    yield gone, np.array([0, 1]), np.array([False, False])


def every_end(rng):
    """An event in each of four periods, and none in any of them."""
    p = rng.dirichlet(np.ones(5))
    return p, np.array([0, 1, 2, 3, 3]), np.arange(5) < 4


def hazard_forecast(rng):
    """The log-odds of an event in each period for those who reach it."""
    p, bins, events = every_end(rng)
    beyond = np.cumsum(p[::-1])[-2::-1]
    return (np.tile(np.log(p[:-1] / beyond), (5, 1)), bins, events), p


def time_forecast(rng):
    """The logarithms of the probabilities."""
    p, bins, events = every_end(rng)
    return (np.tile(np.log(p), (5, 1)), bins, events), p


def periods(fn, classes, **more):
    x, bins, yes = np.ones((3, classes)), np.zeros(3, int), np.ones(3, bool)
    refused = functools.partial(common.refused, fn.__name__)
    return LossSpec(
        name=fn.__name__,
        fn=fn,
        sample=subjects(classes),
        event_ndim=1,
        bad_calls=(
            refused("bins", x, bins[:2], yes),
            refused("bins", x, bins[:, None], yes),
            refused("bins", x, bins.astype(float), yes, error=TypeError),
            refused("events", x, bins, yes[:2]),
            refused("events", x, bins, bins, error=TypeError),
            refused("logits", x.astype(int), bins, yes, error=TypeError),
            refused("logits", np.ones(()), np.zeros((), int), np.ones((), bool)),
            refused("logits", x[:, : classes - 4], bins, yes),
        ),
        **more,
    )


def bins_of(count):
    """Periods, of which there are so many less than logits."""

    def look(argument):
        shape = np.shape(argument.given["logits"])
        most = shape[-1] - count
        inside = interval(f"[0, {most})", f"periods in [0, {most})")
        return inside(argument)

    return look


X, BINS, EVENTS = accuracy.rows(5, count=8), np.arange(8) % 4, np.arange(8) < 5
ENDS = (("event", True), ("censored", False))
CLAIMS = [
    Claim(
        fn=fn,
        domains=TIMED,
        settings=(study(fn, of),),
        accuracy=(study_case(fn, of, bounds),),
        line=RIVALS,
    )
    for fn, of, bounds in (
        (jaxloss.cox_ph, formulas.efron_of, (1, 3, 3)),
        (jaxloss.cox_ph_breslow, formulas.breslow_of, (1, 2, 4)),
    )
]
CLAIMS += [
    Claim(
        fn=jaxloss.discrete_hazard,
        domains={"logits": domains.LOG_ODDS, "bins": bins_of(0)},
        settings=(
            periods(
                jaxloss.discrete_hazard,
                4,
                reference=hazard_reference,
                gradient=hazard_gradient,
                curvature=hazard_curvature,
                convex=True,
                proper=hazard_forecast,
                extremes=period_edges,
            ),
        ),
        accuracy=(
            Case(columns=(X[:, :4], BINS, EVENTS), fixed=(1, 2), bounds=(2, 2, 3)),
        ),
        line=Line(
            "logit of the last period, 0 before",
            (-6, 6),
            lambda x, e: (common.vector(0, x), 1, e),
            ENDS,
        ),
    ),
    Claim(
        fn=jaxloss.discrete_time_nll,
        domains={"logits": domains.LOGITS, "bins": bins_of(1)},
        settings=(
            periods(
                jaxloss.discrete_time_nll,
                5,
                reference=time_reference,
                gradient=time_gradient,
                proper=time_forecast,
                symmetries=(common.shift(0),),
                extremes=class_edges,
            ),
        ),
        accuracy=(
            Case(
                columns=(X, BINS, EVENTS),
                fixed=(1, 2),
                conditioned=(True, True, True),
                bounds=(1, 2, 2),
            ),
        ),
        line=Line(
            "logit of the second period, those of the first and of later 0",
            (-6, 6),
            lambda x, e: (common.vector(0, x, 0), jnp.where(e, 1, 0), e),
            ENDS,
        ),
    ),
]
