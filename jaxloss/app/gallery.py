"""One picture of each loss: its value, and its slope, along a line of its arguments.

The line is the argument itself where a loss compares two numbers.  A loss of vectors is
drawn along a section that is stated below: the logit of the right class while the
others stay 0, the angle between two embeddings, the probability of the pixels of a
mask.  The slope is the derivative along that line, by autodiff.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import catalogue, plot, stable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 401


class Section(NamedTuple):
    """A line through the arguments of a loss."""

    label: str
    """Of the horizontal axis."""
    ends: tuple[float, float]
    at: Callable[[jax.Array, Any], tuple]
    """The arguments at a point, in a case."""
    cases: tuple[tuple[str, Any], ...] = (("", None),)
    """What else is told apart, such as the label: its name in the legend, and it."""
    keywords: tuple[tuple[str, Any], ...] = ()
    """Arguments that are neither data nor hyperparameters."""


def picture(name: str) -> "Figure":
    """Draws value and slope of a loss, for typical values of its hyperparameters.

    Args:
      name: Of a loss of `jaxloss.catalogue`.

    Returns:
      A figure of two axes side by side, without a title.

    Raises:
      ValueError: If no loss has that name; the message has the nearest one.
    """
    from matplotlib.figure import Figure

    entry = catalogue.entry(name)
    section = _section(entry)
    x = np.linspace(*section.ends, POINTS)
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    value, slope = figure.subplots(1, 2)
    curves, turned = _curves(entry, section), section.ends == _HALF_TURN
    for index, (label, case, settings) in enumerate(curves):
        drawn = _along(entry.function, section, case, settings, x)
        for axes, y in zip((value, slope), drawn, strict=True):
            axes.plot(x, y, label=label, linewidth=1.6, **plot.style(index))
    _finish(value, section, _MEASURED.get(name, "loss"))
    _finish(slope, section, "slope per radian" if turned else "slope")
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


def _finish(axes: "Axes", section: Section, measured: str) -> None:
    axes.set_xlabel(section.label, fontsize=9)
    axes.set_ylabel(measured, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_xlim(*section.ends)
    axes.margins(y=0.08)
    axes.locator_params(axis="x", nbins=6)  # with more, long numbers touch
    if section.ends == _HALF_TURN:
        axes.set_xticks([k * math.pi / 4 for k in range(5)])
        axes.set_xticklabels([f"{45 * k}°" for k in range(5)])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


# --- curves ------------------------------------------------------------------------


def _along(
    fn: Callable[..., jax.Array],
    section: Section,
    case: Any,
    settings: Mapping[str, Any],
    x: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope at the points; all values of a number run one program."""
    numbers = {k: v for k, v in settings.items() if isinstance(v, float)}
    fixed = tuple((k, v) for k, v in settings.items() if k not in numbers)
    run = _program(fn, section.at, (*section.keywords, *fixed))
    value, slope = run(jnp.asarray(x), case, numbers)
    return np.asarray(value, float), np.asarray(slope, float)


@functools.cache
def _program(fn: Callable[..., jax.Array], at: Callable, fixed: tuple) -> Callable:
    def loss(x: jax.Array, case: Any, numbers: Mapping[str, Any]) -> jax.Array:
        # Of the losses of a batch, that of the first example is drawn.
        return jnp.ravel(fn(*at(x, case), **numbers, **dict(fixed)))[0]

    return jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None)))


def _curves(
    entry: catalogue.Entry, section: Section
) -> list[tuple[str, Any, dict[str, Any]]]:
    """Legend, case and settings of each curve."""
    every = [_named(entry, chosen) for chosen in _settings(entry)]
    return [
        (", ".join(word for word in (*words, name) if word), case, settings)
        for words, settings in every
        for name, case in section.cases
    ]


def _settings(entry: catalogue.Entry) -> tuple[dict[str, Any], ...]:
    """Typical settings: those stated, or values of the first hyperparameter."""
    if entry.name in _SETTINGS:
        return _SETTINGS[entry.name]
    for name in entry.hyperparameters:
        if name in _TYPICAL:
            return tuple({name: x} for x in _TYPICAL[name])
    return ({},)


def _named(
    entry: catalogue.Entry, chosen: dict[str, Any]
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
_SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "batch_hard_triplet": ({"squared": False}, {"squared": True}),
    "contrastive": ({},),
    "cosine_embedding": ({},),
    "fenchel_young": ({"max_fun": jax.nn.logsumexp}, {"max_fun": jnp.max}),
    "grpo": ({},),
    "kto": ({"beta": 0.1}, {"beta": 0.3}),
    "margin_ranking": ({"margin": 0.0}, {"margin": 0.5}, {"margin": 1.0}),
    "poly1": ({"epsilon": -1.0}, {"epsilon": 0.0}, {"epsilon": 2.0}),
    "siglip": tuple({"temperature": 0.1, "bias": b} for b in (-10.0, -5.0, 0.0)),
    "simpo": tuple(
        {"beta": b, "gamma": g} for b, g in ((2.0, 0.5), (2.0, 1.5), (5.0, 1.5))
    ),
    "smooth_l1": ({"beta": 0.0}, {"beta": 0.5}, {"beta": 2.0}),
    "triplet_margin": ({"squared": False}, {"squared": True}),
    "tversky": tuple({"alpha": a, "beta": 1 - a} for a in (0.25, 0.5, 0.75)),
}
# What is needed and not told apart.
_NEUTRAL = {"baseline": 0.0}


# --- sections ----------------------------------------------------------------------


def _section(entry: catalogue.Entry) -> Section:
    """The one stated for the loss, or that of its first argument and its task."""
    first, *_ = entry.arguments
    binary = "binary" in entry.tasks
    for key in (entry.name, (first, "binary") if binary else first):
        if key in _SECTIONS:
            return _SECTIONS[key]
    raise ValueError(f"gallery has no section for `{entry.name}`; state one in it")


def _vector(*entries: Any) -> jax.Array:
    """Numbers, of which one depends on the point, as a vector."""
    return jnp.stack([jnp.asarray(x, float) for x in entries])


def _turned(x: jax.Array) -> jax.Array:
    """The unit vector at an angle to the first axis."""
    return jnp.stack([jnp.cos(x), jnp.sin(x)])


def _mask(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probabilities of 16 pixels and their mask, which has 4."""
    inside = jnp.arange(16) < 4
    return jnp.where(inside, x, 0.1), inside


def _two_masks(x: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
    p, t = _mask(x)
    return jnp.stack([p, 1 - p]), jnp.stack([t, ~t])


def _group(x: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
    """An anchor, its positive, and two rows of another group across from it."""
    return jnp.stack([_turned(x), _X, _Y, _Y]), jnp.array([0, 0, 1, 1])


def _two_pairs(x: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
    return jnp.stack([_turned(x), _Y]), jnp.stack([_X, _Y])


_X, _Y = np.array([1.0, 0.0]), np.array([0.0, 1.0])
_HALF_TURN = (0.0, math.pi)
_THREE = lambda x: _vector(x, 0, 0)
_IN_ORDER = tuple((f"label {k}", k) for k in range(4))
_LOG_VARIANCES = tuple((f"log-variance {_say(s)}", s) for s in (-1.0, 0.0, 1.0))

_SECTIONS: dict[Any, Section] = {
    # By the first argument.
    "predictions": Section("prediction − target", (-4, 4), lambda x, _: (x, 0 * x)),
    ("logits", "binary"): Section(
        "logit, label 1", (-6, 6), lambda x, _: (x, 0 * x + 1)
    ),
    ("scores", "binary"): Section(
        "label × score", (-3, 3), lambda x, _: (x, 0 * x + 1)
    ),
    "logits": Section(
        "logit of the right class, two others 0", (-6, 6), lambda x, _: (_THREE(x), 0)
    ),
    "scores": Section(
        "score of the right class, two others 0", (-4, 4), lambda x, _: (_THREE(x), 0)
    ),
    "log_predictions": Section(
        "log-odds of one of two classes",
        (-6, 6),
        lambda x, t: (stable.log_softmax(_vector(x, 0)), _vector(t, 1 - t)),
        tuple((f"target {t}", t) for t in (0.5, 0.7, 0.95)),
    ),
    "probabilities": Section(
        "probability in the mask, 0.1 outside",
        (0, 1),
        lambda x, _: _mask(x),
        keywords=(("axis", -1),),
    ),
    "params": Section("parameter", (-2, 2), lambda x, _: (x,)),
    "chosen_log_probs": Section(
        "gain, chosen − rejected",
        (-12, 12),
        lambda x, _: (x, 0 * x, 0 * x, 0 * x),
    ),
    "first": Section("angle between the two of a pair", _HALF_TURN, _two_pairs),
    "anchors": Section("angle between anchor and positive", _HALF_TURN, _two_pairs),
    "embeddings": Section("angle between anchor and positive", _HALF_TURN, _group),
    # By the name of the loss.
    "squared_log_error": Section(
        "prediction, target 1", (0, 6), lambda x, _: (x, 0 * x + 1)
    ),
    "absolute_percentage_error": Section(
        "prediction",
        (-1, 4),
        lambda x, t: (x, t),
        (("target 1", 1.0), ("target 2", 2.0)),
    ),
    "nll": Section(
        "log-probability of the right class", (-6, 0), lambda x, _: (_vector(x, 0), 0)
    ),
    "brier": Section(
        "probability of the right class, the rest shared",
        (0, 1),
        lambda x, _: (_vector(x, (1 - x) / 2, (1 - x) / 2), 0),
    ),
    "z_loss": Section(
        "logit of a class, two others 0", (-6, 6), lambda x, _: (_THREE(x),)
    ),
    "entropy": Section(
        "logit of a class, two others 0", (-6, 6), lambda x, _: (_THREE(x),)
    ),
    "fenchel_young": Section(
        "score of the target, two others 0",
        (-4, 4),
        lambda x, _: (_THREE(x), _vector(1, 0, 0)),
    ),
    "listwise_softmax": Section(
        "score of the relevant item, two others 0",
        (-6, 6),
        lambda x, _: (_THREE(x), _vector(1, 0, 0)),
    ),
    "margin_ranking": Section("higher − lower", (-3, 3), lambda x, _: (x, 0 * x)),
    "coral": Section(
        "score, thresholds at −2, 0, 2",
        (-6, 6),
        lambda x, k: (x + _vector(2, 0, -2), k),
        _IN_ORDER,
    ),
    "squared_emd": Section(
        "logit of class 2, those of 0 and 1 are 0",
        (-6, 6),
        lambda x, k: (_vector(0, 0, x), k),
        _IN_ORDER[:3],
    ),
    "kl_divergence_with_log_targets": Section(
        "log-odds of one of two classes",
        (-6, 6),
        lambda x, t: (stable.log_softmax(_vector(x, 0)), jnp.log(_vector(t, 1 - t))),
        tuple((f"target {t}", t) for t in (0.5, 0.7, 0.95)),
    ),
    "generalized_kl_divergence": Section(
        "log-intensity",
        (-3, 2.5),
        lambda x, t: (_vector(x), _vector(t)),
        tuple((f"target {t}", float(t)) for t in (0, 1, 5)),
    ),
    "gaussian_kl": Section(
        "mean", (-3, 3), lambda x, s: (_vector(x), _vector(s)), _LOG_VARIANCES
    ),
    "gaussian_nll": Section(
        "mean − target", (-4, 4), lambda x, s: (x, 0 * x, 0 * x + s), _LOG_VARIANCES
    ),
    "poisson_nll": Section(
        "log-rate",
        (-3, 2.5),
        lambda x, t: (x, 0 * x + t),
        tuple((f"count {t}", float(t)) for t in (0, 1, 5)),
    ),
    "contrastive": Section(
        "distance",
        (0, 2),
        lambda x, y: (x, 0 * x + y),
        (("similar", 1.0), ("not similar", 0.0)),
    ),
    "triplet": Section(
        "positive distance − negative distance",
        (-3, 3),
        lambda x, _: (3 + x, 0 * x + 3),
    ),
    "triplet_margin": Section(
        "anchor: positive at 0, negative at 1",
        (-1, 2),
        lambda x, _: (_vector(x), _vector(0), _vector(1)),
    ),
    "batch_hard_triplet": Section(
        "anchor: positive at 0, negative at 1",
        (-1, 2),
        lambda x, _: (_vector(x, 0, 1)[:, None], jnp.array([0, 0, 1])),
    ),
    "cosine_similarity": Section(
        "angle between the two", _HALF_TURN, lambda x, _: (_turned(x), _X)
    ),
    "cosine_distance": Section(
        "angle between the two", _HALF_TURN, lambda x, _: (_turned(x), _X)
    ),
    "cosine_embedding": Section(
        "angle between the two",
        _HALF_TURN,
        lambda x, y: (_turned(x), _X, y),
        (("label +1", 1.0), ("label −1", -1.0)),
    ),
    "generalized_dice": Section(
        "probability in the mask, 0.1 outside",
        (0, 1),
        _two_masks,
        keywords=(("axis", -1), ("class_axis", 0)),
    ),
    "ctc": Section(
        "logit of the label in all 4 frames",
        (-6, 6),
        lambda x, _: (_vector(*[0, x, 0] * 4).reshape(4, 3), np.array([1])),
    ),
    "simpo": Section(
        "mean log-probability, chosen − rejected",
        (-2, 2),
        lambda x, _: (x - 2, 0 * x - 2),
    ),
    "kto": Section(
        "gain over the reference",
        (-30, 30),
        lambda x, good: (x, 0 * x, good),
        (("good", True), ("bad", False)),
    ),
    "orpo": Section(
        "mean log-probability, rejected at −1", (-3, -0.02), lambda x, _: (x, 0 * x - 1)
    ),
    "grpo": Section(
        "log-ratio to the old model",
        (-1, 1),
        lambda x, r: (_vector(x, 0)[:, None], np.zeros((2, 1)), _vector(r, 1 - r)),
        (("better answer", 1.0), ("worse answer", 0.0)),
    ),
}
