"""The results of a sweep: metrics, choice of a configuration, CSV, table, picture."""

import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import jaxloss
from jaxloss import datasets, plot
from jaxloss.app.experiment import HeldOut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table


class Metric(NamedTuple):
    """A column: its name in the CSV file, and which direction is better."""

    name: str
    better: int  # 1: higher, -1: lower, 0: neither

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")


# Configurations are chosen by the first metric of their task.
METRICS = {
    datasets.BINARY: (
        Metric("average_precision", 1),
        Metric("log_loss", -1),
        Metric("calibration_error", -1),
    ),
    datasets.REGRESSION: (
        Metric("mean_absolute_error", -1),
        Metric("root_mean_squared_error", -1),
        Metric("median_absolute_error", -1),
        Metric("share_below", 0),
    ),
}

# Below the first metric, the picture shows how this one depends on a hyperparameter.
SECOND = {
    datasets.BINARY: "calibration_error",
    datasets.REGRESSION: "root_mean_squared_error",
}

# The hyperparameters whose effect is worth a picture, the most telling first.
TELLING = ("gamma", "delta", "pos_weight", "alpha", "quantile", "learning_rate")


def metrics(
    task: str, predictions: np.ndarray, targets: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of `task` for predictions `(configurations, n)`: one number each.

    Binary predictions are logits.  A configuration whose predictions are not all
    finite has diverged, and each of its metrics is NaN.
    """
    finite = np.all(np.isfinite(predictions), axis=1)
    measure = _binary if task == datasets.BINARY else _regression
    measured = measure(np.where(finite[:, None], predictions, 0), targets)
    return {name: np.where(finite, x, np.nan) for name, x in measured.items()}


def _binary(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    from sklearn.metrics import average_precision_score

    log_loss, calibration_error = _log_loss_and_calibration_error(logits, labels)
    return {
        "average_precision": np.array(
            [average_precision_score(labels, one) for one in logits]
        ),
        "log_loss": np.asarray(log_loss, float),
        "calibration_error": np.asarray(calibration_error, float),
    }


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def _log_loss_and_calibration_error(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return (
        jaxloss.mean(jaxloss.sigmoid_cross_entropy(logits, labels)),
        jaxloss.expected_calibration_error(jax.nn.sigmoid(logits), labels),
    )


def _regression(predictions: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    errors = predictions.astype(float) - targets
    return {
        "mean_absolute_error": np.abs(errors).mean(axis=1),
        "root_mean_squared_error": np.sqrt(np.square(errors).mean(axis=1)),
        "median_absolute_error": np.median(np.abs(errors), axis=1),
        # Which quantile the predictions are: for a pinball loss, its `quantile`.
        "share_below": (errors >= 0).mean(axis=1),
    }


@dataclasses.dataclass
class Results:
    """Held-out predictions and metrics of every configuration, seed after seed.

    Attributes:
      title: What the data is.
      task: `datasets.BINARY` or `datasets.REGRESSION`.
      losses: The name of the loss of each configuration.
      hyperparameters: What each configuration sets, by name.
      baseline: A prediction that ignores the features; regression only.
      targets: Of the test rows.
      predictions: Of the test rows, one array `(configurations, n)` per seed.
      measured: For each seed the metrics, by part and name, of all configurations.
    """

    title: str
    task: str
    losses: list[str]
    hyperparameters: Sequence[Mapping[str, float]]
    baseline: float = 0.0
    targets: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    predictions: list[np.ndarray] = dataclasses.field(default_factory=list)
    measured: list[dict[str, dict[str, np.ndarray]]] = dataclasses.field(
        default_factory=list
    )

    def add(self, held_out: Mapping[str, HeldOut]) -> None:
        """Adds a seed: its `validation` and `test` rows."""
        found = {part: metrics(self.task, *x) for part, x in held_out.items()}
        # Only now, so that an interrupt leaves whole seeds behind.
        self.measured.append(found)
        self.predictions.append(held_out["test"].predictions)
        self.targets = held_out["test"].targets

    def runs(self, metric: str, part: str = "test") -> np.ndarray:
        """A metric of every run, shape `(configurations, seeds)`."""
        return np.stack([seed[part][metric] for seed in self.measured], axis=1)

    def ranking(self) -> np.ndarray:
        """Configurations from best to worst on the validation rows alone.

        Equal scores are told apart by the next metric, and one that diverged is last.
        """
        keys = [
            -metric.better * self.runs(metric.name, "validation").mean(axis=1)
            for metric in METRICS[self.task][:2]
        ]
        return np.lexsort(keys[::-1])  # NaN sorts last

    def best(self, among: Sequence[int]) -> int:
        """The configuration that ranks first."""
        return next(int(i) for i in self.ranking() if i in among)

    def best_of_each_loss(self) -> list[int]:
        """The best configuration of each loss, the best loss first."""
        first: dict[tuple[str, ...], int] = {}
        for i in self.ranking():
            first.setdefault(self.group(i), int(i))
        return list(first.values())

    def group(self, i: int) -> tuple[str, ...]:
        """What it is compared as: a loss, with a hyperparameter and without it."""
        own = [name for name in self.hyperparameters[i] if name != "learning_rate"]
        return self.losses[i], *own

    def groups(self) -> list[tuple[str, ...]]:
        """All of them, in the order of the sweep."""
        return list(dict.fromkeys(self.group(i) for i in range(len(self.losses))))

    def label(self, i: int) -> str:
        """Its loss in words, told apart from the same without hyperparameters."""
        loss, *own = self.group(i)
        alone = not own or (loss,) not in self.groups()
        return loss if alone else f"{loss} with {', '.join(own)}"

    def values(self, name: str) -> list[float]:
        """The values that a hyperparameter takes in the sweep."""
        return sorted({own[name] for own in self.hyperparameters if name in own})

    def trained(self, i: int) -> bool:
        """Whether no run of the configuration diverged."""
        return all(np.isfinite(seed[i]).all() for seed in self.predictions)

    def color(self, i: int) -> int:
        """The place of its loss among all: it keeps its colour in every picture."""
        return self.groups().index(self.group(i))

    def named(self, i: int) -> str:
        """A configuration in words, without its learning rate."""
        own = self.hyperparameters[i].items()
        words = [f"{name}={x:g}" for name, x in own if name != "learning_rate"]
        return " ".join([self.losses[i], *words])


def to_csv(results: Results) -> str:
    """One line per configuration: hyperparameters, then mean and standard error.

    A hyperparameter that a loss does not have is empty; a metric of a configuration
    that diverged is `nan`, and so is a standard error over one seed.
    """
    names = list(dict.fromkeys(name for row in results.hyperparameters for name in row))
    first, *_ = METRICS[results.task]
    columns = {f"validation_{first.name}": results.runs(first.name, "validation")}
    columns |= {m.name: results.runs(m.name) for m in METRICS[results.task]}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [head for name in columns for head in (name, f"{name}_standard_error")]
    writer.writerow(["loss", *names, "seeds", *heads, "best_of_its_loss"])
    best = results.best_of_each_loss()
    for i, loss in enumerate(results.losses):
        own = results.hyperparameters[i]
        cells: list[float] = []
        for runs in columns.values():
            cells += [runs[i].mean(), plot.standard_error(runs[i])]
        writer.writerow(
            [
                loss,
                *(f"{own[name]:.6g}" if name in own else "" for name in names),
                len(results.measured),
                *(f"{x:.6g}" for x in cells),
                "yes" if i in best else "no",
            ]
        )
    return text.getvalue()


def to_table(results: Results, *, rows: int = 10, plain: bool = False) -> "Table":
    """The best of each loss, then the best of the rest: test metrics, mean ± error."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="The best of each loss, then the best of the rest",
        title_justify="left",
        title_style="",
        box=None if plain else box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=not plain,
    )
    table.add_column("loss")
    table.add_column("learning\nrate", justify="right")
    cells = []
    for metric in METRICS[results.task]:
        head = metric.title.replace(" ", "\n")
        arrow = {1: " ↑", -1: " ↓", 0: ""}[metric.better]
        table.add_column(head + arrow, justify="right", no_wrap=True)
        cells.append(_mean_and_error(results.runs(metric.name)))
    best = results.best_of_each_loss()
    rest = [int(i) for i in results.ranking() if i not in best]
    for i in best + rest[: max(0, rows - len(best))]:
        rate = f"{results.hyperparameters[i]['learning_rate']:g}"
        table.add_row(
            results.named(i),
            rate,
            *(column[i] for column in cells),
            style=None if plain or i != best[0] else "bold",
            end_section=i == best[-1],
        )
    return table


def verdict(results: Results) -> tuple[int | None, str]:
    """The configuration to use, and why: is the chosen one better than the plain loss?

    The plain loss is the first of the sweep, or the second best if the first is best.
    """
    best = [i for i in results.best_of_each_loss() if results.trained(i)]
    if not best:
        return None, "Every configuration diverged: lower learning_rate with --grid."
    chosen = f"Chosen on validation: {results.named(best[0])}."
    if len(best) == 1:
        return best[0], chosen
    plain = next((i for i in best[1:] if results.color(i) == 0), best[1])
    metric = METRICS[results.task][0]
    runs = metric.better * results.runs(metric.name)
    # Seeds are shared by all configurations, so runs are compared in pairs.
    gaps = runs[best[0]] - runs[plain]
    gap, error = gaps.mean(), float(plot.standard_error(gaps))
    side, sign = ("better", 1) if gap >= 0 else ("worse", -1)
    decimals = _decimals(runs) + 1
    (size,) = _mean_and_error(sign * gaps[None], decimals)
    text = (
        f"{chosen} On the test rows its {metric.title} is {size} {side} than that of "
        f"{results.named(plain)}"
    )
    if np.isnan(error):
        return best[0], f"{text}; one seed cannot tell whether that is noise."
    if gap > 2 * error:
        return best[0], f"{text}."
    simple = min(best[0], plain, key=results.color)
    return simple, f"{text}: no gain beyond the noise, so the simpler loss will do."


def to_picture(results: Results) -> "Figure":
    """Left, the best of each loss in detail; right, the effect of a hyperparameter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), dpi=150, layout="constrained")
    axes = figure.subplot_mosaic(
        [["detail", METRICS[results.task][0].name], ["detail", SECOND[results.task]]],
        width_ratios=[1.1, 1],
    )
    detail = axes.pop("detail")
    detail.set_title("The best of each loss")
    if any(results.trained(i) for i in range(len(results.losses))):
        draw = _curves if results.task == datasets.BINARY else _errors
        draw(results, detail)
        _effects(results, axes)
    runs = len(results.predictions)
    figure.suptitle(
        f"{results.title}\ntest rows, mean ± standard error over {runs} seeds; "
        "configurations chosen on validation rows",
        fontsize="medium",
    )
    return figure


def _curves(results: Results, ax: "Axes") -> None:
    drawn = [i for i in results.best_of_each_loss() if results.trained(i)]
    logits = np.stack(results.predictions, axis=1)
    runs = results.runs("average_precision")
    cells = _mean_and_error(runs)

    def draw(ax: "Axes") -> None:
        for i in drawn:
            label, color = f"{results.named(i)}: {cells[i]}", results.color(i)
            plot.plot_precision_recall(
                results.targets, logits[i], label=label, index=color, ax=ax
            )

    draw(ax)
    _legend(ax, "average precision")
    if not _free(ax, _CORNER):
        return
    # Good curves meet in a corner and leave the middle free: enlarge the corner there.
    inset = ax.inset_axes(_CORNER)
    draw(inset)
    inset.set(xlim=(0.7, 1), ylim=(0.8, 1.005), xlabel="", ylabel="")
    inset.tick_params(labelsize="small")
    ax.indicate_inset_zoom(inset, edgecolor="#666666")


# Where the corner of good curves is enlarged: left, bottom, width and height, in shares
# of the axes; the labels of its ticks stand to the left and below.
_CORNER = (0.14, 0.22, 0.6, 0.48)


def _free(ax: "Axes", box: tuple[float, float, float, float]) -> bool:
    """Whether no line passes through a box, its labels and a margin included."""
    left, bottom, width, height = box
    x = np.linspace(left - 0.1, left + width, 200)
    for line in ax.lines:
        to_share = line.get_transform() - ax.transAxes
        share = to_share.transform(np.asarray(line.get_xydata()))
        y = np.interp(x, share[:, 0], share[:, 1])
        if np.any((y > bottom - 0.1) & (y < bottom + height + 0.03)):
            return False
    return True


def _errors(results: Results, ax: "Axes") -> None:
    predictions = np.stack(results.predictions, axis=1)
    cells = _mean_and_error(results.runs("mean_absolute_error"))
    for i in results.best_of_each_loss():
        if results.trained(i):
            label, color = f"{results.named(i)}: {cells[i]}", results.color(i)
            plot.plot_error_distribution(
                results.targets, predictions[i], label=label, index=color, ax=ax
            )
    median = np.full_like(results.targets, results.baseline)
    error = np.abs(median - results.targets)
    label = f"always the median: {error.mean():.4g}"
    plot.plot_error_distribution(results.targets, median, label=label, index=-1, ax=ax)
    # A few rows far out would press everything else against the axis.
    ax.set_xlim(0, 1.2 * float(np.quantile(error, 0.95)) or None)
    _legend(ax, "mean absolute error")


def _legend(ax: "Axes", title: str) -> None:
    """A legend below the axes, where it covers nothing; the reference line is last."""
    from matplotlib.transforms import ScaledTranslation

    lines, labels = ax.get_legend_handles_labels()
    last = {x.get_label() for x in ax.lines if x.get_gid() == "reference"}
    order = sorted(range(len(lines)), key=lambda i: labels[i] in last)
    # In inches, for axes of any height: below the ticks and the name of the axis.
    below = ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans)
    ax.legend(
        [lines[i] for i in order],
        [labels[i] for i in order],
        title=title,
        title_fontsize="small",
        fontsize="small",
        frameon=False,
        loc="upper center",
        borderaxespad=0,
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + below,
    )


def _effects(results: Results, axes: Mapping[str, "Axes"]) -> None:
    """Two metrics against the most telling hyperparameter, one above the other."""
    name = next((name for name in TELLING if len(results.values(name)) > 1), None)
    best = sorted(results.best_of_each_loss(), key=results.color)
    for metric, ax in axes.items():
        for i in best:
            _effect(results, i, name, metric, best[0], ax)
        ax.set_ylabel(metric.replace("_", " "))
        ax.grid(alpha=0.3)
        if name in ("learning_rate", "delta", "pos_weight"):
            ax.set_xscale("log")
        if name:
            ticks = results.values(name)
            ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.set_xticks([], minor=True)
    upper, lower = axes.values()
    upper.set_title(f"The effect of {name}" if name else "The losses compared")
    upper.tick_params(labelbottom=False)
    lower.set_xlabel(name or "")
    errors = f"± of the gap to {results.label(best[0])}"
    _legend(lower, errors)
    if not name:
        lower.set_xticks([results.color(i) for i in best])
        lower.set_xticklabels([results.label(i) for i in best])
        lower.margins(x=0.2)
        upper.sharex(lower)


def _effect(
    results: Results, best: int, name: str | None, metric: str, plain: int, ax: "Axes"
) -> None:
    """One loss: a point per value of `name`, the rest chosen on validation rows."""
    runs, color = results.runs(metric), results.color(best)
    how: dict[str, Any] = {"label": results.label(best), "index": color, "ax": ax}
    if results.trained(plain):  # the runs of a seed have its rows and weights in common
        how["reference"] = runs[plain]
    by_value: dict[float, list[int]] = {}
    for i, own in enumerate(results.hyperparameters):
        if results.group(i) == results.group(best) and name and name in own:
            by_value.setdefault(own[name], []).append(i)
    if not name:
        plot.plot_sweep([color], runs[[best]], **how)
    elif not by_value:  # a loss without it: a level to compare with
        plot.plot_level(runs[best], **how)
    else:
        values = sorted(by_value)
        chosen = [results.best(by_value[x]) for x in values]
        plot.plot_sweep(values, runs[chosen], **how)


def _mean_and_error(runs: np.ndarray, decimals: int | None = None) -> list[str]:
    """`mean ± standard error` of each row, with as many decimals for all."""
    decimals = _decimals(runs) if decimals is None else decimals
    texts = []
    for mean, error in zip(runs.mean(axis=1), plot.standard_error(runs), strict=True):
        text = "diverged" if np.isnan(mean) else f"{mean:.{decimals}f}"
        texts.append(text if np.isnan(error) else f"{text} ± {error:.{decimals}f}")
    return texts


def _decimals(runs: np.ndarray) -> int:
    """One digit of a typical standard error, and a second after a leading 1 or 2."""
    errors = plot.standard_error(runs)
    size = np.nanmax(np.abs(runs), initial=1e-9)
    errors = errors[errors > 1e-6 * size]
    # One seed, or seeds that agree to the last digit: four digits of the mean.
    typical = np.median(errors) if errors.size else size / 1000
    return int(np.clip(np.ceil(-np.log10(typical / 3)), 0, 8))
