"""Define a walker from the user's own MJCF file."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from dm_control import composer, mjcf

from envs.interfaces import WALKER, Now, Pose, Walker
from envs.postures import at_rest, with_free_root


class Body(composer.Entity):
    """A dm_control entity with a free joint, whose model is read from a file.

    Args:
        path: path of an MJCF file.
    """

    def _build(self, path: str) -> None:
        # MuJoCo reads it, since what a number means depends on the file's `compiler` (degrees,
        # order of Euler angles, total mass), of which a composed model has only one. What it
        # writes says the same in radians and quaternions, with six digits.
        spec = mujoco.MjSpec.from_file(path)
        spec.compile()
        self._root = mjcf.from_xml_string(spec.to_xml(), model_dir=os.path.dirname(path))
        self._root.model = WALKER.rstrip("/")
        # These are the world's, and a keyframe lacks the free joint.
        for part in (self._root.compiler, self._root.visual, self._root.statistic):
            part.remove()
        for key in self._root.keyframe.key:
            key.remove()

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        """The MJCF model, in radians and named `walker`."""
        return self._root

    def create_root_joints(self, frame: Any) -> None:
        """Add a free joint to the attachment frame."""
        frame.add("freejoint")


@dataclasses.dataclass(frozen=True)
class MjcfWalker(Walker):
    """A walker from an MJCF file whose worldbody holds one tree of bodies, as it stands on z = 0.

    The file has actuators and cameras, but no free joint and no floor. Its settings of the world
    are ignored except for `option` (gravity, density, ...), of which `--simulation.*` sets a part.
    `proprio` is qpos without x and y of the root, then qvel: float32[nq - 2 + nv].
    """

    path: str = ""
    """Path of the file, absolute or relative to the working directory."""
    root: str = "torso"
    """Name of the body whose position and centre of mass tasks read."""
    eye: str = "egocentric"
    """Name of the camera that the policy sees through, fixed to one of the walker's bodies."""
    film_camera: str = ""
    """Name of the camera that films the walker; empty for the eye."""
    reach: float = 1.0
    """Distance from the root along x and y within which the walker can touch something during a
    control step, metres."""
    reset_noise: float = 1e-2
    """Half-width of the uniform noise on positions at a reset, and standard deviation of the normal
    noise on velocities; 0 for none."""
    feet: tuple[str, ...] = ()
    """Names of the geoms that collide with the world in MJX; empty for all that can collide."""
    self_collisions: bool = True
    """Whether the walker's geoms may collide with each other as in the file; if not, they collide
    only with the world."""
    mjx_contacts: int | None = None
    """Maximum number of contacts that MJX solves for; None for all."""

    def __post_init__(self) -> None:
        if not self.film_camera:
            object.__setattr__(self, "film_camera", self.eye)
        if self.mjx_contacts is not None and self.mjx_contacts < 1:
            raise ValueError(
                f"walker.mjx_contacts is {self.mjx_contacts}; it has to be at least 1, or None"
            )
        for name, least in (("reach", "above 0"), ("reset_noise", "0 or more")):
            value = getattr(self, name)
            if not 0 <= value < float("inf") or (name == "reach" and value == 0):
                raise ValueError(f"walker.{name} is {value}; it has to be {least} and finite")

    def build(self) -> composer.Entity:
        """Return the entity that is read from the file.

        Raises:
            ValueError: there is no such file, it cannot be read, or its contents do not fit.
        """
        if not os.path.isfile(self.path):
            raise ValueError(
                f"walker.path is {self.path!r}, but there is no such file; give the path of an "
                f"MJCF file, from {os.getcwd()} or absolute"
            )
        try:
            body = Body(self.path)
        except Exception as error:
            # dm_control raises whatever its parser meets.
            reason = ", ".join((str(error).strip() or repr(error)).splitlines())
            raise ValueError(f"walker.path {self.path} cannot be read: {reason}") from error
        model = body.mjcf_model
        cameras = (("camera", name) for name in (self.eye, self.film_camera))
        wanted = [("body", self.root), *cameras, *(("geom", name) for name in self.feet)]
        for kind, name in wanted:
            if model.find(kind, name) is None:
                known = ", ".join(str(x.name) for x in model.find_all(kind)) or "none"
                raise ValueError(f"{self.path} has no {kind} {name!r}; it has {known}")
        if model.find_all("joint") and any(
            getattr(joint, "type", None) == "free" or joint.tag == "freejoint"
            for joint in model.find_all("joint")
        ):
            raise ValueError(
                f"{self.path} has a free joint; take it out: the walker gets one of its own"
            )
        if len(model.worldbody.body) != 1:
            raise ValueError(
                f"{self.path} has {len(model.worldbody.body)} bodies in its worldbody; it has to "
                f"have one, which contains the others"
            )
        if any(geom.type == "plane" for geom in model.find_all("geom")):
            raise ValueError(f"{self.path} has a plane, such as a floor; take it out of the file")
        if not model.find_all("actuator"):
            raise ValueError(f"{self.path} has no actuator, so nothing could act; add one")
        return body

    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return `feet`, or all of the walker's geoms that can collide."""
        if self.feet:
            return [WALKER + name for name in self.feet]
        names = [model.geom(g).name for g in range(model.ngeom) if model.geom_contype[g]]
        return [name for name in names if name.startswith(WALKER)]

    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the file's own posture at `pose`, with noise: float32[nq] and float32[nv]."""
        qpos, qvel = at_rest(model, self.reset_noise, position_key, velocity_key)
        return with_free_root(qpos, pose), qvel

    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[nq - 2 + nv]; see the class."""
        return jnp.concatenate([now.physics.qpos[2:], now.physics.qvel])
