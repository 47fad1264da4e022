"""Cross entropies between logits and class labels."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.stable import xla


@_jit.kernel(pos_weight="(0, inf)")
def sigmoid_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: float | jax.Array | None = None,
) -> jax.Array:
    r"""Binary cross entropy from logits, one decision per element.

    .. math::
       \ell = -v\,y \log p - (1-y) \log(1-p), \qquad p = \sigma(\text{logit})

    Args:
      logits: Floating array of any shape; log-odds of the positive class.
      labels: Array of the same shape, boolean, integer or floating, in [0, 1]; cast to
        the dtype of `logits`.  Soft labels mix the two terms.
      pos_weight: Weight v > 0 of positives, such as negatives / positives; a number,
        or an array that broadcasts to the logits (one weight per class, the last
        axis).  `None` is 1.

    Returns:
      Per-element losses >= 0 of the same shape, in nats; 0 at an infinite logit of the
      right sign.

    Raises:
      TypeError: If `logits` is not floating or `labels` not real.
      ValueError: If the shapes differ, or `pos_weight` is a Python number <= 0.

    Gradient:
      `(1 - y) p - v y (1 - p)` with respect to the logit, which is `p - y` if v = 1;
      `-x` with respect to the label if v = 1.  Convex, smooth.

    Use:
      task: binary, multi-label
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: The first choice for yes or no, and for several labels that may hold at
        once, one logit each. Its probabilities are calibrated as far as the model
        allows.
      not when: Of several classes exactly one is right: `softmax_cross_entropy`.

    Reference:
      Cox, "The Regression Analysis of Binary Sequences", J. R. Stat. Soc. B 20 (1958).

    Example:
      >>> jaxloss.sigmoid_cross_entropy(jnp.array([0.0, 20.0]), jnp.ones(2))
      Array([6.9314718e-01, 2.0611537e-09], dtype=float32)
    """
    name = "sigmoid_cross_entropy"
    (logits,) = _checks.floating(name, logits=logits)
    (labels,) = _checks.real(name, logits, labels=labels)
    _checks.same_shape(name, logits=logits, labels=labels)
    if pos_weight is None:
        return _binary_cross_entropy(logits, labels)
    weight = _checks.parameter(name, logits, pos_weight=pos_weight)
    return _weighted_binary_cross_entropy(logits, labels, weight)


@_jit.kernel("axis", left_out="label_smoothing", label_smoothing="[0, 1]")
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    label_smoothing: float | jax.Array = 0.0,
) -> jax.Array:
    r"""Cross entropy of class ids or distributions under softmax of logits.

    .. math::
       \ell = -\sum_j w_j \log p_j, \qquad p = \text{softmax}(\text{logits}), \qquad
       w = (1-\varepsilon)\,y + \varepsilon \tfrac{\sum_j y_j}{K}

    Args:
      logits: Floating array with the classes along `axis`; a class of logit -inf has
        probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution y >= 0 of the shape of `logits`, whose sum, if not 1, weighs the
        example.
      axis: The axis of the classes.
      where: Boolean mask of the shape of `logits`; a masked class does not exist, as
        if its logit were -inf.
      label_smoothing: The part, in [0, 1], of each label that is spread evenly over
        the K classes of this example that have a probability; a number, or one per
        example.

    Returns:
      One loss >= 0 per example, in nats; 0 if no class has a probability, +inf if only
      the label has none, NaN if a class id is not one of the classes.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean, or `labels` neither
        integer nor floating.
      ValueError: If a shape does not match, `axis` is not an axis of `logits`, or
        `label_smoothing` is a Python number outside [0, 1].

    Gradient:
      `p sum(w) - w` with respect to the logits: it sums to 0, is finite even where
      the loss is +inf, and is NaN where the loss is; `-log p` with respect to a
      distribution (0 for a class without a probability).  Convex, smooth.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: yes
      when: The first choice where exactly one of several classes is right, or where the
        target is a distribution over them.
      not when: Several labels may hold at once: `sigmoid_cross_entropy`.

    Reference:
      Bridle, "Probabilistic Interpretation of Feedforward Classification Network
      Outputs", Neurocomputing 1990; Szegedy et al., "Rethinking the Inception
      Architecture for Computer Vision", CVPR 2016 (smoothing).

    Example:
      >>> logits = jnp.array([[2.0, 1.0, 0.1], [20.0, 0.0, 0.0]])
      >>> jaxloss.softmax_cross_entropy(logits, jnp.array([0, 0]))
      Array([4.1703004e-01, 4.1223074e-09], dtype=float32)
    """
    name = "softmax_cross_entropy"
    rows = _classes.rows(name, labels, axis, where, logits=logits)
    if rows.are_ids:  # told by the sums that their cross entropy needs anyway
        rows = rows._replace(has_class=stable.has_class(rows.given, rows.labels))
    losses = _classes.cross_entropy(rows)
    if label_smoothing is None:
        return rows.mask_invalid(losses)
    part = _checks.parameter(name, losses, label_smoothing=label_smoothing)
    # What is spread is the mean over the classes: no smoothed distribution is built,
    # and ids and their one-hot distributions give the same numbers.
    spread = _spread(rows)
    return rows.mask_invalid(_classes.mix(part, losses, spread, _smoothing_slope(rows)))


@_jit.kernel("axis")
def nll(log_probs: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""Negative log-likelihood of class labels under given log-probabilities.

    .. math:: \ell = -\sum_j w_j \log p_j

    Args:
      log_probs: Floating array with the classes along `axis`, normalised by you; from
        logits, `softmax_cross_entropy` is more accurate.
      labels: Integer class ids, of the shape of `log_probs` without `axis`; or a
        floating distribution w >= 0 of the shape of `log_probs`, whose sum, if not 1,
        weighs the example.
      axis: The axis of the classes.

    Returns:
      One loss per example, in nats; +inf if a label has log-probability -inf, NaN if a
      class id is not one of the classes.

    Raises:
      TypeError: If `log_probs` is not floating or `labels` neither integer nor
        floating.
      ValueError: If a shape does not match or `axis` is not an axis of `log_probs`.

    Gradient:
      `-w` with respect to the log-probabilities; `-log p` with respect to a
      distribution (0 for a class of log-probability -inf).  Linear.

    Use:
      task: multi-class
      activation: log-softmax
      range: [0, inf]
      robust: yes
      convex: yes
      when: The model gives log-probabilities, as a flow, a mixture or a hidden Markov
        model does.
      not when: There are logits: `softmax_cross_entropy`, which keeps more digits.

    Reference:
      Fisher, "On the Mathematical Foundations of Theoretical Statistics", Phil. Trans.
      R. Soc. A 222 (1922).

    Example:
      >>> jaxloss.nll(jnp.log(jnp.array([[0.1, 0.8, 0.1]])), jnp.array([1]))
      Array([0.22314353], dtype=float32)
    """
    rows = _classes.rows("nll", labels, axis, log_probs=log_probs)
    return rows.mask_invalid(-rows.expect(rows.scores))


@_jit.kernel("axis")
def z_loss(
    logits: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> jax.Array:
    r"""Squared log-partition: keeps logits near the scale of log-probabilities.

    .. math:: \ell = \Big(\log \sum_j e^{x_j}\Big)^2

    Args:
      logits: Floating array with the classes along `axis`.
      axis: The axis of the classes.
      where: Boolean mask of the shape of `logits`; a masked class does not exist, as
        if its logit were -inf.

    Returns:
      One loss >= 0 per example, in nats squared; 0 if no class has a probability.
      PaLM adds 1e-4 times it to the cross entropy, mixtures of experts 1e-3 times that
      of their routers.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If a shape does not match or `axis` is not an axis of `logits`.

    Gradient:
      `2 logsumexp(x) softmax(x)`: 0 where the exponentials sum to 1.  Smooth; convex
      where logsumexp(x) >= 0.

    Use:
      task: regularization
      activation: none (logits)
      range: [0, inf)
      robust: no
      convex: no
      when: Added with a small weight to a cross entropy over many classes in low
        precision, where logits drift away from 0.
      not when: Over-confidence is the trouble, not the scale of the logits: `entropy`.

    Reference:
      Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 24 (2023);
      Zoph et al., "ST-MoE", 2022 (routers).

    Example:
      >>> jaxloss.z_loss(jnp.array([[0.0, 0.0], [3.0, 1.0]]))
      Array([0.480453, 9.777679], dtype=float32)
    """
    scores, alive = _classes.unlabelled_rows("z_loss", axis, where, logits=logits)
    return jnp.where(alive, jnp.square(stable.logsumexp(scores)), 0)


# --- the formulas and their derivatives --------------------------------------------


def _binary_curve(x: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    return ((1 - y) + v * y) * stable.sigmoid_slope(x)


def _binary_twist(x: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    return -(stable.sigmoid(x) + v * stable.sigmoid(-x))


def _binary_by_weight(x: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    return _classes.weighted(y, stable.softplus(-x))


# Minimax coefficients of (sigmoid(x) - 1/2) / x in x^2 on [0, 4]: 0.1 ulp of float32.
_SIGMOID = [
    0.2499999989444029,
    -0.020833299170605373,
    0.0020831499479040724,
    -0.0002104332514761251,
    2.0961737478186657e-05,
    -1.9329694741478678e-06,
    1.3929616492698843e-07,
    -5.391619469019374e-09,
]


def _is_near(x: jax.Array, y: jax.Array) -> jax.Array:
    """Whether a soft label might cancel the probability, both about 1/2."""
    return (y > 0) & (y < 1) & (jnp.abs(x) < 2)


def _sigmoid_less_half(x: jax.Array) -> jax.Array:
    """`sigmoid(x) - 1/2` for |x| <= 2."""
    if x.dtype == jnp.float32:
        return x * stable.polynomial(jnp.square(x), _SIGMOID)
    return 0.5 * stable.tanh(0.5 * x)


@stable.slopes(_binary_curve, _binary_twist, lambda x, y, v: -y * stable.sigmoid(-x))
def _binary_by_logit(x: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    # Near x = 0 a soft label cancels the probability: 1/2 - y is exact for y >= 1/4,
    # so what is left of the difference keeps its digits.
    near = (0.5 - y) - 0.5 * (v - 1) * y
    near += ((1 - y) + v * y) * _sigmoid_less_half(jnp.clip(x, -2, 2))
    far = (1 - y) * stable.sigmoid(x) - v * y * stable.sigmoid(-x)
    return jnp.where(_is_near(x, y), near, far)


@stable.slopes(
    _binary_twist,
    lambda x, y, v: jnp.zeros_like(x),
    lambda x, y, v: stable.softplus(-x),
)
def _binary_by_label(x: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    a = jnp.abs(x)
    return jnp.where(x >= 0, -a, v * a) + (v - 1) * stable.log1p_exp(-a)


@stable.slopes(lambda x, y: stable.sigmoid_slope(x), lambda x, y: -jnp.ones_like(x))
def _binary_slope(x: jax.Array, y: jax.Array) -> jax.Array:
    """`sigmoid(x) - y`, as `_binary_by_logit` of the weight 1."""
    near = (0.5 - y) + _sigmoid_less_half(jnp.clip(x, -2, 2))
    tail = stable.sigmoid(-jnp.abs(x))
    far = jnp.where(x < 0, tail - y, (1 - y) - tail)
    return jnp.where(_is_near(x, y), near, far)


@xla.rematerialised
@stable.slopes(_binary_slope, lambda x, y: -x)
def _binary_cross_entropy(x: jax.Array, y: jax.Array) -> jax.Array:
    """`(1 - y) softplus(x) + y softplus(-x)`, of which no term is negative."""
    a = jnp.abs(x)
    positive, _ = xla.signs(x)
    wrong = (positive - y) * jnp.sign(x)
    return xla.finite_if_right(wrong, a) + stable.log1p_exp_opaque(-a)


@xla.rematerialised
@stable.slopes(_binary_by_logit, _binary_by_label, _binary_by_weight)
def _weighted_binary_cross_entropy(
    x: jax.Array, y: jax.Array, v: jax.Array
) -> jax.Array:
    """`(1 - y) softplus(x) + v y softplus(-x)`, of which no term is negative."""
    a = jnp.abs(x)
    positive, negative = xla.signs(x)
    wrong = (positive - y) * (positive - negative * v)
    right = (negative - y) * (negative - positive * v)
    tail = stable.log1p_exp_opaque(-a)
    return xla.finite_if_right(wrong, a) + (wrong + right) * tail


def _mean_over_classes(rows: _classes.Rows, values: jax.Array) -> jax.Array:
    """The mean of `values` over the classes that have a probability."""
    valid = rows.scores != -jnp.inf
    total = jnp.sum(jnp.where(valid, values, 0), axis=-1)
    return total / jnp.sum(valid, axis=-1, dtype=values.dtype)


def _spread(rows: _classes.Rows) -> jax.Array:
    if rows.are_ids:
        return stable.softmax_spread(rows.given, rows.labels)
    return rows.mass() * _mean_over_classes(rows, -stable.log_softmax(rows.scores))


def _smoothing_slope(rows: _classes.Rows) -> jax.Array:
    """`sum(w) mean(-log p) - sum(w (-log p))`, from which logsumexp drops out."""
    largest = lax.stop_gradient(jnp.max(rows.scores, axis=-1, keepdims=True))
    d = rows.scores - largest
    return rows.expect(d) - rows.mass() * _mean_over_classes(rows, d)
