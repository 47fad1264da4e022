"""Prints how far the losses of all libraries are from their expressions here.

    python -m bench.names [--write]

`--write` makes `docs/names.md`.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np

from bench import names, switching


def main() -> None:
    parser = argparse.ArgumentParser(description="All names of losses, and ours.")
    parser.add_argument("--write", action="store_true", help="docs/names.md")
    asked = parser.parse_args()
    recorded = json.loads(switching.RECORD.read_text())
    with jax.enable_x64(True):
        arrays = {key: jnp.asarray(x) for key, x in names.data().items()}
        for library in names.libraries():
            here = [name for name in library.names if name.here]
            print(f"\n{library.title}: {len(here)} of {len(library.names)} here")
            for name in here:
                found = np.asarray(names.ours(name, arrays)).ravel().tolist()
                truth = names.theirs(name, recorded).ravel().tolist()
                off = switching.error(found, truth)
                verdict = "" if off <= name.within else "  TOO FAR"
                print(f"  {off:8.1e}  {name.name}{verdict}")
    if asked.write:
        names.PAGE.write_text(names.page(), encoding="utf-8")


if __name__ == "__main__":
    main()
