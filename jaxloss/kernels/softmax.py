"""Softmax cross entropy of given logits: the gradient is computed with the value.

Reverse mode computes the value first; the cotangent of each loss is known only
afterwards.  So the first pass writes the gradient of the mean of the losses, which is
what a training step nearly always needs.  If that was right, which XLA mostly knows
when it compiles, nothing else is read or written; otherwise a second pass writes the
right one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, reduce
from jaxloss.kernels import _blocks, _one_read
from jaxloss.losses.classification import cross_entropy
from jaxloss.stable import labelled, xla


@_jit.kernel(
    "implementation",
    ids="labels",
    left_out={"label_smoothing": 0, "z_loss": 0},
    label_smoothing="[0, 1]",
    z_loss="[0, inf)",
)
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    label_smoothing: float | jax.Array = 0.0,
    z_loss: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
    implementation: str | None = None,
) -> jax.Array:
    r"""Softmax cross entropy and its gradient, in one read of the logits.

    .. math::
       \ell = L - (1-\varepsilon)\, x_y - \varepsilon \bar x + \zeta L^2, \qquad
       L = \log \sum_j e^{x_j}

    The mean of the logits is over the classes that exist.  XLA reads logits three times
    to write their gradient.  A Pallas kernel reads them once, and needs no temporary
    memory.  It is written for TPUs and for NVIDIA GPUs, and is not the default, because
    it has not been timed on a device yet.  On a CPU it is interpreted, which is slow.

    Args:
      logits: Floating array `(..., V)`, the classes last; a class of logit -inf has
        probability 0.  16-bit logits are widened on the chip, and their gradient is
        rounded there.
      labels: Integer class ids in [0, V), of the shape of `logits` without classes.
      where: Boolean mask of the shape of `logits`; a masked class is treated as if its
        logit were -inf.
      label_smoothing: Share epsilon, in [0, 1], of each label that is spread evenly
        over the classes that exist; a number, or one per example.
      z_loss: Coefficient zeta >= 0 of `jaxloss.z_loss`; a number, or one per example.
      weights: The weights of the losses in your mean, of the shape of `labels`; default
        all equal.  They change no result. "pallas" uses them to choose which gradient
        to write in its one read: that of `jaxloss.mean(losses, weights=weights)`.  The
        gradient of any other function of the losses takes a second read and write.
      implementation: `"xla"`, the formulas of `jaxloss`; `"pallas"`, the kernel; `None`
        is `"xla"`.

    Returns:
      One loss >= 0 per example, in nats, at least float32: that of
      `jaxloss.softmax_cross_entropy` plus `z_loss` times that of `jaxloss.z_loss`.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean, or `labels` not
        integer; with "pallas" JAX raises it in forward mode.
      ValueError: If a shape does not match, a Python number is out of range, or
        `implementation` is unknown.

    Gradient:
      With p the softmax, `p - 1[j = y]` plus `eps (1[j = y] - 1 / K)` over the K
      classes that exist, plus `2 zeta L p`; and with respect to both numbers.  With
      "pallas" only in reverse mode; second derivatives are those of "xla".

    Reference:
      Milakov and Gimelshein, "Online Normalizer Calculation for Softmax",
      arXiv:1805.02867, 2018 (the passes); Hsu et al., "Liger Kernel: Efficient Triton
      Kernels for LLM Training", 2024 (the gradient beside the loss).

    Example:
      >>> from jaxloss import kernels
      >>> logits = jnp.array([[2.0, 1.0, 0.1], [20.0, 0.0, 0.0]])
      >>> labels = jnp.array([0, 0])
      >>> kernels.softmax_cross_entropy(logits, labels, implementation="pallas")
      Array([4.1703004e-01, 4.1223074e-09], dtype=float32)
    """
    name = "softmax_cross_entropy"
    _checks.one_of(name, ("xla", "pallas", None), implementation=implementation)
    given, expected = _given(
        name, logits, labels, where, label_smoothing, z_loss, weights
    )
    if implementation != "pallas" or not given.logits.size:
        return _by_xla(given)
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[given.ids.ndim :]), given)
    losses = _by_pallas(*_blocks.varying((rows, expected.ravel()), given, expected))
    return losses.reshape(given.ids.shape)


class _Given(NamedTuple):
    """The arguments, checked; what is left out is None."""

    logits: jax.Array
    """As they are given: bfloat16 is widened on the chip."""
    ids: jax.Array
    mask: jax.Array | None
    label_smoothing: jax.Array | None
    """One per row, as the next one."""
    z_loss: jax.Array | None


def _given(
    name: str,
    logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    label_smoothing: float | jax.Array | None,
    z_loss: float | jax.Array | None,
    weights: ArrayLike | None,
) -> tuple[_Given, jax.Array]:
    """And what the gradient of each row will be multiplied by, as it seems."""
    (x,) = _checks.factors(name, logits=logits)
    _checks.at_least_1d(name, logits=x)
    ids = _checks.class_ids(name, labels=labels)
    _checks.has_shape(name, x.shape[:-1], "one class id per row", labels=ids)
    if where is not None:
        (where,) = _checks.boolean(name, where=where)
        _checks.same_shape(name, logits=x, where=where)
    wide = _checks.wide(x)
    x = x if x.dtype.itemsize > 1 else x.astype(wide)  # which no chip computes with
    like = jnp.zeros(ids.shape, wide)
    if weights is not None:
        (weights,) = _checks.real(name, like, weights=weights)
        _checks.same_shape(name, labels=ids, weights=weights)
        weights = lax.stop_gradient(weights)

    def number(argument: str, value: float | jax.Array | None) -> jax.Array | None:
        if value is None:
            return None
        each = _checks.parameter(name, like, **{argument: value})
        return jnp.broadcast_to(each, like.shape)

    numbers = number("label_smoothing", label_smoothing), number("z_loss", z_loss)
    expected = jax.grad(lambda losses: reduce.mean(losses, weights=weights))(like)
    return _Given(x, ids, where, *numbers), expected


def _by_xla(given: _Given) -> jax.Array:
    x, ids, mask, part, z_loss = given
    part = 0.0 if part is None else part
    losses = cross_entropy.softmax_cross_entropy(
        x, ids, where=mask, label_smoothing=part
    )
    if z_loss is None:
        return losses
    _, z = cross_entropy.softmax_cross_entropy_with_z(x, ids, where=mask)
    return losses + _classes.weighted(z_loss, z)


# --- in one read ---------------------------------------------------------------------


class _Found(NamedTuple):
    """Of each row."""

    losses: jax.Array
    smoothing_slope: jax.Array
    """The derivative in `label_smoothing`."""
    z: jax.Array
    """And in `z_loss`."""


@jax.custom_vjp
def _by_pallas(given: _Given, expected: jax.Array) -> jax.Array:
    return _one_pass(given, None)[0].losses


def _forward(given: _Given, expected: jax.Array) -> tuple:
    found, written = _one_pass(given, expected)
    return found.losses, (given, expected, found, written)


def _backward(kept: tuple, slopes: jax.Array) -> tuple[Any, None]:
    given, expected, found, written = kept
    part = z_loss = None
    if given.label_smoothing is not None:
        part = _classes.weighted(slopes, found.smoothing_slope)
    if given.z_loss is not None:
        z_loss = _classes.weighted(slopes, found.z)
    in_logits = _gradient(given, slopes, expected, written)
    return given._replace(
        logits=in_logits, ids=None, mask=None, label_smoothing=part, z_loss=z_loss
    ), None


_by_pallas.defvjp(_forward, _backward)


@jax.custom_jvp
def _one_pass(
    given: _Given, weights: jax.Array | None
) -> tuple[_Found, jax.Array | None]:
    """And the gradient, each row times its weight, if there are weights."""
    x, ids, mask, part, z_loss = given
    known, ids = labelled.known_ids(x, ids)
    zero = jnp.zeros(ids.shape, _checks.wide(x))
    w = zero if weights is None else weights
    numbers = _one_read.Numbers(
        ids,
        w + xla.nan_unless(known | (w == 0), w),
        zero if part is None else part,
        zero if z_loss is None else z_loss,
    )
    parts = _one_read.Parts(weights is not None, part is not None, z_loss is not None)
    # Not with this module: Pallas is experimental, and loaded in 0.2 seconds.
    from jaxloss.kernels import _pallas

    sums, gradient = _pallas.sums_and_gradient(x, mask, numbers, parts)
    return _found(known, ids, sums, part, z_loss), gradient


def _found(
    known: jax.Array,
    ids: jax.Array,
    sums: _one_read.Sums,
    part: jax.Array | None,
    z_loss: jax.Array | None,
) -> _Found:
    largest, label, others, below, count = sums
    shift = labelled.shift_of(largest, label)
    row = labelled.row_of_sums(known, ids, largest, label, shift, others)
    losses, slope = row.nll(), jnp.zeros_like(label)
    z = slope if z_loss is None else row.squared_logsumexp()
    if part is not None:
        mean_below = below / (count / 2)
        slope = mean_below - (row.below + row.error)
        losses = _classes.mix(part, losses, row.spread(mean_below), slope)
    if z_loss is not None:
        losses += _classes.weighted(z_loss, z)
    return _Found(losses, slope, z)


@_one_pass.defjvp
def _(primals, tangents):
    """Of the gradient there is none: `_gradient` asks for none."""

    def found(given: _Given) -> _Found:
        at = lambda part, z: _by_xla(given._replace(label_smoothing=part, z_loss=z))
        losses, pull = jax.vjp(at, given.label_smoothing, given.z_loss)
        zero = jnp.zeros_like(losses)
        slopes = (zero if s is None else s for s in pull(zero + 1))
        return _Found(losses, *slopes)

    value, written = _one_pass(*primals)
    _, moved = jax.jvp(found, primals[:1], tangents[:1])
    return (value, written), (moved, jax.tree.map(jnp.zeros_like, written))


@jax.custom_jvp
def _gradient(
    given: _Given, slopes: jax.Array, expected: jax.Array, written: jax.Array
) -> jax.Array:
    """The gradient, each row times its slope: `written`, if that is as expected."""
    # Bits: what XLA knows to be one array, it knows to be equal only of integers.  And
    # of a loop that runs 0 times nothing is left, where a choice would copy.
    kind = jnp.dtype(f"int{8 * slopes.dtype.itemsize}")
    bits = lambda x: lax.bitcast_convert_type(x, kind)
    passes = jnp.any(bits(slopes) != bits(expected)).astype(jnp.int32)
    again = lambda _, written: _one_pass(given, slopes)[1]
    return lax.fori_loop(0, passes, again, written)


@_gradient.defjvp
def _(primals, tangents):
    def gradient(given: _Given, slopes: jax.Array) -> jax.Array:
        of_logits = lambda x: _by_xla(given._replace(logits=x))
        return jax.vjp(of_logits, given.logits)[1](slopes)[0]

    _, moved = jax.jvp(gradient, primals[:2], tangents[:2])
    return _gradient(*primals), moved
