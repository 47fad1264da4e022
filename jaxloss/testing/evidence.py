"""The evidence of the laws: results of a loss for trials, and comparisons of them.

A `Trial` is a batch of examples in one dtype.  It has the results of the loss for them,
knows how ill-conditioned the examples are, and reports a wrong result by showing the
offending example alone.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import monitoring
from jax.typing import ArrayLike, DTypeLike

from jaxloss.testing import programs
from jaxloss.testing.programs import CHUNK, Batch, Derivatives, floating, is_floating
from jaxloss.testing.spec import LossSpec
from jaxloss.testing.ulps import DOUBLE, ulp, wide

STEP = 1e-5  # of a difference: errors of STEP^2 (its truncation) and eps/STEP = 2e-11

Args = tuple[np.ndarray, ...]


def as_function_of(
    spec: LossSpec, args: Sequence, positions: Sequence[int]
) -> Callable:
    """The loss as a function of the arguments at `positions` alone."""
    return lambda *chosen: spec(*programs.insert(args, positions, chosen))


def slopes(
    spec: LossSpec, *args: jax.Array, where: Sequence[int] | None = None
) -> tuple[jax.Array, tuple]:
    """The value under reverse mode, and the gradient in the arguments at `where`, by
    default in each floating one."""
    where = floating(args) if where is None else where
    chosen = [jnp.asarray(args[i]) for i in where]
    value, pull = jax.vjp(as_function_of(spec, args, where), *chosen)
    return value, pull(jnp.ones_like(value))


def function_of(spec: LossSpec) -> programs.Function:
    """A spec as a function of columns: its arguments, then its hyperparameters."""
    names = tuple(spec.params)

    def call(*columns: jax.Array) -> jax.Array:
        split = len(columns) - len(names)
        return spec(*columns[:split], **dict(zip(names, columns[split:], strict=True)))

    static = repr(sorted(spec.static.items()))
    key = (type(spec), spec.fn, (*spec.keywords, *names), static)
    return programs.Function(key, call, len(names), steps=spec.wrt)


# --- trials ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A batch of examples in one dtype, the results of the loss, and comparisons."""

    spec: LossSpec
    args: Args
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Hyperparameters other than those of the spec."""

    @classmethod
    def draw(
        cls,
        spec: LossSpec,
        shape: tuple[int, ...] = (CHUNK,),
        *,
        seed: int = 0,
        dtype: DTypeLike = DOUBLE,
    ) -> "Trial":
        """A sample of the spec."""
        sample = spec.sample(np.random.default_rng(seed), shape)
        return cls(spec, tuple(map(np.asarray, sample))).cast(dtype)

    def of(self, *args: np.ndarray) -> "Trial":
        """The same loss at other arguments."""
        return Trial(self.spec, args, self.settings)

    def cast(self, dtype: DTypeLike) -> "Trial":
        """Floating arguments in `dtype`; finite ones beyond its range saturate.

        An edge such as 1e30 so becomes the edge of float16, not infinity.
        """
        last = float(jnp.finfo(dtype).max)
        args = [
            np.where(np.isinf(a), a, np.clip(a.astype(DOUBLE), -last, last)).astype(
                dtype
            )
            if is_floating(a)
            else a
            for a in self.args
        ]
        return self.of(*args)

    @property
    def dtype(self) -> np.dtype:
        """The dtype under test."""
        return self.args[0].dtype if self.args else DOUBLE

    @property
    def params(self) -> Mapping[str, Any]:
        """The hyperparameters."""
        return {**self.spec.params, **self.settings}

    @functools.cached_property
    def exact(self) -> "Trial":
        """The same examples in float64."""
        return self if self.dtype == DOUBLE else self.cast(DOUBLE)

    # What the programs return.

    @functools.cached_property
    def _columns(self) -> list[np.ndarray]:
        """The arguments, and a column for each hyperparameter."""
        count = len(self.args[0])
        settings = [np.asarray(v, wide(self.dtype)) for v in self.params.values()]
        return [
            *self.args,
            *(np.broadcast_to(v, (count, *v.shape)) for v in settings),
        ]

    def _run(self, steps: Sequence | None = None) -> tuple[Derivatives, dict]:
        """What the program of this dtype returns."""
        # Reverse over forward mode is a law of float32 only.
        function = function_of(self.spec)._replace(turns=self.dtype != DOUBLE)
        columns = self._columns
        return programs.derivatives(function, columns, steps)

    def _by_column(self, parts: Sequence) -> Iterator[tuple[int, Any]]:
        """Parts of the evidence, each with the position of its column."""
        yield from zip(floating(self._columns), parts, strict=False)

    @functools.cached_property
    def _evidence(self) -> tuple[Derivatives, dict[str, Exception]]:
        return self._run()

    @property
    def _found(self) -> Derivatives:
        return self._evidence[0]

    def insist(self, what: str) -> None:
        """Raises what the loss raised when it was asked for forward mode, or for
        hyperparameters that are traced; nothing if it was able to."""
        if what in self._evidence[1]:
            raise self._evidence[1][what]

    def value(self) -> np.ndarray:
        """The loss, compiled."""
        return self._found.value

    def value_under_grad(self) -> np.ndarray:
        """The value that reverse mode returns along with the gradient."""
        return self._found.under_grad

    def jvp(self, steps: Mapping[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Forward mode: the value, and its slope along the steps in some arguments."""
        found = self._forward(steps)
        return found.under_jvp, found.slope

    def gradients_of_slope(self, steps: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """Of the slope by forward mode, in each differentiable argument, by reverse
        mode; not in float64."""
        places = function_of(self.spec).stepping(self._columns)
        turned = dict(zip(places, self._forward(steps).turned, strict=True))
        return [turned[i] for i in self.spec.wrt]

    def _forward(self, steps: Mapping[int, np.ndarray]) -> Derivatives:
        """What the program returns along steps in some columns."""
        columns = self._columns
        if "hyperparameters" in self._evidence[1]:  # constants, that have no step
            columns = columns[: len(self.args)]
        function = function_of(self.spec)._replace(
            settings=len(columns) - len(self.args)
        )
        places = function.steps_of(columns)
        every = [steps.get(i, np.zeros_like(columns[i])) for i in places]
        found, _ = self._run(every)
        self.insist("forward mode")
        return found

    def gradients(self) -> list[np.ndarray]:
        """The gradient in each differentiable argument."""
        every = dict(self._by_column(self._found.gradient))
        return [every[i] for i in self.spec.wrt]

    def slope_in(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The derivative in a hyperparameter, in forward and in reverse mode."""
        self.insist("hyperparameters")
        place = len(self.args) + [*self.spec.params].index(name)
        reverse = dict(self._by_column(self._found.gradient))[place]
        step = {place: np.ones_like(self._columns[place])}
        return self._forward(step).tuned, reverse.reshape(len(reverse), -1).sum(axis=1)

    def hessian(self) -> np.ndarray:
        """Per example, a matrix over all components of differentiable arguments."""
        n, blocks = len(self.args[0]), []
        rows = dict(self._by_column(self._found.hessian))
        width = {i: self.args[i].size // n for i in self.spec.wrt}
        for i in self.spec.wrt:
            row = dict(self._by_column(rows[i]))
            shape = lambda j, i=i: (n, width[i], width[j])
            blocks.append([np.reshape(row[j], shape(j)) for j in self.spec.wrt])
        return np.block(blocks)

    def batch(self, where: np.ndarray, counts: np.ndarray) -> Batch:
        """A chunk of examples as a batch, masked and weighted."""
        self._one_per_example()
        function = function_of(self.spec)
        return programs.batch(function, self._columns, where, counts, self.spec.fill)

    @functools.cached_property
    def _step_by_step(self) -> tuple[tuple, str]:
        """Value and gradients, one operation at a time, and a NaN in between."""
        self._one_per_example()
        run = functools.partial(slopes, self.spec, where=self.spec.wrt)
        key = function_of(self.spec).key, self.spec.wrt, repr(self.params)
        return programs.in_steps(key, run, *self.args)

    def seen_infinity(self) -> str:
        """What `jax.debug_infs` says of value and gradient, each of them compiled: so a
        loss runs outside of `jit`.  Between two of its operations nothing is seen.

        Only examples with finite arguments, values and gradients are taken: another
        infinity is right.
        """
        self._one_per_example()
        arrays = [*filter(is_floating, self.args), self.value(), *self.gradients()]
        finite = [np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in arrays]
        due = np.logical_and.reduce(finite)
        if not due.any():
            return ""

        compiled, where = jax.jit(self.spec), self.spec.wrt

        def run(args: list) -> tuple:
            args = [jnp.asarray(a) for a in args]
            loss = lambda *chosen: compiled(*programs.insert(args, where, chosen))
            value, pull = jax.vjp(loss, *(args[i] for i in where))
            return value, pull(jnp.ones_like(value))

        try:
            # JAX announces its second look at a compiled part by `print`.
            with jax.debug_infs(True), contextlib.redirect_stdout(io.StringIO()):
                programs.in_chunks(run, [a[due] for a in self.args])
        except FloatingPointError as error:
            return str(error)
        return ""

    def _one_per_example(self) -> None:
        """Raises if the loss is a mean already, of which no example can be told."""
        shape = jax.eval_shape(self.spec, *self.args).shape
        if shape != self.args[0].shape[:1]:
            raise AssertionError(
                f"the loss of {len(self.args[0])} examples has shape {shape}; expected "
                "one number per example"
            )

    def hidden_nan(self) -> str:
        """Which operation of value and gradient makes a NaN, as `jax.debug_nans` does,
        or ""."""
        return self._step_by_step[1]

    def eager(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Value and gradients, step by step."""
        value, gradients = self._step_by_step[0]
        return value, [*gradients]

    def formula(self, field: str) -> np.ndarray:
        """A formula of the spec at the examples, which are widened to float64 first."""
        return getattr(self.spec, field)(*self.exact.args, **self.params)

    def formulas(self, field: str) -> Sequence[np.ndarray]:
        """A formula of gradients: one for each differentiable argument."""
        if getattr(self.spec, field) is None:
            return [np.zeros(())] * len(self.spec.wrt)
        found: Any = self.formula(field)
        return [found] if isinstance(self.spec.differentiable, int) else found

    # What a faultless implementation cannot avoid.

    @functools.cached_property
    def _spread(self) -> np.ndarray:
        moves = self.formula("cancels") if self.spec.cancels else np.zeros(())
        for i, slope in self.exact._of_args(self.exact._found.gradient):
            moves = moves + _moves(self.exact.args[i], slope, 1)
        return moves

    def _of_args(self, parts: Sequence) -> Iterator[tuple[int, Any]]:
        """The parts of the evidence that are about arguments."""
        yield from ((i, p) for i, p in self._by_column(parts) if i < len(self.args))

    def spread(self) -> np.ndarray:
        """Condition of the value: sum of |x . df/dx|, and of what the spec admits."""
        return self._spread

    def gradient_spreads(self) -> list[np.ndarray]:
        """The same for the gradient in each differentiable argument."""
        exact, found = self.exact, []
        rows = dict(exact._by_column(exact._found.hessian))
        admitted = self.formulas("gradient_cancels")
        for i, moves in zip(self.spec.wrt, admitted, strict=True):
            for j, block in exact._of_args(rows[i]):
                moves = moves + _moves(exact.args[j], block, exact.args[i].ndim)
            found.append(moves)
        return found

    # Verdicts.

    def within_ulps(
        self,
        what: str,
        got: ArrayLike,
        truth: ArrayLike,
        spread: ArrayLike = 0.0,
        ulps: float | None = None,
    ) -> None:
        """Raises, showing the worst example, unless as right as rounding allows.

        That is `ulps` units in the last place, or half as many for the result and for
        each argument: `spread` is how far relative changes of 1 would move the result.
        A dtype narrower than the computation adds its own rounding, and what exceeds
        its largest number may be infinite.  Subnormals may be flushed to zero, also on
        the way, where an argument of up to 128 may yet multiply them.
        """
        ulps, got = self.spec.ulps if ulps is None else ulps, np.asarray(got)
        info, own = jnp.finfo(wide(self.dtype)), jnp.finfo(got.dtype)
        last = float(own.max)
        actual, desired = (
            np.clip(np.asarray(a, DOUBLE), -last, last) for a in (got, truth)
        )
        if actual.shape != desired.shape:
            raise AssertionError(f"{what} has shape {got.shape}, not {desired.shape}")
        unit, moves = ulp(desired, info.dtype), float(info.eps) * np.asarray(spread)
        entries = np.abs(flat(self.exact.args)).max(axis=1)
        flushed = float(info.tiny) * np.clip(entries, 1, 128)
        flushed = flushed.reshape(-1, *[1] * (desired.ndim - 1))
        allowed = ulps / 2 * (unit + np.maximum(unit, moves)) + flushed
        if own.bits < info.bits:
            allowed = allowed + ulp(desired, own.dtype) / 2
        excess = np.nan_to_num(np.abs(actual - desired) / allowed, nan=np.inf)
        worst = (excess > 1) & (excess == excess.max())
        what = f"{what} is off by {excess.max():.3g} times the error allowed: it"
        self.fail_at(what, worst, got, np.asarray(truth))

    def fail_at(self, what: str, wrong: ArrayLike, got: Any, want: Any) -> None:
        """Raises if any result is wrong, showing the first and its example alone.

        `got` and `want` are arrays shaped like `wrong`, or words.
        """
        if not np.any(wrong):
            return
        index = tuple(np.argwhere(wrong)[0])
        words = [x if isinstance(x, str) else short(x[index]) for x in (got, want)]
        shown = [short(a[index[0]] if index else a) for a in self.args]
        keywords = self.spec.keywords
        names = [*parameters(self.spec.fn)][: len(shown) - len(keywords)]
        example = ", ".join(
            map("=".join, zip((*names, *keywords), shown, strict=False))
        )
        raise AssertionError(
            f"{what} is {words[0]}; expected {words[1]}; at {example} in {self.dtype}"
        )

    # Differences.

    def direction(self, seed: int) -> dict[int, np.ndarray]:
        """Random steps in the differentiable arguments, in proportion to them."""
        rng = np.random.default_rng(seed)
        chosen = {i: self.args[i] for i in self.spec.wrt}
        sizes = {i: np.where(x == 0, 1.0, np.abs(x)) for i, x in chosen.items()}
        return {i: size * rng.normal(size=size.shape) for i, size in sizes.items()}

    def shifted(self, steps: Mapping[int, np.ndarray], h: float) -> "Trial":
        """The same examples, `h` times the steps further."""
        return self.of(
            *(a + h * steps[i] if i in steps else a for i, a in enumerate(self.args))
        )

    def tuned(self, name: str, h: float) -> "Trial":
        """The same examples, with `h` added to a hyperparameter."""
        return Trial(self.spec, self.args, {name: self.params[name] + h})

    def matches_differences(
        self,
        what: str,
        slope: ArrayLike,
        f: Callable[[float], ArrayLike],
        size: ArrayLike,
    ) -> None:
        """Raises unless `slope` is the derivative of `f` at 0, to 1e-6 of `size`."""
        here, ahead, behind = (np.asarray(f(h)) for h in (0.0, STEP, -STEP))
        right, left = (ahead - here) / STEP, (here - behind) / STEP
        # One side may lie outside the domain (a hyperparameter at its bound): NaN.
        outside = np.isnan(right) | np.isnan(left)
        one_sided = np.where(np.isnan(right), left, right)
        numeric = np.where(outside, one_sided, (right + left) / 2)
        allowed = (np.abs(here) + size) * np.where(outside, 1e-4, 1e-6)
        kink = np.abs(right - left) > 1e-3 * (np.abs(right) + np.abs(left))
        wrong = ~(np.abs(slope - numeric) <= allowed) & ~(kink & (not self.spec.smooth))
        self.fail_at(what, wrong, slope, numeric)

    def singles(self) -> Iterator["Trial"]:
        """The examples, one at a time."""
        for i in range(len(self.args[0])):
            yield self.of(*(a[i : i + 1] for a in self.args))


@contextlib.contextmanager
def compile_events() -> Iterator[list[str]]:
    """What JAX traces, lowers and compiles meanwhile: one entry for each."""
    events: list[str] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            events.append(event.removeprefix("/jax/core/compile/"))

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        monitoring.unregister_event_duration_listener(listen)


def trials(spec: LossSpec, *dtypes: DTypeLike) -> Iterator[Trial]:
    """Typical examples and the extremes of each dtype, as flat batches of it.

    One batch for each event shape; what was once found of it is kept for other laws.
    """
    for dtype in dtypes:
        yield from _trials(spec, np.dtype(dtype))


@functools.lru_cache(maxsize=16)
def _trials(spec: LossSpec, dtype: np.dtype) -> tuple[Trial, ...]:
    batches: dict[Any, list[list[np.ndarray]]] = {}
    edges = spec.extremes(dtype) if spec.extremes else ()
    for case in (Trial.draw(spec, (CHUNK // 2,)).args, *edges):
        arrays = [np.asarray(a) for a in case]
        ndim = arrays[0].ndim - spec.event_ndim
        flat = [a.reshape(-1, *a.shape[ndim:]) for a in arrays]
        batches.setdefault(tuple(a.shape[1:] for a in flat), []).append(flat)
    found = []
    for batch in batches.values():
        args = [np.concatenate(parts) for parts in zip(*batch, strict=True)]
        count = len(args[0])  # a shorter argument is repeated
        full = tuple(np.resize(a, (count, *a.shape[1:])) for a in args)
        found.append(Trial(spec, full).cast(dtype))
    return tuple(found)


def parameters(fn: Callable) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function by name; none if it does not tell."""
    try:
        return inspect.signature(fn).parameters
    except ValueError:
        return {}


def short(x: ArrayLike) -> str:
    """A number as it can be typed again, or at most eight numbers of an array."""
    x = np.asarray(x)
    x = x.astype(DOUBLE) if is_floating(x) else x
    digits: Any = {"float_kind": lambda number: repr(float(number))}
    return np.array2string(
        x, 1000, separator=", ", formatter=digits, threshold=8, edgeitems=2
    )


def flat(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of the same batch side by side, as one vector per example."""
    return np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)


def _moves(x: np.ndarray, slope: np.ndarray, ndim: int) -> np.ndarray:
    """Sum of |slope . x| over all but the first `ndim` axes; where the slope is not
    finite, nothing is conceded."""
    x = x.reshape(len(x), *[1] * (slope.ndim - x.ndim), *x.shape[1:])
    moves = np.nan_to_num(np.where(x == 0, 0.0, np.abs(slope * x)), nan=0, posinf=0)
    return moves.sum(axis=tuple(range(ndim, moves.ndim)))
