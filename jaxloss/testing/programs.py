"""The compiled programs behind the evidence: few, shared, and in chunks of one size.

Compiling takes most of the time of a suite, running almost none.  So one program
returns everything about a function in one dtype: its value, alone and with each mode of
differentiation, its gradient and its second derivatives.  Every number is an argument
of it, also hyperparameters: another setting, another sample or a grid of a thousand
points run the same program.
"""

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import reduce
from jaxloss.testing.ulps import wide

CHUNK = 32  # rows of every program
KEPT = 24  # programs; those of a claim are asked for one after the other

COMPILED: collections.Counter[tuple] = collections.Counter()
"""How many programs were compiled for each function and shape of its arguments."""


class Function(NamedTuple):
    """A function of columns, one example a row, and what tells it from others."""

    key: tuple
    call: Callable[..., jax.Array]
    """Takes the entries of one example, all columns by position."""
    settings: int = 0
    """How many columns at the end are hyperparameters, the same for every example."""
    alone: int | None = None
    """The one column that is differentiated, if not all floating ones are."""

    steps: tuple[int, ...] | None = None
    """The columns that forward mode moves, if not all that are differentiated: where a
    slope is infinite, a step of 0 is NaN."""
    turns: bool = True
    """Whether the slope by forward mode is differentiated by reverse mode."""
    whole: Callable[..., jax.Array] | None = None
    """The same of whole columns, if that is what the function is made for."""

    def moving(self, columns: Sequence[Any]) -> tuple[int, ...]:
        """The positions of the columns that are differentiated."""
        return floating(columns) if self.alone is None else (self.alone,)

    def stepping(self, columns: Sequence[Any]) -> tuple[int, ...]:
        """The positions of the columns that forward mode moves."""
        moving = self.moving(columns)
        chosen = moving if self.steps is None else self.steps
        return tuple(i for i in moving if i in chosen)

    def tuning(self, columns: Sequence[Any]) -> tuple[int, ...]:
        """The positions of the hyperparameters."""
        return tuple(range(len(columns) - self.settings, len(columns)))

    def steps_of(self, columns: Sequence[Any]) -> tuple[int, ...]:
        """The positions of all columns that have a step."""
        return (*self.stepping(columns), *self.tuning(columns))


class Derivatives(NamedTuple):
    """What one program returns: one row for each example."""

    value: Any
    under_grad: Any
    """The value that reverse mode returns along with the gradient."""
    gradient: Any
    """One for each floating column, by reverse mode."""
    hessian: Any
    """Each gradient, differentiated in each floating column: forward over reverse."""
    under_jvp: Any = None
    """The value that forward mode returns."""
    slope: Any = None
    """Along the steps, by forward mode."""
    turned: Any = None
    """The gradient of that slope: reverse over forward mode."""
    tuned: Any = None
    """The slope along the steps of the hyperparameters, by forward mode."""


class Batch(NamedTuple):
    """The same examples as a batch, in every way in which a batch can be given."""

    plain: Any
    twice: Any
    """Under `vmap` of `vmap`."""
    singly: Any
    """One example at a time, without an axis of examples."""
    masked: Any
    """Mean over the mask, with NaN filled behind it."""
    slopes: Any
    """Of the masked mean, in each floating argument."""
    weighted: Any
    """Mean with the counts as weights, and with seven times as much."""


def is_floating(x: Any) -> bool:
    """Whether the dtype under test applies to `x`; class ids and masks keep theirs."""
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def floating(columns: Sequence[Any]) -> tuple[int, ...]:
    """The positions of the floating columns."""
    return tuple(i for i, a in enumerate(columns) if is_floating(a))


def insert(columns: Sequence[Any], positions: Sequence[int], chosen: Sequence) -> list:
    """The columns, with other ones at `positions`."""
    given = dict(enumerate(columns)) | dict(zip(positions, chosen, strict=True))
    return [*given.values()]


# --- what is compiled --------------------------------------------------------------


def _one(
    function: Function, forward: bool, columns: Sequence, steps: Sequence
) -> Derivatives:
    """All derivatives at one example."""
    where, forth = function.moving(columns), function.stepping(columns)
    loss = lambda x: function.call(*insert(columns, where, x))
    x = tuple(columns[i] for i in where)

    def slopes(x: tuple) -> tuple:
        value, gradient = jax.value_and_grad(loss)(x)
        return gradient, (value, gradient)

    def along(places: Sequence[int], steps: Sequence, x: Sequence) -> tuple:
        ahead = lambda *x: function.call(*insert(columns, places, x))
        value, slope = jax.jvp(ahead, tuple(x), tuple(steps))
        return slope, value

    hessian, (value, gradient) = jax.jacfwd(slopes, has_aux=True)(x)
    found = Derivatives(loss(x), value, gradient, hessian)
    if not forward:
        return found
    ahead = functools.partial(along, forth, steps[: len(forth)])
    x = tuple(columns[i] for i in forth)
    if function.turns:
        (slope, value), turned = jax.value_and_grad(ahead, has_aux=True)(x)
    else:
        (slope, value), turned = ahead(x), None
    found = found._replace(under_jvp=value, slope=slope, turned=turned)
    if not function.settings:
        return found
    places = function.tuning(columns)
    x = [columns[i] for i in places]
    return found._replace(tuned=along(places, steps[len(forth) :], x)[0])


def _batch(call: Callable, fill: float, columns: Sequence, settings: Sequence) -> Batch:
    """The examples as a batch, eight by eight, one by one, masked and weighted."""
    *columns, where, counts = columns
    eights = [jnp.reshape(a, (-1, 8, *a.shape[1:])) for a in columns]
    loss = lambda *args: call(*args, *settings)
    chosen = floating(columns)

    def masked(x: list) -> jax.Array:
        filled = reduce.fill(where, *insert(columns, chosen, x), value=fill)
        return reduce.mean(loss(*filled), where=where)

    hidden = [
        jnp.where(jnp.reshape(where, (-1, *[1] * (a.ndim - 1))), a, jnp.nan)
        for a in (columns[i] for i in chosen)
    ]
    mean, slopes = jax.value_and_grad(masked)(hidden)
    losses = loss(*columns)
    weighted = [reduce.mean(losses, weights=k * counts) for k in (1.0, 7.0)]
    return Batch(
        plain=loss(*eights),
        twice=jax.vmap(jax.vmap(loss))(*eights),
        singly=jax.lax.map(lambda args: loss(*args), tuple(columns)),
        masked=mean,
        slopes=slopes,
        weighted=weighted,
    )


# --- programs, and what is lost where a function cannot be asked everything -----------


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program, and what it does not tell of its function, and why."""

    run: Callable
    lost: dict[str, Exception]


_memory: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()


def _kept(key: Hashable, build: Callable[[], Any]) -> Any:
    """What belongs to a key, made unless it is among the last that were asked for."""
    if key not in _memory:
        _memory[key] = build()
        while len(_memory) > KEPT:
            _memory.popitem(last=False)
    _memory.move_to_end(key)
    return _memory[key]


def forget() -> None:
    """Drops all programs, and how many there were: a new group of tests begins."""
    _memory.clear()
    COMPILED.clear()


@functools.cache
def quickly() -> dict[str, Any]:
    """Options with which XLA compiles in less than half of the time, for what is not
    about ulps.  An older one has two ways to emit code, and the other is faster."""
    level = {"xla_backend_optimization_level": 0}
    options = {**level, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return level
    return options


def _compile(
    function: Function, columns: Sequence, run: Callable, *args: Any, **options: Any
) -> Callable:
    """A program at these arguments; it counts as one for the kinds of the columns."""
    compiled = jax.jit(run).lower(*args).compile(compiler_options=options)
    kinds = tuple((is_floating(a), a.shape[1:]) for a in columns)
    COMPILED[*function.key, function.alone, kinds] += 1
    return compiled


def _with_derivatives(function: Function, columns: Sequence) -> Program:
    """Everything in one program; less where forward mode, or a traced hyperparameter,
    is more than the function can take: the reason is kept."""
    errors: dict[tuple[bool, bool], Exception] = {}
    for traced, forward in itertools.product((True, False), repeat=2):
        if not (traced or function.settings):
            break
        given, asked = columns, function
        if not traced:
            given, call = _with_numbers(function, columns)
            asked = function._replace(call=call, settings=0)
        steps = [np.ones_like(given[i]) for i in asked.steps_of(given)]
        run = jax.vmap(functools.partial(_one, asked, forward))
        # Ulps are claimed of float32; float64 is compared with wider bounds.
        options = quickly() if _is_wide(given) else {}
        try:
            compiled = _compile(function, columns, run, given, steps, **options)
        except Exception as error:
            errors[traced, forward] = error
            continue
        lost = {}
        if not traced:
            lost["hyperparameters"] = errors[True, forward]
        if not forward:
            lost["forward mode"] = errors[traced, True]
        return Program(compiled, lost)
    raise errors[True, True]


def _with_numbers(function: Function, columns: Sequence) -> tuple[list, Callable]:
    """The function of the other columns, at Python numbers for hyperparameters."""
    split = len(columns) - function.settings
    rows = [np.asarray(a[0]) for a in columns[split:]]
    numbers = [a if a.ndim else a.item() for a in rows]
    return [*columns[:split]], lambda *args: function.call(*args, *numbers)


# --- running them ------------------------------------------------------------------


def derivatives(
    function: Function, columns: Sequence[np.ndarray], steps: Sequence | None = None
) -> tuple[Derivatives, dict[str, Exception]]:
    """All of a function at every row, and what it could not be asked, and why.

    Half precision is what float32 gives at the widened columns, rounded, where the
    function does no more than widen them; else it has a program of its own.

    Args:
      function: Of columns of this number.
      columns: Arrays of the same length.
      steps: In every column that has one, the direction of forward mode; ones by
        default.
    """
    wider = [widened(a) for a in columns]
    half = any(a is not b for a, b in zip(columns, wider, strict=True))
    if half and only_widens(function, columns):
        found, lost = derivatives(function, wider, steps)
        narrow = [columns[i].dtype for i in function.moving(columns)]
        slopes = zip(found.gradient, narrow, strict=False)
        with np.errstate(over="ignore"):  # to infinity, as XLA does
            rounded = tuple(slope.astype(dtype) for slope, dtype in slopes)
        return found._replace(gradient=rounded), lost
    kinds = tuple((a.dtype, a.shape[1:]) for a in columns)
    asked = function.alone, function.stepping(columns), function.turns
    key = (function.key, *asked, kinds)
    chunk = _rows(columns, 0)
    program = _kept(key, lambda: _with_derivatives(function, chunk))
    if "hyperparameters" in program.lost:  # so they are constants of the program
        split = len(columns) - function.settings
        key = (*key, *(a[0].tobytes() for a in columns[split:]))
        program = _kept(key, lambda: _with_derivatives(function, chunk))
        columns, function = columns[:split], function._replace(settings=0)
    moving = [columns[i] for i in function.steps_of(columns)]
    steps = [np.ones_like(a) for a in moving] if steps is None else steps
    steps = [np.asarray(s, a.dtype) for s, a in zip(steps, moving, strict=False)]
    return in_chunks(program.run, columns, steps), program.lost


def batch(
    function: Function,
    columns: Sequence[np.ndarray],
    where: np.ndarray,
    counts: np.ndarray,
    fill: float,
) -> Batch:
    """A chunk of examples as a batch; hyperparameters are numbers, not columns."""
    split = len(columns) - function.settings
    args, settings = columns[:split], [a[0] for a in columns[split:]]
    given = [*args, where, counts]
    key = (function.key, fill, tuple((a.dtype, a.shape[1:]) for a in columns))

    def build() -> Callable:
        run = functools.partial(_batch, function.call, fill)
        return _compile(function, columns, run, given, settings, **quickly())

    return jax.tree.map(np.asarray, _kept(key, build)(given, settings))


def in_steps(key: Hashable, run: Callable, *args: np.ndarray) -> tuple[Any, str]:
    """What a function returns if its operations are taken one by one, and the first one
    that has a NaN in its result, or "".

    One program has them all, which is much faster than a program each; between two of
    them is a barrier, so none is simplified, or merged with another.
    """
    kinds = tuple((a.dtype, a.shape) for a in args)
    program, names = _kept((key, "steps", kinds), lambda: _steps(run, args))
    found, results = jax.tree.map(np.asarray, program(*args))
    wrong = [is_floating(x) and np.isnan(x).any() for x in results]
    name = next(itertools.compress(names, wrong), "")
    return found, name and f"nan, from `{name}`"


def _steps(run: Callable, args: Sequence[np.ndarray]) -> tuple[Callable, list[str]]:
    """A program that returns what the function does and every result in between, and
    the names of the operations that these are from."""
    with jax.disable_jit():  # so that no operation hides in a call, or in a loop
        jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(*args)
    names: list[str] = []

    def walk(part: Any, args: Sequence, results: list) -> list:
        jaxpr = getattr(part, "jaxpr", part)
        known = dict(zip(jaxpr.invars, args, strict=True))
        known |= zip(jaxpr.constvars, getattr(part, "consts", ()), strict=True)
        read = lambda v: v.val if hasattr(v, "val") else known[v]
        for equation in jaxpr.eqns:
            given, call = [*map(read, equation.invars)], equation.primitive
            # A function whose rule is not needed, or one that is computed again.
            inside = {"remat2": "jaxpr"}.get(call.name, "call_jaxpr")
            if inside in equation.params:
                found = walk(equation.params[inside], given, results)
            else:
                found = call.bind(*given, **equation.params)
                found = found if call.multiple_results else [found]
                found = jax.lax.optimization_barrier([*found])
                results.extend(found)
                names.extend([call.name] * len(found))
            known.update(zip(equation.outvars, found, strict=True))
        return [*map(read, jaxpr.outvars)]

    def watched(*args: jax.Array) -> tuple[Any, list]:
        results: list[jax.Array] = []
        found = walk(jaxpr, args, results)
        return jax.tree.unflatten(jax.tree.structure(shapes), found), results

    return jax.jit(watched).lower(*args).compile(compiler_options=quickly()), names


def in_chunks(run: Callable, *columns: Sequence[np.ndarray]) -> Any:
    """What a function of chunks returns for all rows of its lists of columns."""
    count = len(columns[0][0])
    parts = [
        jax.tree.map(np.asarray, run(*(_rows(part, i) for part in columns)))
        for i in range(0, count, CHUNK)
    ]
    return jax.tree.map(lambda *rows: np.concatenate(rows)[:count], *parts)


def _rows(columns: Sequence[np.ndarray], start: int) -> list[np.ndarray]:
    """A chunk of rows; what is missing at the end repeats the others."""
    part = [a[start : start + CHUNK] for a in columns]
    return [np.resize(a, (CHUNK, *a.shape[1:])) for a in part]


# --- half precision ----------------------------------------------------------------


def only_widens(function: Function, columns: Sequence[np.ndarray]) -> bool:
    """Whether at these columns, some of them half precision, the function does what it
    does in float32 after widening them: then it needs no program of its own.

    Read from the two programs before they are compiled: each half-precision argument
    may be converted and nothing else, and the rest is the same to the letter.
    """
    key = (function.key, "widens", tuple((a.dtype, a.shape[1:]) for a in columns))
    return _kept(key, lambda: _only_widens(function, columns))


def _only_widens(function: Function, columns: Sequence[np.ndarray]) -> bool:
    half, full = _rows(columns, 0), [widened(a) for a in _rows(columns, 0)]
    with jax.disable_jit():  # so that no part of it hides in a call
        run = jax.make_jaxpr(function.whole or jax.vmap(function.call))
        narrow, other = (run(*a).jaxpr for a in (half, full))
    kept, renamed = [], {}
    for equation in narrow.eqns:
        given = [v for v in narrow.invars if any(v is used for used in equation.invars)]
        of_half = [v for v in given if _is_half(v)]
        if not of_half:
            kept.append(equation)
        elif equation.primitive.name == "convert_element_type" and not _is_half(
            equation.outvars[0]
        ):
            renamed.setdefault(of_half[0], []).append(equation.outvars[0])
        else:
            return False
    if any(len(found) > 1 for found in renamed.values()):
        return False
    given = [renamed.get(v, [v])[0] for v in narrow.invars]
    if any(map(_is_half, given)):
        return False
    same = narrow.replace(invars=given, eqns=kept)
    return _text(same) == _text(other)


def widened(x: np.ndarray) -> np.ndarray:
    """A column in the dtype that a loss computes in."""
    return x.astype(wide(x.dtype)) if is_floating(x) and x.dtype.itemsize == 2 else x


def _is_wide(columns: Sequence) -> bool:
    return all(a.dtype.itemsize == 8 for a in columns if is_floating(a))


def _is_half(variable: Any) -> bool:
    return is_floating(variable.aval) and variable.aval.dtype.itemsize == 2


def _text(jaxpr: Any) -> str:
    """A program in letters, without the addresses of Python functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(jaxpr))
