"""Kernels obey the laws of dtypes that the losses of their names obey."""

import dataclasses
import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import kernels, testing
from jaxloss.claims import SPECS
from jaxloss.testing import LossSpec, evidence, ulps

EIGHT_BITS = jnp.float8_e4m3fn, jnp.float8_e5m2
NARROW = *EIGHT_BITS, jnp.bfloat16, jnp.float16, np.float32, np.float64
LAWS = testing.output_shape_and_dtype, testing.strict_promotion

# --- specs ---------------------------------------------------------------------------


def tokens(rng, shape):
    """Hidden states, the kernel that all share, and class ids."""
    ids = rng.integers(5, size=shape)
    return rng.normal(size=(*shape, 4)), rng.normal(size=(4, 5)), ids


def mean_for_each(hidden, kernel, labels, **options):
    """The mean, as often as there are tokens: a law sees one number per example."""
    mean = kernels.linear_softmax_cross_entropy(hidden, kernel, labels, **options)
    return jnp.broadcast_to(mean.compute(), labels.shape)


def with_z(hidden, kernel, labels, **options):
    """Both losses of each token, in one number."""
    fn = kernels.linear_softmax_cross_entropy_with_z
    cross_entropy, z = fn(hidden, kernel, labels, **options)
    return cross_entropy + z


NUMBERS: dict[str, Any] = {"soft_cap": 5.0, "temperature": 2.0}
WAYS = {"plain": {}, "blocks": {"block": (2, 3)}, "dense": {"implementation": "dense"}}
HEADS = [
    LossSpec(
        name=f"{fn.__name__}({way})", fn=fn, sample=tokens, params=p, static=static
    )
    for fn, p in (
        (mean_for_each, {}),
        (mean_for_each, {**NUMBERS, "label_smoothing": 0.1, "z_loss": 0.01}),
        (kernels.linear_token_log_probs, NUMBERS),
        (with_z, NUMBERS),
    )
    for way, static in WAYS.items()
]
OPTIONS = {"softmax_cross_entropy": {"implementation": "pallas"}}
BATCHES = [
    dataclasses.replace(
        spec,
        fn=getattr(kernels, spec.fn.__name__),
        static=OPTIONS.get(spec.fn.__name__, {"block": 2}),
    )
    for spec in SPECS
    if vars(jaxloss).get(spec.fn.__name__) is spec.fn
    and inspect.isfunction(vars(kernels).get(spec.fn.__name__))
    and spec.name != "softmax_cross_entropy(distributions)"  # it takes ids alone
]


@pytest.mark.parametrize("law", LAWS, ids=[law.__name__ for law in LAWS])
@pytest.mark.parametrize(
    "spec",
    HEADS + BATCHES,
    ids=[f"{i}-{s.name}" for i, s in enumerate(HEADS + BATCHES)],
)
def test_law(spec, law):
    """The kernel obeys the law."""
    law(spec)


def test_every_kernel_has_a_spec():
    """A new kernel is held to the laws as well."""
    public = {name for name, fn in vars(kernels).items() if inspect.isfunction(fn)}
    named = {spec.fn.__name__ for spec in BATCHES} | {"linear_token_log_probs"}
    named |= {"linear_softmax_cross_entropy", "linear_softmax_cross_entropy_with_z"}
    assert public == named


# --- every pair of dtypes ------------------------------------------------------------


def test_any_two_dtypes_of_the_factors():
    """Promoted in no silence: at least float32, gradients in the dtypes given."""
    x, w, ids = tokens(np.random.default_rng(0), (3,))
    spec = HEADS[3]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for a, b in itertools.product(NARROW, NARROW):
            given = jnp.asarray(x, a), jnp.asarray(w, b), ids
            value, slopes = jax.eval_shape(lambda *g: evidence.slopes(spec, *g), *given)
            wide = ulps.DOUBLE if np.float64 in (a, b) else ulps.SINGLE
            assert value.dtype == wide
            assert [slope.dtype for slope in slopes] == [a, b]


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_eight_bits_are_those_of_their_float32(dtype):
    """Value and gradients are those of the same numbers in float32, rounded."""
    x, w, ids = tokens(np.random.default_rng(1), (3,))
    x, w = (jnp.asarray(v, dtype) for v in (x, w))
    wide = [np.asarray(v, np.float32) for v in (x, w)]

    def loss(x, w):
        return kernels.linear_softmax_cross_entropy(x, w, ids).compute()

    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    (value, slopes), (exact, truths) = step(x, w), step(*wide)
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    for slope, truth in zip(slopes, truths, strict=True):
        assert slope.dtype == dtype
        error = np.abs(np.asarray(slope, np.float64) - np.asarray(truth, np.float64))
        unit = ulps.ulp(truth, dtype)
        assert np.all(error <= 0.51 * unit)
