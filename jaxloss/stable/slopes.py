"""Gives a function of numbers its derivatives."""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

Elementwise = Callable[..., jax.Array]


def slopes(*partials: Elementwise | None) -> Callable[[Elementwise], Elementwise]:
    """Gives an elementwise function its partial derivatives, one per argument.

    Each is a differentiable function of the same arguments, or None for an argument
    that only serves the others.  Tangents known to be zero are skipped, not multiplied:
    so the infinite derivative in an argument that is not differentiated does not give
    NaN as `inf * 0`.

    JAX traces the function once for all calls.  Of a long one that is jitted by itself
    it also traces the derivatives once.
    """

    def attach(fn: Elementwise) -> Elementwise:
        primitive = jax.custom_jvp(fn)
        # Inlined: of a part that is called twice, XLA for a TPU would make a kernel.
        part = jax.jit(primitive, inline=True)

        def rule(primals, tangents):
            moving = [
                partial(*primals) * tangent
                for partial, tangent in zip(partials, tangents, strict=True)
                if partial is not None and not isinstance(tangent, SymbolicZero)
            ]
            value = part(*primals)
            return value, functools.reduce(operator.add, moving, jnp.zeros_like(value))

        primitive.defjvp(rule, symbolic_zeros=True)
        return functools.wraps(fn)(part)

    return attach
