"""float16 under a dynamic scale: nothing underflows, nothing NaN is ever kept."""

import doctest
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import Mean, train
from jaxloss.train import scaling

untyped: Any = train  # the type checker would refuse the bad calls


# --------------------------------------------------------------- a network on digits


def digits(count=512):
    x, y = load_digits(return_X_y=True)
    x = jnp.asarray(x[:count] / 16, jnp.float32)
    return {"x": x, "y": jnp.asarray(y[:count], jnp.int32)}


def make_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"hidden": (64, 32), "out": (32, 10)}
    draw = {n: rng.normal(size=s) / math.sqrt(s[0]) for n, s in shapes.items()}
    return {name: jnp.asarray(x, dtype) for name, x in draw.items()}


def classify(dtype):
    """Cross entropy of a network that computes in `dtype`, whatever its parameters."""

    def fn(params, batch):
        w = jax.tree.map(lambda x: x.astype(dtype), params)
        logits = jax.nn.relu(batch["x"].astype(dtype) @ w["hidden"]) @ w["out"]
        return {"fit": Mean.of(jaxloss.softmax_cross_entropy(logits, batch["y"]))}

    return fn


def relative(found, expected):
    found, expected = (
        jnp.concatenate([x.ravel() for x in jax.tree.leaves(t)])
        for t in (found, expected)
    )
    found = found.astype(jnp.float32)
    return jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)


def gradient(dtype, scale, microbatches=1):
    """What reaches the optimiser, if the loss has a weight of 2⁻¹⁴."""
    objective = train.objective(classify(dtype), weights={"fit": 2.0**-14})
    remember = optax.GradientTransformation(
        lambda params: params, lambda updates, state, params=None: (updates, updates)
    )
    step = train.scaled_train_step(objective, remember, microbatches=microbatches)
    held = train.DynamicScale.init(scale)
    state = train.ScaledState.init(objective, remember, make_params(), held)
    state, metrics = jax.jit(step)(state, digits())
    return state.opt_state, metrics


@pytest.mark.parametrize("microbatches", [1, 4])
def test_the_scale_rescues_a_real_gradient(microbatches):
    """In float16 most of it is lost; scaled, it is the float32 one but for rounding."""
    exact, _ = gradient(jnp.float32, 1.0, microbatches)
    lost, _ = gradient(jnp.float16, 1.0, microbatches)
    scaled, metrics = gradient(jnp.float16, 2.0**22, microbatches)
    assert relative(lost, exact) > 0.1
    # Each number has a few roundings of at most 2⁻¹¹, which partly cancel in sums.
    assert relative(scaled, exact) < 2 * 2.0**-11
    assert metrics["skipped"] == 0
    assert metrics["loss_scale"] == 2.0**22


def test_digits_are_learnt_in_float16():
    """The scale starts too high, finds its level, and the loss is that of float32."""
    batch, losses = digits(), {}
    for dtype in (jnp.float32, jnp.float16):
        objective, optimizer = train.objective(classify(dtype)), optax.adam(1e-2)
        step = jax.jit(
            train.scaled_train_step(objective, optimizer, microbatches=2),
            donate_argnums=0,
        )
        scale = train.DynamicScale.init(2.0**30, growth_interval=50)
        state = train.ScaledState.init(objective, optimizer, make_params(), scale)
        for _ in range(60):
            state, metrics = step(state, batch)
            assert scaling.all_finite(state)
        losses[dtype] = metrics["loss"]
        skips = metrics["skipped"]
        assert skips == state.loss_scale.skipped
        assert skips > 5 if dtype == jnp.float16 else skips == 0
        assert state.objective_state.count == 60 - skips
    assert losses[jnp.float32] < 0.2
    # Fewer steps were taken, by those that were skipped.
    assert losses[jnp.float16] < 1.7 * losses[jnp.float32]


def test_bfloat16_needs_no_scale():
    """Parameters and activations in bfloat16 learn with the plain step."""
    objective, optimizer = train.objective(classify(jnp.bfloat16)), optax.adam(1e-2)
    step = jax.jit(train.train_step(objective, optimizer), donate_argnums=0)
    state = train.TrainState.init(objective, optimizer, make_params(jnp.bfloat16))
    losses = []
    for _ in range(40):
        state, metrics = step(state, digits())
        losses.append(metrics["loss"])
    assert losses[0] > 2
    assert losses[-1] < 0.5
    assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {"bfloat16"}


# ------------------------------------------------------------------- skipped or taken


GOOD = jnp.ones(3, jnp.float16)


def times(params, batch):
    """Its slope is the mean of the batch, which can be made infinite at will."""
    return {"fit": Mean.of((params["w"] * batch).astype(jnp.float32))}


def counted(params, batch, *, carry):
    return times(params, batch), {
        "seen": carry["seen"] + jnp.sum(batch, dtype=jnp.float32)
    }


def start(optimizer, scale=None):
    if scale is None:
        scale = train.DynamicScale.init(4.0, growth_interval=2)
    objective = train.objective(counted, carry={"seen": jnp.zeros((), jnp.float32)})
    params = {"w": jnp.ones((), jnp.float16)}
    step = train.scaled_train_step(objective, optimizer)
    return step, train.ScaledState.init(objective, optimizer, params, scale)


@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan])
def test_a_step_that_overflows_is_not_taken(bad):
    """All but the scale stays bit for bit; the next step goes on from there."""
    step, state = start(optax.adam(0.5))
    step = jax.jit(step)
    once, metrics = step(state, GOOD)
    assert metrics["skipped"] == 0
    skipped, metrics = step(once, GOOD.at[0].set(bad))
    jax.tree.map(np.testing.assert_array_equal, skipped[:3], once[:3])
    assert skipped.loss_scale.scale == 2
    assert metrics["loss_scale"] == 4
    assert metrics["skipped"] == 1
    twice, metrics = step(skipped, GOOD)
    expected, _ = step(once, GOOD)
    jax.tree.map(np.testing.assert_array_equal, twice[:3], expected[:3])
    assert twice.objective_state.count == 2
    assert metrics["skipped"] == 1


def test_optimisers_that_hide_infinity_are_not_fooled():
    """The gradient decides: the sign of infinity would be a finite update."""
    step, state = start(optax.sign_sgd(0.5))
    after, metrics = step(state, jnp.inf * GOOD)
    assert metrics["skipped"] == 1
    assert after.params["w"] == 1


def test_the_scale_follows_the_rule():
    """400 random steps: a loop in Python finds the same scale, counts and skips."""
    rng = np.random.default_rng(0)
    finite = rng.random(400) < np.repeat([0.98, 0.5, 0.97, 0.0], 100)
    held = train.DynamicScale.init(8.0, growth_interval=5, backoff=0.25, smallest=2.0)
    _, path = jax.lax.scan(
        lambda s, ok: (s.adjusted(ok), s.adjusted(ok)), held, jnp.asarray(finite)
    )
    scale, calm, skipped = 8.0, 0, 0
    for t, ok in enumerate(finite):
        calm = calm + 1 if ok else 0
        skipped += not ok
        if not ok:
            scale = max(scale / 4, 2.0)
        elif calm == 5:
            scale, calm = scale * 2, 0
        assert path.scale[t] == scale
        assert path.finite_steps[t] == calm
        assert path.skipped[t] == skipped
    assert scale == 2  # the last hundred failed
    assert max(path.scale) > 2.0**12


def test_defaults_are_the_usual_ones():
    """Doubled after 2000 finite steps, halved at an overflow, never below 1."""
    held = train.DynamicScale.init()
    run = jax.jit(
        lambda s: jax.lax.fori_loop(0, 1999, lambda _, s: s.adjusted(True), s)
    )
    almost = run(held)
    assert almost.scale == held.scale == 2.0**15
    assert almost.adjusted(True).scale == 2.0**16
    assert almost.adjusted(True).finite_steps == 0
    fail = jax.lax.fori_loop(0, 40, lambda _, s: s.adjusted(False), held)
    assert fail.scale == 1
    assert fail.skipped == 40


def test_the_scale_stays_finite():
    """float32 ends at 2¹²⁸: a scale that cannot grow stays where it is."""
    held = train.DynamicScale.init(2.0**127, growth_interval=1)
    assert held.adjusted(True).scale == 2.0**127
    low = train.DynamicScale.init(0.5)  # below `smallest`, and not raised by failing
    assert low.adjusted(False).scale == 0.5


def test_lanes_decide_alike():
    """One device overflows, and all of them skip; one gradient, in all of them."""
    objective, optimizer = train.objective(times), optax.sgd(0.5)
    step = train.scaled_train_step(objective, optimizer, axis_name="data")
    params = {"w": jnp.ones((), jnp.float16)}
    state = train.ScaledState.init(objective, optimizer, params)
    step = jax.vmap(step, in_axes=(None, 0), axis_name="data")
    batch = jnp.stack([GOOD] * 4)
    for last, skipped in ((1.0, 0), (jnp.inf, 1)):
        after, metrics = step(state, batch.at[3, 0].set(last))
        assert metrics["skipped"].tolist() == [skipped] * 4
        assert jnp.all(after.params["w"] == (1 if skipped else 0.5))


# -------------------------------------------------------------------------- the state


def test_one_compilation_and_donation():
    """Nothing is traced twice, no buffer is held twice, and the scale may be shared."""
    traces, scale = [], train.DynamicScale.init(4.0)
    step, state = start(optax.adam(0.5), scale)
    _, other = start(optax.adam(0.5), scale)

    def take(state, batch):
        traces.append(1)
        return step(state, batch)

    leaves = jax.tree.leaves((scale, state, other))
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)
    fn = jax.jit(take, donate_argnums=0)
    held = jax.tree.leaves(state)
    for value in (1.0, jnp.inf, 1.0):
        state, _ = fn(state, value * GOOD)
    assert len(traces) == 1
    assert all(x.is_deleted() for x in held)
    assert not any(x.is_deleted() for x in jax.tree.leaves((scale, other)))


def test_the_state_is_plain_arrays():
    """Written down as a list of arrays and read back, it goes on from there."""
    step, state = start(optax.adam(0.5))
    state, _ = step(state, GOOD)
    leaves, structure = jax.tree.flatten(state)
    read = jax.tree.unflatten(structure, [np.asarray(x).copy() for x in leaves])
    jax.tree.map(np.testing.assert_array_equal, step(read, GOOD), step(state, GOOD))


def test_debugging_does_not_stop_at_a_skipped_step():
    """No NaN arises, even in an optimiser that divides infinity by infinity."""
    step, state = start(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.5)))
    with jax.debug_nans(True):
        _, metrics = step(state, jnp.inf * GOOD)
    assert metrics["skipped"] == 1


def test_dtypes_mix_only_on_purpose():
    """The step can be traced under strict promotion, and keeps every dtype."""
    step, state = start(optax.sgd(0.5))
    with jax.numpy_dtype_promotion("strict"):
        after, _ = jax.eval_shape(step, state, GOOD)
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


BAD_CALLS = {
    "DynamicScale.init: `scale` has type str": {"scale": "8"},
    "DynamicScale.init: `scale` is 0.0": {"scale": 0.0},
    "DynamicScale.init: `growth` is 0.5": {"growth": 0.5},
    "DynamicScale.init: `backoff` is 2.0": {"backoff": 2.0},
    "DynamicScale.init: `smallest` is 0": {"smallest": 0},
    "DynamicScale.init: `growth_interval` is 0": {"growth_interval": 0},
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_settings_raise(message):
    """The message names the argument and what was expected."""
    with pytest.raises((TypeError, ValueError)) as raised:
        untyped.DynamicScale.init(**BAD_CALLS[message])
    assert str(raised.value).startswith(message)
    assert "; expected " in str(raised.value)


def test_bad_arguments_raise_before_the_first_step():
    """What `train_step` refuses is refused when the step is made."""
    fit = train.objective(times)
    with pytest.raises(TypeError, match="`optimizer` has type float"):
        untyped.scaled_train_step(fit, 0.1)
    with pytest.raises(ValueError, match="`microbatches` is 0"):
        train.scaled_train_step(fit, optax.sgd(0.1), microbatches=0)


@pytest.mark.parametrize(
    "item",
    [train.DynamicScale.init, train.scaled_train_step, scaling.all_finite],
    ids=lambda item: item.__name__,
)
def test_examples_run_as_printed(item):
    """What a docstring shows is what a reader's session prints."""
    names = {"jaxloss": jaxloss, "jax": jax, "jnp": jnp}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, "example", globs=names)
    with jax.enable_x64(False):
        assert doctest.DocTestRunner().run(test).failed == 0
