"""Losses of a labelled batch that weight its pairs by how hard they are.

Two are functions of the matrix of cosines, as those of `in_batch`; the third is one of
the matrix of distances.  No array in memory has two batch axes and a component axis.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, _whole_batch, stable
from jaxloss.stable import xla


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel(ids="labels", alpha="(0, inf)", beta="(0, inf)", base="(-inf, inf)")
def multi_similarity(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float | jax.Array = 2.0,
    beta: float | jax.Array = 50.0,
    base: float | jax.Array = 0.5,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Multi-similarity loss: pairs weighted by all others of the anchor.

    Also called: MultiSimilarityLoss, MS loss, multi-similarity weighting.

    .. math::
       \ell_i = \frac{1}{\alpha} \log\Bigl(1 + \sum_{j \in P_i}
       e^{-\alpha (s_{ij} - \lambda)}\Bigr) + \frac{1}{\beta} \log\Bigl(1 +
       \sum_{k \in N_i} e^{\beta (s_{ik} - \lambda)}\Bigr),
       \qquad s_{ij} = \cos(x_i, x_j)

    The positives P of an anchor are the other rows with its label; its negatives N are
    all rows with another label.  The published method first leaves out easy pairs, by
    comparison with the hardest pair of the other kind.

    Args:
      embeddings: Floating array `(..., batch, components)`, normalised or not; all rows
        of a batch are compared with each other.
      labels: Integer group ids `(..., batch)`; they are only compared with each other,
        so any integers are valid.
      alpha: Scale alpha > 0 of the positives; one for all, or one for each anchor.
      beta: Scale beta > 0 of the negatives; likewise.
      base: Cosine lambda at which a single pair has half of its weight; likewise.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`.  The term of the positives is 0 for an
      anchor without them, and that of the negatives likewise; a masked anchor has the
      loss 0.  The rounding error is that of a cosine, a few eps, whatever the scales.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or a hyperparameter not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `alpha` or `beta` is a Python number <= 0; or if `train.value_and_grad` has
        split the batch, because this loss compares its examples.

    Gradient:
      `-e_j / (1 + sum e)` with respect to the cosine of a positive, where `e_j` are the
      exponentials in the sum of the positives, and `e_k / (1 + sum e)` for a negative,
      with those of the negatives.  With respect to an embedding, the gradient is
      orthogonal to it and inversely proportional to its length; it is 0 for a zero
      vector, whose cosines are 0.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: Labels are classes with several rows in a batch, and retrieval counts.
      not when: One temperature should do for all pairs: use `supervised_contrastive`.

    Reference:
      Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric
      Learning", CVPR 2019 (eq. 15).

    Example:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
      >>> jaxloss.multi_similarity(x, jnp.array([0, 0, 1, 1]))
      Array([0.15663084, 0.15663084, 0.15663084, 0.15663084], dtype=float32)
    """
    name = "multi_similarity"
    x, labels, valid = _pairs.batch(name, embeddings, labels, where)
    like = jnp.zeros(labels.shape, x.dtype)
    alpha = _checks.parameter(name, like, alpha=alpha)
    beta = _checks.parameter(name, like, beta=beta)
    base = _checks.parameter(name, like, base=base)
    if like.size == 0:
        return like
    u = stable.unit(x)
    above = _pairs.cosines(u, u) - _of_anchor(base, like)
    positive, negative = _pairs.groups(labels, valid)
    pull = _log_total(-_of_anchor(alpha, like) * above, positive)
    push = _log_total(_of_anchor(beta, like) * above, negative)
    return stable.softplus(pull) / alpha + stable.softplus(push) / beta


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel(ids="labels", gamma="(0, inf)", margin="(-inf, inf)")
def circle(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float | jax.Array = 80.0,
    margin: float | jax.Array = 0.4,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Circle loss: each cosine pulled by how far it is from its optimum.

    Also called: CircleLoss, circle loss.

    .. math::
       \ell_i = \log\Bigl(1 + \sum_{j \in P_i} e^{-\gamma\, [1 + m - s_{ij}]_+
       (s_{ij} - 1 + m)} \sum_{k \in N_i} e^{\gamma\, [s_{ik} + m]_+ (s_{ik} - m)}
       \Bigr), \qquad s_{ij} = \cos(x_i, x_j)

    The positives P of an anchor are the other rows with its label; its negatives N are
    all rows with another label.  The weights, in brackets, are constants in the
    gradient, as published.

    Args:
      embeddings: Floating array `(..., batch, components)`, normalised or not; all rows
        of a batch are compared with each other.
      labels: Integer group ids `(..., batch)`; they are only compared with each other,
        so any integers are valid.
      gamma: Scale gamma > 0, published as 80 for retrieval and 256 for faces; one for
        all, or one for each anchor.
      margin: Relaxation m: positives are drawn to cosines above `1 - m`, negatives to
        those below m.  Published as 0.4 for retrieval and 0.25 for faces; likewise.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`, in nats; 0 for an anchor that is masked or
      has no positive or no negative.  The rounding error of an exponent is that of its
      cosine, a few eps, times gamma.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or a hyperparameter not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `gamma` is a Python number <= 0; or if `train.value_and_grad` has split the
        batch, because this loss compares its examples.

    Gradient:
      With p the softmax of the exponents of the positives, q that of the negatives, and
      `z = 1 - exp(-loss)`: `-gamma z p_j [1 + m - s_j]_+` with respect to the cosine of
      a positive and `gamma z q_k [s_k + m]_+` for a negative.  It is not the derivative
      of the value, in which the weights depend on the cosines.  With respect to `gamma`
      and `margin` it is.  With respect to an embedding, the gradient is orthogonal to
      it and inversely proportional to its length; it is 0 for a zero vector, whose
      cosines are 0.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: Positives should be near and negatives far, each at a pace of its own.
      not when: Exact derivatives are needed, as for a line search: use
        `multi_similarity`.

    Reference:
      Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization",
      CVPR 2020 (eq. 6 to 8).

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, 2.0]])
      >>> jaxloss.circle(x, jnp.array([0, 0, 1, 1]), gamma=8.0)
      Array([0.19302817, 1.5671487 , 0.8978956 , 0.8978956 ], dtype=float32)
    """
    name = "circle"
    x, labels, valid = _pairs.batch(name, embeddings, labels, where)
    like = jnp.zeros(labels.shape, x.dtype)
    gamma = _checks.parameter(name, like, gamma=gamma)
    margin = _checks.parameter(name, like, margin=margin)
    if like.size == 0:
        return like
    u = stable.unit(x)
    cosines, m = _pairs.cosines(u, u), _of_anchor(margin, like)
    # By differences from 1, which are exact for a cosine above 1/2.
    lacks, fixed = 1 - cosines, 1 - lax.stop_gradient(cosines)
    positive, negative = _pairs.groups(labels, valid)
    scale = _of_anchor(gamma, like)
    pull = _log_total(scale * jax.nn.relu(fixed + m) * (lacks - m), positive)
    weights = jax.nn.relu(lax.stop_gradient(cosines) + m)
    push = _log_total(scale * weights * (cosines - m), negative)
    return stable.softplus(pull + push)


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel("squared", ids="labels", margin="[0, inf)")
def semi_hard_triplet(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float | jax.Array = 1.0,
    squared: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Triplet loss of the nearest negative beyond each positive.

    Also called: TripletSemiHardLoss, BatchSemiHardTripletLoss, semi-hard mining,
    FaceNet mining.

    .. math::
       \ell_i = \frac{1}{|P_i|} \sum_{j \in P_i} \max(0,\; d_{ij} - d_{i n(j)} + m),
       \qquad d_{ij} = \|x_i - x_j\|_2

    The positives P of an anchor are the other rows with its label; its negatives N are
    all rows with another label.  The negative n(j) of a positive j is the nearest one
    that is farther from the anchor than j, or the farthest of all if none is.

    Args:
      embeddings: Floating array `(..., batch, components)`; all rows of a batch are
        compared with each other.
      labels: Integer group ids `(..., batch)`; they are only compared with each other,
        so any integers are valid.
      margin: Required gap m >= 0, in the units of the distance or of its square; one
        for all, or one for each anchor.
      squared: Whether to compare squared distances, as published.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`, in the units of the distance, or of its
      square; 0 for an anchor that is masked or has no positive or no negative.  Their
      `jaxloss.mean`, with the numbers of positives as weights, is the mean over all
      pairs that other libraries return.  Distances are those of differences of rows,
      not of a matmul, and accurate to a few units in the last place; a negative exactly
      as far as the positive is not farther.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or `margin` not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `margin` is a Python number < 0; or if `train.value_and_grad` has split the
        batch, because this loss compares its examples.

    Gradient:
      That of `triplet_margin` of each anchor, positive j and negative n(j), where it is
      positive, averaged over the positives; of equally far negatives, the first is
      chosen (the last, if none is farther than the positive).  0 where rows coincide: a
      collapsed batch has the loss m and gradient 0.  Not convex, and not continuous:
      the value jumps where another negative is chosen.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for not squared
      convex: no
      when: The hardest negatives of `batch_hard_triplet` collapse the embeddings, or
        are wrong labels.
      not when: All pairs of the batch should count: use `multi_similarity`.

    Reference:
      Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and
      Clustering", CVPR 2015 (section 3.2).

    Example:
      >>> x = jnp.array([[0.0], [1.0], [1.5], [0.5], [4.0]])
      >>> jaxloss.semi_hard_triplet(x, jnp.array([0, 0, 1, 1, 1]))
      Array([0.5 , 0.  , 1.25, 2.75, 0.5 ], dtype=float32)
    """
    name = "semi_hard_triplet"
    x, ids, valid = _pairs.batch(name, embeddings, labels, where)
    like = jnp.zeros(ids.shape, x.dtype)
    margin = _checks.parameter(name, like, margin=margin)
    if like.size == 0:
        return like
    masks = _pairs.groups(ids, valid)
    # Recomputed for the gradient, which would keep the differences otherwise.
    recomputed = jax.checkpoint(_distances, prevent_cse=False, static_argnums=1)
    distances = recomputed(x, squared)
    # Squares of near rows may vanish; which is nearer does not.
    ranks = lax.stop_gradient(_distances(x, False) if squared else distances)
    margin = jnp.broadcast_to(margin, like.shape)
    return _semi_hard(distances, margin, ranks, *masks)


# --- of cosines --------------------------------------------------------------------


def _of_anchor(value: jax.Array, like: jax.Array) -> jax.Array:
    """A hyperparameter of each anchor, beside its candidates."""
    return jnp.broadcast_to(value, like.shape)[..., None]


def _log_total(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The logsumexp of what a mask keeps of each row; -inf, with slope 0, of nothing.

    Accurate to a few eps of the largest score, which is how far that is rounded.
    """
    scores = xla.no_fma(scores)  # or a large one, less itself, is its rounding error
    fixed, lowest = lax.stop_gradient(scores), float(jnp.finfo(scores.dtype).min)
    largest = jnp.max(fixed, -1, keepdims=True, where=mask, initial=lowest)
    largest = jnp.where(largest == lowest, 0, largest)
    total = _pairs.log_total(jnp.where(mask, scores - largest, -jnp.inf))
    return total + largest[..., 0]


# --- of distances ------------------------------------------------------------------

# XLA computes the differences of all pairs inside of the sum over the components, if
# no other sum has the same ones: then no array has all of them.  A matmul is faster,
# but its distances are wrong by eps of the size of the rows: near rows would have no
# digits, and no direction to move in.


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _distances(x: jax.Array, squared: bool) -> jax.Array:
    """`|x_i - x_j|`, or its square; the derivative is 0 where it is."""
    scale = _scales(x)
    inverse = (1 / scale)[..., None]
    scaled = x[..., :, None, :] * inverse - x[..., None, :, :] * inverse
    total = jnp.sum(jnp.square(scaled), axis=-1)
    return scale * (scale * total) if squared else scale * jnp.sqrt(total)


@_distances.defjvp
def _(squared, primals, tangents):
    (x,), (dx,) = primals, tangents
    distances = _distances(x, squared)

    def along(rows: jax.Array, dx: jax.Array) -> jax.Array:
        slopes = 2 * rows if squared else _over(rows, distances)
        return jnp.sum(slopes * dx, axis=-1)

    # One sum for each end of a pair, which reverse mode transposes to one each.
    y = xla.cpu_barrier(x)  # or XLA:CPU writes what is repeated here and in the value
    first, second = y[..., :, None, :], y[..., None, :, :]
    to_first = along(first - second, dx[..., :, None, :])
    return distances, to_first + along(second - first, dx[..., None, :, :])


@jax.custom_jvp
def _over(rows: jax.Array, lengths: jax.Array) -> jax.Array:
    """`rows / lengths`, and 0 where the length is, by a product: XLA:CPU computes
    neither a quotient nor a choice inside of a sum.

    No square of a length is computed, which could overflow.
    """
    return rows * _inverse(lengths)


@_over.defjvp
def _(primals, tangents):
    (rows, lengths), (drows, dlengths) = primals, tangents
    turn = (_inverse(lengths)[..., 0] * dlengths)[..., None]
    return _over(rows, lengths), drows * _inverse(lengths) - _over(rows, lengths) * turn


def _inverse(lengths: jax.Array) -> jax.Array:
    zero = lengths == 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, lengths))[..., None]


def _scales(x: jax.Array) -> jax.Array:
    """A power of two for each pair of rows, about their largest entry: no square
    overflows, and none vanishes, unless the rows differ by less than 1e-18 of it."""
    most = 2.0 ** (jnp.finfo(x.dtype).maxexp - 3)
    size = jnp.max(jnp.abs(x), axis=-1)
    size = jnp.clip(xla.reduced(size, 0), 1 / most, most)
    return jnp.maximum(size[..., :, None], size[..., None, :])


# --- triplets ----------------------------------------------------------------------


@jax.custom_jvp
def _semi_hard(
    distances: jax.Array,
    margin: jax.Array,
    ranks: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
) -> jax.Array:
    """The mean over the positives of each row; `ranks` say which is farther."""
    return _mined(distances, margin, ranks, positive, negative)[0]


@_semi_hard.defjvp
def _(primals, tangents):
    # The derivative of sorting would look up each distance, and add up in reverse mode
    # by a scatter.  A second sort brings the few weights back into place instead.
    (distances, margin, *given), (moving, of_margin, *_) = primals, tangents
    fixed = map(lax.stop_gradient, (distances, margin))
    losses, weights = _mined(*fixed, *given)
    violated = jnp.sum(jax.nn.relu(weights), axis=-1)
    return losses, jnp.sum(weights * moving, axis=-1) + violated * of_margin


def _mined(
    distances: jax.Array,
    margin: jax.Array,
    ranks: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The losses, and their slopes in the distances: +1 and -1 of each triplet."""
    d, is_positive, is_negative, column = _from_near_to_far(
        distances, ranks, positive, negative
    )
    # What the next negative is, from each place on.
    last = d.ndim - 1
    beyond = lax.cummin(jnp.where(is_negative, d, jnp.inf), axis=last, reverse=True)
    farthest = jnp.max(d, -1, keepdims=True, where=is_negative, initial=0)
    gaps = d - jnp.where(beyond < jnp.inf, beyond, farthest) + margin[..., None]
    triplet = is_positive & jnp.any(is_negative, axis=-1, keepdims=True)
    violations = jax.nn.relu(jnp.where(triplet, gaps, 0))
    count = jnp.maximum(jnp.sum(is_positive, -1, keepdims=True, dtype=d.dtype), 1)
    pull = (violations > 0).astype(d.dtype)
    weights = (pull - _chosen(pull, is_negative)) / count
    _, weights = lax.sort((column, weights), num_keys=1)
    return jnp.sum(violations, axis=-1) / count[..., 0], weights


def _from_near_to_far(
    distances: jax.Array, ranks: jax.Array, positive: jax.Array, negative: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Distances of each row in the order of their ranks, the masks, and the columns.

    Of equal ranks negatives are first, so that those behind a positive are farther;
    the column decides the rest.
    """
    # One integer has both, and sorts faster than two keys: the bits of a number >= 0
    # are in its order, and the sign of a NaN is shifted out.
    uint = jnp.uint32 if ranks.dtype == jnp.float32 else jnp.uint64
    bits = lax.bitcast_convert_type(ranks, uint) << uint(1)
    none = uint(jnp.iinfo(uint).max)
    bits = jnp.minimum(bits, none - uint(3))  # a GPU's NaN has all of its bits set
    key = jnp.where(positive, bits | uint(1), jnp.where(negative, bits, none))
    column = lax.broadcasted_iota(jnp.int32, ranks.shape, ranks.ndim - 1)
    key, column, d = lax.sort((key, column, distances), num_keys=1)
    odd, is_candidate = (key & uint(1)) == uint(1), key != none
    return d, odd & is_candidate, ~odd & is_candidate, column


def _chosen(pull: jax.Array, is_negative: jax.Array) -> jax.Array:
    """How often each negative is chosen, in the same order: by the positives between
    the one before and itself, and the last one also by those behind it."""
    axis = pull.ndim - 1
    column = lax.broadcasted_iota(jnp.int32, pull.shape, axis)
    is_last = column == jnp.max(jnp.where(is_negative, column, -1), -1, keepdims=True)
    so_far = lax.cumsum(pull, axis=axis)
    until = jnp.where(is_last, so_far[..., -1:], so_far)
    up_to_it = lax.cummax(jnp.where(is_negative, until, 0), axis=axis)
    before = jnp.concatenate([0 * up_to_it[..., :1], up_to_it[..., :-1]], axis=-1)
    return jnp.where(is_negative, until - before, 0)
