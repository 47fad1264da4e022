"""Losses of pairs and triplets of embeddings, and of their distances."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, _whole_batch, stable
from jaxloss.stable import xla


@_jit.kernel(margin="[0, inf)")
def contrastive(
    distances: ArrayLike,
    similar: ArrayLike,
    *,
    margin: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Contrastive loss: similar pairs near, others at least a margin apart.

    Also called: contrastive loss, Siamese loss, ContrastiveLoss, pair loss.

    .. math:: \ell = y\,d^2 + (1 - y) \max(0,\; m - d)^2

    Args:
      distances: Floating array of any shape; the distance d >= 0 of each pair, such as
        `stable.norm(first - second)`.
      similar: Array of the same shape, boolean, integer or floating in [0, 1]; y = 1
        pulls a pair together.  Some texts label similar pairs 0: pass `1 - y` for them.
      margin: Distance m >= 0 beyond which a dissimilar pair costs nothing.

    Returns:
      Per-pair losses >= 0 of the same shape, in units of distance squared.

    Raises:
      TypeError: If `distances` is not floating, or `similar` or `margin` not real.
      ValueError: If the shapes differ, or `margin` is a Python number < 0.

    Gradient:
      `2 y d - 2 (1 - y) max(0, m - d)` with respect to `distances`: 0 for a dissimilar
      pair beyond the margin.  Convex in d, once continuously differentiable.

    Use:
      task: embedding
      activation: none (distances)
      range: [0, inf)
      robust: no
      convex: yes
      when: Pairs are labelled similar or not, and distances should have the same
        meaning everywhere.
      not when: Only comparisons are known, such as this one is nearer than that one:
        use `triplet`.

    Reference:
      Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping",
      CVPR 2006 (with a factor of 1/2, and y = 0 for similar pairs).

    Example:
      >>> jaxloss.contrastive(jnp.array([0.5, 0.25]), jnp.array([True, False]))
      Array([0.25  , 0.5625], dtype=float32)
    """
    name = "contrastive"
    (distances,) = _checks.floating(name, distances=distances)
    (similar,) = _checks.real(name, distances, similar=similar)
    _checks.same_shape(name, distances=distances, similar=similar)
    margin = _checks.parameter(name, distances, margin=margin)
    return _contrastive(distances, similar, margin)


@_jit.kernel(margin="[0, inf)")
def triplet(
    positive_distances: ArrayLike,
    negative_distances: ArrayLike,
    *,
    margin: float | jax.Array = 1.0,
) -> jax.Array:
    r"""Triplet loss of given distances: the positive nearer by a margin.

    Also called: triplet loss, TripletMarginWithDistanceLoss.

    .. math:: \ell = \max(0,\; d_p - d_n + m)

    Distances may be of any kind; `triplet_margin` takes embeddings.

    Args:
      positive_distances: Floating array of any shape; from each anchor to its positive.
      negative_distances: Floating array of the same shape; from each anchor to its
        negative.
      margin: Required gap m >= 0, in the units of the distances.

    Returns:
      Per-triplet losses >= 0 of the same shape, in the units of the distances.

    Raises:
      TypeError: If an argument is not floating, or `margin` not a number.
      ValueError: If the shapes differ, or `margin` is a Python number < 0.

    Gradient:
      Where the loss is positive, +1 with respect to `positive_distances` and -1 with
      respect to `negative_distances`; elsewhere 0.  Convex.

    Use:
      task: embedding
      activation: none (distances)
      range: [0, inf)
      robust: yes
      convex: yes
      when: You have distances of any kind, and their order is what matters.
      not when: You have embeddings: use `triplet_margin`, which is accurate if the
        negative is near the positive.

    Reference:
      Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and
      Clustering", CVPR 2015 (on squared distances).

    Example:
      >>> jaxloss.triplet(jnp.array([0.5, 0.5]), jnp.array([1.0, 2.0]))
      Array([0.5, 0. ], dtype=float32)
    """
    name = "triplet"
    near, far = _checks.floating(
        name,
        positive_distances=positive_distances,
        negative_distances=negative_distances,
    )
    _checks.same_shape(name, positive_distances=near, negative_distances=far)
    margin = _checks.parameter(name, near, margin=margin)
    return jax.nn.relu(_violation(near, far, margin))


@_jit.kernel("axis", "squared", margin="[0, inf)")
def triplet_margin(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    *,
    axis: int = -1,
    margin: float | jax.Array = 1.0,
    squared: bool = False,
) -> jax.Array:
    r"""Triplet loss: anchors nearer positives than negatives, by a margin.

    Also called: triplet loss, TripletMarginLoss, FaceNet loss.

    .. math::
       \ell = \max(0,\; \|a - p\|_2 - \|a - n\|_2 + m), \qquad
       \text{squared: } \max(0,\; \|a - p\|_2^2 - \|a - n\|_2^2 + m)

    Args:
      anchors: Floating array of embeddings a along `axis`.
      positives: Same shape; p, which should end up near `anchors`.
      negatives: Same shape; n, which should end up far from `anchors`.
      axis: The axis of the components.
      margin: Required gap m >= 0, in the units of the distance or of its square.
      squared: Whether to compare squared distances.

    Returns:
      Per-triplet losses >= 0 of the shape of `anchors` without `axis`, in the units of
      the distance, or of its square.  They are accurate even if the negative is near
      the positive.

    Raises:
      TypeError: If an argument is not floating, or `margin` not a number.
      ValueError: If the shapes differ or have no `axis`, or `margin` is a Python
        number < 0.

    Gradient:
      Where the loss is positive: `u(a-p) - u(a-n)` with respect to `anchors`, `-u(a-p)`
      with respect to `positives`, `u(a-n)` with respect to `negatives`.  Here
      `u(v) = v / |v|` and `u(0) = 0`, so a collapsed batch has the loss m and gradient
      0, not NaN.  If `squared`: `2 (n - p)`, `2 (p - a)`, `2 (a - n)`, and convex in
      the anchors; otherwise not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for not squared
      convex: for squared
      when: Triplets are given: an anchor, a similar example and a dissimilar one.
      not when: A labelled batch is given, and the hard triplets must be found in it:
        use `batch_hard_triplet`.

    Reference:
      Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and
      Clustering", CVPR 2015 (squared); Balntas et al., "Learning Local Feature
      Descriptors with Triplets and Shallow Convolutional Neural Networks", BMVC 2016.

    Example:
      >>> a, p, n = jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.array([[0.0, 2.0]])
      >>> jaxloss.triplet_margin(a, p, n)
      Array([0.41421354], dtype=float32)
    """
    name = "triplet_margin"
    anchors, positives, negatives = _checks.floating(
        name, anchors=anchors, positives=positives, negatives=negatives
    )
    _checks.same_shape(name, anchors=anchors, positives=positives, negatives=negatives)
    axis = _checks.row_axis(name, axis, "component", anchors=anchors)
    a, p, n = (jnp.moveaxis(x, axis, -1) for x in (anchors, positives, negatives))
    gap = _gap_of(a, p, n, squared)
    margin = _checks.parameter(name, gap, margin=margin)
    return jax.nn.relu(gap + margin)


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel("squared", ids="labels", margin="[0, inf)")
def batch_hard_triplet(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float | jax.Array = 1.0,
    squared: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Triplet loss of the hardest positive and negative of each anchor.

    Also called: BatchHardTripletLoss, TripletHardLoss, triplet loss with hard mining.

    .. math::
       \ell_i = \max\left(0,\; \max_{j \in P_i} \|x_i - x_j\|_2 -
       \min_{k \in N_i} \|x_i - x_k\|_2 + m\right)

    The positives P of an anchor are the other rows with its label; its negatives N are
    all rows with another label.  The loss is the `triplet_margin` of each anchor with
    its farthest positive and its nearest negative; `pair_masks` helps to choose others.

    Args:
      embeddings: Floating array `(..., batch, components)`; all rows of a batch are
        compared with each other.
      labels: Integer group ids `(..., batch)`; they are only compared with each other,
        so any integers are valid.
      margin: Required gap m >= 0, in the units of the distance or of its square; one
        for all, or one for each anchor.
      squared: Whether to compare squared distances.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`, in the units of the distance, or of its
      square; 0 for an anchor that is masked or has no positive or no negative.  They
      are as accurate as `triplet_margin`.  The hardest rows are chosen by one matmul,
      with rounding errors: if R is the distance of the rows from their mean, a negative
      at the distance d may be chosen although another one is nearer by a few eps of R^2
      / d.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or `margin` not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `margin` is a Python number < 0; or if `train.value_and_grad` has split the
        batch, because this loss compares its examples.

    Gradient:
      Where the loss is positive, that of `triplet_margin` with respect to the anchor
      and the two chosen rows; of equally hard rows, one is chosen.  0 where rows
      coincide: a collapsed batch has the loss m and gradient 0.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for not squared
      convex: no
      when: A labelled batch has several rows of each group, as in re-identification.
      not when: Some labels are wrong, so that the hardest pairs are wrong ones: use
        `supervised_contrastive`, which uses all pairs.

    Reference:
      Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification",
      2017.

    Example:
      >>> x = jnp.array([[0.0], [1.0], [3.0], [1.5]])
      >>> jaxloss.batch_hard_triplet(x, jnp.array([0, 0, 0, 1]))
      Array([2.5, 2.5, 2.5, 0. ], dtype=float32)
    """
    name = "batch_hard_triplet"
    x, ids, valid = _pairs.batch(name, embeddings, labels, where)
    like = jnp.zeros(ids.shape, x.dtype)
    margin = _checks.parameter(name, like, margin=margin)
    if like.size == 0:
        return like
    positive, negative = _pairs.groups(ids, valid)
    has_both = jnp.any(positive, axis=-1) & jnp.any(negative, axis=-1)
    hardest = _hardest(x, valid, positive, negative)
    # Without a triplet the anchor stands for both, or their gap could overflow.
    p, n = (jnp.where(has_both[..., None], y, x) for y in hardest)
    losses = jax.nn.relu(_gap_of(x, p, n, squared) + margin)
    return jnp.where(has_both, losses, 0)


@_jit.kernel("axis", margin="[-1, 1]")
def cosine_embedding(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    margin: float | jax.Array = 0.0,
) -> jax.Array:
    r"""Cosine embedding loss: similar pairs aligned, others below a cosine.

    Also called: CosineEmbeddingLoss, cosine embedding loss.

    .. math::
       \ell = \begin{cases} 1 - \cos(a, b) & y = +1 \\
                            \max(0,\; \cos(a, b) - m) & y = -1 \end{cases}

    Args:
      first: Floating array of embeddings a along `axis`.
      second: Same shape; the other embedding b of each pair.
      labels: Signed integers or floating, of the shape of `first` without `axis`; +1
        for similar pairs and -1 for others.  Any other label gives NaN.
      axis: The axis of the components.
      margin: Cosine m in [-1, 1] below which a dissimilar pair costs nothing.

    Returns:
      Per-pair losses in [0, 2] of the shape of `first` without `axis`, without unit:
      exactly 0 for identical similar embeddings.  A zero vector has cosine 0.

    Raises:
      TypeError: If an embedding is not floating, `labels` are boolean or unsigned, or
        `margin` is not a number.
      ValueError: If the shapes differ or have no `axis`, or `margin` is a Python
        number outside [-1, 1].

    Gradient:
      With unit vectors u and v: `-(v - u cos) / |a|` with respect to `first` for
      similar pairs, minus that for dissimilar ones with a cosine above the margin, else
      0; 0 for a zero vector.  Not convex.  The loss does not depend on the lengths, but
      its gradient is larger for short vectors.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, 2]
      robust: yes
      convex: no
      when: Pairs are labelled similar or not, and only the direction of an embedding
        matters.
      not when: Dissimilar pairs can be taken from the batch: use `info_nce`, which has
        many for each positive.

    Reference:
      Bromley et al., "Signature Verification using a Siamese Time Delay Neural
      Network", NIPS 1993; in this form `torch.nn.CosineEmbeddingLoss`.

    Example:
      >>> a, b = jnp.array([[1.0, 0.0]] * 2), jnp.array([[1.0, 1.0]] * 2)
      >>> jaxloss.cosine_embedding(a, b, jnp.array([1, -1]))
      Array([0.2928932, 0.7071068], dtype=float32)
    """
    name = "cosine_embedding"
    first, second = _checks.floating(name, first=first, second=second)
    _checks.same_shape(name, first=first, second=second)
    axis = _checks.row_axis(name, axis, "component", first=first)
    a, b = (jnp.moveaxis(x, axis, -1) for x in (first, second))
    labels = _checks.signs(name, a, labels=labels)
    _checks.has_shape(name, a.shape[:-1], "one label per pair", labels=labels)
    margin = _checks.parameter(name, labels, margin=margin)
    similar = labels == 1
    # One of both before the margin, or XLA:GPU computes them in kernels of their own.
    found = jnp.where(
        similar, stable.cosine_distance(a, b), stable.cosine_similarity(a, b)
    )
    losses = jnp.where(similar, found, jax.nn.relu(found - margin))
    return losses + xla.nan_unless(jnp.abs(labels) == 1, losses)


# --- given distances -------------------------------------------------------------


def _pulled(d: jax.Array, y: jax.Array) -> jax.Array:
    """`y d`, and 0, not 0 * inf, for a dissimilar pair infinitely far apart."""
    return y * jnp.where((y == 0) & jnp.isinf(d), 0, d)


def _short(d: jax.Array, margin: jax.Array) -> jax.Array:
    """What is missing to the margin; of slope 0 where nothing is."""
    return jax.nn.relu(margin - d)


@stable.slopes(
    lambda d, y, m: 2 * (_pulled(d, y) - (1 - y) * _short(d, m)),
    lambda d, y, m: (d - _short(d, m)) * (d + _short(d, m)),
    lambda d, y, m: 2 * (1 - y) * _short(d, m),
)
def _contrastive(d: jax.Array, y: jax.Array, m: jax.Array) -> jax.Array:
    pulled = _pulled(d, y) * jnp.where(y == 0, 0, d)
    return pulled + (1 - y) * _short(d, m) * _short(d, m)


# --- differences of distances ----------------------------------------------------


@stable.slopes(
    lambda near, far, margin: jnp.ones_like(near),
    lambda near, far, margin: -jnp.ones_like(near),
    lambda near, far, margin: jnp.ones_like(near),
)
def _violation(near: jax.Array, far: jax.Array, margin: jax.Array) -> jax.Array:
    """`near - far + margin`, to which what the first rounding lost is added back."""
    gap, lost = stable.difference(near, far)
    return (gap + margin) + lost


def _gap_of(a: jax.Array, p: jax.Array, n: jax.Array, squared: bool) -> jax.Array:
    """How much farther the positives are than the negatives, along the last axis."""
    return jnp.sum(_squared_gap(a, p, n), axis=-1) if squared else _gap(a, p, n)


@stable.slopes(
    lambda a, p, n: 2 * (n - p),
    lambda a, p, n: 2 * (p - a),
    lambda a, p, n: 2 * (a - n),
)
def _squared_gap(a: jax.Array, p: jax.Array, n: jax.Array) -> jax.Array:
    """`(a - p)^2 - (a - n)^2`, which cancels less as a product."""
    return (n - p) * ((a - p) + (a - n))


@jax.custom_jvp
def _gap(a: jax.Array, p: jax.Array, n: jax.Array) -> jax.Array:
    """`|a - p| - |a - n|` along the last axis: difference of squares over sum.

    So a negative near the positive, the hard case, costs no digits.
    """
    middle = 0.5 * (a - p) + 0.5 * (a - n)
    return jnp.sum((n - p) * stable.safe_divide(middle, _mean_length(a, p, n)), axis=-1)


@_gap.defjvp
def _(primals, tangents):
    (a, p, n), (da, dp, dn) = primals, tangents
    to_p, to_n = stable.unit(a - p), stable.unit(a - n)
    moving = _gap_da(a, p, n) * da - to_p * dp + to_n * dn
    return _gap(a, p, n), jnp.sum(moving, axis=-1)


def _gap_da(a: jax.Array, p: jax.Array, n: jax.Array) -> jax.Array:
    """`u(a - p) - u(a - n)`, likewise not by that subtraction."""
    to_p, to_n = stable.unit(a - p), stable.unit(a - n)
    across = (n - p) - _gap(a, p, n)[..., None] * 0.5 * (to_p + to_n)
    turn = stable.safe_divide(across, _mean_length(a, p, n))
    # At a coinciding pair one direction is 0, and so is its derivative, as `unit` has
    # it.  The difference is exact there; the formula above would have another slope.
    both = _any(to_p != 0) & _any(to_n != 0)
    return jnp.where(both, turn, to_p - to_n)


def _any(mask: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.any(mask, axis=-1, keepdims=True), mask.shape)


def _mean_length(a: jax.Array, p: jax.Array, n: jax.Array) -> jax.Array:
    mean = 0.5 * stable.norm(a - p) + 0.5 * stable.norm(a - n)
    return jnp.broadcast_to(mean[..., None], a.shape)


# --- the hardest of a batch ------------------------------------------------------


def _hardest(
    x: jax.Array, valid: jax.Array, positive: jax.Array, negative: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The farthest positive and the nearest negative of each row, or any row."""
    rows = _centred(lax.stop_gradient(x), valid)
    pairwise = jnp.vectorize(stable.squared_distances, signature="(n,d),(m,d)->(n,m)")
    squares = pairwise(rows, rows)
    farthest = jnp.argmax(jnp.where(positive, squares, -1), axis=-1)
    nearest = jnp.argmin(jnp.where(negative, squares, jnp.inf), axis=-1)
    at = lambda index: jnp.take_along_axis(x, index[..., None], axis=-2)
    return at(farthest), at(nearest)


def _centred(x: jax.Array, valid: jax.Array) -> jax.Array:
    """The rows from their mean, in units of their largest entry: no square overflows.

    A row that is not finite stays so, and alone.
    """
    finite = jnp.where(jnp.isfinite(x), x, 0)
    size = jnp.max(jnp.abs(finite), axis=(-2, -1), keepdims=True, initial=0)
    scaled = lambda v: stable.safe_divide(v, jnp.broadcast_to(size, v.shape))
    count = jnp.maximum(jnp.sum(valid, axis=-1, dtype=x.dtype), 1)
    mean = jnp.sum(scaled(finite), axis=-2) / count[..., None]
    return scaled(x) - mean[..., None, :]
