"""Losses of times until an event: worked values, ties, and what is not a number."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
COX = (jaxloss.cox_ph, jaxloss.cox_ph_breslow)
cox = pytest.mark.parametrize("loss", COX, ids=lambda fn: fn.__name__)
HAZARDS = jnp.log(jnp.array([1.0, 2.0, 3.0]))
ALL = jnp.ones(3, bool)
close = functools.partial(np.testing.assert_allclose, rtol=FLOAT32)


def study(seed, n=60):
    """Subjects with ties, of which half are censored."""
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 12, size=n)
    h, events = rng.normal(size=n), rng.random(n) < 0.5
    return jnp.asarray(h, jnp.float32), jnp.asarray(times), jnp.asarray(events)


# --- worked values -------------------------------------------------------------------


@cox
def test_different_times(loss):
    """6/1 * 5/2 * 3/3, whatever is done about ties."""
    close(loss(HAZARDS, jnp.arange(3), ALL).sum(), math.log(15))


def test_two_events_at_one_time():
    """6 * 6 / 2 by Breslow; 6 * (6 - 3/2) / 2 by Efron, half of it each."""
    times = jnp.array([1, 1, 2])
    found = [loss(HAZARDS, times, ALL) for loss in COX]
    close(found[0].sum(), math.log(13.5))
    close(found[1].sum(), math.log(18))
    both = math.log(27) / 2
    close(found[0], [both, both - math.log(2), 0])
    close(found[1], [math.log(6), math.log(3), 0])


@cox
def test_nearly_certain(loss):
    """log(1 + e^-20), which is not 20 less 20."""
    losses = loss(jnp.array([20.0, 0.0]), jnp.array([1, 2]), jnp.array([True, True]))
    close(losses, [math.log1p(math.exp(-20)), 0])


@cox
def test_far_apart(loss):
    """Where the exponentials overflow, and where they are 0."""
    times = jnp.arange(3)
    for offset in (90.0, -120.0, 1e4):
        losses = loss(jnp.array([0.0, 1, 2]) + offset, times, ALL)
        close(losses, loss(jnp.array([0.0, 1, 2]), times, ALL))


def test_a_censored_subject_is_at_risk_at_its_time():
    """Beside an event at the same time; and not later."""
    events = jnp.array([True, False, True])
    for loss in COX:
        close(loss(jnp.zeros(3), jnp.array([1, 1, 2]), events), [math.log(3), 0, 0])
        close(loss(jnp.zeros(3), jnp.array([1, 0, 2]), events), [math.log(2), 0, 0])


def test_efron_lies_between_breslow_and_no_ties():
    """The sum of a tie is at least log d!, but one of its losses may be negative."""
    h, times = jnp.array([3.0, 0.0, 0.0]), jnp.ones(3)
    efron, breslow = (loss(h, times, ALL) for loss in COX)
    assert efron[0] < 0 < breslow[0]
    assert math.log(6) <= efron.sum() < breslow.sum()


def test_many_ties():
    """A thousand equal subjects: log(n!) / n each, and log n."""
    n = 1000
    args = jnp.zeros(n), jnp.zeros(n), jnp.ones(n, bool)
    close(jaxloss.cox_ph(*args), np.full(n, math.lgamma(n + 1) / n))
    close(jaxloss.cox_ph_breslow(*args), np.full(n, math.log(n)))


# --- what does not matter ------------------------------------------------------------


@cox
def test_a_permutation_permutes(loss):
    """The order of the subjects is nothing, of tied ones as well."""
    args = study(0)
    order = np.random.default_rng(1).permutation(60)
    close(loss(*(a[order] for a in args)), loss(*args)[order], atol=FLOAT32)


@cox
def test_strata_are_separate_studies(loss):
    h, times, events = study(1)
    ids = jnp.arange(60) % 2 * 7 - 3
    found = loss(h, times, events, strata=ids)
    for stratum in (-3, 4):
        own = np.asarray(ids) == stratum
        alone = loss(h[own], times[own], events[own])
        close(found[own], alone, atol=FLOAT32)


@cox
def test_masked_subjects_do_not_exist(loss):
    """Neither does a NaN of theirs, in value and gradient."""
    h, times, events = study(2)
    times, where = times.astype(jnp.float32), jnp.arange(60) % 3 > 0
    kept = np.asarray(where)
    wrong = lambda x: jnp.where(where, x, jnp.nan)
    fn = lambda h: loss(wrong(h), wrong(times), events, where=where)
    losses, slope = jax.jit(fn)(h), jax.jit(jax.grad(lambda h: fn(h).sum()))(h)
    close(losses[kept], loss(h[kept], times[kept], events[kept]), atol=FLOAT32)
    assert (losses[~kept] == 0).all()
    assert (slope[~kept] == 0).all()
    assert jnp.isfinite(slope).all()


@cox
def test_only_the_order_of_times_counts(loss):
    """Integers that float32 cannot tell apart are different times."""
    times = jnp.array([2**24 + 1, 2**24, 2**24 + 2], jnp.int32)
    close(loss(HAZARDS, times, ALL), loss(HAZARDS, jnp.array([1, 0, 2]), ALL))
    late = jnp.array([1.0, 0.0, jnp.inf])
    close(loss(HAZARDS, late, ALL), loss(HAZARDS, jnp.array([1, 0, 2]), ALL))


@cox
def test_leading_axes_are_studies(loss):
    args = [
        jnp.stack(x).reshape(2, 1, 60) for x in zip(study(3), study(4), strict=True)
    ]
    found = loss(*args)
    assert found.shape == (2, 1, 60)
    for i, seed in enumerate((3, 4)):
        close(found[i, 0], loss(*study(seed)), atol=FLOAT32)


@cox
def test_no_subjects(loss):
    assert loss(jnp.zeros((2, 0)), jnp.zeros((2, 0)), jnp.zeros((2, 0), bool)).size == 0


# --- what is no number ---------------------------------------------------------------


@cox
def test_a_hazard_of_zero(loss):
    """It adds nothing to a risk set; an event that could not be costs infinity."""
    h, times = jnp.array([-jnp.inf, 0.0, 0.0]), jnp.array([2, 1, 3])
    close(loss(h, times, ALL), [jnp.inf, math.log(2), 0])
    gone = jnp.array([False, True, True])
    slope = jax.grad(lambda h: loss(h, times, gone).sum())(h)
    close(slope, [0, -0.5, 0.5], atol=FLOAT32)


@cox
def test_a_time_that_is_no_number(loss):
    """Nobody knows whose risk sets it belongs to; another stratum does not care."""
    times = jnp.array([jnp.nan, 1.0, 1.0, 2.0])
    events, ids = jnp.ones(4, bool), jnp.array([0, 0, 1, 1])
    losses = loss(jnp.zeros(4), times, events, strata=ids)
    np.testing.assert_array_equal(jnp.isnan(losses), [True, True, False, False])


@cox
def test_the_batch_is_not_cut(loss):
    """Subjects of another micro-batch would be missing from the risk sets."""
    mean = lambda h, batch: {"cox": jaxloss.Mean.of(loss(h * batch[0], *batch[1:]))}
    objective = jaxloss.train.objective(mean)
    batch = (jnp.ones(4), jnp.arange(4), jnp.ones(4, bool))
    step = jaxloss.train.value_and_grad(objective, microbatches=2)
    with pytest.raises(ValueError, match="`log_hazards` has the examples of one micro"):
        step(jnp.ones(()), objective.init(), batch)


# --- discrete times ------------------------------------------------------------------


def test_hazards_of_two_periods():
    """Hazards 1/4 and 3/4: an event in the second, and none in either."""
    logits = jnp.log(jnp.array([[1 / 3, 3.0]] * 2))
    losses = jaxloss.discrete_hazard(
        logits, jnp.array([1, 1]), jnp.array([True, False])
    )
    close(losses, [-math.log(9 / 16), -math.log(3 / 16)])


def test_equal_probabilities():
    logits, events = jnp.zeros((2, 4)), jnp.array([True, False])
    losses = jaxloss.discrete_time_nll(logits, jnp.array([1, 1]), events)
    close(losses, [math.log(4), math.log(2)])


def periods(seed=0, n=40, classes=6):
    rng = np.random.default_rng(seed)
    bins, events = rng.integers(0, classes, size=n), rng.random(n) < 0.5
    logits = 3 * rng.normal(size=(n, classes))
    return jnp.asarray(logits), jnp.asarray(bins), jnp.asarray(events)


def test_is_a_sum_of_binary_cross_entropies():
    x, bins, events = periods()
    labels = jax.nn.one_hot(bins, x.shape[-1]) * events[:, None]
    at_risk = jnp.arange(x.shape[-1])[None] <= bins[:, None]
    each = jnp.where(at_risk, jaxloss.sigmoid_cross_entropy(x, labels), 0)
    close(jaxloss.discrete_hazard(x, bins, events), each.sum(axis=-1))


def test_hazards_and_probabilities_agree():
    """An event is that of its period after none before: the same likelihood."""
    x, bins, events = periods()
    survived = -jnp.cumsum(jax.nn.softplus(x), axis=-1)  # up to each period
    before = jnp.pad(survived, ((0, 0), (1, 0)))
    logits = before + jnp.pad(jax.nn.log_sigmoid(x), ((0, 0), (0, 1)))
    by_class = jaxloss.discrete_time_nll(logits, bins, events)
    close(by_class, jaxloss.discrete_hazard(x, bins, events), rtol=8 * FLOAT32)


@pytest.mark.parametrize("name", ["discrete_hazard", "discrete_time_nll"])
def test_a_bin_that_is_none(name):
    """NaN, and harmless where it is masked."""
    loss, x = getattr(jaxloss, name), jnp.zeros((3, 4))
    bins = jnp.array([-1, 4, 1])
    for happened in (True, False):
        events = jnp.full(3, happened)
        np.testing.assert_array_equal(
            jnp.isnan(loss(x, bins, events)), [True, True, False]
        )
        mean = lambda x, e=events: jaxloss.mean(loss(x, bins, e), where=bins == 1)
        assert jnp.isfinite(jax.grad(mean)(x)).all()


def test_the_last_class_is_later_than_all_periods():
    """It is no period: nobody is known to have survived it."""
    assert jnp.isnan(jaxloss.discrete_time_nll(jnp.zeros(4), 3, False))
    close(jaxloss.discrete_time_nll(jnp.zeros(4), 2, False), math.log(4))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_periods_after_the_last_do_not_matter(wrong):
    x = jnp.array([0.0, 1.0, wrong])
    loss = lambda x: jaxloss.discrete_hazard(x, 1, True)
    value, slope = jax.value_and_grad(loss)(x)
    close(value, math.log(2) + math.log1p(math.exp(-1)))
    assert jnp.isfinite(slope).all()
    assert slope[2] == 0


def test_impossible_periods():
    """A class of probability 0 costs infinity if it happens, and nothing if not."""
    x = jnp.array([0.0, -jnp.inf, 0.0])
    assert jaxloss.discrete_time_nll(x, 1, True) == jnp.inf
    close(jaxloss.discrete_time_nll(x, 1, False), math.log(2))
    assert jaxloss.discrete_time_nll(jnp.full(3, -jnp.inf), 1, True) == 0
