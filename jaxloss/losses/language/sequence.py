"""Losses of sequences whose positions are not aligned."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.stable import xla


@_jit.kernel("blank", "zero_infinity", ids="labels")
def ctc(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    label_where: ArrayLike | None = None,
    blank: int = 0,
    zero_infinity: bool = False,
) -> jax.Array:
    r"""Connectionist temporal classification (CTC): no alignment needed.

    Also called: CTC loss, CTCLoss, speech recognition loss.

    .. math::
       \ell = -\log \sum_{\pi \in \mathcal{B}^{-1}(y)}
              \prod_{t=1}^{T} \operatorname{softmax}(x_t)_{\pi_t}

    The sum is over the paths that become the labels y once runs of one class are
    merged and then blanks removed, so two equal labels in a row need a blank between.

    Args:
      logits: Floating array `[..., T, K]` of unnormalised scores x, one row per frame;
        -inf is a class of probability 0.
      labels: Integer class ids `[..., N]`, the same leading axes.  A valid label
        outside [0, K), or equal to `blank`, makes the loss of its sequence NaN.
      where: Boolean `[..., T]`, the valid frames, in any pattern: an invalid one is
        skipped, whatever its logits.
      label_where: Boolean `[..., N]`, the valid labels, in any pattern: the labels are
        the valid ones in their order, and an invalid one may be any integer.
      blank: The class id of the blank, a Python integer in [0, K).
      zero_infinity: Whether a sequence that no path fits has loss 0 instead of
        infinity.

    Returns:
      Per-sequence losses >= 0 `[...]` in nats; infinity where no path fits (too few
      frames, or each path has a class of probability 0).  Near 0, where the paths share
      a probability of nearly 1, the absolute error is a few ulps of log K.

    Raises:
      TypeError: If `logits` is not floating, `labels` not integer, a mask not boolean,
        or `blank` not a Python integer.
      ValueError: If the shapes do not fit, or `blank` is not in [0, K).

    Gradient:
      `softmax(x_t)_k - P(path is at k in frame t | labels)`: 0 in an invalid frame, and
      in all frames of a sequence of infinite loss.  In float32 its error is about 1e-4
      after 2000 frames.  Not convex; smooth.

    Use:
      task: sequence
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: no
      when: The labels are in the order of the frames, but it is not known which frame
        has which label, as in speech and handwriting.
      not when: Each position has its label: use `softmax_cross_entropy`.

    Reference:
      Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented
      Sequence Data with Recurrent Neural Networks", ICML 2006.

    Example:
      >>> logits = jnp.zeros((3, 2))  # 6 of the 8 paths of blank and 1 become [1]
      >>> jaxloss.ctc(logits, jnp.array([1]))
      Array(0.2876821, dtype=float32)
    """
    losses, *_ = _forward("ctc", logits, labels, where, label_where, blank)
    return jnp.where(jnp.isposinf(losses), 0, losses) if zero_infinity else losses


@_jit.kernel("blank", ids="labels")
def ctc_forward(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    label_where: ArrayLike | None = None,
    blank: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""CTC and its forward variables; see `ctc` for the arguments.

    .. math::
       \alpha_t^\varnothing(n) = P(\pi_t = \varnothing,\;
           \mathcal{B}(\pi_{1:t}) = y_{1:n}), \quad
       \alpha_t(n) = P(\pi_t = y_n,\; \mathcal{B}(\pi_{1:t}) = y_{1:n})

    Returns:
      The losses `[...]`, `log_alpha_blank` `[..., T, N + 1]` for n = 0 ... N, and
      `log_alpha_label` `[..., T, N]` for n = 1 ... N, where y_n is the n-th valid
      label; -inf beyond the last.  An invalid frame repeats the frame before it.  As
      in optax, the last frame of `log_alpha_blank` is the log probability of the first
      n labels, however the path ends, so that its entry at the number of labels is
      minus the loss.

    Raises:
      TypeError: As `ctc`.
      ValueError: As `ctc`.

    Gradient:
      That of the loss as for `ctc`; the forward variables are differentiable too.

    Reference:
      Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented
      Sequence Data with Recurrent Neural Networks", ICML 2006.

    Example:
      >>> _, blank, label = jaxloss.ctc_forward(jnp.zeros((2, 2)), jnp.array([1]))
      >>> jnp.exp(blank)  # the last frame: nothing in 1 path of 4, [1] in 3
      Array([[0.5 , 0.  ],
             [0.25, 0.75]], dtype=float32)
    """
    return _forward("ctc_forward", logits, labels, where, label_where, blank)


# --- the arguments -----------------------------------------------------------------


class _Sequences(NamedTuple):
    """Frames and labels that are safe to compute with."""

    logits: jax.Array
    """0 in an invalid frame."""
    valid: jax.Array | None
    """The valid frames; None if all are."""
    labels: jax.Array
    """The valid labels first; 0 where they were none."""
    lengths: jax.Array
    """How many labels there are."""
    known: jax.Array
    """Whether all of them are classes other than the blank: otherwise loss NaN."""


def _sequences(
    loss: str,
    logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    label_where: ArrayLike | None,
    blank: int,
) -> _Sequences:
    """Checks and converts the arguments."""
    (x,) = _checks.floating(loss, logits=logits)
    if x.ndim < 2:
        has = f"shape {x.shape}"
        _checks.fail(loss, "logits", has, "at least two axes, frames and classes")
    _check_blank(loss, blank, x.shape[-1])
    y = _checks.class_ids(loss, labels=labels)
    _checks.at_least_1d(loss, labels=y)
    fits = (*x.shape[:-2], y.shape[-1])
    _checks.has_shape(loss, fits, "the leading axes of `logits`", labels=y)
    if where is not None:
        (where,) = _checks.boolean(loss, where=where)
        _checks.has_shape(loss, x.shape[:-1], "one entry per frame", where=where)
        x = jnp.where(where[..., None], x, 0)
    real = jnp.ones_like(y, bool)
    if label_where is not None:
        (real,) = _checks.boolean(loss, label_where=label_where)
        _checks.same_shape(loss, labels=y, label_where=real)
        order = jnp.argsort(~real, axis=-1, stable=True)
        y, real = (jnp.take_along_axis(v, order, axis=-1) for v in (y, real))
    lengths = jnp.sum(real, axis=-1, dtype=jnp.int32)
    known = (y >= 0) & (y < x.shape[-1]) & (y != blank)
    y = jnp.where(known & real, y, 0).astype(jnp.int32)
    return _Sequences(x, where, y, lengths, jnp.all(known | ~real, axis=-1))


def _check_blank(loss: str, blank: int, classes: int) -> None:
    expected = f"a Python integer in [0, {classes}), the class id of the blank"
    if not isinstance(blank, int) or isinstance(blank, bool):
        _checks.wrong_kind(loss, "blank", f"type {type(blank).__name__}", expected)
    if not 0 <= blank < classes:
        _checks.fail(loss, "blank", f"value {blank}", expected)


# --- the recursion -----------------------------------------------------------------


def _forward(
    loss: str,
    logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    label_where: ArrayLike | None,
    blank: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The losses, and the two kinds of forward variables."""
    seq = _sequences(loss, logits, labels, where, label_where, blank)
    blanks, emits, taken, ends = _scan(seq, blank)
    losses = -(_classes.score_of_class(ends, seq.lengths) + taken[-1])
    losses = _classes.nan_unless(seq.known, losses)
    blanks = jnp.concatenate([blanks[:-1], ends[None]])[: len(blanks)]
    offset = taken[1:, ..., None]
    blanks, emits = (jnp.moveaxis(a + offset, 0, -2) for a in (blanks, emits))
    return losses, blanks, emits


# Compiled, or each call that is not would compile the scan, a new function, again.
@functools.partial(jax.jit, static_argnames="blank")
def _scan(seq: _Sequences, blank: int) -> tuple[jax.Array, ...]:
    """The alphas of each frame, less what was taken off them; that; and the ends.

    Taken off is the largest one, or the alphas would grow with the number of frames
    and lose the digits that posteriors are made of: in float32 those of 2000 frames
    are off by about 6e-5 so, and by 6e-4 else.
    """
    to_blank, to_label = _emissions(seq, blank)
    repeats = seq.labels[..., 1:] == seq.labels[..., :-1]
    first = jnp.zeros_like(seq.labels[..., :1], bool)
    repeats = jnp.concatenate([first, repeats], axis=-1)

    def step(alphas, frame):
        to_blank, to_label, valid = frame
        new, largest = _advance(alphas, to_blank, to_label, repeats)
        if valid is not None:
            # Else XLA:CPU computes them again for each of their uses, at half speed.
            new = xla.barrier(new)
            keep = lambda a, old: jnp.where(valid[..., None], a, old)
            new = tuple(map(keep, new, alphas))
            largest = jnp.where(valid, largest, 0)
        return new, (*new, largest)

    # Sums over no frame: zeros that vary over the mesh as the data do, as shard_map
    # asks of what a scan starts from.
    zero, zeros = (jnp.sum(x[:0], axis=0) for x in (to_blank, to_label))
    start = jnp.concatenate([zero, zeros - jnp.inf], axis=-1), zeros - jnp.inf
    valid = None if seq.valid is None else jnp.moveaxis(seq.valid, -1, 0)
    alphas, found = lax.scan(step, start, (to_blank, to_label, valid))
    blanks, emits, largest = found
    # By a tree, whose rounding does not add up over the frames.
    taken = jnp.cumsum(jnp.concatenate([zero[None, ..., 0], largest]), axis=0)
    return blanks, emits, taken, _reach(*alphas)


def _emissions(seq: _Sequences, blank: int) -> tuple[jax.Array, jax.Array]:
    """Log probabilities of the blank and of the labels, frames first."""
    x = seq.logits
    # stable.log_softmax is 0, not -inf, in a row of nothing else.
    log_probs = jnp.where(x == -jnp.inf, -jnp.inf, stable.log_softmax(x))
    # Whole columns are gathered: the transpose adds columns, not single numbers.
    ids = seq.labels[..., None, :]
    at_label = jnp.take_along_axis(log_probs, ids, -1, mode="promise_in_bounds")
    at = lax.broadcasted_iota(jnp.int32, seq.labels.shape, seq.labels.ndim - 1)
    real = at < seq.lengths[..., None]
    at_label = jnp.where(real[..., None, :], at_label, -jnp.inf)
    at_blank = log_probs[..., blank : blank + 1]
    return jnp.moveaxis(at_blank, -2, 0), jnp.moveaxis(at_label, -2, 0)


def _reach(blanks: jax.Array, emits: jax.Array) -> jax.Array:
    """The first n labels are out, and the last of them may have been the last frame."""
    return jnp.concatenate([blanks[..., :1], _add(blanks[..., 1:], emits)], axis=-1)


def _advance(
    alphas: tuple[jax.Array, jax.Array],
    to_blank: jax.Array,
    to_label: jax.Array,
    repeats: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """The alphas one frame later, less the largest before it; and that one."""
    blanks, emits = alphas
    ends = _reach(blanks, emits)
    largest = jnp.max(lax.stop_gradient(ends), axis=-1, keepdims=True)
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    # A label that repeats the one before it needs a blank between.
    before = jnp.where(repeats, blanks[..., :-1], ends[..., :-1])
    after = (_add(emits, before) - largest) + to_label
    return ((ends - largest) + to_blank, after), largest[..., 0]


@jax.custom_jvp
def _add(a: jax.Array, b: jax.Array) -> jax.Array:
    """`log(exp(a) + exp(b))`, with slope 0 where both are -inf."""
    ahead, ratio = _compare(a, b)
    return jnp.where(ahead, a, b) + stable.log1p(ratio)


@_add.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    ahead, ratio = _compare(a, b)
    more, less = 1 / (1 + ratio), ratio / (1 + ratio)
    share_a = jnp.where(a == -jnp.inf, 0, jnp.where(ahead, more, less))
    share_b = jnp.where(b == -jnp.inf, 0, jnp.where(ahead, less, more))
    return _add(a, b), share_a * da + share_b * db


def _compare(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether `a >= b`, and the exponential of the lesser one over that of the other.

    Not by `max` and `abs`, whose slopes at a tie are 1/2 and 1, which do not fit: in a
    scan JAX 0.10 forgets the rule of `_add` on the way to second derivatives.
    """
    both = (a == -jnp.inf) & (b == -jnp.inf)
    gap = jnp.where(both, 0, a) - jnp.where(both, 0, b)  # not NaN
    return gap >= 0, jnp.exp(jnp.where(gap >= 0, -gap, gap))
