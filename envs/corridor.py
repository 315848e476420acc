"""The corridor of platforms and gaps, as an array: a new one for each episode, no recompilation.

The shape of the world is `dm_control.locomotion.arenas.corridors.GapsCorridor`'s: a start platform
of 6 m, a second one that touches it (a seam, not a gap), then gaps and platforms until one starts
beyond the corridor's length. Only where platforms start and end is random, so that is all a layout
holds. P is the number of platforms that the configuration's ranges can need at most.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import struct

START_LENGTH = 6.0
"""Metres; `3 * _CORRIDOR_X_PADDING` in dm_control's corridors."""
HALF_THICKNESS = 0.16
"""Metres, of a platform, whose top is at z = 0; `_WALL_THICKNESS` in dm_control's corridors."""
NUM_SLABS = 3
"""Platforms that the physics sees at a time. Two are not enough: an ant touches three at once."""
PARKED = 1e4
"""Metres along x: where a platform is that a layout does not use."""


@dataclasses.dataclass(frozen=True)
class CorridorConfig:
    """The corridor. Lengths are in metres along x; ranges are uniform, lowest and highest."""

    aesthetic: str = "outdoor_natural"
    """dm_control's look: outdoor_natural or default."""
    width: float = 5.0
    """Metres along y, between the two side walls."""
    length: float = 40.0
    """No platform starts beyond it."""
    platform_length: tuple[float, float] = (1.5, 2.0)
    gap_length: tuple[float, float] = (0.05, 0.2)
    reach: float = 1.4
    """How far from its torso, along x, a walker can touch anything within a control step. An ant's
    limbs reach 1.17 m."""


def validate(config: CorridorConfig) -> None:
    """Raises ValueError when `config` describes no corridor, or one that three slabs cannot stand
    for."""
    for name in ("width", "length", "reach"):
        value = getattr(config, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(
                f"corridor {name} is {value}; it has to be a positive number of metres."
            )
    for name, least in (("platform_length", "above 0"), ("gap_length", "at least 0")):
        low, high = getattr(config, name)
        enough = low > 0 if name == "platform_length" else low >= 0
        if not (enough and low <= high and math.isfinite(high)):
            raise ValueError(
                f"corridor {name} is ({low}, {high}); it has to be (lowest, highest) in metres, "
                f"the lowest {least} and not above the highest."
            )
    pitch = config.platform_length[0] + config.gap_length[0]
    if config.reach > pitch:
        raise ValueError(
            f"corridor reach is {config.reach} m, but the shortest platform and the shortest gap "
            f"make {pitch:g} m: a walker could touch more than the {NUM_SLABS} platforms that the "
            "physics sees. Use longer platforms or gaps, or a smaller reach if the walker allows."
        )


@struct.dataclass
class Layout:
    """Where the platforms of one corridor are; platform 0 is the start platform.

    Attributes:
        starts: float32[P], metres along x, ascending. Unused platforms are at `PARKED`.
        ends: float32[P], metres along x. Unused platforms end where they start.
    """

    starts: jax.Array
    ends: jax.Array


def max_platforms(config: CorridorConfig) -> int:
    """The most platforms that `config` can need, P, the start platform included."""
    pitch = config.platform_length[0] + config.gap_length[0]
    remaining = max(0.0, config.length - START_LENGTH)
    # The slack keeps a quotient that rounding put just below a whole number from losing a platform.
    return 1 + math.ceil(remaining / pitch + 1e-3)


def draw_layout(key: jax.Array, config: CorridorConfig) -> Layout:
    """Draws a corridor as `GapsCorridor.regenerate` does.

    Args:
        key: a PRNG key.
        config: static; a valid configuration.
    """
    n = max_platforms(config) - 1
    platform_key, gap_key = jax.random.split(key)
    low, high = config.platform_length
    platforms = jax.random.uniform(platform_key, (n,), jnp.float32, low, high)
    low, high = config.gap_length
    gaps = jax.random.uniform(gap_key, (n,), jnp.float32, low, high)
    next_starts = START_LENGTH + jnp.cumsum(platforms + gaps)
    starts = jnp.concatenate([jnp.zeros(1), jnp.full(1, START_LENGTH), next_starts])[:-1]
    # Ends are taken from the next start, so that a gap of 0 m is exactly none.
    ends = jnp.concatenate([jnp.full(1, START_LENGTH), next_starts - gaps])
    used = jnp.concatenate([jnp.ones(1, bool), starts[1:] < config.length])
    return Layout(starts=jnp.where(used, starts, PARKED), ends=jnp.where(used, ends, PARKED))


def num_platforms(layout: Layout) -> jax.Array:
    """int32[], how many platforms the corridor has."""
    return jnp.sum(layout.starts < PARKED, dtype=jnp.int32)


def gaps_crossed(layout: Layout, x: jax.Array) -> jax.Array:
    """int32[], the number of gaps whose far edge lies behind `x` (float32[], metres).

    The seam between the start platform and the next is no gap.
    """
    far_edges = layout.starts[1:]
    is_gap = far_edges > layout.ends[:-1]
    return jnp.sum(is_gap & (far_edges < x), dtype=jnp.int32)


def window(layout: Layout, x: jax.Array, reach: float) -> Layout:
    """The three platforms that a walker with its torso at `x` can touch.

    They are the first platform whose end is not behind `x - reach` and the next two. No other can
    be touched while `reach` is at most the shortest platform plus the shortest gap: the three then
    span at least two of each, or one gap less at the seam (`validate` holds that).

    Args:
        layout: the corridor.
        x: float32[], metres.
        reach: metres.

    Returns:
        Layout with P = 3; platforms past the last are parked.
    """
    first = jnp.sum(layout.ends < x - reach, dtype=jnp.int32)
    indices = first + jnp.arange(NUM_SLABS)
    take = lambda a: jnp.take(a, indices, mode="fill", fill_value=PARKED)
    return Layout(starts=take(layout.starts), ends=take(layout.ends))


def platform_boxes(layout: Layout, config: CorridorConfig) -> tuple[jax.Array, jax.Array]:
    """Every platform as a box, aligned with the world's axes.

    Returns:
        Centres, float32[P, 3], and half sizes, float32[P, 3], in metres. Unused platforms have half
        sizes of 0, so that nothing meets them.
    """
    used = layout.starts < PARKED
    position, half_size = _boxes(layout, config)
    return position, jnp.where(used[:, None], half_size, 0.0)


def slab_boxes(layout: Layout, x: jax.Array, config: CorridorConfig) -> tuple[jax.Array, jax.Array]:
    """The boxes of the three platforms around `x`, for the physics.

    Args:
        layout: the corridor.
        x: float32[], the walker's torso along x, metres.
        config: the corridor's width and reach.

    Returns:
        Centres, float32[3, 3], and half sizes, float32[3, 3], in metres. A slab without a platform
        is a proper box, far away: a box of no size divides by zero in MJX's collisions.
    """
    near = window(layout, x, config.reach)
    position, half_size = _boxes(near, config)
    parked = near.starts >= PARKED
    return position, half_size.at[:, 0].set(jnp.where(parked, 1.0, half_size[:, 0]))


def _boxes(layout: Layout, config: CorridorConfig) -> tuple[jax.Array, jax.Array]:
    centre = 0.5 * (layout.starts + layout.ends)
    half = 0.5 * (layout.ends - layout.starts)
    same = jnp.full_like(centre, 1.0)
    position = jnp.stack([centre, 0.0 * same, -HALF_THICKNESS * same], axis=-1)
    half_size = jnp.stack([half, 0.5 * config.width * same, HALF_THICKNESS * same], axis=-1)
    return position, half_size
