"""Rows of logits on the chip of a TPU or a Hopper GPU: read once, written once.

A program of XLA reads a row for its largest logit, again for the sum of the
exponentials, and again for the gradient.  Here a block of rows is copied onto the chip.
`_one_read.solve` computes there, and this module says which rows are where.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu, triton

from jaxloss.kernels._one_read import Numbers, Parts, Sums, Tile, solve

_LANES = 128
"""Numbers in a register of a TPU, of each of its 8 rows."""
_BLOCK = 2**20
"""Bytes of logits that a TPU copies at a time: enough to hide what a copy costs."""
_REGISTERS = 32768
"""Classes of a row that the registers of a multiprocessor hold beside the rest."""


def sums_and_gradient(
    x: jax.Array, mask: jax.Array | None, numbers: Numbers, parts: Parts
) -> tuple[Sums, jax.Array | None]:
    """Of logits `(rows, classes)` and the mask of the classes that exist.

    On a CPU, for which Pallas has no compiler, the program for a TPU is interpreted.
    """
    table = jnp.stack([n.astype(numbers.weights.dtype) for n in numbers])
    sums, *gradient = lax.platform_dependent(
        *(x, table, *(() if mask is None else (mask,))),
        tpu=functools.partial(on_tpu, parts=parts),
        cuda=functools.partial(on_hopper, parts=parts),
        cpu=functools.partial(on_tpu, parts=parts, interpret=True),
    )
    return Sums(*sums), gradient[0] if parts.gradient else None


class _Plan(NamedTuple):
    """What a kernel knows when it is compiled."""

    parts: Parts
    total: int
    """Rows of all blocks."""
    classes: int
    chunk: int
    """Classes that are computed with at a time."""
    masked: bool
    rows: int = 1
    """Rows of a block."""
    group: int = 1
    """Rows that are computed with at a time."""

    @property
    def chunks(self) -> int:
        return pl.cdiv(self.classes, self.chunk)


class _Refs(NamedTuple):
    """Arrays in the memory that a kernel reads and writes."""

    x: Any
    table: Any
    mask: Any
    sums: Any
    gradient: Any


def _refs(plan: _Plan, refs: tuple) -> _Refs:
    x, table, *rest = refs
    mask = rest.pop(0) if plan.masked else None
    return _Refs(x, table, mask, rest[0], rest[-1])


def _call(
    kernel: Any, plan: _Plan, arrays: tuple, numbers: Any, columns: int, **more: Any
) -> tuple[jax.Array, ...]:
    """`numbers(k)` says which `(k, ...)` numbers belong to a block of rows."""
    x, table = arrays[:2]
    block = pl.BlockSpec((plan.rows, plan.chunks * plan.chunk), lambda i: (i, 0))
    kind = jax.typeof(x).manual_axis_type
    like = functools.partial(jax.ShapeDtypeStruct, manual_axis_type=kind)
    found = like((len(Sums._fields), columns), table.dtype), like(x.shape, x.dtype)
    outputs = 1 + plan.parts.gradient
    return pl.pallas_call(
        functools.partial(kernel, plan),
        grid=(pl.cdiv(len(x), plan.rows),),
        in_specs=[block, numbers(len(table)), block][: len(arrays)],
        out_specs=(numbers(len(Sums._fields)), block)[:outputs],
        out_shape=found[:outputs],
        name="softmax_cross_entropy",
        **more,
    )(*arrays)


# --- TPU -----------------------------------------------------------------------------


def on_tpu(
    x: jax.Array,
    table: jax.Array,
    mask: jax.Array | None = None,
    *,
    parts: Parts,
    interpret: bool = False,
) -> tuple[jax.Array, ...]:
    """A block of rows at a time, and of it as many rows as fill a register."""
    (rows, classes), dtype = x.shape, x.dtype
    # No register holds float16 or booleans as they are.
    x = x if dtype == jnp.bfloat16 else x.astype(table.dtype)
    arrays = (x, table) if mask is None else (x, table, mask.astype(jnp.int8))
    group = 32 // min(a.dtype.itemsize for a in (x, *arrays[2:]))
    chunk = min(8192 // group, pl.cdiv(classes, _LANES) * _LANES)
    plan = _Plan(parts, rows, classes, chunk, mask is not None, group, group)
    size = group * plan.chunks * chunk * x.dtype.itemsize
    groups = 1
    while groups * group < min(rows, _LANES) and 2 * groups * size <= _BLOCK:
        groups *= 2  # so that 128 rows are a number of blocks
    plan = plan._replace(rows=groups * group)
    columns = pl.cdiv(rows, _LANES) * _LANES
    padded = jnp.pad(table, ((0, 0), (0, columns - rows)))
    at = lambda i: (0, lax.div(i * plan.rows, np.int32(_LANES)))
    sums, *gradient = _call(
        *(_tpu_kernel, plan, (x, padded, *arrays[2:])),
        *(lambda k: pl.BlockSpec((k, _LANES), at), columns),
        compiler_params=tpu.CompilerParams(
            vmem_limit_bytes=6 * groups * size + 16 * 2**20
        ),
        interpret=interpret,
    )
    return sums[:, :rows], *(g.astype(dtype) for g in gradient)


def _tpu_kernel(plan: _Plan, *given: Any) -> None:
    refs = _refs(plan, given)
    start = pl.program_id(0) * plan.rows
    first = lax.rem(start, np.int32(_LANES))
    left = first + plan.total - start  # the last block may go beyond the last row

    @pl.when(first == 0)
    def _():
        refs.sums[...] = jnp.zeros_like(refs.sums)

    def some_rows(i: Any, done: tuple) -> tuple:
        # The numbers of 128 rows lie side by side, and those of these rows are needed
        # one below the other: a column in memory would take the room of 128.
        shape = plan.group, _LANES
        row, lane = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        mine = (lane == first + i * plan.group + row) & (lane < left)
        column = lambda x: jnp.sum(jnp.where(mine, x, 0), axis=1, keepdims=True)
        table = (column(refs.table[k : k + 1, :]) for k in range(len(Numbers._fields)))
        sums = solve(_tpu_tile(plan, refs, i), Numbers(*table), plan.parts)
        here = jnp.max(jnp.where(mine, 1, 0), axis=0, keepdims=True) == 1
        for k, found in enumerate(sums):
            found = jnp.sum(jnp.where(mine, found, 0), axis=0, keepdims=True)
            others = refs.sums[k : k + 1, :]
            refs.sums[k : k + 1, :] = jnp.where(here, found, others)
        return done

    lax.fori_loop(np.int32(0), np.int32(plan.rows // plan.group), some_rows, ())


def _tpu_tile(plan: _Plan, refs: _Refs, i: Any) -> Tile:
    rows = pl.ds(pl.multiple_of(i * plan.group, plan.group), plan.group)
    wide = refs.table.dtype

    def place(k: Any) -> tuple:
        at = rows, pl.ds(pl.multiple_of(k * plan.chunk, plan.chunk), plan.chunk)
        columns = lax.broadcasted_iota(jnp.int32, (plan.group, plan.chunk), 1)
        columns += k * plan.chunk
        exists = columns < plan.classes
        if plan.masked:
            exists &= refs.mask[at].astype(jnp.int32) != 0
        return at, columns, exists

    def read(k: Any) -> tuple[jax.Array, jax.Array]:
        at, columns, exists = place(k)
        return jnp.where(exists, refs.x[at].astype(wide), -jnp.inf), columns

    def write(k: Any, slope: jax.Array) -> None:
        at, _, exists = place(k)
        refs.gradient[at] = jnp.where(exists, slope, 0).astype(refs.gradient.dtype)

    return Tile(read, write, plan.chunks)


# --- Hopper --------------------------------------------------------------------------


def on_hopper(
    x: jax.Array,
    table: jax.Array,
    mask: jax.Array | None = None,
    *,
    parts: Parts,
    interpret: bool = False,
) -> tuple[jax.Array, ...]:
    """A row at a time, in registers; of more classes than fit, from the cache."""
    rows, classes = x.shape
    chunk = min(pl.next_power_of_2(classes), _REGISTERS)
    plan = _Plan(parts, rows, classes, chunk, mask is not None)
    return tuple(
        _call(
            *(_hopper_kernel, plan),
            (x, table) if mask is None else (x, table, mask),
            *(lambda k: pl.BlockSpec((k, 1), lambda i: (0, i)), rows),
            compiler_params=triton.CompilerParams(num_warps=max(chunk // 1024, 1)),
            interpret=interpret,
        )
    )


def _hopper_kernel(plan: _Plan, *given: Any) -> None:
    refs = _refs(plan, given)
    table = (jnp.full((1, 1), refs.table[k, 0]) for k in range(len(Numbers._fields)))
    sums = solve(_hopper_tile(plan, refs), Numbers(*table), plan.parts)
    for k, found in enumerate(sums):
        refs.sums[k, 0] = jnp.sum(found)


def _hopper_tile(plan: _Plan, refs: _Refs) -> Tile:
    wide = refs.table.dtype

    def place(k: Any) -> tuple:
        at = slice(None), pl.ds(k * plan.chunk, plan.chunk)
        columns = lax.broadcasted_iota(jnp.int32, (1, plan.chunk), 1) + k * plan.chunk
        inside = exists = columns < plan.classes
        if plan.masked:
            exists &= triton.load(refs.mask.at[at], mask=inside, other=False)
        return at, columns, inside, exists

    def read(k: Any) -> tuple[jax.Array, jax.Array]:
        at, columns, inside, exists = place(k)
        x = triton.load(refs.x.at[at], mask=inside, other=-jnp.inf)
        return jnp.where(exists, x.astype(wide), -jnp.inf), columns

    def write(k: Any, slope: jax.Array) -> None:
        at, _, inside, exists = place(k)
        slope = jnp.where(exists, slope, 0).astype(refs.gradient.dtype)
        triton.store(refs.gradient.at[at], slope, mask=inside)

    return Tile(read, write, plan.chunks)
