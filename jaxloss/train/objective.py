"""Objectives: what is minimised, kept as sums until the last line of a step.

A loss value is a statistic of data.  An `Objective` says how a batch becomes sums
(`stats`, which add over micro-batches, devices and hosts) and how the sums of the
whole batch become one scalar (`combine`).  Whoever adds first and combines last is
exact; averaging the losses of the parts is not, as soon as masks differ.

Combinators take an objective and return one.  They keep its terms and add their own
beside them, so they nest in any order.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.reduce import Mean

Params = Any
Batch = Any
Terms = dict[str, Any]
Schedule = Callable[[jax.Array], ArrayLike]
Setting = ArrayLike | Schedule
Values = dict[str, jax.Array]


class ObjectiveState(NamedTuple):
    """What an objective carries from step to step: replace values, keep the keys.

    A plain pytree: jit it, donate it, save it, and `vmap` over its hyperparameters
    to train a whole grid at once.

    Attributes:
      count: Steps taken, an int32 scalar: what schedules are functions of.
      hyperparameters: float32 arrays by name.  Those of `fn` have their own names,
        those of combinators a prefix: `weights/<term>`, `l2/coefficient`.
    """

    count: jax.Array
    hyperparameters: dict[str, jax.Array]


class Objective(NamedTuple):
    """Three pure functions; make one with `objective` or write them yourself.

    Attributes:
      init: () -> ObjectiveState, in buffers of its own, which may be donated.
      stats: (params, state, batch) -> {term: Mean, or a pytree of arrays that add}.
        The sums of a batch must be the sum over its parts, whatever the parts.
      combine: (state, totals) -> (loss, metrics): from the sums of the whole batch
        to a scalar and a dict.  It sees no parameters and no data, so nothing in it
        can be counted once per part.
    """

    init: Callable[[], ObjectiveState]
    stats: Callable[[Params, ObjectiveState, Batch], Terms]
    combine: Callable[[ObjectiveState, Terms], tuple[jax.Array, dict[str, Any]]]


def objective(
    fn: Callable[..., Mapping[str, Any]],
    combine: Callable[[ObjectiveState, Terms], tuple[jax.Array, dict]] | None = None,
    *,
    weights: Mapping[str, Setting] | None = None,
    **hyperparameters: Setting,
) -> Objective:
    r"""Makes an objective from a function that returns named means.

    .. math:: L = \sum_k w_k \, \frac{T_k}{W_k}

    with the total T and the weight W of each term, summed over the whole batch.

    Args:
      fn: fn(params, batch, **hyperparameters) -> {term: jaxloss.Mean}, a sum over
        the examples of the batch.  With a `combine` of your own, a term may also be
        a pytree of plain sums, such as the counts of a Dice coefficient.
      combine: (state, totals) -> (loss, metrics), any differentiable function of the
        totals; default the weighted sum above.
      weights: w by term, as in `weighted`; a term that is not named has weight 1.
      **hyperparameters: What else `fn` takes.  A number or an array becomes part of
        the state, as float32: sweep it, replace it, without compiling again.  A
        callable is a schedule: `fn` receives its value at the step count.

    Returns:
      An `Objective`.  Its metrics are the unweighted mean of each term, by name.

    Raises:
      TypeError: If a hyperparameter or weight is neither a number nor a schedule
        (bind a flag, a string or a size with `functools.partial`), or, while
        tracing, if `fn` does not return a dict of Means.
      ValueError: If `fn` does not take a hyperparameter or lacks one, or, while
        tracing, if `weights` names an unknown term.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch, *, power):
      ...     error = jnp.abs(params * batch["x"] - batch["y"])
      ...     return {"error": jaxloss.Mean.of(error**power)}
      >>> error = train.objective(fn, power=2)
      >>> batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([2.0, 4.0])}
      >>> found = train.value_and_grad(error)(jnp.array(1.0), error.init(), batch)
      >>> found.loss, found.grads
      (Array(2.5, dtype=float32), Array(-5., dtype=float32))
    """
    _takes(fn, hyperparameters)
    initial, current = _settings("objective", hyperparameters)

    def init() -> ObjectiveState:
        return ObjectiveState(jnp.zeros((), jnp.int32), initial())

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        terms = _terms("objective", "fn", fn(params, batch, **current(state)))
        if combine is None:
            for term in terms:
                _mean("objective", "fn", terms, term)
        return terms

    def checked(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        result = (combine or _sum_of_means)(state, totals)
        return scalar_and_metrics("objective", result)

    plain = Objective(init, stats, checked)
    return plain if weights is None else _weighted("objective", plain, weights)


def weighted(
    objective: Objective, weights: Mapping[str, Setting], *, name: str = "weights"
) -> Objective:
    r"""Multiplies terms by weights, wherever the objective uses them.

    .. math:: L' = L(w_1 \bar\ell_1, w_2 \bar\ell_2, \ldots)

    Weights of weights multiply.  Metrics stay unweighted.

    Args:
      objective: Any objective.
      weights: By term, a number, kept in the state as `<name>/<term>`, or a schedule
        of the step count.  Terms that are not named keep their weight.
      name: Prefix of the weights in the state; needed only to nest two of these that
        weight the same term by numbers.

    Returns:
      An `Objective`.

    Raises:
      TypeError: If a weight is neither a number nor a schedule, or, while tracing,
        if a weighted term is not a `Mean`.
      ValueError: If the state already has a `<name>/<term>`, or, while tracing, if a
        term is unknown.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params - batch) ** 2)}
      >>> warm = train.weighted(train.objective(fn), {"fit": lambda step: step / 10})
      >>> state = warm.init()._replace(count=jnp.array(5))
      >>> found = train.value_and_grad(warm)(jnp.array(3.0), state, jnp.array([1.0]))
      >>> found.loss, found.metrics
      (Array(2., dtype=float32), {'fit': Array(4., dtype=float32)})
    """
    return _weighted("weighted", objective, weights, name)


def l2(
    objective: Objective,
    coefficient: Setting,
    *,
    select: Callable[[Params], Any] | None = None,
    name: str = "l2",
) -> Objective:
    r"""Adds the squared norm of the parameters, once however the batch is cut.

    .. math:: L' = L + c \sum_j \theta_j^2

    Args:
      objective: Any objective.
      coefficient: c, a number, kept in the state as `<name>/coefficient`, or a
        schedule of the step count.  Its gradient is 2 c θ: halve c to reproduce
        conventions that write c / 2.
      select: From the parameters to those that are penalised, e.g. `lambda params:
        [layer["kernel"] for layer in params]`; default all, biases included.
      name: The name of the term; give another to penalise two groups differently.

    Returns:
      An `Objective` with one more term; its metric is the squared norm, without c.

    Raises:
      TypeError: If `coefficient` is neither a number nor a schedule.
      ValueError: If the name is taken, or, while tracing, if nothing is selected.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params["w"] - batch) ** 2)}
      >>> decayed = train.l2(train.objective(fn), 0.5, select=lambda p: p["w"])
      >>> found = train.value_and_grad(decayed, microbatches=2)(
      ...     {"w": jnp.array(2.0)}, decayed.init(), jnp.array([1.0, 1.0])
      ... )
      >>> found.loss, found.grads["w"]
      (Array(3., dtype=float32), Array(4., dtype=float32))
    """
    initial, current = _settings(
        "l2", {"coefficient": coefficient}, f"{name}/", objective
    )

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        chosen = jax.tree.leaves(params if select is None else select(params))
        if not chosen:
            _checks.fail("l2", "select", "no parameters", "at least one array")
        terms = _terms("l2", "objective", objective.stats(params, state, batch))
        penalty = Mean.constant(_sum([_squared_norm(x) for x in chosen]))
        return _join("l2", terms, {name: penalty})

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        norm = totals[name].compute()
        loss, metrics = objective.combine(state, _without(totals, [name]))
        c = current(state)["coefficient"].astype(norm.dtype)
        return _sum([loss, c * norm]), _join("l2", metrics, {name: norm})

    return Objective(_also(objective, initial), stats, combine)


def uncertainty_weighted(objective: Objective, terms: Sequence[str]) -> Objective:
    r"""Weights terms by learnt log variances: homoscedastic uncertainty.

    .. math:: L' = L(\ldots, \tfrac12 e^{-s_k} \bar\ell_k, \ldots)
       + \tfrac12 \sum_k s_k

    The parameters become `{"model": ..., "log_variances": {term: scalar}}`: what the
    objective had, and one s per term, usually 0 at first.  Hand both to the
    optimiser.  The loss may become negative; that is right, leave it.

    A term whose weight is 0 in the whole batch, because no example has its label,
    adds nothing: neither its mean nor its s / 2, which alone would drive s down, and
    the weight of the term up, on no evidence.

    Args:
      objective: Any objective.  Terms that are not listed keep their weight.
      terms: The names of the terms to weight; each must be a `Mean`.

    Returns:
      An `Objective` with one more term, and metric, `log_variance/<term>` each.

    Raises:
      TypeError: If `terms` is a string, or, while tracing, if a term is not a `Mean`
        or the parameters are not the dict above.
      ValueError: While tracing, if a term is unknown, or `log_variances` has other
        keys than `terms` or values that are not scalars.

    Gradient:
      `(1 - exp(-s) mean) / 2` with respect to s: at rest, exp(s) is the mean loss.
      A term with squared error 2 is then a Gaussian likelihood of variance 2.  For
      cross entropy the paper has exp(-s) without the half: give it weight 2.

    Reference:
      Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh
      Losses for Scene Geometry and Semantics", CVPR 2018.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params - batch) ** 2)}
      >>> learnt = train.uncertainty_weighted(train.objective(fn), ["fit"])
      >>> params = {"model": jnp.array(3.0), "log_variances": {"fit": jnp.array(0.0)}}
      >>> found = train.value_and_grad(learnt)(params, learnt.init(), jnp.array([1.0]))
      >>> found.loss, found.grads["log_variances"]
      (Array(2., dtype=float32), {'fit': Array(-1.5, dtype=float32)})
    """
    if isinstance(terms, str):
        _checks.wrong_kind(
            "uncertainty_weighted", "terms", f"the string {terms!r}", "a list of names"
        )
    names = {term: f"log_variance/{term}" for term in terms}

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        model, s = _model_and_log_variances(params, names)
        found = _terms(
            "uncertainty_weighted", "objective", objective.stats(model, state, batch)
        )
        for term in names:
            _mean("uncertainty_weighted", "terms", found, term)
        own = {name: Mean.constant(s[term]) for term, name in names.items()}
        return _join("uncertainty_weighted", found, own)

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        s = {term: totals[name].compute() for term, name in names.items()}
        theirs = _without(totals, list(names.values()))
        factors = {term: jnp.exp(-s[term]) / 2 for term in names}
        loss, _ = objective.combine(state, _scaled(theirs, factors))
        _, metrics = objective.combine(state, theirs)
        halves = [jnp.where(theirs[term].weight != 0, s[term] / 2, 0) for term in names]
        own = {name: s[term] for term, name in names.items()}
        return _sum([loss, *halves]), _join("uncertainty_weighted", metrics, own)

    return Objective(objective.init, stats, combine)


def scalar_and_metrics(function: str, result: Any) -> tuple[jax.Array, dict]:
    """What `combine` returned; raises unless it is a real scalar and a dict."""
    if not isinstance(result, tuple) or len(result) != 2:
        has = f"a result of type {_kind(result)}"
        _checks.wrong_kind(function, "combine", has, "a pair (loss, metrics)")
    loss, metrics = result
    loss = _checks.number(function, "combine", loss, "a scalar loss")
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        has = f"a loss of shape {loss.shape} and dtype {loss.dtype}"
        _checks.fail(function, "combine", has, "one floating-point scalar")
    if not isinstance(metrics, Mapping):
        has = f"metrics of type {_kind(metrics)}"
        _checks.wrong_kind(function, "combine", has, "a dict, empty if need be")
    return loss, dict(metrics)


def _weighted(
    function: str,
    objective: Objective,
    weights: Mapping[str, Setting],
    name: str = "weights",
) -> Objective:
    if not isinstance(weights, Mapping):
        _checks.wrong_kind(
            function, "weights", f"type {_kind(weights)}", "a dict {term: number}"
        )
    initial, current = _settings(function, weights, f"{name}/", objective)

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        terms = _terms(function, "objective", objective.stats(params, state, batch))
        for term in weights:
            _mean(function, "weights", terms, term)
        return terms

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        loss, _ = objective.combine(state, _scaled(totals, current(state)))
        # Once more for the metrics, which stay unweighted; scalars cost nothing.
        _, metrics = objective.combine(state, totals)
        return loss, metrics

    return Objective(_also(objective, initial), stats, combine)


def _sum_of_means(_: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
    means = {term: total.compute() for term, total in totals.items()}
    return _sum(list(means.values())), means


def _settings(
    function: str,
    settings: Mapping[str, Setting],
    prefix: str = "",
    inner: Objective | None = None,
) -> tuple[Callable[[], Values], Callable[[ObjectiveState], Values]]:
    """How numbers enter the state, and how numbers and schedules are read from it."""
    for name, value in settings.items():
        if not callable(value):
            _checks.number(function, name, value, "a number, an array or a schedule")
    numbers = {name: x for name, x in settings.items() if not callable(x)}
    # Only shapes: `init` may close over tracers, when an objective is made under jit.
    taken = jax.eval_shape(inner.init).hyperparameters if inner else {}
    _unused(function, taken, [prefix + name for name in numbers])

    def initial() -> Values:
        # `array` copies: a donated state must not delete the caller's array, nor
        # share a buffer with another state.
        return {prefix + k: jnp.array(x, jnp.float32) for k, x in numbers.items()}

    def current(state: ObjectiveState) -> Values:
        values = {}
        for name, setting in settings.items():
            if callable(setting):
                values[name] = jnp.asarray(setting(state.count), jnp.float32)
            elif prefix + name in state.hyperparameters:
                held = state.hyperparameters[prefix + name]
                values[name] = jnp.asarray(held, jnp.float32)
            else:
                has = f"no hyperparameter {prefix + name!r}"
                _checks.fail(function, "state", has, "the keys that `init` returns")
        return values

    return initial, current


def _also(objective: Objective, initial: Callable[[], Values]) -> Callable:
    """The `init` of an objective with hyperparameters added."""

    def init() -> ObjectiveState:
        state = objective.init()
        return state._replace(hyperparameters=state.hyperparameters | initial())

    return init


def _takes(fn: Callable, hyperparameters: Mapping[str, Setting]) -> None:
    """Raises unless `fn` can be called as (params, batch, **hyperparameters)."""
    if not callable(fn):
        _checks.wrong_kind("objective", "fn", f"type {_kind(fn)}", "a function")
    try:
        signature = inspect.signature(fn)
    except ValueError:  # some callables written in C have none
        return
    try:
        signature.bind(None, None, **hyperparameters)
    except TypeError as error:
        given = ", ".join(["params", "batch", *(f"{k}=..." for k in hyperparameters)])
        expected = f"one that can be called as fn({given}): {error}"
        _checks.fail("objective", "fn", f"the parameters {signature}", expected)


def _terms(function: str, argument: str, stats: Any) -> Terms:
    """The terms as a dict of their own; raises `TypeError` unless it is a mapping."""
    if not isinstance(stats, Mapping) or not stats:
        _checks.wrong_kind(
            function,
            argument,
            f"a result of type {_kind(stats)}" if stats is not None else "no result",
            "a dict of at least one term, such as {'error': jaxloss.Mean.of(losses)}",
        )
    return dict(stats)


def _mean(function: str, argument: str, terms: Terms, term: str) -> None:
    """Raises unless `term` is known and a `Mean`."""
    if term not in terms:
        known = ", ".join(map(repr, terms))
        _checks.fail(function, argument, f"the term {term!r}", f"one of {known}")
    if not isinstance(terms[term], Mean):
        _checks.wrong_kind(
            function,
            argument,
            f"the term {term!r} of type {_kind(terms[term])}",
            "a jaxloss.Mean: the mean of a part of the batch cannot be put together "
            "with others, its total and weight can (jaxloss.Mean.of)",
        )


def _model_and_log_variances(
    params: Params, terms: Mapping[str, str]
) -> tuple[Params, Mapping[str, jax.Array]]:
    function = "uncertainty_weighted"
    if not isinstance(params, Mapping) or set(params) != {"model", "log_variances"}:
        has = f"keys {list(params)}" if isinstance(params, Mapping) else "no keys"
        expected = "{'model': ..., 'log_variances': {term: scalar}}"
        _checks.wrong_kind(function, "params", has, expected)
    s = params["log_variances"]
    if set(s) != set(terms):
        has, expected = f"the terms {list(s)}", f"those of `terms`, {list(terms)}"
        _checks.fail(function, "log_variances", has, expected)
    for term in terms:
        if jnp.shape(s[term]) != ():
            has = f"shape {jnp.shape(s[term])} for the term {term!r}"
            _checks.fail(function, "log_variances", has, "a scalar")
    return params["model"], s


def _scaled(totals: Terms, factors: Mapping[str, jax.Array]) -> Terms:
    def scale(mean: Mean, factor: jax.Array) -> Mean:
        return Mean(mean.total * factor.astype(mean.total.dtype), mean.weight)

    return totals | {term: scale(totals[term], x) for term, x in factors.items()}


def _squared_norm(x: ArrayLike) -> jax.Array:
    x = jnp.asarray(x)
    if jnp.finfo(x.dtype).bits < 32:  # 256 * 256 overflows float16
        x = x.astype(jnp.float32)
    return jnp.sum(jnp.real(x * jnp.conj(x)))  # |x|^2 for a complex parameter


def _sum(scalars: Sequence[jax.Array]) -> jax.Array:
    """The sum in the widest dtype, cast first: strict promotion mixes none."""
    wide = max((x.dtype for x in scalars), key=lambda dtype: jnp.finfo(dtype).bits)
    first, *rest = [x.astype(wide) for x in scalars]
    return sum(rest, first)


def _join(function: str, theirs: dict, own: dict) -> dict:
    _unused(function, theirs, own)
    return {**theirs, **own}


def _unused(function: str, taken: Iterable[str], names: Iterable[str]) -> None:
    argument = "terms" if function == "uncertainty_weighted" else "name"
    for name in names:
        if name in taken:
            has = f"{name!r}, which this objective already has"
            _checks.fail(function, argument, has, "a name of its own")


def _without(totals: Terms, names: Sequence[str]) -> Terms:
    return {name: x for name, x in totals.items() if name not in names}


def _kind(x: Any) -> str:
    """The type in an error, with shape and dtype where there are any."""
    if isinstance(x, jax.Array):
        return f"{type(x).__name__} {x.dtype}{list(x.shape)}"
    return type(x).__name__
