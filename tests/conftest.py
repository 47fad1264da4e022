"""The strictest JAX there is: what passes here passes in a user's session."""

import os
import pathlib
import re

import jax
import pytest

# x64 on, so a stray default-dtype constant shows up as an upcast result; implicit
# rank promotion off, so an accidental (n,) against (n, 1) raises.
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Nearly all of the suite's time is XLA compiling; a second run reads it from disk.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache / "jaxloss" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps what compiles the same programs in one process: a loss, or a file."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forgets the programs of a group, of which a process would gather gigabytes."""
    if nextitem is not None and _group(item) != _group(nextitem):
        jax.clear_caches()


def _group(item: pytest.Item) -> str:
    """The loss that a test is about, if its parameters tell, or else its file."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    for name in ("spec", "case", "claim"):
        if isinstance(getattr(params.get(name), "name", None), str):
            return re.split(r"\W", params[name].name)[0]
    return item.nodeid.split("::")[0]
