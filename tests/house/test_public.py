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
WITHOUT_USE += ("softmax_cross_entropy_with_z", "ndcg_weights")

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


# --- of every function -------------------------------------------------------------


def is_exported(module, fn):
    """`jaxloss.name` is the very function that its module defines."""
    assert getattr(jaxloss, fn.__name__, None) is fn


def takes_hyperparameters_by_keyword(module, fn):
    """Data come by position and without a default, the rest by keyword."""
    given = inspect.signature(fn).parameters.values()
    data = [p for p in given if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert not [p for p in data if p.kind is not p.POSITIONAL_OR_KEYWORD]
    assert not [p for p in data if p.default is not p.empty]


def is_annotated(module, fn):
    """Every argument and the result have a type."""
    given = inspect.signature(fn)
    types = {name: p.annotation for name, p in given.parameters.items()}
    types["return"] = given.return_annotation
    assert not [name for name, found in types.items() if found is given.empty]


# --- of every docstring ------------------------------------------------------------


def begins_with_one_short_line(module, fn):
    """The first line says what it is in 72 characters, and ends with a period."""
    first, *_ = doc(fn).splitlines()
    assert len(first) <= 72
    assert first.endswith((".", "arguments."))
    assert not first.startswith("This ")


def has_every_section_in_order(module, fn):
    """The sections of the house style, all of them and in this order."""
    wanted = SHORT if module in WITHOUT_GRADIENT else SECTIONS
    wanted = [s for s in wanted if s != "Use:" or tells_its_use(module, fn)]
    if re.search(r"; see `\w+` for the arguments\.$", doc(fn).splitlines()[0]):
        wanted = ["Example:"]
    lines = [line for line in doc(fn).splitlines() if line in SECTIONS]
    assert [line for line in lines if line in wanted] == wanted
    assert lines == sorted(lines, key=SECTIONS.index)


def says_what_it_is_for_if_it_is_a_loss(module, fn):
    """`Use:` makes a function a loss of `jaxloss.catalogue`, and no other one."""
    assert ("Use:" in doc(fn).splitlines()) == tells_its_use(module, fn)


def describes_every_argument(module, fn):
    """`Args` names each argument once, in the order of the signature."""
    if "Args:" in doc(fn).splitlines():
        _, _, section = doc(fn).partition("\nArgs:\n")
        section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
        described = re.findall(r"^  \*{0,2}(\w+):", section, re.MULTILINE)
        assert described == list(inspect.signature(fn).parameters)


def shows_an_example(module, fn):
    """There is code in the example, which `test_example_runs_as_printed` runs."""
    assert ">>>" in doc(fn)


# --- of every loss -----------------------------------------------------------------


def has_a_spec_that_claims_what_matters(module, fn):
    """Some spec gives its formula, its gradient, its extremes and its bad calls."""
    specs = [spec for spec in SPECS if spec.fn is fn]
    fields = ("reference", "gradient", "extremes", "bad_calls")
    assert not [f for f in fields if not any(getattr(spec, f) for spec in specs)]


def has_every_hyperparameter_in_a_spec(module, fn):
    """No setting is untested; `axis` alone moves axes only."""
    specs = [spec for spec in SPECS if spec.fn is fn]
    used = {k for s in specs for k in (*s.params, *s.static, *s.keywords)}
    given = inspect.signature(fn).parameters.values()
    assert {p.name for p in given if p.kind is p.KEYWORD_ONLY} <= used | {"axis"}


OF_A_FUNCTION = (
    is_exported,
    takes_hyperparameters_by_keyword,
    is_annotated,
)
OF_A_DOCSTRING = (
    begins_with_one_short_line,
    has_every_section_in_order,
    says_what_it_is_for_if_it_is_a_loss,
    describes_every_argument,
    shows_an_example,
)
OF_A_LOSS = (
    has_a_spec_that_claims_what_matters,
    has_every_hyperparameter_in_a_spec,
)


@pytest.mark.parametrize(
    ("module", "fn"),
    [*FUNCTIONS, *OTHERS],
    ids=[f"{m}.{fn.__name__}" for m, fn in [*FUNCTIONS, *OTHERS]],
)
def test_function(subtests, module, fn):
    """A function is what the house style asks for; every complaint is listed."""
    checks = [*OF_A_DOCSTRING]
    if module in MODULES:
        checks += OF_A_FUNCTION
    if module in MODULES and module not in (*WITHOUT_SPEC, *TRANSFORMS):
        checks += OF_A_LOSS
    for check in checks:
        with subtests.test(check.__name__.replace("_", " ")):
            check(module, fn)


# --- of the package ----------------------------------------------------------------


def test_modules_define_nothing_else_in_public(subtests):
    """A name without an underscore is a function that is exported, or an import."""
    for name, module in MODULES.items():
        with subtests.test(name):
            defined = {n for n in names_defined(module) if not n.startswith("_")}
            assert not defined - public(module).keys()
            assert not hasattr(module, "__all__")


def names_defined(module):
    """What a module assigns and what it defines, by its source."""
    return {
        target.id if isinstance(target, ast.Name) else target.name
        for node in ast.parse(inspect.getsource(module)).body
        for target in getattr(node, "targets", [node])
        if isinstance(target, ast.Name | ast.FunctionDef | ast.ClassDef)
    }


def test_the_package_exports_its_own_names_only(subtests):
    """`jaxloss.jnp` and the like do not exist, and re-exports say `name as name`."""
    shown = {n: value for n, value in vars(jaxloss).items() if not n.startswith("_")}
    for name, value in shown.items():
        with subtests.test(name):
            home = getattr(value, "__module__", None) or value.__name__
            home = value.__name__ if isinstance(value, types.ModuleType) else home
            assert home.startswith("jaxloss.")
    tree = ast.parse(pathlib.Path(jaxloss.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    assert not [a.name for a in aliases if a.asname != a.name]


def test_pickles_written_before_the_move_are_read(subtests):
    """What is pickled with a state or a result is found where it was."""
    for where, public_name in (
        ("jaxloss.reduce.Mean", jaxloss.Mean),
        ("jaxloss.testing.LossSpec", testing.LossSpec),
        ("jaxloss.train.objective.Objective", train.Objective),
        ("jaxloss.train.objective.ObjectiveState", train.ObjectiveState),
        ("jaxloss.train.step.TrainState", train.TrainState),
    ):
        module, _, name = where.rpartition(".")
        with subtests.test(where):
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
