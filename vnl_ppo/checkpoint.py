"""Save and restore a whole training state, so that a run resumed equals one never broken.

A checkpoint is a folder named by its environment step. Orbax writes it under another name and
renames it when it is complete, so a half-written one is never taken for a checkpoint.
"""

from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

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
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, _to_numpy(state))
    return path


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in `folder`, ascending; none if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def restore(folder: Path, step: int, like: Tree) -> Tree:
    """Read the checkpoint `folder/<step>`.

    Args:
        folder: the run's `checkpoints` folder.
        step: which one, of `steps(folder)`.
        like: a state of the structure to restore, as the algorithm's `init` makes it.

    Returns:
        the saved state, on the devices of `like`.

    Raises:
        ValueError: the checkpoint holds another structure; the message names the first leaf that
            differs.
    """
    path = (folder / str(step)).resolve()
    wanted = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), jax.eval_shape(_key_data, like)
    )
    with ocp.StandardCheckpointer() as checkpointer:
        _check_same(_by_path(checkpointer.metadata(path).item_metadata.tree), _by_path(wanted), path)
        raw = checkpointer.restore(path, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), wanted))
    keys = jax.tree.map(_is_key, like)
    wrap = lambda tree: jax.tree.map(
        lambda x, is_key: jax.random.wrap_key_data(x) if is_key else x, tree, keys
    )
    # pmap also lays the leading axis out over the devices, as the training step expects it.
    return jax.pmap(wrap)(raw)


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _key_data(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _to_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, jax.device_get(_key_data(tree)))


def _by_path(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): (tuple(x.shape), np.dtype(x.dtype).name) for path, x in leaves}


def _name(path: tuple[Any, ...]) -> str:
    """One name for a leaf, whether its containers are dicts, tuples or dataclasses."""
    parts = (getattr(p, "name", getattr(p, "key", getattr(p, "idx", p))) for p in path)
    return ".".join(str(p) for p in parts)


def _check_same(saved: dict, wanted: dict, path: Path) -> None:
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            describe = lambda leaf: f"{leaf[1]}{list(leaf[0])}" if leaf else "nothing"
            raise ValueError(
                f"checkpoint {path.name} of {path.parent.parent} was made by another network or "
                f"with other settings: {name} is {describe(saved.get(name))} there and "
                f"{describe(wanted.get(name))} here; resume it with the settings it was made with"
            )
