"""One update from one gradient per task: PCGrad and GradNorm.

In a weighted sum of losses the task with the largest gradient dominates.  These methods
look at the gradients of all tasks, so they are optax transformations: they take
gradients with a leading axis of tasks and pass one gradient without it to the next
optimiser of the chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.train import _terms, step
from jaxloss.train._devices import widened
from jaxloss.train.combinators import Select
from jaxloss.train.objective import Params


class PCGradState(NamedTuple):
    """The state of `pcgrad`.

    Attributes:
      key: The PRNG key from which the next order of tasks is drawn.
    """

    key: jax.Array


def pcgrad(*, seed: ArrayLike = 0) -> optax.GradientTransformationExtraArgs:
    r"""Projects conflicting gradients of tasks, then sums them.

    .. math:: g_i \leftarrow g_i - \frac{g_i \cdot g_j}{\|g_j\|^2}\, g_j
       \quad \text{if } g_i \cdot g_j < 0

    This is done for each task i, over all others j in random order; g_j is the given
    gradient of task j.  The update is the sum over i.  Dot products are over all
    parameters, in float32 or better.  A gradient that is 0 conflicts with none.

    Args:
      seed: An integer that determines the random orders; may be traced, to train many
        at once.

    Returns:
      An optax transformation that takes gradients with a leading axis of tasks, as
      `task_gradients` returns them, and returns a gradient without it.  `rest`, if
      given, is added.

    Raises:
      ValueError: While tracing, if the gradients have no common leading axis, or
        otherwise other shapes than the parameters.

    Reference:
      Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020.

    Example:
      >>> from jaxloss import train
      >>> surgery = train.pcgrad()
      >>> params, grads = jnp.zeros(2), jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> surgery.update(grads, surgery.init(params), params)[0]  # [.5, .5] + [0, 1]
      Array([0.5, 1.5], dtype=float32)
    """

    def init(params: Params) -> PCGradState:
        del params
        return PCGradState(jax.random.key(seed))

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        rest: Params | None = None,
        **extra: Any,
    ) -> tuple[Params, PCGradState]:
        del extra
        tasks = _tasks("pcgrad", updates, params)
        key, order = jax.random.split(state.key)
        others = np.array(
            [[j for j in range(tasks) if j != i] for i in range(tasks)], int
        )
        orders = jax.random.permutation(order, others, axis=1, independent=True)
        units, scales = _scaled(updates)
        weights = _surgery(_products(units), orders)
        mixed = _mixed(jnp.sum(weights * scales[:, None], axis=0), units, rest, updates)
        return mixed, PCGradState(key)

    return optax.GradientTransformationExtraArgs(init, update)


class GradNormState(NamedTuple):
    """The state of `gradnorm`.

    Attributes:
      weights: The weight of each task in the next step, float32; their sum is T.
      initial_losses: The first positive loss of each task, float32; 0 before it.
      opt_state: The state of the optimiser of the weights.
    """

    weights: jax.Array
    initial_losses: jax.Array
    opt_state: Any


def gradnorm(
    tasks: int,
    optimizer: optax.GradientTransformation,
    *,
    alpha: float | jax.Array = 1.5,
    select: Select | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learns weights of tasks that balance the norms of their gradients.

    .. math:: \min_w \sum_i \Big| G_i - \bar G\, r_i^\alpha \Big|, \qquad
       G_i = w_i \|\nabla_W L_i\|, \qquad
       r_i = \frac{L_i / L_i(0)}{\operatorname{mean}_j L_j / L_j(0)}

    The target is treated as a constant.  The update is the sum of the gradients with
    the old weights; then the weights are updated and scaled to the sum T.  Losses must
    be positive, because they are divided by one another.

    A task whose loss is 0 in a batch, because it is solved or has no label, is left out
    of the means, and its weight has no gradient in that step.  Weights do not fall
    below 0, where a task would be unlearnt; the paper does not mention this.

    Args:
      tasks: T, the number of tasks.
      optimizer: An optax transformation for the weights, such as `optax.sgd(0.025)`.
      alpha: At least 0: how strongly slowly learning tasks are favoured; 0 makes all
        norms equal.  1.5 is the paper's value for NYUv2 and the usual default; for the
        similar tasks of its toy experiment the paper has 0.12.
      select: From the parameters to W, those whose gradients are compared, such as
        the last shared layer; default all.

    Returns:
      An optax transformation that takes gradients with a leading axis of tasks and
      `losses`, one per task, as `task_gradients` returns them, and returns one gradient
      without the axis.  `rest`, if given, is added.

    Raises:
      TypeError: If `tasks` is not an integer or `optimizer` not an optax
        transformation.
      ValueError: If `tasks` is below 1 or `alpha` negative, or, while tracing, if the
        gradients are not of as many tasks, `losses` is missing or has another shape, or
        nothing is selected.

    Reference:
      Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
      Multitask Networks", ICML 2018.

    Example:
      >>> import optax
      >>> from jaxloss import train
      >>> balance = train.gradnorm(2, optax.sgd(0.125))
      >>> params, grads = jnp.zeros(2), jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> found, state = balance.update(
      ...     grads, balance.init(params), params, losses=jnp.array([1.0, 1.0])
      ... )
      >>> found, state.weights  # the mean norm is 2
      (Array([3., 1.], dtype=float32), Array([0.71428573, 1.2857144 ], dtype=float32))
    """
    name = "gradnorm"
    _checks.positive_integer(name, tasks=tasks)
    step.optax_transformation(name, optimizer)
    _checks.number(name, "alpha", alpha, "a number")
    _checks.in_interval(name, "[0, inf)", alpha=alpha)

    def init(params: Params) -> GradNormState:
        del params
        weights = jnp.ones(tasks, jnp.float32)
        opt_state = optimizer.init(weights)
        return GradNormState(weights, jnp.zeros(tasks, jnp.float32), opt_state)

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        losses: ArrayLike | None = None,
        rest: Params | None = None,
        **extra: Any,
    ) -> tuple[Params, GradNormState]:
        del extra
        _tasks(name, updates, params, tasks)
        wide = jax.tree.map(widened, updates)
        mixed = _mixed(state.weights, wide, rest, updates)
        found = _losses(losses, tasks)
        first = jnp.where(state.initial_losses > 0, state.initial_losses, found)
        norms = _norms(updates, select)
        slope = _balance(state.weights, norms, found, first, alpha)
        change, opt_state = optimizer.update(slope, state.opt_state, state.weights)
        moved: Any = optax.apply_updates(state.weights, change)
        moved = jnp.maximum(moved, 0)
        total = jnp.sum(moved)
        scaled = tasks * moved / jnp.where(total > 0, total, 1)
        weights = jnp.where(total > 0, scaled, state.weights)
        return mixed, GradNormState(weights, jnp.maximum(first, 0), opt_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _surgery(products: jax.Array, orders: jax.Array) -> jax.Array:
    """Row i: what remains of gradient i, as a combination of those that came in.

    It never leaves their span, so their dot products are all that is needed.
    """
    tasks = len(products)

    def project(kept: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
        """Task i against the task j[i], for all i at once."""
        along = jnp.sum(kept * products[j], axis=1)
        square = products[j, j]
        conflict = (along < 0) & (square > 0)
        share = jnp.where(conflict, along / jnp.where(conflict, square, 1), 0)
        return kept.at[jnp.arange(tasks), j].add(-share), None

    kept, _ = jax.lax.scan(project, jnp.eye(tasks, dtype=products.dtype), orders.T)
    return kept


def _balance(
    weights: jax.Array,
    norms: jax.Array,
    losses: jax.Array,
    first: jax.Array,
    alpha: float | jax.Array,
) -> jax.Array:
    """The gradient of GradNorm's loss with respect to the weights."""
    counts = losses > 0
    count = jnp.maximum(jnp.sum(counts, dtype=jnp.float32), 1)
    mean = lambda x: jnp.sum(jnp.where(counts, x, 0)) / count
    ratios = losses / jnp.where(counts, first, 1)
    # 1 where it does not count, and where no task does: 0 to a power, or over 0, is
    # nothing to compute with.
    average = mean(ratios)
    relative = jnp.where(counts, ratios / jnp.where(average > 0, average, 1), 1)
    size = weights * norms
    target = mean(size) * relative ** jnp.asarray(alpha, jnp.float32)
    return jnp.where(counts, jnp.sign(size - target) * norms, 0)


def _losses(losses: ArrayLike | None, tasks: int) -> jax.Array:
    if losses is None:
        expected = "losses=, one per task, as train.task_train_step passes them"
        _checks.fail("gradnorm", "losses", "no value", expected)
    (x,) = _checks.widened("gradnorm", losses=losses)
    _checks.has_shape("gradnorm", (tasks,), "one per task", losses=x)
    return x.astype(jnp.float32)


def _tasks(
    function: str, updates: Params, params: Params | None, tasks: int | None = None
) -> int:
    """The length of the leading axis; raises unless all gradients have it."""
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    shapes = {jax.tree_util.keystr(path): jnp.shape(x) for path, x in leaves}
    rows = {shape[:1] for shape in shapes.values()}
    expected = "one leading axis of tasks: `grads` of train.task_gradients"
    if len(rows) != 1 or rows & {(), (0,)}:
        _checks.fail(function, "updates", f"the shapes {shapes}", expected)

    def like(path: tuple, p: jax.Array, g: jax.Array) -> None:
        if jnp.shape(g)[1:] != jnp.shape(p):
            where = jax.tree_util.keystr(path) or "its root"
            has = f"shape {jnp.shape(g)} at {where}, for the parameter {jnp.shape(p)}"
            _checks.fail(function, "updates", has, expected)

    if params is not None:
        jax.tree_util.tree_map_with_path(like, params, updates)
    ((found,),) = rows
    if tasks is not None and found != tasks:
        has = f"the gradients of {found} tasks"
        _checks.fail(function, "updates", has, f"those of tasks={tasks}")
    return found


def _scaled(grads: Params) -> tuple[Params, jax.Array]:
    """Each task's gradient over a power of two near its largest entry, and those.

    Squares neither overflow nor vanish then, and nothing is rounded.
    """
    wide = jax.tree.map(widened, grads)
    largest = jnp.max(
        jnp.stack(
            _terms.widest(
                [_over_parameters(jnp.max, jnp.abs(x)) for x in jax.tree.leaves(wide)]
            )
        ),
        axis=0,
    )
    _, exponent = jnp.frexp(largest)
    power = jnp.ldexp(jnp.ones_like(largest), exponent - 1)
    scales = jnp.where(largest > 0, power, 1)
    return jax.tree.map(lambda x: x / _beside(x, scales), wide), scales


def _products(units: Params) -> jax.Array:
    """All dot products of tasks, `[T, T]`.

    Not by a matrix product, which some devices round to half precision.
    """

    def one(x: jax.Array) -> jax.Array:
        pairs = jnp.real(x[:, None] * jnp.conj(x[None]))
        return jnp.sum(pairs, axis=tuple(range(2, pairs.ndim)))

    return _terms.total([one(x) for x in jax.tree.leaves(units)])


def _norms(grads: Params, select: Select | None) -> jax.Array:
    """The norm of each task's gradient at the selected parameters, float32."""
    chosen = grads if select is None else jax.vmap(select)(grads)
    if not jax.tree.leaves(chosen):
        _checks.fail("gradnorm", "select", "no parameters", "at least one array")
    units, scales = _scaled(chosen)
    squares = [
        _over_parameters(jnp.sum, jnp.real(x * jnp.conj(x)))
        for x in jax.tree.leaves(units)
    ]
    return (scales * jnp.sqrt(_terms.total(squares))).astype(jnp.float32)


def _mixed(
    weights: jax.Array, rows: Params, rest: Params | None, like: Params
) -> Params:
    """The weighted sum over tasks, plus the rest, in the dtypes of the gradients."""
    mixed = jax.tree.map(lambda x: jnp.sum(_beside(x, weights) * x, axis=0), rows)
    if rest is not None:
        mixed = jax.tree.map(lambda x, r: x + r.astype(x.dtype), mixed, rest)
    return jax.tree.map(lambda x, g: x.astype(g.dtype), mixed, like)


def _over_parameters(reduce: Callable, x: jax.Array) -> jax.Array:
    return reduce(x, axis=tuple(range(1, x.ndim)))


def _beside(x: jax.Array, per_task: jax.Array) -> jax.Array:
    """One number per task, of as many axes as `x`."""
    return per_task.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
