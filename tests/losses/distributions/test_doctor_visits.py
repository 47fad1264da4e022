"""Visits to a doctor in the RAND health insurance experiment (data: `statsmodels`).

Newton's method on the sum of the losses of 20 190 years of patients finds the negative
binomial regression (NB2) that `statsmodels` reports.
"""

import csv

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from tests.losses import wheels

# A constant; coinsurance (log), individual deductible, participation incentive and
# maximum expenditure of the plan; physical limitation, chronic diseases, and whether
# health is good, fair or poor; the dispersion.
COEFFICIENTS = [0.6636, -0.0579, -0.2678, 0.0412, -0.0381, 0.2689, 0.0382, -0.0441]
COEFFICIENTS += [0.0173, 0.1780]
DISPERSION, TOTAL = 1.2930, 43383.662


def visits():
    """What is known of each patient, with a constant in front, and the visits."""
    with wheels.file("statsmodels", "datasets/randhie/randhie.csv").open() as file:
        next(file)
        count, *known = np.array([*csv.reader(file)], float).T
    return np.stack([np.ones_like(count), *known], axis=-1), count


def test_regression_of_counts():
    with jax.enable_x64(True):
        known, count = map(jnp.asarray, visits())
        assert known.shape == (20190, 10)

        def total(parameters):
            x = known @ parameters[:-1]
            d = jnp.broadcast_to(parameters[-1], x.shape)
            return jaxloss.negative_binomial_nll(x, count, d).sum()

        slopes = lambda p: (jax.hessian(total)(p), *jax.value_and_grad(total)(p))
        p = jnp.zeros(11).at[0].set(jnp.log(jnp.mean(count)))
        for _ in range(8):
            curvature, value, slope = jax.jit(slopes)(p)
            p = p - jnp.linalg.solve(curvature, slope)
        np.testing.assert_allclose(p[:-1], COEFFICIENTS, rtol=0, atol=6e-5)
        np.testing.assert_allclose(jnp.exp(p[-1]), DISPERSION, rtol=0, atol=6e-5)
        np.testing.assert_allclose(value, TOTAL, rtol=0, atol=1e-3)
        np.testing.assert_allclose(slope, 0, atol=1e-6)
