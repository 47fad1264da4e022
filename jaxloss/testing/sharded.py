"""A loss on a mesh with explicit axes: its types and its values."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P

from jaxloss.testing import evidence, programs
from jaxloss.testing.spec import LossSpec

EXAMPLES, WHOLE = P("devices"), P()

_EXPLICIT = (("devices",), (AxisType.Explicit,))


def layouts(args: Sequence[np.ndarray], axis: int) -> list[P]:
    """How arguments are sharded along an axis of the first; others of its length are
    sharded along with it."""
    count = args[0].shape[axis]
    along = lambda x: x.ndim > axis and x.shape[axis] == count
    return [P(*[None] * axis, "devices") if along(x) else P() for x in args]


def types(spec: LossSpec, args: Sequence[np.ndarray], axis: int) -> tuple[P, list[P]]:
    """How the value and the gradients are sharded, with one entry on each device: by
    a trace, for which no device is needed."""
    mesh = AbstractMesh((args[0].shape[axis],), *_EXPLICIT)
    given = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, part))
        for x, part in zip(args, layouts(args, axis), strict=True)
    ]
    with jax.sharding.use_abstract_mesh(mesh):
        found = jax.eval_shape(functools.partial(evidence.slopes, spec), *given)
    value, slopes = jax.tree.map(_sharding, found)
    return value, [*slopes]


def _sharding(x: Any) -> P:
    """How an array is sharded, up to the last axis that is."""
    entries = [*x.sharding.spec]
    while entries and entries[-1] is None:
        entries.pop()
    return P(*entries)


def whole(spec: LossSpec, args: Sequence[np.ndarray]) -> tuple:
    """Value and gradients of unsharded arguments."""
    run = jax.jit(functools.partial(evidence.slopes, spec))
    return run.lower(*args).compile(compiler_options=programs.quickly())(*args)


def parts(spec: LossSpec, args: Sequence[np.ndarray], axis: int) -> tuple | None:
    """Value and gradients on as many devices as can share an axis evenly; None if that
    is one."""
    count = len(jax.devices())
    count = max(n for n in range(1, count + 1) if args[0].shape[axis] % n == 0)
    if count == 1:
        return None
    names, kinds = _EXPLICIT
    devices = jax.devices()[:count]
    mesh = jax.make_mesh((count,), names, axis_types=kinds, devices=devices)
    given = [
        jax.device_put(x, NamedSharding(mesh, part))
        for x, part in zip(args, layouts(args, axis), strict=True)
    ]
    with jax.set_mesh(mesh):
        run = jax.jit(functools.partial(evidence.slopes, spec))
        return run.lower(*given).compile(compiler_options=programs.quickly())(*given)
