"""Define an arena that is a flat, empty floor: `dm_control`'s `Floor`."""

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
    """A floor at z = 0, centred on the world's origin, the same in every episode.

    The ground goes on beyond its edges, but cameras see no floor there, and no reflections. `ahead`
    is float32[0], as there are no obstacles.
    """

    aesthetic: str = "default"
    """Appearance by dm_control's name: default (checkerboard of 1 m squares) or outdoor_natural."""
    size: tuple[float, float] = (8.0, 8.0)
    """Half lengths along x and y, metres. Walkers start anywhere in the inner half along each."""
    spawn_yaw: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest yaw at the start, radians anticlockwise from x; drawn uniformly.
    dm_control's default is 0 as well."""

    def check(self, reach: float) -> None:
        """Raise a ValueError if a setting is invalid; every reach is allowed."""
        if self.aesthetic not in AESTHETICS:
            known = " or ".join(AESTHETICS)
            raise ValueError(f"arena.aesthetic is {self.aesthetic!r}; it has to be {known}")
        if not all(0 < half < math.inf for half in self.size):
            raise ValueError(f"arena.size is {self.size} m; both have to be positive and finite")
        check_range("arena.spawn_yaw", self.spawn_yaw)

    def build(self) -> mjcf.RootElement:
        """Return the model of floor and sky."""
        return arenas.Floor(size=self.size, aesthetic=self.aesthetic).mjcf_model

    def spawn(self, layout: tuple[()], key: jax.Array) -> Pose:
        """Draw a position as `dm_control`'s `GoToTarget` does, and a yaw."""
        place_key, yaw_key = jax.random.split(key)
        half = 0.5 * jnp.asarray(self.size, jnp.float32)
        place = jax.random.uniform(place_key, (2,), minval=-half, maxval=half)
        lowest, highest = self.spawn_yaw
        yaw = jax.random.uniform(yaw_key, (), jnp.float32, lowest, highest)
        return Pose(jnp.append(place, 0.0), yaw)
