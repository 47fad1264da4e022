"""Likelihoods against SciPy, scikit-learn and statsmodels."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from tests.compat.peers import peer, same


def study(count=200):
    """What is known of each subject, and a count and an amount of each."""
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(count), rng.normal(size=(count, 2))])
    mean = np.exp(x @ [0.5, 0.3, -0.4])
    return x, rng.poisson(mean * rng.gamma(2, 0.5, count)), mean * rng.gamma(2, 0.5)


def test_negative_binomial_of_statsmodels():
    """What its regression NB2 finds has the likelihood that it states, and no slope."""
    discrete = peer("statsmodels.discrete.discrete_model")
    x, counts, _ = study()
    model = discrete.NegativeBinomial(counts, x, loglike_method="nb2")

    def total(parameters):
        d = jnp.broadcast_to(jnp.log(parameters[-1]), len(x))
        return jaxloss.negative_binomial_nll(x @ parameters[:-1], counts, d).sum()

    found = model.fit(disp=0, method="bfgs", maxiter=200)
    value, slope = jax.value_and_grad(total)(jnp.asarray(found.params))
    same(-value, found.llf)
    np.testing.assert_allclose(slope, 0, atol=2e-2)


def test_half_deviances_of_scikit_learn():
    """Of its losses for boosting, up to constants: gradients and Hessians."""
    losses = peer("sklearn._loss.loss")
    x, counts, amounts = study()
    raw = x @ np.array([0.4, 0.2, -0.1])
    for theirs, ours, targets in (
        (
            losses.HalfTweedieLoss(power=1.5),
            lambda v, t: jaxloss.tweedie_deviance(v, t, power=1.5),
            counts.astype(float),
        ),
        (
            losses.HalfGammaLoss(),
            lambda v, t: jaxloss.gamma_nll(v, t, shape=1.0),
            amounts,
        ),
    ):
        first = jax.vmap(jax.grad(ours))
        second = jax.vmap(jax.grad(jax.grad(ours)))
        slope, curve = theirs.gradient_hessian(y_true=targets, raw_prediction=raw)
        same(first(raw, targets), slope)
        same(second(raw, targets), curve)
