"""Save and restore a whole training state, so that a run resumed equals one never broken.

A checkpoint is a folder named by its environment step. Orbax writes it under another name and
renames it when it is complete, so a half-written one is never taken for a checkpoint.
"""

from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.utils import is_checkpoint_finalized

Tree = TypeVar("Tree")


def save(folder: Path, step: int, state: Any) -> Path:
    """Write `state` to `folder/<step>`, which must not exist.

    Args:
        folder: the run's `checkpoints` folder; made if missing.
        step: environment steps taken so far.
        state: a pytree of arrays with a leading axis of devices, typed PRNG keys among them.

    Returns:
        the checkpoint's path.
    """
    path = (folder / str(step)).resolve()
    leaves = jax.device_get(_leaves(_key_data(state)))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, {name: np.asarray(x) for name, x in leaves.items()})
    return path


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in `folder`, ascending; none if there is no folder."""
    if not folder.is_dir():
        return []
    complete = (p for p in folder.iterdir() if p.name.isdigit() and is_checkpoint_finalized(p))
    return sorted(int(p.name) for p in complete)


def check(folder: Path, step: int, like: Any) -> None:
    """Raise a ValueError unless the checkpoint `folder/<step>` has the structure of `like`.

    Args:
        folder: the run's `checkpoints` folder.
        step: which one, of `steps(folder)`.
        like: a state of that structure, or its shapes (`jax.eval_shape`).
    """
    path = (folder / str(step)).resolve()
    with ocp.StandardCheckpointer() as checkpointer:
        saved = _described(checkpointer.metadata(path).item_metadata.tree)
    wanted = _described(_leaves(jax.eval_shape(_key_data, like)))
    for name in sorted(saved.keys() | wanted.keys()):
        there, here = saved.get(name, "nothing"), wanted.get(name, "nothing")
        if there != here:
            raise ValueError(
                f"checkpoint {path} was made by another network or with other settings: {name} is "
                f"{there} there and {here} here; resume it with the settings it was made with"
            )


def restore(folder: Path, step: int, like: Tree, axis_name: str) -> Tree:
    """Read the checkpoint `folder/<step>`, which has the structure of `like` (see `check`).

    Args:
        folder: the run's `checkpoints` folder.
        step: which one, of `steps(folder)`.
        like: a state of that structure, as the algorithm's `init` makes it.
        axis_name: of the leading axis, as in the pmapped function that takes the state on: under
            another name that function would be compiled once more.

    Returns:
        the saved state, its leading axis laid out over devices.
    """
    path = (folder / str(step)).resolve()
    shapes = jax.eval_shape(_key_data, like)
    empty = lambda x: np.zeros(x.shape, x.dtype)
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(path, jax.tree.map(empty, _leaves(shapes)))
    raw = jax.tree_util.tree_map_with_path(lambda p, x: saved.get(_name(p), empty(x)), shapes)
    keys = jax.tree.map(_is_key, like)
    wrap = lambda x, is_key: jax.random.wrap_key_data(x) if is_key else x
    return jax.pmap(lambda tree: jax.tree.map(wrap, tree, keys), axis_name=axis_name)(raw)


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _key_data(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _leaves(tree: Any) -> dict[str, Any]:
    """The leaves by name. Those without a single entry are left out: Orbax refuses them."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): x for path, x in paths if x.size > 0}


def _name(path: tuple[Any, ...]) -> str:
    """One name for a leaf, whether its containers are dicts, tuples or dataclasses."""
    parts = (getattr(p, "name", getattr(p, "key", getattr(p, "idx", p))) for p in path)
    return ".".join(str(p) for p in parts)


def _described(leaves: dict[str, Any]) -> dict[str, str]:
    return {name: f"{np.dtype(x.dtype).name}{list(x.shape)}" for name, x in leaves.items()}
