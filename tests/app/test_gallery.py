"""A picture of every loss: each is traced, and a few are drawn."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxloss
from jaxloss import catalogue, plot
from jaxloss.app import gallery

NAMES = [entry.name for entry in catalogue.entries()]


def points(line):
    """The points of a curve."""
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


@pytest.fixture
def traced(monkeypatch):
    """Draws zeros: what is drawn is traced, and nothing is compiled."""
    program = gallery._program

    def trace(*args):
        run = program(*args)
        return lambda *points: [
            np.zeros(found.shape) for found in jax.eval_shape(run, *points)
        ]

    monkeypatch.setattr(gallery, "_program", trace)


def has_the_size_of_all(figure):
    """7 by 2.8 inches."""
    assert isinstance(figure, Figure)
    assert tuple(figure.get_size_inches()) == (7, 2.8)


def has_two_axes_that_say_what_they_are(figure):
    """Of the value and of the slope, without a title."""
    value, slope = figure.axes
    assert value.get_xlabel()
    assert slope.get_xlabel()
    assert slope.get_ylabel().startswith("slope")
    assert not value.get_title() + slope.get_title()


def has_one_number_per_point(figure):
    """In as many curves on either side, and a colour for each."""
    value, slope = figure.axes
    lines = [*value.lines, *slope.lines]
    assert {points(line)[1].shape for line in lines} == {(gallery.POINTS,)}
    assert 1 <= len(value.lines) == len(slope.lines) <= len(plot.PALETTE)


def names_its_curves_if_there_are_several(figure):
    """Each by another name, in the legend."""
    lines = figure.axes[0].lines
    labels = {line.get_label() for line in lines}
    assert len(labels) == len(lines)
    texts = [text.get_text() for legend in figure.legends for text in legend.texts]
    assert len(lines) == 1 or {*texts} == labels


OF_A_PICTURE = (
    has_the_size_of_all,
    has_two_axes_that_say_what_they_are,
    has_one_number_per_point,
    names_its_curves_if_there_are_several,
)


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_has_a_picture(subtests, traced, name):
    """That can be read; every complaint is listed."""
    figure = gallery.picture(name)
    for check in OF_A_PICTURE:
        with subtests.test(check.__name__.replace("_", " ")):
            check(figure)


def test_numbers_below_an_axis_are_apart():
    """By the width of a digit, or nobody can read them; these are the longest."""
    figure = gallery.picture("grpo")
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        boxes = [text.get_window_extent() for x, text in ticks if low <= x <= high]
        assert len(boxes) > 3
        assert all(a.x1 + 6 < b.x0 for a, b in itertools.pairwise(boxes))


def test_huber_is_drawn_as_it_is():
    """The curves are value and slope, of each delta of the legend."""
    value, slope = gallery.picture("huber").axes
    for index, line in enumerate(value.lines):
        x, y = points(line)
        delta = float(str(line.get_label()).removeprefix("delta = "))
        np.testing.assert_allclose(y, jaxloss.huber(x, 0 * x, delta=delta), rtol=1e-6)
        clipped = np.clip(x, -delta, delta)
        np.testing.assert_allclose(points(slope.lines[index])[1], clipped)
        assert line.get_color() == plot.PALETTE[index]


def test_a_line_through_vectors_is_the_derivative_along_it():
    """Of the logit of the right class: the probability less 1."""
    value, slope = gallery.picture("sparsemax").axes
    x, y = points(slope.lines[0])
    logits = jnp.stack([x, 0 * x, 0 * x], axis=-1)
    zeros = jnp.zeros(x.shape, int)
    want = jaxloss.sparsemax(logits, zeros)
    np.testing.assert_allclose(points(value.lines[0])[1], want, atol=1e-6)
    assert y[0] == pytest.approx(-1)
    assert y[-1] == 0
    assert value.get_xlabel() == "logit of the right class, two others 0"


def test_pictures_are_written_without_a_display():
    """By any backend, and no figure is left open."""
    for form, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        file = io.BytesIO()
        gallery.picture("absolute_error").savefig(file, format=form)
        assert file.getvalue().startswith(start)
    from matplotlib import pyplot

    assert not pyplot.get_fignums()


def test_an_unknown_loss_has_no_picture():
    """The nearest name is offered, as by the catalogue."""
    with pytest.raises(ValueError, match=r"no loss 'hubr' \(did you mean 'huber'"):
        gallery.picture("hubr")


def test_a_loss_without_a_line_is_named(monkeypatch):
    """Whoever adds a loss is told where to say how it is drawn."""
    monkeypatch.setattr(gallery.claims, "CLAIMS", [])
    with pytest.raises(ValueError, match="the claim of `l1` states no line"):
        gallery.picture("l1")
