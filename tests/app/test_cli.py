"""`jaxloss sweep`: what it writes, what it refuses, what it survives."""

import csv
import io
import logging.handlers
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_breast_cancer, load_diabetes

import jaxloss
from jaxloss import datasets, plot
from jaxloss.app import cli, experiment, report

SHORT = ["--seeds", "2", "--steps", "33"]
ONE = [
    "--losses",
    "sigmoid_focal",
    "--grid",
    "gamma=2",
    "alpha=0.25",
    "learning_rate=0.01",
]


def rows(folder: pathlib.Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: pathlib.Path, features, targets) -> pathlib.Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{i}" for i in range(features.shape[1])), "target"])
        writer.writerows([*x, y] for x, y in zip(features, targets, strict=True))
    return path


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jaxloss", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """A short sweep of the default data: its folder, losses traced, and JAX's log."""
    folder = tmp_path_factory.mktemp("default") / "new" / "folder"
    log = logging.handlers.BufferingHandler(10**6)
    logging.getLogger("jax").addHandler(log)
    with pytest.MonkeyPatch.context() as patch, jax.log_compiles():
        traced = []
        for name, loss in experiment.LOSSES.items():
            patch.setitem(experiment.LOSSES, name, counted(loss, name, traced))
        assert cli.main(["sweep", *SHORT, "--out", str(folder), "--quiet"]) == 0
    logging.getLogger("jax").removeHandler(log)
    return folder, traced, [record.getMessage() for record in log.buffer]


def counted(loss: experiment.Loss, name: str, traced: list[str]) -> experiment.Loss:
    def function(*data, **values):
        traced.append(name)
        return loss.function(*data, **values)

    return loss._replace(function=function)


def is_picture(path: pathlib.Path) -> bool:
    """A PNG file of at least 1000 by 500 pixels, not all of them white."""
    from matplotlib import image

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(path)
    height, width, _ = pixels.shape
    return height >= 500 and width >= 1000 and bool(pixels.std() > 0.05)


# What it does.


def test_default_sweep_covers_the_losses_of_the_issue(default):
    """At least 64 configurations: two losses over gamma, alpha and learning rate."""
    folder, *_ = default
    found = rows(folder)
    assert len(found) >= 64
    assert {row["loss"] for row in found} == {"sigmoid_cross_entropy", "sigmoid_focal"}
    focal = [row for row in found if row["loss"] == "sigmoid_focal"]
    for name in ("gamma", "alpha", "learning_rate"):
        assert len({row[name] for row in focal}) == 4
    assert {row["pos_weight"] for row in focal} == {""}
    assert {row["seeds"] for row in found} == {"2"}
    for name in ("average_precision", "log_loss", "calibration_error"):
        assert all(float(row[name]) > 0 for row in found)
        assert all(float(row[f"{name}_standard_error"]) >= 0 for row in found)
    assert sum(row["best_of_its_loss"] == "yes" for row in found) == 3


def test_default_sweep_draws_a_picture_and_leaves_nothing_else(default):
    """Two files, of which one is a picture; no temporary file stays behind."""
    folder, *_ = default
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["results.csv", "sweep.png"]
    assert is_picture(folder / "sweep.png")


def test_everything_is_compiled_once(default):
    """92 configurations, 2 seeds, 33 steps in ragged chunks: one training program."""
    *_, log = default
    compiled = [text for text in log if text.startswith("Compiling ")]
    for program in ("begin", "advance", "finish"):
        assert sum(f"jit({program})" in text for text in compiled) == 1
    (training,) = [text for text in compiled if "jit(advance)" in text]
    assert "float32[92,64,32]" in training  # the first layer of every configuration


def test_every_loss_is_traced_equally_often(default):
    """One program: a loss of 64 configurations is traced like one of 28."""
    _, traced, _ = default
    assert len({traced.count(name) for name in set(traced)}) == 1
    assert len(set(traced)) == 2


def test_same_request_same_bytes(default, tmp_path):
    """Nothing depends on the clock, the process or the order of a dictionary."""
    folder, *_ = default
    assert cli.main(["sweep", *SHORT, "--out", str(tmp_path), "--quiet"]) == 0
    again = (tmp_path / "results.csv").read_bytes()
    assert again == (folder / "results.csv").read_bytes()


def test_a_configuration_learns_the_same_alone_and_in_a_grid(default, tmp_path):
    """Mapping over configurations changes rounding, and nothing else."""
    folder, *_ = default
    assert cli.main(["sweep", *SHORT, *ONE, "--out", str(tmp_path), "--quiet"]) == 0
    (alone,) = rows(tmp_path)
    names = ("loss", "gamma", "alpha", "learning_rate")
    (among,) = [
        row for row in rows(folder) if all(row[name] == alone[name] for name in names)
    ]
    for name in ("log_loss", "calibration_error"):
        # Training amplifies rounding: some 1e-6 after 33 steps, against 1e-1 between
        # configurations.
        np.testing.assert_allclose(float(alone[name]), float(among[name]), rtol=1e-3)


def test_focal_loss_without_focus_is_cross_entropy(default):
    """gamma = 0 is listed as what it is, once: with pos_weight = alpha/(1 - alpha)."""
    found = rows(default[0])
    assert "0" not in {row["gamma"] for row in found}
    entropy = [row for row in found if row["loss"] == "sigmoid_cross_entropy"]
    # The odds of 1/4, 1/2, 3/4, 9/10, and 1, 2, 5, 10: at each of four rates.
    weights = sorted(["", "0.333333", "2", "3", "5", "9", "10"] * 4)
    assert sorted(row["pos_weight"] for row in entropy) == weights


def test_own_binary_data(tmp_path, capsys):
    """Words as classes, a small set, and the losses and values that were asked for."""
    x, y = load_breast_cancer(return_X_y=True)
    path = write_csv(tmp_path / "own.csv", x, np.where(y == 0, "sick", "healthy"))
    arguments = ["--data", str(path), "--target", "target", "--out", str(tmp_path)]
    losses = ["--losses", "sigmoid_focal,cross_entropy"]
    more = [*losses, "--grid", "gamma=0,3", "alpha=0.5", "pos_weight=1"]
    assert cli.main(["sweep", *SHORT, *arguments, *more]) == 0
    found = rows(tmp_path)
    assert {(row["loss"], row["gamma"]) for row in found} == {
        ("sigmoid_cross_entropy", ""),
        ("sigmoid_focal", "3"),
    }
    # Chance is 0.37: something was learnt, and of the class that was named.
    assert max(float(row["average_precision"]) for row in found) > 0.9
    text = capsys.readouterr().out
    assert "target = sick against the rest (binary, 37.3% positive, 569 rows" in text
    assert "Chosen on validation" in text
    assert "jaxloss.sigmoid_" in text
    assert is_picture(tmp_path / "sweep.png")


def test_own_regression_data(tmp_path, capsys):
    """Errors are in the unit of the target; quantiles are where they belong."""
    x, y = load_diabetes(return_X_y=True)
    path = write_csv(tmp_path / "own.csv", x, y)
    arguments = ["--data", str(path), "--target", "target", "--out", str(tmp_path)]
    more = ["--steps", "100", "--seeds", "2", "--grid", "learning_rate=0.01"]
    assert cli.main(["sweep", *arguments, *more]) == 0
    best = {r["loss"]: r for r in rows(tmp_path) if r["best_of_its_loss"] == "yes"}
    names = {"squared_error", "absolute_error", "huber", "log_cosh", "pinball"}
    assert set(best) == names
    parts = datasets.split(datasets.read_csv(path, "target"))
    median = np.abs(y[parts.test] - np.median(y)).mean()
    for row in best.values():
        if row["loss"] != "pinball":  # of the quantiles 0.1 and 0.9
            assert float(row["mean_absolute_error"]) < 0.9 * median
    # The median by its simpler name.
    tilted = [r for r in rows(tmp_path) if r["loss"] in ("pinball", "absolute_error")]
    share = {row["quantile"]: float(row["share_below"]) for row in tilted}
    assert share["0.1"] < 0.3 < share[""] < 0.7 < share["0.9"]
    text = capsys.readouterr().out
    assert "own.csv: target (regression, 442 rows, 10 features)" in text
    assert is_picture(tmp_path / "sweep.png")


def test_tiny_and_diverging_requests_are_answered(tmp_path, capsys):
    """Eight rows, one seed, and a rate that diverges: results, and a word about it."""
    x = np.arange(8.0)[:, None]
    path = write_csv(tmp_path / "own.csv", x, [0, 0, 1, 0, 1, 0, 1, 0])
    arguments = ["--data", str(path), "--target", "target", "--out", str(tmp_path)]
    more = ["--seeds", "1", "--steps", "5", "--grid", "learning_rate=1e38", "--quiet"]
    assert cli.main(["sweep", *arguments, *more]) == 0
    assert {row["average_precision"] for row in rows(tmp_path)} == {"nan"}
    out, error = capsys.readouterr()
    assert "diverged" in out
    assert "lower learning_rate" in error
    assert is_picture(tmp_path / "sweep.png")


def test_one_configuration_is_a_sweep(tmp_path, capsys):
    """Nothing to compare with, nothing to vary: still a table and a picture."""
    assert cli.main(["sweep", "--steps", "3", *ONE, "--out", str(tmp_path)]) == 0
    call = "jaxloss.sigmoid_focal(logits, labels, gamma=2, alpha=0.25)"
    assert call in capsys.readouterr().out
    assert is_picture(tmp_path / "sweep.png")


def test_every_call_that_is_advised_runs():
    """The line of code under the table is Python, and means this loss."""
    data = jnp.array([0.25, 0.75])
    names = {name: getattr(jaxloss, name) for name in dir(jaxloss)}
    for loss in experiment.LOSSES.values():
        values = {k: x.default[0] for k, x in experiment.HYPERPARAMETERS.items()}
        scope = {"jaxloss": jaxloss, "logits": data, "labels": data}
        scope |= {"predictions": data, "targets": data}
        assert loss.function.__name__ in names
        assert eval(loss.call(values), scope).shape == (2,)


# What it refuses.


REFUSED = [
    (["--data", "none.csv", "--target", "y"], "there is no file none.csv"),
    (["--data", "good.csv", "--target", "z"], "has no column 'z'"),
    (["--data", "good.csv"], "--data needs --target, one of the columns x, y"),
    (["--target", "y"], "--target y is of no use without --data"),
    (["--data", "words.csv", "--target", "y"], "line 3: column 'x' is not numeric"),
    (["--data", "holes.csv", "--target", "y"], "line 2: column 'x' is empty"),
    (["--data", "one.csv", "--target", "y"], "only one value (1)"),
    (["--data", "few.csv", "--target", "y"], "only 2 positive rows"),
    (["--losses", "fokal"], "'fokal' (did you mean 'focal'?); choose among sigmoid_"),
    (["--losses", ","], "--losses is empty"),
    (["--losses", "huber"], "huber is not for 'digit', a binary target; choose among"),
    (["--grid", "gama=1"], "'gama' (did you mean 'gamma'?)"),
    (["--grid", "gamma"], "'gamma' has no values; write, say, gamma=0,0.5"),
    (["--grid", "gamma=,"], "'gamma=,' has no values"),
    (["--grid", "gamma=1;2"], "gamma is '1;2'; give a number in [0, inf)"),
    (["--grid", "gamma=-1"], "gamma is '-1'; give a number in [0, inf)"),
    (["--grid", "gamma=nan"], "gamma is 'nan'"),
    (["--grid", "alpha=0.5,1"], "alpha is '1'; give a number in (0, 1)"),
    (["--grid", "learning_rate=0"], "learning_rate is '0'; give a number in (0, inf)"),
    (["--grid", "gamma=1", "--grid", "gamma=2"], "'gamma' twice"),
    (["--grid", "delta=1"], "delta is no hyperparameter of sigmoid_cross_entropy, s"),
    (["--seeds", "0"], "--seeds is '0'; give a whole number of at least 1"),
    (["--seeds", "²"], "--seeds is '²'"),
    (["--steps", "1.5"], "--steps is '1.5'"),
    (["--out", "good.csv/x"], "good.csv is not a directory"),
    (["--sedes", "3"], "--sedes (did you mean '--seeds'?)"),
    (["--steps"], "--steps: expected one argument"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with one good file and several that are not."""
    pairs = [(i, i % 2) for i in range(8)]
    good = "x,y\n" + "".join(f"{x},{y}\n" for x, y in pairs)
    for name, text in {
        "good.csv": good,
        "words.csv": good.replace("\n1,", "\nRome,"),
        "holes.csv": good.replace("\n0,", "\n,"),
        "one.csv": "x,y\n1,1\n2,1\n",
        "few.csv": "x,y\n" + "".join(f"{x},{int(x < 2)}\n" for x in range(9)),
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED]
)
def test_what_cannot_be_done_is_said_in_one_line(folder, capsys, arguments, message):
    """Status 2, one line on stderr that names value and remedy, and nothing else."""
    before = sorted(folder.iterdir())
    try:
        status = cli.main(["sweep", *arguments])
    except SystemExit as stop:
        status = stop.code
    out, error = capsys.readouterr()
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("jaxloss")
    assert out == ""
    assert sorted(folder.iterdir()) == before


def test_refusal_in_a_process_of_its_own(folder):
    """The same through the shell: exit status 2, one line, no traceback."""
    done = run("sweep", "--data", "words.csv", "--target", "y")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Rome" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["flax", "sklearn", "matplotlib", "rich"])
def test_missing_extras_are_named(folder, capsys, monkeypatch, name):
    """What is not installed is found before anything is imported or trained."""
    monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["sweep", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert f"{name} not installed; run: pip install 'jaxloss[demo]'" in error
    assert error.count("\n") == 1
    assert not (folder / "out").exists()


def test_a_place_that_cannot_be_written_is_refused(folder, capsys, monkeypatch):
    """Found before the training, by trying."""

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert cli.main(["sweep", "--out", "out"]) == 2
    assert "cannot be written (Permission denied); name" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_the_old_file(folder, capsys, monkeypatch):
    """A file is replaced whole or not at all, and no part of one stays behind."""
    path = folder / "results.csv"
    path.write_text("old")
    before = sorted(folder.iterdir())

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    assert cli.main(["sweep", "--steps", "1", *ONE, "--out", ".", "--quiet"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert path.read_text() == "old"
    assert sorted(folder.iterdir()) == before


# What it survives.


def test_interrupt_keeps_finished_seeds(tmp_path, capsys, monkeypatch):
    """Ctrl-C in the third seed: the first two are there, as a sweep of two writes."""
    whole = experiment.run

    def interrupted(*arguments, **options):
        blocks = whole(*arguments, **options)
        yield next(blocks)
        yield next(blocks)
        raise KeyboardInterrupt

    small = ["sweep", "--steps", "3", *ONE]
    two, three = tmp_path / "two", tmp_path / "three"
    assert cli.main([*small, "--seeds", "2", "--out", str(two), "--quiet"]) == 0
    monkeypatch.setattr(experiment, "run", interrupted)
    assert cli.main([*small, "--seeds", "3", "--out", str(three)]) == 130
    expected = (two / "results.csv").read_bytes()
    assert (three / "results.csv").read_bytes() == expected
    assert is_picture(three / "sweep.png")
    out, error = capsys.readouterr()
    assert "interrupted; 2 of 3 seeds are in" in error
    assert error.count("\n") == 1
    assert "over 2 seeds" in out


def test_interrupt_before_the_first_seed_leaves_nothing(tmp_path, capsys, monkeypatch):
    """No result, no file, no folder; status 130."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", interrupted)
    out = tmp_path / "out"
    assert cli.main(["sweep", "--out", str(out), "--quiet"]) == 130
    assert "interrupted before the first seed" in capsys.readouterr().err
    assert not out.exists()


def test_sigint_ends_a_real_process(tmp_path):
    """The signal itself, in the middle of training: status 130, whole files."""
    out = tmp_path / "out"
    # The handler, because a shell lets its background jobs ignore the signal.
    code = (
        "import signal, sys; from jaxloss.app import cli; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(cli.main())"
    )
    request = ["sweep", *ONE, "--steps", "200", "--seeds", "100000", "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *request],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (out / "results.csv").exists() and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.count("\n") == 1
    assert "of 100000 seeds are in" in error
    assert int(rows(out)[0]["seeds"]) >= 1
    assert sorted(path.name for path in out.iterdir()) == ["results.csv", "sweep.png"]


def test_help_is_quick_and_has_examples():
    """Nothing heavy is imported to explain what there is."""
    command = [sys.executable, "-X", "importtime", "-m", "jaxloss", "sweep", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "\n  jaxloss sweep --data" in done.stdout
    for name in [*experiment.LOSSES, *experiment.HYPERPARAMETERS]:
        assert f"\n  {name}" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert {"jax", "jaxloss.app.cli"} <= imported
    assert not {"optax", "flax", "sklearn", "matplotlib", "rich"} & imported


def test_global_state_of_matplotlib_is_left_alone(monkeypatch):
    """No pyplot, hence no backend, no window and no figure that stays open."""
    import matplotlib

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    before = matplotlib.rcParams.copy()
    results = made_up([[1.0, 2.0]] * 3, [[3.0, 4.0]] * 3)
    report.to_picture(results).savefig(io.BytesIO(), format="png")
    assert matplotlib.rcParams.copy() == before


def test_legends_cover_no_data():
    """Each stands outside of all axes, and inside of the picture, side by side."""
    figure = report.to_picture(made_up([[1.0, 2.0]] * 3, [[3.0, 4.0]] * 3))
    figure.savefig(io.BytesIO(), format="png")  # now everything has its place
    legends = [x for ax in figure.axes if (x := ax.get_legend())]
    boxes = [legend.get_window_extent() for legend in legends]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
    for box in boxes:
        assert not any(box.overlaps(ax.bbox) for ax in figure.axes)
        assert figure.bbox.count_contains(box.corners()) == 4


@pytest.mark.parametrize(("level", "free"), [(0.95, True), (0.5, False)])
def test_a_corner_is_enlarged_where_no_curve_passes(level, free):
    """A poor curve goes through the middle, and nothing is put over it."""
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.plot([0, 1], [level, level])
    assert report._free(ax, report._CORNER) is free
    ax.axhline(0.5)  # in other coordinates: those of the axes, from side to side
    assert not report._free(ax, report._CORNER)


# Its parts.


def test_binary_metrics_are_those_of_scikit_learn():
    """Average precision and log loss; the calibration error is our own."""
    random = np.random.default_rng(0)
    labels = (random.random(200) < 0.2).astype(float)
    logits = np.round(random.normal(size=(3, 200)) + 2 * labels, 1)  # with ties
    found = report.metrics(datasets.BINARY, logits, labels)
    for i, one in enumerate(logits):
        p = 1 / (1 + np.exp(-one))
        precision = sklearn_metrics.average_precision_score(labels, p)
        np.testing.assert_allclose(found["average_precision"][i], precision, rtol=1e-12)
        # Computed in float32: 200 terms of 1e-7 each, at worst.
        log_loss = sklearn_metrics.log_loss(labels, p)
        np.testing.assert_allclose(found["log_loss"][i], log_loss, rtol=1e-6)
        error = jaxloss.expected_calibration_error(jnp.float32(p), labels)
        np.testing.assert_allclose(found["calibration_error"][i], error, rtol=1e-5)


def test_regression_metrics_are_those_of_scikit_learn():
    """Three errors, and the share of targets at or below the prediction."""
    random = np.random.default_rng(0)
    targets, predictions = random.normal(size=50), random.normal(size=(2, 50))
    found = report.metrics(datasets.REGRESSION, predictions, targets)
    for i, one in enumerate(predictions):
        for name, reference in {
            "mean_absolute_error": sklearn_metrics.mean_absolute_error,
            "root_mean_squared_error": sklearn_metrics.root_mean_squared_error,
            "median_absolute_error": sklearn_metrics.median_absolute_error,
        }.items():
            np.testing.assert_allclose(
                found[name][i], reference(targets, one), rtol=1e-12
            )
        assert found["share_below"][i] == sum(targets <= one) / 50


def test_a_run_that_diverged_has_no_metric():
    """One NaN among the predictions: all metrics of that configuration are NaN."""
    logits, labels = np.zeros((2, 4)), np.array([0.0, 1.0, 0.0, 1.0])
    logits[1, 2] = np.nan
    found = report.metrics(datasets.BINARY, logits, labels)
    for values in found.values():
        assert np.isfinite(values[0])
        assert np.isnan(values[1])


def made_up(validation: list[list[float]], test: list[list[float]]) -> report.Results:
    """Regression results of constant predictions for targets 0: error = prediction."""
    losses = ["squared_error", "huber", "huber"]
    own = [{"learning_rate": 0.1}] + [
        {"learning_rate": 0.1, "delta": x} for x in (1, 2)
    ]
    results = report.Results("made up", datasets.REGRESSION, losses, own)
    for seed in range(len(validation[0])):
        held_out = {}
        for part, errors in {"validation": validation, "test": test}.items():
            column = np.array([row[seed] for row in errors])[:, None]
            held_out[part] = experiment.HeldOut(np.repeat(column, 4, 1), np.zeros(4))
        results.add(held_out)
    return results


def test_choice_never_sees_the_test():
    """Whatever the test errors, the choice follows the validation errors alone."""
    validation = [[5.0, 5.0], [3.0, 4.0], [4.0, 2.0]]
    for test in ([[0.0] * 2, [9.0] * 2, [9.0] * 2], [[9.0] * 2, [0.0] * 2, [9.0] * 2]):
        results = made_up(validation, test)
        assert results.ranking().tolist() == [2, 1, 0]
        assert results.best_of_each_loss() == [2, 0]


def test_a_diverged_configuration_is_never_chosen():
    """One seed that diverged puts a configuration last, however good the others."""
    results = made_up([[5.0, 5.0], [0.0, np.nan], [4.0, 2.0]], [[1.0] * 2] * 3)
    assert results.ranking().tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("gaps", "advised", "words"),
    [
        ([2.0, 2.2, 1.8], 2, "is 2.0 ± 0.1 better than that of squared_error."),
        (
            [2.0, -2.2, 0.8],
            0,
            "is 0.2 ± 1.2 better than that of squared_error: no gain",
        ),
        (
            [-2.0, -2.2, -1.8],
            0,
            "is 2.0 ± 0.1 worse than that of squared_error: no gain",
        ),
        ([2.0], 2, "better than that of squared_error; one seed cannot tell"),
    ],
)
def test_verdict_asks_whether_the_gain_is_noise(gaps, advised, words):
    """Seeds are compared in pairs; within two standard errors, the simpler loss.

    The errors are expressions: deviations (0, 0.2, -0.2) and (1.8, -2.4, 0.6) have
    standard errors sqrt(0.08 / 6) = 0.1 and sqrt(9.36 / 6) = 1.2.
    """
    drift = 10.0 * np.arange(1, len(gaps) + 1)  # of each seed: it cancels in pairs
    plain, chosen = list(drift), list(drift - gaps)
    n = len(gaps)
    results = made_up([[3.0] * n, [2.0] * n, [1.0] * n], [plain, plain, chosen])
    found, sentence = report.verdict(results)
    assert found == advised
    assert sentence.startswith("Chosen on validation: huber delta=2.")
    assert words in sentence


def test_verdict_without_a_comparison():
    """A single loss is advised as it is; if nothing was trained, nothing is."""
    results = made_up([[1.0], [2.0], [3.0]], [[1.0]] * 3)
    results.losses, results.hyperparameters = (
        ["huber"] * 3,
        [{"learning_rate": 0.1}] * 3,
    )
    assert report.verdict(results) == (0, "Chosen on validation: huber.")
    diverged = made_up([[np.nan]] * 3, [[np.nan]] * 3)
    assert report.verdict(diverged)[0] is None


def test_table_shows_the_best_of_each_loss_first():
    """The order is that of validation, and no more rows than were asked for."""
    results = made_up([[5.0, 5.0], [3.0, 4.0], [4.0, 2.0]], [[1.0, 2.0]] * 3)
    table = report.to_table(results, rows=3)
    names = list(table.columns[0].cells)
    assert names == ["huber delta=2", "squared_error", "huber delta=1"]
    # Mean 1.5; the standard error of two values is half their distance.
    assert list(table.columns[2].cells) == ["1.5 ± 0.5"] * 3


def test_configurations_hold_only_valid_numbers():
    """A loss that lacks a hyperparameter gets a valid one: NaN * 0 would be NaN."""
    values = {name: x.default for name, x in experiment.HYPERPARAMETERS.items()}
    names = ["sigmoid_cross_entropy", "sigmoid_focal"]
    found = experiment.configurations(names, values)
    n = 4 * (1 + 3 + 3 + 4 * 4)  # the focal losses without focus: 3 new weights
    assert len(found.losses) == len(found.hyperparameters) == n
    for name, column in found.arrays.items():
        assert column.shape == (n,)
        assert np.isfinite(column).all()
        for value, own in zip(column, found.hyperparameters, strict=True):
            assert name not in own or own[name] == value
    assert {names[int(i)] for i in found.arrays["loss"]} == set(names)


def test_standardiser():
    """Mean 0, variance 1, a constant column without a division by zero, and back."""
    x = np.array([[1.0, 7.0], [3.0, 7.0]])
    found = experiment.Standardiser.fit(x)
    np.testing.assert_array_equal(found(x), [[-1, 0], [1, 0]])
    np.testing.assert_array_equal(found.undo(found(x)), x)
    constant = 0.1 * (1 + np.spacing(1.0) * np.arange(4.0))[:, None]  # up to rounding
    assert constant.std() > 0
    assert experiment.Standardiser.fit(constant).scale == 1


def test_batches_are_drawn_anew_at_every_step():
    """The rows of a batch follow from the key and the step, and all are reached."""
    seen = []

    def spy(predictions, targets):
        seen.append(targets.tolist())
        return predictions - targets

    loss = experiment.Loss(datasets.REGRESSION, spy)
    rows = jnp.ones((5, 1), jnp.float32), jnp.arange(5, dtype=jnp.float32)
    values = {"loss": jnp.float32(0), "learning_rate": jnp.float32(0.1)}
    run = experiment._trainer(1, [loss], 4)(values, jax.random.key(0), rows, {})
    for i in (*range(10), 0):
        run.step(run.state, jnp.int32(i))
    assert seen.pop() == seen[0]
    assert len({tuple(batch) for batch in seen}) == 10
    assert {row for batch in seen for row in batch} == {0, 1, 2, 3, 4}


def test_area_under_the_drawn_curve_is_the_average_precision():
    """For the mean of several runs, ties included: picture and table agree."""
    random = np.random.default_rng(1)
    labels = random.random(60) < 0.3
    scores = np.round(random.normal(size=(4, 60)) + labels, 1)
    line = plot.plot_precision_recall(labels, scores, label="runs").lines[0]
    recall, precision = map(np.asarray, (line.get_xdata(), line.get_ydata()))
    area = np.sum(np.diff(recall) * precision[1:])
    expected = np.mean(
        [sklearn_metrics.average_precision_score(labels, one) for one in scores]
    )
    np.testing.assert_allclose(area, expected, rtol=1e-12)


def test_chance_is_drawn_once():
    """Two curves on the same axes, one dotted line at the share of positives."""
    labels, scores = np.array([0, 1, 0, 0]), np.array([0.1, 0.9, 0.3, 0.2])
    ax = plot.plot_precision_recall(labels, scores)
    assert plot.plot_precision_recall(labels, scores, index=1, ax=ax) is ax
    levels = [line.get_ydata() for line in ax.lines if line.get_gid() == "reference"]
    np.testing.assert_array_equal(levels, [[0.25, 0.25]])
    assert len({line.get_color() for line in ax.lines}) == 3


def test_error_distribution_is_the_empirical_one():
    """At each error of the run, the share of errors up to it."""
    line = plot.plot_error_distribution([0.0, 0.0, 0.0, 0.0], [3.0, -1.0, 2.0, 1.0])
    np.testing.assert_array_equal(line.lines[0].get_xdata(), [0, 1, 1, 2, 3])
    np.testing.assert_array_equal(line.lines[0].get_ydata(), [0, 0.25, 0.5, 0.75, 1])


def test_errors_of_a_sweep_are_those_of_the_difference():
    """Runs that drift with the reference have no error left."""
    drift = np.array([1.0, 2.0, 6.0])
    ax = plot.plot_sweep([0.0, 1.0], [drift, drift + 1], reference=drift)
    (_, _, (bars,)) = ax.containers[0]
    for segment, mean in zip(bars.get_segments(), [3, 4], strict=True):
        np.testing.assert_allclose(segment[:, 1], [mean, mean], rtol=1e-12)
    level = plot.plot_level(drift, reference=drift).lines[0]
    np.testing.assert_array_equal(level.get_ydata(), [3, 3])


def test_standard_error():
    """Of 1, 2, 3: 1 / sqrt(3); of one run there is none."""
    np.testing.assert_allclose(plot.standard_error(np.arange(3.0)), 3**-0.5)
    assert np.isnan(plot.standard_error(np.ones((2, 1)))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plot.plot_precision_recall([0, 1], [[0.1, 0.2, 0.3]]),
            "plot_precision_recall: `scores` has shape .1, 3.",
        ),
        (
            lambda: plot.plot_precision_recall([1, 1], [0.1, 0.2]),
            "`labels` has one class only; expected 0 and 1",
        ),
        (
            lambda: plot.plot_error_distribution([0.0], [1.0, 2.0]),
            "plot_error_distribution: `predictions` has shape .1, 2.",
        ),
        (lambda: plot.plot_sweep([1.0], [1.0]), "plot_sweep: `results` has shape .1,."),
        (lambda: plot.plot_level([[1.0]]), "plot_level: `results` has shape .1, 1.;"),
    ],
)
def test_plots_check_their_shapes(call, message):
    """In the words of the house."""
    with pytest.raises(ValueError, match=message):
        call()
