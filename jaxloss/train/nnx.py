"""Flax NNX: exact gradients and updates of modules, with their other state.

An objective of a module is `train.objective(fn)`, with fn(model, batch) -> terms, and
all combinators apply.  The other variables of the model (running statistics of
BatchNorm, counters of random streams) change as it runs: they are the carry of the
objective.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.train import _terms, step
from jaxloss.train._optimizers import extra_arguments
from jaxloss.train.objective import Batch, Objective, ObjectiveState
from jaxloss.train.step import AxisName, Evaluation

Evaluate = Callable[[Any, ObjectiveState, Batch], Evaluation]
Step = Callable[
    [Any, nnx.Optimizer, ObjectiveState, Batch],
    tuple[ObjectiveState, dict[str, Any]],
]


def value_and_grad(
    objective: Objective,
    *,
    microbatches: int = 1,
    axis_name: AxisName = None,
    loss_scale: ArrayLike = 1.0,
    wrt: Any = nnx.Param,
) -> Evaluate:
    """`train.value_and_grad` of an NNX module, whose other state it updates.

    Micro-batches run one after the other, like separate calls of the model: each
    updates the running statistics and has its own dropout.  No gradient flows from one
    to the next.  BatchNorm normalises each micro-batch separately; this is a different
    model from one that sees the whole batch, and its gradient is exact.

    With `axis_name`, dropout differs between devices, and the running statistics are
    the mean over devices.  Each device normalises its own examples.  If BatchNorm has
    the same `axis_name`, it normalises those of all devices together, and the gradient
    is exact for that.

    Args:
      objective: `train.objective(fn)`, where `fn` receives the module in place of its
        parameters, and so does `select` of `l2`: use `train.decayed`, or
        `lambda model: nnx.state(model, nnx.Param)`.  The default of `select` would
        include the running statistics.
      microbatches: As in `train.value_and_grad`.
      axis_name: As in `train.value_and_grad`.
      loss_scale: As in `train.value_and_grad`.
      wrt: An NNX filter: the variables to differentiate with respect to.

    Returns:
      (model, state, batch) -> `Evaluation`, whose gradient is an `nnx.State` for
      `nnx.Optimizer`.  The mode of the model does not change: call `model.train()`
      before.  Use `nnx.jit`, because `jax.jit` does not return a changed module.

    Raises:
      TypeError: As `train.value_and_grad`; also, while tracing, if the model changes
        what variables it has, or their shapes or dtypes.
      ValueError: As `train.value_and_grad`; also if `wrt` matches nothing.
      NameError: While tracing, if `axis_name` is not bound.

    Example:
      >>> from flax import nnx
      >>> from jaxloss import train
      >>> from jaxloss.train.nnx import value_and_grad
      >>> def fn(model, batch):
      ...     return {"fit": jaxloss.Mean.of(model(batch) ** 2)}
      >>> fit, norm = train.objective(fn), nnx.BatchNorm(1, rngs=nnx.Rngs(0))
      >>> evaluate = nnx.jit(value_and_grad(fit, microbatches=2))
      >>> found = evaluate(norm, fit.init(), jnp.array([[1.0], [2.0], [3.0], [4.0]]))
      >>> round(float(found.grads["scale"][0]), 3)
      2.0
      >>> round(float(norm.mean[0]), 4)  # 0.99 * 0.01 * 2 + 0.01 * 3
      0.0498
    """
    options: dict[str, Any] = {"axis_name": axis_name, "loss_scale": loss_scale}
    options["microbatches"] = microbatches
    step.value_and_grad(objective, **options)  # raises here, not in the first step

    def evaluate(model: Any, state: ObjectiveState, batch: Batch) -> Evaluation:
        params, pure = _functional(objective, model, wrt, options)
        return _updated(model, pure(params, state, batch))

    return evaluate


def train_step(
    objective: Objective,
    *,
    microbatches: int = 1,
    axis_name: AxisName = None,
    loss_scale: ArrayLike = 1.0,
) -> Step:
    """One training step of a module; use it in `nnx.jit` and donate the state.

    Args:
      objective: As in `value_and_grad`.
      microbatches: As in `train.value_and_grad`.
      axis_name: As in `train.value_and_grad`.
      loss_scale: As in `train.value_and_grad`.

    Returns:
      (model, optimizer, state, batch) -> (state, metrics).  `state` is that of the
      objective, and `optimizer` an `nnx.Optimizer`, whose `wrt` says what is trained.
      Model and optimizer are updated in place.  The metrics are those of the objective
      before the update; "loss" is the minimised value, and "aux" what the function of
      the objective returned beside its terms, if anything.

    Raises:
      TypeError: As `value_and_grad`; also if `optimizer` is not an `nnx.Optimizer`.
      ValueError: As `value_and_grad`.
      NameError: While tracing, if `axis_name` is not bound.

    Example:
      >>> import optax
      >>> from flax import nnx
      >>> from jaxloss import train
      >>> from jaxloss.train.nnx import train_step
      >>> def fn(model, batch):
      ...     return {"fit": jaxloss.Mean.of((model(batch["x"]) - batch["y"]) ** 2)}
      >>> fit, model = train.objective(fn), nnx.Linear(1, 1, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
      >>> step = nnx.jit(train_step(fit), donate_argnums=(0, 1, 2))
      >>> state, x = fit.init(), jnp.array([[-1.0], [1.0]])
      >>> for _ in range(80):
      ...     state, metrics = step(model, optimizer, state, {"x": x, "y": 2 * x})
      >>> round(float(model.kernel[0, 0]), 3)
      2.0
    """
    options: dict[str, Any] = {"axis_name": axis_name, "loss_scale": loss_scale}
    options["microbatches"] = microbatches
    value_and_grad(objective, **options)  # raises here, not in the first step

    def take(
        model: Any, optimizer: nnx.Optimizer, state: ObjectiveState, batch: Batch
    ) -> tuple[ObjectiveState, dict[str, Any]]:
        if not isinstance(optimizer, nnx.Optimizer):
            has = f"type {type(optimizer).__name__}"
            expected = "nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)"
            _checks.wrong_kind("train_step", "optimizer", has, expected)
        # Of the model as it is before it runs: a line search runs it again.
        params, pure = _functional(objective, model, optimizer.wrt, options)
        found = pure(params, state, batch)

        def elsewhere(pure_params: Any) -> tuple[jax.Array, Any]:
            again = pure(_alike(params, pure_params), state, batch)
            return again.loss, _alike(pure_params, again.grads)

        extra = extra_arguments(optimizer.tx, elsewhere, found.loss, found.grads)
        found = _updated(model, found)
        optimizer.update(model, found.grads, **extra)
        return found.state, step.reported("train_step", found, {"loss": found.loss})

    return take


def _functional(
    objective: Objective, model: Any, wrt: Any, options: dict[str, Any]
) -> tuple[Any, Callable[[Any, ObjectiveState, Batch], Evaluation]]:
    """The parameters of a model, and its `train.value_and_grad` as a pure function.

    The carry that comes back is that of the rest of the model and of the objective.
    """
    graph, params, keys, rest = nnx.split(model, wrt, nnx.RngKey, ...)
    if not jax.tree.leaves(params):
        has = f"the value {wrt!r}, which matches no variable"
        _checks.fail("value_and_grad", "wrt", has, "a filter of the parameters")
    own_keys = _of_this_device(keys, options["axis_name"])

    def stats(params: Any, state: ObjectiveState, batch: Batch) -> Any:
        rest, inner = state.carry
        # A copy: the variables of `model` belong to another trace.
        module = nnx.merge(graph, params, own_keys, rest, copy=True)
        found = objective.stats(module, state._replace(carry=inner), batch)
        found, beside = _terms.apart("value_and_grad", found, inner)
        *_, rest = nnx.split(module, wrt, nnx.RngKey, ...)
        return {**found, **_terms.Beside((rest, beside.carry), beside.aux).stats()}

    evaluate = step.value_and_grad(objective._replace(stats=stats), **options)
    return params, lambda params, state, batch: evaluate(
        params, state._replace(carry=(rest, state.carry)), batch
    )


def _updated(model: Any, found: Evaluation) -> Evaluation:
    """The evaluation, after the rest of the model is updated."""
    rest, inner = found.state.carry
    nnx.update(model, rest)
    return found._replace(state=found.state._replace(carry=inner))


def _alike(tree: Any, values: Any) -> Any:
    """The values in the structure of a tree: with or without boxes around arrays."""
    return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(values))


def _of_this_device(keys: Any, axis_name: AxisName) -> Any:
    """Random keys of the device's own: the same dropout on each would be correlated."""
    if axis_name is None:
        return keys
    index = jax.lax.axis_index(axis_name)

    def one(key: jax.Array) -> jax.Array:
        folded = jax.vmap(jax.random.fold_in, (0, None))(key.reshape(-1), index)
        return folded.reshape(key.shape)

    return jax.tree.map(one, keys)
