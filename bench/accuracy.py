"""The worst error of every primitive and loss, in units in the last place.

    python -m bench.accuracy [NAME ...]          e.g.  python -m bench.accuracy softplus
    python -m bench.accuracy --write docs/numerics.md     the table of all losses

The claims, and the bounds beside the errors, are those of `jaxloss.claims`; the table
of a page is what `python -m jaxloss verify` measures.
"""

import argparse
import pathlib

import jax
import numpy as np

from bench.pages import put
from jaxloss.app import verify
from jaxloss.claims import CLAIMS
from jaxloss.testing import Case

MARK = "<!-- accuracy: python -m bench.accuracy --write -->"
HEAD = "| loss | value | gradient | second derivative |\n|---|---|---|---|\n"


def cases(names: list[str]) -> list[Case]:
    """The cases whose name, or the module of whose function, has one of the words."""
    return [
        case
        for claim in CLAIMS
        for case in claim.accuracy
        if not names or any(n in f"{claim.fn.__module__} {case.name}" for n in names)
    ]


def report(names: list[str]) -> None:
    print(f"jax {jax.__version__}, {jax.default_backend()}, float32 under jit")
    print("worst error in ulp (bound)")
    print(f"{'':42} {'value':>14} {'first':>14} {'second':>14}")
    for case in cases(names):
        modes = [case.measure(mode=mode) for mode in ("reverse", "forward")]
        found = [max(a.error, b.error) for a, b in zip(*modes, strict=True)]
        columns = (
            f"{error:.2f} ({bound:g})"
            for error, bound in zip(found, case.bounds, strict=True)
        )
        print(f"{case.name:42}", *(f"{c:>14}" for c in columns), flush=True)


def table() -> str:
    """Of each loss, the worst error in float32 beside its bound."""
    rows = []
    with np.errstate(all="ignore"):
        for claim in verify.chosen([]):
            errors = verify.measure(claim, "float32").errors
            cells = [f"{error.ulps:.2f} of {error.bound:.4g}" for error in errors]
            rows.append(f"| `{claim.name}` | {' | '.join(cells)} |")
    return HEAD + "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="How exact the losses are.")
    parser.add_argument("names", nargs="*", help="words of a case or a module")
    parser.add_argument("--write", type=pathlib.Path, help="the page to update")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.write:
        put(options.write, MARK, table())
    else:
        report(options.names)


if __name__ == "__main__":
    main()
