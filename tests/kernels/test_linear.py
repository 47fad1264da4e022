"""The linear cross entropy is that of its formula, in less memory, on any device.

Eight devices need a process of their own, which runs the `check_` functions below.
"""

import dataclasses
import functools
import re
import sys
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxloss import Mean, kernels, train
from jaxloss.kernels import linear_softmax_cross_entropy, linear_token_log_probs
from jaxloss.kernels._arguments import Layout, Memory
from jaxloss.testing import programs, tolerance
from tests.kernels.test_parallel import mesh, run

untyped: Any = kernels  # the type checker would refuse some calls

# --- the formula, in float64 ---------------------------------------------------------


@dataclasses.dataclass
class Problem:
    """Arguments of one call, and how it is to be cut."""

    tokens: int
    classes: int
    features: int = 4
    dtype: Any = np.float32
    smoothing: float = 0.0
    z: float = 0.0
    cap: float | None = None
    temperature: float = 1.0
    bias: bool = False
    dead: tuple[int, ...] = ()
    masked: int = 0
    layout: Layout = "dv"
    memory: Memory = "fast"
    block: tuple[int, int] | None = None
    seed: int = 0

    def arrays(self):
        """hidden, kernel, bias, weights, labels, where: logits with a wide range."""
        rng = np.random.default_rng(self.seed)
        hidden = rng.normal(size=(self.tokens, self.features))
        kernel = 2 * rng.normal(size=(self.features, self.classes))
        bias = np.where(np.isin(np.arange(self.classes), self.dead), -np.inf, 0.0)
        bias = bias + rng.normal(size=self.classes)
        alive = np.flatnonzero(bias > -np.inf)
        labels = rng.choice(alive, self.tokens)
        labels[: self.tokens // 3] = np.argmax((hidden @ kernel + bias), -1)[
            : self.tokens // 3
        ]
        where = np.arange(self.tokens) >= self.masked
        kernel = kernel.T if self.layout == "vd" else kernel
        cast = lambda x: jnp.asarray(x, self.dtype)
        bias = jnp.asarray(bias, jnp.float32) if self.bias else None
        weights = jnp.asarray(rng.random(self.tokens) + 0.1, jnp.float32)
        return cast(hidden), cast(kernel), bias, weights, labels, where

    def numbers(self):
        """Those that may be traced; None for one that is not used."""
        return {
            "label_smoothing": self.smoothing or None,
            "z_loss": self.z or None,
            "soft_cap": self.cap,
            "temperature": None if self.temperature == 1 else self.temperature,
        }

    def mean(self, hidden, kernel, bias, weights, labels, where, numbers, **other):
        used = {k: x for k, x in numbers.items() if x is not None}
        return linear_softmax_cross_entropy(
            hidden,
            kernel,
            labels,
            bias=bias,
            weights=weights,
            where=where,
            kernel_layout=self.layout,
            **used,
            **({"memory": self.memory, "block": self.block} | other),
        )


def by_formula(p, hidden, kernel, bias, weights, labels, where):
    """total, and its gradient by hidden, kernel, bias, weights and the numbers."""
    h, k, w = (np.asarray(x, np.float64) for x in (hidden, kernel, weights))
    k = k.T if p.layout == "vd" else k
    b = np.zeros(p.classes) if bias is None else np.asarray(bias, np.float64)
    exists, w = b > -np.inf, np.where(where, w, 0)
    rows, eps, zeta, t = np.arange(p.tokens), p.smoothing, p.z, p.temperature
    raw = h @ k + np.where(exists, b, 0)
    u = raw / p.cap if p.cap else raw
    z = (p.cap * np.tanh(u) if p.cap else raw) / t
    top = np.max(np.where(exists, z, -np.inf), 1, keepdims=True)
    e = np.where(exists, np.exp(z - top), 0)
    at = np.arange(p.classes) == labels[:, None]
    lse = np.log(e.sum(1)) + top[:, 0]
    uniform, zy = exists / exists.sum(), z[rows, labels]
    others = np.where(at, 0, e).sum(1)
    nll = np.where(zy == top[:, 0], np.log1p(others), np.log(e.sum(1)) + top[:, 0] - zy)
    spread = lse - z @ uniform
    losses = (1 - eps) * nll + eps * spread + zeta * lse**2
    prob = e / e.sum(1, keepdims=True)
    g = w[:, None] * (
        prob * (1 + 2 * zeta * lse[:, None]) - (1 - eps) * at - eps * uniform
    )
    # p - 1 of the label, without its cancellation.
    sure = w * (2 * zeta * lse * prob[rows, labels] + eps * (1 - uniform[labels]))
    g[rows, labels] = sure - w * others / e.sum(1)
    raw_slope = (1 - np.tanh(u) ** 2 if p.cap else np.ones_like(u)) / t
    by_raw = g * raw_slope
    numbers = {
        "label_smoothing": np.sum(w * (spread - nll)),
        "z_loss": np.sum(w * lse**2),
        "soft_cap": np.sum(g * (np.tanh(u) / t - u * raw_slope)) if p.cap else 0,
        "temperature": -np.sum(g * z) / t,
    }
    by_kernel = h.T @ by_raw
    return np.sum(w * losses), (
        by_raw @ k.T,
        by_kernel.T if p.layout == "vd" else by_kernel,
        None if bias is None else by_raw.sum(0),
        np.where(where, losses, 0),
        {k: numbers[k] if x is not None else None for k, x in p.numbers().items()},
    )


WIDE, FEW = 128256, 3
PROBLEMS = {
    "one class": Problem(2049, 1, block=(512, 1)),
    "one token": Problem(1, 7, bias=True, z=0.1),
    "vocabulary of GPT-2": Problem(7, 50257, bias=True, dead=(50256, 3)),
    "of Llama 3, lean": Problem(FEW, WIDE, memory="lean", smoothing=0.1),
    "of Llama 3, bfloat16": Problem(FEW, WIDE, dtype=jnp.bfloat16, z=1e-3),
    "2047 classes": Problem(7, 2047, block=(2, 512), smoothing=0.2, z=0.01),
    "2047 tokens": Problem(2047, 7, memory="lean", block=(256, 4), bias=True),
    "50257 tokens": Problem(50257, 7, block=(2048, 7), masked=5),
    "2048 classes": Problem(64, 2048, block=(16, 512), layout="vd", cap=3.0),
    "2049 classes, lean": Problem(
        37, 2049, memory="lean", block=(37, 1024), layout="vd", temperature=0.7
    ),
    "all options": Problem(
        29,
        301,
        smoothing=0.1,
        z=0.02,
        cap=5.0,
        temperature=1.4,
        bias=True,
        dead=(0, 300, 77),
        masked=6,
        block=(7, 64),
    ),
    "all options, lean": Problem(
        29,
        301,
        smoothing=1.0,
        z=0.02,
        cap=5.0,
        temperature=0.5,
        bias=True,
        dead=(0, 300, 77),
        masked=6,
        memory="lean",
        block=(10, 301),
    ),
    "bfloat16, lean": Problem(
        50, 700, dtype=jnp.bfloat16, memory="lean", block=(50, 128), bias=True
    ),
    "bfloat16, fast": Problem(
        50, 700, 16, dtype=jnp.bfloat16, block=(16, 128), cap=4.0
    ),
    "float16": Problem(50, 700, dtype=np.float16, block=(16, 128), layout="vd"),
    "float64": Problem(20, 90, dtype=np.float64, block=(8, 32), smoothing=0.3, z=0.1),
    "all masked": Problem(9, 40, masked=9, bias=True, block=(4, 16)),
}


def assert_near(found, expected, bound):
    """In the norm of each array, for single entries of a gradient may cancel."""
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert x.shape == y.shape
        assert np.linalg.norm(x - y) <= bound * np.linalg.norm(y), (x, y)


@pytest.mark.parametrize("name", PROBLEMS)
def test_value_and_gradient_are_those_of_the_formula(name):
    """To the rounding of the factors of 16 bits, or of a few sums in float32."""
    p = PROBLEMS[name]
    hidden, kernel, bias, weights, labels, where = p.arrays()
    numbers = jax.tree.map(jnp.float32, p.numbers())

    def total(hidden, kernel, bias, weights, numbers):
        return p.mean(hidden, kernel, bias, weights, labels, where, numbers).total

    moving = hidden, kernel, bias, weights, numbers
    wanted = (0, 1, 3, 4) if bias is None else (0, 1, 2, 3, 4)
    value, found = jax.jit(jax.value_and_grad(total, wanted))(*moving)
    expected, slopes = by_formula(p, hidden, kernel, bias, weights, labels, where)
    wide = np.promote_types(p.dtype, np.float32)
    assert value.dtype == wide
    assert [x.dtype for x in found[:2]] == [p.dtype, p.dtype]
    assert_near(value, expected, 8 * tolerance(np.float32))
    eps = float(jnp.finfo(p.dtype).eps)
    # A derivative of 16 bits is rounded before its products and after them.
    narrow = 1.5 * eps if wide != p.dtype else 0
    bounds = [max(narrow, 8 * tolerance(np.float32))] * 2 + [4e-6] * 3
    for x, y, bound in zip(found, [slopes[i] for i in wanted], bounds, strict=False):
        assert_near(x, y, bound)


@pytest.mark.parametrize(
    "name", ["2047 tokens", "2049 classes, lean", "all options", "bfloat16, lean"]
)
def test_log_probs_are_those_of_the_formula(name):
    """Value, and the gradient of a weighted sum: that of a loss without additions."""
    p = dataclasses.replace(PROBLEMS[name], smoothing=0.0, z=0.0)
    hidden, kernel, bias, weights, labels, where = p.arrays()

    def total(hidden, kernel, bias):
        logs = linear_token_log_probs(
            hidden,
            kernel,
            labels,
            bias=bias,
            where=where,
            soft_cap=p.cap,
            temperature=p.temperature,
            kernel_layout=p.layout,
            block=p.block,
        )
        return -jnp.sum(weights * logs), logs

    wanted = (0, 1) if bias is None else (0, 1, 2)
    step = jax.jit(jax.value_and_grad(total, wanted, has_aux=True))
    (value, logs), found = step(hidden, kernel, bias)
    expected, slopes = by_formula(p, hidden, kernel, bias, weights, labels, where)
    assert_near(value, expected, 8 * tolerance(np.float32))
    assert_near(-logs, slopes[3], 4e-6)
    bound = 1.5 * float(jnp.finfo(p.dtype).eps) if p.dtype == jnp.bfloat16 else 4e-6
    for x, y in zip(found, slopes[: len(found)], strict=True):
        assert_near(x, y, bound)


@pytest.mark.parametrize("name", ["all options", "float64", "bfloat16, lean"])
def test_both_losses_are_those_of_the_formula(name):
    """Cross entropy and z-loss of each token, apart, and the gradient of their weighted
    sum, by blocks and all at once."""
    p = dataclasses.replace(PROBLEMS[name], smoothing=0.0, z=0.0)
    hidden, kernel, bias, weights, labels, where = p.arrays()

    def total(hidden, kernel, bias, implementation):
        losses = kernels.linear_softmax_cross_entropy_with_z(
            hidden,
            kernel,
            labels,
            bias=bias,
            where=where,
            soft_cap=p.cap,
            temperature=p.temperature,
            kernel_layout=p.layout,
            block=p.block,
            implementation=implementation,
        )
        return jnp.sum(weights * (losses[0] + 0.02 * losses[1])), losses

    wanted = (0, 1) if bias is None else (0, 1, 2)
    step = jax.jit(jax.value_and_grad(total, wanted, has_aux=True), static_argnums=3)
    of = lambda z: by_formula(dataclasses.replace(p, z=z), *p.arrays())
    (expected, slopes), (_, plain) = of(0.02), of(0.0)
    bound = 1.5 * float(jnp.finfo(p.dtype).eps) if p.dtype == jnp.bfloat16 else 4e-6
    for implementation in ("xla", "dense"):
        (value, (cross_entropy, z)), found = step(hidden, kernel, bias, implementation)
        assert_near(value, expected, 8 * tolerance(np.float32))
        assert_near(cross_entropy, plain[3], 4e-6)
        assert_near(0.02 * z, slopes[3] - plain[3], 4e-6)
        for x, y in zip(found, slopes[: len(found)], strict=True):
            assert_near(x, y, bound)


def test_losses_of_half_precision_are_those_of_float32():
    """optax's are off by 2e-2: it adds up in bfloat16."""
    p = Problem(64, 4096, 16, dtype=jnp.bfloat16, block=(16, 512))
    arrays = p.arrays()
    expected, _ = by_formula(p, *arrays)
    mean = jax.jit(p.mean)(*arrays, {})
    np.testing.assert_allclose(mean.total, expected, rtol=1e-6)
    np.testing.assert_allclose(mean.weight, np.sum(arrays[3]), rtol=1e-6)


def test_tails_keep_their_digits():
    """A label with all the mass has a loss and a gradient, and it is 2.06e-9."""
    hidden, kernel = jnp.float32([[1.0]]), jnp.float32([[20.0, 0.0]])

    @jax.jit
    def step(kernel):
        loss = lambda k, block: linear_softmax_cross_entropy(
            hidden, k, np.array([0]), block=block
        )
        of_total = jax.value_and_grad(lambda k, block: loss(k, block).total)
        return [of_total(kernel, block) for block in ((1, 1), (1, 2))]

    p = np.exp(-20.0) / (1 + np.exp(-20.0))
    for value, grad in step(kernel):
        np.testing.assert_allclose(value, np.log1p(np.exp(-20.0)), rtol=1e-6)
        np.testing.assert_allclose(grad, [[-p, p]], rtol=1e-6)


# --- edges ---------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_what_does_not_count_is_harmless(memory):
    """NaN, infinity and labels -1 behind a mask or a weight of 0, value and slopes."""
    p = Problem(12, 40, masked=4, memory=memory, block=(5, 16), smoothing=0.1)
    hidden, kernel, bias, weights, labels, where = p.arrays()
    weights = weights.at[5].set(0).at[6].set(0)
    hidden_bad = hidden.at[0].set(jnp.nan).at[1].set(jnp.inf).at[5].set(jnp.nan)
    labels_bad = np.array(labels)
    labels_bad[[2, 3, 6]] = [-1, 40, -5]
    numbers = {"label_smoothing": jnp.float32(0.1)}

    def total(hidden, kernel, weights, labels):
        mean = p.mean(hidden, kernel, bias, weights, labels, where, numbers)
        return mean.total, mean.weight

    step = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
    clean = step(hidden, kernel, weights, labels)
    with jax.debug_nans(True), jax.debug_infs(True):
        found = step(hidden_bad, kernel, weights, labels_bad)
    # The slope by a weight of 0 is the loss, and 0 of a loss there is not.
    expected = clean[0], (*clean[1][:2], clean[1][2].at[5:7].set(0))
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("implementation", ["xla", "dense"])
def test_unknown_labels_and_classes_that_do_not_exist(implementation):
    """NaN, and infinite: in value, gradient, and per token where it is."""
    hidden, kernel, *_ = Problem(3, 5).arrays()

    @jax.jit
    def step(kernel, bias, labels):
        call = lambda k, b: (
            linear_softmax_cross_entropy(
                hidden, k, labels, bias=b, implementation=implementation
            ).total
        )
        logs = linear_token_log_probs(
            hidden, kernel, labels, bias=bias, implementation=implementation
        )
        return *jax.value_and_grad(call, (0, 1))(kernel, bias), logs

    for label in (-1, 5):
        value, slopes, logs = step(kernel, jnp.zeros(5), np.array([0, label, 2]))
        assert np.isnan(value)
        assert np.isnan(slopes[0]).any()
        np.testing.assert_array_equal(np.isnan(logs), [False, True, False])
    known = np.array([0, 1, 2])
    value, slopes, logs = step(kernel, jnp.zeros(5).at[1].set(-jnp.inf), known)
    assert value == jnp.inf
    np.testing.assert_array_equal(logs == -jnp.inf, [False, True, False])
    assert all(np.isfinite(x).all() for x in slopes)
    value, slopes, logs = step(kernel, jnp.full(5, -jnp.inf), known)
    assert value == 0
    assert not np.any(logs)
    assert not any(np.any(x) for x in slopes)


def test_no_tokens():
    """An empty batch has the mean 0, and no gradient."""
    x, y = jnp.zeros((0, 3)), np.zeros(0, int)

    @jax.jit
    def step(kernel):
        loss = lambda k: linear_softmax_cross_entropy(x, k, y).compute()
        logs = linear_token_log_probs(x, kernel, y)
        return jax.value_and_grad(loss)(kernel), logs

    (value, slope), logs = step(jnp.ones((3, 5)))
    assert value == 0
    assert not np.any(slope)
    assert logs.shape == (0,)


def test_leading_axes_are_tokens():
    """`(batch, time, features)` is as good as `(tokens, features)`, and keeps shape."""
    hidden, kernel, _, weights, labels, where = Problem(12, 9, masked=3).arrays()

    @jax.jit
    def both(*arrays):
        x, y, w, m = arrays
        mean = linear_softmax_cross_entropy(x, kernel, y, weights=w, where=m)
        return linear_token_log_probs(x, kernel, y, where=m), mean.total

    arrays = hidden, labels, weights, where
    logs, total = both(*(x.reshape(3, 4, *x.shape[1:]) for x in arrays))
    flat_logs, flat_total = both(*arrays)
    np.testing.assert_array_equal(logs, flat_logs.reshape(3, 4))
    np.testing.assert_array_equal(total, flat_total)


# --- derivatives ---------------------------------------------------------------------

SMALL = Problem(11, 23, bias=True, block=(4, 8), dtype=np.float64, seed=3)


def losses_of(implementation, **options):
    """Functions of (hidden, kernel, numbers): the mean, and a sum of log-probs."""
    *_, bias, weights, labels, where = SMALL.arrays()
    scale = jnp.linspace(-1, 2, SMALL.tokens)

    def mean(x):
        hidden, kernel, numbers = x
        options_ = {"implementation": implementation} | options
        return SMALL.mean(
            hidden, kernel, bias, weights, labels, where, numbers, **options_
        ).compute()

    def sequence(x):
        hidden, kernel, numbers = x
        logs = linear_token_log_probs(
            hidden,
            kernel,
            labels,
            bias=bias,
            soft_cap=numbers["soft_cap"],
            temperature=numbers["temperature"],
            block=(4, 8),
            implementation=implementation,
        )
        return jnp.tanh(jnp.sum(scale * logs) / 10)

    return mean, sequence


def point(seed):
    """Hidden states, a kernel and numbers, or a direction to move them in: flat."""
    rng = np.random.default_rng(seed)
    hidden, kernel = rng.normal(size=(11, 4)), rng.normal(size=(4, 23))
    names = ("label_smoothing", "z_loss", "soft_cap", "temperature")
    numbers = dict(zip(names, 0.1 + rng.random(4), strict=True))
    return ravel_pytree((hidden, kernel, numbers))


def jit_once(fn):
    """`jit` for what runs once: without most of what makes the code fast."""
    return jax.jit(fn, compiler_options=programs.quickly())


def flat(fn):
    """The function of a flat point."""
    _, tree = point(0)
    return lambda v: fn(tree(v))


@functools.cache
def reference(index):
    """Value, gradient and Hessian of the dense formula."""
    fn = flat(losses_of("dense")[index])
    return jit_once(lambda v: (fn(v), jax.grad(fn)(v), jax.hessian(fn)(v)))


def descent(gradients, points):
    """Two steps of it from each point, and the values on the way."""
    values = []
    for _ in range(2):
        found = [gradients(v) for v in points]
        values.append([value for value, *_ in found])
        points = [v - 0.1 * x[1] for v, x in zip(points, found, strict=True)]
    return np.stack(points), np.array(values)


@pytest.mark.parametrize("which", ["fast", "lean", "log-probs"])
def test_transformations_are_those_of_the_dense_formula(which):
    """jvp, both orders of hvp, vmap, checkpoint, scan: to the rounding of float64."""
    index = int(which == "log-probs")
    fn = flat(losses_of("xla", **({} if index else {"memory": which}))[index])
    (v, _), (t, _), (u, _) = map(point, range(3))

    def step(carry, _):
        again = jax.value_and_grad(jax.checkpoint(fn))
        value, slope = jax.vmap(again)(carry)
        return carry - 0.1 * slope, value

    found = jit_once(lambda: (jax.jvp(fn, (v,), (t,)), jax.hessian(fn)(v)))()
    value, slope, hessian = reference(index)(v)
    assert_near(found, ((value, slope @ t), hessian), 1e-11)
    if which != "lean":
        along = lambda v: jax.grad(fn)(v) @ t
        two = jnp.stack([v, u])
        found = jit_once(lambda: (jax.grad(along)(v), lax.scan(step, two, length=2)))()
        assert_near(found, (hessian @ t, descent(reference(index), (v, u))), 1e-11)


def test_objectives_take_the_mean():
    """`train.value_and_grad` of three micro-batches is that of the whole batch."""
    hidden, kernel, _, weights, labels, where = Problem(12, 9, masked=3).arrays()

    def fn(kernel, batch):
        x, y, w, m = batch
        mean = linear_softmax_cross_entropy(x, kernel, y, weights=w, where=m)
        return {"nll": mean}

    objective = train.objective(fn)

    @jax.jit
    def grads(kernel, state, batch):
        steps = [train.value_and_grad(objective, microbatches=n) for n in (1, 3)]
        return [step(kernel, state, batch).grads for step in steps]

    batch = hidden, jnp.asarray(labels), weights, jnp.asarray(where)
    whole, parts = grads(kernel, objective.init(), batch)
    assert_near(parts, whole, 4 * tolerance(np.float32))


# --- memory and work -----------------------------------------------------------------

N, D, V = 1024, 256, 16384


def compiled(memory, dtype, block, wanted=(0, 1), logs=False):
    spec = jax.ShapeDtypeStruct

    def total(hidden, kernel, labels):
        if logs:
            return linear_token_log_probs(hidden, kernel, labels, block=block)
        return linear_softmax_cross_entropy(
            hidden, kernel, labels, memory=memory, block=block
        ).compute()

    fn = jax.value_and_grad(total, wanted) if wanted else total
    args = spec((N, D), dtype), spec((D, V), dtype), spec((N,), np.int32)
    return jax.jit(fn).lower(*args).compile()


def room_of(step):
    memory = step.memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def flops(step):
    cost = step.cost_analysis()
    assert cost is not None
    return cost["flops"]


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_memory_is_that_of_the_documented_formula(dtype):
    """And nothing of tokens x classes is in the program; dense has 128 MiB."""
    n, b = 128, 512
    narrow = 4 * D * V if dtype == jnp.bfloat16 else 0
    rooms = {
        "fast": 4 * (n * V + 4 * b * (n + D) + 3 * N * D) + narrow,
        "lean": 4 * (3 * N * b + 3 * b * D + 2 * N * D),
    }
    for memory, room in rooms.items():
        tokens = n if memory == "fast" else N
        step = compiled(memory, dtype, (tokens, b))
        assert room_of(step) <= 1.1 * room, memory
        assert not re.search(rf"\[{N},{V}\]|\[{V},{N}\]", str(step.as_text()))
    values = compiled("fast", dtype, (N, b), wanted=(), logs=True)
    assert room_of(values) <= 1.1 * rooms["lean"]
    assert not re.search(rf"\[{N},{V}\]|\[{V},{N}\]", str(values.as_text()))


def test_what_is_frozen_costs_nothing():
    """One matrix product for the value, and one for each gradient asked for."""
    product = 2 * N * D * V
    for wanted, products in (((), 1), ((0,), 2), ((1,), 2), ((0, 1), 3)):
        work = flops(compiled("fast", np.float32, (N, V), wanted)) / product
        # What is not a product is a few operations for each logit, of 2 D.
        assert products <= work <= products + 0.1, wanted


# --- eight devices -------------------------------------------------------------------


GATHERS = "all-gather|all-to-all|permute"


def sharded(arrays, specs, m):
    place = lambda x, s: jax.device_put(x, NamedSharding(m, s))
    return [place(x, s) for x, s in zip(arrays, specs, strict=True)]


def steps(memory, block):
    def total(hidden, kernel, labels, weights):
        return linear_softmax_cross_entropy(
            hidden, kernel, labels, weights=weights, memory=memory, block=block
        ).compute()

    return jax.jit(jax.value_and_grad(total, (0, 1)))


CUT = P("data"), P(), P("data"), P("data")
LARGE = Problem(1024, 1000, 16)


def large():
    hidden, kernel, _, weights, labels, _ = LARGE.arrays()
    return hidden, kernel, jnp.asarray(labels, jnp.int32), weights


@functools.cache
def of_large():
    """The mean, and its gradient by hidden and kernel."""
    hidden, kernel, labels, weights = map(np.asarray, large())
    every = np.ones(len(labels), bool)
    total, slopes = by_formula(LARGE, hidden, kernel, None, weights, labels, every)
    count = np.sum(weights, dtype=np.float64)
    return total / count, tuple(x / count for x in slopes[:2])


def check_tokens_cut_over_devices():
    """No gather, and an eighth of the work on each of eight devices."""
    m = mesh(data=8)
    for memory, block in (("fast", (256, 128)), ("lean", (1024, 128))):
        step = steps(memory, block)
        alone = step.lower(*large()).compile()
        many = step.lower(*sharded(large(), CUT, m)).compile()
        assert not re.search(GATHERS, str(many.as_text())), memory
        # Each device adds up its own gradient of the kernel: once per part, of which
        # it has 32 tokens here, and that is work of 1 / (6 * 32) of the products.
        assert flops(many) <= 1.06 * flops(alone) / 8, memory
        assert_near(many(*sharded(large(), CUT, m)), of_large(), 4e-6)


def check_classes_cut_over_devices():
    """With all classes in one block: nothing is gathered."""
    m = mesh(data=2, model=4)
    specs = P("data"), P(None, "model"), P("data"), P("data")
    many = steps("fast", (256, 1000)).lower(*sharded(large(), specs, m)).compile()
    assert not re.search(GATHERS, str(many.as_text()))
    assert_near(many(*sharded(large(), specs, m)), of_large(), 4e-6)


def check_explicit_axes():
    """Arrays whose types say how they are cut, without a block."""
    m = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)

    def both(hidden, kernel, labels, weights):
        hidden, labels = hidden.reshape(64, 16, 16), labels.reshape(64, 16)
        weights = weights.reshape(64, 16)
        loss = linear_softmax_cross_entropy(hidden, kernel, labels, weights=weights)
        logs = linear_token_log_probs(hidden, kernel, labels, block=(256, 128))
        again = -jnp.sum(weights * logs) / jnp.sum(weights)
        return (loss.compute() + again) / 2

    specs = P("data"), P(None, "model"), P("data"), P("data")
    with jax.set_mesh(m):
        step = jax.jit(jax.value_and_grad(both, (0, 1)))
        assert_near(step(*sharded(large(), specs, m)), of_large(), 4e-6)


def check_shard_map():
    """Inside and outside, with either check: the gradient of one device."""

    def local(hidden, kernel, labels, weights):
        mean = linear_softmax_cross_entropy(
            hidden, kernel, labels, weights=weights, memory="fast", block=(16, 128)
        )
        logs = linear_token_log_probs(hidden, kernel, labels, block=(32, 128))
        again = Mean(-jnp.sum(weights * logs), jnp.sum(weights))
        return lax.psum(mean + again, "data").compute()

    for check_vma in (True, False):
        map_ = functools.partial(
            jax.shard_map, mesh=mesh(data=8), in_specs=CUT, check_vma=check_vma
        )
        outside = jax.value_and_grad(map_(local, out_specs=P()), (0, 1))
        assert_near(jax.jit(outside)(*large()), of_large(), 4e-6)
    inside = jax.shard_map(
        jax.value_and_grad(local, (0, 1)),
        mesh=mesh(data=8),
        in_specs=CUT,
        out_specs=(P(), CUT[:2]),
    )
    assert_near(jax.jit(inside)(*large()), of_large(), 4e-6)


def check_classes_cut_inside_shard_map_are_refused():
    """A loss of the local classes alone would be another loss."""
    fn = jax.shard_map(
        lambda h, k, y: linear_softmax_cross_entropy(h, k, y).total,
        mesh=mesh(model=8),
        in_specs=(P(), P(None, "model"), P()),
        out_specs=P("model"),
    )
    *args, _ = large()
    with pytest.raises(ValueError, match=r"parallel\.softmax_cross_entropy"):
        jax.eval_shape(fn, *args)


def eight_devices():
    """Runs every check, and prints what went wrong."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    # Tiny problems: what counts is how XLA cuts them, not how fast the code is.
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            try:
                check()
            except Exception:
                traceback.print_exc(file=sys.stdout)
    print("done")


def test_on_eight_devices():
    """Every `check_` of this file."""
    done = run("-c", "from tests.kernels import test_linear as t; t.eight_devices()")
    assert done.stdout == "done\n", done.stdout + done.stderr


# --- bad calls -----------------------------------------------------------------------

x, w = np.zeros((2, 3), np.float32), np.zeros((3, 5), np.float32)
ids = np.zeros(2, int)
BAD = {
    "`hidden` has dtype int64": ((ids, w, ids), {}),
    "`kernel` has dtype int64": ((x, np.zeros((3, 5), int), ids), {}),
    "`kernel` has shape (5, 3); expected (3, classes)": ((x, w.T, ids), {}),
    "`kernel` has shape (3, 0)": ((x, w[:, :0], ids), {}),
    "expected (classes, 3), kernel_layout='vd'": ((x, w, ids), {"kernel_layout": "vd"}),
    "`labels` has dtype float32": ((x, w, x), {}),
    "`labels` has shape (1,)": ((x, w, ids[:1]), {}),
    "`bias` has dtype int64": ((x, w, ids), {"bias": np.zeros(5, int)}),
    "`bias` has shape (3,)": ((x, w, ids), {"bias": x[0]}),
    "`where` has dtype int64": ((x, w, ids), {"where": ids}),
    "`where` has shape (1,)": ((x, w, ids), {"where": np.ones(1, bool)}),
    "`soft_cap` is 0": ((x, w, ids), {"soft_cap": 0}),
    "`temperature` is -1": ((x, w, ids), {"temperature": -1}),
    "`temperature` has shape (2,)": ((x, w, ids), {"temperature": np.ones(2)}),
    "`kernel_layout` is 'dd'": ((x, w, ids), {"kernel_layout": "dd"}),
    "`block` has 8": ((x, w, ids), {"block": 8}),
    "`block` is 0": ((x, w, ids), {"block": (0, 1)}),
    "`block` is float": ((x, w, ids), {"block": (1, 1.0)}),
    "`implementation` is 'magic'": ((x, w, ids), {"implementation": "magic"}),
}
OF_THE_MEAN = {
    "`weights` has shape (3,)": ((x, w, ids), {"weights": np.ones(3)}),
    "`weights` has dtype complex": ((x, w, ids), {"weights": ids * 1j}),
    "`label_smoothing` is 1.5": ((x, w, ids), {"label_smoothing": 1.5}),
    "`z_loss` is -1": ((x, w, ids), {"z_loss": -1}),
    "`memory` is 'none'": ((x, w, ids), {"memory": "none"}),
}
CALLS = [
    ("linear_softmax_cross_entropy", *case) for case in (BAD | OF_THE_MEAN).items()
]
CALLS += [("linear_token_log_probs", *case) for case in BAD.items()]
CALLS += [("linear_softmax_cross_entropy_with_z", *case) for case in BAD.items()]


@pytest.mark.parametrize(("name", "message", "call"), CALLS)
def test_bad_calls_raise(name, message, call):
    """What is wrong is named."""
    args, options = call
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as error:
        getattr(untyped, name)(*args, **options)
    assert str(error.value).startswith(name)
