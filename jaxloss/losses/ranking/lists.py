"""Losses that ask for an order: which of two scores should be the higher."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, margins, stable


@_jit.kernel(margin="[0, inf)")
def margin_ranking(
    higher: ArrayLike, lower: ArrayLike, *, margin: float | jax.Array = 0.0
) -> jax.Array:
    r"""Margin ranking loss: by how much the better one fails to lead.

    Also called: MarginRankingLoss, pairwise hinge loss, RankSVM.

    .. math:: \ell = \max(0,\; m - (s_{\text{higher}} - s_{\text{lower}}))

    Args:
      higher: Floating array of any shape; scores of what should be ranked higher.
      lower: Array of the same shape; scores of what should be ranked lower.
      margin: Lead m asked for, in the units of the scores; >= 0.  A scalar, or an
        array that broadcasts to the shape of the scores.

    Returns:
      Per-pair losses >= 0 of the same shape, in the units of the scores.  As a
      difference of scores it is only as fine as they are.

    Raises:
      TypeError: If `higher` or `lower` is not floating.
      ValueError: If the shapes differ, or `margin` is a Python number < 0.

    Gradient:
      -1 with respect to `higher`, +1 to `lower` and to `margin` where the lead is less
      than the margin; 0 where it is not, at the kink too, so that at margin 0 two equal
      scores are at rest.  Convex.

    Use:
      task: ranking
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: Pairs are known, one to be ranked above the other.
      not when: Whole lists with graded relevance are known: `listwise_softmax`.

    Reference:
      Herbrich et al., "Large Margin Rank Boundaries for Ordinal Regression", 2000.

    Example:
      >>> higher, lower = jnp.array([3.0, 1.0]), jnp.array([1.0, 1.5])
      >>> jaxloss.margin_ranking(higher, lower, margin=1.0)
      Array([0. , 1.5], dtype=float32)
    """
    higher, lower = _checks.floating("margin_ranking", higher=higher, lower=lower)
    _checks.same_shape("margin_ranking", higher=higher, lower=lower)
    margin = _checks.parameter("margin_ranking", higher, margin=margin)
    return margins.perceptron(higher - lower - margin)


@_jit.kernel("axis")
def listwise_softmax(
    scores: ArrayLike,
    relevance: ArrayLike,
    *,
    where: ArrayLike | None = None,
    axis: int = -1,
) -> jax.Array:
    r"""Softmax loss of lists, as in ListNet: who should be the first of each.

    Also called: ListNet, listwise cross entropy, ranking_softmax_loss, ListNetLoss,
    SoftmaxLoss.

    .. math:: \ell = -\sum_i y_i \log \text{softmax}(s)_i

    Args:
      scores: Floating array with the items of a list along `axis`; an item of score
        -inf is never the first.
      relevance: Array of the same shape, boolean, integer or floating; gains y >= 0.
        They are not normalised: of ListNet's top-one probabilities pass
        `jax.nn.softmax(relevance)`.
      where: Boolean mask of the same shape; a masked item does not exist, whatever its
        score and its relevance.
      axis: The axis of the items.

    Returns:
      One loss >= 0 per list, in nats; 0 if the list has no item or no relevance, +inf
      if a relevant item has the score -inf.

    Raises:
      TypeError: If `scores` is not floating, `relevance` not real or `where` not
        boolean.
      ValueError: If the shapes differ or `axis` is not an axis of `scores`.

    Gradient:
      `p sum(y) - y` with respect to the scores, p being their softmax: it sums to 0.
      `-log p` with respect to the relevance (0 for an item without a probability).
      Convex, smooth.

    Use:
      task: ranking
      activation: none
      range: [0, inf]
      robust: yes
      convex: yes
      when: Lists of items with clicks or grades, where the top matters most.
      not when: Only pairs are known: `margin_ranking`.

    Reference:
      Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML
      2007.

    Example:
      >>> scores, relevance = jnp.array([2.0, 1.0, 3.0]), jnp.array([1, 0, 0])
      >>> jaxloss.listwise_softmax(scores, relevance)
      Array(1.4076059, dtype=float32)
    """
    name = "listwise_softmax"
    s, axis = _classes.classes_last(name, axis, where, scores=scores)
    (y,) = _checks.real(name, s, relevance=relevance)
    _checks.same_shape(name, scores=jnp.moveaxis(s, -1, axis), relevance=y)
    y = y if where is None else jnp.where(jnp.asarray(where), y, 0)
    return stable.softmax_cross_entropy(s, jnp.moveaxis(y, axis, -1))
