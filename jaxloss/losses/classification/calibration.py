"""Calibration: Brier score, expected calibration error, fit of a temperature."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, reduce, stable


@_jit.kernel("axis", ids="labels")
def brier(probabilities: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""Brier score: squared distance between probabilities and outcomes.

    Also called: Brier score, quadratic score, brier_score_loss.

    .. math:: \ell = \sum_j (p_j - y_j)^2

    Args:
      probabilities: Floating array with the classes along `axis`, summing to 1.
      labels: Integer class ids, of the shape of `probabilities` without `axis`; or
        distributions, a floating array of the shape of `probabilities`.
      axis: The class axis.

    Returns:
      Per-example losses of the shape of `probabilities` without `axis`, from 0 to 2;
      NaN where an id is not a class.  For one event of probability p, give the two
      classes 1 - p and p: the result is twice `squared_error`, which some texts call
      the Brier score.

    Raises:
      TypeError: If `probabilities` is not floating, or `labels` of the wrong dtype.
      ValueError: If the shapes do not match or `axis` is not an axis of
        `probabilities`.

    Gradient:
      `2 (p - y)` with respect to `probabilities`, and `-2 (p - y)` with respect to
      labels that are distributions.  Convex.  A proper score: its mean is least at the
      true probabilities.

    Use:
      task: multi-class
      activation: softmax
      range: [0, 2]
      robust: yes
      convex: yes
      when: Probabilities are evaluated on a bounded scale, or a confident mistake
        should cost at most 2.
      not when: A classifier is trained from scratch: use `softmax_cross_entropy`, whose
        gradient in the logits does not vanish on confident mistakes.

    Reference:
      Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly
      Weather Review 78, 1950.

    Example:
      >>> p = jnp.array([[0.75, 0.25, 0.0], [0.75, 0.25, 0.0]])
      >>> jaxloss.brier(p, jnp.array([0, 1]))
      Array([0.125, 1.125], dtype=float32)
    """
    rows = _classes.rows("brier", labels, axis, probabilities=probabilities)
    p, y = rows.scores, rows.labels
    if rows.are_ids:
        y = jax.nn.one_hot(y, p.shape[-1], dtype=bool).astype(p.dtype)
    return rows.mask_invalid(jnp.sum(jnp.square(p - y), axis=-1))


@_jit.kernel("bins")
def expected_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int = 15,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Expected calibration error: gap of confidence and accuracy, in bins.

    .. math::
       \mathrm{ECE} = \sum_{b=1}^{B} \frac{n_b}{n}
       \left| \overline{\text{confidence}}_b - \overline{\text{correct}}_b \right|

    Args:
      probabilities: Floating array in [0, 1].  `(n,)`: probabilities of the positive
        class, which are the confidences.  `(n, K)`: one distribution per example, whose
        confidence is its largest probability; the predicted class is the first that has
        it.
      labels: For `(n,)`, outcomes in [0, 1]; for `(n, K)`, integer class ids `(n,)`.
      bins: Number B of bins of equal width, a Python integer; bin b is
        `((b - 1) / B, b / B]`, and 0 belongs to the first.
      weights: Weights >= 0 `(n,)`; default all ones.
      where: Boolean mask `(n,)` of the examples that count; default all.

    Returns:
      Scalar in [0, 1], at least float32; 0 if every example is masked.  It is biased
      upwards when bins hold few examples, and it depends on `bins`: compare only
      results with equal `bins`.

    Raises:
      TypeError: If a dtype is not as stated, or `bins` is not a Python integer.
      ValueError: If the shapes do not match or `bins` < 1.

    Gradient:
      `w sign / sum(w)` with respect to each confidence, where `sign` is that of the gap
      in its bin.  It ignores the jump where a confidence moves to another bin, so this
      is a measure, not an objective.

    Reference:
      Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Example:
      >>> p = jnp.array([0.75, 0.75, 0.75, 0.75])
      >>> jaxloss.expected_calibration_error(p, jnp.array([1, 1, 0, 0]))
      Array(0.25, dtype=float32)
    """
    loss = "expected_calibration_error"
    _checks.positive_integer(loss, bins=bins)
    p, labels = _examples(loss, "probabilities", probabilities, labels)
    weights = _weights(loss, p, weights, where)
    p, labels = reduce.fill(weights != 0, p, labels)
    if p.ndim == 1:
        confidence, correct = p, labels
    else:
        confidence = jnp.max(p, axis=-1)
        correct = (lax.argmax(p, 1, labels.dtype) == labels).astype(p.dtype)
        known = (labels >= 0) & (labels < p.shape[-1])
        correct = jnp.where(known, correct, jnp.nan)
    edges = jnp.asarray(np.arange(1, bins) / bins, p.dtype)
    bin_of = jnp.searchsorted(edges, lax.stop_gradient(confidence), side="left")
    # n_b |mean confidence - mean correct| is a sum: no bin is divided by its size.
    gaps = jnp.zeros(bins, p.dtype).at[bin_of].add(weights * (confidence - correct))
    return reduce.Mean(jnp.sum(stable.magnitude(gaps)), jnp.sum(weights)).compute()


_COLDEST, _HOTTEST = 1e-6, 1e6


@_jit.kernel()
def fit_temperature(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Temperature that calibrates a trained classifier on held-out examples.

    .. math::
       T = \arg\min_{T > 0} \sum_i w_i
       \operatorname{cross-entropy}(z_i / T,\; y_i)

    Args:
      logits: Floating array: `(n, K)`, one row per example; or `(n,)`, log-odds of the
        positive class.  Use examples that the model was not trained on.
      labels: For `(n, K)` integer class ids `(n,)`; for `(n,)` labels in [0, 1].
      weights: Weights >= 0 `(n,)`; default all ones.
      where: Boolean mask `(n,)` of the examples that count; default all.

    Returns:
      Scalar T in [1e-6, 1e6], at least float32, for
      `temperature(logits, temperature=T)`.  T is 1e-6 if every label has the largest
      logit, because then a lower T is always better, and 1e6 if the logits are no
      better than chance.  T is 1 if all temperatures are equally good or every example
      is masked, and NaN if a label is not a class or has a logit of -inf.

    Raises:
      TypeError: If `logits` is not floating, `labels` is not integer (not real, for
        `(n,)`), or `where` is not boolean.
      ValueError: If the shapes do not match.

    Gradient:
      None: autodiff treats the result as a constant.  The minimised sum is convex in 1
      / T.

    Reference:
      Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Example:
      >>> logits = jnp.array([4.0, 4.0, 4.0, 4.0])  # sure of it, and right in 3 of 4
      >>> temperature = jaxloss.fit_temperature(logits, jnp.array([1, 1, 1, 0]))
      >>> jax.nn.sigmoid(logits[0] / temperature)
      Array(0.75, dtype=float32)
    """
    loss = "fit_temperature"
    z, labels = _examples(loss, "logits", logits, labels)
    weights = lax.stop_gradient(_weights(loss, z, weights, where))
    z, labels = reduce.fill(weights != 0, lax.stop_gradient(z), labels)
    return _fitted(_leads(z, lax.stop_gradient(labels)), weights)


@jax.jit  # or each call outside of one would compile its loop again
def _fitted(leads: jax.Array, weights: jax.Array) -> jax.Array:
    """The best temperature, in range, from how far each class leads the label."""
    slope = lambda u: _slope(jnp.asarray(u, leads.dtype), leads, weights)
    low, high = -math.log(_HOTTEST), -math.log(_COLDEST)
    best = jnp.exp(-_root(slope, jnp.zeros((), leads.dtype), low, high))
    # The loss as a function of u = -log T falls while its slope is negative.
    (hottest, _), (coldest, _) = slope(low), slope(high)
    best = jnp.where(coldest <= 0, _COLDEST, jnp.where(hottest >= 0, _HOTTEST, best))
    best = jnp.where((hottest == 0) & (coldest == 0), 1, best)
    return jnp.where(jnp.isnan(hottest) | jnp.isnan(coldest), jnp.nan, best)


def _slope(
    u: jax.Array, leads: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """First and second derivative in beta of the summed loss, at beta = exp(u).

    They are the mean and the variance of the leads under the softmax at beta.
    """
    p = stable.softmax(jnp.exp(u) * leads)
    finite = jnp.where(leads == -jnp.inf, 0, leads)
    mean = jnp.sum(p * finite, axis=-1, keepdims=True)
    variance = jnp.sum(p * jnp.square(finite - mean), axis=-1)
    return jnp.sum(weights * mean[:, 0]), jnp.sum(weights * variance)


def _root(
    slope: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    start: jax.Array,
    low: float,
    high: float,
) -> jax.Array:
    """Where the increasing first result of `slope` is 0, by Newton and bisection."""

    def improve(state):
        u, low, high, _, count = state
        first, second = slope(u)
        low, high = jnp.where(first < 0, u, low), jnp.where(first < 0, high, u)
        curved = second > 0
        per_u = jnp.where(curved, jnp.exp(u) * second, 1)  # the slope is d/d beta
        newton = jnp.where(curved, u - first / per_u, jnp.inf)
        inside = (newton >= low) & (newton <= high)
        new = jnp.where(inside, newton, 0.5 * (low + high))
        return new, low, high, jnp.abs(new - u), count + 1

    def unfinished(state):
        *_, moved, count = state
        # Newton's last steps are of the size of the slope's own rounding.
        return (moved > 4 * jnp.finfo(start.dtype).eps) & (count < 100)

    ends = (jnp.full_like(start, low), jnp.full_like(start, high))
    state = (start, *ends, jnp.full_like(start, jnp.inf), 0)
    return lax.while_loop(unfinished, improve, state)[0]


def _leads(z: jax.Array, labels: jax.Array) -> jax.Array:
    """By how much each class leads the label, `(n, K)`; -inf for an excluded class."""
    if z.ndim == 1:
        times = lambda y: jnp.where(y == 0, 0, y * jnp.where(y == 0, 0, z))
        return jnp.stack([times(-labels), times(1 - labels)], axis=-1)
    at_label = jax.nn.one_hot(labels, z.shape[-1], dtype=bool)
    own = jnp.sum(jnp.where(at_label, z, 0), axis=-1, keepdims=True)
    own = jnp.where(jnp.any(at_label, axis=-1, keepdims=True), own, jnp.nan)
    excluded = z == -jnp.inf
    leads = jnp.where(at_label | excluded, 0, z) - own
    return jnp.where(at_label, 0, jnp.where(excluded, -jnp.inf, leads))


def _examples(
    loss: str, name: str, x: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """`(n,)` with real labels, or `(n, K)` with class ids: told apart by rank."""
    (x,) = _checks.floating(loss, **{name: x})
    if x.ndim == 1:
        (labels,) = _checks.real(loss, x, labels=labels)
    elif x.ndim == 2:
        labels = _checks.class_ids(loss, labels=labels)
    else:
        _checks.fail(loss, name, f"shape {x.shape}", "(n,) or (n, K)")
    _checks.has_shape(loss, x.shape[:1], "one label per example", labels=labels)
    return x, labels


def _weights(
    loss: str, x: jax.Array, weights: ArrayLike | None, where: ArrayLike | None
) -> jax.Array:
    """The weights, 0 where masked."""
    ones = jnp.ones(x.shape[:1], x.dtype)
    (weights,) = _checks.real(loss, x, weights=ones if weights is None else weights)
    (where,) = _checks.boolean(loss, where=ones == 1 if where is None else where)
    why = "one per example"
    _checks.has_shape(loss, ones.shape, why, weights=weights, where=where)
    return jnp.where(where, weights, 0)
