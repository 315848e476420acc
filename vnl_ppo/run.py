"""The folder of a run: settings, TensorBoard events, checkpoints, videos.

config.json  events.out.tfevents.*  checkpoints/<step>/  videos/<step>.mp4
"""

import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
VIDEOS = "videos"
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "mujoco", "mujoco-mjx", "dm_control")


def create(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Make the folder of a new run and write its settings.

    Raises:
        FileExistsError: something is there already; nothing is changed.
    """
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    versions = {name: metadata.version(name) for name in _PACKAGES}
    text = json.dumps({"settings": settings, "versions": versions}, indent=2) + "\n"
    # Written aside and renamed: a run that is killed here leaves no half of a config.
    part = folder / (CONFIG + ".part")
    part.write_text(text)
    os.replace(part, folder / CONFIG)
    return folder


def check_free(folder: Path) -> None:
    """Raise a FileExistsError unless a run can begin in `folder`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"run folder {folder} exists and is not empty; name another with --run-dir, or go on "
            f"with that run by --resume {folder}"
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that `create` wrote.

    Raises:
        ValueError: `folder` is not a run.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is not a run folder: it has no {CONFIG}")
    try:
        return json.loads(path.read_text())["settings"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold the settings of a run: {error!r}") from error
