"""Define a walker from the user's own MJCF file."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from dm_control import composer, mjcf

from envs.body_file import BodyOfFile, read_body
from envs.body_names import Wanted
from envs.interfaces import WALKER, Now, Pose, Walker, check_noise_and_reach
from envs.postures import at_rest, with_free_root

_told: set[str] = set()


class Body(composer.Entity):
    """A dm_control entity with a free joint, whose model was read from a file.

    Args:
        body: what was read.
    """

    def _build(self, body: BodyOfFile) -> None:
        self._root = mjcf.from_xml_string(body.xml, assets=dict(body.assets))
        self._root.model = WALKER.rstrip("/")
        self._free_joint = dict(body.free_joint)

    @property
    def mjcf_model(self) -> mjcf.RootElement:
        """The MJCF model, in radians and named `walker`."""
        return self._root

    def create_root_joints(self, frame: Any) -> None:
        """Add a free joint to the attachment frame, with the attributes of the file's own."""
        attributes = dict(self._free_joint)
        frame.add(attributes.pop("tag"), **attributes)


@dataclasses.dataclass(frozen=True)
class MjcfWalker(Walker):
    """A walker from any MJCF file: one of its trees of bodies, as it stands in the file.

    Floors, lights, other bodies, keyframes and skins are left behind, as is what refers to them; a
    note on stderr names them. Of the file's settings of the world only `option` stays (gravity,
    density, ...), of which `--simulation.*` sets a part. The tree's free joint is used, or it gets
    one. Names that are left empty are found when the walker is made, and are part of its settings
    from then on. `proprio` is qpos without x and y of the root, then qvel: float32[nq - 2 + nv].
    """

    path: str = ""
    """Path of the file, absolute or relative to the working directory."""
    tree: str = ""
    """Name of the body in the file's worldbody to take, with all bodies in it; empty for the only
    one that actuators move, or of several the only one with a free joint."""
    root: str = ""
    """Name of the body whose position and centre of mass tasks read; empty for the one named torso,
    or else the first of the tree."""
    eye: str = ""
    """Name of the camera that the policy sees through, fixed to one of the walker's bodies; empty
    for the only one, or one named egocentric. Where there is none, one is put before the body's
    foremost geom (along x, as it stands in the file) at the height of the root, and looks along
    x."""
    film_camera: str = ""
    """Name of the camera that films the walker; empty for the first that follows it, and where none
    does, one that is put behind it."""
    reach: float = 1.0
    """Distance from the root along x and y within which the walker can touch something during a
    control step, metres."""
    reset_noise: float = 1e-2
    """Half-width of the uniform noise on positions at a reset, and standard deviation of the normal
    noise on velocities; 0 for none."""
    feet: tuple[str, ...] = ()
    """Names of the geoms that may touch the ground; empty for the lowest ones, as the body stands
    in the file."""
    mjx_geoms: tuple[str, ...] = ()
    """Names of the geoms that collide with the world in MJX, which is faster with few; empty for
    all that can collide."""
    self_collisions: bool = True
    """Whether the walker's geoms may collide with each other as in the file; if not, they collide
    only with the world."""
    mjx_contacts: int | None = None
    """Maximum number of contacts that MJX solves for; None for all."""

    def __post_init__(self) -> None:
        if self.mjx_contacts is not None and self.mjx_contacts < 1:
            raise ValueError(
                f"walker.mjx_contacts is {self.mjx_contacts}; it has to be at least 1, or None"
            )
        check_noise_and_reach(self.reset_noise, self.reach)
        names = ("root", "eye", "film_camera", "feet")
        if all(getattr(self, name) for name in names):
            return
        # A walker may be described before its file is there; `build` says what is wrong.
        with contextlib.suppress(ValueError):
            found = self._read()
            for name in names:
                object.__setattr__(self, name, getattr(found, name))

    @property
    def end_effectors(self) -> tuple[str, ...]:
        """The bodies that `feet` belong to."""
        return self._read().end_effectors

    def build(self) -> composer.Entity:
        """Return the entity that is read from the file.

        Raises:
            ValueError: there is no such file, it cannot be read, or it is not clear which part is
                meant.
        """
        found = self._read()
        for note in found.notes:
            if note not in _told:
                _told.add(note)
                print(f"note: {note}", file=sys.stderr)
        return Body(found)

    def _read(self) -> BodyOfFile:
        names = {f.name: getattr(self, f.name) for f in dataclasses.fields(Wanted)}
        return read_body(self.path, Wanted(**names))

    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return `mjx_geoms`, or all of the walker's geoms that can collide."""
        if self.mjx_geoms:
            return [WALKER + name for name in self.mjx_geoms]
        solid = (model.geom_contype | model.geom_conaffinity) != 0
        names = [model.geom(g).name for g in range(model.ngeom) if solid[g]]
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
