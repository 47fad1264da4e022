"""One gradient per task, and what PCGrad and GradNorm make of them.

References are the algorithms of the papers in float64 NumPy, one task at a time.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxloss import Mean, train

untyped: Any = train
TASKS = ["value", "class", "size"]


def norm_of(x):
    return np.sqrt(np.sum(np.square(x)))


def assert_close(found, expected, relative=1e-6):
    """Norm of the error over norm of the expected, leaf by leaf."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert norm_of(x - y) <= relative * norm_of(y)


# --------------------------------------------------------- one exact gradient per task


def make_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"heads": (4, 2), "shared": (3, 4)}
    return {name: jnp.asarray(rng.normal(size=s), dtype) for name, s in shapes.items()}


def make_batch(dtype=jnp.float32):
    """16 examples, labels of each task of its own; every 4th has no value."""
    rng = np.random.default_rng(1)
    labelled = rng.random(16) < 0.7
    labelled[3::4] = False
    floats = {
        "x": rng.normal(size=(16, 3)),
        "value": 3 * rng.normal(size=16),
        "weight": rng.random(16) * (rng.random(16) < 0.6),
        "class": rng.integers(0, 2, 16),
    }
    batch = {name: jnp.asarray(x, dtype) for name, x in floats.items()}
    return batch | {"labelled": jnp.asarray(labelled)}


def losses_of(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["shared"])
    outputs = hidden @ params["heads"]
    return {
        "value": (outputs[:, 0] - batch["value"]) ** 2,
        "class": jax.nn.softplus(outputs[:, 1]) - outputs[:, 1] * batch["class"],
        "size": jnp.sum(hidden**2, axis=1),
    }


def three_tasks(params, batch):
    found = losses_of(params, batch)
    return {
        "value": Mean.of(found["value"], where=batch["labelled"]),
        "class": Mean.of(found["class"], weights=batch["weight"]),
        "size": Mean.of(found["size"]),
    }


def means_of(params, batch):
    """The same means, by their formula."""
    found = losses_of(params, batch)
    counted = {
        "value": batch["labelled"],
        "class": batch["weight"],
        "size": jnp.ones(16),
    }
    return {k: jnp.sum(found[k] * w) / jnp.sum(w) for k, w in counted.items()}


def root(state, totals):
    """Not linear in the means: tasks share a slope."""
    means = {name: total.compute() for name, total in totals.items()}
    return jnp.sqrt(sum(means.values())), means


LINEAR = train.objective(three_tasks, weights={"value": 0.5, "class": 2.0})
PENALISED = train.l2(train.objective(three_tasks, root), 0.25)


@functools.cache
def reference():
    """Means and their gradients in float64."""
    params, batch = make_params(jnp.float64), make_batch(jnp.float64)
    return means_of(params, batch), jax.jacrev(means_of)(params, batch)


def stacked(trees):
    return jax.tree.map(lambda *x: np.stack(x), *trees)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_each_task_has_the_gradient_of_its_global_mean(microbatches):
    """Weighted, with its own mask, in any cut; and no row is left over."""
    evaluate = train.task_gradients(LINEAR, TASKS, microbatches=microbatches)
    found = jax.jit(evaluate)(make_params(), LINEAR.init(), make_batch())
    means, grads = reference()
    weights = {"value": 0.5, "class": 2.0, "size": 1.0}
    rows = [jax.tree.map(lambda g, k=k: weights[k] * g, grads[k]) for k in TASKS]
    assert_close(found.grads, stacked(rows))
    assert_close(found.losses, np.stack([means[k] for k in TASKS]))
    assert_close(found.metrics, means)
    assert found.rest is None
    assert found.state.count == 1
    assert found.losses.dtype == found.loss.dtype == jnp.float32


@pytest.mark.parametrize("lanes", [None, 4])
def test_rows_and_rest_add_up_to_the_gradient(lanes):
    """For a combine that is not linear, and a penalty; also of four devices."""
    terms, state, batch = ["size", "value"], PENALISED.init(), make_batch()
    evaluate = train.task_gradients(PENALISED, terms, microbatches=2)
    if lanes is not None:
        evaluate = train.task_gradients(PENALISED, terms, axis_name="data")
        batch = jax.tree.map(lambda x: x.reshape(lanes, -1, *x.shape[1:]), batch)
        evaluate = jax.vmap(evaluate, (None, None, 0), None, axis_name="data")
    found = jax.jit(evaluate)(make_params(), state, batch)
    means, grads = reference()
    slope = 0.5 / np.sqrt(sum(means.values()))
    rows = [jax.tree.map(lambda g, k=k: slope * g, grads[k]) for k in terms]
    penalty = jax.tree.map(lambda p: 0.5 * p, make_params(jnp.float64))
    rest = jax.tree.map(lambda g, p: slope * g + p, grads["class"], penalty)
    assert_close((found.grads, found.rest), (stacked(rows), rest))
    direct = jax.jit(train.value_and_grad(PENALISED))(
        make_params(), state, make_batch()
    )
    together = jax.tree.map(lambda g, r: jnp.sum(g, axis=0) + r, *found[3:5])
    assert_close((found.loss, together), (direct.loss, direct.grads))


def test_the_gradients_of_tasks_have_the_dtype_of_the_parameters():
    """Under strict promotion, of half precision too."""
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.bfloat16, jnp.float64):
            evaluate = train.task_gradients(PENALISED, TASKS, microbatches=2)
            found = jax.eval_shape(
                evaluate, make_params(dtype), PENALISED.init(), make_batch(dtype)
            )
            assert {x.dtype for x in jax.tree.leaves(found[3:5])} == {jnp.dtype(dtype)}
            wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
            assert found.losses.dtype == wide


# ------------------------------------------------------------------------------ PCGrad

# By hand: (1, 0) against (-1, 1) becomes half of their sum, which keeps nothing along
# (1, 0); two pairs without a conflict; no gradient; opposite ones, of which nothing
# remains; and (-1, 2) plus (-8, 6) / 5.
PAIRS = [
    ([[1, 0], [-1, 1]], [0.5, 1.5]),
    ([[1, 0], [1, 1]], [2, 1]),
    ([[0, 1], [1, 0]], [1, 1]),
    ([[0, 0], [-1, 1]], [-1, 1]),
    ([[0, 0], [0, 0]], [0, 0]),
    ([[1, 0], [-2, 0]], [0, 0]),
    ([[3, 4], [-4, -2]], [-2.6, 3.2]),
]


@jax.jit
def surgery(grads, seed=0, rest=None):
    update = untyped.pcgrad(seed=seed)
    return update.update(grads, update.init(None), rest=rest)[0]


@pytest.mark.parametrize("exponent", [0, -100, 100])
def test_two_gradients_by_hand(exponent):
    """However large: squares of 1e30 overflow float32, and of 1e-30 they vanish."""
    grads, expected = (np.array(x) for x in zip(*PAIRS, strict=True))
    grads = jnp.asarray(np.ldexp(grads, exponent), jnp.float32)
    with jax.debug_nans(True):
        found = jax.vmap(surgery)(grads)
    # A few roundings of numbers below 4, the largest of them in the last pair.
    np.testing.assert_allclose(
        np.ldexp(np.asarray(found, np.float64), -exponent), expected, 0, 4e-7
    )


def random_rows(tasks, seed):
    """Gradients in two arrays, each of which conflicts with each other one."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(tasks, 2, 3)), rng.normal(size=(tasks, 5))
    b[:, :tasks] += 5 * (np.eye(tasks) - 1 / tasks)
    return {"a": a, "b": b}


def flat(tree):
    """The rows as vectors, float64."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def projected(rows, i, order):
    """The inner loop of Algorithm 1 for task i."""
    g = rows[i].copy()
    for j in order:
        if g @ rows[j] < 0:
            g = g - (g @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
    return g


def test_projections_are_orthogonal_to_the_other_task():
    """Of a pair in conflict: what is added to g_i by the other has no part along it."""
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_rows(2, seed=0))
    (g, h), found = flat(grads), surgery(grads)
    assert g @ h < 0
    (found,) = flat(jax.tree.map(lambda x: x[None], found))
    # The own projection keeps |g|² sin²; that of the other task adds 0.
    for one, other in ((g, h), (h, g)):
        kept = one @ one - (one @ other) ** 2 / (other @ other)
        assert found @ one == pytest.approx(kept, rel=1e-5)


def test_without_a_conflict_it_is_the_sum():
    """Bit for bit: the gradients of tasks that agree are not touched."""
    rows = np.abs(np.random.default_rng(0).normal(size=(3, 7))).astype(np.float32)
    rest = jnp.ones(7, jnp.float32)
    found = surgery(jnp.asarray(rows), rest=rest)
    np.testing.assert_array_equal(found, rows[0] + rows[1] + rows[2] + np.float32(1))
    np.testing.assert_array_equal(surgery(jnp.asarray(rows[:1])), rows[0])


def test_surgery_is_algorithm_1_in_every_order():
    """Of 3 tasks, each update is that of some orders, and all 8 choices occur."""
    rows = random_rows(3, seed=5)
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rows)
    found = jax.vmap(surgery, (None, 0))(grads, jnp.arange(100))
    found, rows = flat(found), flat(rows)
    others = [[j for j in range(3) if j != i] for i in range(3)]
    choices = [
        [projected(rows, i, order) for order in itertools.permutations(others[i])]
        for i in range(3)
    ]
    expected = np.array([sum(one) for one in itertools.product(*choices)])
    errors = np.linalg.norm(found[:, None] - expected[None], axis=-1)
    assert np.all(np.min(errors, axis=1) < 1e-6 * np.linalg.norm(expected, axis=1)[0])
    distinct = np.linalg.norm(expected[:, None] - expected[None], axis=-1) > 1e-3
    assert np.all(distinct | np.eye(8, dtype=bool))
    # Each of 8 has 12.5 of 100 on average; fewer than 2 happens once in 10 000.
    assert np.all(np.bincount(np.argmin(errors, axis=1), minlength=8) >= 2)


def test_many_random_tasks_agree_with_algorithm_1():
    """Two conflicting pairs in four tasks: no order matters, many tasks at once."""
    pairs = [flat(random_rows(2, seed)) for seed in range(20)]
    zeros = np.zeros((2, 11))
    rows = [np.block([[p, zeros], [zeros, q]]) for p in pairs for q in pairs]
    expected = [
        sum(projected(r, i, [j for j in range(4) if j != i]) for i in range(4))
        for r in rows
    ]
    found = jax.vmap(surgery)(jnp.asarray(np.stack(rows), jnp.float32))
    scale = np.linalg.norm(np.stack(rows), axis=(1, 2))
    errors = np.linalg.norm(np.asarray(found) - np.stack(expected), axis=1)
    assert np.all(errors <= 1e-6 * scale)
    assert sum(np.any(r @ r.T < 0) for r in rows) > 200


def test_half_precision_is_rounded_once():
    """Projected in float32: bfloat16 could not tell most conflicts from none."""
    rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), random_rows(2, seed=0))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), rows)
    with jax.numpy_dtype_promotion("strict"):
        found, expected = surgery(rows), surgery(wide)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y.astype(jnp.bfloat16))


def test_complex_gradients_are_pairs_of_real_ones():
    """The dot product is that of the plane: i and -i are opposite, 1 and i are not."""
    real = jnp.array([[1.0, 0.0], [-1.0, 1.0]], jnp.float32)
    found = surgery(jax.lax.complex(real[:, 0], real[:, 1])[:, None])
    np.testing.assert_allclose(found, [0.5 + 1.5j], rtol=1e-6)


# ---------------------------------------------------------------------------- GradNorm


class Balance:
    """Algorithm 1 of GradNorm with plain gradient descent, in float64."""

    def __init__(self, tasks, rate, alpha):
        self.weights, self.rate, self.alpha = np.ones(tasks), rate, alpha
        self.first: Any = None

    def step(self, rows, losses, selected):
        self.first = losses if self.first is None else self.first
        combined = self.weights @ rows
        norms = np.linalg.norm(selected, axis=1)
        sizes, ratios = self.weights * norms, losses / self.first
        target = sizes.mean() * (ratios / ratios.mean()) ** self.alpha
        moved = self.weights - self.rate * np.sign(sizes - target) * norms
        self.weights = len(moved) * moved / moved.sum()
        return combined


@pytest.mark.parametrize("select", [None, lambda params: params["a"]])
def test_weights_follow_the_algorithm(select):
    """Ten steps of three tasks at three alphas at once, all or some parameters."""
    rng = np.random.default_rng(3)
    rows = [random_rows(3, seed) for seed in range(10)]
    losses = rng.uniform(0.5, 2.0, size=(10, 3))
    alphas = [0.0, 0.12, 1.5]

    def run(alpha):
        balance = untyped.gradnorm(3, optax.sgd(0.03), alpha=alpha, select=select)

        def step(state, given):
            grads, losses = given
            found, state = balance.update(grads, state, losses=losses)
            return state, (found, state.weights)

        return jax.lax.scan(step, balance.init(None), given)[1]

    given = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (stacked(rows), losses))
    found, weights = jax.jit(jax.vmap(run))(jnp.array(alphas, jnp.float32))
    for k, alpha in enumerate(alphas):
        balance = Balance(3, 0.03, alpha)
        for t in range(10):
            selected = flat(rows[t]["a"] if select else rows[t])
            expected = balance.step(flat(rows[t]), losses[t], selected)
            (combined,) = flat(jax.tree.map(lambda x, k=k, t=t: x[k, t][None], found))
            assert_close(combined, expected, 1e-5)
            # Errors of the weights add up over the steps.
            assert_close(weights[k, t], balance.weights, 1e-5)
    assert np.ptp(np.asarray(weights)[:, -1]) > 0.1


def remember():
    """An optimiser that changes nothing and keeps the gradient as its state."""

    def update(updates: Any, state, params=None):
        return updates * 0, updates

    return optax.GradientTransformation(lambda params: params, update)


def test_the_slope_of_the_weights_is_that_of_autodiff():
    """With the targets held constant, as in the paper."""
    rows, alpha = flat(random_rows(4, seed=7)), 1.5
    weights = jnp.array([0.5, 0.75, 1.25, 1.5], jnp.float32)
    first, now = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 1.5, 0.25, 3.0])
    balance = untyped.gradnorm(4, remember(), alpha=alpha)
    state = train.GradNormState(weights, jnp.asarray(first, jnp.float32), weights)
    _, state = jax.jit(balance.update)(
        jnp.asarray(rows, jnp.float32), state, losses=jnp.asarray(now)
    )

    def loss(w):
        sizes = jnp.linalg.norm(w[:, None] * rows, axis=1)
        ratios = now / first
        target = jnp.mean(sizes) * (ratios / jnp.mean(ratios)) ** alpha
        return jnp.sum(jnp.abs(sizes - jax.lax.stop_gradient(target)))

    expected = jax.jit(jax.grad(loss))(weights.astype(jnp.float64))
    assert_close(state.opt_state, expected)
    assert_close(state.weights, weights)
    assert len(set(np.sign(expected))) == 2


def test_a_silent_task_leaves_the_weights_of_the_others_alone():
    """Loss 0, no label, the first step or all of them: as if it were not there."""
    rows = jnp.asarray(flat(random_rows(3, seed=2)), jnp.float32).at[2].set(0)
    losses = jnp.array([[1.0, 2.0, 0.0], [0.5, 1.5, 0.0], [0.5, 1.0, 3.0]], jnp.float32)
    both, three = (untyped.gradnorm(tasks, remember()) for tasks in (2, 3))
    states, update = [both.init(None), three.init(None)], jax.jit(three.update)
    with jax.debug_nans(True):
        for now in losses:
            _, states[0] = jax.jit(both.update)(rows[:2], states[0], losses=now[:2])
            _, states[1] = update(rows, states[1], losses=now)
            if now[2] == 0:
                assert states[1].opt_state[2] == 0
                assert_close(states[1].opt_state[:2], states[0].opt_state)
        assert states[1].initial_losses.tolist() == [1.0, 2.0, 3.0]
        silent = update(rows * 0, three.init(None), losses=losses[0] * 0)[1]
    assert silent.opt_state.tolist() == [0, 0, 0]
    assert silent.weights.tolist() == [1, 1, 1]


def test_weights_stay_finite_and_not_negative():
    """A rate far too large takes them to 0, and back; their sum stays T."""
    balance = untyped.gradnorm(2, optax.sgd(10.0))
    rows = jnp.array([[3.0, 0.0], [0.0, 1.0]], jnp.float32)

    def step(state, losses):
        state = balance.update(rows, state, losses=losses)[1]
        return state, state.weights

    losses = jnp.array([[1.0, 1.0], [4.0, 1.0], [1.0, 1.0], [0.0, 1.0]], jnp.float32)
    _, weights = jax.lax.scan(step, balance.init(None), losses)
    assert np.all(np.asarray(weights) >= 0)
    np.testing.assert_allclose(jnp.sum(weights, axis=1), 2, rtol=1e-6)
    assert weights[0].tolist() == [0, 2]
    assert weights[1, 0] > 0


# ---------------------------------------------------------------------------- training


def two_tasks(params, batch):
    """Tasks that want the shared number somewhere else, one of them much louder."""
    shared, heads = params["shared"], params["heads"]
    loud = 100 * (shared * heads[0] * batch["x"] - batch["y"]) ** 2
    quiet = (shared * heads[1] * batch["x"] + batch["y"]) ** 2
    return {"loud": Mean.of(loud, where=batch["y"] > 0), "quiet": Mean.of(quiet)}


BOTH = train.objective(two_tasks)
TOY = {"x": jnp.array([1.0, 2.0, 3.0, 4.0]), "y": jnp.array([1.0, -2.0, 2.0, 3.0])}


def toy_rows(params):
    """Gradients and means in float64, by hand; parameters are shared, head, head."""
    s, a, b = params
    x, y = np.array(TOY["x"], float), np.array(TOY["y"], float)
    m = y > 0
    e, f = (s * a * x - y)[m], s * b * x + y
    return np.array(
        [
            [200 * np.mean(e * a * x[m]), 200 * np.mean(e * s * x[m]), 0],
            [2 * np.mean(f * b * x), 0, 2 * np.mean(f * s * x)],
        ]
    ), np.array([100 * np.mean(e**2), np.mean(f**2)])


def train_toy(optimizer, steps=5):
    """All steps in one program, in two micro-batches, on a mesh of one device."""
    penalised = train.l2(BOTH, 0.5)  # whose gradient is the parameters themselves
    take = train.task_train_step(
        penalised, optimizer, ["loud", "quiet"], microbatches=2, axis_name="data"
    )
    batch = jax.tree.map(lambda x: x.astype(jnp.float32), TOY)

    def run(state, batch):
        return jax.lax.scan(lambda state, _: take(state, batch), state, length=steps)

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("data"))
    run = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    params = {"heads": jnp.array([1.0, -0.5]), "shared": jnp.array(0.5)}
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    state = train.TrainState.init(penalised, optimizer, params)
    return jax.jit(run, donate_argnums=0)(state, batch)


def test_pcgrad_trains_in_one_program():
    """Five steps before Adam are those of the algorithm before optax's Adam."""
    optimizer = optax.chain(train.pcgrad(seed=0), optax.adam(0.05))
    state, metrics = train_toy(optimizer)
    params, adam = np.array([0.5, 1.0, -0.5]), optax.adam(0.05)
    opt_state = adam.init(jnp.asarray(params))
    conflicts = 0
    for t in range(5):
        rows, losses = toy_rows(params)
        loss = losses.sum() + params @ params / 2
        assert metrics["loss"][t] == pytest.approx(loss, rel=1e-5)
        conflicts += rows[0] @ rows[1] < 0
        together = projected(rows, 0, [1]) + projected(rows, 1, [0]) + params
        updates, opt_state = adam.update(jnp.asarray(together), opt_state)
        params = params + np.asarray(updates)
    assert conflicts > 0
    assert_close(state.params["shared"], params[0], 1e-5)
    assert_close(state.params["heads"], params[1:], 1e-5)


def test_gradnorm_trains_in_one_program():
    """The loud task loses weight; weights and parameters are the algorithm's."""
    select = lambda params: params["shared"]
    balance = untyped.gradnorm(2, optax.sgd(2e-4), select=select)
    state, _ = train_toy(optax.chain(balance, optax.sgd(1e-4)))
    params, reference = np.array([0.5, 1.0, -0.5]), Balance(2, 2e-4, 1.5)
    for _ in range(5):
        rows, losses = toy_rows(params)
        params = params - 1e-4 * (reference.step(rows, losses, rows[:, :1]) + params)
    assert reference.weights[0] < 0.9
    assert_close(state.opt_state[0].weights, reference.weights, 1e-5)
    assert_close(state.params["heads"], params[1:], 1e-5)
    assert_close(state.params["shared"], params[0], 1e-5)


# --------------------------------------------------------------------------- bad input

two = jnp.ones((2, 3))
params = {"w": jnp.ones(3)}


def pcgrad(grads, params=None):
    return surgery(grads) if params is None else through(train.pcgrad(), grads, params)


def through(optimizer, grads, params, **extra):
    return optimizer.update(grads, optimizer.init(params), params, **extra)


def balanced(grads, select=None, **extra):
    optimizer = untyped.gradnorm(2, optax.sgd(0.1), select=select)
    return through(optimizer, grads, params, **extra)


def tasks(terms, optimizer=None, **options):
    step = untyped.task_train_step(BOTH, optimizer or train.pcgrad(), terms, **options)
    start = {"heads": jnp.ones(2), "shared": jnp.ones(())}
    state = train.TrainState.init(BOTH, optimizer or train.pcgrad(), start)
    return jax.eval_shape(step, state, TOY)


ONES = jnp.ones(2)
BAD_CALLS = {
    "task_gradients: `objective` has type function": lambda: untyped.task_gradients(
        two_tasks, ["loud"]
    ),
    "task_gradients: `terms` has the string 'loud'": lambda: tasks("loud"),
    "task_gradients: `terms` has the names []": lambda: tasks([]),
    "task_gradients: `terms` has the names ['loud', 'loud']": lambda: tasks(
        ["loud", "loud"]
    ),
    "task_gradients: `terms` has the term 'box'": lambda: tasks(["loud", "box"]),
    "value_and_grad: `microbatches` has the value 3, which does not": lambda: tasks(
        ["loud"], microbatches=3
    ),
    "task_train_step: `optimizer` has type float": lambda: tasks(["loud"], 0.1),
    "task_train_step: `optimizer` has an update of shape (1, 2) at ['heads']": (
        lambda: tasks(["loud"], optax.sgd(0.1))
    ),
    "pcgrad: `updates` has the shapes {\"['a']\": (2, 3), \"['b']\": (3, 3)}": (
        lambda: pcgrad({"a": two, "b": jnp.ones((3, 3))})
    ),
    "pcgrad: `updates` has the shapes {'': ()}": lambda: pcgrad(jnp.ones(())),
    "pcgrad: `updates` has the shapes {'': (0, 3)}": lambda: pcgrad(jnp.ones((0, 3))),
    "pcgrad: `updates` has shape (3,) at ['w'], for the parameter (3,)": (
        lambda: pcgrad({"w": jnp.ones(3)}, params)
    ),
    "gradnorm: `updates` has shape (3, 2) at ['w'], for the": lambda: balanced(
        {"w": two.T}, losses=ONES
    ),
    "gradnorm: `updates` has the gradients of 3 tasks; expected those of tasks=2": (
        lambda: balanced({"w": jnp.ones((3, 3))}, losses=ONES)
    ),
    "gradnorm: `losses` has no value; expected losses=": lambda: balanced({"w": two}),
    "gradnorm: `losses` has shape (3,); expected (2,)": lambda: balanced(
        {"w": two}, losses=jnp.ones(3)
    ),
    "gradnorm: `select` has no parameters": lambda: balanced(
        {"w": two}, lambda params: [], losses=ONES
    ),
    "gradnorm: `tasks` is float": lambda: untyped.gradnorm(2.0, optax.sgd(0.1)),
    "gradnorm: `tasks` is 0": lambda: untyped.gradnorm(0, optax.sgd(0.1)),
    "gradnorm: `optimizer` has type float": lambda: untyped.gradnorm(2, 0.1),
    "gradnorm: `alpha` is -1.0": lambda: untyped.gradnorm(
        2, optax.sgd(0.1), alpha=-1.0
    ),
    "gradnorm: `alpha` has type str": lambda: untyped.gradnorm(
        2, optax.sgd(0.1), alpha="1.5"
    ),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls_raise_while_tracing(message):
    """The message names the function and the argument, and says what to do."""
    with pytest.raises((TypeError, ValueError)) as raised:
        BAD_CALLS[message]()
    assert str(raised.value).startswith(message)
    assert "; expected " in str(raised.value)
