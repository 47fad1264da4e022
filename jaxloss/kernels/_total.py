"""The weighted sum of the losses of all tokens, and its derivatives."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxloss.kernels import _blocks, _losses, _rows
from jaxloss.kernels._head import Head
from jaxloss.kernels._losses import Knobs
from jaxloss.kernels._plan import Plan


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def total(
    plan: Plan, head: Head, ids: jax.Array, weights: jax.Array, knobs: Knobs
) -> jax.Array:
    """`sum(weights losses)`, whose gradient is computed together with it.

    The cotangent of a sum is one number, so the gradient is complete up to a factor
    as soon as the logits of a block are there, and they need not be made again.
    """
    rows = _blocks.statistics(head, ids, plan)
    return _losses.weighted(rows, weights, knobs)


def _total_jvp(plan: Plan, primals: tuple, tangents: tuple) -> tuple:
    head, ids, weights, knobs = primals
    moving, _, *direct = tangents
    need = _blocks.Need(*map(_moves, moving[:3]))
    if any(need):
        by_rows = lambda rows, w: jax.grad(_losses.weighted)(rows, w, knobs)
        rows, slopes = _blocks.gradients(head, ids, by_rows, weights, plan, need)
    else:
        rows, slopes = _blocks.statistics(head, ids, plan), ()
    value, tangent = jax.jvp(
        functools.partial(_losses.weighted, rows),
        (weights, knobs),
        jax.tree.map(_instantiated, (weights, knobs), tuple(direct)),
    )
    for slope, move in zip(slopes, moving, strict=False):
        if slope is not None:
            # Not `vdot`, which flattens, and so collects what is cut over devices.
            tangent += jnp.sum(slope.astype(head.wide) * move.astype(head.wide))
    if any(map(_moves, (moving.soft_cap, moving.temperature))):
        of_scales = lambda cap, t: _losses.weighted(
            _rows.statistics(plan, head._replace(soft_cap=cap, temperature=t), ids),
            weights,
            knobs,
        )
        dense = jax.tree.map(_instantiated, head[3:], moving[3:])
        tangent += jax.jvp(of_scales, head[3:], dense)[1]
    return value, tangent


total.defjvp(_total_jvp, symbolic_zeros=True)


def _moves(tangent: Any) -> bool:
    return tangent is not None and not isinstance(tangent, SymbolicZero)


def _instantiated(primal: jax.Array, tangent: Any) -> jax.Array:
    return tangent if _moves(tangent) else jnp.zeros_like(primal)
