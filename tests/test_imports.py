"""The layers: who may import whom, and what importing the package costs.

Importing is read from the source, so that a forbidden import is found on the machine
where the forbidden package happens to be installed.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

import jaxloss

ROOT = pathlib.Path(jaxloss.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

BASE = {"_checks", "stable", "reduce"}
# What one loss may use of another is its formula, which lives in these.
SHARED = BASE | {"margins", "targets", "logits"}
APPLICATION = {
    "__main__",
    "_commands",
    "_formula",
    "_sweep",
    "catalogue",
    "cli",
    "datasets",
    "experiment",
    "gallery",
    "plot",
    "report",
}
HEAVY = {"flax", "sklearn", "matplotlib", "rich", "pandas"}


def imports(source, *, at_import=False):
    """The modules a source imports, dotted; `at_import` leaves out those inside
    functions and under `TYPE_CHECKING`."""
    nodes = [ast.parse(source)]
    found = set()
    while nodes:
        node = nodes.pop()
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if at_import and (lazy or typing):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return found


def ours(source):
    """The modules and packages of ours that a source imports, by their first name."""
    dotted = [name.split(".") for name in imports(source)]
    return {name[1] if name[1:] else "" for name in dotted if name[0] == "jaxloss"}


def layer(path):
    """A module's first name below the package: `stable` for `stable/rows.py`."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def allowed(name):
    """The first names that modules of one layer may import."""
    if name in ("_checks", "reduce", "stable"):
        return {"_checks", name}
    if name in ("testing", "_trials", "_decomposable"):
        return {"_checks", "reduce", "testing", "_trials", "_decomposable"}
    if name == "landscape":
        return {"_checks", "stable"}
    others = APPLICATION | {"train", "compat", "testing", "landscape"}
    losses = {layer(p) for p in SOURCES} - others
    if name in ("kernels", "parallel"):
        return losses
    if name in ("train", "compat"):
        return losses | {name}
    private = {n for n in losses if n.startswith("_")} - {
        "__init__",
        "_trials",
        "_decomposable",
    }
    return SHARED | private


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if layer(p) not in APPLICATION | {"__init__"}],
    ids=named,
)
def test_imports_only_the_layers_below(path):
    """`stable` knows no loss, a loss knows no other loss, no loss knows training or
    what it looks like."""
    assert ours(path.read_text()) <= allowed(layer(path))


@pytest.mark.parametrize("path", SOURCES, ids=named)
class TestEveryModule:
    def test_imports_optax_only_for_training(self, path):
        """At import, optax belongs to `train` and to the module that imitates it."""
        roots = {n.split(".")[0] for n in imports(path.read_text(), at_import=True)}
        assert "optax" not in roots or layer(path) in ("train", "compat")

    def test_imports_no_optional_package(self, path):
        """flax, scikit-learn and matplotlib are imported where they are used."""
        roots = {n.split(".")[0] for n in imports(path.read_text(), at_import=True)}
        assert not roots & HEAVY or named(path) == "train/nnx.py"

    def test_is_short(self, path):
        """A module that outgrows 500 lines is split by topic."""
        assert len(path.read_text().splitlines()) <= 500


def test_testing_needs_only_numpy_and_jax():
    """A user of `jaxloss.testing` needs neither pytest nor mpmath."""
    for name in ("testing.py", "_trials.py", "_decomposable.py"):
        roots = {n.split(".")[0] for n in imports((ROOT / name).read_text())}
        assert roots - sys.stdlib_module_names <= {"jax", "jaxloss", "numpy"}


def test_importing_the_package_imports_nothing_optional():
    """`import jaxloss` costs jax and numpy, no more."""
    code = "import sys, jaxloss; print(*{name.split('.')[0] for name in sys.modules})"
    run = [sys.executable, "-c", code]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert {"jax", "jaxloss"} <= set(loaded.split())
    assert not set(loaded.split()) & (HEAVY | {"optax", "pytest", "mpmath"})


def test_the_reader_of_imports_sees_them():
    """Imports of every form are found, and lazy ones only where they count."""
    source = (
        "import optax.losses\n"
        "from jaxloss import _checks, huber\n"
        "from jaxloss.stable.rows import softmax\n"
        "if TYPE_CHECKING:\n    import rich\n"
        "def f():\n    import flax\n"
        "class A:\n    import sklearn\n"
    )
    assert ours(source) == {"_checks", "huber", "stable"}
    assert imports(source) >= {"optax.losses", "rich", "flax", "sklearn"}
    assert not imports(source, at_import=True) & {"rich", "flax"}
    assert imports(source, at_import=True) >= {"optax.losses", "sklearn"}


def test_the_rules_refuse_what_they_are_for():
    """No layer may import upwards."""
    assert not ours("from jaxloss import huber") <= allowed("regression")
    assert not ours("from jaxloss import classification") <= allowed("regression")
    assert not ours("from jaxloss import train") <= allowed("kernels")
    assert not ours("from jaxloss import stable") <= allowed("reduce")
    assert not ours("import jaxloss") <= allowed("regression")
