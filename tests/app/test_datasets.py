"""Data sets: what is read is what is in the file, and every slip names its place."""

import os
import pathlib

import numpy as np
import pytest

from jaxloss import datasets

TABLE = "age,income,default\n30,1.5,no\n40,2.5,yes\n50,-1e3,no\n"


def write(folder: pathlib.Path, text: str, name: str = "file.csv") -> pathlib.Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("load", "shape", "positives"),
    [(datasets.digits, (1797, 64), 174), (datasets.breast_cancer, (569, 30), 212)],
)
def test_bundled_binary_sets(load, shape, positives):
    """The counts are those of the UCI documentation: 174 eights, 212 malignant."""
    data = load()
    assert data.features.shape == shape
    assert sorted(set(data.targets)) == [0, 1]
    assert data.targets.sum() == positives
    assert data.task == datasets.BINARY
    assert "against the rest" in data.title


def test_bundled_regression_set():
    """442 patients, ten features, progression between 25 and 346 (Efron et al.)."""
    data = datasets.diabetes()
    assert data.features.shape == (442, 10)
    assert (data.targets.min(), data.targets.max()) == (25, 346)
    assert data.task == datasets.REGRESSION


def test_csv_is_read_as_written(tmp_path):
    """Columns keep their order and rows theirs; the later word is positive."""
    data = datasets.read_csv(write(tmp_path, TABLE), "default")
    np.testing.assert_array_equal(data.features, [[30, 1.5], [40, 2.5], [50, -1000]])
    np.testing.assert_array_equal(data.targets, [0, 1, 0])
    assert data.feature_names == ("age", "income")
    assert (data.task, data.positive) == (datasets.BINARY, "default = yes")


@pytest.mark.parametrize(
    "text",
    [
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        "\ufeff" + TABLE.replace("\n", "\r\n"),
        TABLE.replace("age", ' "age" ').replace("30", '"30"').replace(",", " , "),
        TABLE + "\n\n",
    ],
    ids=["semicolons", "tabs", "excel", "quotes-and-spaces", "blank-lines"],
)
def test_csv_dialects(tmp_path, text):
    """What spreadsheets write reads the same."""
    plain = datasets.read_csv(write(tmp_path, TABLE, "plain.csv"), "default")
    other = datasets.read_csv(write(tmp_path, text), "default")
    np.testing.assert_array_equal(other.features, plain.features)
    np.testing.assert_array_equal(other.targets, plain.targets)
    assert len(other.feature_names) == 2


@pytest.mark.parametrize(
    ("cells", "task", "targets"),
    [
        (["0", "1", "1"], datasets.BINARY, [0, 1, 1]),
        (["2", "1.0", "1"], datasets.BINARY, [1, 0, 0]),
        (["-1", "1", "-1"], datasets.BINARY, [0, 1, 0]),
        (["1e3", "2", "-0.5"], datasets.REGRESSION, [1000, 2, -0.5]),
    ],
)
def test_task_follows_from_the_target(tmp_path, cells, task, targets):
    """Two distinct numbers are classes, the larger positive; more are a regression."""
    text = "x,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    data = datasets.read_csv(write(tmp_path, text), "y")
    assert data.task == task
    np.testing.assert_array_equal(data.targets, targets)


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (
            TABLE,
            "Defaults",
            "no column 'Defaults'.*did you mean 'default'.*age, income",
        ),
        (TABLE.replace("40", "Paris"), "default", "line 3: .*'age' is not nu.*'Paris'"),
        (TABLE.replace("2.5", ""), "default", "line 3: .*'income' is empty; fill in"),
        (TABLE.replace("2.5", "nan"), "default", "line 3: .*'income' is nan; fill in"),
        (TABLE.replace("yes", "NA"), "default", "line 3: .*'default' is NA; fill in"),
        (TABLE.replace("2.5", "inf"), "default", "line 3: .*'income' is inf, beyond"),
        (TABLE.replace("2.5", "1e39"), "default", "line 3: .*is 1e39, beyond float32"),
        (TABLE.replace("2.5", '"2,5"'), "default", "line 3: .*'2,5'; .* with a point"),
        (TABLE.replace("yes", "no"), "default", "'default' has only one value .no."),
        (TABLE.replace("yes", "9").replace("no", "9"), "default", "only one value .9."),
        (TABLE + "1,2,maybe\n", "default", "3 distinct words .maybe, no, yes."),
        ("x,y\n1,1\n1,2\n1,3\n1,many\n", "y", "line 5: .*'y' is not num.*'many'"),
        (TABLE + "1,2\n", "default", "line 5: 2 cells, but the header names 3"),
        (TABLE.replace("age", "income"), "default", "two columns are named 'income'"),
        (TABLE.replace("age", ""), "default", "column 1 has no name"),
        ("default\nno\nyes\n", "default", "no column besides 'default'"),
        ("age,default\n", "default", "has a header but no rows"),
        ("", "default", "is empty; its first line must name the columns"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, target, message):
    """The message names the column, the line, the value, and what to do."""
    with pytest.raises(datasets.DataError, match=f"file.csv.*{message}"):
        datasets.read_csv(write(tmp_path, text), target)


def test_lines_are_those_of_the_file(tmp_path):
    """A quoted cell over two lines does not shift the line that is named."""
    text = '"a\nb",y\n1,0\n?,1\n'
    with pytest.raises(datasets.DataError, match=r"line 4: column .* is \?"):
        datasets.read_csv(write(tmp_path, text), "y")


def test_unreadable_files_are_refused(tmp_path):
    """A missing file, a directory and a picture are told apart."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    for path, message in [
        (tmp_path / "none.csv", "there is no file .*none.csv"),
        (tmp_path, "is a directory"),
        (picture, "not a CSV file in UTF-8"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ]:
        with pytest.raises(datasets.DataError, match=message):
            datasets.read_csv(path, "y")


def test_column_names(tmp_path):
    """The header alone, for a message that lists what may be chosen."""
    path = write(tmp_path, TABLE)
    assert datasets.column_names(os.fspath(path)) == ["age", "income", "default"]


@pytest.mark.parametrize("load", [datasets.digits, datasets.diabetes])
def test_split_is_a_partition(load):
    """Every row is in exactly one part: half, a quarter, a quarter."""
    data = load()
    parts = datasets.split(data, seed=3)
    n = len(data.targets)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    np.testing.assert_allclose(
        [len(x) / n for x in parts], [0.5, 0.25, 0.25], atol=2 / n
    )


def test_split_is_stratified():
    """Each part has its share of the eights, to the nearest row."""
    data = datasets.digits()
    for rows, share in zip(
        datasets.split(data, seed=1), (0.5, 0.25, 0.25), strict=True
    ):
        assert abs(data.targets[rows].sum() - 174 * share) <= 1


def test_test_rows_are_the_same_for_every_seed():
    """Choosing on validation rows of any seed cannot see a test row of another."""
    data = datasets.digits()
    one, other, again = (datasets.split(data, seed=seed) for seed in (0, 1, 1))
    np.testing.assert_array_equal(one.test, other.test)
    assert not np.array_equal(one.train, other.train)
    for x, y in zip(other, again, strict=True):
        np.testing.assert_array_equal(x, y)


def binary(positives: int, negatives: int) -> datasets.Dataset:
    targets = np.r_[np.ones(positives), np.zeros(negatives)]
    features = np.arange(len(targets), dtype=float)[:, None]
    return datasets.Dataset(
        features, targets, datasets.BINARY, "made", ("x",), "y", "y = 1"
    )


@pytest.mark.parametrize(("positives", "negatives"), [(3, 5), (3, 1000), (4, 4)])
def test_rare_classes_reach_every_part(positives, negatives):
    """Three rows of a class are enough for one in each part, whatever the rest."""
    data = binary(positives, negatives)
    for seed in range(5):
        for rows in datasets.split(data, seed=seed):
            assert set(data.targets[rows]) == {0, 1}


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        (2, 100, "only 2 positive rows; at least 3"),
        (100, 1, "only 1 negative"),
        (3, 4, "has 7 rows; at least 8"),
    ],
)
def test_too_little_data_is_refused(positives, negatives, message):
    """What cannot be trained, chosen and tested on is refused with the count."""
    with pytest.raises(datasets.DataError, match=message):
        datasets.split(binary(positives, negatives))
