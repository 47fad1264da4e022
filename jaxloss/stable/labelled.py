"""Rows of logits and their labels: the primitives of the cross entropies.

With m the largest logit, a row whose label has the logit x_y has the loss (m - x_y) +
log(own + rest), where own = exp(x_y - m) and rest = sum_j exp(x_j - m) over the *other*
classes.  No term is negative.  If the label is the largest, own is 1, and the rest,
which is summed without it, keeps its digits.

The value alone needs two sums, which XLA:CPU computes in one pass through the logits,
without memory.  With the gradient, the exponentials are computed once and written where
the gradient will be, which is half of the work.  Both values are within the bound.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss.stable import xla
from jaxloss.stable.rows import exponentials, logsumexp, softmax
from jaxloss.stable.scalars import difference


class _Row(NamedTuple):
    """A row of logits relative to its label; one of each per row."""

    ids: jax.Array
    """The id of the label, 0 where it is no class."""
    valid: jax.Array
    """Whether the loss is a number."""
    largest: jax.Array
    below: jax.Array
    """`largest - label`, as rounded."""
    error: jax.Array
    """The rounding error of that."""
    own: jax.Array
    """`exp(label - largest)`."""
    rest: jax.Array
    """The sum of `exp(logit - largest)` over the other classes."""
    unit: jax.Array
    """`exp(shift - largest)`, by which the exponentials are too large."""

    def total(self) -> jax.Array:
        return self.own + self.rest

    def excess(self) -> jax.Array:
        """How far the logsumexp is above the largest logit: `log(own + rest)`."""
        total = xla.no_reassociation(self.total())
        # With own = 1 it is log1p(rest): what rounding 1 + rest lost, to first order.
        lost = jnp.where(self.below == 0, self.rest - (total - 1), 0)
        return jnp.log(total) + lost / total

    def nll(self) -> jax.Array:
        nll = self.below + (self.excess() + self.error)
        return nll + xla.nan_unless(self.valid, nll)

    def logsumexp(self) -> jax.Array:
        """Up to an eps of itself or of 1; 0 for a row without classes."""
        return jnp.where(self.largest == -jnp.inf, 0, self.largest + self.excess())

    def squared_logsumexp(self) -> jax.Array:
        square = jnp.square(self.logsumexp())
        return square + xla.nan_unless(self.valid, square)

    def spread(self, mean_below: jax.Array) -> jax.Array:
        spread = mean_below + self.excess()
        return spread + xla.nan_unless(self.valid, spread)

    def along(self, slope: jax.Array, tangent: jax.Array) -> jax.Array:
        moved = jnp.sum(slope * tangent, axis=-1)
        return xla.nan_slope_unless(self.valid, moved)


def known_ids(x: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether an id is a class; and the ids, 0 where not."""
    known = (ids >= 0) & (ids < x.shape[-1])
    return known, jnp.where(known, ids, 0)


def row_of_sums(
    known: jax.Array,
    ids: jax.Array,
    largest: jax.Array,
    label: jax.Array,
    shift: jax.Array,
    others: jax.Array,
) -> _Row:
    """`others` is the sum of `exp(logit - shift)` over the classes but the label.

    The shift is the largest logit, or anything less if that is the label's.
    """
    sure = label >= largest
    gap, error = difference(shift, label)
    near = jnp.exp(-jnp.abs(gap))
    near = near + near * jnp.where(sure, error, -error)
    rest = jnp.where(sure, others * near, others)
    return _Row(
        ids=ids,
        # A row without classes is padding, and padding often has a label like -1.
        valid=(known | (largest == -jnp.inf)) & (label < jnp.inf),
        largest=largest,
        below=jnp.where(sure, 0, gap),
        error=jnp.where(sure, 0, error),
        own=jnp.where(sure, 1, near),
        rest=jnp.where(largest == jnp.inf, 1, rest),  # and not NaN, of inf - inf
        unit=jnp.where(sure, near, 1),
    )


def _row_by_sums(x: jax.Array, ids: jax.Array) -> _Row:
    """By two reductions, neither of which chooses or corrects its terms.

    Not the largest logit but the largest other one is subtracted from the logits: then
    the rounding of the difference matters only for small terms of the sum.
    """
    known, ids = known_ids(x, ids)
    rival = jnp.max(_other_logits(x, ids, 1), axis=-1)
    shift = jnp.where(rival == -jnp.inf, 0, rival)
    # Another constant, and the arguments anew: or both would want one array, in memory.
    again = _other_logits(xla.cpu_barrier(x), xla.cpu_barrier(ids), 2)
    others = jnp.sum(jnp.exp(again - shift[..., None]), axis=-1)
    label = xla.entry(x, ids)
    return row_of_sums(known, ids, jnp.maximum(rival, label), label, shift, others)


def _row_and_exponentials(x: jax.Array, ids: jax.Array) -> tuple[_Row, jax.Array]:
    """The row, and `exp(logit - shift)` of every class, but 0 at the label."""
    known, ids = known_ids(x, ids)
    # Of bfloat16 logits XLA would take the maximum before it widens them, in a pass of
    # its own.
    largest, label = jnp.max(xla.hidden(x), axis=-1), xla.entry(x, ids)
    shift = shift_of(largest, label)
    summed, e = exponentials(x, shift[..., None])
    at_label = _is_label(x, ids)
    others = jnp.sum(jnp.where(at_label, 0, summed), axis=-1)
    row = row_of_sums(known, ids, largest, label, shift, others)
    return row, jnp.where(at_label, 0, e)


def shift_of(largest: jax.Array, label: jax.Array) -> jax.Array:
    """What is subtracted from the logits before their exponentials are added up."""
    top = jnp.where(largest == -jnp.inf, 0, largest)
    # Below a label that is the largest, a sum of many tiny terms does not underflow.
    return jnp.where(label >= largest, top - 40, top)


def _other_logits(x: jax.Array, ids: jax.Array, times: int) -> jax.Array:
    """`x`, but -inf at the label: of arithmetic alone, as in `xla.rematerialised`."""
    numbers = 2 ** jnp.finfo(x.dtype).nmant
    # Of a symbolic count nobody knows whether all the ids are numbers in this dtype.
    if not isinstance(x.shape[-1], int) or x.shape[-1] > numbers:
        return jnp.where(_is_label(x, ids), -jnp.inf, x)
    (tiny,) = xla.opaque_constants(x, times * float(jnp.finfo(x.dtype).tiny))
    away = lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1)
    away = away - ids.astype(x.dtype)[..., None]
    return x - tiny / (away * away)


def _is_label(x: jax.Array, ids: jax.Array) -> jax.Array:
    return lax.broadcasted_iota(ids.dtype, x.shape, x.ndim - 1) == ids[..., None]


def has_class(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Whether a row has a logit above -inf; of 0.1, where the ids had a part in it."""
    del ids
    return jnp.max(x, axis=-1) != -jnp.inf


# --- ids ---------------------------------------------------------------------------


@jax.custom_jvp
def softmax_nll(x: jax.Array, ids: jax.Array) -> jax.Array:
    """`-log_softmax(x)[id]` along the last axis: 4 ulp (derivatives 5, 8).

    Computed by log1p of the other classes: [20, 0] gives 2.06e-9 for class 0, not 0.  A
    row of -inf gives 0, and an id that is not a class gives NaN; so does the gradient,
    unless it is multiplied by 0.
    """
    return _row_by_sums(x, ids).nll()


@softmax_nll.defjvp
def _(primals, tangents):
    x, ids = primals
    row, e = _row_and_exponentials(lax.stop_gradient(x), ids)
    return jax.jvp(lambda x: _nll_of_row(x, row, e), (x,), tangents[:1])


@jax.custom_jvp
def _nll_of_row(x: jax.Array, row: _Row, e: jax.Array) -> jax.Array:
    """It has a derivative in `x` alone, of which `row` and `e` are functions."""
    return row.nll()


@_nll_of_row.defjvp
def _(primals, tangents):
    return _nll_of_row(*primals), primals[1].along(_nll_dx(*primals), tangents[0])


@jax.custom_jvp
def _nll_dx(x: jax.Array, row: _Row, e: jax.Array) -> jax.Array:
    """The gradient, which is differentiated as a function of `x` alone, too."""
    scale, missing = row.unit / row.total(), row.rest / row.total()
    return jnp.where(_is_label(x, row.ids), -missing[..., None], e * scale[..., None])


@_nll_dx.defjvp
def _(primals, tangents):
    _, curve = jax.jvp(softmax, primals[:1], tangents[:1])
    return _nll_dx(*primals), curve


# --- with the logsumexp --------------------------------------------------------------


@jax.custom_jvp
def softmax_nll_and_z(x: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`softmax_nll`, and the square of the logsumexp: NaN where that is, 0 for -inf.

    Both use one row of sums and, with the gradient, one array of exponentials.
    """
    row = _row_by_sums(x, ids)
    return row.nll(), row.squared_logsumexp()


@softmax_nll_and_z.defjvp
def _(primals, tangents):
    x, ids = primals
    row, e = _row_and_exponentials(lax.stop_gradient(x), ids)
    both = lambda x: (_nll_of_row(x, row, e), _z_of_row(x, row, e))
    return jax.jvp(both, (x,), tangents[:1])


@jax.custom_jvp
def _z_of_row(x: jax.Array, row: _Row, e: jax.Array) -> jax.Array:
    return row.squared_logsumexp()


@_z_of_row.defjvp
def _(primals, tangents):
    return _z_of_row(*primals), primals[1].along(_z_dx(*primals), tangents[0])


@jax.custom_jvp
def _z_dx(x: jax.Array, row: _Row, e: jax.Array) -> jax.Array:
    """Twice the logsumexp times the probabilities, of the exponentials of `_nll_dx`."""
    factor = 2 * row.logsumexp() / row.total()
    at_label = (factor * row.own)[..., None]
    return jnp.where(
        _is_label(x, row.ids), at_label, e * (factor * row.unit)[..., None]
    )


@_z_dx.defjvp
def _(primals, tangents):
    def slope(x: jax.Array) -> jax.Array:
        alive = jnp.max(x, axis=-1, keepdims=True) != -jnp.inf
        lse = logsumexp(jnp.where(alive, x, 0))[..., None]
        return 2 * lse * softmax(x)

    return _z_dx(*primals), jax.jvp(slope, primals[:1], tangents[:1])[1]


# --- with the probability of the label -----------------------------------------------


@jax.custom_jvp
def softmax_nll_and_probability(
    x: jax.Array, ids: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`softmax_nll`, the softmax p at the label, and 1 - p: 4 ulp each.

    All use one row of sums.  `exp(-nll)` would have an error of as many ulp as the loss
    is large.  Where an id is not a class, p is that of class 0.
    """
    row = _row_by_sums(x, ids)
    nll = row.nll()
    return nll, _probability(nll, row), _complement(nll, row)


@softmax_nll_and_probability.defjvp
def _(primals, tangents):
    x, ids = primals
    row, e = _row_and_exponentials(lax.stop_gradient(x), ids)

    def each(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        nll = _nll_of_row(x, row, e)
        return nll, _probability(nll, row), _complement(nll, row)

    return jax.jvp(each, (x,), tangents[:1])


@jax.custom_jvp
def _probability(nll: jax.Array, row: _Row) -> jax.Array:
    """`exp(-nll)` of the row, as a function of `nll` alone."""
    return row.own / row.total()


@_probability.defjvp
def _(primals, tangents):
    p = _probability(*primals)
    return p, -p * tangents[0]


@jax.custom_jvp
def _complement(nll: jax.Array, row: _Row) -> jax.Array:
    """`1 - exp(-nll)` of the row, as a function of `nll` alone."""
    return row.rest / row.total()


@_complement.defjvp
def _(primals, tangents):
    return _complement(*primals), _probability(*primals) * tangents[0]


# --- the mean over the classes -------------------------------------------------------


@jax.custom_jvp
def softmax_spread(x: jax.Array, ids: jax.Array) -> jax.Array:
    """`-log_softmax(x)`, its mean over the classes that have a probability: 4 ulp.

    The ids are there only to share their sums with `softmax_nll`, and its NaN.  0 for a
    row of -inf.
    """
    row = _row_by_sums(x, ids)
    return row.spread(_mean_below(x, row.largest, _count_finite(x)))


@softmax_spread.defjvp
def _(primals, tangents):
    x, ids = primals
    fixed = lax.stop_gradient(x)
    row, e = _row_and_exponentials(fixed, ids)
    count = _count_finite(fixed)
    spread = lambda x: _spread_of_row(x, row, e, count)
    return jax.jvp(spread, (x,), tangents[:1])


@jax.custom_jvp
def _spread_of_row(
    x: jax.Array, row: _Row, e: jax.Array, count: jax.Array
) -> jax.Array:
    return row.spread(_mean_below(x, row.largest, count))


@_spread_of_row.defjvp
def _(primals, tangents):
    row = primals[1]
    return _spread_of_row(*primals), row.along(_spread_dx(*primals), tangents[0])


@jax.custom_jvp
def _spread_dx(x: jax.Array, row: _Row, e: jax.Array, count: jax.Array) -> jax.Array:
    """Probabilities less `1 / count`, by the exponentials that `_nll_dx` has too."""
    scale, label = row.unit / row.total(), row.own / row.total()
    p = jnp.where(_is_label(x, row.ids), label[..., None], e * scale[..., None])
    return jnp.where(x == -jnp.inf, 0, p - (1 / count)[..., None])


@_spread_dx.defjvp
def _(primals, tangents):
    _, curve = jax.jvp(softmax, primals[:1], tangents[:1])
    return _spread_dx(*primals), curve


def _count_finite(x: jax.Array) -> jax.Array:
    zero, one, top = xla.opaque_constants(x, 0, 1, float(jnp.finfo(x.dtype).max))
    count = jnp.sum(jnp.maximum(jnp.minimum(x + top, one), zero), axis=-1)
    return jnp.maximum(count, 1)


def _mean_below(x: jax.Array, largest: jax.Array, count: jax.Array) -> jax.Array:
    """The mean of `largest - logit` over the `count` finite logits."""
    largest = jnp.where(largest == -jnp.inf, 0, largest)[..., None]
    # Of arithmetic alone, see `xla`; the half of a difference never overflows.
    top = float(jnp.finfo(x.dtype).max) / 2
    half, top, two = xla.opaque_constants(x, 0.25, top, 2)
    below = jnp.minimum(
        half * xla.cpu_barrier(largest) - half * xla.cpu_barrier(x), top
    )
    finite = jnp.minimum(top - below, two)
    return jnp.sum(finite * below, axis=-1) / (count / 2)
