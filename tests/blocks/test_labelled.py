"""Rows against labels: what is computed once for value and gradient is still right."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxloss import stable
from jaxloss.stable import distributions, xla

EPS = 2.0**-23


def test_exp_difference():
    """2 ulp, however far the rounding of the difference is from an ulp."""
    rng = np.random.default_rng(0)
    b = np.concatenate([rng.uniform(-90, 90, 500), rng.normal(size=500) * 1e4])
    a = (b - rng.uniform(-40, 80, 1000)).astype(np.float32)
    b = b.astype(np.float32)
    found = np.asarray(jax.jit(stable.exp_difference)(a, b), float)
    exact = np.exp(a.astype(float) - b.astype(float))
    assert np.all(np.abs(found - exact) <= 2 * EPS * exact)


def test_exp_difference_at_the_ends():
    """No NaN of finite logits, nor of one that is -inf."""
    big, inf = float(jnp.finfo(jnp.float32).max), np.inf
    a = jnp.array([-inf, -big, -big, -big, -inf, big, 1.0, -inf], jnp.float32)
    b = jnp.array([0.0, -big, big, 0.0, big, big, inf, inf], jnp.float32)
    with jax.debug_nans(True):
        found = stable.exp_difference(a, b)
    assert jnp.array_equal(found, jnp.array([0, 1, 0, 0, 0, 1, 0, 0.0]))


def test_a_product_is_not_fused_into_the_exponential():
    """Logits that are products: the exponential of the largest is 1, not of its error.

    Those of a temperature, say, computed in the same program.
    """
    rng = np.random.default_rng(0)
    u = rng.uniform(1e9, 1e10, (64, 100)).astype(np.float32)
    loss = lambda u: stable.softmax_nll(u * np.float32(1.1), jnp.argmax(u, axis=-1))
    value, slope = jax.jit(jax.value_and_grad(lambda u: jnp.sum(loss(u))))(u)
    assert value == 0
    assert jnp.all(slope == 0)


@pytest.mark.parametrize("classes", [10, 1000])
def test_the_gradient_of_many_classes(classes):
    """5 ulp of every class, and the value under the gradient 4, as alone."""
    rng = np.random.default_rng(0)
    x = (10 * rng.normal(size=(32, classes))).astype(np.float32)
    order = np.argsort(x, axis=1)
    ids = np.where(np.arange(32) % 2, order[:, -1], order[:, classes // 2])
    total = lambda x: (jnp.sum(v := stable.softmax_nll(x, ids)), v)
    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, value), slope = jax.tree.map(np.asarray, run(x))
    wide = x.astype(np.longdouble)
    e = np.exp(wide - wide.max(1, keepdims=True))
    at = np.arange(classes) == ids[:, None]
    rest = np.where(at, 0, e).sum(1) / e[at]
    p = e / e.sum(1, keepdims=True)
    want = np.where(at, -(rest / (1 + rest))[:, None], p)
    assert np.all(np.abs(slope - want) <= 5 * EPS * np.abs(want) + 1e-37)
    for found in (value, np.asarray(jax.jit(stable.softmax_nll)(x, ids))):
        assert np.all(np.abs(found - np.log1p(rest)) <= 4 * EPS * np.log1p(rest))


def test_many_terms_that_are_nothing_each():
    """The sum of 30 thousand exp(-90) is a number, each of them is none."""
    x = jnp.zeros((1, 30001), jnp.float32).at[0, 3].set(90)
    loss = lambda x: stable.softmax_nll(x, jnp.array([3]))[0]
    found, slope = jax.jit(jax.value_and_grad(loss))(x)
    exact = 30000 * np.exp(-90)
    assert abs(float(found) - exact) <= 4 * EPS * exact
    assert abs(float(slope[0, 3]) + exact) <= 5 * EPS * exact


def test_padding_has_any_id():
    """A row of -inf costs 0, whatever its id; another id that is no class is NaN."""
    x = jnp.array([[-np.inf, -np.inf], [0, 1], [0, 1]], jnp.float32)
    for fn in (stable.softmax_nll, stable.softmax_spread):
        value, pull = jax.vjp(lambda x, fn=fn: fn(x, jnp.array([-1, 7, 1])), x)
        assert value[0] == 0
        assert jnp.isnan(value[1])
        (slope,) = pull(jnp.array([1.0, 0.0, 1.0], jnp.float32))
        assert jnp.all(slope[:2] == 0)
        assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize("ties", [1, 2, 5])
def test_ties_are_counted(ties):
    """Of logits and of weights: p sum(w) - w, where several are the largest."""
    x = jnp.zeros((1, 5), jnp.float32).at[0, :ties].set(30)
    w = jnp.full((1, 5), 1e-6, jnp.float32).at[0, :ties].set(0.5)
    slope = jax.jit(jax.grad(lambda x: stable.softmax_cross_entropy(x, w)[0]))(x)
    wide, v = np.asarray(x, np.longdouble), np.asarray(w, np.longdouble)
    p = np.exp(wide - 30) / np.exp(wide - 30).sum()
    terms = np.array(
        [[p[0, i] * v[0, j] for j in range(5) if j != i] for i in range(5)],
    )
    minus = [[p[0, j] * v[0, i] for j in range(5) if j != i] for i in range(5)]
    exact, size = (terms - minus).sum(1), (terms + minus).sum(1)
    assert np.all(np.abs(np.asarray(slope[0]) - exact) <= 5 * EPS * size)


@pytest.mark.parametrize("ties", [1, 2, 5])
def test_others_than_the_largest_on_every_platform(ties):
    """Their sum, however small beside the largest, which may be several."""
    rng = np.random.default_rng(ties)
    v = np.exp(rng.normal(size=(20, 40)) * 5 - 20).astype(np.float32)
    v[:, 7 : 7 + ties] = 1
    exact = np.sort(v.astype(float), -1)[:, :-1].sum(-1)
    for find in (distributions._by_subtraction, distributions._by_exclusion):
        largest, others = jax.jit(find)(v)
        assert np.all(np.asarray(largest) == 1)
        assert np.all(np.abs(np.asarray(others, float) - exact) <= 20 * EPS * exact)


def test_an_entry_is_found_on_every_platform(monkeypatch):
    """By a gather or by comparison, of finite logits and of infinite ones."""
    x = jnp.array([[1.0, -np.inf, 3.0], [np.inf, 2.0, np.nan]], jnp.float32)
    found = [xla.entry(x, jnp.array(ids)) for ids in ([1, 0], [2, 1])]
    elsewhere = lambda *args, default, **platforms: default(*args)
    monkeypatch.setattr(lax, "platform_dependent", elsewhere)
    again = [xla.entry(x, jnp.array(ids)) for ids in ([1, 0], [2, 1])]
    assert jnp.array_equal(jnp.array(found), jnp.array(again))


def test_the_exponentials_are_computed_once_on_a_cpu():
    """With the gradient; and written nowhere but where that will be."""
    shape = jax.ShapeDtypeStruct((512, 4096), jnp.float32)
    ids = jax.ShapeDtypeStruct((512,), jnp.int32)
    mean = lambda x, ids: jnp.mean(stable.softmax_nll(x, ids))
    with jax.default_device(jax.devices("cpu")[0]):
        step = jax.jit(jax.value_and_grad(mean)).lower(shape, ids).compile()
    program: Any = step
    assert program.as_text().count("f32[512,4096]{1,0} exponential(") == 1
    assert program.memory_analysis().temp_size_in_bytes < 2**17


def test_a_row_without_a_logit_has_no_class():
    """Of -inf throughout; a NaN is a logit, and whose id it is does not matter."""
    x = jnp.array([[-jnp.inf, -jnp.inf], [-jnp.inf, 0.0], [jnp.nan, -jnp.inf]])
    found = stable.has_class(x, jnp.array([0, 5, 1]))
    assert jnp.array_equal(found, jnp.array([False, True, True]))


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_hidden_is_the_same_number_on_every_platform(monkeypatch, variant):
    """Every float of few digits, the infinities and NaN; and so is its gradient."""
    bits = np.arange(2**16, dtype=np.uint32) << 16
    x = jnp.asarray(bits.view(np.float32))
    x = jnp.where(jnp.abs(x) < jnp.finfo(x.dtype).tiny, 0, x)
    elsewhere = lambda *args, default, **platforms: default(*args)
    monkeypatch.setattr(lax, "platform_dependent", elsewhere)
    found, slope = jax.jvp(
        lambda x: xla.hidden(x, variant), (x,), (jnp.full_like(x, 3),)
    )
    assert np.array_equal(np.asarray(found), np.asarray(x), equal_nan=True)
    assert jnp.all(slope == 3)


def test_computed_again_has_the_same_derivatives(monkeypatch):
    """In both arguments, of first and second order, elsewhere than on a CPU too."""
    plain = lambda x, y: jnp.sin(x * y) + x
    point = jnp.float32(2.0), jnp.float32(3.0)
    again = xla.rematerialised_unless_cpu(plain)
    of = lambda fn: [
        jax.grad(fn, (0, 1))(*point),
        jax.hessian(fn, (0, 1))(*point),
    ]
    expected = of(plain)
    elsewhere = lambda *args, default, **platforms: default(*args)
    monkeypatch.setattr(lax, "platform_dependent", elsewhere)
    for a, b in zip(*map(jax.tree.leaves, (of(again), expected)), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-6)
