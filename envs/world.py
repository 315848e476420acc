"""dm_control's gap corridor and ant, composed and compiled.

Three models of one world, whose walkers have the same names and the same positions in `qpos`:

- `physics_model`: what an engine steps. Three slabs stand for the platforms around the walker.
- `visual_model`: the same bodies and ids, with the looks.
- `arena_model`: every platform of one layout, as dm_control builds them. The ground truth.
"""

import dataclasses
import math
from collections.abc import Sequence

import mujoco
import numpy as np
from dm_control import mjcf
from dm_control.locomotion import arenas, walkers

from envs.corridor import (
    HALF_THICKNESS,
    NUM_SLABS,
    PARKED,
    CorridorConfig,
    Layout,
    validate,
)

WALKER = "walker/"
"""Prefix of the names of the walker's parts; also its root, the body with the free joint."""
TORSO = WALKER + "torso"
EGOCENTRIC = WALKER + "egocentric"
"""The camera in the walker's head."""
SLABS = tuple(f"slab_{i}" for i in range(NUM_SLABS))
"""Mocap bodies and their geoms: the platforms around the walker."""
PLANES = ("ground", "left_wall", "right_wall", "near_wall", "far_wall")
"""The arena's planes, in dm_control's order. The ground is 10 m below the platforms."""
SPAWN = (5.0, 0.0, 0.0)
"""Metres, where the walker's root starts."""
MJX_CONTACTS = 24
"""Contacts that MJX solves for, the deepest of the 45 that it looks for. 24 are 2 points of each of
4 feet with 2 slabs and a wall, all at once. Solving for 45 costs a third more (16 environments)."""

_SOLVERS = ("newton", "cg")
_CONES = ("pyramidal", "elliptic")


@dataclasses.dataclass(frozen=True)
class PhysicsConfig:
    """How the engine integrates. Names are MJCF's (`option`)."""

    solver: str = "newton"
    """newton or cg."""
    iterations: int = 4
    """Most steps of the solver."""
    ls_iterations: int = 4
    """Most steps of each of its line searches."""
    cone: str = "pyramidal"
    """Friction cone: pyramidal or elliptic (dm_control's own)."""
    noslip_iterations: int = 0
    """dm_control's own is 5. MJX has no such solver: anything but 0 needs the `mujoco` back end."""
    physics_timestep: float = 0.005
    """Seconds."""
    control_timestep: float = 0.025
    """Seconds; a whole number of physics time steps."""
    sensors: tuple[str, ...] = ()
    """Sensors of the walker to compute, such as walker/torso_gyro. The others are left out: they
    cost time, and nothing depends on them."""

    @property
    def num_substeps(self) -> int:
        """Physics steps in a control step.

        Raises:
            ValueError: the control time step is no multiple of the physics time step.
        """
        physics, control = self.physics_timestep, self.control_timestep
        if not (math.isfinite(physics) and physics > 0):
            raise ValueError(f"physics_timestep is {physics}; it has to be above 0 s.")
        n = round(control / physics) if math.isfinite(control) else 0
        if n < 1 or not math.isclose(n * physics, control, rel_tol=1e-6):
            raise ValueError(
                f"control_timestep is {control} s and physics_timestep {physics} s; the first has "
                "to be a whole number of times the second."
            )
        return n


def physics_model(
    corridor: CorridorConfig, config: PhysicsConfig, back_end: str = "mujoco"
) -> mujoco.MjModel:
    """The world as an engine steps it: planes, walker, and three slabs without any looks.

    The slabs are mocap bodies behind the walker, in the order of bodies too: before it, they would
    change the order of contacts, and so the last bits of every result.

    For `mjx` fewer pairs of geoms collide, since MJX computes all of them at every step: the
    walker's feet and torso with the slabs and the two side walls. Its legs pass through platforms.
    The ground and the walls at both ends are left out: an ant that is near them has left the
    platforms, which ends the episode.

    Args:
        corridor: its sizes.
        config: the engine's options.
        back_end: "mujoco" or "mjx".

    Raises:
        ValueError: a setting cannot be.
    """
    root, assets = _slab_world(corridor, config)
    for texture in root.find_all("texture"):
        texture.remove()
    model = _compile(root, assets)
    if back_end == "mjx":
        keep_contacts(model, _mjx_colliders(model))
    elif back_end != "mujoco":
        raise ValueError(f"unknown physics back end {back_end!r}; use mujoco or mjx.")
    return model


def visual_model(corridor: CorridorConfig, config: PhysicsConfig) -> mujoco.MjModel:
    """`physics_model` with textures and sky: the same bodies, geoms, cameras and ids. For looking,
    not for stepping: it takes 5 MB."""
    return _compile(*_slab_world(corridor, config))


def arena_model(layout: Layout, corridor: CorridorConfig, config: PhysicsConfig) -> mujoco.MjModel:
    """The whole corridor, every platform where `layout` has it, as dm_control builds it.

    Platforms are static geoms named start_floor, floor_0, floor_1, ...; all geoms may collide. The
    sizes are those of `corridor.slab_boxes`, to the last bit.

    Args:
        layout: with concrete arrays.
        corridor: the sizes that `layout` was drawn with.
        config: the engine's options.

    Raises:
        ValueError: a setting cannot be.
    """
    root, _ = _arena_and_walker(corridor, config)
    platforms = root.find("body", "ground")
    look = _look(root)
    starts = np.asarray(layout.starts, np.float32)
    ends = np.asarray(layout.ends, np.float32)
    half = np.float32(0.5)
    for i in np.flatnonzero(starts < PARKED):
        platforms.add(
            "geom",
            name="start_floor" if i == 0 else f"floor_{i - 1}",
            type="box",
            pos=[half * (starts[i] + ends[i]), 0, np.float32(-HALF_THICKNESS)],
            size=[half * (ends[i] - starts[i]), *_cross_section(corridor)],
            **look,
        )
    return _compile(root, root.get_assets())


def walker_cameras(model: mujoco.MjModel) -> tuple[str, ...]:
    """Names of the walker's cameras, without the prefix of the walker."""
    names = [model.camera(i).name for i in range(model.ncam)]
    return tuple(n.removeprefix(WALKER) for n in names if n.startswith(WALKER))


def keep_contacts(model: mujoco.MjModel, geoms: Sequence[str]) -> None:
    """Lets only `geoms` collide in `model`, with each other as far as they did before."""
    kept = {model.geom(name).id for name in geoms}
    dropped = [g for g in range(model.ngeom) if g not in kept]
    model.geom_contype[dropped] = 0
    model.geom_conaffinity[dropped] = 0


def _mjx_colliders(model: mujoco.MjModel) -> list[str]:
    names = [model.geom(g).name for g in range(model.ngeom)]
    limbs = [n for n in names if n.startswith(WALKER) and ("ankle" in n or "torso" in n)]
    return [*limbs, *SLABS, "left_wall", "right_wall"]


def _arena_and_walker(
    corridor: CorridorConfig, config: PhysicsConfig
) -> tuple[mjcf.RootElement, mjcf.RootElement]:
    """The corridor without its platforms, and the walker in it."""
    validate(corridor)
    if corridor.aesthetic not in ("outdoor_natural", "default"):
        raise ValueError(
            f"corridor aesthetic is {corridor.aesthetic!r}; use outdoor_natural or default."
        )
    arena = arenas.GapsCorridor(
        platform_length=corridor.platform_length[0],
        gap_length=corridor.gap_length[0],
        corridor_width=corridor.width,
        corridor_length=corridor.length,
        aesthetic=corridor.aesthetic,
    )
    arena.regenerate(np.random.RandomState(0))
    root = arena.mjcf_model
    root.find("body", "ground").geom.clear()
    for plane, name in zip(root.worldbody.geom, PLANES, strict=True):
        plane.name = name
    walker = walkers.Ant()
    walker.create_root_joints(arena.attach(walker))
    walker.mjcf_model.root_model.find("attachment_frame", "walker").pos = SPAWN
    _set_options(root, config)
    _keep_sensors(root, config.sensors)
    return root, walker.mjcf_model


def _slab_world(
    corridor: CorridorConfig, config: PhysicsConfig
) -> tuple[mjcf.RootElement, dict[str, bytes]]:
    root, walker = _arena_and_walker(corridor, config)
    look = _look(root)
    root.find("body", "ground").remove()
    # The world's geoms meet the walker's and nothing else. Geoms of an ant never meet each other
    # within its joints' limits.
    for plane in root.worldbody.geom:
        plane.set_attributes(contype=0, conaffinity=1)
    for geom in walker.find_all("geom"):
        geom.set_attributes(contype=1, conaffinity=0)
    # MJX alone reads it.
    root.custom.add("numeric", name="max_contact_points", data=[MJX_CONTACTS])
    for i, name in enumerate(SLABS):
        # A floor under the ant until an environment moves them: looked at as it is, the model makes
        # sense, and its extent, by which MuJoCo scales near and far, stays that of the arena.
        x = SPAWN[0] + 2.0 * (i - NUM_SLABS // 2)
        slab = root.worldbody.add("body", name=name, mocap=True, pos=[x, 0, -HALF_THICKNESS])
        slab.add(
            "geom",
            name=name,
            type="box",
            size=[1.0, *_cross_section(corridor)],
            contype=0,
            conaffinity=1,
            **look,
        )
    return root, root.get_assets()


def _cross_section(corridor: CorridorConfig) -> tuple[float, float]:
    """Half sizes along y and z, rounded as `corridor.slab_boxes` has them."""
    return float(np.float32(0.5 * corridor.width)), float(np.float32(HALF_THICKNESS))


def _look(root: mjcf.RootElement) -> dict[str, object]:
    material = root.find("material", "aesthetic_material")
    return {"material": material} if material is not None else {"rgba": [0.5, 0.5, 0.5, 1]}


def _set_options(root: mjcf.RootElement, config: PhysicsConfig) -> None:
    for name, known in (("solver", _SOLVERS), ("cone", _CONES)):
        if getattr(config, name) not in known:
            raise ValueError(f"{name} is {getattr(config, name)!r}; use one of {', '.join(known)}.")
    for name, least in (("iterations", 1), ("ls_iterations", 1), ("noslip_iterations", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} is {getattr(config, name)}; it has to be at least {least}.")
    _ = config.num_substeps
    root.option.set_attributes(
        timestep=config.physics_timestep,
        solver={"newton": "Newton", "cg": "CG"}[config.solver],
        iterations=config.iterations,
        ls_iterations=config.ls_iterations,
        cone=config.cone,
        noslip_iterations=config.noslip_iterations,
    )


def _keep_sensors(root: mjcf.RootElement, names: Sequence[str]) -> None:
    sensors = {sensor.full_identifier: sensor for sensor in root.find_all("sensor")}
    for name in names:
        if name not in sensors:
            raise ValueError(f"unknown sensor {name!r}; there are {', '.join(sorted(sensors))}.")
    for name, sensor in sensors.items():
        if name not in names:
            sensor.remove()


def _compile(root: mjcf.RootElement, assets: dict[str, bytes]) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(root.to_xml_string(), assets)
