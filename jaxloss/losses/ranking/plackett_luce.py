"""The likelihood of an order of items."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit
from jaxloss.losses import _risk_sets


@_jit.kernel("axis")
def list_mle(
    scores: ArrayLike,
    relevance: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Negative log-likelihood of the order of relevance (ListMLE).

    Also called: ListMLE, ListMLELoss, Plackett-Luce likelihood, listmle_loss.

    .. math:: \ell = \sum_i \Big(\log \sum_{j:\, y_j \le y_i} e^{s_j} - s_i\Big)

    In the model of Plackett and Luce, items are chosen one after the other, each with
    the softmax of the scores among those that are left.  An item competes with all that
    are not more relevant, its ties included.  So the loss does not depend on the order
    of the input, as it does elsewhere; it is the sum of `cox_ph_breslow` with minus the
    relevance as times, and an event of every item.

    Args:
      scores: Floating array with the items of a list along `axis`; an item of score
        -inf has probability 0.
      relevance: Array of the same shape, boolean, integer or floating.  Only the order
        of its numbers counts.
      axis: The axis of the items.
      where: Boolean mask of the same shape; a masked item is ignored, whatever its
        score and its relevance.

    Returns:
      One loss >= 0 per list, in nats, summed over its items; 0 for a list of one item
      or none, inf if an item of score -inf is more relevant than another.  Accurate for
      confident predictions: scores [20, 0] in the right order lose 2.06e-9, not 0.

    Raises:
      TypeError: If `scores` is not floating, `relevance` not real or `where` not
        boolean.
      ValueError: If the shapes differ or `axis` is not an axis of `scores`.

    Gradient:
      `-1` with respect to each score, plus the share `exp(s) / sum exp(s)` that it has
      of each sum that it is in: it sums to 0.  0 with respect to the relevance.
      Convex, smooth.

    Use:
      task: ranking
      activation: none
      range: [0, inf]
      robust: yes
      convex: yes
      when: The whole order of a list is known, such as a ranking by a person.
      not when: Most items are equally irrelevant, and the top matters most:
        `listwise_softmax`.

    Reference:
      Xia et al., "Listwise Approach to Learning to Rank: Theory and Algorithm", ICML
      2008; Plackett, "The Analysis of Permutations", J. R. Stat. Soc. C 24 (1975).

    Example:
      >>> scores = jnp.log(jnp.array([1.0, 2.0, 3.0]))
      >>> jaxloss.list_mle(scores, jnp.array([0, 1, 2]))
      Array(1.0986123, dtype=float32)
    """
    name = "list_mle"
    s, axis = _classes.classes_last(name, axis, where, scores=scores)
    y = _risk_sets.keys(name, relevance=relevance)
    _checks.same_shape(name, scores=jnp.moveaxis(s, -1, axis), relevance=y)
    y = jnp.moveaxis(y, axis, -1)
    valid = jnp.ones(y.shape, bool)
    if where is not None:
        valid = jnp.moveaxis(jnp.asarray(where), axis, -1)
        y = jnp.where(valid, y, jnp.zeros_like(y))
    sets = _risk_sets.by_key(_risk_sets.descending(y))
    ordered = lambda x: _risk_sets.in_order(x, sets.places)
    losses = _risk_sets.first_of_set(ordered(_risk_sets.nan_where_nan(s, y)), sets)
    return jnp.sum(jnp.where(ordered(valid), losses, 0), axis=-1)
