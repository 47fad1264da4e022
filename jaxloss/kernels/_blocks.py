"""Passes over blocks of tokens and classes: statistics, and gradients beside them.

One pass over the classes computes the statistics of each row; a second one computes the
gradient from them.  If the logits of the first pass are kept, for a part of the tokens
at a time, the second pass need not compute them again: there are three matrix products,
as many as with autodiff of all logits.  Otherwise there are four, with all tokens at
once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss.kernels import _head, _plan, _slices
from jaxloss.kernels._head import Block, Head, Rows, Slopes, Sums
from jaxloss.kernels._plan import Plan
from jaxloss.stable import xla

ByRows = Callable[[Rows, Any], Rows]
"""From the statistics of some tokens, and what else is known of them, to the
derivatives of their loss by these statistics."""


class Need(NamedTuple):
    """Which gradients are needed: none is computed for what is frozen."""

    hidden: bool
    kernel: bool
    bias: bool


class Gradients(NamedTuple):
    """The gradients that were asked for, at least float32; None for the others."""

    hidden: Any
    kernel: Any
    bias: Any


def statistics(head: Head, ids: jax.Array, plan: Plan) -> Rows:
    """The statistics of each row of logits."""
    classes = _head.count(head, plan)
    plan = _plan.for_values(plan, head.hidden.shape[0], _head.size(head, plan))

    def part(carry: tuple, xs: tuple) -> tuple[tuple, Rows]:
        x, ids = xs
        sums, _ = forward(head._replace(hidden=x), ids, plan)
        return carry, _head.rows(sums, classes, ids)

    return _over_tokens(part, (), (head.hidden, ids), plan)[1]


def gradients(
    head: Head, ids: jax.Array, by_rows: ByRows, also: Any, plan: Plan, need: Need
) -> tuple[Rows, Gradients]:
    """The statistics, and the gradient of a loss whose slopes `by_rows` says.

    `also` is a tree of arrays with one entry per token, which `by_rows` gets its part
    of.
    """
    classes = _head.count(head, plan)

    def part(carry: tuple, xs: tuple) -> tuple[tuple, tuple]:
        x, ids, also = xs
        here = head._replace(hidden=x)
        sums, kept = forward(here, ids, plan)
        rows = _head.rows(sums, classes, ids)
        slopes = _head.slopes(by_rows(rows, also), sums, classes, ids)
        by_hidden, *added = _backward(here, ids, slopes, kept, carry, plan, need)
        return tuple(added), (rows, by_hidden)

    # Sums over parts of the tokens are kept in float32; a single part has no sum.  The
    # 8 bits of bfloat16 are too few before the division by the sum of the weights.
    alone = plan.chunks == 1 and head.kernel.dtype.itemsize > 1
    dtype = head.kernel.dtype if alone else head.wide
    by_kernel = jnp.zeros(head.kernel.shape, dtype) if need.kernel else None
    by_bias = jnp.zeros(_head.size(head, plan), head.wide) if need.bias else None
    carry, (rows, by_hidden) = _over_tokens(
        part, (by_kernel, by_bias), (head.hidden, ids, also), plan, (head, also)
    )
    by_kernel, by_bias = carry
    if by_bias is not None and head.bias is not None:
        by_bias = jnp.where(head.bias == -jnp.inf, 0, by_bias)
    return rows, Gradients(by_hidden, by_kernel, by_bias)


def axes(x: jax.Array) -> frozenset:
    """The axes of `shard_map` along which devices may have other values."""
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def varying(tree: Any, *like: Any) -> Any:
    """`tree`, typed as different on each device that any of `like` is different on.

    What a loop carries must have one type throughout, under `shard_map` as well.
    """
    every = frozenset().union(*map(axes, jax.tree.leaves(like)))

    def cast(x: jax.Array) -> jax.Array:
        missing = tuple(every - axes(x))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


# --- one part of the tokens --------------------------------------------------------


def forward(head: Head, ids: jax.Array, plan: Plan) -> tuple[Sums, Any]:
    """The sums over all classes, and the logits where the plan says to keep them."""
    tokens = head.hidden.shape[0]
    kept = None
    if plan.stores:
        kept = jnp.zeros((tokens, _head.size(head, plan)), head.wide)

    def step(carry: tuple, j: jax.Array) -> tuple[tuple, None]:
        sums, kept = carry
        b = _head.block(head, plan, j)
        z = _head.logits(head, plan, b)
        if kept is not None:
            kept = _slices.write(kept, z, b.start, 1)
        return (_head.add(sums, z, b, ids), kept), None

    start = _head.no_sums(head.hidden, plan, head.wide), kept
    return over_classes(step, varying(start, head, ids), head, plan)


def _backward(
    head: Head,
    ids: jax.Array,
    slopes: Slopes,
    kept: jax.Array | None,
    carry: tuple,
    plan: Plan,
    need: Need,
) -> tuple:
    """The gradient by the hidden states of this part, and the others with it added."""
    axis, dtype = plan.class_axis, _factors(head)
    # Transposed once, and not in each product, where a CPU would widen bfloat16 first.
    features = xla.barrier(head.hidden.astype(dtype).T)
    put = _slices.write if plan.chunks == 1 else _slices.add

    def step(carry: tuple, j: jax.Array) -> tuple[tuple, None]:
        by_hidden, by_kernel, by_bias = carry
        b = _head.block(head, plan, j)
        g = _head.by_logits(slopes, head, _logits(head, plan, b, kept), b, ids)
        if by_bias is not None:
            by_bias = put(by_bias, jnp.sum(g, axis=0), b.start, 0)
        g = g.astype(dtype)
        if by_hidden is not None:
            by_hidden = by_hidden + _head.dot(g, b.kernel.astype(dtype), 1, axis)
        if by_kernel is not None:
            product = _head.dot(features, g, 1, 0)
            by_kernel = put(by_kernel, product if axis else product.T, b.start, axis)
        return (by_hidden, by_kernel, by_bias), None

    by_hidden = jnp.zeros(head.hidden.shape, head.wide) if need.hidden else None
    start = varying((by_hidden, *carry), head, ids, slopes)
    return over_classes(step, start, head, plan)


def _logits(head: Head, plan: Plan, b: Block, kept: jax.Array | None) -> jax.Array:
    if kept is None:
        return _head.logits(head, plan, b)
    return _slices.read(kept, b.start, plan.classes, 1)


def _factors(head: Head) -> jnp.dtype:
    """The dtype of the factors of the products of the gradient.

    bfloat16 rounds a derivative as much as the factor it is multiplied by, and is fast.
    float16 would round small numbers to 0: probabilities of a large vocabulary.
    """
    return jnp.bfloat16 if head.hidden.dtype == jnp.bfloat16 else head.wide


# --- loops -------------------------------------------------------------------------


def over_classes(step: Callable, carry: tuple, head: Head, plan: Plan) -> tuple:
    """Folds `step` over the blocks, the last one first.

    If it begins inside the one before it, what it writes there is written over.
    """
    # Tied to the tokens, or autodiff moves the slices of the kernel, which depend on
    # no token, out of the loop over the tokens: that would be a second kernel.
    which = jnp.arange(_head.blocks(head, plan), dtype=jnp.int32)
    which, _ = xla.barrier((which, head.hidden))
    if which.size == 1:
        return step(carry, which[0])[0]
    return lax.scan(step, carry, which, reverse=True)[0]


def _over_tokens(
    part: Callable, carry: tuple, arrays: tuple, plan: Plan, *like: Any
) -> tuple[tuple, Any]:
    """Folds `part` over parts of the tokens: part c has every `chunks`-th token.

    Not consecutive tokens: if tokens are sharded, each device would have to wait for
    the parts of the others, and compute them too.  This way each has a share of every
    part.
    """
    if plan.chunks == 1:
        return part(varying(carry, *like), arrays)
    tokens = arrays[0].shape[0]
    parts = jax.tree.map(functools.partial(_cut, chunks=plan.chunks), arrays)

    def step(carry: tuple, c: jax.Array) -> tuple[tuple, Any]:
        pick = lambda x: jnp.squeeze(_slices.read(x, c, 1, 0), 0)
        return part(carry, jax.tree.map(pick, parts))

    which = jnp.arange(plan.chunks, dtype=jnp.int32)
    carry, found = lax.scan(step, varying(carry, *like), which)
    return carry, jax.tree.map(functools.partial(_join, tokens=tokens), found)


def _cut(x: jax.Array, chunks: int) -> jax.Array:
    """Parts of the tokens along a new first axis, the last ones filled up by zeros."""
    missing = -x.shape[0] % chunks
    if missing:
        x = jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))
    return jnp.moveaxis(x.reshape((-1, chunks, *x.shape[1:])), 1, 0)


def _join(x: jax.Array, tokens: int) -> jax.Array:
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape((-1, *x.shape[2:]))[:tokens]
