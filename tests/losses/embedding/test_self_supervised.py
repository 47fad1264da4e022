"""Self-supervised losses of components: published values, limits, memory."""

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

SIGNS = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
SUMS = SIGNS @ np.array([[1.0, 0.0], [1.0, 1.0]])  # its first column is a sum

LOSSES = {
    "barlow_twins": lambda x, **kw: jaxloss.barlow_twins(x, x[..., ::-1], **kw),
    "variance_hinge": jaxloss.variance_hinge,
    "covariance_penalty": jaxloss.covariance_penalty,
}
ARGUMENTS = dict(zip(LOSSES, ("first", "embeddings", "embeddings"), strict=True))
every = pytest.mark.parametrize("name", LOSSES)


def slope(loss, x, *args, **kwargs):
    """Of the sum of the losses with the weights 1, 2, ..."""

    def total(x):
        losses = loss(x, *args, **kwargs)
        return losses @ jnp.arange(1, losses.shape[-1] + 1, dtype=losses.dtype)

    return jax.grad(total)(x)


def draw(rows=9, components=5, dtype: type = np.float64, seed=0):
    """Two views of a batch, of components that are correlated."""
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, rows, components))
    x = x @ rng.normal(size=(components, components)) + rng.normal(size=components)
    return jnp.asarray(x, dtype), jnp.asarray(x + noise, dtype)


def correlations(x, y):
    """Those of NumPy, of each component of x with each of y."""
    count = x.shape[1]
    return np.corrcoef(np.asarray(x).T, np.asarray(y).T)[:count, count:]


def deviations(x):
    x = np.asarray(x)
    return x - x.mean(axis=0)


def off_diagonal(matrix):
    return np.where(np.eye(len(matrix), dtype=bool), 0, matrix)


# --- barlow_twins --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (SIGNS, [0.0, 0.0]),
        (-SIGNS, [4.0, 4.0]),
        (SIGNS[:, ::-1], [1 + 0.005, 1 + 0.005]),
        # The first pair has the correlation 1 / sqrt(2).
        (SUMS, [(1 - 0.5**0.5) ** 2, 0.005 * 0.5]),
    ],
)
def test_barlow_twins_of_signs(second, expected):
    """Perfect, opposite, exchanged and mixed components, of any size."""
    for scale in (1, 1e-20, 1e20):
        first = jnp.asarray(scale * SIGNS, np.float32)
        losses = jaxloss.barlow_twins(first, jnp.asarray(second, np.float32))
        np.testing.assert_allclose(losses, expected, rtol=FLOAT32)


def test_barlow_twins_is_the_published_loss():
    """By the correlations of NumPy, and with a weight per component."""
    x, y = draw()
    weight = np.linspace(0.001, 1, 5)
    c = correlations(x, y)
    want = (1 - np.diag(c)) ** 2 + weight * np.sum(off_diagonal(c) ** 2, axis=1)
    losses = jaxloss.barlow_twins(x, y, redundancy=jnp.asarray(weight))
    np.testing.assert_allclose(losses, want, rtol=4 * FLOAT64)


def test_the_views_may_be_exchanged():
    """In the sum over the components, which is the loss of the paper."""
    x, y = draw()
    total = jnp.sum(jaxloss.barlow_twins(x, y))
    np.testing.assert_allclose(jnp.sum(jaxloss.barlow_twins(y, x)), total, rtol=FLOAT64)


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6])
def test_views_that_nearly_agree_keep_their_digits(apart):
    """1 - C loses all of them in float32: it is about `apart^2 / 2`."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 64, 3)).astype(np.float32)
    y = np.float32(x + apart * noise)
    a, b = (np.asarray(v, np.longdouble) for v in (x, y))
    u, v = ((z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=0) for z in (a, b))
    gap = np.sum((u - v) ** 2, axis=0) / 2
    losses = jaxloss.barlow_twins(x, y, redundancy=0.0)
    # Twice a relative error of eps / apart of the distance, and squared.
    np.testing.assert_allclose(losses, gap**2, rtol=float(FLOAT32 / apart))
    assert (losses > 0).all()


@pytest.mark.parametrize("rows", [2, 7, 100])
@pytest.mark.parametrize("number", [0.1, -7e19, 1e-30])
def test_a_constant_component_has_loss_one_and_no_gradient(rows, number):
    """Whatever the rounding of its mean; nor does it move the other view."""
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    x[:, 0] = number
    for pair in ((x, x), (x, x + [[1, 0]] * np.arange(rows)[:, None])):
        first, second = (jnp.asarray(v, np.float32) for v in pair)
        losses = jaxloss.barlow_twins(first, second, redundancy=0.0)
        np.testing.assert_array_equal(losses, [1, 0])
        for at in (0, 1):
            loss = lambda v, at=at, first=first, second=second: jaxloss.barlow_twins(
                *((v, second) if at == 0 else (first, v)), redundancy=0.0
            )
            moved = slope(loss, (first, second)[at])
            np.testing.assert_array_equal(moved[:, 0], 0)


def test_the_gradient_is_that_of_the_correlations():
    """`2 (C_ii - 1)` and `2 lambda C_ij`, through directions of mean 0."""
    x, y = draw()
    c, weights = correlations(x, y), np.arange(1, 6)
    pull = 2 * weights[:, None] * (0.02 * off_diagonal(c) + np.diag(np.diag(c) - 1))
    size = np.linalg.norm(deviations(x), axis=0)
    u, v = (deviations(z) / np.linalg.norm(deviations(z), axis=0) for z in (x, y))
    along = v @ pull.T
    want = (along - u * np.sum(u * along, axis=0)) / size
    got = slope(jaxloss.barlow_twins, x, y, redundancy=0.02)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=FLOAT64)
    np.testing.assert_allclose(np.sum(got, axis=0), 0, atol=FLOAT64)


# --- variances and covariances -------------------------------------------------------


def test_variance_hinge_is_that_of_the_standard_deviation():
    """With n - 1, as in NumPy and torch; a target for each component."""
    x, _ = draw()
    target = jnp.linspace(0.5, 5, 5)
    want = np.maximum(np.asarray(target) - np.std(x, axis=0, ddof=1), 0)
    losses = jaxloss.variance_hinge(x, target=target)
    np.testing.assert_allclose(losses, want, rtol=4 * FLOAT64)
    column = jnp.asarray(0.3 * SIGNS[:, :1])
    want = 1 - 0.3 * np.sqrt(4 / 3)
    np.testing.assert_allclose(jaxloss.variance_hinge(column), want, rtol=FLOAT64)


@pytest.mark.parametrize("rows", [2, 7, 100])
def test_variance_hinge_of_a_constant_component(rows):
    """The target, with gradient 0; the least change is pulled with its full force."""
    x = jnp.full((rows, 3), 0.1, np.float32)
    np.testing.assert_array_equal(jaxloss.variance_hinge(x, target=2.5), 2.5)
    np.testing.assert_array_equal(slope(jaxloss.variance_hinge, x), 0)
    moved = slope(jaxloss.variance_hinge, x.at[0].add(1e-7))
    force = jnp.linalg.norm(moved, axis=0) * np.sqrt(rows - 1)
    np.testing.assert_allclose(force, [1, 2, 3], rtol=FLOAT32)


def test_variance_hinge_rests_at_its_target():
    """The slope is 0 at the kink: two examples of deviation 2^(1/2)."""
    x = jnp.array([[1.0, 2.0], [-1.0, -2.0]])
    hinge = functools.partial(jaxloss.variance_hinge, target=np.sqrt(2))
    np.testing.assert_array_equal(hinge(x), 0)
    np.testing.assert_array_equal(slope(hinge, x), 0)
    np.testing.assert_array_equal(slope(hinge, 0.99 * x) != 0, [[True, False]] * 2)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_variance_hinge_of_any_size(scale):
    """Squares neither vanish nor overflow."""
    x = jnp.asarray(scale * SIGNS, np.float32)
    losses = jaxloss.variance_hinge(x, target=2 * scale)
    np.testing.assert_allclose(losses / scale, 2 - 2 / np.sqrt(3), rtol=FLOAT32)


def test_covariance_penalty_is_that_of_the_covariances():
    """As in NumPy; and its gradient, `4 / (n - 1)` times covariances and deviations."""
    x, _ = draw()
    c, weights = off_diagonal(np.cov(np.asarray(x).T)), np.arange(1, 6)
    losses = jaxloss.covariance_penalty(x)
    np.testing.assert_allclose(losses, np.sum(c**2, axis=1), rtol=4 * FLOAT64)
    pull = 2 * c * (weights[:, None] + weights) / 8
    want = deviations(x) @ pull
    got = slope(jaxloss.covariance_penalty, x)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=FLOAT64)
    pair = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
    np.testing.assert_array_equal(jaxloss.covariance_penalty(pair), [4, 4])


def test_one_component_has_no_redundancy():
    """Nothing is off the diagonal, though its square overflow."""
    x = jnp.asarray(1e25 * SIGNS[:, :1], np.float32)
    np.testing.assert_array_equal(jaxloss.covariance_penalty(x), 0)
    np.testing.assert_array_equal(slope(jaxloss.covariance_penalty, x), 0)
    np.testing.assert_array_equal(jaxloss.barlow_twins(x, -x), 4)


# --- all of them ---------------------------------------------------------------------


@every
def test_many_components_are_as_accurate(name):
    """512 examples of 96 components in float32, as in float64."""
    x, _ = draw(512, 96, np.float32)
    x = 0.3 * x / jnp.std(x) + 1
    wide = np.asarray(x, np.float64)
    for fn in (LOSSES[name], functools.partial(slope, LOSSES[name])):
        got, want = fn(x), fn(wide)
        np.testing.assert_allclose(
            got, want, rtol=0, atol=4 * FLOAT32 * np.abs(want).max()
        )


@every
@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_of_one_or_none(name, rows):
    """Nothing varies: `barlow_twins` has the loss 1, the others 0; all gradient 0."""
    x = jnp.ones((rows, 3), np.float32)
    masked, keep = jnp.ones((4, 3), np.float32), jnp.arange(4) < rows
    for losses in (LOSSES[name](x), LOSSES[name](masked, where=keep)):
        np.testing.assert_array_equal(losses, np.full(3, name == "barlow_twins"))
        assert losses.dtype == np.float32
    np.testing.assert_array_equal(slope(LOSSES[name], x), np.zeros((rows, 3)))


@every
def test_a_masked_example_is_not_there(name):
    """Gradient 0, though it be NaN or infinite, and the losses of a batch without it;
    also if it is the first one."""
    x, _ = draw()
    for first in (0, 1):
        where = jnp.arange(9) % 4 != first
        for hole in (jnp.nan, jnp.inf):
            dirty = jnp.where(where[:, None], x, hole)
            losses = LOSSES[name](dirty, where=where)
            alone = LOSSES[name](x[where])
            np.testing.assert_allclose(losses, alone, rtol=16 * FLOAT64)
            moved = slope(LOSSES[name], dirty, where=where)
            np.testing.assert_array_equal(moved[~where], 0)
            want = slope(LOSSES[name], x[where])
            np.testing.assert_allclose(
                moved[where], want, rtol=0, atol=4 * FLOAT64 * np.abs(want).max()
            )


@every
def test_leading_axes_are_separate_batches(name):
    """No batch sees the examples of another one."""
    batches = draw()
    losses = LOSSES[name](jnp.stack(batches)[:, None])
    for got, x in zip(losses, batches, strict=True):
        np.testing.assert_allclose(got[0], LOSSES[name](x), rtol=16 * FLOAT64)


@every
@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_nan_is_not_hidden(name, hole):
    """A NaN or an infinity in one component makes its loss NaN."""
    x, _ = draw()
    assert jnp.isnan(LOSSES[name](x.at[3, 1].set(hole))[1])


@every
def test_a_cut_batch_is_refused(name):
    """By micro-batches and over devices alike."""
    cut = lambda **how: _whole_batch.part_of_batch(
        **{"in_time": False, "axis_name": None, **how}
    )
    refused = functools.partial(pytest.raises, ValueError)
    words = rf"^{name}: `{ARGUMENTS[name]}` has the examples of one "
    with cut(in_time=True), refused(match=f"{words}micro-batch"):
        LOSSES[name](draw()[0])
    with cut(axis_name="i"), refused(match=f"{words}device.*: use jit of sharded"):
        LOSSES[name](draw()[0])


@every
@pytest.mark.parametrize("shape", [(64, 512), (512, 64)])
def test_memory_is_that_of_the_batch_and_of_one_matrix(name, shape):
    """Value and gradient take the room of at most 6 of each: neither batch by batch,
    nor a third axis."""
    rows, components = shape
    graded = jax.jit(jax.grad(lambda x: jnp.sum(LOSSES[name](x))))
    x = jax.ShapeDtypeStruct(shape, np.float32)
    memory = graded.lower(x).compile().memory_analysis()
    assert memory is not None
    room = 4 * components * (rows + components)
    assert memory.temp_size_in_bytes <= 6 * room


@pytest.mark.parametrize(
    ("name", "value", "graded"),
    [("barlow_twins", 1, 3), ("covariance_penalty", 1, 2), ("variance_hinge", 0, 0)],
)
def test_the_matrix_comes_from_one_product(name, value, graded):
    """A gradient in two views takes two more, in one view of a symmetric matrix one."""
    arguments = draw()[: 2 if name == "barlow_twins" else 1]
    total = lambda *args: jnp.sum(getattr(jaxloss, name)(*args))
    places = tuple(range(len(arguments)))
    for fn, count in ((total, value), (jax.grad(total, places), graded)):
        traced = str(jax.make_jaxpr(fn)(*arguments))
        assert traced.count("dot_general[") == count


@every
def test_half_precision_is_computed_in_single(name):
    """The values are those of the widened numbers; the gradient has the dtype."""
    x = draw(dtype=np.float32)[0].astype(jnp.bfloat16)
    losses = LOSSES[name](x)
    np.testing.assert_array_equal(losses, LOSSES[name](x.astype(np.float32)))
    assert losses.dtype == np.float32
    assert slope(LOSSES[name], x).dtype == jnp.bfloat16


def test_errors_name_the_loss_and_the_argument():
    """A wrong shape is refused with what was given."""
    refused = functools.partial(pytest.raises, ValueError)
    x = jnp.ones((4, 3))
    with refused(match=r"^variance_hinge: `where` has shape \(3,\); expected \(4,\)"):
        jaxloss.variance_hinge(x, where=jnp.ones(3, bool))
    with refused(match=r"^covariance_penalty: `embeddings` has shape \(3,\)"):
        jaxloss.covariance_penalty(x[0])
