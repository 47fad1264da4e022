"""What an objective's function returns beside its terms: metrics and arrays.

References are formulas over the whole batch, in float64.
"""

import subprocess
import sys
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import jaxloss
from jaxloss import Mean, testing, train
from jaxloss.train import nnx as adapter

PARTS = [1, 4]


def make_batch():
    """16 examples of 3 classes; some have no label, and of every 4th none has one."""
    rng = np.random.default_rng(0)
    labelled = rng.random(16) < 0.7
    labelled[3::4] = False
    arrays = {"x": rng.normal(size=(16, 5)), "y": rng.integers(0, 3, 16)}
    return jax.tree.map(jnp.asarray, arrays | {"labelled": labelled})


def make_params():
    return jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))


def fn(params, batch):
    """A loss with a mask, accuracy with the same, and the logits."""
    logits = batch["x"] @ params
    losses = jaxloss.softmax_cross_entropy(logits, batch["y"])
    right = jnp.argmax(logits, axis=-1) == batch["y"]
    terms = {
        "fit": Mean.of(losses, where=batch["labelled"]),
        "accuracy": train.metric(Mean.of(right, where=batch["labelled"])),
    }
    return terms, {"logits": logits, "right": right}


def plain(params, batch):
    """The same without what is beside."""
    return {"fit": fn(params, batch)[0]["fit"]}


def expected():
    """Loss, gradient, accuracy and logits with NumPy alone."""
    batch = jax.tree.map(np.asarray, make_batch())
    logits = batch["x"] @ np.asarray(make_params())
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    own, kept = p[np.arange(16), batch["y"]], batch["labelled"]
    off = (p - np.eye(3)[batch["y"]])[kept]
    right = logits.argmax(-1) == batch["y"]
    grad = batch["x"][kept].T @ off / kept.sum()
    return -np.log(own[kept]).mean(), grad, right[kept].mean(), logits, right


def assert_expected(found):
    loss, grad, accuracy, logits, right = expected()
    assert 0 < accuracy < 1
    np.testing.assert_allclose(found.loss, loss, 1e-12)
    np.testing.assert_allclose(found.grads, grad, 1e-12, 1e-15)
    np.testing.assert_allclose(found.metrics["accuracy"], accuracy, 1e-7)
    np.testing.assert_allclose(found.metrics["fit"], loss, 1e-12)
    np.testing.assert_allclose(found.aux["logits"], logits, 1e-12)
    np.testing.assert_array_equal(found.aux["right"], right)


# ----------------------------------------------------------------- value and gradient


@pytest.mark.parametrize("microbatches", PARTS)
def test_a_metric_is_reported_and_rows_come_back(microbatches):
    """Loss and gradient without the metric, its mean over the whole batch, and the
    rows of all micro-batches in the order of the batch."""
    objective = train.objective(fn)
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    assert_expected(evaluate(make_params(), objective.init(), make_batch()))


def root(state, totals):
    """Two passes over micro-batches."""
    assert [*totals] == ["fit"]
    return jnp.sqrt(totals["fit"].compute()), {"mean": totals["fit"].compute()}


@pytest.mark.parametrize("microbatches", PARTS)
def test_a_combine_of_ones_own_sees_no_metric(microbatches):
    """Its own metrics and the others come back together."""
    objective = train.objective(fn, root, weights={"fit": 4.0})
    evaluate = train.value_and_grad(objective, microbatches=microbatches)
    found = jax.jit(evaluate)(make_params(), objective.init(), make_batch())
    loss, grad, accuracy, logits, _ = expected()
    np.testing.assert_allclose(found.loss, 2 * np.sqrt(loss), 1e-12)
    np.testing.assert_allclose(found.grads, grad / np.sqrt(loss), 1e-12, 1e-15)
    np.testing.assert_allclose(found.metrics["accuracy"], accuracy, 1e-7)
    np.testing.assert_allclose(found.metrics["mean"], loss, 1e-12)
    np.testing.assert_allclose(found.aux["logits"], logits, 1e-12)


def test_no_gradient_flows_through_a_metric():
    """Also if a combine, of one who writes an objective by hand, uses it."""
    stats = lambda params, state, batch: {"fit": train.metric(Mean.of(params * batch))}
    combine = lambda state, totals: (totals["fit"].compute(), {})
    by_hand = train.Objective(train.objective(plain).init, stats, combine)
    found = train.value_and_grad(by_hand)(
        jnp.array(2.0), by_hand.init(), jnp.array([3.0])
    )
    assert (found.loss, found.grads) == (6, 0)


def test_a_metric_needs_no_second_pass():
    """One number still depends on parameters and data: as many products as before."""

    def products(fn):
        objective = train.objective(fn)
        evaluate = jax.jit(train.value_and_grad(objective, microbatches=4))
        lowered = evaluate.lower(make_params(), objective.init(), make_batch())
        return lowered.as_text().count("dot_general")

    assert products(fn) == products(plain)


@pytest.mark.parametrize("microbatches", PARTS)
def test_a_slope_behind_a_stopped_gradient_of_the_data_is_kept(microbatches):
    """What depends on data through `stop_gradient` alone is not the same in every
    part: parameters times a stopped mean."""

    def stopped(params, batch):
        return {"fit": Mean.of(params * jax.lax.stop_gradient(batch))}

    objective, batch = train.objective(stopped), jnp.arange(8.0)
    evaluate = train.value_and_grad(objective, microbatches=microbatches)
    assert evaluate(jnp.array(1.0), objective.init(), batch).grads == 3.5


def test_devices_hand_back_their_own_rows():
    """Four lanes, two micro-batches each: the rows of the lane, the mean of all."""
    objective, batch = train.objective(fn), make_batch()
    evaluate = train.value_and_grad(objective, microbatches=2, axis_name="data")
    lanes = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), batch)
    found = jax.jit(jax.vmap(evaluate, (None, None, 0), axis_name="data"))(
        make_params(), objective.init(), lanes
    )
    aux = jax.tree.map(lambda x: x.reshape(16, *x.shape[2:]), found.aux)
    one = jax.tree.map(lambda x: x[0], found._replace(aux=None))
    assert_expected(one._replace(aux=aux))


SHARDED = """
    import jax
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jaxloss import train
    from tests.train import test_results as t

    objective, params, batch = train.objective(t.fn), t.make_params(), t.make_batch()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    apart = train.Evaluation(P(), P(), P(), P(), P("data"))
    evaluate = train.value_and_grad(objective, microbatches=2, axis_name="data")
    for check_vma in (True, False):
        sharded = jax.shard_map(
            evaluate, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=apart,
            check_vma=check_vma,
        )
        t.assert_expected(jax.jit(sharded)(params, objective.init(), batch))
        print("exact")

    evaluate = train.value_and_grad(objective, microbatches=2)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            shards = jax.device_put(batch, NamedSharding(mesh, P("data")))
            found = jax.jit(evaluate)(params, objective.init(), shards)
        t.assert_expected(found)
        assert found.aux["logits"].sharding.spec[0] == "data", found.aux
        print("sharded")
"""


def test_rows_stay_on_their_devices():
    """In `shard_map`, and under `jit` on both kinds of mesh, on four devices."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.split() == ["exact"] * 2 + ["sharded"] * 2, done.stderr


# ------------------------------------------------------------------------------ steps


def test_steps_hand_it_back():
    """`train_step`, `scaled_train_step` and `task_train_step`: "aux" of the metrics."""
    objective, optimizer = train.objective(fn), optax.sgd(0.1)
    states: Any = [
        train.TrainState.init(objective, optimizer, make_params()),
        train.ScaledState.init(objective, optimizer, make_params()),
        train.TrainState.init(
            objective, optax.chain(train.pcgrad(), optimizer), make_params()
        ),
    ]
    steps = [
        train.train_step(objective, optimizer, microbatches=4),
        train.scaled_train_step(objective, optimizer, microbatches=4),
        train.task_train_step(
            objective, optax.chain(train.pcgrad(), optimizer), ["fit"], microbatches=4
        ),
    ]
    loss, _, accuracy, logits, _ = expected()
    for state, step in zip(states, steps, strict=True):
        _, metrics = jax.jit(step)(state, make_batch())
        np.testing.assert_allclose(metrics["loss"], loss, 1e-12)
        np.testing.assert_allclose(metrics["accuracy"], accuracy, 1e-7)
        np.testing.assert_allclose(metrics["aux"]["logits"], logits, 1e-12)


def test_a_metric_is_no_rest_of_the_tasks():
    """What is left of the gradient beside the tasks is None, not zeros."""
    objective = train.objective(fn)
    evaluate = train.task_gradients(objective, ["fit"])
    assert evaluate(make_params(), objective.init(), make_batch()).rest is None


def test_modules_hand_it_back():
    """NNX, with statistics that move beside it."""

    class Net(nnx.Module):
        def __init__(self):
            self.w, self.calls = nnx.Param(make_params()), nnx.BatchStat(jnp.zeros(()))

        def __call__(self, x):
            self.calls[...] += 1
            return x @ self.w[...]

    def of_module(model, batch):
        terms, aux = fn(jnp.eye(3), batch | {"x": model(batch["x"])})
        return terms, aux

    objective, model = train.objective(of_module), Net()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    step = nnx.jit(adapter.train_step(objective, microbatches=4))
    _, metrics = step(model, optimizer, objective.init(), make_batch())
    loss, _, accuracy, logits, _ = expected()
    np.testing.assert_allclose(metrics["loss"], loss, 1e-12)
    np.testing.assert_allclose(metrics["accuracy"], accuracy, 1e-7)
    np.testing.assert_allclose(metrics["aux"]["logits"], logits, 1e-12)
    assert model.calls[...] == 4


@pytest.mark.parametrize("microbatches", PARTS)
def test_a_carry_and_rows_together(microbatches):
    """As Linen has it, with `mutable=`: (terms, carry, aux)."""

    def carried(params, batch, *, carry):
        terms, aux = fn(params, batch)
        return terms, carry + 1, aux

    objective = train.objective(carried, carry=jnp.zeros(()))
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    found = evaluate(make_params(), objective.init(), make_batch())
    assert_expected(found)
    assert found.state.carry == microbatches


def test_linen_returns_terms_statistics_and_logits():
    """BatchNorm's statistics go from part to part; logits are those of each part."""
    net = linen.Sequential([linen.BatchNorm(False, momentum=0.5), linen.Dense(3)])
    batch = jax.tree.map(jnp.float32, make_batch()) | {"y": make_batch()["y"]}

    def of_module(params, batch, *, carry):
        logits, carry = net.apply(
            {"params": params, **carry}, batch["x"], mutable=["batch_stats"]
        )
        losses = jaxloss.softmax_cross_entropy(logits, batch["y"])
        return {"fit": Mean.of(losses)}, carry, {"logits": logits}

    carry: Any = net.init(jax.random.key(0), batch["x"])
    params = carry.pop("params")
    objective, optimizer = train.objective(of_module, carry=carry), optax.sgd(0.1)
    step = jax.jit(train.train_step(objective, optimizer, microbatches=2))
    state = train.TrainState.init(objective, optimizer, params)
    state, metrics = step(state, batch)
    expected = np.zeros((16, 3), np.float32)
    for k in range(2):
        logits, carry = net.apply(
            {"params": params, **carry}, batch["x"][k::2], mutable=["batch_stats"]
        )
        expected[k::2] = logits
    np.testing.assert_allclose(metrics["aux"]["logits"], expected, 1e-5, 1e-6)
    found, carry = map(jax.tree.leaves, (state.objective_state.carry, carry))
    np.testing.assert_allclose(found, carry, 1e-5, 1e-7)


# ------------------------------------------------------------ several batches, checks


def test_evaluation_and_accumulation_have_the_metric():
    """Over batches; rows do not add up and are left out."""
    objective, batch = train.objective(fn), make_batch()
    halves = [jax.tree.map(lambda x, k=k: x[k::2], batch) for k in range(2)]
    state, params = objective.init(), make_params()
    loss, grad, accuracy, *_ = expected()
    total, metrics = train.evaluate(objective, params, state, halves)
    add, finish = train.accumulate(objective)
    sums = add(params, state, halves[1], add(params, state, halves[0], None))
    found = finish(params, state, sums)
    assert sums.slopes["accuracy"].mean.total is None
    assert found.aux is None
    np.testing.assert_allclose([total, found.loss], loss, 1e-12)
    np.testing.assert_allclose(found.grads, grad, 1e-12, 1e-15)
    np.testing.assert_allclose(
        [metrics["accuracy"], found.metrics["accuracy"]], accuracy, 1e-7
    )


def test_it_is_decomposable():
    """`testing.assert_decomposable` adds up the terms, not the rows."""
    testing.assert_decomposable(train.objective(fn), make_params(), make_batch())


def test_a_term_may_be_called_aux():
    """Without arrays beside the terms it is a name like any other."""
    objective = train.objective(lambda p, b: {"aux": Mean.of(p * b)})
    found = train.value_and_grad(objective, microbatches=2)(
        jnp.array(2.0), objective.init(), jnp.array([1.0, 3.0])
    )
    assert (found.loss, found.grads, found.aux) == (4, 2, None)


def run(fn, microbatches=1, **options):
    objective = untyped.objective(fn, **options)
    step = train.train_step(objective, optax.sgd(0.1), microbatches=microbatches)
    state = train.TrainState.init(objective, optax.sgd(0.1), jnp.ones(()))
    return jax.eval_shape(step, state, jnp.ones(6))


untyped: Any = train
fit = lambda p, b: {"fit": Mean.of(p * b)}
only_metric = lambda p, b: {"right": train.metric(Mean.of(p * b))}

BAD_CALLS = {
    "metric: `mean` has type": lambda: untyped.metric(jnp.ones(3)),
    "objective: `fn` has only metrics, ['right']": lambda: run(only_metric),
    "objective: `weights` has the metric 'right'; expected a term of": lambda: run(
        both, weights={"right": 2.0}
    ),
    "objective: `fn` has a term 'aux', which is a reserved": lambda: run(
        lambda p, b: ({"aux": Mean.of(p * b)}, b)
    ),
    "objective: `combine` has the metric 'right', which": lambda: run(
        both, combine=lambda s, t: (t["fit"].compute(), {"right": 1.0})
    ),
    "train_step: `objective` has a metric 'aux' beside": lambda: run(
        lambda p, b: (fit(p, b), b),
        combine=lambda s, t: (t["fit"].compute(), {"aux": 1}),
    ),
    "value_and_grad: `aux` has shape () at ['norm'], of micro-batches of 3 examples; "
    "expected a leading axis of examples (a mean": lambda: run(
        lambda p, b: (fit(p, b), {"norm": jnp.sum(b)}), 2
    ),
    "value_and_grad: `aux` has shape (2, 3) at its root, of micro-batches": lambda: run(
        lambda p, b: (fit(p, b), jnp.ones((2, 3))), 2
    ),
    "objective: `fn` has a result of type tuple": lambda: run(
        lambda p, b: (fit(p, b), b, b)
    ),
}


def both(params, batch):
    return fit(params, batch) | only_metric(params, batch)


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls_raise_while_tracing(message):
    """The message names the function and the argument, and says what to do."""
    with pytest.raises((TypeError, ValueError)) as raised:
        BAD_CALLS[message]()
    assert str(raised.value).startswith(message)
    assert "; expected " in str(raised.value)
