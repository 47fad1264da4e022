"""Losses cut over devices are those of one device; so are gradients and sweeps.

Eight devices need a process of their own: one has the `check_` functions below, one
the exactness matrix of `bench`.
"""

import functools
import os
import pathlib
import re
import subprocess
import sys
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxloss
from jaxloss import Mean, parallel, train
from jaxloss.testing import tolerance

ROOT = pathlib.Path(__file__).parents[2]
EPS = tolerance(np.float32)
SPLIT = P("data"), P(None, "model"), P("data"), P("data")
sweep: Any = sys.modules["jaxloss.train.sweep"]  # not the function of that name
untyped: Any = parallel  # the type checker would refuse some calls


def mesh(**axes):
    kinds = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=kinds)


def draw(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def integers(high, size, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, high, size), jnp.int32)


def assert_near(found, expected, units=4):
    """As arrays, in the norm: single entries of a gradient may cancel."""
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert x.shape == y.shape
        bound = units * tolerance(x.dtype) * jnp.linalg.norm(y)
        assert jnp.linalg.norm(x - y) <= bound, (x, y)


# --- classes over devices, in 2 x 4 --------------------------------------------------


def head():
    """Hidden states, the kernel that makes logits of them, labels and weights."""
    return draw(8, 6), 3 * draw(6, 16, seed=1), integers(16, 8), draw(8, seed=2) ** 2


def of_head(hidden, kernel, labels, weights):
    """The weighted sum over the examples of all devices."""
    losses = parallel.softmax_cross_entropy(hidden @ kernel, labels, axis_name="model")
    return lax.psum(jnp.sum(weights * losses), "data")


def whole_head(hidden, kernel, labels, weights):
    return jnp.sum(weights * jaxloss.softmax_cross_entropy(hidden @ kernel, labels))


def one_device():
    """The sum, and both of its gradients."""
    return jax.jit(jax.value_and_grad(whole_head, (0, 1)))(*head())


def over_devices(fn, out_specs, *, check_vma, **axes):
    mapped = jax.shard_map(
        fn,
        mesh=mesh(**axes),
        in_specs=SPLIT,
        out_specs=out_specs,
        check_vma=check_vma,
    )
    return jax.jit(mapped)


def check_gradients_outside():
    """`jax.grad(shard_map(loss))`, with either check: exact, and no logits move."""
    for check_vma in (True, False):
        fn = over_devices(of_head, P(), check_vma=check_vma, data=2, model=4)
        step = jax.jit(jax.value_and_grad(fn, (0, 1))).lower(*head()).compile()
        assert_near(step(*head()), one_device())
        assert not re.search("all-gather|all-to-all|permute", str(step.as_text()))


def check_gradients_inside():
    """`shard_map(jax.grad(loss))` by default: exact, with nothing left to add up."""
    fn, specs = jax.value_and_grad(of_head, (0, 1)), (P(), SPLIT[:2])
    step = over_devices(fn, specs, check_vma=True, data=2, model=4)
    assert_near(step(*head()), one_device())


def check_gradients_inside_without_the_check():
    """Of the loss over the devices, and added up for what is replicated: exact."""

    def inside(hidden, kernel, *rest):
        share = lambda *args: of_head(*args, *rest) / lax.axis_size("model")
        by_hidden, by_kernel = jax.grad(share, (0, 1))(hidden, kernel)
        return lax.psum(by_hidden, "model"), by_kernel

    # `psum` over the one device of "data" changes nothing.
    step = over_devices(inside, SPLIT[:2], check_vma=False, data=1, model=8)
    assert_near(step(*head()), one_device()[1])


def check_exact_steps_with_a_cut_head():
    """`train.value_and_grad` over "data" needs not know of "model"."""

    def fn(loss, params, batch):
        losses = loss(batch["x"] @ params["body"] @ params["head"], batch["y"])
        return {"nll": Mean.of(losses, weights=batch["w"])}

    local = functools.partial(parallel.softmax_cross_entropy, axis_name="model")
    x, kernel, y, w = head()
    params = {"body": draw(6, 6, seed=3), "head": kernel}
    batch = {"x": x, "y": y, "w": w * (np.arange(8) < 5)}

    def step(loss, **options):
        objective = train.objective(functools.partial(fn, loss))
        evaluate = train.value_and_grad(objective, **options)
        return lambda params, batch: evaluate(params, objective.init(), batch).grads

    cut = {"body": P(), "head": P(None, "model")}
    found = jax.shard_map(
        step(local, microbatches=2, axis_name="data"),
        mesh=mesh(data=2, model=4),
        in_specs=(cut, P("data")),
        out_specs=cut,
    )
    expected = jax.jit(step(jaxloss.softmax_cross_entropy))(params, batch)
    assert_near(jax.jit(found)(params, batch), expected)


def edge_rows():
    """Logits of 16 classes, two on each device, their labels and a mask.

    Ties across devices; tails; -inf at another class, at the label, on half of the
    devices, everywhere (also with a label -1); no such class; NaN; infinite; huge.
    """
    x = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    labels = np.arange(16) * 5 % 16
    x[1, [3, 8]] = x[2, :] = 4
    x[3], labels[3] = np.where(np.arange(16) == 9, 40, 0), 9
    x[4], labels[4] = np.where(np.arange(16) == 9, 90, 0), 2
    x[5, 1:] = x[6, labels[6]] = x[7, 2:10] = x[8] = x[9] = x[11, :15] = -np.inf
    labels[5], labels[9], labels[10], labels[11] = 0, -1, -1, 3
    x[11, 15] = x[12, 2] = np.nan
    labels[13] = 16
    x[14, 2] = np.inf
    x[15] *= 1e37
    mask = np.ones((16, 16), bool)
    mask[0, ::3] = False
    mask[0, labels[0]] = True
    return jnp.asarray(x), jnp.asarray(labels), jnp.asarray(mask)


def check_edges_are_those_of_one_device():
    """Losses, gradient and second derivative, to a few units in the last place."""
    x, labels, mask = edge_rows()
    direction = draw(16, 16, seed=1)

    def derivatives(loss, x, labels, mask, direction):
        alone = lambda x: loss(x, labels, where=mask)
        grad = jax.grad(lambda x: jnp.sum(alone(x)))
        by_row = jax.vmap(lambda *row: loss(row[0], row[1], where=row[2]))
        rows = by_row(x, labels, mask)
        return alone(x), rows, *jax.jvp(grad, (x,), (direction,))

    names = ("a", "b")
    local = functools.partial(parallel.softmax_cross_entropy, axis_name=names)
    cut = P(None, names)
    fn = jax.shard_map(
        functools.partial(derivatives, local),
        mesh=mesh(a=2, b=4),
        in_specs=(cut, P(), cut, cut),
        out_specs=(P(), P(), cut, cut),
    )
    found = jax.jit(fn)(x, labels, mask, direction)
    whole = functools.partial(derivatives, jaxloss.softmax_cross_entropy)
    expected = jax.jit(whole)(x, labels, mask, direction)
    *first, second = zip(found, expected, strict=True)
    tiny = float(np.finfo(np.float32).tiny)
    for got, want in first:
        np.testing.assert_allclose(got, want, rtol=EPS, atol=tiny)
    for got, want in zip(*second, strict=True):
        # It is a sum that cancels, so its error is of its terms.
        size = np.max(np.abs(np.nan_to_num(want)))
        np.testing.assert_allclose(got, want, rtol=EPS, atol=EPS * size + tiny)


# --- a batch over devices ------------------------------------------------------------


def contrastive_batch():
    """Positives on other devices; the second device has padding only."""
    ids = np.random.default_rng(0).permutation(np.arange(24) // 3)
    valid = (np.arange(24) // 3 != 1) & (np.arange(24) != 9)
    rest = jnp.linspace(0.1, 0.5, 24), draw(24, seed=3) ** 2
    return draw(24, 5), jnp.asarray(ids), jnp.asarray(valid), *rest


def check_rows_stay_on_their_devices():
    """No gather, along whichever leading axis the logits of a batch are cut."""
    sizes = (8, 16)
    hidden, kernel = draw(*sizes, 6), draw(6, 32, seed=1)
    ids = integers(32, sizes)

    def step(smoothing, hidden, kernel, ids):
        loss = functools.partial(
            jaxloss.softmax_cross_entropy, label_smoothing=smoothing
        )
        return jnp.mean(loss(hidden @ kernel, ids))

    cuts = (P("data"), 0.0), (P(None, "data"), 0.1), (P("data", "model"), 0.1)
    devices = mesh(data=4, model=2)
    for cut, smoothing in cuts:
        fn = jax.value_and_grad(functools.partial(step, smoothing), (0, 1))
        placed = [
            jax.device_put(x, NamedSharding(devices, p))
            for x, p in ((hidden, cut), (kernel, P()), (ids, cut))
        ]
        program = jax.jit(fn).lower(*placed).compile()
        text = str(program.as_text())
        for word in ("all-gather", "all-to-all", "collective-permute"):
            assert word not in text, (cut, word)
        assert_near(program(*placed), jax.jit(fn)(hidden, kernel, ids), units=16)


def check_nt_xent_is_that_of_the_whole_batch():
    """Losses, and gradients without a further sum, inside and outside, either check."""

    def total(loss, x, ids, valid, tau, weights):
        losses = loss(x, ids, temperature=tau, where=valid)
        return jnp.sum(weights * losses), losses

    args, cut = contrastive_batch(), P("data")
    whole = jax.grad(functools.partial(total, jaxloss.nt_xent), has_aux=True)
    gradient, losses = jax.jit(whole)(*args)
    local = functools.partial(
        total, functools.partial(parallel.nt_xent, axis_name="data")
    )
    for check_vma in (True, False):
        map_ = functools.partial(
            jax.shard_map,
            mesh=mesh(data=8),
            in_specs=(cut,) * 5,
            out_specs=cut,
            check_vma=check_vma,
        )
        inside = map_(jax.grad(local, has_aux=True))
        found = map_(lambda *args: local(*args)[1])
        outside = jax.grad(lambda *args, f=found: jnp.sum(args[-1] * f(*args)))
        both = jax.jit(lambda *args, f=inside, g=outside: (f(*args), g(*args)))
        assert_near(both(*args), ((gradient, losses), gradient))


def check_pairs_are_those_of_the_whole_batch():
    """Losses, and gradients in both embeddings and in a replicated temperature: inside
    and outside, with either check.  Embeddings move, scores do not."""
    products = {"normalize": False}
    for name, params in (
        ("clip", {}),
        ("clip", products),
        ("info_nce", products),
        ("siglip", {"bias": -1.0}),
    ):
        whole = functools.partial(getattr(jaxloss, name), **params)
        local = functools.partial(getattr(parallel, name), axis_name="data", **params)
        assert_pairs_agree(whole, local)


def assert_pairs_agree(whole, local):
    def total(loss, x, y, tau, valid, weights):
        losses = loss(x, y, temperature=tau, where=valid)
        return jnp.sum(weights * losses), losses

    def derived(loss):
        return jax.grad(functools.partial(total, loss), (0, 1, 2), has_aux=True)

    _, _, valid, _, weights = contrastive_batch()
    args = draw(24, 5), draw(24, 5, seed=1), jnp.float32(0.2), valid, weights
    gradients, losses = jax.jit(derived(whole))(*args)
    cut = P("data")

    def inside(check_vma, *args):
        (*slopes, by_tau), losses = derived(local)(*args)
        # Without the check, nothing tells that the temperature is replicated.
        by_tau = by_tau if check_vma else lax.psum(by_tau, "data")
        return (*slopes, by_tau), losses

    for check_vma in (True, False):
        map_ = functools.partial(
            jax.shard_map,
            mesh=mesh(data=8),
            in_specs=(cut, cut, P(), cut, cut),
            check_vma=check_vma,
        )
        within = functools.partial(inside, check_vma)
        within = map_(within, out_specs=((cut, cut, P()), cut))
        found = map_(lambda *args: total(local, *args)[1], out_specs=cut)
        outside = lambda *args, f=found: jnp.sum(args[-1] * f(*args))
        outside = jax.grad(outside, (0, 1, 2))
        both = jax.jit(lambda *args, f=within, g=outside: (f(*args), g(*args)))
        step = both.lower(*args).compile()
        assert_near(step(*args), ((gradients, losses), gradients))
        moved = re.findall(r" = (.*) all-gather\(", str(step.as_text()))
        # Embeddings and masks, no scores, which are 3 by 24 on a device.
        shapes = {shape for text in moved for shape in re.findall(r"\[[\d,]*\]", text)}
        assert moved
        assert shapes <= {"[24,5]", "[24]", "[5,24]"}, shapes


def check_groups_are_those_of_the_whole_batch():
    """The supervised loss, whose positives are on other devices, and its gradient."""

    def total(loss, x, ids, valid, tau, weights):
        losses = loss(x, ids, temperature=tau, where=valid)
        return jnp.sum(weights * losses), losses

    args, cut = contrastive_batch(), P("data")
    whole = functools.partial(total, jaxloss.supervised_contrastive)
    local = functools.partial(parallel.supervised_contrastive, axis_name="data")
    inside = jax.shard_map(
        jax.grad(functools.partial(total, local), has_aux=True),
        mesh=mesh(data=8),
        in_specs=(cut,) * 5,
        out_specs=cut,
    )
    assert_near(jax.jit(inside)(*args), jax.jit(jax.grad(whole, has_aux=True))(*args))


def check_exact_steps_with_nt_xent():
    """`train.value_and_grad` of the gathered loss, over "data" itself."""

    def fn(loss, params, batch):
        x, ids, valid, *_ = batch
        losses = loss(jnp.tanh(x @ params), ids, temperature=0.25)
        return {"nt_xent": Mean.of(losses, where=valid)}

    def step(loss, axis_name=None):
        objective = train.objective(functools.partial(fn, loss))
        evaluate = train.value_and_grad(objective, axis_name=axis_name)
        return lambda params, batch: evaluate(params, objective.init(), batch)[0:3:2]

    local = functools.partial(parallel.nt_xent, axis_name="data")
    args = draw(5, 4, seed=4), contrastive_batch()
    fn_ = jax.shard_map(
        step(local, "data"),
        mesh=mesh(data=8),
        in_specs=(P(), P("data")),
        out_specs=P(),
    )
    assert_near(jax.jit(fn_)(*args), jax.jit(step(jaxloss.nt_xent))(*args))


# --- runs over devices ---------------------------------------------------------------


def falling(hyperparameters, key, target):
    """x - target shrinks by 1 - rate per step, and is measured by its norm."""
    step = lambda x, i: x - hyperparameters["rate"] * (x - target)
    # By a factorisation, for which the partitioner would gather the runs.
    ones = lambda x: jnp.eye(3, dtype=x.dtype) + jnp.outer(x - target, x - target)
    square = lambda x: jnp.prod(jnp.diag(jnp.linalg.cholesky(ones(x)))) ** 2 - 1
    return train.Run(
        target + jax.random.normal(key, (3,), jnp.float32),
        step,
        lambda x: {"d2": square(x)},
    )


def check_sweeps_are_those_of_one_device():
    """9 runs, of one seed or of three: x - target is what is left of its beginning."""
    target = np.arange(3, dtype=np.float32)
    for count, seeds in ((9, [7]), (3, [1, 2, 3])):
        grid = {"rate": np.linspace(0, 1, count)}
        found = train.sweep(falling, grid, seeds, steps=3, data=target)
        first = [falling(grid, jax.random.key(seed), target).state for seed in seeds]
        squares = np.sum((np.stack(first) - target) ** 2, axis=1)
        left = np.outer((1 - grid["rate"]) ** 6, squares).ravel()
        # A determinant of 1 + left has the rounding of that, and of x next to 2.
        assert np.max(np.abs(found["d2"] - left)) <= 20 * EPS * (1 + np.max(left))


def check_sweeps_are_shared_out():
    """9 runs are 2 for each of 5 devices, none of which has to ask another."""
    share, rows = sweep._shares(9)
    assert (share.size, rows.tolist()) == (5, [*range(9), 8])
    place = lambda x, spec: jax.device_put(x, NamedSharding(share, spec))
    values = place({"rate": np.float32(rows)}, P("sweep"))
    for keys in (jax.random.key(0), jax.random.split(jax.random.key(0), 10)):
        given = values, place(keys, P("sweep") if keys.ndim else P()), (np.ones(3),)
        begin, advance, finish = sweep._programs(falling, share)
        state, span = begin(None, *given), (np.int32(0), np.int32(3))
        for program, args in {
            begin: (None, *given),
            advance: (state, *given, *span),
            finish: (state, *given),
        }.items():
            for leaf in jax.tree.leaves(program(*args)):
                shapes = [x.data.shape for x in leaf.addressable_shards]
                assert shapes == [(2, *leaf.shape[1:])] * 5
            text = program.lower(*args).compile().as_text()
            assert not re.search("all-|collective|permute|send|recv", text)


# --- eight devices -------------------------------------------------------------------


def eight_devices():
    """Runs every check, and prints what went wrong."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            try:
                check()
            except Exception:
                traceback.print_exc(file=sys.stdout)
    print("done")


def run(*command):
    """A Python of its own, with the cache of compiled programs of this one."""
    unwanted = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS")
    env = {name: x for name, x in os.environ.items() if name not in unwanted}
    env |= {
        "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_on_eight_devices():
    """Every `check_` of this file."""
    done = run("-c", "from tests.kernels import test_parallel as t; t.eight_devices()")
    assert done.stdout == "done\n", done.stdout + done.stderr


def test_objectives_are_exact_on_eight_devices():
    """Each objective and way to use devices once, and what a step has to say."""
    done = run("-m", "bench.exactness", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr


# --- one device ----------------------------------------------------------------------

logits, ids = np.zeros((2, 3), np.float32), np.zeros(2, int)
cross_entropy = functools.partial(untyped.softmax_cross_entropy, axis_name="x")
nt_xent = functools.partial(untyped.nt_xent, axis_name="x", temperature=0.1)
clip = functools.partial(untyped.clip, axis_name="x", temperature=0.1)

BAD_CALLS = {
    "softmax_cross_entropy: `logits` has dtype int64": lambda: cross_entropy(ids, ids),
    "softmax_cross_entropy: `logits` is a scalar": lambda: cross_entropy(1.0, ids),
    "softmax_cross_entropy: `labels` has dtype float32": lambda: cross_entropy(
        logits, logits
    ),
    "softmax_cross_entropy: `labels` has shape (3,)": lambda: cross_entropy(
        logits, np.zeros(3, int)
    ),
    "softmax_cross_entropy: `where` has dtype float32": lambda: cross_entropy(
        logits, ids, where=logits
    ),
    "softmax_cross_entropy: `where` has shape (2,)": lambda: cross_entropy(
        logits, ids, where=ids == 0
    ),
    "nt_xent: `embeddings` has dtype int64": lambda: nt_xent(ids, ids),
    "nt_xent: `embeddings` has shape (3,)": lambda: nt_xent(logits[0], ids),
    "nt_xent: `labels` has dtype float32": lambda: nt_xent(logits, logits),
    "nt_xent: `labels` has shape (2, 3)": lambda: nt_xent(
        logits, np.zeros((2, 3), int)
    ),
    "nt_xent: `where` has dtype int64": lambda: nt_xent(logits, ids, where=ids),
    "nt_xent: `where` has shape (1,)": lambda: nt_xent(
        logits, ids, where=np.ones(1, bool)
    ),
    "nt_xent: `temperature` is 0.0": lambda: nt_xent(logits, ids, temperature=0.0),
    "clip: `first` has dtype int64": lambda: clip(ids, ids),
    "clip: `first` has shape (3,)": lambda: clip(logits[0], logits[0]),
    "clip: `second` has shape (1, 3)": lambda: clip(logits, logits[:1]),
    "clip: `where` has shape (1,)": lambda: clip(
        logits, logits, where=np.ones(1, bool)
    ),
    "clip: `temperature` is 0.0": lambda: clip(logits, logits, temperature=0.0),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls_raise(message):
    """What is wrong is named, before any device is asked."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        BAD_CALLS[message]()


@pytest.mark.parametrize(
    ("call", "second"), [(cross_entropy, ids), (nt_xent, ids), (clip, logits)]
)
def test_an_unbound_axis_raises(call, second):
    """Never the loss of a part without a word."""
    with pytest.raises(NameError, match="unbound axis name"):
        call(logits, second)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
def test_one_device_is_the_plain_loss(dtype):
    """In the same dtypes, and to their precision; labels of 8 bits suffice."""
    x, labels = draw(4, 200, dtype=dtype), integers(200, 4).astype(jnp.uint8)
    local = jax.shard_map(
        functools.partial(parallel.softmax_cross_entropy, axis_name="model"),
        mesh=mesh(model=1),
        in_specs=(P(None, "model"), P()),
        out_specs=P(),
    )

    def run(loss):
        total = lambda x: (jnp.sum(loss(x, labels)), loss(x, labels))
        return jax.jit(jax.grad(total, has_aux=True))(x)

    gradient, losses = run(local)
    assert (gradient.dtype, losses.dtype) == (dtype, jnp.promote_types(dtype, "f4"))
    for got, want in zip(
        (gradient, losses), run(jaxloss.softmax_cross_entropy), strict=True
    ):
        assert_near(got, want, units=1)


def test_nothing_makes_a_nan():
    """`jax.debug_nans` stays quiet at -inf, at ties, and where nothing is left."""
    x = jnp.array([[-np.inf, 1.0], [-np.inf, -np.inf], [2.0, 2.0]], jnp.float32)
    local = jax.shard_map(
        functools.partial(parallel.softmax_cross_entropy, axis_name="model"),
        mesh=mesh(model=1),
        in_specs=(P(None, "model"), P()),
        out_specs=P(),
    )
    with jax.debug_nans(True):
        grad = jax.jit(jax.grad(lambda x: jnp.sum(local(x, jnp.array([1, 0, 1])))))(x)
    np.testing.assert_array_equal(grad, [[0, 0], [0, 0], [0.5, -0.5]])
