"""The cases: a problem, its shapes and dtypes, and what is asked of ours.

A case is value and gradient, or the value alone, of one scalar (or of one number per
token) under jit.  The arguments are drawn with a fixed seed.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from bench import losses, textbook
from bench.arguments import Arg

BASELINE = "optax"


@dataclass(frozen=True)
class Target:
    """The most that is allowed; None is not asked for."""

    time: float | None = None
    """Of the milliseconds of the baseline."""
    temp: float | None = None
    """Of the temporary bytes of the baseline."""
    mebibytes: float | None = None
    """Of temporary memory."""
    error: float | None = None
    """Of the loss, against float64."""


@dataclass(frozen=True)
class Case:
    """One row of the tables."""

    name: str
    args: tuple[Arg, ...]
    run: losses.Implementations
    """One function of the arguments per implementation."""
    textbook: Callable[..., jax.Array]
    """The losses of the examples along the first axis, for float64."""
    wrt: tuple[int, ...] = (0,)
    """What is differentiated; () is the value alone."""
    targets: dict[str, Target] = field(default_factory=dict)
    torch: str = ""
    """The name of the loss in `torch_worker`; torch has none if empty."""
    sizes: dict[str, int] = field(default_factory=dict)
    """By name, where the case is one of a series."""
    series: dict[str, str] = field(default_factory=dict)
    """The `title` of the series, and the name of the size that `grows` in it."""
    shared: tuple[int, ...] = ()
    """Arguments without an axis of examples."""
    block: int | None = 256
    """Examples at a time in float64; all at once if None, where they depend on each
    other."""
    per_example: bool = False
    """Whether it is the losses of the examples, not their mean."""
    repeats: int | None = None
    """If fewer than usual will have to do."""

    @property
    def shapes(self) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in self.args]

    def textbook_sum(self, *args: jax.Array) -> jax.Array:
        return jnp.sum(self.textbook(*args))


# --- element by element, row by row --------------------------------------------------

WIDE = (8192, 4096)
REALS = Arg("normal", WIDE, scale=2)
BITS = Arg("bits", WIDE)


def _both(name: str, run: losses.Implementations, args: tuple, formula: Callable,
          backward: Target, forward: Target | None = None) -> list[Case]:  # fmt: skip
    """Value and gradient; and the value alone where something is asked of it."""
    torch = formula.__name__
    title = f"{name} {args[0].shape}"
    common = {"args": args, "run": run, "textbook": formula, "torch": torch}
    both = [Case(title, **common, targets={"jaxloss": backward})]
    if forward is not None:
        targets = {"jaxloss": forward}
        both += [Case(f"{title}, value", **common, targets=targets, wrt=())]
    return both


PLAIN = [
    *_both(
        "huber",
        losses.HUBER,
        (REALS, Arg("normal", WIDE)),
        textbook.huber,
        Target(time=0.45, mebibytes=1),
    ),
    *_both(
        "sigmoid CE",
        losses.SIGMOID_CROSS_ENTROPY,
        (REALS, BITS),
        textbook.sigmoid_cross_entropy,
        Target(time=0.30, mebibytes=1),
        Target(time=0.15, mebibytes=1),
    ),
    *_both(
        "focal, gamma 2",
        losses.SIGMOID_FOCAL,
        (REALS, BITS),
        textbook.sigmoid_focal,
        Target(time=0.30, mebibytes=128),
        Target(time=0.08, mebibytes=1),
    ),
    *_both(
        "log cosh",
        losses.LOG_COSH,
        (REALS, Arg("normal", WIDE)),
        textbook.log_cosh,
        Target(time=0.65, mebibytes=1),
        Target(mebibytes=1),
    ),
    *_both(
        "softmax CE, ids",
        losses.SOFTMAX_CROSS_ENTROPY,
        (REALS, Arg("ids", WIDE[:1], "int32", below=WIDE[1])),
        textbook.softmax_cross_entropy,
        Target(time=1.25, temp=1.0),
    ),
    *_both(
        "softmax CE, smoothed",
        losses.SMOOTHED,
        (REALS, Arg("ids", WIDE[:1], "int32", below=WIDE[1])),
        textbook.smoothed,
        Target(time=0.60, mebibytes=1),
    ),
]

# --- small, where calling costs more than computing ----------------------------------


def small_softmax(batch: int, classes: int) -> Case:
    ids = Arg("ids", (batch,), "int32", below=classes)
    return Case(
        f"softmax CE, ids ({batch}, {classes})",
        (Arg("normal", (batch, classes)), ids),
        losses.SOFTMAX_CROSS_ENTROPY,
        textbook.softmax_cross_entropy,
        torch="softmax_cross_entropy",
    )


SMALL = [
    small_softmax(256, 10),
    small_softmax(64, 1000),
    Case(
        "huber (1024,)",
        (Arg("normal", (1024,)), Arg("normal", (1024,))),
        losses.HUBER,
        textbook.huber,
        torch="huber",
    ),
    Case(
        "sigmoid CE (256,)",
        (Arg("normal", (256,)), Arg("bits", (256,))),
        losses.SIGMOID_CROSS_ENTROPY,
        textbook.sigmoid_cross_entropy,
        torch="sigmoid_cross_entropy",
    ),
    Case(
        "listwise softmax (256, 100)",
        (Arg("normal", (256, 100)), Arg("bits", (256, 100))),
        losses.LISTWISE_SOFTMAX,
        textbook.listwise_softmax,
    ),
]

# --- a linear layer before it --------------------------------------------------------


def _linear_args(tokens: tuple[int, ...], d: int, v: int, dtype: str) -> tuple:
    return (
        Arg("normal", (*tokens, d), dtype),
        Arg("normal", (d, v), dtype, scale=d**-0.5),
        Arg("ids", tokens, "int32", below=v),
    )


def linear(n: int, d: int, v: int, repeats: int | None = None) -> Case:
    return Case(
        f"linear CE N{n} D{d} V{v}",
        _linear_args((n,), d, v, "float32"),
        losses.LINEAR,
        textbook.linear,
        wrt=(0, 1),
        targets={
            "jaxloss fast": Target(time=1.00, temp=0.15),
            "jaxloss lean": Target(time=1.10, temp=0.05),
        },
        torch="linear",
        sizes={"N": n, "D": d, "V": v},
        shared=(1,),
        repeats=repeats,
    )


def _args_in_half(case: Case) -> tuple[Arg, ...]:
    return tuple(
        a._replace(dtype="bfloat16") if a.dtype == "float32" else a for a in case.args
    )


def _half(case: Case) -> Case:
    """In bfloat16, where half of the question is how right the loss is."""
    args = _args_in_half(case)
    targets = dict.fromkeys(case.targets, Target(time=0.65, temp=0.15, error=1e-5))
    name = f"{case.name} bfloat16"
    return dataclasses.replace(case, name=name, args=args, targets=targets)


def head(
    tokens: tuple[int, ...],
    run: losses.Implementations = losses.HEAD,
    formula: Callable[..., jax.Array] = textbook.linear,
    kind: str = "",
) -> Case:
    """A dense one, as most programs have it, of tokens along one or more axes."""
    d, v = 64, 32000
    return Case(
        f"head{kind} {(*tokens, v)} D{d}",
        _linear_args(tokens, d, v, "float32"),
        run,
        formula,
        wrt=(0, 1),
        targets={"jaxloss": Target(time=1.10, temp=1.0)},
        shared=(1,),
    )


_TOKENS = ((1024,), (4, 256), (2, 4, 128))
_HEADS = [
    linear(2048, 512, 32768),
    linear(4096, 256, 131072, repeats=5),
    linear(1024, 1024, 131072, repeats=5),
]
HEADS = [
    *_HEADS,
    *map(_half, _HEADS),
    *map(head, _TOKENS),
    head(_TOKENS[1], losses.HEAD_SMOOTHED, textbook.linear_smoothed, ", smoothed"),
    Case(
        "token log-probs N4096 D256 V131072, value",
        _linear_args((4096,), 256, 131072, "float32"),
        losses.TOKEN_LOG_PROBS,
        textbook.token_log_probs,
        wrt=(),
        targets={"jaxloss": Target(time=0.60, temp=0.02)},
        torch="token_log_probs",
        shared=(1,),
        per_example=True,
        repeats=5,
    ),
    Case(
        "DPO B8 T256 D256 V32768",
        (
            *_linear_args((8, 256), 256, 32768, "float32"),
            Arg("mask", (8, 256), "bool"),
            Arg("normal", (8,)),
        ),
        losses.DPO,
        textbook.dpo,
        wrt=(0, 1),
        targets={"jaxloss": Target(time=0.40, temp=0.08)},
        torch="dpo",
        block=None,
    ),
]

# --- sequences and pairs -------------------------------------------------------------


def ctc(batch: int, frames: int, classes: int, labels: int) -> Case:
    return Case(
        f"CTC B{batch} T{frames} K{classes} L{labels}",
        (
            Arg("normal", (batch, frames, classes)),
            Arg("labels", (batch, labels), "int32", below=classes),
        ),
        losses.CTC,
        textbook.ctc,
        torch="ctc",
    )


def nt_xent(
    n: int, d: int, target: Target | None = None, repeats: int | None = None
) -> Case:
    return Case(
        f"NT-Xent N{n} D{d}",
        (Arg("normal", (n, d)), Arg("views", (n,), "int32")),
        losses.NT_XENT,
        textbook.nt_xent,
        targets={"jaxloss": target, "jaxloss blockwise": target} if target else {},
        sizes={"N": n, "D": d},
        block=None,
        repeats=repeats,
    )


def clip(n: int, d: int, target: Target | None = None) -> Case:
    return Case(
        f"CLIP N{n} D{d}",
        (Arg("normal", (n, d)), Arg("normal", (n, d))),
        losses.CLIP,
        textbook.clip,
        wrt=(0, 1),
        targets={"jaxloss blockwise": target} if target else {},
        torch="clip",
        sizes={"N": n, "D": d},
        block=None,
    )


def cox(n: int) -> Case:
    return Case(
        f"Cox N{n}",
        (
            Arg("normal", (n,)),
            Arg("permutation", (n,), "int32"),
            Arg("bits", (n,), "bool"),
        ),
        losses.COX,
        textbook.cox,
        sizes={"N": n},
        block=None,
    )


SEQUENCES = [ctc(16, 256, 128, 32), ctc(8, 512, 1024, 64)]
PAIRS = [
    clip(8192, 256, Target(time=0.50, temp=0.06)),
    nt_xent(1024, 128),
    # That of optax takes 16.8 GiB.
    nt_xent(4096, 128, Target(time=0.03, temp=0.01), repeats=3),
]

CASES: list[Case] = [*HEADS, *PLAIN, *SMALL, *SEQUENCES, *PAIRS]

# --- one device ----------------------------------------------------------------------


def _logits(
    rows: int,
    classes: int,
    name: str = "softmax CE, ids",
    run: losses.Implementations = losses.SOFTMAX_CROSS_ENTROPY,
) -> Case:
    [case] = _both(
        name,
        run,
        (Arg("normal", (rows, classes)), Arg("ids", (rows,), "int32", below=classes)),
        textbook.softmax_cross_entropy,
        Target(),
    )
    return case


def _in_half(case: Case) -> Case:
    args, name = _args_in_half(case), f"{case.name} bfloat16"
    return dataclasses.replace(case, name=name, args=args, targets={})


_READ_ONCE = [
    _logits(rows, classes, "softmax CE, pallas and xla", losses.ONE_READ)
    for rows, classes in (WIDE, (8192, 32768), (2048, 131072))
]
ONE_READ = [*_READ_ONCE, *map(_in_half, _READ_ONCE)]
"""A kernel in Pallas beside what XLA makes of the same formula."""


def of_device(backend: str) -> list[Case]:
    """In the order of what matters; what an accelerator computes in milliseconds."""
    if backend == "cpu":
        return [*PLAIN, *SMALL, ONE_READ[0]]
    logits = [_logits(8192, 32768), _logits(2048, 131072)]
    large = [linear(8192, 2048, 131072, repeats=5), linear(4096, 2048, 32768)]
    return [
        *PLAIN,
        *ONE_READ,
        *logits,
        *map(_in_half, [*PLAIN, *logits, *large]),
        *PAIRS,
        *SEQUENCES,
        *map(_in_half, map(head, _TOKENS)),
        *SMALL,
    ]


# --- series --------------------------------------------------------------------------


def series(title: str, grows: str, cases: Iterable[Case]) -> list[Case]:
    """Cases of which one size grows."""
    about = {"title": title, "grows": grows}
    name = lambda case: f"{case.name}, {grows} grows"
    return [dataclasses.replace(c, name=name(c), series=about) for c in cases]


def _powers(first: int, last: int) -> list[int]:
    return [2**k for k in range(first, last + 1)]


SCALING: list[Case] = [
    *series("linear CE, D256 V32768: N", "N",
            (linear(n, 256, 32768, repeats=7) for n in _powers(8, 12))),
    *series("linear CE, N1024 D256: V", "V",
            (linear(1024, 256, v, repeats=7) for v in _powers(12, 17))),
    *series("CLIP, D128: N", "N", (clip(n, 128) for n in _powers(8, 13))),
    *series("NT-Xent, D64: N", "N", (nt_xent(n, 64) for n in _powers(7, 10))),
    *series("Cox: N", "N", map(cox, (1024, 4096, 100_000))),
]  # fmt: skip
