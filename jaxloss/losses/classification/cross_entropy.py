"""Cross entropies between logits and class labels."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.losses.classification import _decision


@_jit.kernel(pos_weight="(0, inf)")
def sigmoid_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: float | jax.Array | None = None,
) -> jax.Array:
    r"""Binary cross entropy from logits, one decision per element.

    Also called: BCE, binary cross entropy, BCEWithLogitsLoss, BCELoss, log loss, cross
    entropy, binary cross entropy with logits, sigmoid BCE, MultiLabelSoftMarginLoss,
    HalfBinomialLoss, Bernoulli NLL.

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
        once, one logit each. Its probabilities are as well calibrated as the model
        allows.
      not when: Exactly one of several classes is right: use `softmax_cross_entropy`.

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


@_jit.kernel(
    "axis", ids="labels", left_out={"label_smoothing": 0}, label_smoothing="[0, 1]"
)
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    label_smoothing: float | jax.Array = 0.0,
) -> jax.Array:
    r"""Softmax cross entropy of logits with class ids or distributions.

    Also called: CE, cross entropy, CrossEntropyLoss, categorical cross entropy, sparse
    categorical cross entropy, log loss, softmax loss, multinomial logistic loss,
    HalfMultinomialLoss.

    .. math::
       \ell = -\sum_j w_j \log p_j, \qquad p = \text{softmax}(\text{logits}), \qquad
       w = (1-\varepsilon)\,y + \varepsilon \tfrac{\sum_j y_j}{K}

    Args:
      logits: Floating array with the classes along `axis`; a class of logit -inf has
        probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution y >= 0 of the shape of `logits`, whose sum, if not 1, is the weight
        of the example.
      axis: The axis of the classes.
      where: Boolean mask of the shape of `logits`; a masked class is treated as if its
        logit were -inf.
      label_smoothing: Share ε in [0, 1] of each label that is spread evenly over the K
        classes of the example; excluded classes (masked, or of logit -inf) do not
        count.  A number, or one per example.

    Returns:
      One loss >= 0 per example, in nats; 0 if every class is excluded, +inf if only the
      label is, NaN if a class id is not one of the classes.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean, or `labels` of
        the wrong dtype.
      ValueError: If a shape does not match, `axis` is not an axis of `logits`, or
        `label_smoothing` is a Python number outside [0, 1].

    Gradient:
      `p sum(w) - w` with respect to the logits: it sums to 0, is finite even where the
      loss is +inf, and is NaN where the loss is.  `-log p` with respect to a
      distribution (0 for an excluded class).  Convex, smooth.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: yes
      when: The first choice if exactly one of several classes is right, or if the
        target is a distribution over them.
      not when: Several labels may hold at once: use `sigmoid_cross_entropy`.

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
    losses = _classes.cross_entropy(rows)
    if label_smoothing is None:
        return losses
    part = _checks.parameter(name, losses, label_smoothing=label_smoothing)
    # Smoothing adds a multiple of the mean over the classes: no smoothed distribution
    # is built, and ids and their one-hot distributions give the same numbers.
    return _classes.mix(part, losses, _spread(rows), _smoothing_slope(rows))


@_jit.kernel("axis", ids="labels")
def nll(log_probs: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""Negative log-likelihood of class labels under given log-probabilities.

    Also called: NLLLoss, negative log-likelihood, NLL loss.

    .. math:: \ell = -\sum_j w_j \log p_j

    Args:
      log_probs: Floating array with the classes along `axis`, which you have
        normalised.  If you have logits, `softmax_cross_entropy` is more accurate.
      labels: Integer class ids, of the shape of `log_probs` without `axis`; or a
        floating distribution w >= 0 of the shape of `log_probs`, whose sum, if not 1,
        is the weight of the example.
      axis: The axis of the classes.

    Returns:
      One loss per example, in nats; +inf if a label has log-probability -inf, NaN if a
      class id is not one of the classes.

    Raises:
      TypeError: If `log_probs` is not floating, or `labels` of the wrong dtype.
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
      not when: The model gives logits: use `softmax_cross_entropy`, which is more
        accurate.

    Reference:
      Fisher, "On the Mathematical Foundations of Theoretical Statistics", Phil. Trans.
      R. Soc. A 222 (1922).

    Example:
      >>> shares = jnp.array([[0.2, 0.8, 0.0]])
      >>> jaxloss.nll(jaxloss.stable.log_probabilities(shares), jnp.array([1]))
      Array([0.22314353], dtype=float32)
    """
    rows = _classes.rows("nll", labels, axis, log_probs=log_probs)
    return rows.mask_invalid(-rows.expect(rows.scores))


@_jit.kernel("axis")
def z_loss(
    logits: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> jax.Array:
    r"""z-loss: squared logsumexp, which keeps logits near log-probabilities.

    Also called: router z-loss, PaLM z-loss, log-partition penalty, lse_square_scale.

    .. math:: \ell = \Big(\log \sum_j e^{x_j}\Big)^2

    Args:
      logits: Floating array with the classes along `axis`.
      axis: The axis of the classes.
      where: Boolean mask of the shape of `logits`; a masked class is treated as if its
        logit were -inf.

    Returns:
      One loss >= 0 per example, in nats squared; 0 if every class is excluded.  PaLM
      adds it to the cross entropy with weight 1e-4; mixtures of experts add that of the
      router's logits with weight 1e-3.

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
      not when: Over-confidence is the problem, not the scale of the logits: use
        `entropy`.

    Reference:
      Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 24 (2023);
      Zoph et al., "ST-MoE", 2022 (routers).

    Example:
      >>> jaxloss.z_loss(jnp.array([[0.0, 0.0], [3.0, 1.0]]))
      Array([0.480453, 9.777679], dtype=float32)
    """
    x, _ = _classes.classes_last("z_loss", axis, where, logits=logits)
    lse = stable.logsumexp(x)
    return jnp.square(jnp.where(lse == -jnp.inf, 0, lse))  # -inf: there is no class


@_jit.kernel("axis", ids="labels")
def softmax_cross_entropy_with_z(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Cross entropy and z-loss of the same logits, in one pass.

    .. math::
       \ell = \Big(-\sum_j y_j \log p_j, \;\;
       \Big(\log \sum_j e^{x_j}\Big)^2\Big), \qquad
       p = \text{softmax}(\text{logits})

    Returns the losses of `softmax_cross_entropy` and of `z_loss` separately, so that
    you can weight and log them: `cross_entropy + 1e-4 * z`.  For class ids, both losses
    and their gradients compute the exponentials once.

    Args:
      logits: Floating array with the classes along `axis`; a class of logit -inf has
        probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution y >= 0 of the shape of `logits`.
      axis: The axis of the classes.
      where: Boolean mask of the shape of `logits`; a masked class is treated as if its
        logit were -inf.

    Returns:
      The cross entropy of each example, in nats, and its z-loss, in nats squared.  Both
      are >= 0, both 0 if every class is excluded, and both NaN if a class id is not one
      of the classes.  The error of the logsumexp is an eps of itself or of 1.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean, or `labels` of
        the wrong dtype.
      ValueError: If a shape does not match or `axis` is not an axis of `logits`.

    Gradient:
      With respect to the logits: `p sum(y) - y` of the first loss, `2 logsumexp(x) p`
      of the second.

    Reference:
      Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 24 (2023).

    Example:
      >>> logits = jnp.array([[2.0, 1.0, 0.1], [0.0, 0.0, 3.0]])
      >>> labels = jnp.array([0, 2])
      >>> cross_entropy, z = jaxloss.softmax_cross_entropy_with_z(logits, labels)
      >>> cross_entropy + 1e-4 * z
      Array([0.41761425, 0.09588081], dtype=float32)
    """
    name = "softmax_cross_entropy_with_z"
    rows = _classes.rows(name, labels, axis, where, logits=logits)
    if rows.are_ids:
        return stable.softmax_nll_and_z(rows.given, rows.given_labels)
    z = jnp.where(rows.has_class, jnp.square(stable.logsumexp(rows.scores)), 0)
    return _classes.cross_entropy(rows), z


# --- the formulas and their derivatives --------------------------------------------


@_decision.term()
def _nll_dxx(label: _decision.Odds) -> jax.Array:
    """`p (1 - p)`."""
    return label.p * label.q


@_decision.term(_nll_dxx)
def _nll_dx(label: _decision.Odds) -> jax.Array:
    """`-(1 - p)`."""
    return -label.q


@_decision.term(_nll_dx)
def _nll(label: _decision.Odds) -> jax.Array:
    """`-log p`, the loss of a positive label."""
    return label.nll


def _binary_dxx(
    x: jax.Array, up: jax.Array, down: jax.Array, total: jax.Array, half: jax.Array
) -> jax.Array:
    """`(up + down) sigmoid'(x)`."""
    return total * stable.sigmoid_slope(x)


def _binary_dx(
    x: jax.Array, up: jax.Array, down: jax.Array, total: jax.Array, half: jax.Array
) -> jax.Array:
    """`down sigmoid(x) - up sigmoid(-x)`, also where a soft label cancels it.

    That is near x = 0, both probabilities about 1/2: `half` is exact there, so what is
    left of the difference keeps its digits.
    """
    near = half + total * stable.sigmoid_less_half(x)
    tail = total * stable.sigmoid(-jnp.abs(x))
    far = jnp.where(x < 0, tail - up, down - tail)
    return jnp.where((up > 0) & (down > 0) & (jnp.abs(x) < 2), near, far)


_even_dx = stable.slopes(
    _binary_dxx,
    None,
    None,
    None,
    lambda x, *weights: jnp.ones_like(x),  # a label moves it by `half` alone
)(_binary_dx)
_uneven_dx = stable.slopes(
    _binary_dxx,
    lambda x, *weights: -stable.sigmoid(-x),
    lambda x, *weights: stable.sigmoid(x),
    None,
    None,
)(_binary_dx)
_binary = functools.partial(_decision.mixture, _nll, gap=lambda label: -label.log_odds)
_binary_cross_entropy = _binary(
    value=lambda label, wrong, total: wrong * label.log_odds + label.nll,  # total is 1
    slope=_even_dx,
)
_weighted_binary_cross_entropy = _binary(
    value=lambda label, wrong, total: wrong * label.log_odds + total * label.nll,
    slope=_uneven_dx,
    weigh=lambda v: (v, 1.0),
)


def _mean_over_classes(rows: _classes.Rows, values: jax.Array) -> jax.Array:
    """The mean of `values` over the classes that are not excluded."""
    valid = rows.scores != -jnp.inf
    total = jnp.sum(jnp.where(valid, values, 0), axis=-1)
    return total / jnp.sum(valid, axis=-1, dtype=values.dtype)


def _spread(rows: _classes.Rows) -> jax.Array:
    if rows.are_ids:
        return stable.softmax_spread(rows.given, rows.given_labels)
    spread = _mean_over_classes(rows, -stable.log_softmax(rows.scores))
    return rows.mask_invalid(rows.mass() * spread)


def _smoothing_slope(rows: _classes.Rows) -> jax.Array:
    """`sum(w) mean(-log p) - sum(w (-log p))`, from which logsumexp drops out."""
    largest = lax.stop_gradient(jnp.max(rows.scores, axis=-1, keepdims=True))
    d = rows.scores - largest
    slope = rows.expect(d) - rows.mass() * _mean_over_classes(rows, d)
    return rows.mask_invalid(slope)
