"""Compose an environment of an arena, a walker and a task.

See `envs.interfaces` for what the three parts provide, and `envs.presets` for the environments.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from envs import models, physics
from envs.camera import Camera
from envs.interfaces import (
    WALKER,
    Arena,
    Boxes,
    Now,
    Outcome,
    Pose,
    Task,
    Visible,
    Walker,
)
from envs.kinematics import Kinematics, Poses
from envs.models import SimulationConfig
from envs.part_checks import a_key, check_layouts, checked_outcome
from envs.pictures import Pictures
from envs.surfaces import Surface
from envs.vision import VisionConfig, make_eyes, see
from vnl_ppo.env import State

PROPRIO, AHEAD = "proprio", "ahead"


@struct.dataclass
class Data:
    """The state that an environment carries from step to step.

    Attributes:
        physics: the state of the back end.
        layout: the arena's layout of this episode.
        root: float32[3], position of the walker's root body, metres.
        com: float32[3], centre of mass of the root body's subtree, metres.
        task: the task's own state.
    """

    physics: physics.PhysicsState
    layout: Any
    root: jax.Array
    com: jax.Array
    task: Any = ()


class Locomotion:
    """A walker in an arena with a task; see `vnl_ppo.env.Env`.

    Observations: `proprio`, float32[n], is the walker's proprioception, the sensors asked for and,
    if asked for, a compass; `vision`, uint8[H, W, C], is the image of its eye, C = 3 for colours
    and 1 for other modalities (several eyes have a leaf each, see `envs.vision.VisionConfig`);
    `ahead`, float32[k], if asked for, holds the exact positions of the next obstacles or the
    target.

    An episode is terminated if the task says so or the physics breaks down (`info["failed"]`). It
    is truncated if the task says so, as at the end of the arena (`info["truncation"]`).

    Metrics: those of the task and of the arena, `obstacles_passed` and `success`.

    Args:
        arena, walker, task: its parts.
        vision: settings of the eyes; None for a blind walker.
        simulation: settings of the physics; None for the defaults.
        back_end: "mujoco", "mjx", "warp" or "auto", see `envs.physics.make_physics`.
        ahead: whether `ahead` is observed.

    Raises:
        ValueError: a setting is invalid; nothing has been compiled yet.
    """

    renamed_leaves: Mapping[str, str] = {"torso": "root"}
    """Names of release 0.1 of leaves of `Data`, and their names now."""

    def __init__(
        self,
        arena: Arena,
        walker: Walker,
        task: Task,
        vision: VisionConfig | None = None,
        simulation: SimulationConfig | None = None,
        back_end: str = "auto",
        ahead: bool = False,
    ) -> None:
        simulation = simulation or SimulationConfig()
        simulation.check()
        arena.check(walker.reach)
        task.check()
        self.arena, self.walker, self.task = arena, walker, task
        self.vision, self.simulation = vision, simulation
        self.back_end = physics.choose(back_end)
        self.dt = simulation.control_timestep
        self.model = models.physics_model(
            arena, walker, simulation, self.back_end, contacts=task.contacts
        )
        shown = jax.eval_shape(arena.visible, jax.eval_shape(arena.draw, a_key()))
        row = models.slot_names(arena) if shown.row is not None else ()
        self.looks = models.visual_model(arena, walker, task, simulation, show_slots=bool(row))
        self.pictures = Pictures(self.looks, row)
        hidden = walker.hidden_groups
        self.sight = Pictures(self.looks, row, hidden) if hidden else self.pictures
        self.eyes: dict[str, Camera] = {}
        self.film_camera = walker.film_camera
        self.cameras = models.walker_cameras(self.looks)
        self._physics = physics.make_physics(self.back_end, self.model, simulation.num_substeps)
        self._kinematics = Kinematics(self.model)
        self._root = self.model.body(WALKER + walker.root).id
        ends = [self.model.body(WALKER + name).id for name in walker.end_effectors]
        self._end_effectors = np.array(ends, int)
        self._head = self.model.body(WALKER + walker.head).id
        self._upright = np.array([self.model.body(WALKER + n).id for n in walker.upright], int)
        # Of the visual model, in which the geoms that MJX leaves out are still solid.
        self._surface = Surface(self.looks)
        self._contacts = models.contact_sensors(self.model)
        self._felt = models.sensor_entries(self.model, simulation.sensors)
        self._range = models.control_range(self.model)
        self._tells_ahead = ahead
        check_layouts(arena, task, walker.reach, self.model)
        # Images take long to trace, and their shapes are known.
        self.observation_spec = dict(jax.eval_shape(self.reset, a_key()).obs)
        if vision:
            self.eyes = self._eyes(vision)
            picture = jax.ShapeDtypeStruct(
                (vision.height, vision.width, vision.channels), jnp.uint8
            )
            self.observation_spec |= dict.fromkeys(self.eyes, picture)
        if ahead and not self.observation_spec[AHEAD].size:
            raise ValueError(
                f"ahead is asked for, but neither {type(arena).__name__} nor "
                f"{type(task).__name__} tells what lies ahead"
            )

    @property
    def action_size(self) -> int:
        """Number of entries of an action: the walker's actuators."""
        return self.model.nu

    @property
    def metric_reductions(self) -> Mapping[str, str]:
        """Reductions of metrics over an episode; see `vnl_ppo.env.metric_reductions`."""
        own = {"obstacles_passed": "last", "success": "last"}
        return {**own, **self.arena.reductions, **self.task.reductions}

    @property
    def shown(self) -> Mapping[str, str]:
        """Metrics to print, with their titles."""
        passed = {"obstacles_passed": "obstacles passed", "success": "success, share"}
        return {**self.task.shown, **passed}

    @property
    def policy_leaves(self) -> tuple[str, ...]:
        """Leaves that networks use by default: all but `ahead`."""
        return tuple(name for name in self.observation_spec if name != AHEAD)

    def reset(self, key: jax.Array) -> State:
        """Start an episode; `key`, a typed PRNG key, draws its layout and first state."""
        layout_key, position_key, velocity_key = jax.random.split(key, 3)
        layout = self.arena.draw(layout_key)
        pose = self.arena.spawn(layout, jax.random.fold_in(key, 3))
        task = self.task.draw(jax.random.fold_in(key, 4))
        task = self.task.place(task, self.arena.places(layout), jax.random.fold_in(key, 5))
        qpos, qvel = self.posture(layout, pose, position_key, velocity_key)
        return self.at(qpos, qvel, layout, task)

    def posture(
        self, layout: Any, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return `qpos` float32[nq] and `qvel` float32[nv] of the walker at `pose`.

        On uneven ground the walker is moved up or down until its lowest point is just above the
        ground, whatever the height of `pose`, but its root not below a height of 0.

        Args:
            layout: the arena's layout.
            pose: the place, as of `Arena.spawn`.
            position_key, velocity_key: PRNG keys; see `Walker.reset`.
        """
        reset = lambda pose: self.walker.reset(self.model, pose, position_key, velocity_key)
        qpos, qvel = reset(pose)
        if self.arena.ground(layout, jnp.zeros((1, 2))) is None:
            return qpos, qvel

        def ground(points: jax.Array) -> jax.Array:
            heights = self.arena.ground(layout, points)
            assert heights is not None
            return heights

        poses = self._kinematics(qpos)
        # As dm_control's search, which begins at a height of 0.
        lift = jnp.maximum(self._surface.lift(poses, ground), -poses.xpos[self._root, 2])
        return reset(dataclasses.replace(pose, position=pose.position.at[2].add(lift)))

    def at(self, qpos: jax.Array, qvel: jax.Array, layout: Any, task: Any = ()) -> State:
        """Return the state of an environment with given positions and velocities at time 0.

        Args:
            qpos: float32[nq], as in `mujoco.MjData`.
            qvel: float32[nv], as in `mujoco.MjData`.
            layout: the arena's layout.
            task: the task's state.
        """
        poses = self._kinematics(qpos)
        root, com = poses.xpos[self._root], poses.subtree_com[self._root]
        boxes = self.arena.boxes(layout, root, self.walker.reach)
        simulated = self._physics.init(qpos, qvel, boxes.position, boxes.size)
        data = Data(simulated, layout, root, com, task)
        now = self._now(data, poses, jnp.zeros(3))
        zero = jnp.zeros(())
        action = jnp.zeros(self.action_size)
        outcome = checked_outcome(self.task, self.task.judge(now, action, self.arena, self.dt))
        metrics = jax.tree.map(jnp.zeros_like, self._metrics(outcome))
        info = {"truncation": zero, "failed": simulated.failed}
        return State(data, self._observe(now), zero, zero, metrics, info)

    def step(self, state: State, action: jax.Array) -> State:
        """Advance one control step, in which `action`, float32[action_size] in [-1, 1], is held."""
        before = state.data
        # Slots stand for what the walker can touch from where it is now.
        boxes = self.arena.boxes(before.layout, before.root, self.walker.reach)
        slots = {"mocap_pos": boxes.position, "geom_size": boxes.size}
        simulated = dataclasses.replace(before.physics, **slots)
        simulated = self._physics.step(simulated, self._control(action))
        poses = self._kinematics(simulated.qpos)
        root, com = poses.xpos[self._root], poses.subtree_com[self._root]
        data = Data(simulated, before.layout, root, com, before.task)
        now = self._now(data, poses, (data.com - before.com) / self.dt)
        outcome = self.task.judge(now, action, self.arena, self.dt)
        task = before.task if outcome.task is None else outcome.task
        failed = outcome.failed | simulated.failed
        # A task judges the last state before physics broke down.
        success = jnp.where(simulated.failed, 0.0, outcome.success)
        outcome = dataclasses.replace(outcome, success=success)
        truncated = jnp.asarray(outcome.truncated, bool)
        return State(
            data=dataclasses.replace(data, task=task),
            obs=self._observe(dataclasses.replace(now, task=task)),
            reward=jnp.asarray(outcome.reward, jnp.float32),
            done=(failed | truncated).astype(jnp.float32),
            metrics=self._metrics(outcome),
            info={
                "truncation": (truncated & ~failed).astype(jnp.float32),
                "failed": simulated.failed,
            },
        )

    def camera(self, name: str, height: int, width: int) -> Camera:
        """Return one of the walker's cameras, by its name without the walker's prefix.

        Raises:
            ValueError: there is no such camera, or the image would be empty.
        """
        if name not in self.cameras:
            raise ValueError(f"the walker has no camera {name!r}; it has {', '.join(self.cameras)}")
        return self.pictures.camera(WALKER + name, height, width)

    def draw(self, data: Data, camera: Camera) -> jax.Array:
        """Draw the image uint8[H, W, 3] that `camera` takes of one state; an image of one of `eyes`
        is in their modality."""
        poses, visible = self._kinematics(data.physics.qpos), self._visible(data)
        if self.vision is None or camera not in self.eyes.values():
            return self.pictures.draw(camera, poses, visible).rgb
        image = self.sight.draw(camera, poses, visible)
        return jnp.broadcast_to(see(self.vision, self.sight.scene, image), image.rgb.shape)

    def whole(self, data: Data) -> mujoco.MjModel:
        """Return the model of the whole layout of one state; its `qpos` has the same entries."""
        parts = self.arena, self.walker, self.task, self.simulation
        return models.whole_model(*parts, data.layout, data.task)

    def arrange(self, model: mujoco.MjModel, data: Data) -> None:
        """Move the things of the task, in a model from `whole`, to where they are in one state."""
        models.place_things(model, self.task, data.task)

    def tracked(self, model: mujoco.MjModel) -> int:
        """Return the id of the walker's root body in a model from `whole`."""
        return model.body(WALKER + self.walker.root).id

    def joints(self, data: Data) -> tuple[jax.Array, jax.Array]:
        """Return `qpos` float32[..., nq] and `qvel` float32[..., nv] of states."""
        return data.physics.qpos, data.physics.qvel

    def truth(self, data: Data) -> dict[str, jax.Array]:
        """Return what is true of one state, for analyses: float32 arrays by name.

        `position` [3] and `rotation` [3, 3] of the walker's root body, metres; `heading` [], that
        of `Walker.forward`, radians anticlockwise from the world's x; `qpos` and `qvel`; `sensors`,
        those of the simulation's settings; and `ahead`, whether it is observed or not.
        """
        now = self._now(data, self._kinematics(data.physics.qpos), jnp.zeros(3))
        facing = now.rotation @ jnp.asarray(self.walker.forward)
        return {
            "position": now.root,
            "rotation": now.rotation,
            "heading": jnp.arctan2(facing[1], facing[0]),
            "qpos": data.physics.qpos,
            "qvel": data.physics.qvel,
            "sensors": data.physics.sensordata[self._felt],
            "ahead": self._ahead(now),
        }

    @property
    def truth_attributes(self) -> Mapping[str, Mapping[str, Any]]:
        """Units, and names of the entries where they have some, of the arrays of `truth`."""
        positions, velocities = models.entries(self.model)
        ahead = [*self.arena.ahead_names, *self.task.ahead_names]
        return {
            "position": {"units": "m", "entries": ["x", "y", "z"]},
            "heading": {"units": "rad"},
            "qpos": {"units": "m, rad, or 1 in quaternions", "entries": positions},
            "qvel": {"units": "m/s or rad/s", "entries": velocities},
            "ahead": {"units": "m", **({"entries": ahead} if ahead else {})},
        }

    def _eyes(self, vision: VisionConfig) -> dict[str, Camera]:
        vision.check()
        eyes: dict[str, Camera] = {}
        for leaf, name in vision.cameras(self.walker.eye).items():
            camera = self.camera(name, vision.height, vision.width)
            eyes |= make_eyes(vision, leaf, camera)
        return eyes

    def _now(self, data: Data, poses: Poses, velocity: jax.Array) -> Now:
        return Now(
            data.physics,
            poses,
            data.root,
            poses.xmat[self._root],
            data.com,
            velocity,
            poses.xpos[self._end_effectors],
            (data.physics.sensordata[self._contacts] > 0).any(),
            data.layout,
            data.task,
            poses.xpos[self._head],
            poses.xmat[self._upright][:, 2, 2],
            self.arena.centre(data.layout),
            self._touched(data.task, poses),
        )

    def _touched(self, task: Any, poses: Poses) -> jax.Array | None:
        if not self.task.touches:
            return None
        things = self.task.visible(task)
        assert things is not None
        return self._surface.touches(poses, things.position, things.size[:, 0])

    def _observe(self, now: Now) -> dict[str, jax.Array]:
        feels = self.walker.proprioception(self.model, now)
        if self.simulation.sensors:
            felt = now.physics.sensordata[self._felt]
            feels = jnp.concatenate([feels, felt])
        if self.simulation.compass:
            feels = jnp.concatenate([feels, now.rotation[0]])
        obs = {PROPRIO: feels}
        for name, eye in self.eyes.items():
            assert self.vision is not None
            image = self.sight.draw(eye, now.poses, self._visible_of(now.arena, now.task))
            obs[name] = see(self.vision, self.sight.scene, image)
        if self._tells_ahead:
            obs[AHEAD] = self._ahead(now)
        return obs

    def _ahead(self, now: Now) -> jax.Array:
        return jnp.concatenate([self.arena.ahead(now.arena, now.root), self.task.ahead(now)])

    def _visible(self, data: Data) -> Visible:
        return self._visible_of(data.layout, data.task)

    def _visible_of(self, layout: Any, task: Any) -> Visible:
        seen, things = self.arena.visible(layout), self.task.visible(task)
        if things is None:
            return seen
        geoms = [x for x in (seen.geoms, things) if x is not None]
        position, size = (
            jnp.concatenate([getattr(x, name) for x in geoms]) for name in ("position", "size")
        )
        return dataclasses.replace(seen, geoms=Boxes(position, size))

    def _control(self, action: jax.Array) -> jax.Array:
        if self._range is None:
            return action
        middle, half = self._range
        return middle + half * action

    def _metrics(self, outcome: Outcome) -> dict[str, jax.Array]:
        own = {"obstacles_passed": outcome.passed, "success": outcome.success}
        return {k: jnp.asarray(x, jnp.float32) for k, x in {**outcome.metrics, **own}.items()}
