"""`jaxloss list`, `show` and `check`: what they print, what they refuse."""

import inspect
import io
import itertools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.text import Text

import jaxloss
from jaxloss import catalogue, testing
from jaxloss.app import cli, commands, formula, gallery
from jaxloss.testing import checking

ENTRIES = {entry.name: entry for entry in catalogue.entries()}


def run(capsys, *arguments):
    """Status, output and error of a command."""
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    out, error = capsys.readouterr()
    return int(status or 0), out, error


def refusal(capsys, *arguments):
    """What is said of a request that cannot be met: one line, status 2, no output."""
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert error.startswith(f"jaxloss {arguments[0]}: ")
    return error


# --- list --------------------------------------------------------------------------


def test_list_has_every_loss_with_its_facts(subtests, capsys):
    """One line each, of at most 120 columns, from which all facts can be cut again."""
    status, out, error = run(capsys, "list")
    head, *lines = out.splitlines()
    assert (status, error) == (0, "")
    assert max(map(len, (head, *lines))) <= 120
    assert re.split("  +", head) == [*commands._COLUMNS]
    assert len(lines) == len(ENTRIES)
    for line in lines:
        name, tasks, activation, values, robust, convex = re.split("  +", line)
        with subtests.test(name):
            entry = ENTRIES[name]
            assert tuple(tasks.split(", ")) == entry.tasks
            assert (activation, values) == (entry.activation, entry.range)
            assert robust in entry.robust
            assert convex in entry.convex


def test_list_of_a_task_has_its_losses(subtests, capsys):
    """Those of which it is one of the tasks."""
    for task in catalogue.TASKS:
        with subtests.test(task):
            _, out, _ = run(capsys, "list", "--task", task)
            names = [line.split()[0] for line in out.splitlines()[1:]]
            assert names == [e.name for e in ENTRIES.values() if task in e.tasks]


ORDINAL = """\
loss               task     last layer gives  range       robust  convex
coral              ordinal  none (logits)     [0, inf)    yes     yes
corn               ordinal  none (logits)     [0, inf)    yes     yes
cumulative_logit   ordinal  none              [0, inf)    yes     yes
cumulative_probit  ordinal  none              [0, inf)    no      yes
squared_emd        ordinal  none (logits)     [0, K - 1]  yes     no
"""

NARROW = """\
coral
  task ordinal; last layer gives none (logits);
  range [0, inf); robust yes; convex yes
corn
  task ordinal; last layer gives none (logits);
  range [0, inf); robust yes; convex yes
cumulative_logit
  task ordinal; last layer gives none;
  range [0, inf); robust yes; convex yes
cumulative_probit
  task ordinal; last layer gives none;
  range [0, inf); robust no; convex yes
squared_emd
  task ordinal; last layer gives none (logits);
  range [0, K - 1]; robust yes; convex no
"""

MORE = "5 losses; `jaxloss show NAME` says more.\n"


def unstyled(text):
    """What is seen, without the codes of a terminal for bold letters."""
    return re.sub(r"\x1b\[\d*m", "", text)


def test_list_fits_the_terminal(capsys, monkeypatch):
    """A table by rich where it is as wide as that, plain without rich, else records."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    width = max(map(len, ORDINAL.splitlines()))
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run(capsys, "list", "--task", "ordinal")
    lines = [line.rstrip() for line in unstyled(out).splitlines()]
    assert lines[1] == "─" * width
    assert [lines[0], *lines[2:7]] == ORDINAL.splitlines()
    assert lines[7:] == MORE.splitlines()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rich", None)
        assert run(capsys, "list", "--task", "ordinal") == (0, ORDINAL + MORE, "")
    for narrow in (width - 1, 50, 49):
        monkeypatch.setenv("COLUMNS", str(narrow))
        _, out, _ = run(capsys, "list", "--task", "ordinal")
        assert max(map(len, out.splitlines())) <= narrow
    assert out == NARROW + MORE


@pytest.mark.parametrize("columns", [48, 60, 80, 100, 120])
def test_no_line_of_list_is_wider_than_the_terminal(capsys, monkeypatch, columns):
    """And every name is in one piece, to be pasted, with all its facts."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = run(capsys, "list")
    assert max(map(len, unstyled(out).splitlines())) <= columns
    words = unstyled(out).split()
    for name, entry in ENTRIES.items():
        assert name in words
        assert entry.range in " ".join(words)


def test_list_refuses_an_unknown_task(capsys):
    """With the nearest one, and all of them."""
    error = refusal(capsys, "list", "--task", "regresion")
    assert "no task 'regresion' (did you mean 'regression'?); choose among" in error
    assert all(task in error for task in catalogue.TASKS)


def test_list_finds_losses_by_their_other_names(capsys):
    """The nearest first; of one task, if that is asked for, too."""
    _, out, _ = run(capsys, "list", "--search", "cross entropy")
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names[:2] == ["sigmoid_cross_entropy", "softmax_cross_entropy"]
    asked = ("--search", "cross entropy", "--task", "ranking")
    _, out, _ = run(capsys, "list", *asked)
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["listwise_softmax"]


def test_list_refuses_words_that_no_loss_has(capsys):
    """With the nearest name, if there is one."""
    error = refusal(capsys, "list", "--search", "crossentropyloos")
    assert "no loss has 'crossentropyloos' in a name or its summary (did you" in error
    error = refusal(capsys, "list", "--search", "bce", "--task", "count")
    assert error.endswith(
        "no loss of the task count has 'bce' in a name or its summary\n"
    )


def test_list_in_a_process_of_its_own():
    """Piped: plain columns, in UTF-8 or not, and no traceback."""
    command = [sys.executable, "-m", "jaxloss", "list", "--task", "count"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "poisson_nll" in done.stdout


SCRIPT = "import sys; from jaxloss.__main__ import main; sys.exit(main())"
"""What an installer writes as the command `jaxloss`."""


@pytest.mark.parametrize("program", [("-m", "jaxloss"), ("-c", SCRIPT)], ids=str)
def test_a_reader_may_leave_early(program):
    """As `head` does: 141, and no traceback on stderr."""
    command = [sys.executable, *program, "list"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as listing:
        assert listing.stdout
        assert listing.stderr
        listing.stdout.close()
        assert listing.stderr.read() == ""
        assert listing.wait(timeout=120) == 141


# --- show --------------------------------------------------------------------------


def says_all_that_is_known(entry, out):
    """Each field of the catalogue."""
    known = (
        f"jaxloss.{entry.signature}",
        entry.summary,
        f"also called {', '.join(entry.also_called)}",
        f"when {entry.when}",
        f"not when {entry.not_when}",
        f"range {entry.range}",
        f"gradient {entry.gradient}",
        f"see also {', '.join(entry.related)}",
        f"reference {entry.reference}",
        *entry.arguments.values(),
        entry.example,
        *formula.plain(entry.formula).splitlines(),
    )
    words = " ".join(out.split())
    assert not [text for text in known if " ".join(text.split()) not in words]


def fits_100_columns(entry, out):
    """But for what cannot be broken."""
    lines = out.splitlines()[1:]  # the signature is one line, to be pasted
    assert not [line for line in lines if len(line) > 100 and ">>>" not in line]


def has_no_latex(entry, out):
    """No command, no sign of markup, no bracket that groups."""
    assert "\\" not in formula.plain(entry.formula)
    assert not re.search(r"[$&]|{(?! )|(?<! )}", formula.plain(entry.formula))


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_show(subtests, capsys, monkeypatch, entry):
    """What is printed of a loss is all, and readable; every complaint is listed."""
    monkeypatch.setenv("COLUMNS", "100")
    status, out, error = run(capsys, "show", entry.name)
    assert (status, error) == (0, "")
    for check in (says_all_that_is_known, fits_100_columns, has_no_latex):
        with subtests.test(check.__name__.replace("_", " ")):
            check(entry, out)


def test_show_says_under_which_condition(capsys):
    """`for` a condition is `if` in a sentence."""
    _, out, _ = run(capsys, "show", "general_robust")
    assert "robust       if alpha <= 1: the gradient stays bounded as an" in out
    assert "convex       if alpha >= 1: in the first argument" in out
    _, out, _ = run(capsys, "show", "squared_error")
    assert "robust       no: the gradient has no bound as an example gets" in out


def test_show_has_the_formula_of_the_docstring_where_signs_are_missing(monkeypatch):
    """Rather than a question mark for each of them."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["show", "huber"]) == 0
    out.flush()
    text = out.buffer.getvalue().decode()
    assert r"|r| \le \delta" in text
    assert "?" not in text


@pytest.mark.parametrize("ending", ["png", "svg", "PDF"])
def test_show_draws_a_picture(capsys, tmp_path, ending):
    """In the form that the name says, and says where it is."""
    file = tmp_path / f"huber.{ending}"
    status, out, _ = run(capsys, "show", "huber", "--plot", str(file))
    assert status == 0
    assert out.splitlines()[-1] == str(file)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "PDF": b"%PDF"}
    assert file.read_bytes().startswith(starts[ending])


@pytest.mark.parametrize("name", ["squared_error", "pinball"])
def test_a_picture_has_a_title(monkeypatch, tmp_path, name):
    """Which covers nothing, whether there is a legend above the axes or not."""
    figure, file = gallery.picture(name), tmp_path / "any.png"
    monkeypatch.setattr(gallery, "picture", lambda _: figure)
    assert cli.main(["show", name, "--plot", str(file)]) == 0
    figure.draw_without_rendering()  # in its own dots, not in those of the file
    texts = [x for x in figure.findobj(Text) if x.get_text() == f"jaxloss.{name}"]
    box = texts[0].get_window_extent()
    assert len(texts) == 1
    assert figure.bbox.count_contains(box.corners()) == 4
    entries = [x for legend in figure.legends for x in legend.get_texts()]
    assert not [x for x in entries if box.overlaps(x.get_window_extent())]
    around = [area for ax in figure.axes if (area := ax.get_tightbbox())]
    assert len(around) == 2
    assert not any(box.overlaps(area) for area in around)


def test_show_refuses_what_it_cannot_do(capsys, tmp_path, monkeypatch):
    """An unknown loss, a picture of no known form, in no directory, by nothing."""
    error = refusal(capsys, "show", "hubr")
    assert "no loss 'hubr' (did you mean 'huber'?); `jaxloss list` has" in error
    error = refusal(capsys, "show", "l1_loss")
    assert "no loss 'l1_loss' (did you mean 'absolute_error' or 'l1'?)" in error
    file = tmp_path / "huber.gif"
    error = refusal(capsys, "show", "huber", "--plot", str(file))
    assert "huber.gif does not end in .png, .svg, .pdf; rename it" in error
    error = refusal(capsys, "show", "huber", "--plot", str(tmp_path / "no" / "a.png"))
    assert "no is not a directory; name another" in error
    (tmp_path / "folder.png").mkdir()
    file = tmp_path / "folder.png"
    status, _, error = run(capsys, "show", "huber", "--plot", str(file))
    assert status == 2
    assert "folder.png cannot be written" in error
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = refusal(capsys, "show", "huber", "--plot", str(tmp_path / "a.png"))
    assert "matplotlib not installed; run: pip install 'jaxloss[demo]'" in error
    assert not (tmp_path / "a.png").exists()


FORMULAS = [
    (r"\frac{a + b}{2c}", "(a + b)/(2c)"),
    (r"\tfrac12 x", "½ x"),
    (r"\log\frac{1 + p}{1 + t}", "log((1 + p)/(1 + t))"),
    (r"\log\cosh r", "log cosh r"),
    (r"e^{-y s} + x_{ij}^2", "e⁻ʸˢ + xᵢⱼ²"),
    (r"\sum_{j \ne y} \max(0,\; m)^\gamma", "∑_(j ≠ y) max(0, m)^γ"),
    (r"\left(\|a - p\|_2\right)_w", "(‖a − p‖₂)_w"),
    (r"\text{log-rate} - 1, \qquad t = \mathcal N", "log-rate − 1\nt = N"),
    (
        r"\begin{cases} a & x > 0 \\ -b & x \le 0 \end{cases}",
        "{ a if x > 0; −b if x ≤ 0 }",
    ),
    (r"\sqrt p + \sqrt{1 - p}", "√p + √(1 − p)"),
    (r"\Omega^*(s) = \pi_{\text{old}}", "Ω*(s) = π_old"),
    (r"\Bigl(x_i - \bar x\Bigr)^2", "(xᵢ − x̄)²"),
    (r"\arctan \frac{w}{h}", "arctan(w/h)"),
]


def test_formulas_are_readable(subtests):
    """Fractions have their brackets, and scripts are raised if all letters can be."""
    for latex, text in FORMULAS:
        with subtests.test(latex):
            assert formula.plain(latex) == text


def test_an_unknown_command_is_no_silent_loss(subtests):
    """So that whoever writes a formula hears of it."""
    for latex in (r"\nonsense x", r"\begin{matrix} a \end{matrix}"):
        refusal = pytest.raises(ValueError, match="the formula has the unknown")
        with subtests.test(latex), refusal:
            formula.plain(latex)


# --- check -------------------------------------------------------------------------

MINE = """\
import jax.numpy as jnp
import jaxloss
from jaxloss.testing import LossSpec


def wide(*arrays):
    common = jnp.promote_types(jnp.result_type(*arrays), "float32")
    return [jnp.asarray(a, common) for a in arrays]


def cubed(predictions, targets, *, power=3.0):
    p, t = wide(predictions, targets)
    return jnp.abs(p - t.astype(p.dtype)) ** power


def averaged(predictions, targets):
    return jnp.mean(cubed(predictions, targets))


def decision(logits, labels):
    return jaxloss.sigmoid_cross_entropy(logits, labels)


def naive(logits, labels):
    x, y = wide(logits, labels)
    p = 1 / (1 + jnp.exp(-x))
    return -y * jnp.log(p) - (1 - y) * jnp.log(1 - p)


def either(logits, labels):
    return jaxloss.softmax_cross_entropy(logits, labels)


def ids(logits, labels):
    return jaxloss.softmax_cross_entropy(logits, labels.astype(int))


def signed(scores, labels):
    return jaxloss.hinge(scores, labels)


def unclear(a, b):
    return jaxloss.squared_error(a, b)


def unit(probs, labels):
    p, y = wide(probs, labels)
    return jnp.where(y == 1, -jnp.log(p), -jnp.log1p(-p))


def needs(predictions, targets, *, scale):
    return scale * predictions - targets


number = 3
SPEC = LossSpec(
    name="mine",
    fn=jaxloss.huber,
    sample=lambda rng, n: (rng.normal(size=n), rng.normal(size=n)),
    params={"delta": 1.0},
)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with losses of a user's own, and files that do not import."""
    for name, text in {
        "mylosses.py": MINE,
        "needy.py": "import nothere",
        "quits.py": "raise SystemExit(3)",
        "wrong.py": "def (",
        "fails.py": "raise ValueError('two\\nlines')",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        if name.removeprefix("_checked_") in (
            "mylosses",
            "more",
            "fails",
            "needy",
            "quits",
        ):
            del sys.modules[name]


@pytest.fixture
def two_laws(monkeypatch):
    """Only laws that trace and compile nothing."""
    kept = ("output_shape_and_dtype", "strict_promotion")
    laws = {fn: needs for fn, needs in testing.LAWS.items() if fn.__name__ in kept}
    monkeypatch.setattr(checking, "LAWS", laws)


def test_check_reports_every_law(mine, capsys):
    """All of them, on a loss that breaks one: status 1, with input and reason."""
    status, out, error = run(capsys, "check", "mylosses:cubed", "--convex")
    assert (status, error) == (1, "")
    assert out.startswith("cubed: ")
    for law in testing.LAWS:
        assert f" {law.__name__}" in out
    assert "passed       is_convex" in out
    assert "not claimed  matches_reference (needs `reference`)" in out
    assert "failed       strict_promotion" in out
    assert "cubed was called with float" in out


INFERRED = [
    ("cubed", "numbers"),
    ("decision", "binary"),
    ("signed", "signs"),
    ("unit", "probabilities"),
]


@pytest.mark.parametrize(("name", "kind"), INFERRED)
@pytest.mark.usefixtures("two_laws")
def test_check_finds_the_kind_by_the_first_argument(mine, capsys, name, kind):
    """Of several kinds that it suggests, the one that gives one loss per example."""
    found = run(capsys, "check", f"mylosses.py:{name}")
    assert found == run(capsys, "check", f"mylosses:{name}", "--sample", kind)
    assert "passed       output_shape_and_dtype" in found[1]


@pytest.mark.usefixtures("two_laws")
def test_check_reports_under_the_name_that_was_asked_for(mine, capsys):
    """A partial function has none, and a compiled one that of another."""
    more = """
import functools, jax
third = functools.partial(cubed, power=2.0)
fast = jax.jit(cubed)
"""
    (mine / "more.py").write_text(MINE + more)
    for name in ("third", "fast"):
        _, out, _ = run(capsys, "check", f"more.py:{name}")
        assert out.startswith(f"{name}: ")


def test_every_kind_draws_one_row_per_example(subtests):
    """Two arrays for any batch shape, of numbers that the laws may narrow."""
    for (kind, found), shape in itertools.product(
        commands.KINDS.items(), ((3,), (2, 3))
    ):
        with subtests.test(f"{kind} {shape}"):
            first, second = map(np.asarray, found.draw(np.random.default_rng(0), shape))
            assert first.shape[: first.ndim - found.event_ndim] == shape
            assert second.shape in (shape, first.shape)
            assert np.isfinite(first).all()


SOUND = {
    "numbers": jaxloss.huber,
    "binary": jaxloss.sigmoid_cross_entropy,
    "classes": jaxloss.softmax_cross_entropy,
    "signs": jaxloss.exponential,
    "distributions": jaxloss.softmax_cross_entropy,
    "probabilities": jaxloss.squared_error,
    "positive": jaxloss.squared_log_error,
    "embeddings": jaxloss.cosine_distance,
}


@pytest.mark.parametrize("kind", commands.KINDS)
def test_a_sound_loss_is_finite_at_the_edges_of_its_kind(kind):
    """One of ours, value and gradient, on the examples that `check` adds."""
    first, second = map(np.asarray, commands.KINDS[kind].edges)
    losses = SOUND[kind](first, second)
    slope = jax.grad(lambda x: jnp.sum(SOUND[kind](x, second)))(first)
    assert len(losses) == len(first) == len(second)
    assert np.isfinite(losses).all()
    assert np.isfinite(slope).all()


def test_check_goes_to_the_edges(mine, capsys):
    """A logarithm of a rounded probability is found out, and where."""
    status, out, _ = run(capsys, "check", "mylosses:naive")
    assert status == 1
    assert "failed       finite_at_extremes" in out
    assert "expected a finite number; at logits=300.0, labels=0.0" in out


@pytest.mark.usefixtures("two_laws")
def test_check_of_a_spec_holds_it_to_its_claims(mine, capsys):
    """A LossSpec has its own sample; status 0 if all laws hold."""
    status, out, _ = run(capsys, "check", "mylosses:SPEC")
    assert status == 0
    assert out.startswith("mine: 2 passed, 0 failed, 0 not claimed")


@pytest.mark.usefixtures("two_laws")
def test_check_of_a_mean_fails(mine, capsys):
    """A reduction is not one loss per example, and that is what is said."""
    status, out, _ = run(capsys, "check", "mylosses:averaged")
    assert status == 1
    assert "the loss of float64 is ((), dtype('float64')); expected ((2, 3)," in out


UNMET = [
    (["mylosses"], "'mylosses' names no function; write mymodule:myloss or file.py"),
    (["nolosses:x"], "there is no module 'nolosses'; is it here ("),
    (["none.py:x"], "there is no file none.py; check the path"),
    (["mylosses:cubd"], "mylosses has no 'cubd' (did you mean 'cubed'?)"),
    (["needy:x"], "needy cannot be imported (No module named 'nothere')"),
    (["quits.py:x"], "quits.py cannot be imported (SystemExit: 3)"),
    (["wrong:x"], "wrong cannot be imported (SyntaxError: invalid syntax (wrong.py"),
    (["fails.py:x"], "fails.py cannot be imported (ValueError: two)"),
    (["mylosses:number"], "mylosses:number is of type int; name a function or a"),
    (
        ["mylosses:unclear"],
        "unclear(a, b): give the kind of its arguments by --sample; choose among",
    ),
    (["mylosses:either"], "either(logits, labels): give the kind of its arguments"),
    (["mylosses:ids", "--sample", "clases"], "no kind 'clases' (did you mean 'cla"),
    (
        ["mylosses:needs"],
        "cannot be called with two arrays (missing a required",
    ),
    (["mylosses:SPEC", "--convex"], "is a LossSpec, which has its own sample and"),
    (["mylosses:SPEC", "--sample", "signs"], "is a LossSpec, which has its own"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), UNMET, ids=[" ".join(a) for a, _ in UNMET]
)
def test_check_refuses_what_it_cannot_do(mine, capsys, arguments, message):
    """One line that names the value and the remedy, whatever a user's file does."""
    error = refusal(capsys, "check", *arguments)
    assert message in error
    if "--sample" in message:
        assert all(kind in error for kind in commands.KINDS)


# --- all of them -------------------------------------------------------------------


def test_help_is_about_the_command(capsys):
    """Tasks, kinds, examples, and the exit status."""
    for command, words in {
        "list": [*catalogue.TASKS, "last layer gives"],
        "show": ["--plot FILE", ".png, .svg or .pdf"],
        "check": [*commands.KINDS, "Exit status: 0 all checks pass", "mylosses:"],
    }.items():
        status, out, _ = run(capsys, command, "--help")
        assert status == 0
        assert all(word in out for word in words)


def test_an_unknown_argument_names_its_command(capsys):
    """And the nearest one that there is."""
    error = refusal_of_the_parser(capsys, "show", "huber", "--plt", "a.png")
    assert "show has no argument --plt (did you mean '--plot'?)" in error
    error = refusal_of_the_parser(capsys, "shwo")
    assert "invalid choice: 'shwo'" in error


def refusal_of_the_parser(capsys, *arguments):
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    return error


def test_without_a_command_there_is_help(capsys):
    """Nothing is wrong: what there is to ask, and status 0, as with --help."""
    status, out, error = run(capsys)
    assert (status, error) == (0, "")
    assert run(capsys, "--help") == (0, out, "")
    for command in ("sweep", "list", "show", "check", "verify"):
        assert f"\n    {command} " in out


def test_version_says_what_a_report_should(capsys):
    """Of jaxloss, JAX and Python."""
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"jaxloss {jaxloss.__version__} (jax {jax.__version__}, Python {python})\n"
    assert run(capsys, "--version") == (0, text, "")


def test_an_unknown_argument_without_a_command(capsys):
    """Is answered in one line, too; what argparse adds for itself is no hint."""
    error = refusal_of_the_parser(capsys, "--versoin")
    assert error == (
        "jaxloss: there is no argument --versoin (did you mean '--version'?); "
        "see jaxloss --help\n"
    )
    error = refusal_of_the_parser(capsys, "--hepl")
    assert "there is no argument --hepl (did you mean '--help'?)" in error
    assert "did you mean" not in refusal_of_the_parser(capsys, "list", "--rum")


def test_commands_know_every_public_loss():
    """What `list` calls a loss can be called."""
    known = {name: getattr(jaxloss, name, None) for name in ENTRIES}
    assert not [name for name, fn in known.items() if not inspect.isfunction(fn)]
