"""Losses of tokens and their derivatives, from passes over blocks, or all at once.

There are three parts.  `total`, the weighted sum of the losses, is computed with its
gradient.  `statistics`, from which the losses of single tokens follow, has a gradient
that computes the logits again.  The `dense` functions are the formulas of both, for
reference.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxloss import _classes
from jaxloss.kernels import _blocks, _head
from jaxloss.kernels._head import Block, Head, Rows, Sums
from jaxloss.kernels._plan import Plan
from jaxloss.losses.classification import cross_entropy
from jaxloss.reduce import Mean


class Knobs(NamedTuple):
    """Numbers a loss depends on beside its logits; None for one that is 0."""

    label_smoothing: Any
    z_loss: Any


def losses(rows: Rows, knobs: Knobs) -> jax.Array:
    """One loss per token."""
    found = rows.nll
    if knobs.label_smoothing is not None:
        part = jnp.broadcast_to(knobs.label_smoothing, found.shape)
        found = _classes.mix(part, found, rows.spread, rows.spread - found)
    if knobs.z_loss is not None:
        found = found + knobs.z_loss * jnp.square(rows.lse)
    return found


def weighted(rows: Rows, weights: jax.Array, knobs: Knobs) -> jax.Array:
    """Their weighted sum, in which an infinite loss of weight 0 is 0."""
    return Mean.of(losses(rows, knobs), weights=weights).total


def _moves(tangent: Any) -> bool:
    return tangent is not None and not isinstance(tangent, SymbolicZero)


def _instantiated(primal: jax.Array, tangent: Any) -> jax.Array:
    return tangent if _moves(tangent) else jnp.zeros_like(primal)


# --- single tokens ------------------------------------------------------------------


def nll(plan: Plan, head: Head, ids: jax.Array) -> jax.Array:
    """The negative log-probability of each token."""
    return statistics(plan, head, ids).nll


def nll_and_z(plan: Plan, head: Head, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """That, and the square of the logsumexp of each token."""
    rows = statistics(plan, head, ids)
    return rows.nll, jnp.square(rows.lse)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def statistics(plan: Plan, head: Head, ids: jax.Array) -> Rows:
    """What a loss may depend on, per token.

    The cotangent of each token is known only at the end.  So the derivative is a loop
    over the blocks that is linear in the tangents, and computes its coefficients again
    in each step: its transpose stores no logits.
    """
    return _blocks.statistics(head, ids, plan)


def _statistics_jvp(plan: Plan, primals: tuple, tangents: tuple) -> tuple:
    (head, ids), (moves, _) = primals, tangents
    plan = plan._replace(chunks=1, stores=False)
    sums, _ = _blocks.forward(head, ids, plan)
    classes = _head.count(head, plan)
    rows = _head.rows(sums, classes, ids)
    # In float32 from here, so that sums of their transposes are not rounded.
    moves = {
        name: t.astype(head.wide)
        for name, t in zip(Head._fields, moves, strict=True)
        if t is not None and not isinstance(t, SymbolicZero)
    }
    one = _head.blocks(head, plan) == 1
    moved = jax.checkpoint(functools.partial(_moved, plan), prevent_cse=one)

    def step(carry: Rows, j: jax.Array) -> tuple[Rows, None]:
        found = moved(head, j, ids, sums, classes, moves)
        return jax.tree.map(jnp.add, carry, found), None

    zero = jax.tree.map(jnp.zeros_like, rows)
    start = _blocks.varying(zero, head, ids, moves)
    return rows, _blocks.over_classes(step, start, head, plan)


statistics.defjvp(_statistics_jvp, symbolic_zeros=True)


def _block_of(moves: dict[str, jax.Array], b: Block, plan: Plan) -> dict[str, Any]:
    """The tangents of a block of classes."""
    cut = functools.partial(
        lax.dynamic_slice_in_dim, start_index=b.start, slice_size=plan.classes
    )
    axes = {"kernel": plan.class_axis, "bias": 0}
    return {k: cut(t, axis=axes[k]) if k in axes else t for k, t in moves.items()}


def _moved(
    plan: Plan,
    head: Head,
    j: jax.Array,
    ids: jax.Array,
    sums: Sums,
    classes: jax.Array,
    moves: dict[str, jax.Array],
) -> Rows:
    """What the classes of the j-th block add to the tangents of the statistics."""
    b = _head.block(head, plan, j)
    moves = _block_of(moves, b, plan)
    wide = lambda x: x if x is None else x.astype(head.wide)
    still = {"hidden": wide(head.hidden), "kernel": wide(b.kernel), "bias": b.bias}
    still |= {"soft_cap": head.soft_cap, "temperature": head.temperature}

    def logits(moving: dict[str, jax.Array]) -> jax.Array:
        now = still | moving
        local = b._replace(kernel=now.pop("kernel"), bias=now.pop("bias"))
        return _head.logits(Head(kernel=None, bias=None, **now), plan, local)

    z, move = jax.jvp(logits, ({k: still[k] for k in moves},), (moves,))
    return _head.rows_moved(sums, z, move, b, ids, classes)


# --- the sum of all losses ----------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def total(
    plan: Plan, head: Head, ids: jax.Array, weights: jax.Array, knobs: Knobs
) -> jax.Array:
    """`sum(weights losses)`, whose gradient is computed together with it.

    The cotangent of a sum is one number, so the gradient is known up to a factor as
    soon as the logits of a block are computed, and they need not be computed again.
    """
    rows = _blocks.statistics(head, ids, plan)
    return weighted(rows, weights, knobs)


def _total_jvp(plan: Plan, primals: tuple, tangents: tuple) -> tuple:
    head, ids, weights, knobs = primals
    moving, _, *direct = tangents
    need = _blocks.Need(*map(_moves, moving[:3]))
    if any(need):
        by_rows = lambda rows, w: jax.grad(weighted)(rows, w, knobs)
        rows, slopes = _blocks.gradients(head, ids, by_rows, weights, plan, need)
    else:
        rows, slopes = _blocks.statistics(head, ids, plan), ()
    value, tangent = jax.jvp(
        functools.partial(weighted, rows),
        (weights, knobs),
        jax.tree.map(_instantiated, (weights, knobs), tuple(direct)),
    )
    for slope, move in zip(slopes, moving, strict=False):
        if slope is not None:
            # Not `vdot`, which flattens, and so gathers sharded arrays.
            tangent += jnp.sum(slope.astype(head.wide) * move.astype(head.wide))
    if any(map(_moves, (moving.soft_cap, moving.temperature))):
        of_scales = lambda cap, t: weighted(
            statistics(plan, head._replace(soft_cap=cap, temperature=t), ids),
            weights,
            knobs,
        )
        dense = jax.tree.map(_instantiated, head[3:], moving[3:])
        tangent += jax.jvp(of_scales, head[3:], dense)[1]
    return value, tangent


total.defjvp(_total_jvp, symbolic_zeros=True)


# --- all logits at once -------------------------------------------------------------


def dense_logits(plan: Plan, head: Head) -> jax.Array:
    """Every logit of every token."""
    whole = Block(head.kernel, head.bias, None, None)
    return _head.masked(_head.logits(head, plan, whole), whole)


def dense_losses(plan: Plan, head: Head, ids: jax.Array, knobs: Knobs) -> jax.Array:
    """The loss of each token."""
    x = dense_logits(plan, head)
    smoothing = 0.0 if knobs.label_smoothing is None else knobs.label_smoothing
    found = cross_entropy.softmax_cross_entropy(x, ids, label_smoothing=smoothing)
    if knobs.z_loss is not None:
        found = found + knobs.z_loss * cross_entropy.z_loss(x)
    return found


def dense_total(
    plan: Plan, head: Head, ids: jax.Array, weights: jax.Array, knobs: Knobs
) -> jax.Array:
    """The weighted sum of the losses of all tokens."""
    return Mean.of(dense_losses(plan, head, ids, knobs), weights=weights).total


def dense_nll_and_z(
    plan: Plan, head: Head, ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The two losses of each token."""
    x = dense_logits(plan, head)
    return cross_entropy.softmax_cross_entropy_with_z(x, ids)


def dense_nll(plan: Plan, head: Head, ids: jax.Array) -> jax.Array:
    """The negative log-probability of each token."""
    return dense_losses(plan, head, ids, Knobs(None, None))
