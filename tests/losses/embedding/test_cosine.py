"""Facts about losses of the angle between two vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.accuracy import Case
from tests.specs.embedding.tuples import cosine

EPS = 2.0**-52


def vectors(scale=1.0):
    """Ordinary, nearly parallel, nearly opposite, nearly orthogonal, lopsided pairs."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    b[1] = 2 * a[1] + 2**-9 * b[1]
    b[2] = -a[2] + 2**-9 * b[2]
    b[3] = np.cross(a[3], b[3]) + 2**-9 * a[3]
    a[4], b[5] = [3, 2**-9, 0], [2**-9, 0, 5]
    return scale * a, scale * b


def cases():
    distance = lambda a, b: 1 - cosine(a, b)
    for fn, formula, argument, scale in (
        (jaxloss.cosine_similarity, cosine, 0, 1.0),
        (jaxloss.cosine_similarity, cosine, 1, 1e-15),
        (jaxloss.cosine_distance, distance, 0, 1.0),
        (jaxloss.cosine_distance, distance, 1, 1.0),
        (jaxloss.cosine_distance, distance, 0, 1e15),
    ):
        yield Case(
            name=f"{fn.__name__} in argument {argument} at scale {scale}",
            fn=fn,
            formula=formula,
            columns=vectors(scale),
            argument=argument,
            rowwise=True,
            conditioned=(True, True, True),
            bounds=(2, 3, 4),
            halves=scale == 1,
        )


ACCURACY = list(cases())


@pytest.mark.parametrize("case", ACCURACY, ids=lambda case: case.name)
def test_is_accurate(case):
    """Value and derivatives are within their bounds, in three dtypes, in both modes."""
    case.check()


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


def test_messages():
    """An axis that is none is named."""
    x = jnp.ones(3)
    with pytest.raises(ValueError, match=r"^cosine_distance: `axis` is 1; "):
        jaxloss.cosine_distance(x, x, axis=1)
