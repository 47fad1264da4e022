"""The arguments of the kernels of a linear layer: checked, and one row per token."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.kernels import _blocks, _plan
from jaxloss.kernels._head import Head
from jaxloss.stable import sharding

Layout = Literal["dv", "vd"]
Memory = Literal["fast", "lean", "auto"]
AXIS: dict[Layout, int] = {"dv": 1, "vd": 0}
"""Where a kernel has its classes, by its layout."""


class Options(NamedTuple):
    """What is part of the program."""

    layout: Layout
    memory: Memory
    block: tuple[int, int] | None
    implementation: str | None
    cut: bool = False
    """Whether the classes are known to be sharded over devices."""


def classes_are_cut(kernel: ArrayLike, layout: Layout) -> bool:
    """Whether the type of the kernel says that its classes are sharded."""
    entries = sharding.spec(jnp.asarray(kernel))
    return len(entries) == 2 and entries[AXIS.get(layout, 0)] is not None


class Tokens(NamedTuple):
    """Checked arguments, one row per token."""

    hidden: Any
    """0 where the token does not count."""
    kernel: Any
    bias: Any
    ids: Any
    """-1 for a label that is no class; 0 where the token does not count."""
    weights: Any
    shape: tuple[int, ...]
    """The axes of the tokens, before they were made one."""


def tokens_of(
    name: str,
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None,
    weights: ArrayLike | None,
    where: ArrayLike | None,
    layout: Layout,
) -> Tokens:
    x, w, ids = _arrays(name, hidden, kernel, labels, layout)
    classes, wide = w.shape[AXIS[layout]], _checks.wide(x)
    known = (ids >= 0) & (ids < classes)
    counts = jnp.ones(ids.shape, bool)
    if where is not None:
        weighted = name == "linear_softmax_cross_entropy"  # the one with `weights`
        (counts,) = _checks.boolean(name, weighted=weighted, where=where)
        _checks.same_shape(name, labels=ids, where=counts)
    like = jnp.ones(ids.shape, wide)
    if weights is not None:
        (like,) = _checks.real(name, like, weights=weights)
        _checks.same_shape(name, labels=ids, weights=like)
        # As in `Mean.of`: a token of weight 0 is absent where it has no finite loss.
        counts &= (like != 0) | (known & jnp.all(jnp.isfinite(x), axis=-1))
    b = _bias(name, bias, classes, wide)
    if b is not None:
        some = jnp.any(b != -jnp.inf)
        b, counts = jnp.where(some, b, 0), counts & some
    if where is not None or weights is not None:
        x = jnp.where(counts[..., None], x, 0)
    ids = jnp.where(counts, jnp.where(known, ids, -1), 0)
    like = jnp.where(counts, like, 0)
    flat = ids.ravel().astype(jnp.int32), like.ravel()
    return Tokens(x.reshape(-1, x.shape[-1]), w, b, *flat, ids.shape)


def _arrays(
    name: str, hidden: ArrayLike, kernel: ArrayLike, labels: ArrayLike, layout: Layout
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The factors in one dtype, and the class ids."""
    _checks.one_of(name, AXIS, kernel_layout=layout)
    x, w = _checks.factors(name, hidden=hidden, kernel=kernel)
    ids = _checks.class_ids(name, labels=labels)
    _checks.at_least_1d(name, hidden=x)
    features, axis = x.shape[-1], AXIS[layout]
    if w.ndim != 2 or w.shape[1 - axis] != features or not w.shape[axis]:
        shape = f"({features}, classes)" if axis else f"(classes, {features})"
        _checks.fail(
            name, "kernel", f"shape {w.shape}", f"{shape}, kernel_layout={layout!r}"
        )
    _checks.has_shape(name, x.shape[:-1], "one class id per token", labels=ids)
    cut = _blocks.axes(w) - _blocks.axes(x) - _blocks.axes(ids)
    if cut:
        _checks.fail(
            name,
            "kernel",
            f"other values on each device of {sorted(map(str, cut))} and the tokens "
            "not",
            "all classes on each device: gather the kernel, or give the logits of the "
            "local classes to `jaxloss.parallel.softmax_cross_entropy`",
        )
    return x, w, ids


def _bias(
    name: str, bias: ArrayLike | None, classes: int, wide: jnp.dtype
) -> jax.Array | None:
    if bias is None:
        return None
    (b,) = _checks.floating(name, bias=bias)
    _checks.has_shape(name, (classes,), "one number per class", bias=b)
    return b.astype(wide)


def head_of(
    name: str,
    tokens: Tokens,
    soft_cap: float | jax.Array | None,
    temperature: float | jax.Array,
) -> Head:
    like = jnp.zeros((), tokens.weights.dtype)
    cap = number(name, like, soft_cap=soft_cap)
    t = number(name, like, temperature=temperature)
    return Head(tokens.hidden, tokens.kernel, tokens.bias, cap, t)


def number(
    name: str, like: jax.Array, **value: float | jax.Array | None
) -> jax.Array | None:
    """A scalar hyperparameter, or None if its part is left out."""
    ((argument, x),) = value.items()
    return None if x is None else _checks.parameter(name, like, **{argument: x})


def plan_of(
    name: str, head: Head, options: Options, half: bool, mean_logit: bool
) -> _plan.Plan:
    _checks.one_of(name, get_args(Memory), memory=options.memory)
    block = options.block
    if block is not None:
        if not isinstance(block, tuple) or len(block) != 2:
            _checks.fail(name, "block", repr(block), "(tokens, classes)")
        for size in block:
            _checks.positive_integer(name, block=size)
    tokens, features = head.hidden.shape
    axis = AXIS[options.layout]
    return _plan.plan(
        tokens,
        features,
        head.kernel.shape[axis],
        class_axis=axis,
        memory=options.memory,
        block=block,
        cut=options.cut,
        half=half,
        mean_logit=mean_logit,
    )


def is_dense(name: str, options: Options) -> bool:
    """Whether the implementation is the formula of all logits at once."""
    given = options.implementation or "xla"
    _checks.one_of(name, ("xla", "dense"), implementation=given)
    return given == "dense"
