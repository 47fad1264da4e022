"""Rows of logits: logsumexp, softmax, and what follows from them.

With m the largest logit, everything follows from d_j = x_j - m and from the sum over
the classes *other* than the largest: rest = sum_j exp(d_j) - 1, added up without the
1, so that it keeps its digits when the largest class has all the mass.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss.stable import xla
from jaxloss.stable.scalars import difference, log1p


def _row(x: jax.Array) -> tuple[jax.Array, ...]:
    """(largest, ties, d, rounding error of d, exp(d), rest) along the last axis."""
    largest = jnp.max(x, axis=-1, keepdims=True)
    dead = largest == -jnp.inf  # not ~isfinite: a +inf or NaN logit must give NaN
    finite = jnp.where(dead, 0, largest)
    d, error = difference(x, finite)
    e = jnp.exp(d)
    e = e + e * error
    ties = x == finite
    count = jnp.sum(ties, axis=-1, keepdims=True, dtype=x.dtype)
    rest = jnp.sum(jnp.where(ties, 0, e), axis=-1, keepdims=True)
    return largest, ties, d, error, e, rest + jnp.where(dead, 0, count - 1)


def _centered(t: jax.Array, ties: jax.Array, p: jax.Array) -> jax.Array:
    """`t - sum(p t)`, relative to t at a lone largest class, where p is nearly 1.

    That class is hidden by a `where`, not subtracted from itself: the transpose of a
    subtraction would bring the cancellation back in reverse mode.
    """
    count = jnp.sum(ties, axis=-1, keepdims=True, dtype=t.dtype)
    top = jnp.sum(jnp.where(ties, t, 0), -1, keepdims=True) / jnp.maximum(count, 1)
    alone = ties & (count == 1)
    u = jnp.where(alone, 0, t - top)
    return u - jnp.sum(jnp.where(alone, 0, p * u), axis=-1, keepdims=True)


@jax.custom_jvp
def softmax(x: jax.Array) -> jax.Array:
    """Probabilities along the last axis: 4 ulp; 0 at -inf, all 0 if all are -inf."""
    *_, e, rest = _row(x)
    return e / (1 + rest)


@softmax.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    p = softmax(x)
    return p, p * _centered(t, _row(x)[1], p)


@jax.custom_jvp
def softmax_complement(x: jax.Array) -> jax.Array:
    """`1 - softmax(x)` along the last axis: 4 ulp, where the subtraction gives 0."""
    _, ties, *_, e, rest = _row(x)
    others = jnp.where(ties, rest, 1 + jnp.maximum(rest - e, 0))
    return others / (1 + rest)


@softmax_complement.defjvp
def _(primals, tangents):
    _, dp = jax.jvp(softmax, primals, tangents)
    return softmax_complement(*primals), -dp


@jax.custom_jvp
def _log_softmax(x: jax.Array) -> jax.Array:
    largest, _, d, error, _, rest = _row(x)
    return jnp.where(largest == -jnp.inf, 0, d - (log1p(rest) - error))


@_log_softmax.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    _, ties, *_ = _row(x)
    slope = _centered(t, ties, softmax(x))
    # A class of probability 0, like a row of them, has no slope.
    return _log_softmax(x), jnp.where(x == -jnp.inf, 0, slope)


@jax.custom_jvp
def _logsumexp(x: jax.Array) -> jax.Array:
    largest, *_, rest = _row(x)
    finite = jnp.where(largest == -jnp.inf, 0, largest)
    return jnp.where(largest == -jnp.inf, largest, finite + log1p(rest))[..., 0]


@_logsumexp.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return _logsumexp(x), jnp.sum(softmax(x) * t, axis=-1)


def logsumexp(
    x: jax.Array, axis: int = -1, where: jax.Array | None = None
) -> jax.Array:
    """`log(sum(exp(x)))` over the entries that `where` keeps: 2 ulp (derivatives 4, 8).

    A -inf entry and a masked one add nothing and have gradient 0; if all are so, the
    value is -inf and the gradient 0.
    """
    return _logsumexp(_masked(x, axis, where))


def log_softmax(
    x: jax.Array, axis: int = -1, where: jax.Array | None = None
) -> jax.Array:
    """`x - logsumexp(x)`: 4 ulp (derivatives 4, 8), for the dominant class too.

    A masked entry has value -inf and gradient 0; in a row without any other entry the
    values are 0.
    """
    return jnp.moveaxis(_log_softmax(_masked(x, axis, where)), -1, axis)


def _masked(x: jax.Array, axis: int, where: jax.Array | None) -> jax.Array:
    return jnp.moveaxis(x if where is None else jnp.where(where, x, -jnp.inf), axis, -1)


class _Row(NamedTuple):
    """A row of logits as its label sees it; one number each per row."""

    rival: jax.Array
    """The largest logit of another class; 0 if there is none."""
    others: jax.Array
    """The sum of `exp(logit - rival)` over the other classes."""
    label: jax.Array
    gap: jax.Array
    """`rival - label`, the negative margin; -1 if there is no rival."""
    error: jax.Array
    """What rounding took from the gap."""
    known: jax.Array
    """0; NaN if the id is no class."""

    def sure(self) -> jax.Array:
        """The sum of the others relative to a label that is the largest."""
        part = self.others * jnp.exp(-jnp.abs(self.gap))
        return part + part * self.error

    def unsure(self) -> jax.Array:
        """The sum of all relative to a rival that is the largest."""
        return self.others + jnp.exp(-jnp.abs(self.gap))

    def total(self) -> jax.Array:
        """The sum of all relative to the rival; infinite if it is far behind."""
        label = jnp.exp(-self.gap)
        finite = jnp.minimum(label, float(jnp.finfo(label.dtype).max))  # no inf - inf
        return self.others + (label - finite * self.error)

    def excess(self) -> jax.Array:
        """How far the logsumexp is above the largest logit."""
        return jnp.where(self.gap < 0, log1p(self.sure()), jnp.log(self.unsure()))

    def nll(self) -> jax.Array:
        excess = self.excess()
        unsure = self.gap + (excess + self.error)
        known = self.known + xla.nan_unless(self.label < jnp.inf, self.label)
        return jnp.where(self.gap < 0, excess, unsure) + known


def _row_of_label(x: jax.Array, ids: jax.Array) -> _Row:
    """By two reductions, neither of which chooses, counts ties or adds a 1.

    Not the largest logit but the rival is subtracted from the logits: then the rounding
    of the difference matters only for small terms of the sum.
    """
    rival = jnp.max(_other_logits(x, ids, 1), axis=-1, keepdims=True)
    alone = rival == -jnp.inf
    rival = jnp.where(alone, 0, rival)
    # Another constant, and the arguments anew: or both would want one array, in memory.
    others = jnp.exp(_other_logits(xla.cpu_barrier(x), xla.cpu_barrier(ids), 2) - rival)
    others = jnp.sum(others, axis=-1)
    rival, alone = rival[..., 0], alone[..., 0]
    inside = (ids >= 0) & (ids < x.shape[-1])
    at = jnp.where(inside, ids, 0)[..., None]
    label = jnp.take_along_axis(x, at, axis=-1)[..., 0]
    gap, error = difference(rival, label)
    gap, error = jnp.where(alone, -1, gap), jnp.where(alone, 0, error)
    others = jnp.where(rival == jnp.inf, 1, others)  # and not NaN, of inf - inf
    return _Row(rival, others, label, gap, error, xla.nan_unless(inside, x))


def _other_logits(x: jax.Array, ids: jax.Array, times: int) -> jax.Array:
    """`x`, but -inf at the label: of arithmetic alone, as in `xla.rematerialised`."""
    if x.shape[-1] > 2 ** jnp.finfo(x.dtype).nmant:  # not all of them are numbers in it
        return jnp.where(_is_label(x, ids), -jnp.inf, x)
    (tiny,) = xla.opaque_constants(x, times * float(jnp.finfo(x.dtype).tiny))
    column = jnp.arange(x.shape[-1], dtype=x.dtype)
    column = lax.broadcast_in_dim(column, x.shape, (x.ndim - 1,))
    away = column - ids.astype(x.dtype)[..., None]
    return x - tiny / (away * away)


def has_class(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Whether a row has a logit above -inf: by the sums that `softmax_nll` needs."""
    row = _row_of_label(x, ids)
    return (row.others != 0) | (row.label != -jnp.inf)


def softmax_nll(x: jax.Array, ids: jax.Array) -> jax.Array:
    """`-log_softmax(x)[id]` along the last axis: 4 ulp (derivatives 5, 8).

    By log1p of the other classes: [20, 0] gives 2.06e-9 for class 0, not 0.  An id
    outside the classes gives NaN, a row of -inf 0.
    """
    return _nll(x, ids, _row_of_label(lax.stop_gradient(x), ids))


@jax.custom_jvp
def _nll(x: jax.Array, ids: jax.Array, row: _Row) -> jax.Array:
    return row.nll()


@_nll.defjvp
def _(primals, tangents):
    x, ids, row = primals
    slope = _nll_slope(xla.cpu_barrier(x), ids, jax.tree.map(xla.cpu_barrier, row))
    return _nll(x, ids, row), jnp.sum(slope * tangents[0], axis=-1)


@jax.custom_jvp
def _nll_slope(x: jax.Array, ids: jax.Array, row: _Row) -> jax.Array:
    """The gradient; it has one itself in `x` alone, of which `row` is a function."""
    p = _shares_of_others(x, row)
    missing = (row.others / row.total())[..., None]
    return jnp.where(_is_label(x, ids), -missing, p) + row.known[..., None]


@_nll_slope.defjvp
def _(primals, tangents):
    _, curve = jax.jvp(softmax, primals[:1], tangents[:1])
    return _nll_slope(*primals), curve


def _shares_of_others(x: jax.Array, row: _Row) -> jax.Array:
    """The probability of each class but the label, where it is any number."""
    d, error = difference(x, row.rival[..., None])
    e = jnp.exp(jnp.minimum(d, 0))  # the label may be above its rival
    return (e + e * error) * (1 / row.total())[..., None]


def _count_finite(x: jax.Array) -> jax.Array:
    zero, one, top = xla.opaque_constants(x, 0, 1, float(jnp.finfo(x.dtype).max))
    count = jnp.sum(jnp.maximum(jnp.minimum(x + top, one), zero), axis=-1)
    return jnp.maximum(count, 1)


def _mean_below(x: jax.Array, row: _Row, count: jax.Array) -> jax.Array:
    """The mean of `largest - logit` over the `count` finite logits."""
    label = jnp.where(row.label == -jnp.inf, 0, row.label)
    largest = jnp.where(row.gap < 0, label, row.rival)[..., None]
    # Of arithmetic alone, see `xla`; the half of a difference never overflows.
    top = float(jnp.finfo(x.dtype).max) / 2
    half, top, two = xla.opaque_constants(x, 0.25, top, 2)
    below = jnp.minimum(
        half * xla.cpu_barrier(largest) - half * xla.cpu_barrier(x), top
    )
    finite = jnp.minimum(top - below, two)
    return jnp.sum(finite * below, axis=-1) / (count / 2)


def softmax_spread(x: jax.Array, ids: jax.Array) -> jax.Array:
    """`-log_softmax(x)`, its mean over the classes that have a probability: 4 ulp.

    The ids have no part in it but to share their sums with `softmax_nll`.  0 for a row
    of -inf.
    """
    fixed = lax.stop_gradient(x)
    row, count = _row_of_label(fixed, ids), _count_finite(fixed)
    return _spread(x, ids, row, _mean_below(fixed, row, count), count)


@jax.custom_jvp
def _spread(
    x: jax.Array, ids: jax.Array, row: _Row, below: jax.Array, count: jax.Array
) -> jax.Array:
    return below + row.excess()


@_spread.defjvp
def _(primals, tangents):
    x, ids, row, _, count = primals
    slope = _spread_slope(
        xla.cpu_barrier(x),
        ids,
        jax.tree.map(xla.cpu_barrier, row),
        xla.cpu_barrier(count),
    )
    return _spread(*primals), jnp.sum(slope * tangents[0], axis=-1)


@jax.custom_jvp
def _spread_slope(
    x: jax.Array, ids: jax.Array, row: _Row, count: jax.Array
) -> jax.Array:
    """Probabilities less `1 / count`, by the exponentials that `_nll_slope` has too."""
    p = _shares_of_others(x, row)
    label = jnp.exp(-jnp.abs(row.gap))
    label = (label - label * row.error) / row.unsure()
    label = jnp.where(row.gap < 0, 1 / (1 + row.sure()), label)
    p = jnp.where(_is_label(x, ids), label[..., None], p)
    return p - jnp.where(x == -jnp.inf, 0, (1 / count)[..., None])


@_spread_slope.defjvp
def _(primals, tangents):
    _, curve = jax.jvp(softmax, primals[:1], tangents[:1])
    return _spread_slope(*primals), curve


def _is_label(x: jax.Array, ids: jax.Array) -> jax.Array:
    return lax.broadcasted_iota(ids.dtype, x.shape, x.ndim - 1) == ids[..., None]
