"""Exact sums over batches that come one after the other.

`optax.MultiSteps` averages the gradients of batches, as if all had the same number of
unmasked examples.  Here the unnormalised sums of the terms and of their gradients are
added.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxloss import _checks, _whole_batch, stable
from jaxloss.reduce import Mean
from jaxloss.train import _results, _terms
from jaxloss.train._devices import AxisName, Devices, widened
from jaxloss.train._parts import reached
from jaxloss.train._terms import Terms
from jaxloss.train.objective import (
    Batch,
    Objective,
    ObjectiveState,
    Params,
    expect_objective,
    scalar_and_metrics,
)
from jaxloss.train.step import Evaluation, _wide_sum


class Accumulator(NamedTuple):
    """Sums over the batches so far; a plain pytree.

    Attributes:
      totals: The sums of the objective's `stats`.
      slopes: For each array of `totals` its gradient, with the axes of the array first;
        None if it does not depend on the parameters, as the weight of a mean.
      rests: For each array of both, the rounding error of its additions; None for no
        error, as in a checkpoint of an older version, from which you make
        `Accumulator(totals, slopes)`.
    """

    totals: Terms
    slopes: Any
    rests: Any = None


Add = Callable[[Params, ObjectiveState, Batch, Accumulator | None], Accumulator]
Finish = Callable[[Params, ObjectiveState, Accumulator], Evaluation]


def accumulate(
    objective: Objective, *, axis_name: AxisName = None
) -> tuple[Add, Finish]:
    r"""The exact gradient over several batches, for any `combine`.

    .. math:: \nabla_\theta\, C\Big(\sum_b S_b(\theta)\Big)
       = \sum_k \frac{\partial C}{\partial S_k} \sum_b \nabla S_{b,k}(\theta)

    Sums are stored with their rounding errors (twice the digits, and twice the memory),
    so that a million batches are as accurate as one.

    Keep the parameters fixed from the first `add` to `finish`.  If the batches fit into
    memory together, `value_and_grad(microbatches=)` needs less memory.  Here every
    number k that depends on the parameters has its own gradient: one per term for
    means, three per class for a Dice coefficient.

    Args:
      objective: What to differentiate.
      axis_name: As in `value_and_grad`; `finish` sums over devices, once.

    Returns:
      Two pure functions.  `add(params, state, batch, sums)` returns an `Accumulator`;
      pass `sums=None` for the first batch.  `finish(params, state, sums)` returns an
      `Evaluation`, whose `aux` is None, because arrays of examples are not sums.

    Raises:
      TypeError: If `objective` is not an `Objective`.
      ValueError: From `add`, if the objective has a carry.
      NameError: From either function, while tracing, if `axis_name` is not bound.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params - batch) ** 2)}
      >>> fit = train.objective(fn)
      >>> add, finish = train.accumulate(fit)
      >>> params, state, sums = jnp.array(0.0), fit.init(), None
      >>> for batch in (jnp.array([1.0, 2.0, 3.0]), jnp.array([6.0])):
      ...     sums = add(params, state, batch, sums)
      >>> finish(params, state, sums).grads  # -2 times the mean of the four
      Array(-6., dtype=float32)
    """
    expect_objective("accumulate", objective)
    devices = Devices("accumulate", axis_name)

    def add(
        params: Params,
        state: ObjectiveState,
        batch: Batch,
        sums: Accumulator | None = None,
    ) -> Accumulator:
        if state.carry is not None:
            has = "a carry, which cannot be passed from batch to batch"
            expected = "none (use value_and_grad with microbatches=)"
            _checks.fail("accumulate", "state", has, expected)

        def stats(params: Params) -> Terms:
            # A part of what the optimiser sees as one batch, as a micro-batch is.
            with _whole_batch.part_of_batch(in_time=True, axis_name=axis_name):
                found = objective.stats(params, state, batch)
            found, _ = _terms.apart("accumulate", found, None)
            return devices.vary(jax.tree.map(_wide_sum, found))

        new = _with_slopes(stats, devices.vary(params))
        return _sum(devices, sums, new)

    def finish(params: Params, state: ObjectiveState, sums: Accumulator) -> Evaluation:
        def combine(totals: Terms) -> tuple[jax.Array, dict]:
            return scalar_and_metrics("accumulate", objective.combine(state, totals))

        totals = devices.add(sums.totals)
        loss, metrics = combine(totals)
        slopes, _ = jax.grad(combine, has_aux=True)(totals)
        grads = devices.add(_pulled(devices.vary(slopes), sums.slopes, params))
        grads = jax.tree.map(lambda p, g: g.astype(jnp.asarray(p).dtype), params, grads)
        count = optax.safe_increment(state.count)
        return Evaluation(loss, metrics, grads, state._replace(count=count))

    return add, finish


def evaluate(
    objective: Objective,
    params: Params,
    state: ObjectiveState,
    batches: Iterable[Batch],
) -> tuple[jax.Array, dict[str, Any]]:
    """Loss and metrics of a whole data set: sums are added, not means.

    The sums are added on the host in float64, so any number of batches is accurate.

    Args:
      objective: Any objective.
      params: Its parameters.
      state: Its state; every batch sees the same carry, and changes to it are dropped.
      batches: The batches.  Each new shape is compiled, so give all the same shape: see
        `pad_batch`.

    Returns:
      What `combine` makes of the sums: the loss, and the metrics by name.  What the
      function of the objective returned beside its terms is dropped.

    Raises:
      ValueError: If there is no batch, or one has an integer that JAX would cut to 32
        bits, such as a hashed id.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params - batch) ** 2)}
      >>> fit, batches = train.objective(fn), (jnp.array([1.0, 1.0]), jnp.array([4.0]))
      >>> train.evaluate(fit, jnp.array(1.0), fit.init(), batches)[1]
      {'fit': Array(3., dtype=float32)}
    """
    stats = jax.jit(objective.stats)
    totals: Any = None
    waiting: Any = None
    for batch in batches:
        _checks.no_wide_integers("evaluate", batches=batch)
        found, _ = _terms.apart("evaluate", stats(params, state, batch), state.carry)
        # Added while the device computes those of the next batch.
        totals, waiting = _on_host(totals, waiting), jax.tree.map(_wide_sum, found)
    if waiting is None:
        _checks.fail("evaluate", "batches", "no batch", "at least one")
    like, totals = waiting, _on_host(totals, waiting)
    totals = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), totals, like)
    return scalar_and_metrics("evaluate", objective.combine(state, totals))


def _on_host(totals: Terms | None, new: Terms | None) -> Terms | None:
    """The sums so far, in float64: those of float32 would stall at 2^24."""
    if new is None:
        return totals
    try:
        new = jax.tree.map(lambda x: np.asarray(x, np.float64), new)
        is_leaf = None
    except jax.errors.TracerArrayConversionError:  # inside of a compiled function
        is_leaf = _is_mean
    if totals is None:
        return new
    return jax.tree.map(operator.add, totals, new, is_leaf=is_leaf)


def pad_batch(batch: Batch, size: int) -> tuple[Batch, np.ndarray]:
    """Pads the last batch to full size, and returns a mask of its examples.

    Every batch then has the same shape, and a step is compiled once.  The padding is
    copies of the first example: valid input, so nothing in the model becomes NaN.
    Mask it with `Mean.of(..., where=)`.

    Args:
      batch: A pytree of arrays with a leading axis of examples, at least one.
      size: The number of examples of the result.

    Returns:
      The batch in NumPy arrays of `size` examples, and a boolean mask `[size]`.

    Raises:
      TypeError: If `size` is not a Python integer.
      ValueError: If the leaves differ in length, are empty, or are longer than `size`.

    Example:
      >>> from jaxloss import train
      >>> batch, real = train.pad_batch({"x": np.array([3.0, 5.0])}, 4)
      >>> batch["x"], real
      (array([3., 5., 3., 3.]), array([ True,  True, False, False]))
    """
    _checks.positive_integer("pad_batch", size=size)
    lengths = sorted({np.shape(x)[:1] for x in jax.tree.leaves(batch)})
    if len(lengths) != 1 or lengths[0] in ((), (0,)) or lengths[0] > (size,):
        has = f"leaves of lengths {[n[0] if n else None for n in lengths]}"
        _checks.fail("pad_batch", "batch", has, f"one length from 1 to size={size}")
    rows = np.arange(size)
    real = rows < lengths[0]
    return jax.tree.map(lambda x: np.asarray(x)[np.where(real, rows, 0)], batch), real


def _with_slopes(stats: Callable[[Params], Terms], params: Params) -> Accumulator:
    """The totals of one batch, and the gradient of each number in them."""
    totals, pull = jax.vjp(stats, params)
    leaves, structure = jax.tree.flatten(totals)

    apart = any(_results.adapted(totals))

    def slopes(at: int) -> Params:
        """Of one array in the totals, its axes first."""
        shape, size = leaves[at].shape, leaves[at].size
        if apart:  # a slope of 0 may become NaN in a loss that is not ours
            _, alone = jax.vjp(
                lambda params: jax.tree.leaves(stats(params))[at], params
            )

        def one(direction: jax.Array) -> Params:
            if apart:
                return jax.tree.map(widened, alone(direction)[0])
            cotangent = [jnp.zeros_like(x) for x in leaves]
            cotangent[at] += direction
            return jax.tree.map(widened, pull(structure.unflatten(cotangent))[0])

        eye = jnp.eye(size, dtype=leaves[at].dtype).reshape(size, *shape)
        jacobian = jax.vmap(one)(eye)
        return jax.tree.map(lambda x: x.reshape(shape + x.shape[1:]), jacobian)

    jaxpr = jax.make_jaxpr(stats)(params).jaxpr
    moving = reached(jaxpr, jaxpr.invars, with_slope=True)
    counts = _results.counts(totals)
    found = [
        _results.zero_unless(counts[at], slopes(at)) if moves else None
        for at, moves in enumerate(moving)
    ]
    return Accumulator(totals, structure.unflatten(found))


def _sum(devices: Devices, sums: Accumulator | None, new: Accumulator) -> Accumulator:
    """The sum of both, and its rounding error."""
    nothing = lambda tree: devices.vary(jax.tree.map(jnp.zeros_like, tree))
    if sums is None:
        return new._replace(rests=nothing(new[:2]))
    # The rests of a mean are constants, and so they were without a rest.
    slopes = jax.tree.map(_without_rests, sums.slopes, is_leaf=_is_mean)
    old = sums.totals, slopes
    rests = nothing(old) if sums.rests is None else sums.rests
    pairs = jax.tree.map(
        lambda a, rest, b: stable.compensated_sum(a, rest, b, jnp.zeros_like(b)),
        *(old, rests, new[:2]),
    )
    (totals, slopes), rests = jax.tree.transpose(
        jax.tree.structure(old), jax.tree.structure((0, 0)), pairs
    )
    return Accumulator(totals, slopes, rests)


def _is_mean(x: Any) -> bool:
    return isinstance(x, Mean)


def _without_rests(x: Any) -> Any:
    none = {"total_rest": None, "weight_rest": None}
    return dataclasses.replace(x, **none) if _is_mean(x) else x


def _pulled(weights: Terms, slopes: Any, params: Params) -> Params:
    """The weighted sum of the gradients of all numbers."""
    total = jax.tree.map(lambda p: jnp.zeros_like(widened(jnp.asarray(p))), params)
    leaves, structure = jax.tree.flatten(weights)
    for weight, slope in zip(leaves, structure.flatten_up_to(slopes), strict=True):
        if slope is not None:
            add = lambda t, g, w=weight: t + jnp.tensordot(w.astype(g.dtype), g, w.ndim)
            total = jax.tree.map(add, total, slope)
    return total
