"""Facts about losses of the angle between two vectors."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxloss
from jaxloss.claims.embedding.formulas import cosine, unit

EPS = 2.0**-52


def close(actual, expected, ulps=8):
    np.testing.assert_allclose(actual, expected, rtol=ulps * EPS, atol=0)


def test_cosine_of_zero_vectors():
    """Similarity 0 and distance 1, with gradient 0 in both vectors."""
    z, x = jnp.zeros((1, 3)), jnp.array([[1.0, 2.0, 3.0]])
    for a, b in ((z, x), (x, z), (z, z)):
        assert jaxloss.cosine_similarity(a, b)[0] == 0
        assert jaxloss.cosine_distance(a, b)[0] == 1
        total = lambda a, b: jnp.sum(jaxloss.cosine_distance(a, b))
        for slope in jax.grad(total, (0, 1))(a, b):
            np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_cosine_of_identical_vectors(dtype):
    """Exactly 1, and at distance exactly 0 with gradient 0, also compiled."""
    x = (
        np.random.default_rng(2).normal(size=(50, 64))
        * np.geomspace(1e-15, 1e15, 50)[:, None]
    )
    x = jnp.asarray(x, dtype)
    np.testing.assert_array_equal(jax.jit(jaxloss.cosine_similarity)(x, x), 1)
    distance = lambda a, b: jnp.sum(jaxloss.cosine_distance(a, b))
    value, slopes = jax.jit(jax.value_and_grad(distance, (0, 1)))(x, x)
    assert value == 0
    for slope in slopes:
        np.testing.assert_array_equal(slope, 0)


def test_cosine_does_not_know_lengths():
    """Any positive factor leaves it, a negative one turns it; any axis is as good."""
    rng = np.random.default_rng(3)
    a, b = (jnp.asarray(rng.normal(size=(6, 4))) for _ in range(2))
    cosines = jaxloss.cosine_similarity(a, b)
    close(jaxloss.cosine_similarity(1e-200 * a, 3e200 * b), cosines, ulps=32)
    close(jaxloss.cosine_similarity(-a, b), -cosines)
    close(jaxloss.cosine_distance(a, b), 1 - cosines, ulps=64)
    np.testing.assert_array_equal(jaxloss.cosine_similarity(a.T, b.T, axis=0), cosines)
    np.testing.assert_array_equal(
        jaxloss.cosine_distance(a.T, b.T, axis=-2), jaxloss.cosine_distance(a, b)
    )


@pytest.mark.parametrize("off", [1e-1, 1e-3, 1e-5, 1e-7])
def test_cosine_of_nearly_parallel_long_rows(off):
    """512 components: flat rows that differ in one component, or in all, and rows of
    one large component, keep their distance as far as their rounding lets them."""
    rng = np.random.default_rng(4)
    a = np.sign(rng.normal(size=(3, 512)))
    b = np.array([a[0], a[1] * (1 + off * rng.normal(size=512)), a[2]])
    b[0, 7] *= 1 + off
    a[2], b[2] = off * rng.normal(size=(2, 512))
    a[2, 0], b[2, 0] = 1.1, 1.7
    a, b = (x.astype(np.float32) for x in (a, b))
    exact, size = [], []
    with mpmath.workdps(40):
        for pair in zip(a, b, strict=True):
            x, y = ([mpmath.mpf(float(v)) for v in row] for row in pair)
            exact.append(1 - cosine(x, y))
            u, v = unit(x), unit(y)
            across = [s - (1 - exact[-1]) * t for s, t in zip(v, u, strict=True)]
            turn = mpmath.fsum(abs(s * t) for s, t in zip(u, across, strict=True))
            size.append(exact[-1] + 2 * turn)
    found = jax.jit(jaxloss.cosine_distance)(a, b)
    for got, want, near in zip(found, exact, size, strict=True):
        assert abs(mpmath.mpf(float(got)) - want) <= 2 * 2.0**-23 * near


@pytest.mark.parametrize("size", [1e-36, 1e-18, 1.0, 3e38])
def test_cosine_of_the_longest_and_of_zero(size):
    """No NaN on the way, nor a length that is taken for 0 or infinity."""
    x = jnp.full((1, 64), size, jnp.float32)
    y = x.at[0, ::2].multiply(-1)
    with jax.debug_nans(True):
        for a, b, cos in ((x, y, 0), (x, x, 1), (x, -x, -1), (x, 0 * x, 0)):
            assert jaxloss.cosine_similarity(a, b) == cos
            assert jaxloss.cosine_similarity(b, a) == cos
            total = lambda a, b: jnp.sum(jaxloss.cosine_distance(a, b))
            got, slopes = jax.jit(jax.value_and_grad(total, (0, 1)))(a, b)
            assert got == 1 - cos
            if b[0, 0] == 0 or cos:
                np.testing.assert_array_equal(slopes, np.zeros((2, 1, 64)))


def test_messages():
    """An axis that is none is named."""
    x = jnp.ones(3)
    with pytest.raises(ValueError, match=r"^cosine_distance: `axis` is 1; "):
        jaxloss.cosine_distance(x, x, axis=1)
