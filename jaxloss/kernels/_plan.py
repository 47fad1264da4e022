"""The size of a block: chosen from shapes, while tracing, never by timing."""

from typing import NamedTuple

import jax


class Plan(NamedTuple):
    """How a problem is split into blocks."""

    class_axis: int
    """The axis of the kernel that the classes are along."""
    chunks: int
    """Number of parts of the tokens."""
    classes: int
    """How many classes are in one block."""
    stores: bool
    """Whether a part keeps its logits for the gradient or computes them again."""
    mean_logit: bool
    """Whether the loss depends on the mean of the logits (label smoothing)."""


class _Limits(NamedTuple):
    tokens: int
    """Per part: from here on, larger matrix products are hardly faster."""
    classes: int
    entries: int
    """Of the logits that are in memory at one time."""
    factor: int
    """Entries of a block of the kernel that stays in a cache."""


_CPU = _Limits(tokens=256, classes=1024, entries=2**26, factor=2**19)
_ACCELERATOR = _Limits(tokens=2048, classes=8192, entries=2**28, factor=2**26)
_LEAN_BLOCKS = 64
"""About that many blocks of classes in lean."""
_SMALL = 2**18
"""Entries of logits that need not be cut at all."""


def plan(
    tokens: int,
    features: int,
    classes: int,
    *,
    class_axis: int,
    memory: str,
    block: tuple[int, int] | None,
    cut: bool,
    half: bool,
    mean_logit: bool,
) -> Plan:
    """The plan for a problem of this size.

    `cut` says that its classes are sharded over devices, `half` that the gradient of
    the kernel has 16 bits.
    """
    limits = _CPU if jax.default_backend() == "cpu" else _ACCELERATOR
    # A gradient of 16 bits, summed over parts of the tokens, needs a float32 copy: up
    # to an eighth of what the logits and their gradient would take.
    fast = memory == "fast" or (
        memory == "auto" and (not half or 4 * features <= tokens)
    )
    if block is not None:
        part, width = block
    elif tokens * classes <= _SMALL:
        part, width = tokens, classes
    elif fast or cut:
        part = max(64, min(limits.tokens, limits.entries // classes))
        width = max(512, min(limits.classes, limits.factor // max(features, 1)))
    else:
        part = tokens
        width = max(128, min(limits.classes, limits.entries // 4 // tokens))
        if limits is _ACCELERATOR:
            # A TPU keeps blocks as small as this on the chip.
            width = min(width, max(1024, 128 * (classes // _LEAN_BLOCKS // 128)))
        if half and limits is _CPU:
            # A CPU writes a block into an array of bfloat16 by making all of it anew:
            # fewer blocks, then.
            width = max(width, min(8192, 64 * classes // tokens))
    if cut and block is None:
        width = classes  # or blocks of the kernel would have to be gathered
    return Plan(
        class_axis=class_axis,
        chunks=_parts(tokens, part),
        classes=min(width, classes),
        stores=fast,
        mean_logit=mean_logit,
    )


def for_values(plan: Plan, tokens: int, classes: int) -> Plan:
    """The plan without a gradient: all tokens at once where that is not much."""
    one = plan.classes < classes and tokens * plan.classes <= _CPU.entries // 4
    return plan._replace(chunks=1 if one else plan.chunks, stores=False)


def _parts(tokens: int, size: int) -> int:
    """The number of parts of at most `size` tokens, even ones if it can be.

    At most twice as many as are needed: of a prime number of tokens the last part is
    filled up, for a part of one token would be a product of a matrix and a vector.
    """
    least = max(1, -(-tokens // max(1, size)))
    return next((n for n in range(least, 2 * least) if tokens % n == 0), least)
