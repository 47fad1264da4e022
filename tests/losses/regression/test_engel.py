"""Quantiles of food expenditure of 235 households (Engel, 1857), as published.

The data are a file in the wheel of statsmodels, which need not be importable; they are
in the public domain.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import jaxloss
from jaxloss.testing import tolerance
from tests.losses import wheels

# The intercept and the slope of each quantile, to four digits: Koenker and Hallock,
# "Quantile Regression", Journal of Economic Perspectives 15, 2001, and quantreg of R;
# of the median quantreg and linear programming have the intercept 81.4822.
PUBLISHED = {
    0.1: (110.1416, 0.4018),
    0.5: (81.4823, 0.5602),
    0.9: (67.3509, 0.6863),
}


@pytest.fixture(scope="module")
def households():
    """A constant and the income, and what was spent for food."""
    path = wheels.file("statsmodels", "datasets/engel/engel.csv")
    income, food = np.loadtxt(path, delimiter=",", skiprows=1).T
    assert len(income) == 235
    return np.stack([np.ones(235), income], axis=-1), food


def least(known, food, quantile):
    """The exact optimum: a linear program of the positive and the negative parts."""
    n, d = known.shape
    costs = np.concatenate(
        [np.zeros(d), np.full(n, quantile), np.full(n, 1 - quantile)]
    )
    parts = np.hstack([known, np.eye(n), -np.eye(n)])
    ranges = [(None, None)] * d + [(0, None)] * (2 * n)
    return optimize.linprog(costs, A_eq=parts, b_eq=food, bounds=ranges)


@pytest.mark.parametrize("quantile", PUBLISHED)
def test_pinball_is_least_at_the_published_line(households, quantile):
    """Nowhere is the sum of `pinball` less than at the line of the linear program,
    which is the published one: its two households on the line balance the rest."""
    known, food = households
    found = least(known, food, quantile)
    line = found.x[:2]
    np.testing.assert_allclose(line, PUBLISHED[quantile], rtol=0, atol=1.1e-4)

    def total(line):
        losses = jaxloss.pinball(known @ line, food, quantile=quantile)
        return jnp.sum(losses)

    np.testing.assert_allclose(total(line), found.fun, rtol=64 * tolerance(np.float64))
    # Two households lie on the line, but for rounding, and have slopes of their own.
    off = np.abs(known @ line - food)
    on = off < 1e-8 * food
    assert on.sum() == 2
    slopes = jax.grad(lambda p: jnp.sum(jaxloss.pinball(p, food, quantile=quantile)))
    rest = known[~on].T @ np.asarray(slopes(jnp.asarray(known @ line)))[~on]
    balance = np.linalg.solve(known[on].T, -rest)
    assert np.all((-quantile <= balance) & (balance <= 1 - quantile))
