"""The recipes of times until an event are the formulas of their papers.

Each formula is a loop in NumPy, as the paper writes it, or a distribution of SciPy.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.docs.test_guides import BLOCK, DOCS

RNG = np.random.default_rng(0)
N, K = 30, 5
HAZARDS, TIMES = RNG.normal(size=N), RNG.integers(1, 12, size=N).astype(float)
EVENTS, BINS = RNG.random(N) < 0.6, RNG.integers(0, K, size=N)
LOGITS = RNG.normal(size=(N, K))
same = functools.partial(np.testing.assert_allclose, rtol=1e-10)


@functools.cache
def recipes():
    """What the section defines, after its code has run."""
    text = (DOCS / "recipes.md").read_text()
    section = text.split("## A time until an event\n")[1].split("\n## ")[0]
    names = {}
    for block in BLOCK.findall(section):
        exec(compile(block, "recipes.md", "exec"), names)
    return names


def recipe(name, *args):
    return recipes()[name](*map(jnp.asarray, args))


def test_concordance():
    """Harrell et al. 1982: pairs of which it is known who had the event first."""
    right, known = 0.0, 0
    for i in np.flatnonzero(EVENTS):
        for j in range(N):
            if TIMES[i] < TIMES[j] or (TIMES[i] == TIMES[j] and not EVENTS[j]):
                known += 1
                right += (HAZARDS[i] > HAZARDS[j]) + (HAZARDS[i] == HAZARDS[j]) / 2
    same(recipe("concordance", HAZARDS, TIMES, EVENTS), right / known)


def kaplan_meier(time):
    """The share that has had the event by a time."""
    survived = 1.0
    for t in np.unique(TIMES[EVENTS]):
        if t <= time:
            survived *= 1 - np.sum(EVENTS & (t == TIMES)) / np.sum(t <= TIMES)
    return 1 - survived


def test_ends_of_periods():
    """Each is the first moment by which its share of all events has happened."""
    ends = recipes()["ends_of_periods"](TIMES, EVENTS, 4)
    moments = np.unique(TIMES[EVENTS])
    died = np.array([kaplan_meier(t) for t in moments])
    expected = [moments[died >= q * died[-1]][0] for q in (0.25, 0.5, 0.75)]
    np.testing.assert_array_equal(ends, expected)


def likelihood(p):
    seen = [p[i, b] if e else p[i, b + 1 :].sum() for i, b, e in subjects()]
    return -np.mean(np.log(seen))


def subjects():
    return zip(range(N), BINS, EVENTS, strict=True)


def test_mtlr():
    """Yu et al. 2011: 0s and then 1s have the sum of the logits of the 1s."""
    scores = np.array([[x[k:].sum() for k in range(K)] + [0] for x in LOGITS])
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    same(recipe("mtlr", LOGITS, BINS, EVENTS), likelihood(p))


def test_deephit():
    """Lee et al. 2018, of one risk: the likelihood, and all known orders."""
    x = np.pad(LOGITS, ((0, 0), (0, 1)))
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    order = 0.0
    for i, b, event in subjects():
        died = p[:, : b + 1].sum(axis=1)
        for j, other, seen in subjects():
            if event and (b < other or (b == other and not seen)):
                order += np.exp(-(died[i] - died[j]) / 0.1)
    expected = 0.2 * likelihood(p) + 0.8 * order / N**2
    same(recipe("deephit", x, BINS, EVENTS), expected)


@pytest.mark.parametrize("name", ["weibull", "log_normal"])
def test_accelerated_failure_times(name):
    """The density of an event, and the survival of those who are censored."""
    locations, log_scales = HAZARDS, LOGITS[:, 0] / 2
    scale, median = np.exp(log_scales), np.exp(locations)
    known: dict[str, Any] = {
        "weibull": stats.weibull_min(1 / scale, scale=median),
        "log_normal": stats.lognorm(scale, scale=median),
    }
    of = known[name]
    expected = -np.where(EVENTS, of.logpdf(TIMES), of.logsf(TIMES))
    same(recipe(name, locations, log_scales, TIMES, EVENTS), expected)


def test_survival_of_one_who_is_long_past_all():
    """40 deviations: a difference from 1 would be 0, and its logarithm infinite."""
    far = recipe("log_normal", 0.0, 0.0, np.exp(40.0), False)
    same(far, -stats.norm.logsf(40))
