"""Block by block, the in-batch contrastive losses are what they are all at once."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import kernels
from jaxloss.testing import tolerance

GROUPS = ("nt_xent", "supervised_contrastive")
LOSSES = (*GROUPS, "clip", "info_nce", "siglip")
PARAMS = {"siglip": {"bias": -2.0}}


def loss_of(name, **options):
    """The loss, dense without `block`, of two arrays of embeddings.

    A loss of groups sees the first array only; three rows in a row are a group.
    """
    fn = getattr(kernels if "block" in options else jaxloss, name)
    fn = functools.partial(fn, **PARAMS.get(name, {}), **options)
    if name not in GROUPS:
        return fn
    ids = lambda x: jnp.broadcast_to(jnp.arange(x.shape[-2]) // 3, x.shape[:-1])
    return lambda x, y, **rest: fn(x, ids(x), **rest)


def of_loss(loss):
    """The weighted sum of the losses, and the losses."""

    def total(x, y, temperature, where):
        losses = loss(x, y, temperature=temperature, where=where)
        weights = jnp.arange(1, losses.shape[-1] + 1, dtype=losses.dtype)
        return jnp.sum(
            losses * weights.reshape((1,) * (losses.ndim - 1) + (-1,))
        ), losses

    return total


def gradients(loss):
    """In both embeddings and the temperature; and the losses."""
    return jax.grad(of_loss(loss), (0, 1, 2), has_aux=True)


def draw(rows, size=5, dtype=np.float64):
    x, noise = np.random.default_rng(rows).normal(size=(2, rows, size))
    return jnp.asarray(x, dtype), jnp.asarray(0.5 * x + noise, dtype)


def assert_near(found, expected, units: float = 8):
    """In units of the precision of the result, of the largest entry of an array."""
    for got, want in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert got.shape == want.shape
        exact = np.asarray(want, np.float64)
        error = np.abs(np.asarray(got, np.float64) - exact).max(initial=0)
        bound = units * float(jnp.finfo(got.dtype).eps) * np.abs(exact).max(initial=0)
        assert error <= bound, (error, bound)


# --- as all at once ------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_every_derivative_is_the_dense_one(name):
    """Losses, gradients, their directional derivatives by forward mode and by reverse
    mode: with masked rows, and a last block that is not full."""
    x, y = draw(7)
    where = jnp.arange(7) != 2
    point, turn = (x, y, jnp.float64(0.1)), (*draw(7)[::-1], jnp.float64(0.7))

    def derivatives(loss):
        along = lambda x, y, t: gradients(loss)(x, y, t, where)
        found, moved = jax.jvp(along, point, turn)
        value = lambda x, y, t: of_loss(loss)(x, y, t, where)[0]
        pushed = lambda *args: jax.jvp(value, args, turn)[1]
        return found, moved, jax.grad(pushed, (0, 1, 2))(*point)

    found = jax.jit(functools.partial(derivatives, loss_of(name, block=3)))()
    expected = jax.jit(functools.partial(derivatives, loss_of(name)))()
    assert_near(found, expected, units=64)


@pytest.mark.parametrize("name", ["clip", "info_nce", "siglip"])
def test_inner_products_are_the_dense_ones(name):
    """Without normalisation, where all scores are far below 0: losses and gradients,
    with masked rows, and a last block that is not full."""
    x, y = draw(7)
    args = 30 * (x + 9), -y - 9, jnp.float64(0.5), jnp.arange(7) != 2
    found = jax.jit(gradients(loss_of(name, block=3, normalize=False)))(*args)
    expected = jax.jit(gradients(loss_of(name, normalize=False)))(*args)
    assert float(jnp.max(args[0] @ args[1].T)) < -1000
    assert_near(found, expected, units=1e4)  # scores of 1e4 are rounded as such
    if name == "clip":
        each = (*args[:2], jnp.full(7, 0.5), args[3])
        found = jax.jit(gradients(loss_of(name, block=3, normalize=False)))(*each)
        assert_near(found[1], expected[1], units=1e4)


SIZES = [(1, np.float32), (513, np.float32), (130, jnp.bfloat16), (7, np.float16)]


@pytest.mark.parametrize(("rows", "dtype"), SIZES)
@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_sizes_and_dtypes(name, rows, dtype):
    """As accurate as float64: losses at least float32, gradients in the caller's."""
    x, y = draw(rows, dtype=dtype)
    args = x, y, jnp.asarray(0.07, dtype), jnp.arange(rows) % 5 != 3
    slopes, losses = jax.jit(gradients(loss_of(name, block=64)))(*args)
    exact = [a.astype(np.float64) for a in args[:3]]
    expected = jax.jit(gradients(loss_of(name)))(*exact, args[3])
    assert losses.dtype == jnp.float32
    assert {s.dtype for s in slopes} == {jnp.dtype(dtype)}
    # A score is rounded in proportion to 1 / temperature.
    assert_near((slopes, losses), expected, units=4 / 0.07)


def test_a_temperature_for_each_pair():
    """As all at once, though its scores do not count twice."""
    x, y = draw(7)
    t = jnp.linspace(0.05, 0.5, 7)
    for name in ("clip", "nt_xent"):
        found = jax.jit(gradients(loss_of(name, block=2)))(x, y, t, None)
        assert_near(found, jax.jit(gradients(loss_of(name)))(x, y, t, None), units=64)


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_transformations_agree(name):
    """Leading axes, `vmap` of the gradient, `scan` and `checkpoint`: no batch sees the
    rows of another one."""
    loss = loss_of(name, block=4)
    x, y = (jnp.stack([z, z[::-1] ** 2, -z]) for z in draw(6))
    t, where = jnp.float64(0.1), jnp.ones((3, 6), bool)

    def kept(x, y, *, temperature, where):
        of = lambda x, y, t: loss(x, y, temperature=t)
        return jax.checkpoint(of)(x, y, temperature)

    @jax.jit
    def run(x, y):
        one = lambda x, y: gradients(kept)(x, y, t, None)[0][:2]
        leading = gradients(loss)(x, y, t, where)[0][:2]
        return leading, jax.vmap(one)(x, y), jax.lax.map(lambda z: one(*z), (x, y))

    dense = jax.jit(jax.vmap(lambda x, y: gradients(loss_of(name))(x, y, t, None)[0]))
    expected = dense(x, y)[:2]
    for found in run(x, y):
        assert_near(found, expected, units=64)


# --- at the edges --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_nothing_left_is_no_loss(name):
    """All masked, or one pair alone: losses and gradients are 0, and nothing is NaN or
    infinite on the way."""
    x, y = draw(5)
    step = jax.jit(gradients(loss_of(name, block=2)))
    with jax.debug_nans(True), jax.debug_infs(True):
        for keep in (0, 1):
            found = step(x, y, 0.1, jnp.arange(5) < keep)
            for leaf in jax.tree.leaves(found):
                np.testing.assert_array_equal(leaf, jnp.zeros_like(leaf))
    assert loss_of(name, block=2)(x[:0], y[:0], temperature=0.1).shape == (0,)


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_well_separated_pairs_keep_a_tiny_loss(name):
    """At right angles to all others, at 0.02: 6 or 8 times e^-50, and its gradient."""
    x = jnp.eye(9, dtype=np.float32)
    x = jnp.repeat(x[:3], 3, axis=0) if name == "nt_xent" else x
    slopes, losses = jax.jit(gradients(loss_of(name, block=4)))(x, x, 0.02, None)
    rivals = 6 if name == "nt_xent" else 8
    np.testing.assert_allclose(
        losses, rivals * np.exp(-50), tolerance(np.float32) / 0.02
    )
    exact = x.astype(np.float64)
    expected, _ = jax.jit(gradients(loss_of(name)))(exact, exact, 0.02, None)
    assert_near(slopes[:2], expected[:2], units=8 / 0.02)


def test_bad_calls_raise():
    """What is wrong is named, as for the dense losses."""
    x, ids = np.ones((3, 2), np.float32), np.zeros(3, int)
    untyped = functools.partial(getattr, kernels)
    calls = {
        "clip: `block` is 0": lambda: kernels.clip(x, x, temperature=1.0, block=0),
        "nt_xent: `block` is float": lambda: untyped("nt_xent")(
            x, ids, temperature=1.0, block=2.0
        ),
        "siglip: `bias` has dtype bool": lambda: kernels.siglip(
            x, x, temperature=1.0, bias=True
        ),
        "info_nce: `positives` has shape (2, 2)": lambda: kernels.info_nce(
            x, x[:2], temperature=1.0
        ),
        "supervised_contrastive: `temperature` is 0.0": lambda: (
            kernels.supervised_contrastive(x, ids, temperature=0.0)
        ),
    }
    for message, call in calls.items():
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            call()


# --- memory --------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_no_matrix_of_all_scores(name):
    """Value and gradient take the room of a few blocks, and of a few arrays of
    embeddings: nothing has two axes of the batch."""
    rows, size, block = 1024, 16, 64
    x = jax.ShapeDtypeStruct((rows, size), np.float32)
    t = jax.ShapeDtypeStruct((), np.float32)
    step = jax.jit(gradients(loss_of(name, block=block))).lower(x, x, t, None).compile()
    text, memory = str(step.as_text()), step.memory_analysis()
    assert f"[{block},{rows}]" in text
    assert not re.search(rf"\[(\d+,)*{rows},{rows}\]|\[{rows * rows}\]", text)
    assert memory is not None
    bound = 4 * (8 * block * rows + 12 * rows * size + 32 * rows)
    assert memory.temp_size_in_bytes <= bound, memory.temp_size_in_bytes / bound


def test_blocks_fit_by_default():
    """Without `block`, 8 MiB of scores: here of 512 of 4096 anchors at a time."""
    x = jax.ShapeDtypeStruct((4096, 8), np.float32)
    fn = jax.jit(lambda x: kernels.info_nce(x, x, temperature=0.1))
    assert "f32[512,4096]" in str(fn.lower(x).compile().as_text())
