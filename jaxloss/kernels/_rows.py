"""The statistics of each row of logits, with derivatives that make the logits again."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxloss.kernels import _blocks, _head
from jaxloss.kernels._head import Block, Head, Rows, Sums
from jaxloss.kernels._plan import Plan


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def statistics(plan: Plan, head: Head, ids: jax.Array) -> Rows:
    """What a loss may depend on, per token.

    The cotangent of each token is known only in the end.  So the derivative is a loop
    over the blocks that is linear in the tangents, and what it is linear *with* is
    made again in each step: transposed, it keeps no logits.
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
        b = _head.block(head, plan, j)
        local = _block_of(moves, b, plan)
        found = moved(
            head._replace(kernel=None, bias=None), b, ids, sums, classes, local
        )
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
    b: Block,
    ids: jax.Array,
    sums: Sums,
    classes: jax.Array,
    moves: dict[str, jax.Array],
) -> Rows:
    """What the classes of one block add to the tangents of the statistics."""
    wide = lambda x: x if x is None else x.astype(head.wide)
    still = {"hidden": wide(head.hidden), "kernel": wide(b.kernel), "bias": b.bias}
    still |= {"soft_cap": head.soft_cap, "temperature": head.temperature}

    def logits(moving: dict[str, jax.Array]) -> jax.Array:
        now = still | moving
        local = b._replace(kernel=now.pop("kernel"), bias=now.pop("bias"))
        return _head.logits(Head(kernel=None, bias=None, **now), plan, local)

    z, move = jax.jvp(logits, ({k: still[k] for k in moves},), (moves,))
    return _head.rows_moved(sums, z, move, b, ids, classes)
