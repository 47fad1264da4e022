"""Loss functions of others, as objectives: exact in parts, and no NaN in padding.

The loss functions here divide by the number of tokens, as trainers do, which is 0 in a
part that is all padding: their value is 0 / 0 there, or their gradient.  The reference
is least squares in NumPy, over the tokens of the whole batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxloss import testing, train
from jaxloss.train import nnx as adapter

PARTS = [1, 2, 4, 8]
LENGTHS = np.array([5, 1, 0, 2, 1, 4, 0, 1, 0, 3, 0, 2, 1, 1, 0, 5])


def make_batch():
    """16 texts of up to 5 tokens; of parts of 4 and 8, one is all padding."""
    rng = np.random.default_rng(0)
    mask = np.arange(5) < np.sort(LENGTHS.reshape(4, 4), axis=0).ravel()[:, None]
    mask[2::4] = False
    x, y = rng.normal(size=(16, 5, 3)), rng.normal(size=(16, 5))
    # Floats, as weights are: XLA does not know that 0 times the slope 1 / 0 may be 0.
    arrays = {"x": x, "y": y + np.arange(16)[:, None], "mask": mask.astype(float)}
    return jax.tree.map(jnp.asarray, arrays)


PARAMS = np.array([0.5, -1.0, 2.0])


def expected(penalty=0.0):
    """The mean of the squared errors of all tokens, and its gradient."""
    batch = jax.tree.map(np.asarray, make_batch())
    x, y = (batch[name][batch["mask"] > 0] for name in ("x", "y"))
    off = x @ PARAMS - y
    loss = np.mean(off**2) + penalty * np.sum(PARAMS**2)
    return loss, 2 * x.T @ off / len(off) + 2 * penalty * PARAMS


def errors(params, batch):
    return batch["mask"] * (batch["x"] @ params - batch["y"]) ** 2


def mean_and_count(params, batch):
    """0 / 0 where there is no token."""
    count = batch["mask"].sum()
    return errors(params, batch).sum() / count, count


def mean_that_looks_safe(params, batch):
    """0 where there is no token, but its gradient is 0 / 0."""
    mean, count = mean_and_count(params, batch)
    return jnp.where(count > 0, mean, 0.0), count


def sum_and_weight(params, batch):
    return errors(params, batch).sum(), batch["mask"].sum()


def loss_and_aux(params, batch):
    mean, _ = mean_and_count(params, batch)
    counts = batch["mask"].sum(axis=-1)
    return mean, {"tokens": counts, "predictions": batch["x"] @ params}


def sum_alone(params, batch):
    return sum_and_weight(params, batch)[0]


ADAPTED = {
    "mean": train.objective_from_mean(mean_and_count),
    "safe mean": train.objective_from_mean(mean_that_looks_safe),
    "sum": train.objective_from_sum(sum_and_weight),
    "aux": train.objective_from_mean(
        loss_and_aux, weight=lambda batch, aux: aux["tokens"].sum()
    ),
    "alone": train.objective_from_sum(
        sum_alone, weight=lambda batch, aux: batch["mask"].sum()
    ),
}


def assert_expected(found, penalty=0.0):
    loss, grad = expected(penalty)
    np.testing.assert_allclose(found.loss, loss, 1e-12)
    np.testing.assert_allclose(found.grads, grad, 1e-12)


# -------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("microbatches", PARTS)
@pytest.mark.parametrize("name", ADAPTED)
def test_parts_give_the_mean_of_all_tokens(name, microbatches):
    """Loss and gradient, where parts have few tokens or none."""
    objective = ADAPTED[name]
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    found = evaluate(PARAMS, objective.init(), make_batch())
    assert_expected(found)
    if name == "aux":
        predictions = np.asarray(make_batch()["x"]) @ PARAMS
        np.testing.assert_allclose(found.aux["predictions"], predictions, 1e-12)
        np.testing.assert_array_equal(found.aux["tokens"], make_batch()["mask"].sum(-1))


def test_the_mean_of_means_would_fail_these_tests():
    """What MultiSteps makes of four batches of these: off by 10% and more, or NaN."""
    batch, count = make_batch(), 4
    parts = [jax.tree.map(lambda x, k=k: x[k::count], batch) for k in range(count)]
    steps = optax.MultiSteps(optax.sgd(1.0), count)
    state, grad = steps.init(PARAMS), jax.jit(jax.grad(mean_and_count, has_aux=True))
    update: Any = None
    for part in parts:
        update, state = steps.update(grad(PARAMS, part)[0], state, PARAMS)
    assert np.isnan(update).any()
    state = steps.init(PARAMS)
    for part in parts:
        some = {**part, "mask": part["mask"].at[0, 0].set(1)}  # at least one token
        update, state = steps.update(grad(PARAMS, some)[0], state, PARAMS)
    _, right = expected()
    assert np.linalg.norm(update + right) > 0.1 * np.linalg.norm(right)


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("name", ["mean", "safe mean", "sum"])
def test_a_batch_of_padding_has_the_gradient_of_the_penalty(name, microbatches):
    """Loss 0 and gradient 0 of the data, beside L2."""
    objective = train.l2(ADAPTED[name], 0.5)
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    empty = {**make_batch(), "mask": jnp.zeros((16, 5))}
    found = evaluate(PARAMS, objective.init(), empty)
    np.testing.assert_allclose(found.loss, 0.5 * np.sum(PARAMS**2), 1e-12)
    np.testing.assert_allclose(found.grads, PARAMS, 1e-12)
    assert_expected(evaluate(PARAMS, objective.init(), make_batch()), 0.5)


def test_a_penalty_costs_no_second_pass():
    """As many products with the data as without it."""

    def products(objective):
        evaluate = jax.jit(train.value_and_grad(objective))
        lowered = evaluate.lower(PARAMS, objective.init(), make_batch())
        return str(lowered.compile().as_text()).count(" dot(")

    penalised = train.l2(ADAPTED["mean"], 0.5)
    assert products(penalised) == products(ADAPTED["mean"]) > 0


@pytest.mark.parametrize("name", ["mean", "safe mean", "sum"])
def test_devices_without_a_token_add_nothing(name):
    """Four lanes, with two micro-batches each and without; one has only padding."""
    order = np.arange(16).reshape(4, 4).T
    lanes = jax.tree.map(lambda x: x[order], make_batch())
    objective = ADAPTED[name]
    for microbatches in (1, 2):
        evaluate = train.value_and_grad(
            objective, microbatches=microbatches, axis_name="data"
        )
        found = jax.jit(jax.vmap(evaluate, (None, None, 0), axis_name="data"))(
            PARAMS, objective.init(), lanes
        )
        assert_expected(jax.tree.map(lambda x: x[0], found))


@pytest.mark.parametrize("name", ["mean", "safe mean", "sum"])
def test_batches_one_after_the_other(name):
    """`train.accumulate`, in the place of MultiSteps, and `train.evaluate`."""
    objective = train.l2(ADAPTED[name], 0.5)
    parts = [jax.tree.map(lambda x, k=k: x[k::4], make_batch()) for k in range(4)]
    state, sums = objective.init(), None
    add, finish = train.accumulate(objective)
    for part in parts:
        sums = jax.jit(add)(PARAMS, state, part, sums)
    assert sums is not None
    found = finish(PARAMS, state, sums)
    assert_expected(found, 0.5)
    loss, _ = train.evaluate(objective, PARAMS, state, parts)
    np.testing.assert_allclose(loss, expected(0.5)[0], 1e-12)


def root(objective):
    """Two numbers in the sums, so that micro-batches take two passes."""

    def stats(params, state, batch):
        found = objective.stats(params, state, batch)
        more = objective.stats(-params, state, batch)
        return {"plus": found["fit"], "minus": more["fit"]}

    def combine(state, totals):
        return jnp.sqrt(totals["plus"].compute() + totals["minus"].compute()), {}

    return train.Objective(objective.init, stats, combine)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_two_of_them_under_a_root(microbatches):
    """Any combine, of several adapted losses: the chain rule by hand."""
    batch = jax.tree.map(np.asarray, make_batch())
    x, y = (batch[name][batch["mask"] > 0] for name in ("x", "y"))
    value = np.sqrt(2 * np.mean((x @ PARAMS) ** 2) + 2 * np.mean(y**2))
    grad = 2 * x.T @ (x @ PARAMS) / len(y) / value
    objective = root(ADAPTED["safe mean"])
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    found = evaluate(PARAMS, objective.init(), make_batch())
    np.testing.assert_allclose(found.loss, value, 1e-12)
    np.testing.assert_allclose(found.grads, grad, 1e-12)


def test_tasks_are_adapted_losses():
    """One gradient per task and that of the penalty; neither is NaN in padding."""
    objective = train.l2(ADAPTED["mean"], 0.5)
    evaluate = train.task_gradients(objective, ["fit"], microbatches=4)
    found = jax.jit(evaluate)(PARAMS, objective.init(), make_batch())
    np.testing.assert_allclose(found.grads[0], expected()[1], 1e-12)
    np.testing.assert_allclose(found.rest, PARAMS, 1e-12)


def test_modules_too():
    """An NNX module in the place of parameters, moved statistics and all."""

    class Net(nnx.Module):
        def __init__(self):
            self.w, self.calls = nnx.Param(jnp.asarray(PARAMS)), nnx.BatchStat(0.0)

        def __call__(self):
            self.calls[...] += 1
            return self.w[...]

    def loss_fn(model, batch):
        return mean_that_looks_safe(model(), batch)

    objective, model = train.objective_from_mean(loss_fn), Net()
    evaluate = nnx.jit(adapter.value_and_grad(objective, microbatches=4))
    found = evaluate(model, objective.init(), make_batch())
    np.testing.assert_allclose(found.grads["w"][...], expected()[1], 1e-12)
    assert model.calls[...] == 4


def test_half_precision_does_not_overflow():
    """A mean of 100 over 1000 tokens has the sum 1e5, which float16 has not."""
    loss_fn = lambda params, batch: (params.mean(), batch.size)
    objective = train.objective_from_mean(loss_fn)
    params = jnp.full(4, 100, jnp.float16)
    found = train.value_and_grad(objective)(params, objective.init(), jnp.ones(1000))
    assert (found.loss.dtype, found.loss) == (jnp.float32, 100)
    assert (found.grads == 0.25).all()


def test_hyperparameters_and_checks():
    """Numbers become state, and `assert_decomposable` agrees."""
    loss_fn = lambda params, batch, *, power: (
        jnp.sum(jnp.abs(params - batch) ** power),
        batch.size,
    )
    objective = train.objective_from_sum(loss_fn, power=3.0)
    assert objective.init().hyperparameters["power"] == 3
    testing.assert_decomposable(objective, jnp.array(0.5), jnp.arange(8.0))


# -------------------------------------------------------------------------- bad input


untyped: Any = train


def run(loss_fn, **options):
    objective = untyped.objective_from_mean(loss_fn, **options)
    evaluate = untyped.value_and_grad(objective)
    return jax.eval_shape(evaluate, jnp.ones(()), objective.init(), jnp.ones(4))


BAD_CALLS = {
    "objective_from_mean: `loss_fn` has type int": lambda: run(1),
    "objective_from_sum: `weight` has type float": lambda: untyped.objective_from_sum(
        sum_alone, weight=1.0
    ),
    "objective_from_mean: `loss_fn` has a result of type": lambda: run(
        lambda p, b: jnp.mean(p * b)
    ),
    "objective_from_mean: `loss_fn` has a result of type tuple": lambda: run(
        lambda p, b: (jnp.mean(p * b), 1, 2), weight=lambda b, aux: 1
    ),
    "objective_from_mean: `loss_fn` has shape (4,)": lambda: run(
        lambda p, b: (p * b, 4)
    ),
    "objective_from_mean: `weight` has shape (4,)": lambda: run(
        lambda p, b: (jnp.mean(p * b), b)
    ),
    "objective_from_mean: `weight` has type dict": lambda: run(
        lambda p, b: (jnp.mean(p * b), {"logits": b})
    ),
    "objective: `fn` has the parameters (p, b)": lambda: run(
        lambda p, b: (jnp.mean(p * b), 4), power=2.0
    ),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls_raise_while_tracing(message):
    """The message names the function and the argument, and says what to do."""
    with pytest.raises((TypeError, ValueError)) as raised:
        BAD_CALLS[message]()
    assert str(raised.value).startswith(message)
    assert "expected " in str(raised.value)
