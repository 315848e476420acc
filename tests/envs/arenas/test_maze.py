"""The arena `maze`: numbers by hand, invariants, and dm_control's own mazes beside it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control import mjcf
from dm_control.locomotion import arenas, walkers
from dm_control.locomotion.tasks import random_goal_maze
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from envs.arenas.maze import FAR, PARKED, Layout, Maze, _generator, drawn, most_in_reach
from envs.presets import PRESETS
from envs.walkers.ant import Ant

MAZE = Maze()
ARENAS = (
    MAZE,
    Maze(cells=(7, 9), cell=0.5, room_size=(2, 3), targets_per_room=2, mazes=8, reach=0.9),
    Maze(cells=(15, 11), cell=3.0, max_rooms=6, mazes=12, seed=3, reach=0.5),
)


def at(maze):
    return Layout(jnp.int32(maze))


def walls(arena, maze):
    """Edges float32[number, 2, 2] of a maze's walls along x and y: lowest, highest."""
    number = drawn(arena).num_walls[maze]
    middle, half = (x[maze, :number, :2] for x in (drawn(arena).position, drawn(arena).size))
    return np.stack([middle - half, middle + half], 1)


def anywhere(arena, rng, number):
    half = 0.5 * np.array(arena.cells) * arena.cell + 1
    return np.insert(rng.uniform(-half, half, (number, 2)), 2, 0.5, axis=1).astype(np.float32)


# dm_control's own.


@pytest.mark.parametrize("arena", ARENAS)
def test_walls_and_places_are_those_of_dm_controls_arena(arena):
    maze = _generator(arena)
    theirs = arenas.mazes.MazeWithTargets(
        maze=maze, xy_scale=arena.cell, z_height=arena.wall_height
    )
    ours, seen = drawn(arena), 0
    while seen < min(arena.mazes, 8):
        theirs.regenerate()
        if not (theirs.spawn_positions and theirs.target_positions):
            continue
        geoms = theirs.mjcf_model.find("body", "maze_body").geom
        number = ours.num_walls[seen]
        assert len(geoms) == number
        np.testing.assert_allclose(ours.position[seen, :number], [g.pos for g in geoms], atol=1e-5)
        np.testing.assert_allclose(ours.size[seen, :number], [g.size for g in geoms], atol=1e-5)
        assert np.all(ours.position[seen, number:, 0] == PARKED) and np.all(ours.size[seen] > 0)
        for places, count, positions in (
            (ours.spawns, ours.num_spawns, theirs.spawn_positions),
            (ours.targets, ours.num_targets, theirs.target_positions),
        ):
            assert count[seen] == len(positions)
            np.testing.assert_allclose(places[seen, : len(positions)], positions, atol=1e-5)
        seen += 1


def test_the_rest_of_the_world_is_dm_controls():
    theirs = arenas.mazes.MazeWithTargets(maze=_generator(MAZE), xy_scale=2.0, z_height=2.0)
    theirs = mujoco.MjModel.from_xml_string(theirs.mjcf_model.to_xml_string())
    ours = mujoco.MjModel.from_xml_string(MAZE.build().to_xml_string())
    assert [ours.geom(g).name for g in range(ours.ngeom)] == ["ground"]
    for name in ("type", "pos", "size", "friction", "contype", "conaffinity", "condim"):
        name = f"geom_{name}"
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(ours.tex_data, theirs.tex_data)
    # Theirs hides it below tiles of this colour.
    np.testing.assert_allclose(ours.geom_rgba[0], [0.2, 0.2, 0.2, 1])


@pytest.mark.slow
def test_starts_have_dm_controls_distribution():
    """Compare starts in one maze, in which dm_control's walker is put 1,000 times."""
    arena, walker = Maze(mazes=1), walkers.JumpingBallWithHead()
    theirs = arenas.mazes.MazeWithTargets(maze=_generator(arena), xy_scale=2.0)
    task = random_goal_maze.NullGoalMaze(walker, theirs)
    random_state = np.random.RandomState(0)
    task.initialize_episode_mjcf(random_state)
    physics = mjcf.Physics.from_mjcf_model(theirs.mjcf_model)
    places, turns = [], []
    for _ in range(1000):
        task._respawn(physics, random_state)
        places.append(physics.bind(walker.root_body).xpos[:2].copy())
        matrix = physics.bind(walker.root_body).xmat
        turns.append(np.arctan2(matrix[4], matrix[1]))
    keys = jax.random.split(jax.random.key(0), 1000)
    ours = jax.vmap(lambda key: arena.spawn(at(0), key))(keys)
    assert stats.ks_2samp((ours.yaw + np.pi) % (2 * np.pi), np.mod(turns, 2 * np.pi)).pvalue > 0.01
    spawns = drawn(arena).spawns[0, :, :2]
    index = lambda where: np.linalg.norm(np.array(where)[:, None] - spawns, axis=-1).argmin(1)
    counts = [
        np.bincount(index(where), minlength=len(spawns)) for where in (places, ours.position[:, :2])
    ]
    np.testing.assert_allclose(spawns[index(places)], places, atol=1e-4)
    assert stats.chi2_contingency(np.array(counts)).pvalue > 0.01


# By hand, and always.


def test_every_maze_and_every_place_is_drawn():
    arena = ARENAS[1]
    keys = jax.random.split(jax.random.key(0), 400)
    layouts = jax.vmap(arena.draw)(keys)
    assert set(np.asarray(layouts.maze)) == set(range(arena.mazes))
    poses = jax.vmap(arena.spawn)(layouts, keys)
    layers, positions = np.asarray(layouts.maze), np.asarray(poses.position)
    found = {(m, *np.round(p, 3)) for m, p in zip(layers, positions, strict=True)}
    number = drawn(arena).num_spawns
    spawns = drawn(arena).spawns
    there = {(m, *np.round(p, 3)) for m in range(arena.mazes) for p in spawns[m, : number[m]]}
    assert found == there
    for maze in range(arena.mazes):
        places = arena.places(at(maze))
        assert places.there.sum() == drawn(arena).num_targets[maze] > 0
    grids = {drawn(arena).position[m].tobytes() for m in range(arena.mazes)}
    assert len(grids) > arena.mazes / 2


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ARENAS), st.integers(0, 2**31 - 1), st.floats(0.05, 1))
def test_slots_hold_every_wall_within_reach(arena, seed, part):
    rng, reach = np.random.default_rng(seed), part * arena.reach
    maze, places = int(rng.integers(arena.mazes)), anywhere(arena, rng, 200)
    boxes = jax.tree.map(np.asarray, slots(arena)(at(maze), places, reach))
    low, high = walls(arena, maze).transpose(1, 0, 2)
    every = drawn(arena)
    for n, place in enumerate(places):
        near = np.all((low <= place[:2] + reach) & (high >= place[:2] - reach), axis=1)
        (indices,) = np.nonzero(near)
        held = []
        for position, size in zip(boxes.position[n], boxes.size[n], strict=True):
            same = (every.position[maze] == position) & (every.size[maze] == size)
            held += list(np.flatnonzero(same.all(1) & (position[0] < PARKED)))
        assert set(indices) <= set(held)
        assert held == sorted(set(held)), "in the order of the maze's walls, each once"


@functools.cache
def slots(arena):
    return jax.jit(jax.vmap(arena.boxes, (None, 0, None)))


def test_there_are_as_many_slots_as_walls_can_be_within_reach():
    arena = ARENAS[1]
    most = 0
    x, y = (np.arange(-n * 0.25 - 1, n * 0.25 + 1, 0.04) for n in arena.cells)
    for maze in range(arena.mazes):
        low, high = walls(arena, maze).transpose(1, 0, 2)[..., None]
        in_x = (low[:, 0] <= x + arena.reach) & (high[:, 0] >= x - arena.reach)
        in_y = (low[:, 1] <= y + arena.reach) & (high[:, 1] >= y - arena.reach)
        most = max(most, int((in_x.T.astype(int) @ in_y.astype(int)).max()))
    assert most_in_reach(arena) == most == len(arena.slots(arena.build())) > 3


@pytest.mark.parametrize("arena", ARENAS)
def test_ahead_is_what_rays_of_mujoco_meet(arena):
    rng = np.random.default_rng(0)
    for maze in rng.integers(arena.mazes, size=2):
        layout = at(maze)
        model = mujoco.MjModel.from_xml_string(arena.whole(layout).to_xml_string())
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        places = anywhere(arena, rng, 40)
        low, high = walls(arena, maze).transpose(1, 0, 2)
        inside = np.all((places[:, None, :2] > low) & (places[:, None, :2] < high), -1).any(1)
        told = np.asarray(jax.vmap(arena.ahead, (None, 0))(layout, places))
        assert told.shape == (40, len(arena.ahead_names))
        geom = np.zeros(1, np.int32)
        for place, distances in zip(places[~inside], told[~inside], strict=True):
            for i, distance in enumerate(distances):
                way = np.array([np.cos(np.pi * i / 4), np.sin(np.pi * i / 4), 0])
                there = mujoco.mj_ray(model, data, place.astype(float), way, None, 1, -1, geom)
                there = FAR if there < 0 else min(there, FAR)
                assert distance == pytest.approx(there, abs=1e-4)
        assert not told[inside].any()


def test_the_whole_has_every_wall_to_the_last_bit():
    for maze in range(5):
        model = mujoco.MjModel.from_xml_string(MAZE.whole(at(maze)).to_xml_string())
        number = drawn(MAZE).num_walls[maze]
        ours = [model.geom(f"wall_{i}").id for i in range(number)]
        assert model.ngeom == number + 1
        seen = jax.jit(MAZE.visible)(at(maze)).geoms
        np.testing.assert_array_equal(model.geom_pos[ours], seen.position[:number])
        np.testing.assert_array_equal(model.geom_size[ours], seen.size[:number])
        assert not seen.size[number:].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maze_ball", "maze_ant"])
def test_four_hundred_steps_equal_the_whole_maze_bit_for_bit(name):
    parts = {"walker": Ant(), "arena": Maze(cell=3.0)} if name == "maze_ant" else {}
    preset = dataclasses.replace(PRESETS["maze_ball"], **parts)
    env = preset.make(seeing=False, back_end="mujoco")
    state, step = jax.jit(env.reset)(jax.random.key(1)), jax.jit(env.step)
    world = env.whole(state.data)
    data = mujoco.MjData(world)
    data.qpos[:], data.qvel[:] = state.data.physics.qpos, state.data.physics.qvel
    touched, rng = set(), np.random.default_rng(0)
    for i in range(400):
        action = rng.uniform(-1, 1, env.action_size).astype(np.float32)
        if name == "maze_ball":
            # Full speed ahead, and another way now and then.
            action[:] = -1, (i // 50) % 2, 0
        state = step(state, action)
        data.ctrl[:] = np.asarray(env._control(action))
        for _ in range(5):
            mujoco.mj_step(world, data)
            touched |= {world.geom(g).name for g in data.contact.geom.ravel()}
        np.testing.assert_array_equal(state.data.physics.qpos, np.float32(data.qpos))
        np.testing.assert_array_equal(state.data.physics.qvel, np.float32(data.qvel))
    assert "ground" in touched
    if name == "maze_ball":
        assert any(geom.startswith("wall_") for geom in touched)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cell": 0.0}, "arena.cell is 0.0 m; it has to be positive"),
        ({"wall_height": float("nan")}, "arena.wall_height is nan m"),
        ({"cells": (11, 10)}, r"arena.cells is \(11, 10\); both have to be odd, from 5 to 101"),
        ({"cells": (3, 11)}, r"arena.cells is \(3, 11\); both have to be odd"),
        ({"mazes": 0}, "arena.mazes is 0; it has to be 1 or more"),
        ({"targets_per_room": 0}, "arena.targets_per_room is 0; it has to be 1"),
        ({"room_size": (5, 4)}, r"arena.room_size is \(5, 4\); it has to be \(lowest, highest\)"),
        ({"room_size": (4, 10)}, r"arena.room_size is \(4, 10\) .* at most 9 cells"),
        ({"aesthetic": "lunar"}, "arena.aesthetic is 'lunar'; it has to be default or"),
        ({"reach": 1.0}, "arena.reach is 1.0 m, but walker.reach is 1.4 m: .* arena.reach to 1.4"),
        ({"spawns_per_room": 99}, "only 0 of 1000 random mazes .* use smaller rooms"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MAZE, **wrong).check(1.4)
