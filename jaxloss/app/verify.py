"""What `jaxloss verify` does: it measures the claims on the present device."""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss import _checks, claims
from jaxloss.app.commands import Refusal, choices
from jaxloss.testing import Case, Claim
from jaxloss.testing.exhaustive import PAIRS, pairs

DTYPES = ("float32", "bfloat16", "float16", "float64")
ORDERS = ("value", "gradient", "second derivative")
EVERY = "bfloat16 pairs"


@dataclasses.dataclass(frozen=True)
class Error:
    """The worst error of one derivative, as a share of its bound."""

    ulps: float
    bound: float
    case: str
    at: tuple

    @property
    def share(self) -> float:
        """More than 1 if the bound is exceeded."""
        return self.ulps / self.bound if self.bound else (np.inf if self.ulps else 0.0)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The worst errors of one function in one dtype: value, first two derivatives."""

    name: str
    dtype: str
    errors: tuple[Error, ...]

    @property
    def exceeded(self) -> list[str]:
        """Which of them are beyond their bounds."""
        found = zip(ORDERS, self.errors, strict=False)
        return [what for what, error in found if not error.share <= 1]


Move = Callable[[float], None]
"""Moves the bar by a share of a task."""
Task = Callable[[Move], Verdict]


def verify(
    names: Sequence[str],
    dtypes: Sequence[str],
    out: Path | None,
    *,
    exhaustive: bool = False,
) -> int:
    """Measures the claims of some functions, prints a table, and returns how many of
    them are off by more than they may be."""
    tasks = (_every_pair if exhaustive else _samples)(names, dtypes)
    if out is not None and not out.absolute().parent.is_dir():
        raise Refusal(f"--out {out}: {out.parent} is not a directory; name another")
    print(_row("", *ORDERS))
    verdicts = []
    with jax.enable_x64(True), np.errstate(all="ignore"), _progress(len(tasks)) as move:
        for task in tasks:
            verdicts.append(task(move))
            print(_lines(verdicts[-1]), flush=True)
            if out is not None:  # again, in case that the next one does not come back
                out.write_text(json.dumps(_record(verdicts), indent=1) + "\n")
    print(_summary(verdicts))
    if out is not None:
        print(out)
    return sum(bool(verdict.exceeded) for verdict in verdicts)


# --- samples of arguments ------------------------------------------------------------


def _samples(names: Sequence[str], dtypes: Sequence[str]) -> list[Task]:
    wanted = chosen(names)
    for dtype in dtypes:
        if dtype not in DTYPES:
            hint = _checks.nearest(dtype, DTYPES)
            raise Refusal(f"--dtype: no dtype {dtype!r}{hint}; {choices(DTYPES)}")
    if importlib.util.find_spec("mpmath") is None:
        raise Refusal("mpmath not installed; run: pip install 'jaxloss[verify]'")
    return [
        functools.partial(measure, claim, dtype)
        for claim in wanted
        for dtype in dtypes or DTYPES[:1]
    ]


def measure(claim: Claim, dtype: str, move: Move = lambda share: None) -> Verdict:
    """The worst error of each derivative over all cases of a claim, in both modes."""
    worst: dict[int, Error] = {}
    for case in claim.accuracy:
        for order, error in _errors(case, jnp.dtype(dtype)):
            if order not in worst or not error.share <= worst[order].share:
                worst[order] = error
        move(1 / len(claim.accuracy))
    return Verdict(name_of(claim), dtype, tuple(worst[i] for i in sorted(worst)))


def _errors(case: Case, dtype: np.dtype) -> Iterator[tuple[int, Error]]:
    half = dtype.itemsize == 2
    if half and not case.halves:
        return
    for mode in ("reverse",) if half else ("reverse", "forward"):
        found = case.measure(dtype, mode)
        for order, (bound, worst) in enumerate(
            zip(case.allowed(dtype, mode), found, strict=False)
        ):
            yield order, Error(worst.error, bound, case.name, worst.at)


def name_of(claim: Claim) -> str:
    """A loss by its name, what it is built from by its module too."""
    module = claim.fn.__module__.removeprefix("jaxloss.")
    return claim.name if module.startswith("losses") else f"{module}.{claim.name}"


def chosen(names: Sequence[str]) -> list[Claim]:
    """The claims of the named functions; by default, of all losses."""
    known = {name_of(claim): claim for claim in claims.CLAIMS if claim.accuracy}
    for name in names:
        if name not in known:
            hint = _checks.nearest(name, list(known))
            remedy = "`jaxloss list` has the losses"
            raise Refusal(f"no claim about {name!r}{hint}; {remedy}")
    return [known[name] for name in names or (n for n in known if "." not in n)]


# --- all pairs of arguments ----------------------------------------------------------


def _every_pair(names: Sequence[str], dtypes: Sequence[str]) -> list[Task]:
    for name in names:
        if name not in PAIRS:
            hint = _checks.nearest(name, list(PAIRS))
            problem = f"--exhaustive: {name!r} is not one of those{hint}"
            raise Refusal(f"{problem}; {choices(list(PAIRS))}")
    if dtypes:
        raise Refusal("--exhaustive: it is of bfloat16; leave out --dtype")
    return [functools.partial(judge, name) for name in names or PAIRS]


def judge(name: str, move: Move) -> Verdict:
    """The worst error of value and gradient at all pairs of bfloat16 numbers."""
    pair, loss = PAIRS[name], getattr(jaxloss, name)
    keep = lambda state: move(state["chunk"] / pair.inputs)
    errors = []
    for result, bound in zip(
        pairs(name, loss, keep=keep).values(), pair.bounds, strict=True
    ):
        # What is NaN, infinite or nearly 0 has no error in ulps: it is right or not.
        off = result["special_off"] or result["tiny_off"]
        ulps = np.inf if off else result["ulps"]
        errors.append(Error(ulps, bound, name, tuple(result["at"])))
    return Verdict(name, EVERY, tuple(errors))


# --- what is printed ---------------------------------------------------------------


def _row(name: str, *cells: str) -> str:
    return f"{name:38}" + "".join(f"{cell:>20}" for cell in cells)


def _lines(verdict: Verdict) -> str:
    """A row of the table; where a bound is exceeded, the input that shows it."""
    cells = [f"{error.ulps:.2f} ({error.bound:.4g})" for error in verdict.errors]
    cells += ["–"] * (len(ORDERS) - len(cells))
    name = ", ".join([verdict.name, *[verdict.dtype] * (verdict.dtype != "float32")])
    word = "NOT ok" if verdict.exceeded else "ok" if verdict.errors else "not claimed"
    lines = [f"{_row(name, *cells)}  {word}"]
    for what, error in zip(ORDERS, verdict.errors, strict=False):
        if what in verdict.exceeded:
            lines.append(f"    {what}: {error.case}, at {error.at}")
    return "\n".join(lines)


def _summary(verdicts: Sequence[Verdict]) -> str:
    """A line that can be quoted."""
    functions = {verdict.name for verdict in verdicts}
    exceeded = sum(len(verdict.exceeded) for verdict in verdicts)
    noun = "function" if any("." in name for name in functions) else "loss"
    plural = noun if len(functions) == 1 else {"loss": "losses"}.get(noun, f"{noun}s")
    bounds = "bound" if exceeded == 1 else "bounds"
    device = jax.devices()[0].device_kind
    return (
        f"{len(functions)} {plural}, {exceeded} {bounds} exceeded, {device}, "
        f"jax {jax.__version__}"
    )


def _record(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Everything, for another program to read."""
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "jax": jax.__version__,
        "claims": [
            {
                "name": verdict.name,
                "dtype": verdict.dtype,
                "ok": not verdict.exceeded,
                **{
                    what: {**dataclasses.asdict(error), "at": repr(error.at)}
                    for what, error in zip(ORDERS, verdict.errors, strict=False)
                },
            }
            for verdict in verdicts
        ],
    }


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Move]:
    """On a terminal, a bar that says how much is left; yields what moves it."""
    if not (sys.stderr.isatty() and importlib.util.find_spec("rich")):
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=total)
        yield lambda share: bar.advance(task, share)
