"""On a GPU or TPU XLA sees through what hides constants and arguments from it on a CPU.

It may then compute with constants in another order.  Here the plain losses are compiled
for a CPU as they are for other platforms, and held to their formulas at the edges.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxloss
from jaxloss.claims.vision import boxes
from jaxloss.testing import tolerance

EPS = tolerance(np.float32)
INF = np.inf


@pytest.fixture(autouse=True)
def _another_platform(monkeypatch):
    elsewhere = lambda *args, default, **platforms: default(*args)
    monkeypatch.setattr(lax, "platform_dependent", elsewhere)


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return np.exp(-softplus(-x))


def slopes(loss, *args):
    """Value and gradient, compiled together, with constants that are constants."""
    total = lambda x: (jnp.sum(losses := loss(x, *args[1:])), losses)
    return jax.jit(lambda x: jax.value_and_grad(total, has_aux=True)(x))(args[0])


LOGITS = np.array([-INF, INF, -3e38, 3e38, -90, 90, 0, 1.5, -INF, INF], np.float32)
RIGHT = np.array([0, 1, 0, 1, 0, 1, 1, 0, 1, 0], np.float32)


@pytest.mark.parametrize("pos_weight", [None, 2.0])
def test_sigmoid_cross_entropy(pos_weight):
    """Right and sure costs nothing, wrong and sure all that it says."""
    loss = functools.partial(jaxloss.sigmoid_cross_entropy, pos_weight=pos_weight)
    (_, found), slope = slopes(loss, LOGITS, RIGHT)
    x, y = LOGITS.astype(float), np.where(RIGHT == 1, pos_weight or 1.0, 1.0)
    against = np.where(RIGHT == 1, -x, x)
    np.testing.assert_allclose(found, y * softplus(against), 8 * EPS, 1e-37)
    want = y * sigmoid(against) * np.where(RIGHT == 1, -1, 1)
    np.testing.assert_allclose(slope, want, 8 * EPS, 1e-37)


def test_sigmoid_cross_entropy_of_soft_labels():
    """Of finite logits, among them 0."""
    x, y = np.array([0, 0, 2, -7], np.float32), np.array([0.5, 0, 0.3, 1], np.float32)
    (_, found), slope = slopes(jaxloss.sigmoid_cross_entropy, x, y)
    wide = x.astype(float)
    want = y * softplus(-wide) + (1 - y.astype(float)) * softplus(wide)
    np.testing.assert_allclose(found, want, 8 * EPS)
    np.testing.assert_allclose(slope, sigmoid(wide) - y, 8 * EPS, 8 * EPS)


def test_sigmoid_focal():
    """Likewise; 0 by an infinite logit that is right."""
    (_, found), slope = slopes(jaxloss.sigmoid_focal, LOGITS, RIGHT)
    against = np.where(RIGHT == 1, -LOGITS, LOGITS).astype(float)
    with np.errstate(invalid="ignore"):
        want = np.where(against == -INF, 0, sigmoid(against) ** 2 * softplus(against))
    np.testing.assert_allclose(found, want, 32 * EPS, 1e-37)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_softmax_cross_entropy(smoothing):
    """A sure class, ties, a class that does not exist, a row without classes."""
    x = np.array(
        [[200, 0, -5], [7, 7, 7], [-INF, 1, 2], [-INF, -INF, -INF], [-1e38, 0, 1e38]],
        np.float32,
    )
    ids, loss = np.array([0, 1, 2, 0, 2]), jaxloss.softmax_cross_entropy
    smoothed = functools.partial(loss, label_smoothing=smoothing)
    (_, found), slope = slopes(smoothed, x, ids)
    wide = x.astype(float)
    exists, alive = x > -INF, np.any(x > -INF, axis=1)
    # Of each class: -log p, and 0 where it does not exist.
    lse = np.logaddexp.reduce(wide, axis=1, keepdims=True)
    surprise = np.where(exists, np.where(exists, lse, 0) - np.where(exists, wide, 0), 0)
    nll = surprise[np.arange(5), ids]
    spread = surprise.sum(1) / np.maximum(exists.sum(1), 1)
    want = (1 - smoothing) * nll + smoothing * spread
    np.testing.assert_allclose(found, np.where(alive, want, 0), 32 * EPS, 1e-37)
    label = np.eye(3)[ids] * (1 - smoothing)
    label += smoothing * exists / np.maximum(exists.sum(1, keepdims=True), 1)
    want = np.where(alive[:, None], np.exp(-surprise) * exists - label, 0)
    np.testing.assert_allclose(slope, want, 32 * EPS, 8 * EPS)


def test_huber_and_log_cosh():
    """Near 0 and far from it, either side."""
    x = np.array([-1e30, -30, -1, -1e-3, 0, 1e-3, 1, 30, 1e30], np.float32)
    zero, r = np.zeros_like(x), x.astype(float)
    (_, found), slope = slopes(jaxloss.huber, x, zero)
    inner = np.minimum(np.abs(r), 1)
    np.testing.assert_allclose(found, inner * (np.abs(r) - inner / 2), 8 * EPS)
    np.testing.assert_allclose(slope, np.sign(r) * inner, 8 * EPS)
    (_, found), slope = slopes(jaxloss.log_cosh, x, zero)
    far = np.abs(r) + np.log1p(np.exp(-2 * np.abs(r))) - np.log(2)
    want = np.where(np.abs(r) < 0.01, r**2 / 2 - r**4 / 12, far)
    np.testing.assert_allclose(found, want, 8 * EPS)
    np.testing.assert_allclose(slope, np.tanh(r), 8 * EPS)


@pytest.mark.parametrize("name", ["giou", "ciou"])  # the others are parts of these
def test_boxes(name):
    """Elsewhere each corner of the gradient is computed by itself."""
    claim: Any = next(claim for claim in boxes.CLAIMS if claim.name == name)
    (spec,) = claim.settings
    p, t = spec.sample(np.random.default_rng(0), (16,))
    p, t = p.astype(np.float32), t.astype(np.float32)
    total = lambda p, t: (jnp.sum(losses := claim.fn(p, t)), losses)
    (_, found), slopes = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(p, t)
    np.testing.assert_allclose(found, spec.reference(p, t), 8 * EPS)
    for slope, want in zip(slopes, spec.gradient(p, t), strict=True):
        # Corners differ in size; the terms of each cancel in part.
        size = np.abs(want).max(axis=-1, keepdims=True)
        assert (np.abs(slope - want) <= 16 * EPS * size).all()
    alone = jnp.zeros_like(p).at[:, 2].set(1)  # forward mode, of one corner
    _, along = jax.jvp(lambda p: claim.fn(p, t), (p,), (alone,))
    np.testing.assert_allclose(along, slopes[0][:, 2], 8 * EPS, 8 * EPS)
