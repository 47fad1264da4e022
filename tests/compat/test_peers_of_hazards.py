"""Losses of times until an event, against loops over subjects and against peers.

The loops are written in float64 NumPy from the papers: a sum over each risk set, once
for each subject.  A peer that is installed is called as well.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compat.peers import peer, same

COX = {"efron": jaxloss.cox_ph, "breslow": jaxloss.cox_ph_breslow}
ties = pytest.mark.parametrize("ties", COX)


# --- the partial likelihood ----------------------------------------------------------


def study(count=80, features=3):
    """Features, times with ties, events and two strata."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, features))
    times = rng.integers(1, 15, size=count).astype(float)
    return x, times, rng.random(count) < 0.6, rng.integers(0, 2, size=count)


def of_subject(ties, h, times, events, strata, i):
    """Efron 1977, (6.8), and Breslow 1974: the loss of an event, and its gradient."""
    at_risk = (times >= times[i]) & (strata == strata[i])
    tied = (times == times[i]) & (strata == strata[i]) & events
    d, own = np.sum(tied), np.arange(h.size) == i
    loss, slope = 0.0, np.zeros(h.size)
    for k in range(d):
        weights = at_risk - (k / d) * tied * (ties == "efron")
        total = np.sum(weights * np.exp(h))
        loss += (np.log(total) - h[i]) / d
        slope += (weights * np.exp(h) / total - own) / d
    return loss, slope


@ties
def test_partial_likelihood(ties):
    """Of each subject, and the gradient of the sum."""
    x, times, events, strata = study()
    h, losses, slope = x @ [1.0, -2.0, 0.5], np.zeros(events.size), 0.0
    for i in np.flatnonzero(events):
        losses[i], own = of_subject(ties, h, times, events, strata, i)
        slope += own
    fn = lambda h: COX[ties](h, times, events, strata=strata)
    same(fn(h), losses)
    same(jax.grad(lambda h: fn(h).sum())(jnp.asarray(h)), slope)


@ties
def test_partial_likelihood_of_statsmodels(ties):
    """The log-likelihood and the score of its regression."""
    regression = peer("statsmodels.duration.hazard_regression")
    x, times, events, strata = study()
    model = regression.PHReg(times, x, status=events, strata=strata, ties=ties)
    total = lambda b: COX[ties](x @ b, times, events, strata=strata).sum()
    for b in (np.zeros(3), np.array([1.0, -2.0, 0.5])):
        value, slope = jax.value_and_grad(total)(jnp.asarray(b))
        same(-value, model.loglike(b))
        same(-slope, model.score(b))


@pytest.mark.filterwarnings("ignore")  # theirs, of a newer pandas
def test_partial_likelihood_of_lifelines():
    """What its fitter finds has the likelihood that it states, and no slope."""
    lifelines, pandas = peer("lifelines"), peer("pandas")
    x, times, events, strata = study()
    table = pandas.DataFrame({f"x{i}": column for i, column in enumerate(x.T)})
    table = table.assign(time=times, event=events, stratum=strata)
    fitter = lifelines.CoxPHFitter()
    fitter.fit(table, "time", "event", strata=["stratum"])
    total = lambda b: jaxloss.cox_ph(x @ b, times, events, strata=strata).sum()
    value, slope = jax.value_and_grad(total)(jnp.asarray(fitter.params_.to_numpy()))
    np.testing.assert_allclose(value, -fitter.log_likelihood_, rtol=1e-9)
    np.testing.assert_allclose(slope, 0, atol=1e-4)


# --- discrete times ------------------------------------------------------------------


def periods(count=50, classes=6):
    """Logits, the period of an event or of the censoring, and which it was."""
    rng = np.random.default_rng(1)
    bins, events = rng.integers(0, classes, size=count), rng.random(count) < 0.6
    return 2 * rng.normal(size=(count, classes)), bins, events


def test_hazards_of_periods():
    """Gensheimer and Narasimhan 2019: the product of the hazards and survivals."""
    x, bins, events = periods()
    expected = []
    for row, last, event in zip(x, bins, events, strict=True):
        hazards = 1 / (1 + np.exp(-row))
        survived = np.prod(1 - hazards[: last if event else last + 1])
        expected.append(-np.log(survived * (hazards[last] if event else 1)))
    same(jaxloss.discrete_hazard(x, bins, events), expected)


def test_distribution_over_periods():
    """Lee et al. 2018, without competing risks: p of the event, or of all later."""
    x, bins, events = periods()
    x = np.pad(x, ((0, 0), (0, 1)))  # as pycox has later than all periods
    expected = []
    for row, last, event in zip(x, bins, events, strict=True):
        p = np.exp(row) / np.sum(np.exp(row))
        expected.append(-np.log(p[last] if event else np.sum(p[last + 1 :])))
    same(jaxloss.discrete_time_nll(x, bins, events), expected)
