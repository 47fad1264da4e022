"""In-batch contrastive losses of large batches, without a matrix of all scores.

Each has the value, the derivatives of any order in either mode, the arguments and the
errors of the loss of its name in `jaxloss.similarity`, and a `block`: of how many
anchors the scores exist at a time.  Those of a block are computed again where they are
differentiated.  So the memory grows with the batch, not with its square, and the time
is that of four matrix products of this size for value and gradient, instead of three.

Leading axes are batches of their own, one after the other.  Under `jax.vmap` they are
side by side, and so take the room of one times their number.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _contrast, _split, stable

# Bytes of the scores of one block, unless `block` says how many anchors it has.  On two
# CPU cores 128 to 512 anchors are about equally fast, fewer are slower.
_BUDGET = 4 * 2**20
_FEWEST, _MOST = 128, 1024


def clip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    block: int | None = None,
) -> jax.Array:
    """Symmetric contrastive loss of CLIP per pair, block by block.

    With one temperature for all, a block of scores serves both directions; with one
    for each pair, these are two passes.

    Args:
      first: Floating array `(..., batch, components)`; see `jaxloss.clip`.
      second: Same shape.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the pairs that exist.
      block: How many firsts at a time; by default what 4 MiB of scores allow, at least
        128.

    Returns:
      Per-pair losses `(..., batch)`: those of `jaxloss.clip`.

    Raises:
      TypeError: As `jaxloss.clip`, or if `block` is no integer.
      ValueError: As `jaxloss.clip`, or if `block` is less than 1.

    Gradient:
      That of `jaxloss.clip`, in either mode and of any order.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language
      Supervision", ICML 2021.

    Example:
      >>> from jaxloss import kernels
      >>> images = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> texts = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> kernels.clip(images, texts, temperature=0.5, block=1)
      Array([0.2847378 , 0.45538443], dtype=float32)
    """
    name = "clip"
    _split.needs_whole_batch(name, "first", "jaxloss.parallel.clip")
    x, y, valid = _contrast.paired(name, where, first=first, second=second)
    like = jnp.zeros(valid.shape, x.dtype)
    tau = _checks.parameter(name, like, "(0, inf)", temperature=temperature)
    if tau.ndim:
        one_way = lambda x, y: info_nce(x, y, temperature=tau, where=valid, block=block)
        return 0.5 * (one_way(x, y) + one_way(y, x))
    rows = _rows(name, block, like)
    scaled = stable.unit(x) / tau
    return _one_by_one(functools.partial(_clip, rows), scaled, stable.unit(y), valid)


def nt_xent(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    block: int | None = None,
) -> jax.Array:
    """Normalised temperature-scaled cross entropy per anchor, block by block.

    With one temperature for all, a block of scores serves its rows and its columns.

    Args:
      embeddings: Floating array `(..., batch, components)`; see `jaxloss.nt_xent`.
      labels: Integer group ids `(..., batch)`.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the rows that exist.
      block: How many anchors at a time; by default as in `clip`.

    Returns:
      Per-anchor losses `(..., batch)`: those of `jaxloss.nt_xent`.

    Raises:
      TypeError: As `jaxloss.nt_xent`, or if `block` is no integer.
      ValueError: As `jaxloss.nt_xent`, or if `block` is less than 1.

    Gradient:
      That of `jaxloss.nt_xent`, in either mode and of any order.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual
      Representations", ICML 2020.

    Example:
      >>> from jaxloss import kernels
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
      >>> kernels.nt_xent(x, jnp.array([0, 0, 1, 1]), temperature=0.5, block=3)
      Array([0.23954476, 0.23954476, 0.23954476, 0.23954476], dtype=float32)
    """
    name, data = "nt_xent", (embeddings, labels, where)
    _split.needs_whole_batch(name, "embeddings", "jaxloss.parallel.nt_xent")
    x, ids, valid = _contrast.batch(name, *data)
    like = jnp.zeros(ids.shape, x.dtype)
    tau = _checks.parameter(name, like, "(0, inf)", temperature=temperature)
    if tau.ndim:
        return _of_groups(name, _contrast.nt_xent, data, block, temperature=tau)
    rows = _rows(name, block, like)
    scaled = stable.unit(x) / stable.sqrt(tau)
    return _one_by_one(functools.partial(_nt_xent, rows), scaled, ids, valid)


def supervised_contrastive(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    block: int | None = None,
) -> jax.Array:
    """Supervised contrastive loss per anchor, block by block.

    Args:
      embeddings: Floating array `(..., batch, components)`; see
        `jaxloss.supervised_contrastive`.
      labels: Integer group ids `(..., batch)`.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the rows that exist.
      block: How many anchors at a time; by default as in `clip`.

    Returns:
      Per-anchor losses `(..., batch)`, as `jaxloss.supervised_contrastive`; so are
      errors and gradient.

    Example:
      >>> from jaxloss import kernels
      >>> x, ids = jnp.eye(4), jnp.array([0, 0, 0, 1])
      >>> kernels.supervised_contrastive(x, ids, temperature=0.5, block=3)
      Array([1.0986123, 1.0986123, 1.0986123, 0.       ], dtype=float32)
    """
    return _of_groups(
        "supervised_contrastive",
        _contrast.supervised,
        (embeddings, labels, where),
        block,
        temperature=temperature,
    )


def info_nce(
    anchors: ArrayLike,
    positives: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    block: int | None = None,
) -> jax.Array:
    """InfoNCE with in-batch negatives per anchor, block by block.

    Args:
      anchors: Floating array `(..., batch, components)`; see `jaxloss.info_nce`.
      positives: Same shape.
      temperature: Temperature tau > 0 of the cosines.
      where: Boolean mask `(..., batch)` of the pairs that exist.
      block: How many anchors at a time; by default as in `clip`.

    Returns:
      Per-anchor losses `(..., batch)`, as `jaxloss.info_nce`; so are errors and
      gradient.

    Example:
      >>> from jaxloss import kernels
      >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> kernels.info_nce(x, y, temperature=0.5, block=1)
      Array([0.4425476 , 0.21762171], dtype=float32)
    """
    data = ({"anchors": anchors, "positives": positives}, where)
    return _of_pairs(
        "info_nce", _contrast.nt_xent, data, block, temperature=temperature
    )


def siglip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: float | jax.Array,
    bias: float | jax.Array,
    where: ArrayLike | None = None,
    block: int | None = None,
) -> jax.Array:
    """Pairwise sigmoid loss of SigLIP per first of a pair, block by block.

    Args:
      first: Floating array `(..., batch, components)`; see `jaxloss.siglip`.
      second: Same shape.
      temperature: Temperature tau > 0 of the cosines.
      bias: What is added to each score.
      where: Boolean mask `(..., batch)` of the pairs that exist.
      block: How many firsts at a time; by default as in `clip`.

    Returns:
      Losses `(..., batch)`, as `jaxloss.siglip`; so are errors and gradient.

    Example:
      >>> from jaxloss import kernels
      >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> kernels.siglip(x, y, temperature=0.5, bias=-1.0, block=1)
      Array([1.2348106 , 0.82059705], dtype=float32)
    """
    return _of_pairs(
        "siglip",
        _contrast.sigmoid,
        ({"first": first, "second": second}, where),
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
    _split.needs_whole_batch(loss, "embeddings", f"jaxloss.parallel.{loss}")
    x, ids, valid = _contrast.batch(loss, *data)
    like = jnp.zeros(ids.shape, x.dtype)
    settings, rows = _settings(loss, like, **params), _rows(loss, block, like)

    def of_batch(u, ids, valid, *settings):
        def of_block(anchors, at, own_ids, present, *settings):
            masks = _alike(at, own_ids, present, ids, valid)
            return rule(_contrast.cosines(anchors, u), *masks, *settings)

        everyone = jnp.arange(len(u))
        return _by_block(rows, of_block, u, everyone, ids, valid, *settings)

    return _one_by_one(of_batch, stable.unit(x), ids, valid, *settings)


def _of_pairs(
    loss: str, rule: Rule, data: tuple, block: int | None, **params: ArrayLike
) -> jax.Array:
    """The losses of all anchors, of two embeddings of each pair and a mask."""
    embeddings, where = data
    first = next(iter(embeddings))
    _split.needs_whole_batch(loss, first, f"jaxloss.parallel.{loss}")
    x, y, valid = _contrast.paired(loss, where, **embeddings)
    like = jnp.zeros(valid.shape, x.dtype)
    settings, rows = _settings(loss, like, **params), _rows(loss, block, like)

    def of_batch(u, v, valid, *settings):
        everyone = jnp.arange(len(u))

        def of_block(anchors, at, present, *settings):
            both = present[:, None] & valid[None]
            itself = at[:, None] == everyone[None]
            cosines = _contrast.cosines(anchors, v)
            return rule(cosines, both & itself, both & ~itself, *settings)

        return _by_block(rows, of_block, u, everyone, valid, *settings)

    return _one_by_one(of_batch, stable.unit(x), stable.unit(y), valid, *settings)


def _settings(loss: str, like: jax.Array, **params: ArrayLike) -> list[jax.Array]:
    """The hyperparameters, checked, one of each for each anchor."""
    intervals = {"temperature": "(0, inf)", "bias": "(-inf, inf)"}
    return [
        jnp.broadcast_to(
            _checks.parameter(loss, like, intervals[name], **{name: value}), like.shape
        )
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


def _one_by_one(fn: Callable, *arrays: jax.Array) -> jax.Array:
    """A function of a batch, of one batch after the other along the leading axes."""
    leading = arrays[-1].shape[:-1]
    if arrays[-1].size == 0:
        return jnp.zeros(arrays[-1].shape, arrays[0].dtype)
    if not leading:
        return fn(*arrays)
    flat = [x.reshape(-1, *x.shape[len(leading) :]) for x in arrays]
    return lax.map(lambda batch: fn(*batch), flat).reshape(arrays[-1].shape)


def _by_block(rows: int, fn: Callable, *anchors: jax.Array) -> Any:
    """A function of anchors, of some of them at a time."""
    if rows == len(anchors[0]):
        return fn(*anchors)
    blocks = [_in_blocks(rows, x) for x in anchors]
    found = lax.map(lambda block: jax.checkpoint(fn)(*block), blocks)
    return jax.tree.map(lambda x: x.reshape(-1)[: len(anchors[0])], found)


def _in_blocks(rows: int, x: jax.Array) -> jax.Array:
    """Rows of an array, some at a time; the last block is filled up with its last row,
    which is not there: no mask is true."""
    count = -(-len(x) // rows)
    padding = [(0, count * rows - len(x))] + [(0, 0)] * (x.ndim - 1)
    padded = jnp.pad(x, padding, mode="constant" if x.dtype == bool else "edge")
    return padded.reshape(count, rows, *x.shape[1:])


# --- scores that count twice ---------------------------------------------------------

# One for its row and one for its column.  By hand, so that the cosines of a block are
# computed once forward and once in reverse for both: JAX transposes what is linear in
# the tangents below, and differentiates all of it for a second derivative.  With the
# temperature in the vectors, its derivative follows from theirs.


def _clip(rows: int, x: jax.Array, y: jax.Array, valid: jax.Array) -> jax.Array:
    """The losses of the scores x y, of one batch."""
    own = jnp.sum(x * y, axis=-1)
    (largest, rivals), (highest, others) = _rivals(rows, x, y, valid)
    there = stable.softplus((largest - own) + rivals)
    return 0.5 * (there + stable.softplus((highest - own) + others))


Totals = tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rivals(rows: int, x: jax.Array, y: jax.Array, valid: jax.Array) -> Totals:
    """Of each row and of each column: the largest score but the own one, a constant,
    and the logsumexp of all but the own one, less that."""
    everyone = jnp.arange(len(x))

    @jax.checkpoint
    def step(columns, block):
        top, total = columns
        anchors, at, present = block
        scores = _contrast.cosines(anchors, y)
        scores = jnp.where(_coupled(at, present, valid), scores, -jnp.inf)
        fixed = lax.stop_gradient(scores)
        largest = jnp.max(fixed, axis=-1, initial=lowest)
        highest = jnp.maximum(top, jnp.max(fixed, axis=0))
        by_row = _contrast.log_total(scores - largest[:, None])
        total = total * jnp.exp(top - highest)
        total = total + jnp.sum(jnp.exp(scores - highest[None]), axis=0)
        return (highest, total), (largest, by_row)

    lowest = jnp.finfo(x.dtype).min
    start = jnp.full_like(x[:, 0], lowest), jnp.zeros_like(x[:, 0])
    blocks = [_in_blocks(rows, part) for part in (x, everyone, valid)]
    (highest, total), found = lax.scan(step, start, blocks)
    largest, by_row = (part.reshape(-1)[: len(x)] for part in found)
    return (largest, by_row), (highest, jnp.log(total))


@_rivals.defjvp
def _(rows, primals, tangents):
    (x, y, valid), (dx, dy, _) = primals, tangents
    totals = _rivals(rows, *primals)
    (largest, by_row), (highest, by_column) = totals
    shift, column_shift = (_finite(v) for v in (by_row, by_column))

    @jax.checkpoint
    def step(column, block):
        anchors, turn, at, present, largest, shift = block
        keep = _coupled(at, present, valid)
        scores = _contrast.cosines(anchors, y)
        moving = _contrast.cosines(turn, y) + _contrast.cosines(anchors, dy)
        share = lambda top, rest: jnp.exp(
            jnp.where(keep, (scores - top) - rest, -jnp.inf)
        )
        row = jnp.sum(share(largest[:, None], shift[:, None]) * moving, axis=-1)
        p = share(highest[None], column_shift[None])
        return column + jnp.sum(p * moving, axis=0), row

    parts = (x, dx, jnp.arange(len(x)), valid, largest, shift)
    blocks = [_in_blocks(rows, part) for part in parts]
    column, row = lax.scan(step, jnp.zeros_like(shift), blocks)
    still = jnp.zeros_like(shift)
    return totals, ((still, row.reshape(-1)[: len(x)]), (still, column))


def _coupled(at: jax.Array, present: jax.Array, valid: jax.Array) -> jax.Array:
    """Which candidates of a block of pairs are negatives."""
    others = at[:, None] != jnp.arange(len(valid))[None]
    return present[:, None] & valid[None] & others


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _nt_xent(rows: int, x: jax.Array, ids: jax.Array, valid: jax.Array) -> jax.Array:
    """The losses of the scores x x, of one batch."""
    return _statistics(rows, x, ids, valid)[0]


def _statistics(
    rows: int, x: jax.Array, ids: jax.Array, valid: jax.Array
) -> tuple[jax.Array, ...]:
    """Of each anchor: the loss; the largest score of its negatives, a constant, and
    their logsumexp less that; the slope in the latter; one over its positives."""

    def of_block(anchors, at, own_ids, present):
        positive, negative = _alike(at, own_ids, present, ids, valid)
        scores = _contrast.cosines(anchors, x)
        fixed = jnp.where(negative, lax.stop_gradient(scores), -jnp.inf)
        largest = jnp.max(fixed, axis=-1, initial=jnp.finfo(x.dtype).min)
        scores = scores - largest[:, None]
        rivals = _contrast.log_total(jnp.where(negative, scores, -jnp.inf))
        lead = jnp.where(positive, rivals[:, None] - scores, -jnp.inf)
        share = 1 / jnp.maximum(jnp.sum(positive, axis=-1, dtype=x.dtype), 1)
        loss = share * jnp.sum(stable.softplus(lead), axis=-1)
        slope = share * jnp.sum(stable.sigmoid(lead), axis=-1)
        return loss, largest, rivals, slope, share

    return _by_block(rows, of_block, x, jnp.arange(len(x)), ids, valid)


@_nt_xent.defjvp
def _(rows, primals, tangents):
    (x, ids, valid), (dx, *_) = primals, tangents
    loss, *known = _statistics(rows, *primals)
    known[1] = _finite(known[1])

    @jax.checkpoint
    def step(column, block):
        anchors, turn, at, own_ids, present, *own = block
        positive, negative = _alike(at, own_ids, present, ids, valid)
        scores, moving = (_contrast.cosines(part, x) for part in (anchors, turn))

        def slopes(largest, rivals, slope, share):
            lead = (scores - largest) - rivals
            attracted = share * stable.sigmoid(jnp.where(positive, -lead, -jnp.inf))
            repelled = slope * jnp.exp(jnp.where(negative, lead, -jnp.inf))
            return repelled - attracted

        row = jnp.sum(slopes(*(v[:, None] for v in own)) * moving, axis=-1)
        of_others = slopes(*(v[None] for v in known))
        return column + jnp.sum(of_others * moving, axis=0), row

    parts = (x, dx, jnp.arange(len(x)), ids, valid, *known)
    blocks = [_in_blocks(rows, part) for part in parts]
    column, row = lax.scan(step, jnp.zeros_like(loss), blocks)
    return loss, row.reshape(-1)[: len(x)] + column


def _alike(
    at: jax.Array,
    own_ids: jax.Array,
    present: jax.Array,
    ids: jax.Array,
    valid: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Which candidates of a block of anchors are positives, and which negatives."""
    both, same = present[:, None] & valid[None], own_ids[:, None] == ids[None]
    others = at[:, None] != jnp.arange(len(ids))[None]
    return both & same & others, both & ~same


def _finite(rivals: jax.Array) -> jax.Array:
    """What to subtract in an exponent: 0 where there are none, which is masked."""
    return jnp.where(rivals == -jnp.inf, 0, rivals)
