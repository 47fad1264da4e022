"""Losses of the angle between two vectors, independent of their lengths."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable


@_jit.kernel("axis")
def cosine_similarity(
    predictions: ArrayLike, targets: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""Cosine similarity: cosine of the angle between two vectors.

    Also called: cosine, cos_sim, CosineSimilarity.

    .. math:: \cos(p, t) = \frac{p \cdot t}{\|p\|_2\, \|t\|_2}

    Args:
      predictions: Floating array of vectors along `axis`, of any length.
      targets: Array of the same shape.
      axis: The axis of the components of a vector; the result does not have it.

    Returns:
      One similarity in [-1, 1] for each pair of vectors, exactly 1 for identical ones
      and 0 where one is zero.  Larger is better; the loss to minimise is
      `cosine_distance`.

    Raises:
      TypeError: If `predictions` or `targets` is not floating.
      ValueError: If the shapes differ, or `axis` is not one of theirs.

    Gradient:
      `(u(t) - cos u(p)) / |p|` with respect to `predictions`, where `u(v) = v / |v|`.
      It is orthogonal to p, and 0 where either vector is zero.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [-1, 1]
      robust: yes
      convex: no
      when: Directions are compared or reported; larger is better.
      not when: It should be minimised: use `cosine_distance`, which is accurate for
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
      axis: The axis of the components of a vector; the result does not have it.

    Returns:
      One loss in [0, 2] for each pair of vectors: accurate for nearly parallel ones,
      exactly 0 for identical ones, and 1 where one is zero.

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
      when: A direction is predicted, or an embedding should match another one
        independently of their lengths.
      not when: Nothing prevents all embeddings from becoming equal: use `info_nce`,
        which has negatives.

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
