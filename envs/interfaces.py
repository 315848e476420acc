"""Define what an arena, a walker and a task provide, and the values that they exchange.

An environment (`envs.locomotion.Locomotion`) is composed of one of each. All three are frozen
dataclasses whose fields are their settings; none knows the other two. Every function that is given
arrays is traced by JAX for one environment, without a batch axis: `jax.vmap` makes the batch.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import mujoco
from dm_control import composer, mjcf
from flax import struct

from envs.kinematics import Poses
from envs.physics import PhysicsState

Scalar = jax.Array | float
"""float32[] or bool[], or a number that is the same at all times."""
WALKER = "walker/"
"""Prefix of the names of the walker's parts in a model; also the body that is attached there."""


@struct.dataclass
class Boxes:
    """Boxes aligned with the world's axes, or other geoms that have a position and a size.

    Attributes:
        position: float32[B, 3], centres, metres.
        size: float32[B, 3], half sizes of boxes (MuJoCo's `geom_size`), metres. Geoms of size 0 are
            not drawn.
    """

    position: jax.Array
    size: jax.Array


@struct.dataclass
class Visible:
    """The geoms of an episode's layout that cameras see, besides those that the model always has.

    Attributes:
        geoms: of each of `Arena.visible_geoms`, in their order; None where there are none.
        row: float32[P, 2], where boxes start and end along x, metres, which share all else with the
            slots (see `envs.camera.Scene`): many boxes for the price of a few. None without.
    """

    geoms: Boxes | None = None
    row: jax.Array | None = None


@struct.dataclass
class Pose:
    """Where a walker is put.

    Attributes:
        position: float32[3], from the arena's `start`, metres.
        yaw: float32[], anticlockwise about the vertical, radians.
    """

    position: jax.Array
    yaw: jax.Array


@struct.dataclass
class Progress:
    """How far a walker has come in an arena.

    Attributes:
        arrived: bool[], whether the arena ends here: the episode is cut short.
        passed: float32[], obstacles that lie behind.
        metrics: float32[] by name.
    """

    arrived: Scalar = False
    passed: Scalar = 0.0
    metrics: Mapping[str, jax.Array] = struct.field(default_factory=dict)


@struct.dataclass
class Now:
    """A state of an environment as walkers and tasks see it.

    Attributes:
        physics: the state of the back end; `physics.sensordata` has the sensors asked for.
        poses: of all bodies, geoms and cameras.
        root: float32[3], position of the walker's root body, metres.
        rotation: float32[3, 3], its axes in the world, as columns.
        com: float32[3], centre of mass of the root body's subtree, metres.
        velocity: float32[3], of that centre of mass over the last control step, m/s.
        arena: the arena's layout of this episode.
        task: the task's own state.
    """

    physics: PhysicsState
    poses: Poses
    root: jax.Array
    rotation: jax.Array
    com: jax.Array
    velocity: jax.Array
    arena: Any
    task: Any


@struct.dataclass
class Outcome:
    """A task's judgement of a step.

    Attributes:
        reward: float32[].
        failed: bool[], whether the episode ends here without a value of what would come.
        truncated: bool[], whether it is cut short here.
        success: float32[], 1 where the episode counts as a success as it stands.
        passed: float32[], obstacles passed: gaps, walls, targets.
        metrics: float32[] by name.
        task: the task's own state for the next step; None where it stays as it is.
    """

    reward: Scalar
    failed: Scalar = False
    truncated: Scalar = False
    success: Scalar = 0.0
    passed: Scalar = 0.0
    metrics: Mapping[str, jax.Array] = struct.field(default_factory=dict)
    task: Any = None


class Walker(Protocol):
    """A body. Names are those of its own model, without the prefix `walker/`.

    Attributes:
        root: name of the body whose position and centre of mass tasks read.
        eye: name of the camera that the policy sees through, unless settings name another.
        film_camera: name of the camera that films it, unless another is asked for.
        reach: metres from its root, along x and y, within which it can touch anything within a
            control step.
        self_collisions: whether its geoms may meet each other. Without, physics is faster.
        mjx_contacts: contacts that MJX solves for at most, the deepest ones; None for all.
    """

    @property
    def root(self) -> str: ...  # noqa: D102
    @property
    def eye(self) -> str: ...  # noqa: D102
    @property
    def film_camera(self) -> str: ...  # noqa: D102
    @property
    def reach(self) -> float: ...  # noqa: D102
    @property
    def self_collisions(self) -> bool: ...  # noqa: D102
    @property
    def mjx_contacts(self) -> int | None: ...  # noqa: D102

    @abstractmethod
    def build(self) -> composer.Entity:
        """Return the body as dm_control has it, whose model is named `walker`."""
        ...

    @abstractmethod
    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return the names, in `model`, of its geoms that MJX lets collide with the world."""
        ...

    @abstractmethod
    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return float32[nq] and float32[nv], positions and velocities to begin an episode with."""
        ...

    @abstractmethod
    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[n], what it feels of itself."""
        ...


class Arena(Protocol):
    """A place. What differs between episodes is its layout, a pytree of arrays.

    One that inherits from this class need only say how it is built: the rest are those of a place
    that is the same in every episode.

    Attributes:
        start: where walkers are attached, metres.
        reductions: how its metrics of an episode are summed up: "mean" over its steps, "last" or
            "sum".
    """

    @property
    def start(self) -> tuple[float, float, float]:  # noqa: D102
        return 0.0, 0.0, 0.0

    @property
    def reductions(self) -> Mapping[str, str]:  # noqa: D102
        return {}

    def check(self, reach: float) -> None:
        """Raise a ValueError where a setting is impossible or the walker's reach does not fit."""
        return

    @abstractmethod
    def build(self) -> mjcf.RootElement:
        """Return the model of what never changes: floors, walls, sky, lights; in radians."""
        ...

    def slots(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the MJCF attributes of K boxes that stand for what a walker can touch.

        The environment moves and sizes them to `boxes` before every step. Their own positions and
        sizes count for a model that is looked at as it is, and for its extent.
        """
        return ()

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the MJCF attributes of the geoms that `visible` moves and sizes."""
        return ()

    def colliders(self) -> Sequence[str]:
        """Return the names of the geoms of `build` that MJX lets collide, besides the slots."""
        root = self.build()
        return [geom.full_identifier for geom in root.find_all("geom") if geom.contype != 0]

    def draw(self, key: jax.Array) -> Any:
        """Draw the layout of an episode."""
        return ()

    def spawn(self, layout: Any, key: jax.Array) -> Pose:
        """Draw where an episode begins."""
        return Pose(jnp.zeros(3), jnp.zeros(()))

    def boxes(self, layout: Any, position: jax.Array, reach: float) -> Boxes:
        """Return the K boxes that a walker at `position` (float32[3]) can touch within `reach`."""
        return Boxes(jnp.zeros((0, 3)), jnp.zeros((0, 3)))

    def visible(self, layout: Any) -> Visible:
        """Return everything of a layout that cameras see."""
        return Visible()

    def ahead(self, layout: Any, position: jax.Array) -> jax.Array:
        """Return float32[n], the truth about what lies ahead of `position`, in metres."""
        return jnp.zeros(0)

    def progress(self, layout: Any, position: jax.Array) -> Progress:
        """Return how far `position` (float32[3]) is."""
        return Progress()

    def whole(self, layout: Any) -> mjcf.RootElement:
        """Return the model of a whole layout (concrete arrays) with static geoms: the truth that
        slots and pictures are held against, and what a viewer shows."""
        return self.build()


class Task(Protocol):
    """Rewards, and ends of episodes; it may bring things of its own, such as a target.

    One that inherits from this class need only judge: the rest are those of a task that brings
    nothing.

    Attributes:
        reductions: how its metrics of an episode are summed up: "mean" over its steps, "last" or
            "sum".
        shown: metrics that every script shows, with their titles.
    """

    @property
    def reductions(self) -> Mapping[str, str]:  # noqa: D102
        return {}

    @property
    def shown(self) -> Mapping[str, str]:  # noqa: D102
        return {}

    def check(self) -> None:
        """Raise a ValueError where a setting is impossible."""
        return

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the MJCF attributes of geoms of its own, which nothing collides with."""
        return ()

    def draw(self, key: jax.Array) -> Any:
        """Draw its state at the beginning of an episode; `()` if it has none."""
        return ()

    def visible(self, state: Any) -> Boxes | None:
        """Return where its geoms are; None without."""
        return None

    def ahead(self, now: Now) -> jax.Array:
        """Return float32[n], the truth about things of its own."""
        return jnp.zeros(0)

    @abstractmethod
    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Judge the state `now` that `action` led to in a control step of `dt` seconds."""
        ...


def check_range(name: str, values: tuple[float, float], least: float = -float("inf")) -> None:
    """Raise a ValueError unless `values` are (lowest, highest), finite and not below `least`."""
    low, high = values
    if not (least <= low <= high < math.inf and low > -math.inf):
        more = f", the lowest at least {least:g}" if least > -float("inf") else ""
        raise ValueError(f"{name} is ({low}, {high}); it has to be (lowest, highest){more}")
