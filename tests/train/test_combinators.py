"""Combinators: penalties, moving weights, other targets, in any cut of the batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import Mean, train
from jaxloss.testing import tolerance

untyped: Any = train
RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": jnp.asarray(RNG.normal(size=(3, 2))),
    "bias": jnp.asarray(RNG.normal(size=2)),
    "norm": {"scale": jnp.ones((1, 2)), "bias": jnp.full(2, -0.5)},
}
BATCH = {
    "x": jnp.asarray(RNG.normal(size=(8, 3))),
    "y": jnp.asarray(RNG.integers(0, 2, 8)),
    "mask": jnp.asarray(RNG.random(8) < 0.6),
}


def fn(params, batch):
    """A linear classifier, and how far its logits are from 0."""
    logits = batch["x"] @ params["kernel"] + params["bias"][None]
    losses = jaxloss.softmax_cross_entropy(logits, batch["y"])
    return {
        "fit": Mean.of(losses, where=batch["mask"]),
        "size": Mean.of(jnp.sum(logits**2, axis=-1)),
    }


PLAIN = train.objective(fn)


def plain_loss(params, weights=(1.0, 1.0)):
    """The same on the whole batch, with the weights of the two terms."""
    terms = fn(params, BATCH)
    return sum(w * m.compute() for w, m in zip(weights, terms.values(), strict=True))


def grads(objective, state=None, microbatches=1):
    evaluate = train.value_and_grad(objective, microbatches=microbatches)
    return evaluate(PARAMS, objective.init() if state is None else state, BATCH)


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance(np.float32, 16), atol=1e-7)


# --- penalties -------------------------------------------------------------------


def total(params, entry):
    return sum(jnp.sum(entry(x)) for x in params)


KERNEL = [PARAMS["kernel"]]
PENALTIES = {
    "l1": (lambda o, **kw: train.l1(o, 0.3, **kw), lambda x: 0.3 * jnp.abs(x)),
    "l2": (lambda o, **kw: train.l2(o, 0.3, **kw), lambda x: 0.3 * x**2),
    "elastic_net": (
        lambda o, **kw: train.elastic_net(o, l1=0.3, l2=0.7, **kw),
        lambda x: 0.3 * jnp.abs(x) + 0.7 * x**2,
    ),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_penalty_counts_once(name, microbatches):
    """However the batch is cut: the gradient is that of loss plus penalty."""
    penalise, entry = PENALTIES[name]
    found = grads(penalise(PLAIN), microbatches=microbatches)
    expected = lambda p: plain_loss(p) + total(jax.tree.leaves(p), entry)
    assert_same(found.grads, jax.grad(expected)(PARAMS))
    np.testing.assert_allclose(found.loss, expected(PARAMS), rtol=1e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_decayed_leaves_out_biases_and_norms(name):
    """Neither what has one axis, nor what is called bias or scale."""
    penalise, entry = PENALTIES[name]
    found = grads(penalise(PLAIN, select=train.decayed))
    expected = lambda p: plain_loss(p) + total([p["kernel"]], entry)
    assert_same(found.grads, jax.grad(expected)(PARAMS))
    assert train.decayed({"attention": {"bias": jnp.ones((4, 8))}}) == []


def test_metrics_of_penalties_say_whether_they_are_weighted():
    """The norms are without coefficients; `/weighted` is what the loss contains."""
    both = train.l1(train.elastic_net(PLAIN, l1=0.5, l2=2.0), 3.0)
    found, plain = grads(both), grads(PLAIN)
    leaves = jax.tree.leaves(PARAMS)
    ones, squares = total(leaves, jnp.abs), total(leaves, jnp.square)
    expected = {
        "l1": ones,
        "l1/weighted": 3 * ones,
        "elastic_net/l1": ones,
        "elastic_net/l2": squares,
        "elastic_net/weighted": 0.5 * ones + 2 * squares,
    }
    own = {k: x for k, x in found.metrics.items() if k not in plain.metrics}
    assert set(own) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(own[name], value, rtol=1e-6)
    weighted = expected["l1/weighted"] + expected["elastic_net/weighted"]
    np.testing.assert_allclose(found.loss, plain.loss + weighted, rtol=1e-6)
    assert set(both.init().hyperparameters) == {
        "l1/coefficient",
        "elastic_net/l1",
        "elastic_net/l2",
    }


def test_l1_has_no_slope_at_zero():
    """A parameter at 0 stays there, if the data do not move it."""
    objective = train.l1(train.objective(lambda p, b: {"fit": Mean.of(b)}), 1.0)
    found = train.value_and_grad(objective)(jnp.zeros(2), objective.init(), jnp.ones(3))
    np.testing.assert_array_equal(found.grads, 0)


# --- dynamic weight average ------------------------------------------------------


def by_the_paper(last, before, temperature):
    """The weights of Liu et al., in float64."""
    r = np.array(last) / np.array(before)
    e = np.exp(r / temperature)
    return len(r) * e / e.sum()


@pytest.mark.parametrize("microbatches", [1, 2])
def test_dynamic_weights_are_those_of_the_paper(microbatches):
    """1 for two epochs; then by the ratios of the mean losses of the last two."""
    objective = train.dynamic_weight_average(PLAIN, ["fit", "size"], temperature=0.5)
    state = objective.init()
    epochs = [(2.0, 8.0), (1.0, 6.0), (0.9, 1.5)]
    expected = [
        (1.0, 1.0),
        (1.0, 1.0),
        by_the_paper(epochs[1], epochs[0], 0.5),
        by_the_paper(epochs[2], epochs[1], 0.5),
    ]
    for epoch, weights in enumerate(expected):
        found = grads(objective, state, microbatches)
        assert_same(found.grads, jax.grad(plain_loss)(PARAMS, tuple(weights)))
        got = [found.metrics[f"dynamic/{term}"] for term in ("fit", "size")]
        np.testing.assert_allclose(got, weights, rtol=1e-6)
        np.testing.assert_allclose(
            found.metrics["fit"], fn(PARAMS, BATCH)["fit"].compute(), rtol=1e-6
        )
        if epoch < len(epochs):
            fit, size = epochs[epoch]
            state = train.next_epoch(state, {"fit": fit, "size": size, "loss": 1.0})


def test_a_solved_task_keeps_its_weight():
    """A mean loss of 0 gives no ratio: no NaN."""
    objective = train.dynamic_weight_average(PLAIN, ["fit", "size"])
    state = objective.init()
    for means in ({"fit": 0.0, "size": 1.0}, {"fit": 0.0, "size": 1.0}):
        state = train.next_epoch(state, means)
    found = grads(objective, state)
    assert found.metrics["dynamic/fit"] == found.metrics["dynamic/size"] == 1


# --- targets ---------------------------------------------------------------------


@pytest.mark.parametrize("microbatches", [1, 4])
def test_with_targets_is_the_transform_of_the_whole_batch(microbatches):
    """Label smoothing before the cut and after it is the same."""

    def smooth(batch):
        y = jaxloss.smooth_labels(batch["y"], num_classes=2, smoothing=0.3)
        return batch | {"y": y.astype(batch["x"].dtype)}

    found = grads(train.with_targets(PLAIN, smooth), microbatches=microbatches)
    expected = train.value_and_grad(PLAIN)(PARAMS, PLAIN.init(), smooth(BATCH))
    assert_same(found, expected)


# --- messages --------------------------------------------------------------------


def test_bad_calls_name_the_function_and_the_argument():
    with pytest.raises(TypeError, match=r"^l1: `coefficient` has type str"):
        untyped.l1(PLAIN, "1e-3")
    with pytest.raises(ValueError, match=r"^l1: `name` has 'l1/coefficient'"):
        train.l1(train.l1(PLAIN, 1.0), 1.0)
    with pytest.raises(ValueError, match=r"^elastic_net: `select` has no parameters"):
        grads(train.elastic_net(PLAIN, 1.0, 1.0, select=lambda p: []))
    with pytest.raises(
        TypeError, match=r"^dynamic_weight_average: `terms` has the str"
    ):
        train.dynamic_weight_average(PLAIN, "fit")
    with pytest.raises(
        ValueError, match=r"^dynamic_weight_average: `terms` has the te"
    ):
        grads(train.dynamic_weight_average(PLAIN, ["fits"]))
    with pytest.raises(
        ValueError, match=r"^next_epoch: `state` has no dynamic weights"
    ):
        train.next_epoch(PLAIN.init(), {"fit": 1.0})
    dynamic = train.dynamic_weight_average(PLAIN, ["fit", "size"])
    with pytest.raises(ValueError, match=r"^next_epoch: `means` has no 'size'"):
        train.next_epoch(dynamic.init(), {"fit": 1.0})
    with pytest.raises(TypeError, match=r"^with_targets: `transform` has type int"):
        untyped.with_targets(PLAIN, 3)
    halved = lambda batch: jax.tree.map(lambda x: x[::2], batch)
    with pytest.raises(ValueError, match=r"^with_targets: `transform` has a result of"):
        grads(train.with_targets(PLAIN, halved))
