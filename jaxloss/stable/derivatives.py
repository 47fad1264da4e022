"""How a primitive is given its derivatives, and kept from XLA's rewriting."""

import functools
import operator
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

Elementwise = Callable[..., jax.Array]
Arrays = TypeVar("Arrays", jax.Array, tuple[jax.Array, ...])


def with_derivatives(
    *partials: Elementwise | None,
) -> Callable[[Elementwise], Elementwise]:
    """Gives an elementwise function its partial derivatives, one per argument.

    Each is a function of the same arguments, itself differentiable, or None for that of
    an argument which only serves the others.  Tangents known to be zero are skipped,
    not multiplied: an argument that is not differentiated cannot bring in its infinite
    slope as `inf * 0`.
    """

    def attach(fn: Elementwise) -> Elementwise:
        primitive = jax.custom_jvp(fn)

        def rule(primals, tangents):
            moving = [
                partial(*primals) * tangent
                for partial, tangent in zip(partials, tangents, strict=True)
                if partial is not None and not isinstance(tangent, SymbolicZero)
            ]
            value = primitive(*primals)
            return value, functools.reduce(operator.add, moving, jnp.zeros_like(value))

        primitive.defjvp(rule, symbolic_zeros=True)
        return functools.wraps(fn)(primitive)

    return attach


def apart(fn: Elementwise) -> Elementwise:
    """`fn`, whose derivatives are computed from its arguments anew: for XLA:CPU.

    There a sum takes up the elementwise function before it, unless a gradient needs
    the same subexpression: that one is written out at full size, and read twice.  A
    barrier on the arguments of the derivatives hides what they share.
    """
    primitive = jax.custom_jvp(fn)

    def rule(primals, tangents):
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]
        again = [anew(x) for x in primals]

        def along(*moved):
            args = list(again)
            for i, x in zip(moving, moved, strict=True):
                args[i] = x
            return fn(*args)

        _, slope = jax.jvp(
            along, [again[i] for i in moving], [tangents[i] for i in moving]
        )
        return primitive(*primals), slope

    primitive.defjvp(rule, symbolic_zeros=True)
    # Not the attributes of `fn` too, which may have a rule of its own among them.
    return functools.wraps(fn, updated=())(primitive)


def _same(x: Arrays) -> Arrays:
    return x


def anew(x: Arrays) -> Arrays:
    """Returns `x`, of which XLA:CPU does not know that it is `x`."""
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=_same)


def constants(like: jax.Array, *values: float) -> tuple[jax.Array, ...]:
    """Scalars in the dtype of `like` that XLA:CPU neither simplifies with nor shares.

    Where `apart` computes a function and its gradient that both have a 1 in them, an
    array of ones would be written out for the two.
    """
    return anew(tuple(jnp.asarray(v, like.dtype) for v in values))


def pin(x: jax.Array) -> jax.Array:
    """Returns `x`, as a value XLA's algebraic simplifier does not rewrite through."""
    bits = jnp.finfo(x.dtype)
    return lax.reduce_precision(x, exponent_bits=bits.nexp, mantissa_bits=bits.nmant)


def rounded(x: jax.Array) -> jax.Array:
    """Returns `x`, past which the compiler cannot fuse the product that `x` may be.

    Else `u * v - max(u * v)` becomes one fused multiply-add, which at the maximum is
    not 0 but the rounding error of the product: 500 at 1e10, so its exponential is inf.
    `pin` does not prevent that; a choice between two values does.
    """
    return jnp.where(jnp.isnan(x), 2 * x, x)


def difference(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rounded `a - b` and its rounding error, exactly (Knuth's two-sum).

    Without the error, `exp(a - b)` is off by |a - b| / 2 ulp.
    """
    a, b = rounded(a), rounded(b)
    d = a - b
    finite = jnp.isfinite(d)
    a, b, s = (jnp.where(finite, v, 0) for v in (a, b, d))
    shadow = s - a
    return d, (a - (s - shadow)) - (b + shadow)
