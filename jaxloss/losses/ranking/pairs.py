"""A loss of all pairs of items in a list."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, margins
from jaxloss.losses.ranking import _items

_MarginFn = Callable[..., jax.Array]
"""Of leads, and of what the function of the caller closes over."""


@_jit.kernel("axis", "margin_fn")
def pairwise_ranking(
    scores: ArrayLike,
    relevance: ArrayLike,
    *,
    margin_fn: Callable[[jax.Array], jax.Array] = margins.logistic,
    weights: ArrayLike | None = None,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Pairwise ranking loss (RankNet): a margin loss of all pairs of a list.

    Also called: RankNet, RankNetLoss, pairwise logistic loss, pairwise_logistic_loss,
    PairwiseLogisticLoss, BPR, LambdaRank (with weights).

    .. math:: \ell = \sum_{i, j:\, y_i > y_j} w_{ij}\; \varphi(s_i - s_j)

    With `margins.logistic` and one relevant item it is Bayesian personalised ranking,
    with `margins.hinge` the ranking SVM, and with `weights=ndcg_weights(...)`
    LambdaRank.

    Args:
      scores: Floating array with the items of a list along `axis`.
      relevance: Array of the same shape, boolean, integer or floating.  Only the order
        of its numbers counts; equal ones make no pair.
      margin_fn: Elementwise function phi of the lead of the more relevant item, such as
        those of `jaxloss.margins`.  It is part of the compiled program: pass the same
        function in each call, not a new `lambda`.
      weights: Weights w of the pairs, of the shape of `scores` without `axis`, and n, n
        behind it; entry i, j counts where i is more relevant than j.  Default: all 1.
      axis: The axis of the items.
      where: Boolean mask of the shape of `scores`; a masked item is in no pair,
        whatever its score and its relevance.

    Returns:
      One loss per list, the sum over its pairs, >= 0 if phi and the weights are; 0
      without a pair.  For a mean over pairs divide by their number, the sum over lists
      of `relevance[..., :, None] > relevance[..., None, :]`.

    Raises:
      TypeError: If `scores` is not floating, `relevance` or `weights` not real, `where`
        not boolean, or `margin_fn` not a function.
      ValueError: If the shapes differ, `axis` is not an axis of `scores`, or
        `margin_fn` changes the shape.

    Gradient:
      `w phi'(s_i - s_j)` with respect to the score of the more relevant item of each
      pair, and the opposite with respect to the other one: it sums to 0.  `phi(s_i -
      s_j)` with respect to a weight, 0 with respect to the relevance.  Convex if phi is
      and the weights are >= 0.

    Use:
      task: ranking
      activation: none
      range: [0, inf)
      robust: yes (with the default `margin_fn`)
      convex: yes (if `margin_fn` is convex)
      when: Lists have graded relevance and most pairs should be in the right order; or,
        with `ndcg_weights`, those near the top.
      not when: Lists have thousands of items, as n^2 pairs are compared: use
        `listwise_softmax`.

    Reference:
      Burges et al., "Learning to Rank using Gradient Descent", ICML 2005; Rendle et
      al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.

    Example:
      >>> scores, relevance = jnp.array([2.0, 1.0, 3.0]), jnp.array([1, 0, 2])
      >>> jaxloss.pairwise_ranking(scores, relevance)
      Array(0.7534514, dtype=float32)
    """
    name = "pairwise_ranking"
    items = _items.checked(name, scores, relevance, axis, where)
    phi, constants = _checked(name, margin_fn, items)
    if weights is None:
        return _sum_of_pairs(phi, items, tuple(constants))
    (w,) = _checks.real(name, items.scores, weights=weights)
    _checks.has_shape(name, items.pairs.shape, "one weight per pair", weights=w)
    signs, leads = _leads(items)
    weighted = _classes.weighted(jnp.where(signs > 0, w, 0), phi(leads, *constants))
    return jnp.sum(weighted, axis=(-2, -1))


def _checked(
    loss: str, margin_fn: Callable[[jax.Array], jax.Array], items: _items.Items
) -> tuple[_MarginFn, Sequence[jax.Array]]:
    """`margin_fn` of all leads, in their dtype, and the arrays that it closes over."""
    if not callable(margin_fn):
        has = f"type {type(margin_fn).__name__}"
        _checks.wrong_kind(loss, "margin_fn", has, "a function of margins")
    _, leads = _leads(items)
    of_leads = lambda x: jnp.asarray(margin_fn(x))
    found = jax.eval_shape(of_leads, leads)
    if found.shape != leads.shape:
        has = f"results of shape {found.shape} for margins of shape {leads.shape}"
        _checks.fail(loss, "margin_fn", has, "one number for each margin")
    return jax.closure_convert(lambda x: of_leads(x).astype(x.dtype), leads)


def _leads(items: _items.Items) -> tuple[jax.Array, jax.Array]:
    """Of each pair, 1 if the first item should lead, -1 if the second, 0 if neither;
    and by how much the one that should is ahead."""
    y, s = items.relevance, items.scores
    first, second = _items.rows(y), _items.columns(y)
    # Not `>`, by which an item of NaN relevance would silently be in no pair.
    signs = jnp.where(first <= second, jnp.where(second <= first, 0, -1), 1)
    signs = jnp.where(items.pairs, signs, 0).astype(s.dtype)
    ahead = signs * (_items.rows(s) - _items.columns(s))
    return signs, jnp.where(signs == 0, 0, ahead)


def _sum(
    phi: _MarginFn, items: _items.Items, constants: Sequence[jax.Array]
) -> jax.Array:
    signs, leads = _leads(items)
    losses = phi(leads, *constants)
    return jnp.sum(jnp.where(signs > 0, losses, 0), axis=(-2, -1))


_sum_of_pairs = jax.custom_jvp(_sum, nondiff_argnums=(0,))


@_sum_of_pairs.defjvp
def _(phi, primals, tangents):
    """By hand, because a pair pulls both of its items equally: one sum over the columns
    has the gradient.  Autodiff sums over rows and columns, for which a program would
    write all pairs to memory."""
    (items, constants), (ditems, dconstants) = primals, tangents
    again = items.hidden()
    signs, leads = _leads(again)
    losses, pull = jax.vjp(lambda x: phi(x, *constants), leads)
    (slopes,) = pull(jnp.ones_like(losses))
    pulls = jnp.sum(jnp.where(signs == 0, 0, signs * slopes), axis=-1)
    slope = jnp.sum(ditems.scores * pulls, axis=-1)
    if constants:
        along = lambda *constants: _sum(phi, again, constants)
        slope += jax.jvp(along, constants, dconstants)[1]
    return _sum_of_pairs(phi, items, constants), slope
