"""What plain losses take beside their arguments and results: next to nothing.

On a CPU XLA computes an elementwise function inside of the sum that follows it, if it
knows all the operations and nobody else wants the result.  Each number here was 128 to
1664 MiB before the losses were written for that (see `stable.xla.rematerialised`), so
one `where` too many, or another XLA, shows up in this file.
"""

import jax
import jax.numpy as jnp
import pytest

import jaxloss

SHAPE = (8192, 4096)
REALS = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
IDS = jax.ShapeDtypeStruct(SHAPE[:1], jnp.int32)
MEBIBYTE = 2**20

CASES = {
    "huber": (jaxloss.huber, REALS),
    "log_cosh": (jaxloss.log_cosh, REALS),
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


@pytest.mark.parametrize("name", CASES)
def test_a_mean_and_its_gradient_need_no_other_array(name):
    """Less than 1 MiB of 128, for the mean alone and together with its gradient."""
    loss, second = CASES[name]
    mean = lambda x, y: jnp.mean(loss(x, y))
    with jax.default_device(jax.devices("cpu")[0]):
        for step in (mean, jax.value_and_grad(mean)):
            memory = jax.jit(step).lower(REALS, second).compile().memory_analysis()
            assert memory is not None
            assert memory.temp_size_in_bytes <= MEBIBYTE
