"""Every public name of `optax.losses`, computed by the losses of this library.

    from jaxloss.compat import optax as losses    # was: from optax import losses

Signatures, defaults, shapes and reductions are those of optax 0.2.8; a test compares
them with the installed one.  Each function prepares its arguments for one loss of this
library, which documents formula, gradient and source.  All of them differ from optax in
this:

* No NaN, no wrong zero, and accurate digits; `python -m bench.optax_edges` prints where
  optax has them.
* Losses are at least float32, also for half-precision inputs; gradients keep the dtype.
* Nothing broadcasts: `(n,)` and `(n, 1)` raise an error that names both shapes.
* `where` has the shape of the first argument, or that of the result to mask whole
  examples.  Masked entries and their labels have no effect; if all entries of an
  example are masked, its loss and gradient are 0.
* A class id that is not a class gives NaN, never the loss of another class.
"""

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import (
    _checks,
    _classes,
    _jit,
    margins,
    reduce,
    stable,
    targets as target_transforms,
)
from jaxloss.compat import _arrays
from jaxloss.compat._segmentation import (
    binary_dice_loss as binary_dice_loss,
    dice_loss as dice_loss,
    multiclass_generalized_dice_loss as multiclass_generalized_dice_loss,
)
from jaxloss.compat._sequence import (
    ctc_loss as ctc_loss,
    ctc_loss_with_forward_probs as ctc_loss_with_forward_probs,
)
from jaxloss.losses.classification import cross_entropy, fenchel, focal, large_margin
from jaxloss.losses.distributions import divergence
from jaxloss.losses.embedding import cosine, in_batch, tuples
from jaxloss.losses.ranking import lists
from jaxloss.losses.regression import pointwise, robust
from jaxloss.stable import xla

# --- regression ------------------------------------------------------------------


@_jit.kernel()
def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None):
    """`jaxloss.squared_error`; without targets, of `predictions` themselves."""
    predictions, targets = _arrays.residual("squared_error", predictions, targets)
    return pointwise.squared_error(predictions, targets)


@_jit.kernel()
def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None):
    """Half of `jaxloss.squared_error`."""
    predictions, targets = _arrays.residual("l2_loss", predictions, targets)
    return _half_square(predictions - targets)


@stable.slopes(lambda r: r)
def _half_square(r: jax.Array) -> jax.Array:
    return 0.5 * r * r  # in this order: finite as far as the result is


@_jit.kernel()
def huber_loss(
    predictions: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    delta: ArrayLike = 1.0,
):
    """`jaxloss.huber`, whose gradient at a small residual is that residual."""
    predictions, targets = _arrays.residual("huber_loss", predictions, targets)
    return robust.huber(predictions, targets, delta=jnp.asarray(delta))


@_jit.kernel()
def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None):
    """`jaxloss.log_cosh`: `r^2 / 2` at small residuals, not noise or negative."""
    predictions, targets = _arrays.residual("log_cosh", predictions, targets)
    return robust.log_cosh(predictions, targets)


@_jit.kernel("axis")
def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.cosine_similarity`, right at any scale; 0 for a zero vector.

    `epsilon` is the smallest norm to divide by, as documented; optax clips squares.
    """
    a, b = _arrays.vectors("cosine_similarity", axis, where, predictions, targets)
    return cosine.cosine_similarity(a, b) * _clipped(a, b, epsilon)


@_jit.kernel("axis")
def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.cosine_distance`: exactly 0 from a vector to itself.

    `epsilon` is the smallest norm to divide by, as documented; optax clips squares.
    """
    a, b = _arrays.vectors("cosine_distance", axis, where, predictions, targets)
    kept = _clipped(a, b, epsilon)
    return cosine.cosine_distance(a, b) * kept + (1 - kept)


def _clipped(a: jax.Array, b: jax.Array, epsilon: ArrayLike) -> jax.Array:
    """The factor of a cosine whose norms must be at least `epsilon`."""
    epsilon = jnp.asarray(epsilon, a.dtype)
    divisor = jnp.where(epsilon > 0, epsilon, 1)
    short = lambda norm: jnp.where(norm < epsilon, norm / divisor, 1)
    return short(stable.norm(a)) * short(stable.norm(b))


# --- two classes -----------------------------------------------------------------


@_jit.kernel()
def sigmoid_binary_cross_entropy(logits, labels):
    """`jaxloss.sigmoid_cross_entropy`, also at infinite logits of the right sign."""
    logits, labels = _arrays.alike(
        "sigmoid_binary_cross_entropy", logits=logits, labels=labels
    )
    return cross_entropy.sigmoid_cross_entropy(logits, labels)


@_jit.kernel(gamma="[0, inf)", alpha="[0, 1]")
def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
):
    """`jaxloss.sigmoid_focal` for labels 0 and 1, except for the gradient in labels.

    A soft label has the cross entropy, times the power of `1-p_t = y (1-p) + (1-y) p`,
    times `y alpha + (1-y) (1-alpha)`; `jaxloss.sigmoid_focal` would mix the two losses.
    """
    name = "sigmoid_focal_loss"
    x, y = _arrays.alike(name, logits=logits, labels=labels)
    gamma = _checks.parameter(name, x, gamma=gamma)
    factor = focal._power(_missing(-x, y), _missing(x, y), gamma)
    if alpha is not None:
        alpha = _checks.parameter(name, x, alpha=alpha)
        factor = factor * (y * alpha + (1 - y) * (1 - alpha))
    losses = cross_entropy.sigmoid_cross_entropy(x, lax.stop_gradient(y))
    # The slope in the label is `-x`, but finite: the factor may be 0.
    largest = float(jnp.finfo(x.dtype).max)
    moved = (y - lax.stop_gradient(y)) * jnp.clip(x, -largest, largest)
    return _classes.weighted(factor, losses - moved)


def _missing_dx(x: jax.Array, y: jax.Array) -> jax.Array:
    return 2 * (0.5 - y) * stable.sigmoid_slope(x)


# By autodiff, slopes near x = 0 or y = 1/2 are differences of equal numbers.
@stable.slopes(_missing_dx, lambda x, y: -stable.tanh(0.5 * x))
def _missing(x: jax.Array, y: jax.Array) -> jax.Array:
    """`y (1 - p) + (1 - y) p` with p = sigmoid(x)."""
    return y * stable.sigmoid(-x) + (1 - y) * stable.sigmoid(x)


@_jit.kernel()
def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike):
    """`jaxloss.hinge`."""
    scores, labels = _arrays.alike(
        "hinge_loss", predictor_outputs=predictor_outputs, targets=targets
    )
    return large_margin.hinge(scores, labels)


@_jit.kernel()
def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike):
    """`jaxloss.perceptron`."""
    scores, labels = _arrays.alike(
        "perceptron_loss", predictor_outputs=predictor_outputs, targets=targets
    )
    return large_margin.perceptron(scores, labels)


@_jit.kernel()
def sparsemax_loss(logits: ArrayLike, labels: ArrayLike):
    """A quarter of `jaxloss.modified_huber`; a label other than 0 and 1 gives NaN."""
    logits, labels = _arrays.alike("sparsemax_loss", logits=logits, labels=labels)
    margin = jnp.where(labels == 1, logits, -logits)
    # A quarter of `-4 margin`, which overflows first.
    far = margin < -1
    inner = margins.modified_huber(jnp.where(far, 0, margin)) / 4
    losses = jnp.where(far, -margin, inner)
    return losses + xla.nan_unless((labels == 0) | (labels == 1), losses)


# --- several classes -------------------------------------------------------------


@_jit.kernel("axis")
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.softmax_cross_entropy` of distributions."""
    logits, labels, _ = _arrays.rows(
        "softmax_cross_entropy", axis, where, logits=logits, labels=labels
    )
    return cross_entropy.softmax_cross_entropy(logits, labels)


@_jit.kernel()
def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike):
    """`jaxloss.softmax_cross_entropy` of distributions, which is always safe."""
    logits, labels = _arrays.alike(
        "safe_softmax_cross_entropy", logits=logits, labels=labels
    )
    return cross_entropy.softmax_cross_entropy(logits, labels)


@_jit.kernel("axis", ids="labels")
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.softmax_cross_entropy` of class ids.

    As for one-hot labels: where the class of the label is masked, the loss is 0.
    """
    name = "softmax_cross_entropy_with_integer_labels"
    x, kept = _arrays.rows(name, axis, where, logits=logits)
    ids = _checks.class_ids(name, labels=labels)
    _checks.has_shape(name, x.shape[:-1], "one class id per example", labels=ids)
    if kept is not None:
        at_label = jax.nn.one_hot(ids, x.shape[-1], dtype=bool)
        dropped = jnp.any(at_label & ~kept, axis=-1, keepdims=True)
        x = jnp.where(dropped, -jnp.inf, x)
    return cross_entropy.softmax_cross_entropy(x, ids)


@_jit.kernel("axis")
def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.poly1` of distributions."""
    logits, labels, _ = _arrays.rows(
        "poly_loss_cross_entropy", axis, where, logits=logits, labels=labels
    )
    return focal.poly1(logits, labels, epsilon=jnp.asarray(epsilon))


@_jit.kernel(ids="labels")
def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike):
    """`jaxloss.crammer_singer_hinge`."""
    return large_margin.crammer_singer_hinge(scores, labels)


@_jit.kernel(ids="labels")
def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike):
    """`jaxloss.crammer_singer_hinge` with margin 0."""
    return large_margin.crammer_singer_hinge(scores, labels, margin=0.0)


@_jit.kernel(ids="labels")
def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike):
    """`jaxloss.sparsemax` of class ids, for any batch shape."""
    ids = _checks.class_ids("multiclass_sparsemax_loss", labels=labels)
    return fenchel.sparsemax(scores, ids)


def make_fenchel_young_loss(max_fun: Callable[..., ArrayLike]):
    """`jaxloss.fenchel_young` with this `max_fun`, as a function of its own."""

    @functools.wraps(max_fun)
    def row_max(row: jax.Array) -> jax.Array:
        return jnp.asarray(max_fun(row))

    def fenchel_young_loss(scores, targets, *args, **kwargs):
        if not (args or kwargs):  # the same function each time: one program
            return fenchel.fenchel_young(scores, targets, max_fun=row_max)
        max_with = lambda row: jnp.asarray(max_fun(row, *args, **kwargs))
        return fenchel._regret(scores, targets, max_with, -1)

    return fenchel_young_loss


@_jit.kernel("axis", alpha="[0, 1]")
def smooth_labels(
    labels: ArrayLike,
    alpha: ArrayLike,
    *,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.smooth_labels`; masked classes get no share."""
    name = "smooth_labels"
    (given,) = _checks.floating(name, labels=labels)
    rows, where = _arrays.rows(name, axis, where, fills=(0.0,), labels=given)
    alpha = _checks.parameter(name, rows, alpha=alpha)
    smooth = target_transforms.smooth_labels(rows, smoothing=alpha, where=where)
    consumed = _arrays.axes(name, axis, labels=given)
    kept = [given.shape[i] for i in consumed]
    smooth = smooth.reshape(*smooth.shape[:-1], *kept)
    return jnp.moveaxis(smooth, range(-len(consumed), 0), consumed)


# --- divergences -----------------------------------------------------------------


@_jit.kernel("axis")
def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.kl_divergence`."""
    log_q, t, _ = _arrays.rows(
        "kl_divergence", axis, where, log_predictions=log_predictions, targets=targets
    )
    return divergence.kl_divergence(log_q, t)


@_jit.kernel("axis")
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.kl_divergence_with_log_targets`."""
    log_q, log_t, _ = _arrays.rows(
        "kl_divergence_with_log_targets",
        axis,
        where,
        fills=(-jnp.inf, -jnp.inf),
        log_predictions=log_predictions,
        log_targets=log_targets,
    )
    return divergence.kl_divergence_with_log_targets(log_q, log_t)


@_jit.kernel("axis")
def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """`jaxloss.generalized_kl_divergence`."""
    log_q, t, _ = _arrays.rows(
        "generalized_kl_divergence",
        axis,
        where,
        log_predictions=log_predictions,
        targets=targets,
    )
    return divergence.generalized_kl_divergence(log_q, t)


def convex_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: _checks.Axis = -1,
    where: ArrayLike | None = None,
):
    """The old name of `generalized_kl_divergence`, deprecated by optax."""
    warnings.warn(
        "convex_kl_divergence is deprecated: use generalized_kl_divergence",
        DeprecationWarning,
        stacklevel=2,
    )
    return generalized_kl_divergence(log_predictions, targets, axis, where)


# --- ranking and embeddings ------------------------------------------------------


def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., ArrayLike] | None = jnp.mean,
):
    """`jaxloss.listwise_softmax`; lists without a valid item are left out of the mean.

    `reduce_fn` may be any function of losses and `where=`, the mask of the other lists.
    """
    losses, counted = _ranking_softmax_loss(logits, labels, where, weights)
    if reduce_fn is None:
        return losses
    reduction = reduce.mean if reduce_fn is jnp.mean else reduce_fn
    return reduction(losses, where=counted)


@_jit.kernel()
def _ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[jax.Array, jax.Array | None]:
    """The loss of each list, and which lists have a valid item."""
    name = "ranking_softmax_loss"
    if weights is not None:
        labels, weights = _arrays.alike(name, weights=weights, labels=labels)[::-1]
        labels = labels * weights
    scores, labels, where = _arrays.rows(name, -1, where, logits=logits, labels=labels)
    losses = lists.listwise_softmax(scores, labels)
    return losses, None if where is None else jnp.any(where, axis=-1)


@_jit.kernel(ids="labels")
def ntxent(embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07):
    """`jaxloss.nt_xent`, averaged over the positive pairs; 0 if there is none."""
    name = "ntxent"
    (embeddings,) = _checks.floating(name, embeddings=embeddings)
    ids = _checks.class_ids(name, labels=labels)
    losses = in_batch.nt_xent(embeddings, ids, temperature=jnp.asarray(temperature))
    partners = jnp.sum(ids[:, None] == ids[None, :], axis=-1) - 1
    return reduce.mean(losses, weights=partners)


@_jit.kernel("axis", "norm_degree")
def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: int = -1,
    norm_degree: ArrayLike = 2,
    margin: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
):
    """`jaxloss.triplet_margin`, or `jaxloss.triplet` of another p-norm, even infinity.

    `norm_degree` is a Python number.  optax needs `eps` to avoid a NaN at distance 0,
    which it makes 0.001.  Here `eps` has no effect.
    """
    name = "triplet_margin_loss"
    if not isinstance(norm_degree, (int, float)) or norm_degree < 1:
        kind = type(norm_degree).__name__
        _checks.wrong_kind(
            name, "norm_degree", f"{norm_degree} ({kind})", "a Python number >= 1"
        )
    margin = jnp.asarray(margin)
    given = {"anchors": anchors, "positives": positives, "negatives": negatives}
    anchors, positives, negatives = _checks.floating(name, **given)
    _checks.same_shape(name, anchors=anchors, positives=positives, negatives=negatives)
    if norm_degree == 2:
        return tuples.triplet_margin(
            anchors, positives, negatives, axis=axis, margin=margin
        )
    axis = _checks.one_axis(name, axis, anchors=anchors)
    near, far = (
        stable.norm(anchors - x, axis=axis, ord=norm_degree)
        for x in (positives, negatives)
    )
    return tuples.triplet(near, far, margin=margin)
