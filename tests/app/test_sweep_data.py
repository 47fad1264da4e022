"""`sweep --data` on files as people have them, and what its losses are called."""

import inspect
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import catalogue, datasets
from jaxloss.app import cli, commands, experiment, sweep

CITIES = ["Rome", "Oslo", "Bonn", "Oslo", "Rome", "Oslo", "Bonn", "Rome"]
YES = ["no", "yes", "no", "yes", "yes", "no", "yes", "no"]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes a CSV file from columns, into a working directory of its own."""
    monkeypatch.chdir(tmp_path)

    def write(name="file.csv", **columns):
        lines = [columns, *zip(*columns.values(), strict=True)]
        text = "".join(",".join(map(str, line)) + "\n" for line in lines)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def run(capsys, *arguments):
    """Status, output and error of a sweep."""
    try:
        status = cli.main(["sweep", *arguments])
    except SystemExit as stop:
        status = stop.code
    out, error = capsys.readouterr()
    return status, out, error


SHORT = ["--seeds", "1", "--steps", "2", "--grid", "learning_rate=0.01"]


# --- columns of words --------------------------------------------------------------


def test_words_are_one_hot(table):
    """A feature for each word, in alphabetical order, where the column was."""
    path = table(age=range(8), city=CITIES, size=range(8, 16), buys=YES)
    data = datasets.read_csv(path, "buys")
    names = ("age", "city = Bonn", "city = Oslo", "city = Rome", "size")
    assert data.feature_names == names
    expected = [[w == city for w in ("Bonn", "Oslo", "Rome")] for city in CITIES]
    np.testing.assert_array_equal(data.features[:, 1:4], np.array(expected, float))
    np.testing.assert_array_equal(data.features[:, 0], np.arange(8))
    np.testing.assert_array_equal(data.features[:, 4], np.arange(8, 16))
    assert data.features.dtype == float
    assert data.one_hot == (("city", 3),)
    plain = datasets.read_csv(path, "buys", drop=["city"])
    assert plain.one_hot == ()
    assert "one-hot" not in plain.describe()


@pytest.mark.parametrize("values", [1, 2, 20, 21])
def test_at_most_twenty_words(table, values):
    """More are likely names or texts: refused, with the remedies."""
    words = [f"word {i % values}" for i in range(42)]
    path = table(word=words, x=range(42), y=["a", "b"] * 21)
    if values <= 20:
        data = datasets.read_csv(path, "y")
        assert data.features.shape == (42, values + 1)
        np.testing.assert_array_equal(data.features[:, :-1].sum(axis=1), 1)
        assert f"one-hot: word ({values} value{'s' * (values > 1)})" in data.describe()
        return
    words = "column 'word' has 21 distinct words .*at most 20 .*`--drop`.* or encode"
    with pytest.raises(datasets.DataError, match=words):
        datasets.read_csv(path, "y")


def test_spelling_of_a_word_does_not_make_two(table):
    """Blanks around it, and an accent in one sign or in two."""
    composed, decomposed = "M\u00fcnchen", "Mu\u0308nchen"
    path = table(city=[composed, decomposed, f" {composed} ", "Bonn"] * 2, y=[0, 1] * 4)
    data = datasets.read_csv(path, "y")
    assert data.feature_names == ("city = Bonn", f"city = {composed}")


@pytest.mark.parametrize("cell", ["1_000", "5%", "1,5", "$7", "1'000", "3 000", "-2_0"])
@pytest.mark.parametrize("column", ["x", "y"])
def test_numbers_in_disguise_are_no_words(table, cell, column):
    """A column of them is neither read as numbers nor encoded as words."""
    columns = {"x": range(8), "y": [0, 1] * 4}
    columns[column] = [f'"{cell}"', f'"{cell}"', f'"{cell}1"', f'"{cell}1"'] * 2
    if cell in ("5%", "1,5"):
        columns[column] = [f'"{cell}"'] * 8
    words = "write (the number without separators and units|decimals with a point)"
    with pytest.raises(
        datasets.DataError, match=f"line 2: column '{column}' .*{words}"
    ):
        datasets.read_csv(table(**columns), "y")


def test_a_slip_in_a_column_of_numbers_is_no_word(table):
    """Wherever it is: 7 numbers and a word are a mistake, not 8 words."""
    for row in (0, 3, 7):
        cells = [*map(str, range(8))]
        cells[row] = "Rome"
        with pytest.raises(
            datasets.DataError, match=f"line {row + 2}: column 'x' is not numeric"
        ):
            datasets.read_csv(table(x=cells, y=[0, 1] * 4), "y")


MISSING = ["None", "#N/A", "<NA>", "nil", "NULL", "n/a", "NaN", "-nan", "?", "", "NONE"]
MISSING += ["#NA", "#N/A N/A", "#DIV/0!", "#VALUE!", "#REF!", "1.#QNAN", "-1.#IND"]


@pytest.mark.parametrize("cell", MISSING)
def test_missing_values_are_no_words(table, cell):
    """As pandas, R, databases and spreadsheets write them, in every kind of column."""
    for column, cells in {"x": [*"01234567"], "city": [*CITIES], "y": [*YES]}.items():
        columns = {"x": range(8), "city": CITIES, "y": YES, column: cells}
        cells[5] = f" {cell} "
        shown = cell or "empty"
        with pytest.raises(datasets.DataError) as caught:
            datasets.read_csv(table(**columns), "y")
        found = str(caught.value)
        assert f"line 7: column {column!r} is {shown}; fill in the value" in found


def test_words_that_look_like_missing_ones_are_words(table):
    """A value is missing if all of the cell says so."""
    words = ["Nana", "nilpotent", "Nonet", "1.5#", "na na", "Nullarbor", "NA1", "N"]
    data = datasets.read_csv(table(word=words, y=[0, 1] * 4), "y")
    assert data.one_hot == (("word", 8),)


# --- how files are written ---------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_quote_after_a_blank_is_a_quote(tmp_path, separator):
    """As in `age, "city, country"`: what is inside does not separate."""
    lines = [["age", ' "city"', " y"]]
    lines += [[str(i), f' "Oslo{separator} {i % 3}"', f" {i % 2}"] for i in range(8)]
    path = tmp_path / "file.csv"
    path.write_text("".join(separator.join(line) + "\n" for line in lines))
    data = datasets.read_csv(path, "y")
    assert data.feature_names == (
        "age",
        *(f"city = Oslo{separator} {i}" for i in "012"),
    )


def test_a_separator_in_a_quoted_name_is_none(tmp_path):
    """The separator is counted outside of quotes."""
    path = tmp_path / "file.csv"
    path.write_text('"price, in EUR, net";y\n' + "1;0\n2;1\n" * 4)
    assert datasets.read_csv(path, "y").feature_names == ("price, in EUR, net",)


@pytest.mark.parametrize("in_file", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_an_accent_is_one_sign_or_two(table, capsys, in_file, asked):
    """A Mac writes `u` and two dots: names are the same as on another machine."""
    target, other = "Gr\u00f6\u00dfe, m\u00fcde", "\u00e9t\u00e9"
    columns = {target: [0, 1] * 4, other: YES, "x": range(8)}
    columns = {f'"{unicodedata.normalize(in_file, k)}"': v for k, v in columns.items()}
    path = table(**columns)
    target, other = (unicodedata.normalize(asked, name) for name in (target, other))
    data = datasets.read_csv(path, target, drop=[other])
    assert data.feature_names == ("x",)
    status, _, error = run(
        capsys, "--data", str(path), "--target", target, "--drop", target
    )
    assert status == 2
    assert "is the target; do not drop it" in error


def test_a_nul_in_a_path_is_refused(capsys, tmp_path, monkeypatch):
    """Of every option that is one, and in the library."""
    monkeypatch.chdir(tmp_path)
    for command in (
        ["sweep", "--data", "a\0b.csv", "--target", "y"],
        ["sweep", "--out", "a\0b"],
        ["show", "huber", "--plot", "a\0b.png"],
        ["verify", "--out", "a\0b"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(command)
        out, error = capsys.readouterr()
        assert (stop.value.code, out) == (2, "")
        assert error.count("\n") == 1
        assert "has a NUL, as no path has" in error
    for read in (datasets.column_names, lambda path: datasets.read_csv(path, "y")):
        with pytest.raises(datasets.DataError, match=r"'a.x00b.csv' is not a path"):
            read("a\0b.csv")


# --- --drop ------------------------------------------------------------------------


def test_drop_leaves_columns_out(table):
    """By commas or spaces, repeated or not; a name may have a comma itself."""
    broken = ["", *"abcdefg"]
    path = table(id=broken, x=range(8), city=CITIES, **{'"a,b"': broken}, y=YES)
    for words in (["id,city", "a,b"], ["id", "a,b", "city"], ["a,b", "id,id,", "city"]):
        assert sweep._data(path, "y", words).feature_names == ("x",)
    assert sweep._data(path, "y", ["id", "a,b"]).one_hot == (("city", 3),)
    plain = table(name="plain.csv", x=range(8), city=CITIES, y=YES)
    assert sweep._data(plain, "y", ["city"]).feature_names == ("x",)
    assert len(sweep._data(plain, "y", []).feature_names) == 4


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (["ID"], "has no column 'ID' (did you mean 'id'?); its columns are id, x, y"),
        (["y"], "column 'y' is the target; do not drop it"),
        (["id,y"], "column 'y' is the target; do not drop it"),
        (["id", "x"], "has no column besides 'y'; keep at least one feature"),
        ([","], "--drop is empty; choose among id, x, y"),
    ],
)
def test_drop_refuses_what_it_cannot_do(table, capsys, drop, words):
    """One line that names the column, and nothing is written."""
    path = table(id=range(8), x=range(8), y=YES)
    status, out, error = run(
        capsys, "--data", str(path), "--target", "y", "--drop", *drop
    )
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert words in error
    status, _, error = run(capsys, "--drop", "id")
    assert status == 2
    assert "--drop id is of no use without --data; add FILE.csv" in error


def test_an_underscore_is_no_part_of_a_number(capsys):
    """Of the grid neither."""
    status, _, error = run(capsys, "--grid", "gamma=1_0")
    assert status == 2
    assert "gamma is '1_0'; give a number in [0, inf)" in error


# --- names of losses ---------------------------------------------------------------


def test_losses_have_the_names_of_the_library():
    """What `sweep` says can be shown, and called."""
    known = {entry.name for entry in catalogue.entries()}
    for name, loss in experiment.LOSSES.items():
        assert name in known
        assert loss.function is getattr(jaxloss, name)
        assert {*loss.hyperparameters} <= {*inspect.signature(loss.function).parameters}
    assert not {*experiment.ALIASES} & {*experiment.LOSSES}
    assert {*experiment.ALIASES.values()} <= {*experiment.LOSSES}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cross_entropy", "sigmoid_cross_entropy"),
        ("weighted_cross_entropy", "sigmoid_cross_entropy"),
        ("focal", "sigmoid_focal"),
        ("squared", "squared_error"),
        ("absolute", "absolute_error"),
    ],
)
def test_old_names_still_work(old, new):
    """They are other words for the same loss; a mistyped one is found by either."""
    assert sweep._losses([old]) == sweep._losses([new]) == [new]
    assert sweep._losses([f"{old},{new}", old]) == [new]
    with pytest.raises(commands.Refusal, match=rf"did you mean '{old}'"):
        sweep._losses([f"{old}x"])


def test_a_focal_loss_without_focus_is_not_reported_as_focal(table, capsys):
    """In no line of the output, whatever was asked for; the note says what it is."""
    path = table(id=range(8), x=range(8), city=CITIES, y=YES)
    more = ["--losses", "focal", "--grid", "gamma=0", "alpha=0.5,0.8", "--drop", "id"]
    arguments = ["--data", str(path), "--target", "y", *more, *SHORT]
    status, out, error = run(capsys, *arguments)
    assert (status, error) == (0, "")
    assert "50.0% positive, 8 rows, 4 features); one-hot: city (3 values)" in out
    note = (
        "sigmoid_focal with gamma=0 is sigmoid_cross_entropy with "
        "pos_weight = alpha / (1 - alpha), and is listed so"
    )
    assert out.count(note) == 1
    assert "focal" not in out.replace(note, "")
    assert "sigmoid_cross_entropy pos_weight=4" in out
    assert "focal" not in (path.parent / "jaxloss-sweep" / "results.csv").read_text()


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.5, 0.9])
def test_simpler_losses_are_the_same_but_for_a_factor(alpha):
    """The factor is `1 - alpha` of the focal loss, 1/2 of the pinball loss."""
    first = jnp.array([-3.0, -0.5, 0.0, 2.0, 7.0] * 2, jnp.float32)
    second = jnp.array([0.0] * 5 + [1.0] * 5, jnp.float32)
    settings = {"learning_rate": 0.1, "gamma": 0.0, "alpha": alpha, "quantile": 0.5}
    for name, factor in {"sigmoid_focal": 1 - alpha, "pinball": 0.5}.items():
        one = experiment.LOSSES[name]
        given = {key: settings[key] for key in ("learning_rate", *one.hyperparameters)}
        simple, own, note = experiment.simplest(name, given)
        assert simple in note
        assert own.pop("learning_rate") == 0.1
        given.pop("learning_rate")
        other = experiment.LOSSES[simple].function
        for take in (lambda loss: loss, lambda loss: jax.grad(lambda x: loss(x).sum())):
            np.testing.assert_allclose(
                take(lambda x, one=one, given=given: one.function(x, second, **given))(
                    first
                ),
                factor * take(lambda x, own=own, f=other: f(x, second, **own))(first),
                rtol=1e-5,
            )
    assert experiment.simplest("sigmoid_focal", {**settings, "gamma": 1e-3})[2] == ""


def test_a_configuration_is_listed_once():
    """Whether it was asked for by one name or by two; the plain loss comes first."""
    values = {
        "learning_rate": [0.1, 0.2],
        "gamma": [2.0, 0.0],
        "alpha": [0.9, 0.5, 0.75],
        "pos_weight": [9.0, 3.0, 1.0],
        "quantile": [0.5],
    }
    found = experiment.configurations(
        ["sigmoid_focal", "sigmoid_cross_entropy"], values
    )
    expected = ["sigmoid_cross_entropy"] * 6 + ["sigmoid_focal"] * 6
    assert sorted(found.losses) == expected
    entropy = [
        i for i, name in enumerate(found.losses) if name == "sigmoid_cross_entropy"
    ]
    own = [found.hyperparameters[i].get("pos_weight", "plain") for i in entropy]
    assert own[:2] == ["plain"] * 2
    assert [float(f"{x:.6g}") for x in sorted(own[2:])] == [3, 3, 9, 9]
    weights = found.arrays["pos_weight"][entropy]
    np.testing.assert_array_equal(weights[:2], 1)
    alone = experiment.configurations(["pinball", "absolute_error"], values)
    assert alone.losses == ["absolute_error"] * 2
