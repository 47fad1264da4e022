"""Scores of forecasts, against loops over definitions and against scoringrules."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compat.peers import peer, same

RNG = np.random.default_rng(0)
MEMBERS, TARGETS = RNG.normal(size=(6, 9)), RNG.normal(size=6)
VECTORS, POINTS = RNG.normal(size=(6, 9, 3)), RNG.normal(size=(6, 3))
MEANS, LOG_SCALES = RNG.normal(size=6), RNG.normal(size=6)
ENSEMBLE, FAIR = jaxloss.crps_ensemble, jaxloss.crps_ensemble_fair


def of_steps(members, target):
    """properscoring's definition: the integral of a squared difference of steps."""
    edges = np.sort(np.append(members, target))
    total = 0.0
    for low, high in itertools.pairwise(edges):
        below = np.mean(members <= low)
        total += (high - low) * (below - (target <= low)) ** 2
    return total


def test_ensemble_is_an_integral():
    """Gap by gap."""
    pairs = zip(MEMBERS, TARGETS, strict=True)
    same(ENSEMBLE(MEMBERS, TARGETS), [of_steps(x, y) for x, y in pairs])


@pytest.mark.parametrize("estimator", ["nrg", "qd", "pwm", "fair", "int"])
def test_scoringrules_ensemble(estimator):
    """Its estimators are two scores: `pwm` and `fair` are the same one."""
    theirs = peer("scoringrules").crps_ensemble(
        TARGETS, MEMBERS, estimator=estimator, backend="numpy"
    )
    ours = FAIR if estimator in ("pwm", "fair") else ENSEMBLE
    same(ours(MEMBERS, TARGETS), theirs)


def test_scoringrules_normal():
    """Its arguments are the target, the mean and the scale."""
    theirs = peer("scoringrules").crps_normal(
        TARGETS, MEANS, np.exp(LOG_SCALES), backend="numpy"
    )
    same(jaxloss.crps_normal(MEANS, TARGETS, LOG_SCALES), theirs)


def test_scoringrules_energy():
    theirs = peer("scoringrules").es_ensemble(POINTS, VECTORS, backend="numpy")
    same(jaxloss.energy_score(VECTORS, POINTS), theirs)


def test_scoringrules_quantiles_and_intervals():
    """Its CRPS of quantiles is twice a mean pinball loss, and its interval score two
    pinball losses over alpha / 2."""
    rules, alphas = peer("scoringrules"), np.array([0.1, 0.4, 0.7])
    levels = np.array([0.1, 0.5, 0.8])
    predictions = np.sort(RNG.normal(size=(6, 3)))
    each = np.broadcast_to(TARGETS[:, None], predictions.shape)
    losses = jaxloss.pinball(predictions, each, quantile=jnp.asarray(levels))
    theirs = rules.crps_quantile(TARGETS, predictions, levels, backend="numpy")
    same(2 * jnp.mean(losses, axis=-1), theirs)
    low, high = MEANS - 1, MEANS + 0.5
    for alpha in alphas:
        below = jaxloss.pinball(low, TARGETS, quantile=alpha / 2)
        above = jaxloss.pinball(high, TARGETS, quantile=1 - alpha / 2)
        theirs = rules.interval_score(TARGETS, low, high, alpha, backend="numpy")
        same(2 / alpha * (below + above), theirs)


def test_scoringrules_variogram():
    """As the recipe computes it."""
    theirs = peer("scoringrules").vs_ensemble(POINTS, VECTORS, p=0.5, backend="numpy")
    variogram = lambda x: jnp.sqrt(jnp.abs(x[..., :, None] - x[..., None, :]))
    error = variogram(POINTS) - jnp.mean(variogram(VECTORS), axis=-3)
    same(jnp.sum(error**2, axis=(-2, -1)), theirs)


def test_scoringrules_gradient_at_a_small_scale():
    """Its closed form of a normal distribution divides by the scale: by JAX its slope
    in the scale is no number where ours is 2 phi(z) - 1/sqrt(pi)."""
    rules = peer("scoringrules")
    with jax.enable_x64(False):
        scale = jnp.float32(1e-30)
        theirs = jax.grad(
            lambda s: rules.crps_normal(0.5, jnp.float32(0), s, backend="jax")
        )(scale)
        ours = jax.grad(
            lambda s: jaxloss.crps_normal(jnp.float32(0), jnp.float32(0.5), jnp.log(s))
        )(scale)
    assert not np.isfinite(theirs)
    np.testing.assert_allclose(ours, -1 / np.sqrt(np.pi), rtol=1e-5)
