"""Log metrics to Weights & Biases, with the extra `wandb`."""

import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_ID = "wandb_id"
"""Name of the file in a run's folder that holds the run's id."""


def check_installed(project: str) -> None:
    """Raise a ValueError if a project is named but Weights & Biases is not installed."""
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"wandb is {project!r}, but Weights & Biases is not installed; install the extra with "
            f"pip install -e '.[wandb]', or leave the setting out"
        )


class WandbLog:
    """Logs to Weights & Biases; its files lie in the run's folder, also with WANDB_MODE=offline.

    A resumed run keeps its id, which is in a file in its folder; several may have the same name.

    Args:
        project: name of the project of Weights & Biases.
        folder: the run's folder.

    Raises:
        ValueError: the package is not installed.
    """

    def __init__(self, project: str, folder: Path) -> None:
        check_installed(project)
        import wandb

        self._wandb = wandb
        kept, name = folder / _ID, folder.resolve().name
        if not kept.exists():
            # A run of an earlier version has its name for its id.
            begun = (folder / "wandb").exists()
            kept.write_text(name if begun else uuid.uuid4().hex)
        own = kept.read_text().strip()
        self._run = wandb.init(project=project, dir=folder, id=own, name=name, resume="allow")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars by name."""
        self._run.log(dict(values), step=step)

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """Write a histogram of the finite entries of `values`, any shape."""
        finite = values[np.isfinite(values)]
        if finite.size:
            self._run.log({name: self._wandb.Histogram(finite)}, step=step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write uint8[H, W, C], C of 1 or 3."""
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def text(self, step: int, name: str, markdown: str) -> None:
        """Do nothing: the only text is that of the settings, which are the run's config."""

    def settings(self, settings: Mapping[str, Any], metrics: list[str]) -> None:
        """Set the run's config."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def flush(self) -> None:
        """Do nothing: Weights & Biases writes from a process of its own."""

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
