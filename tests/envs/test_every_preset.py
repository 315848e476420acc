"""Test what every preset has to keep, whatever its arena, walker and task: a new one is tested here
without a line written."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dm_control
import jax
import mujoco
import numpy as np
import pytest

from envs import models, physics
from envs.interfaces import WALKER, Pose
from envs.presets import PRESETS
from envs.walkers.mjcf_file import MjcfWalker
from tests.envs.renderer import assert_alike, mujoco_draws

LAYOUTS, STARTS, STEPS = 2, 6, 24
N = LAYOUTS * STARTS
"""Environments of a batch. Those of one layout follow each other; the first begins as `reset` does,
the others begin near what the layout has to run into."""
TRIES = 64
"""Places that are tried for each start."""
SIZE = (64, 64)
PICTURES = 3
"""States of each layout that are looked at."""
BESIDE = 1e3
"""Metres beyond which a slot stands for nothing."""
# Rounding is not what is asked for where this is used, and it takes half as long to compile.
hasty = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
BESIDES = ThreadPoolExecutor(1)
"""Compiles while other tests run."""


class Trial:
    """A preset's environment in C, and episodes of it, computed when they are first asked for."""

    def __init__(self, preset):
        self.preset = preset
        self.told = bool([*preset.arena.ahead_names, *preset.task.ahead_names])
        self.env = preset.make(seeing=False, back_end="mujoco", ahead=self.told)
        self.rng = np.random.default_rng(0)
        self.traces = {"reset": 0, "step": 0}
        self.reset = hasty(jax.vmap(self._counted("reset")))
        self.step = jax.jit(jax.vmap(self._counted("step")))

    def _counted(self, name):
        def function(*args):
            self.traces[name] += 1
            return getattr(self.env, name)(*args)

        return function

    @functools.cached_property
    def mjx_and_c(self):
        """A future of `compiled`, which takes a thread of its own many seconds."""
        return BESIDES.submit(lambda: compiled(Engines(self.preset)))

    @functools.cached_property
    def keys(self):
        return jax.random.split(jax.random.key(0), LAYOUTS)

    @functools.cached_property
    def first(self):
        """The states [LAYOUTS] that `reset` makes."""
        return arrays(self.reset(self.keys))

    @functools.cached_property
    def starts(self):
        """The states [N] that all episodes begin with."""
        env, data = self.env, jax.tree.map(repeated, self.first.data)
        tries = hasty(jax.vmap(jax.vmap(env.posture, (None, 0, 0, 0))))
        keys = jax.random.split(jax.random.key(1), (2, N, TRIES))
        qpos, qvel = arrays(tries(data.layout, self._poses(data.layout, keys[0]), *keys))
        chosen = np.arange(N), [self._choose(i, tried) for i, tried in enumerate(qpos)]
        states = hasty(jax.vmap(env.at))(qpos[chosen], qvel[chosen], data.layout, data.task)
        # The first of each layout begins as `reset` has it.
        place = lambda put, own: np.where(of_reset(put.ndim), repeated(own), put)
        return jax.tree.map(place, arrays(states), self.first)

    @functools.cached_property
    def actions(self):
        shape = (STEPS, N, self.env.action_size)
        return self.rng.uniform(-1, 1, shape).astype(np.float32)

    @functools.cached_property
    def episodes(self):
        """The states [STEPS + 1, N] of all episodes."""
        states = [self.starts]
        for action in self.actions:
            states.append(arrays(self.step(states[-1], action)))
        return stack(states)

    @functools.cached_property
    def worlds(self):
        """Models of each whole layout."""
        return [self.env.whole(pick(self.first.data, i)) for i in range(LAYOUTS)]

    @functools.cached_property
    def controls(self):
        return np.asarray(jax.jit(jax.vmap(jax.vmap(self.env._control)))(self.actions))

    def boxes(self, layouts, roots):
        """Return positions and sizes float32[B, K, 3] of the slots for roots float32[B, 3]."""
        reach = self.env.walker.reach
        boxes = hasty(jax.vmap(lambda *where: self.env.arena.boxes(*where, reach)))
        found = arrays(boxes(layouts, roots))
        return found.position, found.size

    def _poses(self, layouts, keys):
        """Poses [N, TRIES] before, behind, upon and beside what the layouts have to run into; where
        that is nothing, as episodes begin."""
        arena, reach, rng = self.env.arena, self.env.walker.reach, self.rng
        if not models.slot_names(arena):
            return hasty(jax.vmap(jax.vmap(arena.spawn, (None, 0))))(layouts, keys)
        x = rng.uniform(0, 12, N)
        roots = np.asarray(arena.start) + np.stack([x, 0 * x, 0 * x], -1)
        position, size = self.boxes(layouts, np.float32(roots))
        # Of the slots of each, the box that is the nearest along x; in half of the tries any other,
        # since nobody fits between that and others of a maze.
        away = np.abs(position[..., 0] - roots[:, :1])
        among = np.where(away < BESIDE, rng.uniform(size=(TRIES, *away.shape)), np.inf).argmin(-1)
        chosen = np.where(np.arange(TRIES)[:, None] % 2, among, away.argmin(1)).T
        box, half = (x[np.arange(N)[:, None], chosen] for x in (position, size))
        assert np.all(np.abs(box) < BESIDE)
        side, away = rng.choice([-1, 1], (N, TRIES)), rng.uniform(0.1, 1, (N, TRIES)) * reach
        x = box[..., 0] + side * (half[..., 0] + away)
        y = box[..., 1] + np.minimum(half[..., 1], 1.5) * rng.uniform(-1, 1, (N, TRIES))
        place = np.stack([x, y, np.zeros_like(x)], -1) - [*arena.start[:2], 0]
        yaw = rng.uniform(-np.pi, np.pi, (N, TRIES))
        return Pose(np.float32(place), np.float32(yaw))

    def _choose(self, environment, qpos):
        """The one of qpos[TRIES, nq] that is the closest to an obstacle and in nothing: no engine
        says how a leg leaves a wall that it pierces."""
        world = self.worlds[environment // STARTS]
        data, there = mujoco.MjData(world), obstacles(self.env, world)
        gaps = np.full(len(qpos), np.inf)
        for i, data.qpos[:] in enumerate(qpos):
            mujoco.mj_forward(world, data)
            gap = clearance(world, data, there)
            if gap > -0.03 and np.all(data.contact.dist > -0.03):
                gaps[i] = gap
        assert min(gaps) < 0.2, f"environment {environment} has no start that is close to obstacles"
        return gaps.argmin()


def clearance(world, data, boxes):
    """Metres between the walker and the nearest of the boxes, geoms of `world`; 0 without any.

    Points along the axes of capsules count: MuJoCo tells no depth of one that pierces a box.
    """
    solid = (world.geom_contype | world.geom_conaffinity) > 0
    own = [g for g in np.flatnonzero(solid) if world.geom(g).name.startswith(WALKER)]
    radius, half = world.geom_size[own, 0], world.geom_size[own, 1]
    axes = data.geom_xmat[own].reshape(-1, 3, 3)[:, :, 2]
    points = data.geom_xpos[own] + np.linspace(-half, half, 11)[..., None] * axes
    outside = np.abs(points[..., None, :] - data.geom_xpos[boxes]) - world.geom_size[boxes]
    gaps = np.linalg.norm(np.maximum(outside, 0), axis=-1) - radius[:, None]
    return gaps.min(initial=0 if not boxes else np.inf)


# Any file takes the place of the user's. Its geoms collide with each other in many more ways.
QUADRUPED = Path(dm_control.__file__).parent / "suite" / "quadruped.xml"
TOES = tuple(f"toe_{end}_{side}" for end in ("front", "back") for side in ("left", "right"))
USERS = {"mjcf_floor": MjcfWalker(path=str(QUADRUPED), mjx_geoms=TOES, self_collisions=False)}
SLOW = (
    "rodent_floor",
    "bowl_rodent",
    "humanoid_stand",
    "humanoid_gaps",
    "humanoid_walls",
    "fly_floor",
    *USERS,
)
"""Presets whose parts are in others too, or that take long to compile."""
CASES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PRESETS]


@pytest.fixture(scope="module", params=CASES)
def trial(request):
    preset = PRESETS[request.param]
    walker = USERS.get(request.param, preset.walker)
    return Trial(dataclasses.replace(preset, walker=walker))


def arrays(tree):
    """In NumPy, where indexing compiles nothing."""
    return jax.tree.map(np.asarray, tree)


def stack(trees):
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def repeated(x):
    return np.repeat(x, STARTS, axis=0)


def of_reset(ndim):
    """bool[N, 1, ...], which environments begin as `reset` has it."""
    return (np.arange(N) % STARTS == 0).reshape(-1, *[1] * (ndim - 1))


def pick(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def obstacles(env, world):
    """Ids of the geoms of a whole world that slots stand for."""
    own = {env.model.geom(g).name for g in range(env.model.ngeom)}
    names = [world.geom(g).name for g in range(world.ngeom)]
    return [g for g, name in enumerate(names) if name not in own and not name.startswith("thing_")]


def roll(world, start, controls, num_substeps):
    """mj_step in a whole world: float64[T, k] as `PhysicsState.bits`, and, for each control step,
    the geoms that were touched."""
    data = mujoco.MjData(world)
    data.qpos[:], data.qvel[:] = start.qpos, start.qvel
    rows, touched = [], []
    for control in controls:
        data.ctrl[:] = control
        geoms = set()
        for _ in range(num_substeps):
            mujoco.mj_step(world, data)
            geoms |= set(data.contact.geom.ravel().tolist())
        parts = ([data.time], data.qpos, data.qvel, data.act, data.qacc_warmstart)
        rows.append(np.concatenate(parts))
        touched.append(geoms)
    return np.stack(rows), touched


# Physics.


def test_slots_equal_the_whole_arena_bit_for_bit(trial):
    if not trial.env.model.nhfield:
        _ = trial.mjx_and_c  # For the next test: it compiles meanwhile.
    env, substeps = trial.env, trial.preset.simulation.num_substeps
    bits = np.ascontiguousarray(trial.episodes.data.physics.bits[1:]).view(np.float64)
    assert not trial.episodes.info["failed"].any()
    touches = 0
    for n in range(N):
        world, start = trial.worlds[n // STARTS], pick(trial.starts.data.physics, n)
        theirs, touched = roll(world, start, trial.controls[:, n], substeps)
        np.testing.assert_array_equal(bits[:, n], theirs, err_msg=f"environment {n}")
        there = set(obstacles(env, world))
        touches += sum(len(there & geoms) > 0 for geoms in touched)
    # Of 288 control steps; the comparison says little if nothing was touched.
    if len(models.slot_names(env.arena)):
        assert touches > 20


class Engines:
    """MJX and C on the model that is made for MJX; equal where one step serves both.

    Raises:
        ValueError: MJX cannot run the model.
    """

    def __init__(self, preset):
        self.model = preset.make(seeing=False, back_end="mjx").model
        self.slots = len(models.slot_names(preset.arena))
        # Worlds that differ in what slots stand for alone are one.
        static = preset.arena.build().to_xml_string()
        self.key = static, preset.walker, preset.simulation, self.slots
        substeps = preset.simulation.num_substeps
        self.both = [physics.make_physics(name, self.model, substeps) for name in ("mjx", "mujoco")]

    def __eq__(self, other):
        return self.key == other.key

    def __hash__(self):
        return hash(self.key)


@functools.cache
def compiled(engines):
    """A control step in MJX and in C: (qpos, qvel, slots, slots' sizes, control) -> of each, qpos,
    qvel and whether it failed."""

    def step(qpos, qvel, position, size, control):
        ends = [e.step(e.init(qpos, qvel, position, size), control) for e in engines.both]
        return [(end.qpos, end.qvel, end.failed) for end in ends]

    model, slots = engines.model, (engines.slots, 3)
    shapes = ((model.nq,), (model.nv,), slots, slots, (model.nu,))
    return hasty(step).lower(*(jax.ShapeDtypeStruct(s, np.float32) for s in shapes)).compile()


def test_mjx_follows_c(trial):
    """Each control step starts from where C is, so that chaos does not grow.

    Both step the model that is made for MJX, in which less collides. Off edges, float32 accounts
    for the difference (tests/envs/test_physics.py); upon edges the two choose other points and
    normals, and only a bound holds.
    """
    if trial.env.model.nhfield:
        pytest.skip("on height fields MJX chooses other points: tests/envs/arenas/test_bowl.py")
    try:
        step = trial.mjx_and_c.result()
    except ValueError as error:
        reason = str(error)
        assert "'mjx' back end cannot run this model: " in reason or "noslip" in reason
        pytest.skip(reason)
    t, n = (i.ravel() for i in np.mgrid[:STEPS:4, :N])
    data, control = pick(trial.episodes.data, t, n), trial.controls[t, n]
    boxes = trial.boxes(data.layout, data.root)
    starts = zip(data.physics.qpos, data.physics.qvel, *boxes, control, strict=True)
    mjx, c = stack([step(*start) for start in starts])
    assert not mjx[2].any() and not c[2].any()
    positions, velocities = (np.abs(mjx[i] - c[i]).max(1) for i in (0, 1))
    assert np.median(velocities) < 1e-4
    assert np.median(positions) < 1e-5
    assert positions.max() < 0.05


# Pictures.


def their_ids(env, world, data):
    """int[ngeom + P], a whole world's geom for each label of ours; -2 for those it does not have.

    By name; what differs between episodes by place, size and kind.
    """
    looks, places = env.looks, mujoco.MjData(world)
    mujoco.mj_kinematics(world, places)
    shown = env._visible(data)
    named = {world.geom(g).name: g for g in range(world.ngeom) if world.geom(g).name}
    ids = [named.get(looks.geom(g).name, -2) for g in range(looks.ngeom)]

    def find(kind, position, size):
        off = np.abs(places.geom_xpos - position).max(1) + np.abs(world.geom_size - size).max(1)
        off[world.geom_type != kind] = np.inf
        return int(off.argmin()) if off.min() < 1e-4 else -2

    if shown.geoms is not None:
        for i, (position, size) in enumerate(
            zip(shown.geoms.position, shown.geoms.size, strict=True)
        ):
            g = looks.ngeom - len(shown.geoms.size) + i
            if np.any(size):
                used = size * (np.asarray(looks.geom_size[g]) > 0)
                ids[g] = find(looks.geom_type[g], position, used)
                assert ids[g] >= 0, f"the whole world has no {looks.geom(g).name} at {position}"
    for start, end in () if shown.row is None else shown.row:
        slot = looks.geom(models.slot_names(env.arena)[0])
        position = np.array([(start + end) / 2, *looks.body(slot.name).pos[1:]])
        size = np.array([(end - start) / 2, *slot.size[1:]])
        ids.append(find(slot.type, position, size) if end > start else -2)
        assert end <= start or ids[-1] >= 0, f"the whole world has no box at {position}"
    # The sky's label is the last.
    return np.array([*ids, -1])


def test_no_ground_is_too_near_to_be_drawn(trial):
    """MuJoCo draws nothing within a hundredth of the model's extent, unless the arena says else.

    Ground at the lower edge of an image is about as far along the eye's axis as it is below; an
    animal that crouches or looks down comes closer.
    """
    looks, data = trial.env.looks, mujoco.MjData(trial.env.looks)
    data.qpos[:] = trial.first.data.physics.qpos[0]
    mujoco.mj_kinematics(looks, data)
    mujoco.mj_camlight(looks, data)
    eye = data.cam(WALKER + trial.preset.walker.eye).xpos
    ground = trial.env.arena.ground(pick(trial.first.data.layout, 0), eye[None, :2])
    height = eye[2] - (0.0 if ground is None else float(ground[0]))
    assert looks.vis.map.znear * looks.stat.extent < height / 3


def test_pictures_are_those_of_mujocos_renderer(trial, tmp_path, monkeypatch):
    vision = dataclasses.replace(
        trial.preset.vision, height=SIZE[0], width=SIZE[1], modality="rgb", supersample=2
    )
    env = dataclasses.replace(trial.preset, vision=vision).make(back_end="mujoco")
    film = dataclasses.replace(env.camera(env.film_camera, *SIZE), supersample=2)
    cameras = [*env.eyes.values(), film]
    assert all(name == "vision" or name.startswith("vision_") for name in env.eyes)

    taken = []

    def keep(draw):
        return lambda *args: taken.append(draw(*args)) or taken[-1]

    for pictures in {env.pictures, env.sight}:
        monkeypatch.setattr(pictures, "draw", keep(pictures.draw))

    @hasty
    def look(data):
        """Return what users get, and the images, with depth and labels, that it was taken from."""
        taken.clear()
        obs = env.at(data.physics.qpos, data.physics.qvel, data.layout, data.task).obs
        return obs, env.draw(data, film), list(taken)

    # Of each layout, how its first episode begins and how others end, with the tasks as they began:
    # the whole worlds are of those.
    n = (np.arange(LAYOUTS)[:, None] * STARTS + np.arange(PICTURES)).ravel()
    data = pick(trial.episodes.data, np.where(n % STARTS, STEPS, 0), n)
    data = dataclasses.replace(data, task=pick(trial.starts.data.task, n))
    obs, filmed, images = stack([look(pick(data, i)) for i in range(len(n))])
    assert {k: (x.shape[1:], x.dtype) for k, x in obs.items()} == {
        k: (s.shape, s.dtype) for k, s in env.observation_spec.items()
    }
    qpos = data.physics.qpos.reshape(LAYOUTS, PICTURES, -1)
    names = [camera.name for camera in cameras]
    hidden = [*[env.walker.hidden_groups] * len(env.eyes), ()]
    theirs = mujoco_draws(trial.worlds, qpos, names, SIZE, tmp_path, hidden)
    for i, world in enumerate(trial.worlds):
        ids = their_ids(env, world, pick(data, i * PICTURES))
        for s in range(PICTURES):
            for c, camera in enumerate(cameras):
                ours = pick(images[c], i * PICTURES + s)
                labels = np.where(ours.segmentation < 0, -1, ids[ours.segmentation])
                ours = dataclasses.replace(ours, segmentation=labels)
                assert_alike(ours, pick(theirs, i, s, c), f"layout {i}, state {s}, {camera.name}")
    for picture, image in zip((*map(obs.get, env.eyes), filmed), images, strict=True):
        np.testing.assert_array_equal(picture, image.rgb)


# The environment.


def test_states_are_what_the_environment_says_of_them(trial):
    env = trial.env
    state = pick(trial.episodes, STEPS)
    found = set(state.metrics)
    assert set(env.shown) <= found and set(env.metric_reductions) <= found
    assert {"obstacles_passed", "success"} <= found & set(env.shown)
    assert set(env.metric_reductions.values()) <= {"mean", "last", "sum"}
    assert all(title for title in env.shown.values())
    for x in jax.tree.leaves((state.metrics, state.reward, state.done, state.info)):
        assert x.shape == (N,)
    assert set(np.unique(trial.episodes.done)) <= {0, 1}
    spec = {k: (s.shape, s.dtype) for k, s in env.observation_spec.items()}
    for obs in (trial.starts.obs, state.obs):
        assert {k: (x.shape[1:], x.dtype) for k, x in obs.items()} == spec
    for x in jax.tree.leaves((trial.episodes.obs, trial.episodes.metrics, trial.episodes.reward)):
        assert np.isfinite(x).all()


def test_ahead_is_told_where_it_is_asked_for_and_to_no_policy(trial):
    env = trial.env
    if not trial.told:
        with pytest.raises(ValueError, match="ahead is asked for, but neither"):
            trial.preset.make(seeing=False, back_end="mujoco", ahead=True)
        return
    names = env.truth_attributes["ahead"]["entries"]
    assert env.observation_spec["ahead"].size == len(set(names)) == len(names) > 0
    assert "ahead" not in env.policy_leaves and "proprio" in env.policy_leaves
    told = trial.episodes.obs["ahead"]
    assert np.all(np.abs(told) <= 5)
    assert len(np.unique(told.reshape(-1, told.shape[-1]), axis=0)) > N
    without = trial.preset.make(back_end="mujoco")
    assert "ahead" not in without.observation_spec
    assert set(without.policy_leaves) == set(without.observation_spec)
    assert set(without.eyes) < set(without.policy_leaves)


def test_the_same_key_is_the_same_episode_and_nothing_is_compiled_again(trial):
    def episode(keys):
        states = [trial.reset(keys)]
        batch = jax.tree.map(repeated, states[0])
        for action in trial.actions[:5]:
            batch = trial.step(batch, action)
            states.append(batch)
        return jax.tree.map(np.asarray, states)

    first, _ = episode(trial.keys), trial.episodes
    before = dict(trial.traces)
    assert_same(episode(trial.keys), first)
    others = episode(jax.random.split(jax.random.key(7), LAYOUTS))
    assert np.any(others[0].data.physics.qpos != first[0].data.physics.qpos)
    assert np.any(others[-1].data.physics.qpos != first[-1].data.physics.qpos)
    assert trial.traces == before == {"reset": 1, "step": 1}
