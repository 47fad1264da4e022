"""One compiled call: makes a compiled program of a function of arrays.

    @_jit.kernel("axis", delta="(0, inf)")
    def loss(predictions, targets, *, axis=-1, delta=1.0): ...

The body is traced once for each shape and type of its arrays, and checks them then, so
a second call has no cost of checks.  What shapes and types do not show is checked in
each call, in Python, before the program runs: whether numbers lie in their intervals
and NumPy's integers fit into 32 bits; lists and NumPy's scalars are converted.  A
number is an argument of the program, not a constant in it, so a new value compiles
nothing.

The program is not inlined: where a caller's `jit` traces a loss, it gets one equation
with the name of the loss, which is also seen in the compiled program and in profiles.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from jaxloss import _checks
from jaxloss.stable import sharding

Given = ParamSpec("Given")
Result = TypeVar("Result")
Reader = Callable[[Any], Any]

# What other libraries have as arguments of a loss.
_MEAN = "it is `jaxloss.mean(losses"
_ELSEWHERE = {
    "reduction": f"{_MEAN})`, or `jaxloss.sum(losses)`",
    "weight": f"{_MEAN}, weights=weight[labels])` for one weight per class",
    "sample_weight": f'{_MEAN}, weights=sample_weight, denominator="count")`',
    "weights": f"{_MEAN}, weights=weights)`",
    "ignore_index": f"{_MEAN}, where=labels != ignore_index)`",
    "ignore_class": f"{_MEAN}, where=labels != ignore_class)`",
    "from_logits": "losses of classes take logits: leave it out",
    "label_smoothing": "it is `smooth_labels` of the labels, before the loss",
}


def kernel(
    *static: str,
    ids: str = "",
    trees: tuple[str, ...] = (),
    increasing: str = "",
    left_out: Mapping[str, float] = MappingProxyType({}),
    explicit: bool = False,
    **intervals: str,
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Compiles a function, once for each shape and type of its arrays.

    Args:
      *static: Arguments that are part of the program: axes, sizes, flags, functions.
      ids: The argument of class or group ids.  Ids of 64 bits, where JAX has 32, are
        renumbered: they stay equal to each other and to classes as they were.
      trees: Arguments that are pytrees of arrays.
      increasing: The argument whose numbers increase, which each call checks too.
      left_out: Hyperparameters that the body gets as None if they are this Python
        number: a part times 0 would still compute its gradient.
      explicit: Whether the body sees how its arguments are sharded on a mesh with
        explicit axes, and so calls `stable.sharding.automatic` itself.
      **intervals: The interval of a hyperparameter, as `delta="(0, inf)"`.
    """

    def attach(fn: Callable[Given, Result]) -> Callable[Given, Result]:
        fn.__name__ = name = fn.__name__.removeprefix("_")
        given = inspect.signature(fn).parameters
        readers = {p: _reader(name, p, static, ids, trees, intervals) for p in given}
        if increasing:
            readers[increasing] = functools.partial(_increasing, name, increasing)
        assert not ids or ids in given
        body = fn if explicit else sharding.automatic(fn)
        compiled = jax.jit(body, static_argnames=static)
        targets_first = "y_true" in given  # of `compat.keras`
        count = sum(x.kind is not x.KEYWORD_ONLY for x in given.values())
        # A default is an argument too, or the first other value would compile again.
        defaults = {
            p: x.default
            for p, x in given.items()
            if x.kind is x.KEYWORD_ONLY and isinstance(x.default, float)
        }

        @functools.wraps(fn)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            if not targets_first:
                _checks.not_called_by_keras(name)
            if len(args) > count or not kwargs.keys() <= given.keys():
                _refuse(name, [p for p in kwargs if p not in given], len(args), count)
            pairs = zip(readers.values(), args, strict=False)
            by_position = [read(x) for read, x in pairs]
            named = {**defaults, **kwargs}.items()
            by_name = {p: readers[p](x) for p, x in named}
            for p, number in left_out.items():
                if _checks.is_number(by_name[p], number):
                    by_name[p] = None
            try:
                return compiled(*by_position, **by_name)
            except (TypeError, ValueError) as error:
                # What JAX says of hidden frames would stand behind our own message.
                vars(error).pop("__notes__", None)
                raise

        vars(call)["intervals"] = intervals  # for `testing.validate`
        return call

    return attach


def _refuse(function: str, unknown: list[str], given: int, count: int) -> NoReturn:
    """Raises `TypeError` for arguments that the function does not have.

    In the words of Python, where JAX would speak of abstract arrays; with what does
    here what an argument of that name does elsewhere.
    """
    if not unknown:
        raise TypeError(
            f"{function}() takes {count} positional arguments but {given} were given; "
            "hyperparameters are passed by name"
        )
    here = f"; here {_ELSEWHERE[unknown[0]]}" if unknown[0] in _ELSEWHERE else ""
    raise TypeError(
        f"{function}() got an unexpected keyword argument {unknown[0]!r}{here}"
    )


def _reader(
    function: str,
    name: str,
    static: tuple[str, ...],
    ids: str,
    trees: tuple[str, ...],
    intervals: dict[str, str],
) -> Reader:
    """How an argument is read before it reaches the program."""
    if name in intervals:
        return functools.partial(_number, function, name, intervals[name])
    if name in static:
        return functools.partial(_static, function, name)
    read = functools.partial(_ids if name == ids else _array, function, name)
    return functools.partial(jax.tree.map, read) if name in trees else read


def _array(function: str, name: str, x: Any) -> Any:
    """What `jit` takes as an array, as it is; lists and the like, as an array."""
    wide = _checks.wide_integers(x)
    if wide is not None:
        _checks.refuse_wide(function, name, wide)
    if isinstance(x, jax.Array | float | int) or x is None or _is_numeric(x):
        return x
    return _checks.array(function, name, x)


def _ids(function: str, name: str, x: Any) -> Any:
    """`_array` of ids: as equal to each other, and to a class, in 32 bits as in 64."""
    wide = _checks.wide_integers(x)
    if wide is None:
        return _array(function, name, x)
    short = wide.astype(np.int32 if wide.dtype == np.int64 else np.uint32)
    beyond = short != wide
    others, which = np.unique(wide[beyond], return_inverse=True)
    # From the largest number down, which is no class, those that are no id here.
    taken = np.unique(short[~beyond])
    last = int(np.iinfo(short.dtype).max)
    free = last - np.arange(others.size + taken.size)
    free = free[~np.isin(free, taken)]
    short[beyond] = free[which].astype(short.dtype)
    return short


def _is_numeric(x: Any) -> bool:
    """Whether NumPy made it, of numbers."""
    return isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "biuf"


def _increasing(function: str, name: str, x: Any) -> Any:
    """`_array`, of finite numbers that increase, if it is known and has one axis."""
    x = _array(function, name, x)
    if isinstance(x, Tracer) or np.ndim(x) != 1:
        return x
    # Two numbers may be one in the precision of JAX.
    numbers = np.asarray(x).astype(_checks.default_float())
    if not (np.all(np.isfinite(numbers)) and np.all(np.diff(numbers) > 0)):
        expected = "finite numbers, each larger than the one before"
        _checks.fail(function, name, f"the numbers {numbers}", expected)
    return x


def _number(function: str, name: str, interval: str, x: Any) -> Any:
    """A Python float for any number, so that all numbers are one type of argument."""
    if isinstance(x, jax.Array) or x is None:
        return x
    if isinstance(x, float | int | np.number):
        _checks.in_interval(function, interval, **{name: x})
        return x if isinstance(x, bool) else float(x)
    try:
        values = np.asarray(x)
    except jax.errors.TracerArrayConversionError:  # a list of tracers
        return _checks.array(function, name, x)
    if not _is_numeric(values):
        return _checks.array(function, name, x)
    _checks.in_interval(function, interval, **{name: values})
    return _array(function, name, values)


def _static(function: str, name: str, x: Any) -> Any:
    """What can be part of a program: `np.int64(0)` is 0."""
    if isinstance(x, tuple):
        return tuple(_static(function, name, part) for part in x)
    if isinstance(x, int | str) or x is None:
        return x
    try:
        return operator.index(x)
    except TypeError:
        pass
    try:
        hash(x)
    except TypeError:
        expected = "an integer, a string or a tuple of them: it is part of the program"
        _checks.wrong_kind(function, name, f"type {type(x).__name__}", expected)
    return x
