"""Save and restore a training state, so that a resumed run equals an uninterrupted one.

A checkpoint is a folder named after its environment step. Orbax writes it under another name and
renames it when it is complete, so a half-written folder never counts as a checkpoint. One that is
damaged later, called torn, is detected by the SHA-256 digests of its arrays in its metadata.
"""

import contextlib
import dataclasses
import glob
import hashlib
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.utils import is_checkpoint_finalized

Tree = TypeVar("Tree")
Leaves = dict[str, np.ndarray]
"""The arrays of a training state by name, such as weights.params.params.policy.Dense_0.kernel."""

_DIGESTS, _SCORE = "sha256", "score"
_DATA, _METRICS = "episodes.state.data.", "episodes.state.metrics."
_UNFINISHED, _DELETED = ".orbax-checkpoint-tmp", ".deleted"


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Settings of checkpoints: when they are saved, and which are kept."""

    minutes: float = 10.0
    """Maximum minutes between checkpoints, besides those after evaluations; 0 for only those."""
    keep_last: int = 5
    """Number of newest checkpoints to keep besides that of step 0; 0 for all."""
    keep_best: int = 1
    """Number of checkpoints to keep in addition, those with the highest evaluation return."""

    def __post_init__(self) -> None:
        if not 0 <= self.minutes < float("inf"):
            raise ValueError(f"checkpoints.minutes is {self.minutes}; it has to be 0 or more")
        for name in ("keep_last", "keep_best"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"checkpoints.{name} is {getattr(self, name)}; it has to be 0 or more"
                )


class TornCheckpointError(ValueError):
    """A checkpoint is torn: a file is missing, cut short or altered."""


def save(folder: Path, step: int, state: Any, score: float | None = None) -> Path:
    """Save `state` to `folder/<step>`, and read it again to verify it.

    Args:
        folder: the run's `checkpoints` folder; made if missing.
        step: environment steps taken so far.
        state: a pytree of arrays, which may include typed PRNG keys.
        score: evaluation score of the policy, used by `prune`: higher is better; None for none.

    Returns:
        the checkpoint's path.

    Raises:
        OSError: the checkpoint exists or cannot be written. Other checkpoints are unchanged.
    """
    path = (folder / str(step)).resolve()
    if path.exists():
        raise FileExistsError(f"{path} exists; checkpoints are never overwritten")
    leaves = {
        name: np.asarray(x) for name, x in jax.device_get(named_leaves(_key_data(state))).items()
    }
    digests = {name: _digest(x) for name, x in leaves.items()}
    try:
        _remove_unfinished(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _plain(path) as place, _orbax() as checkpointer:
            checkpointer.save(place, leaves, custom_metadata={_DIGESTS: digests, _SCORE: score})
        read(folder, step)
    except Exception as error:
        # Orbax and TensorStore report a full disk by many classes of exceptions.
        _discard(path)
        _remove_unfinished(path)
        raise OSError(f"checkpoint {path} could not be written: {_first_line(error)}") from error
    return path


def steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints in `folder`, ascending."""
    if not folder.is_dir():
        return []
    complete = (p for p in folder.iterdir() if p.name.isdigit() and is_checkpoint_finalized(p))
    return sorted(int(p.name) for p in complete)


def read(folder: Path, step: int) -> Leaves:
    """Read the arrays of the checkpoint `folder/<step>` and verify their digests.

    Checkpoints of early versions of this code have no digests and are not verified.

    Raises:
        TornCheckpointError: a file is missing, cut short or altered.
    """
    path = (folder / str(step)).resolve()
    try:
        with _plain(path) as place, _orbax() as checkpointer:
            metadata = checkpointer.metadata(place)
            if metadata.item_metadata is None:
                raise ValueError("its metadata are missing or torn")
            shapes = metadata.item_metadata.tree
            empty = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
            leaves = {k: np.asarray(x) for k, x in checkpointer.restore(place, empty).items()}
    except Exception as error:
        # A torn file can raise anything, depending on the parser that met it.
        raise TornCheckpointError(
            f"checkpoint {path} cannot be read: {_first_line(error)}"
        ) from error
    digests = (metadata.custom_metadata or {}).get(_DIGESTS)
    if digests is not None:
        if digests.keys() != leaves.keys():
            raise TornCheckpointError(f"checkpoint {path} does not hold the arrays that were saved")
        for name, x in leaves.items():
            if _digest(x) != digests[name]:
                raise TornCheckpointError(f"checkpoint {path}: {name} is not what was saved")
    return leaves


def read_last(folder: Path, warn: Callable[[str], None]) -> tuple[int, Leaves] | None:
    """Read the step and arrays of the newest intact checkpoint; None if there is no checkpoint.

    Args:
        folder: the run's `checkpoints` folder.
        warn: called with a message for each newer checkpoint that is torn.

    Raises:
        TornCheckpointError: there are checkpoints, and all are torn.
    """
    torn = 0
    for step in reversed(steps(folder)):
        try:
            return step, read(folder, step)
        except TornCheckpointError as error:
            warn(f"{error}; going back to the one before it")
            torn += 1
    if torn:
        raise TornCheckpointError(
            f"all {torn} checkpoints in {folder} are torn; begin a new run, "
            f"or restore a checkpoint from a backup"
        )
    return None


def check(leaves: Mapping[str, np.ndarray], like: Any, name: str) -> None:
    """Raise a ValueError unless a checkpoint's arrays match a state's in name, shape and dtype.

    Args:
        leaves: the checkpoint's arrays.
        like: the state, or its shapes (`jax.eval_shape`).
        name: the checkpoint's name, for the message.
    """
    saved, wanted = _described(leaves), _described(named_leaves(jax.eval_shape(_key_data, like)))
    for leaf in sorted(saved.keys() | wanted.keys()):
        there, here = saved.get(leaf, "missing"), wanted.get(leaf, "missing")
        if there != here:
            raise ValueError(
                f"checkpoint {name} was made by another network or with other settings: {leaf} is "
                f"{there} in the checkpoint and {here} in this run; use the settings of the run "
                f"that saved it"
            )


def adapt(leaves: Leaves, like: Any, renamed: Mapping[str, str] | None = None) -> Leaves:
    """Return a checkpoint's arrays with old names replaced and metrics as in `like`, for `check`.

    An environment overwrites its metrics at every step before they are read, so their values do not
    matter: missing ones become zeros, and extra ones are left out.

    Args:
        leaves: the checkpoint's arrays.
        like: as for `check`.
        renamed: old to new names of leaves of the environment's data, used only for names that
            `like` does not have (see `vnl_ppo.env.renamed_leaves`).
    """
    wanted = named_leaves(jax.eval_shape(_key_data, like))

    def current(name: str) -> str:
        path = name.removeprefix(_DATA)
        if path == name or name in wanted:
            return name
        for old, new in (renamed or {}).items():
            if path == old or path.startswith(old + "."):
                return _DATA + new + path.removeprefix(old)
        return name

    found = {current(name): x for name, x in leaves.items()}
    own = {k: x for k, x in found.items() if k in wanted or not k.startswith(_METRICS)}
    reported = {k: np.zeros(x.shape, x.dtype) for k, x in wanted.items() if k.startswith(_METRICS)}
    return reported | own


def fill(leaves: Mapping[str, np.ndarray], like: Tree, prefix: str = "") -> Tree:
    """Return the arrays of a checkpoint in the structure of `like`.

    Args:
        leaves: the checkpoint's arrays; those that are missing become zeros.
        like: a tree of that structure, or its shapes. Typed PRNG keys become raw key data.
        prefix: prefix of the names if `like` is a part of what was saved, such as `weights.`.
    """
    empty = lambda x: np.zeros(x.shape, x.dtype)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: leaves.get(prefix + name_of(path), empty(x)),
        jax.eval_shape(_key_data, like),
    )


def restore(leaves: Mapping[str, np.ndarray], like: Tree, layout: Any) -> Tree:
    """Put the arrays of a checkpoint onto devices, in the structure of `like`.

    Args:
        leaves: the checkpoint's arrays, which passed `check`.
        like: a state, or its shapes, with typed PRNG keys.
        layout: the sharding of each part of it (`vnl_ppo.ppo.PPO.layout`); the devices may differ
            from those of the run that saved it.
    """
    keys = jax.tree.map(_is_key, like)
    wrap = lambda x, is_key: jax.random.wrap_key_data(x) if is_key else x
    put = jax.jit(lambda tree: jax.tree.map(wrap, tree, keys), out_shardings=layout)
    return put(fill(leaves, like))


def is_scored(folder: Path, step: int) -> bool:
    """Return whether there is a checkpoint `folder/<step>` that was saved with a score."""
    return step in steps(folder) and _notes(folder / str(step)).get(_SCORE) is not None


def tidy(folder: Path, after: int) -> None:
    """Rename all checkpoints after step `after`, which are torn and will be saved again, and delete
    what interrupted writes and deletions left. No other process may use the folder."""
    for left in [*folder.glob(f"*{_UNFINISHED}*"), *folder.glob(f".*{_DELETED}")]:
        shutil.rmtree(left, ignore_errors=True)
    for step in steps(folder):
        if step > after:
            path = folder / str(step)
            free = (n for n in range(1000) if not path.with_name(f"{step}.torn-{n}").exists())
            path.rename(path.with_name(f"{step}.torn-{next(free)}"))


def prune(folder: Path, config: CheckpointConfig) -> list[int]:
    """Delete the checkpoints that `config` does not keep; other files stay.

    The newest one stays, and that of step 0, from before training: analyses compare with it.

    Returns:
        the steps that were deleted.
    """
    saved = steps(folder)
    if not config.keep_last:
        return []
    notes = {step: _notes(folder / str(step)) for step in saved}
    scores = {
        step: score
        for step in saved
        if (score := notes[step].get(_SCORE)) is not None and not math.isnan(score)
    }
    best = sorted(scores, key=lambda step: (scores[step], step))[::-1][: config.keep_best]
    old = saved[: -config.keep_last]
    deleted = [step for step in old if step not in (0, *best) and _DIGESTS in notes[step]]
    for step in deleted:
        _discard(folder / str(step))
    return deleted


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.StandardCheckpointer]:
    """Yield a checkpointer that raises without printing: Orbax would log the traceback of every
    thread that failed."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    if not isinstance(sys.unraisablehook, _LateAnswers):
        sys.unraisablehook = _LateAnswers(sys.unraisablehook)
    try:
        with _checkpointer() as checkpointer:
            yield checkpointer
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """Yield another path to the same place, without characters that stand for others in patterns.

    Orbax looks for files by patterns that it makes of their paths, and finds none in a folder whose
    name has brackets or a backslash.
    """
    if not set("[]*?\\") & set(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "checkpoints"
        link.symlink_to(path.parent, target_is_directory=True)
        yield link / path.name


def _checkpointer() -> ocp.StandardCheckpointer:
    """Return a checkpointer that does not wait for other processes to write their parts."""
    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


class _LateAnswers:
    """Ignores errors of TensorStore's threads after a failure elsewhere closed their event loop."""

    def __init__(self, others: Callable[[Any], Any]) -> None:
        self._others = others

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._others(unraisable)


def _discard(path: Path) -> None:
    """Rename a checkpoint, then delete it, so that a half-deleted folder is no checkpoint."""
    if path.exists():
        renamed = path.with_name(f".{path.name}{_DELETED}")
        shutil.rmtree(renamed, ignore_errors=True)
        os.replace(path, renamed)
        shutil.rmtree(renamed, ignore_errors=True)


def _remove_unfinished(path: Path) -> None:
    """Delete what an interrupted write of `path` left behind."""
    for part in path.parent.glob(f"{glob.escape(path.name)}{_UNFINISHED}*"):
        shutil.rmtree(part, ignore_errors=True)


def _notes(path: Path) -> dict[str, Any]:
    """Return the metadata that `save` wrote; empty if they are torn or not from `save`."""
    try:
        with _plain(path.resolve()) as place, _checkpointer() as checkpointer:
            return checkpointer.metadata(place).custom_metadata or {}
    except Exception:
        # As in `read`. Resuming will tell.
        return {}


def _digest(x: np.ndarray) -> str:
    header = f"{x.dtype.name}{list(x.shape)}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(x).tobytes()).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0][:300]


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _key_data(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves by name, without empty arrays, which Orbax refuses."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {name_of(path): x for path, x in paths if x.size > 0}


def name_of(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf, whether its containers are dicts, tuples or dataclasses."""
    parts = (getattr(p, "name", getattr(p, "key", getattr(p, "idx", p))) for p in path)
    return ".".join(str(p) for p in parts)


def _described(leaves: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{np.dtype(x.dtype).name}{list(x.shape)}" for name, x in leaves.items()}
