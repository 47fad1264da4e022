"""One exact gradient and one training step, however the batch is split.

The chain rule holds across the parts: the sums of all parts are added first, `combine`
is differentiated at the sums of the whole batch, and that gradient is propagated back
through each part.  Nothing is averaged over parts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxloss import _checks, _whole_batch
from jaxloss.train import _terms
from jaxloss.train._devices import AxisName, Devices
from jaxloss.train._optimizers import extra_arguments
from jaxloss.train._parts import Parts
from jaxloss.train._terms import Beside, Terms
from jaxloss.train.objective import (
    Batch,
    Objective,
    ObjectiveState,
    Params,
    expect_objective,
    scalar_and_metrics,
)


class Evaluation(NamedTuple):
    """An objective and its gradient at one batch.

    Attributes:
      loss: The scalar that `combine` returned, at least float32.
      metrics: The dict that `combine` returned.
      grads: The gradient, in the structure, shapes and dtypes of the parameters.
      state: The state of the next step: its count is one higher, its carry is that
        of the last part.
      aux: What the function of the objective returned beside its terms, for all
        examples of this device in their order; None if there is nothing.  No gradient
        flows through it.
    """

    loss: jax.Array
    metrics: dict[str, Any]
    grads: Params
    state: ObjectiveState
    aux: Any = None


def value_and_grad(
    objective: Objective,
    *,
    microbatches: int = 1,
    axis_name: AxisName = None,
    loss_scale: ArrayLike = 1.0,
) -> Callable[[Params, ObjectiveState, Batch], Evaluation]:
    r"""The objective and its exact gradient, however the batch is split.

    .. math:: \nabla_\theta\, C\Big(\sum_p S_p(\theta)\Big)
       = \sum_p \Big(\frac{\partial S_p}{\partial \theta}\Big)^{\!\top} \nabla C

    C is `combine`, S_p are the `stats` of part p, and the gradient of C is that at the
    sums over *all* parts.  If only one number in the sums depends on parameters and
    data, as for one masked mean with or without penalties, its gradient is summed
    together with it: in one pass, with one exchange between devices.  Otherwise the
    sums are exchanged first.  Micro-batches then need a forward pass for them, which
    XLA removes if C is linear in the sums, and keeps for a ratio or learnt weights.

    A carry goes from part to part, in the same way in each pass.  All devices start
    with the same carry and end with the mean of theirs (for integers, such as a
    counter, which should not differ, with the largest).

    Args:
      objective: What to differentiate.
      microbatches: Number K of parts into which the batch is split; they are evaluated
        one after the other, to save memory.  The leading axis of every leaf of the
        batch is split with stride K, so that a batch sharded over devices stays sharded
        in each part.  Pad the last batch with examples of weight 0.
      axis_name: The mesh axes, one name or a tuple, over which the batch is sharded in
        `shard_map`, `pmap` or `vmap`; the parameters must be replicated over them.  All
        results are the same on all devices, except `aux`, which has the examples of the
        device: shard it like the batch.  Omit `axis_name` under plain `jit`, where a
        sharded batch is one global array.
      loss_scale: Multiplies the gradient of `combine` before it is propagated back, so
        that float16 gradients inside the model do not underflow; a power of two is
        exact.  The gradient is divided by it in float32, so the result is unscaled;
        loss and metrics are not scaled.  It may be traced, so that it can adapt.

    Returns:
      (params, state, batch) -> `Evaluation`.  Gradients of half-precision parameters
      are summed in float32 and rounded to their dtype once, at the end.

    Raises:
      TypeError: If an argument has the wrong type, or, while tracing, if a parameter
        is not floating-point.
      ValueError: If `microbatches` < 1 or `loss_scale` <= 0, or, while tracing, if
        the leaves of the batch differ in length, `microbatches` does not divide it,
        one has an integer that JAX would cut to 32 bits, the loss is not a scalar, or
        an array of `aux` in micro-batches has no leading axis of their examples.
      NameError: While tracing, if `axis_name` is not bound.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     losses = (params - batch["y"]) ** 2
      ...     return {"fit": jaxloss.Mean.of(losses, where=batch["mask"])}
      >>> fit = train.objective(fn)
      >>> batch = {"y": jnp.array([1.0, 3.0]), "mask": jnp.array([True, False])}
      >>> evaluate = train.value_and_grad(fit, microbatches=2)
      >>> found = evaluate(jnp.array(2.0), fit.init(), batch)
      >>> found.loss, found.grads
      (Array(1., dtype=float32), Array(2., dtype=float32))
    """
    return differentiated(
        objective,
        microbatches=microbatches,
        axis_name=axis_name,
        loss_scale=loss_scale,
    )


class TrainState(NamedTuple):
    """All that a step changes, in one pytree: donate it, save it, `vmap` over it.

    Attributes:
      params: The parameters.
      opt_state: The state of the optax optimiser.
      objective_state: The state of the objective.
    """

    params: Params
    opt_state: Any
    objective_state: ObjectiveState

    @classmethod
    def init(
        cls,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        params: Params,
    ) -> "TrainState":
        """The state before the first step, with no buffer twice.

        Donating the same buffer twice is an error in JAX, and some optimisers have the
        parameters themselves in their state: those are copied here.
        """
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), params)
        return _distinct(cls(params, optimizer.init(params), objective.init()))


def train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    microbatches: int = 1,
    axis_name: AxisName = None,
    loss_scale: ArrayLike = 1.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """One training step: evaluate, update, apply; jit it, donate the state.

    Args:
      objective: What to minimise.
      optimizer: Any optax transformation that takes one gradient.  If it needs more, it
        gets it for the whole batch, however that is split: `value`, `grad` and
        `value_fn`, as line searches (`optax.lbfgs`), Polyak's step and
        `reduce_on_plateau` need; `grad_fn`, as `optax.contrib.sam`; `obj_fn`, as
        `optax.contrib.sophia`.  These functions start from the carry of this step and
        do not change it.
      microbatches: As in `value_and_grad`.
      axis_name: As in `value_and_grad`.
      loss_scale: As in `value_and_grad`.

    Returns:
      (TrainState, batch) -> (TrainState, metrics).  The metrics are those of the
      objective before the update; "loss" is the minimised scalar, and "aux" what its
      function returned beside the terms, if anything.

    Raises:
      TypeError: If `optimizer` is not an optax transformation; see `value_and_grad`.
      ValueError: See `value_and_grad`.

    Example:
      >>> import optax
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params * batch["x"] - batch["y"]) ** 2)}
      >>> fit, optimizer = train.objective(fn), optax.sgd(0.1)
      >>> step = jax.jit(train.train_step(fit, optimizer), donate_argnums=0)
      >>> state = train.TrainState.init(fit, optimizer, jnp.array(0.0))
      >>> batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([2.0, 4.0])}
      >>> for _ in range(50):
      ...     state, metrics = step(state, batch)
      >>> state.params
      Array(2., dtype=float32)
    """
    optax_transformation("train_step", optimizer)
    evaluate = value_and_grad(
        objective,
        microbatches=microbatches,
        axis_name=axis_name,
        loss_scale=loss_scale,
    )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        found = evaluate(state.params, state.objective_state, batch)
        extra = asked_for(optimizer, evaluate, state.objective_state, batch, found)
        updates, opt_state = optimizer.update(
            found.grads, state.opt_state, state.params, **extra
        )
        params = optax.apply_updates(state.params, updates)
        metrics = reported("train_step", found, {"loss": found.loss})
        return TrainState(params, opt_state, found.state), metrics

    return step


def reported(function: str, found: Any, own: dict[str, Any]) -> dict[str, Any]:
    """What a step returns beside its state: metrics, loss, auxiliary arrays."""
    if found.aux is None:
        return {**found.metrics, **own}
    if "aux" in found.metrics:
        has = "a metric 'aux' beside auxiliary arrays"
        _checks.fail(function, "objective", has, "another name for it")
    return {**found.metrics, **own, "aux": found.aux}


def asked_for(
    optimizer: optax.GradientTransformation,
    evaluate: Callable[[Params, ObjectiveState, Batch], Evaluation],
    state: ObjectiveState,
    batch: Batch,
    found: Evaluation,
    **own: Any,
) -> dict[str, Any]:
    """What an optimiser receives beside the gradient: `extra_arguments` of a batch."""

    def elsewhere(params: Params) -> tuple[jax.Array, Params]:
        again = evaluate(params, state, batch)
        return again.loss, again.grads

    return extra_arguments(optimizer, elsewhere, found.loss, found.grads, **own)


def optax_transformation(function: str, optimizer: Any) -> None:
    """Raises `TypeError` for anything else, such as a learning rate."""
    if not isinstance(optimizer, optax.GradientTransformation):
        has = f"type {type(optimizer).__name__}"
        expected = "an optax transformation, such as optax.adam(1e-3)"
        if isinstance(optimizer, optax.MultiSteps):
            expected += (
                "; MultiSteps averages batches of unequal weight: use microbatches= or "
                "train.accumulate"
            )
        _checks.wrong_kind(function, "optimizer", has, expected)


def differentiated(
    objective: Objective,
    split: Callable[[Terms], Terms] | None = None,
    *,
    microbatches: int,
    axis_name: AxisName,
    loss_scale: ArrayLike,
) -> Callable[[Params, ObjectiveState, Batch], Evaluation]:
    """`value_and_grad`; with one gradient for each row that `split` makes of the slope.

    The slope of `combine` is like the totals.  A split has a leading axis of rows, and
    so have the gradients then.
    """
    expect_objective("value_and_grad", objective)
    _checks.positive_integer("value_and_grad", microbatches=microbatches)
    _checks.number("value_and_grad", "loss_scale", loss_scale, "a positive number")
    _checks.in_interval("value_and_grad", "(0, inf)", loss_scale=loss_scale)
    devices = Devices("value_and_grad", axis_name)

    def stats(
        params: Params, state: ObjectiveState, part: Batch
    ) -> tuple[Terms, Beside]:
        with _whole_batch.part_of_batch(in_time=microbatches > 1, axis_name=axis_name):
            found = objective.stats(params, state, part)
        found, beside = _terms.apart("value_and_grad", found, state.carry)
        return jax.tree.map(_wide_sum, found), beside

    def evaluate(params: Params, state: ObjectiveState, batch: Batch) -> Evaluation:
        params = jax.tree_util.tree_map_with_path(_parameter, params)
        if microbatches > 1:
            batch = _cut(batch, microbatches)

        def combine(totals: Terms) -> tuple[jax.Array, dict]:
            result = objective.combine(state, totals)
            return scalar_and_metrics("value_and_grad", result)

        def slope(totals: Terms) -> Terms:
            slopes, _ = jax.grad(combine, has_aux=True)(totals)
            return jax.tree.map(lambda x: x * _like(x, loss_scale), slopes)

        parts = Parts(stats, slope, split, devices, microbatches)
        totals, grads, beside = parts.evaluate(params, state, batch)
        aux = beside.aux
        if microbatches > 1:
            aux = _joined(aux, batch)
        loss, metrics = combine(totals)
        grads = jax.tree.map(
            lambda p, g: (g / _like(g, loss_scale)).astype(p.dtype), params, grads
        )
        count = optax.safe_increment(state.count)
        state = state._replace(count=count, carry=devices.agree(beside.carry))
        return Evaluation(loss, metrics, grads, state, aux)

    return evaluate


def _cut(batch: Batch, count: int) -> Batch:
    """The parts, along a new leading axis; part k has examples k, k + count, ..."""
    _checks.no_wide_integers("value_and_grad", batch=batch)
    sizes = _sizes(batch)
    (size, *others) = sorted(set(sizes.values()))
    if others:
        has = f"leaves of different lengths, {sizes}"
        _checks.fail("value_and_grad", "batch", has, "as many examples in each")
    if size % count:
        has = f"the value {count}, which does not divide the {size} examples of `batch`"
        expected = "a divisor (pad the batch with examples of weight 0)"
        _checks.fail("value_and_grad", "microbatches", has, expected)
    # Split as (size / count, count), not the other way round, which would move the
    # examples of a batch that is sharded over devices.
    return jax.tree.map(
        lambda x: x.reshape(size // count, count, *x.shape[1:]).swapaxes(0, 1), batch
    )


def _joined(aux: Any, parts: Batch) -> Any:
    """The rows of all parts in the order of the batch: the inverse of `_cut`."""
    count, size, *_ = jax.tree.leaves(parts)[0].shape

    def one(path: tuple, x: jax.Array) -> jax.Array:
        if x.shape[1:2] != (size,):
            where = jax.tree_util.keystr(path) or "its root"
            has = f"shape {x.shape[1:]} at {where}, of micro-batches of {size} examples"
            expected = (
                "a leading axis of examples (a mean over them is train.metric, what "
                "the next part needs is the carry)"
            )
            _checks.fail("value_and_grad", "aux", has, expected)
        return x.swapaxes(0, 1).reshape(count * size, *x.shape[2:])

    return jax.tree_util.tree_map_with_path(one, aux)


def _sizes(batch: Batch) -> dict[str, int]:
    """The number of examples in each leaf, by its path in the batch."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    shapes = {jax.tree_util.keystr(path): jnp.shape(x) for path, x in leaves}
    scalars = [path or "its root" for path, shape in shapes.items() if not shape]
    if scalars or not shapes:
        has = f"a scalar at {', '.join(scalars)}" if scalars else "no arrays"
        expected = "arrays with a leading axis of examples"
        _checks.fail("value_and_grad", "batch", has, expected)
    return {path: shape[0] for path, shape in shapes.items()}


def _parameter(path: tuple, x: Any) -> jax.Array:
    """An array that can be differentiated; raises `TypeError` at any other leaf."""
    dtype = jnp.dtype(float) if isinstance(x, float) else getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        where = jax.tree_util.keystr(path) or "its root"
        has = f"{dtype or type(x).__name__} at {where}"
        expected = "floating-point arrays only (close over what is not trained)"
        _checks.wrong_kind("value_and_grad", "params", has, expected)
    return jnp.asarray(x)


def _wide_sum(x: ArrayLike) -> jax.Array:
    """A sum, at least float32: float16 cannot even count to 2049."""
    return _checks.widened("value_and_grad", stats=x)[0]


def _like(x: jax.Array, number: ArrayLike) -> jax.Array:
    return jnp.asarray(number, x.dtype)


def _distinct(tree: Any) -> Any:
    """The same tree without the same array object twice."""
    seen: set[int] = set()

    def once(x: Any) -> Any:
        if isinstance(x, jax.Array) and id(x) in seen:
            return jnp.copy(x)
        seen.add(id(x))
        return x

    return jax.tree.map(once, tree)
