"""Environments made of an arena, a walker and a task, and wrappers for other environments."""

import warnings
from typing import Any

from envs import opengl

opengl.forgo_what_is_missing()
# dm_control looks for a display as it is imported; nothing here needs one.
warnings.filterwarnings("ignore", message=".*DISPLAY environment variable is missing")


def make(name: str, **options: Any) -> Any:
    """Make an environment by name; see `envs.catalogue.make`."""
    # Imported late: parts of this package work without dm_control and MJX.
    from envs.catalogue import make

    return make(name, **options)


def names() -> tuple[str, ...]:
    """Return the names of the presets."""
    from envs.presets import PRESETS

    return tuple(PRESETS)
