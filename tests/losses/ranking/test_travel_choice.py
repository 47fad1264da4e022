"""A conditional logit of 210 travellers, against published maximum likelihood.

Each of them chose one of four modes of travel (Greene and Hensher, 1997; public
domain).  The data are a file in the wheel of statsmodels, which need not be importable.
`listwise_softmax` of the utilities is the likelihood of the choice.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.losses import wheels

# Generalised cost, waiting time, income where the mode is air, and the constants of
# air, train and bus; then the sum of all losses: Greene, Econometric Analysis.
PUBLISHED = [-0.0155, -0.0961, 0.0133, 5.2074, 3.8690, 3.1632]
LEAST = 199.1284


@pytest.fixture(scope="module")
def travellers():
    """Six features of each mode of each traveller, and which one was chosen."""
    path = wheels.file("statsmodels", "datasets/modechoice/modechoice.csv")
    names = path.read_text().split("\n")[0].split(";")
    table = np.loadtxt(path, delimiter=";", skiprows=1)
    column = {k: x.reshape(-1, 4) for k, x in zip(names, table.T, strict=True)}
    np.testing.assert_array_equal(column["mode"], [[1, 2, 3, 4]] * 210)
    air, train, bus = (column["mode"] == mode for mode in (1, 2, 3))
    columns = [column["gc"], column["ttme"], column["hinc"] * air, air, train, bus]
    features = np.stack(columns, axis=-1)
    return jnp.asarray(features), jnp.asarray(column["choice"].astype(int))


def test_maximum_likelihood_of_travel_choice(travellers):
    """Every published digit: Newton's method on our loss, from nothing."""
    features, choice = travellers

    def total(weights):
        return jnp.sum(jaxloss.listwise_softmax(features @ weights, choice))

    @jax.jit
    def step(weights):
        slope, curve = jax.grad(total)(weights), jax.hessian(total)(weights)
        return weights - jnp.linalg.solve(curve, slope)

    weights = jnp.zeros(6)
    for _ in range(12):
        weights = step(weights)
    np.testing.assert_allclose(weights, PUBLISHED, atol=5.001e-5, rtol=0)
    np.testing.assert_allclose(total(weights), LEAST, atol=5.001e-5, rtol=0)


def test_pairs_order_the_modes_alike(travellers):
    """The optimum of the pairwise loss has the same signs."""
    features, choice = travellers
    scaled = features / np.broadcast_to([100.0, 30, 30, 1, 1, 1], features.shape)

    def total(weights):
        return jnp.sum(jaxloss.pairwise_ranking(scaled @ weights, choice))

    @jax.jit
    def step(weights):
        slope, curve = jax.grad(total)(weights), jax.hessian(total)(weights)
        return weights - jnp.linalg.solve(curve, slope)

    weights = jnp.zeros(6)
    for _ in range(20):
        weights = step(weights)
    np.testing.assert_array_equal(jnp.sign(weights), np.sign(PUBLISHED))
    assert jnp.abs(jax.grad(total)(weights)).max() < 1e-9
