"""Losses that spread a batch: values by hand, collapse, duplicates, masks, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import _whole_batch
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
FLOAT64 = tolerance(np.float64)
ANTIPODES = jnp.array([[1.0, 0.0], [-3.0, 0.0]])


def total(loss, x, **params):
    """One number of a batch, and the losses."""
    losses = loss(x, **params)
    return jnp.sum(losses), losses


def with_gradient(loss):
    run = jax.jit(jax.grad(functools.partial(total, loss), has_aux=True))
    return lambda *args, **params: run(*args, **params)[::-1]


uniformity = with_gradient(jaxloss.uniformity)
koleo = with_gradient(jaxloss.koleo)
BOTH = {"uniformity": uniformity, "koleo": koleo}


def draw(rows=12, size=5, dtype: type = np.float64, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, size)), dtype)


def squares(x):
    """The squared distances of the directions, by all differences, in float64."""
    u = np.asarray(x, np.float64)
    u = u / np.linalg.norm(u, axis=-1, keepdims=True)
    return np.sum((u[:, None] - u[None]) ** 2, axis=-1)


def others(found):
    """The entries of a matrix of pairs that are of two different rows."""
    return found[~np.eye(len(found), dtype=bool)]


# --- by hand -------------------------------------------------------------------------


def test_two_antipodes():
    """The least of both losses: log(exp(-2 * 4)) and -log(2), whatever the lengths."""
    np.testing.assert_allclose(uniformity(ANTIPODES)[0], -8, rtol=FLOAT64)
    np.testing.assert_allclose(koleo(ANTIPODES)[0], [-np.log(2)] * 2, rtol=FLOAT64)
    for loss in BOTH.values():
        np.testing.assert_allclose(loss(ANTIPODES)[1], 0, atol=8 * FLOAT64)


def test_uniformity_is_the_formula_of_the_paper():
    """`log mean exp(-t |u - v|^2)` over the pairs; and so in float32 at 1024 rows."""
    for x, t in ((draw(), 2.0), (draw(), 0.3), (draw(1024, 32, np.float32), 2.0)):
        loss, _ = uniformity(x, t=t)
        want = np.log(np.mean(np.exp(-t * others(squares(x)))))
        np.testing.assert_allclose(loss, want, rtol=0, atol=4 * tolerance(x.dtype))


def test_koleo_is_the_formula_of_the_paper():
    """`-log min |u - v|`, also in float32 at 1024 rows."""
    for x in (draw(), draw(1024, 32, np.float32)):
        losses, _ = koleo(x)
        nearest = np.min(squares(x) + 9 * np.eye(len(x)), axis=1)
        np.testing.assert_allclose(
            losses, -np.log(nearest) / 2, rtol=0, atol=4 * tolerance(x.dtype)
        )


def test_the_gradient_is_the_one_of_the_formula():
    """Autodiff of the textbook in float64, where that is well conditioned."""
    x = draw()
    far = ~jnp.eye(12, dtype=bool)

    def apart(x):
        u = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        return jnp.sum((u[:, None] - u[None]) ** 2, axis=-1)

    spread = lambda x: jnp.log(jnp.mean(jnp.exp(-2 * apart(x)), where=far))
    nearest = lambda x: -jnp.log(jnp.min(apart(x), 1, where=far, initial=9.0)) / 2
    for loss, textbook in ((uniformity, spread), (koleo, nearest)):
        want = jax.jit(jax.grad(lambda x, f=textbook: jnp.sum(f(x))))(x)
        np.testing.assert_allclose(loss(x)[1], want, atol=8 * FLOAT64)


def test_evenly_spread_rows_are_at_rest():
    """A simplex and the corners of a cube: no gradient; a step towards either spreads
    a random batch more evenly."""
    simplex = jnp.eye(5) - 0.2
    cube = jnp.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
    for x in (simplex, 2.0 * cube):
        np.testing.assert_allclose(uniformity(x)[1], 0, atol=FLOAT64)
    for loss in BOTH.values():
        x = draw(8, 3)
        before, slope = loss(x)
        after, _ = loss(x - 1e-2 * slope)
        assert jnp.sum(after) < jnp.sum(before)


# --- near each other -----------------------------------------------------------------


def test_a_near_neighbour_keeps_its_distance():
    """1e-4 apart in float32: a loss of 9.21, which 2 - 2 cos says is infinite."""
    x = jnp.array([[1.0, 0.0], [1.0, 1e-4], [-1.0, 0.0]], np.float32)
    u = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    assert 2 - 2 * jnp.dot(u[0], u[1]) == 0
    losses, slope = koleo(x)
    np.testing.assert_allclose(losses[:2], [9.210340400] * 2, rtol=FLOAT32)
    np.testing.assert_allclose(slope[:2, 1], [2e4, -2e4], rtol=FLOAT32)


def test_duplicates_are_infinitely_near_and_at_rest():
    """In float32 at any lengths; the others keep their gradients, without NaN."""
    x = jnp.array([[3.0, 1.0], [6.0, 2.0], [-1.0, 2.0], [-2.0, 1.0]], np.float32)
    losses, slope = koleo(x)
    np.testing.assert_array_equal(jnp.isposinf(losses), [1, 1, 0, 0])
    np.testing.assert_array_equal(slope[:2], 0)
    np.testing.assert_allclose(losses[2], -np.log(squares(x)[2, 3]) / 2, rtol=FLOAT32)
    assert jnp.all(jnp.isfinite(slope[2:]))
    assert jnp.all(slope[2:] != 0)


def test_equal_directions_have_the_loss_zero():
    """Exactly, with gradient exactly 0 and finite second derivatives, though the mean
    of so many equal numbers may be rounded."""
    x = jnp.tile(jnp.array([0.1, 0.7, -0.3], np.float32), (7, 1))
    loss, slope = uniformity(x)
    assert loss == 0
    np.testing.assert_array_equal(slope, 0)
    curve = jax.jit(jax.hessian(jaxloss.uniformity))(x)
    assert jnp.all(jnp.isfinite(curve))
    assert jnp.any(curve != 0)


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6, 1e-12])
def test_nearly_equal_directions_keep_their_digits(apart):
    """A loss of 1e-4 down to 1e-24 and its gradient to a few ulps, where the textbook
    has 0 or the rounding error of 1."""
    steps = jnp.asarray(apart * np.array([0, 1, 3, 4.5]), np.float32)
    x = jnp.stack([jnp.ones_like(steps), steps], axis=-1)
    loss, slope = uniformity(x)
    # To the first order of what is tiny: a mean of squares, and its derivatives.
    wide = np.asarray(steps, np.float64)
    angles = np.arctan(wide)
    square = (2 * np.sin((angles[:, None] - angles[None]) / 2)) ** 2
    want = np.log1p(np.mean(others(np.expm1(-2 * square))))
    np.testing.assert_allclose(loss, want, rtol=FLOAT32)
    shares = np.exp(-2 * square) * (1 - np.eye(4))
    turn = np.sin(angles[:, None] - angles[None]) * shares / shares.sum()
    pull = -8 * turn.sum(axis=1) / (1 + wide**2)
    np.testing.assert_allclose(slope[:, 1], pull, rtol=2 * FLOAT32)


@pytest.mark.parametrize("seed", range(3))
def test_a_collapsed_batch_in_float32(seed):
    """Directions within 1e-3 of each other, in general position: the neighbour is the
    right one, and the error that of the rounding of a direction."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=16) + 3e-4 * rng.normal(size=(64, 16))
    x = jnp.asarray(x, np.float32)
    exact = squares(x)
    loss, _ = uniformity(x)
    want = np.log1p(np.mean(np.expm1(-2 * others(exact))))
    rounding = FLOAT32 / np.sqrt(others(exact).mean())
    np.testing.assert_allclose(loss, want, rtol=rounding)
    nearest = np.sqrt(np.min(exact + 9 * np.eye(64), axis=1))
    np.testing.assert_allclose(
        koleo(x)[0], -np.log(nearest), rtol=0, atol=FLOAT32 / nearest.min()
    )


def test_sharp_potentials_do_not_vanish():
    """At t = 1000 every potential is 0 in float32: the loss is that of the nearest."""
    x = draw(6, 4, np.float32)
    loss, slope = uniformity(x, t=1000.0)
    nearest = others(squares(x)).min()
    want = -1000 * nearest + np.log(2 / 30)
    np.testing.assert_allclose(loss, want, rtol=FLOAT32 / nearest)
    assert jnp.all(jnp.isfinite(slope))
    assert jnp.any(slope != 0)


# --- masks, and batches with no pair -------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_a_masked_row_is_not_there(name):
    """In no pair: the losses of a batch without it, though it be NaN or infinite."""
    x, where = draw(), jnp.arange(12) % 4 != 1
    dirty = x.at[1].set(jnp.nan).at[5].set(jnp.inf).at[9, 0].set(-jnp.inf)
    losses, slope = BOTH[name](dirty, where=where)
    alone, pull = BOTH[name](x[where])
    np.testing.assert_allclose(losses[where] if losses.ndim else losses, alone, 1e-14)
    np.testing.assert_allclose(slope[where], pull, atol=FLOAT64)
    np.testing.assert_array_equal(slope[~where], 0)
    if losses.ndim:
        np.testing.assert_array_equal(losses[~where], 0)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("rows", [0, 1])
def test_without_a_pair_there_is_no_loss(name, rows):
    """A lone row, an empty batch, and all but one masked: loss 0, gradient 0."""
    x = jnp.ones((rows, 3), np.float32)
    found = [BOTH[name](x)]
    found += [BOTH[name](draw(), where=jnp.arange(12) < rows)]
    for leaf in jax.tree.leaves(found):
        np.testing.assert_array_equal(leaf, 0)
    assert found[0][0].dtype == np.float32


def test_a_zero_vector_is_in_the_middle():
    """Its direction is 0, so it is 1 away from all others, with gradient 0."""
    x = jnp.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    loss, slope = uniformity(x)
    want = np.log((2 * np.exp(-2) + np.exp(-8)) / 3)
    np.testing.assert_allclose(loss, want, rtol=FLOAT64)
    np.testing.assert_array_equal(slope[0], 0)
    losses, slope = koleo(x)
    np.testing.assert_allclose(losses, 0, atol=FLOAT64)
    np.testing.assert_array_equal(slope[0], 0)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf])
def test_a_row_that_is_not_finite_is_not_hidden(name, wrong):
    """All others are compared with it: all losses are NaN."""
    assert jnp.all(jnp.isnan(BOTH[name](draw().at[3, 1].set(wrong))[0]))


# --- what changes nothing ------------------------------------------------------------


def test_leading_axes_are_separate_batches():
    """No batch sees the rows of another one; each may have a sharpness of its own."""
    x, t = jnp.stack([draw(), draw(seed=1) + 1]), jnp.array([0.5, 3.0])
    for i, rows in enumerate(x):
        want = uniformity(rows, t=t[i])[0]
        np.testing.assert_allclose(uniformity(x, t=t)[0][i], want, rtol=FLOAT64)
        np.testing.assert_allclose(koleo(x)[0][i], koleo(rows)[0], rtol=FLOAT64)


@pytest.mark.parametrize("name", BOTH)
def test_lengths_do_not_matter(name):
    """Lengths of 1e20 and 1e-20 change no bit of the loss, and the gradient is one over
    the length, and at a right angle to the embedding."""
    x = draw(dtype=np.float32)
    lengths = 2.0 ** jnp.resize(jnp.array([-66, 0, 66], np.float32), (12, 1))
    losses, slope = BOTH[name](x)
    scaled, pull = BOTH[name](lengths * x)
    np.testing.assert_array_equal(scaled, losses)
    np.testing.assert_array_equal(lengths * pull, slope)
    size = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(slope, axis=-1)
    assert jnp.all(jnp.abs(jnp.sum(slope * x, -1)) <= FLOAT32 * (size + 1))


# --- the program ---------------------------------------------------------------------


@pytest.mark.parametrize("loss", [jaxloss.uniformity, jaxloss.koleo])
def test_no_array_has_two_batch_axes_and_components(loss):
    """Value and gradient take the room of at most 4 matrices, where all differences of
    rows would take 192 of them."""
    rows = 256
    x = jax.ShapeDtypeStruct((rows, 192), np.float32)
    step = jax.jit(jax.value_and_grad(lambda x: jnp.sum(loss(x))))
    memory = step.lower(x).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= 4 * rows * rows * 4


@pytest.mark.parametrize(("loss", "count"), [("uniformity", 2), ("koleo", 1)])
def test_value_and_gradient_take_few_products(loss, count):
    """Of matrices: the distances, and for the potential of all pairs one more."""
    fn = getattr(jaxloss, loss)
    step = jax.jit(jax.value_and_grad(lambda x: jnp.sum(fn(x))))
    program = step.lower(draw(64, 32, np.float32)).compile().as_text() or ""
    assert program.count(" dot(") + program.count("__onednn$matmul") == count


@pytest.mark.parametrize("loss", [jaxloss.uniformity, jaxloss.koleo])
def test_a_cut_batch_is_refused(loss):
    """By micro-batches and over devices alike."""
    cut = lambda **how: _whole_batch.part_of_batch(
        **{"in_time": False, "axis_name": None, **how}
    )
    refused = functools.partial(pytest.raises, ValueError)
    words = rf"^{loss.__name__}: `embeddings` has the examples of one "
    with cut(in_time=True), refused(match=f"{words}micro-batch"):
        loss(draw())
    with cut(axis_name="i"), refused(match=f"{words}device.*: use jit of sharded"):
        loss(draw())
