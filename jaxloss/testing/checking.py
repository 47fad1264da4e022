"""All checks at once, for your own loss."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxloss.testing import evidence
from jaxloss.testing.laws import LAWS
from jaxloss.testing.report import Report, Row
from jaxloss.testing.spec import LossSpec


def check(fn: Callable[..., jax.Array], *, sample: Any, **claims: Any) -> Report:
    """Runs every check that applies to your loss, and prints the results.

    Args:
      fn: The loss: arrays in, one number per example out.
      sample: Its arguments, arrays whose first axis counts examples; or a function
        of a NumPy generator and a batch shape that draws them.
      **claims: Fields of `LossSpec`; with more fields, more checks apply.  By default
        `params` are the floating-point defaults of keyword-only arguments.

    Returns:
      A report: `.passed`, and `.rows`, one per check.  A check that fails, or an
      exception that the loss raises, becomes a row, and the other checks still run.

    Raises:
      TypeError: If a claim is not a field of `LossSpec`.

    Example:
      >>> pair = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
      >>> report = jaxloss.testing.check(jaxloss.huber, sample=pair)
      huber: 14 passed, 0 failed, 10 not claimed...
      >>> report.passed
      True
    """
    report = examine(fn, sample=sample, **claims)
    print(report)
    return report


def examine(fn: Callable[..., jax.Array], *, sample: Any, **claims: Any) -> Report:
    """Like `check`, but prints nothing."""
    if isinstance(sample, tuple | list):
        sample = functools.partial(_redraw, [np.asarray(a) for a in sample])
    given = evidence.parameters(fn).values()
    defaults = {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}
    claims.setdefault("name", getattr(fn, "__name__", repr(fn)))
    claims.setdefault("params", {k: v for k, v in defaults.items() if type(v) is float})
    spec = LossSpec(fn=fn, sample=sample, **claims)
    return Report(spec.name, tuple(_hold(spec, *item) for item in LAWS.items()))


def _redraw(rows: list, rng: np.random.Generator, shape: tuple[int, ...]) -> list:
    """Examples drawn from given ones, with repetition."""
    chosen = rng.integers(len(rows[0]), size=shape)
    return [a[chosen] for a in rows]


def _hold(spec: LossSpec, law: Callable, needs: tuple[str, ...]) -> Row:
    """The result of one check of a spec, whatever happens."""
    missing = ", ".join(f"`{field}`" for field in needs if not getattr(spec, field))
    if missing:
        return Row(law.__name__, "not claimed", f"needs {missing}")
    try:
        law(spec)
    except AssertionError as error:
        return Row(law.__name__, "failed", str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a loss may call sys.exit
        first, *_ = f"{type(error).__name__}: {error}".splitlines()
        called = [n for n in getattr(error, "__notes__", ()) if n.startswith(spec.name)]
        return Row(law.__name__, "failed", "; ".join([first, *called]))
    return Row(law.__name__, "passed")
