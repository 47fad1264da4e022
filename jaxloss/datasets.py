"""Small real data sets, and your own CSV files, as NumPy arrays.

Nothing is downloaded: the bundled sets are read from the installed scikit-learn.  A
`Dataset` has features, targets, and the names of what they are.
"""

import csv
import pathlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxloss import _checks

BINARY, REGRESSION = "binary", "regression"

# What pandas, R, databases and spreadsheets write for a value that is not there.
_MISSING = re.compile(
    r"|\?|#?n/?a|#n/a n/a|<na>|null|none|nil|[-+]?nan|-?1\.#(ind|qnan)"
    r"|#(value|ref|num|null)!|#div/0!|#name\?",
    re.IGNORECASE,
)

MOST_VALUES = 20  # of a column of words: one feature for each


class DataError(ValueError):
    """The data cannot be used; the text names the place and the remedy."""


class Dataset(NamedTuple):
    """Features `(n, d)` and targets `(n,)`, float64; binary targets are 0 and 1."""

    features: np.ndarray
    targets: np.ndarray
    task: str
    name: str
    feature_names: tuple[str, ...]
    target_name: str
    positive: str = ""
    one_hot: tuple[tuple[str, int], ...] = ()
    """The one-hot encoded columns, and their numbers of values, which are features."""

    @property
    def title(self) -> str:
        """The name of the data set and of the target."""
        if self.task == BINARY:
            return f"{self.name}: {self.positive} against the rest"
        return f"{self.name}: {self.target_name}"

    def describe(self) -> str:
        """One line: the title, the task and the size."""
        rows, columns = self.features.shape
        task = self.task
        if task == BINARY:
            task = f"binary, {float(self.targets.mean()):.1%} positive"
        text = f"{self.title} ({task}, {rows} rows, {columns} features)"
        if self.one_hot:
            text += "; one-hot: "
            text += ", ".join(
                f"{name} ({n} value{'s' * (n != 1)})" for name, n in self.one_hot
            )
        return text


class Splits(NamedTuple):
    """Row indices of the three disjoint parts of a data set."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def digits(positive: int = 8) -> Dataset:
    """Handwritten digits, one digit against the rest: 1797 rows, about 1 to 10.

    Reference:
      Alpaydin and Kaynak, "Cascading classifiers", Kybernetika 1998 (UCI digits).
    """
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return Dataset(
        data.data.astype(float),
        (data.target == positive).astype(float),
        BINARY,
        "handwritten digits",
        tuple(data.feature_names),
        "digit",
        f"digit = {positive}",
    )


def breast_cancer() -> Dataset:
    """Wisconsin diagnostic breast cancer: 569 rows, 37 % malignant (positive).

    Reference:
      Street et al., "Nuclear feature extraction for breast tumor diagnosis", 1993.
    """
    from sklearn.datasets import load_breast_cancer

    data: Any = load_breast_cancer()
    return Dataset(
        data.data.astype(float),
        (data.target == 0).astype(float),  # scikit-learn codes malignant as 0
        BINARY,
        "Wisconsin breast cancer",
        tuple(map(str, data.feature_names)),
        "diagnosis",
        "diagnosis = malignant",
    )


def diabetes() -> Dataset:
    """Diabetes progression after one year: 442 rows, a regression.

    Reference:
      Efron et al., "Least angle regression", Annals of Statistics 2004.
    """
    from sklearn.datasets import load_diabetes

    data: Any = load_diabetes()
    return Dataset(
        data.data.astype(float),
        data.target.astype(float),
        REGRESSION,
        "diabetes progression",
        tuple(data.feature_names),
        "progression",
    )


def read_csv(
    path: str | pathlib.Path, target: str, *, drop: Sequence[str] = ()
) -> Dataset:
    """Reads a CSV file with a header; every column but `target` is a feature.

    A column of words with at most 20 distinct ones is one-hot encoded: it becomes a
    feature of 0 and 1 for each of them, in alphabetical order, named "city = Rome".

    The separator is the comma, semicolon or tab that is most frequent in the header.
    A target with two distinct values (numbers or words) is a binary task, and the
    larger value, or the later word in alphabetical order, is the positive class, as
    in scikit-learn; any other numeric target is a regression.

    Args:
      path: The file, UTF-8.
      target: The name of the target column.
      drop: The names of columns that are left out; they may have any content.

    Returns:
      The data set, its rows in the order of the file.

    Raises:
      DataError: If the file cannot be read, a column is missing or repeated, mixes
        numbers and words or has more than 20 words, a cell is missing or infinite, a
        row is too short or too long, or the target has one value only.
    """
    path = pathlib.Path(path)
    header, rows, lines = _rows(path)
    # A letter with an accent is one sign, or two in names from a Mac.
    target, *drop = (unicodedata.normalize("NFC", name) for name in (target, *drop))
    _refuse_columns(path, header, target, drop)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    columns = {name: cells for name, cells in columns.items() if name not in drop}
    targets, task, positive = _target(path, target, columns.pop(target), lines)
    features: list[np.ndarray] = []
    names, one_hot = [], []
    for name, cells in columns.items():
        words = _words(path, name, cells, lines)
        if words:
            stripped = np.array([cell.strip() for cell in cells])
            features += [stripped == word for word in words]
            names += [f"{name} = {word}" for word in words]
            one_hot.append((name, len(words)))
        else:
            features.append(_numbers(path, name, cells, lines))
            names.append(name)
    return Dataset(
        np.stack(features, axis=1).astype(float),
        targets.astype(float),
        task,
        path.name,
        tuple(names),
        target,
        positive,
        tuple(one_hot),
    )


def column_names(path: str | pathlib.Path) -> list[str]:
    """The header of a CSV file.

    Raises:
      DataError: If the file cannot be read as one.
    """
    header, _, _ = _rows(pathlib.Path(path))
    return header


def split(data: Dataset, *, seed: int = 0) -> Splits:
    """Splits the rows at random: 1/2 training, 1/4 validation, 1/4 test.

    The test rows are the same for every seed, so a choice made on the validation rows
    of many seeds has never used them.  The seed shuffles the other rows.

    Binary data is split class by class, so that every part has at least one row of each
    class.  The stratified split of scikit-learn may leave a rare class out of a part.

    Raises:
      DataError: If there are fewer than 8 rows, or fewer than 3 of one class.
    """
    n = len(data.targets)
    if n < 8:
        raise DataError(f"{data.name} has {n} rows; at least 8 are needed")
    classes = data.targets if data.task == BINARY else np.zeros(n)
    fixed, seeded = np.random.default_rng(0), np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[], [], []]
    for value in np.unique(classes):
        (members,) = np.nonzero(classes == value)
        if len(members) < 3:
            kind = "positive" if value else "negative"
            raise DataError(
                f"{data.name}: column {data.target_name!r} has only {len(members)} "
                f"{kind} rows; at least 3 are needed, one each for training, "
                "validation and test"
            )
        quarter = round(len(members) / 4)
        test, others = np.split(fixed.permutation(members), [quarter])
        validation, train = np.split(seeded.permutation(others), [quarter])
        for part, rows in zip(parts, (train, validation, test), strict=True):
            part.append(rows)
    return Splits(*(np.sort(np.concatenate(part)) for part in parts))


def _rows(path: pathlib.Path) -> tuple[list[str], list[list[str]], list[int]]:
    """The header, the rows below it, and the line of the file each row ends on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = re.sub('"[^"]*"', "", file.readline())
            file.seek(0)
            reader = csv.reader(
                (unicodedata.normalize("NFC", line) for line in file),
                delimiter=max(",;\t", key=first.count),
                skipinitialspace=True,  # or a quote after a blank is none
            )
            header = [name.strip() for name in next(reader, [])]
            read = [(row, reader.line_num) for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory; give a CSV file in it") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file in UTF-8 ({error}); export it as one"
        ) from None
    except ValueError as error:  # of a NUL in the path
        raise DataError(f"{str(path)!r} is not a path ({error}); check it") from None
    if not header:
        raise DataError(f"{path} is empty; its first line must name the columns")
    _refuse_header(path, header)
    if not read:
        raise DataError(f"{path} has a header but no rows")
    for row, line in read:
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells, but the header names "
                f"{len(header)} columns; correct the line"
            )
    return header, [row for row, _ in read], [line for _, line in read]


def _refuse_header(path: pathlib.Path, header: list[str]) -> None:
    for i, name in enumerate(header):
        if not name:
            raise DataError(f"{path}: column {i + 1} has no name; name it in line 1")
        if name in header[:i]:
            raise DataError(f"{path}: two columns are named {name!r}; rename one")


def _refuse_columns(
    path: pathlib.Path, header: Sequence[str], target: str, drop: Sequence[str]
) -> None:
    """Refuses names that are not in the header, and leaving nothing to learn from."""
    for name in (target, *drop):
        if name not in header:
            raise DataError(
                f"{path} has no column {name!r}{_checks.nearest(name, header)}; its "
                f"columns are {_listing(header)}"
            )
    if target in drop:
        raise DataError(f"{path}: column {target!r} is the target; do not drop it")
    if not {*header} - {target, *drop}:
        raise DataError(
            f"{path} has no column besides {target!r}; keep at least one feature"
        )


def _target(
    path: pathlib.Path, name: str, cells: Sequence[str], lines: Sequence[int]
) -> tuple[np.ndarray, str, str]:
    """The target's values, its task, and the positive class in words."""
    cells = [cell.strip() for cell in cells]
    words = sorted(set(cells))
    text = [word for word in words if not _is_number(word)]
    for cell, line in zip(cells, lines, strict=True):
        _refuse_cell(f"{path}, line {line}: column {name!r}", cell)
    if not text:
        values = _numbers(path, name, cells, lines)
        words = [f"{value:g}" for value in np.unique(values)]
    elif len(words) > 2:
        if len(text) < len(words):  # numbers with a slip: name the cell
            _numbers(path, name, cells, lines)
        raise DataError(
            f"{path}: target column {name!r} has {len(words)} distinct words "
            f"({_listing(words)}); give two (a binary task) or numbers (a regression)"
        )
    else:
        values = np.array([float(cell == words[-1]) for cell in cells])
    if len(words) == 1:
        raise DataError(
            f"{path}: target column {name!r} has only one value ({words[0]}), so there "
            "is nothing to learn; add rows of another class or name another column"
        )
    if len(words) == 2:
        return values == values.max(), BINARY, f"{name} = {words[1]}"
    return values, REGRESSION, ""


def _words(
    path: pathlib.Path, name: str, cells: Sequence[str], lines: Sequence[int]
) -> list[str]:
    """The distinct words of a feature that has nothing else; none of a numeric one.

    Refuses too many of them, and what is a number but for a unit or a separator.
    """
    if _is_number(cells[0]):
        return []
    words = sorted({cell.strip() for cell in cells})
    if any(map(_is_number, words)):
        return []
    for cell, line in zip(cells, lines, strict=True):
        _refuse_cell(f"{path}, line {line}: column {name!r}", cell.strip())
    if len(words) > MOST_VALUES:
        raise DataError(
            f"{path}: column {name!r} has {len(words)} distinct words "
            f"({_listing(words)}); at most {MOST_VALUES} are one-hot encoded: drop the "
            "column (`--drop`) or encode it as numbers"
        )
    return words


def _numbers(
    path: pathlib.Path, name: str, cells: Sequence[str], lines: Sequence[int]
) -> np.ndarray:
    """The cells as float64; refuses a word, a missing value and an infinity."""
    try:
        values = np.array(list(map(number, cells)))
    except ValueError:
        values = np.array([number(c) if _is_number(c) else np.nan for c in cells])
    # Past float32 the standardised column could not be trained on.
    good = np.abs(values) <= np.finfo(np.float32).max
    if good.all():
        return values
    row = int(np.argmin(good))
    cell = cells[row].strip()
    where = f"{path}, line {lines[row]}: column {name!r}"
    _refuse_cell(where, cell)
    if _is_number(cell):
        raise DataError(f"{where} is {cell}, beyond float32; drop the row or rescale")
    raise DataError(
        f"{where} is not numeric, it has {cell!r}; correct it, drop the column "
        "(`--drop`) or encode it as numbers"
    )


def _refuse_cell(where: str, cell: str) -> None:
    """Refuses what is missing, and what is a number but for how it is written."""
    if _MISSING.fullmatch(cell):
        shown = f"is {cell}" if cell else "is empty"
        raise DataError(f"{where} {shown}; fill in the value or drop the row or column")
    if _is_number(cell):
        return
    if _is_number(cell.replace(",", ".")):
        raise DataError(f"{where} is {cell!r}; write decimals with a point")
    if _is_number(re.sub(r"[_,'’\s%$€£]", "", cell)):
        raise DataError(
            f"{where} is {cell!r}; write the number without separators and units"
        )


def _is_number(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True


def number(text: str) -> float:
    """What people write as a number: `float`, but for an underscore and for NaN.

    Raises:
      ValueError: If it is none.
    """
    value = float(text)
    if "_" in text or np.isnan(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def _listing(words: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown}, … ({len(words)} in all)"
