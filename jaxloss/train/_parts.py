"""The sums of a batch in parts, and their gradient: over micro-batches and devices.

The gradient of `combine` is known only after the sums of all parts.  If only one number
depends on parameters and data, as for one masked mean with or without penalties, the
gradient of that number can be summed before: in one pass, with one exchange between
devices.  Otherwise the sums are computed first.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from jaxloss.reduce import Mean
from jaxloss.stable import xla
from jaxloss.train import _results
from jaxloss.train._devices import Devices, widened
from jaxloss.train._terms import Beside, Terms
from jaxloss.train.objective import Batch, ObjectiveState, Params


class Parts(NamedTuple):
    """How a batch becomes sums, and how the sums of the whole batch become a gradient.

    Attributes:
      stats: (params, state, part) -> (sums, what is returned beside them).
      slope: From the sums of the whole batch to the gradient of `combine` there.
      split: None, or a function from that gradient to rows along a new leading axis,
        each of which gets its own gradient of the parameters.
      devices: The devices that have the other parts.
      count: Number of micro-batches on this device.
    """

    stats: Callable[[Params, ObjectiveState, Batch], tuple[Terms, Beside]]
    slope: Callable[[Terms], Terms]
    split: Callable[[Terms], Terms] | None
    devices: Devices
    count: int

    def evaluate(
        self, params: Params, state: ObjectiveState, batch: Batch
    ) -> tuple[Terms, Params, Beside]:
        """The sums of the whole batch, its gradient, and what is beside on this device.

        With a `count` above 1, the leaves of `batch` have a leading axis of parts, and
        so have the auxiliary arrays.
        """
        state = state._replace(carry=self.devices.vary(state.carry))
        alone = self.count == 1 and self.devices.axis_name is None
        if not alone and self.split is None:
            part = batch if self.count == 1 else jax.tree.map(lambda x: x[0], batch)
            single = _single(self.stats, params, state, part)
            if single is not None:
                return self._one_pass(params, state, batch, part, single)
        if self.count > 1:
            return self._two_passes(params, state, batch)
        whole = self._whole(params, state, batch)
        adapted = _results.adapted(whole[0])
        # Beside a penalty, an adapted loss would be pulled back a second time.
        if alone and self.split is None and any(adapted) and not all(adapted):
            single = _single(self.stats, params, state, batch)
            if single is not None:
                return self._one_pass(params, state, batch, batch, single)
        return whole

    def _varying(self, state: ObjectiveState, part: Batch) -> Callable:
        """The stats of one part as a function of parameters, local to this device."""
        return lambda params: self.devices.vary(self.stats(params, state, part))

    def _whole(
        self, params: Params, state: ObjectiveState, batch: Batch
    ) -> tuple[Terms, Params, Beside]:
        """Of one part per device: the slope is pulled back once the sums are known."""
        vary, add = self.devices.vary, self.devices.add
        stats = self._varying(state, batch)
        local = vary(params)
        sums, pull, beside = jax.vjp(stats, local, has_aux=True)
        totals = add(sums)
        grads = self._pulled(pull, self._slopes(totals), stats, local, sums)
        return totals, add(grads), beside

    def _two_passes(
        self, params: Params, state: ObjectiveState, parts: Batch
    ) -> tuple[Terms, Params, Beside]:
        """Of several parts: once for the slope, once for the gradient."""
        vary, add = self.devices.vary, self.devices.add
        params = vary(params)

        def sum_stats(sums: tuple, part: Batch) -> tuple[tuple, None]:
            totals, carry = sums
            found, beside = self._varying(state._replace(carry=carry), part)(params)
            return (_add(totals, found), beside.carry), None

        def sum_both(sums: tuple, part: Batch) -> tuple[tuple, Any]:
            both, carry = sums
            stats = self._varying(state._replace(carry=carry), part)
            found, pull, beside = jax.vjp(stats, params, has_aux=True)
            grads = self._pulled(pull, slopes, stats, params, found)
            both = _add(both, (found, grads))
            return (both, beside.carry), beside.aux

        no_sums = self._no_sums(params, state, parts)
        (totals, _), _ = jax.lax.scan(sum_stats, (no_sums, state.carry), parts)
        slopes = self._slopes(add(totals))
        rows = jax.tree.leaves(slopes)[0].shape[:1] if self.split else ()
        zeros = no_sums, vary(_zeros(params, rows))
        # The totals once more, instead of those above: then XLA may drop what no slope
        # needs of the first pass, which for a mean is the whole forward computation.
        (both, carry), aux = jax.lax.scan(sum_both, (zeros, state.carry), parts)
        return *add(both), Beside(carry, aux)

    def _one_pass(
        self,
        params: Params,
        state: ObjectiveState,
        parts: Batch,
        part: Batch,
        single: "Single",
    ) -> tuple[Terms, Params, Beside]:
        """Where one number depends on parameters and data: its slope comes last."""
        vary, add = self.devices.vary, self.devices.add
        local = vary(params)

        def sum_both(sums: tuple, part: Batch) -> tuple[tuple, Any]:
            both, carry = sums
            stats = self._varying(state._replace(carry=carry), part)
            found, beside = self._unscaled(stats, local, single.at)
            return (_add(both, found), beside.carry), beside.aux

        if self.count == 1:
            stats = self._varying(state, parts)
            both, beside = self._unscaled(stats, local, single.at)
        else:
            zeros = self._no_sums(local, state, parts), vary(_zeros(local))
            (both, carry), aux = jax.lax.scan(sum_both, (zeros, state.carry), parts)
            beside = Beside(carry, aux)
        totals, grads = add(both)
        slopes = jax.tree.leaves(self.slope(totals))
        grads = jax.tree.map(lambda g: g * slopes[single.at].astype(g.dtype), grads)
        if single.alike:
            grads = _add(grads, self._of_alike(params, state, part, single, slopes))
        return totals, grads, beside

    def _unscaled(
        self, stats: Callable[[Params], tuple], params: Params, at: int
    ) -> tuple[tuple[Terms, Params], Beside]:
        """Of one part: the sums, the gradient of one number in them; what is beside."""

        def number(params: Params) -> tuple[jax.Array, tuple]:
            found, beside = stats(params)
            return jax.tree.leaves(found)[at], (found, beside)

        _, pull, (found, beside) = jax.vjp(number, params, has_aux=True)
        # Pulled back at about the size of the slope, so that half precision inside of
        # the model neither overflows nor underflows; a power of two is exact.
        scale = _power_of_two(jax.tree.leaves(self.slope(found))[at])
        (grads,) = pull(self.devices.vary(scale))
        grads = _results.zero_unless(_results.counts(found)[at], grads)
        unscaled = lambda g: widened(g) / scale.astype(widened(g).dtype)
        return (found, jax.tree.map(unscaled, grads)), beside

    def _of_alike(
        self,
        params: Params,
        state: ObjectiveState,
        part: Batch,
        single: "Single",
        slopes: list[jax.Array],
    ) -> Params:
        """The gradient of what depends on parameters only: the same in every part."""

        def alike(params: Params) -> list[jax.Array]:
            found, _ = self.stats(params, state, part)
            return [jax.tree.leaves(found)[i] for i in single.alike]

        times = self.count * self.devices.count()
        (grads,) = jax.vjp(alike, params)[1]([slopes[i] * times for i in single.alike])
        return jax.tree.map(widened, grads)

    def _slopes(self, totals: Terms) -> Terms:
        slopes = self.slope(totals)
        return self.devices.vary(self.split(slopes) if self.split else slopes)

    def _pulled(
        self,
        pull: Callable[[Terms], tuple[Params]],
        slopes: Terms,
        stats: Callable[[Params], tuple[Terms, Beside]],
        params: Params,
        found: Terms,
    ) -> Params:
        """The gradient of one part, or one for each row of the slopes."""
        one = lambda row: jax.tree.map(widened, pull(row)[0])
        if any(_results.adapted(found)):
            one = lambda row: _pulled_apart(stats, params, row, found)
        return jax.vmap(one)(slopes) if self.split else one(slopes)

    def _no_sums(self, params: Params, state: ObjectiveState, parts: Batch) -> Terms:
        """The sums before the first part."""
        part = jax.tree.map(lambda x: x[0], parts)
        like, _ = jax.eval_shape(self.stats, params, state, part)
        sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        return self.devices.vary(sums)


class Single(NamedTuple):
    """The leaf of the sums that depends on parameters and data, and those that
    depend on parameters only."""

    at: int
    alike: list[int]


def _single(
    stats: Callable, params: Params, state: ObjectiveState, part: Batch
) -> Single | None:
    """None if there are several such numbers, or none, or devices mix in between."""
    free = state._replace(carry=None)

    def sums(params: Params, free: ObjectiveState, carry: Any, part: Batch) -> Terms:
        return stats(params, free._replace(carry=carry), part)[0]

    closed, like = jax.make_jaxpr(sums, return_shape=True)(
        params, free, state.carry, part
    )
    jaxpr = closed.jaxpr
    trained, known = len(jax.tree.leaves(params)), len(jax.tree.leaves(free))
    # What a function closed over may differ from device to device, as the data do.
    data = {*jaxpr.invars[trained + known :], *jaxpr.constvars}
    trains = reached(jaxpr, jaxpr.invars[:trained], with_slope=True)
    moves = [a and b for a, b in zip(trains, reached(jaxpr, data), strict=True)]
    alike = [i for i, trained in enumerate(trains) if trained and not moves[i]]
    leaves = zip(jax.tree.leaves(like), moves, strict=True)
    numbers = sum(math.prod(x.shape) for x, moved in leaves if moved)
    # An effect: the model speaks to other devices itself, as BatchNorm may.  Then their
    # gradients are mixed, whose scales differ until the common slope is known.
    if jaxpr.effects or numbers != 1:
        return None
    return Single(moves.index(True), alike)


def reached(
    jaxpr: Jaxpr, sources: Iterable[Var], *, with_slope: bool = False
) -> list[bool]:
    """For each output of a traced function, whether it may depend on the sources.

    Or whether it may have a slope in them, which a `stop_gradient`, as in a metric,
    takes away.
    """
    moving = set(sources)
    moves = lambda v: not isinstance(v, Literal) and v in moving
    for equation in jaxpr.eqns:
        into = [moves(v) for v in equation.invars]
        inner = equation.params.get("jaxpr")
        if with_slope and equation.primitive.name == "stop_gradient":
            continue
        if equation.primitive.name in ("jit", "pjit") and isinstance(
            inner, ClosedJaxpr
        ):
            starts = zip(inner.jaxpr.invars, into, strict=True)
            into = [v for v, moved in starts if moved]
            out = reached(inner.jaxpr, into, with_slope=with_slope)
            ends = zip(equation.outvars, out, strict=True)
            moving.update(v for v, moved in ends if moved)
        elif any(into):
            moving.update(equation.outvars)
    return [moves(v) for v in jaxpr.outvars]


def _pulled_apart(
    stats: Callable[[Params], tuple[Terms, Beside]],
    params: Params,
    slopes: Terms,
    found: Terms,
) -> Params:
    """The gradient of one part, in which each adapted loss is differentiated alone.

    A cotangent 0 propagated through a division by 0 is NaN, which must not reach the
    other losses.
    """
    losses, counts = _results.adapted(found), _results.counts(found)

    def of(loss: int) -> Params:
        chosen = lambda tree: [
            x
            for x, own in zip(jax.tree.leaves(tree), losses, strict=True)
            if own == loss
        ]
        _, pull = jax.vjp(lambda params: chosen(stats(params)[0]), params)
        grads = jax.tree.map(widened, pull(chosen(slopes))[0])
        return _results.zero_unless(chosen(counts)[0], grads)

    return functools.reduce(_add, [of(loss) for loss in sorted({*losses})])


def _power_of_two(x: jax.Array) -> jax.Array:
    """One near |x|; 1 where x is 0 or not finite, as for a part without labels."""
    near = xla.reduced(jnp.abs(jax.lax.stop_gradient(x)), 0)
    return jnp.where((near > 0) & jnp.isfinite(near), near, 1)


def _zeros(params: Params, rows: tuple[int, ...] = ()) -> Params:
    """What the gradients of all parts are added to."""

    def zero(x: jax.Array) -> jax.Array:
        # `zeros_like` because the gradient is sharded like its parameter.
        return jnp.broadcast_to(jnp.zeros_like(widened(x)), rows + x.shape)

    return jax.tree.map(zero, params)


def _add(a: Any, b: Any) -> Any:
    """Their sums; of means with what rounding leaves out."""
    return jax.tree.map(operator.add, a, b, is_leaf=lambda x: isinstance(x, Mean))
