"""Sums across steps and evaluation batches: exact where means of means are not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import Mean, testing, train
from jaxloss.testing import tolerance

untyped: Any = train
RNG = np.random.default_rng(0)
PARAMS = {"w": jnp.asarray(RNG.normal(size=(3, 2))), "b": jnp.zeros(2)}
WHOLE = {
    "x": jnp.asarray(RNG.normal(size=(12, 3))),
    "y": jnp.asarray(RNG.integers(0, 2, 12)),
    "mask": jnp.asarray([1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0], bool),
}
# Three batches of different lengths, of which the last counts for nothing.
BATCHES = [
    jax.tree.map(lambda x, s=s: x[s], WHOLE) for s in (slice(0, 7), slice(7, 12))
]
BATCHES.append(jax.tree.map(lambda x: x[:2], WHOLE) | {"mask": jnp.zeros(2, bool)})


def probabilities(params, batch):
    return jax.nn.softmax(batch["x"] @ params["w"] + params["b"][None])


def classes(params, batch):
    losses = -jnp.log(
        probabilities(params, batch)[jnp.arange(len(batch["y"])), batch["y"]]
    )
    return {"fit": Mean.of(losses, where=batch["mask"])}


def two_tasks(params, batch):
    size = jnp.sum((batch["x"] @ params["w"]) ** 2, axis=-1)
    return classes(params, batch) | {"size": Mean.of(size, where=batch["y"] == 0)}


def counts(params, batch):
    """The counts of a Dice coefficient per class, of shape [2]."""
    t = jax.nn.one_hot(batch["y"], 2) * batch["mask"][:, None]
    p = probabilities(params, batch) * batch["mask"][:, None]
    return {"hit": jnp.sum(p * t, axis=0), "all": jnp.sum(p + t, axis=0)}


def dice(_, totals):
    return jnp.mean(1 - 2 * totals["hit"] / totals["all"]), {}


def root(_, totals):
    return jnp.sqrt(totals["fit"].compute()), {"mean": totals["fit"].compute()}


OBJECTIVES = {
    "masked mean": train.objective(classes),
    "two tasks": train.weighted(train.objective(two_tasks), {"size": 0.3}),
    "l2": train.l2(train.objective(classes), 0.1),
    "dice": train.objective(counts, dice),
    "root": train.objective(classes, root),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_batches_give_the_gradient_of_the_whole(name):
    """Of different lengths, one without any example that counts; any combine."""
    objective = OBJECTIVES[name]
    state = objective.init()
    add, finish = train.accumulate(objective)
    sums = None
    for batch in BATCHES:
        sums = jax.jit(add)(PARAMS, state, batch, sums)
    found = jax.jit(finish)(PARAMS, state, sums)
    expected = jax.grad(
        lambda p: objective.combine(state, objective.stats(p, state, WHOLE))[0]
    )(PARAMS)
    for key in PARAMS:
        np.testing.assert_allclose(
            found.grads[key], expected[key], rtol=tolerance(np.float32, 8), atol=1e-8
        )
    assert found.state.count == 1
    direct = train.value_and_grad(objective)(PARAMS, state, WHOLE)
    np.testing.assert_allclose(found.loss, direct.loss, rtol=tolerance(np.float32, 8))
    assert found.metrics.keys() == direct.metrics.keys()


def test_multi_steps_of_optax_would_fail():
    """A mean of the batches' gradients is off by more than a tenth."""
    objective = OBJECTIVES["masked mean"]
    evaluate = train.value_and_grad(objective)
    steps = optax.MultiSteps(optax.sgd(1.0), 2)
    updates: Any = None
    state = steps.init(PARAMS)
    for batch in BATCHES[:2]:
        grads = evaluate(PARAMS, objective.init(), batch).grads
        updates, state = steps.update(grads, state, PARAMS)
    exact = evaluate(PARAMS, objective.init(), WHOLE).grads
    off = max(float(jnp.max(jnp.abs(updates[k] + exact[k]))) for k in PARAMS)
    assert off > 0.1 * max(float(jnp.max(jnp.abs(exact[k]))) for k in PARAMS)


def test_one_bad_batch_spoils_one_step():
    """The next accumulation starts from nothing, not from a NaN."""
    objective = OBJECTIVES["masked mean"]
    state = objective.init()
    add, finish = train.accumulate(objective)
    bad = WHOLE | {"x": jnp.full_like(WHOLE["x"], jnp.nan)}
    assert jnp.isnan(finish(PARAMS, state, add(PARAMS, state, bad, None)).loss)
    assert jnp.isfinite(finish(PARAMS, state, add(PARAMS, state, WHOLE, None)).loss)


def test_only_what_depends_on_the_parameters_has_a_slope():
    """The weight of a mean costs no memory; gradients add up in float32."""
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    objective = OBJECTIVES["masked mean"]
    add, finish = train.accumulate(objective)
    sums = add(half, objective.init(), WHOLE, None)
    assert sums.slopes["fit"].weight is None
    assert {x.dtype for x in jax.tree.leaves(sums.slopes)} == {jnp.dtype(jnp.float32)}
    grads = finish(half, objective.init(), sums).grads
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


def test_devices_are_added_up_once():
    """Under `vmap(axis_name=)`, four devices with three examples each."""
    objective = OBJECTIVES["two tasks"]
    add, finish = train.accumulate(objective, axis_name="data")
    parts = jax.tree.map(lambda x: x.reshape(2, 2, 3, *x.shape[1:]), WHOLE)

    def device(batches):
        sums: Any = None
        for k in range(2):
            part = jax.tree.map(lambda x, k=k: x[k], batches)
            sums = add(PARAMS, objective.init(), part, sums)
        return finish(PARAMS, objective.init(), sums)

    found = jax.vmap(device, axis_name="data")(parts)
    expected = train.value_and_grad(objective)(PARAMS, objective.init(), WHOLE)
    for key in PARAMS:
        for grads in found.grads[key]:
            np.testing.assert_allclose(grads, expected.grads[key], rtol=1e-6, atol=1e-8)


# --- evaluation ------------------------------------------------------------------


def test_evaluation_adds_sums():
    """The metrics of a data set, not the mean of the metrics of its batches."""
    objective = OBJECTIVES["two tasks"]
    state = objective.init()
    loss, metrics = train.evaluate(objective, PARAMS, state, iter(BATCHES[:2]))
    whole = train.value_and_grad(objective)(PARAMS, state, WHOLE)
    np.testing.assert_allclose(loss, whole.loss, rtol=1e-12)
    for name, value in whole.metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-12)
    with pytest.raises(ValueError, match=r"^evaluate: `batches` has no batch"):
        train.evaluate(objective, PARAMS, state, [])


TENTH = np.float32(0.1)


def tenths(params, batch):
    """A mean, of weight 1 a batch, and counts beside it."""
    losses = params * TENTH * batch
    return {"fit": Mean.of(losses), "plain": jnp.sum(losses)}


def mean_and_plain(_, totals):
    mean = totals["fit"].compute()
    return mean, {**totals["fit"].__dict__, "plain": totals["plain"]}


TENTHS = train.objective(tenths, mean_and_plain)


def test_evaluation_of_many_batches():
    """In float64: by float32, 3000 tenths are off by 3e-5."""
    count = 3_000
    one, params = np.ones(1, np.float32), jnp.float32(1)
    _, found = train.evaluate(TENTHS, params, TENTHS.init(), [one] * count)
    for name in ("total", "plain"):
        np.testing.assert_allclose(found[name], np.float64(TENTH) * count, rtol=2**-24)
        assert found[name].dtype == jnp.float32
    assert found["weight"] == count


def test_evaluation_does_not_stall():
    """Weights of 1 after 2^24 of them: the next ones count."""
    fn = lambda p, n: {"fit": Mean(p * n.astype(jnp.float32), n.astype(jnp.float32))}
    combine = lambda _, totals: (totals["fit"].compute(), totals["fit"].__dict__)
    fit = train.objective(fn, combine)
    batches = [np.array(n) for n in (2**24, *[1] * 64)]
    evaluate = lambda p: train.evaluate(fit, p, fit.init(), batches)[1]["weight"]
    assert evaluate(jnp.float32(1)) == 2**24 + 64
    assert jax.jit(evaluate)(jnp.float32(1)) == 2**24 + 64


@pytest.mark.parametrize("first", ["none", "old"])
def test_accumulation_of_a_million_batches(first):
    """Sums and gradients to the last digit, and on from sums without rests, as those
    that an older version has saved."""
    count, one = 1_000_000, jnp.ones(1, jnp.float32)
    add, finish = train.accumulate(TENTHS)
    params, state = jnp.float32(1), TENTHS.init()
    sums = add(params, state, one, None)
    if first == "old":
        totals, slopes = sums.totals, sums.slopes
        old = {"total": totals["fit"].total, "weight": totals["fit"].weight}
        kept = {"total": slopes["fit"].total, "weight": None}
        sums = train.Accumulator(
            totals | {"fit": Mean(**old)}, slopes | {"fit": Mean(**kept)}
        )
        sums = add(params, state, one, sums)
        count += 1
    more = lambda _, sums: add(params, state, one, sums)
    sums = jax.jit(lambda s: jax.lax.fori_loop(0, 999_999, more, s))(sums)
    exact = np.float64(TENTH) * count
    for found in (sums.totals["fit"].total, sums.totals["plain"]):
        np.testing.assert_allclose(found, exact, rtol=2**-24)
    for found in (sums.slopes["fit"].total, sums.slopes["plain"]):
        np.testing.assert_allclose(found, exact, rtol=2**-24)
    assert sums.totals["fit"].weight == count
    assert sums.slopes["fit"].weight is None
    np.testing.assert_allclose(finish(params, state, sums).grads, TENTH, rtol=2**-22)


def test_means_that_are_added_in_fn():
    """A sum of Means has the gradient of one: in one pass, micro-batches too."""
    fn = lambda p, x: {"fit": Mean.of(p * x) + Mean.of(p * x * x)}
    fit, x = train.objective(fn), jnp.array([1.0, 2.0, 5.0, 6.0])
    for parts in (1, 2):
        found = train.value_and_grad(fit, microbatches=parts)(1.5, fit.init(), x)
        np.testing.assert_allclose(found.grads, np.mean(x + x * x) / 2, rtol=1e-12)
    weigh = train.value_and_grad(
        train.objective(lambda p, x: {"fit": Mean.of(p * jax.lax.stop_gradient(x))}),
        microbatches=2,
    )
    found = weigh(1.5, fit.init(), x)
    np.testing.assert_allclose(found.grads, np.mean(x), rtol=1e-12)


def test_padding_keeps_the_numbers_and_the_compilation():
    """A ragged last batch, filled up: the same loss, and nothing is compiled again."""
    traces = []

    def fn(params, batch):
        traces.append(1)
        return {"fit": Mean.of((params * batch["x"]) ** 2, where=batch["real"])}

    objective = train.objective(fn)
    x = np.arange(1.0, 8.0)

    def padded(rows):
        batch, real = train.pad_batch({"x": rows}, 4)
        return batch | {"real": real}

    loss, _ = train.evaluate(
        objective, jnp.array(2.0), objective.init(), map(padded, (x[:4], x[4:]))
    )
    np.testing.assert_allclose(loss, np.mean((2 * x) ** 2), rtol=1e-12)
    assert len(traces) == 1


def test_padding_refuses_what_it_cannot_pad():
    """Too many examples, none, or leaves of different lengths."""
    for batch in (
        np.ones(5),
        np.ones(0),
        np.float64(1),
        {"a": np.ones(2), "b": np.ones(3)},
    ):
        with pytest.raises(ValueError, match=r"^pad_batch: `batch` has leaves of"):
            train.pad_batch(batch, 4)
    with pytest.raises(TypeError, match=r"^pad_batch: `size` is float"):
        untyped.pad_batch(np.ones(2), 4.0)
    with pytest.raises(TypeError, match=r"^accumulate: `objective` has type function"):
        untyped.accumulate(classes)


# --- losses that couple the examples ---------------------------------------------


def contrastive(params, batch):
    losses = jaxloss.nt_xent(batch["x"] @ params["w"], batch["y"], temperature=0.5)
    return {"contrast": Mean.of(losses)}


def test_a_coupled_loss_is_refused_in_parts():
    """On the whole batch it is right; on a part it would be another loss."""
    objective = train.objective(contrastive)
    run = lambda **cut: train.value_and_grad(objective, **cut)(
        PARAMS, objective.init(), WHOLE
    )
    assert jnp.isfinite(run().loss)
    with pytest.raises(ValueError, match=r"^nt_xent: .*one micro-batch"):
        run(microbatches=3)
    with pytest.raises(ValueError, match=r"parallel\.nt_xent"):
        jax.vmap(lambda _: run(axis_name="data"), axis_name="data")(jnp.arange(2))
    add, _ = train.accumulate(objective)
    with pytest.raises(ValueError, match=r"^nt_xent: .*one micro-batch"):
        add(PARAMS, objective.init(), WHOLE, None)
    assert jnp.isfinite(run().loss)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_ours_are_decomposable(name):
    testing.assert_decomposable(OBJECTIVES[name], PARAMS, WHOLE, parts=(3, 4))


def averaged(params, batch):
    """Divided too early: the classic mistake."""
    mean = classes(params, batch)["fit"].compute()
    return {"fit": Mean.of(jnp.full(len(batch["y"]), mean))}


def normalised(params, batch):
    """A model that looks at the whole batch."""
    logits = batch["x"] @ params["w"]
    logits = logits - jnp.mean(logits, axis=0, keepdims=True)
    return {"fit": Mean.of(jaxloss.softmax_cross_entropy(logits, batch["y"]))}


@pytest.mark.parametrize("fn", [averaged, normalised, contrastive])
def test_what_is_not_decomposable_is_found(fn):
    with pytest.raises(AssertionError, match=r"^in 2 parts, the loss is off by"):
        testing.assert_decomposable(train.objective(fn), PARAMS, WHOLE)


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match=r"^assert_decomposable: `batch` has \[12\]"):
        testing.assert_decomposable(OBJECTIVES["l2"], PARAMS, WHOLE, parts=(5,))
