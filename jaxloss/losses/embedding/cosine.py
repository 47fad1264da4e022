"""Losses of the angle between two vectors, whatever their lengths."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable


@_jit.kernel("axis")
def cosine_similarity(
    predictions: ArrayLike, targets: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""Cosine similarity: how nearly two vectors point the same way.

    Also called: cosine, cos_sim, CosineSimilarity.

    .. math:: \cos(p, t) = \frac{p \cdot t}{\|p\|_2\, \|t\|_2}

    Args:
      predictions: Floating array of vectors along `axis`, of any length.
      targets: Array of the same shape.
      axis: The axis along which a vector lies; it is consumed.

    Returns:
      One similarity in [-1, 1] for each pair of vectors, exactly 1 for identical ones
      and 0 where one is zero.  It is to be maximised: the loss is `cosine_distance`.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `axis` is not one of theirs.

    Gradient:
      `(u(t) - cos u(p)) / |p|` with respect to `predictions`, where `u(v) = v / |v|`:
      at right angles to p.  0 where either vector is zero.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [-1, 1]
      robust: yes
      convex: no
      when: Directions are to be compared or reported; larger is better.
      not when: It is to be minimised: `cosine_distance`, which keeps the digits of
        nearly parallel vectors.

    Reference:
      Salton et al., "A Vector Space Model for Automatic Indexing", CACM 18, 1975.

    Example:
      >>> p, t = jnp.array([[3.0, 4.0], [0, 0]]), jnp.array([[4.0, 3.0], [1, 0]])
      >>> jaxloss.cosine_similarity(p, t)
      Array([0.96, 0.  ], dtype=float32)
    """
    return stable.cosine_similarity(
        *_vectors("cosine_similarity", predictions, targets, axis)
    )


@_jit.kernel("axis")
def cosine_distance(
    predictions: ArrayLike, targets: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""Cosine distance: one minus the cosine of the angle of two vectors.

    Also called: cosine loss, negative cosine similarity, SimSiam loss, BYOL loss.

    .. math:: \ell = 1 - \frac{p \cdot t}{\|p\|_2\, \|t\|_2}

    Args:
      predictions: Floating array of vectors along `axis`, of any length.
      targets: Array of the same shape.
      axis: The axis along which a vector lies; it is consumed.

    Returns:
      One loss in [0, 2] for each pair of vectors, with full digits for nearly parallel
      ones, exactly 0 for identical ones and 1 where one is zero.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `axis` is not one of theirs.

    Gradient:
      `(cos u(p) - u(t)) / |p|` with respect to `predictions`, where `u(v) = v / |v|`.
      0 where either vector is zero.

    Use:
      task: embedding, regression
      activation: none (embeddings)
      range: [0, 2]
      robust: yes
      convex: no
      when: A direction is predicted, or an embedding is to match another whatever their
        lengths.
      not when: Nothing keeps all embeddings from becoming one: `info_nce`, which has
        negatives.

    Reference:
      Salton et al., "A Vector Space Model for Automatic Indexing", CACM 18, 1975.

    Example:
      >>> p, t = jnp.array([[3.0, 4.0], [0, 0]]), jnp.array([[3.0, 4.0], [1, 0]])
      >>> jaxloss.cosine_distance(p, t)
      Array([0., 1.], dtype=float32)
    """
    return stable.cosine_distance(
        *_vectors("cosine_distance", predictions, targets, axis)
    )


def _vectors(loss: str, predictions: ArrayLike, targets: ArrayLike, axis: int) -> tuple:
    """Both arguments, with the axis of the vectors last."""
    predictions, targets = _checks.floating(
        loss, predictions=predictions, targets=targets
    )
    _checks.same_shape(loss, predictions=predictions, targets=targets)
    axis = _checks.row_axis(loss, axis, "component", predictions=predictions)
    return jnp.moveaxis(predictions, axis, -1), jnp.moveaxis(targets, axis, -1)
