"""Distillation: published values, temperatures of every size, excluded classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import stable
from jaxloss.testing import tolerance

FLOAT32, FLOAT64 = tolerance(np.float32), tolerance(np.float64)
INF = jnp.inf
STUDENT, TEACHER = jnp.array([1.0, 2.0, 4.0]), jnp.array([0.5, 3.0, 1.0])


def test_a_student_that_knows_nothing():
    """Against odds of 9 at temperature 2, which are 3: 4 (log 2 - H(3/4, 1/4))."""
    student, teacher = jnp.zeros(2), jnp.log(jnp.array([9.0, 1.0]))
    loss = jaxloss.knowledge_distillation(student, teacher, temperature=2.0)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(loss, 4 * (np.log(2) - entropy), rtol=8 * FLOAT64)
    np.testing.assert_allclose(loss, 0.5232481438, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, 1.4273114), (100.0, 1.3675824), (1e4, 1.3611762)],
)
def test_the_temperature_may_be_large(dtype, temperature, expected):
    """As published to 8 digits; where T^2 times a divergence of probabilities of
    float32 has none left, this has all of them."""
    args = STUDENT.astype(dtype), TEACHER.astype(dtype)
    loss = jaxloss.knowledge_distillation(*args, temperature=temperature)
    np.testing.assert_allclose(loss, expected, rtol=4e-8 + tolerance(dtype, 1))


def test_at_a_high_temperature_it_is_a_squared_distance():
    """Of centred logits, divided by twice the number of classes; its slope likewise."""
    run = jax.value_and_grad(
        lambda s: jaxloss.knowledge_distillation(s, TEACHER, temperature=1e9)
    )
    gap = STUDENT - TEACHER
    gap = gap - gap.mean()
    value, slope = run(STUDENT)
    np.testing.assert_allclose(value, jnp.sum(gap**2) / 6, rtol=1e-8)
    np.testing.assert_allclose(slope, gap / 3, rtol=1e-8)


def test_it_is_the_divergence_of_tempered_logits():
    """T^2 times `kl_divergence`; at temperature 1 its gradient is that of the cross
    entropy with the teacher's distribution."""
    rng = np.random.default_rng(0)
    s, t = (jnp.asarray(3 * rng.normal(size=(6, 5))) for _ in range(2))
    for heat in (0.5, 1.0, 4.0):
        loss = jaxloss.knowledge_distillation(s, t, temperature=heat)
        log_q = stable.log_softmax(s / heat)
        want = heat**2 * jaxloss.kl_divergence(log_q, stable.softmax(t / heat))
        np.testing.assert_allclose(loss, want, rtol=64 * FLOAT64)
    ours = lambda s: jaxloss.knowledge_distillation(s, t, temperature=1.0).sum()
    theirs = lambda s: jaxloss.softmax_cross_entropy(s, stable.softmax(t)).sum()
    slopes = jax.grad(ours)(s), jax.grad(theirs)(s)
    np.testing.assert_allclose(*slopes, rtol=64 * FLOAT64, atol=8 * FLOAT64)


def test_a_student_that_agrees_is_at_rest():
    """Loss and gradients exactly 0, also if a constant is between the two."""
    x = jnp.array([1.0, -20.0, 3.5, 1e4], np.float32)
    for other in (x, x + 2):
        run = jax.value_and_grad(jaxloss.knowledge_distillation, (0, 1))
        value, slopes = run(x, other, temperature=3.0)
        assert value == 0
        for slope in slopes:
            np.testing.assert_array_equal(slope, 0)


def test_a_difference_of_one_bit_is_seen():
    """d^2 p (1 - p) / 2 of two classes, in value and slope."""
    d = np.float32(2.0**-22)
    s, t = jnp.array([1 + d, 0], np.float32), jnp.array([1.0, 0.0], np.float32)
    run = jax.value_and_grad(jaxloss.knowledge_distillation)
    value, slope = run(s, t, temperature=1.0)
    spread = np.e / (1 + np.e) ** 2
    np.testing.assert_allclose(value, spread * d**2 / 2, rtol=8 * FLOAT32)
    np.testing.assert_allclose(slope, [spread * d, -spread * d], rtol=8 * FLOAT32)


def test_it_is_robust_in_the_student():
    """However wrong the student is, no slope is larger than the temperature."""
    s, t = jnp.array([1e6, 0.0, -1e6]), jnp.array([0.0, 0.0, 5.0])
    slope = jax.grad(jaxloss.knowledge_distillation)(s, t, temperature=3.0)
    p = np.exp([0.0, 0.0, 5 / 3]) / np.exp([0.0, 0.0, 5 / 3]).sum()
    np.testing.assert_allclose(slope, 3 * (np.array([1, 0, 0]) - p), rtol=8 * FLOAT64)


def test_excluded_classes():
    """-inf on both sides counts for nothing, of the teacher alone as probability 0, of
    the student alone as infinite; without a class there is no loss."""
    s = jnp.array([[0.0, 1.0, -INF], [0.0, 1.0, 2.0], [0.0, -INF, 1.0], [-INF] * 3])
    t = jnp.array([[1.0, 0.0, -INF], [1.0, 0.0, -INF], [1.0, 0.0, 0.0], [-INF] * 3])
    total = lambda s: jnp.sum(jnp.where(jnp.isinf(loss(s)), 0, loss(s)))
    loss = lambda s: jaxloss.knowledge_distillation(s, t, temperature=1.0)
    p, q = np.exp([1.0, 0.0]) / (1 + np.e), np.exp([0.0, 1.0])
    want = [
        np.sum(p * np.log(p / (q / q.sum()))),
        np.sum(p * np.log(p / (q / (q.sum() + np.e**2)))),
        np.inf,
        0,
    ]
    np.testing.assert_allclose(loss(s), want, rtol=16 * FLOAT64)
    slope = jax.grad(total)(s)
    assert jnp.isfinite(slope).all()
    np.testing.assert_array_equal(slope[0, 2], 0)
    np.testing.assert_array_equal(slope[3], 0)


def test_each_example_may_have_its_temperature():
    """An array of them; and the classes may lie along any axis."""
    rng = np.random.default_rng(0)
    s, t = (jnp.asarray(rng.normal(size=(3, 4))) for _ in range(2))
    heat = jnp.array([1.0, 2.0, 5.0])
    losses = jaxloss.knowledge_distillation(s, t, temperature=heat)
    for i, each in enumerate(heat):
        one = jaxloss.knowledge_distillation(s[i], t[i], temperature=each)
        np.testing.assert_allclose(losses[i], one, rtol=4 * FLOAT64)
    turned = jaxloss.knowledge_distillation(s.T, t.T, temperature=heat, axis=0)
    np.testing.assert_allclose(turned, losses, rtol=4 * FLOAT64)
