"""The guides are true: their code runs, in order, and prints what stands beside it."""

import contextlib
import functools
import io
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest

from bench import naive
from bench.optax_edges import shown

DOCS = pathlib.Path(__file__).parents[2] / "docs"
GUIDES = ["quick-start", "which-loss", "reductions", "numerics", "recipes"]
GUIDES += ["your-trainer", "metric-learning", "self-supervised"]
GUIDES += ["policies", "distillation", "noisy-labels"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
PRINTED = re.compile(r"^\s*print\(.*\)  # (\[?-?[\d.].*)$", re.MULTILINE)


@functools.cache
def printed(name):
    """What a reader sees who runs all code of a page, block after block."""
    seen, names = io.StringIO(), {}
    text = (DOCS / f"{name}.md").read_text()
    with jax.enable_x64(False), contextlib.redirect_stdout(seen):
        for block in BLOCK.findall(text):
            exec(compile(block, f"{name}.md", "exec"), names)
    return text, seen.getvalue().splitlines()


@pytest.mark.parametrize("name", GUIDES)
def test_code_runs(name):
    """What a page claims of numbers it asserts, or prints."""
    printed(name)


def test_the_quick_start_prints_what_it_says():
    """Numbers in the comment behind a `print`, to rounding."""
    text, lines = printed("quick-start")
    comments = PRINTED.findall(text)
    assert len(comments) == 4
    for comment, line in zip(comments, lines, strict=False):
        expected, found = (
            np.array(NUMBER.findall(x.split("]")[0]), float) for x in (comment, line)
        )
        np.testing.assert_allclose(found, expected, 1e-6)


@pytest.mark.parametrize(("page", "count"), [("quick-start", 2), ("which-loss", 1)])
def test_errors_are_quoted(page, count):
    """The messages in the comments are those that are raised."""
    text, lines = printed(page)
    raised = [line for line in lines if "expected" in line]
    assert len(raised) == count
    for message in raised:
        assert message in text.replace("\n# ", " ")


class TestNumerics:
    def test_the_table_of_naive_formulas_is_that_of_the_bench(self):
        """`python -m bench.naive --write docs/numerics.md` was run."""
        text, _ = printed("numerics")
        cells = r"^\| `(.*)` \| (.*) \| (.*) \| (.*) \| `(.*)` \|$"
        rows = re.findall(cells, text, re.M)
        assert [(r[0], r[2], r[4]) for r in rows] == [
            (row.naive, shown(row.truth), row.ours) for row in naive.ROWS
        ]
        for typed, wrong, _, right, called in rows:
            assert wrong == shown(naive.value(typed)), typed
            assert right == shown(naive.value(called)), called

    def test_ours_are_true_and_naive_ones_are_not(self):
        """Within ulps; and without one digit that is right."""
        for row in naive.ROWS:
            truth = np.float32(row.truth)
            error = np.abs(naive.value(row.ours) - truth)
            assert (error <= row.ulps * np.spacing(np.abs(truth))).all(), row
            wrong = naive.value(row.naive)
            assert not (np.abs(wrong - truth) <= 0.9 * np.abs(truth)).all() or (
                not np.isfinite(wrong).all()
            ), row


def example(name, path, **sizes):
    """What an example has made, in other sizes, as if it were the file at `path`."""
    source = (DOCS / "examples" / f"{name}.py").read_text()
    for size, (full, small) in sizes.items():
        names = re.search(rf"^(.*\b{size}\b.*) = (.*)$", source, re.M)
        assert names
        at = names[1].split(", ").index(size)
        values = names[2].split(", ")
        assert values[at] == str(full)
        values[at] = str(small)
        line = f"{names[1]} = {', '.join(values)}"
        source = source.replace(names[0], line)
    found: dict[str, Any] = {"__name__": "__main__", "__file__": str(path)}
    with jax.enable_x64(False):
        exec(compile(source, name, "exec"), found)
    return found


def test_ordinal_losses_are_off_by_less(tmp_path):
    """Than the likeliest class of cross entropy; and so is its own median."""
    path = tmp_path / "ordinal.py"
    found = example("ordinal", path, SPLITS=(20, 4), STEPS=(200, 100))["found"]
    plain = found.pop(("cross entropy", "likeliest")).mean()
    peak = found.pop(("squared_emd", "likeliest")).mean()
    assert len(found) == 5
    assert all(distance.mean() < min(plain, peak) for distance in found.values())


def test_a_margin_helps_retrieval(tmp_path):
    """With every seed, digits of the same kind are farther up the list.

    In full, a margin gains 0.088 of mean average precision or more; the deviation
    over seeds is 0.01: the bound is half of the gain.  The nearest is right as often,
    up to two standard errors of the difference of two shares of 0.96 of 897 digits.
    """
    pytest.importorskip("sklearn")
    path = tmp_path / "retrieval.py"
    scores = example("retrieval", path, STEPS=(300, 150), SEEDS=(4, 2))["scores"]
    plain, *margins = scores.values()
    assert [*scores] == ["softmax", "margin 0.0", "margin 0.3", "margin 0.5"]
    for margin in margins[1:]:
        gain = margin["precision"] - plain["precision"]
        assert gain.min() > 0.045
        assert (margin["nearest"] > plain["nearest"] - 0.02).all()
    assert (tmp_path / "retrieval.png").stat().st_size > 10_000


def test_losses_of_lists_put_digits_in_order(tmp_path):
    """Of held-out lists, by far better than before training: 0.88 and more after 100
    steps, where untrained networks have an NDCG@10 of 0.4 to 0.6."""
    pytest.importorskip("sklearn")
    path = tmp_path / "digit_lists.py"
    made = example("digit_lists", path, STEPS=(400, 100), SEEDS=(4, 1))
    with jax.enable_x64(False):
        untrained = made["draw"](jax.random.key(0))
        before = made["judge"](functools.partial(made["score"], untrained))
    found = made["found"]
    found.pop("pixels")
    names = ["listwise_softmax", "list_mle", "pairwise_ranking", "LambdaRank"]
    assert [*found] == [*names, "approx_ndcg"]
    for name, (score,) in found.items():
        assert before + 0.2 < score < 1, name


def test_the_perceptual_recipe_takes_noise_off(tmp_path):
    """Both networks, by every measure; and it draws them."""
    path = tmp_path / "perceptual.py"
    scores = example("perceptual", path, STEPS=(400, 60))["scores"]
    noisy = scores.pop("noisy")
    assert [*scores] == ["pixels", "pixels and features"]
    for score in scores.values():
        assert score["absolute error"] < 0.8 * noisy["absolute error"]
        assert score["of features"] < 0.7 * noisy["of features"]
        assert score["PSNR, dB"] > noisy["PSNR, dB"] + 2
        assert score["SSIM"] > noisy["SSIM"]
    assert (tmp_path / "perceptual.png").stat().st_size > 10_000


def test_digits_are_told_apart_without_labels(tmp_path):
    """Of 597 held-out digits, by the nearest of ten of each: with both losses more
    often than by the pixels, and no component collapses; a squared error alone does."""
    pytest.importorskip("sklearn")
    path = tmp_path / "two_views.py"
    sizes = {"SEEDS": (3, 1), "BATCH": (256, 128)}
    found = example("two_views", path, **sizes)["found"]
    (pixels,), (collapsed,) = found.pop("the pixels"), found.pop("squared error alone")
    assert collapsed["ten of each"] < 0.2
    assert [*found] == ["Barlow Twins", "VICReg"]
    for (score,) in found.values():
        # On three seeds by 0.03 to 0.04; another seed changes it by 0.005.
        assert score["ten of each"] > pixels["ten of each"] + 0.01
        assert score["least deviation"] > 0.1
    for variant in ("light", "dark"):
        assert (tmp_path / f"two_views.{variant}.png").stat().st_size > 10_000


def test_scores_of_forecasts_cover_what_they_say(tmp_path):
    """Of a likelihood, an interval of 90 % has fewer patients: by 7 % over 20 splits,
    and by half of that over 10 of them; and its CRPS is not the better one."""
    path = tmp_path / "diabetes.py"
    found = example("diabetes", path, SPLITS=(20, 10))["found"]
    likelihood, score = found["gaussian_nll"], found["crps_normal"]
    assert score[1].mean() - likelihood[1].mean() > 0.035
    assert 0.84 < score[1].mean() < 0.96
    assert score[0].mean() < likelihood[0].mean() < 40
