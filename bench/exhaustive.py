"""Every float32 there is, through every unary primitive: `python -m bench exhaustive`.

Value and slope of a function of `jaxloss.stable`, as one compiled program computes
them, against forms in float64.

The relative error of a form is below 2^-45, 2^-21 ulps of float32.  Each has at most
ten operations of float64 and elementary functions of XLA, which are right to a few
ulps of float64; and in none do nearly equal numbers cancel, for what would is written
by `expm1` and `log1p`.  So its error is at most some 40 * 2^-53.  That is no proof, for
XLA states no bounds; so `check` evaluates the worst thousand inputs of each function
again by mpmath, and thousands at random, and fails if a form is off by more.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
from jax import lax

from bench import pages, record, report
from jaxloss import stable
from jaxloss.testing import exhaustive

PAGE = pathlib.Path(__file__).parent.parent / "docs/numerics.md"
MARK = "<!-- exhaustive: python -m bench exhaustive --write -->"
BOUND = 2.0**-45
DIGITS = 100
SMALLEST = 2.0**-126
RESULTS = ("value", "slope")

Pair = tuple[jax.Array, jax.Array]
Run = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Function:
    """A primitive, what it is in float64, and what it is in a hundred digits."""

    form: Callable[[jax.Array], Pair]
    """Value and slope in float64."""
    value: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    lowest: float = -math.inf
    """Below, there is no value: it is NaN."""
    free: Callable[[jax.Array], tuple[Any, Any]] = lambda x: (False, False)
    """Where nothing is said of value and slope."""


# --- the forms -----------------------------------------------------------------------


def _exponential(x: jax.Array) -> Pair:
    """`exp(-|x|)`, and 1 less that."""
    a = jnp.abs(x)
    return jnp.exp(-a), -jnp.expm1(-a)


def _log_of_more(x: jax.Array) -> jax.Array:
    """`log(1 + x)`; XLA's own is off by up to 2^-46."""
    near = jnp.abs(x) < 0.125
    # As 2 atanh(s), by its Taylor series, which ends below 2^-57.
    s = jnp.where(near, x / (2 + x), 0)
    series = jnp.polyval(jnp.array([2 / n for n in range(15, 0, -2)]), s * s)
    # Else XLA writes its own again.
    whole = lax.reduce_precision(1 + x, exponent_bits=11, mantissa_bits=52)
    return jnp.where(near, s * series, jnp.log(whole))


def _log1p(x: jax.Array) -> Pair:
    return _log_of_more(x), 1 / (1 + x)


def _expm1(x: jax.Array) -> Pair:
    return jnp.expm1(x), jnp.exp(x)


def _sigmoid(x: jax.Array) -> Pair:
    e, _ = _exponential(x)
    return jnp.where(x < 0, e, 1) / (1 + e), e / jnp.square(1 + e)


def _sigmoid_slope(x: jax.Array) -> Pair:
    e, rest = _exponential(x)
    slope = e / jnp.square(1 + e)
    return slope, -slope * jnp.sign(x) * rest / (1 + e)


def _sigmoid_less_half(x: jax.Array) -> Pair:
    e, rest = _exponential(jnp.clip(x, -2, 2))
    return jnp.sign(x) * rest / (1 + e) / 2, e / jnp.square(1 + e)


def _softplus(x: jax.Array) -> Pair:
    e, _ = _exponential(x)
    return jnp.maximum(x, 0) + _log_of_more(e), jnp.where(x < 0, e, 1) / (1 + e)


def _log_sigmoid(x: jax.Array) -> Pair:
    value, slope = _softplus(-x)
    return -value, slope


def _sech2(x: jax.Array) -> Pair:
    e, rest = _exponential(2 * x)
    value = 4 * e / jnp.square(1 + e)
    return value, -2 * value * jnp.sign(x) * rest / (1 + e)


def _tanh(x: jax.Array) -> Pair:
    e, rest = _exponential(2 * x)
    return jnp.sign(x) * rest / (1 + e), 4 * e / jnp.square(1 + e)


def _log_cosh(x: jax.Array) -> Pair:
    a, (e, rest) = jnp.abs(x), _exponential(2 * x)
    # cosh(b) - 1 = u^2 / (2 (1 + u)) of u = e^b - 1.
    u = jnp.expm1(jnp.minimum(a, 1))
    near = _log_of_more(u * u / (2 * (1 + u)))
    far = (a - math.log(2)) + _log_of_more(e)
    return jnp.where(a < 1, near, far), jnp.sign(x) * rest / (1 + e)


def _log1mexp(x: jax.Array) -> Pair:
    e, rest = _exponential(x)
    value = jnp.where(x < math.log(2), jnp.log(rest), _log_of_more(-e))
    return value, e / rest


def _sqrt(x: jax.Array) -> Pair:
    root = jnp.sqrt(x)
    return root, jnp.where(x == 0, 0, 0.5 / root)


def _magnitude(x: jax.Array) -> Pair:
    return jnp.abs(x), jnp.sign(x)


# --- the same in many digits ---------------------------------------------------------


def _logistic(x):
    return 1 / (1 + mp.exp(-x))


def _bell(x):
    return _logistic(x) * _logistic(-x)


def _sech2_mp(x):
    return 4 * _bell(2 * x)


UP_TO_ZERO = Function(
    _softplus, lambda x: mp.log1p(mp.exp(x)), _logistic, free=lambda x: (x > 0, x > 0)
)
FUNCTIONS = {
    "log1p": Function(
        _log1p,
        mp.log1p,
        lambda x: 1 / (1 + x),
        lowest=-1,
        free=lambda x: (False, x < -1),
    ),
    "expm1": Function(_expm1, mp.expm1, mp.exp),
    "sigmoid": Function(_sigmoid, _logistic, _bell),
    "sigmoid_slope": Function(
        _sigmoid_slope, _bell, lambda x: -_bell(x) * mp.tanh(x / 2)
    ),
    "sigmoid_less_half": Function(
        _sigmoid_less_half,
        lambda x: mp.tanh(max(-2, min(x, 2)) / 2) / 2,
        _bell,
        free=lambda x: (False, jnp.abs(x) > 2),
    ),
    "log1p_exp": UP_TO_ZERO,
    "log1p_exp_opaque": UP_TO_ZERO,
    "softplus": Function(_softplus, lambda x: mp.log1p(mp.exp(x)), _logistic),
    "log_sigmoid": Function(
        _log_sigmoid, lambda x: -mp.log1p(mp.exp(-x)), lambda x: _logistic(-x)
    ),
    "sech2": Function(_sech2, _sech2_mp, lambda x: -2 * _sech2_mp(x) * mp.tanh(x)),
    "tanh": Function(_tanh, mp.tanh, _sech2_mp),
    "log_cosh": Function(_log_cosh, lambda x: mp.log(mp.cosh(x)), mp.tanh),
    "log1mexp": Function(
        _log1mexp,
        lambda x: mp.log1p(-mp.exp(-x)) if x else -mp.inf,
        lambda x: 1 / mp.expm1(x) if x else mp.inf,
        lowest=0,
        free=lambda x: (False, x < 0),
    ),
    "sqrt": Function(
        _sqrt, mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x)) if x else mp.mpf(0), lowest=0
    ),
    "magnitude": Function(_magnitude, abs, mp.sign),
}


# --- a sweep -------------------------------------------------------------------------


def question(name: str, fn: Callable | None = None) -> exhaustive.Question:
    """The sweep of a primitive, or of `fn` in its place."""
    about, judged = FUNCTIONS[name], fn or getattr(stable, name)

    def truth(x: jax.Array) -> Pair:
        nowhere = jnp.isnan(x) | (x < about.lowest)
        value, slope = (jnp.where(nowhere, jnp.nan, y) for y in about.form(x))
        return value, slope

    return exhaustive.Question(
        arguments=lambda numbers: (exhaustive.floats(numbers),),
        results=lambda x: jax.jvp(judged, (x,), (jnp.ones_like(x),)),
        truth=truth,
        free=about.free,
    )


def questions() -> dict[str, exhaustive.Question]:
    """What can be asked: of every primitive."""
    return {name: question(name) for name in FUNCTIONS}


def run(asked: Mapping[str, exhaustive.Question], path: pathlib.Path) -> Run:
    """Sweeps one function after another; goes on where an earlier run was stopped.

    What the sweeps know is in files beside `path`, until all that was asked is done.
    """
    here = record.surroundings()
    known = record.read(path)["runs"][0]["functions"] if path.exists() else {}
    parts = {name: path.with_name(f"{path.stem}-{name}.part.json") for name in asked}
    with _progress(sum(q.inputs for q in asked.values())) as advance:
        for name, each in asked.items():
            move = functools.partial(advance, name)
            known[name] = measured(each, parts[name], move)
            known[name]["form"] = check(name, each, record.read(parts[name]))
            known[name]["revision"] = here["revision"]
            here |= {"functions": known, "load_after": record.load()}
            record.save({"runs": [here]}, path)
            print(f"{name:22} {short(known[name])}", flush=True)
    for part in parts.values():
        part.unlink()
    return here


def measured(
    asked: exhaustive.Question,
    part: pathlib.Path,
    move: Callable[[int], object] = lambda count: None,
    numbers: range | None = None,
    chunk: int = exhaustive.CHUNK,
) -> dict[str, Any]:
    """What a sweep found; `part` has what an earlier one did, and keeps this one."""
    last = time.perf_counter()

    def keep(state: exhaustive.State) -> None:
        nonlocal last
        now = time.perf_counter()
        state["seconds"] = state.get("seconds", 0) + now - last
        last = now
        record.save(state, part)
        move(chunk)

    state = record.read(part) if part.exists() else None
    state = exhaustive.sweep(asked, numbers, state=state, keep=keep, chunk=chunk)
    seconds = round(state["seconds"], 1)
    return {"seconds": seconds, **exhaustive.summary(asked, state)}


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on stderr, if that is a terminal; yields what moves it."""
    if not sys.stderr.isatty() or not importlib.util.find_spec("rich"):
        yield lambda name, count: None
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.description:22}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("compiling", total=total)
        yield lambda name, count: bar.update(task, advance=count, description=name)


# --- the forms, checked --------------------------------------------------------------


def check(
    name: str, asked: exhaustive.Question, state: exhaustive.State
) -> dict[str, Any]:
    """How far the form is off at the worst inputs, and at random; raises beyond 2^-45.

    `bits` is how many are right at least, and None if all are.
    """
    worst = exhaustive.worst(asked, state)
    numbers = [number for errors in worst.values() for _, number in errors]
    x = np.concatenate([np.array(numbers, np.uint32).view(np.float32), sample()])
    error, at = form_error(name, x)
    if not error < BOUND:
        raise ArithmeticError(f"the float64 form of {name} is off by {error} at {at}")
    bits = round(-math.log2(error), 1) if error else None
    return {"inputs": len(x), "bits": bits}


def sample(count: int = 1000, seed: int = 0) -> np.ndarray:
    """Floats of random bits, of ordinary size, and log-spaced."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    bits = bits[np.isfinite(bits)]
    spaced = np.geomspace(1e-37, 1e38, count // 2)
    parts = [bits, rng.uniform(-105, 105, count), rng.normal(size=count)]
    return np.concatenate([*parts, spaced, -spaced]).astype(np.float32)


def form_error(name: str, x: np.ndarray) -> tuple[float, float]:
    """The largest relative error of value and slope in float64, and where it is.

    Only where something is said, and the truth is a normal number of float32.
    """
    about = FUNCTIONS[name]
    worst = 0.0, math.nan
    with jax.enable_x64(True), mp.workdps(DIGITS):
        wide = jax.jit(exhaustive.doubles)(jnp.asarray(x, jnp.float32))
        forms = jax.jit(question(name).truth)(wide)
        free = [np.broadcast_to(f, x.shape) for f in about.free(wide)]
        formulas = about.value, about.slope
        for form, formula, skip in zip(forms, formulas, free, strict=True):
            for got, v, unsaid in zip(np.asarray(form), x.tolist(), skip, strict=True):
                if not unsaid and v >= about.lowest:
                    worst = max(worst, (_relative(got, formula(mp.mpf(v))), v))
    return worst


def _relative(got: float, true: Any) -> float:
    if abs(true) >= 2**128:
        return 0.0 if got / true > 0 and abs(got) >= 2.0**128 else math.inf
    if abs(true) < SMALLEST:
        return 0.0
    return float(abs(mp.mpf(float(got)) - true) / abs(true))


# --- tables --------------------------------------------------------------------------


def short(found: dict[str, Any]) -> str:
    parts = [f"{name} {found[name]['ulps']:.2f} ulp" for name in RESULTS]
    return f"{', '.join(parts)}, {found['seconds']:.0f} s"


HEAD = (
    "",
    "worst, ulp",
    "at",
    "above 1 ulp",
    "below 2^-126",
    "off",
    "flushed to 0",
    "subnormal inputs off",
    "NaN and infinity off",
)


def table(run: Run) -> str:
    """A row for the value of each function, and one for its slope."""
    return report.table(
        HEAD,
        [
            _row(f"`{name}`, {what}", found[what])
            for name, found in in_order(run).items()
            for what in RESULTS
        ],
    )


def in_order(run: Run) -> dict[str, dict[str, Any]]:
    """What was found, whatever was measured first."""
    found = run["functions"]
    return {name: found[name] for name in sorted(found, key=[*FUNCTIONS].index)}


def _row(title: str, found: dict[str, Any]) -> list[str]:
    at = ", ".join(map(repr, found["at"])) if found["ulps"] else report.EMPTY
    above, judged = found["above"]["1"], found["inputs"] - found["free"]
    share = f" ({100 * above / judged:.2g} %)" if above else ""
    keys = "tiny", "tiny_off", "flushed", "unread_off", "special_off"
    counts = (f"{found[key]:,}" for key in keys)
    return [title, f"{found['ulps']:.2f}", at, f"{above:,}{share}", *counts]


def where(run: Run) -> str:
    """What was measured, and when."""
    seconds = sum(found["seconds"] for found in run["functions"].values())
    revisions = sorted({found["revision"] for found in run["functions"].values()})
    return (
        f"{run['device']}, {run['cores']} cores, jax {run['versions']['jax']}, revision"
        f" {', '.join(revisions)}, {run['date'][:10]}; {seconds / 60:.0f} minutes"
    )


def document(run: Run) -> str:
    return f"{where(run)}\n\n{table(run)}"


def write(run: Run, page: pathlib.Path) -> None:
    """Puts the table behind its mark."""
    pages.put(page, MARK, table(run))
