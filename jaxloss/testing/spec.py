"""What is claimed of a loss, as data."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss.testing import ulps
from jaxloss.testing.ulps import DOUBLE, SINGLE


class Symmetry(NamedTuple):
    """A change of the arguments, and what it does to the loss."""

    name: str
    """In words: "a shift of the logits"."""
    move: Callable[..., tuple]
    """From a NumPy generator and the arguments of a batch, the changed arguments."""
    value: Callable[[np.ndarray], np.ndarray] = lambda loss: loss
    """From the losses before, the losses after it; the same by default."""


class NotAnArray(TypeError):
    """A loss returned a dictionary, a tuple, None: JAX takes it for a tree of arrays,
    and its errors do not say what is wrong."""


def one_array(returned: Any) -> jax.Array:
    """What a loss returned, if that is an array or a number."""
    if isinstance(returned, jax.Array | np.ndarray | np.generic | float | int):
        return cast(jax.Array, returned)
    has = "None" if returned is None else f"a {type(returned).__name__}"
    raise NotAnArray(f"it returned {has}; expected one array, a number per example")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LossSpec:
    """What is claimed of one loss at one setting of its hyperparameters.

    Formulas (`reference`, `gradient`, ...) are NumPy functions of the sample's arrays
    and the hyperparameters: `reference(*args, **params)`.
    """

    name: str
    fn: Callable[..., jax.Array]
    sample: Callable[[np.random.Generator, tuple[int, ...]], Sequence]
    """Draws arguments for a batch shape.  Floating ones are cast to the dtype under
    test; integer and boolean ones (class ids, masks) keep their dtype."""
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Numeric hyperparameters: numbers or arrays.  They are rounded to float32, so
    that a formula sees the number the loss computes with."""
    static: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other keyword arguments (`squared=True`), fixed; formulas do not receive them."""
    keywords: tuple[str, ...] = ()
    """Names of the last arguments of the sample that are passed by keyword."""
    event_ndim: int = 0
    """Trailing axes of argument 0 that one loss value consumes."""
    differentiable: int | tuple[int, ...] = 0
    """Positions of the arguments whose gradients are claimed."""
    reference: Callable[..., np.ndarray] | None = None
    """Independent formula of the value, from the paper and not from `fn`."""
    cancels: Callable[..., np.ndarray] | None = None
    """Size of the terms the loss subtracts: an admitted limit of its accuracy."""
    gradient: Callable[..., Any] | None = None
    """Hand-derived gradient; a tuple if `differentiable` is one."""
    gradient_cancels: Callable[..., Any] | None = None
    """Size of the terms the gradient subtracts, shaped like the gradient."""
    curvature: Callable[..., np.ndarray] | None = None
    """Hand-derived second derivative in the first differentiable argument: f'' of an
    elementwise loss, the Hessian `(..., d, d)` of a loss of rows; NaN on a kink."""
    ulps: float = 8
    """Units in the last place allowed to value and gradient when well conditioned."""
    second_ulps: float = 12
    """The same for the second derivative."""
    smooth: bool = True
    """Whether samples stay clear of kinks; False: differences skip examples on one."""
    extremes: Callable[[Any], Iterable[tuple]] | None = None
    """Given a dtype, arguments at the edges of the domain: 0, ties, max/4, ..."""
    minimiser: Callable[..., np.ndarray] | None = None
    """From the remaining arguments, an argument 0 at which the loss is least."""
    minimum: float | Callable[..., np.ndarray] = 0.0
    """The least value, or a formula of it from the remaining arguments."""
    convex: bool = False
    """Whether the loss is convex in argument 0."""
    functional: Callable[..., Any] | None = None
    """From a sample of targets, the constant prediction of least mean loss: its mean,
    its median, a quantile, ..., `functional(targets, **params)`."""
    proper: Callable[[np.random.Generator], tuple[tuple, np.ndarray]] | None = None
    """Draws a distribution, and returns the arguments of the forecast that tells it,
    one row for each outcome, and the probabilities of the outcomes (or the weights of
    a quadrature): a proper loss is least, in expectation, at this forecast."""
    forecast: tuple[int, ...] = (0,)
    """The arguments that are forecast, for `proper`; the others are the outcome."""
    symmetries: tuple[Symmetry, ...] = ()
    """Changes of the arguments, and how they change the loss, if at all."""
    kernel: bool = False
    """Whether the loss is compiled by itself, so that a call of it is one program."""
    shardable: bool = False
    """Whether every axis of the arguments may be sharded on a mesh with explicit axes,
    and not the one of the examples alone."""
    fill: float = 0.0
    """What masked entries are replaced by: a value inside the domain."""
    exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Laws that do not apply, by name, each with the reason."""
    bad_calls: tuple[tuple[tuple, dict, type[Exception], str], ...] = ()
    """(arguments, parameters, exception type, regular expression) that must raise."""

    def __post_init__(self) -> None:
        rounded = {k: np.asarray(v, SINGLE) for k, v in self.params.items()}
        params = {
            k: v.astype(DOUBLE) if v.ndim else float(v) for k, v in rounded.items()
        }
        object.__setattr__(self, "params", params)

    def __call__(self, *args: jax.Array, **overrides: Any) -> jax.Array:
        """The loss at `args`; hyperparameter arrays take the dtype it computes in."""
        params = {**self.params, **overrides}
        for name, setting in params.items():
            if isinstance(setting, np.ndarray):
                params[name] = jnp.asarray(setting, ulps.wide(args[0].dtype))
        split = len(args) - len(self.keywords)
        named = dict(zip(self.keywords, args[split:], strict=True))
        try:
            return self.losses_in(
                self.fn(*args[:split], **named, **params, **self.static)
            )
        except Exception as error:
            kinds = ", ".join(f"{a.dtype}{list(a.shape)}" for a in args)
            error.add_note(f"{self.name} was called with {kinds}")
            raise

    def losses_in(self, returned: Any) -> jax.Array:
        """What the function returns; a subclass may choose one of several arrays."""
        return one_array(returned)

    @property
    def wrt(self) -> tuple[int, ...]:
        """The positions of the differentiable arguments, as a tuple."""
        where = self.differentiable
        return (where,) if isinstance(where, int) else where
