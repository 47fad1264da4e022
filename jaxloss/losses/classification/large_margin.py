"""Margin losses of scores and class labels: hinge, logistic, perceptron, ...

They ask for a margin, not for probabilities.  For two classes the labels are -1 and +1,
and the loss is a function of the margin `label * score`; for more classes the labels
are class ids, and the score of the label competes with those of the other classes.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, margins, stable
from jaxloss.losses.classification import _rivals
from jaxloss.stable import xla


@_jit.kernel()
def hinge(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""Hinge loss: linear up to a margin of 1, zero beyond it.

    Also called: SVM loss, hinge loss, max-margin loss, support vector machine.

    .. math:: \ell = \max(0,\; 1 - y s)

    Args:
      scores: Floating array of any shape; the sign is the decision, the size the
        confidence.
      labels: Array of the same shape, -1 or +1, signed integers or floating.  Convert
        0/1 labels with `2 * y - 1`: values are not checked, and a label 0 gives the
        constant loss 1.  Any other number scales the margin.

    Returns:
      Per-element losses >= 0 of the same shape, in the units of the scores.

    Raises:
      TypeError: If `scores` is not floating, or `labels` is boolean or unsigned.
      ValueError: If the shapes differ.

    Gradient:
      `-y` with respect to `scores` where `y s < 1`, else 0; 0 at the kink.  Convex.

    Use:
      task: binary
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Only the decision matters, not its probability, as in a support vector
        machine.
      not when: Probabilities are needed: use `sigmoid_cross_entropy`.

    Reference:
      Cortes and Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.

    Example:
      >>> jaxloss.hinge(jnp.array([2.0, 0.5, 0.5]), jnp.array([1, 1, -1]))
      Array([0. , 0.5, 1.5], dtype=float32)
    """
    return margins.hinge(_margins("hinge", scores, labels))


@_jit.kernel()
def squared_hinge(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""Squared hinge loss: smooth at the margin, large for large mistakes.

    Also called: squared hinge loss, L2-SVM loss, SquaredHinge, truncated quadratic
    loss.

    .. math:: \ell = \max(0,\; 1 - y s)^2

    Args:
      scores: Floating array of any shape; the sign is the decision, the size the
        confidence.
      labels: Array of the same shape, -1 or +1, as for `hinge`.

    Returns:
      Per-element losses >= 0 of the same shape, in the units of the scores squared.

    Raises:
      TypeError: If `scores` is not floating, or `labels` is boolean or unsigned.
      ValueError: If the shapes differ.

    Gradient:
      `-2 y max(0, 1 - y s)` with respect to `scores`: 0 where the margin is at least 1.
      Convex, once continuously differentiable.

    Use:
      task: binary
      activation: none (logits)
      range: [0, inf)
      robust: no
      convex: yes
      when: A support vector machine is trained by a method that needs a smooth
        objective.
      not when: Some labels are wrong: use `modified_huber`, whose gradient is bounded.

    Reference:
      Chang et al., "Coordinate Descent Method for Large-scale L2-loss Linear Support
      Vector Machines", JMLR 9, 2008.

    Example:
      >>> jaxloss.squared_hinge(jnp.array([2.0, 0.5, 0.5]), jnp.array([1, 1, -1]))
      Array([0.  , 0.25, 2.25], dtype=float32)
    """
    return margins.squared_hinge(_margins("squared_hinge", scores, labels))


@_jit.kernel()
def logistic(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""Logistic loss: sigmoid cross entropy for labels -1 and +1.

    Also called: logistic loss, log loss, SoftMarginLoss, soft margin loss, binomial
    deviance, pairwise logistic loss (of a difference of scores), RankNet (likewise),
    BPR (likewise), Bradley-Terry (likewise).

    .. math:: \ell = \log(1 + e^{-y s})

    Args:
      scores: Floating array of any shape; log-odds of the label +1.
      labels: Array of the same shape, -1 or +1, as for `hinge`.

    Returns:
      Per-element losses > 0 of the same shape, in nats; log 2 at a score of 0.

    Raises:
      TypeError: If `scores` is not floating, or `labels` is boolean or unsigned.
      ValueError: If the shapes differ.

    Gradient:
      `-y sigmoid(-y s)` with respect to `scores`: its size is below 1 and never quite
      0.  Convex, smooth.

    Use:
      task: binary
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: The labels are -1 and +1 and probabilities are needed.
      not when: The labels are 0 and 1 or in between: use `sigmoid_cross_entropy`.

    Reference:
      Friedman et al., "Additive Logistic Regression", Annals of Statistics 28, 2000.

    Example:
      >>> jaxloss.logistic(jnp.array([0.0, 20.0]), jnp.array([1, 1]))
      Array([6.9314718e-01, 2.0611537e-09], dtype=float32)
    """
    return _logistic(*_pair("logistic", scores, labels))


@_jit.kernel()
def exponential(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""Exponential loss: the objective of AdaBoost, sensitive to outliers.

    Also called: exponential loss, AdaBoost loss, ExponentialLoss.

    .. math:: \ell = e^{-y s}

    Args:
      scores: Floating array of any shape; half the log-odds of the label +1, at the
        minimum of the expected loss.
      labels: Array of the same shape, -1 or +1, as for `hinge`.

    Returns:
      Per-element losses >= 0 of the same shape, without unit; 1 at a score of 0.

    Raises:
      TypeError: If `scores` is not floating, or `labels` is boolean or unsigned.
      ValueError: If the shapes differ.

    Gradient:
      `-y exp(-y s)` with respect to `scores`: as large as the loss, so one mislabelled
      example can outweigh all others.  Convex, smooth.

    Use:
      task: binary
      activation: none (logits)
      range: [0, inf)
      robust: no
      convex: yes
      when: You want to reproduce AdaBoost, or the labels are certain.
      not when: Some labels are wrong: use `logistic`, which grows linearly.

    Reference:
      Freund and Schapire, "A Decision-Theoretic Generalization of On-Line Learning and
      an Application to Boosting", JCSS 55, 1997.

    Example:
      >>> jaxloss.exponential(jnp.array([0.0, 1.0, 1.0]), jnp.array([1, 1, -1]))
      Array([1.        , 0.36787945, 2.7182817 ], dtype=float32)
    """
    return margins.exponential(_margins("exponential", scores, labels))


@_jit.kernel()
def perceptron(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""Perceptron loss: a hinge loss with margin 0.

    Also called: perceptron loss, perceptron criterion, perceptron_loss.

    .. math:: \ell = \max(0,\; -y s)

    Args:
      scores: Floating array of any shape; the sign is the decision.
      labels: Array of the same shape, -1 or +1, as for `hinge`.

    Returns:
      Per-element losses >= 0 of the same shape, in the units of the scores.

    Raises:
      TypeError: If `scores` is not floating, or `labels` is boolean or unsigned.
      ValueError: If the shapes differ.

    Gradient:
      `-y` with respect to `scores` where `y s < 0`, else 0; 0 at the kink, so that
      scores that are all 0 are a stationary point.  Convex.

    Use:
      task: binary
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Any boundary that separates the classes suffices.
      not when: The boundary should keep a distance from the examples: use `hinge`.

    Reference:
      Rosenblatt, "The Perceptron", Psychological Review 65, 1958.

    Example:
      >>> jaxloss.perceptron(jnp.array([2.0, 0.5, 0.5]), jnp.array([1, 1, -1]))
      Array([0. , 0. , 0.5], dtype=float32)
    """
    return margins.perceptron(_margins("perceptron", scores, labels))


@_jit.kernel()
def modified_huber(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""Modified Huber loss: a squared hinge, linear for large mistakes.

    Also called: modified Huber loss, Huber loss of classification, smooth hinge.

    .. math::
       \ell = \begin{cases} \max(0,\; 1 - y s)^2 & y s \ge -1 \\
                            -4 y s & y s < -1 \end{cases}

    Args:
      scores: Floating array of any shape; `(clip(s, -1, 1) + 1) / 2` estimates the
        probability of the label +1.
      labels: Array of the same shape, -1 or +1, as for `hinge`.

    Returns:
      Per-element losses >= 0 of the same shape, in the units of the scores.

    Raises:
      TypeError: If `scores` is not floating, or `labels` is boolean or unsigned.
      ValueError: If the shapes differ.

    Gradient:
      `-2 y clip(1 - y s, 0, 2)` with respect to `scores`, never larger than 4.
      Convex, once continuously differentiable.

    Use:
      task: binary
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: A smooth margin loss is wanted that tolerates wrong labels and gives an
        estimate of the probability.
      not when: Calibrated probabilities are needed: use `logistic`.

    Reference:
      Zhang, "Solving Large Scale Linear Prediction Problems Using Stochastic Gradient
      Descent Algorithms", ICML 2004.

    Example:
      >>> jaxloss.modified_huber(jnp.array([2.0, 0.5, 3.0]), jnp.array([1, 1, -1]))
      Array([ 0.  ,  0.25, 12.  ], dtype=float32)
    """
    return margins.modified_huber(_margins("modified_huber", scores, labels))


@_jit.kernel("axis", ids="labels", margin="[0, inf)")
def crammer_singer_hinge(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    margin: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Multi-class hinge loss against the strongest wrong class.

    Also called: multi-class hinge loss, multi-class SVM loss, multiclass_hinge_loss,
    CategoricalHinge.

    .. math:: \ell = \max_{j \ne y}\, \max(0,\; m + s_j - s_y)

    Args:
      scores: Floating array with the classes along `axis`; -inf excludes a class.
      labels: Integer class ids, of the shape of `scores` without `axis`.
      axis: The class axis.
      margin: Margin m by which the score of the label should exceed each other score,
        in the units of the scores; >= 0, a scalar or an array that broadcasts to the
        shape of `labels`.

    Returns:
      Per-example losses >= 0 of the shape of `labels`, in the units of the scores; NaN
      where the id is not a class.

    Raises:
      TypeError: If `scores` is not floating or `labels` is not integer.
      ValueError: If the shapes do not match, `axis` is not an axis of `scores`, or
        `margin` is a Python number < 0.

    Gradient:
      Where the loss is positive, -1 for the score of the label and +1 for that of the
      strongest wrong class, shared equally among ties; elsewhere 0, and 0 at the kink.
      Convex.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Only the largest score matters, and each example should exceed its strongest
        rival by a margin.
      not when: All wrong classes should be pushed down at once: use
        `weston_watkins_hinge`.

    Reference:
      Crammer and Singer, "On the Algorithmic Implementation of Multiclass
      Kernel-based Vector Machines", JMLR 2, 2001.

    Example:
      >>> scores = jnp.array([[3.0, 1.0, 0.0], [3.0, 2.5, 0.0]])
      >>> jaxloss.crammer_singer_hinge(scores, jnp.array([0, 1]))
      Array([0. , 1.5], dtype=float32)
    """
    loss = "crammer_singer_hinge"
    rows, at_label, own = _against_label(loss, scores, labels, axis)
    margin = _checks.parameter(loss, own, margin=margin)
    rival = _rivals.strongest(jnp.where(at_label, -jnp.inf, rows.given))
    alone = rival == -jnp.inf  # every wrong class is excluded: nothing to lead
    violation = _rivals.violation(jnp.where(alone, 0, rival), own, margin)
    return rows.mask_invalid(jnp.where(alone, 0, violation))


@_jit.kernel("axis", ids="labels", margin="[0, inf)")
def weston_watkins_hinge(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    margin: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Multi-class hinge loss against every wrong class.

    Also called: multi-class hinge loss, multi-class SVM loss, MultiMarginLoss.

    .. math:: \ell = \sum_{j \ne y} \max(0,\; m + s_j - s_y)

    Args:
      scores: Floating array with the classes along `axis`; -inf excludes a class.
      labels: Integer class ids, of the shape of `scores` without `axis`.
      axis: The class axis.
      margin: Margin m by which the score of the label should exceed each other score,
        in the units of the scores; >= 0, a scalar or an array that broadcasts to the
        shape of `labels`.

    Returns:
      Per-example losses >= 0 of the shape of `labels`, in the units of the scores; NaN
      where the id is not a class.  The loss is a sum, as published; torch's
      `MultiMarginLoss` divides it by the number of classes.

    Raises:
      TypeError: If `scores` is not floating or `labels` is not integer.
      ValueError: If the shapes do not match, `axis` is not an axis of `scores`, or
        `margin` is a Python number < 0.

    Gradient:
      +1 for each wrong class within the margin, and minus their number for the label; 0
      for the other classes, and 0 at the kink.  Convex.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Several classes compete with the right one, and each should be a margin
        behind it.
      not when: There are very many classes, whose sum hides the strongest one: use
        `crammer_singer_hinge`.

    Reference:
      Weston and Watkins, "Support Vector Machines for Multi-Class Pattern
      Recognition", ESANN 1999.

    Example:
      >>> scores = jnp.array([[3.0, 1.0, 0.0], [3.0, 2.5, 2.0]])
      >>> jaxloss.weston_watkins_hinge(scores, jnp.array([0, 1]))
      Array([0., 2.], dtype=float32)
    """
    loss = "weston_watkins_hinge"
    rows, at_label, own = _against_label(loss, scores, labels, axis)
    margin = _checks.parameter(loss, own, margin=margin)
    margin = jnp.broadcast_to(margin, own.shape)
    return rows.mask_invalid(_rivals.violations(rows.given, at_label, own, margin))


def _pair(
    loss: str, scores: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Both as floating arrays of one dtype; raises unless their shapes are equal."""
    (scores,) = _checks.floating(loss, scores=scores)
    labels = _checks.signs(loss, scores, labels=labels)
    _checks.same_shape(loss, scores=scores, labels=labels)
    return scores, labels


def _margins(loss: str, scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    return _signed(*_pair(loss, scores, labels))


# An infinite score is certain, whatever the label's last digits: without this its
# slope in the label would be 0 * inf.
@stable.slopes(
    lambda scores, labels: labels,
    lambda scores, labels: jnp.where(jnp.isinf(scores), 0, scores),
)
def _signed(scores: jax.Array, labels: jax.Array) -> jax.Array:
    return scores * labels


# With the product inside: outside, it would be what the loss and its gradient share.
_logistic = xla.rematerialised(
    lambda scores, labels: margins.logistic(_signed(scores, labels))
)


def _against_label(
    loss: str, scores: ArrayLike, labels: ArrayLike, axis: int
) -> tuple[_classes.Rows, jax.Array, jax.Array]:
    """The rows of scores, where in them the labels are, and the labels' own scores."""
    ids = _checks.class_ids(loss, labels=labels)
    rows = _classes.rows(loss, ids, axis, scores=scores)
    # A comparison that XLA fuses: nothing is gathered, no one-hot is stored.
    at_label = jax.nn.one_hot(rows.labels, rows.given.shape[-1], dtype=bool)
    own = _classes.score_of_class(rows.given, rows.labels)
    return rows, at_label, jnp.where(rows.has_class, own, 0)
