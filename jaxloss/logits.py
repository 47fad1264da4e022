"""Transforms of logits, to be applied before a loss: logits in, logits out."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, stable
from jaxloss.stable import xla


@_jit.kernel(temperature="(0, inf)")
def temperature(
    logits: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    r"""Divides logits by a temperature: softer above 1, sharper below.

    .. math:: \tilde z = z / T

    Args:
      logits: Floating array of any shape; -inf, a class of probability 0, stays -inf.
      temperature: T > 0; a scalar, or an array that broadcasts to the shape of
        `logits`.  `fit_temperature` finds the T that calibrates a classifier.

    Returns:
      Logits of the same shape, at least float32.  Dividing by one positive number never
      swaps two logits, so the largest one stays the largest.

    Raises:
      TypeError: If `logits` is not floating.
      ValueError: If `temperature` is a Python number <= 0 or does not broadcast.

    Gradient:
      `1 / T` with respect to `logits`; `-z / T^2` with respect to `temperature`, 0
      where z is infinite.

    Reference:
      Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Example:
      >>> jaxloss.temperature(jnp.array([3.0, 1.0, -jnp.inf]), temperature=2.0)
      Array([ 1.5,  0.5, -inf], dtype=float32)
    """
    (logits,) = _checks.floating("temperature", logits=logits)
    divisor = _checks.parameter("temperature", logits, temperature=temperature)
    return _divided(logits, divisor)


@_jit.kernel("axis", strength="(-inf, inf)")
def adjust_logits(
    logits: ArrayLike,
    priors: ArrayLike,
    *,
    axis: int = -1,
    strength: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Adds the log priors of the classes, to treat rare classes fairly.

    .. math:: \tilde z_j = z_j + \tau \log \pi_j

    Train on the adjusted logits and predict with the plain ones: they give the class
    that would be most likely if all classes were equally frequent.  For a model that is
    already trained, subtract the log priors: `strength=-1`.

    Args:
      logits: Floating array with the classes along `axis`.
      priors: Class frequencies `(K,)` > 0.  Counts serve as well, because softmax
        ignores a common factor.  A prior of 0 makes the class impossible: its logit
        becomes -inf.
      axis: The class axis.
      strength: Exponent tau of the priors, a scalar; 0 changes nothing.

    Returns:
      Logits of the same shape, at least float32.

    Raises:
      TypeError: If `logits` is not floating or `priors` is not real.
      ValueError: If `priors` is not one number per class, `axis` is not an axis of
        `logits`, or `strength` is not a finite scalar.

    Gradient:
      1 with respect to `logits`, `log prior` with respect to `strength`,
      `strength / prior` with respect to `priors`; for a prior of 0, 0 with respect to
      both.

    Reference:
      Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021.

    Example:
      >>> jaxloss.adjust_logits(jnp.zeros((1, 3)), jnp.array([1.0, 1.0, 0.0]))
      Array([[  0.,   0., -inf]], dtype=float32)
    """
    loss = "adjust_logits"
    (logits,) = _checks.floating(loss, logits=logits)
    (priors,) = _checks.real(loss, logits, priors=priors)
    axis = _checks.one_axis(loss, axis, logits=logits)
    classes = (logits.shape[axis],)
    _checks.has_shape(loss, classes, "one prior per class", priors=priors)
    scalar = jnp.zeros((), logits.dtype)
    tau = _checks.parameter(loss, scalar, strength=strength)
    shift = _log_power(priors, jnp.broadcast_to(tau, classes))
    along = [1] * logits.ndim
    along[axis] = -1
    return logits + shift.reshape(along)


@_jit.kernel(
    ids="labels",
    scale="(0, inf)",
    margin="(-inf, inf)",
    angle_factor="(0, inf)",
    cosine_margin="(-inf, inf)",
)
def angular_margin(
    embeddings: ArrayLike,
    prototypes: ArrayLike,
    labels: ArrayLike,
    *,
    scale: float | jax.Array,
    margin: float | jax.Array = 0.5,
    angle_factor: float | jax.Array = 1.0,
    cosine_margin: float | jax.Array = 0.0,
) -> jax.Array:
    r"""Scaled cosines to class prototypes, with a margin at the label.

    Also called: ArcFace, additive angular margin, AAM-softmax, CosFace, AM-softmax,
    large margin cosine loss, SphereFace, A-softmax, margin softmax, ArcFaceLoss,
    CosFaceLoss, SphereFaceLoss, LDAM loss.

    .. math::
       z_j = s \cos \theta_j \quad (j \ne y), \qquad
       z_y = s \left( (-1)^k \cos \psi - 2k - m_3 \right), \qquad
       \psi = m_1 \theta_y + m_2, \quad k = \lfloor \psi / \pi \rfloor

    The `softmax_cross_entropy` of these logits is the loss of ArcFace (`margin` m2), of
    SphereFace (`angle_factor` m1) and of CosFace (`cosine_margin` m3).  The label must
    win by a margin, so embeddings of one class become more alike than those of two.
    Predict with the cosines: the class of the most similar prototype.

    Args:
      embeddings: Floating array `(..., components)`, normalised or not.
      prototypes: One vector per class `(classes, components)`, normalised or not: the
        weights of the last layer, transposed.
      labels: Class ids `(...)`.  The row of an id that is no class is NaN, and has
        gradient 0, so that `jaxloss.mean(..., where=)` can drop it.
      scale: s > 0: 64 in ArcFace and CosFace, 30 in AM-softmax.
      margin: m2, in radians: 0.5 in ArcFace, 0 in the others.
      angle_factor: m1 > 0: 1.35 to 4 in SphereFace, 1 in the others.
      cosine_margin: m3: 0.35 in CosFace, 0 in the others.  This and the other numbers
        are one for all, or one for each label, such as `margins[labels]`.

    Returns:
      Logits `(..., classes)`, at least float32; their rounding error is that of a
      cosine, a few eps, times the scale.  The logit of the label falls all the way from
      theta = 0 to pi.  Up to psi = pi it is the published one.  Beyond, where cos(psi)
      rises again, the code of ArcFace jumps and other libraries fold back, which pushes
      the worst examples away; here it is continued, as in SphereFace.

    Raises:
      TypeError: If `embeddings` or `prototypes` are not floating, or `labels` are not
        integer.
      ValueError: If the shapes do not fit, or a hyperparameter is a Python number out
        of its interval or does not broadcast.

    Gradient:
      `-s |sin(psi)| m1` with respect to the angle of the label, and `s` with respect to
      the other cosines.  With respect to an embedding or a prototype, the gradient is
      orthogonal to it and inversely proportional to its length.  Where the two point
      the same way or opposite ways, the angle has a kink; its derivatives, of any
      order, are 0 there.  So are those of a zero vector, whose cosines are 0.

    Reference:
      Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
      CVPR 2019; Liu et al., "SphereFace", CVPR 2017; Wang et al., "CosFace", CVPR 2018.

    Example:
      >>> x, w = jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> jaxloss.angular_margin(x, w, jnp.array([0]), scale=10.0)
      Array([[1.4300909, 8.       ]], dtype=float32)
    """
    loss = "angular_margin"
    x, w = _checks.floating(loss, embeddings=embeddings, prototypes=prototypes)
    _checks.row_axis(loss, -1, "component", embeddings=x)
    if w.ndim != 2 or w.shape[0] == 0 or w.shape[1] != x.shape[-1]:
        expected = f"shape (classes, {x.shape[-1]}), at least one class"
        _checks.fail(loss, "prototypes", f"shape {w.shape}", expected)
    ids = _checks.class_ids(loss, labels=labels)
    _checks.has_shape(loss, x.shape[:-1], "one id per embedding", labels=ids)
    like = jnp.zeros(ids.shape, x.dtype)
    s = _checks.parameter(loss, like, scale=scale)
    m1 = _checks.parameter(loss, like, angle_factor=angle_factor)
    m2 = _checks.parameter(loss, like, margin=margin)
    m3 = _checks.parameter(loss, like, cosine_margin=cosine_margin)
    known = (ids >= 0) & (ids < w.shape[0])
    ids, x = jnp.where(known, ids, 0), jnp.where(known[..., None], x, 0)
    own = _moved_cosine(x, jnp.take(w, ids, axis=0, mode="clip"), m1, m2) - m3
    cosines = _pairs.cosines(stable.unit(x), stable.unit(w))
    at = lax.broadcasted_iota(ids.dtype, cosines.shape, ids.ndim)
    cosines = jnp.where(at == ids[..., None], own[..., None], cosines)
    scaled = jnp.broadcast_to(s, ids.shape)[..., None] * cosines
    # Chosen, so that the NaN that is the gradient of a row of NaN goes no further.
    scaled = jnp.where(known[..., None], scaled, 0)
    return scaled + xla.nan_unless(known, like)[..., None]


# An infinite logit stays infinite at any temperature.  The derivative of the quotient
# is infinite there, and times the derivative 0 of the probability it would be NaN.
@stable.slopes(
    lambda x, t: stable.safe_divide(jnp.ones_like(t), t),
    lambda x, t: _divided_dt(jnp.where(jnp.isinf(x), 0, x), t),
)
def _divided(x: jax.Array, t: jax.Array) -> jax.Array:
    return x / t


def _divided_dt(x: jax.Array, t: jax.Array) -> jax.Array:
    t = jnp.broadcast_to(t, x.shape)
    return -stable.safe_divide(stable.safe_divide(x, t), t)


@stable.slopes(
    lambda prior, tau: stable.safe_divide(tau, prior),
    lambda prior, tau: jnp.log(jnp.where(prior == 0, 1, prior)),
)
def _log_power(prior: jax.Array, tau: jax.Array) -> jax.Array:
    """`tau log prior`, and 0 where tau is 0."""
    return tau * jnp.log(jnp.where(tau == 0, 1, prior))


def _moved_cosine(
    a: jax.Array, b: jax.Array, factor: jax.Array, margin: jax.Array
) -> jax.Array:
    """`cos(factor angle + margin)`, which falls on from -1 at pi to -3 at 2 pi.

    By the theorem of addition: without a margin it is the cosine itself, which has a
    second derivative where the angle has none.
    """
    cosine, angle = stable.cosine_similarity(a, b), stable.angle(a, b)
    turn = (factor - 1) * angle + margin
    moved = cosine * jnp.cos(turn) - jnp.sin(angle) * jnp.sin(turn)
    turns = lax.stop_gradient(factor * angle + margin) / math.pi
    # Between 0 and pi it is 0, ends included: an angle that is pi, as rounded, is not
    # beyond it.
    turns = jnp.where(turns > 0, jnp.ceil(turns) - 1, jnp.floor(turns))
    return jnp.where(turns % 2 == 0, moved, -moved) - 2 * turns
