"""Ranking losses of pairs and of lists of scores."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, margins, stable


@_jit.kernel(margin="[0, inf)")
def margin_ranking(
    higher: ArrayLike, lower: ArrayLike, *, margin: float | jax.Array = 0.0
) -> jax.Array:
    r"""Margin ranking loss: hinge loss of the difference of two scores.

    Also called: MarginRankingLoss, pairwise hinge loss, RankSVM.

    .. math:: \ell = \max(0,\; m - (s_{\text{higher}} - s_{\text{lower}}))

    Args:
      higher: Floating array of any shape; scores of what should be ranked higher.
      lower: Array of the same shape; scores of what should be ranked lower.
      margin: Required lead m of `higher` over `lower`, in the units of the scores; >=
        0.  A scalar, or an array that broadcasts to the shape of the scores.

    Returns:
      Per-pair losses >= 0 of the same shape, in the units of the scores.  The loss is a
      difference of scores, so it is only as accurate as they are.

    Raises:
      TypeError: If `higher` or `lower` is not floating.
      ValueError: If the shapes differ, or `margin` is a Python number < 0.

    Gradient:
      Where the lead is less than the margin: -1 with respect to `higher`, +1 with
      respect to `lower` and to `margin`.  Elsewhere 0; also 0 at the kink, so with
      margin 0 two equal scores have gradient 0.  Convex.

    Use:
      task: ranking
      activation: none
      range: [0, inf)
      robust: yes
      convex: yes
      when: You have pairs in which one item should be ranked above the other.
      not when: You have whole lists with graded relevance: use `listwise_softmax`.

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
    r"""Softmax cross entropy of lists (ListNet): which item comes first.

    Also called: ListNet, listwise cross entropy, ranking_softmax_loss, ListNetLoss,
    SoftmaxLoss.

    .. math:: \ell = -\sum_i y_i \log \text{softmax}(s)_i

    Args:
      scores: Floating array with the items of a list along `axis`; an item of score
        -inf has probability 0.
      relevance: Array of the same shape, boolean, integer or floating; gains y >= 0.
        They are not normalised; for the top-one probabilities of ListNet pass
        `jax.nn.softmax(relevance)`.
      where: Boolean mask of the same shape; a masked item is ignored, whatever its
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
      when: You have lists of items with clicks or grades, and the top matters most.
      not when: You have only pairs: use `margin_ranking`.

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
