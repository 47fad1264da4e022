"""Objectives from existing loss functions, in one line and exact for parts of a batch.

A loss function returns one number for a batch: a mean or a sum.  It must also say how
much that number counts beside those of other parts of the batch: the sum of weights,
such as the number of tokens that are not padding.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.train import _terms
from jaxloss.train._results import Adapted
from jaxloss.train._terms import Batch, Setting
from jaxloss.train.objective import Objective, objective

Weight = Callable[[Batch, Any], ArrayLike]


def objective_from_mean(
    loss_fn: Callable[..., Any],
    *,
    weight: Weight | None = None,
    **hyperparameters: Setting,
) -> Objective:
    r"""An objective from a function that returns a mean and its weight.

    .. math:: L = \frac{\sum_p n_p \bar\ell_p}{\sum_p n_p}

    The sums are over micro-batches, devices and batches p, so L is the mean over all,
    and so is its gradient.  A part in which everything is masked adds nothing, even if
    its mean or the derivative of its mean is 0 / 0.

    Args:
      loss_fn: `loss_fn(params, batch, **hyperparameters) -> (mean, n)`, where n is the
        sum of weights that the mean was divided by.  It must not contain a collective:
        the step sums over devices.
      weight: For a function that returns `(mean, aux)`, or only the mean:
        `weight(batch, aux) -> n`, such as `lambda batch, _: batch["mask"].sum()`.  Each
        step returns `aux`, as with `objective`; it is None if there is none.
      **hyperparameters: As in `objective`.

    Returns:
      An `Objective` of one term, "fit": all combinators apply.

    Raises:
      TypeError: As `objective`; also, while tracing, if `loss_fn` returns a wrong type.
      ValueError: As `objective`; also, while tracing, if mean or n is not a scalar.

    Example:
      >>> from jaxloss import train
      >>> def loss_fn(params, batch):
      ...     errors = (params - batch["y"]) ** 2
      ...     n = batch["mask"].sum()
      ...     return (errors * batch["mask"]).sum() / n, n
      >>> fit = train.objective_from_mean(loss_fn)
      >>> batch = {"y": jnp.array([1.0, 2.0, 6.0, 7.0])}
      >>> batch |= {"mask": jnp.array([1.0, 0.0, 1.0, 0.0])}
      >>> evaluate = train.value_and_grad(fit, microbatches=2)
      >>> found = evaluate(jnp.array(3.0), fit.init(), batch)  # one part is padding
      >>> found.loss, found.grads
      (Array(6.5, dtype=float32), Array(-1., dtype=float32))
    """
    return _adapted("objective_from_mean", loss_fn, weight, hyperparameters, True)


def objective_from_sum(
    loss_fn: Callable[..., Any],
    *,
    weight: Weight | None = None,
    **hyperparameters: Setting,
) -> Objective:
    r"""An objective from a function that returns a sum and its weight.

    .. math:: L = \frac{\sum_p S_p}{\sum_p W_p}

    Args:
      loss_fn: `loss_fn(params, batch, **hyperparameters) -> (sum, weight)`, with a sum
        over examples.  For other terms, such as a penalty of the parameters, use a
        combinator (`l2`).
      weight: As in `objective_from_mean`.
      **hyperparameters: As in `objective`.

    Returns:
      As `objective_from_mean`.

    Raises:
      TypeError: As `objective_from_mean`.
      ValueError: As `objective_from_mean`.

    Example:
      >>> from jaxloss import train
      >>> def loss_fn(params, batch):
      ...     return jnp.sum((params - batch) ** 2), {"error": params - batch}
      >>> fit = train.objective_from_sum(loss_fn, weight=lambda batch, _: batch.size)
      >>> evaluate = train.value_and_grad(fit, microbatches=2)
      >>> found = evaluate(jnp.array(3.0), fit.init(), jnp.array([1.0, 6.0]))
      >>> found.loss, found.grads, found.aux["error"]
      (Array(6.5, dtype=float32), Array(-1., dtype=float32), Array([ 2., -3.], dtype=float32))
    """  # noqa: E501
    return _adapted("objective_from_sum", loss_fn, weight, hyperparameters, False)


def _adapted(
    function: str,
    loss_fn: Callable[..., Any],
    weight: Weight | None,
    hyperparameters: dict[str, Any],
    divided: bool,
) -> Objective:
    for name, value in {"loss_fn": loss_fn, "weight": weight}.items():
        if not callable(value) and not (name == "weight" and value is None):
            _checks.wrong_kind(
                function, name, f"type {_terms.kind(value)}", "a function"
            )

    @functools.wraps(loss_fn)
    def fn(params: Any, batch: Batch, **values: Any) -> Any:
        result = loss_fn(params, batch, **values)
        pair = isinstance(result, tuple) and len(result) == 2
        if not pair and (weight is None or isinstance(result, tuple)):
            has = f"a result of type {_terms.kind(result)}"
            expected = "a pair (loss, weight), or with weight= (loss, aux) or the loss"
            _checks.wrong_kind(function, "loss_fn", has, expected)
        loss, beside = result if pair else (result, None)
        if weight is None:
            return {"fit": _term(function, loss, beside, divided)}
        count = weight(batch, beside)
        return {"fit": _term(function, loss, count, divided)}, beside

    return objective(fn, **hyperparameters)


def _term(function: str, loss: Any, weight: Any, divided: bool) -> Adapted:
    _checks.number(function, "loss_fn", loss, "a scalar loss")
    _checks.number(function, "weight", weight, "a number")
    # Widened before they are multiplied: 100 nats of 1000 tokens exceed float16.
    (loss,) = _checks.widened(function, loss_fn=loss)
    (weight,) = _checks.real(function, loss, weight=weight)
    _checks.has_shape(function, (), "one number for the batch", loss_fn=loss)
    _checks.has_shape(function, (), "one number for the batch", weight=weight)
    total = loss * weight if divided else loss
    return Adapted(jnp.where(weight == 0, jnp.zeros_like(total), total), weight)
