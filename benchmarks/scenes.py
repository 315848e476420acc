"""Define the worlds in which cameras are compared: five models of dm_control, and our gap ant.

Each is compiled as dm_control composes it; functions draw random states of it and their images.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from dm_control import mjcf
from dm_control.entities.manipulators.kinova import JacoArm, JacoHand
from dm_control.locomotion import arenas, walkers

from envs.arenas.gaps import Gaps
from envs.camera import Camera, Image, Scene, render
from envs.interfaces import WALKER
from envs.models import SimulationConfig, whole_model
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A model and where to look at it from.

    Attributes:
        model: compiled.
        cameras: names, the animal's own eye first, if it has one.
        height: metres above which an animal's root is put, lowest and highest.
        spread: half lengths along x and y of where it is put, around its place in the model, m.
        turn: radians about the vertical by which an animal is turned at most.
        bend: radians by which joints without limits turn at most; those with limits go anywhere.
        row: names of platforms that are drawn as one primitive.
    """

    model: mujoco.MjModel
    cameras: tuple[str, ...]
    height: tuple[float, float] = (0.0, 0.0)
    spread: tuple[float, float] = (0.0, 0.0)
    turn: float = np.pi
    bend: float = 0.5
    row: tuple[str, ...] = ()

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

    def looker(self, camera: Camera) -> Callable[..., Image]:
        """Returns what draws one state, given `arguments` of it."""
        scene, row = self.scene(), bool(self.row)

        def look(*a: jax.Array) -> Image:
            image = render(scene, camera, *a[:5], a[5] if row else None, *a[6:])
            # Platforms have their own labels in MuJoCo's pictures.
            place = jnp.clip(image.segmentation - scene.num_geoms, 0, max(0, len(self.row) - 1))
            ids = jnp.asarray([self.model.geom(name).id for name in self.row] or [0])[place]
            in_row = image.segmentation >= scene.num_geoms
            return image.replace(segmentation=jnp.where(in_row, ids, image.segmentation))

        return look

    def scene(self) -> Scene:
        """Return the scene that our camera draws."""
        return Scene.from_model(self.model, row=self.row)

    def arguments(self, scene: Scene, camera: str, data: mujoco.MjData) -> tuple[jax.Array, ...]:
        """Return the arguments of `looker` for a state."""
        model, k, g = self.model, self.model.camera(camera).id, scene.geom_ids
        row = [model.geom(name).id for name in self.row]
        middle, half = data.geom_xpos[row, 0], model.geom_size[row, 0]
        arrays = (
            data.geom_xpos[g],
            data.geom_xmat[g].reshape(-1, 3, 3),
            model.geom_size[g],
            data.cam_xpos[k],
            data.cam_xmat[k].reshape(3, 3),
            np.stack([middle - half, middle + half], axis=-1),
            data.light_xpos[scene.light_ids],
            data.light_xdir[scene.light_ids],
        )
        return tuple(jnp.asarray(x, jnp.float32) for x in arrays)

    def _configuration(self, rng: np.random.Generator) -> np.ndarray:
        model = self.model
        qpos = model.qpos0.copy()
        for joint in range(model.njnt):
            at = model.jnt_qposadr[joint]
            if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
                qpos[at : at + 2] += rng.uniform(-1, 1, 2) * self.spread
                qpos[at + 2] += rng.uniform(*self.height)
                turn = rng.uniform(-1, 1) * self.turn
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


def gap_ant() -> World:
    """Our gap ant's corridor, gaps of 0.1 to 0.8 m, its platforms one primitive."""
    gaps = Gaps(gap_length=(0.1, 0.8))
    parts = gaps, Ant(), RunThroughCorridor(), SimulationConfig()
    model = whole_model(*parts, gaps.draw(jax.random.key(0)), ())
    names = [model.geom(i).name for i in range(model.ngeom)]
    row = tuple(name for name in names if name.startswith(("start_floor", "floor_")))
    cameras = tuple(WALKER + name for name in ("egocentric", "floating"))
    # Anywhere along it, and mostly looking ahead.
    model.qpos0[:3] = 20, 0, 0
    return World(model, cameras, (0, 0.3), (15, 1), turn=0.6, row=row)


WORLDS: dict[str, Callable[[], World]] = {
    "gap_ant": gap_ant,
    "ant_in_gaps": ant_in_gaps,
    "ant_in_bowl": ant_in_bowl,
    "rodent_in_gaps": rodent_in_gaps,
    "humanoid": humanoid,
    "arm": arm,
}
"""Functions that make the models, by name."""
