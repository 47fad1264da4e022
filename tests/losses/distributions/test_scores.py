"""Scores of probabilistic forecasts: facts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import jaxloss
from jaxloss.losses.distributions import _ranks, scores

EPS = 2.0**-52
SINGLE = 2.0**-23
NORMAL = jaxloss.crps_normal
BY_RANKS = (jaxloss.crps_ensemble, jaxloss.crps_ensemble_fair)
THREE = jnp.array([1.0, 2.0, 4.0])


def close(actual, expected, ulps=8):
    np.testing.assert_allclose(actual, expected, rtol=ulps * EPS, atol=ulps * EPS)


def slopes(fn, *args, **more):
    """The gradient of a sum, in every argument."""
    return jax.grad(lambda *args: jnp.sum(fn(*args, **more)), tuple(range(len(args))))(
        *args
    )


def by_pairs(x, y, fair=False):
    """The textbook, of one ensemble of numbers."""
    pairs = len(x) * (len(x) - fair)
    spread = np.sum(np.abs(x[:, None] - x)) / (2 * pairs)
    return np.mean(np.abs(x - y)) - spread


# --- the normal distribution -------------------------------------------------------


@pytest.mark.parametrize(("mean", "scale", "target"), [(1, 2, 2.5), (0, 1e-3, 5)])
def test_normal_is_the_integral_of_its_definition(mean, scale, target):
    """Of the squared difference of two cumulative distributions, by quadrature."""
    cdf = functools.partial(scipy.stats.norm.cdf, loc=mean, scale=scale)
    sf = functools.partial(scipy.stats.norm.sf, loc=mean, scale=scale)
    # Piece by piece: where the distribution is, and the flat rest up to the target.
    ends = sorted([mean - 40 * scale, mean, min(mean + 40 * scale, target), target])
    pieces = itertools.pairwise(ends)
    integral = lambda f, a, b: scipy.integrate.quad(f, a, b, epsabs=0, epsrel=1e-12)[0]
    below = sum(integral(lambda x: cdf(x) ** 2, a, b) for a, b in pieces)
    above = integral(lambda x: sf(x) ** 2, target, max(target, mean) + 40 * scale)
    got = NORMAL(float(mean), float(target), np.log(scale))
    np.testing.assert_allclose(got, below + above, rtol=1e-9)


def test_normal_worked_numbers():
    """N(1, 2) at 2.5, with its gradient, and N(0, 0.001) at 5."""
    args = jnp.array(1.0), jnp.array(2.5), jnp.log(2.0)
    np.testing.assert_allclose(NORMAL(*args), 0.8962885044, rtol=1e-9)
    by_mean, by_target, by_log_scale = slopes(NORMAL, *args)
    np.testing.assert_allclose(by_mean, -0.5467452952, rtol=1e-9)
    np.testing.assert_allclose(by_target, 0.5467452952, rtol=1e-9)
    # Of the scale: the chain rule divides by 2.
    np.testing.assert_allclose(by_log_scale / 2, 0.03808528076, rtol=1e-9)
    far = NORMAL(jnp.array(0.0), jnp.array(5.0), jnp.log(1e-3))
    close(far, 5 - 1e-3 / np.sqrt(np.pi))


def test_normal_without_scale_is_the_absolute_error():
    """At a log-scale of -inf, and in float32 at a scale of 1e-30, where the slope in
    the scale itself is 2 phi - 1 / sqrt(pi)."""
    r = jnp.array([-3.0, 0.0, 1e-30, 2.0], jnp.float32)
    zero, none = jnp.zeros_like(r), jnp.full_like(r, -jnp.inf)
    np.testing.assert_array_equal(NORMAL(r, zero, none), jnp.abs(r))
    by_mean, _, by_log_scale = slopes(NORMAL, r, zero, none)
    np.testing.assert_array_equal(by_mean, jnp.sign(r))
    np.testing.assert_array_equal(by_log_scale, 0)
    tiny = jnp.full_like(r, np.log(1e-30))
    by_scale = slopes(NORMAL, r, zero, tiny)[2] / jnp.exp(tiny)
    z = np.array([np.inf, 0, 1, np.inf])
    expected = np.sqrt(2 / np.pi) * np.exp(-z * z / 2) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(by_scale, expected, rtol=1e-5)


def test_normal_is_smooth_where_its_formulas_meet():
    """At 1.5 standard deviations, in both precisions: one number to the next."""
    for dtype in (jnp.float32, jnp.float64):
        eps = float(jnp.finfo(dtype).eps)
        z = jnp.array([1.5 - 2 * eps, 1.5, 1.5 + 2 * eps], dtype)
        found = NORMAL(z, jnp.zeros_like(z), jnp.zeros_like(z))
        np.testing.assert_allclose(found, found[1], rtol=6 * eps)


def test_normal_in_float64():
    """The Taylor series has enough terms: against SciPy's functions, at every z."""
    z = np.linspace(-6, 6, 401)
    found = NORMAL(z, np.zeros_like(z), np.zeros_like(z))
    phi, cdf = scipy.stats.norm.pdf(z), scipy.stats.norm.cdf(z)
    close(found, z * (2 * cdf - 1) + 2 * phi - 1 / np.sqrt(np.pi), ulps=32)


def test_normal_learns_the_scale():
    """The best scale of errors +-1 is that at which 2 phi(1/s) = 1/sqrt(pi)."""
    best = 1 / np.sqrt(np.log(2))
    slope = slopes(NORMAL, jnp.array(1.0), jnp.array(0.0), jnp.log(best))[2]
    np.testing.assert_allclose(slope, 0, atol=4 * EPS)


def test_normal_is_the_limit_of_ensembles():
    """Of the quantiles of a normal distribution, as an ensemble."""
    levels = (np.arange(200_000) + 0.5) / 200_000
    members = 1 + 2 * scipy.stats.norm.ppf(levels)
    whole = jaxloss.crps_ensemble(members, jnp.array(2.5))
    expected = NORMAL(jnp.array(1.0), jnp.array(2.5), jnp.log(2.0))
    np.testing.assert_allclose(whole, expected, rtol=1e-5)


# --- ensembles ---------------------------------------------------------------------


def test_ensemble_worked_numbers():
    """1, 2 and 4, of the targets 2 and 0."""
    x, y = jnp.stack([THREE, THREE]), jnp.array([2.0, 0.0])
    close(jaxloss.crps_ensemble(x, y), [1 / 3, 5 / 3])
    close(jaxloss.crps_ensemble_fair(x, y), [0, 4 / 3])
    by_member, by_target = slopes(jaxloss.crps_ensemble, x, y)
    # Where a member is the target, it is at rest.
    close(by_member, [[-1 / 9, 0, 1 / 9], [5 / 9, 3 / 9, 1 / 9]])
    close(by_target, [0, -1])
    by_member, by_target = slopes(jaxloss.crps_ensemble_fair, x, y)
    close(by_member, [[0, 0, 0], [2 / 3, 1 / 3, 0]])
    close(by_target, [0, -1])


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("count", [2, 33, 256, 257])
def test_ensemble_is_that_of_all_pairs(fair, count):
    """Compared or sorted, with ties, and with members that are masked."""
    rng = np.random.default_rng(count)
    x = np.round(rng.normal(size=(6, count)), 1 + (count % 2))
    y, where = np.round(rng.normal(size=6), 1), rng.random((6, count)) < 0.7
    where[:, :2] = True
    loss = BY_RANKS[fair]
    expected = [by_pairs(*row, fair) for row in zip(x, y, strict=True)]
    np.testing.assert_allclose(loss(x, y), expected, rtol=1e-13, atol=1e-15)
    expected = [by_pairs(v[m], t, fair) for v, t, m in zip(x, y, where, strict=True)]
    found = loss(x, y, where=where)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("loss", BY_RANKS, ids=["whole", "fair"])
def test_sorting_is_comparing(loss, monkeypatch):
    """Bit for bit, in value and gradient, of ties, masks, infinities and NaN."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(12, 9)), 1)
    x[1, 2], x[2, 3], x[3, 4] = np.inf, -np.inf, np.nan
    x[4, 5], x[5] = np.copysign(np.nan, -1), 1.0
    y, where = np.round(rng.normal(size=12), 1), rng.random((12, 9)) < 0.7
    where[:, :2], where[6:8] = True, [[False] * 9, [True] + [False] * 8]

    def found(size):
        monkeypatch.setattr(_ranks, "_COMPARED", size)
        jax.clear_caches()
        return loss(x, y, where=where), *slopes(loss, x, y, where=where)

    for compared, sort in zip(found(9), found(8), strict=True):
        np.testing.assert_array_equal(compared, sort)
    jax.clear_caches()


@pytest.mark.parametrize("loss", BY_RANKS, ids=["whole", "fair"])
@pytest.mark.parametrize("count", [5, 300])
def test_nan_is_seen(loss, count):
    """Of either sign, in a member or the target; but not where it is masked."""
    for sign in (1, -1):
        nan = np.copysign(np.nan, sign)
        x, where = np.arange(2.0 * count).reshape(2, count), np.ones((2, count), bool)
        x[0, 3], where[1, 3] = nan, False
        np.testing.assert_array_equal(np.isnan(loss(x, np.ones(2))), [True, False])
        by_member, _ = slopes(loss, x, np.ones(2))
        assert np.isnan(by_member[0, 3])
        x[1, 3] = nan
        by_member, by_target = slopes(loss, x, np.ones(2), where=where)
        assert np.isfinite(loss(x, np.ones(2), where=where)[1])
        assert np.isfinite(by_member[1]).all()
        assert by_member[1, 3] == 0
        assert np.isfinite(by_target[1])
        assert np.isnan(loss(np.ones((2, count)), np.array([nan, 0.0])))[0]


def test_of_no_member_and_of_one():
    """No member costs nothing, with gradient 0, even at a target of NaN; one is the
    absolute error, and has no fair score: NaN, which a mask drops."""
    x, y = jnp.array([[1.0, 2.0]] * 3), jnp.array([jnp.nan, 5.0, 5.0])
    where = jnp.array([[False, False], [True, False], [True, True]])
    np.testing.assert_array_equal(
        jaxloss.crps_ensemble(x, y, where=where), [0, 4, 3.25]
    )
    fair = jaxloss.crps_ensemble_fair(x, y, where=where)
    np.testing.assert_array_equal(fair, [0, np.nan, 3])
    by_member, by_target = slopes(jaxloss.crps_ensemble, x, y, where=where)
    close(by_member, [[0, 0], [-1, 0], [-0.25, -0.75]])
    close(by_target, [0, 1, 1])
    kept = lambda x: jaxloss.mean(
        jaxloss.crps_ensemble_fair(x, y, where=where), where=where.sum(-1) != 1
    )
    close(jax.grad(kept)(x), [[0, 0], [0, 0], [0, -0.5]])
    one = jaxloss.crps_ensemble(x[:, :1], jnp.full(3, 5.0))
    np.testing.assert_array_equal(one, [4, 4, 4])


def test_fair_score_does_not_depend_on_the_number_of_members():
    """Over all pairs of a finite population its mean is the score of the population,
    drawn without replacement: that is the fair score of all."""
    population, y = np.random.default_rng(0).normal(size=7), 0.3
    i, j = np.triu_indices(7, 1)
    twos = np.stack([population[i], population[j]], axis=-1)
    mean = jaxloss.mean(jaxloss.crps_ensemble_fair(twos, np.full(len(twos), y)))
    close(mean, jaxloss.crps_ensemble_fair(population, jnp.array(y)))


def test_ensemble_keeps_its_digits():
    """In float32, of members amid which the target lies: the textbook subtracts."""
    x = np.float32(1e6) + np.arange(50, dtype=np.float32) / 16
    y = x[25] + np.float32(1 / 32)
    exact = by_pairs(x.astype(float), float(y))
    np.testing.assert_allclose(jaxloss.crps_ensemble(x, y), exact, rtol=3 * SINGLE)


@pytest.mark.parametrize("count", [50, 256])
def test_pairs_are_no_array(count):
    """One of integers would be as large as `count` arrays of members; JAX 0.12 writes
    out one for each sum of 32 comparisons, and two others."""
    x, y = jnp.zeros((1000, count), jnp.float32), jnp.zeros(1000, jnp.float32)
    step = jax.jit(jax.value_and_grad(lambda x: jnp.mean(jaxloss.crps_ensemble(x, y))))
    memory = step.lower(x).compile().memory_analysis()
    assert memory
    assert memory.temp_size_in_bytes <= (2 + count // 25) * x.nbytes


# --- vectors -----------------------------------------------------------------------


def test_energy_worked_numbers():
    """(0, 0) and (3, 4), at (0, 0): 5/2 - 5/4; each is pulled by a unit vector."""
    members, target = jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.zeros(2)
    close(jaxloss.energy_score(members, target), 1.25)
    by_member, by_target = slopes(jaxloss.energy_score, members, target)
    close(by_member, [[0.15, 0.2], [0.15, 0.2]])
    close(by_target, [-0.3, -0.4])


def test_energy_of_one_component_is_the_crps():
    """In value and gradient."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 8)), rng.normal(size=5)
    flat = lambda x, y: jaxloss.energy_score(x[..., None], y[..., None])
    close(flat(x, y), jaxloss.crps_ensemble(x, y), ulps=16)
    for got, expected in zip(
        slopes(flat, x, y), slopes(jaxloss.crps_ensemble, x, y), strict=True
    ):
        close(got, expected, ulps=16)


def test_energy_by_blocks(monkeypatch):
    """Value, gradient and Hessian are those of all pairs at once."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 7, 2)), rng.normal(size=(3, 2))

    def found(size):
        monkeypatch.setattr(scores, "_PAIRS", size)
        jax.clear_caches()
        loss = lambda x: jnp.sum(jaxloss.energy_score(x, y))
        return loss(x), jax.grad(loss)(x), jax.hessian(loss)(x)

    for whole, blocks in zip(found(2**20), found(90), strict=True):
        np.testing.assert_allclose(blocks, whole, rtol=1e-13, atol=1e-14)
    jax.clear_caches()


def test_energy_of_many_members_needs_no_array_of_pairs():
    """Which would be 400 MB in float32, and for the gradient as much again."""
    x, y = jnp.zeros((1000, 100), jnp.float32), jnp.zeros(100, jnp.float32)
    step = jax.jit(jax.value_and_grad(jaxloss.energy_score))
    memory = step.lower(x, y).compile().memory_analysis()
    assert memory
    assert memory.temp_size_in_bytes < 5 * 4 * 2**20


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    x = jnp.ones((3, 4))
    for loss in BY_RANKS:
        name = loss.__name__
        with pytest.raises(
            ValueError,
            match=rf"^{name}: `targets` has shape \(4,\); expected \(3,\), one target "
            "per ensemble",
        ):
            loss(x, jnp.ones(4))
        with pytest.raises(ValueError, match=rf"^{name}: `members` has .* no member"):
            loss(x[:, :0], jnp.ones(3))
    fair = r"shape \(3, 1\), one member each; expected at least two: of one member"
    with pytest.raises(ValueError, match=rf"^crps_ensemble_fair: `members` has {fair}"):
        jaxloss.crps_ensemble_fair(x[:, :1], jnp.ones(3))
    with pytest.raises(ValueError, match=r"^energy_score: `members` has shape \(4,\);"):
        jaxloss.energy_score(x[0], jnp.ones(()))
    with pytest.raises(
        ValueError, match=r"^energy_score: `targets` .* expected \(4,\), one vector per"
    ):
        jaxloss.energy_score(x, jnp.ones(3))
    with pytest.raises(ValueError, match=r"^crps_normal: `log_scales` has shape \(\) "):
        NORMAL(x, x, 0.0)


def test_scores_of_what_is_infinitely_far():
    """The fair one too, of which the extreme members have no weight; and energy scores
    of large vectors do not overflow on the way."""
    members = jnp.array([1.0, 2.0, 4.0])
    for score in (jaxloss.crps_ensemble, jaxloss.crps_ensemble_fair):
        assert score(members, jnp.array(jnp.inf)) == jnp.inf
    large = jnp.linspace(0, 1e33, 2000, dtype=jnp.float32)[:, None]
    found = jaxloss.energy_score(large, jnp.zeros(1, jnp.float32))
    np.testing.assert_allclose(found, 1e33 / 3, rtol=1e-3)
