"""The corridor of gaps: its layouts, what is within reach, what lies ahead; stepping stones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.arenas import gaps
from envs.arenas.gaps import PARKED, Gaps, Layout
from envs.models import SimulationConfig, physics_model, slot_names, visual_model, whole_model
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant

ARENA = Gaps()
STONES = Gaps(gap_length=(0.1, 0.2), platform_width=2.5, platform_shift=(-1.0, 1.0))
REACH = Ant().reach


@st.composite
def arenas(draw):
    """A corridor, and a reach that fits it."""
    number = lambda low, high: st.floats(low, high, width=32)
    shortest = draw(number(0.75, 3.0))
    gap = draw(number(0.0, 1.0))
    width = draw(number(1.0, 8.0))
    stones = draw(st.booleans())
    platform = draw(st.floats(0.2, 1.0)) * width if stones else None
    room = (width - platform) / 2 if platform else 0.0
    arena = Gaps(
        width=width,
        length=draw(number(1.0, 60.0)),
        platform_length=(shortest, shortest + draw(number(0.0, 2.0))),
        gap_length=(gap, gap + draw(number(0.0, 1.0))),
        platform_width=platform,
        platform_shift=(-draw(st.floats(0.0, 1.0)) * room, draw(st.floats(0.0, 1.0)) * room),
        num_slots=draw(st.integers(2, 5)),
    )
    most = 0.5 * (arena.num_slots - 1) * (shortest + gap)
    return arena, draw(st.floats(0.3, 1.0)) * most


def drawn(seed, arena):
    layout = arena.draw(jax.random.key(seed))
    used = np.asarray(layout.starts) < PARKED
    return np.asarray(layout.starts)[used], np.asarray(layout.ends)[used], layout


@settings(max_examples=15, deadline=None)
@given(arenas(), st.integers(0, 2**31 - 1))
def test_a_corridor_is_what_dm_control_builds(arena_and_reach, seed):
    arena, reach = arena_and_reach
    # A shorter one has no room for an episode, and is refused for that alone.
    dataclasses.replace(arena, length=max(arena.length, 5.1 + arena.end_margin)).check(reach)
    starts, ends, layout = drawn(seed, arena)
    assert layout.starts.shape == layout.ends.shape == (gaps.max_platforms(arena),)
    assert (starts[0], ends[0]) == (0.0, 6.0)
    if arena.length <= 6:
        assert len(starts) == 1
        return
    lengths, between = (ends - starts)[1:], (starts[1:] - ends[:-1])[1:]
    slack = 1e-5 * 2 * arena.length
    low, high = arena.platform_length
    assert np.all((lengths >= low - slack) & (lengths <= high + slack))
    low, high = arena.gap_length
    assert np.all((between >= low - slack) & (between <= high + slack))
    # Platforms start until one starts beyond the length, which is not built.
    assert starts[1] == 6.0
    assert np.all(starts[1:] < arena.length)
    longest = arena.platform_length[1] + arena.gap_length[1]
    assert starts[-1] >= arena.length - longest - slack
    # No stone reaches into a wall.
    assert (layout.shift is None) == (not arena.stones)
    if arena.stones:
        low, high = arena.platform_shift
        assert layout.shift[0] == 0
        assert np.all((layout.shift[1:] >= low - slack) & (layout.shift[1:] <= high + slack))
        edges = np.abs(np.asarray(layout.shift)) + (arena.platform_width or arena.width) / 2
        assert np.all(edges <= arena.width / 2 + slack)


@settings(max_examples=15, deadline=None)
@given(arenas(), st.integers(0, 2**31 - 1), st.floats(-3.0, 70.0, width=32))
def test_the_window_holds_every_platform_within_reach(arena_and_reach, seed, x):
    arena, reach = arena_and_reach
    starts, ends, layout = drawn(seed, arena)
    near = gaps.window(layout, jnp.float32(x), reach, arena.num_slots)
    assert len(near.starts) == arena.num_slots
    shift_of = lambda a: np.zeros_like(a.starts) if a.shift is None else np.asarray(a.shift)
    shifts, shown = shift_of(layout), shift_of(near)
    seen = {tuple(map(float, p)) for p in zip(near.starts, near.ends, shown, strict=True)}
    # float32 rounds x - reach: a platform that ends within that of it may be left out.
    margin = 1e-4
    touchable = (ends > x - reach + margin) & (starts < x + reach - margin)
    for i in np.flatnonzero(touchable):
        assert (float(starts[i]), float(ends[i]), float(shifts[i])) in seen
    real = [s for s, _, _ in seen if s < PARKED]
    assert len(real) == np.sum(np.asarray(near.starts) < PARKED), "a platform appears twice"


def test_an_episode_ends_before_the_last_platform_does():
    arena = Gaps(length=30.0, gap_length=(2.0, 3.0))
    ends = [drawn(seed, arena)[1][-1] for seed in range(200)]
    at = jnp.array([min(ends), 0.0, 0.5])
    assert min(ends) < arena.length - 2.4
    assert arena.progress(arena.draw(jax.random.key(0)), at).arrived
    # Where gaps are short, a metre before its end.
    assert Gaps().end_margin == 1.0


def test_a_window_by_hand():
    layout = Layout(
        starts=jnp.array([0.0, 6.0, 8.0, 10.0, PARKED]),
        ends=jnp.array([6.0, 7.5, 9.5, 11.0, PARKED]),
    )
    starts = lambda x: gaps.window(layout, jnp.float32(x), 1.0).starts.tolist()
    assert starts(5.0) == [0.0, 6.0, 8.0]
    assert starts(7.0) == [0.0, 6.0, 8.0]
    assert starts(7.25) == [6.0, 8.0, 10.0]
    assert starts(10.75) == [10.0, PARKED, PARKED]
    assert starts(50.0) == [PARKED, PARKED, PARKED]
    crossed = lambda x: int(gaps.gaps_crossed(layout, jnp.float32(x)))
    # The seam at 6 m is no gap; a gap counts once its far edge is behind.
    assert [crossed(x) for x in (0.0, 6.5, 7.9, 8.1, 9.7, 10.5, 99.0)] == [0, 0, 0, 1, 1, 2, 2]


def test_boxes_by_hand():
    layout = Layout(starts=jnp.array([0.0, 6.0, PARKED]), ends=jnp.array([6.0, 8.0, PARKED]))
    every = gaps.platform_boxes(ARENA, layout)
    np.testing.assert_allclose(every.position[:2], [[3, 0, -0.16], [7, 0, -0.16]], rtol=1e-6)
    np.testing.assert_allclose(every.size, [[3, 2.5, 0.16], [1, 2.5, 0.16], [0, 0, 0]], rtol=1e-6)
    near = ARENA.boxes(layout, jnp.array([5.0, 0.0, 0.0]), REACH)
    np.testing.assert_allclose(near.position[:, 0], [3, 7, PARKED])
    assert np.all(np.asarray(near.size) > 0), "an empty box divides by zero in MJX"


def test_stones_by_hand():
    layout = Layout(
        starts=jnp.array([0.0, 6.0, PARKED]),
        ends=jnp.array([6.0, 8.0, PARKED]),
        shift=jnp.array([0.0, 0.5, 0.7]),
    )
    every = STONES.visible(layout).geoms
    np.testing.assert_allclose(every.position[:2], [[3, 0, -0.16], [7, 0.5, -0.16]], rtol=1e-6)
    np.testing.assert_allclose(every.size, [[3, 1.25, 0.16], [1, 1.25, 0.16], [0, 0, 0]], rtol=1e-6)
    near = STONES.boxes(layout, jnp.array([7.9, 0.0, 0.0]), REACH)
    np.testing.assert_allclose(near.position[0, 1], 0.5, rtol=1e-6)
    np.testing.assert_allclose(near.position[:, 0], [7, PARKED, PARKED])
    assert np.all(np.asarray(near.size) > 0), "an empty box divides by zero in MJX"
    # Platforms that are all alike are drawn as a row instead.
    assert ARENA.visible(layout).geoms is None and STONES.visible(layout).row is None


def test_stones_lie_where_the_platforms_of_a_plain_corridor_do():
    plain = dataclasses.replace(STONES, platform_width=None, platform_shift=(0.0, 0.0))
    with_shift, without = (a.draw(jax.random.key(7)) for a in (STONES, plain))
    np.testing.assert_array_equal(with_shift.starts, without.starts)
    np.testing.assert_array_equal(with_shift.ends, without.ends)
    assert without.shift is None and not plain.stones
    assert np.std(with_shift.shift[1:]) > 0.2
    for one in ({"platform_width": 2.0}, {"platform_width": 3.0, "platform_shift": (0.5, 0.5)}):
        assert dataclasses.replace(plain, **one).stones


def test_a_whole_model_has_the_stones_to_the_last_bit():
    layout = STONES.draw(jax.random.key(1))
    parts = STONES, Ant(), RunThroughCorridor(), SimulationConfig()
    model = whole_model(*parts, layout, ())
    every = gaps.platform_boxes(STONES, layout)
    used = np.flatnonzero(np.asarray(layout.starts) < PARKED)
    names = ["start_floor"] + [f"floor_{i}" for i in range(len(used) - 1)]
    assert names == [n for n in (model.geom(i).name for i in range(model.ngeom)) if "floor" in n]
    for i, name in zip(used, names, strict=True):
        # Not close: equal. float64 holds float32 exactly.
        position, size = (np.asarray(x[i], np.float64) for x in (every.position, every.size))
        np.testing.assert_array_equal(model.geom(name).pos, position)
        np.testing.assert_array_equal(model.geom(name).size, size)
    # And the slots, where they stand for the same platforms.
    x = float(layout.starts[5])
    near = STONES.boxes(layout, jnp.array([x, 0.0, 0.0]), REACH)
    same = near.position[:, None, 0] == every.position[None, :, 0]
    assert same.sum() == 3
    for slot, platform in np.argwhere(same):
        np.testing.assert_array_equal(near.position[slot], every.position[platform])
        np.testing.assert_array_equal(near.size[slot], every.size[platform])


def test_stones_are_drawn_as_geoms_behind_the_physics_models():
    shown = visual_model(STONES, Ant(), RunThroughCorridor(), SimulationConfig(), show_slots=False)
    stepped = physics_model(STONES, Ant(), SimulationConfig())
    names = lambda m: [m.geom(i).name for i in range(m.ngeom)]
    assert names(shown)[: stepped.ngeom] == names(stepped)
    assert len(names(shown)) == stepped.ngeom + gaps.max_platforms(STONES)
    for i in range(stepped.ngeom, shown.ngeom):
        assert shown.geom_contype[i] == shown.geom_conaffinity[i] == 0
        assert shown.material(shown.geom_matid[i]).name == "aesthetic_material"
    # Slots and platforms would be seen twice.
    groups = [shown.geom(name).group for name in slot_names(STONES)]
    assert not np.any(shown.geom_group[stepped.ngeom :] == groups[0])


SHORT = Layout(
    # Gaps from 7.5 to 8 m and from 9.5 to 12.5 m; the seam at 6 m is none.
    starts=jnp.array([0.0, 6.0, 8.0, 12.5, PARKED]),
    ends=jnp.array([6.0, 7.5, 9.5, 14.0, PARKED]),
)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (5.0, [2.5, 3.0, 4.5, 5.0]),
        (6.0, [1.5, 2.0, 3.5, 5.0]),
        (7.75, [-0.25, 0.25, 1.75, 4.75]),
        # A gap is behind where its far edge is reached.
        (8.0, [1.5, 4.5, 5.0, 5.0]),
        # Far from the near edge.
        (12.0, [-1.0, 0.5, 5.0, 5.0]),
        # Behind the last platform begins no gap: the corridor has ended.
        (13.0, [5.0, 5.0, 5.0, 5.0]),
        (-3.0, [5.0, 5.0, 5.0, 5.0]),
    ],
)
def test_gaps_ahead_by_hand(x, expected):
    found = ARENA.ahead(SHORT, jnp.array([x, 0.7, 0.5]))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "offsets"),
    [
        (-1.0, 0.0, [0.0, 0.5, -1.0]),
        (5.0, 0.2, [-0.2, 0.3, -1.2]),
        # On the seam the second platform has begun.
        (6.0, 0.2, [0.3, -1.2, 0.05]),
        # Over a gap the one that started last counts.
        (7.75, 0.2, [0.3, -1.2, 0.05]),
        (8.0, -0.5, [-0.5, 0.75, 0.0]),
        (13.0, 0.0, [0.25, 0.0, 0.0]),
        (99.0, 0.0, [0.25, 0.0, 0.0]),
        (8.0, 20.0, [-5.0, -5.0, 0.0]),
    ],
)
def test_stones_ahead_by_hand(x, y, offsets):
    layout = dataclasses.replace(SHORT, shift=jnp.array([0.0, 0.5, -1.0, 0.25, 0.9]))
    position = jnp.array([x, y, 0.5])
    found = STONES.ahead(layout, position)
    np.testing.assert_allclose(found[4:], offsets, atol=1e-6)
    np.testing.assert_array_equal(found[:4], ARENA.ahead(SHORT, position))


@settings(max_examples=15, deadline=None)
@given(arenas(), st.integers(0, 2**31 - 1), st.floats(-3, 70, width=32), st.floats(-9, 9, width=32))
def test_what_lies_ahead_stays_within_its_bounds(arena_and_reach, seed, x, y):
    arena, _ = arena_and_reach
    found = np.asarray(arena.ahead(arena.draw(jax.random.key(seed)), jnp.array([x, y, 0.5])))
    assert found.shape == ((7,) if arena.stones else (4,))
    assert np.all((found[:4] >= -1) & (found[:4] <= 5))
    assert np.all(np.abs(found[4:]) <= 5)
    first, second = found[:2], found[2:4]
    assert first[0] <= first[1] <= second[0] <= second[1]


def test_without_gaps_no_gap_is_crossed():
    arena = dataclasses.replace(ARENA, gap_length=(0.0, 0.0))
    for seed in range(5):
        starts, ends, layout = drawn(seed, arena)
        np.testing.assert_array_equal(starts[1:], ends[:-1])
        assert gaps.gaps_crossed(layout, 1000.0) == 0
        np.testing.assert_array_equal(arena.ahead(layout, jnp.array([9.0, 0.0, 0.5])), 5.0)


def test_every_key_has_its_own_corridor_and_one_compilation_serves_all():
    draw = jax.jit(jax.vmap(ARENA.draw))
    place = jnp.tile(jnp.array([10.0, 0.0, 0.0]), (4, 1))
    boxes = jax.jit(jax.vmap(lambda layout, position: ARENA.boxes(layout, position, REACH)))
    seen = []
    for seed in range(3):
        layouts = draw(jax.random.split(jax.random.key(seed), 4))
        seen.append(np.asarray(layouts.starts))
        position = boxes(layouts, place).position
        assert len(np.unique(np.asarray(position)[:, 0, 0])) == 4
    assert draw._cache_size() == boxes._cache_size() == 1
    assert len(np.unique(np.concatenate(seen)[:, 2])) == 12


def test_lengths_and_shifts_are_uniform():
    draws = jax.vmap(STONES.draw)(jax.random.split(jax.random.key(0), 2000))
    lengths = np.asarray(draws.ends - draws.starts)[:, 1]
    between = np.asarray(draws.starts[:, 2] - draws.ends[:, 1])
    # Mean and deviation of a uniform distribution, within 4 standard errors.
    for values, (low, high) in (
        (lengths, STONES.platform_length),
        (between, STONES.gap_length),
        (np.asarray(draws.shift)[:, 1], STONES.platform_shift),
    ):
        spread = (high - low) / np.sqrt(12)
        assert abs(values.mean() - (low + high) / 2) < 4 * spread / np.sqrt(len(values))
        assert abs(values.std() - spread) < 0.05 * spread


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aesthetic": "moon"}, "arena.aesthetic is 'moon'; it has to be outdoor_natural or"),
        ({"width": 0.0}, "arena.width is 0.0 m"),
        ({"length": float("nan")}, "arena.length is nan m"),
        ({"length": 5.5}, r"arena.length is 5.5 m.*more than 6.0 m"),
        ({"length": 2000.0}, r"arena.length is 2000.0 m.*up to 1,290 platforms.*below 1550 m"),
        ({"platform_length": (0.0, 2.0)}, r"arena.platform_length is \(0.0, 2.0\).*above 0"),
        ({"platform_length": (2.0, 1.5)}, r"platform_length is \(2.0, 1.5\).*lowest, highest"),
        ({"gap_length": (-0.1, 0.2)}, "arena.gap_length is .*the lowest at least 0"),
        ({"gap_length": (0.1, float("nan"))}, "arena.gap_length is"),
        ({"platform_width": 0.0}, "arena.platform_width is 0.0 m"),
        ({"platform_width": 5.5}, "platform_width is 5.5 m .*do not fit between walls 5.0 m apart"),
        ({"platform_shift": (0.0, 0.5)}, "platform_width is 5.0 m .*do not fit"),
        ({"platform_width": 2.5, "platform_shift": (-1.3, 1.0)}, r"\(-1.3, 1.0\).*do not fit"),
        ({"platform_width": 2.5, "platform_shift": (1.0, -1.0)}, r"platform_shift is \(1.0, -1.0"),
        ({"platform_width": 2.5, "platform_shift": (float("nan"), 1.0)}, "platform_shift is"),
        ({"platform_width": 2.5, "platform_shift": (-float("inf"), 1.0)}, "platform_shift is"),
    ],
)
def test_an_impossible_corridor_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ARENA, **change).check(REACH)


def test_a_walker_that_reaches_too_far_is_refused():
    ARENA.check(1.55)
    with pytest.raises(ValueError, match="walker.reach is 1.6 m.*make 1.55 m.*than the 3 platf"):
        ARENA.check(1.6)
