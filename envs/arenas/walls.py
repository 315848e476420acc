"""Define a corridor with walls across it: `dm_control`'s `WallsCorridor`.

Every wall reaches from one side of the corridor into it and leaves the other side free. W is the
largest number of walls that the settings allow.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from dm_control import mjcf
from dm_control.locomotion.arenas import corridors
from flax import struct

from envs.interfaces import Arena, Boxes, Progress, Visible, check_range
from envs.layouts import distance_ahead, first_ahead, offset_ahead

HALF_THICKNESS = 0.08
"""Metres along x; half of `_WALL_THICKNESS` in dm_control's corridors."""
PADDING = 2.0
"""Metres along x before the first gap; from dm_control's `include_initial_padding`."""
NUM_SLOTS = 2
"""Number of walls in the physics at a time."""
PARKED = 1e4
"""Position along x of walls that a layout does not use, metres."""
END_MARGIN = 1.0
"""Distance before the corridor's end at which an episode ends, metres."""
PLANES = ("ground", "left_wall", "right_wall", "near_wall", "far_wall")
"""Planes, in dm_control's order. The near wall is 2 m behind the start."""
MAX_WALLS = 1000
MAX_LENGTH = 5000.0
"""Metres; float32 resolves half a millimetre there."""
Side = Literal["random", "alternate"]


@struct.dataclass
class Layout:
    """The positions of the walls of one corridor.

    Attributes:
        x: float32[W], positions of their centres, ascending, metres. Unused walls are at `PARKED`.
        width: float32[W], metres along y that each covers.
        side: float32[W], 1 if a wall begins at the side of positive y, else -1.
    """

    x: jax.Array
    width: jax.Array
    side: jax.Array


@dataclasses.dataclass(frozen=True)
class Walls(Arena):
    """A corridor with walls. Values are drawn uniformly from ranges (lowest, highest).

    `ahead`, float32[6], has three numbers for each of the next two walls: the distance along x from
    the root to its near face, clipped to [-1, 5] m, 5 without a wall; then the lower and the upper
    edge of the free way beside it, relative to the root along y, clipped to [-5, 5] m, 0 without a
    wall. A wall counts until the root is past its far face.
    """

    width: float = 5.0
    """Width of the corridor along y, between its side walls, metres."""
    length: float = 40.0
    """Length of the corridor along x, metres. No wall stands beyond it."""
    wall_gap: tuple[float, float] = (3.0, 5.0)
    """Lowest and highest distance along x between the middles of two walls, metres. The first wall
    is a gap and 2 m from the start."""
    wall_width: tuple[float, float] = (2.0, 3.0)
    """Lowest and highest width of a wall along y, metres."""
    wall_height: float = 1.5
    """Height of the walls, metres."""
    side: Side = "random"
    """Side at which a wall begins: random for each wall, or alternate, the first at positive y
    (dm_control's swap_wall_side=True)."""

    reductions = {"walls_passed": "last"}

    def check(self, reach: float) -> None:
        """Raise a ValueError for invalid settings, or more than `NUM_SLOTS` walls in reach."""
        for name in ("width", "length", "wall_height"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"arena.{name} is {value} m; it has to be positive and finite")
        for name in ("wall_gap", "wall_width"):
            values = getattr(self, name)
            check_range(f"arena.{name}", values, 0.0)
            if values[0] <= 0:
                raise ValueError(f"arena.{name} is {values}; the lowest has to be above 0 m")
        if self.side not in get_args(Side):
            known = " or ".join(get_args(Side))
            raise ValueError(f"arena.side is {self.side!r}; it has to be {known}")
        if self.wall_width[1] >= self.width:
            raise ValueError(
                f"arena.wall_width is {self.wall_width}, but arena.width is {self.width} m: a wall "
                "of the highest width would leave no way; use narrower walls or a wider corridor"
            )
        gap = self.wall_gap[0]
        if reach + HALF_THICKNESS >= gap:
            raise ValueError(
                f"arena.wall_gap is {self.wall_gap}, but walker.reach is {reach} m: a walker could "
                f"touch more than the {NUM_SLOTS} walls that the physics sees; the lowest gap has "
                f"to be above {reach + HALF_THICKNESS:g} m, or the reach smaller if the walker "
                "allows"
            )
        least = self.start[0] + END_MARGIN
        if self.length <= least:
            raise ValueError(
                f"arena.length is {self.length} m; walkers start at {self.start[0]} m and episodes "
                f"end {END_MARGIN} m before the length, so it has to be more than {least} m"
            )
        most = min(MAX_LENGTH, MAX_WALLS * gap)
        if self.length > most:
            raise ValueError(
                f"arena.length is {self.length} m; with walls as near as {gap} m to each other it "
                f"has to be at most {most:g} m, which {MAX_WALLS} walls and float32 allow"
            )

    def build(self) -> mjcf.RootElement:
        """Return the model of the corridor's planes and sky, without walls."""
        corridor = corridors.WallsCorridor(
            wall_gap=self.wall_gap[0],
            wall_width=self.wall_width[0],
            wall_height=self.wall_height,
            corridor_width=self.width,
            corridor_length=self.length,
        )
        corridor.regenerate(np.random.RandomState(0))
        root = corridor.mjcf_model
        root.find("body", "walls").geom.clear()
        for plane, name in zip(root.worldbody.geom, PLANES, strict=True):
            plane.name = name
        return root

    def slots(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the two walls that a corridor may begin with."""
        return [self._wall(i) for i in range(NUM_SLOTS)]

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return W walls."""
        # All along the corridor: MuJoCo scales near and far by the model's extent.
        return [self._wall(i) for i in range(max_walls(self))]

    def colliders(self) -> Sequence[str]:
        """Return all planes but the far wall, since the episode ends before it."""
        return PLANES[:-1]

    def draw(self, key: jax.Array) -> Layout:
        """Draw a corridor as `WallsCorridor.regenerate` does."""
        n = max_walls(self)
        gap_key, width_key, side_key = jax.random.split(key, 3)
        gaps = jax.random.uniform(gap_key, (n,), jnp.float32, *self.wall_gap)
        width = jax.random.uniform(width_key, (n,), jnp.float32, *self.wall_width)
        x = PADDING + jnp.cumsum(gaps)
        if self.side == "alternate":
            left = jnp.arange(n) % 2 == 0
        else:
            left = jax.random.bernoulli(side_key, shape=(n,))
        side = jnp.where(left, 1.0, -1.0).astype(jnp.float32)
        return Layout(jnp.where(x < self.length, x, PARKED), width, side)

    def boxes(self, layout: Layout, position: jax.Array, reach: float) -> Boxes:
        """Return the first wall whose far face is not out of reach behind `position`, and the next.

        No other can be touched, since `check` makes sure that `reach` is less than the smallest gap
        minus half a wall's thickness. A slot without a wall is far away and has a size: a box of
        size 0 would divide by zero in MJX's collisions.
        """
        first = jnp.sum(layout.x + HALF_THICKNESS < position[0] - reach, dtype=jnp.int32)
        indices = first + jnp.arange(NUM_SLOTS)
        take = lambda a, fill: jnp.take(a, indices, mode="fill", fill_value=fill)
        near = Layout(
            x=take(layout.x, PARKED),
            width=take(layout.width, self.wall_width[0]),
            side=take(layout.side, 1.0),
        )
        return self._boxes(near)

    def visible(self, layout: Layout) -> Visible:
        """Return every wall. Unused ones have half sizes of 0."""
        boxes = self._boxes(layout)
        used = layout.x[:, None] < PARKED
        return Visible(geoms=Boxes(boxes.position, jnp.where(used, boxes.size, 0.0)))

    @property
    def ahead_names(self) -> Sequence[str]:
        """Names of the entries of `ahead`."""
        parts = ("distance", "way's right", "way's left")
        return [f"wall {i} {part}" for i in (1, 2) for part in parts]

    def ahead(self, layout: Layout, position: jax.Array) -> jax.Array:
        """Return float32[6]; see the class."""
        half = 0.5 * self.width
        low = jnp.where(layout.side > 0, -half, layout.width - half)
        high = jnp.where(layout.side > 0, half - layout.width, half)
        coming = (layout.x + HALF_THICKNESS >= position[0]) & (layout.x < PARKED)
        tell = lambda values: first_ahead(values, coming, 2)
        distance = distance_ahead(*tell(layout.x - HALF_THICKNESS - position[0]))
        way = offset_ahead(*tell(jnp.stack([low, high], axis=-1) - position[1]))
        return jnp.concatenate([distance[:, None], way.reshape(2, 2)], axis=1).reshape(-1)

    def progress(self, layout: Layout, position: jax.Array) -> Progress:
        """Return the number of walls behind the walker, and whether it is at the end."""
        passed = jnp.sum(layout.x + HALF_THICKNESS < position[0], dtype=jnp.float32)
        arrived = position[0] > self.length - END_MARGIN
        return Progress(arrived, passed, {"walls_passed": passed})

    def whole(self, layout: Layout) -> mjcf.RootElement:
        """Return the corridor with every wall, named wall_0, wall_1, ...

        Their sizes equal those of `boxes` bit for bit.
        """
        root = self.build()
        boxes = self._boxes(layout)
        position, size = np.asarray(boxes.position), np.asarray(boxes.size)
        for i in np.flatnonzero(np.asarray(layout.x) < PARKED):
            place = {"pos": position[i], "size": size[i]}
            # A body each, as the slots: else MuJoCo finds contacts in another order.
            body = root.worldbody.add("body", name=f"wall_{i}")
            body.add("geom", name=f"wall_{i}", **{**self._wall(0), **place})
        return root

    def _wall(self, index: int) -> dict[str, Any]:
        """Return the MJCF attributes of wall `index` of a corridor whose gaps are the smallest."""
        width, height = self.wall_width[0], self.wall_height
        y = (-1) ** index * (self.width - width) / 2
        return {
            "type": "box",
            "pos": [PADDING + (index + 1) * self.wall_gap[0], y, height / 2],
            "size": [HALF_THICKNESS, width / 2, height / 2],
            "rgba": [1, 1, 1, 1],
        }

    def _boxes(self, layout: Layout) -> Boxes:
        # Halves are exact, so that no compiler's order of operations changes a bit.
        y = layout.side * (0.5 * (self.width - layout.width))
        half_height = jnp.full_like(y, 0.5 * self.wall_height)
        thickness = jnp.full_like(y, HALF_THICKNESS)
        position = jnp.stack([layout.x, y, half_height], axis=-1)
        return Boxes(position, jnp.stack([thickness, 0.5 * layout.width, half_height], axis=-1))


def max_walls(arena: Walls) -> int:
    """Return W, the largest number of walls, at least 1."""
    # The slack keeps a quotient that rounding put just below a whole number from losing a wall.
    return max(1, math.ceil((arena.length - PADDING) / arena.wall_gap[0] + 1e-3) - 1)
