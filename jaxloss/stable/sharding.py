"""Arrays whose types say how they are sharded: meshes with explicit axes.

On such a mesh, the default of `jax.make_mesh`, each operation has a rule for the
sharding of its result, and an operation without a rule raises an error: a product of a
sharded batch with itself, a sort or a lookup along a sharded axis.  XLA can do all of
these.  So a function of this package leaves its own operations to XLA, as on a mesh
with automatic axes, and only its results have explicit shardings again.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec as P

Given = ParamSpec("Given")
Result = TypeVar("Result")


def automatic(fn: Callable[Given, Result]) -> Callable[Given, Result]:
    """`fn`, inside of which the explicit axes of a mesh, if any, are automatic.

    Each axis of a result is sharded like the axis of the arguments that it comes from.
    The arguments of `fn` named `axis` and `class_axis` are the axes it reduces over.
    """
    parameters = inspect.signature(fn)
    body: Any = fn

    @functools.wraps(fn)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        leaves, tree = jax.tree.flatten((args, kwargs))
        places = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]
        arrays = [leaves[i] for i in places]
        meshes = [jax.typeof(x).sharding.mesh for x in arrays if any(spec(x))]
        if not (meshes and meshes[0].explicit_axes):
            return fn(*args, **kwargs)
        mesh = meshes[0]

        def run(*arrays: jax.Array) -> Result:
            given = dict(enumerate(leaves)) | dict(zip(places, arrays, strict=True))
            again: Any = jax.tree.unflatten(tree, given.values())
            return body(*again[0], **again[1])

        def with_result(sharding: Any) -> Callable[..., Any]:
            axes = mesh.explicit_axes
            found = jax.sharding.auto_axes(run, axes=axes, out_sharding=sharding)
            # What reverse mode keeps may not leave a `shard_map` around: JAX knows it
            # as an array of an automatic mesh, outside of which there is none.
            return jax.checkpoint(found) if mesh.manual_axes else found

        named = parameters.bind(*args, **kwargs)
        named.apply_defaults()
        reduced = [*_reduced(named.arguments)]
        whole = jax.eval_shape(with_result(NamedSharding(mesh, P())), *arrays)
        sharding = lambda x: NamedSharding(mesh, _like(x.shape, arrays, reduced))
        return with_result(jax.tree.map(sharding, whole))(*arrays)

    return call


def spec(x: jax.Array) -> P:
    """How an array is sharded, as far as its type says."""
    return P(*jax.typeof(x).sharding.spec)


def _reduced(named: dict[str, Any]) -> Iterator[int | None]:
    """The axes that a function reduces over; None for all."""
    for name in ("axis", "class_axis"):
        axes = named.get(name, ())
        yield from axes if isinstance(axes, tuple) else (axes,)


def _like(
    shape: tuple[int, ...], arrays: list[jax.Array], reduced: list[int | None]
) -> P:
    """The sharding of a result: of each axis the one that the arguments have there."""
    found: list[Any] = [None] * len(shape)
    used: set[Any] = set()
    # Arguments of its own shape tell most, then those that have been reduced to it.
    for _, entries in sorted(
        (_along(shape, x, reduced) for x in arrays), key=lambda pair: pair[0]
    ):
        for i, entry in enumerate(entries):
            names = {*(entry if isinstance(entry, tuple) else (entry,))} - {None}
            if found[i] is None and names and not names & used:
                found[i], used = entry, used | names
    return P(*found)


def _along(
    shape: tuple[int, ...], x: jax.Array, reduced: list[int | None]
) -> tuple[int, list[Any]]:
    """How one argument is sharded along the axes of a result, and how sure that is."""
    entries = [*spec(x)]
    if x.shape == shape:
        return 0, entries
    gone = {a % x.ndim for a in reduced if a is not None and -x.ndim <= a < x.ndim}
    kept = [] if None in reduced else [i for i in range(x.ndim) if i not in gone]
    if tuple(x.shape[i] for i in kept) == shape:
        return 1, [entries[i] for i in kept]
    alike = [m == n for m, n in zip(x.shape, shape, strict=False)]
    return 2, entries[: [*alike, False].index(False)]
