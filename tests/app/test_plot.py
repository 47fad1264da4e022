"""Pictures of losses, landscapes and calibration: what is drawn is what is true."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm

import jaxloss
from jaxloss import landscape, plot


def drawn(ax):
    """The axes as an image can be made of them, and the size of it."""
    image = io.BytesIO()
    ax.figure.savefig(image, format="png")
    return len(image.getvalue())


def test_a_loss_and_its_slope():
    """The curve is the loss at each prediction, the other one its derivative."""
    x = np.linspace(-3, 3, 7)
    ax = plot.plot_loss(jaxloss.huber, x, 0.5, label="huber")
    assert plot.plot_loss(jaxloss.huber, x, 0.5, slope=True, index=1, ax=ax) is ax
    loss, slope = ax.lines
    values, slopes = (np.asarray(line.get_ydata()) for line in (loss, slope))
    r = x - 0.5
    huber = np.where(np.abs(r) <= 1, r**2 / 2, np.abs(r) - 0.5)
    np.testing.assert_array_equal(loss.get_xdata(), x)
    np.testing.assert_allclose(values, huber, rtol=1e-15)
    np.testing.assert_allclose(slopes, np.clip(r, -1, 1), rtol=1e-15)
    assert loss.get_color() != slope.get_color()
    assert loss.get_linestyle() != slope.get_linestyle()
    assert ax.get_legend_handles_labels()[1] == ["huber"]
    assert drawn(ax)


def test_targets_may_differ_from_prediction_to_prediction():
    """One for each; half precision is drawn as what it is."""
    x = jnp.arange(4, dtype=jnp.bfloat16)
    ax = plot.plot_loss(jaxloss.squared_error, x, x[::-1])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [9, 1, 1, 9])


@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_a_landscape_has_its_first_direction_to_the_right(shift):
    """Rows are the second direction, upwards; shades are logarithmic if they can be;
    what is not finite is left white."""
    curve = jnp.array([1.0, -2.0])
    loss = lambda w: curve @ jnp.square(w) + w[0] + shift
    seen = landscape.plane(
        loss,
        jnp.ones(2),
        jax.random.key(0),
        normalization=None,
        steps=np.arange(-1.0, 2),
    )
    seen = seen._replace(losses=seen.losses.at[0, 2].set(jnp.inf))
    ax = plot.plot_landscape(seen)
    mesh, *_ = ax.collections
    assert isinstance(mesh, QuadMesh)
    shades = np.ma.reshape(mesh.get_array(), (3, 3))
    np.testing.assert_array_equal(shades.mask, np.isinf(seen.losses))
    np.testing.assert_array_equal(shades.filled(np.inf), seen.losses)
    # The right neighbour of the middle is one step along the first direction.
    right, above = (loss(jnp.ones(2) + d) for d in seen.directions)
    np.testing.assert_allclose([shades[1, 2], shades[2, 1]], [right, above])
    corners = np.asarray(mesh.get_coordinates())[1, 2]
    np.testing.assert_array_equal(corners, [0.5, -0.5])
    assert isinstance(mesh.norm, LogNorm) == (shades.min() > 0) == (shift > 0)
    assert drawn(ax)


def test_a_flat_landscape_is_drawn_without_contours():
    """All losses equal, also 0: no warning, one shade."""
    for level in (0.0, 2.5):
        seen = landscape.Plane(jnp.arange(3.0), jnp.full((3, 3), level), ((), ()))
        ax = plot.plot_landscape(seen)
        assert len(ax.collections) == 1
        assert drawn(ax)


def test_distances_from_the_diagonal_are_the_calibration_error():
    """Weighted by how full the bins are: of an event, and of the largest of classes."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.5), size=200)
    p[0] = [1, 0, 0]  # certainty is in the last bin
    ids = rng.integers(0, 3, size=200)
    event = rng.uniform(size=200) < p[:, 0]
    for q, labels in ((p, ids), (p[:, 0], event)):
        ax = plot.plot_reliability(q, labels, bins=10)
        points, _, (bars,) = ax.containers[0]
        confidence, frequency = map(np.asarray, points.get_data())
        top = q if q.ndim == 1 else q.max(axis=1)
        counts = np.histogram(-top, -np.arange(10, -1, -1) / 10)[0][::-1]
        counts = counts[counts > 0]
        error = np.sum(counts * np.abs(confidence - frequency)) / 200
        want = jaxloss.expected_calibration_error(q, labels, bins=10)
        np.testing.assert_allclose(error, want, rtol=1e-12)
        heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
        deviation = np.sqrt(frequency * (1 - frequency) / counts)
        np.testing.assert_allclose(heights, deviation, atol=1e-12)
        assert drawn(ax)


def test_the_diagonal_is_drawn_once():
    """However many models are compared on the same axes."""
    p, happened = np.array([0.2, 0.9]), np.array([0, 1])
    ax = plot.plot_reliability(p, happened, label="first")
    assert plot.plot_reliability(p**2, happened, index=1, ax=ax) is ax
    diagonals = [line for line in ax.lines if line.get_gid() == "reference"]
    assert len(diagonals) == 1
    np.testing.assert_array_equal(diagonals[0].get_ydata(), [0, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: plot.plot_loss(jaxloss.huber, np.ones(3), np.ones(2)),
            ValueError,
            r"plot_loss: `targets` has shape \(2,\); expected one number, or shape",
        ),
        (
            lambda: plot.plot_loss(jaxloss.cosine_distance, np.ones(3), 1.0),
            ValueError,
            r"plot_loss: `loss` has a result of shape \(\); expected one number for",
        ),
        (
            lambda: plot.plot_landscape(
                landscape.Plane(jnp.ones(3), jnp.ones(3), ((), ()))
            ),
            ValueError,
            r"plot_landscape: `plane` has losses of shape \(3,\); expected losses of",
        ),
        (
            lambda: plot.plot_landscape(
                landscape.Plane(jnp.ones(1), jnp.full((1, 1), jnp.nan), ((), ()))
            ),
            ValueError,
            "plot_landscape: `plane` has no finite loss; expected at least one",
        ),
        (
            lambda: plot.plot_reliability(np.ones((3, 2)), np.ones(2)),
            ValueError,
            r"plot_reliability: `probabilities` has shape \(3, 2\); expected",
        ),
        (
            lambda: plot.plot_reliability(np.ones(3), np.ones(3), bins=0),
            ValueError,
            "plot_reliability: `bins` is 0",
        ),
    ],
)
def test_plots_check_their_shapes(call, error, message):
    """In the words of the house."""
    with pytest.raises(error, match=f"^{message}"):
        call()
