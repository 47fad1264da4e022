"""The public surface: what is exported is specified, documented and runs as printed."""

import ast
import doctest
import functools
import importlib
import inspect
import pathlib
import pkgutil
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import kernels, landscape, losses, reduce, testing, train
from jaxloss.claims import SPECS

# Transforms before a loss: labels to labels, logits to logits.
TRANSFORMS = ("targets", "logits")
# Their functions are not one loss per example, so no spec fits all of them.
WITHOUT_SPEC = ("losses.classification.calibration", "losses.regularization")
WITHOUT_GRADIENT = (WITHOUT_SPEC[0], *TRANSFORMS, "landscape", "reduce")

# Nothing to choose: what they return is no loss, or another form of one.
WITHOUT_USE = ("expected_calibration_error", "fit_temperature", "ctc_forward")
WITHOUT_USE += ("softmax_cross_entropy_with_z",)

SECTIONS = [
    "Args:",
    "Returns:",
    "Raises:",
    "Gradient:",
    "Use:",
    "Reference:",
    "Example:",
]
SHORT = ["Args:", "Returns:", "Raises:", "Example:"]


def public(module):
    """What a module defines itself under a name without an underscore."""
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and callable(value)
        and not name.startswith("_")
    }


def modules():
    """The modules of losses and of transforms, as they are found on disk."""
    for info in pkgutil.walk_packages(losses.__path__, "jaxloss.losses."):
        if not (info.ispkg or info.name.rpartition(".")[2].startswith("_")):
            yield importlib.import_module(info.name)
    yield from (importlib.import_module(f"jaxloss.{name}") for name in TRANSFORMS)


MODULES = {m.__name__.removeprefix("jaxloss."): m for m in modules()}
FUNCTIONS = [(m, fn) for m in MODULES for fn in public(MODULES[m]).values()]
IDS = [f"{m}.{fn.__name__}" for m, fn in FUNCTIONS]
LOSSES = [(m, fn) for m, fn in FUNCTIONS if m not in (*WITHOUT_SPEC, *TRANSFORMS)]
LOSS_IDS = [f"{m}.{fn.__name__}" for m, fn in LOSSES]
# What a reader finds beside the losses.
OTHERS = [
    *(
        (module.__name__.removeprefix("jaxloss."), fn)
        for module in (reduce, landscape)
        for fn in public(module).values()
        if not inspect.isclass(fn)
    ),
    *(("kernels", fn) for fn in vars(kernels).values() if inspect.isfunction(fn)),
]


@pytest.mark.parametrize(("module", "fn"), FUNCTIONS, ids=IDS)
class TestEveryFunction:
    def test_is_exported(self, module, fn):
        """`jaxloss.name` is the very function that its module defines."""
        assert getattr(jaxloss, fn.__name__, None) is fn

    def test_takes_hyperparameters_by_keyword(self, module, fn):
        """Data come by position and without a default, the rest by keyword."""
        for p in inspect.signature(fn).parameters.values():
            assert p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY), p
            assert p.kind is p.KEYWORD_ONLY or p.default is p.empty, p

    def test_is_annotated(self, module, fn):
        """Every argument and the result have a type."""
        given = inspect.signature(fn)
        kinds = [p.annotation for p in given.parameters.values()]
        assert inspect.Signature.empty not in (*kinds, given.return_annotation)


@pytest.mark.parametrize(
    ("module", "fn"),
    [*FUNCTIONS, *OTHERS],
    ids=[*IDS, *(f"{m}.{fn.__name__}" for m, fn in OTHERS)],
)
class TestEveryDocstring:
    def test_begins_with_one_short_line(self, module, fn):
        """The first line says what it is in 72 characters, and ends with a period."""
        first, *_ = doc(fn).splitlines()
        assert len(first) <= 72
        assert first.endswith((".", "arguments."))
        assert not first.startswith("This ")

    def test_has_every_section_in_order(self, module, fn):
        """The sections of the house style, all of them and in this order."""
        wanted = SHORT if module in WITHOUT_GRADIENT else SECTIONS
        wanted = [s for s in wanted if s != "Use:" or tells_its_use(module, fn)]
        if re.search(r"; see `\w+` for the arguments\.$", doc(fn).splitlines()[0]):
            wanted = ["Example:"]
        lines = [line for line in doc(fn).splitlines() if line in SECTIONS]
        assert [line for line in lines if line in wanted] == wanted
        assert lines == sorted(lines, key=SECTIONS.index)

    def test_says_what_it_is_for_if_it_is_a_loss(self, module, fn):
        """`Use:` makes a function a loss of `jaxloss.catalogue`, and no other one."""
        assert ("Use:" in doc(fn).splitlines()) == tells_its_use(module, fn)

    def test_describes_every_argument(self, module, fn):
        """`Args` names each argument once, in the order of the signature."""
        if "Args:" in doc(fn).splitlines():
            _, _, section = doc(fn).partition("\nArgs:\n")
            section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
            described = re.findall(r"^  \*{0,2}(\w+):", section, re.MULTILINE)
            assert described == list(inspect.signature(fn).parameters)

    def test_shows_an_example(self, module, fn):
        """There is code in the example, which `TestExamples` runs."""
        assert ">>>" in doc(fn)


@pytest.mark.parametrize(("module", "fn"), LOSSES, ids=LOSS_IDS)
class TestEveryLoss:
    def test_has_a_spec_that_claims_what_matters(self, module, fn):
        """Some spec gives its formula, its gradient, its extremes and its bad calls."""
        specs = [spec for spec in SPECS if spec.fn is fn]
        for field in ("reference", "gradient", "extremes", "bad_calls"):
            assert any(getattr(spec, field) for spec in specs), field

    def test_every_hyperparameter_is_in_a_spec(self, module, fn):
        """No setting is untested; `axis` alone moves axes only."""
        specs = [spec for spec in SPECS if spec.fn is fn]
        used = {k for s in specs for k in (*s.params, *s.static, *s.keywords)}
        given = inspect.signature(fn).parameters.values()
        assert {p.name for p in given if p.kind is p.KEYWORD_ONLY} <= used | {"axis"}


def test_modules_define_nothing_else_in_public():
    """A name without an underscore is a function that is exported, or an import."""
    for name, module in MODULES.items():
        tree = ast.parse(inspect.getsource(module))
        defined = {
            target.id if isinstance(target, ast.Name) else target.name
            for node in tree.body
            for target in getattr(node, "targets", [node])
            if isinstance(target, ast.Name | ast.FunctionDef | ast.ClassDef)
        }
        stray = {n for n in defined if not n.startswith("_")} - public(module).keys()
        assert not stray, f"{name}: {stray}"
        assert not hasattr(module, "__all__")


def test_the_package_exports_its_own_names_only():
    """`jaxloss.jnp` and the like do not exist, and re-exports say `name as name`."""
    for name, value in vars(jaxloss).items():
        if not name.startswith("_"):
            home = getattr(value, "__module__", None) or value.__name__
            home = value.__name__ if isinstance(value, types.ModuleType) else home
            assert home.startswith("jaxloss."), name
    tree = ast.parse(pathlib.Path(jaxloss.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    assert all(a.asname == a.name for a in aliases)


def test_pickles_written_before_the_move_are_read():
    """What is pickled with a state or a result is found where it was."""
    for where, public_name in (
        ("jaxloss.reduce.Mean", jaxloss.Mean),
        ("jaxloss.testing.LossSpec", testing.LossSpec),
        ("jaxloss.train.objective.Objective", train.Objective),
        ("jaxloss.train.objective.ObjectiveState", train.ObjectiveState),
        ("jaxloss.train.step.TrainState", train.TrainState),
    ):
        module, _, name = where.rpartition(".")
        assert getattr(importlib.import_module(module), name) is public_name


# --- examples ----------------------------------------------------------------------


def documented_modules():
    """Every module whose examples need nothing but the runtime dependencies."""
    yield jaxloss
    for info in pkgutil.walk_packages(jaxloss.__path__, "jaxloss."):
        top = info.name.split(".")[1]
        optional = top in ("app", "__main__", "datasets", "plot")
        if not optional and not info.name.endswith(".nnx"):
            yield importlib.import_module(info.name)


def examples():
    """The examples of every docstring of functions, classes and methods."""
    finder = doctest.DocTestFinder()
    names = {"jax": jax, "jaxloss": jaxloss, "jnp": jnp, "np": np, "train": train}
    for module in documented_modules():
        for name, value in public(module).items():
            where = f"{module.__name__}.{name}"
            for found in finder.find(value, where, module, globs=dict(names)):
                if found.examples:
                    yield found


EXAMPLES = list(examples())
NUMBER = re.compile(r"-?\d+\.\d*(?:e[-+]?\d+)?")


class UpToRounding(doctest.OutputChecker):
    """Takes the printed text, with numbers that another processor may round."""

    def check_output(self, want, got, optionflags):
        if super().check_output(want, got, optionflags):
            return True
        numbers = [np.array(NUMBER.findall(text), float) for text in (want, got)]
        want, got = (NUMBER.sub("#", text) for text in (want, got))
        return (
            len(numbers[0]) == len(numbers[1])
            and np.allclose(numbers[0], numbers[1], testing.tolerance(np.float32), 0)
            and super().check_output(want, got, optionflags)
        )


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.name for e in EXAMPLES])
def test_example_runs_as_printed(example):
    """With 64-bit types off, as in a reader's session, the output is what is shown."""
    printed = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    with jax.enable_x64(False):
        runner = doctest.DocTestRunner(UpToRounding(), optionflags=flags)
        runner.run(example, out=printed.append)
    assert not printed, "".join(printed)


def test_a_wrong_digit_in_an_example_is_found():
    """The last digit of float32 may differ; any other, and any word, may not."""
    flags = doctest.NORMALIZE_WHITESPACE
    same = functools.partial(UpToRounding().check_output, optionflags=flags)
    assert same("Array([0.29289323, 2.  ])", "Array([0.2928932, 2.      ])")
    assert not same("Array([0.29289323, 2.  ])", "Array([0.292891, 2.      ])")
    assert not same("Array([0.29289323, 2.  ])", "Array([0.29289323])")
    assert not same("Array([1., 2.])", "Array([1., 2.], dtype=float32)")


def tells_its_use(module, fn):
    """Whether a function is a loss that one could choose."""
    return module.startswith("losses.") and fn.__name__ not in WITHOUT_USE


def doc(fn):
    """The docstring without its indentation."""
    return inspect.getdoc(fn) or ""
