"""The mixture of two labels, of a loss that is given by nothing but its slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import stable
from jaxloss.claims.classification.cross_entropy import sigmoid, softplus
from jaxloss.losses.classification import _decision
from jaxloss.testing import assert_close
from jaxloss.testing.accuracy import Case, pairs

# --- Poly-1 of one logit: f(x) = -log p + epsilon q ----------------------------------


@_decision.term()
def poly_dx(label, epsilon):
    return -label.q - epsilon * label.p * label.q


@_decision.term()
def poly_depsilon(label, epsilon):
    return label.q


@_decision.term(poly_dx, poly_depsilon)
def poly(label, epsilon):
    return label.nll + epsilon * label.q


def gap(label, epsilon):
    return -label.log_odds - epsilon * stable.tanh(0.5 * label.log_odds)


even = jax.jit(_decision.mixture(poly, gap=gap))
uneven = jax.jit(_decision.mixture(poly, weigh=lambda v: (v, 2 - v)))


def f(x, epsilon):
    return softplus(-x) + epsilon * sigmoid(-x)


def mixed(x, y, epsilon):
    return y * f(x, epsilon) + (1 - y) * f(-x, epsilon)


def weighted(x, y, v, epsilon):
    return v * y * f(x, epsilon) + (2 - v) * (1 - y) * f(-x, epsilon)


X, Y = pairs(np.array([-90, -20, -3, -0.1, 0, 1e-3, 0.7, 5, 40]), np.array([0, 0.3, 1]))
HALF, EPSILON = np.resize([0.5, 1.7], X.size), np.resize([0, 1, 2.5], X.size)


def cases():
    for argument, name in enumerate(("x", "y", "weight", "epsilon")):
        more = {
            "argument": argument,
            "conditioned": (False, True, True),
            "halves": False,
            "formula": weighted,
        }
        columns = X, Y, HALF, EPSILON
        yield Case(name=f"uneven, {name}", fn=uneven, columns=columns, **more)
    for argument, name in enumerate(("x", "y", "epsilon")):
        more |= {"argument": argument, "formula": mixed}
        yield Case(name=f"even, {name}", fn=even, columns=(X, Y, EPSILON), **more)


@pytest.mark.parametrize("case", [*cases()], ids=lambda case: case.name)
def test_what_follows_from_the_slopes(case):
    """Value and two derivatives in every argument are those of the formula."""
    case.check()


def test_mixed_derivatives_agree_in_either_order():
    """Also of what the label and the hyperparameter have in common."""
    at = [jnp.float32(v) for v in (0.7, 0.3, 1.4, 1.5)]
    hessian = np.array(jax.jit(jax.hessian(uneven, (0, 1, 2, 3)))(*at))
    assert_close(hessian, hessian.T, jnp.float32, size=np.abs(hessian).max())


def test_third_derivatives_are_right_at_zero():
    """f'' is differentiated through |x|, whose slope at 0 is that of the label."""
    third = jax.grad(jax.grad(jax.grad(even)))
    # of softplus(-x) it is 0; of sigmoid(-x), 1 / 8
    assert_close(third(jnp.float32(0), 1.0, 1.0), 0.125, jnp.float32)
    assert_close(third(jnp.float32(0), 0.0, 1.0), -0.125, jnp.float32)


def test_infinite_logits():
    """0 if the label agrees, else infinite; no slope is NaN."""
    x, y = jnp.float32([jnp.inf, -jnp.inf] * 2), jnp.float32([1, 0, 0, 1])
    args = x, y, jnp.ones_like(x), jnp.full_like(x, 1.5)
    assert jnp.array_equal(uneven(*args), jnp.float32([0, 0, jnp.inf, jnp.inf]))
    total = lambda *args: jnp.sum(uneven(*args))
    for slope in jax.jit(jax.grad(total, (0, 1, 2, 3)))(*args):
        assert jnp.all(jnp.isfinite(slope))
