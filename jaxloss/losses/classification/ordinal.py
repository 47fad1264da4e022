"""Losses of ordered classes, such as grades, stages or stars."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.stable import xla


@_jit.kernel("axis", ids="labels")
def coral(logits: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""Ordinal regression as K - 1 binary decisions (CORAL).

    Also called: CORAL loss, ordinal regression, ordinal loss.

    .. math::
       \ell = \sum_{k=0}^{K-2} \mathrm{BCE}\left(x_k,\; 1[y > k]\right), \qquad
       \mathrm{BCE}(x, l) = -l \log \sigma(x) - (1 - l) \log \sigma(-x)

    Logit k predicts whether the label is above class k.  In the paper the logits are
    one score plus K - 1 learnt biases, so that the probabilities fall with k; the loss
    accepts any logits.

    Args:
      logits: Floating array with the K - 1 thresholds along `axis`; log-odds that the
        label is above class k.
      labels: Integer class ids in [0, K), in their order, of the shape of `logits`
        without `axis`.
      axis: The axis of the thresholds.

    Returns:
      One loss >= 0 per example, in nats; NaN if an id is not one of the K classes.  The
      predicted class is the number of positive logits.

    Raises:
      TypeError: If `logits` is not floating or `labels` not integer.
      ValueError: If the shapes do not match or `axis` is not an axis of `logits`.

    Gradient:
      `sigmoid(x) - 1[y > k]` with respect to the logits; NaN where the loss is.
      Convex, smooth.

    Use:
      task: ordinal
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Classes are grades, and the predicted probabilities of exceeding each grade
        should be consistent.
      not when: A whole distribution over the classes is wanted, with one logit each:
        use `squared_emd`.

    Reference:
      Cao et al., "Rank Consistent Ordinal Regression for Neural Networks with
      Application to Age Estimation", Pattern Recognition Letters 140 (2020).

    Example:
      >>> score, biases = jnp.array([[0.5], [-1.0]]), jnp.array([2.0, 0.0, -2.0])
      >>> jaxloss.coral(score + biases[None], jnp.array([2, 0]))
      Array([0.75438  , 1.6751106], dtype=float32)
    """
    name = "coral"
    (logits,) = _checks.floating(name, logits=logits)
    axis = _checks.one_axis(name, axis, logits=logits)
    x = jnp.moveaxis(logits, axis, -1)
    ids = _checks.class_ids(name, labels=labels)
    _checks.has_shape(name, x.shape[:-1], "one id per example", labels=ids)
    above = ids[..., None] > _columns(x, ids)
    losses = jnp.sum(_softplus(jnp.where(above, -x, x)), axis=-1)
    return _classes.nan_unless((ids >= 0) & (ids <= x.shape[-1]), losses)


@_jit.kernel("axis", ids="labels")
def squared_emd(logits: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""Squared earth mover's distance of ordered classes, from logits.

    Also called: EMD loss, earth mover's distance, Wasserstein loss, RPS, ranked
    probability score.

    .. math::
       \ell = \sum_{k=0}^{K-2} D_k^2, \qquad
       D_k = \sum_{j \le k} (m\, p_j - w_j), \qquad
       p = \text{softmax}(\text{logits}), \quad m = \sum_j w_j

    The loss measures how far probability must move to become the label: a neighbour of
    the right class costs less than a class at the other end.

    Args:
      logits: Floating array with the K classes, in their order, along `axis`; a class
        of logit -inf has probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution w >= 0 of the shape of `logits`, whose sum m, if not 1, scales the
        loss by m².
      axis: The axis of the classes.

    Returns:
      One loss per example, in [0, K - 1] if m is 1, without unit; 0 if every class is
      excluded, NaN if a class id is not one of the classes.  Accurate for confident
      predictions: logits [20, 0] have the loss 4.25e-18 for class 0, not 0.

    Raises:
      TypeError: If `logits` is not floating, or `labels` of the wrong dtype.
      ValueError: If a shape does not match or `axis` is not an axis of `logits`.

    Gradient:
      `2 m p_j (T_j - sum(p T))` with respect to the logits, with T_j the sum of D_k
      over k >= j: it sums to 0, and is nearly 0 where p is confident and wrong.
      `2 sum_k D_k (p_0 + ... + p_k - 1[j <= k])` with respect to a distribution.
      Smooth; not convex.

    Use:
      task: ordinal
      activation: none (logits)
      range: [0, K - 1]
      robust: yes
      convex: no
      when: A distribution over ordered classes is predicted, such as of ratings, and a
        near miss should cost less than a far one.
      not when: Training starts from confident mistakes, where its gradient vanishes:
        use `coral`.

    Reference:
      Hou et al., "Squared Earth Mover's Distance-based Loss for Training Deep Neural
      Networks", 2016.

    Example:
      >>> logits = jnp.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
      >>> jaxloss.squared_emd(logits, jnp.array([0, 0, 0]))
      Array([0.01025071, 0.9135433 , 1.7385798 ], dtype=float32)
    """
    rows = _classes.rows("squared_emd", labels, axis, logits=logits)
    below, above = _shares(rows.scores)
    label_below, label_above = _label_shares(rows)
    # The difference of the two without their difference: of a class id one product is
    # exactly 0, and the other one the small share that is on the wrong side.
    gaps = below * label_above - above * label_below
    return rows.mask_invalid(jnp.sum(jnp.square(gaps), axis=-1))


_softplus = xla.rematerialised_unless_cpu(stable.softplus)

# --- cumulative distributions, between each class and the next -----------------------


@jax.custom_jvp
def _shares(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The probability of a class up to each but the last, and of one beyond it."""
    p = stable.softmax(x)
    return _up_to(p), _beyond(p)


@_shares.defjvp
def _(primals, tangents):
    (x,) = primals
    _, moving = jax.jvp(stable.softmax, primals, tangents)
    # The largest class moves by minus the sum of all others, which may be much smaller
    # than one of them: what passes a threshold is summed on the side without it.
    largest = jnp.argmax(x, axis=-1, keepdims=True)
    without = _columns(x, largest)[..., :-1] < largest
    passing = jnp.where(without, _up_to(moving), -_beyond(moving))
    return _shares(x), (passing, -passing)


def _label_shares(rows: _classes.Rows) -> tuple[jax.Array, jax.Array]:
    """The same of the labels."""
    if not rows.are_ids:
        return _up_to(rows.labels), _beyond(rows.labels)
    above = rows.labels[..., None] > _columns(rows.scores, rows.labels)[..., :-1]
    return 1 - above.astype(rows.scores.dtype), above.astype(rows.scores.dtype)


def _up_to(p: jax.Array) -> jax.Array:
    return lax.cumsum(p, axis=p.ndim - 1)[..., :-1]


def _beyond(p: jax.Array) -> jax.Array:
    return lax.cumsum(p, axis=p.ndim - 1, reverse=True)[..., 1:]


def _columns(x: jax.Array, ids: jax.Array) -> jax.Array:
    """0, 1, 2, ... along the last axis, in the dtype of the ids."""
    return lax.broadcasted_iota(ids.dtype, x.shape, x.ndim - 1)
