"""Define mazes, another in each episode: `dm_control`'s `RandomMazeWithTargets`.

DeepMind Lab's generator (the package labmaze) draws a fixed number of mazes as the environment is
made. An episode takes place in one of them, whose index is the layout. Walls are boxes.

M is the number of mazes, W the largest number of walls of one.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import labmaze
import numpy as np
from dm_control import mjcf
from dm_control.locomotion.arenas import covering, mazes
from flax import struct

from envs.interfaces import Arena, Boxes, Places, Pose, Visible, check_range
from envs.layouts import FAR

PARKED = 1e4
"""Position along x of walls that a maze does not have, metres."""
DIRECTIONS = 8
MAX_CELLS = 101
AESTHETICS = ("default", "outdoor_natural")
WALL, FLOOR = (0.8, 0.8, 0.8, 1.0), (0.2, 0.2, 0.2, 1.0)
"""Colours, as in dm_control."""
# Mazes that are drawn at most for each that has rooms.
_TRIES = 10
# Added to the reach: float32 rounds the edges of walls.
_SLACK = 1e-3


@struct.dataclass
class Layout:
    """The maze of an episode.

    Attributes:
        maze: int32[], its index.
    """

    maze: jax.Array


@dataclasses.dataclass(frozen=True)
class Maze(Arena):
    """Mazes on a grid of cells, centred on the world's origin, with walls all around.

    Walkers start at one of the generator's places for it, in any direction, as in dm_control with
    its default `rotation_bias_factor` of 0. Each room has places for targets. Walls and floor are
    plain, as dm_control's without textures.

    `ahead`, float32[8], has the distances from the root to the nearest wall in 8 directions of the
    world, from x anticlockwise, metres, at most 5.
    """

    cells: tuple[int, int] = (11, 11)
    """Numbers of cells along x and y, with the walls all around; both odd."""
    cell: float = 2.0
    """Side of a cell, metres; dm_control takes 3 for its humanoid and 0.5 for its rodent."""
    wall_height: float = 2.0
    """Height of the walls, metres."""
    max_rooms: int = 4
    """Maximum number of rooms."""
    room_size: tuple[int, int] = (4, 5)
    """Smallest and largest side of a room, cells."""
    spawns_per_room: int = 1
    """Places in a room at which walkers start."""
    targets_per_room: int = 3
    """Places in a room for targets."""
    mazes: int = 100
    """Number of mazes."""
    seed: int = 0
    """Seed of the mazes."""
    aesthetic: str = "default"
    """Appearance of floor and sky by dm_control's name: default (plain) or outdoor_natural."""
    reach: float = 1.5
    """The largest reach of walkers, metres: the physics has as many walls at a time as are within
    it anywhere."""

    def check(self, reach: float) -> None:
        """Raise a ValueError for invalid settings, or a walker that reaches too far."""
        for name in ("cell", "wall_height", "reach"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"arena.{name} is {value} m; it has to be positive and finite")
        if not all(n % 2 and 5 <= n <= MAX_CELLS for n in self.cells):
            raise ValueError(
                f"arena.cells is {self.cells}; both have to be odd, from 5 to {MAX_CELLS}"
            )
        for name in ("max_rooms", "spawns_per_room", "targets_per_room", "mazes"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"arena.{name} is {value}; it has to be 1 or more")
        check_range("arena.room_size", self.room_size, 1)
        if self.room_size[1] > min(self.cells) - 2:
            raise ValueError(
                f"arena.room_size is {self.room_size} and arena.cells {self.cells}: the largest "
                f"room has to be at most {min(self.cells) - 2} cells, within the walls"
            )
        if self.aesthetic not in AESTHETICS:
            known = " or ".join(AESTHETICS)
            raise ValueError(f"arena.aesthetic is {self.aesthetic!r}; it has to be {known}")
        if reach > self.reach:
            raise ValueError(
                f"arena.reach is {self.reach} m, but walker.reach is {reach} m: a walker could "
                f"touch more walls than the physics has; set arena.reach to {reach} or more"
            )
        drawn(self)

    def build(self) -> mjcf.RootElement:
        """Return dm_control's model of floor and sky, without walls and with a visible floor."""
        arena = mazes.MazeWithTargets(
            maze=_generator(self),
            xy_scale=self.cell,
            z_height=self.wall_height,
            aesthetic=self.aesthetic,
        )
        root = arena.mjcf_model
        ground = root.find("geom", "ground")
        if self.aesthetic == "default":
            ground.rgba = FLOOR
        else:
            ground.rgba = (1, 1, 1, 1)
            texture = root.find("texture", "aesthetic_texture")
            # As many repeats as cells, as on dm_control's tiles.
            ground.material = root.asset.add(
                "material", name="floor", texture=texture, texrepeat=self.cells
            )
        return root

    def slots(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the first walls of the first maze, as many as there may be within `reach`."""
        return [self._wall(i) for i in range(most_in_reach(self))]

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return W walls."""
        return [self._wall(i) for i in range(drawn(self).position.shape[1])]

    def colliders(self) -> Sequence[str]:
        """Return the floor."""
        return ("ground",)

    def draw(self, key: jax.Array) -> Layout:
        """Draw one of the mazes."""
        return Layout(jax.random.randint(key, (), 0, self.mazes))

    def spawn(self, layout: Layout, key: jax.Array) -> Pose:
        """Draw one of the maze's places to start at, and any yaw, as dm_control's maze tasks do."""
        place_key, yaw_key = jax.random.split(key)
        all_mazes = drawn(self)
        number = jnp.asarray(all_mazes.num_spawns)[layout.maze]
        place = jnp.asarray(all_mazes.spawns)[layout.maze]
        place = place[jax.random.randint(place_key, (), 0, number)]
        yaw = jax.random.uniform(yaw_key, (), jnp.float32, -math.pi, math.pi)
        return Pose(place, yaw)

    def places(self, layout: Layout) -> Places:
        """Return the maze's places for targets."""
        all_mazes = drawn(self)
        position = jnp.asarray(all_mazes.targets)[layout.maze]
        number = jnp.asarray(all_mazes.num_targets)[layout.maze]
        return Places(position, jnp.arange(len(position)) < number)

    def boxes(self, layout: Layout, position: jax.Array, reach: float) -> Boxes:
        """Return the walls that are nearest to `position` in x or y, whichever is farther.

        There are as many as can be within `arena.reach` of any place, so that none which is within
        the walker's reach is left out. They are in the order of the maze's walls, on which the
        order of contacts depends, and so the last bits of every result.
        """
        walls = self._boxes(layout)
        away = jnp.abs(position[:2] - walls.position[:, :2]) - walls.size[:, :2]
        _, nearest = jax.lax.top_k(-away.max(-1), most_in_reach(self))
        nearest = jnp.sort(nearest)
        return Boxes(walls.position[nearest], walls.size[nearest])

    def visible(self, layout: Layout) -> Visible:
        """Return every wall. Unused ones have half sizes of 0."""
        walls = self._boxes(layout)
        there = walls.position[:, :1] < PARKED
        return Visible(geoms=Boxes(walls.position, jnp.where(there, walls.size, 0.0)))

    @property
    def ahead_names(self) -> Sequence[str]:
        """Names of the entries of `ahead`."""
        return [f"wall at {360 * i // DIRECTIONS} degrees" for i in range(DIRECTIONS)]

    def ahead(self, layout: Layout, position: jax.Array) -> jax.Array:
        """Return float32[8]; see the class."""
        angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        direction = np.stack([np.cos(angle), np.sin(angle)], -1)
        slope = 1 / jnp.where(np.abs(direction) < 1e-9, 1e-9, direction)[:, None]
        walls = self._boxes(layout)
        middle, half = walls.position[:, :2] - position[:2], walls.size[:, :2]
        # Depths at which a ray crosses a wall's sides, float32[directions, W, 2].
        one, other = (middle - half) * slope, (middle + half) * slope
        enter = jnp.maximum(jnp.minimum(one, other).max(-1), 0.0)
        meets = enter <= jnp.maximum(one, other).min(-1)
        return jnp.where(meets, enter, FAR).min(-1, initial=FAR)

    def whole(self, layout: Layout) -> mjcf.RootElement:
        """Return the maze with every wall, named wall_0, wall_1, ...

        Their sizes equal those of `boxes` bit for bit.
        """
        root = self.build()
        walls = self._boxes(layout)
        position, size = np.asarray(walls.position), np.asarray(walls.size)
        for i in np.flatnonzero(position[:, 0] < PARKED):
            place = {"pos": position[i], "size": size[i]}
            # A body each, as the slots: else MuJoCo finds contacts in another order.
            body = root.worldbody.add("body", name=f"wall_{i}")
            body.add("geom", name=f"wall_{i}", **{**self._wall(0), **place})
        return root

    def _wall(self, index: int) -> dict[str, Any]:
        """Return the MJCF attributes of wall `index` of the maze that has the most."""
        all_mazes = drawn(self)
        fullest = all_mazes.num_walls.argmax()
        index = min(index, int(all_mazes.num_walls[fullest]) - 1)
        return {
            "type": "box",
            "pos": all_mazes.position[fullest, index],
            "size": all_mazes.size[fullest, index],
            "rgba": WALL,
        }

    def _boxes(self, layout: Layout) -> Boxes:
        all_mazes = drawn(self)
        return Boxes(
            jnp.asarray(all_mazes.position)[layout.maze], jnp.asarray(all_mazes.size)[layout.maze]
        )


class Drawn(NamedTuple):
    """The mazes of an arena; S and G are the largest numbers of places to start and for targets.

    Attributes:
        position: float32[M, W, 3], middles of walls, metres. Unused walls are at `PARKED`.
        size: float32[M, W, 3], half sizes of walls, metres; 1 for unused walls, since a box of
            size 0 would divide by zero in MJX's collisions.
        spawns: float32[M, S, 3], places to start at, metres.
        targets: float32[M, G, 3], places for targets, metres.
        num_walls: int32[M].
        num_spawns: int32[M].
        num_targets: int32[M].
    """

    position: np.ndarray
    size: np.ndarray
    spawns: np.ndarray
    targets: np.ndarray
    num_walls: np.ndarray
    num_spawns: np.ndarray
    num_targets: np.ndarray


@functools.cache
def drawn(arena: Maze) -> Drawn:
    """Draw the mazes of an arena.

    Mazes without a place to start at or for a target are left out.

    Raises:
        ValueError: the generator finds too few mazes with rooms.
    """
    maze, found = _generator(arena), []
    for _ in range(_TRIES * arena.mazes):
        maze.regenerate()
        spawns, targets = (
            _world(arena, np.argwhere(maze.entity_layer == token))
            for token in (labmaze.defaults.SPAWN_TOKEN, labmaze.defaults.OBJECT_TOKEN)
        )
        if len(spawns) and len(targets):
            found.append((*_walls(arena, maze.entity_layer), spawns, targets))
        if len(found) == arena.mazes:
            break
    else:
        raise ValueError(
            f"only {len(found)} of {_TRIES * arena.mazes} random mazes of arena.cells "
            f"{arena.cells} have rooms of arena.room_size {arena.room_size} with places to start "
            "at and for targets; use smaller rooms, more cells, or fewer of these places"
        )
    position, size, spawns, targets = zip(*found, strict=True)
    counts = (np.array([len(x) for x in lists], np.int32) for lists in (size, spawns, targets))
    parked = (PARKED, 0.0, arena.wall_height / 2)
    padded = _padded(position, parked), _padded(size, 1.0)
    return Drawn(*padded, _padded(spawns, 0.0), _padded(targets, 0.0), *counts)


@functools.cache
def most_in_reach(arena: Maze) -> int:
    """Return the largest number of walls within `arena.reach`, along x and y, of any place."""
    all_mazes, most = drawn(arena), 0
    for i, number in enumerate(all_mazes.num_walls):
        half = all_mazes.size[i, :number, :2] + arena.reach + _SLACK
        middle = all_mazes.position[i, :number, :2]
        low, high = middle - half, middle + half
        # The places within reach of a wall are a rectangle. Where most of them overlap, so they do
        # at the least x of one and the least y of another.
        x, y = ((low[:, k] <= low[:, None, k]) & (low[:, None, k] <= high[:, k]) for k in range(2))
        most = max(most, int((x[:, None].astype(int) * y[None].astype(int)).sum(-1).max()))
    return most


def _generator(arena: Maze) -> labmaze.RandomMaze:
    return labmaze.RandomMaze(
        width=arena.cells[0],
        height=arena.cells[1],
        max_rooms=arena.max_rooms,
        room_min_size=arena.room_size[0],
        room_max_size=arena.room_size[1],
        spawns_per_room=arena.spawns_per_room,
        objects_per_room=arena.targets_per_room,
        random_seed=arena.seed,
    )


def _walls(arena: Maze, grid: labmaze.TextGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return middles and half sizes float64[W, 3] of walls that cover a maze's, metres."""
    walls = covering.make_walls(grid, make_odd_sized_walls=True)
    ends = np.array([(wall.start, wall.end) for wall in walls], float)
    middle = _world(arena, ends.mean(1) - 0.5)
    middle[:, 2] = arena.wall_height / 2
    rows, columns = (0.5 * arena.cell * (ends[:, 1] - ends[:, 0])).T
    return middle, np.stack([columns, rows, middle[:, 2]], axis=1)


def _world(arena: Maze, grid_position: np.ndarray) -> np.ndarray:
    """Return positions float64[N, 3] on the floor of places (row, column) of the grid, metres."""
    row, column = np.reshape(grid_position, (-1, 2)).T
    x = (column - (arena.cells[0] - 1) / 2) * arena.cell
    y = -(row - (arena.cells[1] - 1) / 2) * arena.cell
    return np.stack([x, y, np.zeros(len(x))], axis=1)


def _padded(lists: Sequence[np.ndarray], value: float | tuple[float, ...]) -> np.ndarray:
    """Return float32[M, most, 3] of lists [number, 3], filled up with `value`."""
    full = np.empty((len(lists), max(map(len, lists)), 3), np.float32)
    full[:] = value
    for row, own in zip(full, lists, strict=True):
        row[: len(own)] = own
    return full
