"""Losses of ordered classes, such as grades, stages or stars."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.losses.classification import _normal
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
def corn(logits: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""Ordinal regression as a chain of conditional binary decisions (CORN).

    Also called: CORN loss, conditional ordinal regression, continuation ratio.

    .. math::
       \ell = \sum_{k=0}^{\min(y,\, K-2)} \mathrm{BCE}\left(x_k,\; 1[y > k]\right)

    Logit k is the log-odds that the label is above class k, given that it is above
    class k - 1.  So the loss is the negative log-likelihood of the label, and a logit
    that comes after the label does not count.

    Args:
      logits: Floating array with the K - 1 decisions along `axis`; conditional
        log-odds that the label is above class k.
      labels: Integer class ids in [0, K), in their order, of the shape of `logits`
        without `axis`.
      axis: The axis of the decisions.

    Returns:
      One loss >= 0 per example, in nats; NaN if an id is not one of the K classes.  The
      probability of a label above class k is `jnp.cumprod(stable.sigmoid(logits),
      axis)[k]`, and the predicted class is the number of those above 1/2.

    Raises:
      TypeError: If `logits` is not floating or `labels` not integer.
      ValueError: If the shapes do not match or `axis` is not an axis of `logits`.

    Gradient:
      `sigmoid(x_k) - 1[y > k]` with respect to the logits with k <= y, 0 with respect
      to the others; NaN where the loss is.  Convex, smooth.

    Use:
      task: ordinal
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Classes are stages that an example passes one after another, and the
        probabilities should be consistent with any logits.
      not when: One score should order the examples: use `cumulative_logit`.

    Reference:
      Shi et al., "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On
      Conditional Probabilities", Pattern Analysis and Applications 26 (2023).

    Example:
      >>> jaxloss.corn(jnp.array([[1.0, -2.0], [1.0, -2.0]]), jnp.array([0, 2]))
      Array([1.3132617, 2.4401898], dtype=float32)
    """
    name = "corn"
    (logits,) = _checks.floating(name, logits=logits)
    axis = _checks.one_axis(name, axis, logits=logits)
    x = jnp.moveaxis(logits, axis, -1)
    ids = _checks.class_ids(name, labels=labels)
    _checks.has_shape(name, x.shape[:-1], "one id per example", labels=ids)
    k = _columns(x, ids)
    against = jnp.where(ids[..., None] > k, -x, x)
    known = (ids >= 0) & (ids <= x.shape[-1])
    # A decision after the label is certain, and right: it costs exactly 0.
    certain = float(jnp.finfo(x.dtype).min)
    asked = (k <= ids[..., None]) | ~known[..., None]
    losses = jnp.sum(_softplus(jnp.where(asked, against, certain)), axis=-1)
    return _classes.nan_unless(known, losses)


@_jit.kernel(ids="labels")
def cumulative_logit(
    scores: ArrayLike, labels: ArrayLike, cutpoints: ArrayLike
) -> jax.Array:
    r"""Proportional odds: one score, cut into ordered classes.

    Also called: proportional odds, ordered logit, ordinal logistic regression,
    cumulative link loss, CumulativeLinkLoss.

    .. math::
       \ell = -\log\left(\sigma(c_y - x) - \sigma(c_{y-1} - x)\right), \qquad
       c_{-1} = -\infty, \quad c_{K-1} = \infty

    A logistic variable with the mean x, the score, falls into the class between two
    cutpoints.  One more unit of the score multiplies the odds of a higher class by e,
    whatever the class.

    Args:
      scores: Floating array of any shape; higher for higher classes.
      labels: Integer class ids in [0, K), in their order, of the same shape.
      cutpoints: Floating array of K - 1 increasing numbers, of shape `(K - 1,)` for all
        examples, or one row per example; mostly learnt, such as `jnp.cumsum` of a
        first one and of exponentials.

    Returns:
      One loss >= 0 per example, in nats; NaN if an id is not one of the K classes, or
      the cutpoints do not increase.  Accurate far from the cutpoints, and for classes
      of nearly no width.

    Raises:
      TypeError: If `scores` or `cutpoints` is not floating, or `labels` not integer.
      ValueError: If a shape does not fit, or there is no cutpoint.

    Gradient:
      With s the sigmoid and d = c_y - c_{y-1}: `1 - s(c_y - x) - s(c_{y-1} - x)` with
      respect to the scores, `-s(x - c_y) - 1 / expm1(d)` with respect to c_y and
      `s(c_{y-1} - x) + 1 / expm1(d)` with respect to c_{y-1}, 0 with respect to the
      others.  Convex in both, smooth.

    Use:
      task: ordinal
      activation: none
      range: [0, inf)
      robust: yes (in the scores)
      convex: yes
      when: One score orders the examples, and its effect on the odds should be
        readable, as in proportional-odds regression.
      not when: The output has one logit per class: use `squared_emd`.

    Reference:
      McCullagh, "Regression Models for Ordinal Data", JRSS B 42 (1980).

    Example:
      >>> cutpoints = jnp.array([-1.0, 1.0])
      >>> jaxloss.cumulative_logit(jnp.array([0.0, 3.0]), jnp.array([1, 0]), cutpoints)
      Array([0.7719368, 4.01815  ], dtype=float32)
    """
    x, cuts, ids = _checked("cumulative_logit", scores, labels, cutpoints)
    return _classes.nan_unless(_is_class(cuts, ids), _logit_loss(x, cuts, ids))


@_jit.kernel(ids="labels")
def cumulative_probit(
    scores: ArrayLike, labels: ArrayLike, cutpoints: ArrayLike
) -> jax.Array:
    r"""Ordered probit: one score with a normal error, cut into classes.

    Also called: ordered probit, ordinal probit, cumulative link with a probit link.

    .. math::
       \ell = -\log\left(\Phi(c_y - x) - \Phi(c_{y-1} - x)\right), \qquad
       c_{-1} = -\infty, \quad c_{K-1} = \infty

    A normal variable with the mean x, the score, and variance 1 falls into the class
    between two cutpoints.

    Args:
      scores: Floating array of any shape; higher for higher classes.
      labels: Integer class ids in [0, K), in their order, of the same shape.
      cutpoints: Floating array of K - 1 increasing numbers, of shape `(K - 1,)` for all
        examples, or one row per example.

    Returns:
      One loss >= 0 per example, in nats; NaN if an id is not one of the K classes, or
      the cutpoints do not increase.  Far from the class it grows as half the square of
      the distance, and is finite and accurate there.

    Raises:
      TypeError: If `scores` or `cutpoints` is not floating, or `labels` not integer.
      ValueError: If a shape does not fit, or there is no cutpoint.

    Gradient:
      With phi the normal density and p the probability of the class: `-phi(c_y - x) /
      p` with respect to c_y, `phi(c_{y-1} - x) / p` with respect to c_{y-1}, and minus
      the sum of both with respect to the scores.  Convex in both, smooth.

    Use:
      task: ordinal
      activation: none
      range: [0, inf)
      robust: no
      convex: yes
      when: The score has a normal error, as in Gaussian processes and in econometrics.
      not when: Labels may be wrong by many classes: use `cumulative_logit`, whose slope
        is bounded.

    Reference:
      McKelvey and Zavoina, "A Statistical Model for the Analysis of Ordinal Level
      Dependent Variables", Journal of Mathematical Sociology 4 (1975).

    Example:
      >>> cutpoints = jnp.array([-1.0, 1.0])
      >>> jaxloss.cumulative_probit(jnp.array([0.0, 3.0]), jnp.array([1, 0]), cutpoints)
      Array([ 0.38171515, 10.360102  ], dtype=float32)
    """
    x, cuts, ids = _checked("cumulative_probit", scores, labels, cutpoints)
    return _classes.nan_unless(_is_class(cuts, ids), _probit_loss(x, cuts, ids))


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

# --- one score between two cutpoints -------------------------------------------------


def _checked(
    loss: str, scores: ArrayLike, labels: ArrayLike, cutpoints: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, cuts = _checks.floating(loss, scores=scores, cutpoints=cutpoints)
    ids = _checks.class_ids(loss, labels=labels)
    _checks.has_shape(loss, x.shape, "one id per score", labels=ids)
    _checks.at_least_1d(loss, cutpoints=cuts)
    _checks.row_axis(loss, -1, "cutpoint", cutpoints=cuts)
    if cuts.shape[:-1] not in ((), x.shape):
        expected = f"K - 1 cutpoints for all scores, or for each of {x.shape}"
        _checks.fail(loss, "cutpoints", f"shape {cuts.shape}", expected)
    # As numbers, which can be `hidden`: a TPU would write out which class each one is.
    return x, cuts, ids.astype(x.dtype)


def _is_class(cuts: jax.Array, ids: jax.Array) -> jax.Array:
    """Whether the id is one of the classes, and the cutpoints increase."""
    known = (ids >= 0) & (ids <= cuts.shape[-1])
    return known & jnp.all(cuts[..., 1:] > cuts[..., :-1], axis=-1)


def _seen(x: jax.Array, cuts: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearer end of the class, seen from the score, and its width.

    An error distribution is symmetric, so a class below the score is turned over: its
    nearer end is `score - high`, positive if the score is above it.
    """
    last, known = cuts.shape[-1], _is_class(cuts, ids)
    low, high = _chosen(cuts, ids - 1), _chosen(cuts, ids)
    above, below = low - x, x - high
    is_above = (ids == last) | ((ids > 0) & (above > below))
    between = known & (ids > 0) & (ids < last)
    endless = float(jnp.finfo(x.dtype).max) / 2
    width = jnp.where(between, high - low, endless)
    # Without a class, any slope that is not 0 will do: it becomes NaN.
    return jnp.where(known, jnp.where(is_above, above, below), x), width


def _chosen(cuts: jax.Array, ids: jax.Array) -> jax.Array:
    """The cutpoint of each id, 0 if it has none.

    One after another, element by element: a sum over all of them is another kernel on
    an accelerator, which would write the cutpoint of each score to memory.
    """
    found = jnp.zeros(ids.shape, cuts.dtype)
    for k in range(cuts.shape[-1]):
        found = jnp.where(ids == k, cuts[..., k], found)
    return found


def _logits_daa(end: jax.Array, width: jax.Array) -> jax.Array:
    return stable.sigmoid_slope(end) + stable.sigmoid_slope(end + width)


def _logits_dadw(end: jax.Array, width: jax.Array) -> jax.Array:
    return stable.sigmoid_slope(end + width)


def _logits_dww(end: jax.Array, width: jax.Array) -> jax.Array:
    inner = 1 / stable.expm1(width)
    return stable.sigmoid_slope(end + width) + inner * (1 + inner)


@stable.slopes(_logits_daa, _logits_dadw)
def _logits_da(end: jax.Array, width: jax.Array) -> jax.Array:
    # `sigmoid(end) - sigmoid(-end - width)`, which is 0 in the middle of the class.
    both = stable.sigmoid(end) * stable.sigmoid(end + width)
    return -both * stable.expm1(-width - 2 * end)


@stable.slopes(_logits_dadw, _logits_dww)
def _logits_dw(end: jax.Array, width: jax.Array) -> jax.Array:
    return -stable.sigmoid(-end - width) - 1 / stable.expm1(width)


@stable.slopes(_logits_da, _logits_dw)
def _between_logits(end: jax.Array, width: jax.Array) -> jax.Array:
    """`-log(sigmoid(end + width) - sigmoid(end))`, as a sum of terms that are >= 0."""
    ends = stable.softplus(end) + stable.softplus(-end - width)
    return ends - stable.log1mexp(width)


# From the score on, or an accelerator would write the end of the class to memory.
@xla.rematerialised_unless_cpu
def _logit_loss(x: jax.Array, cuts: jax.Array, ids: jax.Array) -> jax.Array:
    return _between_logits(*_seen(x, cuts, ids))


@xla.rematerialised_unless_cpu
def _probit_loss(x: jax.Array, cuts: jax.Array, ids: jax.Array) -> jax.Array:
    return _normal.surprise(*_seen(x, cuts, ids))


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
