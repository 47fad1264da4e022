"""The strictest JAX there is: what passes here passes in a user's session."""

import collections
import gc
import itertools
import os
import pathlib
import re
from typing import Any

import jax
import pytest
from jax._src import compiler  # no public option covers operations outside of `jit`
from xdist.scheduler import LoadScopeScheduling

from jaxloss.testing import accuracy, programs

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


# Folders that count no ulps, and look into no compiled program.  Most of their time is
# XLA compiling operations and training steps, which run once.
QUICK = ("tests/app/", "tests/compat/", "tests/docs/", "tests/train/")
get_compile_options = compiler.get_compile_options


def get_quick_options(*args: Any, **options: Any) -> Any:
    """What JAX hands to XLA, which then compiles in less than half of the time."""
    given = options.pop("env_options_overrides", None) or {}
    options["env_options_overrides"] = programs.quickly() | given
    return get_compile_options(*args, **options)


class ByLoss(LoadScopeScheduling):
    """Keeps what compiles the same programs in one process: a loss, or a file."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByLoss:
    """Gives each process whole groups."""
    return ByLoss(config, log)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Puts the items of a group one after another, for one process as for many; if the
    checks are brief, one in eight of a file, but for claims, which choose by loss."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group(item.nodeid), []).append(item)
    brief = accuracy.CHECKS == "brief"
    claims = "tests/laws/test_claims.py"
    count: collections.Counter[str] = collections.Counter()
    chosen = []
    for item in itertools.chain.from_iterable(groups.values()):
        file = item.nodeid.partition("::")[0]
        if not brief or file == claims or count[file] % 8 == 0:
            chosen.append(item)
        count[file] += 1
    config.hook.pytest_deselected(items=[*{*items}.difference(chosen)])
    items[:] = chosen


def pytest_collection_finish() -> None:
    """Has the garbage collector look at what tests make, and less often: tracing makes
    so much at once that a third of its time went into looking for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Has XLA take pains where it matters; a group is in one folder."""
    programs.quickly()  # asks XLA, once
    quick = item.nodeid.startswith(QUICK)
    compiler.get_compile_options = get_quick_options if quick else get_compile_options


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forgets the programs of a group, of which a process would gather gigabytes."""
    if nextitem is not None and group(item.nodeid) != group(nextitem.nodeid):
        programs.forget()
        jax.clear_caches()
        gc.collect()  # programs are parts of cycles


def group(nodeid: str) -> str:
    """The loss that a claim is about, a notebook, a guide, or else the file."""
    file, _, test = nodeid.partition("::")
    if file.endswith(("test_notebooks.py", "test_guides.py")):
        return nodeid
    word = re.search(r"\[(\w+)", test) if file.startswith("tests/laws/") else None
    return word.group(1) if word else file
