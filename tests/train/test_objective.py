"""Objectives and steps: exact whatever the batch was cut into, and one compilation.

References are plain formulas over the whole batch, differentiated by `jax.grad` in
float64.  Hyperparameters are dyadic, so that float32 holds them exactly.
"""

import doctest
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import Mean, train

PARTS = [1, 2, 4, 8]

# ------------------------------------------------ two tasks, each with its own labels


def make_batch(dtype=jnp.float32):
    """16 examples; of every 4th none has a value, so a part of 4 or 8 has no label."""
    rng = np.random.default_rng(0)
    labelled = rng.random(16) < 0.7
    labelled[3::4] = False
    floats = {
        "x": rng.normal(size=(16, 3)),
        "value": 3.0 * rng.normal(size=16) + np.linspace(0, 4, 16),
        "weight": rng.random(16) * (rng.random(16) < 0.6),
    }
    batch = {name: jnp.asarray(x, dtype) for name, x in floats.items()}
    return batch | {
        "labelled": jnp.asarray(labelled),
        "class": jnp.asarray(rng.integers(0, 2, 16), dtype),
    }


def make_params(dtype=jnp.float32):
    rng = np.random.default_rng(1)
    shapes = {"hidden": (3, 4), "regress": (4,), "classify": (4,)}
    return {name: jnp.asarray(rng.normal(size=s), dtype) for name, s in shapes.items()}


def losses(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["hidden"])
    logits = hidden @ params["classify"]
    return {
        "value": (hidden @ params["regress"] - batch["value"]) ** 2,
        "class": jax.nn.softplus(logits) - logits * batch["class"],
        "probability": jax.nn.sigmoid(logits),
    }


def two_tasks(params, batch):
    found = losses(params, batch)
    return {
        "value": Mean.of(found["value"], where=batch["labelled"]),
        "class": Mean.of(found["class"], weights=batch["weight"]),
    }


def value_task(params, batch):
    return {"value": two_tasks(params, batch)["value"]}


def overlaps(params, batch):
    p, y = losses(params, batch)["probability"], batch["class"]
    return {"dice": {"overlap": jnp.sum(p * y), "size": jnp.sum(p) + jnp.sum(y)}}


def root(state, totals):
    return jnp.sqrt(totals["value"].compute()), {}


def dice(state, totals):
    sums = totals["dice"]
    return 1 - 2 * sums["overlap"] / sums["size"], {}


def whole_value(params, batch):
    m = batch["labelled"]
    return jnp.sum(losses(params, batch)["value"] * m) / jnp.sum(m)


def whole_class(params, batch):
    w = batch["weight"]
    return jnp.sum(losses(params, batch)["class"] * w) / jnp.sum(w)


def whole_dice(params, batch):
    p, y = losses(params, batch)["probability"], batch["class"]
    return 1 - 2 * jnp.sum(p * y) / (jnp.sum(p) + jnp.sum(y))


def whole_uncertain(params, batch):
    model, s = params["model"], params["log_variances"]
    kendall = [
        jnp.exp(-s["value"]) * whole_value(model, batch) / 2 + s["value"] / 2,
        jnp.exp(-s["class"]) * 2 * whole_class(model, batch) / 2 + s["class"] / 2,
    ]
    norm = sum(jnp.sum(x**2) for x in jax.tree.leaves(model))
    return sum(kendall) + norm / 8


def with_log_variances(params):
    dtype = params["regress"].dtype
    s = {"value": jnp.asarray(0.5, dtype), "class": jnp.asarray(-0.25, dtype)}
    return {"model": params, "log_variances": s}


def uncertain():
    inner = train.objective(two_tasks, weights={"class": 2.0})
    learnt = train.uncertainty_weighted(inner, ["value", "class"])
    return train.l2(learnt, 0.125, select=lambda params: params["model"])


CASES = {
    "linear": (
        train.objective(two_tasks, weights={"value": 0.5, "class": 2}),
        lambda p, b: 0.5 * whole_value(p, b) + 2 * whole_class(p, b),
        lambda p: p,
    ),
    "root": (
        train.objective(value_task, root),
        lambda p, b: jnp.sqrt(whole_value(p, b)),
        lambda p: p,
    ),
    "dice": (train.objective(overlaps, dice), whole_dice, lambda p: p),
    "learnt weights and l2": (uncertain(), whole_uncertain, with_log_variances),
}


def assert_close(found, expected, relative=1e-6):
    """Norm of the error over norm of the expected, leaf by leaf."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        y = np.asarray(y).astype(np.result_type(y.dtype, np.float64))
        assert np.linalg.norm(np.asarray(x) - y) <= relative * np.linalg.norm(y)


# ------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("microbatches", PARTS)
@pytest.mark.parametrize("case", CASES)
def test_any_combine_is_exact_for_any_number_of_micro_batches(case, microbatches):
    """Loss and gradient are those of the formula over the whole batch, to 1e-6."""
    objective, formula, prepare = CASES[case]
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    found = evaluate(prepare(make_params()), objective.init(), make_batch())
    expected = jax.value_and_grad(formula)(
        prepare(make_params(jnp.float64)), make_batch(jnp.float64)
    )
    assert_close((found.loss, found.grads), expected)
    assert found.loss.dtype == jnp.float32


@pytest.mark.parametrize("microbatches", PARTS)
def test_metrics_are_unweighted_means_of_the_whole_batch(microbatches):
    """Each metric is the mean of its term, not a mean of means, and not weighted."""
    objective, _, _ = CASES["linear"]
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    found = evaluate(make_params(), objective.init(), make_batch())
    params, batch = make_params(jnp.float64), make_batch(jnp.float64)
    means = {"value": whole_value(params, batch), "class": whole_class(params, batch)}
    assert_close(found.metrics, means)


def test_a_mean_of_means_would_fail_these_tests():
    """Averaging the gradients of 4 parts is off by more than 1%: the trap is there."""
    objective, _, _ = CASES["linear"]
    batch, state = make_batch(), objective.init()
    evaluate = jax.jit(train.value_and_grad(objective))
    parts = [
        evaluate(
            make_params(), state, jax.tree.map(lambda x, k=k: x[k::4], batch)
        ).grads
        for k in range(4)
    ]
    naive = jax.tree.map(lambda *grads: sum(grads) / 4, *parts)
    exact = evaluate(make_params(), state, batch).grads
    for name in exact:
        error = jnp.linalg.norm(naive[name] - exact[name])
        assert error > 1e-2 * jnp.linalg.norm(exact[name])


@pytest.mark.parametrize("microbatches", [1, 4])
def test_filled_entries_do_not_exist(microbatches):
    """NaN labels behind a mask change neither the loss nor the gradient by a bit."""

    def fn(params, batch):
        (value,) = jaxloss.fill(batch["labelled"], batch["value"])
        return value_task(params, batch | {"value": value})

    objective, batch = train.objective(fn), make_batch()
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    missing = jnp.where(batch["labelled"], batch["value"], jnp.nan)
    clean = evaluate(make_params(), objective.init(), batch)
    dirty = evaluate(make_params(), objective.init(), batch | {"value": missing})
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    assert jnp.isfinite(dirty.loss)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_batch_without_labels_is_silent(microbatches):
    """Loss and gradient are 0, and no intermediate NaN arises, if nothing counts."""
    objective = train.objective(two_tasks)
    batch = make_batch()
    batch |= {"labelled": jnp.zeros(16, bool), "weight": jnp.zeros(16, jnp.float32)}
    with jax.debug_nans(True):
        found = train.value_and_grad(objective, microbatches=microbatches)(
            make_params(), objective.init(), batch
        )
    assert found.loss == 0
    assert all(jnp.all(g == 0) for g in jax.tree.leaves(found.grads))


def test_integer_sums_may_be_terms():
    """Counts add as integers, reach `combine` as float32 and need no gradient."""

    def fn(params, batch):
        error = (params - batch["value"]) ** 2
        return {"sum": jnp.sum(error), "count": jnp.sum(batch["labelled"])}

    def combine(state, totals):
        return totals["sum"] / totals["count"], {"count": totals["count"]}

    objective, batch = train.objective(fn, combine), make_batch()
    found = train.value_and_grad(objective, microbatches=4)(
        jnp.float32(1), objective.init(), batch
    )
    count = jnp.sum(batch["labelled"])
    assert found.metrics["count"] == count
    expected = 2 * jnp.sum(1 - batch["value"].astype(jnp.float64)) / count
    assert_close(found.grads, expected)


def test_complex_parameters_have_the_gradient_of_jax():
    """For complex parameters the convention is that of `jax.grad`; l2 is |z|²."""

    def fn(params, batch):
        return {"fit": Mean.of(jnp.abs(params * batch - (1 + 2j)) ** 2)}

    z, batch = jnp.complex64(0.5 - 0.25j), jnp.linspace(1, 2, 8, dtype=jnp.float32)
    objective = train.l2(train.objective(fn), 0.5)
    found = train.value_and_grad(objective, microbatches=4)(z, objective.init(), batch)
    formula = lambda z: (
        jnp.mean(jnp.abs(z * batch - (1 + 2j)) ** 2) + jnp.abs(z) ** 2 / 2
    )
    assert_close(found.grads, jax.grad(formula)(z))


# ------------------------------------------------------------------------ precision


def test_many_micro_batches_add_up():
    """4096 tenths one after the other: float32 alone is off by 200 units."""
    fn = lambda p, x: {"fit": Mean.of(p * x)}
    combine = lambda _, totals: (totals["fit"].total, {})
    x = jnp.full(4096, 0.1, jnp.float32)
    total = train.objective(fn, combine)
    evaluate = train.value_and_grad(total, microbatches=4096)
    found = evaluate(jnp.float32(1), total.init(), x)
    np.testing.assert_allclose(found.loss, 4096 * np.float64(x[0]), rtol=2**-24)


def test_half_precision_gradients_add_up_in_float32():
    """512 parts of gradient 1 are 512 in bfloat16, which cannot count past 256."""
    objective = train.objective(
        lambda params, batch: {"sum": jnp.sum(params * batch, dtype=jnp.float32)},
        lambda state, totals: (totals["sum"], {}),
    )
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=512))
    one = jnp.ones((), jnp.bfloat16)
    found = evaluate(one, objective.init(), jnp.ones(512, jnp.bfloat16))
    assert found.grads.dtype == jnp.bfloat16
    assert found.grads == 512


@pytest.mark.parametrize("microbatches", [1, 4])
def test_loss_scale_rescues_float16_and_nothing_else(microbatches):
    """Scaled on its way, a slope of 2⁻²⁷ survives float16; loss and sums stay."""

    def fn(params, batch):
        return {"fit": Mean.of(2.0**-21 * (params * batch).astype(jnp.float32))}

    objective, ones = train.objective(fn), jnp.ones(64, jnp.float16)
    plain, scaled = (
        train.value_and_grad(objective, microbatches=microbatches, loss_scale=scale)(
            jnp.float16(1), objective.init(), ones
        )
        for scale in (1.0, 2.0**12)
    )
    assert plain.grads == 0  # each example's share is below the least float16, 2⁻²⁴
    assert scaled.grads == 2.0**-21
    assert scaled.grads.dtype == jnp.float16
    assert scaled.loss == plain.loss == 2.0**-21
    assert scaled.metrics == plain.metrics


def test_a_slope_that_comes_last_keeps_float16_in_range():
    """A gradient is pulled back at about its own size: 65536 times 1 would overflow."""
    fn = lambda p, x: {"fit": Mean.of((p * x).astype(jnp.float32))}
    evaluate = jax.jit(train.value_and_grad(train.objective(fn), microbatches=2))
    found = evaluate(
        jnp.float16(1), train.objective(fn).init(), jnp.ones(2**17, jnp.float16)
    )
    assert found.grads == 1


def test_loss_scale_may_be_traced():
    """One compilation serves every scale, and none changes a float32 gradient."""
    objective, _, _ = CASES["root"]

    @jax.jit
    def evaluate(scale):
        evaluate = train.value_and_grad(objective, loss_scale=scale)
        return evaluate(make_params(), objective.init(), make_batch()).grads

    jax.tree.map(np.testing.assert_array_equal, evaluate(1.0), evaluate(1024.0))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.float16, jnp.bfloat16])
def test_dtypes_mix_only_on_purpose(dtype):
    """Under strict promotion: gradients like the parameters, loss at least float32."""
    with jax.numpy_dtype_promotion("strict"):
        objective = uncertain()
        params = with_log_variances(make_params(dtype))
        fn = train.value_and_grad(objective, microbatches=2)
        found = jax.eval_shape(fn, params, objective.init(), make_batch(dtype))
    assert found.loss.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
    assert all(g.dtype == dtype for g in jax.tree.leaves(found.grads))


def test_l2_of_half_precision_does_not_overflow():
    """300² = 90000 is beyond float16, and is the norm all the same."""
    objective = train.l2(train.objective(lambda p, b: {"fit": Mean.of(b)}), 1.0)
    found = train.value_and_grad(objective)(
        jnp.float16(300), objective.init(), jnp.zeros(2)
    )
    assert found.metrics["l2"] == 90000
    assert found.grads == 600


# --------------------------------------------------- hyperparameters, state, schedules


def power(params, batch, *, power, scale):
    return {"fit": Mean.of(scale * jnp.abs(params - batch) ** power)}


def test_numbers_become_float32_state():
    """Python and NumPy floats are float32 arrays in the state."""
    objective = train.objective(power, power=2.0, scale=np.float64(0.5))
    state = objective.init()
    assert state.count.dtype == jnp.int32
    assert state.hyperparameters == {"power": 2.0, "scale": 0.5}
    assert {x.dtype.name for x in state.hyperparameters.values()} == {"float32"}
    assert not any(x.weak_type for x in state.hyperparameters.values())


def test_schedules_follow_the_step_count():
    """Hyperparameters, weights and coefficients are taken at the count before."""
    inner = train.objective(
        power, power=2.0, scale=optax.linear_schedule(1.0, 3.0, transition_steps=2)
    )
    objective = train.l2(
        train.weighted(inner, {"fit": lambda count: 2**count}), lambda count: count
    )
    step = jax.jit(train.train_step(objective, optax.sgd(0.0), microbatches=2))
    state = train.TrainState.init(objective, optax.sgd(0.0), jnp.float32(1))
    found = []
    for _ in range(3):
        state, metrics = step(state, jnp.array([3.0, 3.0], jnp.float32))
        found.append(float(metrics["loss"]))
    # (1 - 3)² times the scale 1, 2, 3, the weight 1, 2, 4; plus 0, 1, 2 times 1².
    assert found == [4 * 1 * 1 + 0, 4 * 2 * 2 + 1, 4 * 3 * 4 + 2]
    assert state.objective_state.count == 3
    assert set(state.objective_state.hyperparameters) == {"power"}


def test_hyperparameters_may_be_swept():
    """`vmap` over the state gives, per configuration, what a loop gives."""
    objective = train.l2(
        train.objective(power, power=1.0, scale=1.0, weights={"fit": 1}), 0
    )
    grid = {
        "power": jnp.array([1.0, 2.0, 3.0], jnp.float32),
        "scale": jnp.array([1.0, 0.5, 0.25], jnp.float32),
        "weights/fit": jnp.array([1.0, 2.0, 4.0], jnp.float32),
        "l2/coefficient": jnp.array([0.0, 0.5, 1.0], jnp.float32),
    }
    state = objective.init()
    assert set(state.hyperparameters) == set(grid)
    evaluate = train.value_and_grad(objective, microbatches=2)
    call = lambda hyperparameters: evaluate(
        jnp.float32(1), state._replace(hyperparameters=hyperparameters), 3 * jnp.ones(4)
    )
    swept = jax.jit(jax.vmap(call))(grid)
    # |1 - 3| to the power of, times scale and weight; plus the coefficient times 1².
    assert swept.loss.tolist() == [2.0, 4 * 0.5 * 2 + 0.5, 8 * 0.25 * 4 + 1]
    for i in range(3):
        one = call({name: x[i] for name, x in grid.items()})
        assert_close(swept.grads[i], one.grads)


def test_one_compilation_for_all_steps_and_values():
    """New values, new steps and new batches never trace the step again."""
    traces = []
    objective = train.l2(train.objective(power, power=2.0, scale=1.0), 0.5)
    step = train.train_step(objective, optax.adam(0.1), microbatches=2)

    @jax.jit
    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    state = train.TrainState.init(objective, optax.adam(0.1), jnp.float32(1))
    for value in (2.0, 3.0, 4.0):
        state, _ = counted(state, jnp.full(4, value, jnp.float32))
        held = state.objective_state
        changed = held.hyperparameters | {"power": jnp.float32(value)}
        held = held._replace(hyperparameters=changed)
        state = state._replace(objective_state=held)
    assert len(traces) == 1


def test_the_whole_state_may_be_donated():
    """No buffer is in a state twice, in two states, or the caller's own."""
    scale = jnp.ones((), jnp.float32)
    keeps_params = optax.GradientTransformation(
        lambda params: {"start": params},
        lambda updates, state, params=None: (updates, state),
    )
    objective = train.l2(train.objective(power, power=1.0, scale=scale), 1.0)
    optimizer = optax.chain(keeps_params, optax.adam(0.1))
    tied = jnp.ones((), jnp.float32)
    states = [
        train.TrainState.init(objective, optimizer, jnp.ones((), jnp.float32)),
        train.TrainState.init(objective, optimizer, tied + 0),
    ]
    leaves = [scale, *jax.tree.leaves(states)]
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)
    step = jax.jit(train.train_step(objective, optimizer), donate_argnums=0)
    state = states[0]
    for _ in range(3):
        state, _ = step(state, jnp.zeros(4, jnp.float32))
    assert all(x.is_deleted() for x in jax.tree.leaves(states[0]))
    assert not scale.is_deleted()


def test_replaced_hyperparameters_are_cast():
    """A float64 value put into the state is used as float32, as at `init`."""
    objective = train.objective(power, power=2.0, scale=1.0)
    changed: dict[str, Any] = {"power": 2.0, "scale": np.float64(0.5)}
    state = objective.init()._replace(hyperparameters=changed)
    found = train.value_and_grad(objective)(
        jnp.float32(1), state, 3 * jnp.ones(2, jnp.float32)
    )
    assert found.loss == 2
    assert found.loss.dtype == jnp.float32


# ----------------------------------------------------------------------- combinators


def evaluate(objective, params=None, batch=None, **options):
    params = make_params() if params is None else params
    batch = make_batch() if batch is None else batch
    fn = jax.jit(train.value_and_grad(objective, **options))
    return fn(params, objective.init(), batch)


def test_weights_of_weights_multiply():
    """Combinators nest: 2 · 3 on one term is 6; the metric keeps the plain mean."""
    once = train.weighted(train.objective(value_task), {"value": 6.0})
    inner = train.objective(value_task, weights={"value": 2.0})
    twice = train.weighted(inner, {"value": 3.0}, name="again")
    assert set(twice.init().hyperparameters) == {"weights/value", "again/value"}
    plain, twice, once = map(evaluate, (train.objective(value_task), twice, once))
    assert_close((twice.loss, twice.grads), (once.loss, once.grads))
    assert_close(twice.loss, 6 * plain.loss)
    assert twice.metrics == plain.metrics == {"value": plain.loss}


def test_weights_reach_the_combine_of_the_user():
    """`combine` sees w times the mean: a root of 4 times the mean is twice the root."""
    plain = evaluate(train.objective(value_task, root))
    found = evaluate(train.objective(value_task, root, weights={"value": 4.0}))
    assert_close(found.loss, 2 * plain.loss)


def test_two_groups_of_parameters_may_be_penalised():
    """A second l2 has a name, a coefficient and a metric of its own."""
    inner = train.l2(
        train.objective(value_task), 0.5, select=lambda params: params["hidden"]
    )
    outer = train.l2(inner, 2.0, select=lambda p: p["classify"], name="head")
    found = evaluate(outer, microbatches=4)
    params = make_params()
    norms = {
        "l2": jnp.sum(params["hidden"] ** 2),
        "head": jnp.sum(params["classify"] ** 2),
    }
    assert_close({name: found.metrics[name] for name in norms}, norms)
    assert_close(found.grads["classify"], 4 * params["classify"])
    total = found.metrics["value"] + 0.5 * norms["l2"] + 2 * norms["head"]
    assert_close(found.loss, total)


def test_combinators_commute():
    """l2 inside learnt weights is l2 outside of them, over the same parameters."""
    params = with_log_variances(make_params())
    inside = train.uncertainty_weighted(
        train.l2(train.objective(two_tasks), 0.5), ["value", "class"]
    )
    learnt = train.uncertainty_weighted(train.objective(two_tasks), ["value", "class"])
    outside = train.l2(learnt, 0.5, select=lambda params: params["model"])
    inside, outside = evaluate(inside, params), evaluate(outside, params)
    assert_close(inside, outside)


def test_a_task_without_labels_keeps_its_log_variance():
    """It adds nothing, not even s / 2; the other task is as if it were alone."""
    params = with_log_variances(make_params())
    batch = make_batch() | {"weight": jnp.zeros(16, jnp.float32)}
    both = train.uncertainty_weighted(train.objective(two_tasks), ["value", "class"])
    alone = train.uncertainty_weighted(train.objective(value_task), ["value"])
    found = evaluate(both, params, batch, microbatches=2)
    s = {"value": params["log_variances"]["value"]}
    expected = evaluate(alone, {"model": params["model"], "log_variances": s}, batch)
    assert found.grads["log_variances"]["class"] == 0
    assert_close(found.loss, expected.loss)
    assert_close(found.grads["model"], expected.grads["model"])


def test_learnt_variance_rests_at_the_mean_loss():
    """At s = log(mean) the gradient is 0 and the loss 1/2 + s/2, even below zero."""
    objective = train.uncertainty_weighted(
        train.objective(lambda params, batch: {"fit": Mean.of(batch)}), ["fit"]
    )
    s = jnp.log(jnp.float32(0.125))
    params = {"model": {}, "log_variances": {"fit": s}}
    found = evaluate(objective, params, jnp.array([0.25, 0.0], jnp.float32))
    assert_close(found.loss, 0.5 + np.log(0.125) / 2)
    # exp(-log(1/8)) / 8 is 1 up to the rounding of a logarithm of size 2: 2 ulp of 1.
    assert abs(found.grads["log_variances"]["fit"]) <= 2 * np.finfo(np.float32).eps


# ---------------------------------------------------------------------------- training


def line(params, batch):
    return {"fit": Mean.of((params * batch["x"] - batch["y"]) ** 2)}


def test_gradient_descent_finds_the_slope():
    """On y = 2x the error shrinks by 1 - 2·rate·mean(x²) per step, until w = 2."""
    x = jnp.array([0.5, 1.0, 1.5, 2.0], jnp.float32)
    objective, optimizer = train.objective(line), optax.sgd(0.125)
    step = jax.jit(train.train_step(objective, optimizer, microbatches=2))
    state = train.TrainState.init(objective, optimizer, jnp.float32(0))
    # 2 ulp of w <= 2 per step, an error that shrinks with the others: 4 ulp in all.
    tolerance = 4 * float(np.spacing(np.float32(2)))
    for t in range(40):
        error = -2 * (1 - 2 * 0.125 * 1.875) ** t
        assert float(state.params) == pytest.approx(2 + error, rel=0, abs=tolerance)
        state, metrics = step(state, {"x": x, "y": 2 * x})
        loss = 1.875 * error**2  # of an error e, off by 2 e times that of w
        slack = 2 * 1.875 * (abs(error) + tolerance) * tolerance
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-6, abs=slack)
    assert float(state.params) == pytest.approx(2, rel=0, abs=tolerance)


def test_train_step_is_the_optax_loop():
    """Five steps of Adam equal a loop written by hand, parameters and losses."""
    objective, optimizer = train.objective(two_tasks), optax.adamw(0.01)
    step = jax.jit(train.train_step(objective, optimizer, microbatches=4))
    state = train.TrainState.init(objective, optimizer, make_params())
    formula = jax.jit(
        jax.value_and_grad(lambda p: whole_value(p, batch) + whole_class(p, batch))
    )
    batch, params = make_batch(), make_params()
    opt_state = optimizer.init(params)
    for _ in range(5):
        state, metrics = step(state, batch)
        loss, grads = formula(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        assert_close(metrics["loss"], loss)
    # Adam divides by the size of the gradient: relative errors add up over 5 steps.
    assert_close(state.params, params, 5e-6)


def test_the_optimiser_receives_the_loss():
    """A transformation that asks for `value`, and one that does not, may be chained."""

    def update(updates, state, params=None, **extra):
        return updates, extra["value"]

    remember = optax.GradientTransformationExtraArgs(lambda params: 0.0, update)
    objective, optimizer = train.objective(line), optax.chain(optax.sgd(0.5), remember)
    state = train.TrainState.init(objective, optimizer, jnp.float32(0))
    batch = {"x": jnp.ones(2, jnp.float32), "y": jnp.full(2, 3.0, jnp.float32)}
    state, metrics = jax.jit(train.train_step(objective, optimizer))(state, batch)
    assert state.opt_state[1] == metrics["loss"] == 9


# ------------------------------------------------------------------ memory and devices


def roots(state, totals):
    return sum(jnp.sqrt(total.compute()) for total in totals.values()), {}


@pytest.mark.parametrize(
    ("combine", "terms", "extra"),
    [(None, 1, 0), (roots, 1, 0), (None, 2, 0), (roots, 2, 3)],
)
def test_the_first_pass_costs_nothing_for_a_mean(combine, terms, extra):
    """The 3 products of an extra forward pass are there only where the slopes of
    several numbers need it: not for one number, and XLA drops it for means."""

    def fn(params, batch):
        x = batch
        for w in params:
            x = jnp.tanh(x @ w)
        return {f"power {k}": Mean.of(x ** (2 + k)) for k in range(terms)}

    objective, w = train.objective(jax.jit(fn), combine), jnp.eye(4)
    products = []
    with jax.default_device(jax.devices("cpu")[0]):
        for k in (1, 4):
            evaluate = jax.jit(train.value_and_grad(objective, microbatches=k))
            args = [w] * 3, objective.init(), jnp.ones((8, 4))
            hlo = str(evaluate.lower(*args).compile().as_text())
            products.append(hlo.count(" dot(") + hlo.count("$matmul"))
    # 3 forward, 5 backward: nobody asks for the gradient of the data.
    assert products == [8, 8 + extra]


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_mapped_axis_is_exact(microbatches):
    """Four `vmap` lanes that share an axis find the gradient of the whole batch."""
    objective = uncertain()
    params, state = with_log_variances(make_params()), objective.init()
    lanes = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), make_batch())
    evaluate = train.value_and_grad(
        objective, microbatches=microbatches, axis_name="data"
    )
    mapped = jax.vmap(evaluate, in_axes=(None, None, 0), axis_name="data")
    found = jax.jit(mapped)(params, state, lanes)
    expected = jax.jit(train.value_and_grad(objective))(params, state, make_batch())
    for lane in range(4):
        assert_close(jax.tree.map(lambda x, i=lane: x[i], found), expected)


# -------------------------------------------------------------------------- bad input


def scalar(params, batch):
    return jnp.mean(params * batch)


def dict_of_scalars(params, batch):
    return {"fit": jnp.mean(params * batch)}


def fit(params, batch):
    return {"fit": Mean.of(params * batch)}


def with_gamma(params, batch, *, gamma):
    return {"fit": Mean.of(gamma * params * batch)}


untyped: Any = train  # the type checker would refuse most of these calls


def run(objective, params: Any = 1.0, batch=None, state=None, **options):
    batch = jnp.ones(6) if batch is None else batch
    state = objective.init() if state is None else state
    fn = untyped.value_and_grad(objective, **options)
    return jax.eval_shape(fn, params, state, batch)


def combined(combine):
    return run(untyped.objective(fit, combine))


def learnt(params, terms=("fit",)):
    return run(untyped.uncertainty_weighted(plain, terms), params)


def cut(microbatches, batch=None):
    return run(plain, batch=batch, microbatches=microbatches)


plain = untyped.objective(fit)
listed = plain._replace(stats=lambda params, state, batch: [Mean.of(batch)])
two = {"model": 1.0, "log_variances": {"fit": 0.0, "box": 0.0}}
vector = {"model": 1.0, "log_variances": {"fit": jnp.zeros(1)}}
stateless = train.ObjectiveState(jnp.int32(0), {})
gamma = functools.partial(untyped.objective, with_gamma)

BAD_CALLS = {
    "objective: `fn` has type str": lambda: untyped.objective("fit"),
    "objective: `fn` has the parameters (params, batch, *, gamma); expected one that "
    "can be called as fn(params, batch, gama=...)": lambda: gamma(gama=1.0),
    "objective: `fn` has the parameters (params, batch, *, gamma); expected one that "
    "can be called as fn(params, batch): missing": lambda: gamma(),
    "objective: `gamma` has type str": lambda: gamma(gamma="2"),
    "objective: `gamma` has the integer 2, which would reach `fn` as the float32 "
    "number 2.0; expected a float (2.0), a schedule (a function of the step count), or "
    "functools.partial(fn, gamma=2) for a size": lambda: gamma(gamma=2),
    "objective: `gamma` has the integer 3": lambda: gamma(gamma=np.int64(3)),
    "objective: `gamma` has integers of shape (), which would": lambda: gamma(
        gamma=jnp.int8(4)
    ),
    "objective: `gamma` has the boolean True, which would": lambda: gamma(gamma=True),
    "objective: `gamma` has integers of shape (2,)": lambda: gamma(gamma=[1, 2]),
    "objective: `gamma` has integers of shape ()": lambda: jax.eval_shape(
        lambda traced: gamma(gamma=traced).init(), jnp.int32(1)
    ),
    "objective: `gamma` has type NoneType": lambda: gamma(gamma=None),
    "objective: `gamma` has dtype complex": lambda: gamma(gamma=1j),
    "objective: `weights` has type float": lambda: untyped.objective(fit, weights=2.0),
    "objective: `fit` has type str": lambda: untyped.objective(
        fit, weights={"fit": "1"}
    ),
    "objective: `fn` has a result of type": lambda: run(untyped.objective(scalar)),
    "objective: `fn` has no result": lambda: run(untyped.objective(lambda p, b: None)),
    "objective: `fn` has a result of type dict": lambda: run(
        untyped.objective(lambda p, b: {})
    ),
    "objective: `fn` has the term 'fit' of type": lambda: run(
        untyped.objective(dict_of_scalars)
    ),
    "objective: `weights` has the term 'box'": lambda: run(
        untyped.objective(fit, weights={"box": 1.0})
    ),
    "objective: `state` has no hyperparameter 'gamma'": lambda: run(
        gamma(gamma=1.0), state=stateless
    ),
    "objective: `combine` has a result of type": lambda: combined(
        lambda state, totals: totals["fit"].compute()
    ),
    "objective: `combine` has a loss of shape (3,)": lambda: combined(
        lambda state, totals: (jnp.ones(3), {})
    ),
    "objective: `combine` has a loss of shape () and dtype int32": lambda: combined(
        lambda state, totals: (jnp.int32(1), {})
    ),
    "objective: `combine` has type Mean": lambda: combined(
        lambda state, totals: (totals["fit"], {})
    ),
    "objective: `combine` has metrics of type int": lambda: combined(
        lambda state, totals: (totals["fit"].compute(), 1)
    ),
    "weighted: `weights` has the term 'box'": lambda: run(
        untyped.weighted(plain, {"box": lambda count: 1.0})
    ),
    "weighted: `weights` has the term 'dice' of type dict": lambda: run(
        untyped.weighted(CASES["dice"][0], {"dice": 1.0}), make_params(), make_batch()
    ),
    "weighted: `name` has 'weights/fit'": lambda: untyped.weighted(
        untyped.weighted(plain, {"fit": 1}), {"fit": 2}
    ),
    "weighted: `objective` has a result of type list": lambda: run(
        untyped.weighted(listed, {})
    ),
    "l2: `coefficient` has type str": lambda: untyped.l2(plain, "1e-3"),
    "l2: `name` has 'l2/coefficient'": lambda: untyped.l2(untyped.l2(plain, 1.0), 2.0),
    "l2: `name` has 'l2'": lambda: run(untyped.l2(untyped.l2(plain, lambda t: t), 2.0)),
    "l2: `select` has no parameters": lambda: run(
        untyped.l2(plain, 1.0, select=lambda params: [])
    ),
    "uncertainty_weighted: `terms` has the string 'fit'": lambda: learnt(1.0, "fit"),
    "uncertainty_weighted: `params` has no keys": lambda: learnt(1.0),
    "uncertainty_weighted: `params` has keys ['w']": lambda: learnt({"w": 1.0}),
    "uncertainty_weighted: `log_variances` has the terms": lambda: learnt(two),
    "uncertainty_weighted: `log_variances` has shape (1,)": lambda: learnt(vector),
    "uncertainty_weighted: `terms` has the term 'box'": lambda: learnt(
        two, ["fit", "box"]
    ),
    "value_and_grad: `objective` has type function": lambda: untyped.value_and_grad(
        fit
    ),
    "value_and_grad: `microbatches` is float": lambda: cut(2.0),
    "value_and_grad: `microbatches` is 0": lambda: cut(0),
    "value_and_grad: `microbatches` has the value 4, which does not divide the 6 "
    "examples of `batch`": lambda: cut(4),
    "value_and_grad: `batch` has leaves of different lengths": lambda: cut(
        2, {"x": jnp.ones(4), "y": jnp.ones(2)}
    ),
    "value_and_grad: `batch` has a scalar at ['t']": lambda: cut(
        2, {"x": jnp.ones(4), "t": 1.0}
    ),
    "value_and_grad: `batch` has no arrays": lambda: cut(2, {}),
    "value_and_grad: `loss_scale` has type str": lambda: run(plain, loss_scale="8"),
    "value_and_grad: `loss_scale` is 0.0": lambda: run(plain, loss_scale=0.0),
    "value_and_grad: `params` has int32 at ['n']": lambda: run(
        plain, {"w": jnp.ones(2), "n": jnp.ones(2, jnp.int32)}
    ),
    "value_and_grad: `params` has int at its root": lambda: untyped.value_and_grad(
        plain
    )(3, plain.init(), jnp.ones(2)),
    "train_step: `optimizer` has type float": lambda: untyped.train_step(plain, 0.1),
    "train_step: `optimizer` has type MultiSteps; expected an optax transformation, "
    "such as optax.adam(1e-3); MultiSteps averages": lambda: untyped.train_step(
        plain, optax.MultiSteps(optax.sgd(0.1), 2)
    ),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls_raise_while_tracing(message):
    """The message names the function and the argument, and says what to do."""
    with pytest.raises((TypeError, ValueError)) as raised:
        BAD_CALLS[message]()
    assert str(raised.value).startswith(message)
    assert "; expected " in str(raised.value)


@pytest.mark.parametrize("axis_name", ["dta", ("rows", "dta")])
def test_an_unbound_axis_raises(axis_name):
    """A misspelt axis is never silently the whole batch."""
    message = (
        r"^value_and_grad: `axis_name` has the unbound axis name 'dta'; expected an "
        r"axis of the shard_map, pmap or vmap around the call \(leave it out"
    )
    with pytest.raises(NameError, match=message):
        jax.vmap(lambda _: run(plain, axis_name=axis_name).loss, axis_name="rows")(
            jnp.arange(2)
        )
    add, _ = train.accumulate(plain)
    sums = add(1.0, plain.init(), jnp.ones(2), None)
    _, finish = train.accumulate(plain, axis_name="dta")
    with pytest.raises(NameError, match=r"^accumulate: `axis_name` has the unbound"):
        finish(1.0, plain.init(), sums)


@pytest.mark.parametrize("name", [n for n in vars(train) if callable(vars(train)[n])])
def test_examples_run_as_printed(name):
    """What a docstring shows is what a reader's session prints."""
    names = {"jaxloss": jaxloss, "jax": jax, "jnp": jnp, "np": np}
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(getattr(train, name), name, globs=names)
    with jax.enable_x64(False):
        assert doctest.DocTestRunner().run(test).failed == 0
