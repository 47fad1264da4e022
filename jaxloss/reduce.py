"""Reductions of per-example losses to a scalar, with weights and masks.

Every reduction is a quotient of two sums.  `Mean` stores both sums, which are added
over micro-batches, devices, hosts and evaluation batches; you divide once, at the end.
A mean of means is a different, wrong number as soon as masks differ.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.stable import xla

Axis = int | tuple[int, ...] | None
Denominator = Literal["weights", "valid", "count"]
_NOT_GIVEN: Any = object()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """An unnormalised mean: the sums `total` and `weight`, at least float32.

    `a + b` is the mean over both sets of examples.  A `Mean` is a pytree, so it passes
    through `jit`, `scan`, `psum` and `tree.map(jnp.add, ...)`.

    Each sum has a `rest`, the rounding error of its additions, so that a million
    additions are as accurate as one (float32 cannot count past 2^24).  The rest is 0 if
    it is not given, as in an old checkpoint.

    Example:
      >>> first = jaxloss.Mean.of(jnp.array([1.0, 2.0]))
      >>> second = jaxloss.Mean.of(jnp.array([6.0]))
      >>> (first + second).compute()
      Array(3., dtype=float32)
    """

    total: jax.Array
    weight: jax.Array
    total_rest: jax.Array = dataclasses.field(default=_NOT_GIVEN, repr=False)
    weight_rest: jax.Array = dataclasses.field(default=_NOT_GIVEN, repr=False)

    def __post_init__(self) -> None:
        for rest, whole in (("total_rest", self.total), ("weight_rest", self.weight)):
            if getattr(self, rest) is _NOT_GIVEN:
                object.__setattr__(self, rest, _no_rest(whole))

    @classmethod
    def of(
        cls,
        losses: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        where: ArrayLike | None = None,
        axis: Axis = None,
        denominator: Denominator = "weights",
    ) -> "Mean":
        """The mean of `losses`; see `jaxloss.mean` for the arguments."""
        return _mean_of(
            losses, weights=weights, where=where, axis=axis, denominator=denominator
        )

    @classmethod
    def constant(cls, value: ArrayLike) -> "Mean":
        """A quantity that is the same for every batch, such as a weight penalty.

        Inside an objective it is counted once, however the batch is split: total and
        weight grow alike, and their quotient stays the same.  For a quantity of the
        batch that is not a mean over its examples, such as the load-balancing loss of a
        mixture of experts, use `Mean.per_batch`.
        """
        return _constant(value)

    @classmethod
    def per_batch(cls, value: ArrayLike) -> "Mean":
        """A quantity of a whole batch that is not a mean over its examples.

        Examples are the load-balancing loss of a router, or a distance between moments.
        The quantity is averaged over the parts that it is computed from: micro-batches,
        devices and batches count once each, whatever their number of tokens, so a
        coefficient has the same meaning for any number of parts.  The value of a part
        may differ from that of the whole batch.  Where that matters, use the sums that
        it is made of as terms, and compute it in the `combine` of an objective.

        Example:
          >>> loads = [jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])]
          >>> parts = [jaxloss.Mean.per_batch(2 * jnp.sum(x * x)) for x in loads]
          >>> sum(parts).compute()
          Array(1.5, dtype=float32)
        """
        return _per_batch(value)

    def __add__(self, other: "Mean") -> "Mean":
        if not isinstance(other, Mean):
            return NotImplemented
        return _added(self, other)

    def __radd__(self, other: int) -> "Mean":
        # So that the built-in `sum`, which starts from 0, works on Means.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def compute(self) -> jax.Array:
        """`total / weight`, and 0 with gradient 0 where the weight is 0."""
        return _computed(self)


@_jit.kernel("axis", "denominator")
def mean(
    losses: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    axis: Axis = None,
    denominator: Denominator = "weights",
) -> jax.Array:
    r"""Weighted mean over the elements that are not masked.

    .. math:: \frac{\sum_i m_i w_i \ell_i}{\sum_i m_i w_i}, \qquad 0 \text{ if the
       denominator is } 0

    Args:
      losses: Per-example losses, any shape.
      weights: Weights w >= 0, same shape as `losses`; default all ones.  A weight of 0
        removes an example, even if its loss is NaN or infinite.
      where: Boolean mask m, same shape as `losses`; default all true.
      axis: The axis or axes to average over; default all.
      denominator: What the sum is divided by.  `"weights"`: the sum of the weights of
        the elements that are not masked (scale-free: weight 2 means two copies).
        `"valid"`: the number of elements that are not masked.  `"count"`: the number of
        all elements.

    Returns:
      The mean, at least float32.  Half precision cannot count past 2048 (float16) or
      256 (bfloat16), so sums are computed and returned in float32.

    Raises:
      TypeError: If `where` is not boolean or `losses` is not real.
      ValueError: If a shape differs from that of `losses`, `axis` is not an axis of
        `losses`, or `denominator` is another string.

    Gradient:
      `m w / denominator` with respect to each loss; 0 where the mask is false.

    Example:
      >>> losses = jnp.array([1.0, 2.0, jnp.nan])
      >>> jaxloss.mean(losses, where=jnp.array([True, True, False]))
      Array(1.5, dtype=float32)
    """
    return _quotient(_of("mean", losses, weights, where, axis, denominator))


@_jit.kernel("axis")
def sum(
    losses: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    axis: Axis = None,
) -> jax.Array:
    """Weighted sum of the elements not masked; see `mean` for the arguments.

    Example:
      >>> jaxloss.sum(jnp.array([1.0, 2.0]), weights=jnp.array([1.0, 3.0]))
      Array(7., dtype=float32)
    """
    return _of("sum", losses, weights, where, axis, "weights").total


@_jit.kernel("axis")
def mean_nonzero(
    losses: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    axis: Axis = None,
) -> jax.Array:
    """Mean over the losses that are not 0; see `mean` for the arguments.

    This is the convention of metric learning, where most triplets satisfy their margin
    and would make an ordinary mean small.

    Reference:
      Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification",
      2017.

    Example:
      >>> jaxloss.mean_nonzero(jnp.array([0.0, 0.0, 3.0, 1.0]))
      Array(2., dtype=float32)
    """
    (losses,) = _checks.widened("mean_nonzero", losses=losses)
    active = losses != 0  # not > 0: NaN must come out, not vanish
    if where is not None:
        (where,) = _checks.boolean("mean_nonzero", weighted=True, where=where)
        _checks.same_shape("mean_nonzero", losses=losses, where=where)
        active &= where
    return _quotient(_of("mean_nonzero", losses, weights, active, axis, "weights"))


@_jit.kernel("k", "axis")
def top_k_mean(
    losses: ArrayLike,
    k: int,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    axis: int | None = None,
) -> jax.Array:
    """Mean over the `k` largest losses: online hard example mining.

    Args:
      losses: Per-example losses, any shape.
      k: How many losses to keep, a Python integer >= 1; all of them, if fewer are not
        masked.  A NaN ranks as the largest loss, whatever its sign: its example has
        diverged.
      weights: Weights >= 0 of the losses that are kept, same shape as `losses`.
      where: Boolean mask, same shape as `losses`; a masked loss is never kept.
      axis: The axis along which losses are chosen; default: choose among all.

    Returns:
      The mean over the kept losses, at least float32; 0 if all are masked.

    Raises:
      TypeError: If `k` is not a Python integer or `where` is not boolean.
      ValueError: If `k` < 1, a shape differs, or `axis` is not an axis of `losses`.

    Gradient:
      `w / sum(w kept)` for a kept loss, 0 for the others.

    Reference:
      Shrivastava et al., "Training Region-based Object Detectors with Online Hard
      Example Mining", CVPR 2016.

    Example:
      >>> jaxloss.top_k_mean(jnp.array([1.0, 5.0, 3.0]), 2)
      Array(4., dtype=float32)
    """
    _checks.positive_integer("top_k_mean", k=k)
    losses, weights, where = _parts("top_k_mean", losses, weights, where)
    if axis is None:
        losses, weights, where = losses.ravel(), weights.ravel(), where.ravel()
    else:
        axis = _checks.one_axis("top_k_mean", axis, losses=losses)
        losses, weights, where = (
            jnp.moveaxis(x, axis, -1) for x in (losses, weights, where)
        )
    # `inf - inf` is a NaN with its sign bit set on x86, which sorts below -inf.
    diverged = jnp.isnan(losses)
    ranked = jnp.where(diverged, jnp.inf, losses)
    # A masked loss comes after every other one, one of -inf included.
    least = float(jnp.finfo(losses.dtype).min)
    ranked = jnp.where(where, jnp.maximum(ranked, least), -jnp.inf)
    _, kept = jax.lax.top_k(jax.lax.stop_gradient(ranked), min(k, losses.shape[-1]))
    counts = diverged & (weights != 0)  # and not one that has a rank beside infinity
    losses, weights, where = (
        jnp.take_along_axis(x, kept, axis=-1) for x in (losses, weights, where)
    )
    mean = _quotient(_of("top_k_mean", losses, weights, where, -1, "weights"))
    return mean + xla.nan_unless(~jnp.any(counts, axis=-1), mean)


@_jit.kernel(beta="[0, 1]")
def class_weights(counts: ArrayLike, *, beta: float | jax.Array) -> jax.Array:
    r"""Weights of classes by their effective numbers of examples, of mean 1.

    Also called: class-balanced weights, effective number of samples, inverse frequency.

    .. math:: w_k \propto \frac{1 - \beta}{1 - \beta^{n_k}}

    Args:
      counts: Numbers n >= 0 of examples, with the classes along the last axis; integers
        or floating.
      beta: A number in [0, 1], or one per class: 0 gives all classes the same weight, 1
        the inverse of their frequency, which is the limit.  In float32 a beta near 1 is
        rounded to a multiple of 6e-8.

    Returns:
      The weights, of the shape of `counts` and at least float32.  Their mean over the
      classes that have examples is 1; a class without any has the weight 0.

    Raises:
      TypeError: If `counts` is not real.
      ValueError: If `counts` is a scalar or has no class, or `beta` is a Python number
        outside [0, 1].

    Reference:
      Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.

    Example:
      >>> weights = jaxloss.class_weights(jnp.array([90, 10, 0]), beta=0.99)
      >>> weights
      Array([0.27679792, 1.7232021 , 0.        ], dtype=float32)
      >>> jaxloss.mean(jnp.array([1.0, 2.0]), weights=weights[jnp.array([0, 1])])
      Array(1.8616011, dtype=float32)
    """
    (n,) = _checks.widened("class_weights", counts=counts)
    _checks.at_least_1d("class_weights", counts=n)
    _checks.row_axis("class_weights", -1, "class", counts=n)
    beta = _checks.parameter("class_weights", n, beta=beta)
    present = n > 0
    n = jnp.where(present, n, 1)
    # By powers where beta is small, which have a slope at 0; n at beta = 1.
    low = beta < 0.5
    small, log = jnp.where(low, beta, 0), jnp.log(jnp.where(low, 1, beta))
    number = stable.boxcox(n, log) / stable.boxcox(jnp.ones_like(n), log)
    number = jnp.where(low, (1 - jnp.power(small, n)) / (1 - small), number)
    weights = jnp.where(present, 1 / number, 0)
    count = jnp.sum(present, axis=-1, keepdims=True, dtype=n.dtype)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights * stable.safe_divide(count, total)


def fill(where: ArrayLike, *arrays: ArrayLike, value: float = 0.0) -> list[jax.Array]:
    """Replaces masked entries of each array *before* a loss sees them.

    This is needed because reverse mode multiplies: if an entry is masked only after the
    loss, its cotangent 0 is multiplied by the NaN derivative of a NaN input, which
    gives NaN.

    Args:
      where: Boolean mask over the leading axes of the arrays.
      *arrays: Predictions, targets, ...; each of shape `where.shape + (...)`.
      value: The replacement: 0, unless the loss is undefined at 0.

    Returns:
      The arrays in the same order, with their dtypes.

    Raises:
      TypeError: If `where` is not boolean.
      ValueError: If the shape of an array does not begin with that of `where`.

    Example:
      >>> mask = jnp.array([True, False])
      >>> jaxloss.fill(mask, jnp.array([[1.0, 2.0], [jnp.nan, 3.0]]))
      [Array([[1., 2.],
             [0., 0.]], dtype=float32)]
    """
    return _fill(where, arrays, value=value)


@_jit.kernel(trees=("arrays",), value="[-inf, inf]")
def _fill(
    where: ArrayLike, arrays: Sequence[ArrayLike], *, value: float
) -> list[jax.Array]:
    (where,) = _checks.boolean("fill", where=where)
    filled = []
    for x in map(jnp.asarray, arrays):
        if x.shape[: where.ndim] != where.shape:
            _checks.fail(
                "fill",
                "arrays",
                f"an array of shape {x.shape}",
                f"shapes that begin with {where.shape}, the shape of `where`",
            )
        keep = where.reshape(where.shape + (1,) * (x.ndim - where.ndim))
        filled.append(jnp.where(keep, x, jnp.asarray(value, x.dtype)))
    return filled


@_jit.kernel("axis", "denominator")
def _mean_of(
    losses: ArrayLike,
    *,
    weights: ArrayLike | None,
    where: ArrayLike | None,
    axis: Axis,
    denominator: Denominator,
) -> Mean:
    return _of("Mean.of", losses, weights, where, axis, denominator)


@_jit.kernel()
def _constant(value: ArrayLike) -> Mean:
    (total,) = _checks.widened("Mean.constant", value=value)
    return Mean(total, jnp.ones_like(total))


@_jit.kernel()
def _per_batch(value: ArrayLike) -> Mean:
    (total,) = _checks.widened("Mean.per_batch", value=value)
    return Mean(total, jnp.ones_like(total))


def _no_rest(whole: Any) -> Any:
    """0 beside a number; None beside what stands for one, as a gradient may."""
    if isinstance(whole, jax.Array | np.ndarray | np.number | int | float):
        return jnp.zeros_like(_checks.array("Mean", "total", whole))
    return None


@jax.jit
def _added(a: Mean, b: Mean) -> Mean:
    total, total_rest = _sum_of(a.total, a.total_rest, b.total, b.total_rest)
    weight, weight_rest = _sum_of(a.weight, a.weight_rest, b.weight, b.weight_rest)
    return Mean(total, weight, total_rest, weight_rest)


def _sum_of(
    a: ArrayLike, a_rest: ArrayLike, b: ArrayLike, b_rest: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    parts = _checks.widened("Mean", a=a, a_rest=a_rest, b=b, b_rest=b_rest)
    return stable.compensated_sum(*parts)


def _quotient(mean: Mean) -> jax.Array:
    total, weight = mean.total + mean.total_rest, mean.weight + mean.weight_rest
    empty = weight == 0
    weight = jnp.where(empty, jnp.ones_like(weight), weight)
    # Of a constant, such as the size of a batch, XLA would multiply by the reciprocal.
    quotient = total / xla.barrier(weight)
    return jnp.where(empty, jnp.zeros_like(quotient), quotient)


_computed = jax.jit(_quotient)


def _of(
    name: str,
    losses: ArrayLike,
    weights: ArrayLike | None,
    where: ArrayLike | None,
    axis: Axis,
    denominator: Denominator,
) -> Mean:
    _checks.one_of(name, get_args(Denominator), denominator=denominator)
    (losses,) = _checks.widened(name, losses=losses)
    for a in () if axis is None else (axis,) if isinstance(axis, int) else axis:
        _checks.one_axis(name, a, losses=losses)
    size = _checks.count(losses.shape, axis)
    if weights is None and where is None:  # all the same: a short program
        total = jnp.sum(losses, axis=axis)
        return Mean(total, jnp.full_like(total, size))
    losses, weights, where = _parts(name, losses, weights, where)
    # An example of weight 0 is absent, so its NaN must not survive as 0 * NaN; but a
    # finite loss stays in the product, or a learnt weight would lose its gradient.
    absent = (weights == 0) & ~jnp.isfinite(losses)
    total = jnp.sum(weights * jnp.where(absent, 0, losses), axis=axis)
    if denominator == "weights":
        return Mean(total, jnp.sum(weights, axis=axis))
    if denominator == "valid":
        return Mean(total, jnp.sum(where, axis=axis, dtype=total.dtype))
    return Mean(total, jnp.full_like(total, size))


def _parts(
    name: str, losses: ArrayLike, weights: ArrayLike | None, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Losses and weights, widened, and 0 where masked; and the mask."""
    (losses,) = _checks.widened(name, losses=losses)
    if weights is None:
        weights = jnp.ones_like(losses)
    (weights,) = _checks.real(name, losses, weights=weights)
    if where is None:
        where = jnp.ones_like(losses, bool)
    (where,) = _checks.boolean(name, weighted=True, where=where)
    _checks.same_shape(name, losses=losses, weights=weights, where=where)
    losses, weights = _fill(where, (losses, weights), value=0.0)
    return losses, weights, where
