"""Anchors and candidates, for the losses of a whole batch and of a sharded one.

All losses are functions of one matrix, the similarity of each anchor to each candidate,
which comes from one matmul, and of masks of its shape.  No array has two batch axes and
a component axis.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, stable


def batch(
    loss: str, embeddings: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Embeddings, zero where masked; group ids; and the mask: checked."""
    (x,) = _checks.floating(loss, embeddings=embeddings)
    _has_components(loss, embeddings=x)
    ids = _checks.class_ids(loss, labels=labels)
    _checks.has_shape(loss, x.shape[:-1], "one id per embedding", labels=ids)
    if where is None:
        return x, ids, jnp.ones(ids.shape, bool)
    (valid,) = _checks.boolean(loss, where=where)
    _checks.same_shape(loss, labels=ids, where=valid)
    return jnp.where(valid[..., None], x, 0), ids, valid


def examples(
    loss: str, where: ArrayLike | None, **embeddings: ArrayLike
) -> tuple[jax.Array, ...]:
    """One or two embeddings of each, zero where masked; and the mask: checked."""
    arrays = _checks.floating(loss, **embeddings)
    _checks.same_shape(loss, **dict(zip(embeddings, arrays, strict=True)))
    _has_components(loss, **{next(iter(embeddings)): arrays[0]})
    shape = arrays[0].shape[:-1]
    if where is None:
        return *arrays, jnp.ones(shape, bool)
    (valid,) = _checks.boolean(loss, where=where)
    why = "one entry per pair" if len(arrays) > 1 else "one entry per embedding"
    _checks.has_shape(loss, shape, why, where=valid)
    return *(jnp.where(valid[..., None], v, 0) for v in arrays), valid


def _has_components(loss: str, **embeddings: jax.Array) -> None:
    ((name, x),) = embeddings.items()
    if x.ndim < 2:
        _checks.fail(loss, name, f"shape {x.shape}", "shape (..., batch, components)")
    _checks.row_axis(loss, -1, "component", **embeddings)


def directions(
    loss: str, normalize: bool, *embeddings: jax.Array
) -> tuple[jax.Array, ...]:
    """Unit vectors, whose inner products are cosines; or the embeddings as they are."""
    _checks.flag(loss, normalize=normalize)
    return tuple(map(stable.unit, embeddings)) if normalize else embeddings


def groups(labels: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Masks of the positives and of the negatives of each row, by group ids."""
    both = valid[..., :, None] & valid[..., None, :]
    same = labels[..., :, None] == labels[..., None, :]
    return both & same & ~diagonal(same.shape), both & ~same


def pairs(valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same for pairs: the other one of the pair, and all others."""
    both = valid[..., :, None] & valid[..., None, :]
    itself = diagonal(both.shape)
    return both & itself, both & ~itself


def diagonal(shape: tuple[int, ...], first: jax.Array | int = 0) -> jax.Array:
    """Which candidate is the anchor itself, if the anchors begin at the `first`."""
    rows, columns = len(shape) - 2, len(shape) - 1
    anchor = first + lax.broadcasted_iota(jnp.int32, shape, rows)
    return lax.broadcasted_iota(jnp.int32, shape, columns) == anchor


def cosines(first: jax.Array, second: jax.Array) -> jax.Array:
    """The inner product of each row of the first with each of the second: of unit
    vectors, the cosine.

    At full precision: by default a GPU keeps 10 bits of each factor and a TPU 8, and a
    temperature of 0.01 multiplies that error by 100.
    """
    precision = lax.Precision.HIGHEST
    return jnp.matmul(first, jnp.swapaxes(second, -1, -2), precision=precision)


def nt_xent(
    cosines: jax.Array, positive: jax.Array, negative: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Each positive against the negatives alone: the mean over those of an anchor."""
    scores = _scores(cosines, negative, temperature)
    # Without negatives this is -inf, the softplus 0, and so are its derivatives.
    rivals = log_total(jnp.where(negative, scores, -jnp.inf))[..., None]
    losses = stable.softplus(jnp.where(positive, rivals - scores, -jnp.inf))
    return jnp.sum(losses, axis=-1) / _count(positive, scores)


def info_nce(
    cosines: jax.Array, positive: jax.Array, negative: jax.Array, temperature: jax.Array
) -> jax.Array:
    """`nt_xent` of anchors with one positive at most: no softplus of a whole row."""
    scores = _scores(cosines, negative, temperature)
    rivals = log_total(jnp.where(negative, scores, -jnp.inf))
    own = jnp.sum(jnp.where(positive, scores, 0), axis=-1)
    return stable.softplus(jnp.where(jnp.any(positive, -1), rivals - own, -jnp.inf))


def supervised(
    cosines: jax.Array, positive: jax.Array, negative: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Each positive against all candidates: the mean over those of an anchor."""
    scores = _scores(cosines, positive | negative, temperature)
    log_p = stable.log_softmax(scores, where=positive | negative)
    losses = jnp.where(positive, -log_p, 0)
    return jnp.sum(losses, axis=-1) / _count(positive, scores)


def sigmoid(
    cosines: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    temperature: jax.Array,
    bias: jax.Array,
) -> jax.Array:
    """Whether each candidate is a positive: the sum over those of an anchor."""
    of_anchor = lambda x: jnp.broadcast_to(x, cosines.shape[:-1])[..., None]
    scores = cosines / of_anchor(temperature) + of_anchor(bias)
    wrong = jnp.where(positive, -scores, jnp.where(negative, scores, -jnp.inf))
    return jnp.sum(stable.softplus(wrong), axis=-1)


@jax.custom_jvp
def log_total(scores: jax.Array) -> jax.Array:
    """The logsumexp of rows whose largest entry is 0, or that are -inf throughout.

    Accurate to a few eps, not to a few units in the last place, because only a
    difference from it matters.  So it needs one exponential, where `stable.logsumexp`
    needs a dozen operations.
    """
    return jnp.log(jnp.sum(jnp.exp(scores), axis=-1))


@log_total.defjvp
def _(primals, tangents):
    (scores,), (moving,) = primals, tangents
    total = log_total(scores)
    shift = jnp.where(total == -jnp.inf, 0, total)[..., None]
    return total, jnp.sum(jnp.exp(scores - shift) * moving, axis=-1)


def _scores(cosines: jax.Array, mask: jax.Array, temperature: jax.Array) -> jax.Array:
    """The cosines minus the largest of each row that the mask keeps, or minus 0.

    Only differences within a row count, and those of nearly equal embeddings would be
    lost in scores near 1 / temperature.
    """
    fixed, lowest = lax.stop_gradient(cosines), float(jnp.finfo(cosines.dtype).min)
    largest = jnp.max(fixed, -1, keepdims=True, where=mask, initial=lowest)
    # Inner products have no least value, so where nothing is kept this is the lowest
    # number, less which a score would be infinite.
    centred = cosines - jnp.where(largest == lowest, 0, largest)
    return centred / jnp.broadcast_to(temperature, cosines.shape[:-1])[..., None]


def _count(mask: jax.Array, like: jax.Array) -> jax.Array:
    """How many candidates a mask keeps for each anchor, but at least 1."""
    return jnp.maximum(jnp.sum(mask, axis=-1, dtype=like.dtype), 1)
