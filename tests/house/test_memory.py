"""What plain losses take beside their arguments and results: next to nothing.

On a CPU XLA computes an elementwise function inside of the sum that follows it, if it
knows all the operations and nobody else wants the result.  Each number here was 128 to
1664 MiB before the losses were written for that (see `stable.xla.rematerialised`), so
one `where` too many, or another XLA, shows up in this file.
"""

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxloss

SHAPE = (8192, 4096)
REALS = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
IDS = jax.ShapeDtypeStruct(SHAPE[:1], jnp.int32)
MEBIBYTE = 2**20

CASES = {
    "huber": (jaxloss.huber, REALS),
    "log_cosh": (jaxloss.log_cosh, REALS),
    "logistic": (jaxloss.logistic, REALS),
    "sigmoid_cross_entropy": (jaxloss.sigmoid_cross_entropy, REALS),
    "sigmoid_cross_entropy, weighted": (
        lambda x, y: jaxloss.sigmoid_cross_entropy(x, y, pos_weight=3.0),
        REALS,
    ),
    "sigmoid_focal": (jaxloss.sigmoid_focal, REALS),
    "sigmoid_focal, alpha": (
        lambda x, y: jaxloss.sigmoid_focal(x, y, alpha=0.25),
        REALS,
    ),
    "softmax_cross_entropy": (jaxloss.softmax_cross_entropy, IDS),
    "softmax_cross_entropy, smoothed": (
        lambda x, y: jaxloss.softmax_cross_entropy(x, y, label_smoothing=0.1),
        IDS,
    ),
}


def temporary(fn, *shapes):
    """Bytes that the compiled function takes beside its arguments and results."""
    with jax.default_device(jax.devices("cpu")[0]):
        memory = jax.jit(fn).lower(*shapes).compile().memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


@pytest.mark.parametrize("name", CASES)
def test_a_mean_and_its_gradient_need_no_other_array(name):
    """Less than 1 MiB of 128, for the mean alone and together with its gradient."""
    loss, second = CASES[name]
    mean = lambda x, y: jnp.mean(loss(x, y))
    for step in (mean, jax.value_and_grad(mean)):
        assert temporary(step, REALS, second) <= MEBIBYTE


# --- logits of a matrix product in the same program ----------------------------------

WIDTH, CLASSES = 16, 2048
LEADING = [(256,), (2, 128), (2, 4, 32)]
OF_IDS = {
    "nll": jaxloss.nll,
    "softmax_cross_entropy": jaxloss.softmax_cross_entropy,
    "softmax_cross_entropy, smoothed": lambda x, y: jaxloss.softmax_cross_entropy(
        x, y, label_smoothing=0.1
    ),
    "softmax_focal": jaxloss.softmax_focal,
    "poly1": jaxloss.poly1,
    "sparsemax": jaxloss.sparsemax,
    "squared_emd": jaxloss.squared_emd,
    "z_loss": lambda x, y: jaxloss.z_loss(x),
    "listwise_softmax": lambda x, y: jaxloss.listwise_softmax(
        x, jax.nn.one_hot(y, CLASSES)
    ),
}


def smoothed_by_optax(x, y):
    one_hot = jax.nn.one_hot(y, CLASSES)
    return optax.softmax_cross_entropy(x, optax.smooth_labels(one_hot, 0.1))


def arrays_of_head(loss, leading, dtype=jnp.float32, mask=False):
    """Temporary memory of a step in a linear layer and `loss`, in arrays of logits."""

    def mean(hidden, kernel, ids):
        losses = loss(hidden @ kernel.T, ids)
        return jaxloss.mean(losses, where=ids > 9) if mask else jnp.mean(losses)

    hidden = jax.ShapeDtypeStruct((*leading, WIDTH), dtype)
    kernel = jax.ShapeDtypeStruct((CLASSES, WIDTH), dtype)
    ids = jax.ShapeDtypeStruct(leading, jnp.int32)
    step = jax.value_and_grad(mean, (0, 1))
    one = 256 * CLASSES * jnp.dtype(dtype).itemsize
    return temporary(step, hidden, kernel, ids) / one


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_a_head_needs_no_more_than_that_of_optax(leading, mask):
    """Cross entropy of logits (batch, length, classes) that are computed with it."""
    plain = OF_IDS["softmax_cross_entropy"], OF_IDS["softmax_cross_entropy, smoothed"]
    theirs = optax.softmax_cross_entropy_with_integer_labels, smoothed_by_optax
    for ours, other in zip(plain, theirs, strict=True):
        found = arrays_of_head(ours, leading, mask=mask)
        assert found <= arrays_of_head(other, leading, mask=mask) + 0.05


@pytest.mark.parametrize("name", [n for n in OF_IDS if "softmax_cross" not in n])
def test_leading_axes_cost_nothing(name):
    """A gradient in two layouts is not computed twice, next to what it is made of.

    That is two arrays, as of optax's cross entropy; where tokens along one axis need
    more, so do those along two.
    """
    flat, deep = (arrays_of_head(OF_IDS[name], n) for n in LEADING[:2])
    assert deep <= max(flat, 2) + 0.05
