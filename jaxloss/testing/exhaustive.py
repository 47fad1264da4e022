"""Checks of every possible input: 2^32 of them take minutes.

A `Question` has numbered inputs, results in a narrow format, and the true values in
float64.  A sweep goes through the numbers in chunks, on all cores, and returns counts
and the blocks with the largest errors, which `worst` then examines.

Errors are counted in units in the last place (ulps) of the truth, apart from

* `special`: the true value is NaN or infinite, and the result must be the same;
* `unread`: an argument is subnormal, which XLA:CPU may read as 0;
* `tiny`: the true value is below the smallest normal number, so the result may be 0;
* `flushed`: the result is 0 where the true value is up to 2^10 times the smallest
  normal number, so an intermediate result may have been flushed to zero.

The first is off if it is anything else, the next two if they err by more than 4 ulps
*and* the smallest normal number.
An infinite result counts as the number behind the largest.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Arrays = tuple[jax.Array, ...]
State = dict[str, Any]

ALL = 2**32
CHUNK, BLOCK = 2**24, 2**15
# How many blocks a sweep keeps, and so how many of the worst inputs are known.
WORST = 1000
ABOVE = (0.5, 1.0, 2.0, 4.0)
CLASSES = (
    *("tiny", "tiny_off", "special", "special_off", "unread", "unread_off"),
    *("flushed", "free"),
)
"""What an input is that counts in no ulps; `free` is one nothing is said about."""
_CODE = {name: -1 - i for i, name in enumerate(CLASSES)}
_MARGIN, _FLUSH = 4, 2.0**10


@dataclasses.dataclass(frozen=True)
class Question:
    """A function of numbered inputs, and what is true of it."""

    arguments: Callable[[jax.Array], Arrays]
    """Of the numbers of the inputs (uint32): the arguments, in float32 or less."""
    results: Callable[..., Arrays]
    """Of the arguments: what is judged, in the format that counts."""
    truth: Callable[..., Arrays]
    """Of the arguments in float64: as many results."""
    names: Sequence[str] = ("value", "slope")
    free: Callable[..., Sequence[Any]] = lambda *wide: (False, False)
    """Of the arguments in float64: for each result, where nothing is said of it."""
    inputs: int = ALL

    def codes(self, numbers: jax.Array) -> Arrays:
        """For each result what its inputs are: the error, as bits, or a class."""
        # Nothing is shared between what is judged and what judges.
        narrow = lax.optimization_barrier(self.arguments(numbers))
        results = lax.optimization_barrier(self.results(*narrow))
        wide = tuple(map(doubles, narrow))
        unread = functools.reduce(jnp.logical_or, map(_is_subnormal, narrow))
        return tuple(
            jnp.where(free, _CODE["free"], _codes(result, true, unread))
            for result, true, free in zip(
                results, self.truth(*wide), self.free(*wide), strict=True
            )
        )


# --- numbers -------------------------------------------------------------------------


def floats(numbers: jax.Array) -> jax.Array:
    """The float32 numbers with these bits."""
    return lax.bitcast_convert_type(numbers.astype(jnp.uint32), jnp.float32)


def bfloats(numbers: jax.Array) -> jax.Array:
    """The bfloat16 numbers with these bits, of which the lower 16 count."""
    return lax.bitcast_convert_type(numbers.astype(jnp.uint16), jnp.bfloat16)


def doubles(x: jax.Array) -> jax.Array:
    """Exactly `x` in float64: a conversion might flush subnormal numbers to zero."""
    single = _single(x)
    bits = lax.bitcast_convert_type(single, jnp.int32)
    small = (bits & 0x7FFFFF).astype(jnp.float64) * 2.0**-149
    small = jnp.where(bits < 0, -small, small)
    return jnp.where(bits & 0x7F800000 == 0, small, single.astype(jnp.float64))


def _is_subnormal(x: jax.Array) -> jax.Array:
    bits = lax.bitcast_convert_type(_single(x), jnp.int32) & 0x7FFFFFFF
    return (bits != 0) & (bits < 0x800000)


def _single(x: jax.Array) -> jax.Array:
    if x.dtype != jnp.bfloat16:
        return x.astype(jnp.float32)
    bits = lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32) << 16
    return lax.bitcast_convert_type(bits, jnp.float32)


# --- one block -----------------------------------------------------------------------


def _codes(result: jax.Array, true: jax.Array, unread: jax.Array) -> jax.Array:
    info = jnp.finfo(result.dtype)
    smallest, beyond = float(info.smallest_normal), 2.0 ** int(info.maxexp)
    got, size = doubles(result), jnp.abs(true)
    special = ~(size < jnp.inf)
    right = jnp.where(jnp.isnan(true), jnp.isnan(got), got == true)
    got, true = (jnp.clip(v, -beyond, beyond) for v in (got, true))
    unit = _power_of_two_below(jnp.clip(size, smallest, beyond)) * float(info.eps)
    away = jnp.abs(got - true)
    ulps = jnp.where(jnp.isnan(away), jnp.inf, away / unit).astype(jnp.float32)
    code = lax.bitcast_convert_type(ulps, jnp.int32)
    off = ~(away <= jnp.maximum(smallest, _MARGIN * unit))
    off = jnp.where(special, ~right, off)
    flushed = (got == 0) & (size < _FLUSH * smallest)
    code = jnp.where(flushed, _CODE["flushed"], code)
    for where, name in (
        (size < smallest, "tiny"),
        (special, "special"),
        (unread, "unread"),
    ):
        classes = jnp.where(off, _CODE[f"{name}_off"], _CODE[name])
        code = jnp.where(where, classes, code)
    return code


def _power_of_two_below(x: jax.Array) -> jax.Array:
    bits = lax.bitcast_convert_type(x, jnp.int64) & (0x7FF << 52)
    return lax.bitcast_convert_type(bits, jnp.float64)


class _Found(NamedTuple):
    """What a block of one result came to."""

    classes: jax.Array
    above: jax.Array
    largest: jax.Array


def _reduced(codes: jax.Array) -> _Found:
    count = lambda where: jnp.sum(where, dtype=jnp.int32)
    limits = np.array(ABOVE, np.float32).view(np.int32).tolist()
    return _Found(
        jnp.stack([count(codes == _CODE[name]) for name in CLASSES]),
        jnp.stack([count(codes > limit) for limit in limits]),
        jnp.max(codes),
    )


# --- a sweep -------------------------------------------------------------------------


def sweep(
    question: Question,
    numbers: range | None = None,
    *,
    chunk: int = CHUNK,
    state: State | None = None,
    keep: Callable[[State], object] = lambda state: None,
    workers: int | None = None,
) -> State:
    """Judges all inputs, or those with these numbers, and returns what there was.

    Args:
      question: What to judge.
      numbers: A range of whole blocks; all inputs by default.
      chunk: How many are judged in one call of the compiled program.
      state: What an earlier sweep kept; it goes on from there if it asked the same.
      keep: Called with the state after each chunk; a JSON file can hold it.
      workers: Threads, of which each is busy with a chunk; one per core by default.
    """
    numbers = range(question.inputs) if numbers is None else numbers
    chunk = min(chunk, len(numbers))
    block = min(BLOCK, chunk)
    if len(numbers) % chunk or chunk % block:
        raise ValueError(f"{numbers} is not a number of whole chunks of {chunk}")
    with jax.enable_x64(True):
        program = jax.jit(functools.partial(_chunk, question, chunk, block))
        lowered = program.lower(np.uint32(0))
        mark = fingerprint(lowered.as_text(), numbers)
        if state is None or state["program"] != mark:
            sizes = {"chunk": chunk, "block": block}
            state = {"program": mark, "done": [], **sizes, "found": _nothing(question)}
        left = [n for n in numbers[::chunk] if n not in {*state["done"]}]
        compiled = lowered.compile() if left else None
    workers = workers or len(os.sched_getaffinity(0))
    for start, found in _each(compiled, left, workers):
        _add(state, question.names, start, found)
        keep(state)
    return state


def fingerprint(*program: object) -> str:
    """Tells whether the same numbers come from the same program on the same machine."""
    device = jax.devices()[0].device_kind
    compiler = importlib.metadata.version("jaxlib")
    text = repr((program, compiler, device))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _chunk(question: Question, chunk: int, block: int, start: jax.Array):
    def judged(start: jax.Array) -> tuple[_Found, ...]:
        numbers = start + lax.iota(jnp.uint32, block)
        return tuple(map(_reduced, question.codes(numbers)))

    starts = start + np.arange(0, chunk, block, dtype=np.uint32)
    return lax.map(judged, starts)


def _each(program, starts: Sequence[int], workers: int) -> Iterator[tuple[int, Any]]:
    """The starts, as they are done, with what was found."""

    def run(start: int):
        with jax.enable_x64(True):
            return start, jax.device_get(program(np.uint32(start)))

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(run, start) for start in starts]
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield done.result()
        finally:  # an interrupted sweep does not go on behind the scenes
            for future in waiting:
                future.cancel()


def _nothing(question: Question) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "classes": dict.fromkeys(CLASSES, 0),
            "above": {f"{limit:g}": 0 for limit in ABOVE},
            "worst": [],
        }
        for name in question.names
    }


def _add(
    state: State, names: Iterable[str], start: int, found: Iterable[_Found]
) -> None:
    state["done"].append(start)
    for name, new in zip(names, found, strict=True):
        old = state["found"][name]
        for key, counts in (("classes", new.classes), ("above", new.above)):
            for what, count in zip(old[key], counts.sum(axis=0).tolist(), strict=True):
                old[key][what] += count
        at = start + np.flatnonzero(new.largest >= 0) * state["block"]
        largest = new.largest[new.largest >= 0].view(np.float32)
        # The worst inputs are not in more blocks than there are worst inputs.
        both = [*old["worst"], *zip(largest.tolist(), at.tolist(), strict=True)]
        old["worst"] = sorted(map(tuple, both), key=_worst_first)[:WORST]


def _worst_first(error: tuple[float, int]) -> tuple[float, int]:
    return -error[0], error[1]


# --- what came of it -----------------------------------------------------------------


def worst(
    question: Question, state: State, count: int = WORST
) -> dict[str, list[tuple[float, int]]]:
    """For each result the largest errors, in ulps, with the numbers of their inputs."""
    block = state["block"]
    with jax.enable_x64(True):
        codes = jax.jit(lambda start: question.codes(start + lax.iota("uint32", block)))
        found = {}
        for i, name in enumerate(question.names):
            errors: list[tuple[float, int]] = []
            for largest, start in state["found"][name]["worst"]:
                if len(errors) == count and errors[-1][0] >= largest:
                    break
                errors += _largest(np.asarray(codes(np.uint32(start))[i]), start, count)
                errors = sorted(errors, key=_worst_first)[:count]
            found[name] = errors
    return found


def _largest(codes: np.ndarray, start: int, count: int) -> list[tuple[float, int]]:
    at = np.argsort(-codes, kind="stable")[:count]
    at = at[codes[at] >= 0]
    ulps = codes[at].view(np.float32)
    return list(zip(ulps.tolist(), (start + at).tolist(), strict=True))


def summary(question: Question, state: State) -> dict[str, Any]:
    """The counts, and the worst input of each result."""
    at = worst(question, state, 1)
    return {
        name: {
            "ulps": at[name][0][0] if at[name] else 0.0,
            "at": inputs(question, at[name][0][1]) if at[name] else [],
            "inputs": len(state["done"]) * state["chunk"],
            "above": found["above"],
            **found["classes"],
        }
        for name, found in state["found"].items()
    }


def inputs(question: Question, number: int) -> list[float]:
    """The arguments of one input, as short as they are read back exactly."""
    found = jax.jit(question.arguments)(np.array([number], np.uint32))
    return [float(str(np.asarray(x)[0])) for x in found]


# --- losses of two bfloat16 arguments ------------------------------------------------


def _squared_error(p: jax.Array, t: jax.Array) -> Arrays:
    return jnp.square(p - t), 2 * (p - t)


def _absolute_error(p: jax.Array, t: jax.Array) -> Arrays:
    return jnp.abs(p - t), jnp.sign(p - t)


def _huber(p: jax.Array, t: jax.Array, delta: float = 1.0) -> Arrays:
    clipped = jnp.clip(p - t, -delta, delta)
    inner = jnp.abs(clipped)
    return inner * (jnp.abs(p - t) - inner / 2), clipped


def _nll(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
    """Which side the label is on, `-log p` of it, p and 1 - p."""
    side = 2 * y - 1
    e = jnp.exp(-jnp.abs(x))
    right, wrong = 1 / (1 + e), e / (1 + e)
    sure = side * x > 0
    p, q = jnp.where(sure, right, wrong), jnp.where(sure, wrong, right)
    return side, jnp.maximum(-side * x, 0) + jnp.log1p(e), p, q


def _sigmoid_cross_entropy(x: jax.Array, y: jax.Array) -> Arrays:
    side, nll, _, q = _nll(x, y)
    return nll, -side * q


def _sigmoid_focal(x: jax.Array, y: jax.Array, gamma: float = 2.0) -> Arrays:
    side, nll, p, q = _nll(x, y)
    fade = q**gamma
    return fade * nll, -side * fade * (gamma * jnp.where(p == 0, 0, p * nll) + q)


class Pair(NamedTuple):
    """A loss of two arguments, and how exact it is at all pairs of bfloat16 numbers."""

    truth: Callable[..., Arrays]
    """Value and slope in float64, from the textbook."""
    ulps: tuple[float, float]
    """Bounds in units of float32, before the slope is rounded to bfloat16."""
    labelled: bool = False
    """Whether the second argument is a label, 0 or 1."""

    @property
    def inputs(self) -> int:
        return 2 * 2**16 if self.labelled else ALL

    @property
    def bounds(self) -> tuple[float, float]:
        """Ulps of float32 for the value, of bfloat16 for the gradient."""
        value, slope = self.ulps
        return value, 0.5 + slope * 2.0**-16


PAIRS = {
    "squared_error": Pair(_squared_error, (2, 1)),
    "absolute_error": Pair(_absolute_error, (1, 0)),
    "huber": Pair(_huber, (2, 1)),
    "sigmoid_cross_entropy": Pair(_sigmoid_cross_entropy, (2, 4), labelled=True),
    "sigmoid_focal": Pair(_sigmoid_focal, (8, 8), labelled=True),
}
"""The losses of `pairs`, with their default hyperparameters."""


def pair_question(name: str, loss: Callable, **settings: float) -> Question:
    """A loss at all pairs of bfloat16 numbers; if it has labels, these are 0 and 1."""
    pair = PAIRS[name]

    def results(p: jax.Array, t: jax.Array) -> Arrays:
        value, pull = jax.vjp(lambda p: loss(p, t, **settings), p)
        return value, *pull(jnp.ones_like(value))

    def arguments(numbers: jax.Array) -> Arrays:
        high = numbers >> 16
        second = high.astype(jnp.bfloat16) if pair.labelled else bfloats(high)
        return bfloats(numbers & 0xFFFF), second

    def truth(p: jax.Array, t: jax.Array) -> Arrays:
        nan = jnp.isnan(p) | jnp.isnan(t)
        return tuple(jnp.where(nan, jnp.nan, x) for x in pair.truth(p, t, **settings))

    def free(p: jax.Array, t: jax.Array) -> tuple[Any, Any]:
        # A difference that is subnormal may be 0 to XLA:CPU, and so may its sign.
        size = jnp.abs(p - t)
        return False, (name == "absolute_error") & (size > 0) & (size < 2.0**-126)

    names = ("value", "gradient")
    return Question(arguments, results, truth, names, free, pair.inputs)


def pairs(
    name: str,
    loss: Callable,
    *,
    numbers: range | None = None,
    keep: Callable[[State], object] = lambda state: None,
    **settings: float,
) -> dict[str, Any]:
    """The summary of a loss at all pairs of bfloat16 numbers: half a minute on 2 cores.

    Its value counts in ulps of float32, its gradient in those of bfloat16.

    Args:
      name: What the loss is: one of `PAIRS`.
      loss: The function to judge, of predictions and targets or logits and labels.
      numbers: Those of the pairs to judge, in whole chunks; all by default.  The lower
        16 bits are the first argument, the upper ones the second, or the label.
      keep: Called after each chunk, as by `sweep`.
      **settings: Hyperparameters, as numbers.
    """
    question = pair_question(name, loss, **settings)
    return summary(question, sweep(question, numbers, keep=keep))
