"""Cross entropy in one read of the logits: that of `jaxloss`, to the same bounds.

The kernels of both devices are interpreted.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P

import jaxloss
from jaxloss import kernels, testing
from jaxloss.claims import SPECS
from jaxloss.kernels import _pallas, softmax
from jaxloss.testing import programs, tolerance

INF, NAN = np.inf, np.nan
EPS = tolerance(np.float32)
loss = functools.partial(kernels.softmax_cross_entropy, implementation="pallas")


@pytest.fixture(params=["tpu", "hopper"], scope="module")
def device(request):
    """The kernel of this device is what a CPU interprets."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "hopper":
            patch.setattr(_pallas, "on_tpu", _pallas.on_hopper)
            patch.setattr(_pallas, "_REGISTERS", 256)  # so that few classes are many
        programs.forget()
        jax.clear_caches()
        yield request.param
    programs.forget()
    jax.clear_caches()


# --- claims --------------------------------------------------------------------------

CLAIMED = [
    dataclasses.replace(
        spec, fn=kernels.softmax_cross_entropy, static={"implementation": "pallas"}
    )
    for spec in SPECS
    if spec.fn is jaxloss.softmax_cross_entropy
    and spec.name.endswith(("label_smoothing=0.1)", "where)"))
    and "distributions" not in spec.name
]
LAWS = [
    testing.matches_reference,
    testing.gradient_matches_derivation,
    testing.finite_at_extremes,
    testing.debug_nans_stays_quiet,
    testing.nan_has_no_sign,
]


# Both devices share the arithmetic: one claim shows that the other one uses it.
BOTH = [("tpu", spec) for spec in CLAIMED] + [("hopper", CLAIMED[-1])]
NAMES = [f"{device}-{spec.name}" for device, spec in BOTH]


@pytest.mark.parametrize(
    ("device", "spec"),
    BOTH,
    ids=[f"{d}-{s.name}" for d, s in BOTH],
    indirect=["device"],
)
def test_claims(device, spec):
    """Value and gradient are within the bounds of `jaxloss.softmax_cross_entropy`."""
    for law in LAWS:
        if law in testing.applicable(spec):
            law(spec)


# --- many classes --------------------------------------------------------------------


def reference(x, ids, where, part, zeta):
    """Loss and gradient of rows in float64, by their formulas."""
    x = np.where(where, x.astype(np.float64), -INF)
    top, at = x.max(axis=-1, keepdims=True), np.eye(x.shape[1])[ids]
    p = np.exp(x - top)
    lse = np.log(p.sum(axis=-1, keepdims=True)) + top
    p, even = np.exp(x - lse), where / where.sum(axis=-1, keepdims=True)
    w = (1 - part) * at + part * even
    losses = np.sum(w * np.where(where, lse - x, 0), axis=-1) + zeta * lse[:, 0] ** 2
    return losses, p - w + 2 * zeta * lse * p, p + w


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_rows_of_many_chunks(device, dtype):
    """Rows that fill no block, of classes that fill no chunk, under a mask."""
    rng = np.random.default_rng(0)
    # More rows than a TPU has lanes, and as many classes as take more than one chunk.
    n, classes = (150, 1100) if device == "tpu" else (3, 600)
    x = np.asarray(jnp.asarray(3 * rng.normal(size=(n, classes)), dtype), np.float32)
    ids = rng.integers(classes, size=n)
    where = (rng.random(x.shape) < 0.7) | np.eye(classes, dtype=bool)[ids]
    weights = rng.random(n).astype(np.float32)

    def mean(x):
        more = {"where": where, "label_smoothing": 0.1, "z_loss": 0.01}
        losses = loss(x, ids, weights=weights, **more)
        return jaxloss.mean(losses, weights=weights), losses

    slope, losses = jax.jit(jax.grad(mean, has_aux=True))(jnp.asarray(x, dtype))
    part, zeta = np.float32(0.1), np.float32(0.01)
    want, gradient, size = reference(x, ids, where, part, zeta)
    np.testing.assert_allclose(losses, want, 16 * EPS)
    share = (weights / weights.sum(dtype=np.float64))[:, None]
    error = np.abs(np.asarray(slope, np.float64) - share * gradient)
    assert np.all(error <= share * size * (16 * EPS + tolerance(dtype)))


# --- values --------------------------------------------------------------------------


def test_what_is_no_number(device):
    """As `jaxloss.softmax_cross_entropy`: NaN of an unknown id, 0 of no class."""
    x = np.array([[1, 2], [-INF, -INF], [1, -INF], [INF, 0], [0, INF], [NAN, 0]])
    x = x.astype(np.float32)
    for ids in (0, 1, -1, 2):
        ids = np.full(len(x), ids)
        plain = lambda x, ids=ids: jaxloss.softmax_cross_entropy(x, ids)
        found, want = loss(x, ids), plain(x)
        np.testing.assert_allclose(found, want, 4 * EPS)
        slopes = (jax.jacrev(f)(x) for f in (lambda x, ids=ids: loss(x, ids), plain))
        found, want = (np.einsum("iik->ik", s) for s in slopes)
        np.testing.assert_allclose(found, want, 4 * EPS)


def test_a_row_without_weight_is_harmless(device):
    """Its id may be unknown, its logits may be no numbers."""
    x = jnp.array([[1.0, 2.0], [NAN, 2.0], [1.0, INF]])
    ids, weights = jnp.array([0, 1, -1]), jnp.array([1.0, 0.0, 0.0])

    def mean(x):
        return jaxloss.mean(loss(x, ids, weights=weights), weights=weights)

    np.testing.assert_allclose(mean(x), np.log1p(np.e), 4 * EPS)
    p = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(jax.grad(mean)(x)[0], [-p, p], 4 * EPS)


# --- derivatives ---------------------------------------------------------------------

X = np.random.default_rng(1).normal(size=(2, 3, 5))
LABELS = np.array([[0, 4, 1], [2, 2, 3]])


def squares(implementation, x, part, zeta):
    """A function that weighs each loss by itself, and so not as a mean."""
    fn = functools.partial(kernels.softmax_cross_entropy, implementation=implementation)
    return jnp.sum(fn(x, LABELS, label_smoothing=part, z_loss=zeta) ** 2)


@pytest.mark.parametrize("again", [jax.jacfwd, jax.jacrev])
def test_second_derivatives(again):
    """In both modes over reverse mode, those of "xla", in every argument."""
    args = X, np.full((2, 3), 0.1), 0.01
    found, want = (
        jax.jit(again(jax.grad(functools.partial(squares, implementation), (0, 1, 2))))(
            *args
        )
        for implementation in ("pallas", "xla")
    )
    for a, b in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_forward_mode_is_refused():
    """By an error, and not by a wrong number."""
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: loss(x, LABELS), (X,), (X,))


def test_derivatives_in_the_numbers():
    """Of the smoothing, the label's logit less the mean one; of the z-loss, L^2."""
    part, zeta = np.full((2, 3), 0.2), np.full((2, 3), 0.1)
    total = lambda part, zeta: jnp.sum(
        loss(X, LABELS, label_smoothing=part, z_loss=zeta)
    )
    slopes = jax.grad(total, (0, 1))(part, zeta)
    label = np.take_along_axis(X, LABELS[..., None], -1)[..., 0]
    np.testing.assert_allclose(slopes[0], label - X.mean(axis=-1), rtol=1e-12)
    lse = np.log(np.exp(X).sum(axis=-1))
    np.testing.assert_allclose(slopes[1], lse**2, rtol=1e-12)


# --- one read ------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [0.0, 2.0, 0.3], [0.0, 0.0, 0.0]])
def test_the_gradient_expected_is_that_of_the_mean(weights):
    """Bit for bit, or each step would read and write the logits a second time."""
    x, ids = jnp.asarray(X[0], jnp.float32), jnp.array([-1, 2, 4])
    weights = None if weights is None else jnp.array(weights, jnp.float32)

    @jax.jit
    def both(x, weights):
        expected = softmax._given("loss", x, ids, None, None, None, weights)[1]
        losses = loss(x, ids)
        mean = lambda losses: jaxloss.mean(losses, weights=weights)
        return expected, jax.grad(mean)(losses), jax.grad(mean)(jnp.abs(losses))

    expected, *slopes = (np.asarray(v).view(np.int32) for v in both(x, weights))
    for slope in slopes:
        np.testing.assert_array_equal(slope, expected)


def test_a_mean_takes_one_pass():
    """XLA sees that the first gradient is right; of a sum it is not."""

    def loops(reduction):
        step = jax.jit(jax.grad(lambda x: reduction(loss(x, LABELS))))
        return str(step.lower(X).compile().as_text()).count(" while(")

    assert loops(jaxloss.mean) < loops(jnp.sum)


def test_vmap_and_shard_map():
    """The gradient of each batch, and of each shard, is its own."""
    slope = jax.jit(jax.grad(lambda x, ids: jaxloss.mean(loss(x, ids))))
    want = np.stack([slope(x, ids) for x, ids in zip(X, LABELS, strict=True)])
    found = jax.vmap(slope)(X, LABELS)
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-15)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    cut: dict[str, Any] = {"in_specs": P("data"), "out_specs": P("data")}
    # The check refuses what Pallas interprets, not what it compiles.
    whole = jax.jit(jax.shard_map(slope, mesh=mesh, check_vma=False, **cut))
    np.testing.assert_allclose(whole(X, LABELS), slope(X, LABELS), rtol=1e-12)


# --- arguments -----------------------------------------------------------------------

REFUSED = {
    "labels": ((X, X), {}, TypeError),
    "where": ((X, LABELS), {"where": LABELS > 0}, ValueError),
    "weights": ((X, LABELS), {"weights": np.ones(3)}, ValueError),
    "logits": ((LABELS, LABELS), {}, TypeError),
    "label_smoothing": ((X, LABELS), {"label_smoothing": 1.5}, ValueError),
    "z_loss": ((X, LABELS), {"z_loss": -1.0}, ValueError),
    "implementation": ((X, LABELS), {"implementation": "triton"}, ValueError),
}


@pytest.mark.parametrize("argument", REFUSED)
def test_refused(argument):
    """What is wrong is named."""
    args, more, error = REFUSED[argument]
    with pytest.raises(error, match=f"softmax_cross_entropy: `{argument}`"):
        kernels.softmax_cross_entropy(*args, **more)


def test_no_row():
    """A batch may be empty."""
    assert loss(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)


def test_the_default_is_xla():
    """It is what `jaxloss` computes, to the bit."""
    found = kernels.softmax_cross_entropy(X, LABELS)
    np.testing.assert_array_equal(found, jaxloss.softmax_cross_entropy(X, LABELS))
