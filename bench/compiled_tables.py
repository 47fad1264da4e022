"""What programs compiled for a device take, as a page: tables, bounds and a picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench import picture
from bench.cases import BASELINE
from bench.compiled import times_floor
from bench.compiled_cases import KINDS, Kind
from bench.numbers import Found, Verdict
from bench.report import EMPTY, fixed, or_empty, pair, reasons, table

ABOUT = """\
Compiled by the compiler of the device, on a machine that has none: nothing was timed.
Each program is a value and its gradient under `jit`; a loss is averaged, and
differentiated by its first argument. The compiler says what temporary memory a program
takes. What it *moves* is counted in its text: each kernel reads its operands and writes
its results, a slice or an update counts as what is sliced or updated, a loop as often
as it runs. *× floor* is that beside reading the arguments and writing the results once.

*Least time* is the longer one of two: bytes by the bandwidth of the memory, and the
operations of matrix products by their peak; *share* is how much of it the arguments,
results and matrix products alone would take, those of the implementation that has the
fewest. A share of 100 % leaves nothing to gain. Numbers are ours : optax's; seconds
are those of all processors.
"""
OF_PLATFORM = {
    "gpu": """\
Matrix products are calls of a library whose algorithm is chosen on the device; what
such a call moves is its operands and its result. A kernel that reads an array twice
counts once.
""",
    "tpu": """\
What stays in the vector memory of the chip between two kernels is not moved. No
argument of a loss below fits into it; those of some cases of the benchmark do.
""",
}
UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))


class Row(NamedTuple):
    """One implementation of ours, the baseline beside it, and its case."""

    name: str
    kind: str
    ours: Found
    baseline: Found
    about: dict[str, Any]
    """What else is known of the case."""

    @property
    def every(self) -> list[Found]:
        """The implementations of the case that were compiled."""
        found = self.about["implementations"].values()
        return [x for x in found if "moved_bytes" in x]

    @property
    def first_bytes(self) -> int:
        """Of the first argument."""
        return _bytes(*self.about["args"][0])


def rows(run: dict[str, Any], kind: str) -> Iterator[Row]:
    """Every implementation of ours, of one kind of steps."""
    for case, about in run["cases"].items():
        found = about["implementations"]
        if about["kind"] != kind:
            continue
        baseline = found.get(BASELINE, {})
        for name, ours in found.items():
            package, _, variant = name.partition(" ")
            if package == "jaxloss":
                title = f"{case}, {variant}" if variant else case
                yield Row(title, kind, ours, baseline, about)


def _bytes(shape: list[int], dtype: str) -> int:
    size = 1
    for n in shape:
        size *= n
    return size * {"float32": 4, "bfloat16": 2}[dtype]


# --- what was asked for ---------------------------------------------------------------


def verdicts(run: dict[str, Any], row: Row) -> list[Verdict]:
    """What is asked of a program of its kind, and what was found."""
    if "moved_bytes" not in row.ours:
        return []
    kind, ours, temp = KINDS[row.kind], row.ours, row.ours["temp_bytes"]
    asked = []
    # Beside the kernel that reads once is what XLA makes of it, which does not.
    if run["platform"] in kind.moved and not row.name.endswith(", xla"):
        most = kind.moved[run["platform"]]
        asked.append(Verdict("× floor", round(times_floor(ours), 3), most))
    if kind.temp is not None:
        asked.append(Verdict("temp ÷ argument", temp / row.first_bytes, kind.temp))
    if row.kind == "rows" and "moved_bytes" in row.baseline:
        times = ours["moved_bytes"] / row.baseline["moved_bytes"]
        asked.append(Verdict(f"moved × {BASELINE}'s", round(times, 2), 1))
    if "logits_bytes" in row.about:
        of = lambda key: round(ours[key] / row.about["logits_bytes"], 3)
        asked.append(Verdict(GATHERED, of("most_gathered_bytes"), 0.5))
        asked.append(Verdict(EXCHANGED, of("most_exchanged_bytes"), 0.5))
    if row.name.startswith("linear CE"):
        most = 0.06 if row.name.endswith("lean") else 0.75
        asked.append(Verdict("temp ×", temp / row.baseline["temp_bytes"], most))
    return asked


def missed(run: dict[str, Any]) -> list[tuple[str, Verdict]]:
    """All that is asked for and not reached."""
    return [
        (row.name, verdict)
        for kind in KINDS
        for row in rows(run, kind)
        for verdict in verdicts(run, row)
        if not verdict.reached
    ]


def asked_of(run: dict[str, Any], kind: Kind) -> str:
    """In words."""
    parts = []
    if run["platform"] in kind.moved:
        parts.append(f"moved ≤ {kind.moved[run['platform']]:g} × the floor")
    if kind is KINDS["rows"]:
        parts.append(f"no more than {BASELINE}")
    if kind is KINDS["sharded"]:
        parts.append("no array is gathered that is half as large as a device's logits")
        parts.append("no exchange, with its repetitions, of half as many bytes")
    if kind.temp is not None:
        parts.append(f"temporary memory ≤ {100 * kind.temp:g} % of the first argument")
    return "Asked for: " + ", ".join(parts) + "." if parts else ""


# --- roofline -------------------------------------------------------------------------


class Roof(NamedTuple):
    """The least time of a program on the device, and what it is bound by."""

    seconds: float
    bound: str


def roof(run: dict[str, Any], found: Found, moved: float) -> Roof:
    """Of what it computes, with as many bytes moved."""
    peaks = run["peaks"]
    products = sum(n / peaks[kind] for kind, n in found["products"].items())
    memory = moved / run["bandwidth"]
    return max(Roof(memory, "memory"), Roof(products, "products"))


def share(run: dict[str, Any], row: Row) -> float:
    """Of the least time, what cannot be avoided."""
    floor = lambda x: roof(run, x, x["argument_bytes"] + x["output_bytes"]).seconds
    own = roof(run, row.ours, row.ours["moved_bytes"]).seconds
    # Pairs without a matrix product are arithmetic, too, but not counted.
    alike = [x for x in row.every if bool(x["products"]) == bool(row.ours["products"])]
    return min(1.0, min(map(floor, alike)) / own)


def duration(seconds: float) -> str:
    scale, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{fixed(seconds / scale)} {unit}"


# --- the page -------------------------------------------------------------------------

GATHERED = "largest gather ÷ logits"
EXCHANGED = "largest exchange ÷ logits"
SHARDED = """\
Loss and gradient of a step that several devices share; all numbers are those of one
device. Tokens, or pairs, are 2048 for each device; the model has 512 features and
32768 classes, embeddings 256 components. An exchange counts with what a device gives
or what it gets, whichever is larger, as often as a loop repeats it. A gather, which is
any exchange but a sum, of logits or of scores would be at least as large as those of
a device. The last columns are the largest gather and the largest exchange beside them.
"""
SHARDED_HEAD = (
    *("", "MiB temp", "MiB moved", "exchanges, MiB of each kind"),
    *(GATHERED, EXCHANGED),
)
HEAD = ("", "MiB temp", "MiB moved", "exchanges, MiB of each kind", EXCHANGED)
HEAD = ("", "MiB temp", "moved, × floor", "kernels", "compile s", "least time", "share")


def document(run: dict[str, Any], picture: str) -> str:
    parts = [
        f"# Compiled for {run['device']}",
        ABOUT + "\n" + OF_PLATFORM[run["platform"]],
        f"![Bytes moved, case by case]({picture})",
        surroundings(run),
        misses(run),
        *(section(run, name) for name in KINDS if name != "sharded"),
        sharded(run),
        peers(run),
        reasons(run),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def surroundings(run: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    tera = lambda x: f"{x / 1e12:.4g}"
    peaks = ", ".join(f"{tera(x)} {kind}" for kind, x in run["peaks"].items())
    return (
        f"{versions}, Python {run['python']}; revision {run['revision']}, "
        f"{run['date'][:10]}. Memory {tera(run['bandwidth'])} TB/s; matrix products, "
        f"TFLOP/s: {peaks} ([source]({run['source']}))."
    )


def misses(run: dict[str, Any]) -> str:
    lines = [f"| {name} | {verdict} |" for name, verdict in missed(run)]
    head = "| missed | asked for |\n| --- | --- |\n"
    return "## What is not reached\n\n" + (
        head + "\n".join(lines) if lines else "None."
    )


def section(run: dict[str, Any], name: str) -> str:
    kind = KINDS[name]
    body = [cells(run, row) for row in rows(run, name)]
    if not body:
        return ""
    parts = (f"## {kind.title}", asked_of(run, kind), table(HEAD, body))
    return "\n\n".join(part for part in parts if part)


def sharded(run: dict[str, Any]) -> str:
    """What several devices share, and exchange."""
    body = [sharded_cells(row) for row in rows(run, "sharded")]
    if not body:
        return ""
    asked = asked_of(run, KINDS["sharded"])
    parts = ("## Sharded", SHARDED.strip(), asked, table(SHARDED_HEAD, body))
    return "\n\n".join(parts)


def sharded_cells(row: Row) -> list[str]:
    ours, base = row.ours, row.baseline
    name = row.name.removeprefix("sharded, ")
    if "moved_bytes" not in ours:
        return [name, ours.get("error") or ours["missing"], *[EMPTY] * 4]
    of = lambda key: pair(
        ours[key] / 2**20, base[key] / 2**20 if key in base else None, fixed
    )
    beside = lambda key: fixed(ours[key] / row.about["logits_bytes"])
    kinds = [
        f"{found['count']} {kind} {fixed(found['bytes'] / 2**20)}"
        for kind, found in ours["collectives"].items()
    ]
    return [
        name,
        of("temp_bytes"),
        of("moved_bytes"),
        ", ".join(kinds),
        beside("most_gathered_bytes"),
        beside("most_exchanged_bytes"),
    ]


def cells(run: dict[str, Any], row: Row) -> list[str]:
    ours, base = row.ours, row.baseline
    if "moved_bytes" not in ours:
        return [row.name, ours.get("error") or ours["missing"], *[EMPTY] * 5]
    of = lambda fn, form: pair(
        fn(ours), fn(base) if "moved_bytes" in base else None, form
    )
    own = roof(run, ours, ours["moved_bytes"])
    return [
        row.name,
        of(lambda x: x["temp_bytes"] / 2**20, fixed),
        of(times_floor, fixed),
        of(lambda x: x["kernels"], lambda n: f"{n:g}"),
        of(lambda x: x.get("compile_seconds"), fixed),
        f"{duration(own.seconds)} ({own.bound})",
        f"{100 * share(run, row):.0f} %",
    ]


def peers(run: dict[str, Any]) -> str:
    """Temporary memory and bytes of the others."""
    others = {
        name
        for about in run["cases"].values()
        for name, found in about["implementations"].items()
        if name.split()[0] not in ("jaxloss", BASELINE) and "moved_bytes" in found
    }
    names = [BASELINE, *sorted(others)]
    body = []
    for case, about in run["cases"].items():
        found = about["implementations"]
        if any(name in others for name in found):
            body.append([case, *(both(found.get(name, {})) for name in names)])
    if not body:
        return ""
    text = "## Other libraries\n\nMiB of temporary memory, and bytes moved × floor.\n\n"
    return text + table(("", *names), body)


def both(found: Found) -> str:
    if "moved_bytes" not in found:
        return EMPTY
    temp = or_empty(found["temp_bytes"] / 2**20, fixed)
    return f"{temp}, × {fixed(times_floor(found))}"


def write(run: dict[str, Any], folder: Path, device: str) -> None:
    """The page and its picture."""
    page = folder / f"compiled-{device}.md"
    image = page.with_suffix(".png")
    folder.mkdir(parents=True, exist_ok=True)
    picture.moved(run, image)
    page.write_text(document(run, image.name))
    print(f"wrote {page} and {image.name}")
