"""What the laws look at: a loss, run on trials, and verdicts about what it gave.

A `Trial` is a batch of examples in one dtype: it runs the loss (each program compiled
once per spec, shape and dtype), knows how ill-conditioned the examples are, and
refuses a result by showing the one offending example.
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

from jaxloss.testing.spec import LossSpec
from jaxloss.testing.ulps import DOUBLE, ulp, wide

BATCH = 32  # one batch size for nearly every call, so that programs are compiled once
STEP = 1e-5  # of a difference: errors of STEP^2 (its truncation) and eps/STEP = 2e-11

Args = tuple[np.ndarray, ...]


# --- the programs: compiled once per spec, shape and dtype -------------------------


def is_floating(x: Any) -> bool:
    """Whether the dtype under test applies to `x`; class ids and masks keep theirs."""
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def floating(args: Sequence[Any]) -> tuple[int, ...]:
    """The positions of the floating arguments."""
    return tuple(i for i, a in enumerate(args) if is_floating(a))


def as_function_of(
    spec: LossSpec, args: Sequence, positions: Sequence[int]
) -> Callable:
    """The loss as a function of the arguments at `positions` alone."""

    def loss(*chosen: jax.Array) -> jax.Array:
        given = dict(enumerate(args)) | dict(zip(positions, chosen, strict=True))
        return spec(*given.values())

    return loss


def pick(args: Sequence, positions: Sequence[int]) -> tuple[jax.Array, ...]:
    """The arguments at `positions`."""
    return tuple(jnp.asarray(args[i]) for i in positions)


def eager_slopes(spec: LossSpec, *args: jax.Array) -> tuple[jax.Array, tuple]:
    """The value under reverse mode, and the gradient in each floating argument."""
    where = floating(args)
    value, pull = jax.vjp(as_function_of(spec, args, where), *pick(args, where))
    return value, pull(jnp.ones_like(value))


slopes = jax.jit(eager_slopes, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _value(spec: LossSpec, *args: jax.Array) -> jax.Array:
    return spec(*args)


@functools.partial(jax.jit, static_argnums=0)
def _push(spec: LossSpec, tangents: tuple, *args: jax.Array) -> tuple:
    return jax.jvp(as_function_of(spec, args, spec.wrt), pick(args, spec.wrt), tangents)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _second(spec: LossSpec, forward_last: bool, *args: jax.Array) -> tuple:
    """Per example, the gradient in each differentiable argument differentiated in each
    floating one: by forward over reverse mode, or by reverse over forward mode."""
    modes = (jax.grad, jax.jacfwd) if forward_last else (jax.jacfwd, jax.jacrev)
    where = floating(args)
    wrt = tuple(map(where.index, spec.wrt))

    def one(*example: jax.Array) -> tuple:
        slope = modes[0](as_function_of(spec, example, where), wrt)
        return modes[1](slope, tuple(range(len(where))))(*pick(example, where))

    return jax.vmap(one)(*args)


def swept(spec: LossSpec, name: str) -> Callable[..., tuple]:
    """Value, slope and total slope as functions of one traced hyperparameter."""

    @jax.jit
    def run(setting: jax.Array, *args: jax.Array) -> tuple:
        loss = lambda p: spec(*args, **{name: p})
        value, slope = jax.jvp(loss, (setting,), (jnp.ones_like(setting),))
        return value, slope, jax.grad(lambda p: jnp.sum(loss(p)))(setting)

    return run


# --- trials ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Trial:
    """A batch of examples in one dtype, what the loss makes of it, and the verdict."""

    spec: LossSpec
    args: Args

    @classmethod
    def draw(
        cls,
        spec: LossSpec,
        shape: tuple[int, ...] = (BATCH,),
        *,
        seed: int = 0,
        dtype: DTypeLike = DOUBLE,
    ) -> "Trial":
        """A sample of the spec."""
        sample = spec.sample(np.random.default_rng(seed), shape)
        return cls(spec, tuple(map(np.asarray, sample))).cast(dtype)

    def cast(self, dtype: DTypeLike) -> "Trial":
        """Floating arguments in `dtype`; finite ones beyond its range saturate.

        An edge such as 1e30 so becomes the edge of float16, not infinity.
        """
        last = float(jnp.finfo(dtype).max)
        args = tuple(
            np.where(np.isinf(a), a, np.clip(a.astype(DOUBLE), -last, last)).astype(
                dtype
            )
            if is_floating(a)
            else a
            for a in self.args
        )
        return Trial(self.spec, args)

    @property
    def dtype(self) -> np.dtype:
        """The dtype under test."""
        return self.args[0].dtype

    def eager(self) -> jax.Array:
        """The loss, not compiled."""
        return self.spec(*map(jnp.asarray, self.args))

    def value(self) -> np.ndarray:
        """The loss, compiled."""
        return np.asarray(_value(self.spec, *self.args))

    def value_under_grad(self) -> jax.Array:
        """The value that reverse mode returns along with the gradient."""
        return slopes(self.spec, *self.args)[0]

    def jvp(self, steps: Sequence[np.ndarray]) -> tuple[jax.Array, jax.Array]:
        """The value in forward mode, and its slope along `steps`."""
        return _push(self.spec, tuple(steps), *self.args)

    def gradients(self, run: Callable = slopes) -> list[np.ndarray]:
        """The gradient in each differentiable argument."""
        every = run(self.spec, *map(jnp.asarray, self.args))[1]
        return [np.asarray(every[floating(self.args).index(i)]) for i in self.spec.wrt]

    def hessian(self, *, forward_last: bool = True) -> np.ndarray:
        """Per example, a matrix over all components of differentiable arguments."""
        where, n = floating(self.args), len(self.args[0])
        widths = [self.args[i].size // n for i in self.spec.wrt]
        columns = [where.index(i) for i in self.spec.wrt]
        rows = _second(self.spec, forward_last, *self.args)
        blocks = [
            [
                np.reshape(row[c], (n, h, w))
                for c, w in zip(columns, widths, strict=True)
            ]
            for row, h in zip(rows, widths, strict=True)
        ]
        return np.block(blocks)

    def formula(self, field: str) -> np.ndarray:
        """A formula of the spec at the examples, which are widened to float64 first."""
        return getattr(self.spec, field)(*self.cast(DOUBLE).args, **self.spec.params)

    def formulas(self, field: str) -> Sequence[np.ndarray]:
        """A formula of gradients: one for each differentiable argument."""
        if getattr(self.spec, field) is None:
            return [np.zeros(())] * len(self.spec.wrt)
        found: Any = self.formula(field)
        return [found] if isinstance(self.spec.differentiable, int) else found

    # What a faultless implementation cannot avoid.

    def spread(self) -> np.ndarray:
        """Condition of the value: sum of |x . df/dx|, and of what the spec admits."""
        exact = self.cast(DOUBLE).args
        moves = self.formula("cancels") if self.spec.cancels else np.zeros(())
        for i, slope in zip(floating(exact), slopes(self.spec, *exact)[1], strict=True):
            moves = moves + _moves(exact[i], np.asarray(slope), 1)
        return moves

    def gradient_spreads(self) -> list[np.ndarray]:
        """The same for the gradient in each differentiable argument."""
        exact, found = self.cast(DOUBLE).args, []
        rows = _second(self.spec, True, *exact)
        admitted = self.formulas("gradient_cancels")
        for i, row, moves in zip(self.spec.wrt, rows, admitted, strict=True):
            for j, block in zip(floating(exact), row, strict=True):
                moves = moves + _moves(exact[j], np.asarray(block), exact[i].ndim)
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
        entries = np.abs(flat(self.cast(DOUBLE).args)).max(axis=1)
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

    def direction(self, seed: int) -> list[np.ndarray]:
        """Random steps in the differentiable arguments, in proportion to them."""
        rng = np.random.default_rng(seed)
        chosen = [self.args[i] for i in self.spec.wrt]
        sizes = [np.where(x == 0, 1.0, np.abs(x)) for x in chosen]
        return [size * rng.normal(size=size.shape) for size in sizes]

    def shifted(self, steps: Sequence[np.ndarray], h: float) -> "Trial":
        """The same examples, `h` times the steps further."""
        by = dict(zip(self.spec.wrt, steps, strict=True))
        args = [a + h * by[i] if i in by else a for i, a in enumerate(self.args)]
        return Trial(self.spec, tuple(args))

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

    def hidden_nan(self) -> str:
        """What `jax.debug_nans` says of value and gradient, run step by step.

        Nothing is compiled: of a compiled program it looks at the results alone.
        """
        try:
            # JAX announces its second look at a compiled part by `print`.
            quiet = contextlib.redirect_stdout(io.StringIO())
            with jax.debug_nans(True), jax.disable_jit(), quiet:
                loss = as_function_of(self.spec, self.args, self.spec.wrt)
                value, pull = jax.vjp(loss, *pick(self.args, self.spec.wrt))
                pull(jnp.ones_like(value))
        except FloatingPointError as error:
            return str(error)
        return ""

    def singles(self) -> Iterator["Trial"]:
        """The examples, one at a time."""
        for i in range(len(self.args[0])):
            yield Trial(self.spec, tuple(a[i : i + 1] for a in self.args))


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

    One batch for each event shape, its length rounded up to a multiple of `BATCH` by
    repetition: laws and losses then share compiled programs.
    """
    for dtype in dtypes:
        batches: dict[Any, list[list[np.ndarray]]] = {}
        edges = spec.extremes(dtype) if spec.extremes else ()
        for case in (Trial.draw(spec, (BATCH // 2,)).args, *edges):
            arrays = [np.asarray(a) for a in case]
            ndim = arrays[0].ndim - spec.event_ndim
            flat = [a.reshape(-1, *a.shape[ndim:]) for a in arrays]
            batches.setdefault(tuple(a.shape[1:] for a in flat), []).append(flat)
        for batch in batches.values():
            joined = [np.concatenate(parts) for parts in zip(*batch, strict=True)]
            rows = -(-len(joined[0]) // BATCH) * BATCH
            full = tuple(np.resize(a, (rows, *a.shape[1:])) for a in joined)
            yield Trial(spec, full).cast(dtype)


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
