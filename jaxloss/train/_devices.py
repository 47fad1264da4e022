"""Communication between the devices that share a batch."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss import _checks

AxisName = Hashable | tuple[Hashable, ...] | None


class Devices(NamedTuple):
    """The mesh axes over which a batch is sharded; None for a single device."""

    function: str
    axis_name: AxisName

    def count(self) -> int:
        return jax.lax.psum(1, self.axis_name) if self._names() else 1

    def vary(self, tree: Any) -> Any:
        """Marks values as local to a device.

        Otherwise `shard_map` itself sums the gradient of a replicated parameter, and
        summing it again would make it too large by the number of devices, without an
        error.
        """
        for name in self._names():
            tree = jax.tree.map(lambda x, name=name: _vary(x, name), tree)
        return tree

    def add(self, tree: Any) -> Any:
        """The sums over all devices, in one collective."""
        return jax.lax.psum(tree, self.axis_name) if self._names() else tree

    def agree(self, carry: Any) -> Any:
        """One carry for all devices: the mean; for integers and keys, the largest."""

        def one(x: jax.Array) -> jax.Array:
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                data = jax.lax.pmax(jax.random.key_data(x), self.axis_name)
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
            if jnp.issubdtype(x.dtype, jnp.inexact):
                return jax.lax.pmean(widened(x), self.axis_name).astype(x.dtype)
            whole = x.astype(jnp.int32) if x.dtype == bool else x
            return jax.lax.pmax(whole, self.axis_name).astype(x.dtype)

        return carry if self.axis_name is None else jax.tree.map(one, carry)

    def _names(self) -> tuple[Any, ...]:
        """The axes, none if alone; raises `NameError` if one is not bound."""
        if self.axis_name is None:
            return ()
        names: Any = self.axis_name
        names = names if isinstance(names, tuple) else (names,)
        for name in names:
            try:
                jax.lax.axis_size(name)  # psum of an unbound name may only assert
            except NameError:
                _checks.unbound_axis(self.function, name)
        return names


def widened(x: jax.Array) -> jax.Array:
    """At least float32, in which gradients are summed."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _vary(x: jax.Array, name: Hashable) -> jax.Array:
    if name not in jax.sharding.get_abstract_mesh().manual_axes:
        return x  # an axis of `vmap`: nothing to mark
    try:
        return jax.lax.pcast(x, name, to="varying")
    except ValueError:  # it varies already
        return x
