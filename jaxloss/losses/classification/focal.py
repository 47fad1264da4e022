"""Focal and polynomial losses: variants of cross entropy."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.losses.classification import _decision, _expectation


@_jit.kernel(gamma="[0, inf)", alpha="[0, 1]")
def sigmoid_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float | jax.Array = 2.0,
    alpha: float | jax.Array | None = None,
) -> jax.Array:
    r"""Binary focal loss: cross entropy that down-weights easy examples.

    Also called: focal loss, binary focal loss, RetinaNet loss, sigmoid_focal_loss,
    BinaryFocalCrossentropy.

    .. math::
       \ell = -y\,\alpha\,(1-p)^\gamma \log p - (1-y)(1-\alpha)\,p^\gamma \log(1-p),
       \qquad p = \sigma(\text{logit})

    Args:
      logits: Floating array of any shape; log-odds of the positive class.
      labels: Array of the same shape, boolean, integer or floating, in [0, 1]; cast to
        the dtype of `logits`.  Soft labels mix the two terms; optax instead raises the
        mixed probability to the power.
      gamma: Focusing exponent >= 0; 0 gives plain sigmoid cross entropy.  A number, or
        an array that broadcasts to the logits.
      alpha: Weight of positives, in [0, 1]; negatives have weight 1 - alpha.  A number,
        or an array that broadcasts to the logits.  `None` gives both weight 1.

    Returns:
      Per-element losses >= 0 of the same shape, in nats; 0 at an infinite logit of the
      right sign.

    Raises:
      TypeError: If `logits` is not floating or `labels` not real.
      ValueError: If the shapes differ, or `gamma` or `alpha` is a Python number outside
        its range.

    Gradient:
      For y = 1, `-alpha (1-p)^gamma (gamma p softplus(-x) + (1-p))` with respect to the
      logit x, and the loss times `log(1-p)` with respect to `gamma`; for y = 0 the
      mirror image.  Bounded.  Smooth; not convex for `gamma` > 0.

    Use:
      task: binary, multi-label
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: for gamma == 0
      when: Easy negatives are so many that their losses outweigh all others, as in
        dense object detection.
      not when: Calibrated probabilities are needed: use `sigmoid_cross_entropy`, with
        `pos_weight` if positives are rare.

    Reference:
      Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Example:
      >>> jaxloss.sigmoid_focal(jnp.array([0.0, 4.0]), jnp.ones(2), gamma=2.0)
      Array([1.732868e-01, 5.871570e-06], dtype=float32)
    """
    name = "sigmoid_focal"
    (x,) = _checks.floating(name, logits=logits)
    (y,) = _checks.real(name, x, labels=labels)
    _checks.same_shape(name, logits=x, labels=y)
    gamma = _checks.parameter(name, x, gamma=gamma)
    if alpha is None:
        return _binary_focal(x, y, gamma)
    alpha = _checks.parameter(name, x, alpha=alpha)
    return _balanced_binary_focal(x, y, alpha, gamma)


@_jit.kernel("axis", ids="labels", gamma="[0, inf)", alpha="[0, inf)")
def softmax_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    gamma: float | jax.Array = 2.0,
    alpha: float | jax.Array | None = None,
) -> jax.Array:
    r"""Softmax focal loss: cross entropy that down-weights easy examples.

    Also called: focal loss, categorical focal loss, multi-class focal loss,
    CategoricalFocalCrossentropy.

    .. math::
       \ell = -\sum_j w_j\,\alpha_j\,(1-p_j)^\gamma \log p_j, \qquad
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
      gamma: Focusing exponent >= 0; 0 gives plain cross entropy.  A number, or one per
        example.
      alpha: Weight >= 0 of each class, of shape `(classes,)`, or one number for all of
        them; `None` is 1.

    Returns:
      One loss >= 0 per example, in nats; 0 if every class is excluded, +inf if only the
      label is, NaN if a class id is not one of the classes.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean, or `labels` of
        the wrong dtype.
      ValueError: If a shape does not match, `axis` is not an axis of `logits`, or
        `gamma` or `alpha` is a Python number outside its range.

    Gradient:
      `alpha q^gamma (1 + gamma p nll / q) (p - e)` with respect to the logits, for a
      label of probability p = 1 - q and one-hot vector e.  Not convex for `gamma` > 0;
      smooth.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: for gamma == 0
      when: Most examples are easy and the hard ones matter, or a network is
        over-confident.
      not when: Some labels are wrong: use `softmax_cross_entropy` with
        `label_smoothing`, because focal loss concentrates on the wrong labels.

    Reference:
      Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Example:
      >>> logits = jnp.array([[2.0, 0.5, -1.0], [0.1, 3.0, -0.5]])
      >>> jaxloss.softmax_focal(logits, jnp.array([0, 0]))
      Array([0.01109275, 2.687082  ], dtype=float32)
    """
    name = "softmax_focal"
    rows = _classes.rows(name, labels, axis, where, logits=logits)
    x, labels = rows.given, rows.labels
    gamma = _checks.parameter(name, x[..., 0], gamma=gamma)
    alpha = 1.0 if alpha is None else alpha
    alpha = _checks.parameter(name, x, alpha=alpha)
    alpha = jnp.broadcast_to(alpha, x.shape)
    if rows.are_ids:
        alpha = _classes.score_of_class(alpha, labels)
        nll, p, q = stable.softmax_nll_and_probability(x, labels)
        losses = _focal(p, q, nll, gamma)
        return rows.mask_invalid(_classes.weighted(alpha, losses))
    gamma = jnp.broadcast_to(gamma, x.shape[:-1])[..., None]
    losses = _expected_focal(x, labels * alpha, jnp.broadcast_to(gamma, x.shape))
    return rows.mask_invalid(losses)


@_jit.kernel("axis", ids="labels", epsilon="[-1, inf)")
def poly1(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: float | jax.Array = 1.0,
    axis: int = -1,
) -> jax.Array:
    r"""Poly-1 loss: cross entropy with a tunable weight of its first term.

    Also called: PolyLoss, Poly-1 loss, poly_loss_cross_entropy, PolyCrossEntropy.

    .. math::
       \ell = \sum_j w_j \big(-\log p_j + \epsilon\,(1-p_j)\big), \qquad
       p = \text{softmax}(\text{logits})

    Args:
      logits: Floating array with the classes along `axis`; a class of logit -inf has
        probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution w >= 0 of the shape of `logits`, whose sum, if not 1, is the weight
        of the example.
      epsilon: Added weight >= -1 of the first term of `-log p = (1-p) + (1-p)^2/2 +
        ...`; 0 gives plain cross entropy.  A number, or one per example.
      axis: The axis of the classes.

    Returns:
      One loss >= 0 per example, in nats; 0 if every class is excluded, +inf if only the
      label is, NaN if a class id is not one of the classes.

    Raises:
      TypeError: If `logits` is not floating, or `labels` of the wrong dtype.
      ValueError: If a shape does not match, `axis` is not an axis of `logits`, or
        `epsilon` is a Python number < -1.

    Gradient:
      `(1 + epsilon p) (p - e)` with respect to the logits, for a label of probability p
      and one-hot vector e.  Convex for `epsilon` <= 1; smooth.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: for epsilon <= 1
      when: Cross entropy works, and you want to tune one more hyperparameter for a
        little more accuracy.
      not when: You do not want to tune anything: use `softmax_cross_entropy`.

    Reference:
      Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss
      Functions", ICLR 2022.

    Example:
      >>> jaxloss.poly1(jnp.array([[2.0, 0.5, -1.0]]), jnp.array([0]))
      Array([0.4557143], dtype=float32)
    """
    name = "poly1"
    rows = _classes.rows(name, labels, axis, logits=logits)
    x = rows.given
    epsilon = _checks.parameter(name, x[..., 0], epsilon=epsilon)
    if rows.are_ids:
        nll, _, missing = stable.softmax_nll_and_probability(x, rows.given_labels)
        return rows.mask_invalid(nll + epsilon * missing)
    epsilon = jnp.broadcast_to(epsilon, x.shape[:-1])[..., None]
    losses = _expected_poly1(x, rows.labels, jnp.broadcast_to(epsilon, x.shape))
    return rows.mask_invalid(losses)


# --- the focal term ----------------------------------------------------------------


def _log_complement(p: jax.Array, q: jax.Array) -> jax.Array:
    """`log(q)` with q = 1 - p: by log1p where p is small; 0, not -inf, at q = 0."""
    small = p < 0.5
    near = stable.log1p(-jnp.where(small, p, 0))
    return jnp.where(small, near, jnp.log(jnp.where(small | (q == 0), 1, q)))


def _power_dq(p: jax.Array, q: jax.Array, gamma: jax.Array) -> jax.Array:
    return gamma * stable.safe_divide(_power(p, q, gamma), q)


def _power_dgamma(p: jax.Array, q: jax.Array, gamma: jax.Array) -> jax.Array:
    return _power(p, q, gamma) * _log_complement(p, q)


@stable.slopes(None, _power_dq, _power_dgamma)
def _power(p: jax.Array, q: jax.Array, gamma: jax.Array) -> jax.Array:
    """`q ** gamma`; p = 1 - q serves its derivative with respect to gamma."""
    return jnp.power(q, gamma)


@jax.custom_jvp
def _focal(p: jax.Array, q: jax.Array, nll: jax.Array, gamma: jax.Array) -> jax.Array:
    """`q ** gamma * nll`, of three forms of one probability: p = 1 - q = exp(-nll).

    Each form is accurate where the others are not, and none is computed from another.
    The derivative is that along the curve, with the tangent of `nll` alone.
    """
    return _power(p, q, gamma) * nll


@_focal.defjvp
def _(primals, tangents):
    p, q, nll, gamma = primals
    *_, along, by_gamma = tangents
    curve = _power(p, q, gamma) * jnp.where(p == 0, 0, nll) * _log_complement(p, q)
    slope = _focal_slope(p, q, nll, gamma)
    return _focal(p, q, nll, gamma), slope * along + curve * by_gamma


def _focal_slope(
    p: jax.Array, q: jax.Array, nll: jax.Array, gamma: jax.Array
) -> jax.Array:
    """The slope of `_focal` along `nll`."""
    # p nll / q is 1 - q / 2 + ... for small q; as p -> 0 it is 0, not 0 * inf.
    finite = jnp.where(p == 0, 0, nll)
    return _power(p, q, gamma) * (1 + gamma * stable.safe_divide(p * finite, q))


def _total_focal(x: jax.Array, w: jax.Array, gamma: jax.Array) -> jax.Array:
    return jnp.sum(_expectation.of_classes(_focal, 0, x, w, gamma), axis=-1)


def _total_poly1(x: jax.Array, w: jax.Array, epsilon: jax.Array) -> jax.Array:
    first = lambda p, q, nll, epsilon: epsilon * q
    added = _expectation.of_classes(first, 0, x, w, epsilon)
    return stable.softmax_cross_entropy(x, w) + jnp.sum(added, axis=-1)


_expected_focal = _expectation.of_terms(_total_focal, _focal_slope)
_expected_poly1 = _expectation.of_terms(
    _total_poly1, lambda p, q, nll, epsilon: 1 + epsilon * p
)


# --- one logit a decision ----------------------------------------------------------


@_decision.term()
def _focal_dxx(label: _decision.Odds, gamma: jax.Array) -> jax.Array:
    """`f''(x)`."""
    p, q, nll, *_ = label
    fall = gamma * gamma * p * (p * nll) - gamma * q * (p * nll)
    return jnp.power(q, gamma) * (fall + (2 * gamma + 1) * p * q)


@_decision.term()
def _focal_dxdgamma(label: _decision.Odds, gamma: jax.Array) -> jax.Array:
    """`f'(x)` by gamma."""
    p, q, nll, complement_nll, _ = label
    inner = complement_nll * (gamma * (p * nll) + q) - p * nll
    return jnp.power(q, gamma) * inner


@_decision.term()
def _focal_dgamma2(label: _decision.Odds, gamma: jax.Array) -> jax.Array:
    """`f(x)` by gamma, twice."""
    _, q, nll, complement_nll, _ = label
    return jnp.power(q, gamma) * (nll * complement_nll) * complement_nll


@_decision.term(_focal_dxx, _focal_dxdgamma)
def _focal_dx(label: _decision.Odds, gamma: jax.Array) -> jax.Array:
    """`f'(x)`."""
    p, q, nll, *_ = label
    return -jnp.power(q, gamma) * (gamma * (p * nll) + q)


@_decision.term(_focal_dxdgamma, _focal_dgamma2)
def _focal_dgamma(label: _decision.Odds, gamma: jax.Array) -> jax.Array:
    """`f(x)` by gamma."""
    _, q, nll, complement_nll, _ = label
    return -jnp.power(q, gamma) * (nll * complement_nll)


@_decision.term(_focal_dx, _focal_dgamma)
def _focal_nll(label: _decision.Odds, gamma: jax.Array) -> jax.Array:
    """`(1 - p)^gamma (-log p)`, the loss of a positive label."""
    return jnp.power(label.q, gamma) * label.nll


def _focal_gap(label: _decision.Odds, gamma: jax.Array) -> jax.Array:
    """`f(x) - f(-x)`, also near x = 0, where that cancels; 0 where it is infinite.

    With softplus(-x) = softplus(x) - x it is `(q^gamma - p^gamma) softplus(x) -
    q^gamma x`, two terms of one sign, and `q / p = exp(-x)`.
    """
    p, q, nll, complement_nll, x = label
    up, down = jnp.power(q, gamma), jnp.power(p, gamma)
    y = jnp.minimum(x, 1)
    inner = down * stable.expm1(-gamma * y) * complement_nll - up * y
    outer = up * nll - down * complement_nll
    return jnp.where(x < 1, inner, jnp.where(jnp.isinf(x), 0, outer))


_binary = functools.partial(_decision.mixture, _focal_nll, gap=_focal_gap)
_binary_focal = _binary()
_balanced_binary_focal = _binary(weigh=lambda alpha: (alpha, 1 - alpha))
