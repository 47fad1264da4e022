"""Losses of a batch that are no means over its examples: the balance of experts.

One large trainer adds such a loss to the sum of the losses of tokens, and divides both
by their number.  The references are NumPy and finite differences, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import Mean, train

EXPERTS, COEFFICIENT = 4, 0.02
PARTS = [1, 2, 4]


def make_batch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 5, 3)) + np.linspace(-2, 2, 16)[:, None, None]
    return {"x": jnp.asarray(x), "y": jnp.asarray(rng.normal(size=(16, 5)))}


def make_params():
    rng = np.random.default_rng(1)
    return {"router": rng.normal(size=(3, EXPERTS)), "value": rng.normal(size=3)}


def routed(params, batch):
    """Squared errors, which expert each token goes to, and the router's shares."""
    scores = batch["x"] @ params["router"]
    chosen = jax.nn.one_hot(jnp.argmax(scores, -1), EXPERTS, dtype=scores.dtype)
    errors = (batch["x"] @ params["value"] - batch["y"]) ** 2
    return errors, chosen, jax.nn.softmax(scores)


def balance(chosen, shares):
    """Fedus et al., "Switch Transformers", equation 4."""
    return EXPERTS * jnp.sum(chosen * shares)


def per_part(params, batch):
    errors, chosen, shares = routed(params, batch)
    loss = balance(jnp.mean(chosen, (0, 1)), jnp.mean(shares, (0, 1)))
    return {"fit": Mean.of(errors), "balance": Mean.per_batch(loss)}


def in_sums(params, batch):
    errors, chosen, shares = routed(params, batch)
    mean = lambda x: Mean.of(x, axis=(0, 1))
    return {"fit": Mean.of(errors), "chosen": mean(chosen), "shares": mean(shares)}


def combine(state, totals):
    fit, chosen, shares = (totals[k].compute() for k in ("fit", "chosen", "shares"))
    return fit + COEFFICIENT * balance(chosen, shares), {}


def by_numpy(params, parts):
    """The mean of squares of the batch, plus the balance averaged over its parts."""
    batch, found = jax.tree.map(np.asarray, make_batch()), []
    for k in range(parts):
        scores = batch["x"][k::parts].reshape(-1, 3) @ params["router"]
        shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        chosen = np.eye(EXPERTS)[scores.argmax(-1)]
        found.append(EXPERTS * (chosen.mean(0) * shares.mean(0)).sum())
    errors = (batch["x"] @ params["value"] - batch["y"]) ** 2
    return errors.mean() + COEFFICIENT * np.mean(found)


def differences(params, parts, step=1e-6):
    """The gradient with respect to the router, by central differences."""
    grad = np.zeros_like(params["router"])
    for at in np.ndindex(grad.shape):
        move = np.zeros_like(grad)
        move[at] = step
        ends = [
            by_numpy(params | {"router": params["router"] + sign * move}, parts)
            for sign in (1, -1)
        ]
        grad[at] = (ends[0] - ends[1]) / (2 * step)
    return grad


@pytest.mark.parametrize("microbatches", PARTS)
def test_each_part_counts_once(microbatches):
    """The coefficient means the same for any number of micro-batches."""
    objective = train.objective(per_part, weights={"balance": COEFFICIENT})
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    params = make_params()
    found = evaluate(params, objective.init(), make_batch())
    np.testing.assert_allclose(found.loss, by_numpy(params, microbatches), 1e-7)
    expected = differences(params, microbatches)
    np.testing.assert_allclose(found.grads["router"], expected, 1e-6, 1e-8)
    # Divided by 80 tokens, as it is there, it would be next to nothing.
    assert np.linalg.norm(found.grads["router"]) > 40 * np.linalg.norm(expected / 80)


@pytest.mark.parametrize("microbatches", PARTS)
def test_in_sums_it_is_that_of_the_whole_batch(microbatches):
    """Terms for what it is made of, put together in `combine`: exact in parts."""
    objective = train.objective(in_sums, combine)
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    params = make_params()
    found = evaluate(params, objective.init(), make_batch())
    np.testing.assert_allclose(found.loss, by_numpy(params, 1), 1e-12)
    expected = differences(params, 1)
    np.testing.assert_allclose(found.grads["router"], expected, 1e-6, 1e-8)
