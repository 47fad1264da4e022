"""Policy-gradient losses: answers that a policy drew, and how good they turned out."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit
from jaxloss.losses.language import _group


@_jit.kernel(epsilon_low="[0, 1]", epsilon_high="[0, inf)")
def ppo_clip(
    log_probs: ArrayLike,
    old_log_probs: ArrayLike,
    advantages: ArrayLike,
    *,
    epsilon_low: float | jax.Array = 0.2,
    epsilon_high: float | jax.Array = 0.2,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Clipped surrogate of proximal policy optimisation (PPO).

    Also called: PPO, PPO loss, clipped surrogate, proximal policy optimization, DAPO,
    clipped_surrogate_pg_loss.

    .. math::
       \ell = -\min\!\left(\rho A,\;
       \text{clip}(\rho, 1 - \epsilon_l, 1 + \epsilon_h) A\right), \qquad
       \rho = \frac{\pi}{\pi_{\text{old}}}

    Args:
      log_probs: Floating array of any shape; log-probabilities of the tokens or actions
        that were taken.
      old_log_probs: Same shape; under the policy that took them.
      advantages: Array of the same shape, A: how much better than expected it turned
        out.  Broadcast the advantage of an answer to its tokens.
      epsilon_low: The ratio is clipped below at 1 - epsilon_low; in [0, 1].
      epsilon_high: The ratio is clipped above at 1 + epsilon_high; >= 0, 0.28 in DAPO.
      where: Boolean mask of the same shape, default all true; a masked token, such as
        one of the prompt, has loss 0, whatever the arguments are there.

    Returns:
      Per-token losses of the same shape, of either sign; 0 where the advantage is 0,
      even if the ratio overflows.

    Raises:
      TypeError: If the log-probabilities are not floating, `advantages` not real,
        `where` not boolean, or an epsilon not a number.
      ValueError: If the shapes differ, or an epsilon is a Python number outside of its
        range.

    Gradient:
      `-A rho` with respect to `log_probs`, but 0 where `rho > 1 + epsilon_high` and A >
      0, or `rho < 1 - epsilon_low` and A < 0; also 0 at these kinks.  With respect to
      `advantages`, minus the ratio that counts.

    Use:
      task: preference
      activation: log-softmax
      range: (-inf, inf)
      robust: no
      convex: no
      when: A policy is improved on what it has sampled, and the advantages come from a
        critic or a baseline of your own.
      not when: Advantages are rewards compared in a group of answers: use `grpo`.

    Reference:
      Schulman et al., "Proximal Policy Optimization Algorithms", 2017.

    Example:
      >>> ratios, advantages = jnp.array([1.5, 1.5, 0.5]), jnp.array([1.0, -1.0, -1.0])
      >>> jaxloss.ppo_clip(jnp.log(ratios), jnp.zeros(3), advantages)
      Array([-1.2,  1.5,  0.8], dtype=float32)
    """
    name = "ppo_clip"
    given = {"log_probs": log_probs, "old_log_probs": old_log_probs}
    new, old = _checks.floating(name, **given)
    (a,) = _checks.real(name, new, advantages=advantages)
    _checks.same_shape(name, log_probs=new, old_log_probs=old)
    _checks.same_shape(name, log_probs=new, advantages=a)
    low = _checks.parameter(name, new, epsilon_low=epsilon_low)
    high = _checks.parameter(name, new, epsilon_high=epsilon_high)
    if where is not None:
        (where,) = _checks.boolean(name, where=where)
        _checks.same_shape(name, log_probs=new, where=where)
        new, old, a = (jnp.where(where, x, 0) for x in (new, old, a))
    return _group.surrogate(new, old, a, low, high)


@_jit.kernel(epsilon_low="[0, 1]", epsilon_high="[0, inf)")
def grpo(
    log_probs: ArrayLike,
    old_log_probs: ArrayLike,
    rewards: ArrayLike,
    *,
    epsilon_low: float | jax.Array = 0.2,
    epsilon_high: float | jax.Array = 0.2,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Clipped surrogate of PPO with advantages relative to a group (GRPO).

    Also called: GRPO, group relative policy optimization.

    .. math::
       \ell_{it} = -\min\!\left(\rho_{it} A_i,\;
       \text{clip}(\rho_{it}, 1 - \epsilon_l, 1 + \epsilon_h) A_i\right), \qquad
       \rho = \frac{\pi}{\pi_{\text{old}}}, \quad
       A_i = \frac{r_i - \text{mean}(r)}{\text{std}(r)}

    Args:
      log_probs: Floating array `(..., group, tokens)`: log-probabilities of the tokens
        of the answers of a group, which are answers to one prompt.
      old_log_probs: Same shape; under the model that the answers were drawn from.
      rewards: Array `(..., group)`, one number per answer; any number for an answer
        whose tokens are all masked.
      epsilon_low: The ratio is clipped below at 1 - epsilon_low; in [0, 1].
      epsilon_high: The ratio is clipped above at 1 + epsilon_high; >= 0, 0.28 in DAPO.
      where: Boolean mask of the shape of `log_probs`, default all true; a masked token,
        such as one of the prompt, has loss 0.  An answer whose tokens are all masked,
        because it failed or is padding, does not belong to the group: its reward counts
        neither in the mean nor in the standard deviation.

    Returns:
      Per-token losses of the shape of `log_probs`, of either sign; 0 where all rewards
      of a group are equal, or only one answer is left.  Their mean over the tokens of
      an answer and then over answers is GRPO; their mean over all tokens is DAPO.  The
      standard deviation is that of the group (divided by its size, not by one less).

    Raises:
      TypeError: If the log-probabilities are not floating, `rewards` not real, `where`
        not boolean, or an epsilon not a number.
      ValueError: If a shape does not fit, or an epsilon is a Python number outside of
        its range.

    Gradient:
      `-A rho` with respect to `log_probs`, but 0 where `rho > 1 + epsilon_high` and A >
      0, or `rho < 1 - epsilon_low` and A < 0; also 0 at these kinks.

    Use:
      task: preference
      activation: log-softmax
      range: (-inf, inf)
      robust: no
      convex: no
      when: Several answers to each prompt are drawn from the model and scored by a
        reward.
      not when: Advantages come from a critic or another baseline: use `ppo_clip`.

    Reference:
      Shao et al., "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open
      Language Models", 2024; Schulman et al., "Proximal Policy Optimization
      Algorithms", 2017.

    Example:
      >>> old = jnp.full((2, 3), -1.0)
      >>> new = jnp.array([[-1.0, -0.5, -2.0], [-1.0, -0.5, -2.0]])
      >>> jaxloss.grpo(new, old, jnp.array([1.0, 0.0]))
      Array([[-0.99999994, -1.1999999 , -0.36787942],
             [ 0.99999994,  1.6487211 ,  0.79999995]], dtype=float32)
    """
    name = "grpo"
    given = {"log_probs": log_probs, "old_log_probs": old_log_probs}
    new, old = _checks.floating(name, **given)
    _checks.same_shape(name, log_probs=new, old_log_probs=old)
    if new.ndim < 2:
        has, expected = f"shape {new.shape}", "shape (..., group, tokens)"
        _checks.fail(name, "log_probs", has, expected)
    (rewards,) = _checks.real(name, new, rewards=rewards)
    _checks.has_shape(name, new.shape[:-1], "one reward per answer", rewards=rewards)
    low = _checks.parameter(name, new, epsilon_low=epsilon_low)
    high = _checks.parameter(name, new, epsilon_high=epsilon_high)
    given = jnp.ones(new.shape[:-1], bool)
    if where is not None:
        (where,) = _checks.boolean(name, where=where)
        _checks.same_shape(name, log_probs=new, where=where)
        given = jnp.any(where, axis=-1)
    a = jnp.broadcast_to(_group.advantages(rewards, given)[..., None], new.shape)
    return ppo_clip(new, old, a, epsilon_low=low, epsilon_high=high, where=where)


@_jit.kernel()
def kl_estimate(log_probs: ArrayLike, reference_log_probs: ArrayLike) -> jax.Array:
    r"""Estimate of the divergence from a reference, of sampled tokens (k3).

    Also called: k3, KL penalty, KL estimator, per_token_kl.

    .. math:: \ell = e^d - 1 - d, \qquad d = \log \pi_0 - \log \pi

    Of tokens drawn from the policy it is on average KL(pi || pi_0), as is k1 = -d; but
    it is never negative, and varies less.  Near agreement it is k2 = d^2 / 2.

    Args:
      log_probs: Floating array of any shape; log-probabilities of the sampled tokens.
      reference_log_probs: Same shape; under the reference, which is not trained.

    Returns:
      Per-token losses >= 0 of the same shape, in nats; 0 where the two agree, and
      accurate near it.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ.

    Gradient:
      `1 - exp(d)` with respect to `log_probs`, the opposite with respect to the
      reference.  Over tokens drawn from the policy its mean is the gradient of KL(pi_0
      || pi); that of `0.5 * d**2` is the gradient of KL(pi || pi_0).  Convex, smooth.

    Use:
      task: preference
      activation: log-softmax
      range: [0, inf)
      robust: no
      convex: yes
      when: A policy should stay near a reference, as a penalty beside `grpo` or
        `ppo_clip`.
      not when: The logits of all tokens are there: `kl_divergence` has no variance.

    Reference:
      Schulman, "Approximating KL Divergence", 2020; Shao et al., "DeepSeekMath: Pushing
      the Limits of Mathematical Reasoning in Open Language Models", 2024.

    Example:
      >>> jaxloss.kl_estimate(jnp.array([-1.0, -1e-4]), jnp.array([-1.0, 0.0]))
      Array([0.0000000e+00, 5.0001665e-09], dtype=float32)
    """
    name = "kl_estimate"
    own, reference = _checks.floating(
        name, log_probs=log_probs, reference_log_probs=reference_log_probs
    )
    _checks.same_shape(name, log_probs=own, reference_log_probs=reference)
    return _group.excess(reference - own)
