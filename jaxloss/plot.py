"""Plots: arrays in, `Axes` out; nothing is shown, and no global state is changed.

The colours are those of Okabe and Ito, which people with any common form of colour
blindness can distinguish.  Each also has its own line style and marker, for print.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxloss import _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jaxloss import landscape

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_MARKERS = "osD^vP"
_REFERENCE = {"color": "#666666", "linestyle": (0, (1, 2)), "linewidth": 1.2}


def style(index: int) -> dict[str, Any]:
    """Colour and line style of the `index`-th thing that is compared."""
    i = index % len(PALETTE)
    return {"color": PALETTE[i], "linestyle": _LINES[i]}


def plot_loss(
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    slope: bool = False,
    label: str | None = None,
    index: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws a loss, or its derivative, against the prediction.

    Args:
      loss: A loss that gives one number per element, such as `jaxloss.huber`; bind its
        hyperparameters with `functools.partial`.
      predictions: Where to evaluate it, shape `(n,)`, increasing.
      targets: The targets: one number, or one for each prediction.
      slope: Whether to draw the derivative with respect to the prediction instead.
      label: The name in the legend.
      index: Which colour and line style to use.
      ax: Where to draw; default: new axes on a new figure.

    Returns:
      The axes.

    Raises:
      ValueError: If the shapes do not match, or the loss returns another shape.
    """
    x, t = jnp.asarray(predictions), jnp.asarray(targets)
    if x.ndim != 1 or t.shape not in ((), x.shape):
        expected = f"one number, or shape (n,) as `predictions` with shape {x.shape}"
        _checks.fail("plot_loss", "targets", f"shape {t.shape}", expected)
    t = jnp.broadcast_to(t, x.shape)
    losses = loss(x, t)
    if losses.shape != x.shape:
        expected = f"one number for each prediction, {x.shape}"
        _checks.fail("plot_loss", "loss", f"a result of shape {losses.shape}", expected)
    y = jax.grad(lambda x: jnp.sum(loss(x, t)))(x) if slope else losses
    ax = _axes(ax)
    ax.plot(np.asarray(x, float), np.asarray(y, float), label=label, **style(index))
    ax.set(xlabel="prediction", ylabel="slope" if slope else "loss")
    return ax


def plot_landscape(plane: "landscape.Plane", *, ax: "Axes | None" = None) -> "Axes":
    """Draws the losses of a plane as shades and contours, with a cross at 0.

    The scale is logarithmic if all losses are positive, because the losses in a valley
    and around it often differ by orders of magnitude.

    Args:
      plane: The result of `jaxloss.landscape.plane`.
      ax: Where to draw; default: new axes on a new figure.

    Returns:
      The axes; their figure has a colour bar beside them.

    Raises:
      ValueError: If the losses are not `(n, n)` for n steps, or none of them is finite.
    """
    steps, losses = (np.asarray(x, float) for x in (plane.steps, plane.losses))
    if losses.shape != (steps.size, steps.size):
        expected = f"losses of shape {(steps.size, steps.size)}, one per two steps"
        _checks.fail(
            "plot_landscape", "plane", f"losses of shape {losses.shape}", expected
        )
    seen = np.ma.masked_invalid(losses)
    if not seen.count():
        _checks.fail("plot_landscape", "plane", "no finite loss", "at least one")
    from matplotlib.colors import LogNorm, Normalize

    ax = _axes(ax)
    low, high = float(seen.min()), float(seen.max())
    kind, spaced = (LogNorm, np.geomspace) if low > 0 else (Normalize, np.linspace)
    shades = {"norm": kind(low, high), "cmap": "cividis"}
    image = ax.pcolormesh(steps, steps, seen, shading="nearest", **shades)
    if high > low:
        levels = spaced(low, high, 14)[1:-1]
        lines = {"colors": "white", "linewidths": 0.6, "linestyles": "solid"}
        ax.contour(steps, steps, seen, levels, alpha=0.7, **lines)
    ax.plot(0, 0, marker="+", markersize=9, markeredgewidth=2, color=PALETTE[1])
    bar = ax.inset_axes((1.04, 0, 0.05, 1))  # as high as the square is
    ax.figure.colorbar(image, cax=bar, label="loss")
    ax.set(xlabel="first direction", ylabel="second direction", aspect="equal")
    return ax


def plot_reliability(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int = 15,
    label: str | None = None,
    index: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws a reliability diagram: observed frequency against confidence.

    The bins are those of `expected_calibration_error`, which is the mean distance from
    the diagonal, weighted by the number of examples in each bin.  Bars are one standard
    error of the frequency; empty bins are left out.

    Args:
      probabilities: Probabilities of one event, shape `(n,)`; or of K classes,
        `(n, K)`, whose largest probability is the confidence.
      labels: Whether the event happened, or the true class, shape `(n,)`.
      bins: Number of bins of equal width.
      label: The name in the legend.
      index: Which colour, line style and marker to use.
      ax: Where to draw; default: new axes on a new figure.

    Returns:
      The axes.

    Raises:
      TypeError: If `bins` is not an integer.
      ValueError: If the shapes do not match, or `bins` is less than 1.
    """
    p, happened = np.asarray(probabilities, float), np.asarray(labels)
    _checks.positive_integer("plot_reliability", bins=bins)
    if p.ndim not in (1, 2) or happened.shape != p.shape[:1]:
        expected = f"(n,) or (n, K), where `labels` has shape {happened.shape}"
        _checks.fail("plot_reliability", "probabilities", f"shape {p.shape}", expected)
    if p.ndim == 2:
        p, happened = p.max(axis=1), p.argmax(axis=1) == happened
    bin_of = np.searchsorted(np.arange(1, bins) / bins, p)
    count = np.bincount(bin_of, minlength=bins)
    filled = count > 0
    mean = lambda x: np.bincount(bin_of, x, minlength=bins)[filled] / count[filled]
    confidence, frequency = mean(p), mean(happened)
    error = np.sqrt(frequency * (1 - frequency) / count[filled])
    ax = _axes(ax)
    look = {"marker": _MARKERS[index % len(_MARKERS)], **style(index)}
    ax.errorbar(confidence, frequency, error, label=label, capsize=2, **look)
    if not any(line.get_gid() == "reference" for line in ax.lines):
        ax.plot([0, 1], [0, 1], gid="reference", label="calibrated", **_REFERENCE)
    ax.set(xlabel="confidence", ylabel="frequency", xlim=(0, 1), ylim=(0, 1.02))
    return ax


def plot_precision_recall(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    label: str | None = None,
    index: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws precision against recall, with the level of chance.

    Several runs are averaged at equal recall, so the area under the drawn steps is
    the mean of their average precisions; the band is one standard error.

    Args:
      labels: 0 or 1 for each example, shape `(n,)`.
      scores: Scores that grow with the probability of label 1: shape `(n,)`, or
        `(runs, n)`.
      label: The name in the legend.
      index: Which colour and line style to use.
      ax: Where to draw; default: new axes on a new figure.

    Returns:
      The axes.

    Raises:
      ValueError: If the shapes do not match, or `labels` has one class only.
    """
    labels, scores = np.asarray(labels), np.atleast_2d(np.asarray(scores))
    if labels.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(labels):
        expected = f"(n,) or (runs, n), where `labels` has shape {labels.shape}"
        _checks.fail(
            "plot_precision_recall", "scores", f"shape {scores.shape}", expected
        )
    if np.unique(labels).size != 2:
        _checks.fail("plot_precision_recall", "labels", "one class only", "0 and 1")
    ax = _axes(ax)
    recall, precision = zip(
        *(_steps(labels, one) for one in scores), strict=True
    )  # recall is the same for all: 1/P, 2/P, ... 1
    _band(ax, recall[0], np.stack(precision), label, index, step="pre")
    _reference(ax, float(np.mean(labels)), f"chance ({np.mean(labels):.2f})")
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    return ax


def plot_error_distribution(
    targets: ArrayLike,
    predictions: ArrayLike,
    *,
    label: str | None = None,
    index: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws the share of examples whose absolute error is at most x.

    Args:
      targets: True values, shape `(n,)`.
      predictions: Predicted values, shape `(n,)` or `(runs, n)`; runs are averaged.
      label: The name in the legend.
      index: Which colour and line style to use; -1 for a dotted grey reference.
      ax: Where to draw; default: new axes on a new figure.

    Returns:
      The axes.

    Raises:
      ValueError: If the shapes do not match.
    """
    targets, predictions = np.asarray(targets), np.atleast_2d(np.asarray(predictions))
    if predictions.shape[1:] != targets.shape:
        expected = f"(n,) or (runs, n), where `targets` has shape {targets.shape}"
        has = f"shape {predictions.shape}"
        _checks.fail("plot_error_distribution", "predictions", has, expected)
    ax = _axes(ax)
    # Averaging errors of equal rank averages the quantile functions of the runs.
    errors = np.sort(np.abs(predictions - targets), axis=1).mean(axis=0)
    share = np.arange(1, len(errors) + 1) / len(errors)
    line = {"gid": "reference", **_REFERENCE} if index < 0 else style(index)
    ax.step(np.r_[0, errors], np.r_[0, share], where="post", label=label, **line)
    ax.set(xlabel="absolute error", ylabel="share of rows at or below", ylim=(0, 1.02))
    ax.set_xlim(left=0)
    return ax


def plot_sweep(
    values: ArrayLike,
    results: ArrayLike,
    *,
    reference: ArrayLike = 0.0,
    label: str | None = None,
    index: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws a metric against a hyperparameter: mean and standard error over runs.

    Args:
      values: Values of the hyperparameter, shape `(n,)`.
      results: The metric, shape `(n, runs)`.
      reference: The same metric of a method to compare with, shape `(runs,)`.  The
        drawn errors are then those of the difference, run by run, which is more precise
        if the runs share seeds or splits.
      label: The name in the legend.
      index: Which colour, line style and marker to use.
      ax: Where to draw; default: new axes on a new figure.

    Returns:
      The axes.

    Raises:
      ValueError: If the shapes do not match.
    """
    values, results = np.asarray(values), np.asarray(results)
    if results.ndim != 2 or values.shape != results.shape[:1]:
        expected = f"(n, runs), where `values` has shape {values.shape}"
        _checks.fail("plot_sweep", "results", f"shape {results.shape}", expected)
    ax = _axes(ax)
    ax.errorbar(
        values,
        results.mean(axis=1),
        standard_error(results - np.asarray(reference)),
        label=label,
        marker=_MARKERS[index % len(_MARKERS)],
        capsize=2,
        **style(index),
    )
    return ax


def plot_level(
    results: ArrayLike,
    *,
    reference: ArrayLike = 0.0,
    label: str | None = None,
    index: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws a metric without a hyperparameter: mean and standard error.

    Args:
      results: The metric, shape `(runs,)`.
      reference: As in `plot_sweep`.
      label: The name in the legend.
      index: Which colour and line style to use.
      ax: Where to draw; default: new axes on a new figure.

    Returns:
      The axes.

    Raises:
      ValueError: If `results` has another shape.
    """
    results = np.asarray(results)
    if results.ndim != 1:
        _checks.fail("plot_level", "results", f"shape {results.shape}", "(runs,)")
    ax = _axes(ax)
    mean = float(results.mean())
    error = float(standard_error(results - np.asarray(reference)))
    ax.axhline(mean, label=label, **style(index))
    if np.isfinite(error):
        color = style(index)["color"]
        ax.axhspan(mean - error, mean + error, color=color, alpha=0.08, lw=0)
    return ax


def standard_error(runs: np.ndarray) -> np.ndarray:
    """Standard error of the mean along the last axis; NaN for a single run."""
    if runs.shape[-1] < 2:
        return np.full(runs.shape[:-1], np.nan)
    return runs.std(axis=-1, ddof=1) / np.sqrt(runs.shape[-1])


def _steps(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision where recall first reaches 1/P, 2/P, ... 1: the steps that AP sums."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    precision, recall = precision[::-1], recall[::-1]
    positives = int(np.sum(labels))
    found = np.round(recall * positives).astype(int)
    ranks = np.arange(1, positives + 1)
    return ranks / positives, precision[np.searchsorted(found, ranks)]


def _band(
    ax: "Axes",
    x: np.ndarray,
    runs: np.ndarray,
    label: str | None,
    index: int,
    step: Any,
) -> None:
    mean, error = runs.mean(axis=0), standard_error(runs.T)
    x, mean = np.r_[0, x], np.r_[mean[0], mean]
    ax.step(x, mean, where=step, label=label, **style(index))
    if np.isfinite(error).all():
        low, high = mean - np.r_[error[0], error], mean + np.r_[error[0], error]
        color = style(index)["color"]
        ax.fill_between(x, low, high, step=step, color=color, alpha=0.15, lw=0)


def _reference(ax: "Axes", level: float, label: str) -> None:
    """A horizontal line, once per axes however many curves are drawn on it."""
    if not any(line.get_gid() == "reference" for line in ax.lines):
        ax.axhline(level, gid="reference", label=label, **_REFERENCE)


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(layout="constrained").subplots()
