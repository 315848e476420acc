"""The gap ant: dm_control's ant runs dm_control's corridor of platforms and gaps.

Reward and termination are a task's: no learning is known here, and no physics engine either.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs import physics, world
from envs.camera import Camera, Image, Scene, render
from envs.corridor import CorridorConfig, Layout, draw_layout, gaps_crossed, slab_boxes
from envs.kinematics import Kinematics, Poses
from envs.world import PhysicsConfig
from vnl_ppo.env import State

END_MARGIN = 1.0
"""Metres before the corridor's length at which an episode ends."""


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Weight of each term of the reward."""

    forward: float = 5.0
    """Times the x-velocity of the centre of mass of the torso's subtree, m/s."""
    control: float = 0.1
    """Times the sum of squared actions; subtracted."""
    healthy: float = 0.5
    """Each step."""
    time: float = 5.0
    """Times the duration of a control step, s."""
    distance: float = 0.0
    """Times the distance from the start along x, m; negative behind it."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The ant's eyes."""

    camera: str = "egocentric"
    """A camera of the walker, by name; several with commas between them, for an eye each."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    modality: Literal["rgb", "gray", "depth", "segmentation"] = "rgb"
    """What a pixel tells, in bytes: three colours; brightness; depth along the optical axis, 255 at
    `max_depth` and beyond; or which geom is seen, an even spread of grays from 0 for the sky to
    255 for the platforms."""
    max_depth: float = 10.0
    """Metres, the depth that is told apart from no farther one."""
    supersample: int = 1
    """Every colour is the mean of so many times so many rays: smooth edges at their cost."""


@dataclasses.dataclass(frozen=True)
class GapAntConfig:
    """The world and the task."""

    corridor: CorridorConfig = CorridorConfig()
    simulation: PhysicsConfig = PhysicsConfig()
    reward: RewardConfig = RewardConfig()
    healthy_height: tuple[float, float] = (0.0, 1.0)
    """The episode fails when the torso's height leaves this range, m."""
    reset_noise: float = 1e-2
    """Half-width of the uniform noise on positions at a reset, and deviation of the normal noise
    on velocities."""


@struct.dataclass
class GapAntData:
    """What a gap ant needs to go on.

    Attributes:
        physics: the engine's state.
        layout: this episode's corridor.
        torso: float32[3], the torso's position, m.
        com: float32[3], the centre of mass of the torso's subtree, m.
    """

    physics: physics.PhysicsState
    layout: Layout
    torso: jax.Array
    com: jax.Array


class GapAnt:
    """The environment, see `vnl_ppo.env.Env`.

    Observations: `proprio`, float32[27], is qpos without x and y, then qvel; `vision`,
    uint8[H, W, C], is what the egocentric camera sees, in 3 colours or 1 of the other modalities,
    unless the ant is blind. Several eyes have a leaf each, `vision_` and the camera's name.

    An episode fails when the torso's height leaves its range or the physics breaks down. It is cut
    short, not failed, where the corridor ends (`info["truncation"]`).

    Metrics: the terms of the reward (`reward_linvel` is `forward_reward`, `reward_quadctrl` the
    control cost, `reward_alive` the healthy reward, `train_reward` the time's), the torso's
    position, the velocity of its subtree's centre of mass, the distance from where it started,
    and how many gaps lie behind it.

    Args:
        config: the world and the task.
        vision: the eyes, or None for a blind ant.
        back_end: "mujoco", "mjx" or "auto", see `envs.physics.make_physics`.

    Raises:
        ValueError: a setting cannot be; nothing has been compiled yet.
    """

    metric_reductions: Mapping[str, str] = {
        "x_position": "last",
        "y_position": "last",
        "distance_from_origin": "last",
        "gaps_crossed": "last",
    }

    def __init__(
        self,
        config: GapAntConfig | None = None,
        vision: VisionConfig | None = None,
        back_end: str = "auto",
    ) -> None:
        self.config = config = config or GapAntConfig()
        _check(config)
        self.vision = vision
        self.back_end = physics.choose(back_end)
        self.dt = config.simulation.control_timestep
        self.model = world.physics_model(config.corridor, config.simulation, self.back_end)
        self.looks = world.visual_model(config.corridor, config.simulation)
        self.scene = Scene.from_model(self.looks, row=world.SLABS)
        self.eyes = self._eyes(vision) if vision else {}
        self.eye = next(iter(self.eyes.values()), None)
        self._physics = physics.make_physics(
            self.back_end, self.model, config.simulation.num_substeps
        )
        self._kinematics = Kinematics(self.model)
        self._torso = self.model.body(world.TORSO).id

    @property
    def observation_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every leaf of an observation."""
        size = self.model.nq - 2 + self.model.nv
        spec = {"proprio": jax.ShapeDtypeStruct((size,), jnp.float32)}
        for name, eye in self.eyes.items():
            shape = (eye.height, eye.width, 3 if self._modality == "rgb" else 1)
            spec[name] = jax.ShapeDtypeStruct(shape, jnp.uint8)
        return spec

    @property
    def action_size(self) -> int:
        """Number of motors."""
        return self.model.nu

    def reset(self, key: jax.Array) -> State:
        """Begin an episode in a corridor of its own."""
        layout_key, position_key, velocity_key = jax.random.split(key, 3)
        layout = draw_layout(layout_key, self.config.corridor)
        noise = self.config.reset_noise
        at_rest = jnp.asarray(self.model.qpos0, jnp.float32)
        qpos = at_rest + jax.random.uniform(
            position_key, at_rest.shape, minval=-noise, maxval=noise
        )
        # Entries 3 to 6 are the root's orientation, a unit quaternion.
        qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
        qvel = noise * jax.random.normal(velocity_key, (self.model.nv,))
        return self.at(qpos, qvel, layout)

    def at(self, qpos: jax.Array, qvel: jax.Array, layout: Layout) -> State:
        """The state of an ant that was put somewhere.

        Args:
            qpos: float32[nq], as `mujoco.MjData`'s.
            qvel: float32[nv].
            layout: the corridor.
        """
        poses = self._kinematics(qpos)
        torso = poses.xpos[self._torso]
        slabs = slab_boxes(layout, torso[0], self.config.corridor)
        engine = self._physics.init(qpos, qvel, *slabs)
        data = GapAntData(engine, layout, torso, poses.subtree_com[self._torso])
        zero = jnp.zeros(())
        _, metrics = self._reward(data, jnp.zeros(3), jnp.zeros(self.action_size))
        metrics = jax.tree.map(jnp.zeros_like, metrics)
        return State(data, self._observe(data, poses), zero, zero, metrics, {"truncation": zero})

    def step(self, state: State, action: jax.Array) -> State:
        """Hold `action`, float32[8] in [-1, 1], for a control step."""
        before = state.data
        # The slabs stand for the platforms that the ant can reach from where it is now.
        mocap_pos, geom_size = slab_boxes(before.layout, before.torso[0], self.config.corridor)
        engine = before.physics.replace(mocap_pos=mocap_pos, geom_size=geom_size)
        engine = self._physics.step(engine, action)
        poses = self._kinematics(engine.qpos)
        data = before.replace(
            physics=engine, torso=poses.xpos[self._torso], com=poses.subtree_com[self._torso]
        )

        reward, metrics = self._reward(data, (data.com - before.com) / self.dt, action)
        lowest, highest = self.config.healthy_height
        height = data.torso[2]
        failed = (height < lowest) | (height > highest) | engine.failed
        # The torso must not walk off the last platform, which ends less than a gap before this.
        arrived = data.torso[0] > self.config.corridor.length - END_MARGIN
        return State(
            data=data,
            obs=self._observe(data, poses),
            reward=reward,
            done=(failed | arrived).astype(jnp.float32),
            metrics=metrics,
            info={"truncation": (arrived & ~failed).astype(jnp.float32)},
        )

    def camera(self, name: str, height: int, width: int) -> Camera:
        """One of the walker's cameras, by its name without the walker's prefix.

        Raises:
            ValueError: there is no such camera, or the picture would be empty.
        """
        if name not in (names := world.walker_cameras(self.looks)):
            raise ValueError(f"the walker has no camera {name!r}; it has {', '.join(names)}")
        return Camera.from_model(self.looks, world.WALKER + name, height=height, width=width)

    def draw(self, data: GapAntData, camera: Camera) -> jax.Array:
        """uint8[H, W, 3], the picture that `camera` takes of one state; one of the ant's own eyes
        shows its modality."""
        image = self._render(data.layout, self._kinematics(data.physics.qpos), camera)
        seen = self._see(image) if camera in self.eyes.values() else image.rgb
        return jnp.broadcast_to(seen, image.rgb.shape)

    @property
    def _modality(self) -> str:
        return self.vision.modality if self.vision else "rgb"

    def _eyes(self, vision: VisionConfig) -> dict[str, Camera]:
        _check_vision(vision)
        names = [name.strip() for name in vision.camera.split(",")]
        leaves = ["vision"] if len(names) == 1 else [f"vision_{name}" for name in names]
        eyes = {}
        for leaf, name in zip(leaves, names, strict=True):
            eye = self.camera(name, vision.height, vision.width)
            eyes[leaf] = dataclasses.replace(eye, supersample=vision.supersample)
        return eyes

    def _observe(self, data: GapAntData, poses: Poses) -> dict[str, jax.Array]:
        obs = {"proprio": jnp.concatenate([data.physics.qpos[2:], data.physics.qvel])}
        for name, eye in self.eyes.items():
            obs[name] = self._see(self._render(data.layout, poses, eye))
        return obs

    def _see(self, image: Image) -> jax.Array:
        """uint8[H, W, C] of the ant's modality."""
        assert self.vision is not None
        if self._modality == "rgb":
            return image.rgb
        if self._modality == "gray":
            return image.gray[..., None]
        if self._modality == "depth":
            near = jnp.minimum(image.depth * (1 / self.vision.max_depth), 1)
            return jnp.round(near * 255).astype(jnp.uint8)[..., None]
        # Entry 0 is the sky, whose label is -1; the platforms come after all geoms.
        drawn = self.scene.geom_ids
        grays = np.zeros(self.scene.num_geoms + 2, np.uint8)
        grays[drawn + 1] = np.round(255 * np.arange(1, len(drawn) + 1) / (len(drawn) + 1))
        grays[-1] = 255
        return jnp.asarray(grays)[jnp.minimum(image.segmentation + 1, len(grays) - 1)][..., None]

    def _render(self, layout: Layout, poses: Poses, camera: Camera) -> Image:
        drawn = self.scene.geom_ids
        eye = self.looks.camera(camera.name).id
        return render(
            self.scene,
            camera,
            poses.geom_xpos[drawn],
            poses.geom_xmat[drawn],
            jnp.asarray(self.scene.sizes),
            poses.cam_xpos[eye],
            poses.cam_xmat[eye],
            jnp.stack([layout.starts, layout.ends], axis=-1),
        )

    def _reward(
        self, data: GapAntData, velocity: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        weight = self.config.reward
        from_start = data.torso[:2] - jnp.asarray(world.SPAWN[:2])
        forward = weight.forward * velocity[0]
        control = -weight.control * jnp.square(action).sum()
        healthy = jnp.float32(weight.healthy)
        duration = jnp.float32(weight.time * self.dt)
        distance = weight.distance * from_start[0]
        metrics = {
            "forward_reward": forward,
            "reward_linvel": forward,
            "reward_quadctrl": control,
            "reward_alive": healthy,
            "train_reward": duration,
            "distance_reward": distance,
            "x_position": data.torso[0],
            "y_position": data.torso[1],
            "x_velocity": velocity[0],
            "y_velocity": velocity[1],
            "distance_from_origin": jnp.linalg.norm(from_start),
            "gaps_crossed": gaps_crossed(data.layout, data.torso[0]).astype(jnp.float32),
        }
        return forward + control + healthy + duration + distance, metrics


def _check(config: GapAntConfig) -> None:
    lowest, highest = config.healthy_height
    if not lowest < highest:
        raise ValueError(
            f"healthy_height is {lowest} to {highest} m; the first has to be the smaller one"
        )
    if config.reset_noise < 0:
        raise ValueError(f"reset_noise is {config.reset_noise}; it has to be 0 or more")
    start = world.SPAWN[0] + END_MARGIN
    if config.corridor.length <= start:
        raise ValueError(
            f"corridor.length is {config.corridor.length} m; the ant starts at {world.SPAWN[0]} m "
            f"and stops {END_MARGIN} m before the end, so it has to be more than {start} m"
        )


def _check_vision(vision: VisionConfig) -> None:
    modalities = get_args(VisionConfig.__annotations__["modality"])
    if vision.modality not in modalities:
        raise ValueError(
            f"vision.modality is {vision.modality!r}; it has to be one of {', '.join(modalities)}"
        )
    if not vision.max_depth > 0:
        raise ValueError(f"vision.max_depth is {vision.max_depth} m; it has to be above 0")
    names = [name.strip() for name in vision.camera.split(",")]
    if len(set(names)) < len(names):
        raise ValueError(f"vision.camera is {vision.camera!r}; it names a camera twice")
