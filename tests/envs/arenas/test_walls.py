"""The arena `walls`: numbers by hand, invariants, and dm_control's own WallsCorridor beside it."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control.composer.variation import distributions
from dm_control.locomotion.arenas import corridors
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.arenas.walls import NUM_SLOTS, PARKED, PLANES, Layout, Walls, max_walls
from envs.interfaces import Boxes

WALLS = Walls()
# Walls of 2 m, 3 m and 2.5 m in a corridor of 5 m: left, left, right.
HAND = Layout(
    x=jnp.array([5.0, 8.0, 12.0, PARKED]),
    width=jnp.array([2.0, 3.0, 2.5, 2.0]),
    side=jnp.array([1.0, 1.0, -1.0, 1.0]),
)


def drawn(arena, seed):
    """A layout and its walls: x, width and side of those that are used."""
    layout = arena.draw(jax.random.key(seed))
    used = np.asarray(layout.x) < PARKED
    return layout, *(np.asarray(a)[used] for a in (layout.x, layout.width, layout.side))


def theirs(arena, seed):
    """The boxes float64[W, 6], centres and half sizes, that dm_control regenerates."""
    alternate = arena.side == "alternate"
    corridor = corridors.WallsCorridor(
        wall_gap=distributions.Uniform(*arena.wall_gap),
        wall_width=distributions.Uniform(*arena.wall_width),
        wall_height=arena.wall_height,
        swap_wall_side=alternate or (lambda random_state, **_: bool(random_state.randint(2))),
        corridor_width=arena.width,
        corridor_length=arena.length,
    )
    corridor.regenerate(np.random.RandomState(seed))
    walls = corridor.mjcf_model.find("body", "walls").geom
    return np.array([[*wall.pos, *wall.size] for wall in walls]).reshape(-1, 6), corridor


def ours(arena, seed):
    """The same, of the whole of a layout that the arena draws."""
    model = mujoco.MjModel.from_xml_string(arena.whole(drawn(arena, seed)[0]).to_xml_string())
    walls = [g for g in range(model.ngeom) if model.geom(g).name.startswith("wall_")]
    assert [model.geom(g).name for g in walls] == [f"wall_{i}" for i in range(len(walls))]
    return np.concatenate([model.geom_pos[walls], model.geom_size[walls]], 1), model


def at(x, y=0.0):
    return jnp.array([x, y, 0.5])


# By hand.


def test_ahead_by_hand():
    tell = lambda x, y=0.0: pytest.approx(WALLS.ahead(HAND, at(x, y)).tolist(), abs=1e-6)
    # The first wall's near face is at 4.92 m; it covers y from 0.5 to 2.5 m.
    assert tell(3.0) == [1.92, -2.5, 0.5, 4.92, -2.5, -0.5]
    # From 1 m to the left, the way lies to the right. Farther than 5 m counts as 5 m.
    assert tell(1.0, 1.0) == [3.92, -3.5, -0.5, 5.0, -3.5, -1.5]
    # Beside a wall its near face is behind; it is next until its far face is, at 5.08 m.
    assert tell(5.07) == [-0.15, -2.5, 0.5, 2.85, -2.5, -0.5]
    # The third wall stands at the right and covers y from -2.5 to 0 m.
    assert tell(5.09) == [2.83, -2.5, -0.5, 5.0, 0.0, 2.5]
    assert tell(11.0, -1.0) == [0.92, 1.0, 3.5, 5.0, 0.0, 0.0]
    assert tell(13.0) == [5.0, 0.0, 0.0, 5.0, 0.0, 0.0]


def test_progress_by_hand():
    tell = lambda x: WALLS.progress(HAND, at(x))
    places = (0.0, 5.07, 5.09, 8.07, 8.09, 20.0, 38.9, 39.1)
    assert [float(tell(x).passed) for x in places] == [0, 0, 1, 1, 2, 3, 3, 3]
    assert [bool(tell(x).arrived) for x in places] == [False] * 7 + [True]
    assert tell(8.09).metrics == {"walls_passed": 2.0}
    assert tell(8.09).metrics.keys() == WALLS.reductions.keys()


def test_boxes_by_hand():
    boxes = WALLS.boxes(HAND, at(7.0), 1.4)
    # The first wall ends at 5.08 m, out of reach; the second is 3 m wide at the left.
    np.testing.assert_allclose(boxes.position, [[8, 1, 0.75], [12, -1.25, 0.75]])
    np.testing.assert_allclose(boxes.size, [[0.08, 1.5, 0.75], [0.08, 1.25, 0.75]])
    assert WALLS.boxes(HAND, at(6.4), 1.4).position[:, 0].tolist() == [5.0, 8.0]
    for x in (11.0, 14.0):
        parked = WALLS.boxes(HAND, at(x), 1.4)
        assert parked.position[1, 0] == PARKED
        assert np.all(np.asarray(parked.size) > 0), "a box of no size divides by zero in MJX"


def test_visible_are_all_walls():
    geoms = WALLS.visible(HAND).geoms
    np.testing.assert_allclose(geoms.position[:3, 0], [5, 8, 12])
    np.testing.assert_allclose(geoms.position[:3, 1], [1.5, 1, -1.25])
    np.testing.assert_allclose(geoms.size[:3, 1], [1, 1.5, 1.25])
    assert not geoms.size[3].any()


def test_walkers_start_at_the_start():
    pose = WALLS.spawn(HAND, jax.random.key(0))
    assert not np.any(pose.position) and pose.yaw == 0


# Always.

ARENAS = (
    WALLS,
    Walls(2.5, 25.0, (0.7, 0.9), (0.3, 2.2), 0.4, "alternate"),
    Walls(8.0, 6.5, (2.0, 4.5), (7.0, 7.5), 3.0),
)
everywhere = given(st.sampled_from(ARENAS), st.integers(0, 2**31 - 1))


@functools.cache
def crowd_of(arena):
    @jax.jit
    @jax.vmap
    def draw(key):
        layout = arena.draw(key)
        low, high = jnp.array([-3.0, -4.0, 0.0]), jnp.array([arena.length + 3.0, 4.0, 2.0])
        place = jax.random.uniform(jax.random.fold_in(key, 1), (3,), minval=low, maxval=high)
        return Crowd(
            layout,
            place,
            arena.boxes(layout, place, reach_in(arena)),
            arena.visible(layout).geoms,
            arena.ahead(layout, place),
            arena.progress(layout, place).passed,
        )

    return draw


class Crowd(NamedTuple):
    """100 layouts, a place for a root in each, and what the arena says of both, in NumPy."""

    layout: Layout
    place: np.ndarray
    boxes: Boxes
    every: Boxes
    ahead: np.ndarray
    passed: np.ndarray


def crowd(arena, seed):
    return jax.tree.map(np.asarray, crowd_of(arena)(jax.random.split(jax.random.key(seed), 100)))


def reach_in(arena):
    """The largest reach that fits."""
    return arena.wall_gap[0] - 0.08001


@settings(max_examples=20, deadline=None)
@everywhere
def test_a_corridor_follows_dm_controls_rules(arena, seed):
    layout = crowd(arena, seed).layout
    assert layout.x.shape == (100, max_walls(arena))
    slack = 1e-5 * 2 * arena.length
    for x, width, side in zip(layout.x, layout.width, layout.side, strict=True):
        x = x[x < PARKED]
        low, high = arena.wall_gap
        gaps = np.diff(x, prepend=np.float32(2.0))
        assert np.all((gaps >= low - slack) & (gaps <= high + slack))
        low, high = arena.wall_width
        assert np.all((width >= low - slack) & (width <= high + slack))
        assert set(side) <= {1.0, -1.0}
        if arena.side == "alternate":
            np.testing.assert_array_equal(side, [(-1) ** i for i in range(len(side))])
        # Walls stand until one would stand beyond the length, which is not built.
        assert np.all(x < arena.length)
        last = x[-1] if len(x) else 2.0
        assert last >= arena.length - arena.wall_gap[1] - slack


@settings(max_examples=20, deadline=None)
@everywhere
def test_slots_hold_every_wall_within_reach(arena, seed):
    reach = reach_in(arena)
    arena.check(reach)
    layout, places, boxes, every, *_ = crowd(arena, seed)
    assert boxes.position.shape == boxes.size.shape == (100, NUM_SLOTS, 3)
    assert np.all(boxes.size > 0)
    for n, (x, place) in enumerate(zip(layout.x, places, strict=True)):
        seen = boxes.position[n, :, 0]
        # float32 rounds x - reach: a wall that ends within that of it may be left out.
        touchable = x[np.abs(x - place[0]) < reach + 0.08 - 1e-4]
        assert set(touchable) <= set(seen)
        used = seen[seen < PARKED]
        assert len(set(used)) == len(used), "a wall appears twice"
        for i in np.flatnonzero(seen < PARKED):
            (wall,) = np.flatnonzero(x == seen[i])
            np.testing.assert_array_equal(boxes.position[n, i], every.position[n, wall])
            np.testing.assert_array_equal(boxes.size[n, i], every.size[n, wall])


@settings(max_examples=20, deadline=None)
@everywhere
def test_ahead_stays_in_its_bounds_and_goes_with_progress(arena, seed):
    layout, _, _, _, told, passed = crowd(arena, seed)
    distance, low, high = told.reshape(100, 2, 3).transpose(2, 0, 1)
    assert np.all((distance >= -1) & (distance <= 5) & (distance[:, :1] <= distance))
    assert np.all((low >= -5) & (high <= 5) & (low <= high))
    left = np.sum(layout.x < PARKED, axis=1) - passed
    # Far to the side, both edges of a way may count as 5 m.
    told_of = (low < high) | (np.abs(low) == 5)
    np.testing.assert_array_equal(told_of, np.stack([left >= 1, left >= 2], axis=1))


def test_draws_are_uniform_and_every_key_has_its_own():
    layouts = jax.vmap(WALLS.draw)(jax.random.split(jax.random.key(0), 2000))
    gaps = np.diff(np.asarray(layouts.x)[:, :5], axis=1).ravel()
    widths = np.asarray(layouts.width)[:, :5].ravel()
    for values, (low, high) in ((gaps, WALLS.wall_gap), (widths, WALLS.wall_width)):
        # Mean and deviation of a uniform distribution, within 4 standard errors.
        spread = (high - low) / np.sqrt(12)
        assert abs(values.mean() - (low + high) / 2) < 4 * spread / np.sqrt(len(values))
        assert abs(values.std() - spread) < 0.03 * spread
        assert abs(values.min() - low) < 0.01 and abs(values.max() - high) < 0.01
    sides = np.asarray(layouts.side)
    assert abs(sides.mean()) < 4 / np.sqrt(sides.size)
    # Neither sides nor widths know of the wall before.
    assert abs((sides[:, 1:] * sides[:, :-1]).mean()) < 4 / np.sqrt(sides.size)
    assert len(np.unique(np.asarray(layouts.x)[:, 0])) > 1990


# dm_control's own.


@pytest.mark.parametrize("side", ["alternate", "random"])
def test_corridors_are_as_dm_control_regenerates_them(side):
    arena = dataclasses.replace(WALLS, side=side)
    pairs = [(ours(arena, seed)[0], theirs(arena, seed)[0]) for seed in range(40)]
    for mine, other in pairs:
        for walls in (mine, other):
            x, y, z, thick, half, high = walls.T
            assert 2 + 3 <= x[0] <= 2 + 5 and x[-1] < 40
            np.testing.assert_allclose(np.abs(y) + half, 2.5, atol=1e-6)
            np.testing.assert_allclose([z, high], 0.75)
            np.testing.assert_allclose(thick, 0.08, rtol=1e-6)
            if side == "alternate":
                assert np.all(np.sign(y) == [(-1) ** i for i in range(len(y))])
    # 40 corridors of some 9 walls: their means lie within 4 standard errors of each other.
    for column in (0, 1, 4):
        mine, other = (np.concatenate([pair[i][:, column] for pair in pairs]) for i in (0, 1))
        error = np.sqrt(mine.var() / len(mine) + other.var() / len(other))
        assert abs(mine.mean() - other.mean()) < 4 * error
    numbers = np.array([[len(mine), len(other)] for mine, other in pairs])
    assert set(numbers[:, 0]) <= {7, 8, 9, 10, 11, 12} >= set(numbers[:, 1])
    assert abs(np.subtract(*numbers.mean(0))) < 0.7


def test_the_rest_of_the_world_is_dm_controls():
    _, corridor = theirs(WALLS, 0)
    corridor.mjcf_model.find("body", "walls").geom.clear()
    other = mujoco.MjModel.from_xml_string(corridor.mjcf_model.to_xml_string())
    model = mujoco.MjModel.from_xml_string(WALLS.build().to_xml_string())
    assert [model.geom(g).name for g in range(model.ngeom)] == list(PLANES)
    for name in ("type", "pos", "quat", "size", "rgba", "group", "contype", "conaffinity"):
        np.testing.assert_array_equal(
            getattr(model, f"geom_{name}"), getattr(other, f"geom_{name}")
        )
    np.testing.assert_array_equal(model.tex_data, other.tex_data)
    slots, seen = WALLS.slots(WALLS.build()), WALLS.visible_geoms(WALLS.build())
    assert (len(slots), len(seen)) == (NUM_SLOTS, max_walls(WALLS))
    assert all(geom["rgba"] == [1, 1, 1, 1] for geom in (*slots, *seen))


def test_the_whole_has_every_wall_to_the_last_bit():
    for seed in range(5):
        layout, x, _, _ = drawn(WALLS, seed)
        walls, _ = ours(WALLS, seed)
        seen = jax.jit(WALLS.visible)(layout).geoms
        used = np.concatenate([seen.position, seen.size], 1)[: len(x)]
        # Not close: equal. float64 holds float32 exactly.
        np.testing.assert_array_equal(walls, used.astype(np.float64))


# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0.0}, "arena.width is 0.0 m; it has to be positive"),
        ({"length": float("nan")}, "arena.length is nan m"),
        ({"wall_height": float("inf")}, "arena.wall_height is inf m"),
        ({"wall_gap": (5.0, 3.0)}, r"arena.wall_gap is \(5.0, 3.0\); it has to be \(lowest, hi"),
        ({"wall_gap": (0.0, 3.0)}, r"arena.wall_gap is \(0.0, 3.0\); the lowest .* above 0 m"),
        ({"wall_width": (0.0, 2.0)}, r"arena.wall_width is \(0.0, 2.0\); the lowest"),
        ({"wall_width": (-1.0, 2.0)}, r"arena.wall_width is \(-1.0, 2.0\)"),
        ({"wall_width": (2.0, 5.0)}, r"arena.wall_width is \(2.0, 5.0\), but arena.width is 5.0 m"),
        ({"side": "left"}, "arena.side is 'left'; it has to be random or alternate"),
        ({"wall_gap": (1.4, 5.0)}, r"arena.wall_gap is \(1.4, 5.0\), but walker.reach is 1.4 m"),
        ({"length": 1.0}, "arena.length is 1.0 m; .* more than 1.0 m"),
        ({"length": 3100.0}, "arena.length is 3100.0 m; .* at most 3000 m"),
        ({"length": 9e3, "wall_gap": (50.0, 60.0)}, "arena.length is 9000.0 m; .* at most 5000 m"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(WALLS, **change).check(1.4)


def test_a_corridor_before_its_first_wall_is_empty():
    arena = dataclasses.replace(WALLS, length=3.0)
    arena.check(1.4)
    layout, x, _, _ = drawn(arena, 0)
    assert not len(x)
    assert WALLS.ahead(layout, at(0.0)).tolist() == [5, 0, 0, 5, 0, 0]
    assert not arena.visible(layout).geoms.size.any()
