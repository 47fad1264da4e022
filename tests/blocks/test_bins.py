"""Numbers as classes: worked values, what is preserved, the far tails, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.stable import intervals
from jaxloss.testing import tolerance
from jaxloss.testing.exact import mp

FLOAT32 = tolerance(np.float32)
array = lambda *x: jnp.array(x, jnp.float32)
UNEVEN = array(-3, -1, -0.5, 2, 7)


# --- two_hot -------------------------------------------------------------------------


def test_two_hot_worked_values():
    """Shares of 3/4 and 1/4; all at a number of the support; the ends beyond it."""
    values = array(1.25, 2, 5, -5, jnp.inf, -jnp.inf)
    expected = np.zeros((6, 4))
    expected[0, 1:3] = 0.75, 0.25
    expected[range(1, 6), [2, 3, 0, 3, 0]] = 1
    found = jaxloss.two_hot(values, support=jnp.arange(4.0))
    np.testing.assert_array_equal(found, expected)


def test_the_expectation_of_two_hot_is_the_value():
    """In any support; the labels are distributions with at most two classes."""
    values = jnp.linspace(-3, 7, 2001, dtype=jnp.float32)
    p = jaxloss.two_hot(values, support=UNEVEN)
    np.testing.assert_allclose(p @ UNEVEN, values, atol=4 * 7 * FLOAT32)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=2 * FLOAT32)
    assert ((p >= 0) & (p <= 1)).all()
    assert ((p > 0).sum(-1) <= 2).all()


def test_the_expectation_of_two_hot_has_slope_one():
    """In the support, also at its numbers; and 0 beyond, where it stays at the end."""
    expectation = lambda y: jaxloss.two_hot(y, support=UNEVEN) @ UNEVEN
    slope = jax.vmap(jax.grad(expectation))
    inside = array(-3, -2.9, -1, -0.7, 0, 2, 6.9)
    np.testing.assert_allclose(slope(inside), 1, rtol=8 * FLOAT32)
    np.testing.assert_array_equal(slope(array(-4, 7, 1e30, jnp.inf)), 0)


def test_two_hot_of_no_number_is_none():
    found = jaxloss.two_hot(array(jnp.nan, 1), support=array(0, 1))
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [0, 1]])


def test_two_hot_of_one_number_or_none():
    np.testing.assert_array_equal(jaxloss.two_hot(array(3, -1), support=array(2)), 1)
    assert jaxloss.two_hot(jnp.zeros((0, 2)), support=UNEVEN).shape == (0, 2, 5)


def test_two_hot_far_beyond_a_narrow_support_has_no_nan_slope():
    """Quotients that no share uses would be infinite there."""
    support = array(0, 1e-30, 1)
    slopes = jax.jacobian(lambda y, s: jaxloss.two_hot(y, support=s), (0, 1))
    for y in (-1e38, 0.0, 0.5, 1e38):
        assert all(jnp.isfinite(s).all() for s in slopes(jnp.float32(y), support))


# --- hl_gauss ------------------------------------------------------------------------


def normal(x):
    """The distribution function, in mpmath, from its tail."""
    return mp.erfc(-x / mp.sqrt(2)) / 2


def masses(value, edges, scale):
    """Those of a normal in bins, in 50 digits, from the tail they are on."""
    with mp.workdps(50):
        z = [(mp.mpf(float(e)) - mp.mpf(float(value))) / float(scale) for e in edges]
        z = [-x for x in z[::-1]] if z[0] > 0 else z
        parts = [normal(b) - normal(a) for a, b in itertools.pairwise(z)]
        shares = [float(p / mp.fsum(parts)) for p in parts]
        return shares[::-1] if edges[0] > value else shares


def test_hl_gauss_worked_values():
    """Half a bin beside an edge, and on one."""
    half = jaxloss.hl_gauss(array(0.5), edges=array(0, 1, 2), scale=0.5)
    np.testing.assert_allclose(half, [[0.8127305706, 0.1872694294]], rtol=2e-7)
    edge = jaxloss.hl_gauss(array(1.0), edges=array(0, 1, 2), scale=1.0)
    np.testing.assert_allclose(edge, [[0.5, 0.5]], rtol=2 * FLOAT32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hl_gauss_far_beyond_the_edges(dtype):
    """Where the textbook is 0/0: nearly 1 in the nearest bin, e^-50 in the other."""
    edges = np.array([0.0, 1.0, 2.0], dtype)
    for value in (-6.0, -50.0, 16.0, 300.0):
        found = jaxloss.hl_gauss(dtype(value), edges=edges, scale=dtype(1))
        expected = masses(value, edges, 1)
        # The exponent |z| has a rounding error of |z| / 2 ulps, and so has the rest.
        error = 8 * (1 + 2 * abs(value)) * tolerance(dtype)
        np.testing.assert_allclose(found, expected, rtol=error, atol=1e-37)


def textbook(value, edges, scale):
    cumulative = jax.scipy.stats.norm.cdf(edges, value, scale)
    return jnp.diff(cumulative) / (cumulative[-1] - cumulative[0])


def test_the_textbook_has_no_digits_there():
    """It is what this function is for."""
    assert jnp.isnan(textbook(array(16.0), array(0, 1, 2), 1.0)).any()


def test_hl_gauss_is_as_accurate_in_float64():
    """The rule has more nodes: as in float32, within 8 ulps of the true masses."""
    edges = np.array([-3.0, -1.0, -0.5, 2.0, 7.0])
    for value, scale in [(-0.7, 0.3), (0.1, 2.0), (1.9, 5e-2), (6.0, 40.0), (0.0, 1e6)]:
        found = jaxloss.hl_gauss(value, edges=edges, scale=scale)
        expected = np.array(masses(value, edges, scale))
        # The exponent of a mass of exp(-x) has a rounding error of x / 2 ulps.
        error = 8 * (1 - np.log(np.maximum(expected, 1e-300))) * tolerance(np.float64)
        assert (np.abs(found - expected) <= error * expected).all()


def test_hl_gauss_sums_to_one():
    """Over values far beyond and within, and scales of all sizes."""
    scales = jnp.asarray(np.geomspace(1e-6, 1e6, 49), jnp.float32)[:, None]
    values = array(-1e6, -400, -3, -0.7, 1e-3, 2, 6.5, 1e6)
    p = jaxloss.hl_gauss(
        jnp.broadcast_to(values, (49, 8)), edges=UNEVEN, scale=jnp.tile(scales, (1, 8))
    )
    np.testing.assert_allclose(p.sum(-1), 1, rtol=8 * FLOAT32)
    assert ((p >= 0) & (p <= 1)).all()


def test_hl_gauss_of_no_scale_is_one_hot_and_of_any_is_the_widths():
    values = array(-4, -0.7, 1, 8)
    small = jaxloss.hl_gauss(values, edges=UNEVEN, scale=1e-30)
    np.testing.assert_array_equal(small, np.eye(4)[[0, 1, 2, 3]])
    large = jaxloss.hl_gauss(values, edges=UNEVEN, scale=1e30)
    widths = np.diff(UNEVEN) / 10
    np.testing.assert_allclose(large, np.tile(widths, (4, 1)), rtol=4 * FLOAT32)


def test_hl_gauss_of_values_that_are_no_numbers():
    found = jaxloss.hl_gauss(array(jnp.nan, jnp.inf, -jnp.inf), edges=UNEVEN, scale=1.0)
    assert jnp.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1:], np.eye(4)[[3, 0]])


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e3, 1e6])
def test_hl_gauss_has_no_nan_derivative(scale):
    """First and second, in all arguments, beyond, at and between the edges."""
    of = lambda y, e, s: jaxloss.hl_gauss(y, edges=e, scale=s)[1]
    hessian = jax.jit(jax.vmap(jax.hessian(of, (0, 1, 2)), (0, None, None)))
    values = array(-1e6, -30, -3, -1, -0.75, -0.5, 0, 7, 1e3, 1e6, jnp.inf)
    for part in jax.tree.leaves(hessian(values, UNEVEN, jnp.float32(scale))):
        assert jnp.isfinite(part).all()


def test_the_slope_of_hl_gauss_is_a_difference_of_means():
    """`p_k (m_k - m) / sigma^2`, with means of the normal within bins."""
    value, scale, edges = mp.mpf("0.3"), mp.mpf("0.75"), [-1, 0, 1, 3]
    density = lambda x: mp.npdf(x, value, scale)
    means = lambda a, b: mp.quad(lambda x: x * density(x), [a, b])
    parts = list(itertools.pairwise(edges))
    mass = [mp.quad(density, part) for part in parts]
    total, mean = mp.fsum(mass), means(-1, 3) / mp.fsum(mass)
    expected = [
        float(q / total * (means(*part) / q - mean) / scale**2)
        for q, part in zip(mass, parts, strict=True)
    ]
    found = jax.jacobian(
        lambda y: jaxloss.hl_gauss(y, edges=array(*edges), scale=0.75)
    )(0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("count", [20, 48])
def test_the_rule_is_exact_for_polynomials(count):
    """Gauss-Legendre of n nodes: up to the degree 2 n - 1, in the last place."""
    x, weights = np.array(intervals._gauss_legendre(count)).T
    for degree in range(2 * count):
        assert np.dot(weights, x**degree) == pytest.approx(1 / (degree + 1), rel=4e-15)


# --- both ----------------------------------------------------------------------------

TWO_HOT = lambda values, bins: jaxloss.two_hot(values, support=bins)
HL_GAUSS = lambda values, bins: jaxloss.hl_gauss(values, edges=bins, scale=1.0)
both = pytest.mark.parametrize(
    "label", [TWO_HOT, HL_GAUSS], ids=["two_hot", "hl_gauss"]
)


@both
def test_numbers_of_any_kind_are_labels(label):
    """Integers and half precision are widened; bins may be a list."""
    assert label(np.array([1, 2], np.int32), [0, 1, 4]).dtype == jnp.float64
    half = label(array(1, 2).astype(jnp.bfloat16), jnp.arange(4, dtype=jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(
        half, label(array(1, 2), jnp.arange(4, dtype=jnp.float32))
    )


@both
def test_bins_may_be_traced(label):
    """Then nothing is checked, and they may be learnt."""
    bins = array(0, 1, 4)
    np.testing.assert_array_equal(
        jax.jit(label)(array(0.3), bins), label(array(0.3), bins)
    )
    rows = jax.vmap(label)(array(1, 2), jnp.stack([bins, 2 * bins]))
    np.testing.assert_allclose(rows[1], label(array(2), 2 * bins)[0], rtol=FLOAT32)


@both
@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([0, 1, 1], r"has the numbers \[0. 1. 1.\]; expected finite numbers, each"),
        (array(0, 2, 1), "has the numbers"),
        ([0, np.nan], "has the numbers"),
        ([0, np.inf], "has the numbers"),
        ([[0, 1]], r"has shape \(1, 2\); expected one axis"),
        ([], "expected at least"),
    ],
)
def test_bins_that_are_none_are_refused(label, bins, message):
    with pytest.raises(ValueError, match=message):
        label(array(1), bins)


def test_scales_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"^hl_gauss: `scale` is 0.0"):
        jaxloss.hl_gauss(1.0, edges=array(0, 1), scale=0.0)
    with pytest.raises(ValueError, match=r"^hl_gauss: `scale` has shape \(3,\)"):
        jaxloss.hl_gauss(array(1, 2), edges=array(0, 1), scale=jnp.ones(3))
    with pytest.raises(TypeError, match=r"^two_hot: `values` has dtype complex"):
        jaxloss.two_hot(jnp.ones(2, complex), support=array(0, 1))


# --- sinkhorn_assign -----------------------------------------------------------------


def test_the_closed_form_of_two_examples():
    """A positive 2 x 2 matrix scaled to sums of 1 has the diagonal
    `sigmoid((a + d - b - c) / 2)` of the logarithms."""
    scores = array([0.3, -1.0], [0.2, 0.9])
    p = jaxloss.sinkhorn_assign(scores, temperature=0.5, iterations=60)
    x = 1 / (1 + np.exp(-(0.3 + 0.9 + 1.0 - 0.2) / 2 / 0.5))
    np.testing.assert_allclose(p, [[x, 1 - x], [1 - x, x]], rtol=8 * FLOAT32)


def test_both_marginals():
    """Rows sum to 1 after each iteration, columns to n / K after many."""
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 4)), jnp.float32)
    p = jaxloss.sinkhorn_assign(scores, temperature=0.3, iterations=200)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=4 * FLOAT32)
    np.testing.assert_allclose(p.sum(-2), 3, rtol=32 * FLOAT32)
    first = jaxloss.sinkhorn_assign(scores, temperature=0.3, iterations=1)
    np.testing.assert_allclose(first.sum(-1), 1, rtol=4 * FLOAT32)
    assert jnp.abs(first.sum(-2) - 3).max() > 0.01


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_it_is_the_published_algorithm(iterations):
    """As in the reference code: exponentials, prototypes first, then examples."""
    scores = np.random.default_rng(0).normal(size=(6, 3))
    q = np.exp(scores / 0.5).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * 3
        q /= q.sum(axis=0, keepdims=True) * 6
    found = jaxloss.sinkhorn_assign(scores, temperature=0.5, iterations=iterations)
    np.testing.assert_allclose(found, 6 * q.T, rtol=1e-13)


def test_scores_whose_exponentials_are_infinite():
    """`exp(4.5 / 0.05)` is infinite in float32; a shift of all scores moves nothing."""
    scores = array([4.5, 1.0], [4.4, 1.2], [4.0, 1.1])
    p = jaxloss.sinkhorn_assign(scores, temperature=0.05)
    q = np.exp((np.asarray(scores, float) - 4.5) / 0.05)
    for _ in range(3):
        q /= q.sum(axis=0)
        q /= q.sum(axis=1, keepdims=True)
    # Scores of 4.5 are rounded by 2 ulp of 90 in the exponent.
    np.testing.assert_allclose(p, q, rtol=200 * FLOAT32)


def test_a_row_of_minus_infinity_takes_nothing():
    """As padding: the others are as without it."""
    scores = array([0.3, -1.0], [0.2, 0.9], [1.5, 0.1])
    padded = jnp.concatenate([scores, jnp.full((1, 2), -jnp.inf)])
    p = jaxloss.sinkhorn_assign(padded, temperature=0.5)
    alone = jaxloss.sinkhorn_assign(scores, temperature=0.5)
    np.testing.assert_allclose(p[:3], alone, rtol=4 * FLOAT32)
    np.testing.assert_array_equal(p[3], 0)


def test_bins_closer_than_values_can_be():
    """Edges of float64 keep their digits beside values of float32 or integers."""
    with jax.enable_x64(True):
        edges = 1 + 2.0**-30 * jnp.arange(3.0)
        p = jaxloss.hl_gauss(jnp.float32(1), edges=edges, scale=1.0)
        np.testing.assert_allclose(p, [0.5, 0.5], rtol=1e-8)
        support = jnp.arange(3, dtype=jnp.float32)
        assert jaxloss.two_hot(1, support=support).dtype == jnp.float32


def test_pairs_that_are_excluded():
    """Scores of -inf have no share; nothing is NaN for a prototype without example."""
    scores = array([0.0, -jnp.inf, 1.0], [1.0, -jnp.inf, -jnp.inf])
    p = jaxloss.sinkhorn_assign(scores, temperature=1.0)
    np.testing.assert_array_equal(p == 0, jnp.isinf(scores))
    np.testing.assert_allclose(p.sum(-1), 1, rtol=4 * FLOAT32)


def test_assignments_are_constants():
    scores = array([0.3, -1.0], [0.2, 0.9])
    loss = lambda x: jnp.sum(jaxloss.sinkhorn_assign(x, temperature=0.5)[0])
    np.testing.assert_array_equal(jax.grad(loss)(scores), 0)


def test_batches_are_assigned_one_by_one():
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.float32)
    each = [jaxloss.sinkhorn_assign(x, temperature=0.1) for x in scores]
    found = jaxloss.sinkhorn_assign(scores, temperature=0.1)
    np.testing.assert_allclose(found, jnp.stack(each), rtol=64 * FLOAT32)
    assert jaxloss.sinkhorn_assign(scores[:, :0], temperature=0.1).shape == (3, 0, 4)


@pytest.mark.parametrize(
    ("scores", "options", "error", "message"),
    [
        (np.ones(3), {}, ValueError, r"`scores` has shape \(3,\)"),
        (np.ones((2, 2), int), {}, TypeError, "`scores` has dtype int"),
        (np.ones((2, 2)), {"iterations": 0}, ValueError, "`iterations` is 0"),
        (np.ones((2, 2)), {"iterations": 1.5}, TypeError, "`iterations` "),
        (np.ones((2, 2)), {"temperature": 0.0}, ValueError, "`temperature` is 0.0"),
        (np.ones((2, 2)), {"temperature": np.ones(2)}, ValueError, "`temperature` has"),
    ],
)
def test_sinkhorn_refuses(scores, options, error, message):
    with pytest.raises(error, match=f"^sinkhorn_assign: {message}"):
        jaxloss.sinkhorn_assign(scores, **{"temperature": 0.1, **options})


def test_sinkhorn_refuses_a_part_of_a_batch():
    """Its examples share the prototypes, so a micro-batch has other labels."""
    from jaxloss import train

    def fn(params, batch):
        scores = batch @ params
        labels = jaxloss.sinkhorn_assign(scores, temperature=0.1)
        return {"loss": jaxloss.Mean.of(jaxloss.softmax_cross_entropy(scores, labels))}

    objective = train.objective(fn)
    params, batch = jnp.ones((3, 2)), jnp.ones((4, 3))
    train.value_and_grad(objective)(params, objective.init(), batch)
    with pytest.raises(ValueError, match=r"^sinkhorn_assign: `scores` has the exam"):
        train.value_and_grad(objective, microbatches=2)(params, objective.init(), batch)
