"""Policy-gradient losses: what they are for the answers of a group."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import reduce
from jaxloss.testing import tolerance

FLOAT64 = tolerance(np.float64)

# --- tokens --------------------------------------------------------------------------


def test_ppo_clip_by_hand():
    """A ratio of 1.5: clipped at 1.2 if it should grow, and not if it should fall."""
    change, a = jnp.full(2, np.log(1.5)), jnp.array([1.0, -1.0])
    run = jax.value_and_grad(lambda new: jnp.sum(jaxloss.ppo_clip(new, 0 * new, a)))
    losses = jaxloss.ppo_clip(change, jnp.zeros(2), a)
    np.testing.assert_allclose(losses, [-1.2, 1.5], rtol=4 * FLOAT64)
    np.testing.assert_allclose(run(change)[1], [0, 1.5], rtol=4 * FLOAT64)


def test_no_advantage_costs_nothing():
    """Even of a ratio that overflows: loss and gradient are 0."""
    run = jax.value_and_grad(jaxloss.ppo_clip)
    value, slope = run(jnp.array(1e4), jnp.array(-1e4), jnp.array(0.0))
    assert value == 0
    assert slope == 0


def test_masked_tokens_may_hold_anything():
    """A NaN or an infinity in any argument: the loss and all gradients are 0 there."""
    where = jnp.array([True, False, False])
    new, old, a = (jnp.array([x, jnp.nan, jnp.inf]) for x in (-1.0, -1.1, 2.0))
    total = lambda *args: jnp.sum(jaxloss.ppo_clip(*args, where=where))
    value, slopes = jax.value_and_grad(total, (0, 1, 2))(new, old, a)
    np.testing.assert_allclose(value, -2 * np.exp(0.1), rtol=8 * FLOAT64)
    for slope in slopes:
        np.testing.assert_array_equal(slope[1:], 0)


def test_kl_estimate_by_hand():
    """d = log 2: 1 - log 2; and d = 1e-4, where a difference loses all but 3 digits."""
    d = jnp.array([np.log(2), 1e-4])
    losses = jaxloss.kl_estimate(-d, jnp.zeros(2))
    small = sum(1e-4**n / math.factorial(n) for n in range(2, 8))
    want = [1 - np.log(2), small]
    np.testing.assert_allclose(losses, want, rtol=8 * FLOAT64)
    np.testing.assert_allclose(losses, [0.3068528194, 5.000166671e-9], rtol=1e-9)


def policies(seed=0):
    """Logits of a policy and of its reference, over five tokens."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=5)) for _ in range(2))


def test_kl_estimate_has_no_bias():
    """Its mean over the tokens of the policy is the divergence from the reference."""
    own, reference = map(jax.nn.log_softmax, policies())
    mean = jnp.sum(jnp.exp(own) * jaxloss.kl_estimate(own, reference))
    want = jnp.sum(jnp.exp(own) * (own - reference))
    np.testing.assert_allclose(mean, want, rtol=16 * FLOAT64)


def test_the_gradient_of_an_estimate_is_that_of_another_divergence():
    """Over the tokens of the policy, held fixed: k3 follows KL(reference || policy),
    and half of the squared log-ratio KL(policy || reference)."""
    logits, other = policies()
    reference = jax.nn.log_softmax(other)
    drawn = jax.nn.softmax(logits)
    k3 = lambda own: jaxloss.kl_estimate(own, reference)
    k2 = lambda own: 0.5 * jnp.square(own - reference)
    backward = lambda own: jnp.sum(jnp.exp(reference) * (reference - own))
    forward = lambda own: jnp.sum(jnp.exp(own) * (own - reference))
    for estimate, divergence in ((k3, backward), (k2, forward)):
        mean = lambda x, f=estimate: jnp.sum(drawn * f(jax.nn.log_softmax(x)))
        true = lambda x, f=divergence: f(jax.nn.log_softmax(x))
        slopes = jax.grad(mean)(logits), jax.grad(true)(logits)
        np.testing.assert_allclose(*slopes, atol=16 * FLOAT64)


# --- groups --------------------------------------------------------------------------


def group(seed=0):
    rng = np.random.default_rng(seed)
    old = -np.abs(rng.normal(size=(2, 4, 3)))
    return jnp.asarray(old), jnp.asarray(rng.normal(size=(2, 4)))


def test_grpo_on_policy_is_the_policy_gradient():
    """At the model that drew the answers the slope is minus the advantage."""
    old, rewards = group()
    losses = lambda new: jaxloss.grpo(new, old, rewards)
    value, slope = jax.value_and_grad(lambda new: jnp.sum(losses(new)))(old)
    r = np.asarray(rewards)
    advantages = (r - r.mean(1, keepdims=True)) / r.std(1, keepdims=True)
    np.testing.assert_allclose(slope, -np.repeat(advantages[..., None], 3, -1))
    np.testing.assert_allclose(value, 0, atol=64 * FLOAT64)


def test_grpo_is_ppo_with_advantages_of_the_group():
    """Of rewards less their mean, divided by their deviation; value and gradient."""
    old, rewards = group()
    new = old + jnp.asarray(np.random.default_rng(1).normal(size=old.shape))
    where = jnp.asarray(np.random.default_rng(2).random(old.shape) < 0.9)
    where = where.at[..., 0].set(True)
    a = (rewards - rewards.mean(1, keepdims=True)) / rewards.std(1, keepdims=True)
    a = jnp.broadcast_to(a[..., None], old.shape)
    ours = lambda new: jnp.sum(jaxloss.ppo_clip(new, old, a, where=where))
    theirs = lambda new: jnp.sum(jaxloss.grpo(new, old, rewards, where=where))
    for x, y in zip(*(jax.value_and_grad(f)(new) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(x, y, rtol=64 * FLOAT64, atol=64 * FLOAT64)


def test_grpo_clips_as_ppo():
    """The pessimistic of the two surrogates, whatever the ratio and the advantage."""
    old, rewards = group()
    new = old + jnp.asarray(np.random.default_rng(1).normal(size=old.shape))
    losses = jaxloss.grpo(new, old, rewards, epsilon_low=0.2, epsilon_high=0.3)
    r = np.asarray(rewards)
    a = ((r - r.mean(1, keepdims=True)) / r.std(1, keepdims=True))[..., None]
    ratio = np.exp(np.asarray(new - old))
    want = -np.minimum(ratio * a, np.clip(ratio, 0.8, 1.3) * a)
    np.testing.assert_allclose(losses, want, rtol=64 * FLOAT64)


def test_rewards_without_a_difference_teach_nothing():
    """All equal, though 0.1 has no exact mean: loss and gradient are 0, though a ratio
    overflows; so are those of masked tokens, though they be NaN."""
    old = jnp.zeros((3, 2), np.float32)
    new = old.at[0, 0].set(200.0).at[1, 1].set(jnp.nan)
    where = ~jnp.isnan(new)
    total = lambda new: jnp.sum(jaxloss.grpo(new, old, jnp.full(3, 0.1), where=where))
    value, slope = jax.value_and_grad(total)(new)
    np.testing.assert_array_equal(slope, np.zeros((3, 2)))
    assert value == 0


@pytest.mark.parametrize("reward", [100.0, np.nan, -np.inf])
def test_an_answer_without_a_token_is_not_of_the_group(reward):
    """Of rewards 1 and 0 the advantages are 1 and -1, whatever a masked third one has
    been given; value, gradient, and gradient in the rewards."""
    old = jnp.full((3, 2), -1.0)
    where = jnp.array([[True, False], [True, True], [False, False]])
    rewards = jnp.array([1.0, 0.0, reward])
    losses = lambda new, rewards: jaxloss.grpo(new, old, rewards, where=where)
    want = np.array([[-1, 0], [1, 1], [0, 0]])
    np.testing.assert_allclose(losses(old, rewards), want, rtol=FLOAT64)
    total = lambda *args: jnp.sum(losses(*args))
    by_token, by_reward = jax.grad(total, (0, 1))(old, rewards)
    np.testing.assert_allclose(by_token, want, rtol=FLOAT64)
    # Two rewards always have the advantages 1 and -1.
    np.testing.assert_allclose(by_reward, np.zeros(3), atol=8 * FLOAT64)


@pytest.mark.parametrize("left", [[0, 2, 3], [3, 1], [2]])
def test_a_mask_of_answers_is_a_smaller_group(left):
    """What is left has the losses it would have by itself; in both groups."""
    old, rewards = group()
    new = old + jnp.asarray(np.random.default_rng(3).normal(size=old.shape))
    where = jnp.zeros((2, 4, 3), bool).at[:, np.array(left, int)].set(True)
    losses = jaxloss.grpo(new, old, rewards, where=where)
    at = np.array(sorted(left), int)
    alone = jaxloss.grpo(new[:, at], old[:, at], rewards[:, at])
    np.testing.assert_allclose(losses[:, at], alone, rtol=64 * FLOAT64)
    np.testing.assert_array_equal(losses[~where], 0)


@pytest.mark.parametrize("masked", [False, True])
def test_a_group_of_any_size_can_be_exported(masked):
    """Batch, group and tokens without a number: the program of all of them."""
    old, rewards = (np.asarray(x, np.float32) for x in group())
    where = (np.random.default_rng(4).random(old.shape) < 0.7) | (not masked)

    def loss(new, old, rewards, where):
        mask = {"where": where} if masked else {}
        return jnp.sum(jaxloss.grpo(new, old, rewards, **mask))

    step, new = jax.jit(jax.value_and_grad(loss)), 0.9 * old
    sizes = jax.export.symbolic_shape("b, g, t")
    shapes = [
        jax.ShapeDtypeStruct(sizes[: x.ndim], x.dtype)
        for x in (new, old, rewards, where)
    ]
    program = jax.export.export(step)(*shapes)
    got, want = program.call(new, old, rewards, where), step(new, old, rewards, where)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance(np.float32, 32))


def test_sequences_may_count_alike_or_by_their_tokens():
    """Mean over tokens then answers is GRPO, mean over all tokens DAPO."""
    old, rewards = group()
    where = (
        jnp.asarray(np.random.default_rng(2).random(old.shape) < 0.7)
        .at[..., 0]
        .set(True)
    )
    losses = jaxloss.grpo(old, old, rewards, where=where)
    by_answer = reduce.mean(reduce.mean(losses, where=where, axis=-1))
    counts = np.asarray(where).sum(-1)
    r = np.asarray(rewards)
    a = (r - r.mean(1, keepdims=True)) / r.std(1, keepdims=True)
    np.testing.assert_allclose(by_answer, -a.mean(), atol=64 * FLOAT64)
    by_token = reduce.mean(losses, where=where)
    np.testing.assert_allclose(by_token, -(a * counts).sum() / counts.sum())
