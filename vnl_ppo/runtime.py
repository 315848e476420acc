"""How JAX runs here."""

import dataclasses
import os
import time
from pathlib import Path

import jax

import vnl_ppo


@dataclasses.dataclass
class Compilations:
    """The cache of compiled programs, and how often this process found there what it needed since
    this was made.

    Attributes:
        folder: where it is.
        found: programs that were read from it.
        made: programs that were compiled and then put there.
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
    """Keep compiled programs on disk, so that a second start need not compile them again.

    The folder is `JAX_COMPILATION_CACHE_DIR` where that is set, else one in the user's cache
    folder.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    folder = Path(chosen or home / "vnl_ppo" / "compilations")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return Compilations(folder)


def seconds_since_start() -> float:
    """How long ago this package was first imported, which a program does as it starts."""
    return time.monotonic() - vnl_ppo.IMPORTED
