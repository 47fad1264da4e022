"""How evenly the embeddings of a batch are spread over the unit sphere.

Both losses push the examples of a batch apart, without labels.  Neither subtracts a
cosine from 1: distances are those of directions from their mean, so they keep their
digits where a collapsed encoder has put all directions next to each other.  No array
has two batch axes and a component axis.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, _whole_batch, stable
from jaxloss.stable import xla


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel(t="(0, inf)")
def uniformity(
    embeddings: ArrayLike,
    *,
    t: float | jax.Array = 2.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Uniformity on the sphere: log of the mean Gaussian potential of pairs.

    Also called: uniformity loss, uniform loss, lunif, hypersphere loss.

    .. math::
       \ell = \log \frac{1}{n (n - 1)} \sum_{i \ne j} e^{-t \|u_i - u_j\|_2^2},
       \qquad u_i = x_i / \|x_i\|_2

    The loss is least if the directions are spread evenly over the sphere.  It is one
    term of contrastive learning; the other one, alignment, is `2 * cosine_distance` of
    the two views of an example.

    Args:
      embeddings: Floating array `(..., batch, components)`, normalised or not; all rows
        of a batch are compared with each other.
      t: Sharpness t > 0 of the potential; one for all, or one for each batch.
      where: Boolean mask `(..., batch)`, default all true.  A masked row, such as
        padding, is in no pair.

    Returns:
      One number <= 0 for each batch, of shape `(...,)`: 0 if all directions are equal,
      or if there is no pair.  It is not a mean over examples, and so `train` needs
      `Mean.per_batch` of it.  If R is the largest distance of a direction from their
      mean, the error is a few eps of `t R^2`: also nearly equal directions, with a loss
      near 0, keep their digits.

    Raises:
      TypeError: If `embeddings` are not floating, `where` not boolean, or `t` not a
        number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or `t`
        is a Python number <= 0; or if `train.value_and_grad` has split the batch,
        because this loss compares its examples.

    Gradient:
      `-4 t sum_j p_ij (u_i - u_j)` with respect to the direction u_i, where p is the
      softmax of `-t |u_i - u_j|^2` over all ordered pairs.  With respect to an
      embedding, the gradient is orthogonal to it and inversely proportional to its
      length; it is 0 for a zero vector, whose u is 0, and where all directions are
      equal.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: (-inf, 0]
      robust: yes
      convex: no
      when: Another term aligns the views of an example, and nothing else keeps the
        embeddings from collapsing.
      not when: One loss should do both: use `info_nce`, or `nt_xent`.

    Reference:
      Wang and Isola, "Understanding Contrastive Representation Learning through
      Alignment and Uniformity on the Hypersphere", ICML 2020.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
      >>> jaxloss.uniformity(x)
      Array(-4.396349, dtype=float32)
    """
    name = "uniformity"
    x, valid = _pairs.examples(name, where, embeddings=embeddings)
    like = jnp.zeros(x.shape[:-2], x.dtype)
    t = _checks.parameter(name, like, t=t)
    u = stable.unit(x)
    return _log_mean_potential(
        u - _centre(u, valid), jnp.broadcast_to(t, like.shape), valid
    )


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel()
def koleo(embeddings: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    r"""KoLeo regulariser: minus the log distance to the nearest other example.

    Also called: KoLeo, KoLeoLoss, Kozachenko-Leonenko regulariser, differential entropy
    regulariser.

    .. math::
       \ell_i = -\log \min_{j \ne i} \|u_i - u_j\|_2, \qquad u_i = x_i / \|x_i\|_2

    The mean of the losses estimates minus the differential entropy of the directions,
    up to a factor and a constant.  DINOv2 adds it with a weight of 0.1 and computes it
    on each device by itself.

    Args:
      embeddings: Floating array `(..., batch, components)`, normalised or not; all rows
        of a batch are compared with each other.
      where: Boolean mask `(..., batch)`, default all true.  A masked row, such as
        padding, neither has a neighbour nor is one.

    Returns:
      Per-example losses >= `-log(2)` `(..., batch)`: inf for an example that has a
      duplicate (as two zero vectors are), 0 for one that is masked or alone.  The
      neighbour is found by one matmul, and its distance d recomputed from the
      difference of the two directions.  If R is the largest distance of a direction
      from their mean, another row may be taken that is farther by a few eps of
      `R^2 / d`.

    Raises:
      TypeError: If `embeddings` are not floating, or `where` not boolean.
      ValueError: If `embeddings` have fewer than two axes, or a shape does not fit; or
        if `train.value_and_grad` has split the batch, because this loss compares its
        examples.

    Gradient:
      `-(u_i - u_j) / d^2` with respect to the direction u_i, and its negative with
      respect to that of the neighbour j.  With respect to an embedding, the gradient is
      orthogonal to it and inversely proportional to its length.  It is large for near
      duplicates, and 0 for duplicates and for a zero vector, whose u is 0; of equally
      near rows, one is chosen.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [-log 2, inf]
      robust: no (a near duplicate has a gradient of 1 / d)
      convex: no
      when: The embeddings of a batch should be spread evenly, beside a loss that learns
        them, as in DINOv2.
      not when: Examples may be duplicates: use `uniformity`, which is bounded.

    Reference:
      Sablayrolles et al., "Spreading Vectors for Similarity Search", ICLR 2019; Oquab
      et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 1e-4], [-2.0, 0.0]])
      >>> jaxloss.koleo(x)
      Array([ 9.2103405,  9.2103405, -0.6931472], dtype=float32)
    """
    x, valid = _pairs.examples("koleo", where, embeddings=embeddings)
    if valid.size == 0:
        return jnp.zeros(valid.shape, x.dtype)
    u = stable.unit(x)
    _, others = _pairs.pairs(valid)
    neighbours = jnp.take_along_axis(u, _nearest(u, valid, others), axis=-2)
    has_one = jnp.any(others, axis=-1)
    distances = jnp.where(has_one, stable.norm(u - neighbours), 1)
    # The slope of this logarithm is 0 at 0: duplicates have no NaN.
    return -stable.log_probabilities(distances)


def _centre(u: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean of the rows, of equal rows exactly that row; no distance depends on it.

    A row that is not finite stays so, and alone.
    """
    kept = valid[..., None] & jnp.isfinite(u)
    rows = lax.stop_gradient(jnp.where(kept, u, -1))
    largest = jnp.max(rows, axis=-2, keepdims=True, initial=-1)
    below = jnp.sum(jnp.where(kept, rows - largest, 0), axis=-2, keepdims=True)
    count = jnp.sum(valid, axis=-1, dtype=u.dtype)[..., None, None]
    return largest + below / jnp.maximum(count, 1)


def _squared_distances(rows: jax.Array) -> jax.Array:
    """`|r_i - r_j|^2` of all pairs, up to a few eps of the largest `|r_i|^2`."""
    squares = jnp.sum(jnp.square(rows), axis=-1)
    both = squares[..., :, None] + squares[..., None, :]
    return both - 2 * _pairs.cosines(rows, rows)


# --- the potential of all pairs ------------------------------------------------------


@jax.custom_jvp
def _log_mean_potential(rows: jax.Array, t: jax.Array, valid: jax.Array) -> jax.Array:
    """`log mean exp(-t |r_i - r_j|^2)` over the pairs of different rows; 0 of none."""
    gaps, largest, others = _gaps(rows, t, valid)
    count = jnp.maximum(jnp.sum(others, axis=(-2, -1), dtype=rows.dtype), 1)
    mean = lambda terms: jnp.sum(_row_sums(terms, others), axis=-1) / count
    # If no pair is far apart, the mean is nearly 1, and only what is left of it counts.
    share, rest = mean(jnp.exp(gaps)), mean(stable.expm1(gaps))
    near = rest > -0.5
    log_share = jnp.log(jnp.where(near, 1, share))
    return largest + jnp.where(near, stable.log1p(jnp.where(near, rest, 0)), log_share)


@_log_mean_potential.defjvp
def _(primals, tangents):
    (rows, t, valid), (moving, sharper, _) = primals, tangents
    # Autodiff would multiply the symmetric matrix of shares twice with the rows.
    pull = _mean_difference(rows, t, valid)
    apart = jnp.sum(rows * pull, axis=(-2, -1))
    moved = jnp.sum(pull * moving, axis=(-2, -1))
    value = _log_mean_potential(rows, t, valid)
    return value, -4 * t * moved - 2 * sharper * apart


def _mean_difference(rows: jax.Array, t: jax.Array, valid: jax.Array) -> jax.Array:
    """`sum_j p_ij (r_i - r_j)`, with the share p of a pair in the sum of all."""
    gaps, _, others = _gaps(rows, t, valid)
    # The same sums as for the value.  Where XLA knew that the product of matrices has
    # the same exponentials, it would read them for the sums, too, not the gaps alone.
    sums = _row_sums(jnp.exp(gaps), others)[..., None]
    total = jnp.sum(sums, axis=-2, keepdims=True)
    potentials = jnp.exp(xla.hidden(gaps))
    across = jnp.matmul(potentials, rows, precision=lax.Precision.HIGHEST)
    return (sums * rows - across) / jnp.where(total == 0, 1, total)


def _row_sums(terms: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(others, terms, 0), axis=-1)


def _gaps(
    rows: jax.Array, t: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`-t |r_i - r_j|^2` minus the largest, -inf where there is no pair; the largest,
    or 0; and what is a pair."""
    _, others = _pairs.pairs(valid)
    scores = -t[..., None, None] * _squared_distances(rows)
    scores = jnp.where(others, scores, -jnp.inf)
    largest = jnp.max(scores, axis=(-2, -1), initial=-jnp.inf)
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    return scores - largest[..., None, None], largest, others


# --- the nearest of a row ------------------------------------------------------------


def _nearest(u: jax.Array, valid: jax.Array, others: jax.Array) -> jax.Array:
    """The index of the nearest other row, or any index, in an axis of its own."""
    rows = lax.stop_gradient(u) - _centre(u, valid)
    squares = jnp.where(others, _squared_distances(rows), jnp.inf)
    return jnp.argmin(squares, axis=-1, keepdims=True)
