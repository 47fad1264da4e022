"""All that is claimed of one function, in one place."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxloss.testing.accuracy import Case
from jaxloss.testing.domain import Domain
from jaxloss.testing.spec import LossSpec


class Line(NamedTuple):
    """A line through the arguments of a function, along which it is drawn."""

    label: str
    """Of the horizontal axis."""
    ends: tuple[float, float]
    at: Callable[[jax.Array, Any], tuple]
    """The arguments at a point, in a case."""
    cases: tuple[tuple[str, Any], ...] = (("", None),)
    """Further cases, such as the label: the name in the legend, and the value."""
    keywords: tuple[tuple[str, Any], ...] = ()
    """Arguments that are neither data nor hyperparameters."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Claim:
    """All that is claimed of one function: formula, accuracy, and how it is drawn.

    The laws, the tests of accuracy, the tables of the documentation, the pictures and
    `python -m jaxloss verify` read it.
    """

    fn: Callable[..., jax.Array]
    settings: tuple[LossSpec, ...] = ()
    """The laws it obeys, at each setting of its hyperparameters."""
    accuracy: tuple[Case, ...] = ()
    """Bounds of the errors of value and derivatives, in units in the last place."""
    domains: Mapping[str, Domain] = dataclasses.field(default_factory=dict)
    """The values that each argument may have; `testing.validate` looks at them.  Those
    of hyperparameters are the intervals that the function checks itself."""
    line: Line | None = None
    """The line along which it is drawn."""
    drawn: tuple[Mapping[str, Any], ...] = ()
    """The settings that a picture shows, if they are not the usual ones."""

    def __post_init__(self) -> None:
        cases = tuple(map(self._completed, self.accuracy))
        object.__setattr__(self, "accuracy", cases)
        # A loss is compiled by itself; a function around one is not.
        settings = tuple(
            dataclasses.replace(
                spec,
                kernel=spec.kernel or (type(spec) is LossSpec and spec.fn is self.fn),
                shardable=True,
            )
            for spec in self.settings
        )
        object.__setattr__(self, "settings", settings)

    def _completed(self, case: Case) -> Case:
        """A case with the function and the formula of the claim, where it has none."""
        if case.fn is None:
            name = f"{self.name} {case.name}".strip()
            case = dataclasses.replace(case, fn=self.fn, name=name)
        if case.formula is None:
            formula = functools.partial(_by_position, self.settings[0], case.names)
            case = dataclasses.replace(case, formula=formula)
        return case

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.fn.__name__


def _by_position(spec: LossSpec, names: tuple[str, ...], *columns: Any) -> Any:
    """The formula of a setting at one example, with its hyperparameters as columns."""
    split = len(columns) - len(names)
    named = dict(zip(names, columns[split:], strict=True))
    formula: Any = spec.reference
    args = [v for k, v in named.items() if k not in spec.params]
    params = {k: v for k, v in named.items() if k in spec.params}
    return formula.formula(*columns[:split], *args, **params)
