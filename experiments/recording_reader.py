"""Read variables and activity from recordings."""

import operator
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray

from experiments.names import entry_names, known_names

MODULE = "module."
USUAL = ("truth.ahead", "truth.heading", "truth.velocity")
"""Arrays that are analysed by default, those of them that there are."""
INSTEAD = ("metric.", "reward")
"""Beginnings of the names of arrays that are analysed if there are none of `USUAL`."""
MAX_ENTRIES = 64
"""Largest number of entries of an array of variables."""
GROUP = 16
"""Episodes of a recording that are read at a time."""
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
CONDITION = re.compile(
    r"([^\[<>]+?)\s*(?:\[(.+)\])?\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
)
"""A condition of `where`: array, entry, sign and number."""
Steps = tuple[np.ndarray, np.ndarray]
"""Episodes int[n] and times int[n]."""


def open_recording(path: Path) -> xarray.Dataset:
    """Open a recording.

    Raises:
        ValueError: there is none, or it is empty.
    """
    if not path.is_dir():
        raise ValueError(f"there is no recording {path}; make one with record.py")
    try:
        recording = xarray.open_zarr(path, consolidated=False, chunks=None)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no recording of record.py, or is damaged: {error}") from error
    if "alive" not in recording or not bool(recording.alive.any()):
        raise ValueError(f"{path} has no steps; record it again")
    return recording


def where(path: Path, recording: xarray.Dataset, conditions: Sequence[str]) -> np.ndarray:
    """Return bool[episodes, times], the steps of a recording at which all conditions hold.

    Args:
        path: of the recording, for messages.
        recording: the recording.
        conditions: ARRAY>NUMBER or ARRAY[ENTRY]>NUMBER, as "truth.ahead[target x]>0.5"; the sign is
            one of >, >=, < and <=.

    Raises:
        ValueError: a condition is written in another way, there is no such array or entry, or they
            hold at no step.
    """
    held = recording.alive.values
    for text in conditions:
        parts = CONDITION.fullmatch(text.strip())
        if parts is None:
            raise ValueError(
                f"--where has {text!r}; write ARRAY>NUMBER or ARRAY[ENTRY]>NUMBER, with >, >=, < "
                f"or <=, such as 'truth.heading<0.5'"
            )
        array, entry, sign, number = parts.groups()
        _check_known("--where", array, path, recording)
        x = recording[array].values.reshape(*held.shape, -1)
        entries = _entries(recording, array, x.shape[-1])
        if (entry or len(entries) > 1) and entry not in entries:
            raise ValueError(
                f"--where has {text!r}; name an entry of {array}, as {array}[{entries[0]}]: "
                f"{known_names(entry or '', entries)}"
            )
        column = x[..., entries.index(entry) if entry else 0]
        held = held & COMPARISONS[sign](column, float(number))
    if not held.any():
        raise ValueError(f"--where {' '.join(conditions)} holds at no step of {path}")
    return held


def spread(steps: Steps, number: int) -> Steps:
    """Return at most that many of the steps, evenly spread."""
    kept = np.linspace(0, len(steps[0]) - 1, min(number, len(steps[0]))).astype(int)
    return steps[0][kept], steps[1][kept]


def check_same(
    path: Path, first: xarray.Dataset, other_path: Path, other: xarray.Dataset, steps: Steps
) -> None:
    """Raise a ValueError unless two recordings are of the same episodes."""
    alive, others = first.alive.values, other.alive.values
    same = alive.shape == others.shape and (alive == others).all()
    told = [k for k in map(str, first) if k.startswith(("truth.", "observation.", "metric."))]
    for name in told if same else ():
        if name in other and first[name].size <= MAX_ENTRIES * alive.size:
            x, y = first[name].values[steps], other[name].values[steps]
            same = same and x.shape == y.shape and np.array_equal(x, y, equal_nan=True)
    if not same:
        raise ValueError(
            f"{other_path} is of other episodes than {path}; record it with --replay {path}"
        )


def default_variables(recording: xarray.Dataset) -> tuple[list[str], str]:
    """Return the arrays to analyse if none are named (see `AnalyseOptions.variables`), and what to
    tell of it."""
    usual = [name for name in USUAL if name in recording]
    if usual:
        return usual, ""
    # The arrays of a folder have no order of their own: file systems list them in any.
    instead = sorted(k for k in map(str, recording) if k.startswith(INSTEAD))
    return instead, (
        f"there is none of {', '.join(USUAL)}; variables are {', '.join(instead)}; --variables "
        f"takes any of {', '.join(numeric(recording))}"
    )


def numeric(recording: xarray.Dataset) -> list[str]:
    """Return the names of arrays whose entries can be variables."""
    alive = recording.alive
    return sorted(
        str(k)
        for k, x in recording.items()
        if x.dims[:2] == alive.dims
        and not str(k).startswith(MODULE)
        and k != "alive"
        and x.size <= MAX_ENTRIES * alive.size
    )


def variables_of(
    path: Path, recording: xarray.Dataset, arrays: Sequence[str], steps: Steps
) -> tuple[list[str], np.ndarray]:
    """Return the names of k variables, those that are not constant, and float64[n, k].

    Raises:
        ValueError: the recording has no such array, it has too many entries or numbers that are not
            finite, or all are constant.
    """
    names, columns = [], []
    for array in arrays:
        _check_known("--variables", array, path, recording)
        x = np.asarray(recording[array].values[steps], np.float64).reshape(len(steps[0]), -1)
        _check_finite(path, array, x)
        for entry, column in zip(_entries(recording, array, x.shape[1]), x.T, strict=True):
            if column.std() > 1e-6:
                names.append(f"{array}[{entry}]" if x.shape[1] > 1 else array)
                columns.append(column)
    if not columns:
        raise ValueError(
            f"{', '.join(arrays)} are constant in {path}; name others with "
            f"--variables; there are {', '.join(numeric(recording))}"
        )
    return names, np.stack(columns, axis=-1)


def activities_of(
    path: Path, recording: xarray.Dataset, modules: Sequence[str], steps: Steps
) -> dict[str, np.ndarray]:
    """Return float32[n, units] by module.

    Raises:
        ValueError: a module was not recorded, or has numbers that are not finite.
    """
    known = sorted(k.removeprefix(MODULE) for k in map(str, recording) if k.startswith(MODULE))
    if not known:
        raise ValueError(f"{path} has no modules; record it with --modules '*'")
    found = {}
    for name in [name.replace("/", ".") for name in modules] or known:
        if name not in known:
            raise ValueError(f"{path} has no module {name!r}; {known_names(name, known)}")
        found[name] = activity_at(recording, name, steps)
        _check_finite(path, name, found[name])
    return found


def activity_at(recording: xarray.Dataset, module: str, steps: Steps) -> np.ndarray:
    """Return float32[n, units], the output of a module at steps in any order."""
    array, (episode, time) = recording[MODULE + module], steps
    found = np.empty((len(episode), int(np.prod(array.shape[2:]))), np.float32)
    # Some episodes at a time: the whole may not fit into memory.
    for first in range(0, array.shape[0], GROUP):
        here = (episode >= first) & (episode < first + GROUP)
        if here.any():
            part = array[first : first + GROUP].values
            found[here] = part[episode[here] - first, time[here]].reshape(here.sum(), -1)
    return found


def _entries(recording: xarray.Dataset, array: str, number: int) -> list[str]:
    return entry_names(recording[array].attrs.get("entries", ()), number)


def _check_known(flag: str, array: str, path: Path, recording: xarray.Dataset) -> None:
    if array not in (known := numeric(recording)):
        raise ValueError(
            f"{flag} has {array!r}, which is no array of {path} with at most {MAX_ENTRIES} "
            f"entries; {known_names(array, known)}"
        )


def _check_finite(path: Path, name: str, x: np.ndarray) -> None:
    if bad := int((~np.isfinite(x)).any(axis=1).sum()):
        raise ValueError(
            f"{path}: {name} has numbers that are not finite in {bad} of the {len(x)} steps used"
        )
