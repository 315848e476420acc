"""How JAX runs here."""

import os
from pathlib import Path

import jax


def keep_compilations() -> Path:
    """Keep compiled programs on disk, so that a second start need not compile them again.

    The folder is `JAX_COMPILATION_CACHE_DIR` where that is set, else one in the user's cache
    folder. Returns it.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = Path(jax.config.jax_compilation_cache_dir or home / "vnl_ppo" / "compilations")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return folder
