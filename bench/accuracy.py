"""Prints the worst error of every primitive and loss, in units in the last place.

    python -m bench.accuracy [NAME ...]       e.g.  python -m bench.accuracy softplus

The claims, and the bounds beside the errors, are those of `jaxloss.claims`.
"""

import sys

import jax

from jaxloss.claims import CLAIMS
from jaxloss.testing import Case


def cases(names: list[str]) -> list[Case]:
    """The cases whose name, or the module of whose function, has one of the words."""
    return [
        case
        for claim in CLAIMS
        for case in claim.accuracy
        if not names or any(n in f"{claim.fn.__module__} {case.name}" for n in names)
    ]


def main(names: list[str]) -> None:
    jax.config.update("jax_enable_x64", True)
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


if __name__ == "__main__":
    main(sys.argv[1:])
