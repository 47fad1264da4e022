"""In-batch contrastive losses of large batches, without a matrix of all scores.

Each has the value, the derivatives of any order in either mode, the arguments and the
errors of the loss of the same name in `jaxloss`.  `block` is the number of anchors
whose scores are in memory at a time; derivatives compute the scores of a block again.
So the memory grows with the batch, not with its square, and value and gradient take the
time of four matrix products of this size instead of three.

Leading axes are separate batches, which are computed one after the other.  `jax.vmap`
computes them side by side, which takes the memory of all of them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, _whole_batch, stable
from jaxloss.kernels import _anchors, _twice

# Bytes of the scores of one block, unless `block` says how many anchors it has.  On two
# CPU cores 128 to 512 anchors are about equally fast, fewer are slower.
_BUDGET = 8 * 2**20
_FEWEST, _MOST = 128, 1024


@_whole_batch.require("first", "jaxloss.parallel.clip")
@_jit.kernel("block", "normalize", temperature="(0, inf)")
def clip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
    block: int | None = None,
) -> jax.Array:
    """Symmetric contrastive loss of CLIP, per pair, block by block.

    With one temperature for all, one pass over the blocks computes both directions;
    with one for each pair, two passes are needed.

    Args:
      first: Floating array `(..., batch, components)`; see `jaxloss.clip`.
      second: Same shape.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the pairs that exist.
      normalize: Whether scores are cosines, or inner products.
      block: How many rows of `first` are taken at a time; by default as many as 8 MiB
        of scores allow, at least 128.

    Returns:
      Per-pair losses `(..., batch)`: those of `jaxloss.clip`.

    Raises:
      TypeError: As `jaxloss.clip`, or if `block` is not an integer.
      ValueError: As `jaxloss.clip`, or if `block` is less than 1.

    Gradient:
      That of `jaxloss.clip`, in either mode and of any order.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language
      Supervision", ICML 2021.

    Example:
      >>> images = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> texts = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> jaxloss.kernels.clip(images, texts, temperature=0.5, block=1)
      Array([0.2847378 , 0.45538443], dtype=float32)
    """
    name = "clip"
    x, y, valid = _pairs.examples(name, where, first=first, second=second)
    like = jnp.zeros(valid.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    if tau.ndim:
        settings = {"temperature": tau, "where": valid, "block": block}
        one_way = functools.partial(info_nce, normalize=normalize, **settings)
        return 0.5 * (one_way(x, y) + one_way(y, x))
    rows, (x, y) = _rows(name, block, like), _pairs.directions(name, normalize, x, y)
    return _anchors.one_by_one(functools.partial(_twice.clip, rows), x / tau, y, valid)


@_whole_batch.require("embeddings", "jaxloss.parallel.nt_xent")
@_jit.kernel("block", ids="labels", temperature="(0, inf)")
def nt_xent(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    block: int | None = None,
) -> jax.Array:
    """NT-Xent loss, per anchor, block by block.

    With one temperature for all, a block of scores is used for its rows and columns.

    Args:
      embeddings: Floating array `(..., batch, components)`; see `jaxloss.nt_xent`.
      labels: Integer group ids `(..., batch)`.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the rows that exist.
      block: How many anchors are taken at a time; by default as in `clip`.

    Returns:
      Per-anchor losses `(..., batch)`: those of `jaxloss.nt_xent`.

    Raises:
      TypeError: As `jaxloss.nt_xent`, or if `block` is not an integer.
      ValueError: As `jaxloss.nt_xent`, or if `block` is less than 1.

    Gradient:
      That of `jaxloss.nt_xent`, in either mode and of any order.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual
      Representations", ICML 2020.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
      >>> jaxloss.kernels.nt_xent(x, jnp.array([0, 0, 1, 1]), temperature=0.5, block=3)
      Array([0.23954476, 0.23954476, 0.23954476, 0.23954476], dtype=float32)
    """
    name, data = "nt_xent", (embeddings, labels, where)
    x, ids, valid = _pairs.batch(name, *data)
    like = jnp.zeros(ids.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    if tau.ndim:
        return _of_groups(name, _pairs.nt_xent, data, block, temperature=tau)
    rows = _rows(name, block, like)
    scaled = stable.unit(x) / stable.sqrt(tau)
    return _anchors.one_by_one(
        functools.partial(_twice.nt_xent, rows), scaled, ids, valid
    )


@_whole_batch.require("embeddings", "jaxloss.parallel.supervised_contrastive")
@_jit.kernel("block", ids="labels", temperature="(0, inf)")
def supervised_contrastive(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    block: int | None = None,
) -> jax.Array:
    """Supervised contrastive loss, per anchor, block by block.

    Args:
      embeddings: Floating array `(..., batch, components)`; see
        `jaxloss.supervised_contrastive`.
      labels: Integer group ids `(..., batch)`.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the rows that exist.
      block: How many anchors are taken at a time; by default as in `clip`.

    Returns:
      Per-anchor losses `(..., batch)`: those of `jaxloss.supervised_contrastive`.

    Raises:
      TypeError: As `jaxloss.supervised_contrastive`, or if `block` is not an integer.
      ValueError: As `jaxloss.supervised_contrastive`, or if `block` is less than 1.

    Gradient:
      That of `jaxloss.supervised_contrastive`, in either mode and of any order.

    Reference:
      Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020.

    Example:
      >>> x, ids = jnp.eye(4), jnp.array([0, 0, 0, 1])
      >>> jaxloss.kernels.supervised_contrastive(x, ids, temperature=0.5, block=3)
      Array([1.0986123, 1.0986123, 1.0986123, 0.       ], dtype=float32)
    """
    return _of_groups(
        "supervised_contrastive",
        _pairs.supervised,
        (embeddings, labels, where),
        block,
        temperature=temperature,
    )


@_whole_batch.require("anchors", "jaxloss.parallel.info_nce")
@_jit.kernel("block", "normalize", temperature="(0, inf)")
def info_nce(
    anchors: ArrayLike,
    positives: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
    block: int | None = None,
) -> jax.Array:
    """InfoNCE loss with in-batch negatives, per anchor, block by block.

    Args:
      anchors: Floating array `(..., batch, components)`; see `jaxloss.info_nce`.
      positives: Same shape.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the pairs that exist.
      normalize: Whether scores are cosines, or inner products.
      block: How many anchors are taken at a time; by default as in `clip`.

    Returns:
      Per-anchor losses `(..., batch)`: those of `jaxloss.info_nce`.

    Raises:
      TypeError: As `jaxloss.info_nce`, or if `block` is not an integer.
      ValueError: As `jaxloss.info_nce`, or if `block` is less than 1.

    Gradient:
      That of `jaxloss.info_nce`, in either mode and of any order.

    Reference:
      van den Oord et al., "Representation Learning with Contrastive Predictive
      Coding", 2018.

    Example:
      >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> jaxloss.kernels.info_nce(x, y, temperature=0.5, block=1)
      Array([0.4425476 , 0.21762171], dtype=float32)
    """
    data = ({"anchors": anchors, "positives": positives}, where, normalize)
    return _of_pairs("info_nce", _pairs.info_nce, data, block, temperature=temperature)


@_whole_batch.require("first", "jaxloss.parallel.siglip")
@_jit.kernel("block", "normalize", temperature="(0, inf)", bias="(-inf, inf)")
def siglip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: float | jax.Array,
    bias: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
    block: int | None = None,
) -> jax.Array:
    """Sigmoid loss of SigLIP, per row of `first`, block by block.

    Args:
      first: Floating array `(..., batch, components)`; see `jaxloss.siglip`.
      second: Same shape.
      temperature: Temperature tau > 0 of the cosines.
      bias: Number added to each score.
      where: Boolean mask `(..., batch)` of the pairs that exist.
      normalize: Whether scores are cosines, or inner products.
      block: How many rows of `first` are taken at a time; by default as in `clip`.

    Returns:
      Losses `(..., batch)`: those of `jaxloss.siglip`.

    Raises:
      TypeError: As `jaxloss.siglip`, or if `block` is not an integer.
      ValueError: As `jaxloss.siglip`, or if `block` is less than 1.

    Gradient:
      That of `jaxloss.siglip`, in either mode and of any order.

    Reference:
      Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.

    Example:
      >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> jaxloss.kernels.siglip(x, y, temperature=0.5, bias=-1.0, block=1)
      Array([1.2348106, 0.8205971], dtype=float32)
    """
    return _of_pairs(
        "siglip",
        _pairs.sigmoid,
        ({"first": first, "second": second}, where, normalize),
        block,
        temperature=temperature,
        bias=bias,
    )


# --- anchors in blocks ---------------------------------------------------------------

# A function of the cosines of some anchors with all candidates, of the masks of their
# positives and negatives, and of the hyperparameters of these anchors.
Rule = Callable[..., jax.Array]


def _of_groups(
    loss: str, rule: Rule, data: tuple, block: int | None, **params: ArrayLike
) -> jax.Array:
    """The losses of all anchors, of embeddings, group ids and a mask."""
    x, ids, valid = _pairs.batch(loss, *data)
    like = jnp.zeros(ids.shape, x.dtype)
    settings, rows = _settings(loss, like, **params), _rows(loss, block, like)

    def of_batch(u, ids, valid, *settings):
        def of_block(anchors, at, own_ids, present, *settings):
            masks = _anchors.alike(at, own_ids, present, ids, valid)
            return rule(_pairs.cosines(anchors, u), *masks, *settings)

        everyone = jnp.arange(len(u))
        return _anchors.by_block(rows, of_block, u, everyone, ids, valid, *settings)

    return _anchors.one_by_one(of_batch, stable.unit(x), ids, valid, *settings)


def _of_pairs(
    loss: str, rule: Rule, data: tuple, block: int | None, **params: ArrayLike
) -> jax.Array:
    """The losses of all anchors, of two embeddings of each pair and a mask."""
    embeddings, where, normalize = data
    x, y, valid = _pairs.examples(loss, where, **embeddings)
    like = jnp.zeros(valid.shape, x.dtype)
    settings, rows = _settings(loss, like, **params), _rows(loss, block, like)

    def of_batch(u, v, valid, *settings):
        def of_block(anchors, at, present, *settings):
            masks = _anchors.coupled(at, present, valid)
            return rule(_pairs.cosines(anchors, v), *masks, *settings)

        everyone = jnp.arange(len(u))
        return _anchors.by_block(rows, of_block, u, everyone, valid, *settings)

    both = _pairs.directions(loss, normalize, x, y)
    return _anchors.one_by_one(of_batch, *both, valid, *settings)


def _settings(loss: str, like: jax.Array, **params: ArrayLike) -> list[jax.Array]:
    """The hyperparameters, checked, one of each for each anchor."""
    return [
        jnp.broadcast_to(_checks.parameter(loss, like, **{name: value}), like.shape)
        for name, value in params.items()
    ]


def _rows(loss: str, block: int | None, like: jax.Array) -> int:
    """How many anchors a block has: a power of two, by default."""
    columns = like.shape[-1]
    if block is not None:
        _checks.positive_integer(loss, block=block)
        return min(block, columns)
    fit = _BUDGET // (like.dtype.itemsize * max(1, columns))
    power = 1 << max(1, fit).bit_length() - 1
    return min(max(_FEWEST, min(power, _MOST)), columns)
