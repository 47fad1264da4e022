"""Every loss function of `keras.losses`, computed by the losses of this library.

    from jaxloss.compat import keras as losses    # was: from keras import losses
    model.compile("adam", loss=losses.sparse_categorical_crossentropy)

They take `(y_true, y_pred)`, as `compile` calls them, on the JAX backend of Keras; set
other arguments with `functools.partial`.  Signatures, defaults, shapes and numbers are
those of Keras 3.15; a test compares them with the installed one.  Each function
prepares its arguments for one loss of this library, which documents formula, gradient
and source.  All of them differ from Keras in this:

* No NaN, no wrong zero, and accurate digits.
* Losses are at least float32, also for half-precision inputs; gradients keep the dtype.
* Nothing broadcasts, but `(n,)` still fits `(n, 1)`, entry by entry, as in Keras.
* A class id that is not a class, such as 1.5, gives NaN, never the loss 0.

Probabilities are clipped to `[1e-7, 1 - 1e-7]` and amounts to 1e-7 where Keras does so,
so pass logits where you can.  The 1e-7 is a constant: `keras.config.set_epsilon` does
not change it.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, margins, stable
from jaxloss.compat import _arrays, _keras_arguments as _given, optax
from jaxloss.losses.classification import cross_entropy, focal, large_margin
from jaxloss.losses.distributions import divergence
from jaxloss.losses.embedding import cosine
from jaxloss.losses.language import sequence
from jaxloss.losses.regression import pointwise, robust
from jaxloss.losses.vision import segmentation
from jaxloss.stable import xla

# --- numbers ---------------------------------------------------------------------


@_jit.kernel()
def mean_squared_error(y_true: ArrayLike, y_pred: ArrayLike):
    """Mean of `jaxloss.squared_error` over the last axis."""
    t, p = _given.pair("mean_squared_error", y_true, y_pred)
    return jnp.mean(pointwise.squared_error(p, t), axis=-1)


@_jit.kernel()
def mean_absolute_error(y_true: ArrayLike, y_pred: ArrayLike):
    """Mean of `jaxloss.absolute_error` over the last axis."""
    t, p = _given.pair("mean_absolute_error", y_true, y_pred)
    return jnp.mean(pointwise.absolute_error(p, t), axis=-1)


@_jit.kernel()
def mean_absolute_percentage_error(y_true: ArrayLike, y_pred: ArrayLike):
    """100 times the mean of `jaxloss.absolute_error` over `|y_true|`, at least 1e-7."""
    t, p = _given.pair("mean_absolute_percentage_error", y_true, y_pred)
    errors = pointwise.absolute_error(p, t) / jnp.maximum(jnp.abs(t), _given.EPSILON)
    return 100 * jnp.mean(errors, axis=-1)


@_jit.kernel()
def mean_squared_logarithmic_error(y_true: ArrayLike, y_pred: ArrayLike):
    """Mean of `jaxloss.squared_log_error`; smaller amounts are replaced by 1e-7."""
    t, p = _given.pair("mean_squared_logarithmic_error", y_true, y_pred)
    t, p = jnp.maximum(t, _given.EPSILON), jnp.maximum(p, _given.EPSILON)
    return jnp.mean(pointwise.squared_log_error(p, t), axis=-1)


@_jit.kernel(delta="(0, inf)")
def huber(y_true: ArrayLike, y_pred: ArrayLike, delta: ArrayLike = 1.0):
    """Mean of `jaxloss.huber` over the last axis."""
    t, p = _given.pair("huber", y_true, y_pred)
    return jnp.mean(robust.huber(p, t, delta=jnp.asarray(delta)), axis=-1)


@_jit.kernel()
def log_cosh(y_true: ArrayLike, y_pred: ArrayLike):
    """Mean of `jaxloss.log_cosh`, which is `r^2 / 2` at small residuals, not 0."""
    t, p = _given.pair("log_cosh", y_true, y_pred)
    return jnp.mean(robust.log_cosh(p, t), axis=-1)


@_jit.kernel()
def poisson(y_true: ArrayLike, y_pred: ArrayLike):
    """Mean of `p - t log(p + 1e-7)`, `jaxloss.poisson_nll` of the rates themselves."""
    t, p = _given.pair("poisson", y_true, y_pred)
    return jnp.mean(p - stable.xlogy(t, p + _given.EPSILON), axis=-1)


@_jit.kernel("axis")
def cosine_similarity(y_true: ArrayLike, y_pred: ArrayLike, axis: int = -1):
    """Minus `jaxloss.cosine_similarity`, right at any scale; 0 for a zero vector."""
    t, p = _given.pair("cosine_similarity", y_true, y_pred)
    return -cosine.cosine_similarity(p, t, axis=axis)


# --- classes ---------------------------------------------------------------------


@_jit.kernel("from_logits", "axis", label_smoothing="[0, 1]")
def categorical_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
):
    """`jaxloss.softmax_cross_entropy` of distributions; `jaxloss.nll` without logits.

    Labels are smoothed over the classes, on any `axis`.
    """
    name = "categorical_crossentropy"
    t, p = _given.distributions(name, y_true, y_pred, axis, label_smoothing)
    if from_logits:
        return cross_entropy.softmax_cross_entropy(p, t)
    return cross_entropy.nll(jnp.log(_given.shares(p)), t)


@_jit.kernel("from_logits", "axis", gamma="[0, inf)", label_smoothing="[0, 1]")
def categorical_focal_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    alpha: ArrayLike = 0.25,
    gamma: ArrayLike = 2.0,
    from_logits: bool = False,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
):
    """`jaxloss.softmax_focal` of distributions, `alpha` a number or one per class."""
    name = "categorical_focal_crossentropy"
    t, p = _given.distributions(name, y_true, y_pred, axis, label_smoothing)
    alpha = _checks.parameter(name, p, alpha=alpha)
    gamma = _checks.parameter(name, jnp.zeros((), p.dtype), gamma=gamma)
    if from_logits:
        return focal.softmax_focal(p, alpha * t, gamma=gamma)
    p = _given.shares(p)
    return cross_entropy.nll(jnp.log(p), alpha * t * (1 - p) ** gamma)


def sparse_categorical_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
):
    """`jaxloss.softmax_cross_entropy` of class ids; `jaxloss.nll` without logits.

    Ids may be floating, as Keras passes them.  Where an id is `ignore_class`, the loss
    is 0, whatever `y_pred` is, and the mean of Keras leaves the example out.
    """
    losses, valid = _sparse_categorical_crossentropy(
        y_true, y_pred, from_logits, ignore_class, axis
    )
    return losses if ignore_class is None else _given.with_mask(losses, valid)


@_jit.kernel("from_logits", "ignore_class", "axis")
def _sparse_categorical_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool,
    ignore_class: int | None,
    axis: int,
) -> tuple[jax.Array, jax.Array]:
    """The loss of each example, and which are not of the class to ignore."""
    name = "sparse_categorical_crossentropy"
    p, given = _given.with_ids(name, y_true, y_pred, axis)
    valid = (
        jnp.full(given.shape, True) if ignore_class is None else (given != ignore_class)
    )
    ids = jnp.where(valid, _given.class_ids(name, given, p.shape[-1]), 0)
    p = jnp.where(valid[..., None], p, 1)
    of_ids = cross_entropy.softmax_cross_entropy if from_logits else cross_entropy.nll
    losses = of_ids(p if from_logits else jnp.log(_given.shares(p)), ids)
    return jnp.where(valid, losses, 0), valid


@_jit.kernel(q="(0, inf)")
def categorical_generalized_cross_entropy(
    y_true: ArrayLike, y_pred: ArrayLike, q: ArrayLike
):
    """`(1 - p^q) / q` of the probability of a class id, accurate near p = 1."""
    name = "categorical_generalized_cross_entropy"
    p, given = _given.with_ids(name, y_true, y_pred, -1)
    ids = _given.class_ids(name, given, p.shape[-1])
    is_label = jax.nn.one_hot(ids, p.shape[-1], dtype=bool)
    share = jnp.sum(jnp.where(is_label, p, 0), axis=-1)
    q = _checks.parameter(name, share, q=q)
    # The slope is infinite at 0, where that of a softmax times it tends to 0.
    none = share == 0
    losses = -stable.expm1(q * jnp.log(jnp.where(none, 1, share))) / q
    losses = jnp.where(none, 1 / q, losses)
    return losses + xla.nan_unless(jnp.any(is_label, axis=-1), losses)


@_jit.kernel()
def categorical_hinge(y_true: ArrayLike, y_pred: ArrayLike):
    """`jaxloss.margins.hinge` of the score of the label minus the largest other one."""
    t, p = _given.pair("categorical_hinge", y_true, y_pred)
    others = jnp.max(jnp.where(t == 1, 0, (1 - t) * p), axis=-1)
    return margins.hinge(jnp.sum(jnp.where(t == 0, 0, t * p), axis=-1) - others)


# --- yes or no -------------------------------------------------------------------


@_jit.kernel("from_logits", "axis", label_smoothing="[0, 1]")
def binary_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    label_smoothing: ArrayLike = 0.0,
    axis: _checks.Axis = -1,
):
    """Mean of `jaxloss.sigmoid_cross_entropy`, or of its value for probabilities."""
    name = "binary_crossentropy"
    t, p = _given.bits(name, y_true, y_pred, label_smoothing)
    axis = _arrays.axes(name, axis, y_pred=p)
    of = cross_entropy.sigmoid_cross_entropy if from_logits else _given.of_probability
    return jnp.mean(of(p, t), axis=axis)


@_jit.kernel(
    "apply_class_balancing",
    "from_logits",
    "axis",
    alpha="[0, 1]",
    gamma="[0, inf)",
    label_smoothing="[0, 1]",
)
def binary_focal_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    apply_class_balancing: bool = False,
    alpha: ArrayLike = 0.25,
    gamma: ArrayLike = 2.0,
    from_logits: bool = False,
    label_smoothing: ArrayLike = 0.0,
    axis: _checks.Axis = -1,
):
    """Mean of `jaxloss.sigmoid_focal`, for labels 0 and 1.

    A soft label has the cross entropy times the power of `y (1-p) + (1-y) p`, and with
    `apply_class_balancing` times `y alpha + (1-y) (1-alpha)`.
    """
    name = "binary_focal_crossentropy"
    t, p = _given.bits(name, y_true, y_pred, label_smoothing)
    axis = _arrays.axes(name, axis, y_pred=p)
    gamma = _checks.parameter(name, p, gamma=gamma)
    alpha = _checks.parameter(name, p, alpha=alpha)
    if from_logits:
        weight = alpha if apply_class_balancing else None
        losses = optax.sigmoid_focal_loss(p, t, alpha=weight, gamma=gamma)
        return jnp.mean(losses, axis=axis)
    losses = _given.of_probability(p, t)
    p = jnp.clip(p, _given.EPSILON, 1 - _given.EPSILON)
    losses = losses * (t * (1 - p) + (1 - t) * p) ** gamma
    if apply_class_balancing:
        losses = losses * (t * alpha + (1 - t) * (1 - alpha))
    return jnp.mean(losses, axis=axis)


@_jit.kernel()
def hinge(y_true: ArrayLike, y_pred: ArrayLike):
    """Mean of `jaxloss.hinge`; labels that are all 0 or 1 become -1 and 1."""
    t, p = _given.pair("hinge", y_true, y_pred)
    return jnp.mean(large_margin.hinge(p, _given.signs(t)), axis=-1)


@_jit.kernel()
def squared_hinge(y_true: ArrayLike, y_pred: ArrayLike):
    """Mean of `jaxloss.squared_hinge`; labels that are all 0 or 1 become -1 and 1."""
    t, p = _given.pair("squared_hinge", y_true, y_pred)
    return jnp.mean(large_margin.squared_hinge(p, _given.signs(t)), axis=-1)


# --- distributions, masks, embeddings, sequences -----------------------------------


@_jit.kernel()
def kl_divergence(y_true: ArrayLike, y_pred: ArrayLike):
    """`jaxloss.kl_divergence` over the last axis, of probabilities in [1e-7, 1]."""
    t, p = _given.pair("kl_divergence", y_true, y_pred)
    t, p = jnp.clip(t, _given.EPSILON, 1), jnp.clip(p, _given.EPSILON, 1)
    return divergence.kl_divergence(jnp.log(p), t)


@_jit.kernel("axis")
def dice(y_true: ArrayLike, y_pred: ArrayLike, axis: _checks.Axis = None):
    """`jaxloss.dice`, by default one ratio over all axes; 0 for two empty masks."""
    t, p = _given.pair("dice", y_true, y_pred)
    return segmentation.dice(p, t, axis=_arrays.axes("dice", axis, y_pred=p))


@_jit.kernel("axis", alpha="[0, inf)", beta="[0, inf)")
def tversky(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    axis: _checks.Axis = None,
):
    """`jaxloss.tversky`, by default one ratio over all axes; 0 for empty masks.

    As Keras 3.15 computes it, `alpha` weights the false negatives and `beta` the false
    positives: the opposite of what Keras documents and of `jaxloss.tversky`.
    """
    t, p = _given.pair("tversky", y_true, y_pred)
    over = _arrays.axes("tversky", axis, y_pred=p)
    positives, negatives = jnp.asarray(beta), jnp.asarray(alpha)
    return segmentation.tversky(p, t, axis=over, alpha=positives, beta=negatives)


def circle(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    ref_labels: ArrayLike | None = None,
    ref_embeddings: ArrayLike | None = None,
    remove_diagonal: bool = True,
    gamma: ArrayLike = 80,
    margin: ArrayLike = 0.4,
):
    """Circle loss of unit vectors; an example without a positive or negative costs 0.

    The mean of Keras is over the losses that are not 0.  The weights of the pairs have
    a gradient, too, unlike those of Sun et al. (CVPR 2020).
    """
    losses = _circle(
        y_true, y_pred, ref_labels, ref_embeddings, remove_diagonal, gamma, margin
    )
    return _given.with_mask(losses, losses > 0)


@_jit.kernel("remove_diagonal", gamma="(0, inf)", margin="(-inf, inf)")
def _circle(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    ref_labels: ArrayLike | None,
    ref_embeddings: ArrayLike | None,
    remove_diagonal: bool,
    gamma: ArrayLike,
    margin: ArrayLike,
):
    name = "circle"
    (u,) = _checks.widened(name, y_pred=y_pred)
    v = (
        u
        if ref_embeddings is None
        else _checks.real(name, u, ref_embeddings=ref_embeddings)[0]
    )
    if u.ndim != 2 or v.ndim != 2 or u.shape[1] != v.shape[1]:
        _checks.fail(
            name,
            "y_pred",
            f"shape {u.shape}, and the reference embeddings {v.shape}",
            "one row per example, all of one length",
        )
    labels = _given.groups(name, len(u), y_true=y_true)
    others = (
        labels
        if ref_labels is None
        else _given.groups(name, len(v), ref_labels=ref_labels)
    )
    _checks.has_shape(name, (len(v),), "one per reference", ref_labels=others)
    near = labels[:, None] == others[None, :]
    far = ~near
    if remove_diagonal:
        near &= ~jnp.eye(*near.shape, dtype=bool)
    m, scale = jnp.asarray(margin, u.dtype), jnp.asarray(gamma, u.dtype)
    d = jnp.maximum(1 - jnp.matmul(u, v.T, precision="highest"), 0)
    pulls = scale * (d + m) * (d - m)
    pushes = scale * jnp.maximum(1 + m - d, 0) * (1 - m - d)
    return stable.softplus(
        stable.logsumexp(pulls, where=near) + stable.logsumexp(pushes, where=far)
    )


@_jit.kernel()
def ctc(y_true: ArrayLike, y_pred: ArrayLike):
    """`jaxloss.ctc` of logits; class 0 is the blank, and a 0 in `y_true` is no label.

    A 0 between labels is skipped.  The loss is infinite if no alignment exists.
    """
    (logits,) = _checks.widened("ctc", y_pred=y_pred)
    if logits.ndim != 3:
        _checks.fail(
            "ctc", "y_pred", f"shape {logits.shape}", "(batch, frames, classes)"
        )
    given = _checks.array("ctc", "y_true", y_true)
    if given.ndim != 2 or len(given) != len(logits):
        expected = f"(batch, labels) with a batch of {len(logits)}"
        _checks.fail("ctc", "y_true", f"shape {given.shape}", expected)
    ids = _given.class_ids("ctc", given, logits.shape[-1])
    return sequence.ctc(logits, ids, label_where=ids != 0)
