"""The functions of a margin: slopes at the kinks, order among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import margins
from jaxloss.claims.margins import FORMULAS


@pytest.mark.parametrize(
    ("name", "kink"), [("hinge", 1.0), ("squared_hinge", 1.0), ("perceptron", 0.0)]
)
def test_a_margin_just_met_is_at_rest(name, kink):
    """At the kink value and slope are 0, so a satisfied example does not move."""
    phi = getattr(margins, name)
    assert phi(jnp.float32(kink)) == 0
    assert jax.grad(phi)(jnp.float32(kink)) == 0
    assert jax.grad(phi)(jnp.float32(kink - 1e-6)) < 0


@pytest.mark.parametrize("name", FORMULAS)
def test_is_convex_and_never_negative(name):
    """Every phi is convex and at least 0, and its slope at 0 is not positive."""
    phi = getattr(margins, name)
    m = jnp.linspace(-4, 4, 65, dtype=jnp.float64)
    middle = 0.5 * (phi(m[:-2]) + phi(m[2:]))
    assert jnp.all(phi(m) >= 0)
    assert jnp.all(middle - phi(m[1:-1]) >= -4 * jnp.finfo(m.dtype).eps * phi(m[:-2]))
    assert jax.grad(phi)(0.0) <= 0


@pytest.mark.parametrize(
    ("name", "at_zero"),
    [
        ("hinge", 1),
        ("squared_hinge", 1),
        ("logistic", np.log(2)),
        ("exponential", 1),
        ("modified_huber", 1),
        ("squared", 1),
    ],
)
def test_bounds_the_number_of_errors(name, at_zero):
    """Scaled to 1 at margin 0, each surrogate lies on or above the 0-1 loss."""
    phi = getattr(margins, name)
    m = jnp.linspace(-3, 3, 49, dtype=jnp.float64)
    assert jnp.all(phi(m) / at_zero >= (m <= 0) - 4 * jnp.finfo(m.dtype).eps)


def test_limits_among_them():
    """Modified Huber is the squared hinge from -1 on; smooth hinge is half of it."""
    m = jnp.linspace(-1, 3, 33)
    np.testing.assert_array_equal(margins.modified_huber(m), margins.squared_hinge(m))
    m = jnp.linspace(0, 3, 33)
    np.testing.assert_array_equal(
        margins.smooth_hinge(m), 0.5 * margins.squared_hinge(m)
    )
    np.testing.assert_array_equal(margins.perceptron(m - 1), margins.hinge(m))


@pytest.mark.parametrize("name", FORMULAS)
def test_infinite_margins(name):
    """Certainty costs 0 without slope (but for `squared`), its opposite infinity."""
    phi = getattr(margins, name)
    sure = jnp.inf if name == "squared" else 0
    assert phi(jnp.float32(jnp.inf)) == sure
    assert phi(jnp.float32(-jnp.inf)) == jnp.inf
    assert jax.grad(phi)(jnp.float32(jnp.inf)) == sure
    assert jax.grad(phi)(jnp.float32(-jnp.inf)) < 0
    assert jnp.isnan(phi(jnp.float32(jnp.nan)))
