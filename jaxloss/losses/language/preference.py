"""Preference losses: functions of the log-probabilities of whole answers.

The log-probability of an answer is the sum over its tokens, `jnp.sum(token_log_probs,
-1, where=mask)`, or the mean where a docstring says so.  The reference is the model
that training started from; it is not trained.  Most losses are functions of a margin:
how much more probability the preferred answer has gained than the other one.

In large language models the logits of all tokens do not fit into memory.
`jaxloss.kernels.linear_token_log_probs(hidden, kernel, labels)` does not store them;
`docs/examples/preferences.py` trains with it from hidden states.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, margins, stable
from jaxloss.losses.language import _pair


@_jit.kernel(beta="[0, inf)")
def dpo(
    chosen_log_probs: ArrayLike,
    rejected_log_probs: ArrayLike,
    chosen_reference_log_probs: ArrayLike,
    rejected_reference_log_probs: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
) -> jax.Array:
    r"""Direct preference optimisation (DPO) of chosen and rejected answers.

    Also called: DPO, direct preference optimization, DPOLoss.

    .. math::
       \ell = -\log \sigma(\beta \Delta), \qquad
       \Delta = \log\frac{\pi(y_w)}{\pi_0(y_w)} - \log\frac{\pi(y_l)}{\pi_0(y_l)}

    Args:
      chosen_log_probs: Floating array of any shape; log-probabilities of the chosen
        answers, summed over their tokens.
      rejected_log_probs: Same shape; of the rejected ones.
      chosen_reference_log_probs: Same shape; of the chosen ones under the reference.
      rejected_reference_log_probs: Same shape; of the rejected ones under it.
      beta: Inverse temperature >= 0 of the implicit reward.  If labels are wrong with
        probability e, `(1 - e) dpo(w, l) + e dpo(l, w)` is conservative DPO.

    Returns:
      Per-pair losses >= 0 of the same shape, in nats; log 2 if nothing has changed.

    Raises:
      TypeError: If the log-probabilities are not floating, or `beta` not a number.
      ValueError: If the shapes differ, or `beta` is a Python number < 0.

    Gradient:
      With `s = sigmoid(-beta Delta)`: `-beta s` with respect to the chosen and `beta s`
      with respect to the rejected log-probabilities; the opposite for the references.
      Convex, smooth.

    Use:
      task: preference
      activation: log-softmax
      range: [0, inf)
      robust: yes
      convex: yes
      when: You have pairs of answers, one of which is preferred, and a reference model:
        the first choice.
      not when: Preferences are nearly always consistent, so that the model would drift
        from the reference without limit: use `ipo`.

    Reference:
      Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly
      a Reward Model", NeurIPS 2023.

    Example:
      >>> chosen, rejected = jnp.array([-10.0, -12.0]), jnp.array([-11.0, -11.0])
      >>> reference = jnp.full(2, -11.0)
      >>> jaxloss.dpo(chosen, rejected, reference, reference)
      Array([0.64439666, 0.7443967 ], dtype=float32)
    """
    log_probs = _all_four(
        "dpo",
        chosen_log_probs,
        rejected_log_probs,
        chosen_reference_log_probs,
        rejected_reference_log_probs,
    )
    gain = _pair.gain(*log_probs)
    return margins.logistic(_beta("dpo", gain, beta) * gain)


@_jit.kernel(beta="(0, inf)")
def ipo(
    chosen_log_probs: ArrayLike,
    rejected_log_probs: ArrayLike,
    chosen_reference_log_probs: ArrayLike,
    rejected_reference_log_probs: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
) -> jax.Array:
    r"""Identity preference optimisation (IPO): squared error of the gain.

    Also called: IPO, identity preference optimization.

    .. math:: \ell = \left(\Delta - \frac{1}{2\beta}\right)^2

    Delta is the gain in `dpo`.  Here it has a target, so it cannot grow without limit.

    Args:
      chosen_log_probs: Floating array of any shape; log-probabilities of the chosen
        answers, summed over their tokens (some libraries take the mean).
      rejected_log_probs: Same shape; of the rejected ones.
      chosen_reference_log_probs: Same shape; of the chosen ones under the reference.
      rejected_reference_log_probs: Same shape; of the rejected ones under it.
      beta: Strength > 0 of the regularisation, the tau of the paper.

    Returns:
      Per-pair losses >= 0 of the same shape, in nats squared.

    Raises:
      TypeError: If the log-probabilities are not floating, or `beta` not a number.
      ValueError: If the shapes differ, or `beta` is a Python number <= 0.

    Gradient:
      `2 (Delta - 1 / (2 beta))` with respect to the chosen log-probabilities, minus
      that with respect to the rejected ones; the opposite for the references.  Convex,
      smooth.

    Use:
      task: preference
      activation: log-softmax
      range: [0, inf)
      robust: no
      convex: yes
      when: You have pairs and a reference model, and the distance from it should not
        grow without limit.
      not when: Some pairs are labelled the wrong way round, with large gains: use
        `dpo`.

    Reference:
      Azar et al., "A General Theoretical Paradigm to Understand Learning from Human
      Preferences", AISTATS 2024.

    Example:
      >>> chosen, rejected = jnp.array([-10.0, -6.0]), jnp.array([-11.0, -11.0])
      >>> reference = jnp.full(2, -11.0)
      >>> jaxloss.ipo(chosen, rejected, reference, reference)
      Array([16.,  0.], dtype=float32)
    """
    log_probs = _all_four(
        "ipo",
        chosen_log_probs,
        rejected_log_probs,
        chosen_reference_log_probs,
        rejected_reference_log_probs,
    )
    return _pair.squared_miss(*log_probs, _beta("ipo", log_probs[0], beta))


@_jit.kernel(gamma="(-inf, inf)", beta="[0, inf)")
def simpo(
    chosen_log_probs: ArrayLike,
    rejected_log_probs: ArrayLike,
    *,
    beta: float | jax.Array,
    gamma: float | jax.Array,
) -> jax.Array:
    r"""Simple preference optimisation (SimPO): a margin, no reference model.

    Also called: SimPO, simple preference optimization.

    .. math:: \ell = -\log \sigma\!\left(\beta (p_w - p_l) - \gamma\right)

    Args:
      chosen_log_probs: Floating array of any shape; the *mean* log-probability p of the
        tokens of the chosen answers.
      rejected_log_probs: Same shape; of the rejected ones.
      beta: Inverse temperature >= 0; 2 to 10 in the paper.
      gamma: Required margin of `beta (p_w - p_l)`; 0.3 to 1.6 in the paper.

    Returns:
      Per-pair losses >= 0 of the same shape, in nats.

    Raises:
      TypeError: If the log-probabilities are not floating, or `beta` or `gamma` not a
        number.
      ValueError: If the shapes differ, or `beta` is a Python number < 0.

    Gradient:
      With `s = sigmoid(gamma - beta (p_w - p_l))`: `-beta s` with respect to the chosen
      and `beta s` with respect to the rejected log-probabilities.  Convex, smooth.

    Use:
      task: preference
      activation: log-softmax
      range: [0, inf)
      robust: yes
      convex: yes
      when: You have pairs, but no memory or time for a reference model; lengths of
        answers may differ.
      not when: The model must stay near the one that it started from: use `dpo`.

    Reference:
      Meng et al., "SimPO: Simple Preference Optimization with a Reference-Free Reward",
      NeurIPS 2024.

    Example:
      >>> chosen, rejected = jnp.array([-0.5, -1.0]), jnp.array([-1.0, -0.5])
      >>> jaxloss.simpo(chosen, rejected, beta=2.0, gamma=1.0)
      Array([0.6931472, 2.126928 ], dtype=float32)
    """
    name = "simpo"
    better, worse = _checks.floating(
        name, chosen_log_probs=chosen_log_probs, rejected_log_probs=rejected_log_probs
    )
    _checks.same_shape(name, chosen_log_probs=better, rejected_log_probs=worse)
    gamma = _checks.parameter(name, better, gamma=gamma)
    return _pair.simple(better, worse, _beta(name, better, beta), gamma)


@_jit.kernel(baseline="(-inf, inf)", beta="[0, inf)")
def kto(
    log_probs: ArrayLike,
    reference_log_probs: ArrayLike,
    desirable: ArrayLike,
    *,
    baseline: float | jax.Array,
    beta: float | jax.Array = 0.1,
) -> jax.Array:
    r"""Kahneman-Tversky optimisation (KTO) of single good or bad answers.

    Also called: KTO, Kahneman-Tversky optimization.

    .. math::
       \ell = \sigma(\mp\beta (h - z)), \qquad h = \log\frac{\pi(y)}{\pi_0(y)}

    The sign is minus for desirable answers and plus for others.

    Args:
      log_probs: Floating array of any shape; log-probabilities of the answers, summed
        over their tokens.
      reference_log_probs: Same shape; under the reference.
      desirable: Boolean array of the same shape; whether an answer is good.
      baseline: The neutral gain z, one for all or one per answer.  In the paper it is
        the divergence from the reference, estimated by
        `max(0, mean(log_probs - reference_log_probs))` over mismatched answers, and a
        constant: pass it through `jax.lax.stop_gradient`.
      beta: Inverse temperature >= 0.

    Returns:
      Per-answer losses in [0, 1] of the same shape; 1/2 at the baseline.  The lambdas
      of the paper are weights of the mean.

    Raises:
      TypeError: If the log-probabilities are not floating, `desirable` is not boolean,
        or `baseline` or `beta` not a number.
      ValueError: If the shapes differ, or `beta` is a Python number < 0.

    Gradient:
      With l the loss, `-beta l (1 - l)` with respect to `log_probs` of a desirable
      answer, and `beta l (1 - l)` with respect to those of another one.  Neither convex
      nor concave; it vanishes for large gains of either sign.

    Use:
      task: preference
      activation: log-softmax
      range: [0, 1]
      robust: yes
      convex: no
      when: Single answers are labelled good or bad, and there are no pairs.
      not when: You have pairs: use `dpo`.

    Reference:
      Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization",
      ICML 2024.

    Example:
      >>> gained = jnp.array([10.0, 10.0, 0.0])
      >>> good = jnp.array([True, False, True])
      >>> jaxloss.kto(gained, jnp.zeros(3), good, baseline=0.0)
      Array([0.26894143, 0.7310586 , 0.5       ], dtype=float32)
    """
    name = "kto"
    given = {"log_probs": log_probs, "reference_log_probs": reference_log_probs}
    own, reference = _checks.floating(name, **given)
    (good,) = _checks.boolean(name, desirable=desirable)
    _checks.same_shape(name, log_probs=own, reference_log_probs=reference)
    _checks.same_shape(name, log_probs=own, desirable=good)
    baseline = _checks.parameter(name, own, baseline=baseline)
    gain = (own - reference) - baseline
    return stable.sigmoid(_beta(name, own, beta) * jnp.where(good, -gain, gain))


@_jit.kernel(beta="[0, inf)")
def orpo(
    chosen_log_probs: ArrayLike,
    rejected_log_probs: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
) -> jax.Array:
    r"""Odds-ratio preference optimisation (ORPO): likelihood and odds ratio.

    Also called: ORPO, odds ratio preference optimization.

    .. math::
       \ell = -p_w - \beta \log \sigma\!\left(
       \log\frac{e^{p_w}}{1 - e^{p_w}} - \log\frac{e^{p_l}}{1 - e^{p_l}}\right)

    Args:
      chosen_log_probs: Floating array of any shape; the *mean* log-probability p < 0 of
        the tokens of the chosen answers.
      rejected_log_probs: Same shape; of the rejected ones.
      beta: Weight >= 0 of the odds ratio, the lambda of the paper.

    Returns:
      Per-pair losses >= 0 of the same shape, in nats.

    Raises:
      TypeError: If the log-probabilities are not floating, or `beta` not a number.
      ValueError: If the shapes differ, or `beta` is a Python number < 0.

    Gradient:
      With o the log of the odds ratio: `-1 - beta sigmoid(-o) / (1 - exp(p_w))` with
      respect to the chosen and `beta sigmoid(-o) / (1 - exp(p_l))` with respect to the
      rejected log-probabilities.  Convex in neither; smooth.

    Use:
      task: preference
      activation: log-softmax
      range: [0, inf)
      robust: no
      convex: no
      when: Imitation and preference should be learnt in one stage, without a reference
        model.
      not when: The model has been fine-tuned already: use `simpo` or `dpo`.

    Reference:
      Hong et al., "ORPO: Monolithic Preference Optimization without Reference Model",
      EMNLP 2024.

    Example:
      >>> chosen, rejected = jnp.array([-0.5, -1.0]), jnp.array([-1.0, -0.5])
      >>> jaxloss.orpo(chosen, rejected)
      Array([0.53203  , 1.1294377], dtype=float32)
    """
    name = "orpo"
    better, worse = _checks.floating(
        name, chosen_log_probs=chosen_log_probs, rejected_log_probs=rejected_log_probs
    )
    _checks.same_shape(name, chosen_log_probs=better, rejected_log_probs=worse)
    return _pair.with_odds(better, worse, _beta(name, better, beta))


# --- checks --------------------------------------------------------------------------


def _all_four(
    loss: str,
    chosen: ArrayLike,
    rejected: ArrayLike,
    chosen_reference: ArrayLike,
    rejected_reference: ArrayLike,
) -> tuple[jax.Array, ...]:
    """The log-probabilities of a pair and those of the reference, checked."""
    given = {
        "chosen_log_probs": chosen,
        "rejected_log_probs": rejected,
        "chosen_reference_log_probs": chosen_reference,
        "rejected_reference_log_probs": rejected_reference,
    }
    arrays = _checks.floating(loss, **given)
    _checks.same_shape(loss, **dict(zip(given, arrays, strict=True)))
    return tuple(arrays)


def _beta(loss: str, like: jax.Array, beta: float | jax.Array) -> jax.Array:
    return _checks.parameter(loss, like, beta=beta)
