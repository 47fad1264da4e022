"""Sweeps: every run is the run that it would be alone, and nothing compiles twice."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import Mean, train
from jaxloss.train import runs

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "examples" / "sweep.py"
untyped: Any = train  # the type checker would refuse some calls
RATES = train.grid(rate=[0.0, 0.5, 1.0])


def descend(hyperparameters, key, target=0.0, traces=None):
    """Gradient descent on (w - target)^2 / 2 from 8, of which 1 - rate stays a step."""
    traces = [] if traces is None else traces
    traces.append("train_fn")

    def step(state, i):
        traces.append("step")
        slope = state["w"] - target
        return {**state, "w": state["w"] - hyperparameters["rate"] * slope}

    def evaluate(state):
        traces.append("evaluate")
        return {"w": state["w"], "draw": jax.random.uniform(state["key"])}

    # A Python number in the state is weakly typed, as in many optimisers.
    return train.Run({"w": 8.0, "key": key}, step, evaluate)


# --- the grid ------------------------------------------------------------------------


def test_grid_is_the_product():
    """The last axis varies fastest; every array is as long as the product."""
    found = train.grid(a=[1, 2], b=jnp.array([0.5, 1.5, 2.5]))
    np.testing.assert_array_equal(found["a"], [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(found["b"], [0.5, 1.5, 2.5] * 2)
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}


def test_labels_tell_configurations_apart():
    """Short where the number is, and different for neighbouring float32 numbers."""
    near = [0.1, np.nextafter(np.float32(0.1), np.float32(1))]
    labels = train.grid_labels({"gamma": [2, 0.5], "lr": near})
    assert labels == ["gamma=2, lr=0.1", "gamma=0.5, lr=0.10000001"]
    assert train.grid_labels({"lr": [1e-8]}) == ["lr=1e-08"]


# --- the table -----------------------------------------------------------------------


def test_table_has_a_row_per_run():
    """Hyperparameters, seed, metrics; seeds vary fastest; exact for these rates."""
    done: list[int] = []
    how = {"steps": 7, "chunk": 3, "progress": done.append}
    table = train.sweep(descend, RATES, (5, 2**32 - 1), data=np.float32(1), **how)
    assert list(table) == ["rate", "seed", "draw", "w"]
    assert {type(x) for x in table.values()} == {np.ndarray}
    assert {x.shape for x in table.values()} == {(6,)}
    np.testing.assert_array_equal(table["rate"], np.repeat(RATES["rate"], 2))
    np.testing.assert_array_equal(table["seed"], [5, 2**32 - 1] * 3)
    np.testing.assert_array_equal(table["w"], np.repeat([8, 1 + 7 / 2**7, 1], 2))
    draws = [jax.random.uniform(jax.random.key(s)) for s in (5, 2**32 - 1)]
    np.testing.assert_array_equal(table["draw"], draws * 3)
    assert done == [3, 3, 1]


def test_chunks_do_not_matter():
    """Any chunk is the same program: the same bits, and progress sums to the steps."""
    tables = []
    for chunk in (1, 3, 7, 50):
        done: list[int] = []
        how = {"steps": 7, "chunk": chunk, "progress": done.append}
        tables.append(train.sweep(descend, {"rate": [0.3, 0.7]}, [0], **how))
        assert done == [chunk] * (7 // chunk) + [7 % chunk] * (7 % chunk > 0)
    for table in tables[1:]:
        for name, column in table.items():
            np.testing.assert_array_equal(column, tables[0][name])


def test_everything_is_traced_once():
    """Three programs, for any runs, steps, chunks; again with new keys and data."""
    traces: list[str] = []
    train_fn = lambda *arguments: descend(*arguments, traces=traces)
    finals = runs(train_fn, RATES, steps=7, chunk=2)
    for seed in (0, 1):
        found = finals(jax.random.key(seed), np.float32(seed))
        np.testing.assert_array_equal(found["w"], [8, seed + (8 - seed) / 2**7, seed])
    assert sorted(traces) == ["evaluate", "step"] + ["train_fn"] * 3


def test_a_sweep_is_the_loop_over_its_runs():
    """Focal losses under Adam, with batches drawn by the key: each run as if alone."""
    x = jax.random.normal(jax.random.key(1), (40, 3), jnp.float32)
    labels = jnp.float32(jnp.sin(jnp.sum(2 * x, axis=1)) > 0)

    def fn(params, rows, *, gamma):
        losses = jaxloss.sigmoid_focal(x[rows] @ params, labels[rows], gamma=gamma)
        return {"focal": Mean.of(losses)}

    def train_fn(hyperparameters, key):
        objective = train.objective(fn, gamma=hyperparameters["gamma"])
        optimizer = optax.adam(hyperparameters["lr"])
        update = train.train_step(objective, optimizer)
        first = jax.random.normal(key, (3,), jnp.float32)
        state = train.TrainState.init(objective, optimizer, first)

        def step(state, i):
            rows = jax.random.randint(jax.random.fold_in(key, i), (8,), 0, 40)
            return update(state, rows)[0]

        evaluate = lambda s: {"w": jnp.sum(s.params), "steps": s.objective_state.count}
        return train.Run(state, step, evaluate)

    @jax.jit
    def alone(hyperparameters, key):
        run = train_fn(hyperparameters, key)
        body = lambda i, state: run.step(state, i.astype(jnp.int32))
        return run.evaluate(jax.lax.fori_loop(0, 20, body, run.state))

    table = train.sweep(
        train_fn, train.grid(gamma=[0, 0.5], lr=[0.1, 1]), range(2), steps=20
    )
    assert table["steps"].tolist() == [20] * 8
    assert len(set(table["w"].tolist())) == 8
    for row in range(8):
        values = {k: jnp.float32(table[k][row]) for k in ("gamma", "lr")}
        one = alone(values, jax.random.key(table["seed"][row]))
        # Mapping changes the order of sums, and 20 steps amplify that rounding.
        np.testing.assert_allclose(table["w"][row], one["w"], rtol=1e-4, atol=1e-4)


def test_metrics_keep_their_kind():
    """Truth values and integers stay; half precision, which no table knows, widens."""

    def train_fn(hyperparameters, key):
        half = jnp.bfloat16(1.5)
        evaluate = lambda x: {"half": half, "count": 3, "bad": jnp.isnan(x)}
        return train.Run(hyperparameters["x"], lambda x, i: x, evaluate)

    table = train.sweep(train_fn, {"x": [0.0, np.nan]}, [0], steps=1)
    assert table["half"].dtype == np.float32
    assert np.issubdtype(table["count"].dtype, np.integer)
    np.testing.assert_array_equal(table["bad"], [False, True])


def test_an_interrupt_comes_through():
    """Between two chunks it is Python's turn; what stops there stops the sweep."""

    def interrupt(steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.sweep(descend, RATES, [0], steps=7, chunk=3, progress=interrupt)


# --- what is refused -----------------------------------------------------------------


def sweep(found: Any = 0.0, *, result=None, **changes):
    """A call that is right but for the changes, or for what `evaluate` returns."""

    def train_fn(hyperparameters, key):
        return result or train.Run(0.0, lambda x, i: x, lambda x: found)

    def progress(steps):
        pytest.fail("it has begun to train")

    call = {"train_fn": train_fn, "grid": RATES, "seeds": [0], "steps": 1} | changes
    three = [call.pop(name) for name in ("train_fn", "grid", "seeds")]
    return untyped.sweep(*three, progress=progress, **call)


BAD_CALLS = {
    "grid: `axes` has no names": lambda: train.grid(),
    "grid: `a` has no values": lambda: train.grid(a=[]),
    "grid: `a` has shape ()": lambda: untyped.grid(a=1.0),
    "grid: `a` has shape (1, 2)": lambda: untyped.grid(a=[[1, 2]]),
    "grid: `a` has type list": lambda: untyped.grid(a=["x"]),
    "grid: `a` has dtype bool": lambda: train.grid(a=[True]),
    "grid_labels: `grid` has type list": lambda: untyped.grid_labels([1]),
    "sweep: `train_fn` has type int": lambda: sweep(train_fn=3),
    "sweep: `train_fn` has a result of type tuple": lambda: sweep(result=(1, 2, 3)),
    "sweep: `grid` has type list": lambda: sweep(grid=[1.0]),
    "sweep: `grid` has no hyperparameters": lambda: sweep(grid={}),
    "sweep: `a` has no values": lambda: sweep(grid={"a": []}),
    "sweep: `grid` has arrays of different lengths, {'a': 1, 'b': 2}": lambda: sweep(
        grid={"a": [1], "b": [1, 2]}
    ),
    "sweep: `grid` has a hyperparameter 'seed'": lambda: sweep(grid={"seed": [1]}),
    "sweep: `seeds` has type int": lambda: sweep(seeds=3),
    "sweep: `seeds` has no values": lambda: sweep(seeds=[]),
    "sweep: `seeds` has 1.0 of type float": lambda: sweep(seeds=[1.0]),
    "sweep: `seeds` has True of type bool": lambda: sweep(seeds=[True]),
    "sweep: `seeds` has the value -1": lambda: sweep(seeds=[-1]),
    "sweep: `seeds` has the value 4294967296": lambda: sweep(seeds=[2**32]),
    "sweep: `seeds` has the same value twice": lambda: sweep(seeds=[1, 2, 1]),
    "sweep: `evaluate` has a result of type float": lambda: sweep(0.5),
    "sweep: `evaluate` has a metric 'rate', which": lambda: sweep({"rate": 0.5}),
    "sweep: `evaluate` has a metric 'seed', which": lambda: sweep({"seed": 0.5}),
    "sweep: `evaluate` has shape (2,)": lambda: sweep({"loss": jnp.zeros(2)}),
    "sweep: `evaluate` has type dict": lambda: sweep({"loss": {}}),
    "sweep: `evaluate` has dtype complex64": lambda: sweep({"loss": np.complex64(1)}),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls_raise_before_the_training(message):
    """The message names the function and the argument, and says what to do."""
    with pytest.raises((TypeError, ValueError)) as raised:
        BAD_CALLS[message]()
    assert str(raised.value).startswith(message)
    assert "; expected " in str(raised.value)


@pytest.mark.parametrize("name", ["steps", "chunk"])
def test_sweep_checks_its_numbers(name):
    """Both count steps."""
    with pytest.raises(ValueError, match=f"sweep: `{name}` is 0; expected at least 1"):
        sweep(**{name: 0})
    with pytest.raises(TypeError, match=f"sweep: `{name}` is float; expected a Python"):
        sweep(**{name: 1.0})


# --- the example ---------------------------------------------------------------------


def test_example_learns(capsys):
    """It fits on a screen, and every configuration learns in a tenth of its steps."""
    source = EXAMPLE.read_text()
    assert len(source.splitlines()) < 40
    assert source.count("STEPS = 300") == 1
    names: dict[str, Any] = {"__name__": "__main__"}
    with jax.enable_x64(False):
        exec(compile(source.replace("= 300", "= 30"), EXAMPLE, "exec"), names)
    table = names["table"]
    assert {x.shape for x in table.values()} == {(192,)}
    # 63% are benign, which is what a model that learnt nothing would say.
    assert table["accuracy"].min() > 0.8
    assert len(set(names["mean"].tolist())) > 8
    assert capsys.readouterr().out.startswith("accuracy 0.9")
