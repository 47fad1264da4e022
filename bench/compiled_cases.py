"""The steps of `python -m bench compiled`: every loss at a large size, and the cases.

The arrays are never made, so a size is chosen for what it shows: no argument fits into
the memory of a chip, where a compiler would keep it between two kernels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import SingleDeviceSharding

import jaxloss
from bench import cases, eager_cases as small
from bench.arguments import Arg
from bench.eager_cases import EagerCase
from jaxloss import stable

Shapes = tuple[jax.ShapeDtypeStruct, ...]
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Step:
    """Value and gradient of one scalar, as every implementation computes it."""

    name: str
    kind: str
    """A key of `KINDS`."""
    shapes: Shapes
    run: Mapping[str, Callable[..., jax.Array]]
    wrt: tuple[int, ...] = (0,)
    """What is differentiated; () is the value alone."""
    devices: ClassVar[int] = 1

    def trace(self, name: str, devices: Sequence[Any]) -> Any:
        """An implementation as it is compiled."""
        place = SingleDeviceSharding(devices[0])
        args = [x.update(sharding=place) for x in self.shapes]
        fn = self.run[name]
        graded = jax.value_and_grad(fn, self.wrt) if self.wrt else fn
        return jax.jit(graded).trace(*args)

    def described(self) -> dict[str, Any]:
        """For the results."""
        args = [[list(x.shape), str(x.dtype)] for x in self.shapes]
        return {"kind": self.kind, "args": args, "wrt": list(self.wrt)}


@dataclass(frozen=True)
class Kind:
    """Steps of which the same is asked."""

    title: str
    moved: Mapping[str, float]
    """The most times the bytes of arguments and results, by platform; all if empty."""
    temp: float | None = None
    """The most temporary memory, as a part of the first argument."""


KINDS = {
    "elementwise": Kind("Element by element", {"gpu": 1.01, "tpu": 1.01}, 0.001),
    "rows": Kind("Rows of classes", {"gpu": 2.01, "tpu": 2.2}, 0.01),
    "one read": Kind("Softmax cross entropy by Pallas", {"gpu": 1.05, "tpu": 1.05}),
    "vectors": Kind("Vectors", {"gpu": 1.7, "tpu": 2.3}),
    "searches": Kind("Rows of classes, with a sort or a search", {}),
    "pairs": Kind("Pairs of a batch, all in memory", {}),
    "other": Kind("Triplets, images, sequences, answers and parameters", {}),
    "bench": Kind("The cases of the benchmark", {}),
    "sharded": Kind("Sharded", {}),
}

# --- every loss ----------------------------------------------------------------------

ROWS = (16384, 8192)
BATCH = (8192, 256)
"""Of vectors that meet each other."""
IMAGES = (32, 256, 256, 32)
LARGE: dict[tuple[int, ...], tuple[int, ...]] = {
    small.EACH: ROWS[:1],
    small.ROWS: ROWS,
    small.WIDE: ROWS,
    small.WIDE[:1]: ROWS[:1],
    small.IMAGES: IMAGES,
    (*small.IMAGES[:-1], 1): (*IMAGES[:-1], 1),
    (64, 10): ROWS,  # parameters: a kernel and a bias
    (10,): ROWS[1:],
    (8, 32, 16): (128, 512, 1024),  # frames, their padding, labels and their padding
    (8, 32): (128, 512),
    (8, 6): (128, 64),
    (64, 4): (2**23, 4),  # boxes
    small.STUDY: (2**22,),
    small.VECTORS_OF_MEMBERS: (BATCH[0], 10, BATCH[1]),
}


def of_loss(case: EagerCase, dtype: str) -> Step:
    """A call of the benchmark of calls, of large arrays."""
    kind = _kind(case)
    run = {side: case.mean(side) for side in case.sides}
    name = f"{case.name}, {dtype}"
    return Step(name, kind, tuple(_large(case, kind, dtype)), run)


def _kind(case: EagerCase) -> str:
    family = getattr(jaxloss, case.loss).__module__
    shape = case.args[0].shape
    if shape == small.EACH:
        return "elementwise"
    if "crps_ensemble" in case.loss:
        return "searches"
    if shape == small.ROWS:
        return "searches" if family.endswith("fenchel") else "rows"
    if "embedding" not in family:
        return "other"
    if _pairs(case):
        return "pairs"
    return "vectors" if "cosine" in case.loss else "other"


def _pairs(case: EagerCase) -> bool:
    """Whether every example meets every other one."""
    family = getattr(jaxloss, case.loss).__module__
    return family.endswith(("in_batch", "spread")) or case.args == small.VIEWS


def _large(case: EagerCase, kind: str, dtype: str) -> Sequence[jax.ShapeDtypeStruct]:
    large = dict(LARGE)
    if kind == "elementwise":
        large[small.EACH] = ROWS
    if kind == "pairs" or case.loss == "energy_score":
        large |= {small.WIDE: BATCH, small.WIDE[:1]: BATCH[:1]}
    each = lambda arg: dtype if arg.dtype == "float32" else arg.dtype
    return [jax.ShapeDtypeStruct(large[a.shape], each(a)) for a in case.args]


# --- calls that are not among the small ones -----------------------------------------

BY_ID = small.BY_ID
BOTH_KINDS_OF_LABELS = (
    ("poly1", small.BY_ID, {"epsilon": 2.0}),
    ("sparsemax", small.BY_DISTRIBUTION, {}),
    ("brier", (small.BY_DISTRIBUTION[1],) * 2, {}),
    ("nll", small.DIVERGENCE, {}),
    ("softmax_focal", small.BY_DISTRIBUTION, {}),
    ("generalized_cross_entropy", small.BY_DISTRIBUTION, {}),
    ("squared_emd", small.BY_DISTRIBUTION, {}),
    ("entmax15", small.BY_ID, {}),
)
"""Losses that also take the other kind."""


def _of_id(fn: Callable[..., jax.Array], **options: Any) -> Callable[..., jax.Array]:
    return lambda x, ids, mask: fn(x, ids, where=mask, **options)


def _optax_of_tokens(x: jax.Array, ids: jax.Array, mask: jax.Array) -> jax.Array:
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(x, ids)
    return jnp.mean(losses, where=mask)


def _with_z(x: jax.Array, ids: jax.Array) -> jax.Array:
    losses, z = jaxloss.softmax_cross_entropy_with_z(x, ids)
    return losses + 1e-4 * z


MORE = [
    *(
        EagerCase(name, args, options=options, variant=args[1].kind)
        for name, args, options in BOTH_KINDS_OF_LABELS
    ),
    EagerCase(
        "softmax_cross_entropy",
        (*BY_ID, Arg("mask", small.EACH, "bool")),
        "softmax_cross_entropy_with_integer_labels",
        variant="ids, masked tokens",
        ours=lambda x, ids, mask: jaxloss.mean(
            jaxloss.softmax_cross_entropy(x, ids), where=mask
        ),
        theirs=_optax_of_tokens,
        scalar=("jaxloss", "optax"),
    ),
    EagerCase(
        "softmax_cross_entropy",
        (*BY_ID, Arg("mask", small.ROWS, "bool")),
        "softmax_cross_entropy_with_integer_labels",
        variant="ids, masked classes",
        ours=_of_id(jaxloss.softmax_cross_entropy),
        theirs=_of_id(optax.losses.softmax_cross_entropy_with_integer_labels),
    ),
    EagerCase("softmax_cross_entropy_with_z", BY_ID, variant="ids", ours=_with_z),
]

# What losses of vectors are made of.
PRIMITIVES = {
    "stable.norm": lambda x, y: jnp.mean(stable.norm(x - y)),
    "stable.unit": lambda x, y: jnp.mean(stable.unit(x) * y),
}


def of_primitive(name: str) -> Step:
    """A function of `jaxloss.stable`, of the float32 that losses compute in."""
    shapes = (jax.ShapeDtypeStruct(ROWS, DTYPES[0]),) * 2
    run = {"jaxloss": PRIMITIVES[name]}
    return Step(f"{name}, {DTYPES[0]}", "vectors", shapes, run)


# --- embeddings of classes -----------------------------------------------------------

CLASSES = 16384


def _with_margin(x: jax.Array, w: jax.Array, ids: jax.Array) -> jax.Array:
    logits = jaxloss.angular_margin(x, w, ids, scale=64.0)
    return jnp.mean(jaxloss.softmax_cross_entropy(logits, ids))


def _with_margin_by_arccos(x: jax.Array, w: jax.Array, ids: jax.Array) -> jax.Array:
    """ArcFace as it is often written."""
    unit = lambda v: v / jnp.linalg.norm(v, axis=-1, keepdims=True)
    cosines = jnp.clip(unit(x) @ unit(w).T, -1 + 1e-7, 1 - 1e-7)
    margins = 0.5 * jax.nn.one_hot(ids, CLASSES, dtype=x.dtype)
    logits = 64.0 * jnp.cos(jnp.arccos(cosines) + margins)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, ids)
    return jnp.mean(losses)


def of_margin(dtype: str) -> Step:
    """Cross entropy of `angular_margin`, for embeddings and prototypes."""
    ids = jax.ShapeDtypeStruct(BATCH[:1], "int32")
    prototypes = (CLASSES, *BATCH[1:])
    shapes = (*(jax.ShapeDtypeStruct(s, dtype) for s in (BATCH, prototypes)), ids)
    run = {"jaxloss": _with_margin, "optax": _with_margin_by_arccos}
    return Step(f"angular_margin, {dtype}", "pairs", shapes, run, (0, 1))


# --- the cases of the benchmark ------------------------------------------------------


def of_case(case: cases.Case, kind: str = "bench") -> Step:
    """The same function, at the same size."""
    return Step(case.name, kind, tuple(case.shapes), case.run, case.wrt)


def in_half(step: Step) -> Step:
    """With all floating arguments in bfloat16."""
    half = lambda x: x.update(dtype=jnp.bfloat16) if x.dtype == jnp.float32 else x
    shapes = tuple(map(half, step.shapes))
    return Step(f"{step.name} bfloat16", step.kind, shapes, step.run, step.wrt)


def steps() -> list[Step]:
    """All of them."""
    losses = [*small.CASES, *MORE]
    of_losses = [of_loss(case, dtype) for case in losses for dtype in DTYPES]
    large_head = in_half(of_case(cases.linear(4096, 4096, 128256)))
    of_cases = [*map(of_case, cases.CASES), large_head]
    one_read = [of_case(case, "one read") for case in cases.ONE_READ]
    others = [*map(of_primitive, PRIMITIVES), *map(of_margin, DTYPES)]
    return [*of_losses, *others, *of_cases, *one_read]
