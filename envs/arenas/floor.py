"""A flat floor with nothing on it, `dm_control`'s `Floor`."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from dm_control import mjcf
from dm_control.locomotion import arenas

from envs.interfaces import Arena, Pose, check_range

AESTHETICS = ("default", "outdoor_natural")


@dataclasses.dataclass(frozen=True)
class Floor(Arena):
    """A floor at z = 0 whose middle is the world's origin. Every episode has the same.

    Walkers can walk on beyond its edges, where cameras see no floor. `ahead` is float32[0]: there
    is nothing to run into. Cameras leave out its reflections.
    """

    aesthetic: str = "default"
    """dm_control's look: default (a checkerboard of 1 m squares) or outdoor_natural."""
    size: tuple[float, float] = (8.0, 8.0)
    """Half lengths along x and y, metres. Walkers begin anywhere in the inner half of each."""
    spawn_yaw: tuple[float, float] = (0.0, 0.0)
    """Where walkers look as they begin, lowest and highest, radians anticlockwise from x; uniform.
    dm_control's own task turns nothing unless asked to."""

    def check(self, reach: float) -> None:
        """See `envs.interfaces.Arena`; every reach fits."""
        if self.aesthetic not in AESTHETICS:
            known = " or ".join(AESTHETICS)
            raise ValueError(f"arena.aesthetic is {self.aesthetic!r}; it has to be {known}")
        if not all(0 < half < math.inf for half in self.size):
            raise ValueError(f"arena.size is {self.size} m; both have to be positive and finite")
        check_range("arena.spawn_yaw", self.spawn_yaw)

    def build(self) -> mjcf.RootElement:
        """Return the floor and its sky."""
        return arenas.Floor(size=self.size, aesthetic=self.aesthetic).mjcf_model

    def spawn(self, layout: tuple[()], key: jax.Array) -> Pose:
        """Draw a place as `dm_control`'s `GoToTarget` does, and a yaw."""
        place_key, yaw_key = jax.random.split(key)
        half = 0.5 * jnp.asarray(self.size, jnp.float32)
        place = jax.random.uniform(place_key, (2,), minval=-half, maxval=half)
        lowest, highest = self.spawn_yaw
        yaw = jax.random.uniform(yaw_key, (), jnp.float32, lowest, highest)
        return Pose(jnp.append(place, 0.0), yaw)
