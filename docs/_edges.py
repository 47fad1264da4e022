"""What a function gives at the edges of its arguments: evaluated, not written.

The edges are the extremes of the loss's spec; where an example is too large to be
written in a line, cases in words, stated below; of a primitive, points of its kind.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import SPECS
from jaxloss.testing import LossSpec

MOST_ROWS, MOST_NUMBERS = 12, 6


def of_function(fn: Callable) -> tuple[str, list[list[str]]]:
    """A sentence and the rows of a table, the first its header; no rows if none."""
    specs = [spec for spec in SPECS if spec.fn is fn and spec.extremes is not None]
    names = list(inspect.signature(fn).parameters)
    if rows := of_spec(specs[0]) if specs else []:
        numbers = {k: v for k, v in specs[0].params.items() if np.ndim(v) == 0}
        setting = ", ".join(f"{name}={number:g}" for name, number in numbers.items())
        header = [*names[: len(rows[0]) - 2], "loss", f"gradient in {names[0]}"]
        return f"In float32{', with ' if setting else ''}{setting}:", [header, *rows]
    if fn is getattr(jaxloss, fn.__name__, None) and fn.__name__ in CASES:
        rows = [in_words(fn, case) for case in CASES[fn.__name__]]
        return "In float32:", [["case", "loss", "gradient"], *rows]
    if rows := of_primitive(fn):
        header = [*names[: len(rows[0]) - 2], "value", f"gradient in {names[0]}"]
        return "In float32:", [header, *rows]
    return "", []


def of_spec(spec: LossSpec) -> list[list[str]]:
    """Each example once: its arguments, the loss and the gradient."""
    run = jax.jit(jax.value_and_grad(lambda x, *rest: jnp.sum(spec(x, *rest))))
    rows = []
    for example in examples(spec):
        loss, slope = run(*example)
        row = [code(a, 7) for a in example] + [code(loss, 4), code(slope, 4)]
        if row not in rows:
            rows.append(row)
    return rows


def examples(spec: LossSpec) -> list[list[np.ndarray]]:
    """A few extremes, spread over all of them; none if they are large."""
    chosen = []
    blocks = list(spec.extremes(np.dtype(np.float32))) if spec.extremes else []
    for args in blocks:
        args = [np.asarray(a) for a in args]
        args = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in args]
        if args[0][0].size > MOST_NUMBERS:
            return []
        count, most = len(args[0]), max(1, MOST_ROWS // len(blocks))
        places = np.linspace(0, count - 1, min(count, most)).round().astype(int)
        chosen += [[a[i] for a in args] for i in places]
    return chosen


def in_words(fn: Callable, case: "Case") -> list[str]:
    """A case, its losses, and the gradient of their sum: all of it, or its largest."""
    loss = lambda x: fn(x, *case.rest, **case.settings)
    x = jnp.asarray(case.first, jnp.float32)
    slope = np.asarray(jax.grad(lambda x: jnp.sum(loss(x)))(x))
    shown = code(slope, 4)
    if slope.size > MOST_NUMBERS:
        largest = np.abs(slope).max()
        shown = f"{'at most ' if largest else ''}{code(largest, 4)}"
    return [case.words, code(loss(x), 4), shown]


def of_primitive(fn: Callable) -> list[list[str]]:
    """Arguments, value and gradient at the points of its kind; none if it has none."""
    rows = []
    for point in POINTS.get(kind(fn), []):
        point = [np.asarray(x, np.float32) for x in point]
        value = fn(*map(jnp.asarray, point))
        if isinstance(value, tuple):  # no one number to differentiate
            return []
        slope = "" if value.ndim else code(jax.grad(fn)(*map(jnp.asarray, point)), 4)
        rows.append([code(x, 7) for x in point] + [code(value, 4), slope])
    return rows


def example(fn: Callable) -> str:
    """A call of a primitive, as it is typed, and what comes out; "" if it has none."""
    arguments = EXAMPLES.get(kind(fn))
    if not arguments:
        return ""
    module = fn.__module__.split(".")[1]
    call = ", ".join(f"jnp.array({x})" for x in arguments)
    value = fn(*(jnp.asarray(x, jnp.float32) for x in arguments))
    called = f">>> {module}.{fn.__name__}({call})"
    return f">>> from jaxloss import {module}\n{called}\n{value!r}"


def kind(fn: Callable) -> tuple[str, tuple[str, ...]]:
    """Where a function is defined, and the names of the arguments it needs."""
    given = inspect.signature(fn).parameters.values()
    needed = tuple(p.name for p in given if p.default is p.empty)
    return fn.__module__.removeprefix("jaxloss."), needed


def code(x: Any, digits: int) -> str:
    """An array as a reader would write it, in so many digits."""
    text = np.array2string(
        np.asarray(x),
        separator=", ",
        formatter={"float": lambda v: f"{v + 0.0:.{digits}g}"},  # -0 as 0
        max_line_width=1000,
    )
    return f"``{' '.join(text.split())}``"


# --- points of primitives ----------------------------------------------------------

_INF = math.inf
_BELOW = [(x,) for x in (-_INF, -100.0, -1.0, -1e-8, 0.0)]
_NUMBERS = [*_BELOW, *((x,) for x in (1e-8, 1.0, 100.0, _INF))]
_TWO = [(0.0, 0.0), (0.0, _INF), (2.0, 0.0), (2.0, 0.5), (1.0, 1e-30), (-1.0, 3.0)]
_ROWS = [
    ([0.0, 0.0],),
    ([1000.0, 0.0],),
    ([0.0, -_INF],),
    ([-_INF, -_INF],),
    ([_INF, 0.0],),
]
_VECTORS = [([0.0, 0.0],), ([3.0, 4.0],), ([3e-30, 4e-30],), ([3e30, 4e30],)]

# By the module, and the names of the arguments.
POINTS: dict[tuple[str, tuple[str, ...]], list[tuple]] = {
    ("margins", ("m",)): _NUMBERS,
    ("stable.scalars", ("x",)): _NUMBERS,
    ("stable.scalars", ("d",)): _BELOW,
    ("stable.scalars", ("a", "b")): _TWO,
    ("stable.scalars", ("x", "y")): _TWO,
    ("stable.scalars", ("x", "gamma")): [
        (0.0, 0.0),
        (0.0, 2.0),
        (-100.0, 0.5),
        (100.0, 2.0),
    ],
    ("stable.scalars", ("weight", "x")): [
        (0.0, -_INF),
        (0.0, 0.0),
        (1.0, -100.0),
        (1.0, 100.0),
    ],
    ("stable.scalars", ("x", "scale")): [
        (-2.0, 0.0),
        (-2.0, 0.5),
        (-_INF, 0.5),
        (-_INF, 0.0),
        (2.0, 1e-30),
    ],
    ("stable.rows", ("x",)): _ROWS,
    ("stable.rows", ("p",)): [(x,) for x in (0.0, 1e-30, 0.5, 1.0)],
    ("stable.vectors", ("x",)): _VECTORS,
}
EXAMPLES: dict[tuple[str, tuple[str, ...]], tuple[list, ...]] = {
    ("margins", ("m",)): ([-1.0, 0.5, 2.0],),
    ("stable.scalars", ("x",)): ([0.5, 1.0, 30.0],),
    ("stable.scalars", ("d",)): ([-30.0, -1.0, 0.0],),
    ("stable.scalars", ("a", "b")): ([2.0, 2.0], [0.0, 0.5]),
    ("stable.scalars", ("x", "y")): ([0.0, 2.0], [0.0, 0.5]),
    ("stable.scalars", ("x", "gamma")): ([-30.0, 1.0], [0.5, 2.0]),
    ("stable.scalars", ("weight", "x")): ([0.0, 1.0], [-30.0, 2.0]),
    ("stable.scalars", ("x", "scale")): ([-2.0, -2.0], [0.0, 0.5]),
    ("stable.rows", ("p",)): ([0.0, 0.25, 1.0],),
    ("stable.rows", ("x",)): ([[1.0, 0.0], [1000.0, 0.0]],),
    ("stable.vectors", ("x",)): ([[3.0, 4.0], [0.0, 0.0]],),
}


# --- cases in words ----------------------------------------------------------------


class Case(NamedTuple):
    words: str
    first: Any
    rest: tuple = ()
    settings: Mapping[str, Any] = {}


_SAME, _ZERO = np.ones((4, 2)), np.zeros((4, 2))
_TWICE, _ALONE, _ALIKE = np.array([0, 0, 1, 1]), np.arange(4), np.zeros(4, int)
_ONE, _NONE = np.arange(4) < 1, np.zeros(4, bool)


_SPREAD = [
    Case("two antipodes", np.array([[1.0, 0.0], [-3.0, 0.0]])),
    Case("two rows 1e-4 apart", np.array([[1.0, 0.0], [1.0, 1e-4]])),
    Case("all embeddings at one point", _SAME),
    Case("all embeddings 0", _ZERO),
    Case("one row", _SAME[:1]),
    Case("all rows but one masked", _SAME, (), {"where": _ONE}),
]


def _groups(**settings: float) -> list[Case]:
    """Of a loss of labelled embeddings."""
    return [
        Case("all embeddings at one point, two labels", _SAME, (_TWICE,), settings),
        Case("all embeddings 0, two labels", _ZERO, (_TWICE,), settings),
        Case("no row has a positive", _SAME, (_ALONE,), settings),
        Case("no row has a negative", _SAME, (_ALIKE,), settings),
        Case("all rows masked", _SAME, (_TWICE,), {**settings, "where": _NONE}),
    ]


def _pairs(**settings: float) -> list[Case]:
    """Of a loss of pairs of embeddings."""
    one, none = {**settings, "where": _ONE}, {**settings, "where": _NONE}
    return [
        Case("all embeddings at one point", _SAME, (_SAME,), settings),
        Case("all embeddings 0", _ZERO, (_ZERO,), settings),
        Case("one pair, the others masked", _SAME, (_SAME,), one),
        Case("all pairs masked", _SAME, (_SAME,), none),
    ]


def _ctc(words: str, labels: list[int], **settings: Any) -> Case:
    """Two frames of three equal logits, the first of them the blank."""
    settings = {k: np.array([v]) for k, v in settings.items()}
    return Case(words, np.zeros((1, 2, 3)), (np.array([labels]),), settings)


_SIGNS = np.array([[1.0, 1], [-1, 1], [1, -1], [-1, -1]])
_HALF = _SIGNS * [0, 1]
_DEVIATIONS = [
    Case("uncorrelated components", _SIGNS),
    Case("both components alike", _SIGNS[:, :1] * [1, 1]),
    Case("all embeddings at one point", _SAME),
    Case("one example, the others masked", _SIGNS, (), {"where": _ONE}),
    Case("all examples masked", _SIGNS, (), {"where": _NONE}),
]
_PENALTY = [Case(f"{x:g}", [x]) for x in (0.0, 1e-30, -1e10)]

CASES = {
    "nt_xent": _groups(temperature=0.1),
    "supervised_contrastive": _groups(temperature=0.1),
    "batch_hard_triplet": _groups(),
    "multi_similarity": _groups(),
    "circle": _groups(),
    "semi_hard_triplet": _groups(),
    "koleo": _SPREAD,
    "uniformity": _SPREAD,
    "clip": _pairs(temperature=0.1),
    "info_nce": _pairs(temperature=0.1),
    "siglip": _pairs(temperature=0.1, bias=-10.0),
    "barlow_twins": [
        Case("perfect views, uncorrelated components", _SIGNS, (_SIGNS,)),
        Case("opposite views", _SIGNS, (-_SIGNS,)),
        Case("a component that does not vary in one view", _SIGNS, (_HALF,)),
        Case("all embeddings at one point", _SAME, (_SAME,)),
        Case("one example, the others masked", _SIGNS, (_SIGNS,), {"where": _ONE}),
    ],
    "variance_hinge": _DEVIATIONS,
    "covariance_penalty": _DEVIATIONS,
    "l1": _PENALTY,
    "l2": _PENALTY,
    "elastic_net": _PENALTY,
    "entropy": [
        Case("two classes alike", [0.0, 0.0]),
        Case("one of them sure", [1000.0, 0.0]),
        Case("one has the logit -inf", [0.0, -np.inf]),
        Case("both have", [-np.inf, -np.inf]),
    ],
    "ctc": [
        _ctc("as many labels as frames", [1, 2]),
        _ctc("no labels", [1, 2], label_where=[False, False]),
        _ctc("a label twice, and no frame between", [1, 1]),
        _ctc("no frames, one label", [1], where=[False, False]),
        _ctc("no frames, no labels", [1], where=[False, False], label_where=[False]),
    ],
}
