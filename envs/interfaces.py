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
from envs.mjcf_defaults import collides
from envs.physics import PhysicsState

Scalar = jax.Array | float
"""float32[] or bool[], or a constant number."""
WALKER = "walker/"
"""Prefix of the names of the walker's parts in a model; also the name of its attachment frame."""


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
    """The geoms of an episode's layout that cameras see, besides the fixed geoms of the model.

    Attributes:
        geoms: positions and sizes of `Arena.visible_geoms`, in that order; None for none.
        row: float32[P, 2], start and end along x, metres, of boxes that look like the slots and are
            drawn as one primitive at little cost (see `envs.camera.Scene`); None for none.
    """

    geoms: Boxes | None = None
    row: jax.Array | None = None


@struct.dataclass
class Pose:
    """The place where a walker starts.

    Attributes:
        position: float32[3], relative to the arena's `start`, metres. Uneven ground sets the
            height itself (`Arena.ground`).
        yaw: float32[], anticlockwise about the vertical, radians.
        rotation: float32[4], a unit quaternion (w, x, y, z) in place of `yaw`, for walkers whose
            first joint is free; None for upright walkers.
    """

    position: jax.Array
    yaw: jax.Array
    rotation: jax.Array | None = None


@struct.dataclass
class Places:
    """The places of an arena at which tasks put targets.

    Attributes:
        position: float32[G, 3], on the ground, metres.
        there: bool[G], which of them this layout has.
    """

    position: jax.Array
    there: jax.Array


@struct.dataclass
class Progress:
    """A walker's progress through an arena.

    Attributes:
        arrived: bool[], whether this is the end of the arena, where the episode is truncated.
        passed: float32[], number of obstacles behind the walker.
        metrics: float32[] by name, to be logged.
    """

    arrived: Scalar = False
    passed: Scalar = 0.0
    metrics: Mapping[str, jax.Array] = struct.field(default_factory=dict)


@struct.dataclass
class Now:
    """The state of an environment that walkers and tasks get.

    Attributes:
        physics: the state of the back end; `physics.sensordata` has the sensors asked for.
        poses: the poses of all bodies, geoms and cameras.
        root: float32[3], position of the walker's root body, metres.
        rotation: float32[3, 3], the root body's axes in the world, as columns.
        com: float32[3], centre of mass of the root body's subtree, metres.
        velocity: float32[3], mean velocity of `com` over the last control step, m/s.
        end_effectors: float32[E, 3], positions of the walker's end effectors, metres.
        fallen: bool[], whether anything but the walker's feet touches something, for tasks that ask
            for `contacts`; else false.
        arena: the arena's layout of this episode.
        task: the task's own state.
        head: float32[3], position of the body `Walker.head`, metres.
        upright: float32[U], height of the tips of unit vectors along the z axes of the bodies
            `Walker.upright`: 1 for a body that stands upright, -1 upside down.
        centre: float32[3], the middle of the arena's layout, `Arena.centre`, metres.
        touched: bool[V], which of the task's own spheres the walker touches, for tasks that ask for
            `touches`; else None.
    """

    physics: PhysicsState
    poses: Poses
    root: jax.Array
    rotation: jax.Array
    com: jax.Array
    velocity: jax.Array
    end_effectors: jax.Array
    fallen: jax.Array
    arena: Any
    task: Any
    head: jax.Array
    upright: jax.Array
    centre: jax.Array
    touched: jax.Array | None = None


@struct.dataclass
class Outcome:
    """A task's judgement of a step: the reward, and whether the episode ends.

    Attributes:
        reward: float32[].
        failed: bool[], whether the episode is terminated here.
        truncated: bool[], whether the episode is truncated here.
        success: float32[], 1 if the episode is a success so far, else 0.
        passed: float32[], number of obstacles passed: gaps, walls, targets.
        metrics: float32[] by name, to be logged.
        task: the task's own state for the next step; None if it does not change.
    """

    reward: Scalar
    failed: Scalar = False
    truncated: Scalar = False
    success: Scalar = 0.0
    passed: Scalar = 0.0
    metrics: Mapping[str, jax.Array] = struct.field(default_factory=dict)
    task: Any = None


class Walker(Protocol):
    """The body that acts. Names are those of its own model, without the prefix `walker/`.

    Attributes:
        root: name of the body whose position and centre of mass tasks read.
        eye: name of the camera that the policy sees through by default.
        film_camera: name of the camera that films by default.
        reach: distance from the root, along x and y, within which the walker can touch something
            during a control step, metres.
        self_collisions: whether its geoms may collide with each other; physics is faster without.
        mjx_contacts: maximum number of contacts that MJX solves for, the deepest; None for all.
        end_effectors: names of the bodies at the ends of its limbs.
        feet: names of the geoms that may touch the ground.
        sensors: names of the sensors that its proprioception reads in `Now.physics.sensordata`.
        hidden_groups: geom groups that the policy's pictures leave out, so that its eyes do not see
            the inside of its head; films show them.
        head: name of the body whose distance `escape` rewards; the root by default.
        upright: names of the bodies whose z axes have to point up in tasks that reward standing;
            the root by default.
        forward: direction in which the walker faces, in the axes of its root body; x by default.
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

    @property
    def end_effectors(self) -> Sequence[str]:  # noqa: D102
        return ()

    @property
    def feet(self) -> Sequence[str]:  # noqa: D102
        return ()

    @property
    def sensors(self) -> Sequence[str]:  # noqa: D102
        return ()

    @property
    def hidden_groups(self) -> Sequence[int]:  # noqa: D102
        return ()

    @property
    def head(self) -> str:  # noqa: D102
        return self.root

    @property
    def upright(self) -> Sequence[str]:  # noqa: D102
        return (self.root,)

    @property
    def forward(self) -> tuple[float, float, float]:  # noqa: D102
        return 1.0, 0.0, 0.0

    @abstractmethod
    def build(self) -> composer.Entity:
        """Return a dm_control entity whose MJCF model is named `walker` and is in radians."""
        ...

    @abstractmethod
    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return the names, in `model`, of the walker's geoms that collide in MJX."""
        ...

    @abstractmethod
    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return `qpos` float32[nq] and `qvel` float32[nv] at the start of an episode."""
        ...

    @abstractmethod
    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[n], the walker's observation of its own body."""
        ...


class Arena(Protocol):
    """The surroundings of a walker. Its layout, a pytree of arrays, differs between episodes.

    A subclass has to define `build`; without the other methods every episode has the same arena.

    Attributes:
        start: position at which walkers are attached, metres.
        reductions: how its metrics are reduced over the steps of an episode: "mean", "last" or
            "sum".
        ahead_names: what the entries of `ahead` are, for analyses; empty for their numbers.
    """

    @property
    def start(self) -> tuple[float, float, float]:  # noqa: D102
        return 0.0, 0.0, 0.0

    @property
    def reductions(self) -> Mapping[str, str]:  # noqa: D102
        return {}

    @property
    def ahead_names(self) -> Sequence[str]:  # noqa: D102
        return ()

    def check(self, reach: float) -> None:
        """Raise a ValueError if a setting is invalid or the walker's `reach` is too large."""
        return

    @abstractmethod
    def build(self) -> mjcf.RootElement:
        """Return the MJCF model of the fixed parts, in radians: floors, walls, sky, lights."""
        ...

    def slots(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the MJCF attributes of the slots, K boxes in place of all that a walker can touch.

        Before every step the environment moves and sizes the slots to `boxes`. The positions and
        sizes given here only matter for the model's extent and for viewing the model by itself.
        """
        return ()

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the MJCF attributes of the geoms that `visible` moves and sizes."""
        return ()

    def colliders(self) -> Sequence[str]:
        """Return the names of the geoms of `build` that collide in MJX, besides the slots."""
        return [geom.full_identifier for geom in filter(collides, self.build().find_all("geom"))]

    def draw(self, key: jax.Array) -> Any:
        """Draw the layout of an episode."""
        return ()

    def spawn(self, layout: Any, key: jax.Array) -> Pose:
        """Draw the pose at which the walker starts."""
        return Pose(jnp.zeros(3), jnp.zeros(()))

    def centre(self, layout: Any) -> jax.Array:
        """Return float32[3], the middle of a layout, from which tasks measure distances, metres."""
        return jnp.zeros(3)

    def ground(self, layout: Any, points: jax.Array) -> jax.Array | None:
        """Return float32[...], heights of uneven ground at points float32[..., 2], metres; None for
        ground on which walkers stand as they are built. On uneven ground they start as low as they
        touch nothing."""
        return None

    def places(self, layout: Any) -> Places | None:
        """Return the places at which tasks put targets; None for an arena that has none."""
        return None

    def boxes(self, layout: Any, position: jax.Array, reach: float) -> Boxes:
        """Return the K boxes that a walker at `position` (float32[3]) can touch within `reach`."""
        return Boxes(jnp.zeros((0, 3)), jnp.zeros((0, 3)))

    def visible(self, layout: Any) -> Visible:
        """Return the geoms of a layout that cameras see."""
        return Visible()

    def ahead(self, layout: Any, position: jax.Array) -> jax.Array:
        """Return float32[n], exact positions of the next obstacles after `position`, metres."""
        return jnp.zeros(0)

    def progress(self, layout: Any, position: jax.Array) -> Progress:
        """Return how far a walker at `position` (float32[3], metres) has come."""
        return Progress()

    def whole(self, layout: Any) -> mjcf.RootElement:
        """Return the model of a whole layout (concrete arrays) with static geoms, for viewers and
        for tests of slots and images."""
        return self.build()


class Task(Protocol):
    """The rewards and ends of episodes; a task may add objects of its own, such as a target.

    A subclass has to define `judge`; without the other methods the task has no objects.

    Attributes:
        reductions: how its metrics are reduced over the steps of an episode: "mean", "last" or
            "sum".
        ahead_names: what the entries of `ahead` are, for analyses; empty for their numbers.
        shown: metrics to print, with their titles.
        contacts: whether it reads `Now.fallen`, which takes sensors.
        touches: whether it reads `Now.touched`; `visible_geoms` then have to be spheres.
    """

    @property
    def contacts(self) -> bool:  # noqa: D102
        return False

    @property
    def touches(self) -> bool:  # noqa: D102
        return False

    @property
    def reductions(self) -> Mapping[str, str]:  # noqa: D102
        return {}

    @property
    def ahead_names(self) -> Sequence[str]:  # noqa: D102
        return ()

    @property
    def shown(self) -> Mapping[str, str]:  # noqa: D102
        return {}

    def check(self) -> None:
        """Raise a ValueError if a setting is invalid."""
        return

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return the MJCF attributes of the task's own geoms, which collide with nothing."""
        return ()

    def draw(self, key: jax.Array) -> Any:
        """Draw the task's state at the start of an episode; `()` if it has none."""
        return ()

    def place(self, state: Any, places: Places | None, key: jax.Array) -> Any:
        """Return a state from `draw` with the task's own objects at places of the arena.

        Args:
            state: the state, which the task may return as it is.
            places: the places; None for an arena that has none.
            key: a PRNG key.

        Raises:
            ValueError: the task needs places.
        """
        return state

    def visible(self, state: Any) -> Boxes | None:
        """Return the positions and sizes of `visible_geoms`; None if there are none."""
        return None

    def ahead(self, now: Now) -> jax.Array:
        """Return float32[n], exact positions of the task's own objects, metres."""
        return jnp.zeros(0)

    @abstractmethod
    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Return the reward of the step of `dt` seconds in which `action` led to the state `now`,
        and whether the episode ends."""
        ...


def check_range(name: str, values: tuple[float, float], least: float = -float("inf")) -> None:
    """Raise a ValueError unless `values` are (lowest, highest), finite and not below `least`."""
    low, high = values
    if not (least <= low <= high < math.inf and low > -math.inf):
        more = f", the lowest at least {least:g}" if least > -float("inf") else ""
        raise ValueError(f"{name} is ({low}, {high}); it has to be (lowest, highest){more}")


def check_least_upright(value: float | None) -> None:
    """Raise a ValueError unless a task's `least_upright` is None or from -1 to 1."""
    if value is not None and not -1 <= value <= 1:
        raise ValueError(
            f"task.least_upright is {value}; it has to be from -1, upside down, to 1, upright"
        )


def check_noise_and_reach(reset_noise: float, reach: float, unit: str = "m") -> None:
    """Raise a ValueError unless `reset_noise` is 0 or more and `reach` is positive, both finite."""
    if not 0 <= reset_noise < math.inf:
        raise ValueError(f"walker.reset_noise is {reset_noise}; it has to be 0 or more, and finite")
    if not 0 < reach < math.inf:
        raise ValueError(f"walker.reach is {reach} {unit}; it has to be positive and finite")
