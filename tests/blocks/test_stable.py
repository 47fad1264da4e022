"""The primitives at every edge: limits, masks, ties, and what XLA would rewrite."""

import math
import operator

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxloss import stable
from jaxloss.claims.classification.cross_entropy import log_sum
from jaxloss.testing import tolerance


@pytest.mark.parametrize(
    ("fn", "at", "value", "slope"),
    [
        (stable.log1p, -1.0, -np.inf, np.inf),
        (stable.log1p, np.inf, np.inf, 0.0),
        (stable.expm1, -np.inf, -1.0, 0.0),
        (stable.sigmoid, np.inf, 1.0, 0.0),
        (stable.sigmoid, -np.inf, 0.0, 0.0),
        (stable.softplus, -np.inf, 0.0, 0.0),
        (stable.softplus, np.inf, np.inf, 1.0),
        (stable.tanh, np.inf, 1.0, 0.0),
        (stable.tanh, -np.inf, -1.0, 0.0),
        (stable.log_cosh, -np.inf, np.inf, -1.0),
        (stable.log_cosh, 0.0, 0.0, 0.0),
        (stable.log1mexp, 0.0, -np.inf, np.inf),
        (stable.log1mexp, np.inf, 0.0, 0.0),
        (stable.sqrt, 0.0, 0.0, 0.0),
        (stable.log_probabilities, 0.0, -np.inf, 0.0),
        (stable.log_probabilities, 1.0, 0.0, 1.0),
        (stable.magnitude, 0.0, 0.0, 0.0),
    ],
)
def test_limits(fn, at, value, slope):
    """The limits of each function are its values at the ends of its domain."""
    x = jnp.float32(at)
    assert fn(x) == value
    assert jax.jit(jax.grad(fn))(x) == slope


@pytest.mark.parametrize(
    "fn",
    [
        stable.log1p,
        stable.expm1,
        stable.sigmoid,
        stable.softplus,
        stable.tanh,
        stable.log_cosh,
        stable.log1mexp,
        stable.sqrt,
        stable.log_probabilities,
        stable.magnitude,
    ],
)
def test_nan_is_not_swallowed(fn):
    """NaN in gives NaN out, in the value and in the gradient."""
    value, slope = jax.value_and_grad(fn)(jnp.float32(np.nan))
    assert jnp.isnan(value)
    assert jnp.isnan(slope)


@pytest.mark.parametrize("fn", [stable.xlogy, stable.xlog1py])
def test_zero_times_log_zero(fn):
    """0 log 0 is 0, with finite derivatives of every order in both arguments."""
    y = 0.0 if fn is stable.xlogy else -1.0
    args = (jnp.float32(0), jnp.float32(y))
    value, slopes = jax.value_and_grad(fn, argnums=(0, 1))(*args)
    assert value == 0
    assert slopes == (0, 0)
    hessian = jax.hessian(fn, argnums=(0, 1))(*args)
    assert all(jnp.isfinite(h) for h in jax.tree.leaves(hessian))


def test_generalised_cross_entropy_ends_in_the_plain_one():
    """At q = 0 it is the loss, with slopes 1, `-loss^2 / 2` in q, and `-loss` in both;
    at q = 1 it is 1 - p; and of an infinite loss 1 / q, with finite slopes."""
    fn = lambda loss, q: -stable.boxcox(-loss, q)
    losses = jnp.float32([0.0, 1e-8, 0.5, 30.0])
    per_loss = jax.vmap(jax.value_and_grad(fn, (0, 1)), (0, None))
    value, (by_loss, by_q) = per_loss(losses, jnp.float32(0))
    np.testing.assert_array_equal(value, losses)
    np.testing.assert_array_equal(by_loss, np.ones(4))
    np.testing.assert_allclose(by_q, -(losses**2) / 2, rtol=1e-6)
    value, (by_loss, _) = per_loss(losses, jnp.float32(1))
    np.testing.assert_allclose(value, -np.expm1(-losses), rtol=1e-6)
    np.testing.assert_allclose(by_loss, np.exp(-losses), rtol=1e-5)
    mixed = jax.vmap(jax.grad(jax.grad(fn), 1), (0, None))(losses, jnp.float32(0))
    np.testing.assert_array_equal(mixed, -losses)
    value, slopes = jax.value_and_grad(fn, (0, 1))(
        jnp.float32(np.inf), jnp.float32(0.5)
    )
    assert value == 2
    assert slopes == (0, -4)
    assert fn(jnp.float32(np.inf), jnp.float32(0)) == np.inf


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize(
    ("fn", "value"), [(stable.logsumexp, -np.inf), (stable.log_softmax, 0.0)]
)
def test_nothing_left_of_a_row(fn, value, mode):
    """An all-masked row and one of -inf: value -inf or 0, gradient 0, no NaN."""
    x = jnp.array([[1.0, jnp.nan, 3.0], [-jnp.inf] * 3], jnp.float32)
    where = jnp.array([[False] * 3, [True] * 3])
    masked = lambda x: fn(x, where=where)
    assert jnp.all(masked(x) == value)
    assert jnp.all(mode(masked)(x) == 0)
    assert jnp.all(mode(jax.grad(lambda x: jnp.sum(masked(x))))(x) == 0)


def test_masked_entries_are_no_classes():
    """A masked entry changes nothing and has log-probability -inf."""
    x = jnp.array([1.0, jnp.nan, 3.0], jnp.float32)
    where = jnp.array([True, False, True])
    kept = x[where]
    assert stable.logsumexp(x, where=where) == stable.logsumexp(kept)
    log_p = stable.log_softmax(x, where=where)
    assert jnp.all(log_p[where] == stable.log_softmax(kept))
    assert log_p[1] == -jnp.inf
    gradient = jax.grad(lambda x: stable.logsumexp(x, where=where))(x)
    assert gradient[1] == 0
    assert jnp.all(gradient[where] == stable.softmax(kept))


def test_minus_infinity_has_probability_zero():
    """A -inf logit adds nothing; another one's loss and Hessian are finite."""
    x = jnp.array([0.0, -jnp.inf, 1.0], jnp.float32)
    nll = lambda x: stable.softmax_nll(x, jnp.array(0))
    assert abs(nll(x) - math.log1p(math.e)) <= 2.0**-23  # an ulp
    assert jax.grad(nll)(x)[1] == 0
    assert jnp.all(jnp.isfinite(jax.hessian(nll)(x)))
    assert stable.softmax_nll(x, jnp.array(1)) == jnp.inf
    assert jnp.all(
        jnp.isfinite(jax.grad(lambda x: stable.softmax_nll(x, jnp.array(1)))(x))
    )


def test_confident_rows_keep_their_tail():
    """float32 logits [20, 0] lose log1p(exp(-20)) = 2.06e-9, not 0."""
    x = jnp.array([20.0, 0.0], jnp.float32)
    value, gradient = jax.value_and_grad(stable.softmax_nll)(x, jnp.array(0))
    tail = mp.exp(-20) / (1 + mp.exp(-20))
    assert abs(value - float(mp.log1p(mp.exp(-20)))) < 1e-15
    assert abs(gradient[1] - float(tail)) < 1e-15
    assert gradient[0] == -gradient[1]


def test_unknown_classes_are_nan():
    """An id outside the classes gives NaN, in value and gradient: not another class."""
    x = jnp.zeros((3, 4), jnp.float32)
    ids = jnp.array([-1, 4, 2])
    value, pull = jax.vjp(lambda x: stable.softmax_nll(x, ids), x)
    assert jnp.array_equal(jnp.isnan(value), jnp.array([True, True, False]))
    (gradient,) = pull(jnp.ones(3, jnp.float32))
    assert jnp.array_equal(jnp.isnan(gradient).any(axis=1), jnp.isnan(value))


@pytest.mark.parametrize("classes", [100, 1000, 32000])
def test_many_classes(classes):
    """The value keeps its 4 ulp with the number of classes."""
    x = 10 * np.random.default_rng(0).normal(size=(4, classes)).astype(np.float32)
    ids = np.argsort(x, axis=1)[[0, 1, 2, 3], [-1, -1, 0, classes // 2]]
    with mp.workdps(40):
        exact = [
            log_sum([mp.mpf(float(v)) for v in row]) - mp.mpf(float(row[i]))
            for row, i in zip(x, ids, strict=True)
        ]
    value = jax.jit(stable.softmax_nll)(jnp.asarray(x), jnp.asarray(ids))
    for a, t in zip(np.asarray(value, np.float64), exact, strict=True):
        assert abs(mp.mpf(float(a)) - t) <= 4 * t * 2.0**-23


@pytest.mark.parametrize("order", [1, 2, 3.0, np.inf])
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_norm_of_zero(order, mode):
    """At the zero vector a norm is 0 and so are its first two derivatives."""
    zero = jnp.zeros(3, jnp.float32)
    norm = lambda x: stable.norm(x, ord=order)
    assert norm(zero) == 0
    assert jnp.all(mode(norm)(zero) == 0)
    assert jnp.all(mode(jax.grad(norm))(zero) == 0)


def test_norm_of_infinite_and_nan():
    """An infinite entry makes the norm infinite, NaN makes it NaN."""
    assert stable.norm(jnp.array([jnp.inf, 1.0])) == jnp.inf
    assert jnp.isnan(stable.norm(jnp.array([jnp.nan, 1.0])))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("shape", [(7, 3), (65, 33), (130, 64)])
def test_identical_rows_are_at_distance_zero(shape, dtype):
    """Exactly 0 for equal rows with gradient 0, never negative, under jit."""
    a = np.random.default_rng(0).normal(size=shape) * 100
    a[1], a[2] = a[0], 0.0
    a[3] = -a[2]  # -0 equals 0
    a = jnp.asarray(a, dtype)
    d = jax.jit(stable.squared_distances)(a, a)
    same = jnp.all(a[:, None] == a[None], axis=-1)
    assert jnp.array_equal(d == 0, same)
    assert jnp.all(d >= 0)
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(stable.distances(a, a[:4])[:4])))(a)
    assert jnp.all(jnp.isfinite(gradient))


def test_distances_are_those_of_the_rows():
    """Within the error stated: a few eps of the squared norms."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(9, 16)), rng.normal(size=(5, 16))
    a, b = (np.asarray(v, np.float32) for v in (a, b))
    exact = ((a[:, None].astype(float) - b[None]) ** 2).sum(-1)
    norms = (a.astype(float) ** 2).sum(-1)[:, None] + (b.astype(float) ** 2).sum(-1)
    error = np.abs(
        np.asarray(stable.squared_distances(jnp.asarray(a), jnp.asarray(b))) - exact
    )
    assert np.all(error <= 4 * 2.0**-23 * norms)
    gradient = jax.grad(lambda a: jnp.sum(stable.squared_distances(a, jnp.asarray(b))))(
        a
    )
    by_hand = 2 * (5 * a.astype(float) - b.astype(float).sum(0))
    np.testing.assert_allclose(gradient, by_hand, rtol=0, atol=2e-5, equal_nan=False)


def test_products_are_rounded_before_they_are_subtracted():
    """A scaled row has the softmax of the scaled numbers, not of a fused product."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5)) * 1e9, jnp.float32)
    together = jax.jit(lambda x, s: stable.softmax(x * s))(x, jnp.float32(1.7))
    apart = stable.softmax(x * jnp.float32(1.7))
    assert jnp.array_equal(together, apart)


@pytest.mark.parametrize("level", [0, 3])
def test_the_largest_of_fused_products_is_the_largest(level):
    """Each kernel may round `a c + b` in its own way: the largest is still one of them,
    and all add up to 1, as without a product."""
    rng = np.random.default_rng(0)
    a, c = (jnp.asarray(5 * rng.normal(size=(64, 10)), jnp.float32) for _ in range(2))
    b = jnp.asarray(rng.normal(size=(64, 1)), jnp.float32)
    logits = lambda a, c, b: a * c + jnp.broadcast_to(b, a.shape)
    family = stable.softmax, stable.log_softmax
    both = jax.jit(lambda *rows: [f(logits(*rows)) for f in family])
    options = {"xla_backend_optimization_level": level}
    found = both.lower(a, c, b).compile(compiler_options=options)(a, c, b)
    z = logits(*(np.asarray(x, float) for x in (a, c, b)))
    shifted = z - z.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    # Logits of up to 200 are rounded by 100 eps, and p by as much of it.
    bound = 128 * tolerance(np.float32)
    for x, want in zip(found, (p, np.log(p)), strict=True):
        np.testing.assert_allclose(x, want, rtol=bound, atol=bound)


def test_identical_directions_cancel():
    """The directions of equal vectors are equal under jit, to the last bit."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 7)), jnp.float32)
    gap = jax.jit(lambda a, b: stable.unit(a) - stable.unit(b))(x, x.copy())
    assert jnp.all(gap == 0)


def test_difference_is_exact():
    """`difference` gives the rounded difference and its error, to the last bit."""
    rng = np.random.default_rng(0)
    a = jnp.asarray(
        rng.normal(size=100) * 10.0 ** rng.integers(-6, 6, 100), jnp.float32
    )
    b = jnp.asarray(
        rng.normal(size=100) * 10.0 ** rng.integers(-6, 6, 100), jnp.float32
    )
    d, error = jax.jit(stable.difference)(a, b)
    exact = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    assert np.array_equal(np.asarray(d, np.float64) + np.asarray(error, float), exact)


def test_no_intermediate_nan():
    """`jax_debug_nans` stays quiet at every edge, forward and backward."""
    edges = jnp.asarray([0.0, 1.0, -1.0, 1e30, -1e30, jnp.inf, -jnp.inf], jnp.float32)
    everywhere = [stable.sigmoid, stable.softplus, stable.tanh, stable.log_cosh]
    with jax.debug_nans(True):
        for fn in everywhere:
            jax.grad(lambda x, fn=fn: jnp.sum(fn(x)))(edges)
        jax.grad(lambda x: jnp.sum(stable.sigmoid_power(x, jnp.float32(0.5))))(edges)
        jax.grad(lambda x: jnp.sum(stable.unit(x)))(jnp.zeros((2, 3)))
        jax.grad(lambda x: stable.logsumexp(x))(jnp.full(3, -jnp.inf))


@pytest.mark.parametrize("size", [1e-20, 1e-30, 1e30])
def test_lengths_of_compiled_constants(size):
    """XLA simplifies what it knows: the scale must not get back into the squares."""
    x = size * jnp.float32([[3, 4], [0, 2]])
    length = jax.jit(lambda: stable.norm(x))()
    np.testing.assert_allclose(
        length, size * np.array([5, 2]), rtol=tolerance(np.float32)
    )
    direction = jax.jit(lambda: stable.unit(x))()
    expected = [[0.6, 0.8], [0, 1]]
    np.testing.assert_allclose(direction, expected, rtol=tolerance(np.float32))


def test_old_names_are_found_with_a_warning():
    """What had another name in 0.1 says what it is called now."""
    for old, now in (
        ("with_derivatives", stable.slopes),
        ("apart", stable.xla.rematerialised),
        ("rounded", stable.xla.no_fma),
    ):
        with pytest.warns(DeprecationWarning, match=rf"stable\.{old} is .*0\.3"):
            assert getattr(stable, old) is now
    with pytest.raises(AttributeError, match="no attribute 'derivatives'"):
        operator.attrgetter("derivatives")(stable)


def test_logsumexp_near_zero():
    """Where the largest is 0, what is left of the others counts, by its own digits."""
    x = np.array([[0.0, -20.0], [0.0, -15.0], [-80.0, 0.0]], np.float32)
    want = np.log1p(np.exp(x.min(axis=1).astype(np.float64)))
    found = stable.logsumexp(jnp.asarray(x))
    np.testing.assert_allclose(found, want, rtol=2 * tolerance(np.float32))


def test_the_largest_share_the_slope_of_their_norm():
    """Of three in a tie, each has a third of it, with its sign."""
    x = jnp.array([3.0, 3.0, -3.0, 1.0])
    slope = jax.grad(lambda x: stable.norm(x, ord=np.inf))(x)
    np.testing.assert_allclose(slope, [1 / 3, 1 / 3, -1 / 3, 0], rtol=1e-15)


def test_a_class_that_is_neither_possible_nor_expected():
    """It adds nothing to the cross entropy, and its weight has no slope."""
    x, weights = jnp.array([-jnp.inf, 0.0, 1.0]), jnp.array([0.0, 0.25, 0.75])
    loss = stable.softmax_cross_entropy
    surprise = np.log1p(np.exp([1.0, -1.0]))
    value, (slope, in_weights) = jax.value_and_grad(loss, (0, 1))(x, weights)
    np.testing.assert_allclose(value, surprise @ [0.25, 0.75], rtol=1e-15)
    p = 1 / (1 + np.exp(1.0))
    np.testing.assert_allclose(slope, [0, p - 0.25, 0.25 - p], rtol=1e-14)
    np.testing.assert_allclose(in_weights, [0, *surprise], rtol=1e-15)
    step = jnp.array([1.0, 0.0, 0.0])
    _, along = jax.jvp(lambda w: loss(x, w), (weights,), (step,))
    assert along == 0


def test_log_gamma_ratio_of_large_numbers():
    """In float32, where `lgamma` of 1e4 is 82099.7, to a hundredth."""
    x, a = jnp.float32([1e4, 5e6, jnp.inf]), jnp.float32([3, 0.5, 7])
    found = stable.log_gamma_ratio(x, a)
    with mp.workdps(40):
        rise = mp.loggamma(10003) - mp.loggamma(10000) - 3 * mp.log(10000)
    assert abs(float(rise) - 2.99975e-4) < 1e-9
    np.testing.assert_allclose(found, [float(rise), -2.5e-8, 0], rtol=4 * 2.0**-23)
