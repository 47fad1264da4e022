"""The layers: who may import whom, and what importing the package costs.

Importing is read from the source, so that a forbidden import is found on the machine
where the forbidden package happens to be installed.
"""

import ast
import graphlib
import operator
import pathlib
import subprocess
import sys

import pytest

import jaxloss

ROOT = pathlib.Path(jaxloss.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

GROUND = {"_checks", "_jit", "stable"}
BLOCKS = {
    *("_classes", "_pairs", "_whole_batch", "losses._risk_sets"),
    *("margins", "targets", "logits", "reduce"),
}
FAMILIES = {
    f"losses.{path.stem}"
    for path in (ROOT / "losses").iterdir()
    if not path.stem.startswith("_")
}
LOSSES = GROUND | BLOCKS | FAMILIES
FORMS = {"kernels", "parallel"}
TOOLS = {"catalogue", "claims", "datasets", "landscape", "plot", "testing", "train"}

# Which rooms of the house a room may enter, beside itself: the whole rule.
MAY_IMPORT = {
    "_checks": set(),
    "stable": {"_checks"},
    "_jit": {"_checks", "stable"},
    **dict.fromkeys(BLOCKS, GROUND | BLOCKS),
    **dict.fromkeys(FAMILIES, GROUND | BLOCKS),
    **dict.fromkeys(FORMS, LOSSES),
    **dict.fromkeys(("train", "compat"), LOSSES | FORMS),
    "testing": GROUND | {"reduce"},
    "claims": {"", *LOSSES, "testing"},
    **dict.fromkeys(("landscape", "datasets"), GROUND),
    "plot": GROUND | {"landscape"},
    "catalogue": {"", "_checks"},
    "app": {"", *LOSSES, *TOOLS},
    "__main__": {"app"},
    "": {*LOSSES, *FORMS, *TOOLS, "compat"},
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


def room(dotted):
    """The room of a dotted name below the package: `stable`, `losses.vision`, ..."""
    parts = dotted.split(".")[1:]
    if parts[:1] == ["losses"]:
        return ".".join(parts[:2])
    return parts[0] if parts and parts[0] in MAY_IMPORT else ""


def rooms(source):
    """The rooms of ours that a source imports; a name of the package itself is ""."""
    return {room(n) for n in imports(source) if n.split(".")[0] == "jaxloss"}


def dotted(path):
    """The module of a file, dotted."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_imported(path, modules):
    """The modules of ours that one module imports, also for types alone."""
    found = set()
    for name in imports(path.read_text()):
        while name not in modules and "." in name:
            name = name.rpartition(".")[0]
        # Importing a name of the package or of a folder imports what stands there.
        found |= {name} & modules
    return found - {dotted(path)}


def roots_at_import(path):
    """The packages that importing a module imports: `jax`, `numpy`, ..."""
    return {n.split(".")[0] for n in imports(path.read_text(), at_import=True)}


def named(path):
    return str(path.relative_to(ROOT))


# --- of every module: each check lists all modules that fail it --------------------


def test_modules_import_only_the_layers_below(subtests):
    """`stable` knows no loss, a loss no loss of another family, no loss knows
    training or what it looks like."""
    for path in SOURCES:
        with subtests.test(named(path)):
            own = room(dotted(path))
            assert rooms(path.read_text()) <= MAY_IMPORT.get(own, set()) | {own}


def test_modules_import_optax_only_for_training(subtests):
    """At import, optax belongs to `train` and to the module that imitates it."""
    for path in SOURCES:
        with subtests.test(named(path)):
            allowed = room(dotted(path)) in ("train", "compat")
            assert "optax" not in roots_at_import(path) or allowed


def test_modules_import_no_optional_package(subtests):
    """flax, scikit-learn and matplotlib are imported where they are used."""
    for path in SOURCES:
        with subtests.test(named(path)):
            allowed = named(path) == "train/nnx.py"
            assert not roots_at_import(path) & HEAVY or allowed


def test_modules_are_short(subtests):
    """A module that outgrows 500 lines is split by topic."""
    for path in SOURCES:
        with subtests.test(named(path)):
            assert len(path.read_text().splitlines()) <= 500


# --- of the package ----------------------------------------------------------------


def test_there_is_no_circle():
    """No module imports another that imports it, not even for types.

    The face of the package imports what it shows; what needs the face at run time (the
    catalogue) is not part of it when it is loaded.
    """
    paths = {dotted(p): p for p in SOURCES if dotted(p) != "jaxloss"}
    graph = {name: modules_imported(p, {*paths}) for name, p in paths.items()}
    # A folder's face imports its modules, which may name the folder of another room.
    assert [*graphlib.TopologicalSorter(graph).static_order()]


def test_the_house_is_tidy():
    """At most 18 modules at the root, 5 of them private."""
    root = {path.stem for path in ROOT.glob("*.py")}
    assert len(root) <= 18
    assert len({n for n in root if n[0] == "_" and n[1] != "_"}) <= 5


def test_testing_needs_only_numpy_and_jax(subtests):
    """A user of `jaxloss.testing` needs neither pytest nor mpmath."""
    for path in (ROOT / "testing").glob("*.py"):
        with subtests.test(named(path)):
            roots = {n.split(".")[0] for n in imports(path.read_text())}
            assert roots - sys.stdlib_module_names <= {"jax", "jaxloss", "numpy"}


def test_importing_the_package_imports_nothing_optional():
    """`import jaxloss` costs jax and numpy, no more."""
    code = "import sys, jaxloss; print(*{name.split('.')[0] for name in sys.modules})"
    run = [sys.executable, "-c", code]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert {"jax", "jaxloss"} <= set(loaded.split())
    assert not set(loaded.split()) & (HEAVY | {"optax", "pytest", "mpmath"})


def test_modules_need_no_import_of_their_own():
    """`import jaxloss` is enough, in a fresh process and for a type checker; what is
    not used is not loaded."""
    code = (
        "import sys, jaxloss\n"
        "assert not {'jaxloss.kernels', 'jaxloss.train', 'optax'} & {*sys.modules}\n"
        "jaxloss.train.objective, jaxloss.train.nnx, jaxloss.compat.optax.huber_loss\n"
        "jaxloss.compat.keras.poisson; assert 'keras' not in sys.modules\n"
        "jaxloss.plot.plot_loss, jaxloss.datasets.digits, jaxloss.kernels.clip\n"
        "jaxloss.testing.check, jaxloss.landscape.line, jaxloss.parallel.clip\n"
        "jaxloss.catalogue.entries, jaxloss.margins.hinge, jaxloss.stable.xla\n"
        "assert {'train', 'plot'} <= {*dir(jaxloss)}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    used = (jaxloss.compat.optax.huber_loss, jaxloss.plot.plot_loss, jaxloss.train.nnx)
    assert all(used)
    with pytest.raises(AttributeError, match="no attribute 'hubert'"):
        operator.attrgetter("hubert")(jaxloss)


def test_a_name_of_another_library_is_answered_by_ours():
    """In the message, and without the guess that Python would add to it."""
    code = "import jaxloss; jaxloss.mse"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "AttributeError: module 'jaxloss' has no attribute 'mse' "
        "(did you mean 'squared_error'?)"
    )
    assert not hasattr(jaxloss, "_mse")


def test_the_reader_of_imports_sees_them():
    """Imports of every form are found, and lazy ones only where they count."""
    source = (
        "import optax.losses\n"
        "from jaxloss import _checks, huber\n"
        "from jaxloss.stable.rows import softmax\n"
        "from jaxloss.losses.vision import segmentation\n"
        "if TYPE_CHECKING:\n    import rich\n"
        "def f():\n    import flax\n"
        "class A:\n    import sklearn\n"
    )
    assert rooms(source) == {"_checks", "", "stable", "losses.vision"}
    assert imports(source) >= {"optax.losses", "rich", "flax", "sklearn"}
    assert not imports(source, at_import=True) & {"rich", "flax"}
    assert imports(source, at_import=True) >= {"optax.losses", "sklearn"}


def test_the_rules_refuse_what_they_are_for():
    """No layer may import upwards, and no family another one."""
    regression = MAY_IMPORT["losses.regression"]
    assert not rooms("from jaxloss import huber") <= regression
    assert not rooms("from jaxloss.losses.vision import segmentation") <= regression
    assert not rooms("from jaxloss import train") <= MAY_IMPORT["kernels"]
    assert not rooms("from jaxloss import reduce") <= MAY_IMPORT["stable"]
    assert not rooms("import jaxloss") <= regression
