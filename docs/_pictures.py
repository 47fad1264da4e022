"""The pictures of the site, each in two variants: for light pages and for dark ones.

A picture of a loss is drawn once, as SVG without a background; the dark variant is the
same drawing with other colours.  `.. image::` of both with the classes `only-light` and
`only-dark`, which the theme knows, shows the right one.
"""

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

import jaxloss
from jaxloss import plot
from jaxloss.app import gallery

INK = {"light": "#24292f", "dark": "#ced4da"}
# The palette of `plot`, brighter: on black, its blue has little contrast.
BRIGHTER = ("#4ea8f0", "#ff8a3d", "#2ecc9a", "#e79fcb", "#f3b73b", "#b5e2ff")


def style(ink: str) -> dict[Any, Any]:
    """Settings of Matplotlib: this colour for all but the curves, and no background."""
    lines = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
    areas = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys((*lines, "ytick.color", "grid.color"), ink),
        **dict.fromkeys(areas, "none"),
        "svg.hashsalt": "jaxloss",  # the same file from the same drawing
    }


def draw_loss(name: str, pictures: Path) -> str:
    """Writes the picture of a loss and its thumbnail; returns what it shows."""
    with plt.rc_context(style(INK["light"])):
        figure = gallery.picture(name)
        save(figure, pictures / name)
        words = description(figure, name)
        shrink(figure)
        save(figure, pictures / f"{name}.small")
    return words


def save(figure: Figure, path: Path) -> None:
    """Writes `path` with the endings `.light.svg` and `.dark.svg`."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    light = drawn.getvalue()
    for variant, text in (("light", light), ("dark", darkened(light))):
        target = path.with_name(f"{path.name}.{variant}.svg")
        target.write_text(text, encoding="utf-8")


def darkened(svg: str) -> str:
    """A drawing in the colours for dark pages."""
    colours = {INK["light"]: INK["dark"], "#666666": "#a0a6ad"}
    colours |= dict(zip((c.lower() for c in plot.PALETTE), BRIGHTER, strict=True))
    known = re.compile("|".join(colours), re.IGNORECASE)
    return known.sub(lambda found: colours[found[0].lower()], svg)


def description(figure: Figure, name: str) -> str:
    """What a picture of a loss shows, for a reader who does not see it."""
    value = figure.axes[0]
    words = f"{name}: {value.get_ylabel()} and slope, against {value.get_xlabel()}"
    labels = [str(line.get_label()) for line in value.get_lines()]
    if len(labels) > 1:
        words += f"; curves for {', '.join(labels)}"
    return f"{words}."


def shrink(figure: Figure) -> None:
    """Leaves the value alone, without words, in the size of a thumbnail."""
    value, slope = figure.axes
    slope.remove()
    value.set_subplotspec(figure.add_gridspec(1, 1)[0])
    for legend in [*figure.legends]:
        legend.remove()
    value.set(xlabel="", ylabel="")
    value.locator_params(axis="y", nbins=4)
    figure.set_size_inches(2.4, 1.6)


# --- the landscape on the home page ------------------------------------------------

GRID = {"light": "#d0d7de", "dark": "#363b42"}
SHADES = {
    "light": ("#0b3c5d", "#3aa6a0", "#f2b134"),
    "dark": ("#2a7ab0", "#3aa6a0", "#ffd166"),
}
SLOPES, INTERCEPTS, POINTS = (-4.0, 3.0), (-3.0, 2.0), 61
LOSSES = {
    "squared_error": jaxloss.squared_error,
    "general_robust, alpha=-2": functools.partial(
        jaxloss.general_robust, alpha=-2.0, scale=0.3
    ),
}


def draw_landscape(pictures: Path) -> None:
    """Squared error and a robust loss of a line, over its slope and its intercept."""
    surfaces = {name: surface(loss) for name, loss in LOSSES.items()}
    for variant, ink in INK.items():
        settings = {**style(ink), "grid.color": GRID[variant], "grid.linewidth": 0.6}
        settings |= {f"axes3d.{axis}axis.panecolor": "none" for axis in "xyz"}
        with plt.rc_context(settings):
            figure = Figure(figsize=(9, 4.4))
            for place, (name, losses) in enumerate(surfaces.items()):
                axes = figure.add_subplot(1, 2, place + 1, projection="3d")
                assert isinstance(axes, Axes3D)
                draw_surface(axes, losses, variant)
                axes.set_title(name, fontsize=11, family="monospace", y=1.0)
            marks = axes.get_legend_handles_labels()
            figure.legend(*marks, loc="lower center", ncols=2, frameon=False)
            figure.subplots_adjust(0.0, 0.08, 0.96, 0.95, wspace=0.02)
            figure.savefig(pictures / f"landscape.{variant}.png", dpi=160)


def observations() -> tuple[jax.Array, jax.Array]:
    """Forty points about the line of slope 1 and intercept 0; the last ten are off."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 40)
    y = x + 0.1 * rng.normal(size=40)
    return jnp.asarray(x), jnp.asarray(np.where(np.arange(40) < 30, y, y - 4))


def surface(loss: Callable[..., jax.Array]) -> np.ndarray:
    """The mean loss of each line; its intercept changes along the first axis."""
    x, y = observations()
    mean = lambda slope, intercept: jaxloss.mean(loss(slope * x + intercept, y))
    along_slopes = jax.vmap(mean, in_axes=(0, None))
    every = jax.jit(jax.vmap(along_slopes, in_axes=(None, 0)))
    return np.asarray(every(*map(jnp.asarray, lines())))


def lines() -> tuple[np.ndarray, np.ndarray]:
    """The slopes and the intercepts."""
    return np.linspace(*SLOPES, POINTS), np.linspace(*INTERCEPTS, POINTS)


def draw_surface(axes: Axes3D, losses: np.ndarray, variant: str) -> None:
    """The surface, its lowest point, and the point of the line without the outliers."""
    slopes, intercepts = lines()
    colours = LinearSegmentedColormap.from_list("loss", SHADES[variant])
    shown = {"cmap": colours, "rstride": 1, "cstride": 1, "alpha": 0.92}
    axes.plot_surface(*np.meshgrid(slopes, intercepts), losses, **shown)
    lowest = np.unravel_index(np.argmin(losses), losses.shape)
    of_inliers = np.argmin(abs(intercepts)), np.argmin(abs(slopes - 1))
    for (i, j), size, name in (
        (of_inliers, 11, "the line without the outliers"),
        (lowest, 6, "the lowest loss"),
    ):
        point = [slopes[j]], [intercepts[i]], [losses[i, j]]
        colour = BRIGHTER[2] if size > 6 else BRIGHTER[1]
        axes.plot(*point, "o", color=colour, label=name, markersize=size, zorder=10)
    axes.view_init(elev=30, azim=-62)
    axes.set_xlabel("slope", fontsize=9)
    axes.set_ylabel("intercept", fontsize=9)
    axes.tick_params(labelsize=7, pad=0)
