"""Prints the worst error of every primitive and loss, in units in the last place.

    python -m bench.accuracy [module ...]       e.g.  python -m bench.accuracy stable

The cases, and the bounds beside the errors, are those the tests assert.
"""

import importlib
import pathlib
import sys

import jax

from tests.accuracy import Case

TESTS = pathlib.Path(__file__).parent.parent / "tests"


def cases(module: str) -> list[Case]:
    return getattr(importlib.import_module(f"tests.{module}"), "ACCURACY", [])


def main(names: list[str]) -> None:
    jax.config.update("jax_enable_x64", True)
    modules = [f"test_{n}" for n in names] or sorted(
        path.stem for path in TESTS.glob("test_*.py")
    )
    print(f"jax {jax.__version__}, {jax.default_backend()}, float32 under jit")
    print("worst error in ulp (bound)")
    print(f"{'':42} {'value':>14} {'first':>14} {'second':>14}")
    for module in modules:
        for case in cases(module):
            modes = [case.measure(mode=mode) for mode in ("reverse", "forward")]
            found = [max(a.error, b.error) for a, b in zip(*modes, strict=True)]
            columns = (
                f"{error:.2f} ({bound:g})"
                for error, bound in zip(found, case.bounds, strict=True)
            )
            name = f"{module.removeprefix('test_')}: {case.name}"
            print(f"{name:42}", *(f"{c:>14}" for c in columns), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
