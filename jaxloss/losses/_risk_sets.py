"""Logarithms of sums over risk sets: over all that are still in, in the order of a key.

The entries of a row are sorted once.  Each risk set is then a part of the row, from an
entry to the end of its stratum, and all sums come from one scan over the row, whose
time and memory grow with n and not with n^2.  A set without the entry itself is never a
difference of two sets: it is the sum of what stands before the entry and of what
follows it.  `lax.cumlogsumexp` rounds each sum: after 100 000 numbers about 1000, a
loss is off by thousands of ulp.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, stable

Operation = Callable[[jax.Array, jax.Array], jax.Array]
Piece = tuple[jax.Array, ...]
"""Of a row: whether a part of it begins here, and what counts since then."""

_STEPS = 64  # the most joins one after the other, of which the program is a loop


class Log(NamedTuple):
    """The logarithm of a sum, with twice the digits; -inf of an empty one."""

    value: jax.Array
    rest: jax.Array
    """The rounding error of the value so far, a constant in every derivative."""


class RiskSets(NamedTuple):
    """The entries of each row in the order of a key: their ties and their strata.

    The risk set of an entry has its ties and all entries behind them in its stratum.
    """

    places: jax.Array
    """Where the entries are in the row, in order."""
    starts: jax.Array
    """Which entries are the first of their ties."""
    ends: jax.Array
    """Which entries are the last of their ties."""
    stratum_ends: jax.Array
    """Which entries are the last of their stratum."""


# --- the order of a row --------------------------------------------------------------


def by_key(
    key: jax.Array, among_ties: jax.Array | None = None, strata: jax.Array | None = None
) -> RiskSets:
    """Risk sets by an ascending key; NaN is the last.

    Entries of equal keys are ties if they have the same flag `among_ties`; those where
    it is true are behind the others.
    """
    given = [x for x in (strata, key, among_ties) if x is not None]
    axis = key.ndim - 1
    positions = lax.broadcasted_iota(jnp.int32, key.shape, axis)
    operands = (*map(lax.stop_gradient, given), positions)
    *found, places = lax.sort(operands, dimension=axis, num_keys=len(operands))
    last = positions == key.shape[-1] - 1
    ends = [last | (x != jnp.roll(x, -1, axis)) for x in found]
    tie_ends = functools.reduce(jnp.logical_or, ends)
    starts = jnp.roll(tie_ends, 1, axis)  # the last entry always ends its ties
    return RiskSets(places, starts, tie_ends, last if strata is None else ends[0])


def keys(loss: str, **given: ArrayLike) -> jax.Array:
    """Boolean, integer or floating keys, of which none is rounded: only half precision
    is not in the dtype that it had."""
    ((name, x),) = given.items()
    (x,) = _checks.real(loss, _checks.array(loss, name, x), **given)
    if jnp.issubdtype(x.dtype, jnp.floating):
        (x,) = _checks.floating(loss, **{name: x})
    return lax.stop_gradient(x)


def descending(key: jax.Array) -> jax.Array:
    """A key of the opposite order, in the dtype that it has."""
    return -key if jnp.issubdtype(key.dtype, jnp.floating) else ~key


def nan_where_nan(x: jax.Array, key: jax.Array) -> jax.Array:
    """`x`, but NaN where the key is: nobody knows which risk sets it belongs to."""
    if not jnp.issubdtype(key.dtype, jnp.floating):
        return x
    return x + jnp.where(jnp.isnan(key), key, 0).astype(x.dtype)


@functools.partial(jnp.vectorize, signature="(n),(n)->(n)")
def in_order(x: jax.Array, places: jax.Array) -> jax.Array:
    """The entries of each row in an order."""
    return x.at[places].get(mode="promise_in_bounds", unique_indices=True)


@functools.partial(jnp.vectorize, signature="(n),(n)->(n)")
def as_given(x: jax.Array, places: jax.Array) -> jax.Array:
    """The entries of each row where they were before `in_order`."""
    empty = jnp.zeros_like(x)
    return empty.at[places].set(x, mode="promise_in_bounds", unique_indices=True)


# --- sums over parts of a row --------------------------------------------------------


def first_of_set(x: jax.Array, sets: RiskSets) -> jax.Array:
    """`log(sum of exp(x) over the risk set) - x`: the surprise that an entry is first.

    As the softplus of what the others sum to, it keeps its digits near 0.
    """
    others = add(*_around(x, sets.starts, sets.stratum_ends))
    return stable.softplus(minus(others, log(x)))


def ties_and_later(x: jax.Array, sets: RiskSets) -> tuple[Log, Log]:
    """The sum over the entries tied with each, without it, and over those behind."""
    before, after, behind = _around(x, sets.starts, sets.ends, sets.stratum_ends)
    # What is behind the last of the ties, for all of them.
    of_last = _scan(_first, _flipped(jnp.stack(behind)), _flipped(sets.ends))
    return add(before, after), Log(*_flipped(of_last))


def rank_and_count(x: jax.Array, sets: RiskSets) -> tuple[jax.Array, jax.Array]:
    """How many ties precede each entry, and how many there are, in the dtype of `x`."""
    up_to, following = _sums(jnp.ones_like(x)[None], sets)
    return up_to[0] - 1, up_to[0] + (following[0] - 1)


def totals(sets: RiskSets, *arrays: jax.Array) -> jax.Array:
    """The sum of each array over the ties of each entry, with itself."""
    up_to, following = _sums(jnp.stack(arrays), sets)
    starts = jnp.broadcast_to(sets.starts, up_to.shape)
    return jnp.where(starts, 0, jnp.roll(up_to, 1, -1)) + following


def _sums(x: jax.Array, sets: RiskSets) -> jax.Array:
    """Over the ties up to each entry and over those from it on, each with itself."""
    marks = jnp.stack([sets.starts, _flipped(sets.ends)])
    up_to, from_end = _scan(jnp.add, jnp.stack([x, _flipped(x)]), marks[:, None])
    return jnp.stack([up_to, _flipped(from_end)])


def _around(x: jax.Array, starts: jax.Array, *ends: jax.Array) -> list[Log]:
    """The sum of what stands before each entry, in the part of the row that begins at
    `starts`; then those of what follows it, in the parts that end at each of `ends`."""
    # One scan of all: it is most of what there is to compile.
    rows = jnp.stack([x, *[_flipped(x) for _ in ends]])
    marks = jnp.stack([starts, *map(_flipped, ends)])
    _, *found = _cumulative(_join, (marks, *log(rows)), (False, -jnp.inf, 0))
    before, *following = zip(
        *(
            jnp.where(marks, empty, jnp.roll(a, 1, -1))
            for a, empty in zip(found, (-jnp.inf, 0), strict=True)
        ),
        strict=True,
    )
    return [Log(*before), *(Log(*map(_flipped, x)) for x in following)]


def _join(left: Piece, right: Piece) -> Piece:
    """Two neighbouring pieces of a row: what counts at the end of the right one."""
    (start, a, a_rest), (begins, b, b_rest) = left, right
    a = jnp.where(begins, -jnp.inf, a)
    return start | begins, *add(Log(a, a_rest), Log(b, b_rest))


def _first(a: jax.Array, b: jax.Array) -> jax.Array:
    return a


def _scan(op: Operation, x: jax.Array, starts: jax.Array) -> jax.Array:
    """A cumulative operation along each row that begins anew at `starts`."""

    def join(left: Piece, right: Piece) -> Piece:
        (start, a), (begins, b) = left, right
        return start | begins, jnp.where(begins, b, op(a, b))

    starts = jnp.broadcast_to(starts, x.shape)
    return _cumulative(join, (starts, x), (False, 0))[1]


def _cumulative(
    join: Callable[[Piece, Piece], Piece], pieces: Piece, empty: Sequence[float]
) -> Piece:
    """All pieces up to each one, joined; `empty` changes nothing it is joined with.

    A row is cut into blocks of equal length, whose pieces are joined one after the
    other, in all blocks at once; then the blocks are joined in the same way.
    `lax.associative_scan` has fewer steps, but each of them is a part of the program:
    for 4096 entries it takes five times as long to compile.
    """

    def step(so_far: Piece, piece: Piece) -> tuple[Piece, Piece]:
        joined = join(so_far, piece)
        return joined, joined

    if pieces[0].size == 0:
        return pieces
    columns = tuple(map(_in_columns, pieces, empty))
    nothing = tuple(jnp.full_like(x[0], e) for x, e in zip(columns, empty, strict=True))
    whole, inside = lax.scan(step, nothing, columns)
    if whole[0].shape[-1] > 1:
        found = zip(_cumulative(join, whole, empty), empty, strict=True)
        preceding = tuple(jnp.roll(x, 1, -1).at[..., 0].set(e) for x, e in found)
        inside = jax.vmap(join, (None, 0))(preceding, inside)
    row = lambda x, like: jnp.moveaxis(x, 0, -1).reshape(*like.shape[:-1], -1)
    return tuple(
        row(x, like)[..., : like.shape[-1]]
        for x, like in zip(inside, pieces, strict=True)
    )


def _in_columns(x: jax.Array, empty: float) -> jax.Array:
    """Rows cut into blocks, filled with `empty`: the steps first, the blocks last."""
    *shape, n = x.shape
    depth = max(1, math.ceil(math.log(max(n, 1), _STEPS)))
    steps = max(1, math.ceil(n ** (1 / depth)))
    blocks = -(-n // steps)
    fill = [(0, 0)] * len(shape) + [(0, blocks * steps - n)]
    filled = jnp.pad(x, fill, constant_values=empty)
    return jnp.moveaxis(filled.reshape(*shape, blocks, steps), -1, 0)


def _flipped(x: jax.Array) -> jax.Array:
    return lax.rev(x, (x.ndim - 1,))


# --- logarithms with a rest ----------------------------------------------------------


def log(x: jax.Array) -> Log:
    """A number that is a logarithm."""
    return Log(x, jnp.zeros_like(x))


def add(a: Log, b: Log) -> Log:
    """The logarithm of the sum of two exponentials."""
    _, rest = _sum(*map(lax.stop_gradient, (*a, *b)))
    return Log(_value(*a, *b), rest)


def minus(a: Log, b: Log) -> jax.Array:
    """`a - b`, and -inf where a is, whatever number b is."""
    empty = (a.value == -jnp.inf) & ~jnp.isnan(b.value)
    first, second = (jnp.where(empty, 0, x) for x in (a.value, b.value))
    return jnp.where(empty, -jnp.inf, (first - second) + (a.rest - b.rest))


def _gap(a: jax.Array, a_rest: jax.Array, b: jax.Array, b_rest: jax.Array) -> jax.Array:
    empty = (a == -jnp.inf) & (b == -jnp.inf)
    a, b = (jnp.where(empty, 0, v) for v in (a, b))
    return (a - b) + lax.stop_gradient(a_rest - b_rest)


# JAX 0.10 forgets the rules of functions inside of a loop, where forward mode is over
# reverse mode, and differentiates what they compute.  So that must be right where the
# two are equal, too, at which the derivative of `abs` is 0.


def _negative(gap: jax.Array) -> jax.Array:
    return jnp.where(gap >= 0, -gap, gap)


def _sum(
    a: jax.Array, a_rest: jax.Array, b: jax.Array, b_rest: jax.Array
) -> tuple[jax.Array, jax.Array]:
    gap = _gap(a, a_rest, b, b_rest)
    more = stable.log1p_exp(_negative(gap))
    larger, rest = (jnp.where(gap >= 0, *x) for x in ((a, b), (a_rest, b_rest)))
    return stable.compensated_sum(larger, rest, more, jnp.zeros_like(more))


@stable.slopes(stable.sigmoid_slope)
def _share(gap: jax.Array) -> jax.Array:
    """The sigmoid."""
    e = jnp.exp(_negative(gap))
    return jnp.where(gap >= 0, 1, e) / (1 + e)


@stable.slopes(
    lambda *logs: _share(_gap(*logs)), None, lambda *logs: _share(-_gap(*logs)), None
)
def _value(
    a: jax.Array, a_rest: jax.Array, b: jax.Array, b_rest: jax.Array
) -> jax.Array:
    return _sum(a, a_rest, b, b_rest)[0]
