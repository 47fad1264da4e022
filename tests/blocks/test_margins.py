"""The functions of a margin: accuracy, slopes at the kinks, order among them."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxloss import margins
from jaxloss.testing.accuracy import EDGES, Case, decades, line

MARGINS = np.concatenate([line(), decades(), EDGES])


def step(condition):
    return mp.mpf(bool(condition))


def clip(x, low, high):
    return min(max(x, low), high)


# Name: value, slope, curvature, and the bounds on their errors in ulps.  At a kink the
# slope is 0 and the curvature that of the side of larger margins.
FORMULAS = {
    "hinge": (
        lambda m: max(0, 1 - m),
        lambda m: -step(m < 1),
        lambda m: mp.mpf(0),
        (0.5, 0, 0),
    ),
    "squared_hinge": (
        lambda m: max(0, 1 - m) ** 2,
        lambda m: -2 * max(0, 1 - m),
        lambda m: 2 * step(m < 1),
        (2, 0.5, 0),
    ),
    "smooth_hinge": (
        lambda m: mp.mpf(1) / 2 - m if m < 0 else max(0, 1 - m) ** 2 / 2,
        lambda m: -clip(1 - m, 0, 1),
        lambda m: step(0 <= m < 1),
        (2, 0.5, 0),
    ),
    "logistic": (
        lambda m: mp.log1p(mp.exp(-m)),
        lambda m: -1 / (1 + mp.exp(m)),
        lambda m: 1 / (2 + mp.exp(m) + mp.exp(-m)),
        (3, 3, 4),
    ),
    "exponential": (
        lambda m: mp.exp(-m),
        lambda m: -mp.exp(-m),
        lambda m: mp.exp(-m),
        (6, 6, 6),
    ),
    "perceptron": (
        lambda m: max(0, -m),
        lambda m: -step(m < 0),
        lambda m: mp.mpf(0),
        (0, 0, 0),
    ),
    "modified_huber": (
        lambda m: -4 * m if m < -1 else max(0, 1 - m) ** 2,
        lambda m: -2 * clip(1 - m, 0, 2),
        lambda m: 2 * step(-1 <= m < 1),
        (2, 0.5, 0),
    ),
    "squared": (
        lambda m: (1 - m) ** 2,
        lambda m: -2 * (1 - m),
        lambda m: mp.mpf(2),
        (2, 0.5, 0),
    ),
}
ACCURACY = [
    Case(
        name=name,
        fn=getattr(margins, name),
        formula=value,
        first=slope,
        second=curvature,
        columns=(MARGINS,),
        bounds=bounds,
        halves=False,  # the losses widen half precision before they come here
    )
    for name, (value, slope, curvature, bounds) in FORMULAS.items()
]


@pytest.mark.parametrize("case", ACCURACY, ids=lambda case: case.name)
def test_is_accurate(case):
    """Value, slope and curvature are within their bounds from 1e-37 to 1e30."""
    case.check()


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
