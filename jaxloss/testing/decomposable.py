"""Whether an objective may be evaluated in parts of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import _checks

PyTree = Any


def assert_decomposable(
    objective: Any,
    params: PyTree,
    batch: PyTree,
    *,
    state: Any = None,
    parts: Sequence[int] = (2, 4, 8),
    rtol: float = 1e-5,
) -> None:
    """Raises unless an objective has the same loss and gradient in parts.

    The batch is split into equal parts, their sums are added, and the result of
    `combine` is compared with that of the whole batch.  They differ if a term is a
    mean, a maximum or a norm over the batch instead of a sum, or if a loss or the model
    compares the examples of a batch (as batch normalisation does).

    Args:
      objective: A `train.Objective`, or anything with its `init`, `stats`, `combine`.
      params: Parameters, best where no gradient is 0.
      batch: A batch, best with masks and weights that differ from part to part.
      state: The state of the objective; default a new one.
      parts: Numbers of parts to try; those that do not divide the batch are skipped.
      rtol: Largest difference of the gradient, relative to the norm of each array.

    Raises:
      AssertionError: If they differ; the message says what, by how much, in how many
        parts.
      ValueError: If no number of parts divides the batch, or the state has a carry,
        which depends on the order of the parts.

    Example:
      >>> from jaxloss import testing, train
      >>> def fn(params, batch):
      ...     return {"fit": jaxloss.Mean.of((params - batch) ** 2)}
      >>> fit = train.objective(fn)
      >>> testing.assert_decomposable(fit, jnp.array(1.0), jnp.arange(8.0))
    """
    state = objective.init() if state is None else state
    if getattr(state, "carry", None) is not None:
        has = "a carry from part to part"
        _checks.fail("assert_decomposable", "state", has, "none")
    leaves = jax.tree.leaves(batch)
    sizes = sorted({jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in leaves})
    counts = [k for k in parts if len(sizes) == 1 and sizes[0] and sizes[0] % k == 0]
    if not counts:
        has, expected = (
            f"{sizes} examples",
            f"a multiple of one of parts={tuple(parts)}",
        )
        _checks.fail("assert_decomposable", "batch", has, expected)

    def sums(params: PyTree, k: int, count: int) -> PyTree:
        found = objective.stats(params, state, _part(batch, k, count))
        if isinstance(found, Mapping) and hasattr(found.get("aux"), "auxiliary"):
            found = {name: x for name, x in found.items() if name != "aux"}
        return found

    def loss(params: PyTree, count: int) -> jax.Array:
        totals = sums(params, 0, count)
        for k in range(1, count):
            more = sums(params, k, count)
            totals = jax.tree.map(jnp.add, totals, more)
        return objective.combine(state, totals)[0]

    evaluate = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    whole = _named(evaluate(params, 1))
    for count in counts:
        for name, found in _named(evaluate(params, count)).items():
            expected = whole[name]
            size = np.linalg.norm(expected) or 1.0
            off = np.linalg.norm(found - expected) / size
            if not off <= rtol:  # NaN too
                raise AssertionError(
                    f"in {count} parts, {name} is off by {off:.2g} of its norm: "
                    "a term is not a sum over examples (keep totals and weights with "
                    "jaxloss.Mean.of, divide in `combine`), or examples of a batch "
                    "depend on each other."
                )


def _part(batch: PyTree, k: int, count: int) -> PyTree:
    return jax.tree.map(lambda x: x[k::count], batch)


def _named(evaluation: tuple[jax.Array, PyTree]) -> dict[str, np.ndarray]:
    loss, grads = evaluation
    wide = lambda x: np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64)
    found = {
        f"the gradient at {jax.tree_util.keystr(path) or 'its root'}": wide(x)
        for path, x in jax.tree_util.tree_leaves_with_path(grads)
    }
    return {"the loss": wide(loss)} | found
