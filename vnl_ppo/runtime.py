"""Turn on JAX's cache of compiled programs, and tell how long this program has been running."""

import dataclasses
import os
import time
from pathlib import Path

import jax

import vnl_ppo


@dataclasses.dataclass
class Compilations:
    """Counts how this process uses JAX's cache of compiled programs from now on.

    Attributes:
        folder: the cache's folder.
        found: number of programs read from it.
        made: number of programs compiled and written to it.
    """

    folder: Path
    found: int = 0
    made: int = 0

    def __post_init__(self) -> None:
        def count(event: str, **_: object) -> None:
            if event == "/jax/compilation_cache/cache_hits":
                self.found += 1
            elif event == "/jax/compilation_cache/cache_misses":
                self.made += 1

        jax.monitoring.register_event_listener(count)

    def __str__(self) -> str:
        return (
            f"{self.found} compiled programs from the cache, {self.made} new; cache: {self.folder}"
        )


def keep_compilations() -> Compilations:
    """Turn on JAX's cache of compiled programs, so that a second start does not compile them again.

    Its folder is `JAX_COMPILATION_CACHE_DIR` if that is set, else one in the user's cache folder.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    folder = Path(chosen or home / "vnl_ppo" / "compilations")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return Compilations(folder)


def seconds_since_start() -> float:
    """Return the seconds since this package was first imported."""
    return time.monotonic() - vnl_ppo.IMPORTED
