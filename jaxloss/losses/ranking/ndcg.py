"""Losses for the normalised discounted cumulative gain, NDCG.

Of a list with the relevance y, the gain of an item is `2^y - 1`, its discount `1 /
log2(1 + rank)`, and DCG the sum of the products; NDCG is DCG over that of the ideal
order.  Gains are computed in units of the largest power, so that no `2^y` overflows.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses import _risk_sets
from jaxloss.losses.ranking import _items
from jaxloss.stable import xla


@_jit.kernel("axis", "k")
def ndcg_weights(
    scores: ArrayLike,
    relevance: ArrayLike,
    *,
    k: int | None = None,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Weights of pairs: by how much a swap of two items changes NDCG.

    .. math::
       w_{ij} = \frac{|2^{y_i} - 2^{y_j}|\;
       \left| \frac1{\log_2(1 + r_i)} - \frac1{\log_2(1 + r_j)} \right|}
       {\sum_i (2^{y_i} - 1) / \log_2(1 + r^*_i)}

    Here r are the ranks by the scores, and r* those of the ideal order, by relevance;
    of equal ones the first is first.  `pairwise_ranking` with these weights is
    LambdaRank.

    Args:
      scores: Floating array with the n items of a list along `axis`.
      relevance: Array of the same shape, boolean, integer or floating; grades y >= 0.
      k: Number of ranks that count (NDCG@k), a Python integer; default: all.
      axis: The axis of the items.
      where: Boolean mask of the same shape; a masked item has no rank.

    Returns:
      Weights in [0, 1] of the shape of `scores` without `axis`, and n, n behind it, at
      least float32.  They are symmetric; 0 of pairs with a masked item, and of lists
      without relevance.

    Raises:
      TypeError: If `scores` is not floating, `relevance` not real, `where` not boolean
        or `k` not a Python integer.
      ValueError: If the shapes differ, `axis` is not an axis of `scores`, or `k` is
        less than 1.

    Gradient:
      0: the weights are constants of the loss, as published.

    Reference:
      Burges et al., "Learning to Rank with Nonsmooth Cost Functions", NIPS 2006;
      Burges, "From RankNet to LambdaRank to LambdaMART: An Overview", MSR-TR-2010-82.

    Example:
      >>> scores, relevance = jnp.array([2.0, 1.0, 3.0]), jnp.array([1, 0, 2])
      >>> weights = jaxloss.ndcg_weights(scores, relevance)
      >>> jaxloss.pairwise_ranking(scores, relevance, weights=weights)
      Array(0.12741597, dtype=float32)
    """
    name = "ndcg_weights"
    if k is not None:
        _checks.positive_integer(name, k=k)
    items = _items.checked(name, scores, relevance, axis, where)
    s = lax.stop_gradient(items.scores)
    y = jnp.where(jnp.isnan(s), s, items.relevance.astype(s.dtype))
    order, ideal = (_items.order(items.valid, key) for key in (s, y))
    ranks = _items.ranks(s)
    gains = _gains(_risk_sets.in_order(y, ideal))
    best = jnp.sum(gains * _discounts(ranks, k), axis=-1)[..., None, None]
    reached = _risk_sets.as_given(ranks, order)
    change = _gaps_of_gains(y) * _gaps_of_discounts(reached, k)
    change = jnp.where(items.pairs, change, 0)
    return stable.safe_divide(change, jnp.broadcast_to(best, change.shape))


@_jit.kernel("axis", temperature="(0, inf)")
def approx_ndcg(
    scores: ArrayLike,
    relevance: ArrayLike,
    *,
    temperature: float | jax.Array,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""One minus NDCG of soft ranks (ApproxNDCG).

    Also called: ApproxNDCG, ApproxNDCGLoss, approx_ndcg_loss.

    .. math::
       \ell = 1 - \frac{\sum_i (2^{y_i} - 1) / \log_2(1 + r_i)}
                       {\sum_i (2^{y_i} - 1) / \log_2(1 + r^*_i)}, \qquad
       r_i = 1 + \sum_{j \ne i} \text{sigmoid}\left(\frac{s_j - s_i}\tau\right)

    A soft rank is 1 plus the number of items above, of which each counts by how far it
    is above.  r* are the ranks of the ideal order, by relevance.

    Args:
      scores: Floating array with the items of a list along `axis`.
      relevance: Array of the same shape, boolean, integer or floating; grades y >= 0,
        as large as you like.
      temperature: Temperature tau > 0, in the units of the scores; a scalar, or one for
        each list.  At small ones the ranks are nearly hard, and most gradients nearly
        0; at large ones all ranks are in the middle.  Published as 0.1; rax has 1.
      axis: The axis of the items.
      where: Boolean mask of the same shape; a masked item is in no rank, whatever its
        score and its relevance.

    Returns:
      One loss in [0, 1] per list, without unit; 0 for a list without relevance.  It has
      full precision near 0, too: it is a sum over items of how far each is behind its
      ideal rank.  NDCG is 1 minus this loss.

    Raises:
      TypeError: If `scores` is not floating, `relevance` not real or `where` not
        boolean.
      ValueError: If the shapes differ, `axis` is not an axis of `scores`, or
        `temperature` is a Python number <= 0 or has another shape.

    Gradient:
      `sum_i v((s_i - s_k) / tau) (h_i - h_k) / tau` with respect to the score of item
      k, where `v(x) = sigmoid(x) sigmoid(-x)` and h is the slope of the loss in the
      soft rank of an item, >= 0: it sums to 0.  0 with respect to the relevance, in
      which the ideal order jumps.  Smooth, not convex.

    Use:
      task: ranking
      activation: none
      range: [0, 1]
      robust: yes
      convex: no
      when: NDCG itself is what counts, and the scores are good already, as after
        training with another loss.
      not when: Training begins, and most pairs are wrong by more than the temperature:
        use `listwise_softmax`, or `pairwise_ranking` with `ndcg_weights`.

    Reference:
      Qin et al., "A General Approximation Framework for Direct Optimization of
      Information Retrieval Measures", Information Retrieval 13, 2010; Bruch et al.,
      "Revisiting Approximate Metric Optimization in the Age of Deep Neural Networks",
      SIGIR 2019.

    Example:
      >>> scores, relevance = jnp.array([2.0, 1.0, 3.0]), jnp.array([1, 0, 2])
      >>> jaxloss.approx_ndcg(scores, relevance, temperature=1.0)
      Array(0.16834693, dtype=float32)
    """
    name = "approx_ndcg"
    items = _items.checked(name, scores, relevance, axis, where)
    s, y = items.scores, items.relevance.astype(items.scores.dtype)
    like = jnp.zeros(s.shape[:-1], s.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    tau = jnp.broadcast_to(tau, like.shape)
    # Of equally relevant items any order is ideal.  That of the scores is near theirs,
    # and so few digits cancel.
    ideal = _items.order(items.valid, y, s)
    s, y, valid = (_risk_sets.in_order(x, ideal) for x in (s, y, items.valid))
    gains = _gains(y)
    best = jnp.sum(gains * _discounts(_items.ranks(y), None), axis=-1, keepdims=True)
    shares = stable.safe_divide(gains, jnp.broadcast_to(best, gains.shape))
    return _lost(s, tau, shares, valid)


# --- gains and discounts -------------------------------------------------------------


def _largest(y: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.max(y, axis=-1, keepdims=True), y.shape)


def _gains(y: jax.Array) -> jax.Array:
    """`2^y - 1`, in units of the largest `2^y` of the list."""
    return jnp.exp2(y - _largest(y)) * -jnp.expm1(-math.log(2) * y)


def _gaps_of_gains(y: jax.Array) -> jax.Array:
    """How far two gains are apart, in these units."""
    first, second = _items.rows(y), _items.columns(y)
    size = jnp.exp2(jnp.maximum(first, second) - _items.rows(_largest(y)))
    return size * -jnp.expm1(-math.log(2) * jnp.abs(first - second))


def _discounts(rank: jax.Array, k: int | None) -> jax.Array:
    """`1 / log(1 + rank)`, and 0 behind rank k: the base of the logarithm cancels."""
    found = 1 / jnp.log(1 + rank)
    return found if k is None else jnp.where(rank <= k, found, 0)


def _gaps_of_discounts(rank: jax.Array, k: int | None) -> jax.Array:
    """How far two discounts are apart, which is no difference of logarithms."""
    first, second = _items.rows(rank), _items.columns(rank)
    low, high = jnp.minimum(first, second), jnp.maximum(first, second)
    apart = _fall(high - low, low, high)
    if k is None:
        return apart
    return jnp.where(high <= k, apart, _discounts(low, k))


def _fall(lost: jax.Array, ideal: jax.Array, rank: jax.Array) -> jax.Array:
    """`1 / log(1 + ideal) - 1 / log(1 + rank)`, where the rank is `ideal + lost`.

    Not by that difference, which would be lost where the ranks are nearly equal.
    """
    near = jnp.abs(2 * lost) < 1 + ideal
    first, second = jnp.log(1 + ideal), jnp.log(1 + rank)
    ratio = stable.log1p(jnp.where(near, lost, 0) / (1 + ideal))
    return jnp.where(near, ratio, second - first) / (first * second)


def _rise(rank: jax.Array) -> jax.Array:
    """The derivative of `-1 / log(1 + rank)`."""
    return 1 / ((1 + rank) * jnp.square(jnp.log(1 + rank)))


# --- soft ranks ----------------------------------------------------------------------


def _signs(s: jax.Array, valid: jax.Array) -> jax.Array:
    """Where the second item of each pair should stand: 1 before the first, -1 behind
    it; 0 if they are no pair."""
    place = _items.ranks(s)
    first, second = _items.rows(place), _items.columns(place)
    found = jnp.sign(first - second)
    return jnp.where(_items.pairs(valid), found, 0)


def _leads(s: jax.Array, tau: jax.Array) -> jax.Array:
    """By how many temperatures the second item of each pair is above the first."""
    # Scores of -inf are equal, and no difference overflows.
    largest = float(jnp.finfo(s.dtype).max) / 4
    s = jnp.where(jnp.isinf(s), jnp.copysign(largest, s), s)
    return (_items.columns(s) - _items.rows(s)) / tau[..., None, None]


def _soft_ranks(s: jax.Array, tau: jax.Array, signs: jax.Array) -> jax.Array:
    above = stable.sigmoid(_leads(s, tau))
    return 1 + jnp.sum(jnp.where(signs == 0, 0, above), axis=-1)


def _ranks_lost(s: jax.Array, tau: jax.Array, signs: jax.Array) -> jax.Array:
    """How far the soft rank of each item is behind that in the ideal order.

    By each item that should be behind it, less each that should be before it.
    """
    return -jnp.sum(signs * stable.sigmoid(-signs * _leads(s, tau)), axis=-1)


@jax.custom_jvp
def _lost(
    s: jax.Array, tau: jax.Array, shares: jax.Array, valid: jax.Array
) -> jax.Array:
    """The sum of what items in the ideal order lose of their discounts, times their
    shares."""
    signs = _signs(s, valid)
    lost, reached = _ranks_lost(s, tau, signs), _soft_ranks(s, tau, signs)
    return jnp.sum(shares * _fall(lost, _items.ranks(s), reached), axis=-1)


def _lost_rule(primals, tangents):
    """By hand, because the slopes of pairs are symmetric: one sum over the columns has
    the gradient.  Autodiff sums over rows and columns, for which a program would write
    all pairs to memory."""
    s, tau, shares, valid = primals
    ds, dtau, *_ = tangents
    h = shares * _rise(_soft_ranks(s, tau, _signs(s, valid)))
    s, valid = xla.hidden(s), xla.hidden_bits(valid)
    leads = _leads(s, tau)
    slopes = jnp.where(_signs(s, valid) == 0, 0, stable.sigmoid_slope(leads))
    moving = jnp.zeros_like(tau)
    if not isinstance(ds, SymbolicZero):
        pulls = slopes * (_items.columns(h) - _items.rows(h))
        moving += jnp.sum(ds * jnp.sum(pulls, axis=-1), axis=-1) / tau
    if not isinstance(dtau, SymbolicZero):
        # A lead may be infinite where its slope is 0.
        turns = slopes * jnp.where(slopes == 0, 0, leads)
        moving -= dtau * jnp.sum(h * jnp.sum(turns, axis=-1), axis=-1) / tau
    return _lost(*primals), moving


_lost.defjvp(_lost_rule, symbolic_zeros=True)
