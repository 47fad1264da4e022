"""One exact gradient per task, and a step for optimisers that need them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.train import _results, _terms, step
from jaxloss.train._terms import Terms
from jaxloss.train.objective import (
    Batch,
    Objective,
    ObjectiveState,
    Params,
    expect_objective,
    scalar_and_metrics,
)
from jaxloss.train.step import AxisName, TrainState


class TaskEvaluation(NamedTuple):
    """An objective at one batch, with one gradient per task.

    Attributes:
      loss: The scalar that `combine` returned, at least float32.
      metrics: The dict that `combine` returned.
      losses: The mean of each task over the whole batch, unweighted: `[tasks]`.
      grads: The gradient of each task: like the parameters, with a leading axis.
      rest: The gradient of all terms that are not tasks, such as a penalty; None if
        there are none.
      state: The state of the next step.
      aux: As in `Evaluation`.
    """

    loss: jax.Array
    metrics: dict[str, Any]
    losses: jax.Array
    grads: Params
    rest: Params | None
    state: ObjectiveState
    aux: Any = None


def task_gradients(
    objective: Objective,
    terms: Sequence[str],
    *,
    microbatches: int = 1,
    axis_name: AxisName = None,
    loss_scale: ArrayLike = 1.0,
) -> Callable[[Params, ObjectiveState, Batch], TaskEvaluation]:
    r"""The exact gradient of `value_and_grad`, task by task.

    .. math:: \nabla_\theta\, C(S_1, S_2, \ldots)
       = \sum_k \frac{\partial C}{\partial S_k} \nabla_\theta S_k

    Row k is the k-th summand.  For a sum of means it is the gradient of the weighted
    mean of that term over the *whole* batch, with its own mask, however the batch is
    split.  The sum of the rows and `rest` is the gradient of the objective, for any
    `combine`.  The cost is one forward pass and one backward pass per task.

    Args:
      objective: What to differentiate.
      terms: The names of the terms that are tasks, in the order of the rows; each must
        be a `Mean`.
      microbatches: As in `value_and_grad`.
      axis_name: As in `value_and_grad`.
      loss_scale: As in `value_and_grad`.

    Returns:
      (params, state, batch) -> `TaskEvaluation`.

    Raises:
      TypeError: If `terms` is a string, or, while tracing, if a term is not a `Mean`;
        see `value_and_grad`.
      ValueError: If `terms` is empty or names one twice, or, while tracing, if a term
        is unknown; see `value_and_grad`.
      NameError: While tracing, if `axis_name` is not bound.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {k: jaxloss.Mean.of((params - y) ** 2) for k, y in batch.items()}
      >>> both = train.objective(fn, weights={"b": 0.5})
      >>> batch = {"a": jnp.array([0.0, 2.0]), "b": jnp.array([4.0])}
      >>> evaluate = train.task_gradients(both, ["a", "b"])
      >>> found = evaluate(jnp.array(3.0), both.init(), batch)
      >>> found.grads, found.losses
      (Array([ 4., -1.], dtype=float32), Array([5., 1.], dtype=float32))
    """
    name = "task_gradients"
    expect_objective(name, objective)
    terms = _terms.names(name, terms)
    if not terms or len(set(terms)) < len(terms):
        _checks.fail(name, "terms", f"the names {terms}", "one or more, each once")

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        loss, metrics = scalar_and_metrics(name, objective.combine(state, totals))
        losses = _terms.widest([totals[term].compute() for term in terms])
        return loss, {"metrics": metrics, "losses": jnp.stack(losses)}

    def split(slopes: Terms) -> Terms:
        others = _terms.without(_results.minimised(slopes), terms)
        rows = [{term} for term in terms] + ([set(others)] if others else [])

        def kept(term: str, x: jax.Array) -> jax.Array:
            return jnp.stack([x if term in row else jnp.zeros_like(x) for row in rows])

        return {
            term: jax.tree.map(lambda x, term=term: kept(term, x), slope)
            for term, slope in slopes.items()
        }

    means = _terms.with_means(name, "terms", objective, terms)
    exact = step.differentiated(
        objective._replace(stats=means, combine=combine),
        split,
        microbatches=microbatches,
        axis_name=axis_name,
        loss_scale=loss_scale,
    )

    def evaluate(params: Params, state: ObjectiveState, batch: Batch) -> TaskEvaluation:
        found, tasks = exact(params, state, batch), len(terms)
        grads = jax.tree.map(lambda g: g[:tasks], found.grads)
        last = [g[tasks:] for g in jax.tree.leaves(found.grads)]
        rest = None
        if all(len(g) for g in last):
            rest = jax.tree.map(lambda g: g[tasks], found.grads)
        own = found.metrics
        return TaskEvaluation(
            found.loss,
            own["metrics"],
            own["losses"],
            grads,
            rest,
            found.state,
            found.aux,
        )

    return evaluate


def task_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    terms: Sequence[str],
    *,
    microbatches: int = 1,
    axis_name: AxisName = None,
    loss_scale: ArrayLike = 1.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """`train_step` for an optimiser that begins with `pcgrad` or `gradnorm`.

    Args:
      objective: What to minimise.
      optimizer: For example `optax.chain(train.pcgrad(), optax.adam(1e-3))`.  It
        receives the gradients of the tasks; `value`, the loss; `losses`, one per task;
        and `rest`, the gradient of all other terms, which your own transformation in
        place of `pcgrad` must add.
      terms: The names of the terms that are tasks, as in `task_gradients`.
      microbatches: As in `value_and_grad`.
      axis_name: As in `value_and_grad`.
      loss_scale: As in `value_and_grad`.

    Returns:
      (TrainState, batch) -> (TrainState, metrics), as `train_step`; "loss" is the value
      of the objective.

    Raises:
      TypeError: If `optimizer` is not an optax transformation; see `task_gradients`.
      ValueError: While tracing, if the optimiser does not make one update of those of
        the tasks; see `task_gradients`.

    Example:
      >>> import optax
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {k: jaxloss.Mean.of((params - y) ** 2) for k, y in batch.items()}
      >>> both = train.objective(fn)
      >>> optimizer = optax.chain(train.pcgrad(seed=0), optax.sgd(0.25))
      >>> step = train.task_train_step(both, optimizer, ["a", "b"])
      >>> state = train.TrainState.init(both, optimizer, jnp.array([1.0, 1.0]))
      >>> a, b = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
      >>> state, metrics = jax.jit(step, donate_argnums=0)(state, {"a": a, "b": b})
      >>> metrics["loss"], state.params
      (Array(1., dtype=float32), Array([0.75, 0.75], dtype=float32))
    """
    step.optax_transformation("task_train_step", optimizer)
    evaluate = task_gradients(
        objective,
        terms,
        microbatches=microbatches,
        axis_name=axis_name,
        loss_scale=loss_scale,
    )
    whole = step.value_and_grad(
        objective,
        microbatches=microbatches,
        axis_name=axis_name,
        loss_scale=loss_scale,
    )

    def like(path: tuple, p: jax.Array, u: jax.Array) -> None:
        if jnp.shape(p) != jnp.shape(u):
            where = jax.tree_util.keystr(path) or "its root"
            has = f"an update of shape {jnp.shape(u)} at {where}"
            expected = (
                f"{jnp.shape(p)}, that of the parameter: "
                "optax.chain(train.pcgrad(), ...) or train.gradnorm(...) first"
            )
            _checks.fail("task_train_step", "optimizer", has, expected)

    def take(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        found = evaluate(state.params, state.objective_state, batch)
        extra = step.asked_for(
            optimizer,
            whole,
            state.objective_state,
            batch,
            step.Evaluation(found.loss, found.metrics, _summed(found), found.state),
            losses=found.losses,
            rest=found.rest,
        )
        updates, opt_state = optimizer.update(
            found.grads, state.opt_state, state.params, **extra
        )
        jax.tree_util.tree_map_with_path(like, state.params, updates)
        params = optax.apply_updates(state.params, updates)
        metrics = step.reported("task_train_step", found, {"loss": found.loss})
        return TrainState(params, opt_state, found.state), metrics

    return take


def _summed(found: TaskEvaluation) -> Params:
    """The gradient of the objective, for the slopes of a line search."""
    total = jax.tree.map(lambda g: jnp.sum(g, axis=0, dtype=g.dtype), found.grads)
    if found.rest is None:
        return total
    return jax.tree.map(jnp.add, total, found.rest)
