"""Policy-gradient losses: answers that a policy drew, and how good they turned out."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit
from jaxloss.losses.language import _group


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

    Also called: GRPO, PPO, clipped surrogate, DAPO, group relative policy optimization.

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
      not when: There are only fixed pairs of answers: use `dpo`.

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
    if where is not None:
        (where,) = _checks.boolean(name, where=where)
        _checks.same_shape(name, log_probs=new, where=where)
        new, old = jnp.where(where, new, 0), jnp.where(where, old, 0)
    else:
        where = jnp.ones(new.shape, bool)
    advantages = _group.advantages(rewards, jnp.any(where, axis=-1))
    return jnp.where(where, _group.surrogate(new - old, advantages, low, high), 0)
