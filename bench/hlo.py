"""What a compiled program moves, read from the text that XLA prints of it.

XLA's own count (`cost_analysis`) takes one pass for a loop, counts what a TPU keeps in
its vector memory with what it fetches, and is not there for a GPU.  Here the
instructions outside of fusions are the kernels: each reads its operands and writes its
results.  Of an operand that is sliced, the slice counts; of an array that is updated in
place, the update; of a loop, its body as often as it runs.
"""

import functools
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0}

# What is there already, or is only a name for it.
FREE = {
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
NAMES = {"bitcast", "reshape", "get-tuple-element", "optimization-barrier"}
SLICES = {"dynamic-slice", "slice", "gather"}
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
"""By what updates an array in place, the operand that is written into it."""
COLLECTIVES = {
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
}
"""What devices exchange arrays with."""
SUMS = {"all-reduce", "reduce-scatter"}
"""Of those, what adds up arrays of several devices."""
WORKSPACE = "__cublas"
"""The custom calls whose results have room for themselves, in bytes of type s8."""


class Array(NamedTuple):
    """One array of a type."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    """With the padding of its tiles."""
    on_chip: bool
    """Whether it is in the vector memory of a TPU."""


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    """Of its result; a tuple has several."""
    operands: tuple[str, ...]
    rest: str
    """What is behind the operands."""
    is_root: bool

    @property
    def bytes(self) -> int:
        """Of the result, wherever it is."""
        return sum(array.bytes for array in self.arrays)

    def called(self, role: str) -> list[str]:
        """The names of the computations it has in a role such as `body`."""
        found = re.search(rf"\b{role}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.rest)
        return re.findall(r"[\w.\-]+", found[1]) if found else []


class Moved(NamedTuple):
    """What running a computation takes."""

    bytes: int = 0
    """From and to the memory of the device."""
    on_chip_bytes: int = 0
    """From and to the vector memory of a TPU."""
    kernels: int = 0
    """Instructions that do something, one after another."""
    unknown_loops: int = 0
    """Loops whose number of passes depends on data; they count once."""


class Collective(NamedTuple):
    """One exchange between devices, as often as it runs."""

    kind: str
    bytes: int
    """Of what a device gives or what it gets, whichever is larger; each time."""
    times: int


def total(parts: Iterable[Moved]) -> Moved:
    """What all of them take."""
    return Moved(*map(sum, zip(Moved(), *parts, strict=True)))


Computation = dict[str, Instruction]


class Module(NamedTuple):
    """The computations of a program."""

    computations: dict[str, Computation]
    entry: str


# --- from text -----------------------------------------------------------------------

HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")


def parse(text: str) -> Module:
    """A program from the text of `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif found := LINE.match(line):
            instruction = _instruction(*found.groups())
            current[instruction.name] = instruction
    return Module(computations, entry)


def _instruction(root: str | None, name: str, kind: str, opcode: str, rest: str):
    end = _closing(rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    literal = rest[:end] if opcode in ("constant", "parameter") else ""
    after = f"{literal})" + rest[end + 1 :]
    return Instruction(name, opcode, arrays(kind), operands, after, bool(root))


def _closing(text: str) -> int:
    """Where the parenthesis closes that was open before the text."""
    depth = 1
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i
    return len(text)


@functools.cache
def arrays(kind: str) -> tuple[Array, ...]:
    """The arrays of a type as XLA prints it, `(f32[8,128]{1,0:T(8,128)S(1)}, ...)`."""
    return tuple(_array(*found.groups()) for found in ARRAY.finditer(kind))


def _array(dtype: str, shape: str, layout: str | None) -> Array:
    dims = tuple(int(n) for n in re.findall(r"\d+", shape))
    order, _, tiling = (layout or "").partition(":")
    padded = list(dims)
    if order:  # the fastest axis comes first
        padded = [dims[int(axis)] for axis in reversed(order.split(","))]
    if tile := re.match(r"T\(([\d,]+)\)", tiling):
        sizes = [int(n) for n in tile[1].split(",")]
        padded = [1] * (len(sizes) - len(padded)) + padded
        for i, size in zip(range(-len(sizes), 0), sizes, strict=True):
            padded[i] = -(-padded[i] // size) * size
        if not dims:
            padded = [1]
    bytes = math.prod(padded) * bits(dtype) // 8
    return Array(dtype, dims, bytes, re.search(r"S\([1-9]", tiling) is not None)


def bits(dtype: str) -> int:
    """Of one entry of a type such as `bf16` or `f8e4m3fn`."""
    if dtype in BITS:
        return BITS[dtype]
    found = re.match(r"[a-z]+(\d+)", dtype)
    return int(found[1]) if found else 0


# --- what is moved -------------------------------------------------------------------


def moved(module: Module) -> Moved:
    """By the whole program."""
    return _computation(module, module.entry)


def _computation(module: Module, name: str) -> Moved:
    found = module.computations[name]
    return total(_one(module, found, instruction) for instruction in found.values())


def _one(module: Module, around: Computation, one: Instruction) -> Moved:
    if one.opcode == "while":
        return _loop(module, one)
    if one.opcode == "conditional":
        roles = "branch_computations", "true_computation", "false_computation"
        branches = [name for role in roles for name in one.called(role)]
        return max(_computation(module, name) for name in branches)
    if one.opcode == "call":
        return total(_computation(module, name) for name in one.called("to_apply"))
    if one.opcode in FREE or one.opcode.endswith(("-done", "-update")):
        return Moved()
    if one.name.startswith("async-collective-done"):  # a fusion, which only waits
        return Moved()
    if "AllocateBuffer" in one.rest or 'custom_call_target="Sharding"' in one.rest:
        return Moved()
    chip, device = 0, 0
    for size, on_chip in (*_reads(module, around, one), *_writes(module, around, one)):
        chip, device = chip + size * on_chip, device + size * (not on_chip)
    return Moved(device, chip, 1)


def _loop(module: Module, one: Instruction) -> Moved:
    """Its body and its condition, as often as it runs."""
    [body], [condition] = one.called("body"), one.called("condition")
    once = total(_computation(module, name) for name in (body, condition))
    trips = _trips(one, module.computations[condition])
    if trips is None:
        return once._replace(unknown_loops=once.unknown_loops + 1)
    unknown = once.unknown_loops
    return Moved(*(trips * number for number in once))._replace(unknown_loops=unknown)


def _trips(one: Instruction, condition: Computation) -> int | None:
    """The number of passes, if XLA says it or the condition is `i < number`."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest):
        return int(known[1])
    [root] = [x for x in condition.values() if x.is_root]
    if root.opcode != "compare" or "direction=LT" not in root.rest:
        return None
    bound = condition.get(root.operands[-1])
    number = re.match(r"(\d+)\)", bound.rest) if bound else None
    return int(number[1]) if number else None


def _reads(
    module: Module, around: Computation, one: Instruction
) -> Iterator[tuple[int, bool]]:
    """The bytes that are read of each operand, and whether they are on the chip."""
    for i, name in enumerate(one.operands):
        if name not in around or name in one.operands[:i]:
            continue
        operand = around[name]
        if one.opcode.endswith("-start"):
            # Its result holds the operand, what is copied, and a flag.
            whole = kind_of(one) is not None
            size = operand.bytes if whole else min(operand.bytes, _copied(one).bytes)
        elif one.opcode == "fusion":
            size = _read_within(module, one.called("calls")[0], i)
        else:
            size = _read_by(one, i, operand.bytes)
        yield size, all(array.on_chip for array in operand.arrays)


def _read_by(user: Instruction, position: int, whole: int) -> int:
    """What an instruction reads of one operand."""
    if position == 0 and user.opcode in SLICES:
        return min(user.bytes, whole)
    if position == 0 and user.opcode in UPDATES:
        return 0
    return whole


def _read_within(module: Module, fused: str, position: int) -> int:
    """What a fused computation reads of one of its parameters."""
    inside = module.computations[fused]
    parameter = next(
        x
        for x in inside.values()
        if x.opcode == "parameter" and x.rest.startswith(f"{position})")
    )
    return _read_of(module, inside, parameter)


def _read_of(module: Module, inside: Computation, value: Instruction) -> int:
    """What the users of a value read of it; each of its bytes at most once."""
    total = 0
    for user in inside.values():
        for position, name in enumerate(user.operands):
            if name != value.name or (user.is_root and user.opcode == "tuple"):
                continue
            if user.opcode in NAMES and not user.is_root:
                total += _read_of(module, inside, user)
            elif user.opcode == "fusion":
                total += _read_within(module, user.called("calls")[0], position)
            else:
                total += _read_by(user, position, value.bytes)
    return min(total, value.bytes)


def _writes(
    module: Module, around: Computation, one: Instruction
) -> Iterator[tuple[int, bool]]:
    """The bytes of each array that is written, and whether they stay on the chip."""
    if one.opcode.endswith("-start"):
        made = _exchanged(one) if kind_of(one) else (_copied(one),)
        yield from ((array.bytes, array.on_chip) for array in made)
        return
    sizes = [array.bytes for array in one.arrays]
    if one.opcode == "fusion":
        inside = module.computations[one.called("calls")[0]]
        updates = [*_updates(module, inside)]
        sizes = [min(a, b) for a, b in zip(sizes, updates, strict=True)]
    elif one.opcode in UPDATES:
        sizes = [around[one.operands[UPDATES[one.opcode]]].bytes]
    for size, array in zip(sizes, one.arrays, strict=True):
        if not (WORKSPACE in one.rest and array.dtype == "s8"):
            yield size, array.on_chip


def _updates(module: Module, inside: Computation) -> Iterable[int]:
    """Of each result of a fused computation, how much is written."""
    [root] = [x for x in inside.values() if x.is_root]
    results = [inside[n] for n in root.operands] if root.opcode == "tuple" else [root]
    for result in results:
        while result.opcode in NAMES and result.operands[0] in inside:
            result = inside[result.operands[0]]
        if result.opcode == "parameter":  # of a collective that runs in the background
            yield 0
        elif result.opcode in UPDATES:
            yield inside[result.operands[UPDATES[result.opcode]]].bytes
        elif result.opcode == "fusion":
            yield from _updates(module, module.computations[result.called("calls")[0]])
        else:
            yield from (array.bytes for array in result.arrays)


def _copied(one: Instruction) -> Array:
    """What a `copy-start`, `slice-start` or the like makes, of its tuple of arrays."""
    ends = [a for a in one.arrays if a.shape or len(one.arrays) == 1]
    return min(ends, key=lambda array: array.bytes)


# --- what devices exchange -----------------------------------------------------------


def collectives(module: Module) -> list[Collective]:
    """Of the whole program; a loop whose passes depend on data counts as one pass."""
    found = dict(_collectives(module, module.entry, 1, False))
    return list(found.values())


def _collectives(
    module: Module, name: str, times: int, fused: bool
) -> Iterator[tuple[tuple, Collective]]:
    """Each with what tells it apart: a TPU starts one in a fusion and waits in another,
    and has it in the text of both."""
    around = module.computations[name]
    for one in around.values():
        if kind := kind_of(one):
            if name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # a TPU's, of which the text has its two parts
            given = sum(around[x].bytes for x in one.operands if x in around)
            made = sum(array.bytes for array in _exchanged(one))
            channel = re.search(r"channel_id=(\d+)", one.rest) if fused else None
            mark = (kind, channel[1]) if channel else (kind, name, one.name)
            yield mark, Collective(kind, max(given, made), times)
        passes = 1
        if one.opcode == "while":
            passes = _trips(one, module.computations[one.called("condition")[0]]) or 1
        for role in _ROLES.get(one.opcode, ()):
            for inner in one.called(role):
                within = one.opcode == "fusion"
                yield from _collectives(module, inner, times * passes, within)


_ROLES = {
    "async-start": ("calls",),
    "call": ("to_apply",),
    "conditional": ("branch_computations", "true_computation", "false_computation"),
    "fusion": ("calls",),
    "while": ("body", "condition"),
}
"""By instruction, in which roles it has the computations that it runs."""


def kind_of(one: Instruction) -> str | None:
    """The kind of a collective, started or whole; None of another instruction."""
    kind = one.opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def _exchanged(one: Instruction) -> tuple[Array, ...]:
    """The results of a collective; where it starts they may be behind the operands."""
    if not one.opcode.endswith("-start") or len(one.arrays) <= len(one.operands):
        return one.arrays
    behind = one.arrays[len(one.operands) :]
    return behind[: len(one.operands)]
