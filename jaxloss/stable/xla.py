"""Workarounds for the compiler, and their reasons: the only module that knows of XLA.

XLA rewrites a program by the rules of real numbers, and shares what is computed twice.
This has two bad consequences, and every function here prevents one of them:

* wrong digits: `(x + c) - c` becomes `x`, `u * v - w` one fused multiply-add, and
  `where(known, 1, nan)` a choice that stops `jax.debug_nans`;
* memory traffic: XLA:CPU fuses an elementwise function into the sum that follows, but
  not if a gradient shares a part of it, nor through a choice (`select`).
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxloss.stable import sharding

Elementwise = Callable[..., jax.Array]
Arrays = TypeVar("Arrays", jax.Array, tuple[jax.Array, ...])


# --- memory traffic ------------------------------------------------------------------


def rematerialised(fn: Elementwise) -> Elementwise:
    """`fn`, whose derivatives are computed from its arguments again.

    Otherwise XLA:CPU writes subexpressions that value and gradient share to memory, and
    reads them twice.  The arguments of the derivatives are `hidden`, which hides what
    they share.  `jax.checkpoint` has a barrier on every platform, and the program for
    an H200 then moves 2.3 times the bytes.
    """
    return _computed_again(fn, lambda x: cpu_barrier(hidden(x)))


def rematerialised_unless_cpu(fn: Elementwise) -> Elementwise:
    """`rematerialised`, where a CPU takes longer to compute than to read and write."""
    return _computed_again(fn, hidden)


def _computed_again(fn: Elementwise, hide: Elementwise) -> Elementwise:
    primitive = jax.custom_jvp(fn)

    def rule(primals, tangents):
        again = [hide(x) for x in primals]
        return primitive(*primals), _slope(fn, again, tangents)

    primitive.defjvp(rule, symbolic_zeros=True)
    # Not the attributes of `fn` too, which may have a rule of its own among them.
    return functools.wraps(fn, updated=())(primitive)


def _slope(fn: Elementwise, primals: list, tangents: Sequence) -> jax.Array:
    """Of `fn` along the tangents; what does not move is not differentiated."""
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]

    def along(*moved):
        args = list(primals)
        for i, x in zip(moving, moved, strict=True):
            args[i] = x
        return fn(*args)

    _, slope = jax.jvp(
        along, [primals[i] for i in moving], [tangents[i] for i in moving]
    )
    return slope


def by_columns(fn: Elementwise, count: int) -> Elementwise:
    """A function of arrays of so many columns, from `fn` of all their columns.

    An accelerator would write out what the columns of the gradient share, each part as
    an array of its own.  Here it computes every column from the arguments again, in the
    one kernel that writes all of them.
    """

    of_columns = jax.jit(fn)  # traced once for all columns

    def columns(x: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(x[..., i] for i in range(count))

    def rows(*arrays: jax.Array) -> jax.Array:
        return of_columns(*(column for x in arrays for column in columns(x)))

    @functools.cache
    def gradient(moving: int) -> Elementwise:
        return _gradient_by_columns(rows, of_columns, columns, moving)

    def rule(primals, tangents):
        value = part(*primals)
        slope = jnp.zeros_like(value)
        for i, t in enumerate(tangents):
            if not isinstance(t, SymbolicZero):
                slope += jnp.sum(gradient(i)(*primals) * t, axis=-1)
        return value, slope

    primitive = jax.custom_jvp(lambda *arrays: _sum_of_columns(rows(*arrays), count))
    primitive.defjvp(rule, symbolic_zeros=True)
    part = jax.jit(primitive)
    return functools.wraps(fn, updated=())(part)


def _gradient_by_columns(
    rows: Elementwise, fn: Elementwise, columns: Callable[..., Any], moving: int
) -> Elementwise:
    """The gradient of `rows` by one of its arrays."""

    def together(*arrays: jax.Array) -> jax.Array:
        before, after = arrays[:moving], arrays[moving + 1 :]
        value, pull = jax.vjp(lambda x: rows(*before, x, *after), arrays[moving])
        return pull(jnp.ones_like(value))[0]

    def one_by_one(*arrays: jax.Array) -> jax.Array:
        count = arrays[moving].shape[-1]
        found = []
        for at in range(moving * count, (moving + 1) * count):
            hide = functools.partial(hidden, variant=at + 1)
            again = [hide(column) for x in arrays for column in columns(x)]
            along = lambda x, at=at, again=again: fn(*again[:at], x, *again[at + 1 :])
            _, slope = jax.jvp(along, (again[at],), (jnp.ones_like(again[at]),))
            found.append(slope)
        return jnp.stack(found, axis=-1)

    def written(*arrays: jax.Array) -> jax.Array:
        return lax.platform_dependent(*arrays, cpu=together, default=one_by_one)

    def rule(primals, tangents):
        # A second derivative has no columns to save, which take long to trace.
        return part(*primals), _slope(together, primals, tangents)

    primitive = jax.custom_jvp(written)
    primitive.defjvp(rule, symbolic_zeros=True)
    part = jax.jit(primitive)
    return part


def _sum_of_columns(x: jax.Array, count: int) -> jax.Array:
    """Returns `x`, on a TPU as the sums of so many columns, all but one of them 0.

    Otherwise it is laid out as one row of numbers, and the columns that it is computed
    from are first copied into this layout.
    """

    def of_columns(x: jax.Array) -> jax.Array:
        column = lax.broadcasted_iota(jnp.int32, (*x.shape, count), x.ndim)
        return jnp.sum(jnp.where(column == 0, x[..., None], 0), axis=-1)

    return lax.platform_dependent(x, tpu=of_columns, default=_same)


def _same(x: Arrays) -> Arrays:
    return x


def cpu_barrier(x: Arrays) -> Arrays:
    """Returns `x`, but XLA:CPU does not know that it is `x`."""
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=_same)


def hidden(x: jax.Array, variant: int = 0) -> jax.Array:
    """Returns `x`, of which XLA knows on no accelerator that it is `x`.

    There it writes out what is dear to compute and used twice.  Of the product of `x`
    with a number that it cannot see, a 1, it computes that again; and once more of
    another variant.
    """

    def product(x: jax.Array) -> jax.Array:
        number = jnp.full((), 2.0**variant, x.dtype)
        return x * (lax.optimization_barrier(number) * 0.5**variant)

    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return lax.platform_dependent(x, cpu=_same, default=product)


def hidden_bits(x: jax.Array) -> jax.Array:
    """`hidden`, of integers and booleans: by a number of bits that are all 0."""

    def flipped(x: jax.Array) -> jax.Array:
        return x ^ lax.optimization_barrier(jnp.zeros((), x.dtype))

    return lax.platform_dependent(x, cpu=_same, default=flipped)


def written_on_cpu(value: jax.Array, again: Elementwise, *args: jax.Array) -> jax.Array:
    """`value`; but on other platforms the equal `again(*args)`.

    There memory is slower than arithmetic, but XLA writes to memory what is used twice.
    """
    return lax.platform_dependent(
        value, *args, cpu=lambda value, *args: value, default=lambda _, *a: again(*a)
    )


def after_on_cpu(x: jax.Array, other: jax.Array) -> jax.Array:
    """`x`, which XLA:CPU does not read before `other` is there; NaN where that is NaN.

    A barrier is gone before XLA orders the program.
    """
    return lax.platform_dependent(
        x, other, cpu=lambda x, y: jnp.where(jnp.isnan(y), y, x), default=lambda x, _: x
    )


def barrier(x: Arrays) -> Arrays:
    """`cpu_barrier` on every platform: what comes before is computed once, as it is."""
    return lax.optimization_barrier(x)


@jax.custom_jvp
def gradient_written(x: jax.Array) -> jax.Array:
    """Returns `x`, whose gradient XLA:CPU writes to memory once, before it is read.

    It is for the logits of a loss of rows.  Logits of a batch of sequences, (batch,
    length, classes), mostly come from a matrix product in the same program, and
    XLA:CPU needs their gradient in two layouts.  It would compute the gradient twice,
    each time from the exponentials, and keep all three arrays.
    """
    return x


@gradient_written.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    if x.ndim < 3:  # one layout does
        return x, cpu_barrier(t)
    return x, lax.platform_dependent(t, cpu=_written, default=_same)


def _written(x: jax.Array) -> jax.Array:
    if jax.__version_info__ >= (0, 12):
        return lax.optimization_barrier(x)
    # There a barrier is gone before XLA decides what to compute twice; a choice that is
    # made as the program runs is not.
    never = lax.optimization_barrier(jnp.zeros((), bool))
    return lax.cond(never, operator.neg, _same, x)


def opaque_constants(like: jax.Array, *values: float) -> tuple[jax.Array, ...]:
    """Scalars in the dtype of `like` that XLA:CPU neither simplifies nor shares.

    If `rematerialised` computes a function and its gradient, and both contain a 1, XLA
    would write an array of ones to memory for the two.
    """
    return cpu_barrier(tuple(jnp.asarray(v, like.dtype) for v in values))


def signs(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(1, 0) where x is positive, (0, 1) where it is not: without a choice."""
    zero, one = opaque_constants(x, 0, 1)
    positive = jnp.maximum(jnp.sign(x), zero)
    return positive, one - positive


def unless_right(wrong: jax.Array, a: jax.Array) -> jax.Array:
    """`a`, and 0 where nothing is wrong, so that `wrong * a` is 0 there and not NaN."""

    def arithmetic(wrong: jax.Array, a: jax.Array) -> jax.Array:
        # A power of two that takes the smallest normal number beyond 1: its square is
        # infinite, and so is the product of that with all that is not 0.
        (huge,) = opaque_constants(a, 2.0 ** (jnp.finfo(a.dtype).maxexp - 1))
        return jnp.minimum(a, jnp.abs(wrong) * huge * huge)

    def choice(wrong: jax.Array, a: jax.Array) -> jax.Array:
        return jnp.where(wrong == 0, 0, a)

    # Elsewhere `huge` is a constant, whose square XLA computes first: 0 * inf.
    return lax.platform_dependent(wrong, a, cpu=arithmetic, default=choice)


@sharding.automatic
def entry(x: jax.Array, ids: jax.Array) -> jax.Array:
    """The entry of each row at its id, which must be one of the columns.

    It is found by comparison, which fuses with another reduction over the row; a gather
    would need the row in memory, but on XLA:CPU it reads only one entry.
    """

    def gathered(x: jax.Array, ids: jax.Array) -> jax.Array:
        at = jnp.take_along_axis(x, ids[..., None], -1, mode="promise_in_bounds")
        return at[..., 0]

    def compared(x: jax.Array, ids: jax.Array) -> jax.Array:
        column = lax.broadcasted_iota(ids.dtype, x.shape, x.ndim - 1)
        return jnp.sum(jnp.where(column == ids[..., None], x, 0), axis=-1)

    return lax.platform_dependent(x, ids, cpu=gathered, default=compared)


# --- digits --------------------------------------------------------------------------


def no_reassociation(x: jax.Array) -> jax.Array:
    """Returns `x`, as a value XLA's algebraic simplifier does not rewrite through."""
    return reduced(x, jnp.finfo(x.dtype).nmant)


def reduced(x: jax.Array, digits: int) -> jax.Array:
    """`x` rounded to so many binary digits behind the first."""
    bits = jnp.finfo(x.dtype)
    return lax.reduce_precision(x, exponent_bits=bits.nexp, mantissa_bits=digits)


def no_fma(x: jax.Array) -> jax.Array:
    """Returns `x`, a product that the compiler cannot fuse with a later sum.

    Otherwise `u * v - max(u * v)` becomes one fused multiply-add, which at the maximum
    is not 0 but the rounding error of the product: 500 at 1e10, whose exponential is
    inf.  `no_reassociation` does not prevent that; a choice between two values does.
    """
    return jnp.where(jnp.isnan(x), 2 * x, x)


def no_fma_unless_tpu(x: jax.Array) -> jax.Array:
    """`no_fma`, but for a TPU: there XLA would write out what it reads twice."""
    return lax.platform_dependent(x, tpu=_same, default=no_fma)


def nan_unless(known: jax.Array, like: jax.Array) -> jax.Array:
    """0, or NaN where not `known`, in the dtype of `like`: to be added to a result.

    It is a square root, because a literal NaN in a `where` always stops
    `jax.debug_nans`.
    """
    return jnp.sqrt(jnp.where(known, 0, -1).astype(like.dtype))


def nan_slope_unless(known: jax.Array, slope: jax.Array) -> jax.Array:
    """`slope`, but NaN where not `known` and not 0: a masked example stays harmless.

    A constant NaN would reach the gradient through a mask as well: 0 * NaN is NaN.
    Overflow gives NaN only if the slope is not 0, in both modes of differentiation,
    hence the palindrome.
    """
    largest = jnp.asarray(jnp.finfo(slope.dtype).max, slope.dtype)
    huge = jnp.where(known, jnp.ones_like(largest), largest)
    zero = no_reassociation(known.astype(slope.dtype))  # or it becomes a choice
    for factor in (huge, huge, zero, huge, huge):
        slope = no_reassociation(slope * factor)
    return slope
