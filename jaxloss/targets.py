"""Transforms of targets, to be applied before a loss: labels in, labels out.

With them, no loss needs an option for smoothing, mixing or mining.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, _whole_batch, stable
from jaxloss.stable import intervals, xla


@_jit.kernel("num_classes", ids="labels", smoothing="[0, 1]")
def smooth_labels(
    labels: ArrayLike,
    *,
    smoothing: float | jax.Array = 0.1,
    num_classes: int | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Mixes labels with the uniform distribution over the classes.

    .. math:: \tilde y_j = (1 - \varepsilon)\, y_j + \varepsilon / K

    The right class gets `1 - smoothing + smoothing / K`, and each of the other K - 1
    classes `smoothing / K`.  Fairseq and T5X distribute `smoothing` over the other
    classes only; to get theirs, pass `smoothing * K / (K - 1)`.

    Args:
      labels: Floating array `(..., K)`, a distribution along the last axis; or integer
        class ids `(...)` together with `num_classes`.
      smoothing: Share epsilon of the uniform distribution, in [0, 1]; a scalar or an
        array that broadcasts to the result.
      num_classes: K, for class ids.  `softmax_cross_entropy(label_smoothing=)` smooths
        ids without building this array.
      where: Boolean mask of the shape of the result.  A masked class gets 0; the
        uniform distribution is over the other classes, K of them.

    Returns:
      Distributions `(..., K)`, at least float32 (for ids, the default float of JAX),
      with the same sum as `labels`; a row of NaN where an id is not a class.

    Raises:
      TypeError: If `labels` or `where` has another dtype, `num_classes` is not a Python
        integer, or `labels` is integer without `num_classes`.
      ValueError: If distributions come with a `num_classes` other than K, `where` has
        another shape, or `smoothing` is a Python number outside [0, 1].

    Gradient:
      `1 - smoothing` with respect to `labels`, `1 / K - y` with respect to `smoothing`.
      Linear in both.

    Reference:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
      CVPR 2016.

    Example:
      >>> jaxloss.smooth_labels(jnp.array([1, 0]), num_classes=4, smoothing=0.2)
      Array([[0.05, 0.85, 0.05, 0.05],
             [0.85, 0.05, 0.05, 0.05]], dtype=float32)
    """
    loss = "smooth_labels"
    labels = _distributions(loss, labels, num_classes)
    smoothing = _checks.parameter(loss, labels, smoothing=smoothing)
    if where is None:
        return (1 - smoothing) * labels + smoothing / labels.shape[-1]
    (where,) = _checks.boolean(loss, where=where)
    _checks.same_shape(loss, labels=labels, where=where)
    size = jnp.sum(where, axis=-1, keepdims=True, dtype=labels.dtype)
    uniform = smoothing / jnp.maximum(size, 1)
    kept = jnp.where(where, labels, 0)
    return jnp.where(where, (1 - smoothing) * kept + uniform, 0)


@_jit.kernel(smoothing="[0, 1]")
def smooth_binary_labels(
    labels: ArrayLike, *, smoothing: float | jax.Array = 0.1
) -> jax.Array:
    r"""Moves binary labels towards 1/2.

    .. math:: \tilde y = (1 - \varepsilon)\, y + \varepsilon / 2

    A 1 becomes `1 - smoothing / 2` and a 0 becomes `smoothing / 2`, as `smooth_labels`
    does for two classes.

    Args:
      labels: Array of any shape, boolean, integer or floating, in [0, 1].
      smoothing: Weight epsilon of 1/2, in [0, 1]; a scalar or an array that broadcasts
        to the shape of `labels`.

    Returns:
      Labels of the same shape in [0, 1], at least float32 (for integers, the default
      float of JAX).

    Raises:
      TypeError: If `labels` is not real.
      ValueError: If `smoothing` is a Python number outside [0, 1].

    Gradient:
      `1 - smoothing` with respect to `labels`, `1/2 - y` with respect to `smoothing`.
      Linear in both.

    Reference:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
      CVPR 2016.

    Example:
      >>> jaxloss.smooth_binary_labels(jnp.array([0, 1]), smoothing=0.5)
      Array([0.25, 0.75], dtype=float32)
    """
    loss = "smooth_binary_labels"
    (labels,) = _checks.widened(loss, labels=labels)
    smoothing = _checks.parameter(loss, labels, smoothing=smoothing)
    return (1 - smoothing) * labels + 0.5 * smoothing


@_jit.kernel("num_classes", ids="labels")
def ordinal_levels(labels: ArrayLike, *, num_classes: int) -> jax.Array:
    r"""K - 1 binary labels of an ordered class: whether it is above class k.

    .. math:: l_k = 1[y > k], \qquad k = 0, \dots, K - 2

    The sum of their `sigmoid_cross_entropy` is `coral`; you can use any other binary
    loss, such as `sigmoid_focal` for rare classes.

    Args:
      labels: Integer class ids `(...)` in [0, K), in their order.
      num_classes: K.

    Returns:
      Levels `(..., K - 1)`, 0 or 1 in the default float of JAX; the first y of them are
      1.  A row of NaN where an id is not a class.

    Raises:
      TypeError: If `labels` is not integer, or `num_classes` not a Python integer.
      ValueError: If `num_classes` is less than 1.

    Reference:
      Li and Lin, "Ordinal Regression by Extended Binary Classification", NIPS 2006.

    Example:
      >>> jaxloss.ordinal_levels(jnp.array([0, 2]), num_classes=4)
      Array([[0., 0., 0.],
             [1., 1., 0.]], dtype=float32)
    """
    name = "ordinal_levels"
    ids = _checks.class_ids(name, labels=labels)[..., None]
    _checks.positive_integer(name, num_classes=num_classes)
    shape = (*ids.shape[:-1], num_classes - 1)
    levels = ids > lax.broadcasted_iota(ids.dtype, shape, len(shape) - 1)
    known = (ids >= 0) & (ids < num_classes)
    return jnp.where(known, levels.astype(_checks.default_float()), jnp.nan)


@_jit.kernel(increasing="support")
def two_hot(values: ArrayLike, *, support: ArrayLike) -> jax.Array:
    r"""Numbers as distributions over the two nearest of K fixed numbers.

    Also called: two-hot encoding, scalar to support, targets of distribution focal
    loss.

    .. math::
       p_k = \frac{s_{k+1} - y}{s_{k+1} - s_k}, \quad
       p_{k+1} = \frac{y - s_k}{s_{k+1} - s_k} \qquad \text{for } s_k \le y \le s_{k+1}

    With these labels, `softmax_cross_entropy` learns a number as a class, and the
    prediction is the expectation `sum(softmax(logits) * support)`.

    Args:
      values: Array `(...)` of real numbers.
      support: K increasing numbers `(K,)`, evenly spaced or not.

    Returns:
      Distributions `(..., K)`, at least float32, whose expectation is the value.
      Beyond the support all mass is at its end.  A row of NaN where a value is NaN.

    Raises:
      TypeError: If an argument is not real.
      ValueError: If `support` is not one-dimensional, is empty or, outside of `jit`,
        does not increase.

    Gradient:
      With respect to a value, `-1 / (s_{k+1} - s_k)` of the lower number and the
      opposite of the upper one; at a number of the support those of the interval above
      it.  0 at its last number and beyond the support.

    Reference:
      Schrittwieser et al., "Mastering Atari, Go, Chess and Shogi by Planning with a
      Learned Model", Nature 2020.

    Example:
      >>> jaxloss.two_hot(1.25, support=jnp.arange(4.0))
      Array([0.  , 0.75, 0.25, 0.  ], dtype=float32)
    """
    y, support = _values_and_bins("two_hot", values, support=support)
    if support.size == 0:
        _checks.fail("two_hot", "support", "no number", "at least one")
    lower = jnp.concatenate([support[..., :1], support[..., :-1]], axis=-1)
    upper = jnp.concatenate([support[..., 1:], support[..., -1:]], axis=-1)
    rising, falling = (lower <= y) & (y < support), (support <= y) & (y < upper)
    between = rising | falling
    neighbour = jnp.where(rising, lower, upper)
    own = jnp.broadcast_to(support, neighbour.shape)
    share = intervals.linear_share(jnp.where(between, y, own), neighbour, own)
    column = lax.broadcasted_iota(jnp.int32, share.shape, share.ndim - 1)
    end = jnp.where(y < support, column == 0, column == support.size - 1)
    share = jnp.where(between, share, (end & ~between).astype(share.dtype))
    return share + xla.nan_unless(~jnp.isnan(y), share)


@_jit.kernel(increasing="edges", scale="(0, inf)")
def hl_gauss(
    values: ArrayLike, *, edges: ArrayLike, scale: float | jax.Array
) -> jax.Array:
    r"""Numbers as distributions over K bins: the masses of a normal in them.

    Also called: HL-Gauss, histogram loss targets, Gaussian label smoothing of bins.

    .. math::
       p_k = \frac{\Phi((e_{k+1} - y) / \sigma) - \Phi((e_k - y) / \sigma)}
                  {\Phi((e_K - y) / \sigma) - \Phi((e_0 - y) / \sigma)}

    Like those of `two_hot`, the labels turn a regression into a classification, but
    near bins share the mass, so that the network learns their order.  The prediction is
    the expectation of the middles of the bins.

    Args:
      values: Array `(...)` of real numbers.
      edges: K + 1 increasing finite numbers `(K + 1,)`.
      scale: Standard deviation sigma > 0, published as 0.75 widths of a bin; a scalar
        or an array that broadcasts to the shape of `values`.

    Returns:
      Distributions `(..., K)`, at least float32.  They are accurate far beyond the
      edges, too, where differences of Phi are 0/0: nearly all mass is in the nearest
      bin.  A row of NaN where a value is NaN.

    Raises:
      TypeError: If an argument is not real.
      ValueError: If `edges` is not one-dimensional, has fewer than two numbers or,
        outside of `jit`, does not increase; or if `scale` is a Python number <= 0 or
        has another shape.

    Gradient:
      `p_k (m_k - m) / sigma^2` with respect to a value, where m_k and m are the means
      of the normal within bin k and within all edges.  Smooth, never NaN.

    Reference:
      Imani and White, "Improving Regression Performance with Distributional Losses",
      ICML 2018; Farebrother et al., "Stop Regressing: Training Value Functions via
      Classification for Scalable Deep RL", ICML 2024.

    Example:
      >>> jaxloss.hl_gauss(0.5, edges=jnp.arange(3.0), scale=0.5)
      Array([0.8127306, 0.1872694], dtype=float32)
    """
    y, edges = _values_and_bins("hl_gauss", values, edges=edges)
    if edges.size < 2:
        _checks.fail("hl_gauss", "edges", f"shape ({edges.size},)", "at least two")
    sigma = _checks.parameter("hl_gauss", y[..., 0], scale=scale)
    sigma = jnp.broadcast_to(sigma, y.shape[:-1])[..., None]
    return intervals.interval_shares(y, edges, sigma)


@_whole_batch.require("scores", "`jax.lax.all_gather` of the scores")
@_jit.kernel("iterations", temperature="(0, inf)")
def sinkhorn_assign(
    scores: ArrayLike, *, temperature: float | jax.Array, iterations: int = 3
) -> jax.Array:
    r"""Assigns a batch to prototypes, evenly: the labels of SwAV.

    Also called: Sinkhorn-Knopp, distributed_sinkhorn, SwAV codes.

    .. math::
       P = \operatorname{diag}(a)\, e^{S / \tau} \operatorname{diag}(b), \qquad
       \sum_j P_{ij} = 1, \quad \sum_i P_{ij} \to n / K

    Each iteration divides first each prototype, then each example by its sum.  Without
    this balance, a network that gives all examples to one prototype would have no loss.

    Args:
      scores: Floating array `(..., batch, K)`, such as cosines; -inf excludes a pair,
        and a row of -inf, such as padding, takes no mass from the others.
      temperature: Temperature tau > 0, a scalar, published as 0.05.
      iterations: Number of iterations, at least 1.

    Returns:
      Distributions `(..., batch, K)`, at least float32.  The rows sum to 1; the columns
      approach equal sums with the number of iterations.

    Raises:
      TypeError: If `scores` are not floating, or `iterations` not a Python integer.
      ValueError: If `scores` have fewer than two axes, `iterations` is less than 1, or
        `temperature` is a Python number <= 0 or an array; or if `train.value_and_grad`
        has split the batch, because its examples share the prototypes.

    Gradient:
      0: these labels are constants of the loss, as published.

    Reference:
      Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal
      Transport", NIPS 2013; Caron et al., "Unsupervised Learning of
      Visual Features by Contrasting Cluster Assignments", NeurIPS 2020.

    Example:
      >>> scores = jnp.array([[1.0, 0.0], [1.0, 0.0]])  # both like the first one
      >>> jaxloss.sinkhorn_assign(scores, temperature=0.1).round(3)
      Array([[0.5, 0.5],
             [0.5, 0.5]], dtype=float32)
    """
    name = "sinkhorn_assign"
    (scores,) = _checks.floating(name, scores=scores)
    if scores.ndim < 2:
        _checks.fail(name, "scores", f"shape {scores.shape}", "(..., batch, K)")
    _checks.positive_integer(name, iterations=iterations)
    tau = _checks.parameter(name, jnp.zeros((), scores.dtype), temperature=temperature)
    if scores.size == 0:
        return scores
    x = lax.stop_gradient(scores / tau)

    def divided(_: int, by: jax.Array) -> jax.Array:
        """The logarithms of the sums of prototypes, of `x` divided by the last ones."""
        examples = _log_sums(x - by, axis=-1)
        return _log_sums(x - examples, axis=-2)

    by = lax.fori_loop(1, iterations, divided, _log_sums(x, axis=-2))
    return stable.softmax(x - by)


@_jit.kernel(ids="labels")
def pair_masks(
    labels: ArrayLike, *, where: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    r"""Masks of the positive and the negative pairs of a batch.

    .. math::
       P_{ij} = 1[y_i = y_j,\; i \ne j], \qquad N_{ij} = 1[y_i \ne y_j]

    Other libraries return lists of pairs or triplets, whose lengths depend on the data;
    masks have a fixed shape.  A mining rule is another mask: `positives & (distances >
    r)`.

    Args:
      labels: Integer group ids `(..., batch)`; they are only compared with each other,
        so any integers are valid.  64-bit hashes and keys may come as a NumPy array.
        JAX arrays keep only 32 bits, and so does `jit` of its arguments: renumber such
        ids first with `np.unique(ids, return_inverse=True)[1]`.
      where: Boolean mask of the shape of `labels`, default all true.  A masked example,
        such as padding, belongs to no pair.

    Returns:
      Positives and negatives, boolean `(..., batch, batch)`: entry `[i, j]` says
      whether j is a positive (or a negative) of the anchor i.  Symmetric; no example is
      its own positive.

    Raises:
      TypeError: If `labels` is not integer or `where` not boolean.
      ValueError: If `labels` is a scalar, or the shapes differ.

    Reference:
      Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification",
      2017.

    Example:
      >>> positives, negatives = jaxloss.pair_masks(jnp.array([7, 7, 2]))
      >>> positives.astype(int)
      Array([[0, 1, 0],
             [1, 0, 0],
             [0, 0, 0]], dtype=int32)
      >>> negatives.astype(int)
      Array([[0, 0, 1],
             [0, 0, 1],
             [1, 1, 0]], dtype=int32)
    """
    name = "pair_masks"
    ids = _checks.class_ids(name, labels=labels)
    _checks.at_least_1d(name, labels=ids)
    if where is None:
        return _pairs.groups(ids, jnp.ones(ids.shape, bool))
    (valid,) = _checks.boolean(name, where=where)
    _checks.same_shape(name, labels=ids, where=valid)
    return _pairs.groups(ids, valid)


@_jit.kernel(trees=("inputs", "labels"), alpha="(0, inf)")
def mixup(
    key: jax.Array, inputs: Any, labels: Any, *, alpha: float | jax.Array = 0.2
) -> tuple[Any, Any]:
    r"""Replaces each example by a mixture with another one of the batch.

    .. math::
       \tilde x_i = \lambda_i x_i + (1 - \lambda_i)\, x_{\pi(i)}, \quad
       \tilde y_i = \lambda_i y_i + (1 - \lambda_i)\, y_{\pi(i)}, \quad
       \lambda_i \sim \mathrm{Beta}(\alpha, \alpha)

    Args:
      key: Random key, which determines the permutation and the ratios.
      inputs: Floating array `(n, ...)`, or a pytree of them with the same n.
      labels: Floating array `(n, ...)`, or a pytree of them: distributions over classes
        (`smooth_labels` of ids with `smoothing=0`) or real-valued targets.
      alpha: Concentration > 0, a scalar.  Near 0 most ratios are near 0 or 1, so little
        is mixed; 1 draws them uniformly.

    Returns:
      Mixed inputs and labels, in the structure, shapes and dtypes given.  One ratio
      and one partner per example, the same for its input and its label.

    Raises:
      TypeError: If a leaf is not floating.
      ValueError: If leaves differ in their first axis or have none, or `alpha` is a
        Python number <= 0 or an array.

    Gradient:
      Linear in `inputs` and in `labels`: an example gets lambda from its own mixture
      and 1 - lambda from that of its partner.

    Reference:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; there with
      one ratio per batch.

    Example:
      >>> inputs, labels = jnp.array([[0.0], [8.0]]), jnp.eye(2)
      >>> inputs, labels = jaxloss.mixup(jax.random.key(1), inputs, labels)
      >>> inputs[:, 0] == 8 * labels[:, 1]
      Array([ True,  True], dtype=bool)
    """
    n = _batch_size({"inputs": inputs, "labels": labels})
    alpha = _checks.parameter("mixup", jnp.zeros((), jnp.float32), alpha=alpha)
    for_ratio, for_partner = jax.random.split(key)
    ratio = jax.random.beta(for_ratio, alpha, alpha, (n,), alpha.dtype)
    partner = jax.random.permutation(for_partner, n)
    mix = lambda x: _mixture(jnp.asarray(x), ratio, partner)
    return jax.tree.map(mix, inputs), jax.tree.map(mix, labels)


def _values_and_bins(
    name: str, values: ArrayLike, **bins: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Both in one dtype, with one more axis than the values for the distributions."""
    values, given = _checks.widened(name, values=values, **bins)
    if given.ndim != 1:
        _checks.fail(name, next(iter(bins)), f"shape {given.shape}", "one axis")
    return values[..., None], given.reshape((1,) * values.ndim + given.shape)


def _log_sums(x: jax.Array, axis: int) -> jax.Array:
    """Of exponentials, with the axis kept; 0 where all of them are 0."""
    log = jnp.expand_dims(stable.logsumexp(x, axis=axis), axis)
    return jnp.where(log == -jnp.inf, 0, log)


def _distributions(loss: str, labels: ArrayLike, num_classes: int | None) -> jax.Array:
    x = jnp.asarray(labels)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        (x,) = _checks.floating(loss, labels=labels)
        _checks.at_least_1d(loss, labels=x)
        if num_classes not in (None, x.shape[-1]):
            _checks.fail(loss, "labels", f"shape {x.shape}", f"(..., {num_classes})")
        return x
    if num_classes is None:
        _checks.wrong_kind(
            loss,
            "labels",
            f"dtype {x.dtype}",
            "distributions, or ids and `num_classes`",
        )
    _checks.positive_integer(loss, num_classes=num_classes)
    ids = _checks.class_ids(loss, labels=labels)
    known = (ids >= 0) & (ids < num_classes)
    one_hot = jax.nn.one_hot(ids, num_classes, dtype=_checks.default_float())
    return jnp.where(known[..., None], one_hot, jnp.nan)


def _batch_size(tree: dict[str, Any]) -> int:
    leaves = {
        f"{path[0].key}{jax.tree_util.keystr(path[1:])}": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    wide = _checks.floating("mixup", **leaves)
    _checks.at_least_1d("mixup", **dict(zip(leaves, wide, strict=True)))
    n = wide[0].shape[0] if wide else 0
    for name, x in zip(leaves, wide, strict=True):
        if x.shape[0] != n:
            _checks.fail("mixup", name, f"shape {x.shape}", f"({n}, ...)")
    return n


def _mixture(x: jax.Array, ratio: jax.Array, partner: jax.Array) -> jax.Array:
    """`ratio x + (1 - ratio) x[partner]`, computed in float32 or better."""
    (wide,) = _checks.floating("mixup", x=x)
    ratio = ratio.astype(wide.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
    return (ratio * wide + (1 - ratio) * wide[partner]).astype(x.dtype)
