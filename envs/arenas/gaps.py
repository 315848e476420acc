"""Define a corridor of platforms with gaps between them: `dm_control`'s `GapsCorridor`.

It has a start platform of 6 m, a second platform that touches it (a seam, not a gap), then gaps and
platforms up to the corridor's length. Platforms that are narrower than the corridor or shifted to
the side are called stepping stones. P is the largest number of platforms that the settings allow.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dm_control import mjcf
from dm_control.locomotion import arenas
from flax import struct

from envs.interfaces import Arena, Boxes, Progress, Visible, check_range
from envs.layouts import distance_ahead, first_ahead, offset_ahead

START_LENGTH = 6.0
"""Metres; `3 * _CORRIDOR_X_PADDING` in dm_control's corridors."""
HALF_THICKNESS = 0.16
"""Metres, of a platform, whose top is at z = 0; `_WALL_THICKNESS` in dm_control's corridors."""
PARKED = 1e4
"""Position along x of platforms that a layout does not use, metres."""
END_MARGIN = 1.0
"""Least distance before the corridor's end at which an episode ends, metres."""
PLANES = ("ground", "left_wall", "right_wall", "near_wall", "far_wall")
"""Planes, in dm_control's order. The ground is 10 m below the platforms."""
MAX_PLATFORMS = 1000
AESTHETICS = ("outdoor_natural", "default")


@struct.dataclass
class Layout:
    """The positions of the platforms of one corridor; platform 0 is the start platform.

    Attributes:
        starts: float32[P], metres along x, ascending. Unused platforms are at `PARKED`.
        ends: float32[P], metres along x. Unused platforms end where they start.
        shift: float32[P], metres along y of their centres; None if all are in the middle.
    """

    starts: jax.Array
    ends: jax.Array
    shift: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Gaps(Arena):
    """A corridor of platforms and gaps. Values are drawn uniformly from ranges (lowest, highest).

    `ahead` holds the starts and ends of the next two gaps relative to the root along x (float32[4]:
    start, end, start, end), clipped to [-1, 5] m, 5 without a gap. With stepping stones there are 3
    more: the offsets of the platform that started last and of the next two, relative to the root
    along y, clipped to [-5, 5] m, 0 without a platform.
    """

    aesthetic: str = "outdoor_natural"
    """Appearance by dm_control's name: outdoor_natural or default."""
    width: float = 5.0
    """Width of the corridor along y, between its side walls, metres."""
    length: float = 40.0
    """Length of the corridor along x, metres. No platform starts beyond it."""
    platform_length: tuple[float, float] = (1.5, 2.0)
    """Lowest and highest length of a platform along x, metres; drawn for each platform."""
    gap_length: tuple[float, float] = (0.05, 0.2)
    """Lowest and highest length of a gap along x, metres; drawn for each gap."""
    platform_width: float | None = None
    """Width of the platforms along y, metres; None for that of the corridor."""
    platform_shift: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest shift of a platform along y, metres; drawn for each but the first."""
    num_slots: int = 3
    """Number of platforms in the physics at a time: 3 for an ant, more for a walker that reaches
    further than the shortest platform and gap."""

    start = (5.0, 0.0, 0.0)
    reductions = {"gaps_crossed": "last"}

    @property
    def stones(self) -> bool:
        """Whether platforms are stepping stones: narrower than the corridor, or shifted."""
        return self.platform_width is not None or self.platform_shift != (0.0, 0.0)

    def check(self, reach: float) -> None:
        """Raise a ValueError for invalid settings, or more than `num_slots` platforms in reach."""
        if self.aesthetic not in AESTHETICS:
            known = " or ".join(AESTHETICS)
            raise ValueError(f"arena.aesthetic is {self.aesthetic!r}; it has to be {known}")
        for name in ("width", "length", "platform_width"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"arena.{name} is {value} m; it has to be positive and finite")
        check_range("arena.gap_length", self.gap_length, 0.0)
        check_range("arena.platform_length", self.platform_length, 0.0)
        check_range("arena.platform_shift", self.platform_shift)
        if self.platform_length[0] <= 0:
            raise ValueError(
                f"arena.platform_length is {self.platform_length}; the lowest has to be above 0 m"
            )
        shift, wide = max(map(abs, self.platform_shift)), self.platform_width or self.width
        if wide > self.width or shift + wide / 2 > self.width / 2 + 1e-6:
            raise ValueError(
                f"arena.platform_width is {wide} m and arena.platform_shift {self.platform_shift}: "
                f"such platforms do not fit between walls {self.width} m apart; use smaller ones, "
                f"or a larger arena.width"
            )
        if self.num_slots < 2:
            raise ValueError(f"arena.num_slots is {self.num_slots}; it has to be at least 2")
        pitch = self.platform_length[0] + self.gap_length[0]
        if reach > 0.5 * (self.num_slots - 1) * pitch:
            raise ValueError(
                f"walker.reach is {reach} m, but the shortest platform and the shortest gap "
                f"make {pitch:g} m: a walker could touch more than the {self.num_slots} platforms "
                "that the physics sees; set arena.num_slots to "
                f"{1 + math.ceil(2 * reach / pitch)}, use longer platforms or gaps, or a smaller "
                "reach if the walker allows"
            )
        least = self.start[0] + self.end_margin
        if self.length <= least:
            raise ValueError(
                f"arena.length is {self.length} m; walkers start at {self.start[0]} m and episodes "
                f"end {self.end_margin} m before the length, so it has to be more than {least} m"
            )
        if self.length >= PARKED / 2:
            raise ValueError(
                f"arena.length is {self.length} m; it has to be below {PARKED / 2:g} m, which "
                f"float32 resolves to half a millimetre"
            )
        if self.length / pitch > MAX_PLATFORMS:
            raise ValueError(
                f"arena.length is {self.length} m, which takes up to {self.length / pitch:,.0f} "
                f"platforms; it has to be below {MAX_PLATFORMS * pitch:g} m"
            )

    def build(self) -> mjcf.RootElement:
        """Return the model of the corridor's planes and sky, without platforms."""
        corridor = arenas.GapsCorridor(
            platform_length=self.platform_length[0],
            gap_length=self.gap_length[0],
            corridor_width=self.width,
            corridor_length=self.length,
            aesthetic=self.aesthetic,
        )
        corridor.regenerate(np.random.RandomState(0))
        root = corridor.mjcf_model
        root.find("body", "ground").remove()
        for plane, name in zip(root.worldbody.geom, PLANES, strict=True):
            plane.name = name
        return root

    def slots(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return `num_slots` platforms around the start."""
        # They are a floor under the walker until an environment moves them, and do not change the
        # model's extent, by which MuJoCo scales near and far.
        return [
            {"pos": [self.start[0] + x, 0, -HALF_THICKNESS], **self._platform(root, 1.0)}
            for x in np.linspace(-2.0, 2.0, self.num_slots).tolist()
        ]

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return P platforms if they are stepping stones; other platforms are drawn as a row."""
        if not self.stones:
            return []
        middle = {"pos": [self.start[0], 0, -HALF_THICKNESS], **self._platform(root, 1.0)}
        return [middle] * max_platforms(self)

    def colliders(self) -> Sequence[str]:
        """Return the side walls. A walker that meets the ground or the end walls has left the
        platforms, which has ended the episode."""
        return ("left_wall", "right_wall")

    def draw(self, key: jax.Array) -> Layout:
        """Draw a corridor as `GapsCorridor.regenerate` does, and the shifts of its platforms."""
        n = max_platforms(self) - 1
        platform_key, gap_key = jax.random.split(key)
        platforms = jax.random.uniform(platform_key, (n,), jnp.float32, *self.platform_length)
        gaps = jax.random.uniform(gap_key, (n,), jnp.float32, *self.gap_length)
        next_starts = START_LENGTH + jnp.cumsum(platforms + gaps)
        starts = jnp.concatenate([jnp.zeros(1), jnp.full(1, START_LENGTH), next_starts])[:-1]
        # Ends are taken from the next start, so that a gap of 0 m is exactly none.
        ends = jnp.concatenate([jnp.full(1, START_LENGTH), next_starts - gaps])
        used = jnp.concatenate([jnp.ones(1, bool), starts[1:] < self.length])
        shift = None
        if self.stones:
            low, high = self.platform_shift
            drawn = jax.random.uniform(jax.random.fold_in(key, 2), (n,), jnp.float32, low, high)
            shift = jnp.concatenate([jnp.zeros(1), drawn])
        return Layout(jnp.where(used, starts, PARKED), jnp.where(used, ends, PARKED), shift)

    @property
    def end_margin(self) -> float:
        """Distance before the corridor's end at which an episode ends, metres: the last platform
        ends up to a gap before the corridor, and the root must not walk off it."""
        return max(END_MARGIN, self.gap_length[1])

    def boxes(self, layout: Layout, position: jax.Array, reach: float) -> Boxes:
        """Return the `num_slots` platforms around `position`. A slot without a platform is far away
        and has a length: a box of size 0 would divide by zero in MJX's collisions."""
        near = window(layout, position[0], reach, self.num_slots)
        boxes = self._boxes(near)
        length = jnp.where(near.starts >= PARKED, 1.0, boxes.size[:, 0])
        return Boxes(boxes.position, boxes.size.at[:, 0].set(length))

    def visible(self, layout: Layout) -> Visible:
        """Return every platform, as boxes or as a row."""
        if self.stones:
            return Visible(geoms=platform_boxes(self, layout))
        return Visible(row=jnp.stack([layout.starts, layout.ends], axis=-1))

    @property
    def ahead_names(self) -> Sequence[str]:
        """Names of the entries of `ahead`."""
        gaps = [f"gap {i} {edge}" for i in (1, 2) for edge in ("begins", "ends")]
        return [*gaps, *(f"stone {i} offset" for i in range(3) if self.stones)]

    def ahead(self, layout: Layout, position: jax.Array) -> jax.Array:
        """Return float32[4], or float32[7] of stepping stones; see the class."""
        near, far = layout.ends[:-1], layout.starts[1:]
        coming = (far > near) & (far > position[0]) & (far < PARKED)
        edges = jnp.stack([near, far], axis=-1) - position[0]
        gaps = distance_ahead(*first_ahead(edges, coming, 2))
        if layout.shift is None:
            return gaps
        this = jnp.maximum(jnp.sum(layout.starts <= position[0]) - 1, 0)
        later = (jnp.arange(len(layout.starts)) >= this) & (layout.starts < PARKED)
        offsets = offset_ahead(*first_ahead(layout.shift - position[1], later, 3))
        return jnp.concatenate([gaps, offsets])

    def progress(self, layout: Layout, position: jax.Array) -> Progress:
        """Return the number of gaps behind the walker, and whether it is at the end."""
        passed = gaps_crossed(layout, position[0]).astype(jnp.float32)
        arrived = position[0] > self.length - self.end_margin
        return Progress(arrived, passed, {"gaps_crossed": passed})

    def whole(self, layout: Layout) -> mjcf.RootElement:
        """Return the corridor with every platform, named start_floor, floor_0, floor_1, ...

        Their sizes equal those of `boxes` bit for bit.
        """
        root = self.build()
        starts, ends = (np.asarray(x, np.float32) for x in (layout.starts, layout.ends))
        shift = np.zeros_like(starts) if layout.shift is None else np.asarray(layout.shift)
        half = np.float32(0.5)
        for i in np.flatnonzero(starts < PARKED):
            name = "start_floor" if i == 0 else f"floor_{i - 1}"
            # A body each, as the slots: of geoms of one body MuJoCo looks for contacts in another
            # order, which changes last bits where a walker's hand or foot touches two at once.
            root.worldbody.add("body", name=name).add(
                "geom",
                name=name,
                pos=[half * (starts[i] + ends[i]), shift[i], np.float32(-HALF_THICKNESS)],
                **self._platform(root, half * (ends[i] - starts[i])),
            )
        return root

    def _platform(self, root: mjcf.RootElement, half_length: float) -> dict[str, Any]:
        material = root.find("material", "aesthetic_material")
        # Rounded as in `_boxes`.
        half_width = np.float32(0.5 * (self.platform_width or self.width))
        size = [half_length, float(half_width), float(np.float32(HALF_THICKNESS))]
        look = {"rgba": [0.5, 0.5, 0.5, 1]} if material is None else {"material": material}
        return {"type": "box", "size": size, **look}

    def _boxes(self, layout: Layout) -> Boxes:
        centre = 0.5 * (layout.starts + layout.ends)
        half = 0.5 * (layout.ends - layout.starts)
        same = jnp.full_like(centre, 1.0)
        shift = 0.0 * same if layout.shift is None else layout.shift
        width = self.platform_width or self.width
        position = jnp.stack([centre, shift, -HALF_THICKNESS * same], axis=-1)
        size = jnp.stack([half, 0.5 * width * same, HALF_THICKNESS * same], axis=-1)
        return Boxes(position, size)


def max_platforms(arena: Gaps) -> int:
    """Return P, the largest number of platforms, including the start platform."""
    pitch = arena.platform_length[0] + arena.gap_length[0]
    remaining = max(0.0, arena.length - START_LENGTH)
    # The slack keeps a quotient that rounding put just below a whole number from losing a platform.
    return 1 + math.ceil(remaining / pitch + 1e-3)


def gaps_crossed(layout: Layout, x: jax.Array) -> jax.Array:
    """Return int32[], the number of gaps whose far edge lies behind `x` (float32[], metres).

    The seam between the start platform and the next one is no gap.
    """
    far_edges = layout.starts[1:]
    is_gap = far_edges > layout.ends[:-1]
    return jnp.sum(is_gap & (far_edges < x), dtype=jnp.int32)


def window(layout: Layout, x: jax.Array, reach: float, slots: int = 3) -> Layout:
    """Return the platforms that a walker with its root at `x` can touch.

    They are the first platform whose end is not behind `x - reach` and the next ones. No other can
    be touched while twice the `reach` is at most `slots - 1` times the shortest platform plus the
    shortest gap, since so many of each, or one gap less at the seam, lie between the end of the
    first and the start of the one after the last (`Gaps.check` holds that).

    Args:
        layout: the corridor.
        x: float32[], metres.
        reach: metres.
        slots: number of platforms.

    Returns:
        Layout with P = `slots`; platforms past the last are parked.
    """
    first = jnp.sum(layout.ends < x - reach, dtype=jnp.int32)
    indices = first + jnp.arange(slots)
    take = lambda a, fill: jnp.take(a, indices, mode="fill", fill_value=fill)
    return Layout(
        starts=take(layout.starts, PARKED),
        ends=take(layout.ends, PARKED),
        shift=None if layout.shift is None else take(layout.shift, 0.0),
    )


def platform_boxes(arena: Gaps, layout: Layout) -> Boxes:
    """Return every platform as a box, P of them. Unused platforms have half sizes of 0."""
    boxes = arena._boxes(layout)
    used = layout.starts < PARKED
    return Boxes(boxes.position, jnp.where(used[:, None], boxes.size, 0.0))
