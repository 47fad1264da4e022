"""What the textbooks teach first: small fits that must come out as they say.

The worked numbers stand beside the losses they are about.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxloss
from jaxloss import Mean, train


def descend(fn, params, batch, steps=500, rate=0.5):
    """Plain gradient descent on the mean that `fn` names."""
    fit, optimizer = train.objective(fn), optax.sgd(rate)
    step = jax.jit(train.train_step(fit, optimizer))
    state = train.TrainState.init(fit, optimizer, params)
    for _ in range(steps):
        state, _ = step(state, batch)
    return state.params


def line(params, x):
    slope = x @ params["w"]
    return slope + jnp.broadcast_to(params["b"], slope.shape)


def test_line_through_the_origin():
    """y = 2x by gradient descent on the squared error reaches w = 2."""
    x = jnp.array([1.0, 2.0, 3.0, 4.0])
    fn = lambda w, x: {"fit": Mean.of(jaxloss.squared_error(w * x, 2 * x))}
    assert abs(descend(fn, jnp.array(0.0), x, rate=0.05) - 2) < 1e-12


def test_logistic_and_gate():
    """A logistic unit learns AND: above one half for (1, 1) only."""
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = jnp.array([0, 0, 0, 1])

    def fn(params, batch):
        losses = jaxloss.sigmoid_cross_entropy(line(params, x), batch)
        return {"fit": Mean.of(losses)}

    learnt = descend(fn, {"w": jnp.zeros(2), "b": jnp.array(0.0)}, y, steps=2000)
    assert jnp.array_equal(line(learnt, x) > 0, y == 1)


def test_three_classes():
    """A linear softmax separates three clusters that a line can separate."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 4.0], [-4.0, -2.0], [4.0, -2.0]])
    y = np.arange(60) % 3
    x = jnp.asarray(centres[y] + 0.5 * rng.normal(size=(60, 2)))

    def fn(params, ids):
        losses = jaxloss.softmax_cross_entropy(line(params, x), ids)
        return {"fit": Mean.of(losses)}

    zero = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
    learnt = descend(fn, zero, jnp.asarray(y), steps=200)
    assert jnp.array_equal(jnp.argmax(line(learnt, x), axis=1), y)


def test_linear_support_vector_machine():
    """Hinge plus L2 finds the widest margin: between (1, 1) and (-1, -1)."""
    x = jnp.array([[1.0, 1.0], [2.0, 3.0], [-1.0, -1.0], [-3.0, -2.0]])
    y = jnp.array([1, 1, -1, -1])

    def fn(params, labels):
        return {"fit": Mean.of(jaxloss.hinge(line(params, x), labels))}

    # The maximal margin has w x = 1 at (1, 1) and -1 at (-1, -1): w = (1/2, 1/2).
    machine = train.l2(train.objective(fn), 0.05, select=lambda p: p["w"])
    optimizer = optax.sgd(lambda step: 0.5 / (1 + 0.05 * step))
    step = jax.jit(train.train_step(machine, optimizer))
    params = {"w": jnp.zeros(2), "b": jnp.array(0.0)}
    state = train.TrainState.init(machine, optimizer, params)
    for _ in range(3000):
        state, _ = step(state, y)
    np.testing.assert_allclose(state.params["w"], [0.5, 0.5], atol=0.01)
    assert abs(state.params["b"]) < 0.01
    assert jnp.all(y * line(state.params, x) > 0.98)


def test_metric_is_not_loss():
    """Halving the temperature changes the loss and never the accuracy."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)))
    ids = jnp.arange(50) % 4
    sharp = jaxloss.temperature(logits, temperature=0.5)
    losses = [jaxloss.softmax_cross_entropy(x, ids).mean() for x in (logits, sharp)]
    assert losses[0] != losses[1]
    assert jnp.array_equal(jnp.argmax(logits, 1), jnp.argmax(sharp, 1))
