"""Compiled programs kept whole on disk, so that a second start need not even trace them.

JAX's own cache keeps what XLA made of a program and finds it by the program: to ask for it, Python
has to run through the network, the camera and the physics once more, and to write all that down for
XLA, which takes about as long as everything else that a start does. A program kept here is found by
what it is made from: the settings, the code, the machine. So only programs may be kept that depend
on nothing else; whoever makes a `ProgramCache` promises that.
"""

import contextlib
import hashlib
import os
import platform
import sys
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from vnl_ppo import executables
from vnl_ppo.runtime import Compilations

_SUFFIX = ".program"
MOST = 100
"""ProgramCache that stay in a folder, the last used ones; each takes a few megabytes."""
_NOT_OF_THE_PROGRAM = ("cache", "log", "traceback")
"""JAX's own settings with these in their names do not change what is computed."""


class ProgramCache:
    """The programs of one kind of run.

    Args:
        compilations: where JAX's cache is; they are kept beside what is in there.
        identity: all that they are made from, besides the code that is loaded by now.
    """

    def __init__(self, compilations: Compilations, *identity: bytes) -> None:
        self.compilations = compilations
        self._digest = _digest(*identity, _code(), _machine())

    def keep(self, name: str, function: Any) -> "Kept":
        """A function that behaves as `function`, from `jax.jit` or `jax.pmap`, and is kept.

        Args:
            name: tells it from the other programs of the run.
            function: to be called with arguments of the same shapes at all times.
        """
        return Kept(self, name, function)

    def has(self, *names: str) -> bool:
        """Whether all programs of these names are there."""
        return all(self.path(name).is_file() for name in names)

    def path(self, name: str) -> Path:
        """Where a program is kept."""
        return self.compilations.folder / f"{name}-{self._digest}{_SUFFIX}"


class Kept:
    """A function that is compiled when it is first called, or read from where it was kept."""

    def __init__(self, programs: ProgramCache, name: str, function: Any) -> None:
        self._programs, self._name, self._function = programs, name, function
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments)):
            return self._function(*arguments)
        if self._compiled is None:
            self._compiled = self._read() or self._compile(*arguments)
        return self._compiled(*arguments)

    def lower(self, *arguments: Any) -> Any:
        """As of `jax.jit`'s functions."""
        return self._function.lower(*arguments)

    def _read(self) -> Callable[..., Any] | None:
        try:
            content = self._programs.path(self._name).read_bytes()
            digest, packed = content[:32], content[32:]
            if hashlib.sha256(packed).digest() != digest:
                return None
            compiled = executables.from_bytes(zlib.decompress(packed))
        except Exception:
            # Not there, or not for this machine after all: it is compiled anew, and written anew.
            return None
        with contextlib.suppress(OSError):
            os.utime(self._programs.path(self._name))
        self._programs.compilations.found += 1
        return compiled

    def _compile(self, *arguments: Any) -> Callable[..., Any]:
        before = self._programs.compilations.found
        compiled = self._function.lower(*arguments).compile()
        # XLA cannot write down again what it read itself (jaxlib 0.10.2: "Function not found").
        if self._programs.compilations.found == before:
            _write(self._programs.path(self._name), compiled)
        return compiled


def as_it_is(name: str, function: Any) -> Any:
    """Instead of `ProgramCache.keep`: nothing is kept."""
    return function


def _write(path: Path, compiled: Any) -> None:
    try:
        content = executables.to_bytes(compiled)
    except Exception:
        # A program that holds an address of this process, such as a callback's, cannot be kept.
        return
    packed = zlib.compress(content, level=1)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(packed).digest() + packed)
        os.replace(part, path)
    except OSError:
        # A full disk, or a home that is not writable: the run does not depend on it.
        with contextlib.suppress(OSError):
            part.unlink()
    _forget(path.parent)


def _forget(folder: Path) -> None:
    """Delete all but the programs that were used last: edited code leaves some that nobody asks
    for again."""
    with contextlib.suppress(OSError):
        used = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        for path in used[:-MOST]:
            path.unlink(missing_ok=True)


def _code() -> bytes:
    """Every module that is loaded, by its file, its size and when it was written."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    known = []
    for file in sorted(file for file in files if file):
        try:
            status = os.stat(file)
        except OSError:
            continue
        known.append(f"{file} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(known).encode()


def _machine() -> bytes:
    """Devices, processor, versions, and the settings of JAX and XLA."""
    settings = {
        name: value
        for name, value in executables.settings().items()
        if not any(word in name for word in _NOT_OF_THE_PROGRAM)
    }
    flags = {k: v for k, v in os.environ.items() if k.startswith(("XLA_", "PJRT_", "LIBTPU_"))}
    devices = [(d.platform, d.device_kind, d.id) for d in jax.devices()]
    place = jax.process_index(), jax.process_count(), _processor(), *_cores()
    parts = sys.version, jax.__version__, devices, place, sorted(flags.items()), settings
    return repr(parts).encode()


def _cores() -> tuple[int | None, int | None]:
    """How many there are, and how many of them this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return os.cpu_count(), usable


def _processor() -> str:
    """What kind of processor it is: compiled programs use all its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
