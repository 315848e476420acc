"""Make the environments that all sides share, with Brax's interface. Runs on every side."""

from typing import Any

from brax import envs
from pixels import Pixels


def make(name: str) -> Any:
    """Make an environment by name: `brax:ant`, `playground:CartpoleBalance`, or `pixels:DTYPE`."""
    house, _, own = name.partition(":")
    if house == "brax":
        return envs.get_environment(own, backend="mjx")
    if house == "playground":
        # Not everywhere installed.
        from mujoco_playground import registry

        return registry.load(own, config_overrides={"impl": "jax"})
    return Pixels(own)
