"""Keep compiled programs on disk, so that a second start neither traces nor compiles them.

JAX's own cache is looked up by the lowered program: Python has to trace and lower the network, the
camera and the physics once more, which takes about as long as the rest of a start. This cache is
looked up by the settings, the code and the machine, so its programs must depend on nothing else.
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
from vnl_ppo.runtime import Compilations, others_can_write

_SUFFIX = ".program"
MOST = 100
"""Maximum number of programs in a folder, those used last; each takes a few megabytes."""
_NOT_OF_THE_PROGRAM = ("cache", "log", "traceback")
"""Settings of JAX with these words in their names do not change what is computed."""


class ProgramCache:
    """The cached programs of runs with the same settings, code and machine.

    A program is code that runs as the user, so a file is only read if nobody else can write it.

    Args:
        compilations: JAX's cache, whose folder holds these programs too.
        identity: everything they depend on besides the machine and the modules loaded so far.
    """

    def __init__(self, compilations: Compilations, *identity: bytes) -> None:
        self.compilations = compilations
        self._digest = _digest(*identity, _code(), _machine())

    def keep(self, name: str, function: Any) -> "Kept":
        """Return `function` wrapped so that its compiled program is kept on disk.

        Args:
            name: a name that no other program of the run has.
            function: a function from `jax.jit`, always called with arguments of the same shapes.
        """
        return Kept(self, name, function)

    def has(self, *names: str) -> bool:
        """Return whether the programs of all these names are on disk."""
        return all(self.path(name).is_file() for name in names)

    def path(self, name: str) -> Path:
        """Return the file of a program."""
        assert self.compilations.folder is not None
        return self.compilations.folder / f"{name}-{self._digest}{_SUFFIX}"


class Kept:
    """A function whose program is read from disk, or compiled, when it is first called."""

    def __init__(self, programs: ProgramCache, name: str, function: Any) -> None:
        self._programs, self._name, self._function = programs, name, function
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments)):
            return self._function(*arguments)
        if self._compiled is None:
            self._compiled = self._read() or self._compile(*arguments)
        return self._compiled(*arguments)

    def lower(self, *arguments: Any) -> Any:
        """Lower the function, as a function from `jax.jit` does."""
        return self._function.lower(*arguments)

    def _read(self) -> Callable[..., Any] | None:
        path = self._programs.path(self._name)
        try:
            if others_can_write(path):
                return None
            content = path.read_bytes()
            digest, packed = content[:32], content[32:]
            if hashlib.sha256(packed).digest() != digest:
                return None
            compiled = executables.from_bytes(zlib.decompress(packed))
        except Exception:
            # Not there, or not for this machine: it is compiled and written again.
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        self._programs.compilations.found += 1
        return compiled

    def _compile(self, *arguments: Any) -> Callable[..., Any]:
        before = self._programs.compilations.found
        compiled = self._function.lower(*arguments).compile()
        # XLA cannot serialize what it read from JAX's cache (jaxlib 0.10.2: "Function not found").
        if self._programs.compilations.found == before:
            _write(self._programs.path(self._name), compiled)
        return compiled


def as_it_is(name: str, function: Any) -> Any:
    """Return `function` unchanged, as `ProgramCache.keep` without a cache."""
    return function


def _write(path: Path, compiled: Any) -> None:
    try:
        content = executables.to_bytes(compiled)
    except Exception:
        # A program that holds an address of this process, such as a callback's.
        return
    packed = zlib.compress(content, level=1)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(packed).digest() + packed)
        os.replace(part, path)
    except OSError:
        # A full disk, or a folder that is not writable: the run goes on without.
        with contextlib.suppress(OSError):
            part.unlink()
    _forget(path.parent)


def _forget(folder: Path) -> None:
    """Delete all but the programs that were used last: edited code leaves some behind."""
    with contextlib.suppress(OSError):
        used = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        for path in used[:-MOST]:
            path.unlink(missing_ok=True)


def _code() -> bytes:
    """Return every loaded module's file, size and time of modification."""
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
    """Return devices, processor, versions, and the settings of JAX and XLA."""
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
    """Return how many cores there are, and how many of them this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return os.cpu_count(), usable


def _processor() -> str:
    """Return the processor's features, all of which compiled programs may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
