"""Divergences: textbook identities, impossible classes."""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import stable
from jaxloss.claims.distributions.divergence import kl
from jaxloss.testing import tolerance

LN2 = np.log(2.0)
OF_PROBABILITIES = [
    jaxloss.kl_divergence,
    jaxloss.generalized_kl_divergence,
    jaxloss.jensen_shannon,
]


# --- Kullback-Leibler --------------------------------------------------------------


def random_pair(rows=40, classes=5):
    rng = np.random.default_rng(1)
    logits = jnp.asarray(3 * rng.normal(size=(rows, classes)))
    return logits, jnp.asarray(rng.dirichlet(np.ones(classes), size=rows))


def test_cross_entropy_is_kl_plus_entropy():
    """Softmax cross entropy = KL of the targets + the entropy of the targets."""
    logits, t = random_pair()
    cross = jaxloss.softmax_cross_entropy(logits, t)
    entropy = -jnp.sum(stable.xlogy(t, t), axis=-1)
    both = jaxloss.kl_divergence(stable.log_softmax(logits), t) + entropy
    np.testing.assert_allclose(both, cross, rtol=tolerance(np.float64, 16))


def test_gradient_in_logits_is_the_residual():
    """Through a log-softmax, the gradient is `q - t`, as that of the cross entropy."""
    logits, t = random_pair()
    total = lambda x: jnp.sum(jaxloss.kl_divergence(stable.log_softmax(x), t))
    np.testing.assert_allclose(
        jax.grad(total)(logits), stable.softmax(logits) - t, atol=tolerance(np.float64)
    )


def test_one_hot_targets_give_the_negative_log_likelihood():
    """Certain targets have no entropy; they may be integers or booleans."""
    logits, _ = random_pair()
    log_q = stable.log_softmax(logits)
    one_hot = jnp.zeros((40, 5), bool).at[:, 2].set(True)
    for t in (one_hot, one_hot.astype(int), one_hot.astype(jnp.float32)):
        np.testing.assert_array_equal(jaxloss.kl_divergence(log_q, t), -log_q[:, 2])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_kl_of_a_distribution_to_itself_is_zero(dtype):
    """KL(p || p) is exactly 0 where both sides take the same logarithm."""
    p = random_pair()[1].astype(dtype)
    itself = lambda p: jaxloss.kl_divergence(jnp.log(p), p)
    np.testing.assert_array_equal(itself(p), 0)
    np.testing.assert_array_equal(jax.jit(itself)(p), 0)


def test_kl_agrees_with_optax():
    """Where no target is 0, `optax.losses.kl_divergence` computes the same."""
    logits, t = random_pair()
    log_q = stable.log_softmax(logits)
    np.testing.assert_allclose(
        jaxloss.kl_divergence(log_q, t),
        optax.losses.kl_divergence(log_q, t),
        rtol=tolerance(np.float64, 64),
    )


def test_kl_is_infinite_where_the_impossible_happens():
    """A target the prediction excludes costs infinity, on either side of log."""
    log_q, t = jnp.log(jnp.array([0.0, 1.0])), jnp.array([0.5, 0.5])
    assert jaxloss.kl_divergence(log_q, t) == jnp.inf
    np.testing.assert_array_equal(jax.grad(jaxloss.kl_divergence)(log_q, t), -t)


def test_kl_ignores_a_class_without_target():
    """Where t is 0, log q may be anything, without a NaN and without a gradient."""
    t = jnp.array([0.0, 1.0])
    for x in (-jnp.inf, -1e30, -1e-30, 0.0):
        log_q = jnp.array([x, -2.0])
        value, slopes = jax.value_and_grad(jaxloss.kl_divergence, (0, 1))(log_q, t)
        assert value == 2
        np.testing.assert_array_equal(slopes, [[0, -1], [0, 3]])


# --- near agreement ----------------------------------------------------------------


def nearly_equal(apart, classes=10, rows=1000, spread=1.0):
    """Two sets of logits in float32, and the true divergence of their softmaxes."""
    rng = np.random.default_rng(2)
    teacher = (spread * rng.normal(size=(rows, classes))).astype(np.float32)
    student = (teacher + apart * rng.normal(size=(rows, classes))).astype(np.float32)
    truth = divergence_of_logits(student, teacher)
    return jnp.asarray(student), jnp.asarray(teacher), truth


def divergence_of_logits(student, teacher):
    """In float64, by a sum whose terms are not negative."""
    log_q, log_t = map(log_softmax, (student, teacher))
    gap = log_q - log_t
    return np.sum(np.exp(log_t) * (np.expm1(gap) - gap), axis=-1)


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def divergences(student, teacher, log_softmax=stable.log_softmax):
    """Of probabilities and of logarithms, in float32."""
    log_q, log_t = log_softmax(student), log_softmax(teacher)
    yield jaxloss.kl_divergence(log_q, jnp.exp(log_t))
    yield jaxloss.kl_divergence_with_log_targets(log_q, log_t)


@pytest.mark.parametrize("apart", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("classes", [2, 10, 500])
def test_kl_near_agreement_has_digits(apart, classes):
    """As many as the logarithms leave: with a root mean square of d between them, the
    result is d^2 / 2 and 1e-7 of each is 1e-7 / d of it, times the largest of them.
    Jensen-Shannon is a quarter of it there."""
    student, teacher, truth = nearly_equal(apart, classes, rows=200)
    found = [*divergences(student, teacher)]
    log_q, log_t = map(stable.log_softmax, (student, teacher))
    found += [4 * jaxloss.jensen_shannon(log_q, jnp.exp(log_t))]
    for value, more in zip(found, (0, 0, apart), strict=True):
        error = np.abs(np.asarray(value, float) / truth - 1)
        distance = np.sqrt(2 * truth)
        assert np.median((error - more) * distance) < 1e-7
        assert np.max((error - 8 * more) * distance) < 2e-6


@pytest.mark.parametrize(
    "log_softmax",
    [
        stable.log_softmax,
        jax.nn.log_softmax,
        lambda x: jnp.log(jax.nn.softmax(x)),
        lambda x: x - jax.nn.logsumexp(x, axis=-1, keepdims=True),
    ],
    ids=["stable", "jax.nn", "of softmax", "by hand"],
)
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_kl_of_distributions_is_never_negative(log_softmax, classes):
    """However they have been normalised, and however near or far they are; of equal
    ones nothing is left but what the exponential and its logarithm have rounded."""
    for apart in (0.0, 1e-7, 1e-5, 1e-3, 1e-1, 3.0):
        student, teacher, _ = nearly_equal(apart, classes, rows=200, spread=2.0)
        of_shares, of_logs = divergences(student, teacher, log_softmax)
        assert np.min(of_shares) >= 0
        assert np.min(of_logs) >= 0
        assert apart or (np.max(of_shares) < 1e-12 and not np.any(of_logs))


@pytest.mark.parametrize("temperature", [1.0, 16.0, 256.0])
def test_distillation_at_a_high_temperature(temperature):
    """Where both sides are nearly uniform, after the factor of its square too."""
    rng = np.random.default_rng(3)
    logits = 3 * rng.normal(size=(2, 300, 50)) / temperature
    student, teacher = logits.astype(np.float32)
    truth = divergence_of_logits(student, teacher)
    for value in divergences(student, teacher):
        np.testing.assert_allclose(value, truth, rtol=3e-5)


@pytest.mark.parametrize("mass", [0.5, 0.999, 1.001, 3.0])
def test_kl_of_unnormalised_rows_is_the_formula(mass):
    """Of targets that sum to another number than the predictions, of either sign."""
    logits, t = random_pair()
    log_q, t = stable.log_softmax(logits), mass * t
    formula = np.sum(np.asarray(t) * np.asarray(jnp.log(t) - log_q), axis=-1)
    for value in (
        jaxloss.kl_divergence(log_q, t),
        jaxloss.kl_divergence_with_log_targets(log_q, jnp.log(t)),
    ):
        np.testing.assert_allclose(value, formula, tolerance(np.float64, 64))
    near = jaxloss.kl_divergence(jnp.log(t), mass * t)
    np.testing.assert_allclose(near, mass**2 * np.log(mass), 1e-13)


def test_kl_that_has_one_mass_but_not_1_is_never_negative():
    """The same number on both sides is as good as 1."""
    student, teacher, truth = nearly_equal(1e-3)
    log_q, t = stable.log_softmax(student), stable.softmax(teacher)
    value = jaxloss.kl_divergence(log_q - np.float32(np.log(4)), t / 4)
    assert np.median(np.abs(4 * value / truth - 1)) < 1e-4
    assert np.min(value) >= 0


def test_the_gradient_near_agreement_is_that_of_the_formula():
    """`-t` and `log t - log q + 1`, on either way of computing the value."""
    student, teacher, _ = nearly_equal(1e-3, rows=3)
    log_q, t = stable.log_softmax(student), stable.softmax(teacher)
    total = lambda log_q, t: jnp.sum(jaxloss.kl_divergence(log_q, t))
    slopes = jax.grad(total, (0, 1))(log_q, t)
    np.testing.assert_array_equal(slopes[0], -t)
    np.testing.assert_allclose(slopes[1], jnp.log(t) - log_q + 1, rtol=1e-6)
    log_t = stable.log_softmax(teacher)
    total = lambda *x: jnp.sum(jaxloss.kl_divergence_with_log_targets(*x))
    slopes = jax.grad(total, (0, 1))(log_q, log_t)
    np.testing.assert_array_equal(slopes[0], -jnp.exp(log_t))
    want = jnp.exp(log_t) * (log_t - log_q + 1)
    np.testing.assert_allclose(slopes[1], want, rtol=1e-6)


# --- on logarithms, and of intensities ---------------------------------------------


def test_kl_of_log_targets_goes_where_probabilities_underflow():
    """Both forms agree; and only one of them sees a class of probability e^-200."""
    logits, t = random_pair()
    log_q, log_t = stable.log_softmax(logits), jnp.log(t)
    value = jaxloss.kl_divergence_with_log_targets(log_q, log_t)
    np.testing.assert_allclose(
        value, jaxloss.kl_divergence(log_q, t), rtol=tolerance(np.float64, 256)
    )
    assert jnp.all(jaxloss.kl_divergence_with_log_targets(log_t, log_t) == 0)
    rare = lambda log_t: jaxloss.kl_divergence_with_log_targets(
        jnp.float32([-1.0, -201.0]), log_t
    )
    impossible = jnp.float32([0.0, -jnp.inf])
    np.testing.assert_array_equal(rare(impossible), 1.0)
    np.testing.assert_array_equal(jax.grad(rare)(impossible), [2.0, 0.0])
    assert rare(jnp.float32([0.0, -200.0])) == 1.0


@pytest.mark.parametrize("rare", [-1.0, -200.0, -1e30])
def test_what_is_excluded_costs_infinity_however_rare(rare):
    """Also a class whose target probability is no number of the dtype; and another
    one, with a gradient that is finite in the predictions."""
    log_q, log_t = jnp.float32([-1.0, -jnp.inf]), jnp.float32([-0.5, rare])
    fn = jaxloss.kl_divergence_with_log_targets
    value, slope = jax.value_and_grad(fn)(log_q, log_t)
    assert value == jnp.inf
    np.testing.assert_allclose(slope, [-np.exp(-0.5), -np.exp(rare)], 1e-6, 1e-37)


def test_generalized_kl_extends_kl():
    """Of distributions it is KL; of intensities, Poisson deviance / 2; 0 at t = q."""
    logits, t = random_pair()
    log_q = stable.log_softmax(logits)
    np.testing.assert_allclose(
        jaxloss.generalized_kl_divergence(log_q, t),
        jaxloss.kl_divergence(log_q, t),
        rtol=tolerance(np.float64, 64),
    )
    counts, rates = jnp.array([0.0, 3.0, 7.0]), jnp.array([0.5, 2.5, 9.0])
    deviance = 2 * jnp.array([0.5, 3 * np.log(1.2) - 0.5, 7 * np.log(7 / 9) + 2])
    got = 2 * jaxloss.generalized_kl_divergence(
        jnp.log(rates)[:, None], counts[:, None]
    )
    np.testing.assert_allclose(got, deviance, rtol=tolerance(np.float64, 32))
    value, slopes = jax.value_and_grad(jaxloss.generalized_kl_divergence, (0, 1))(
        jnp.log(rates), rates
    )
    assert value == 0
    np.testing.assert_array_equal(slopes, np.zeros((2, 3)))


def test_generalized_kl_at_zero_and_infinity():
    """An intensity without target costs itself; an excluded target costs infinity."""
    fn = jaxloss.generalized_kl_divergence
    assert fn(jnp.array([-jnp.inf, 0.0]), jnp.array([0.0, 1.0])) == 0
    np.testing.assert_allclose(fn(jnp.array([np.log(3.0)]), jnp.array([0.0])), 3.0)
    assert fn(jnp.array([-jnp.inf]), jnp.array([2.0])) == jnp.inf
    assert fn(jnp.array([jnp.inf]), jnp.array([2.0])) == jnp.inf


# --- Jensen-Shannon ----------------------------------------------------------------


def test_js_is_the_mean_divergence_from_the_mixture():
    """JS(q, t) = (KL(q || m) + KL(t || m)) / 2 with the mixture m = (q + t) / 2."""
    logits, t = random_pair(rows=6)
    log_q = stable.log_softmax(logits)

    def halves(log_q, t):
        q = [mpmath.exp(x) for x in log_q]
        log_m = [mpmath.log((x + y) / 2) for x, y in zip(q, t, strict=True)]
        return (kl(log_m, q) + kl(log_m, t)) / 2

    rows = zip(log_q.tolist(), t.tolist(), strict=True)
    expected = [float(halves(*row)) for row in rows]
    np.testing.assert_allclose(
        jaxloss.jensen_shannon(log_q, t), expected, rtol=tolerance(np.float64, 32)
    )


def test_js_is_symmetric():
    """Which side is the prediction makes no difference to the value."""
    logits, t = random_pair()
    log_q = stable.log_softmax(logits)
    np.testing.assert_allclose(
        jaxloss.jensen_shannon(log_q, t),
        jaxloss.jensen_shannon(jnp.log(t), jnp.exp(log_q)),
        rtol=tolerance(np.float64, 64),
    )


def test_js_lies_between_zero_and_log_2():
    """At most log 2, reached without a class in common; never negative, even in
    float32 and between distributions that agree to the last digits."""
    logits, t = random_pair(rows=200)
    t = t.astype(jnp.float32)
    for log_q in (stable.log_softmax(logits.astype(jnp.float32)), jnp.log(t)):
        value = jaxloss.jensen_shannon(log_q, t)
        assert jnp.all((value >= 0) & (value <= LN2))
    assert jnp.all(jaxloss.jensen_shannon(jnp.log(t), t) < 1e-13)
    disjoint = jaxloss.jensen_shannon(jnp.array([-jnp.inf, 0.0]), jnp.array([1, 0]))
    np.testing.assert_allclose(disjoint, LN2, rtol=tolerance(np.float64))


def test_js_gradients_where_one_side_has_no_class():
    """The gradient is q/2 log 2 where only q has the class, 0 where q is 0."""
    log_q, t = jnp.array([0.0, -jnp.inf, -jnp.inf]), jnp.array([0.0, 1.0, 0.0])
    slopes = jax.grad(jaxloss.jensen_shannon, (0, 1))(log_q, t)
    np.testing.assert_allclose(slopes, [[LN2 / 2, 0, 0], [0, LN2 / 2, 0]])


def test_js_near_certainty_has_a_gradient():
    """A probability that rounds to 1 is not 1: the slope at q = 1 - 1e-10 is right."""
    log_q, t = jnp.float32(-1e-10)[None], jnp.ones(1, jnp.float32)
    slope = jax.grad(lambda x: jaxloss.jensen_shannon(x, t))(log_q)
    np.testing.assert_allclose(slope, [-0.25e-10], rtol=tolerance(np.float32))


# --- both --------------------------------------------------------------------------


@pytest.mark.parametrize("fn", OF_PROBABILITIES, ids=lambda fn: fn.__name__)
def test_impossible_classes_reach_no_derivative(fn):
    """-inf log-probabilities with zero targets: value, gradient, jvp and both
    Hessians are finite, and the same as without the class."""
    log_q, t = jnp.array([-1.2, -0.4, -jnp.inf]), jnp.array([0.3, 0.7, 0.0])
    kept = slice(0, 2)
    for derive in (
        lambda f: f,
        lambda f: jax.grad(f, (0, 1)),
        lambda f: lambda *x: jax.jvp(f, x, tuple(map(jnp.ones_like, x))),
        lambda f: jax.jacfwd(jax.jacrev(f, (0, 1)), (0, 1)),
        lambda f: jax.jacrev(jax.jacfwd(f, (0, 1)), (0, 1)),
    ):
        got = jax.tree.leaves(jax.jit(derive(fn))(log_q, t))
        want = jax.tree.leaves(jax.jit(derive(fn))(log_q[kept], t[kept]))
        for g, w in zip(got, want, strict=True):
            assert jnp.all(jnp.isfinite(g))
            inside = g[(kept,) * g.ndim]
            np.testing.assert_allclose(inside, w, rtol=tolerance(np.float64))


@pytest.mark.parametrize("fn", OF_PROBABILITIES, ids=lambda fn: fn.__name__)
def test_the_classes_may_lie_along_any_axis(fn):
    """`axis` says where the classes are; the shape without it is the result's."""
    logits, t = (x.reshape(4, 10, 5) for x in random_pair())
    log_q = stable.log_softmax(logits)
    moved = fn(jnp.moveaxis(log_q, -1, 1), jnp.moveaxis(t, -1, 1), axis=1)
    np.testing.assert_allclose(moved, fn(log_q, t), rtol=tolerance(np.float64, 16))


# --- Gaussian ----------------------------------------------------------------------


def test_gaussian_kl_is_the_integral():
    """The closed form is the integral of p log(p / p0), by quadrature."""
    mean, log_variance = 0.75, -1.25

    def integrand(x):
        p = mpmath.npdf(x, mean, mpmath.exp(mpmath.mpf(log_variance) / 2))
        return p * mpmath.log(p / mpmath.npdf(x))

    expected: Any = mpmath.quad(integrand, [-8, 0, 1, 8])
    value = jaxloss.gaussian_kl(jnp.array([mean]), jnp.array([log_variance]))
    np.testing.assert_allclose(
        value, float(expected), rtol=1e-12
    )  # that of the quadrature


def test_gaussian_kl_is_zero_at_the_prior_only():
    """Exactly 0 with gradient 0 at the prior, and positive right beside it."""
    zero = jnp.zeros(3, jnp.float32)
    value, slopes = jax.value_and_grad(jaxloss.gaussian_kl, (0, 1))(zero, zero)
    assert value == 0
    np.testing.assert_array_equal(slopes, np.zeros((2, 3)))
    for v in (1e-4, -1e-4):
        value = jaxloss.gaussian_kl(zero, zero.at[0].set(v))
        # Half of e^v - 1 - v, which is v^2 / 2 + v^3 / 6 up to v^4 / 24.
        v = float(np.float32(v))
        np.testing.assert_allclose(
            value, v**2 / 4 + v**3 / 12, rtol=tolerance(np.float32, 2)
        )


def test_gaussian_kl_at_the_ends_of_the_line():
    """No variance and infinite variance cost infinity, not NaN; 2e19 is not too far."""
    zero = jnp.zeros(1, jnp.float32)
    for v in (-jnp.inf, jnp.inf, 100.0):
        assert jaxloss.gaussian_kl(zero, zero + v) == jnp.inf
    far = jaxloss.gaussian_kl(zero + 2e19, zero)
    np.testing.assert_allclose(far, 2e38, rtol=tolerance(np.float32))


# --- messages ----------------------------------------------------------------------


def test_errors_name_the_loss_and_the_argument():
    """A wrong shape, dtype or axis is refused with what was given."""
    q = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"^kl_divergence: `targets` has shape \(3,\)"):
        jaxloss.kl_divergence(q, q[0])
    with pytest.raises(ValueError, match=r"^jensen_shannon: `axis` is 2; expected an"):
        jaxloss.jensen_shannon(q, q, axis=2)
    with pytest.raises(
        TypeError, match=r"^jensen_shannon: `log_predictions` has dtype"
    ):
        jaxloss.jensen_shannon(q.astype(int), q)
    with pytest.raises(TypeError, match=r"^gaussian_kl: `log_variances` has dtype int"):
        jaxloss.gaussian_kl(q, q.astype(int))
