"""The steps of `python -m bench compiled` that several devices share.

Each is the value and the gradient of a loss, as a training step computes them: with the
batch sharded, with the parameters sharded too, with the classes sharded.  What counts
is what the devices exchange: never the logits.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import jaxloss
from jaxloss import kernels, parallel, train

AXIS = "devices"
ROWS = 2048
"""Tokens, or pairs, of each device."""
FEATURES, CLASSES, COMPONENTS = 512, 32768, 256

Arrays = dict[str, Any]
Evaluate = Callable[[Arrays, Arrays], tuple[jax.Array, Arrays]]
"""Loss and gradient, of parameters and a batch."""


class Sizes(NamedTuple):
    """Of the whole batch, and of the model."""

    rows: int
    features: int = FEATURES
    classes: int = CLASSES
    components: int = COMPONENTS


class Layout(NamedTuple):
    """How parameters and batch are sharded."""

    params: Mapping[str, P]
    batch: Mapping[str, P]


class Program(NamedTuple):
    """One way to compute a step."""

    make: Callable[[Mesh, Layout], Evaluate]
    axis_type: AxisType = AxisType.Auto


@dataclass(frozen=True)
class ShardedStep:
    """Loss and gradient, with one layout on a mesh of one axis."""

    name: str
    devices: int
    args: tuple[Arrays, Arrays]
    """Shapes of all parameters and of the whole batch."""
    layout: Layout
    run: Mapping[str, Program]
    logits: tuple[int, int]
    """The shape of the logits, or scores, of one device."""
    kind: str = "sharded"

    def trace(self, name: str, devices: Sequence[Any]) -> Any:
        """An implementation as it is compiled."""
        program = self.run[name]
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=(program.axis_type,))
        with jax.set_mesh(mesh):
            place = lambda x, spec: x.update(sharding=NamedSharding(mesh, spec))
            args = jax.tree.map(place, self.args, tuple(self.layout))
            like = functools.partial(NamedSharding, mesh)
            gradients = jax.tree.map(like, self.layout.params)
            step = program.make(mesh, self.layout)
            return jax.jit(step, out_shardings=(like(P()), gradients)).trace(*args)

    def described(self) -> dict[str, Any]:
        """For the results."""
        leaves = jax.tree.leaves(self.args)
        args = [[list(x.shape), str(x.dtype)] for x in leaves]
        about = {"kind": self.kind, "args": args, "devices": self.devices}
        return about | {"logits_bytes": 4 * self.logits[0] * self.logits[1]}


# --- a language model of one layer ---------------------------------------------------


def model(sizes: Sizes) -> tuple[Arrays, Arrays]:
    """Its parameters and its batch."""
    shape = jax.ShapeDtypeStruct
    n, d, v, _ = sizes
    params = {"body": shape((d, d), jnp.float32), "head": shape((d, v), jnp.float32)}
    ids, mask = shape((n,), jnp.int32), shape((n,), jnp.bool_)
    return params, {"x": shape((n, d), jnp.float32), "ids": ids, "mask": mask}


def hidden(params: Arrays, batch: Arrays) -> jax.Array:
    return jnp.tanh(batch["x"] @ params["body"])


def dense(params: Arrays, batch: Arrays) -> Arrays:
    logits = hidden(params, batch) @ params["head"]
    losses = jaxloss.softmax_cross_entropy(logits, batch["ids"])
    return {"nats": jaxloss.Mean.of(losses, where=batch["mask"])}


def blocks(params: Arrays, batch: Arrays, **options: Any) -> Arrays:
    arguments = hidden(params, batch), params["head"], batch["ids"]
    mean = kernels.linear_softmax_cross_entropy(
        *arguments, where=batch["mask"], **options
    )
    return {"nats": mean}


def of_optax(params: Arrays, batch: Arrays) -> jax.Array:
    logits, losses = hidden(params, batch) @ params["head"], optax.losses
    each = losses.softmax_cross_entropy_with_integer_labels(logits, batch["ids"])
    return jnp.mean(each, where=batch["mask"])


def evaluation(fn: Callable[..., Arrays], axis_name: str | None = None) -> Evaluate:
    """By `train.value_and_grad`."""

    def step(params: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        # Not before: it makes arrays, for which JAX would look for its devices.
        objective = train.objective(fn)
        evaluate = train.value_and_grad(objective, axis_name=axis_name)
        found = evaluate(params, objective.init(), batch)
        return found.loss, found.grads

    return step


def of_classes(params: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
    """With the classes of one device, inside of `shard_map`."""

    def loss(params: Arrays) -> jax.Array:
        logits = hidden(params, batch) @ params["head"]
        losses = parallel.softmax_cross_entropy(logits, batch["ids"], axis_name=AXIS)
        return jaxloss.mean(losses, where=batch["mask"])

    return jax.value_and_grad(loss)(params)


def under_jit(step: Evaluate) -> Program:
    return Program(lambda mesh, layout: step)


def explicit(step: Evaluate) -> Program:
    return Program(lambda mesh, layout: step, AxisType.Explicit)


def in_shard_map(step: Evaluate) -> Program:
    def make(mesh: Mesh, layout: Layout) -> Evaluate:
        specs = {"in_specs": tuple(layout), "out_specs": (P(), layout.params)}
        return jax.shard_map(step, mesh=mesh, **specs)

    return Program(make)


SHARDED = {"x": P(AXIS), "ids": P(AXIS), "mask": P(AXIS)}
WHOLE = {"x": P(), "ids": P(), "mask": P()}
DATA = Layout({"body": P(), "head": P()}, SHARDED)
FSDP = Layout({"body": P(AXIS), "head": P(AXIS)}, SHARDED)
FSDP_OF_CLASSES = Layout({"body": P(AXIS), "head": P(None, AXIS)}, SHARDED)
VOCABULARY = Layout({"body": P(), "head": P(None, AXIS)}, WHOLE)

lean = functools.partial(blocks, memory="lean")
one_block = functools.partial(blocks, block=(256, CLASSES))
dense_jit = under_jit(evaluation(dense))
OPTAX = under_jit(jax.value_and_grad(of_optax))

OF_TOKENS: dict[str, tuple[Layout, dict[str, Program]]] = {
    "data parallel softmax CE": (
        DATA,
        {
            "jaxloss jit": dense_jit,
            "jaxloss explicit mesh": explicit(evaluation(dense)),
            "jaxloss shard_map": in_shard_map(evaluation(dense, AXIS)),
            "optax": OPTAX,
        },
    ),
    "data parallel linear CE": (
        DATA,
        {
            "jaxloss fast, jit": under_jit(evaluation(blocks)),
            "jaxloss lean, jit": under_jit(evaluation(lean)),
            "jaxloss fast, explicit mesh": explicit(evaluation(blocks)),
            "jaxloss fast, shard_map": in_shard_map(evaluation(blocks, AXIS)),
            "optax": OPTAX,
        },
    ),
    "FSDP softmax CE": (
        FSDP,
        {
            "jaxloss jit": dense_jit,
            "jaxloss explicit mesh": explicit(evaluation(dense)),
            "optax": OPTAX,
        },
    ),
    "FSDP linear CE": (
        FSDP,
        {
            "jaxloss fast, jit": under_jit(evaluation(blocks)),
            "jaxloss lean, jit": under_jit(evaluation(lean)),
            "jaxloss fast, explicit mesh": explicit(evaluation(blocks)),
            "optax": OPTAX,
        },
    ),
    "FSDP along the classes, linear CE": (
        FSDP_OF_CLASSES,
        {
            "jaxloss fast, jit": under_jit(evaluation(blocks)),
            "jaxloss one block, jit": under_jit(evaluation(one_block)),
            "optax": OPTAX,
        },
    ),
    "vocabulary parallel softmax CE": (
        VOCABULARY,
        {
            "jaxloss jit": dense_jit,
            "jaxloss explicit mesh": explicit(evaluation(dense)),
            "jaxloss shard_map": in_shard_map(of_classes),
            "optax": OPTAX,
        },
    ),
    "vocabulary parallel linear CE": (
        VOCABULARY,
        {
            "jaxloss one block, jit": under_jit(evaluation(one_block)),
            "jaxloss one block, explicit mesh": explicit(evaluation(one_block)),
            "optax": OPTAX,
        },
    ),
}


def of_tokens(name: str, devices: int, sizes: Sizes) -> ShardedStep:
    layout, run = OF_TOKENS[name]
    share = lambda number, spec: number // devices if AXIS in spec else number
    rows = share(sizes.rows, layout.batch["x"])
    classes = share(sizes.classes, () if rows < sizes.rows else layout.params["head"])
    logits = rows, classes
    title = f"sharded, {name}, {devices} devices"
    return ShardedStep(title, devices, model(sizes), layout, run, logits)


# --- pairs of a batch ----------------------------------------------------------------

CLIP = {"temperature": 0.07}
SIGLIP = {"temperature": 0.1, "bias": -10.0}


def whole_batch(loss: Callable[..., jax.Array]) -> Program:
    """A function of all pairs, for XLA to shard."""

    def mean(params: Arrays, batch: Arrays) -> jax.Array:
        return jaxloss.mean(loss(params["first"], params["second"]))

    return under_jit(jax.value_and_grad(mean))


def of_pairs(local: Callable[..., jax.Array]) -> Program:
    """A function of `jaxloss.parallel`, differentiated outside of `shard_map`."""

    def make(mesh: Mesh, layout: Layout) -> Evaluate:
        fn = functools.partial(local, axis_name=AXIS)
        losses = jax.shard_map(fn, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS))
        mean = lambda params, _: jaxloss.mean(losses(params["first"], params["second"]))
        return jax.value_and_grad(mean)

    return Program(make)


def pairs_of(name: str, settings: Mapping[str, float]) -> dict[str, Program]:
    of = lambda module: functools.partial(getattr(module, name), **settings)
    return {
        "jaxloss jit": whole_batch(of(jaxloss)),
        "jaxloss blocks, jit": whole_batch(of(kernels)),
        "jaxloss shard_map": of_pairs(of(parallel)),
    }


OF_PAIRS = {"clip": pairs_of("clip", CLIP), "siglip": pairs_of("siglip", SIGLIP)}


def of_batch(name: str, devices: int, sizes: Sizes) -> ShardedStep:
    shape = jax.ShapeDtypeStruct((sizes.rows, sizes.components), jnp.float32)
    layout = Layout(dict.fromkeys(("first", "second"), P(AXIS)), {})
    return ShardedStep(
        f"sharded, {name}, {devices} devices",
        devices,
        (dict.fromkeys(("first", "second"), shape), {}),
        layout,
        OF_PAIRS[name],
        (sizes.rows // devices, sizes.rows),
    )


def steps(counts: Iterable[int]) -> list[ShardedStep]:
    """All of them, for each number of devices that is more than one."""
    return [
        make(name, count, Sizes(ROWS * count))
        for count in counts
        if count > 1
        for make, names in ((of_tokens, OF_TOKENS), (of_batch, OF_PAIRS))
        for name in names
    ]
