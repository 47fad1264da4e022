"""Argument checks shared by every loss: the only place that phrases an error.

Checks look only at what is known while tracing (shapes, dtypes, Python numbers), so
they cost nothing in a compiled step and work under every transformation.  Each
message starts with the function and names the argument as the caller wrote it.
`TypeError` is about a dtype or a kind of object, `ValueError` about the rest.
"""

import difflib
import functools
import math
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Axis = int | tuple[int, ...] | None

# Where Keras calls what `compile` is given, and always with the targets first.
_KERAS = {
    "keras.src.losses.losses",
    "keras.src.metrics.reduction_metrics",
    "keras.src.distillation.distillation_loss",
}


def array(loss: str, name: str, x: ArrayLike) -> jax.Array:
    """Converts; raises `TypeError` unless it is given an array or a number."""
    wide = wide_integers(x)
    if wide is not None:
        refuse_wide(loss, name, wide)
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{loss}: `{name}` is {type(x).__name__}; expected an array or a number"
            f"{_what_is_inside(name, x)}."
        ) from error
    except OverflowError:
        has = "an integer that is too large for JAX"
        fail(loss, name, has, "smaller integers, or ids in a NumPy array of 64 bits")


def wide_integers(x: Any) -> np.ndarray | None:
    """`x` in NumPy, if some of its integers need the 64 bits that are off in JAX.

    JAX silently keeps the lower 32 of them: 2^32 + 1 becomes 1.  In a tracer they are
    lost already.
    """
    if isinstance(x, float) or (isinstance(x, int) and -(2**31) <= x < 2**31):
        return None
    if isinstance(x, jax.Array | np.ndarray | np.generic) and x.dtype.itemsize < 8:
        return None
    if jnp.result_type(int) == np.int64:
        return None
    try:
        host = np.asarray(x)
    except (TypeError, ValueError):  # a tracer; or no array, which others say
        return None
    if host.dtype not in (np.int64, np.uint64) or not host.size:
        return None
    bits = np.iinfo(np.int32 if host.dtype == np.int64 else np.uint32)
    return host if host.min() < bits.min or host.max() > bits.max else None


def refuse_wide(loss: str, name: str, wide: np.ndarray) -> NoReturn:
    """Raises `ValueError` for integers that JAX would cut to 32 bits."""
    largest = max(wide.max(), wide.min(), key=lambda x: abs(int(x)))
    fail(
        loss,
        name,
        f"the {wide.dtype} number {largest}, of which JAX would keep 32 bits",
        "smaller integers or floating-point numbers; if they are ids, renumber them "
        "with np.unique(ids, return_inverse=True)[1] (or turn jax_enable_x64 on)",
    )


def no_wide_integers(loss: str, **tree: Any) -> None:
    """Raises `ValueError` at a leaf of data that JAX would cut to 32 bits."""
    ((name, given),) = tree.items()
    for path, x in jax.tree_util.tree_leaves_with_path(given):
        wide = wide_integers(x)
        if wide is not None:
            refuse_wide(loss, f"{name}{jax.tree_util.keystr(path)}", wide)


def _what_is_inside(name: str, x: object) -> str:
    """How to get the array out of the box that network libraries put around it."""
    if callable(getattr(x, "unbox", None)):  # flax.linen.Partitioned and its kind
        return f", such as `{name}.unbox()`"
    return f", such as `{name}.array`" if hasattr(x, "array") else ""  # of Haliax


def floating(loss: str, **arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """Converts to arrays of one dtype, at least float32; raises unless floating.

    Half precision is widened here, once: every loss computes and returns float32 or
    better, and autodiff casts the gradient back to the caller's dtype.
    """
    converted = _floating(loss, **arrays)
    common = wide(*converted)
    return tuple(x.astype(common) for x in converted)


def factors(loss: str, **arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """`floating`, but in half precision if all of them are in the same one.

    For factors of matrix products whose sums are kept in float32.
    """
    converted = _floating(loss, **arrays)
    dtypes = {x.dtype for x in converted}
    common = dtypes.pop() if len(dtypes) == 1 else wide(*converted)
    return tuple(x.astype(common) for x in converted)


def real(loss: str, like: jax.Array, **arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """Converts boolean, integer or floating arrays to the dtype of `like`."""
    converted = {name: array(loss, name, x) for name, x in arrays.items()}
    for name, x in converted.items():
        if not _is_real(x):
            expected = "booleans, integers or floating-point numbers"
            wrong_kind(loss, name, f"dtype {x.dtype}", expected)
    return tuple(x.astype(like.dtype) for x in converted.values())


def widened(loss: str, **arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """Converts boolean, integer or floating arrays to one dtype, at least float32.

    Without any floating one that is the default: float64 where `jax_enable_x64` is on.
    """
    converted = {name: array(loss, name, x) for name, x in arrays.items()}
    floats = [x for x in converted.values() if jnp.issubdtype(x.dtype, jnp.floating)]
    found = wide(*floats) if floats else default_float()
    return real(loss, jnp.empty((), found), **converted)


def default_float() -> jnp.dtype:
    """What `jnp.zeros(())` is now: float64 where `jax_enable_x64` is on."""
    return jnp.result_type(float)


def same_shape(loss: str, **arrays: jax.Array) -> None:
    """Raises `ValueError` unless all shapes are identical.

    Nothing broadcasts: `(n,)` against `(n, 1)` would be a silent `(n, n)` loss.
    """
    (first, x), *rest = arrays.items()
    for name, y in rest:
        if y.shape != x.shape:
            has = f"shape {y.shape} but `{first}` has shape {x.shape}"
            remedy = _squeezed(**{first: x, name: y})
            fail(loss, name, has, f"equal shapes (nothing is broadcast){remedy}")


def _squeezed(**arrays: jax.Array) -> str:
    """What makes two shapes equal, where that is certain."""
    (first, x), (second, y) = arrays.items()
    if x.shape == (*y.shape, 1):
        return f"; use `{first}[..., 0]`"
    if y.shape == (*x.shape, 1):
        return f"; use `{second}[..., 0]`"
    per_class = second == "weights" and y.ndim == 1
    return "; of one weight per class use `weights[labels]`" if per_class else ""


def has_shape(loss: str, shape: tuple[int, ...], why: str, **arrays: jax.Array) -> None:
    """Raises `ValueError` unless each array has exactly `shape`; `why` explains it."""
    for name, x in arrays.items():
        if x.shape != shape:
            expected = f"{shape}, {why} (nothing is broadcast)"
            fail(loss, name, f"shape {x.shape}", expected)


def at_least_1d(loss: str, **arrays: jax.Array) -> None:
    """Raises `ValueError` for a scalar where an axis is consumed."""
    for name, x in arrays.items():
        if x.ndim == 0:
            raise ValueError(
                f"{loss}: `{name}` is a scalar; expected at least one axis."
            )


@functools.cache
def bounds(interval: str) -> tuple[float, float, bool, bool]:
    """The ends of, e.g., `"(0, 1]"`, and whether they belong to it."""
    low, high = map(float, interval[1:-1].split(","))
    return low, high, interval[0] == "[", interval[-1] == "]"


def in_interval(loss: str, interval: str, **values: ArrayLike) -> None:
    """Raises `ValueError` for a Python or NumPy number outside, e.g., `"(0, 1]"`.

    JAX arrays and tracers pass unchecked, so a hyperparameter can still be swept,
    scheduled or differentiated.
    """
    low, high, has_low, has_high = bounds(interval)
    for name, value in values.items():
        if isinstance(value, jax.Array):
            continue
        # NumPy takes microseconds to look at one number.
        x = value if isinstance(value, float | int) else np.asarray(value, float)
        inside = (low < x) & (x < high) | has_low & (x == low) | has_high & (x == high)
        if not (inside if isinstance(inside, bool) else np.all(inside)):
            raise ValueError(
                f"{loss}: `{name}` is {value}; expected a number in {interval}."
            )


def parameter(loss: str, like: jax.Array, **value: ArrayLike) -> jax.Array:
    """One hyperparameter in the dtype of `like`.

    A scalar stays a scalar; an array must broadcast to the shape of `like` without
    enlarging it (one value per class, quantile or element), and is broadcast here.
    """
    ((name, given),) = value.items()
    x = array(loss, name, given)
    if not _is_real(x) or x.dtype == bool:
        wrong_kind(loss, name, f"dtype {x.dtype}", "a number")
    x = x.astype(like.dtype)
    if x.ndim == 0:
        return x
    trailing = like.shape[like.ndim - x.ndim :] if x.ndim <= like.ndim else None
    if trailing is None or any(
        n not in (1, m) for n, m in zip(x.shape, trailing, strict=True)
    ):
        expected = f"a scalar or a shape that broadcasts to {like.shape}"
        fail(loss, name, f"shape {x.shape}", expected)
    return jnp.broadcast_to(
        x.reshape((1,) * (like.ndim - x.ndim) + x.shape), like.shape
    )


def boolean(
    loss: str, *, weighted: bool = False, **arrays: ArrayLike
) -> tuple[jax.Array, ...]:
    """Converts to arrays; raises `TypeError` unless boolean (a mask, not weights).

    `weighted` says that the function takes weights as well.
    """
    converted = {name: array(loss, name, x) for name, x in arrays.items()}
    more = " (use `weights=` for numbers)" if weighted else ""
    for name, x in converted.items():
        if x.dtype != bool:
            expected = f"a boolean mask, such as `{name} != 0`{more}"
            wrong_kind(loss, name, f"dtype {x.dtype}", expected)
    return tuple(converted.values())


def class_ids(loss: str, **labels: ArrayLike) -> jax.Array:
    """Converts to an array of at least 32 bits; raises `TypeError` unless integer.

    Narrower ids could not be compared with every class: an `int8` has no class 200.
    """
    ((name, given),) = labels.items()
    x = array(loss, name, given)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        remedy = f"; use `{name}.astype(int)`" if _is_real(x) else ""
        wrong_kind(loss, name, f"dtype {x.dtype}", f"integer ids{remedy}")
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.int32)


def signs(loss: str, like: jax.Array, **labels: ArrayLike) -> jax.Array:
    """Converts labels -1 and +1 to the dtype of `like`; refuses what has no -1."""
    ((name, given),) = labels.items()
    x = array(loss, name, given)
    if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.unsignedinteger):
        expected = "-1 and +1, which are `2 * y - 1` of integers y = 0 and 1"
        wrong_kind(loss, name, f"dtype {x.dtype}", expected)
    return real(loss, like, **{name: x})[0]


def one_axis(loss: str, axis: int, **array: jax.Array) -> int:
    """Returns `axis` counted from the front; raises `ValueError` outside the array."""
    ((name, x),) = array.items()
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeError(f"{loss}: `axis` is {axis!r}; expected an integer.")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{loss}: `axis` is {axis}; expected an axis of `{name}`, which has shape "
            f"{x.shape}."
        )
    return axis % x.ndim


def row_axis(loss: str, axis: int, entry: str, **array: jax.Array) -> int:
    """`one_axis`, along which there is at least one `entry`: a class, a component."""
    axis = one_axis(loss, axis, **array)
    ((name, x),) = array.items()
    if x.shape[axis] == 0:
        has = f"shape {x.shape}, with no {entry} along axis {axis}"
        fail(loss, name, has, f"at least one {entry}")
    return axis


def class_labels(
    loss: str, labels: ArrayLike, axis: int, **scores: jax.Array
) -> jax.Array:
    """Class ids, or one weight per class: told apart by dtype and rank, and only here.

    Integers of the shape of the scores without `axis` are ids, and come back in at
    least 32 bits (8 cannot be compared with 1000 classes).  Floating-point numbers of
    the scores' shape are distributions, and come back in the scores' dtype.
    """
    ((name, like),) = scores.items()
    x = array(loss, "labels", labels)
    integer = jnp.issubdtype(x.dtype, jnp.integer)
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    examples = like.shape[:axis] + like.shape[axis + 1 :]
    if integer and x.shape == examples:
        return x.astype(jnp.int32) if x.dtype.itemsize < 4 else x
    if floats and x.shape == like.shape:
        return x.astype(like.dtype)
    wrong_dtype = x.shape in (examples, like.shape) or not (integer or floats)
    refuse = wrong_kind if wrong_dtype else fail
    return refuse(
        loss,
        "labels",
        f"dtype {x.dtype} and shape {x.shape}",
        f"integer class ids of shape {examples}, or a floating-point distribution of "
        f"the shape of `{name}`, {like.shape}{_label_remedy(x, like, examples)}",
    )


def _label_remedy(x: jax.Array, like: jax.Array, examples: tuple[int, ...]) -> str:
    """What makes labels of these, where that is certain."""
    if x.shape in (examples, like.shape):
        dtype = "int" if x.shape == examples else f"jnp.{like.dtype}"
        return f"; use `labels.astype({dtype})`" if _is_real(x) else ""
    if x.shape == (*examples, 1):
        return "; use `labels[..., 0]`"
    without = [like.shape[:a] + like.shape[a + 1 :] for a in range(like.ndim)]
    fits = without.count(x.shape) == 1
    return f"; `labels` fits `axis={without.index(x.shape)}`" if fits else ""


def one_of(loss: str, choices: Iterable[str | None], **value: str | None) -> None:
    """Raises `ValueError` unless the string, or None, is one of `choices`."""
    ((name, given),) = value.items()
    choices = tuple(choices)
    if given not in choices:
        raise ValueError(
            f"{loss}: `{name}` is {given!r}; expected one of "
            f"{', '.join(map(repr, choices))}."
        )


def flag(loss: str, **value: bool) -> None:
    """Raises `TypeError` unless the argument, which picks a program, is a bool."""
    ((name, given),) = value.items()
    if not isinstance(given, bool):
        raise TypeError(f"{loss}: `{name}` is {given!r}; expected True or False.")


def positive_integer(loss: str, **value: int) -> None:
    """Raises unless the argument, which fixes a shape, is a Python integer >= 1."""
    ((name, given),) = value.items()
    if not isinstance(given, int | np.integer) or isinstance(given, bool):
        raise TypeError(
            f"{loss}: `{name}` is {type(given).__name__}; expected a Python integer "
            "(it fixes a shape)."
        )
    if given < 1:
        raise ValueError(f"{loss}: `{name}` is {given}; expected at least 1.")


def number(loss: str, name: str, value: ArrayLike, expected: str) -> jax.Array:
    """Converts to an array; raises `TypeError` unless real and not boolean."""
    wide = wide_integers(value)
    if wide is not None:
        refuse_wide(loss, name, wide)
    try:
        x = None if isinstance(value, str) else jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        x = None
    if x is None or not _is_real(x) or x.dtype == bool:
        has = f"type {type(value).__name__}" if x is None else f"dtype {x.dtype}"
        wrong_kind(loss, name, has, expected)
    return x


def is_number(value: ArrayLike, number: float) -> bool:
    """Whether a hyperparameter is this Python number: then its part is left out."""
    return isinstance(value, int | float) and value == number


def no_integer(loss: str, name: str, value: ArrayLike) -> None:
    """Raises `TypeError` for an integer or flag that `fn` would get as a float."""
    try:
        x = jnp.asarray(value)
    except (TypeError, ValueError):
        return  # no number at all: for `number` to say
    if x.dtype != bool and not jnp.issubdtype(x.dtype, jnp.integer):
        return
    kind = "boolean" if x.dtype == bool else "integer"
    if isinstance(value, jax.Array) or x.ndim:  # its value may not be known
        has = f"{kind}s of shape {x.shape}, which would reach `fn` as float32 numbers"
        number, plain = "an array of floats", "..."
    else:
        plain = x.item()
        has = f"the {kind} {plain}, which would reach `fn` as the float32 number "
        has, number = f"{has}{plain:.1f}", f"a float ({plain:.1f})"
    expected = (
        f"{number}, a schedule (a function of the step count), or functools.partial("
        f"fn, {name}={plain}) for a size, a count or a flag, which stays as it is"
    )
    wrong_kind(loss, name, has, expected)


def not_called_by_keras(loss: str) -> None:
    """Raises `TypeError` where the caller of the caller is Keras.

    Of `compile(loss=jaxloss.huber)`: nothing in the arguments tells that they are
    swapped, and it would train.
    """
    if sys._getframe(2).f_globals.get("__name__") in _KERAS:
        raise TypeError(
            f"{loss}: Keras calls it as `{loss}(y_true, y_pred)`, but predictions come "
            "first here; expected a loss of `jaxloss.compat.keras`, or `lambda y_true, "
            f"y_pred: {loss}(y_pred, y_true)`."
        )


def fail(loss: str, argument: str, has: str, expected: str) -> NoReturn:
    """Raises a `ValueError` in the house's words: what it has, what was expected."""
    raise ValueError(f"{loss}: `{argument}` has {has}; expected {expected}.")


def nearest(word: str, words: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the word nearest to a mistyped one, or nothing."""
    lower = {other.lower(): other for other in words}
    match = difflib.get_close_matches(word.lower(), lower, n=1)
    return f" (did you mean {lower[match[0]]!r}?)" if match else ""


def wrong_kind(loss: str, argument: str, has: str, expected: str) -> NoReturn:
    """`fail` for a kind of object or a dtype: raises `TypeError`."""
    raise TypeError(f"{loss}: `{argument}` has {has}; expected {expected}.")


def unbound_axis(loss: str, axis: object) -> NoReturn:
    """Raises `NameError`, as JAX does, for an axis that nothing around maps over."""
    raise NameError(
        f"{loss}: `axis_name` has the unbound axis name {axis!r}; expected an axis of "
        "the shard_map, pmap or vmap around the call (leave it out under plain jit)."
    )


def _floating(loss: str, **arrays: ArrayLike) -> tuple[jax.Array, ...]:
    converted = {name: array(loss, name, x) for name, x in arrays.items()}
    for name, x in converted.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            remedy = f"; use `{name}.astype(jnp.float32)`" if _is_real(x) else ""
            expected = f"a floating-point array{remedy}"
            wrong_kind(loss, name, f"dtype {x.dtype}", expected)
    return tuple(converted.values())


def _is_real(x: jax.Array) -> bool:
    return (
        jnp.issubdtype(x.dtype, jnp.floating)
        or jnp.issubdtype(x.dtype, jnp.integer)
        or x.dtype == bool
    )


def wide(*arrays: jax.Array) -> jnp.dtype:
    """The common dtype of floating arrays, at least float32."""
    widest = jnp.dtype(jnp.float32)
    for x in arrays:
        # Not promote_types, which mixes no dtypes when promotion is strict.
        if jnp.finfo(x.dtype).bits > jnp.finfo(widest).bits:
            widest = x.dtype
    return widest


def count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many entries `axis` (an axis, several, or all) of `shape` runs over."""
    axes = range(len(shape)) if axis is None else np.atleast_1d(axis)
    return math.prod(shape[a] for a in axes)
