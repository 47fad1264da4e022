"""Rows of logits: logsumexp, softmax and their relatives.

With m the largest logit, everything follows from d_j = x_j - m and from the sum over
the classes *other* than the largest: rest = sum_j exp(d_j) - 1, summed without the 1,
so that it keeps its digits if the largest class has all the mass.
"""

import functools

import jax
import jax.numpy as jnp

from jaxloss.stable import xla
from jaxloss.stable.scalars import difference, exp_difference, log1p, safe_divide
from jaxloss.stable.slopes import slopes


def row(x: jax.Array) -> tuple[jax.Array, ...]:
    """(largest, ties, d, rounding error of d, exp(d), rest) along the last axis."""
    x = xla.no_fma_unless_tpu(x)  # or the largest of products is no tie with itself
    largest = jnp.max(x, axis=-1, keepdims=True)
    dead = largest == -jnp.inf  # not ~isfinite: a +inf or NaN logit must give NaN
    finite = jnp.where(dead, 0, largest)
    d, error = difference(x, finite)
    summed, e = exponentials(x, finite)
    ties = x == finite
    rest = jnp.sum(jnp.where(ties, 0, summed), axis=-1, keepdims=True)
    # XLA:CPU writes out what it adds up: the ties after the exponentials, not beside.
    is_largest = x == xla.after_on_cpu(finite, rest)
    count = jnp.sum(is_largest, axis=-1, keepdims=True, dtype=x.dtype)
    return largest, ties, d, error, e, rest + jnp.where(dead, 0, count - 1)


def exponentials(a: jax.Array, b: jax.Array, uses: int = 2) -> tuple[jax.Array, ...]:
    """`exp(a - b)`, once for each sum and once for what is multiplied by it later."""
    e = exp_difference(a, b)
    other = lambda i: functools.partial(exp_difference, variant=i)
    more = [xla.written_on_cpu(e, other(i), a, b) for i in range(2, uses + 1)]
    return e, *more


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
    *_, e, rest = row(x)
    return e / (1 + rest)


@softmax.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    p = softmax(x)
    return p, p * _centered(t, row(x)[1], p)


@jax.custom_jvp
def softmax_complement(x: jax.Array) -> jax.Array:
    """`1 - softmax(x)` along the last axis: 4 ulp, where the subtraction gives 0."""
    _, ties, *_, e, rest = row(x)
    others = jnp.where(ties, rest, 1 + jnp.maximum(rest - e, 0))
    return others / (1 + rest)


@softmax_complement.defjvp
def _(primals, tangents):
    _, dp = jax.jvp(softmax, primals, tangents)
    return softmax_complement(*primals), -dp


@jax.custom_jvp
def _log_softmax(x: jax.Array) -> jax.Array:
    largest, _, d, error, _, rest = row(x)
    return jnp.where(largest == -jnp.inf, 0, d - (log1p(rest) - error))


@_log_softmax.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    _, ties, *_ = row(x)
    slope = _centered(t, ties, softmax(x))
    # A class of probability 0, like a row of them, has no slope.
    return _log_softmax(x), jnp.where(x == -jnp.inf, 0, slope)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def softmax_likelihoods(x: jax.Array, variant: int) -> tuple[jax.Array, ...]:
    """The softmax p, 1 - p and -log p along the last axis: 4 ulp each.

    A class of probability 0 has the slope of its -log p that a class id has.  Variants
    are equal, but an accelerator computes each anew from the sums of the row.
    """
    largest, *_, rest = row(x)
    dead = largest == -jnp.inf
    top, x = jnp.where(dead, 0, largest), xla.hidden(x, variant)
    (d, error), e = difference(x, top), exp_difference(x, top)
    others = jnp.where(x == top, rest, 1 + jnp.maximum(rest - e, 0))
    surprise = jnp.where(dead, 0, (log1p(rest) - error) - d)
    return e / (1 + rest), others / (1 + rest), surprise


@softmax_likelihoods.defjvp
def _(variant, primals, tangents):
    (x,), (t,) = primals, tangents
    p, dp = jax.jvp(softmax, primals, tangents)
    _, slope = jax.jvp(_log_softmax, primals, tangents)
    limit = jnp.sum(p * t, axis=-1, keepdims=True) - t
    moved = dp, -dp, jnp.where(x == -jnp.inf, limit, -slope)
    return softmax_likelihoods(x, variant), moved


@jax.custom_jvp
def _logsumexp(x: jax.Array) -> jax.Array:
    largest, *_, rest = row(x)
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

    -inf entries and masked ones add nothing and have gradient 0.  If there are no
    others, the value is -inf and the gradient 0.
    """
    return _logsumexp(_masked(x, axis, where))


def log_softmax(
    x: jax.Array, axis: int = -1, where: jax.Array | None = None
) -> jax.Array:
    """`x - logsumexp(x)`: 4 ulp (derivatives 4, 8), also for the dominant class.

    A masked entry has value -inf and gradient 0; in a row without any other entry the
    values are 0.
    """
    return jnp.moveaxis(_log_softmax(_masked(x, axis, where)), -1, axis)


@slopes(lambda p: safe_divide(jnp.ones_like(p), p))
def log_probabilities(p: jax.Array) -> jax.Array:
    """`log(p)` of probabilities, or of rates: 2 ulp (derivatives 1, 2); -inf at 0.

    At 0 the derivative is 0, not infinity, so that a class of weight 0 in a loss has
    the gradient 0, not `0 * inf`.
    """
    return jnp.log(p)


def _masked(x: jax.Array, axis: int, where: jax.Array | None) -> jax.Array:
    return jnp.moveaxis(x if where is None else jnp.where(where, x, -jnp.inf), axis, -1)
