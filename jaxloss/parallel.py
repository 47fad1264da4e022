"""Losses of sharded arrays, for use inside `jax.shard_map`.

A cross entropy needs every class, and an in-batch loss needs the whole batch.  Here
each device has a shard of them and sends the others what they need: a few sums per
example, or its embeddings.  Values and gradients are those of the function of the same
name on one device.

With `check_vma=True`, the default of `shard_map`, differentiate inside or outside of
it.  Both are exact with respect to sharded and replicated arrays, and you need no
further sum.  With `check_vma=False`, differentiate outside.  Inside (as in `pmap` and
`vmap`) JAX takes the gradient of the sum of all copies of a result.  There, divide the
result of `softmax_cross_entropy`, or of any `psum`, by `jax.lax.axis_size` of the axis
first, and `psum` the gradients of replicated arrays.  No derivative rule can do both,
because the same cotangent has different meanings in each.
"""

import functools
from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, _pairs, _whole_batch, stable

AxisName = Hashable | tuple[Hashable, ...]


@_jit.kernel("axis_name", ids="labels")
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis_name: AxisName,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Softmax cross entropy of class ids, with the classes sharded.

    .. math::
       \ell = -\log p_y, \qquad p = \text{softmax}(\text{logits of all devices})

    Each device has the logits of its own classes, such as those of its columns of the
    output weights.  They stay there: devices exchange the largest logit and three sums
    per example.

    Args:
      logits: Floating array `(..., classes / devices)`: each device has a block of the
        K classes, in the order of the axis index; -inf is probability 0.
      labels: Integer class ids in [0, K), of the shape of `logits` without the last
        axis; the same on all devices of the axis.
      axis_name: The mesh axis, or a tuple of axes, over which the classes are sharded.
      where: Boolean mask of the shape of `logits`; a masked class is treated as if its
        logit were -inf.

    Returns:
      One loss >= 0 per example, in nats, the same on all devices of the axis; 0 if
      every class is excluded, +inf if only the label is, NaN if the label is not one of
      the classes.

    Raises:
      TypeError: If `logits` are not floating, `labels` not integer or `where` not
        boolean.
      ValueError: If a shape does not match.
      NameError: If `axis_name` is not bound.

    Gradient:
      `p - 1[j = y]` with respect to the logits, as for `jaxloss.softmax_cross_entropy`.
      The docstring of the module says where to differentiate.  Convex, smooth.

    Reference:
      Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models
      Using Model Parallelism", 2019.

    Example:
      >>> import functools
      >>> from jax.sharding import Mesh, PartitionSpec as P
      >>> from jaxloss import parallel
      >>> loss = jax.shard_map(
      ...     functools.partial(parallel.softmax_cross_entropy, axis_name="model"),
      ...     mesh=Mesh(jax.devices(), ("model",)),
      ...     in_specs=(P(None, "model"), P()),
      ...     out_specs=P(),
      ... )
      >>> jax.jit(loss)(jnp.zeros((2, 8)), jnp.array([0, 5]))
      Array([2.0794415, 2.0794415], dtype=float32)
    """
    name = "softmax_cross_entropy"
    (x,) = _checks.floating(name, logits=logits)
    _checks.at_least_1d(name, logits=x)
    ids = _checks.class_ids(name, labels=labels)
    _checks.has_shape(name, x.shape[:-1], "one class id per example", labels=ids)
    if where is not None:
        (where,) = _checks.boolean(name, where=where)
        _checks.same_shape(name, logits=x, where=where)
        x = jnp.where(where, x, -jnp.inf)
    first = lax.axis_index(axis_name) * x.shape[-1]
    classes = lax.axis_size(axis_name) * x.shape[-1]
    # Without a derivative, for `pmax` has none, and the loss does not depend on it.
    largest = lax.pmax(_largest(lax.stop_gradient(x)), axis_name)
    alive = largest != -jnp.inf
    known = (ids >= 0) & (ids < classes)
    x = jnp.where(alive[..., None], x, 0)
    local = jnp.where(known & alive, ids, 0) - first.astype(ids.dtype)
    largest = jnp.where(alive, largest, 0)
    losses = jnp.where(alive, _softmax_nll(axis_name, x, largest, local)[0], 0)
    return _classes.nan_unless(known | ~alive, losses)


@_whole_batch.require("embeddings")
@_jit.kernel("axis_name", ids="labels", temperature="(0, inf)")
def nt_xent(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    axis_name: AxisName,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""NT-Xent loss of a sharded batch, per local anchor.

    .. math::
       \ell_i = \frac{1}{|P_i|} \sum_{j \in P_i} -\log
       \frac{e^{s_{ij}}}{e^{s_{ij}} + \sum_{k \in N_i} e^{s_{ik}}},
       \qquad s_{ij} = \cos(x_i, x_j) / \tau

    The positives P and negatives N of an anchor are among the rows of all devices, as
    in `jaxloss.nt_xent` of the whole batch.  Each device gathers all embeddings, and
    computes the scores of its own anchors only.

    Args:
      embeddings: Floating array `(..., batch / devices, components)`, the rows of this
        device.
      labels: Integer group ids `(..., batch / devices)`.
      axis_name: The mesh axis, or a tuple of axes, over which the batch is sharded.
      temperature: Temperature tau > 0 of the cosines; one for all, or one for each
        local anchor.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      The losses of the local anchors >= 0 `(..., batch / devices)`, in nats; 0 for an
      anchor that is masked or has no positive or no negative.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or `temperature` not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `temperature` is a Python number <= 0.
      NameError: If `axis_name` is not bound.

    Gradient:
      That of `jaxloss.nt_xent`.  An embedding also gets the gradient from the anchors
      of other devices: the gradient of the sum of the local losses is already that of
      the sum over the batch, with either `check_vma`.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual
      Representations", ICML 2020.

    Example:
      >>> import functools
      >>> from jax.sharding import Mesh, PartitionSpec as P
      >>> from jaxloss import parallel
      >>> loss = jax.shard_map(
      ...     functools.partial(parallel.nt_xent, axis_name="data", temperature=0.5),
      ...     mesh=Mesh(jax.devices(), ("data",)),
      ...     in_specs=(P("data"), P("data")),
      ...     out_specs=P("data"),
      ... )
      >>> x = jnp.tile(jnp.eye(2), (4, 1))
      >>> jax.jit(loss)(x, jnp.arange(8) % 2)[:2]
      Array([0.43265286, 0.43265286], dtype=float32)
    """
    return _of_groups(
        "nt_xent",
        _pairs.nt_xent,
        (embeddings, labels, where),
        axis_name,
        temperature=temperature,
    )


@_whole_batch.require("embeddings")
@_jit.kernel("axis_name", ids="labels", temperature="(0, inf)")
def supervised_contrastive(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    axis_name: AxisName,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Supervised contrastive loss of a sharded batch, per local anchor.

    It equals `jaxloss.supervised_contrastive` of the whole batch.  Arguments, errors
    and gradient are those of `nt_xent` of this module.

    Example:
      >>> import functools
      >>> from jax.sharding import Mesh, PartitionSpec as P
      >>> from jaxloss import parallel
      >>> local = functools.partial(
      ...     parallel.supervised_contrastive, axis_name="data", temperature=0.5
      ... )
      >>> mesh, rows = Mesh(jax.devices(), ("data",)), P("data")
      >>> loss = jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
      >>> x = jnp.tile(jnp.eye(2), (4, 1))
      >>> jax.jit(loss)(x, jnp.arange(8) % 2)[:2]
      Array([1.2645051, 1.2645051], dtype=float32)
    """
    return _of_groups(
        "supervised_contrastive",
        _pairs.supervised,
        (embeddings, labels, where),
        axis_name,
        temperature=temperature,
    )


@_whole_batch.require("first")
@_jit.kernel("axis_name", "normalize", temperature="(0, inf)")
def clip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    axis_name: AxisName,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
) -> jax.Array:
    r"""Symmetric contrastive loss of CLIP of a sharded batch, per local pair.

    .. math::
       \ell_i = -\frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
       - \frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}},
       \qquad s_{ij} = \cos(x_i, y_j) / \tau

    The sums run over the pairs of all devices, as in `jaxloss.clip` of the whole batch.
    Each device gathers all embeddings, and computes only the scores of its own
    embeddings with all others.

    Args:
      first: Floating array `(..., batch / devices, components)`, one embedding of each
        pair of this device.
      second: Same shape; the other embedding of each pair.
      axis_name: The mesh axis, or a tuple of axes, over which the batch is sharded.
      temperature: Temperature tau > 0 of the cosines; one for all, or one for each
        local pair.
      where: Boolean mask `(..., batch / devices)`, default all true.  A masked pair,
        such as padding, is neither anchor nor candidate.
      normalize: Whether scores are cosines, or inner products; see `jaxloss.clip`.

    Returns:
      The losses of the local pairs >= 0 `(..., batch / devices)`, in nats; 0 for a pair
      that is masked, or the only one of the whole batch.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, or `temperature`
        not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0.
      NameError: If `axis_name` is not bound.

    Gradient:
      That of `jaxloss.clip`, as for `nt_xent`: the gradient of the sum of the local
      losses is already that of the sum over the batch.  `shard_map` sums the gradient
      of a replicated temperature; inside of it with `check_vma=False`, do so with
      `psum`.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language
      Supervision", ICML 2021.

    Example:
      >>> import functools
      >>> from jax.sharding import Mesh, PartitionSpec as P
      >>> from jaxloss import parallel
      >>> loss = jax.shard_map(
      ...     functools.partial(parallel.clip, axis_name="data", temperature=0.5),
      ...     mesh=Mesh(jax.devices(), ("data",)),
      ...     in_specs=(P("data"), P("data")),
      ...     out_specs=P("data"),
      ... )
      >>> x = jnp.eye(8)
      >>> jax.jit(loss)(x, x)[:2]
      Array([0.66646796, 0.66646796], dtype=float32)
    """
    one_way = lambda **pair: _of_pairs(
        "clip",
        _pairs.info_nce,
        (pair, where, normalize),
        axis_name,
        temperature=temperature,
    )
    there = one_way(first=first, second=second)
    return 0.5 * (there + one_way(second=second, first=first))


@_whole_batch.require("anchors")
@_jit.kernel("axis_name", "normalize", temperature="(0, inf)")
def info_nce(
    anchors: ArrayLike,
    positives: ArrayLike,
    *,
    axis_name: AxisName,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
) -> jax.Array:
    """InfoNCE loss of a sharded batch, per local anchor.

    It equals `jaxloss.info_nce` of the whole batch; only the positives are gathered.
    Arguments, errors and gradient are those of `clip` of this module.

    Example:
      >>> import functools
      >>> from jax.sharding import Mesh, PartitionSpec as P
      >>> from jaxloss import parallel
      >>> local = functools.partial(
      ...     parallel.info_nce, axis_name="data", temperature=0.5
      ... )
      >>> mesh, rows = Mesh(jax.devices(), ("data",)), P("data")
      >>> loss = jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
      >>> jax.jit(loss)(jnp.eye(8), jnp.eye(8))[:2]
      Array([0.66646796, 0.66646796], dtype=float32)
    """
    pair = {"anchors": anchors, "positives": positives}
    return _of_pairs(
        "info_nce",
        _pairs.info_nce,
        (pair, where, normalize),
        axis_name,
        temperature=temperature,
    )


@_whole_batch.require("first")
@_jit.kernel("axis_name", "normalize", temperature="(0, inf)", bias="(-inf, inf)")
def siglip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    axis_name: AxisName,
    temperature: float | jax.Array,
    bias: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Sigmoid loss of SigLIP of a sharded batch, per local row of `first`.

    It equals `jaxloss.siglip` of the whole batch; only `second` is gathered.
    Arguments, errors and gradient are those of `clip` of this module, with a `bias`.

    Example:
      >>> import functools
      >>> from jax.sharding import Mesh, PartitionSpec as P
      >>> from jaxloss import parallel
      >>> local = functools.partial(
      ...     parallel.siglip, axis_name="data", temperature=0.5, bias=-2.0
      ... )
      >>> mesh, rows = Mesh(jax.devices(), ("data",)), P("data")
      >>> loss = jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
      >>> jax.jit(loss)(jnp.eye(8), jnp.eye(8))[:2]
      Array([1.5816426, 1.5816426], dtype=float32)
    """
    return _of_pairs(
        "siglip",
        _pairs.sigmoid,
        ({"first": first, "second": second}, where, normalize),
        axis_name,
        temperature=temperature,
        bias=bias,
    )


# --- classes over devices ------------------------------------------------------------


def _largest(x: jax.Array) -> jax.Array:
    """The largest logit; +inf for NaN, which the `pmax` of some devices would drop."""
    return jnp.max(jnp.where(jnp.isnan(x), jnp.inf, x), axis=-1, initial=-jnp.inf)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _softmax_nll(
    axis_name: AxisName, x: jax.Array, largest: jax.Array, ids: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(loss, its gradient, probabilities): `stable.softmax_nll` with sums over devices.

    Together, so that the loss and its gradient need one sum over devices and not two.
    """
    largest = largest[..., None]
    d, error = stable.difference(x, largest)
    e = jnp.exp(d)
    e = e + e * error
    ties, at = x == largest, _is_label(x, ids)
    # The rounding error of d, at the label, is at most half a unit of the loss.
    sums = ties.astype(x.dtype), jnp.where(ties, 0, e), jnp.where(at, d, 0)
    count, rest, label = _totals(sums, axis_name)
    rest = rest + (count - 1)
    loss = stable.log1p(rest) - label
    p = e / (1 + rest)
    others = jnp.where(ties, rest, 1 + jnp.maximum(rest - e, 0)) / (1 + rest)
    return loss[..., 0], jnp.where(at, -others, p), p


@_softmax_nll.defjvp
def _(axis_name, primals, tangents):
    (x, largest, _), (t, *_) = primals, tangents
    loss, slope, p = _softmax_nll(axis_name, *primals)
    (moving,) = _totals((slope * t,), axis_name)
    curve = p * _centered(axis_name, t, x == largest[..., None], p)
    return (loss, slope, p), (moving[..., 0], curve, curve)


def _centered(
    axis_name: AxisName, t: jax.Array, ties: jax.Array, p: jax.Array
) -> jax.Array:
    """`t - sum(p t)`, relative to t at a lone largest class, where p is nearly 1."""
    count, top = _totals((ties.astype(t.dtype), jnp.where(ties, t, 0)), axis_name)
    alone = ties & (count == 1)
    u = jnp.where(alone, 0, t - top / jnp.maximum(count, 1))
    (mean,) = _totals((jnp.where(alone, 0, p * u),), axis_name)
    return u - mean


def _is_label(x: jax.Array, ids: jax.Array) -> jax.Array:
    return lax.broadcasted_iota(ids.dtype, x.shape, x.ndim - 1) == ids[..., None]


def _totals(
    arrays: tuple[jax.Array, ...], axis_name: AxisName
) -> tuple[jax.Array, ...]:
    """The sum of each over the classes of all devices, in one exchange."""
    sums = tuple(jnp.sum(x, axis=-1, keepdims=True) for x in arrays)
    return lax.psum(sums, axis_name)


# --- a batch over devices ------------------------------------------------------------

# Each is a function of the cosines of the local anchors with all candidates, of the
# masks of their positives and negatives, and of the hyperparameters.
Rule = Callable[..., jax.Array]


def _of_groups(
    loss: str, rule: Rule, data: tuple, axis_name: AxisName, **params: ArrayLike
) -> jax.Array:
    """The losses of the local anchors, from embeddings, group ids and a mask."""
    x, ids, valid = _pairs.batch(loss, *data)
    settings = _settings(loss, jnp.zeros(ids.shape, x.dtype), **params)
    u = stable.unit(x)
    everyone, others = _gathered(u, axis_name, -2), _gathered(ids, axis_name, -1)
    itself, both = _pair_masks(valid, axis_name, masked=data[-1] is not None)
    same = ids[..., :, None] == others[..., None, :]
    cosines = _pairs.cosines(u, everyone)
    return rule(cosines, both & same & ~itself, both & ~same, *settings)


def _of_pairs(
    loss: str, rule: Rule, data: tuple, axis_name: AxisName, **params: ArrayLike
) -> jax.Array:
    """The losses of the local anchors, from two embeddings of each pair and a mask."""
    embeddings, where, normalize = data
    x, y, valid = _pairs.examples(loss, where, **embeddings)
    settings = _settings(loss, jnp.zeros(valid.shape, x.dtype), **params)
    itself, both = _pair_masks(valid, axis_name, masked=where is not None)
    x, y = _pairs.directions(loss, normalize, x, y)
    cosines = _pairs.cosines(x, _gathered(y, axis_name, -2))
    return rule(cosines, both & itself, both & ~itself, *settings)


def _settings(loss: str, like: jax.Array, **params: ArrayLike) -> list[jax.Array]:
    """The hyperparameters, checked: a temperature, and maybe a bias."""
    return [
        _checks.parameter(loss, like, **{name: value}) for name, value in params.items()
    ]


def _gathered(x: jax.Array, axis_name: AxisName, axis: int) -> jax.Array:
    """The blocks of all devices along an axis, in the order of the axis index."""
    return lax.all_gather(x, axis_name, axis=x.ndim + axis, tiled=True)


def _pair_masks(
    valid: jax.Array, axis_name: AxisName, *, masked: bool
) -> tuple[jax.Array, jax.Array]:
    """Which of all rows is the local one itself, and where neither is masked."""
    local = valid.shape[-1]
    shape = (*valid.shape, local * lax.axis_size(axis_name))
    itself = _pairs.diagonal(shape, lax.axis_index(axis_name) * local)
    if not masked:
        return itself, jnp.ones_like(itself)
    every = _gathered(valid, axis_name, -1)
    return itself, valid[..., :, None] & every[..., None, :]
