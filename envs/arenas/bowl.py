"""Define bowls with bumps, a new terrain in each episode: `dm_control`'s `Bowl`.

All terrains lie in one height field, side by side with flat ground between them. An episode takes
place in one of them: the walker starts in its middle, and its index is the layout. No array of the
physics or of the camera differs between environments, so a terrain costs memory alone.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from dm_control import mjcf
from dm_control.locomotion import arenas
from dm_control.locomotion.arenas import bowl as dm_bowl
from flax import struct
from scipy import ndimage

from envs.interfaces import Arena, Pose

HALF = 6.0
"""Half the side of a bowl, metres. The rim is at 3 m; the ground is flat again at 6 m."""
POINTS = 201
"""Points of a bowl's grid along x and y."""
HEIGHT, BASE = 0.5, 0.1
"""Height of a terrain of value 1 and thickness of the ground below, metres."""
SUNK = 0.01
"""Depth of the height field below the flat ground, metres."""
CELL = 2 * HALF / (POINTS - 1)
"""Side of a cell of the grid, 6 cm."""
MAX_POINTS = 4000
"""Points of the height field along x or y; it then takes 64 MB, and twice that in the camera."""
RADII = (0.5, 1.0, 2.0)
"""Distances of the points whose heights `ahead` tells, metres."""
DIRECTIONS = 8
AESTHETICS = ("default", "outdoor_natural")
Rotation = Literal["upright", "any"]


@struct.dataclass
class Layout:
    """The terrain of an episode.

    Attributes:
        terrain: int32[], its index.
    """

    terrain: jax.Array


@dataclasses.dataclass(frozen=True)
class Bowl(Arena):
    """Bowls of 12 by 12 m with random bumps, in one of which an episode takes place.

    Each is dm_control's: 0.25 to 0.5 m high at the rim, 3 m from its middle. Walkers start in the
    middle, as low as they touch no ground, in steps of 1 cm, as in dm_control's `Escape`.
    dm_control draws a new terrain for every episode; here an episode draws one of `terrains`. There
    are other bowls beyond `margin`, where dm_control's ground stays flat.

    `ahead`, float32[24], has heights of the ground at 8 directions and 0.5, 1 and 2 m from the
    root, relative to the ground under it, metres. Directions are those of the world, from x
    anticlockwise.

    In MJX a height field meets spheres, capsules, boxes and meshes. MJX refuses a walker whose
    colliding geoms are ellipsoids or cylinders; use --walker.capsules, or --physics mujoco or warp.
    """

    aesthetic: str = "outdoor_natural"
    """Appearance by dm_control's name: default (plain) or outdoor_natural (grass)."""
    terrains: int = 9
    """Number of terrains."""
    seed: int = 0
    """Seed of the terrains."""
    margin: float = 4.0
    """Flat ground between two bowls, metres, rounded up to whole cells of 6 cm."""
    spawn_rotation: Rotation = "upright"
    """Orientation at the start: upright, with any heading, or any at all, as in dm_control."""

    @property
    def columns(self) -> int:
        """Number of terrains along x; the last row along y may have fewer."""
        return math.ceil(math.sqrt(self.terrains))

    @property
    def rows(self) -> int:
        """Number of rows of terrains along y."""
        return math.ceil(self.terrains / self.columns)

    @property
    def pitch(self) -> int:
        """Cells from the middle of a terrain to that of the next."""
        return POINTS - 1 + math.ceil(self.margin / CELL - 1e-6)

    def check(self, reach: float) -> None:
        """Raise a ValueError if a setting is invalid; every reach is allowed."""
        if self.aesthetic not in AESTHETICS:
            known = " or ".join(AESTHETICS)
            raise ValueError(f"arena.aesthetic is {self.aesthetic!r}; it has to be {known}")
        if self.spawn_rotation not in get_args(Rotation):
            known = " or ".join(get_args(Rotation))
            raise ValueError(
                f"arena.spawn_rotation is {self.spawn_rotation!r}; it has to be {known}"
            )
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"arena.margin is {self.margin} m; it has to be finite, 0 or more")
        if self.terrains < 1:
            raise ValueError(f"arena.terrains is {self.terrains}; it has to be 1 or more")
        if self.columns * self.pitch + 1 > MAX_POINTS:
            raise ValueError(
                f"arena.terrains is {self.terrains} and arena.margin {self.margin} m, which takes "
                f"a height field of {self.columns * self.pitch + 1} points along x; it has to be "
                f"at most {MAX_POINTS}: use fewer terrains or a smaller margin"
            )

    def build(self) -> mjcf.RootElement:
        """Return dm_control's model with all terrains in its height field."""
        half = 0.5 * CELL * (self.pitch * np.array([self.columns, self.rows]))
        # The plane is drawn as far as dm_control draws it around a single bowl.
        arena = arenas.bowl.Bowl(size=tuple(half + 4.0), aesthetic=self.aesthetic)
        root = arena.mjcf_model
        heights = terrains(self)
        top = float(heights.max())
        # MuJoCo stretches the values of a file to [0, 1].
        shape = np.array(heights.shape, np.int32)
        content = shape.tobytes() + np.float32(heights / top).tobytes()
        field = root.find("hfield", "terrain")
        del field.nrow, field.ncol
        field.file = mjcf.Asset(contents=content, extension=".hfield")
        field.size = (*half, HEIGHT * top, BASE)
        # As dm_control's Escape has it: else cameras would not show what is nearer than 0.7 m.
        root.visual.map.znear = 0.00025
        return root

    def draw(self, key: jax.Array) -> Layout:
        """Draw one of the terrains."""
        return Layout(jax.random.randint(key, (), 0, self.terrains))

    def spawn(self, layout: Layout, key: jax.Array) -> Pose:
        """Return the middle of the terrain and draw an orientation, as dm_control's `Escape` does
        for `spawn_rotation` any."""
        yaw_key, turn_key = jax.random.split(key)
        yaw = jax.random.uniform(yaw_key, (), jnp.float32, -math.pi, math.pi)
        rotation = None
        if self.spawn_rotation == "any":
            drawn = jax.random.normal(turn_key, (4,))
            rotation = drawn / jnp.linalg.norm(drawn)
        return Pose(self.centre(layout), yaw, rotation)

    def centre(self, layout: Layout) -> jax.Array:
        """Return float32[3], the middle of the terrain at the height of the flat ground."""
        return jnp.asarray(centres(self))[layout.terrain]

    def ground(self, layout: Layout, points: jax.Array) -> jax.Array:
        """Return heights float32[...] of the ground, between the grid's points bilinear."""
        heights = jnp.asarray(terrains(self))
        size = np.array([self.columns, self.rows]) * self.pitch
        place = points / CELL + 0.5 * size
        corner = jnp.clip(jnp.floor(place), 0, size - 1)
        x, y = jnp.moveaxis(jnp.clip(place - corner, 0, 1), -1, 0)
        column, row = jnp.moveaxis(corner.astype(jnp.int32), -1, 0)
        lower = (1 - x) * heights[row, column] + x * heights[row, column + 1]
        upper = (1 - x) * heights[row + 1, column] + x * heights[row + 1, column + 1]
        return jnp.maximum(0.0, HEIGHT * ((1 - y) * lower + y * upper) - SUNK)

    @property
    def ahead_names(self) -> Sequence[str]:
        """Names of the entries of `ahead`."""
        degrees = [360 * i // DIRECTIONS for i in range(DIRECTIONS)]
        return [f"ground at {angle} degrees, {r:g} m" for angle in degrees for r in RADII]

    def ahead(self, layout: Layout, position: jax.Array) -> jax.Array:
        """Return float32[24]; see the class."""
        angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        away = np.stack([np.cos(angle), np.sin(angle)], -1)[:, None] * np.array(RADII)[:, None]
        around = position[:2] + jnp.asarray(away.reshape(-1, 2), jnp.float32)
        return self.ground(layout, around) - self.ground(layout, position[:2])


@functools.cache
def terrains(arena: Bowl) -> np.ndarray:
    """Return all terrains, float32[rows, columns] of the height field's points, in units of
    `HEIGHT`: 0 where the ground is flat."""
    shape = arena.rows * arena.pitch + 1, arena.columns * arena.pitch + 1
    heights = np.zeros(shape, np.float32)
    before = (arena.pitch - POINTS + 1) // 2
    random_state = np.random.RandomState(arena.seed)
    for i in range(arena.terrains):
        row, column = (before + n * arena.pitch for n in divmod(i, arena.columns))
        heights[row : row + POINTS, column : column + POINTS] = terrain(random_state)
    return heights


def terrain(random_state: np.random.RandomState) -> np.ndarray:
    """Return float64[201, 201], values of a random terrain, as `Bowl.initialize_episode` does.

    Source: dm_control's `locomotion/arenas/bowl.py`.
    """
    y, x = np.ogrid[-1 : 1 : POINTS * 1j, -1 : 1 : POINTS * 1j]
    radius = np.clip(np.sqrt(x**2 + y**2), 0.1, 1)
    shape = 0.5 - np.cos(2 * np.pi * radius) / 2
    number = int(2 * HALF / dm_bowl._TERRAIN_BUMP_SCALE)
    bumps = random_state.uniform(dm_bowl._TERRAIN_SMOOTHNESS, 1, (number, number))
    return shape * ndimage.zoom(bumps, POINTS / number)


@functools.cache
def centres(arena: Bowl) -> np.ndarray:
    """Return the middles of all terrains, float32[T, 3], metres."""
    row, column = np.divmod(np.arange(arena.terrains), arena.columns)
    before = (arena.pitch - POINTS + 1) // 2 + POINTS // 2
    points = np.stack([column, row], -1) * arena.pitch + before
    middle = 0.5 * arena.pitch * np.array([arena.columns, arena.rows])
    return np.insert(CELL * (points - middle), 2, 0, axis=1).astype(np.float32)
