"""Turn on JAX's cache of compiled programs, and tell how long this program has been running."""

import dataclasses
import os
import stat
import time
import warnings
from pathlib import Path
from typing import Any

import jax

import vnl_ppo


@dataclasses.dataclass
class Compilations:
    """Counts how this process uses JAX's cache of compiled programs from now on.

    Attributes:
        folder: the cache's folder; None without one.
        found: number of programs read from it.
        made: number of programs compiled and written to it.
    """

    folder: Path | None
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
        if self.folder is None:
            return "compiled programs are not kept"
        return (
            f"{self.found} compiled programs from the cache, {self.made} new; cache: {self.folder}"
        )


def keep_compilations() -> Compilations:
    """Turn on JAX's cache of compiled programs, so that a second start does not compile them again.

    Its folder is `JAX_COMPILATION_CACHE_DIR` if that is set, else one in the user's cache folder,
    made for the user alone. What lies in it runs as the user, so it is only used if nobody else can
    write there; otherwise, and where there is no home folder, a warning says that nothing is kept.
    """
    folder, problem = None, ""
    try:
        chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
        folder = Path(chosen) if chosen else _cache_home() / "vnl_ppo" / "compilations"
        for made in (folder.parent, folder):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = others_can_write(folder)
    except (OSError, RuntimeError) as error:
        problem = str(error)
    if problem:
        warnings.warn(
            f"compiled programs are not kept, so every start compiles them again: {problem}",
            stacklevel=2,
        )
        folder = None
    jax.config.update("jax_compilation_cache_dir", folder and str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return Compilations(folder)


_REFUSED = {
    "jax_enable_x64": "states, images and checkpoints are float32 here",
    "jax_disable_jit": "programs are compiled before they run here",
}
"""Settings of JAX under which nothing here can run."""
_TURNED_OFF: dict[str, tuple[Any, str]] = {
    # A metric without a value, such as the return where no episode ended, is NaN.
    "jax_debug_nans": (
        False,
        "metrics without a value are NaN, and a run counts and reports numbers that are not finite "
        "itself (train/nonfinite_*)",
    ),
    "jax_debug_infs": (False, "depths of what is not there are infinite"),
    "jax_check_tracer_leaks": (False, "it takes functions that JAX itself keeps for leaks"),
    "jax_numpy_dtype_promotion": ("standard", "types are promoted here"),
    "jax_numpy_rank_promotion": ("allow", "shapes are broadcast here"),
    "jax_transfer_guard": ("allow", "constants are moved to the device here"),
}
"""Values that settings of JAX have to have here, and why."""


def check_jax() -> None:
    """Refuse settings of JAX under which nothing here can run; turn off those that would stop it.

    Raises:
        ValueError: JAX computes in 64 bits, or compiles nothing.
    """
    for name, reason in _REFUSED.items():
        if getattr(jax.config, name, False):
            raise ValueError(f"{name.upper()} is set, but {reason}; unset it")
    for name, (needed, reason) in _TURNED_OFF.items():
        if getattr(jax.config, name, None) not in (None, needed):
            warnings.warn(f"{name.upper()} is turned off: {reason}", stacklevel=2)
            jax.config.update(name, needed)


def check_devices() -> None:
    """Let JAX find its devices.

    Raises:
        ValueError: there are none of the kind that JAX_PLATFORMS asks for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = getattr(jax.config, "jax_platforms", None)
        reason = f" ({lines[0]})" if (lines := str(error).splitlines()) else ""
        raise ValueError(
            f"JAX_PLATFORMS is {asked!r}, but JAX can use no such device here{reason}; unset it, "
            f"or install JAX for that device"
        ) from error


def others_can_write(path: Path) -> str:
    """Return why another user could have put something at a path; empty if none could.

    As `ssh` does, this asks of the path and of every folder above it that it belongs to the user or
    to root, and that neither its group nor others may write. Others may write to a folder above if
    its sticky bit keeps them from what is not theirs, as in /tmp.
    """
    if not hasattr(os, "getuid"):
        return ""
    for place in (path.resolve(), *path.resolve().parents):
        status = place.stat()
        if status.st_uid not in (os.getuid(), 0):
            return f"{place} belongs to another user"
        sticky = place != path.resolve() and status.st_mode & stat.S_ISVTX
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            return f"others may write to {place} (mend it with chmod go-w {place})"
    return ""


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def seconds_since_start() -> float:
    """Return the seconds since this package was first imported."""
    return time.monotonic() - vnl_ppo.IMPORTED
