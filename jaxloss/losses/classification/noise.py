"""Losses of labels of which some are wrong."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.losses.classification import _expectation


@_jit.kernel("axis", ids="labels", q="[0, 1]")
def generalized_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    q: float | jax.Array = 0.7,
) -> jax.Array:
    r"""Generalised cross entropy: between cross entropy and `1 - p`.

    Also called: GCE, generalised cross entropy, L_q loss, Lq loss,
    GeneralizedCrossEntropy, CategoricalGeneralizedCrossEntropy.

    .. math::
       \ell = \sum_j w_j\,\frac{1 - p_j^q}{q}, \qquad
       p = \text{softmax}(\text{logits})

    Args:
      logits: Floating array with the classes along `axis`; a class of logit -inf has
        probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution w >= 0 of the shape of `logits`, whose sum, if not 1, is the weight
        of the example.
      axis: The axis of the classes.
      where: Boolean mask of the shape of `logits`; a masked class is treated as if its
        logit were -inf.
      q: Exponent in [0, 1]: 0 gives cross entropy, 1 gives 1 - p, and between them
        wrong labels count the less the larger it is.  A number, or one per example.

    Returns:
      One loss >= 0 per example, at most 1 / q times its weight; 0 if every class is
      excluded; if only the label is, 1 / q, which is +inf for q = 0; NaN if a class id
      is not one of the classes.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean, or `labels` of
        the wrong dtype.
      ValueError: If a shape does not match, `axis` is not an axis of `logits`, or `q`
        is a Python number outside [0, 1].

    Gradient:
      `p^q (p_j - [j = y])` with respect to logit j, for a label y of probability p:
      that of cross entropy times a factor that goes to 0 for what the network thinks
      impossible.  Not convex for `q` > 0; smooth.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: for q == 0
      when: Some labels are wrong, and the network should not learn them by heart.
      not when: The labels are right, or training is slow to begin: use
        `softmax_cross_entropy`, because this loss hardly moves an example that is
        far from its label.

    Reference:
      Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural
      Networks with Noisy Labels", NeurIPS 2018.

    Example:
      >>> logits = jnp.array([[2.0, 0.5, -1.0], [0.1, 3.0, -0.5]])
      >>> jaxloss.generalized_cross_entropy(logits, jnp.array([0, 0]), q=0.7)
      Array([0.22203109, 1.2513887 ], dtype=float32)
    """
    name = "generalized_cross_entropy"
    rows = _classes.rows(name, labels, axis, where, logits=logits)
    x = rows.given
    q = _checks.parameter(name, x[..., 0], q=q)
    if rows.are_ids:
        nll = stable.softmax_nll(x, rows.labels)
        return rows.mask_invalid(_term(nll, jnp.broadcast_to(q, nll.shape)))
    q = jnp.broadcast_to(q, x.shape[:-1])[..., None]
    losses = _expected(x, rows.labels, jnp.broadcast_to(q, x.shape))
    return rows.mask_invalid(losses)


def _likelihood_power(nll: jax.Array, q: jax.Array) -> jax.Array:
    """`p^q`, the slope of the loss of a class by its `-log p`."""
    never = nll == jnp.inf
    finite = jnp.where(never, 0, nll)
    return jnp.where(never, jnp.where(q == 0, 1, 0), jnp.exp(-q * finite))


def _term(nll: jax.Array, q: jax.Array) -> jax.Array:
    """`(1 - p^q) / q` of `-log p`, which it is at q = 0."""
    endless = (nll == jnp.inf) & (q == 0)
    infinite = jnp.where(endless, nll, 0)
    return infinite - stable.boxcox(jnp.where(endless, 0, -nll), q)


def _total(x: jax.Array, w: jax.Array, q: jax.Array) -> jax.Array:
    term = lambda p, complement, nll, q: _term(nll, q)
    return jnp.sum(_expectation.of_classes(term, 0, x, w, q), axis=-1)


_expected = _expectation.of_terms(
    _total, lambda p, complement, nll, q: _likelihood_power(nll, q)
)
