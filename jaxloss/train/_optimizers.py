"""Further arguments that transformations of optax need beside the gradient.

optax has no list of them: each transformation documents the keywords of its `update`.
A line search needs the loss, the gradient and a function that evaluates both at other
parameters; SAM needs a function for the gradient; Sophia a loss whose Hessian it can
probe.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxloss.train._devices import widened
from jaxloss.train._terms import Params

Evaluate = Callable[[Params], tuple[jax.Array, Params]]


def extra_arguments(
    optimizer: optax.GradientTransformation,
    evaluate: Evaluate,
    value: jax.Array,
    grad: Params,
    **own: Any,
) -> dict[str, Any]:
    """The keywords of `optimizer.update`, those of `own` among them.

    Args:
      optimizer: Any transformation of optax.
      evaluate: From parameters to loss and exact gradient, of the same batch.
      value: The loss at the parameters of this step.
      grad: Its gradient.
      **own: Keywords that our own transformations need.
    """
    loss = differentiable(evaluate)

    # A line search passes all keywords that it does not know to `value_fn`, and raises
    # an error if that does not accept them.
    def value_fn(
        params: Params,
        grad_fn: Any = None,
        obj_fn: Any = None,
        losses: Any = None,
        rest: Any = None,
    ) -> jax.Array:
        del grad_fn, obj_fn, losses, rest
        return loss(params)

    arguments = {
        "value": value,
        "grad": grad,
        "value_fn": value_fn,  # line searches
        "grad_fn": lambda params, _=0: evaluate(params)[1],  # SAM; also given a step
        "obj_fn": loss,  # Hutchinson's estimator, of Sophia
        **own,
    }
    known = inspect.signature(optimizer.update).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return arguments
    # None, of most; of SAM nothing but `grad_fn`.
    return {name: x for name, x in arguments.items() if name in known}


def differentiable(evaluate: Evaluate) -> Callable[[Params], jax.Array]:
    """The loss as a function with the exact gradient as its derivative.

    Autodiff of the loss would be wrong on devices that share a batch, because each sums
    only its own part; and `evaluate` needs less memory in micro-batches.
    """

    @jax.custom_jvp
    def loss(params: Params) -> jax.Array:
        return evaluate(params)[0]

    @loss.defjvp
    def slope(primals: tuple[Params], tangents: tuple[Params]) -> tuple:
        value, grads = evaluate(*primals)
        # The convention of `jax.grad` for complex parameters: no conjugate.
        products = jax.tree.map(
            lambda g, t: jnp.sum(jnp.real(widened(g) * widened(t))).astype(value.dtype),
            grads,
            *tangents,
        )
        return value, sum(jax.tree.leaves(products), jnp.zeros_like(value))

    return loss
