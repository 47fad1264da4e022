"""Whether the values of a call are those that a loss is for."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxloss import _checks
from jaxloss.testing.claim import Claim
from jaxloss.testing.domain import Argument, Domain, interval


def validate(loss: Callable[..., Any] | Claim, *args: Any, **kwargs: Any) -> Any:
    """Calls a loss, and raises if an argument has a value outside of its domain.

    A loss checks shapes and dtypes, for these are known when it is compiled.  This
    function looks at the values, too: logits where probabilities belong, a class id
    that is none, a label of 2, a NaN.  Call it once, with a batch of yours, outside of
    `jit`; it copies the arrays to the host.

    Args:
      loss: A loss of `jaxloss`; or a `Claim` with `domains` of a loss of your own.
      *args: Arguments of the loss.
      **kwargs: Keyword arguments of the loss.

    Returns:
      What the loss returns.  Entries that its mask `where` leaves out are not looked
      at; of examples that you mask in the mean, pass those that count, as
      `logits[mask]`.

    Raises:
      ValueError: If a value is outside of its domain: which function and argument, the
        first such value and its index, what was expected, and how to get it; or if the
        loss has no claim.
      TypeError: If an argument is not concrete, as inside of `jit` or `vmap`.
      Exception: What the loss itself raises, of wrong shapes and dtypes.

    Example:
      >>> logits, mask = jnp.array([[2.5, -1.0]]), jnp.array([[1, 0]])
      >>> jaxloss.dice(logits, mask, axis=-1)  # no error, and no loss
      Array([-1.], dtype=float32)
      >>> jaxloss.testing.validate(jaxloss.dice, logits, mask, axis=-1)
      Traceback (most recent call last):
        ...
      ValueError: dice: `probabilities` has the value 2.5 at [0, 0], the first of 2 such
      among 2; expected probabilities in [0, 1], such as `jax.nn.sigmoid(logits)` or
      `jax.nn.softmax(logits)`.
    """
    claim = loss if isinstance(loss, Claim) else _claim_of(loss)
    bound = inspect.signature(claim.fn).bind(*args, **kwargs)
    _no_tracers(claim.name, bound.arguments)
    losses = claim.fn(*args, **kwargs)
    bound.apply_defaults()
    look(claim, bound.arguments)
    return losses


def look(claim: Claim, given: Mapping[str, Any]) -> None:
    """Raises `ValueError` at the first argument that is outside of its domain."""
    for name, domain in {**claim.domains, **_hyperparameters(claim.fn)}.items():
        if given.get(name) is not None:
            _look(claim.name, name, domain, given)


def _claim_of(loss: Callable) -> Claim:
    """The claim of a loss; raises `ValueError` if there is none."""
    # What is claimed is said with this package, so it is read when it is asked for.
    claims = importlib.import_module("jaxloss.claims").CLAIMS
    found = [claim for claim in claims if claim.fn is loss and claim.domains]
    if not found:
        has = f"no claim that says its domains: {getattr(loss, '__name__', loss)!r}"
        expected = "a loss of `jaxloss`, such as `jaxloss.huber`, or a `Claim` of yours"
        _checks.fail("validate", "loss", has, expected)
    return found[0]


def _hyperparameters(loss: Callable) -> dict[str, Domain]:
    """The intervals that a loss checks where they are Python numbers."""
    intervals = getattr(loss, "intervals", {})
    return {k: interval(v, f"a number in {v}", mask="") for k, v in intervals.items()}


def _look(loss: str, name: str, domain: Domain, given: Mapping[str, Any]) -> None:
    """Raises `ValueError` at the first leaf of an argument outside of its domain."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(given[name]):
        array = np.asarray(leaf)
        exact = array.dtype == bool or np.issubdtype(array.dtype, np.integer)
        x = array if exact else array.astype(np.float64)
        complaint = domain(Argument(x, array.dtype, given))
        if complaint is not None:
            where = f"{name}{jax.tree_util.keystr(path)}"
            _checks.fail(loss, where, *complaint)


def _no_tracers(loss: str, given: Mapping[str, Any]) -> None:
    """Raises `TypeError` for an argument whose values are not known yet."""
    for name, x in given.items():
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x)):
            has = "values that are not known while JAX traces"
            expected = "concrete arrays: call `validate` outside of jit, vmap and grad"
            _checks.wrong_kind(loss, name, has, expected)
