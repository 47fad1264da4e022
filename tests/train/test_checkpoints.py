"""Every state of `train` through Orbax and back: bitwise, typed, and donatable."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from jaxloss import Mean, train

ADAM = optax.adam(0.125)
BATCH = {
    "x": jnp.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.25]], jnp.float32),
    "y": jnp.array([1.0, -2.0, 4.0], jnp.float32),
}


def fn(params, batch, *, gamma, carry):
    """A model that counts its examples as it runs."""
    error = jnp.abs(batch["x"] @ params["w"] + params["b"] - batch["y"])
    mean = (carry["mean"] + jnp.mean(batch["x"], axis=0)) / 2
    seen = carry["seen"] + len(error)
    return {"fit": Mean.of(error**gamma)}, {"mean": mean, "seen": seen}


def two_tasks(params, batch):
    outputs = batch["x"] @ params["w"] + params["b"]
    up, down = (outputs - batch["y"]) ** 2, (outputs + batch["y"]) ** 2
    return {"up": Mean.of(up, where=batch["y"] > 0), "down": Mean.of(down)}


WITH_CARRY = train.objective(
    fn,
    carry={"mean": jnp.zeros(2, jnp.float32), "seen": jnp.zeros((), jnp.int32)},
    gamma=1.5,
)
BOTH = train.objective(two_tasks)
SURGERY = optax.chain(train.pcgrad(seed=3), ADAM)


def make_params():
    return {"w": jnp.ones(2, jnp.float32), "b": jnp.zeros((1,), jnp.float32)}


def swept(gamma):
    state = train.TrainState.init(WITH_CARRY, ADAM, make_params())
    held = state.objective_state._replace(hyperparameters={"gamma": gamma})
    return state._replace(objective_state=held)


class States(NamedTuple):
    """All that may have to survive the end of a process."""

    single: train.TrainState
    tasks: train.TrainState
    scaled: train.ScaledState
    sweep: train.TrainState
    sums: Any


def begin():
    one = train.TrainState.init(WITH_CARRY, ADAM, make_params())
    tasks = train.TrainState.init(BOTH, SURGERY, make_params())
    scaled = train.ScaledState.init(BOTH, ADAM, make_params())
    grid = jax.vmap(swept)(jnp.array([1.0, 1.5, 2.0], jnp.float32))
    like = jax.eval_shape(ADD, make_params(), BOTH.init(), BATCH, None)
    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    states = States(one, tasks, scaled, grid, sums)
    # Bound to a device, as what is restored will be: the step is compiled once.
    return jax.device_put(states, jax.devices()[0])


ADD, FINISH = train.accumulate(BOTH)


@functools.partial(jax.jit, donate_argnums=0)
def advance(states, batch):
    """Each of them by a step, in one program."""
    one = train.train_step(WITH_CARRY, ADAM)
    sums = ADD(make_params(), BOTH.init(), batch, states.sums)
    return States(
        one(states.single, batch)[0],
        train.task_train_step(BOTH, SURGERY, ["up", "down"])(states.tasks, batch)[0],
        train.scaled_train_step(BOTH, ADAM)(states.scaled, batch)[0],
        jax.vmap(one, (0, None))(states.sweep, batch)[0],
        sums,
    )


def plain(x):
    """An array of numbers, of keys too."""
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def assert_same(found, expected):
    """The same types around the same bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        assert x.aval == y.aval  # a weak type would be compiled for once more
        np.testing.assert_array_equal(plain(x), plain(y))


def pointers(tree):
    """Where the numbers are; of a key, those of its data."""
    found = []
    for x in jax.tree.leaves(tree):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        data = jax.random.key_data(x) if is_key else x
        found.append(data.unsafe_buffer_pointer())
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saved after two steps: the path, a copy of the states, and two steps later."""
    path = tmp_path_factory.mktemp("checkpoints") / "states"
    states = advance(advance(begin(), BATCH), BATCH)
    copy = jax.tree.map(jnp.copy, states)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, states)
        checkpointer.wait_until_finished()
        yield path, copy, advance(advance(states, BATCH), BATCH), checkpointer


def test_a_restored_run_goes_on_as_if_nothing_had_happened(saved):
    """Shapes are target enough; what comes back may be donated."""
    path, before, after, checkpointer = saved
    target = jax.eval_shape(lambda: before)
    restored = checkpointer.restore(path, target)
    assert_same(restored, before)
    assert restored.single.objective_state.carry["seen"] == 6
    assert len(set(pointers(restored))) == len(pointers(restored))
    found = advance(advance(restored, BATCH), BATCH)
    assert all(x.is_deleted() for x in jax.tree.leaves(restored))
    assert_same(found, after)
    ends = [FINISH(make_params(), BOTH.init(), s.sums).grads for s in (found, after)]
    assert_same(*ends)


def test_without_a_target_types_are_dicts_and_lists(saved):
    """Named fields are keys: ours are made again of them, optax's states are not."""
    path, before, _, checkpointer = saved
    restored = checkpointer.restore(path)
    assert type(restored) is dict
    held = restored["single"]["objective_state"]
    assert_same(train.ObjectiveState(**held), before.single.objective_state)
    scale = restored["scaled"]["loss_scale"]
    assert_same(train.DynamicScale(**scale), before.scaled.loss_scale)
    assert_same(restored["single"]["params"], before.single.params)
    sums = restored["sums"]["totals"]["up"]
    assert_same(Mean(**sums), before.sums.totals["up"])
    # A chain is a list, its states are dicts, and states without a field are None.
    assert [type(x) for x in restored["single"]["opt_state"]] == [dict, type(None)]


class OldAccumulator(NamedTuple):
    """As it was before sums had rests."""

    totals: Any
    slopes: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class OldMean:
    """As it was before sums had rests."""

    total: Any
    weight: Any


def test_sums_of_an_older_version_go_on(tmp_path):
    """Without a target, and with what was saved as one: each field by its name."""
    params, state = make_params(), BOTH.init()
    now = ADD(params, state, BATCH, None)
    shorten = lambda tree: {k: OldMean(m.total, m.weight) for k, m in tree.items()}
    old = OldAccumulator(shorten(now.totals), shorten(now.slopes))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "old", old)
        checkpointer.wait_until_finished()
        raw = checkpointer.restore(tmp_path / "old")
        same = checkpointer.restore(tmp_path / "old", jax.eval_shape(lambda: old))
    typed = {k: vars(m) for k, m in same.totals.items()}
    assert_same({k: Mean(**m) for k, m in typed.items()}, now.totals)
    means = lambda tree: {k: Mean(**m) for k, m in tree.items()}
    restored = train.Accumulator(means(raw["totals"]), means(raw["slopes"]))
    found, expected = (ADD(params, state, BATCH, s) for s in (restored, now))
    assert_same(found, expected)


def test_no_two_states_share_a_buffer():
    """All that `init` makes, twice, and what it was made from."""
    keeps_params = optax.GradientTransformation(
        lambda params: params, lambda updates, state, params=None: (updates, state)
    )
    balance = train.gradnorm(2, keeps_params)
    params, scale = make_params(), train.DynamicScale.init()
    carry = {"mean": params["w"], "seen": jnp.zeros((), jnp.int32)}
    objective = train.objective(fn, carry=carry, gamma=jnp.ones((), jnp.float32))
    states = [
        [
            objective.init(),
            train.DynamicScale.init(),
            train.TrainState.init(objective, SURGERY, make_params()),
            train.TrainState.init(objective, balance, make_params()),
            train.ScaledState.init(objective, ADAM, make_params(), scale),
        ]
        for _ in range(2)
    ]
    found = pointers([states, params, scale])
    assert len(set(found)) == len(found)
