"""Recidivism of 432 prisoners (Rossi, Berk and Lenihan, 1980), as `lifelines` has it.

Newton's method on the sum of the losses finds the coefficients and the likelihood that
`lifelines` and R's `survival` report.
"""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.losses import wheels

# fin, age, race, wexp, mar, paro, prio; and the sum of the losses.
EFRON = [-0.379422, -0.057438, 0.313900, -0.149796, -0.433704, -0.084871, 0.091497]
BRESLOW = [-0.379022, -0.057246, 0.314130, -0.151115, -0.432783, -0.084983, 0.091112]


def prisoners():
    """Weeks until an arrest, whether there was one, and what is known of each."""
    with wheels.file("lifelines", "datasets/rossi.csv").open() as file:
        next(file)
        weeks, arrests, *known = np.array([*csv.reader(file)], float).T
    return np.stack(known, axis=-1), weeks, arrests == 1


@pytest.mark.parametrize(
    ("loss", "coefficients", "total"),
    [
        (jaxloss.cox_ph, EFRON, 658.7477),
        (jaxloss.cox_ph_breslow, BRESLOW, 659.1206),
    ],
    ids=["efron", "breslow"],
)
def test_proportional_hazards(loss, coefficients, total):
    with jax.enable_x64(True):
        data = [*map(jnp.asarray, prisoners())]
        assert (data[0].shape, data[2].sum()) == ((432, 7), 114)
        of = lambda b, known, *ends: loss(known @ b, *ends).sum()
        slopes = lambda *args: (jax.hessian(of)(*args), *jax.value_and_grad(of)(*args))
        b, newton = jnp.zeros(7), jax.jit(slopes)
        for _ in range(6):
            curvature, value, slope = newton(b, *data)
            b = b - jnp.linalg.solve(curvature, slope)
        np.testing.assert_allclose(b, coefficients, rtol=0, atol=1e-6)
        np.testing.assert_allclose(value, total, rtol=0, atol=1e-4)
