"""Write and read the parameters of encoders as a safetensors file, which holds arrays and no code.

Arrays are float32 and named LEAF/PATH, such as vision/Conv_0/kernel, with the parameters' names in
flax. The metadata hold a SHA-256 digest of what was written, which is checked if it is there; files
from elsewhere need none. Source of the format: https://huggingface.co/docs/safetensors.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vnl_ppo.borrowing import OWN, leaves_of
from vnl_ppo.checkpoint import Leaves

_DIGEST = "sha256"


def encoders_in(weights: Leaves, leaves: Sequence[str] = ()) -> Leaves:
    """Return the parameters of encoders under the names that they have in a file.

    Those of the value function, where it has encoders of its own, are left out.

    Args:
        weights: arrays by name, see `vnl_ppo.borrowing`.
        leaves: the leaves whose encoders to return; empty for all.

    Raises:
        ValueError: there is no encoder with parameters, or none for one of the leaves.
    """
    known = leaves_of(weights, leaves)
    for leaf in leaves or known:
        if leaf not in known:
            raise ValueError(f"there is no encoder for {leaf!r}; those are for {', '.join(known)}")
    if not known:
        raise ValueError("there is no encoder with parameters")
    begins = tuple(f"{OWN}{leaf}." for leaf in leaves or known)
    own = {k.removeprefix(OWN): x for k, x in weights.items() if k.startswith(begins)}
    return {k.replace(".", "/"): x for k, x in own.items()}


def check_new(path: Path) -> None:
    """Raise a ValueError unless a file of this name can be written: .safetensors, and none yet."""
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} has to end in .safetensors")
    if path.exists():
        raise ValueError(f"{path} exists and is never overwritten; name another file")


def write(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
    """Write arrays to a new file, which appears when it is complete.

    Args:
        path: ends in .safetensors.
        arrays: float32 by name, see above.
        about: metadata, such as where they come from.

    Raises:
        ValueError: the file exists or has another ending, or an array is not float32.
        OSError: it cannot be written.
    """
    check_new(path)
    for name, x in arrays.items():
        if x.dtype != np.float32:
            raise ValueError(f"{name} is {x.dtype}; a file of encoders holds float32 parameters")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    try:
        with part.open("wb") as file:
            file.write(save(arrays, {**about, _DIGEST: _digest(arrays)}))
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename, a link does not replace a file that has appeared meanwhile.
            os.link(part, path)
        except OSError:
            # It has, or the file system has no links.
            check_new(path)
            os.rename(part, path)
    finally:
        part.unlink(missing_ok=True)


def specs_in(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Read names, shapes and dtypes of a file's arrays, under the names of weights.

    Raises:
        ValueError: there is no such file, it is none of these or torn, or an array is not float32.
    """
    found = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            if part.get_dtype() != "F32":
                raise ValueError(
                    f"{path}: {name} is of dtype {part.get_dtype()}; parameters are F32 (float32)"
                )
            found[name] = jax.ShapeDtypeStruct(tuple(part.get_shape()), np.float32)
    return {_weight(name, path): spec for name, spec in found.items()}


def read(path: Path) -> Leaves:
    """Read the arrays of a file, whose `specs_in` were checked, under the names of weights.

    Raises:
        ValueError: as `specs_in`, or the file is not what was written.
    """
    with _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = (file.metadata() or {}).get(_DIGEST)
    if digest not in (None, _digest(arrays)):
        raise ValueError(f"{path} is torn: its arrays are not what was written; make it again")
    return {_weight(name, path): x for name, x in arrays.items()}


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; name a run or a .safetensors file")
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            begin = file.read(4)
        if begin[:1] == b"\x80" or begin == b"PK\x03\x04":
            raise ValueError(
                f"{path} is no safetensors file but a pickle or an archive, which could run code "
                f"and is never loaded; convert it with safetensors' save_file"
            ) from error
        raise ValueError(f"{path} is no safetensors file, or torn ({_line(error)})") from error


def _weight(name: str, path: Path) -> str:
    leaf, _, rest = name.partition("/")
    if not (leaf and rest):
        raise ValueError(
            f"{path}: the array {name!r} is not named LEAF/PATH, such as vision/Conv_0/kernel"
        )
    return f"{OWN}{leaf}.{rest.replace('/', '.')}"


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, x in sorted(arrays.items()):
        digest.update(f"{name}{list(x.shape)}".encode())
        digest.update(x.tobytes())
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0][:200]
