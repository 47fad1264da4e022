"""Ordinal losses on the answers of 944 voters, against published maximum likelihood.

The data (public domain) are those of the American National Election Study of 1996, as a
file in the wheel of statsmodels, which need not be importable.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.losses import wheels

# Of log(population), self-placement from left to right, age, education, income; and the
# sum of all losses: statsmodels' OrderedModel.
PUBLISHED = {
    "cumulative_logit": ([-0.0707, 1.0192, -0.0042, 0.1777, 0.0472], 1494.6195),
    "cumulative_probit": ([-0.0400, 0.5758, -0.0034, 0.1050, 0.0293], 1501.4398),
}


@pytest.fixture(scope="module")
def voters():
    """Five features of each voter, and the party: 0, a strong Democrat, to 6."""
    path = wheels.file("statsmodels", "datasets/anes96/anes96.csv")
    names = [name.strip("'") for name in path.read_text().split("\n")[0].split()]
    table = np.loadtxt(path, skiprows=1)
    column = dict(zip(names, table.T, strict=True))
    rest = [column[name] for name in ("selfLR", "age", "educ", "income")]
    features = np.stack([np.log(column["popul"] + 0.1), *rest], axis=-1)
    return jnp.asarray(features), jnp.asarray(column["PID"].astype(int))


def newton(total, parameters, steps=30):
    """The minimum of a convex function; each step is halved until it improves."""
    run = jax.jit(lambda p: (total(p), jax.grad(total)(p), jax.hessian(total)(p)))
    for _ in range(steps):
        value, slope, curve = run(parameters)
        step = jnp.linalg.solve(curve, slope)
        while not total(parameters - step) <= value and jnp.abs(step).max() > 1e-12:
            step = step / 2
        parameters = parameters - step
    return parameters, total(parameters)


@pytest.mark.parametrize("name", PUBLISHED)
def test_maximum_likelihood_of_party_identification(voters, name):
    """Every published digit: Newton's method on our loss, from nothing."""
    features, party = voters
    assert features.shape == (944, 5)
    loss = getattr(jaxloss, name)

    def total(parameters):
        weights, cutpoints = jnp.split(parameters, [5])
        return jnp.sum(loss(features @ weights, party, cutpoints))

    start = jnp.concatenate([jnp.zeros(5), jnp.linspace(-2.0, 2.0, 6)])
    parameters, value = newton(jax.jit(total), start)
    coefficients, least = PUBLISHED[name]
    np.testing.assert_allclose(parameters[:5], coefficients, atol=5.001e-5, rtol=0)
    np.testing.assert_allclose(value, least, atol=5.001e-5, rtol=0)
