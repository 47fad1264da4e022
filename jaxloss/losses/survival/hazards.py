"""Losses of hazards: Cox's partial likelihood, and likelihoods of discrete times."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, _whole_batch, stable
from jaxloss.losses import _risk_sets
from jaxloss.losses._risk_sets import RiskSets
from jaxloss.stable import xla

# --- continuous times ----------------------------------------------------------------


@_whole_batch.require("log_hazards", _whole_batch.BY_JIT)
@_jit.kernel(ids="strata")
def cox_ph(
    log_hazards: ArrayLike,
    times: ArrayLike,
    events: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cox's negative log partial likelihood, ties by Efron, per subject.

    Also called: Cox loss, CoxPHLoss, neg_partial_log_likelihood, DeepSurv loss, partial
    likelihood, proportional hazards.

    .. math::
       \ell_i = \frac{1}{d} \sum_{k=0}^{d-1} \log \Big(\sum_{j \in R_i} e^{h_j} -
       \frac{k}{d} \sum_{j \in D_i} e^{h_j}\Big) - h_i

    of a subject with an event.  Its risk set R has the subjects of its stratum whose
    time is not before its own; D are the d of them that have an event at that time.

    Args:
      log_hazards: Floating array `(..., n)` of the n subjects of a study, log hazards
        relative to a baseline that is not modelled; -inf for a hazard of 0.
      times: Array `(..., n)`, boolean, integer or floating: when the event happened, or
        until when the subject was observed, in any unit; inf is allowed.  Only their
        order counts.
      events: Boolean array `(..., n)`, false for a censored subject, which is at risk
        up to its time and at it.
      strata: Integer ids `(..., n)`, default one stratum.  Subjects compete within
        their stratum only.
      where: Boolean mask `(..., n)`, default all true.  A masked subject does not
        exist, whatever its other arguments are.

    Returns:
      Per-subject losses `(..., n)`, in nats; 0 for a subject that is censored, masked,
      or alone in its risk set; inf for an event of hazard 0 that others could have had;
      NaN if a log hazard of the risk set or a time of the stratum is NaN.  An event
      alone at its time has a loss >= 0; one of d events has a loss > -1, and all d of
      them a sum >= `log d!`.  `jaxloss.mean(losses, where=events)` is the loss per
      event.

    Raises:
      TypeError: If `log_hazards` is not floating, `times` not real, `events` or `where`
        not boolean, or `strata` not integer.
      ValueError: If the shapes differ or have no axis; or if `train.value_and_grad` has
        split the batch, because this loss compares its subjects.

    Gradient:
      For the sum of the losses, minus 1 for an event, plus `w exp(h) / D` for each
      denominator D that the subject is in, where w is 1, or `1 - k / d` in the k-th one
      of its own ties.  It sums to 0.  Convex, smooth.

    Use:
      task: survival
      activation: none (logarithms)
      range: (-1, inf]
      robust: yes
      convex: yes
      when: Only the order of the times matters, and some subjects are censored.
      not when: A probability of surviving each period is needed, too:
        `discrete_hazard`.

    Reference:
      Cox, "Regression Models and Life-Tables", J. R. Stat. Soc. B 34 (1972); Efron,
      "The Efficiency of Cox's Likelihood Function for Censored Data", JASA 72 (1977).

    Example:
      >>> log_hazards = jnp.log(jnp.array([1.0, 2.0, 3.0]))
      >>> times, events = jnp.array([1, 1, 2]), jnp.array([True, True, False])
      >>> jaxloss.cox_ph(log_hazards, times, events)
      Array([1.6479185, 0.9547713, 0.       ], dtype=float32)
    """
    return _of_events(_efron, "cox_ph", log_hazards, times, events, strata, where)


@_whole_batch.require("log_hazards", _whole_batch.BY_JIT)
@_jit.kernel(ids="strata")
def cox_ph_breslow(
    log_hazards: ArrayLike,
    times: ArrayLike,
    events: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cox's negative log partial likelihood, ties by Breslow, per subject.

    Also called: Breslow loss, CoxPHSurvivalAnalysis, Cox loss with ties by Breslow.

    .. math:: \ell_i = \log \sum_{j \in R_i} e^{h_j} - h_i

    of a subject with an event.  Its risk set R has the subjects of its stratum whose
    time is not before its own, with all that have an event at the same time.

    Args:
      log_hazards: Floating array `(..., n)` of the n subjects of a study, log hazards
        relative to a baseline that is not modelled; -inf for a hazard of 0.
      times: Array `(..., n)`, boolean, integer or floating: when the event happened, or
        until when the subject was observed, in any unit; inf is allowed.  Only their
        order counts.
      events: Boolean array `(..., n)`, false for a censored subject, which is at risk
        up to its time and at it.
      strata: Integer ids `(..., n)`, default one stratum.  Subjects compete within
        their stratum only.
      where: Boolean mask `(..., n)`, default all true.  A masked subject does not
        exist, whatever its other arguments are.

    Returns:
      Per-subject losses >= 0 `(..., n)`, in nats; 0 for a subject that is censored,
      masked, or alone in its risk set; inf for an event of hazard 0 that others could
      have had; NaN if a log hazard of the risk set or a time of the stratum is NaN.
      `jaxloss.mean(losses, where=events)` is the loss per event.  Accurate for
      confident predictions: log hazards [20, 0] at times [1, 2] lose 2.06e-9, not 0.

    Raises:
      TypeError: If `log_hazards` is not floating, `times` not real, `events` or `where`
        not boolean, or `strata` not integer.
      ValueError: If the shapes differ or have no axis; or if `train.value_and_grad` has
        split the batch, because this loss compares its subjects.

    Gradient:
      For the sum of the losses, minus 1 for an event, plus the share `exp(h) / sum
      exp(h)` of each risk set that the subject is in.  It sums to 0.  Convex, smooth.

    Use:
      task: survival
      activation: none (logarithms)
      range: [0, inf]
      robust: yes
      convex: yes
      when: Ties are rare, or results of scikit-survival are to be reproduced.
      not when: Many events share a time, which pulls all effects towards 0: `cox_ph`.

    Reference:
      Breslow, "Covariance Analysis of Censored Survival Data", Biometrics 30 (1974).

    Example:
      >>> log_hazards = jnp.log(jnp.array([1.0, 2.0, 3.0]))
      >>> times, events = jnp.array([1, 1, 2]), jnp.array([True, True, False])
      >>> jaxloss.cox_ph_breslow(log_hazards, times, events)
      Array([1.7917595, 1.0986123, 0.       ], dtype=float32)
    """
    name = "cox_ph_breslow"
    return _of_events(_breslow, name, log_hazards, times, events, strata, where)


def _of_events(
    losses: Callable[[jax.Array, RiskSets], jax.Array],
    name: str,
    log_hazards: ArrayLike,
    times: ArrayLike,
    events: ArrayLike,
    strata: ArrayLike | None,
    where: ArrayLike | None,
) -> jax.Array:
    """The losses of the subjects with an event; 0 of the others."""
    (h,) = _checks.floating(name, log_hazards=log_hazards)
    _checks.at_least_1d(name, log_hazards=h)
    times = _risk_sets.keys(name, times=times)
    (events,) = _checks.boolean(name, events=events)
    given = {"log_hazards": h, "times": times, "events": events}
    if strata is not None:
        given["strata"] = _checks.class_ids(name, strata=strata)
    if where is not None:
        (given["where"],) = _checks.boolean(name, where=where)
    _checks.same_shape(name, **given)
    if where is not None:
        valid = given["where"]
        h, events = jnp.where(valid, h, -jnp.inf), events & valid
        times = jnp.where(valid, times, jnp.zeros_like(times))
    sets = _risk_sets.by_key(times, ~events, given.get("strata"))
    h = _risk_sets.in_order(_risk_sets.nan_where_nan(h, times), sets.places)
    return jnp.where(events, _risk_sets.as_given(losses(h, sets), sets.places), 0)


def _breslow(h: jax.Array, sets: RiskSets) -> jax.Array:
    return _risk_sets.first_of_set(h, sets)


def _efron(h: jax.Array, sets: RiskSets) -> jax.Array:
    """In terms of T, the sum of the hazards of the ties, and A, that of those behind.

    The mean over k of `log(A + (1 - k/d) T) - h` is `log T - h`, plus the means of
    `log(1 - k/d)` and of a softplus of `log A - log T - log(1 - k/d)`: nothing large is
    subtracted, so all digits are kept.
    """
    own = _risk_sets.log(h)
    ties, later = _risk_sets.ties_and_later(h, sets)
    within = stable.softplus(_risk_sets.minus(ties, own))
    gap = _risk_sets.minus(later, _risk_sets.add(ties, own))
    rank, count = _risk_sets.rank_and_count(h, sets)
    part = _log_remaining(rank, count)
    behind, rest, total = _risk_sets.totals(
        sets,
        stable.sigmoid(gap - part),
        stable.sigmoid(part - gap),
        stable.softplus(gap - part) + part,
    )
    later = _risk_sets.minus(later, own)
    return _mean_denominator(
        later, within, behind / count, rest / count, within + total / count
    )


def _log_remaining(k: jax.Array, d: jax.Array) -> jax.Array:
    """`log(1 - k / d)`."""
    early = 2 * k < d
    near = stable.log1p(-jnp.where(early, k, 0) / d)
    return jnp.where(early, near, jnp.log((d - k) / d))


# Autodiff of the value would subtract the share of those behind from that of the ties.
@stable.slopes(
    lambda later, within, share, rest, value: share,
    lambda later, within, share, rest, value: rest,
    None,
    None,
    None,
)
def _mean_denominator(
    later: jax.Array,
    within: jax.Array,
    share: jax.Array,
    rest: jax.Array,
    value: jax.Array,
) -> jax.Array:
    """`value`, the mean log denominator less h, whose slopes are shares of it.

    They are the share of those behind all ties, of slope `later`, and the rest of it.
    """
    return value


# --- discrete times ------------------------------------------------------------------


@_jit.kernel(ids="bins")
def discrete_hazard(logits: ArrayLike, bins: ArrayLike, events: ArrayLike) -> jax.Array:
    r"""Negative log-likelihood of discrete times, by a hazard of each period.

    Also called: logistic hazard, nnet-survival, nll_logistic_hazard, LogisticHazard,
    discrete-time survival loss, person-period logistic regression.

    .. math::
       \ell = -\sum_{j < b} \log \sigma(-x_j) - \log \sigma(\pm x_b)

    with the plus for an event in period b, and the minus for a subject that survived it
    and was censored.  Logit j is the log-odds of an event in period j for those who
    reach it: the loss is the sum of the binary cross entropies of the periods up to b.

    Args:
      logits: Floating array `(..., K)`, one for each period, in their order.
      bins: Integer array `(...)` of periods in [0, K): of the event, or the last one
        that the subject is known to have survived.
      events: Boolean array `(...)`, false for a censored subject.

    Returns:
      One loss >= 0 per subject, in nats; NaN if its bin is not one of the K periods.
      The probability of surviving period j is the product of `sigmoid(-logits)` up to
      it.

    Raises:
      TypeError: If `logits` is not floating, `bins` not integer or `events` not
        boolean.
      ValueError: If the shapes do not match or there is no period.

    Gradient:
      `sigmoid(x_j) - 1[event and j = b]` with respect to the logits up to b, 0 with
      respect to the others; NaN where the loss is.  Convex, smooth.

    Use:
      task: survival
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Time has periods, or is cut into them, and hazards need not be proportional.
      not when: Only the order of the risks matters, and time is continuous: `cox_ph`.

    Reference:
      Gensheimer and Narasimhan, "A Scalable Discrete-Time Survival Model for Neural
      Networks", PeerJ 7 (2019); Brown, "On the Use of Indicator Variables for Studying
      the Time-Dependence of Parameters in a Response-Time Model", Biometrics 31 (1975).

    Example:
      >>> logits = jnp.log(jnp.array([[1 / 3, 3.0], [1 / 3, 3.0]]))
      >>> jaxloss.discrete_hazard(logits, jnp.array([1, 1]), jnp.array([True, False]))
      Array([0.5753641, 1.6739764], dtype=float32)
    """
    x, bins, events = _periods("discrete_hazard", logits, bins, events, 1)
    periods = lax.broadcasted_iota(bins.dtype, x.shape, x.ndim - 1)
    last = periods == bins[..., None]
    # After the last period there is nothing to lose, whatever was predicted.
    signed = jnp.where(last & events[..., None], -x, x)
    missed = jnp.where(periods <= bins[..., None], signed, -jnp.inf)
    losses = jnp.sum(_softplus(missed), axis=-1)
    return _classes.nan_unless((bins >= 0) & (bins < x.shape[-1]), losses)


@_jit.kernel(ids="bins")
def discrete_time_nll(
    logits: ArrayLike, bins: ArrayLike, events: ArrayLike
) -> jax.Array:
    r"""Negative log-likelihood of discrete times, by a distribution over them.

    Also called: PMF loss, nll_pmf, DeepHit likelihood, N-MTLR likelihood, censored
    cross entropy.

    .. math::
       \ell = -\log p_b \;\text{(event)}, \qquad
       \ell = -\log \sum_{j > b} p_j \;\text{(censored)}, \qquad
       p = \text{softmax}(\text{logits})

    Class j < K is an event in period j, and the last class an event after all of them.

    Args:
      logits: Floating array `(..., K + 1)`, one for each period, in their order, and
        one for later than all; a class of logit -inf has probability 0.
      bins: Integer array `(...)` of periods in [0, K): of the event, or the last one
        that the subject is known to have survived.
      events: Boolean array `(...)`, false for a censored subject.

    Returns:
      One loss >= 0 per subject, in nats; NaN if its bin is not one of the K periods;
      inf if what happened has probability 0; 0 if every class is excluded.  Accurate
      for confident predictions: it is never a difference from 1.

    Raises:
      TypeError: If `logits` is not floating, `bins` not integer or `events` not
        boolean.
      ValueError: If the shapes do not match or there are fewer than two classes.

    Gradient:
      `p - q` with respect to the logits, where q is p restricted to the classes that
      may have happened, and normalised: it sums to 0; NaN where the loss is.  Smooth;
      convex for events only.

    Use:
      task: survival
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: no
      when: A whole distribution of the time is predicted, as DeepHit and MTLR do.
      not when: Each period should have a hazard of its own, which is convex:
        `discrete_hazard`.

    Reference:
      Lee et al., "DeepHit: A Deep Learning Approach to Survival Analysis with Competing
      Risks", AAAI 2018; Kvamme and Borgan, "Continuous and Discrete-Time Survival
      Prediction with Neural Networks", Lifetime Data Analysis 27 (2021).

    Example:
      >>> logits = jnp.zeros((2, 4))
      >>> jaxloss.discrete_time_nll(logits, jnp.array([1, 1]), jnp.array([True, False]))
      Array([1.3862944, 0.6931472], dtype=float32)
    """
    x, bins, events = _periods("discrete_time_nll", logits, bins, events, 2)
    periods = lax.broadcasted_iota(bins.dtype, x.shape, x.ndim - 1)
    known, at = (bins >= 0) & (bins < x.shape[-1] - 1), bins[..., None]
    possible = jnp.where(events[..., None], periods == at, periods > at)
    ruled_out = stable.logsumexp(x, where=~possible)
    left = stable.logsumexp(x, where=possible | ~known[..., None])
    nothing = ruled_out == -jnp.inf
    gap = jnp.where(nothing, 0, ruled_out) - jnp.where(nothing, 0, left)
    losses = stable.softplus(jnp.where(nothing, -jnp.inf, gap))
    return _classes.nan_unless(known, losses)


_softplus = xla.rematerialised_unless_cpu(stable.softplus)


def _periods(
    name: str, logits: ArrayLike, bins: ArrayLike, events: ArrayLike, least: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checks and converts the arguments of a loss of periods."""
    (x,) = _checks.floating(name, logits=logits)
    _checks.at_least_1d(name, logits=x)
    if x.shape[-1] < least:
        _checks.fail(name, "logits", f"shape {x.shape}", f"at least {least} in a row")
    bins = _checks.class_ids(name, bins=bins)
    (events,) = _checks.boolean(name, events=events)
    _checks.has_shape(name, x.shape[:-1], "one per subject", bins=bins, events=events)
    return x, bins, events
