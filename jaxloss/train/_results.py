"""What the function of an objective may return beside the minimised terms."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.reduce import Mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Metric:
    """A mean that is reported and not minimised, as `train.metric` makes it.

    A pytree that adds up like a `Mean`, over micro-batches, devices and batches.
    """

    mean: Mean

    def compute(self) -> jax.Array:
        """The mean; 0 if everything is masked."""
        return self.mean.compute()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapted(Mean):
    """The mean of a loss function that is not ours.

    Where its weight is 0, its derivative may be 0 / 0, and 0 times that is NaN; so the
    gradient is set to 0.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Auxiliary:
    """Arrays, one row per example, that are neither summed nor differentiated."""

    auxiliary: Any


def metric(mean: Mean) -> Metric:
    """A term of an objective that is reported but not minimised.

    Like the mean of a loss, its mean is that over the whole batch, with its own mask or
    weights: exact over micro-batches, devices and the batches of an evaluation.  No
    gradient flows through it, and weights of terms do not apply to it.

    Args:
      mean: `jaxloss.Mean.of(values, where=...)`, with one number or boolean per
        example.

    Returns:
      A `Metric`, to put into the dict that the function of an objective returns.

    Raises:
      TypeError: If `mean` is not a `jaxloss.Mean`.

    Example:
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     losses = jaxloss.logistic(params * batch["x"], batch["y"])
      ...     right = params * batch["x"] * batch["y"] > 0
      ...     accuracy = train.metric(jaxloss.Mean.of(right))
      ...     return {"fit": jaxloss.Mean.of(losses), "accuracy": accuracy}
      >>> fit, batch = train.objective(fn), {"x": jnp.ones(4), "y": jnp.ones(4)}
      >>> found = train.value_and_grad(fit)(jnp.array(0.5), fit.init(), batch)
      >>> found.loss, found.metrics["accuracy"]
      (Array(0.474077, dtype=float32), Array(1., dtype=float32))
    """
    if not isinstance(mean, Mean):
        has = f"type {type(mean).__name__}"
        expected = "a jaxloss.Mean, such as jaxloss.Mean.of(right, where=mask)"
        _checks.wrong_kind("metric", "mean", has, expected)
    return Metric(jax.tree.map(jax.lax.stop_gradient, mean))


def counts(sums: Any) -> list[ArrayLike]:
    """For each array of the sums of a part, whether its gradient is what it seems."""

    def one(x: Any) -> Any:
        if isinstance(x, Adapted):
            return jax.tree.map(lambda _: x.weight != 0, x)
        return True

    return jax.tree.leaves(jax.tree.map(one, sums, is_leaf=_is_adapted))


def adapted(sums: Any) -> list[int]:
    """For each array of the sums of a part, the number of the adapted loss that it is
    of, from 1; or 0."""
    number = itertools.count(1)

    def one(x: Any) -> Any:
        own = next(number) if _is_adapted(x) else 0
        return jax.tree.map(lambda _: own, x)

    return jax.tree.leaves(jax.tree.map(one, sums, is_leaf=_is_adapted))


def zero_unless(counts: ArrayLike, grads: Any) -> Any:
    """The gradient of one number of a part, zero where the number does not count."""
    if counts is True:
        return grads
    return jax.tree.map(lambda g: jnp.where(counts, g, jnp.zeros_like(g)), grads)


def _is_adapted(x: Any) -> bool:
    return isinstance(x, Adapted)


def minimised(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The terms without the metrics."""
    return {name: x for name, x in terms.items() if not isinstance(x, Metric)}


def metrics(terms: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The means of the metrics."""
    return {n: x.compute() for n, x in terms.items() if isinstance(x, Metric)}
