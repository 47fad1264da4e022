"""Models that change as they run: Flax NNX, and the carry that any model may use.

The reference runs the parts of a batch one after the other in plain Python and is
differentiated as a whole, in float64; so is what it is compared with.
"""

import doctest
import functools
import pathlib
import subprocess
import sys
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn, nnx

import jaxloss
from jaxloss import Mean, train
from jaxloss.train import nnx as adapter

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"


class Net(nnx.Module):
    """What goes wrong if the state of a model is not carried: statistics and noise."""

    def __init__(self, rate=0.5, axis_name=None):
        rngs = nnx.Rngs(0)
        wide: Any = {"param_dtype": jnp.float64}
        # No bias: behind it BatchNorm takes the mean away, and its gradient is 0.
        self.hidden = nnx.Linear(3, 5, use_bias=False, rngs=rngs, **wide)
        self.norm = nnx.BatchNorm(
            5, momentum=0.75, axis_name=axis_name, rngs=rngs, **wide
        )
        # Flax keeps these in float32, whatever the dtype of the rest.
        self.norm.mean = nnx.BatchStat(jnp.zeros(5))
        self.norm.var = nnx.BatchStat(jnp.ones(5))
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.out = nnx.Linear(5, 1, rngs=rngs, **wide)

    def __call__(self, x):
        return self.out(self.dropout(jnp.tanh(self.norm(self.hidden(x)))))[..., 0]


def make_batch():
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(16, 3)), "y": rng.normal(size=16)}
    return jax.tree.map(jnp.asarray, batch | {"mask": rng.random(16) < 0.6})


def fit(model, batch):
    return {"fit": Mean.of((model(batch["x"]) - batch["y"]) ** 2, where=batch["mask"])}


def root(state, totals):
    return jnp.sqrt(totals["fit"].compute()), {}


def in_a_row(model, batch, parts, combine=lambda mean: mean):
    """Loss, gradient and final state, from `parts` calls of the model."""
    graph, params, rest = nnx.split(nnx.clone(model), nnx.Param, ...)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, rest, batch):
        module = nnx.merge(graph, params, rest, copy=True)
        total, weight = 0.0, 0
        for k in range(parts):
            part = jax.tree.map(lambda x, k=k: x[k::parts], batch)
            error = (module(part["x"]) - part["y"]) ** 2
            total += jnp.sum(error * part["mask"])
            weight += jnp.sum(part["mask"])
        return combine(total / weight), nnx.split(module, nnx.Param, ...)[-1]

    (value, rest), grads = loss(params, rest, batch)
    return value, grads, rest


def assert_close(found, expected, relative=1e-12):
    """Of all that floats, the norm of the error; counters and keys exactly."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if not jnp.issubdtype(y.dtype, jnp.floating):
            assert jnp.all(x == y)
        else:
            assert jnp.linalg.norm(x - y) <= relative * jnp.linalg.norm(y)


# ------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(
    ("combine", "microbatches"), [(None, 1), (None, 4), (root, 2), (root, 4)]
)
def test_parts_are_calls_in_a_row(combine, microbatches):
    """Loss, gradient, running statistics and counters of noise, whatever combine."""
    objective, model, batch = train.objective(fit, combine), Net(), make_batch()
    formula = jnp.sqrt if combine else lambda mean: mean
    loss, grads, rest = in_a_row(model, batch, microbatches, formula)
    evaluate = adapter.value_and_grad(objective, microbatches=microbatches)
    found = nnx.jit(evaluate)(model, objective.init(), batch)
    assert_close((found.loss, found.grads), (loss, grads))
    assert_close(nnx.split(model, nnx.Param, ...)[-1], rest)
    counts = nnx.state(model, nnx.RngCount)
    assert jax.tree.leaves(counts) == [microbatches]
    assert found.state.count == 1
    assert found.state.carry is None


def test_state_that_stands_still_would_fail_these_tests():
    """Every part with the first part's noise and statistics is off by more than 1%."""
    model, batch, parts = Net(), make_batch(), 4
    _, expected, _ = in_a_row(model, batch, parts)
    weight = jnp.sum(batch["mask"])
    frozen = 0.0
    for k in range(parts):
        part = jax.tree.map(lambda x, k=k: x[k::parts], batch)
        _, grads, _ = in_a_row(model, part, 1)
        share = jnp.sum(part["mask"]) / weight
        frozen += share * grads["hidden"]["kernel"][...]
    exact = expected["hidden"]["kernel"][...]
    assert jnp.linalg.norm(frozen - exact) > 1e-2 * jnp.linalg.norm(exact)


def test_evaluation_mode_leaves_the_model_alone():
    """Then parts are parts of one function: the cut is exact, nothing is updated."""
    objective, batch, model = train.objective(fit), make_batch(), Net()
    model.norm.mean[...] = jnp.full(5, 0.25)
    model.eval()
    before = jax.tree.map(jnp.copy, nnx.state(model))
    evaluate = [
        nnx.jit(adapter.value_and_grad(objective, microbatches=k)) for k in (1, 4)
    ]
    whole, parts = (fn(model, objective.init(), batch) for fn in evaluate)
    assert_close((parts.loss, parts.grads), (whole.loss, whole.grads))
    assert_close(nnx.state(model), before, 0)


# ---------------------------------------------------------------------------- training


def test_train_step_is_the_loop_by_hand():
    """Three donated steps of Adam: parameters, statistics, losses, one compilation."""
    objective, batch = train.objective(fit), make_batch()
    model, reference = Net(), Net()
    optimizer, by_hand = (
        nnx.Optimizer(m, optax.adam(0.01), wrt=nnx.Param) for m in (model, reference)
    )
    take, traces = adapter.train_step(objective, microbatches=2), []

    @functools.partial(nnx.jit, donate_argnums=(0, 1, 2))
    def step(*args):
        traces.append(1)
        return take(*args)

    state = objective.init()
    held = jax.tree.leaves((nnx.state(model), nnx.state(optimizer), state))
    for _ in range(3):
        state, metrics = step(model, optimizer, state, batch)
        loss, grads, rest = in_a_row(reference, batch, 2)
        by_hand.update(reference, grads)
        nnx.update(reference, rest)
        assert_close(metrics["loss"], loss)
        assert_close(metrics["fit"], loss)
    # Adam divides by the size of the gradient: relative errors add up over 3 steps.
    assert_close(nnx.state(model), nnx.state(reference), 1e-10)
    assert len(traces) == 1
    assert state.count == 3
    assert all(x.is_deleted() for x in held if jnp.issubdtype(x.dtype, jnp.floating))


def test_the_optimizer_says_what_to_train():
    """Its `wrt` selects, its transformation receives the loss if it asks for it."""

    def update(updates, state, params=None, **extra):
        return updates, extra["value"]

    remember = optax.GradientTransformationExtraArgs(lambda params: 0.0, update)
    asks = optax.chain(optax.sgd(0.1), remember)
    takes_none = optax.GradientTransformation(*optax.sgd(0.1))
    step = nnx.jit(adapter.train_step(train.objective(fit)))
    for transformation in (asks, takes_none):
        model, state = Net(), train.objective(fit).init()
        hidden, out = model.hidden.kernel[...], model.out.kernel[...]
        optimizer = nnx.Optimizer(model, transformation, wrt=nnx.PathContains("out"))
        _, metrics = step(model, optimizer, state, make_batch())
        assert jnp.all(model.hidden.kernel[...] == hidden)
        assert jnp.all(model.out.kernel[...] != out)
        if transformation is asks:
            assert jax.tree.leaves(optimizer.opt_state) == [metrics["loss"]]


def test_combinators_see_the_module():
    """`l2` of the kernels, and a hyperparameter by a schedule, on top of an NNX fn."""

    def scaled(model, batch, *, scale):
        mean = fit(model, batch)["fit"]
        return {"fit": Mean(scale.astype(jnp.float64) * mean.total, mean.weight)}

    inner = train.objective(scaled, scale=lambda count: count + 2)
    objective, model, batch = train.l2(inner, 0.5, select=train.decayed), Net(), 0
    batch = make_batch()
    kernels = [model.hidden.kernel[...], model.out.kernel[...]]
    loss, grads, _ = in_a_row(model, batch, 2)
    evaluate = adapter.value_and_grad(objective, microbatches=2)
    found = nnx.jit(evaluate)(model, objective.init(), batch)
    norm = sum(jnp.sum(k**2) for k in kernels)
    assert_close(found.metrics["l2"], norm)
    assert_close(found.loss, 2 * loss + norm / 2)
    kernel = 2 * grads["out"]["kernel"][...] + kernels[1]
    assert_close(found.grads["out"]["kernel"][...], kernel)


def test_weights_of_terms_are_learnt_beside_a_module():
    """A dict of a module and log variances is a model too."""
    learnt = train.uncertainty_weighted(train.objective(fit), ["fit"])
    log_variances = {"fit": nnx.Param(jnp.float64(0.5))}
    both, batch = {"model": Net(), "log_variances": log_variances}, make_batch()
    loss, grads, rest = in_a_row(both["model"], batch, 2)
    evaluate = adapter.value_and_grad(learnt, microbatches=2)
    found = nnx.jit(evaluate)(both, learnt.init(), batch)
    factor = jnp.exp(-0.5) / 2
    assert_close(found.loss, factor * loss + 0.25)
    assert_close(found.grads["log_variances"]["fit"][...], 0.5 - factor * loss)
    expected = jax.tree.map(lambda g: factor * g, grads)
    assert_close(found.grads["model"], expected)
    assert_close(nnx.split(both["model"], nnx.Param, ...)[-1], rest)


# ---------------------------------------------------------------------------- devices


def mapped(microbatches, rate):
    """Four `vmap` lanes that normalise together; what each of them finds."""
    objective, batch = train.objective(fit), make_batch()
    graph, params, rest = nnx.split(Net(rate, axis_name="data"), nnx.Param, ...)
    evaluate = adapter.value_and_grad(
        objective, microbatches=microbatches, axis_name="data"
    )

    def lane(params, rest, part):
        model = nnx.merge(graph, params, rest, copy=True)
        found = evaluate(model, objective.init(), part)
        return found.loss, found.grads, nnx.split(model, nnx.Param, ...)[-1]

    lanes = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), batch)
    lane = jax.vmap(lane, in_axes=(None, None, 0), axis_name="data")
    return jax.jit(lane)(params, rest, lanes)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_devices_that_normalise_together_are_exact(microbatches):
    """BatchNorm over the axis: gradient and statistics are those of one device."""
    found = mapped(microbatches, rate=0.0)
    expected = in_a_row(Net(0.0), make_batch(), microbatches)
    for lane in range(4):
        assert_close(jax.tree.map(lambda x, i=lane: x[i], found), expected)


def test_devices_drop_different_units_and_keep_one_state():
    """The key of a device is its own, while all of them go on from the same state."""

    def drop(model, batch):
        return {"kept": jnp.sum(model(jnp.ones((len(batch), 64))) > 0, 0)}

    def combine(state, totals):
        return jnp.sum(totals["kept"]), totals

    objective = train.objective(drop, combine)
    evaluate = adapter.value_and_grad(objective, axis_name="data")

    class Noise(nnx.Module):
        def __init__(self):
            self.unused = nnx.Param(jnp.ones(()))
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.dropout(x)

    graph, params, rest = nnx.split(Noise(), nnx.Param, ...)

    def lane(batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = evaluate(model, objective.init(), batch)
        return found.metrics["kept"], nnx.split(model, nnx.Param, ...)[-1]

    kept, after = jax.vmap(lane, axis_name="data")(jnp.ones((4, 1)))
    assert jnp.any((kept[0] > 0) & (kept[0] < 4))  # not all four alike
    for before, now in zip(jax.tree.leaves(rest), jax.tree.leaves(after), strict=True):
        count = before.dtype == jnp.uint32
        assert jnp.all(now == (before + 1 if count else before))


SHARDED = """
    import jax
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_enable_x64", True)
    from flax import nnx
    from jax.sharding import AxisType, PartitionSpec as P
    from jaxloss import train
    from jaxloss.train import nnx as adapter
    from tests.train import test_nnx as t

    objective, batch = train.objective(t.fit), t.make_batch()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    graph, params, rest = nnx.split(t.Net(0.0, axis_name="data"), nnx.Param, ...)
    expected = t.in_a_row(t.Net(0.0), batch, 2)
    evaluate = adapter.value_and_grad(objective, microbatches=2, axis_name="data")

    def one(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        found = evaluate(model, objective.init(), batch)
        return found.loss, found.grads, nnx.split(model, nnx.Param, ...)[-1]

    # Device d holds 4 examples; its part k must be the examples k, k + 2, ... of all.
    for check_vma in (True, False):
        sharded = jax.shard_map(
            one, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P(),
            check_vma=check_vma,
        )
        t.assert_close(jax.jit(sharded)(params, rest, batch), expected)
        print("exact")
"""


def test_shard_map_is_exact():
    """With and without its checks, on 4 devices; statistics and counters included."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.splitlines() == ["exact"] * 2, done.stderr


# ------------------------------------------------------- the carry, without a framework


def smoothed(params, batch, *, carry, rate):
    """Errors against a running mean of the data, with noise: all of it is carried."""
    key, noise = jax.random.split(carry["key"])
    kept = jax.random.bernoulli(noise, 0.5, batch["y"].shape)
    mean = carry["mean"] + rate * (jnp.mean(batch["y"]) - carry["mean"])
    error = (batch["x"] @ params + mean - batch["y"]) ** 2
    terms = {"fit": Mean.of(error, where=batch["mask"] & kept)}
    return terms, {"key": key, "mean": mean, "parts": carry["parts"] + 1}


def make_carry():
    return {"key": jax.random.key(0), "mean": jnp.zeros(()), "parts": jnp.int32(0)}


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("combine", [None, root])
def test_a_carry_goes_from_part_to_part(combine, microbatches):
    """As a loop over the parts does it; combinators hand it through untouched."""
    params, batch = jnp.linspace(-1, 1, 3), make_batch()

    def loop(params):
        carry, sums = make_carry(), []
        for k in range(microbatches):
            part = jax.tree.map(lambda x, k=k: x[k::microbatches], batch)
            found, carry = smoothed(params, part, carry=carry, rate=0.5)
            sums.append(found["fit"])
        mean = sum(sums[1:], sums[0]).compute()
        fit = jnp.sqrt(mean) if combine else mean
        return fit + jnp.sum(params**2) / 4, carry

    (loss, carry), grads = jax.value_and_grad(loop, has_aux=True)(params)
    inner = train.objective(smoothed, combine, carry=make_carry(), rate=0.5)
    objective = train.l2(train.weighted(inner, {"fit": 1.0}), 0.25)
    evaluate = jax.jit(train.value_and_grad(objective, microbatches=microbatches))
    found = evaluate(params, objective.init(), batch)
    assert_close((found.loss, found.grads), (loss, grads))
    assert_close(found.state.carry, carry)


def test_the_first_carry_stays_the_callers():
    """`init` copies it: two states may be donated, and a third one made."""
    carry = make_carry()
    objective = train.objective(smoothed, carry=carry, rate=0.5)
    optimizer = optax.sgd(0.1)
    step = jax.jit(train.train_step(objective, optimizer), donate_argnums=0)
    for _ in range(2):
        state = train.TrainState.init(objective, optimizer, jnp.ones(3))
        for _ in range(2):
            state, _ = step(state, make_batch())
        assert state.objective_state.carry["parts"] == 2
    assert carry["parts"] == 0


def test_devices_agree_on_the_carry():
    """The mean of what floats; of counters and keys, which must not differ, one."""

    def fn(params, batch, *, carry):
        index = jax.lax.axis_index("data")
        carry |= {"mean": carry["mean"] + index, "parts": carry["parts"] + 1}
        return {"fit": Mean.of(params * batch)}, carry

    first = make_carry() | {"flag": jnp.array(True)}
    objective = train.objective(fn, carry=first)
    evaluate = train.value_and_grad(objective, microbatches=2, axis_name="data")
    lanes = jax.vmap(evaluate, in_axes=(None, None, 0), axis_name="data")
    carry = lanes(jnp.ones(()), objective.init(), jnp.ones((4, 2))).state.carry
    assert carry["mean"].tolist() == [2 * 1.5] * 4
    assert carry["parts"].tolist() == [2] * 4
    assert carry["flag"].tolist() == [True] * 4
    assert jnp.all(carry["key"] == first["key"])


# -------------------------------------------------------------------------- bad input

untyped: Any = train
untyped_adapter: Any = adapter  # the type checker would refuse most of these calls
plain = untyped.objective(fit)


def carried(returned):
    fn = lambda params, batch, *, carry: returned
    objective = untyped.objective(fn, carry={"n": jnp.zeros(2)})
    return untyped.value_and_grad(objective)(1.0, objective.init(), jnp.ones(2))


def stepped(optimizer=None, model=None):
    model = Net() if model is None else model
    return untyped_adapter.train_step(plain)(
        model, optimizer, plain.init(), make_batch()
    )


class Grows(Net):
    def __call__(self, x):
        self.seen = nnx.Intermediate(x)
        return super().__call__(x)


MEANS = {"fit": Mean.of(jnp.ones(2))}
BAD_CALLS = {
    "objective: `fn` has a result of type dict; expected a pair": lambda: carried(
        MEANS
    ),
    "objective: `fn` has the parameters (model, batch)": lambda: untyped.objective(
        fit, carry=1.0
    ),
    "objective: `fn` has a term 'carry', which is": lambda: carried(
        (MEANS | {"carry": MEANS["fit"]}, 1)
    ),
    "value_and_grad: `carry` has {\"['n']\": 'float64[3]'}; expected": lambda: carried(
        (MEANS, {"n": jnp.zeros(3)})
    ),
    "value_and_grad: `carry` has {\"['n']\": None}; expected": lambda: carried(
        (MEANS, {})
    ),
    "value_and_grad: `carry` has {": lambda: untyped_adapter.value_and_grad(plain)(
        Grows(), plain.init(), make_batch()
    ),
    "value_and_grad: `objective` has type function": lambda: (
        untyped_adapter.value_and_grad(fit)
    ),
    "value_and_grad: `microbatches` is 0": lambda: untyped_adapter.train_step(
        plain, microbatches=0
    ),
    "value_and_grad: `wrt` has the value <class 'flax.nnx": lambda: (
        untyped_adapter.value_and_grad(plain, wrt=nnx.LoRAParam)(
            Net(), plain.init(), make_batch()
        )
    ),
    "train_step: `optimizer` has type NoneType": stepped,
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls_raise(message):
    """The message names the function and the argument, and says what to do."""
    with pytest.raises((TypeError, ValueError)) as raised:
        BAD_CALLS[message]()
    assert str(raised.value).startswith(message)
    assert "; expected " in str(raised.value)


# --------------------------------------------------------------------------- examples


@pytest.mark.parametrize("name", ["value_and_grad", "train_step"])
def test_docstrings_run_as_printed(name):
    """What a docstring shows is what a reader's session prints."""
    names = {"jaxloss": jaxloss, "jax": jax, "jnp": jnp}
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(getattr(adapter, name), name, globs=names)
    with jax.enable_x64(False):
        assert doctest.DocTestRunner().run(test).failed == 0


def loss_of_all_logits(framework, names):
    """What the head is spared: cross entropy of the logits that `__call__` gives."""
    given, ids = names["ids"][:64], names["ids"][1:65]
    if framework == "nnx":
        logits = names["model"](given)
    else:
        params = nn.unbox(names["state"].params)
        logits = names["net"].apply({"params": params}, given)
    return jaxloss.softmax_cross_entropy(logits, ids).mean()


@pytest.mark.parametrize("framework", ["nnx", "linen"])
def test_examples_of_a_large_vocabulary_learn(framework, capsys):
    """Each fits on a screen and learns thousands of words from the hidden states; the
    loss is that of all logits, which the model gives when it is called."""
    path = EXAMPLES / f"vocabulary_{framework}.py"
    source = path.read_text()
    assert len(source.splitlines()) <= 40
    assert source.count("STEPS, WIDTH = 60, ") == 1
    names: dict[str, Any] = {"__name__": "__main__"}
    with jax.enable_x64(False):
        exec(compile(source.replace("= 60, ", "= 16, "), path, "exec"), names)
        words = {"word": names["ids"][:64], "next": names["ids"][1:65]}
        model = names["model"] if framework == "nnx" else names["state"].params
        found = names["fn"](model, words)["nats"].compute()
        expected = loss_of_all_logits(framework, names)
    np.testing.assert_allclose(found, expected, 1e-6)
    first, last = names["losses"][0], names["losses"][-1]
    assert np.log(len(names["words"])) - 0.2 < first < np.log(len(names["words"])) + 0.2
    assert last < first - 0.4
    assert capsys.readouterr().out.startswith("loss [")


@pytest.mark.parametrize(
    "framework", ["plain", "nnx", "linen", "equinox", "equinox_loop", "keras"]
)
def test_examples_learn(framework, capsys):
    """Each is short, runs, and at least halves the loss in 24 steps."""
    path = EXAMPLES / f"train_{framework}.py"
    source = path.read_text()
    assert len(source.splitlines()) < 80
    assert source.count("STEPS = 60") == 1
    names: dict[str, Any] = {"__name__": "__main__"}
    # A dense layer of Keras adds its bias to rows.
    ranks = "allow" if framework == "keras" else "raise"
    with jax.enable_x64(False), jax.numpy_rank_promotion(ranks):
        exec(compile(source.replace("= 60", "= 24"), path, "exec"), names)
    first, last = names["losses"][0], np.mean(names["losses"][-4:])
    assert last < first / 2
    assert capsys.readouterr().out.startswith("loss [")
