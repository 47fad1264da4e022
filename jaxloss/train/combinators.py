"""Functions from objective to objective: penalties, learnt weights, other targets.

A combinator keeps the terms of its objective and adds its own terms, so you can nest
combinators in any order.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, stable
from jaxloss.reduce import Mean
from jaxloss.train import _terms
from jaxloss.train._terms import Setting, Terms
from jaxloss.train.objective import Batch, Objective, ObjectiveState, Params

Select = Callable[[Params], Any]


def decayed(params: Params) -> list[jax.Array]:
    """The parameters that are usually penalised: no biases, no norm scales.

    These are the arrays with at least two axes, without a `bias` or `scale` in their
    path: biases of attention heads have two axes.  Use it as `select` of a penalty.

    Example:
      >>> from jaxloss import train
      >>> params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
      >>> [x.shape for x in train.decayed(params)]
      [(2, 3)]
    """
    exempt = re.compile(r"\b(bias|scale)\b")
    return [
        x
        for path, x in jax.tree_util.tree_leaves_with_path(params)
        if jnp.ndim(x) >= 2 and not exempt.search(jax.tree_util.keystr(path))
    ]


def l2(
    objective: Objective,
    coefficient: Setting,
    *,
    select: Select | None = None,
    name: str = "l2",
) -> Objective:
    r"""Adds the squared norm of the parameters, once however a batch is split.

    .. math:: L' = L + c \sum_j \theta_j^2

    Args:
      objective: Any objective.
      coefficient: c, a number, stored in the state as `<name>/coefficient`, or a
        schedule of the step count.  Its gradient is 2 c θ; halve c for conventions that
        write c / 2.
      select: From the parameters to those that are penalised, such as
        `lambda params: [layer["kernel"] for layer in params]`, or `train.decayed` for
        all but biases and norms; default all.
      name: The name of the term; use another one to penalise two groups differently.

    Returns:
      An `Objective` with one more term and two metrics: `<name>`, the squared norm
      without c, and `<name>/weighted`, c times that, which the loss contains.

    Raises:
      TypeError: If `coefficient` is neither a number nor a schedule.
      ValueError: If the name is taken, or, while tracing, if nothing is selected.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params["w"] - batch) ** 2)}
      >>> penalised = train.l2(train.objective(fn), 0.5, select=lambda p: p["w"])
      >>> found = train.value_and_grad(penalised, microbatches=2)(
      ...     {"w": jnp.array(2.0)}, penalised.init(), jnp.array([1.0, 1.0])
      ... )
      >>> found.loss, found.grads["w"]
      (Array(3., dtype=float32), Array(4., dtype=float32))
    """
    return _penalised(
        "l2", objective, {"coefficient": (coefficient, _squares)}, select, name
    )


def l1(
    objective: Objective,
    coefficient: Setting,
    *,
    select: Select | None = None,
    name: str = "l1",
) -> Objective:
    r"""Adds the magnitudes of the parameters, once however a batch is split.

    .. math:: L' = L + c \sum_j |\theta_j|

    Args:
      objective: Any objective.
      coefficient: c, as in `l2`.
      select: As in `l2`.
      name: As in `l2`.

    Returns:
      An `Objective` with one more term and two metrics: `<name>`, the sum without c,
      and `<name>/weighted`, c times that, which the loss contains.  The gradient is c
      times the sign, 0 at 0, so gradient descent makes parameters small but not exactly
      0.

    Raises:
      TypeError: As `l2`.
      ValueError: As `l2`.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params - batch) ** 2)}
      >>> sparse = train.l1(train.objective(fn), 0.5)
      >>> found = train.value_and_grad(sparse)(
      ...     jnp.array(-2.0), sparse.init(), jnp.array([-2.0])
      ... )
      >>> found.loss, found.grads
      (Array(1., dtype=float32), Array(-0.5, dtype=float32))
    """
    return _penalised(
        "l1", objective, {"coefficient": (coefficient, _absolutes)}, select, name
    )


def elastic_net(
    objective: Objective,
    l1: Setting,
    l2: Setting,
    *,
    select: Select | None = None,
    name: str = "elastic_net",
) -> Objective:
    r"""Adds both penalties, once however a batch is split.

    .. math:: L' = L + c_1 \sum_j |\theta_j| + c_2 \sum_j \theta_j^2

    Args:
      objective: Any objective.
      l1: The coefficient of the absolute values, stored as `<name>/l1`, or a schedule.
      l2: The coefficient of the squares, stored as `<name>/l2`, or a schedule.
      select: As in `l2`.
      name: As in `l2`.

    Returns:
      An `Objective` with one more term and three metrics: `<name>/l1` and `<name>/l2`,
      the two sums without coefficients, and `<name>/weighted`, which the loss contains.

    Raises:
      TypeError: As `l2`.
      ValueError: As `l2`.

    Reference:
      Zou and Hastie, "Regularization and Variable Selection via the Elastic Net",
      Journal of the Royal Statistical Society B 67, 2005.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params - batch) ** 2)}
      >>> net = train.elastic_net(
      ...     train.objective(fn), l1=0.5, l2=0.25
      ... )
      >>> evaluate = train.value_and_grad(net)
      >>> found = evaluate(jnp.array(2.0), net.init(), jnp.array([2.0]))
      >>> found.loss, found.grads
      (Array(2., dtype=float32), Array(1.5, dtype=float32))
    """
    parts = {"l1": (l1, _absolutes), "l2": (l2, _squares)}
    return _penalised("elastic_net", objective, parts, select, name)


def uncertainty_weighted(objective: Objective, terms: Sequence[str]) -> Objective:
    r"""Weights terms by learnt variances (homoscedastic uncertainty).

    .. math:: L' = L(\ldots, \tfrac12 e^{-s_k} \bar\ell_k, \ldots)
       + \tfrac12 \sum_k s_k

    The parameters become `{"model": ..., "log_variances": {term: scalar}}`: the
    parameters of the objective, and one s per term, usually 0 at first.  Give both to
    the optimiser.  The loss may become negative; this is correct.

    A term whose weight is 0 in the whole batch, because no example has its label, adds
    nothing: neither its mean nor its s / 2, which alone would decrease s, and increase
    the weight of the term, without evidence.

    Args:
      objective: Any objective.  Terms that are not listed keep their weight.
      terms: The names of the terms to weight; each must be a `Mean`.

    Returns:
      An `Objective` with one more term and metric, `log_variance/<term>`, for each.

    Raises:
      TypeError: If `terms` is a string, or, while tracing, if a term is not a `Mean`
        or the parameters are not the dict above.
      ValueError: While tracing, if a term is unknown, or `log_variances` has other
        keys than `terms` or values that are not scalars.

    Gradient:
      `(1 - exp(-s) mean) / 2` with respect to s: it is 0 where exp(s) is the mean loss.
      A term with squared error 2 is then a Gaussian likelihood of variance 2.  For
      cross entropy the paper has exp(-s) without the factor 1/2: give it weight 2.

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
    names = {
        term: f"log_variance/{term}"
        for term in _terms.names("uncertainty_weighted", terms)
    }

    stats_of_means = _terms.with_means(
        "uncertainty_weighted", "terms", objective, names
    )

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        model, s = _model_and_log_variances(params, names)
        found = stats_of_means(model, state, batch)
        own = {name: Mean.constant(s[term]) for term, name in names.items()}
        return _terms.join("uncertainty_weighted", found, own)

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        s = {term: totals[name].compute() for term, name in names.items()}
        theirs = _terms.without(totals, list(names.values()))
        factors = {term: jnp.exp(-s[term]) / 2 for term in names}
        loss, metrics = _terms.weighted(objective, state, theirs, factors)
        halves = [jnp.where(theirs[term].weight != 0, s[term] / 2, 0) for term in names]
        own = {name: s[term] for term, name in names.items()}
        return _terms.total([loss, *halves]), _terms.join(
            "uncertainty_weighted", metrics, own
        )

    return objective._replace(stats=stats, combine=combine)


def dynamic_weight_average(
    objective: Objective, terms: Sequence[str], *, temperature: Setting = 2.0
) -> Objective:
    r"""Weights terms by how slowly they fall from one epoch to the next.

    .. math:: w_k = K\, \mathrm{softmax}_k(r_k / T), \qquad
       r_k = \bar\ell_k(t - 1) / \bar\ell_k(t - 2)

    The weights change when you call `next_epoch` at the end of an epoch: it writes the
    mean losses of the epoch, which are metrics, into the state.  In the first two
    epochs the weights are 1.

    Args:
      objective: Any objective.  Terms that are not listed keep their weight.
      terms: The names of the K terms to weight; each must be a `Mean`.
      temperature: T > 0, a number, stored in the state as `dynamic/temperature`, or a
        schedule; the larger it is, the more equal the weights are.

    Returns:
      An `Objective` with a metric `dynamic/<term>` for each: its weight.

    Raises:
      TypeError: If `terms` is a string, `temperature` neither number nor schedule, or,
        while tracing, if a term is not a `Mean`.
      ValueError: While tracing, if a term is unknown.

    Reference:
      Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     return {k: jaxloss.Mean.of((params - y) ** 2) for k, y in batch.items()}
      >>> both = train.dynamic_weight_average(train.objective(fn), ["a", "b"])
      >>> state = both.init()
      >>> for means in ({"a": 1.0, "b": 4.0}, {"a": 1.0, "b": 2.0}):
      ...     state = train.next_epoch(state, means)
      >>> batch = {"a": jnp.array([0.0]), "b": jnp.array([1.0])}
      >>> found = train.value_and_grad(both)(jnp.array(1.0), state, batch)
      >>> found.metrics["dynamic/a"], found.metrics["dynamic/b"]  # a no longer falls
      (Array(1.124353, dtype=float32), Array(0.87564707, dtype=float32))
    """
    name = "dynamic_weight_average"
    terms = _terms.names(name, terms)
    initial, current = _terms.settings(
        name, {"temperature": temperature}, "dynamic/", objective
    )

    def remembered() -> _terms.Values:
        keys = [
            f"dynamic/{when}/{term}" for term in terms for when in ("last", "before")
        ]
        return initial() | {key: jnp.zeros((), jnp.float32) for key in keys}

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        held = state.hyperparameters
        last, before = (
            jnp.stack([held[f"dynamic/{when}/{term}"] for term in terms])
            for when in ("last", "before")
        )
        # 0 is what nothing has been written over, or a task that is solved.
        ratios = jnp.where(before > 0, last / jnp.where(before > 0, before, 1), 1)
        weights = len(terms) * jax.nn.softmax(ratios / current(state)["temperature"])
        factors = dict(zip(terms, weights, strict=True))
        loss, metrics = _terms.weighted(objective, state, totals, factors)
        own = {f"dynamic/{term}": factors[term] for term in terms}
        return loss, _terms.join(name, metrics, own)

    return objective._replace(
        init=_terms.with_hyperparameters(objective, remembered),
        stats=_terms.with_means(name, "terms", objective, terms),
        combine=combine,
    )


def next_epoch(state: ObjectiveState, means: Mapping[str, ArrayLike]) -> ObjectiveState:
    """Gives `dynamic_weight_average` the mean losses of the finished epoch.

    Args:
      state: The state of an objective made by `dynamic_weight_average`.
      means: By term, the mean loss over the epoch: metrics, or computed sums of
        `Mean`s.  Other names are ignored, so you can pass all metrics of an epoch.

    Returns:
      The state of the next epoch.

    Raises:
      ValueError: If the state has no dynamic weights, or `means` lacks one of their
        terms.
    """
    held = state.hyperparameters
    prefix = "dynamic/last/"
    terms = [key.removeprefix(prefix) for key in held if key.startswith(prefix)]
    if not terms:
        expected = "one of `dynamic_weight_average`"
        _checks.fail("next_epoch", "state", "no dynamic weights", expected)
    for term in terms:
        if term not in means:
            _checks.fail("next_epoch", "means", f"no {term!r}", f"all of {terms}")
    new = {prefix + term: jnp.asarray(means[term], jnp.float32) for term in terms}
    old = {f"dynamic/before/{term}": held[prefix + term] for term in terms}
    return state._replace(hyperparameters=held | new | old)


def with_targets(
    objective: Objective, transform: Callable[[Batch], Batch]
) -> Objective:
    """Changes the batch, example by example, before the objective sees it.

    Use it for label smoothing, noise correction or encodings: for any change of the
    targets of a single example.  A transform sees one part of the batch at a time, so
    apply one that mixes examples, such as `mixup`, to the whole batch before the step.

    Args:
      objective: Any objective.
      transform: batch -> batch, with the same number of examples.

    Returns:
      An `Objective`.

    Raises:
      TypeError: If `transform` is not callable.
      ValueError: While tracing, if the number of examples changes.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     losses = jaxloss.softmax_cross_entropy(params * batch["x"], batch["y"])
      ...     return {"fit": jaxloss.Mean.of(losses)}
      >>> def smooth(batch):
      ...     y = jaxloss.smooth_labels(batch["y"], num_classes=2, smoothing=0.2)
      ...     return batch | {"y": y}
      >>> fit = train.with_targets(train.objective(fn), smooth)
      >>> batch = {"x": jnp.array([[0.0, 9.0]]), "y": jnp.array([1])}
      >>> train.value_and_grad(fit)(jnp.array(1.0), fit.init(), batch).loss
      Array(0.90012336, dtype=float32)
    """
    name = "with_targets"
    if not callable(transform):
        has = f"type {_terms.kind(transform)}"
        _checks.wrong_kind(name, "transform", has, "a function of the batch")

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        changed = transform(batch)
        sizes = [
            sorted({jnp.shape(x)[:1] for x in jax.tree.leaves(b)})
            for b in (batch, changed)
        ]
        if sizes[0] != sizes[1]:
            has = f"a result of {sizes[1]} examples"
            _checks.fail(name, "transform", has, f"as many as in the batch, {sizes[0]}")
        return objective.stats(params, state, changed)

    return objective._replace(stats=stats)


# --- penalties -------------------------------------------------------------------

Norm = Callable[[ArrayLike], jax.Array]


def _penalised(
    function: str,
    objective: Objective,
    parts: Mapping[str, tuple[Setting, Norm]],
    select: Select | None,
    name: str,
) -> Objective:
    """The objective plus a sum of coefficients times norms of the parameters."""
    coefficients = {key: coefficient for key, (coefficient, _) in parts.items()}
    initial, current = _terms.settings(function, coefficients, f"{name}/", objective)

    def stats(params: Params, state: ObjectiveState, batch: Batch) -> Terms:
        chosen = jax.tree.leaves(params if select is None else select(params))
        if not chosen:
            _checks.fail(function, "select", "no parameters", "at least one array")
        norms = {
            key: Mean.constant(_terms.total([norm(x) for x in chosen]))
            for key, (_, norm) in parts.items()
        }
        theirs = _terms.terms(
            function, "objective", objective.stats(params, state, batch)
        )
        return _terms.join(function, theirs, {name: norms})

    def combine(state: ObjectiveState, totals: Terms) -> tuple[jax.Array, dict]:
        norms = {key: mean.compute() for key, mean in totals[name].items()}
        loss, metrics = objective.combine(state, _terms.without(totals, [name]))
        c = current(state)
        weighted = [c[key].astype(x.dtype) * x for key, x in norms.items()]
        alone = len(parts) == 1
        own = {name if alone else f"{name}/{key}": x for key, x in norms.items()}
        own[f"{name}/weighted"] = _terms.total(weighted)
        loss = _terms.total([loss, *weighted])
        return loss, _terms.join(function, metrics, own)

    return objective._replace(
        init=_terms.with_hyperparameters(objective, initial),
        stats=stats,
        combine=combine,
    )


def _squares(x: ArrayLike) -> jax.Array:
    x = _wide(x)
    return jnp.sum(jnp.real(x * jnp.conj(x)))  # |x|^2 for a complex parameter


def _absolutes(x: ArrayLike) -> jax.Array:
    x = _wide(x)
    return jnp.sum(jnp.abs(x) if jnp.iscomplexobj(x) else stable.magnitude(x))


def _wide(x: ArrayLike) -> jax.Array:
    x = jnp.asarray(x)
    # 256 * 256 overflows float16.
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


# --- names -----------------------------------------------------------------------


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
