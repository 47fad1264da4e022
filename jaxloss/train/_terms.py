"""What an objective is, how it stores settings in its state and combines terms."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.reduce import Mean
from jaxloss.train._results import Auxiliary, Metric

Params = Any
Batch = Any
Terms = dict[str, Any]
Values = dict[str, jax.Array]
Schedule = Callable[[jax.Array], ArrayLike]
Setting = ArrayLike | Schedule
# The combinators whose name in the state the caller chooses.
NAMED = ("objective", "weighted", "l1", "l2", "elastic_net")


class ObjectiveState(NamedTuple):
    """The state of an objective between steps: you may replace values, not keys.

    It is a plain pytree: jit it, donate it, save it, and `vmap` over its
    hyperparameters to train a whole grid at once.

    Attributes:
      count: Number of steps taken, an int32 scalar: the argument of schedules.
      hyperparameters: float32 arrays by name.  Those of `fn` have their own names,
        those of combinators a prefix: `weights/<term>`, `l2/coefficient`.
      carry: What one part of a batch passes to the next one without a gradient, such as
        the running statistics of BatchNorm: any pytree; None if there is nothing.
    """

    count: jax.Array
    hyperparameters: dict[str, jax.Array]
    carry: Any = None


class Objective(NamedTuple):
    """Three pure functions; make them with `objective` or write them yourself.

    Attributes:
      init: () -> ObjectiveState, in new buffers, which may be donated.
      stats: (params, state, batch) -> {term: Mean, or a pytree of sums}.  The result
        for a batch must be the sum of the results for its parts, for any split.  If
        `state.carry` is not None, "carry" is not a term but the next carry; "aux" may
        have what `fn` of `objective` returned beside its terms.
      combine: (state, totals) -> (loss, metrics): from the sums of the whole batch
        to a scalar and a dict.  It sees neither parameters nor data, so nothing in it
        can be counted once per part.
    """

    init: Callable[[], ObjectiveState]
    stats: Callable[[Params, ObjectiveState, Batch], Terms]
    combine: Callable[[ObjectiveState, Terms], tuple[jax.Array, dict[str, Any]]]


def settings(
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
    unused(function, taken, [prefix + name for name in numbers])

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


def with_hyperparameters(
    objective: Objective, initial: Callable[[], Values]
) -> Callable:
    """The `init` of an objective with hyperparameters added."""

    def init() -> ObjectiveState:
        state = objective.init()
        return state._replace(hyperparameters=state.hyperparameters | initial())

    return init


def names(function: str, terms: Sequence[str]) -> list[str]:
    """The names of terms; raises `TypeError` for a string, whose letters they'd be."""
    if isinstance(terms, str):
        has = f"the string {terms!r}"
        _checks.wrong_kind(function, "terms", has, "a list of names")
    return list(terms)


def terms(function: str, argument: str, stats: Any) -> Terms:
    """The terms as a dict of their own; raises `TypeError` unless it is a mapping."""
    if not isinstance(stats, Mapping) or not stats:
        _checks.wrong_kind(
            function,
            argument,
            f"a result of type {kind(stats)}" if stats is not None else "no result",
            "a dict of at least one term, such as {'error': jaxloss.Mean.of(losses)}",
        )
    return dict(stats)


def mean(function: str, argument: str, terms: Terms, term: str) -> None:
    """Raises unless `term` is known and a `Mean`."""
    if term not in terms:
        known = ", ".join(map(repr, terms))
        _checks.fail(function, argument, f"the term {term!r}", f"one of {known}")
    if isinstance(terms[term], Metric):
        has, expected = f"the metric {term!r}", "a term of the loss (jaxloss.Mean.of)"
        _checks.wrong_kind(function, argument, has, expected)
    if not isinstance(terms[term], Mean):
        _checks.wrong_kind(
            function,
            argument,
            f"the term {term!r} of type {kind(terms[term])}",
            "a jaxloss.Mean (jaxloss.Mean.of): means of parts of a batch cannot be "
            "combined, their totals and weights can",
        )


def with_means(
    function: str, argument: str, objective: Objective, names: Iterable[str]
) -> Callable[[Any, ObjectiveState, Any], Terms]:
    """The `stats` of an objective, in which the names are terms and means."""

    def stats(params: Any, state: ObjectiveState, batch: Any) -> Terms:
        found = terms(function, "objective", objective.stats(params, state, batch))
        for name in names:
            mean(function, argument, found, name)
        return found

    return stats


def weighted(
    objective: Objective, state: ObjectiveState, totals: Terms, factors: Values
) -> tuple[jax.Array, dict[str, Any]]:
    """The loss of the weighted terms, and the metrics of the unweighted ones."""
    loss, _ = objective.combine(state, scaled(totals, factors))
    # Once more for the metrics; scalars cost nothing.
    _, metrics = objective.combine(state, totals)
    return loss, metrics


def scaled(totals: Terms, factors: Mapping[str, jax.Array]) -> Terms:
    def scale(mean: Mean, factor: jax.Array) -> Mean:
        factor = factor.astype(mean.total.dtype)
        total, total_rest = mean.total * factor, mean.total_rest * factor
        return Mean(total, mean.weight, total_rest, mean.weight_rest)

    return totals | {term: scale(totals[term], x) for term, x in factors.items()}


def total(scalars: Sequence[jax.Array]) -> jax.Array:
    """The sum, in the widest dtype."""
    first, *rest = widest(scalars)
    return sum(rest, first)


def widest(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """All in the widest dtype, cast first: strict promotion mixes none."""
    wide = max((x.dtype for x in arrays), key=lambda dtype: jnp.finfo(dtype).bits)
    return [x.astype(wide) for x in arrays]


def join(function: str, theirs: dict, own: dict) -> dict:
    unused(function, theirs, own)
    return {**theirs, **own}


def results(function: str, result: Any, *, carried: bool) -> tuple[Any, Terms]:
    """What `fn` returned: its terms, and what is none by the key that it has in stats.

    That is `terms`, `(terms, aux)`, `(terms, carry)` or `(terms, carry, aux)`.
    """
    own: Terms = {}
    if carried:
        if not isinstance(result, tuple) or len(result) not in (2, 3):
            has = f"a result of type {kind(result)}"
            expected = "a pair (terms, carry), or (terms, carry, aux)"
            _checks.wrong_kind(function, "fn", has, expected)
        own["carry"] = result[1]
        result = (result[0], *result[2:])
    if isinstance(result, tuple) and len(result) in (1, 2):
        found, *aux = result
        if aux and aux[0] is not None:
            own["aux"] = Auxiliary(jax.tree.map(jnp.asarray, aux[0]))
    else:
        found = result
    for name in own if isinstance(found, Mapping) else ():
        if name in found:
            has = f"a term {name!r}, which is a reserved name here"
            _checks.fail(function, "fn", has, "another name for it")
    return found, own


class Beside(NamedTuple):
    """What the function of an objective returns beside its terms; it is not summed.

    Attributes:
      carry: What the next part receives.
      aux: Arrays of the examples of this part, or of all parts; None if there are none.
    """

    carry: Any
    aux: Any = None

    def stats(self) -> Terms:
        """As it stands in the result of `Objective.stats`."""
        found: Terms = {} if self.carry is None else {"carry": self.carry}
        return found if self.aux is None else {**found, "aux": Auxiliary(self.aux)}


def apart(function: str, stats: Terms, carry: Any) -> tuple[Terms, Beside]:
    """The terms, which are summed, and the rest; the carry must fit the last one."""
    aux = stats.get("aux") if isinstance(stats, Mapping) else None
    if isinstance(aux, Auxiliary):
        stats, aux = without(dict(stats), ["aux"]), aux.auxiliary
    else:
        aux = None  # a term of that name
    if carry is None:
        return stats, Beside(None, aux)
    if not isinstance(stats, Mapping) or "carry" not in stats:
        _checks.fail(function, "objective", "terms without the carry", "'carry'")
    _same_shapes(function, carry, stats["carry"])
    return without(dict(stats), ["carry"]), Beside(stats["carry"], aux)


def _same_shapes(function: str, old: Any, new: Any) -> None:
    """Raises unless a carry has the structure, shapes and dtypes of the last one."""
    described = [
        {
            jax.tree_util.keystr(path): f"{jnp.result_type(x)}{list(jnp.shape(x))}"
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (old, new)
    ]
    if described[0] != described[1]:
        paths = described[0] | described[1]
        differ = [p for p in paths if described[0].get(p) != described[1].get(p)]
        has, expected = ({p: d.get(p) for p in differ} for d in described[::-1])
        _checks.wrong_kind(function, "carry", str(has), f"{expected}, as it was given")


def unused(function: str, taken: Iterable[str], names: Iterable[str]) -> None:
    argument = "name" if function in NAMED else "terms"
    for name in names:
        if name in taken:
            has = f"{name!r}, which this objective already has"
            _checks.fail(function, argument, has, "a name of its own")


def without(totals: Terms, names: Sequence[str]) -> Terms:
    return {name: x for name, x in totals.items() if name not in names}


def kind(x: Any) -> str:
    """The type in an error, with shape and dtype where there are any."""
    if isinstance(x, jax.Array):
        return f"{type(x).__name__} {x.dtype}{list(x.shape)}"
    return type(x).__name__
