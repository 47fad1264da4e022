"""Dynamic loss scaling: training in float16, whose gradients underflow otherwise.

The numbers of float16 range from 6e-8 to 65504.  A scale multiplies all gradients
inside the model.  It grows while all gradients are finite; if one overflows, the scale
shrinks and the step is skipped.  bfloat16 needs no scale: it has the range of float32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxloss import _checks
from jaxloss.train import step
from jaxloss.train.objective import Batch, Objective, ObjectiveState, Params
from jaxloss.train.step import AxisName, TrainState


class DynamicScale(NamedTuple):
    """A loss scale and its settings, all of them arrays: donate it, save it.

    Attributes:
      scale: The factor of the gradients, a float32 scalar.
      finite_steps: Steps since the scale changed or a step was skipped, int32.
      skipped: Steps skipped in all, int32.
      growth_interval: Finite steps after which the scale grows, int32.
      growth: The factor by which it grows, float32.
      backoff: The factor by which it shrinks when a step is skipped, float32.
      smallest: Its lower limit, float32.
    """

    scale: jax.Array
    finite_steps: jax.Array
    skipped: jax.Array
    growth_interval: jax.Array
    growth: jax.Array
    backoff: jax.Array
    smallest: jax.Array

    @classmethod
    def init(
        cls,
        scale: ArrayLike = 2.0**15,
        *,
        growth_interval: ArrayLike = 2000,
        growth: ArrayLike = 2.0,
        backoff: ArrayLike = 0.5,
        smallest: ArrayLike = 1.0,
    ) -> "DynamicScale":
        """The state before the first step; powers of two make scaling exact.

        Raises:
          TypeError: If an argument is not a number.
          ValueError: If one that is a Python number is out of range: `growth` >= 1,
            0 < `backoff` <= 1, and the others positive.

        Example:
          >>> from jaxloss import train
          >>> scale = train.DynamicScale.init(1024.0)
          >>> scale.adjusted(False).scale, scale.adjusted(True).scale
          (Array(512., dtype=float32), Array(1024., dtype=float32))
        """
        name = "DynamicScale.init"
        numbers = {"scale": scale, "growth": growth, "backoff": backoff}
        numbers |= {"smallest": smallest, "growth_interval": growth_interval}
        for argument, value in numbers.items():
            _checks.number(name, argument, value, "a number")
        _checks.in_interval(name, "(0, inf)", scale=scale)
        _checks.in_interval(name, "[1, inf)", growth_interval=growth_interval)
        _checks.in_interval(name, "[1, inf)", growth=growth)
        _checks.in_interval(name, "(0, 1]", backoff=backoff)
        _checks.in_interval(name, "(0, inf)", smallest=smallest)
        # `array` copies: no two leaves, and no two states, share a buffer.
        return cls(
            scale=jnp.array(scale, jnp.float32),
            finite_steps=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            growth_interval=jnp.array(growth_interval, jnp.int32),
            growth=jnp.array(growth, jnp.float32),
            backoff=jnp.array(backoff, jnp.float32),
            smallest=jnp.array(smallest, jnp.float32),
        )

    def adjusted(self, finite: ArrayLike) -> "DynamicScale":
        """The state after a step; `finite` says whether all gradients were finite."""
        finite = jnp.asarray(finite, bool)
        count = jnp.where(finite, self.finite_steps + 1, 0)
        grows = count >= self.growth_interval
        larger = self.scale * self.growth
        # An infinite scale would never let a step be taken again.
        larger = jnp.where(jnp.isfinite(larger), larger, self.scale)
        smaller = jnp.maximum(self.scale * self.backoff, self.smallest)
        # A scale that began below `smallest` must not grow by failing.
        smaller = jnp.minimum(smaller, self.scale)
        calm = jnp.where(grows, larger, self.scale)
        return self._replace(
            scale=jnp.where(finite, calm, smaller),
            finite_steps=jnp.where(grows, 0, count),
            skipped=self.skipped + jnp.where(finite, 0, 1).astype(jnp.int32),
        )


class ScaledState(NamedTuple):
    """`TrainState` with a loss scale.

    Attributes:
      params: The parameters, in float32; the model casts them to float16, which alone
        would round small updates away.
      opt_state: The state of the optax optimiser.
      objective_state: The state of the objective.
      loss_scale: The scale of the next step.
    """

    params: Params
    opt_state: Any
    objective_state: ObjectiveState
    loss_scale: DynamicScale

    @classmethod
    def init(
        cls,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        params: Params,
        loss_scale: DynamicScale | None = None,
    ) -> "ScaledState":
        """The state before the first step; the default is `DynamicScale.init()`."""
        if loss_scale is None:
            loss_scale = DynamicScale.init()
        # Copies: donating this state leaves the caller's scale, and other states, be.
        scale = jax.tree.map(lambda x: jnp.array(x, x.dtype), loss_scale)
        return cls(*TrainState.init(objective, optimizer, params), scale)


def scaled_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    microbatches: int = 1,
    axis_name: AxisName = None,
) -> Callable[[ScaledState, Batch], tuple[ScaledState, dict[str, Any]]]:
    """`train_step` under a dynamic loss scale: jit it and donate the state.

    A step whose gradient has an infinite or NaN entry is skipped: the parameters, the
    optimiser and the objective, with its step count and carry, stay bit for bit the
    same, and the scale shrinks.  The gradient is that of the whole batch, so all
    devices decide alike.  Loss and metrics are not scaled.

    Args:
      objective: What to minimise.
      optimizer: Any optax transformation, as in `train_step`.
      microbatches: As in `value_and_grad`.
      axis_name: As in `value_and_grad`.

    Returns:
      (ScaledState, batch) -> (ScaledState, metrics).  The metrics are those of the
      objective; "loss", the minimised value; "loss_scale", the scale of this gradient;
      "skipped", the number of steps skipped so far, including this one; and "aux", as
      in `train_step`.

    Raises:
      TypeError: See `train_step`.
      ValueError: See `value_and_grad`.

    Example:
      >>> import optax
      >>> from jaxloss import train
      >>> def fn(params, batch):
      ...     half = (params * batch).astype(jnp.float16)
      ...     return {"fit": jaxloss.Mean.of(half**2)}
      >>> fit, optimizer = train.objective(fn), optax.sgd(0.25)
      >>> step = jax.jit(train.scaled_train_step(fit, optimizer), donate_argnums=0)
      >>> scale = train.DynamicScale.init(2.0**16)
      >>> state = train.ScaledState.init(fit, optimizer, jnp.array(1.0), scale)
      >>> for _ in range(3):  # the slope 2 times 2**16 and 2**15 is not finite
      ...     state, metrics = step(state, jnp.array([1.0]))
      >>> metrics["skipped"], metrics["loss_scale"], state.params
      (Array(2, dtype=int32), Array(16384., dtype=float32), Array(0.5, dtype=float32))
    """
    step.train_step(
        objective, optimizer, microbatches=microbatches, axis_name=axis_name
    )  # raises here, not in the first step

    def take(state: ScaledState, batch: Batch) -> tuple[ScaledState, dict[str, Any]]:
        held = state.loss_scale
        evaluate = step.value_and_grad(
            objective,
            microbatches=microbatches,
            axis_name=axis_name,
            loss_scale=held.scale,
        )
        found = evaluate(state.params, state.objective_state, batch)
        finite = all_finite(found.grads)
        # What is thrown away must not be NaN either, nor 0, which a norm may divide by:
        # debugging would stop at it.
        grads = jax.tree.map(lambda g: jnp.where(finite, g, 1), found.grads)
        extra = step.asked_for(
            optimizer,
            evaluate,
            state.objective_state,
            batch,
            found._replace(grads=grads),
        )
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, **extra
        )
        params = optax.apply_updates(state.params, updates)
        scale = held.adjusted(finite)
        new = ScaledState(params, opt_state, found.state, scale)
        old = state._replace(loss_scale=scale)
        new = jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)
        own = {"loss": found.loss, "loss_scale": held.scale, "skipped": scale.skipped}
        return new, step.reported("scaled_train_step", found, own)

    return take


def all_finite(tree: Any) -> jax.Array:
    """Whether no array of a pytree has an infinite or NaN entry: a boolean scalar.

    Example:
      >>> from jaxloss.train import scaling
      >>> scaling.all_finite({"w": jnp.array([1.0, jnp.inf])})
      Array(False, dtype=bool)
    """
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.array(True)
