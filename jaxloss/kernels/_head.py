"""A linear layer and statistics of its logits, one block of classes at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss import _checks, stable
from jaxloss.kernels import _slices
from jaxloss.kernels._plan import Plan
from jaxloss.stable import xla


class Head(NamedTuple):
    """The factors of the logits `soft_cap(hidden kernel + bias) / temperature`."""

    hidden: Any
    """`(tokens, features)`, of the dtype of the kernel."""
    kernel: Any
    """`(features, classes)`, or `(classes, features)` if `Plan.class_axis` is 0."""
    bias: Any
    """`(classes,)`, -inf for a class that does not exist; or None."""
    soft_cap: Any
    """A scalar, or None."""
    temperature: Any
    """A scalar, or None for 1."""

    @property
    def wide(self) -> jnp.dtype:
        """The dtype of everything but the operands of matrix products."""
        return _checks.wide(self.hidden)


class Block(NamedTuple):
    """Some consecutive classes of a head."""

    kernel: Any
    bias: Any
    """-inf where a class does not exist, or belongs to the block before; or None."""
    start: Any
    """The first class of the block."""
    classes: Any
    """The number of each class; -2, which is no label, if the block before has it."""


def size(head: Head, plan: Plan) -> int:
    """The number of classes."""
    return head.kernel.shape[plan.class_axis]


def blocks(head: Head, plan: Plan) -> int:
    """The number of blocks of classes."""
    return -(-size(head, plan) // plan.classes)


def block(head: Head, plan: Plan, j: jax.Array) -> Block:
    """The j-th block.  The last one may begin inside the one before it."""
    width = plan.classes
    first = j * width
    start = jnp.minimum(first, size(head, plan) - width)
    classes = start + lax.iota(jnp.int32, width)
    if blocks(head, plan) == 1:
        return Block(head.kernel, head.bias, start, classes)
    bias = None if head.bias is None else _slices.read(head.bias, start, width, 0)
    if size(head, plan) % width:
        # Not a `where` over the logits: a row of zeros, added to them, costs nothing.
        old = classes < first
        bias = jnp.zeros(width, head.wide) if bias is None else bias
        bias, classes = jnp.where(old, -jnp.inf, bias), jnp.where(old, -2, classes)
    kernel = _slices.read(head.kernel, start, width, plan.class_axis)
    return Block(kernel, bias, start, classes)


def exists(b: Block, like: jax.Array) -> jax.Array:
    """1 for each class that counts in this block, 0 for the others."""
    if b.bias is None:
        return jnp.ones(like.shape[-1], like.dtype)
    return (b.bias != -jnp.inf).astype(like.dtype)


def count(head: Head, plan: Plan) -> jax.Array:
    """The number of classes that exist."""
    if head.bias is None:
        return jnp.asarray(size(head, plan), head.wide)
    return jnp.sum(head.bias != -jnp.inf, dtype=head.wide)


def logits(head: Head, plan: Plan, b: Block) -> jax.Array:
    """Finite logits, also of classes that do not count: `masked` says which."""
    z = dot(head.hidden, b.kernel, 1, 1 - plan.class_axis)
    if b.bias is not None:
        z = z + jnp.where(b.bias == -jnp.inf, 0, b.bias)[None, :]
    if head.soft_cap is not None:
        z = head.soft_cap * jnp.tanh(z / head.soft_cap)
    return z if head.temperature is None else z / head.temperature


def masked(z: jax.Array, b: Block) -> jax.Array:
    """The logits, and -inf of the classes that do not count."""
    if b.bias is None:
        return z
    return z + jnp.where(b.bias == -jnp.inf, -jnp.inf, 0).astype(z.dtype)[None, :]


def slope(head: Head, z: jax.Array) -> jax.Array | float:
    """The derivative of a logit by the linear layer, from the logit itself."""
    if head.soft_cap is None:
        return 1.0 if head.temperature is None else 1 / head.temperature
    capped = z if head.temperature is None else z * head.temperature
    curve = 1 - jnp.square(capped / head.soft_cap)
    return curve if head.temperature is None else curve / head.temperature


def at_label(ids: jax.Array, b: Block, like: jax.Array) -> jax.Array:
    """1 where the label of each token is, 0 elsewhere: a comparison, which fuses.

    It is a factor, because a `where` broadcasts its other argument first, and autodiff
    moves that, an array of the size of a block, out of the loop.  It compares numbers
    of classes, not of columns, which would be moved out in the same way.
    """
    return (b.classes[None, :] == ids[:, None]).astype(like.dtype)


def dot(a: jax.Array, b: jax.Array, i: int, j: int) -> jax.Array:
    """Sums over axis i of a and j of b, in at least float32."""
    wide = _checks.wide(a)
    return lax.dot_general(a, b, (((i,), (j,)), ((), ())), preferred_element_type=wide)


# --- statistics of rows -----------------------------------------------------------


class Sums(NamedTuple):
    """The sums of each row of logits over the classes so far.

    They are over the classes *other* than the label, relative to the largest logit, so
    nothing cancels in the loss or the gradient of a label with all the mass.
    """

    largest: Any
    others: Any
    """`sum(exp(z - largest))` without the label."""
    label: Any
    """The logit of the label."""
    total: Any
    """`sum(z)`, or None."""


class Rows(NamedTuple):
    """What a loss may depend on, per token."""

    nll: Any
    lse: Any
    spread: Any
    """logsumexp less the mean logit, or None."""


def no_sums(x: jax.Array, plan: Plan, wide: jnp.dtype) -> Sums:
    """The sums over no class."""
    zero = jnp.zeros(x.shape[0], wide)
    total = zero if plan.mean_logit else None
    return Sums(jnp.full_like(zero, -jnp.inf), zero, zero, total)


def add(sums: Sums, z: jax.Array, b: Block, ids: jax.Array) -> Sums:
    """The sums with those of one more block of logits."""
    scores = masked(z, b)
    largest = jnp.maximum(sums.largest, lax.stop_gradient(jnp.max(scores, axis=1)))
    base = reference(largest)
    e = jnp.exp(scores - base[:, None])
    others = jnp.sum(e * (1 - at_label(ids, b, e)), axis=1)
    others = others + sums.others * jnp.exp(sums.largest - base)
    column = jnp.clip(ids - b.start, 0, z.shape[1] - 1)[:, None]
    here = jnp.take_along_axis(scores, column, axis=1)[:, 0]
    is_here = b.classes[column[:, 0]] == ids
    total = sums.total
    if total is not None:
        total = total + jnp.sum(z * exists(b, z)[None, :], axis=1)
    return Sums(largest, others, jnp.where(is_here, here, sums.label), total)


def reference(largest: jax.Array) -> jax.Array:
    """The number that is subtracted from logits: never -inf."""
    return jnp.where(largest == -jnp.inf, 0, largest)


def _gap(sums: Sums, ids: jax.Array) -> jax.Array:
    """The logit of the label, relative; NaN where an id was none of the classes."""
    unknown = xla.nan_unless(ids >= 0, sums.label)
    return sums.label - reference(sums.largest) + unknown


def _shares(sums: Sums, ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What is subtracted from logits, and the exponentials of the label and of all."""
    here = jnp.exp(_gap(sums, ids))
    return reference(sums.largest), here, sums.others + here


def rows(sums: Sums, classes: jax.Array, ids: jax.Array) -> Rows:
    """The statistics that follow; NaN where an id was none of the classes."""
    base = reference(sums.largest)
    gap = _gap(sums, ids)
    # Neither term is negative: without the label there is 1 for the largest class, or
    # the label is the largest and the gap 0.  Not a `where` of two formulas with a
    # derivative of its own: inside of a loop, JAX 0.10 forgets that in the second one.
    nll = stable.log1p(sums.others + jnp.expm1(gap)) - gap
    lse = base + jnp.log(sums.others + jnp.exp(gap))
    spread = None if sums.total is None else lse - sums.total / classes
    return Rows(nll, lse, spread)


def rows_moved(
    sums: Sums,
    z: jax.Array,
    move: jax.Array,
    b: Block,
    ids: jax.Array,
    classes: jax.Array,
) -> Rows:
    """The contribution of one block of tangents to those of the statistics."""
    base, _, whole = _shares(sums, ids)
    p = jnp.exp(masked(z, b) - base[:, None]) / whole[:, None]
    at = at_label(ids, b, p)
    lse = jnp.sum(p * move, axis=1)
    label = jnp.sum(at * move, axis=1)
    nll = jnp.sum(p * (1 - at) * move, axis=1) - sums.others / whole * label
    spread = None
    if sums.total is not None:
        spread = lse - jnp.sum(exists(b, z)[None, :] * move, axis=1) / classes
    return Rows(nll, lse, spread)


class Slopes(NamedTuple):
    """The derivative of a loss by each logit: `pull exp(z - base) + flat`, but `label`
    at the label."""

    base: Any
    pull: Any
    label: Any
    flat: Any


def slopes(by: Rows, sums: Sums, classes: jax.Array, ids: jax.Array) -> Slopes:
    """From the derivatives of the loss by each statistic of its row."""
    base, here, whole = _shares(sums, ids)
    every = by.lse if by.spread is None else by.lse + by.spread
    label = (every * here - by.nll * sums.others) / whole
    flat = None
    if by.spread is not None:
        flat = -by.spread / classes
        label = label + flat
    return Slopes(base, (by.nll + every) / whole, label, flat)


def by_logits(
    s: Slopes, head: Head, z: jax.Array, b: Block, ids: jax.Array
) -> jax.Array:
    """The derivative of the loss by the output of the linear layer, for one block."""
    g = jnp.exp(masked(z, b) - s.base[:, None]) * s.pull[:, None]
    if s.flat is not None:
        g = g + s.flat[:, None] * exists(b, z)[None, :]
    at = at_label(ids, b, g)
    g = g * (1 - at) + s.label[:, None] * at
    return g * slope(head, z)
