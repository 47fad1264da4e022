"""One picture of each loss: its value and its derivative along a line of its arguments.

The claim of the loss states the line.  For a loss of two numbers it is the prediction;
for a loss of vectors it is, for example, the logit of the right class while the others
are 0, the angle between two embeddings, or the probability of the pixels of a mask.
The slope is the derivative along that line, by autodiff.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import catalogue, claims, plot
from jaxloss.testing import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 401
_HALF_TURN = (0.0, math.pi)


def picture(name: str) -> "Figure":
    """Draws value and slope of a loss, for typical values of its hyperparameters.

    Args:
      name: The name of a loss of `jaxloss.catalogue`.

    Returns:
      A figure of two axes side by side, without a title.

    Raises:
      ValueError: If no loss has that name; the message has the nearest one.
    """
    from matplotlib.figure import Figure

    entry = catalogue.entry(name)
    line, stated = _stated(entry)
    x = np.linspace(*line.ends, POINTS)
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    value, slope = figure.subplots(1, 2)
    chosen = stated or _typical(entry)
    curves, turned = _curves(entry, line, chosen), line.ends == _HALF_TURN
    for index, (label, case, settings) in enumerate(curves):
        drawn = _along(entry.function, line, case, settings, x)
        for axes, y in zip((value, slope), drawn, strict=True):
            axes.plot(x, y, label=label, linewidth=1.6, **plot.style(index))
    _finish(value, line, _MEASURED.get(name, "loss"))
    _finish(slope, line, "slope per radian" if turned else "slope")
    if curves[0][0]:
        figure.legend(*value.get_legend_handles_labels(), **_LEGEND)
    return figure


_LEGEND: dict[str, Any] = {
    "loc": "outside upper center",
    "ncols": 5,
    "frameon": False,
    "fontsize": 8,
}
_MEASURED = {"cosine_similarity": "similarity", "entropy": "entropy"}


def _finish(axes: "Axes", line: Line, measured: str) -> None:
    axes.set_xlabel(line.label, fontsize=9)
    axes.set_ylabel(measured, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_xlim(*line.ends)
    axes.margins(y=0.08)
    axes.locator_params(axis="x", nbins=6)  # with more, long numbers touch
    if line.ends == _HALF_TURN:
        axes.set_xticks([k * math.pi / 4 for k in range(5)])
        axes.set_xticklabels([f"{45 * k}°" for k in range(5)])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


# --- curves ------------------------------------------------------------------------


def _along(
    fn: Callable[..., jax.Array],
    line: Line,
    case: Any,
    settings: Mapping[str, Any],
    x: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope at the points; all values of a number run one program."""
    numbers = {k: v for k, v in settings.items() if isinstance(v, float)}
    fixed = tuple((k, v) for k, v in settings.items() if k not in numbers)
    run = _program(fn, line.at, (*line.keywords, *fixed))
    value, slope = run(jnp.asarray(x), case, numbers)
    return np.asarray(value, float), np.asarray(slope, float)


@functools.cache
def _program(fn: Callable[..., jax.Array], at: Callable, fixed: tuple) -> Callable:
    def loss(x: jax.Array, case: Any, numbers: Mapping[str, Any]) -> jax.Array:
        # Of the losses of a batch, that of the first example is drawn.
        return jnp.ravel(fn(*at(x, case), **numbers, **dict(fixed)))[0]

    return jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None)))


def _stated(
    entry: catalogue.Entry,
) -> tuple[Line, tuple[Mapping[str, Any], ...]]:
    """The line that the claim of a loss states, and the settings, if it states them."""
    for claim in claims.CLAIMS:
        if claim.fn is entry.function and claim.line:
            return claim.line, claim.drawn
    raise ValueError(f"the claim of `{entry.name}` states no line to draw it along")


def _curves(
    entry: catalogue.Entry, line: Line, settings: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Any, dict[str, Any]]]:
    """Legend, case and settings of each curve."""
    every = [_named(entry, chosen) for chosen in settings]
    return [
        (", ".join(word for word in (*words, name) if word), case, given)
        for words, given in every
        for name, case in line.cases
    ]


def _typical(entry: catalogue.Entry) -> tuple[dict[str, Any], ...]:
    """Typical values of the first hyperparameter."""
    for name in entry.hyperparameters:
        if name in _TYPICAL:
            return tuple({name: x} for x in _TYPICAL[name])
    return ({},)


def _named(
    entry: catalogue.Entry, chosen: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """The words of the legend for a choice, and all settings that need a value."""
    empty = inspect.Parameter.empty
    needed = [k for k, v in entry.hyperparameters.items() if v is empty]
    words = [f"{name} = {_say(x)}" for name, x in chosen.items()]
    return words, {**{k: _NEUTRAL[k] for k in needed if k not in chosen}, **chosen}


def _say(x: Any) -> str:
    if callable(x):
        return x.__name__
    return (
        f"{x:g}".replace("-", "−").replace("inf", "∞") if type(x) is float else f"{x}"
    )


_TYPICAL: dict[str, tuple[Any, ...]] = {
    "alpha": (2.0, 1.0, 0.0, -2.0, -math.inf),
    "beta": (0.1, 0.3, 1.0),
    "delta": (0.5, 1.0, 2.0),
    "epsilon": (0.1, 0.5, 1.0),
    "expectile": (0.1, 0.5, 0.9),
    "gamma": (0.0, 0.5, 2.0, 5.0),
    "l1_ratio": (0.0, 0.5, 1.0),
    "label_smoothing": (0.0, 0.1),
    "margin": (0.5, 1.0, 2.0),
    "pos_weight": (1.0, 3.0, 10.0),
    "quantile": (0.1, 0.5, 0.9),
    "smooth": (0.0, 1.0, 4.0),
    "temperature": (0.1, 0.2, 0.5),
}
# What is needed and not told apart.
_NEUTRAL = {"baseline": 0.0}
