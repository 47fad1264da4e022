"""Pictures: arrays in, `Axes` out; nothing is shown and no global state is touched.

Colours are those of Okabe and Ito, told apart by every common form of colour
blindness; each also has a line style and a marker of its own, for print.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jaxloss import _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_MARKERS = "osD^vP"
_REFERENCE = {"color": "#666666", "linestyle": (0, (1, 2)), "linewidth": 1.2}


def style(index: int) -> dict[str, Any]:
    """Colour and line style of the `index`-th thing that is compared."""
    i = index % len(PALETTE)
    return {"color": PALETTE[i], "linestyle": _LINES[i]}


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
      scores: Anything that grows with the probability of 1: shape `(n,)`, or
        `(runs, n)`.
      label: The name in the legend.
      index: Which colour and line style to use.
      ax: Where to draw; default: new axes on a figure of their own.

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
      ax: Where to draw; default: new axes on a figure of their own.

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
      values: The hyperparameter's values, shape `(n,)`.
      results: The metric, shape `(n, runs)`.
      reference: The same metric of what this is compared with, shape `(runs,)`: the
        errors are then those of the difference, run by run, which is more precise
        than either if the runs have seeds or splits in common.
      label: The name in the legend.
      index: Which colour, line style and marker to use.
      ax: Where to draw; default: new axes on a figure of their own.

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
    """Draws a metric that no hyperparameter changes: mean and standard error over runs.

    Args:
      results: The metric, shape `(runs,)`.
      reference: As in `plot_sweep`.
      label: The name in the legend.
      index: Which colour and line style to use.
      ax: Where to draw; default: new axes on a figure of their own.

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
