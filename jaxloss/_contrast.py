"""Anchors against candidates, for the losses of a whole batch and of a cut one.

Everything follows from one matrix, the similarity of each anchor to each candidate,
made by one matmul, and from masks of its shape.  No array has two batch axes and
components too.
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
    if x.ndim < 2:
        _checks.fail(
            loss, "embeddings", f"shape {x.shape}", "shape (..., batch, components)"
        )
    ids = _checks.class_ids(loss, labels=labels)
    _checks.has_shape(loss, x.shape[:-1], "one id per embedding", labels=ids)
    if where is None:
        return x, ids, jnp.ones(ids.shape, bool)
    (valid,) = _checks.boolean(loss, where=where)
    _checks.same_shape(loss, labels=ids, where=valid)
    return jnp.where(valid[..., None], x, 0), ids, valid


def pairs(labels: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Who is a positive and who a negative of whom, anchors by candidates."""
    both = valid[..., :, None] & valid[..., None, :]
    same = labels[..., :, None] == labels[..., None, :]
    itself = jnp.broadcast_to(jnp.eye(labels.shape[-1], dtype=bool), same.shape)
    return both & same & ~itself, both & ~same


def per_anchor(
    anchors: jax.Array,
    candidates: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """NT-Xent of unit vectors: the mean over the positives of each anchor."""
    cosines = _centred(_products(anchors, candidates), negative)
    like = anchors[..., 0]
    scores = cosines / jnp.broadcast_to(temperature, like.shape)[..., None]
    # Without negatives this is -inf, the softplus 0, and so are its derivatives.
    rivals = stable.logsumexp(scores, where=negative)[..., None]
    losses = stable.softplus(jnp.where(positive, rivals - scores, -jnp.inf))
    return jnp.sum(losses, axis=-1) / _count(positive, like)


def _products(first: jax.Array, second: jax.Array) -> jax.Array:
    """The dot product of each row of the first with each row of the second.

    At full precision: by default a GPU keeps 10 bits of each factor and a TPU 8, and a
    temperature of 0.01 multiplies that error by 100.
    """
    precision = lax.Precision.HIGHEST
    return jnp.matmul(first, jnp.swapaxes(second, -1, -2), precision=precision)


def _centred(cosines: jax.Array, mask: jax.Array) -> jax.Array:
    """The cosines less the largest of each row that the mask keeps, or less -1.

    Only differences within a row count, and those of nearly equal embeddings would be
    lost in scores near 1 / temperature.
    """
    fixed = lax.stop_gradient(cosines)
    return cosines - jnp.max(fixed, -1, keepdims=True, where=mask, initial=-1)


def _count(mask: jax.Array, like: jax.Array) -> jax.Array:
    """How many candidates a mask keeps for each anchor, but at least 1."""
    return jnp.maximum(jnp.sum(mask, axis=-1, dtype=like.dtype), 1)
