"""Prints what changes when `optax.losses` becomes `jaxloss.compat.optax`.

    python -m bench.optax_edges [--write docs/switching-from-optax.md]

Every row evaluates one expression with the functions of both, and beside them stands
the true value, from a closed form.  The tests assert the new values.
"""

import argparse
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax.losses

from jaxloss.compat import optax as compat

inf, nan = math.inf, math.nan
LN2 = math.log(2)
E1, E20 = math.exp(-1), math.exp(-20)
FAILS = ValueError  # the truth of a call that must be refused


class Edge(NamedTuple):
    """An expression in the names of `optax.losses`, and its true value."""

    call: str
    truth: Any
    ulps: float = 4
    """What float32 may be off by: 4, or more where the argument's own rounding is."""


EDGES: dict[str, list[Edge]] = {
    "-inf logits of probability 0": [
        Edge("softmax_cross_entropy(f32(0, 0, -inf), f32(0.5, 0.5, 0))", LN2),
        Edge(
            "grad(softmax_cross_entropy)(f32(0, 1, -inf), f32(1, 0, 0))",
            [-1 / (1 + E1), 1 / (1 + E1), 0],
        ),
        Edge(
            "forward(safe_softmax_cross_entropy)(f32(0, 1, -inf), f32(1, 0, 0))",
            [-1 / (1 + E1), 1 / (1 + E1), 0],
        ),
        Edge("poly_loss_cross_entropy(f32(0, 0, -inf), f32(0.5, 0.5, 0))", LN2 + 1),
        Edge("kl_divergence(f32(0, -inf), f32(1, 0))", 0),
        Edge("generalized_kl_divergence(f32(0, -inf), f32(1, 0))", 0),
        Edge("kl_divergence_with_log_targets(f32(0, -inf), f32(0, -inf))", 0),
        Edge("multiclass_hinge_loss(f32(1, 0.5, -inf), 0)", 0.5),
        Edge("multiclass_perceptron_loss(f32(1, 2.5, -inf), 0)", 1.5),
        Edge("ranking_softmax_loss(f32(0, 0, -inf), f32(1, 0, 0))", LN2),
        Edge(
            "make_fenchel_young_loss(logsumexp)(f32(0, 0, -inf), f32(0.5, 0.5, 0))", LN2
        ),
        Edge("ctc(f32(0, 0, -inf), labels=[1])", LN2),
        Edge("grad(ctc)(f32(0, 0, -inf), labels=[1])", [0.5, -0.5, 0]),
    ],
    "infinite logits in sigmoid losses": [
        Edge("sigmoid_binary_cross_entropy(f32(inf, -inf), f32(1, 0))", [0, 0]),
        Edge("grad(sigmoid_binary_cross_entropy)(f32(inf, -inf), f32(1, 0))", [0, 0]),
        Edge("sigmoid_focal_loss(f32(inf, -inf), f32(1, 0))", [0, 0]),
        Edge("grad(sigmoid_focal_loss)(f32(inf, -inf), f32(1, 0))", [0, 0]),
    ],
    "soft and learnable labels": [
        Edge(
            "grad(softmax_cross_entropy, 1)(f32(0, 0, -inf), f32(0.5, 0.5, 0))",
            [LN2, LN2, 0],
        ),
        Edge("grad(kl_divergence, 1)(log(f32(0.5, 0.5)), f32(1, 0))", [LN2 + 1, 0]),
        Edge(
            "grad(sigmoid_binary_cross_entropy)(f32(1e-8), f32(0.5))",
            float(np.float32(1e-8)) / 4,
        ),
        Edge("grad(sigmoid_focal_loss, 1)(f32(inf), f32(1))", 0),
    ],
    "class ids that are no class": [
        Edge("softmax_cross_entropy_with_integer_labels(f32(1, 2, 3), -1)", nan),
        Edge("softmax_cross_entropy_with_integer_labels(f32(1, 2, 3), 3)", nan),
        Edge("multiclass_hinge_loss(f32(1, 2, 3), -1)", nan),
        Edge("multiclass_perceptron_loss(f32(1, 2, 3), 3)", nan),
        Edge("multiclass_sparsemax_loss(f32([1, 2, 3]), ids(-1))", [nan]),
    ],
    "masks": [
        Edge(
            "softmax_cross_entropy_with_integer_labels(f32(3, 1, 0), 0, "
            "where=mask(0, 1, 1))",
            0,
        ),
        Edge(
            "softmax_cross_entropy(f32(3, 1, 0), f32(1, 0, 0), where=mask(0, 1, 1))", 0
        ),
        Edge(
            "softmax_cross_entropy_with_integer_labels(f32([0, 0], [nan, 0]), "
            "ids(0, 0), where=mask(1, 0))",
            [LN2, 0],
        ),
        Edge(
            "softmax_cross_entropy(f32([0, 0], [nan, 0]), f32([1, 0], [1, 0]), "
            "where=mask(1, 0))",
            [LN2, 0],
        ),
        Edge(
            "kl_divergence(log(f32([0.5, 0.5], [0.5, 0.5])), f32([1, 0], [1, 0]), "
            "where=mask(1, 0))",
            [LN2, 0],
        ),
        Edge("kl_divergence(f32(nan, 0), f32(nan, 1), where=mask(0, 1))", 0),
        Edge(
            "grad(poly_loss_cross_entropy)(f32(0, 0), f32(1, 0), where=mask(0, 0))",
            [0, 0],
        ),
        Edge(
            "cosine_similarity(f32([3, 4], [1, 0]), f32([3, 4], [0, 1]), "
            "where=mask(1, 0))",
            [1, 0],
        ),
        Edge("cosine_distance(f32(1, 2), f32(1, 2), where=mask(0, 0))", 1),
        Edge("smooth_labels(f32(1, 0, 0), 0.5, where=mask(1, 1, 0))", [0.75, 0.25, 0]),
        Edge("smooth_labels(f32(0, 0), 0.5, where=mask(0, 0))", [0, 0]),
        Edge("ranking_softmax_loss(f32(0, 0), f32(1, 0), where=mask(0, 0))", 0),
    ],
    "small tails": [
        Edge(
            "softmax_cross_entropy_with_integer_labels(f32(20, 0, 0), 0)",
            math.log1p(2 * E20),
        ),
        Edge(
            "grad(softmax_cross_entropy_with_integer_labels)(f32(20, 0, 0), 0)",
            [-2 * E20 / (1 + 2 * E20), E20 / (1 + 2 * E20), E20 / (1 + 2 * E20)],
        ),
        Edge(
            "softmax_cross_entropy_with_integer_labels(f32(10005, 10000, 10000), 0)",
            math.log1p(2 * math.exp(-5)),
        ),
        Edge(
            "second(sigmoid_binary_cross_entropy)(f32(20), f32(1))",
            E20 / (1 + E20) ** 2,
        ),
        Edge("log_cosh(f32(1e-4))", float(np.float32(1e-4)) ** 2 / 2),
        Edge("grad(huber_loss)(f32(1e-4))", float(np.float32(1e-4))),
        Edge("multiclass_sparsemax_loss(f32([10000.5, 10000, 0]), ids(0))", [0.0625]),
        Edge("grad(sparsemax_loss)(f32(-3e38), 0)", 0),
        Edge(
            "dice_loss(f32([[20], [-20]]), f32([[1], [0]]))",
            # TP + smooth over TP + (FP + FN) / 2 + smooth, with FP = FN = e^-20
            [E20 / (2 + E20)],
            8,
        ),
    ],
    "half precision": [
        Edge(
            "softmax_cross_entropy_with_integer_labels(zeros(f16, 100000), 0)",
            math.log(100000),
        ),
        Edge(
            "softmax_cross_entropy_with_integer_labels(bf16(105, 100, 100), 0)",
            math.log1p(2 * math.exp(-5)),
        ),
        Edge(
            "cosine_similarity(300 + zeros(f16, 100000), 300 + zeros(f16, 100000))", 1
        ),
        Edge(
            "dice_loss(zeros(f16, 1, 300, 300, 1), 1 + zeros(f16, 1, 300, 300, 1), "
            "smooth=0)",
            # TP = FN = n / 2, FP = 0
            [1 - 0.5 / 0.75],
        ),
        Edge("log_cosh(f16(0.01))", math.log(math.cosh(float(np.float16(0.01)))), 16),
        Edge(
            "grad(multiclass_sparsemax_loss)(bf16([1, 0.5]), ids(0))", [[-0.25, 0.25]]
        ),
        Edge("ctc(f16(0, 0, 0), labels=[1])", math.log(3)),
    ],
    "vectors": [
        Edge("cosine_distance(f32(0, 0), f32(1, 2))", 1),
        Edge("grad(cosine_distance)(f32(0, 0), f32(1, 2))", [0, 0]),
        Edge("cosine_similarity(f32(3e-25, 4e-25), f32(4, 3))", 0.96),
        Edge("cosine_similarity(f32(3e25, 4e25), f32(4, 3))", 0.96),
        Edge("cosine_distance(f32(0.1, 0.2, 0.7), f32(0.1, 0.2, 0.7))", 0),
        Edge("cosine_similarity(f32(3e-3, 4e-3), f32(4, 3), epsilon=1e-2)", 0.48),
        Edge("triplet_margin_loss(f32(0, 0), f32(1, 2), f32(0, 1), norm_degree=1)", 3),
        Edge("triplet_margin_loss(f32(0, 0), f32(3, 4), f32(0, 1))", 5),
        Edge(
            "triplet_margin_loss(f32(0, 0), f32(1, 2), f32(0, 1), norm_degree=3)",
            9 ** (1 / 3),
        ),
        Edge(
            "triplet_margin_loss(f32(0, 0), f32(1, 2), f32(0, 1), norm_degree=inf)", 2
        ),
        Edge("triplet_margin_loss(f32(1, 2), f32(1, 2), f32(1, 2.25))", 0.75),
        Edge("grad(triplet_margin_loss)(f32(1, 2), f32(1, 2), f32(1, 2))", [0, 0]),
        Edge("triplet_margin_loss(f32(0, 0), f32(3e25, 4e25), f32(0, 0))", 5e25),
    ],
    "contrastive batches": [
        Edge("ntxent(eye(4), ids(0, 1, 2, 3))", 0),
        Edge("grad(ntxent)(eye(4), ids(0, 1, 2, 3))", np.zeros((4, 4))),
        # Two pairs at right angles: per positive pair log(1 + 2 exp(-1 / temperature)).
        Edge(
            "ntxent(1e-20 * pairs(), ids(0, 0, 1, 1), temperature=0.5)",
            math.log1p(2 * math.exp(-2)),
        ),
        Edge(
            "ntxent(pairs(), ids(0, 0, 1, 1), temperature=0.0625)",
            math.log1p(2 * math.exp(-16)),
        ),
        Edge(
            "ntxent(pairs(), ids(0, 0, 1, 1), temperature=1 / 64)",
            2 * math.exp(-64),
            64,  # one rounding of the exponent
        ),
        Edge(
            "ntxent(f32([1, 0], [2, 0], [3, 4], [6, 8]), ids(0, 0, 1, 1), "
            "temperature=0.01)",
            math.log1p(2 * math.exp(-0.4 / float(np.float32(0.01)))),
            128,  # one rounding of the cosine, over the temperature
        ),
        Edge("ntxent(zeros(f32, 0, 2), ids())", 0),
    ],
    "overlap of masks": [
        Edge(
            "jit(dice_loss)(f32([[0.5, 0.5]]), f32([[1, 0]]), apply_softmax=False)",
            # smooth = 1: (0.5 + 1) / (0.5 + 0.25 + 1), and 1 / (1 + 0.25)
            [((1 - 1.5 / 1.75) + (1 - 1 / 1.25)) / 2],
        ),
        Edge(
            "vmap(dice_loss)(f32([[[0.5, 0.5]]]), f32([[[1, 0]]]), "
            "apply_softmax=False)",
            [[((1 - 1.5 / 1.75) + (1 - 1 / 1.25)) / 2]],
        ),
        Edge(
            "binary_dice_loss(f32([1, 0]), f32([1, 0]), apply_sigmoid=False)",
            [0],
        ),
        Edge(
            "dice_loss(f32([[1, 0]]), f32([[1, 0]]), smooth=0, apply_softmax=False)",
            [0],
        ),
        Edge(
            "dice_loss(f32([[1, 0]]), f32([[0, 1]]), smooth=0, apply_softmax=False)",
            [1],
        ),
        Edge(
            "multiclass_generalized_dice_loss(f32([[1, 0], [0.5, 0.5]]), "
            "f32([[1, 0], [0, 1]]), smooth=0, apply_softmax=False)",
            # weights 1 and 1: FP + FN = 1 over 2 TP + FP + FN = 3 + 1
            0.25,
        ),
        Edge(
            "multiclass_generalized_dice_loss(f32([[1, 0], [1, 0], [0, 1]]), "
            "f32([[1, 0], [1, 0], [1, 0]]), smooth=0, apply_softmax=False)",
            # The absent class has the weight of the other: 1 FN and 1 FP, TP = 2.
            1 / 3,
        ),
    ],
    "alignments": [
        Edge("ctc(f32([0, 0]), labels=[1, 1])", inf),
        Edge("grad(ctc)(f32([0, 0]), labels=[1, 1])", [[0, 0]]),
        Edge("ctc(f32([240000, 0]), labels=[1])", 240000),
        Edge("ctc(zeros(f32, 4000, 2), labels=[])", 4000 * LN2, 64),
    ],
    "shapes that would broadcast": [
        Edge(f"{name}(f32(1, 2), f32([1], [2]))", FAILS)
        for name in (
            "squared_error",
            "huber_loss",
            "log_cosh",
            "cosine_similarity",
            "sigmoid_binary_cross_entropy",
            "sigmoid_focal_loss",
            "hinge_loss",
            "sparsemax_loss",
            "softmax_cross_entropy",
            "kl_divergence",
        )
    ],
}


def array_of(dtype: Any) -> Callable[..., jax.Array]:
    """Rows, or numbers; behind a barrier, or XLA would compute before it compiles."""
    return lambda *x: jax.lax.optimization_barrier(jnp.asarray(rows_of(x), dtype))


def rows_of(x: tuple) -> Any:
    """One number, or one row of numbers, or rows, as they are written."""
    return x[0] if len(x) == 1 and np.ndim(x) == 1 else x


def tools(losses: Any) -> dict[str, Any]:
    """What an expression may name: the losses, and short words for arrays."""

    def total(fn: Callable) -> Callable:
        return lambda *args, **kw: jnp.sum(fn(*args, **kw))

    def ctc(logits: jax.Array, labels: list[int]) -> jax.Array:
        """Of one sequence without padding, or of its one frame."""
        frames = jnp.atleast_2d(logits)
        ids = jnp.asarray(labels, jnp.int32)
        paddings = jnp.zeros((1, len(frames))), jnp.zeros((1, len(ids)))
        return losses.ctc_loss(frames[None], paddings[0], ids[None], paddings[1])[0]

    second = lambda fn: jax.grad(lambda *args: jax.grad(total(fn))(*args).sum())
    return {
        **vars(losses),
        "ctc": ctc,
        "grad": lambda fn, at=0: jax.grad(total(fn), at),
        "forward": lambda fn: jax.jacfwd(total(fn)),
        "second": second,
        "jit": lambda fn: jax.jit(fn, static_argnames="apply_softmax"),
        "vmap": lambda fn: lambda *args, **kw: jax.vmap(lambda *x: fn(*x, **kw))(*args),
        "f32": array_of(jnp.float32),
        "f16": array_of(jnp.float16),
        "bf16": array_of(jnp.bfloat16),
        "ids": lambda *x: jnp.asarray(x, jnp.int32),
        "mask": lambda *x: jnp.asarray(x, bool),
        "zeros": lambda dtype, *shape: jnp.zeros(shape, dtype(0).dtype),
        "pairs": lambda: jnp.float32([[1, 0], [2, 0], [0, 1], [0, 3]]),
        "eye": jnp.eye,
        "log": jnp.log,
        "logsumexp": jax.nn.logsumexp,
        "inf": inf,
        "nan": nan,
    }


def value(edge: Edge, losses: Any, *, jit: bool = False) -> Any:
    """What the expression gives: an array, or the kind of error it raises."""
    evaluate = lambda: eval(edge.call, tools(losses))
    with jax.enable_x64(False):
        try:
            return np.asarray(jax.jit(evaluate)() if jit else evaluate())
        except (TypeError, ValueError, AttributeError) as error:
            return type(error)


def shown(x: Any) -> str:
    if isinstance(x, type):
        return x.__name__
    text = np.array2string(
        np.asarray(x, float),
        separator=", ",
        formatter={"float_kind": lambda v: f"{v + 0.0:.6g}"},
    )
    return re.sub(r"\s+", " ", text)


def table() -> str:
    """A row for every edge, as Markdown; last those that do not change."""
    tables: dict[str, list[str]] = {group: [] for group in EDGES}
    tables["where optax is right too"] = unchanged = []
    for group, edges in EDGES.items():
        for edge in edges:
            found = (value(edge, optax.losses), value(edge, compat), edge.truth)
            old, new, true = map(shown, found)
            rows = unchanged if old == new else tables[group]
            rows.append(f"| `{edge.call}` | {old} | {new} | {true} |")
    head = "| | optax | jaxloss | true |\n|---|---|---|---|"
    parts = (f"### {group}\n\n{head}\n" + "\n".join(t) for group, t in tables.items())
    return "\n\n".join(parts) + "\n"


START, END = "<!-- edges: python -m bench.optax_edges --write -->", "<!-- /edges -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What changes when optax.losses becomes jaxloss.compat.optax."
    )
    parser.add_argument("--write", type=pathlib.Path, help="the page to update")
    page = parser.parse_args().write
    found = table()
    if page is None:
        print(found)
        return
    before, rest = page.read_text().split(START)
    page.write_text(f"{before}{START}\n\n{found}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
