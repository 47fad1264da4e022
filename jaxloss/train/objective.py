"""Objectives: a loss and its metrics as functions of unnormalised sums.

An `Objective` says how a batch becomes sums (`stats`, which are added over
micro-batches, devices and hosts), and how the sums of the whole batch become one scalar
(`combine`).  Adding first and combining last is exact; averaging the losses of parts is
not, as soon as masks differ.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss import _checks
from jaxloss.train import _results, _terms
from jaxloss.train._terms import (
    Batch as Batch,
    Objective as Objective,
    ObjectiveState as ObjectiveState,
    Params as Params,
    Setting,
    Terms,
)


def objective(
    fn: Callable[..., Mapping[str, Any] | tuple],
    combine: Callable[[ObjectiveState, Terms], tuple[jax.Array, dict]] | None = None,
    *,
    weights: Mapping[str, Setting] | None = None,
    carry: Any = None,
    **hyperparameters: Setting,
) -> Objective:
    r"""Makes an objective from a function that returns named means.

    .. math:: L = \sum_k w_k \, \frac{T_k}{W_k}

    T and W are the total and the weight of each term, summed over the whole batch.

    Args:
      fn: `fn(params, batch, **hyperparameters) -> {term: jaxloss.Mean}`, where each
        `Mean` is a sum over the examples of the batch.  With your own `combine`, a term
        may also be a pytree of plain sums, such as the counts of a Dice coefficient.  A
        term may be a `train.metric`, which is reported but not minimised.  `fn` may
        return a pair (terms, aux): `aux` has arrays with a leading axis of examples,
        such as logits, which a step returns in the order of the batch.
      combine: `(state, totals) -> (loss, metrics)`, any differentiable function of the
        totals; default the weighted sum above.
      weights: w by term, as in `weighted`; other terms have weight 1.
      carry: The initial value of what a model changes as it runs, such as the
        `batch_stats` of Flax Linen: a pytree of arrays.  Then
        `fn(params, batch, carry=...)` returns (terms, next carry), or (terms, next
        carry, aux).  Each micro-batch passes it to the next one; no gradient flows
        through it.
      **hyperparameters: The other arguments of `fn`.  A float or an array of floats
        becomes part of the state, as float32: you can sweep or replace it without
        compiling again.  A callable is a schedule: `fn` receives its value at the step
        count.

    Returns:
      An `Objective`.  Its metrics are the unweighted mean of each term, by name, and
      what `combine` returned, with the mean of each `train.metric`.

    Raises:
      TypeError: If a hyperparameter is neither floating-point nor a schedule (bind a
        flag, a string, a size or a count with `functools.partial`: it would not stay
        an integer), a weight neither a number nor a schedule, or, while tracing, if
        `fn` does not return a dict of Means.
      ValueError: If `fn` does not take a hyperparameter or lacks one, or, while
        tracing, if `weights` names an unknown term.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch, *, power):
      ...     error = jnp.abs(params * batch["x"] - batch["y"])
      ...     return {"error": jaxloss.Mean.of(error**power)}
      >>> error = train.objective(fn, power=2.0)
      >>> batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([2.0, 4.0])}
      >>> found = train.value_and_grad(error)(jnp.array(1.0), error.init(), batch)
      >>> found.loss, found.grads
      (Array(2.5, dtype=float32), Array(-5., dtype=float32))
    """
    _takes(fn, hyperparameters if carry is None else {**hyperparameters, "carry": 0})
    for name, value in hyperparameters.items():
        if not callable(value):
            _checks.no_integer("objective", name, value)
    initial, current = _terms.settings("objective", hyperparameters)

    def init() -> ObjectiveState:
        # Copies, as of numbers: a donated state must not delete the caller's arrays.
        first = jax.tree.map(lambda x: jnp.array(x, jnp.asarray(x).dtype), carry)
        return ObjectiveState(jnp.zeros((), jnp.int32), initial(), first)

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        values, carried = current(state), carry is not None
        if carried:
            values["carry"] = state.carry
        found = fn(params, batch, **values)
        found, own = _terms.results("objective", found, carried=carried)
        terms = _terms.terms("objective", "fn", found)
        trained = _results.minimised(terms)
        if not trained:
            has = f"only metrics, {list(terms)}"
            _checks.fail("objective", "fn", has, "a term that is minimised")
        for term in trained if combine is None else ():
            _terms.mean("objective", "fn", terms, term)
        return terms | own

    def checked(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        result = (combine or _sum_of_means)(state, _results.minimised(totals))
        loss, theirs = scalar_and_metrics("objective", result)
        own = _results.metrics(totals)
        for name in own.keys() & theirs.keys():
            has = f"the metric {name!r}, which `fn` returns too"
            _checks.fail("objective", "combine", has, "a name of its own")
        return loss, theirs | own

    plain = Objective(init, stats, checked)
    return plain if weights is None else _weighted("objective", plain, weights)


def weighted(
    objective: Objective, weights: Mapping[str, Setting], *, name: str = "weights"
) -> Objective:
    r"""Multiplies terms by weights, wherever the objective uses them.

    .. math:: L' = L(w_1 \bar\ell_1, w_2 \bar\ell_2, \ldots)

    If nested, weights multiply.  Metrics stay unweighted.

    Args:
      objective: Any objective.
      weights: By term, a number, stored in the state as `<name>/<term>`, or a schedule
        of the step count.  Other terms keep their weight.
      name: Prefix of the weights in the state; needed only if two nested `weighted`
        objectives have numbers as weights of the same term.

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


def expect_objective(function: str, objective: Any) -> None:
    """Raises `TypeError` for anything else, such as a bare loss function."""
    if not isinstance(objective, Objective):
        has = f"type {type(objective).__name__}"
        _checks.wrong_kind(function, "objective", has, "a train.Objective")


def scalar_and_metrics(function: str, result: Any) -> tuple[jax.Array, dict]:
    """What `combine` returned; raises unless it is a real scalar and a dict."""
    if not isinstance(result, tuple) or len(result) != 2:
        has = f"a result of type {_terms.kind(result)}"
        _checks.wrong_kind(function, "combine", has, "a pair (loss, metrics)")
    loss, metrics = result
    loss = _checks.number(function, "combine", loss, "a scalar loss")
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        has = f"a loss of shape {loss.shape} and dtype {loss.dtype}"
        _checks.fail(function, "combine", has, "one floating-point scalar")
    if not isinstance(metrics, Mapping):
        has = f"metrics of type {_terms.kind(metrics)}"
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
            function, "weights", f"type {_terms.kind(weights)}", "a dict {term: number}"
        )
    initial, current = _terms.settings(function, weights, f"{name}/", objective)

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        return _terms.weighted(objective, state, totals, current(state))

    return objective._replace(
        init=_terms.with_hyperparameters(objective, initial),
        stats=_terms.with_means(function, "weights", objective, weights),
        combine=combine,
    )


def _sum_of_means(_: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
    means = {term: total.compute() for term, total in totals.items()}
    return _terms.total(list(means.values())), means


def _takes(fn: Callable, hyperparameters: Mapping[str, Setting]) -> None:
    """Raises unless `fn` can be called as (params, batch, **hyperparameters)."""
    if not callable(fn):
        _checks.wrong_kind("objective", "fn", f"type {_terms.kind(fn)}", "a function")
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
