"""Losses of wrong, rare and many labels, against Keras, timm and scikit-learn."""

import os

import numpy as np

import jaxloss
from tests.compat.peers import peer, same

rng = np.random.default_rng(8)
LOGITS = 3 * rng.normal(size=(20, 6))
IDS = rng.integers(0, 6, size=20)
BITS = rng.integers(0, 2, size=LOGITS.shape)


def torch_and(module):
    """The module of timm, and a tensor of an array."""
    torch = peer("torch")
    return peer(module), lambda x: torch.as_tensor(np.asarray(x))


def test_generalized_cross_entropy_is_that_of_keras():
    """Which takes probabilities."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = peer("keras")
    e = np.exp(LOGITS)
    p = e / e.sum(axis=-1, keepdims=True)
    for q in (0.3, 0.7, 0.999):
        theirs = keras.losses.categorical_generalized_cross_entropy(IDS, p, q)
        found = jaxloss.generalized_cross_entropy(LOGITS, IDS, q=q)
        np.testing.assert_allclose(found, np.asarray(theirs), rtol=1e-5)


def test_asymmetric_is_that_of_timm():
    """Which computes in float32, with logarithms of at least 1e-8."""
    timm, tensor = torch_and("timm.loss")
    for up, down, shift in ((1, 4, 0.05), (0, 2, 0.2), (2, 1, 0.0)):
        loss = timm.AsymmetricLossMultiLabel(down, up, shift, reduction="none")
        found = jaxloss.asymmetric(
            LOGITS, BITS, gamma_positive=up, gamma_negative=down, shift=shift
        )
        theirs = loss(tensor(LOGITS), tensor(BITS)).numpy()
        np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-6)


def test_zlpr_is_that_of_timm():
    """Which returns the mean, in float32."""
    timm, tensor = torch_and("timm.loss")
    theirs = timm.ZlprLoss()(tensor(LOGITS), tensor(BITS))
    found = jaxloss.mean(jaxloss.zlpr(LOGITS, BITS))
    np.testing.assert_allclose(found, theirs.numpy(), rtol=1e-5)


def test_class_weights_at_beta_one_are_balanced():
    """As scikit-learn has them, up to a common factor."""
    utils = peer("sklearn.utils.class_weight")
    ids = np.repeat(np.arange(4), [50, 20, 5, 1])
    theirs = utils.compute_class_weight("balanced", classes=np.arange(4), y=ids)
    counts = np.bincount(ids).astype(float)
    same(jaxloss.class_weights(counts, beta=1.0), theirs / theirs.mean())
