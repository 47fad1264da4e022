"""The strictest JAX there is: what passes here passes in a user's session."""

import os
import pathlib

import jax

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
