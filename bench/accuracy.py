"""Prints the worst error of every primitive and loss, in units in the last place.

    python -m bench.accuracy [module ...]       e.g.  python -m bench.accuracy stable

A module is named by the end of its test file: `stable`, `focal`, `losses.vision`.

The cases, and the bounds beside the errors, are those the tests assert.
"""

import importlib
import pathlib
import sys

import jax

from jaxloss.testing.accuracy import Case

ROOT = pathlib.Path(__file__).parent.parent


def modules() -> list[str]:
    """The test modules, dotted."""
    found = sorted(path.relative_to(ROOT) for path in ROOT.glob("tests/**/test_*.py"))
    return [".".join(path.with_suffix("").parts) for path in found]


def cases(module: str) -> list[Case]:
    return getattr(importlib.import_module(module), "ACCURACY", [])


def main(names: list[str]) -> None:
    jax.config.update("jax_enable_x64", True)
    chosen = [
        module
        for module in modules()
        if not names or any(name in module.replace("test_", "") for name in names)
    ]
    print(f"jax {jax.__version__}, {jax.default_backend()}, float32 under jit")
    print("worst error in ulp (bound)")
    print(f"{'':42} {'value':>14} {'first':>14} {'second':>14}")
    for module in chosen:
        for case in cases(module):
            modes = [case.measure(mode=mode) for mode in ("reverse", "forward")]
            found = [max(a.error, b.error) for a, b in zip(*modes, strict=True)]
            columns = (
                f"{error:.2f} ({bound:g})"
                for error, bound in zip(found, case.bounds, strict=True)
            )
            name = f"{module.rpartition('test_')[2]}: {case.name}"
            print(f"{name:42}", *(f"{c:>14}" for c in columns), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
