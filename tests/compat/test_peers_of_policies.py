"""Losses of ordered classes, policies and students, against loops and against peers.

The loops are written in float64 NumPy from the papers, one class or one token after
another.  A peer that is installed is called as well.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import jaxloss
from tests.compat.peers import peer, same

# --- ordered classes -----------------------------------------------------------------

CLASSES = 5


def grades(count=60):
    """Logits of the K - 1 thresholds, and labels among which every class is."""
    rng = np.random.default_rng(0)
    return 2 * rng.normal(size=(count, CLASSES - 1)), np.arange(count) % CLASSES


def binary(logit, label):
    return -math.log(special.expit(logit if label else -logit))


def test_coral():
    """Cao et al. 2020, (4): all K - 1 decisions."""
    logits, labels = grades()
    rows = zip(logits, labels, strict=True)
    losses = [sum(binary(x, y > k) for k, x in enumerate(row)) for row, y in rows]
    same(jaxloss.coral(logits, labels), losses)


def test_coral_as_published():
    """The example in the documentation of coral-pytorch, to its four digits."""
    logits = [[2.1, 1.8, -2.1, -1.8], [1.9, -1.0, -1.5, -1.3], [1.9, 1.8, 1.7, 1.6]]
    losses = jaxloss.coral(jnp.array(logits), jnp.array([2, 1, 4]))
    np.testing.assert_allclose(losses.mean(), 0.6920, atol=5e-5)


def corn(logits, labels):
    """Shi et al. 2023, (5): of each decision the examples that come to it."""
    total, examples = 0.0, 0
    for k in range(CLASSES - 1):
        for row, label in zip(logits, labels, strict=True):
            if label > k - 1:
                total += binary(row[k], label > k)
                examples += 1
    return total / examples


def of_coral_pytorch(logits, labels):
    """Our expression of its mean."""
    asked = jnp.minimum(labels, CLASSES - 2) + 1
    return jnp.sum(jaxloss.corn(logits, labels)) / jnp.sum(asked)


def test_corn():
    same(of_coral_pytorch(*grades()), corn(*grades()))


def test_losses_of_coral_pytorch():
    """Both means, and their gradients."""
    torch, theirs = peer("torch"), peer("coral_pytorch.losses")
    logits, labels = grades()
    levels = torch.tensor(1.0 * (labels[:, None] > np.arange(CLASSES - 1)))
    for ours, loss in (
        (of_coral_pytorch, lambda x: theirs.corn_loss(x, torch.tensor(labels), 5)),
        (
            lambda x, y: jnp.mean(jaxloss.coral(x, y)),
            lambda x: theirs.coral_loss(x, levels),
        ),
    ):
        x = torch.tensor(logits, requires_grad=True)
        value = loss(x)
        value.backward()
        same(ours(logits, labels), value.detach())
        same(jax.grad(ours)(logits, labels), x.grad)


LINKS = {
    "cumulative_logit": (special.expit, "logit"),
    "cumulative_probit": (special.ndtr, "probit"),
}
links = pytest.mark.parametrize("name", LINKS)


def voters(count=80):
    """Features, labels, a slope for each feature, and cutpoints."""
    rng = np.random.default_rng(0)
    slopes, cuts = np.array([0.7, -0.4]), np.array([-1.0, -0.2, 0.5, 1.6])
    return rng.normal(size=(count, 2)), np.arange(count) % CLASSES, slopes, cuts


@links
def test_cumulative(name):
    """McCullagh 1980, (1.1): the difference of two cumulative probabilities."""
    features, labels, slopes, cuts = voters()
    distribution, _ = LINKS[name]
    ends = np.array([-np.inf, *cuts, np.inf])
    expected = []
    for score, y in zip(features @ slopes, labels, strict=True):
        low, high = distribution(ends[y : y + 2] - score)
        expected.append(-math.log(high - low))
    same(getattr(jaxloss, name)(features @ slopes, labels, cuts), expected)


@links
def test_cumulative_of_statsmodels(name):
    """The log-likelihood of every observation, which has 1e-20 added to p."""
    model = peer("statsmodels.miscmodels.ordinal_model").OrderedModel
    features, labels, slopes, cuts = voters()
    params = np.array([*slopes, cuts[0], *np.log(np.diff(cuts))])
    theirs = model(labels, features, distr=LINKS[name][1]).loglikeobs(params)
    same(getattr(jaxloss, name)(features @ slopes, labels, cuts), -theirs)


# --- policies ------------------------------------------------------------------------


def tokens(count=200):
    """Log-probabilities of two policies, and advantages; clipped on both sides."""
    rng = np.random.default_rng(0)
    old = -np.exp(rng.normal(size=count))
    return old + 0.4 * rng.normal(size=count), old, rng.normal(size=count)


def ppo(new, old, advantage, low, high):
    """Schulman et al. 2017, (7), of one token."""
    ratio = math.exp(new - old)
    clipped = min(max(ratio, 1 - low), 1 + high)
    return -min(ratio * advantage, clipped * advantage)


def test_ppo_clip():
    args = tokens()
    ratio, good = np.exp(args[0] - args[1]), args[2] > 0
    assert np.sum(good & (ratio > 1.28)) > 10
    assert np.sum(~good & (ratio < 0.8)) > 10
    losses = jaxloss.ppo_clip(*args, epsilon_low=0.2, epsilon_high=0.28)
    same(losses, [ppo(*each, 0.2, 0.28) for each in zip(*args, strict=True)])


def test_grpo():
    """Shao et al. 2024, (3) with outcome rewards: one answer after another."""
    new, old, _ = (x.reshape(8, 5, 5) for x in tokens())
    rewards = np.random.default_rng(1).normal(size=(8, 5))
    expected = np.empty_like(new)
    for group, i, t in np.ndindex(new.shape):
        a = (rewards[group, i] - np.mean(rewards[group])) / np.std(rewards[group])
        at = group, i, t
        expected[at] = ppo(new[at], old[at], a, 0.2, 0.2)
    same(jaxloss.grpo(new, old, rewards), expected)


def test_kl_estimate():
    """Schulman 2020: r - 1 - log r, of the ratio r of the reference to the policy."""
    own, reference, _ = tokens()
    ratios = [math.exp(d) for d in reference - own]
    expected = [r - 1 - math.log(r) for r in ratios]
    same(jaxloss.kl_estimate(own, reference), expected)


# --- students ------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_knowledge_distillation(temperature):
    """Hinton et al. 2015: the divergence at a temperature, times its square."""
    rng = np.random.default_rng(0)
    student, teacher = 2 * rng.normal(size=(2, 30, 7))
    expected = []
    for s, t in zip(student, teacher, strict=True):
        q, p = (special.softmax(x / temperature) for x in (s, t))
        terms = (b * (math.log(b) - math.log(a)) for a, b in zip(q, p, strict=True))
        expected.append(temperature**2 * sum(terms))
    losses = jaxloss.knowledge_distillation(student, teacher, temperature=temperature)
    same(losses, expected)
