"""Worlds to hold the camera against MuJoCo's renderer in: five models of dm_control.

Each is compiled as dm_control composes it, and comes with a way to draw random states of it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np
from dm_control import mjcf
from dm_control.entities.manipulators.kinova import JacoArm, JacoHand
from dm_control.locomotion import arenas, walkers


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A model and where to look at it from.

    Attributes:
        model: compiled.
        cameras: names, the animal's own eye first, if it has one.
        height: metres above which an animal's root is put, lowest and highest.
        spread: half lengths along x and y of where it is put, around its place in the model, m.
        bend: radians by which joints without limits turn at most; those with limits go anywhere.
    """

    model: mujoco.MjModel
    cameras: tuple[str, ...]
    height: tuple[float, float] = (0.0, 0.0)
    spread: tuple[float, float] = (0.0, 0.0)
    bend: float = 0.5

    def states(self, number: int, seed: int) -> Iterator[mujoco.MjData]:
        """Random states: the animal anywhere, turned and bent, with everything that a camera needs
        computed. One `MjData` serves all, so use each before the next."""
        rng = np.random.default_rng(seed)
        data = mujoco.MjData(self.model)
        for _ in range(number):
            data.qpos[:] = self._configuration(rng)
            mujoco.mj_kinematics(self.model, data)
            mujoco.mj_comPos(self.model, data)
            mujoco.mj_camlight(self.model, data)
            yield data

    def _configuration(self, rng: np.random.Generator) -> np.ndarray:
        model = self.model
        qpos = model.qpos0.copy()
        for joint in range(model.njnt):
            at = model.jnt_qposadr[joint]
            if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
                qpos[at : at + 2] += rng.uniform(-1, 1, 2) * self.spread
                qpos[at + 2] += rng.uniform(*self.height)
                turn = rng.uniform(-np.pi, np.pi)
                tilt = rng.normal(size=3) * [0.15, 0.15, 0]
                about = np.array([np.cos(turn / 2), 0, 0, np.sin(turn / 2)])
                whole = np.zeros(4)
                mujoco.mju_mulQuat(whole, about, np.concatenate([[1], tilt]))
                mujoco.mju_mulQuat(whole, whole.copy(), model.qpos0[at + 3 : at + 7])
                qpos[at + 3 : at + 7] = whole / np.linalg.norm(whole)
            elif model.jnt_limited[joint]:
                low, high = model.jnt_range[joint]
                # Most of an animal's postures are near the middle of what its joints allow.
                qpos[at] = low + (high - low) * rng.beta(2, 2)
            else:
                qpos[at] += rng.uniform(-self.bend, self.bend)
        return qpos


def _walk_in(
    arena: Any, walker: Any, cameras: tuple[str, ...], spawn: tuple[float, ...], **where: Any
) -> World:
    walker.create_root_joints(arena.attach(walker))
    root = arena.mjcf_model
    root.find("attachment_frame", walker.mjcf_model.model).pos = spawn
    physics = mjcf.Physics.from_mjcf_model(root)
    arena.initialize_episode(physics, np.random.RandomState(0))
    prefix = walker.mjcf_model.model + "/"
    return World(physics.model.ptr, tuple(prefix + name for name in cameras), **where)


def _gaps(**kwargs: float) -> arenas.GapsCorridor:
    arena = arenas.GapsCorridor(corridor_width=5, aesthetic="outdoor_natural", **kwargs)
    arena.regenerate(np.random.RandomState(0))
    return arena


def ant_in_gaps() -> World:
    """dm_control's ant in a corridor with gaps, every platform where it is."""
    arena = _gaps(platform_length=1.7, gap_length=0.4)
    views = ("egocentric", "floating")
    return _walk_in(arena, walkers.Ant(), views, (15, 0, 0), height=(0, 0.3), spread=(8, 1))


def ant_in_bowl() -> World:
    """dm_control's ant in its bowl: a height field of 201 x 201, and a plane around it."""
    arena = arenas.Bowl(size=(20, 20), aesthetic="outdoor_natural")
    views = ("egocentric", "floating")
    return _walk_in(arena, walkers.Ant(), views, (0, 0, 0), height=(0, 0.6), spread=(2, 2))


def rodent_in_gaps() -> World:
    """dm_control's rodent in a corridor: ellipsoids, cylinders, capsules, and a spot light."""
    arena = _gaps(platform_length=0.8, gap_length=0.15)
    views = ("egocentric", "side")
    return _walk_in(arena, walkers.Rat(), views, (12, 0, 0.07), height=(0, 0.05), spread=(5, 1))


def humanoid() -> World:
    """dm_control's CMU humanoid on its chequered floor, under a spot light."""
    arena, walker = arenas.Floor(size=(20, 20)), walkers.CMUHumanoidPositionControlled()
    views = ("egocentric", "side")
    return _walk_in(arena, walker, views, (0, 0, 1.1), height=(0, 0.2), spread=(3, 3))


def arm() -> World:
    """Kinova's arm and hand as dm_control ships them: nine meshes of up to 1,000 triangles."""
    arena, body, hand = arenas.Floor(size=(4, 4)), JacoArm(), JacoHand()
    body.attach(hand)
    arena.attach(body)
    root = arena.mjcf_model
    root.worldbody.add("light", pos=(0.5, -1, 2), dir=(-0.2, 0.4, -1), directional=True)
    root.worldbody.add("camera", name="front", pos=(1.4, 0, 0.8), xyaxes=(0, 1, 0, -0.3, 0, 1))
    root.worldbody.add("camera", name="near", pos=(0, -0.9, 0.6), xyaxes=(1, 0, 0, 0, 0.2, 1))
    model = mjcf.Physics.from_mjcf_model(root).model.ptr
    return World(model, ("front", "near"), bend=1.5)


WORLDS: dict[str, Callable[[], World]] = {
    "ant_in_gaps": ant_in_gaps,
    "ant_in_bowl": ant_in_bowl,
    "rodent_in_gaps": rodent_in_gaps,
    "humanoid": humanoid,
    "arm": arm,
}
"""By name."""
