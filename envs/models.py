"""Compose an arena, a walker and a task into MuJoCo models.

There are three models of one environment; the walker has the same names and `qpos` in all:

- `physics_model`: what a back end steps. Slots stand in for all that the walker can touch.
- `visual_model`: the same bodies and ids with textures, followed by the geoms that differ between
  episodes.
- `whole_model`: one layout with all its geoms in place, as the ground truth.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import jax
import mujoco
import numpy as np
from dm_control import mjcf

from envs.interfaces import WALKER, Arena, Task, Walker
from envs.mjcf_defaults import collides

_SOLVERS = {"newton": "Newton", "cg": "CG"}
_CONES = ("pyramidal", "elliptic")
CONTACTS = "contacts"
"""Beginning of the names of sensors of contacts."""
_HIDDEN = 4
"""A group of geoms that no renderer shows."""


@dataclasses.dataclass(frozen=True)
class SimulationConfig:
    """Settings of the physics. Names are those of MJCF's `option`."""

    solver: str = "newton"
    """Constraint solver: newton or cg."""
    iterations: int = 4
    """Maximum number of iterations of the solver."""
    ls_iterations: int = 4
    """Maximum number of iterations of each of the solver's line searches."""
    cone: str = "pyramidal"
    """Friction cone: pyramidal or elliptic (dm_control's default)."""
    noslip_iterations: int = 0
    """Maximum number of iterations of the noslip solver; 0 for none (dm_control's default is 5).
    MJX has no such solver: values above 0 need --physics mujoco or warp."""
    physics_timestep: float = 0.005
    """Duration of a physics step, seconds."""
    control_timestep: float = 0.025
    """Duration of a control step, seconds; a whole number of physics steps."""
    sensors: tuple[str, ...] = ()
    """Names of the walker's sensors to add to the leaf proprio, such as walker/torso_gyro."""
    compass: bool = False
    """Whether proprio ends with the direction of the world's x axis in the axes of the walker's
    root, three numbers. dm_control's rodent, humanoid and fly do not feel where they are heading,
    so on a floor, where nothing shows it, they cannot know which way to run."""

    @property
    def num_substeps(self) -> int:
        """Number of physics steps in a control step.

        Raises:
            ValueError: the control time step is no multiple of the physics time step.
        """
        physics, control = self.physics_timestep, self.control_timestep
        if not (math.isfinite(physics) and physics > 0):
            raise ValueError(f"simulation.physics_timestep is {physics}; it has to be above 0 s")
        n = round(control / physics) if math.isfinite(control) else 0
        if n < 1 or not math.isclose(n * physics, control, rel_tol=1e-6):
            raise ValueError(
                f"simulation.control_timestep is {control} s and physics_timestep {physics} s; the "
                "first has to be a whole number of times the second"
            )
        return n

    def check(self) -> None:
        """Raise a ValueError that names the first invalid setting."""
        for name, known in (("solver", tuple(_SOLVERS)), ("cone", _CONES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"simulation.{name} is {getattr(self, name)!r}; it has to be one of "
                    f"{', '.join(known)}"
                )
        for name, least in (("iterations", 1), ("ls_iterations", 1), ("noslip_iterations", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"simulation.{name} is {getattr(self, name)}; it has to be at least {least}"
                )
        _ = self.num_substeps


def slot_names(arena: Arena) -> tuple[str, ...]:
    """Return the names of the slots, which the mocap bodies and their geoms share."""
    return tuple(f"slab_{i}" for i in range(len(arena.slots(arena.build()))))


def physics_model(
    arena: Arena,
    walker: Walker,
    config: SimulationConfig,
    back_end: str = "mujoco",
    contacts: bool = False,
) -> mujoco.MjModel:
    """Compile the model that a back end steps, without textures.

    Slots are mocap bodies that come after the walker in the order of bodies: before it, they would
    change the order of contacts, and so the last bits of every result.

    For `mjx` fewer pairs of geoms collide, since MJX computes all pairs at every step: only those
    of `Walker.colliders`, the slots and `Arena.colliders`.

    With `contacts`, sensors named `CONTACTS` and a number tell how many contacts each geom of the
    walker but its feet has with the world.

    Raises:
        ValueError: a setting is invalid.
    """
    root = _slotted(arena, walker, config)
    if contacts:
        _add_contact_sensors(root, arena, walker)
    assets = root.get_assets()
    for texture in root.find_all("texture"):
        texture.remove()
    model = _compile(root, assets)
    if back_end == "mjx":
        keep_contacts(model, [*walker.colliders(model), *slot_names(arena), *arena.colliders()])
    return model


def visual_model(
    arena: Arena, walker: Walker, task: Task, config: SimulationConfig, show_slots: bool
) -> mujoco.MjModel:
    """Compile `physics_model` with textures and sky, and the geoms that differ between episodes.

    Bodies, geoms and cameras have the ids of `physics_model`; `visible_geoms` of the arena, then
    those of the task, come after them. The model is for drawing, not for stepping.

    Args:
        arena, walker, task, config: the parts of the environment.
        show_slots: whether the slots are drawn; else only the arena's visible geoms are.
    """
    root = _slotted(arena, walker, config)
    if not show_slots:
        for name in slot_names(arena):
            root.find("geom", name).group = _HIDDEN
    add_static(root, "visible", [*arena.visible_geoms(root), *task.visible_geoms(root)])
    return _compile(root, root.get_assets())


def whole_model(
    arena: Arena,
    walker: Walker,
    task: Task,
    config: SimulationConfig,
    layout: Any,
    state: Any,
) -> mujoco.MjModel:
    """Compile one layout of the arena and one state of the task with static geoms.

    Bodies of the arena come after the walker's, as the slots do in `physics_model`: the order of
    bodies is that of contacts, and a walker that touches itself has others among them.

    Args:
        arena, walker, task, config: the parts of the environment.
        layout: the arena's layout, concrete arrays.
        state: the task's state, concrete arrays.
    """
    root = arena.whole(layout)
    _attach(root, arena, walker, config)
    add_static(root, "thing", task.visible_geoms(root))
    model = _compile(root, root.get_assets(), walker_first=True)
    place_things(model, task, state)
    return model


def place_things(model: mujoco.MjModel, task: Task, state: Any) -> None:
    """Move and size the things of a task, in a model of `whole_model`, as in one of its states."""
    things = task.visible(state)
    if things is None:
        return
    for i, (position, size) in enumerate(zip(things.position, things.size, strict=True)):
        geom = model.geom(f"thing_{i}")
        # Those of size 0 cannot be compiled, and are not to be seen.
        geom.pos, geom.size = np.asarray(position), np.asarray(size)
        # MuJoCo does not look at the place of a geom that was compiled at that of its body.
        model.geom_sameframe[geom.id] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE


def add_static(root: mjcf.RootElement, name: str, geoms: Sequence[Mapping[str, Any]]) -> None:
    """Add geoms that collide with nothing to a model, each in a body after all others."""
    for i, attributes in enumerate(geoms):
        body = root.worldbody.add("body", name=f"{name}_{i}")
        body.add("geom", name=f"{name}_{i}", contype=0, conaffinity=0, **attributes)


def walker_cameras(model: mujoco.MjModel) -> tuple[str, ...]:
    """Return the names of the walker's cameras, without the walker's prefix."""
    names = [model.camera(i).name for i in range(model.ncam)]
    return tuple(n.removeprefix(WALKER) for n in names if n.startswith(WALKER))


def keep_contacts(model: mujoco.MjModel, geoms: Sequence[str]) -> None:
    """Turn off the collisions in `model` of all geoms but `geoms`."""
    kept = {model.geom(name).id for name in geoms}
    dropped = [g for g in range(model.ngeom) if g not in kept]
    model.geom_contype[dropped] = 0
    model.geom_conaffinity[dropped] = 0


def control_range(model: mujoco.MjModel) -> tuple[jax.Array, jax.Array] | None:
    """Return middle and half width float32[nu] of the control ranges; None if all are [-1, 1]."""
    limited = model.actuator_ctrllimited.astype(bool)
    low = np.where(limited, model.actuator_ctrlrange[:, 0], -1.0)
    high = np.where(limited, model.actuator_ctrlrange[:, 1], 1.0)
    if (low == -1).all() and (high == 1).all():
        return None
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    return jax.numpy.asarray(middle, np.float32), jax.numpy.asarray(half, np.float32)


def _attach(root: mjcf.RootElement, arena: Arena, walker: Walker, config: SimulationConfig) -> None:
    """Attach the walker at the arena's start; without self-collisions it then meets the arena's
    geoms alone."""
    body = walker.build()
    for model, part in ((root, arena), (body.mjcf_model, walker)):
        if model.compiler.angle == "degree":
            raise ValueError(
                f"{type(part).__name__}.build returns a model in degrees; give its angles in "
                "radians, and set `compiler.angle = 'radian'`"
            )
        _set_options(model, config)
    root.compiler.angle = "radian"
    frame = root.attach(body.mjcf_model)
    if frame.full_identifier != WALKER:
        raise ValueError(
            f"the walker's model is named {body.mjcf_model.model!r}; its `build` has to name it "
            f"{WALKER.rstrip('/')!r}"
        )
    body.create_root_joints(frame)
    frame.pos = arena.start
    _keep_sensors(root, walker.sensors, config.sensors)
    if not walker.self_collisions:
        # The world's geoms meet the walker's and nothing else; what only shows meets nothing.
        for geom in filter(collides, root.worldbody.find_all("geom", exclude_attachments=True)):
            geom.set_attributes(contype=0, conaffinity=1)
        for geom in filter(collides, body.mjcf_model.find_all("geom")):
            geom.set_attributes(contype=1, conaffinity=0)


def _slotted(arena: Arena, walker: Walker, config: SimulationConfig) -> mjcf.RootElement:
    root = arena.build()
    _attach(root, arena, walker, config)
    if walker.mjx_contacts is not None:
        # MJX alone reads it.
        root.custom.add("numeric", name="max_contact_points", data=[walker.mjx_contacts])
    own = {} if walker.self_collisions else {"contype": 0, "conaffinity": 1}
    for i, attributes in enumerate(arena.slots(root)):
        place = dict(attributes)
        slot = root.worldbody.add("body", name=f"slab_{i}", mocap=True, pos=place.pop("pos"))
        slot.add("geom", name=f"slab_{i}", **own, **place)
    return root


def _set_options(root: mjcf.RootElement, config: SimulationConfig) -> None:
    config.check()
    root.option.set_attributes(
        timestep=config.physics_timestep,
        solver=_SOLVERS[config.solver],
        iterations=config.iterations,
        ls_iterations=config.ls_iterations,
        cone=config.cone,
        noslip_iterations=config.noslip_iterations,
    )


def _keep_sensors(root: mjcf.RootElement, own: Sequence[str], asked_for: Sequence[str]) -> None:
    # Sensors that nobody reads cost time, and nothing depends on them.
    sensors = {sensor.full_identifier: sensor for sensor in root.find_all("sensor")}
    own = [WALKER + name for name in own]
    for names, of in ((own, "the walker's `sensors`"), (asked_for, "simulation.sensors")):
        for name in names:
            if name not in sensors:
                known = ", ".join(sorted(sensors))
                raise ValueError(f"{of} has {name!r}; the walker has {known}")
    for name, sensor in sensors.items():
        if name not in own and name not in asked_for:
            sensor.remove()


def _add_contact_sensors(root: mjcf.RootElement, arena: Arena, walker: Walker) -> None:
    if not walker.feet:
        raise ValueError(
            f"task.only_feet is set, but {type(walker).__name__} names no feet; give it `feet`"
        )
    feet = {WALKER + name for name in walker.feet}
    geoms = {geom.full_identifier: geom for geom in root.find_all("geom")}
    if missing := feet - geoms.keys():
        raise ValueError(f"the walker's feet name {sorted(missing)}, which are none of its geoms")
    bodies = [x for name, x in geoms.items() if name.startswith(WALKER) and name not in feet]
    touching = list(filter(collides, bodies))
    # A geom that meets nothing but the world needs one sensor; else one with each of the world's.
    world = [geoms[name] for name in (*slot_names(arena), *arena.colliders())]
    others = world if walker.self_collisions else [None]
    for i, (own, other) in enumerate(itertools.product(touching, others)):
        pair = {"geom1": own} if other is None else {"geom1": own, "geom2": other}
        root.sensor.add("contact", name=f"{CONTACTS}_{i}", data="found", num=1, **pair)


def sensor_entries(model: mujoco.MjModel, names: Sequence[str]) -> np.ndarray:
    """Return int[n], which numbers of `sensordata` are those of `names`, in the model's order."""
    ids = sorted(model.sensor(name).id for name in names)
    starts, sizes = model.sensor_adr[ids], model.sensor_dim[ids]
    parts = [start + np.arange(size) for start, size in zip(starts, sizes, strict=True)]
    return np.concatenate([np.zeros(0, int), *parts])


def contact_sensors(model: mujoco.MjModel) -> slice:
    """Return which numbers of `sensordata` tell of contacts."""
    own = [i for i in range(model.nsensor) if model.sensor(i).name.startswith(CONTACTS)]
    begin = int(model.sensor_adr[own[0]]) if own else model.nsensordata
    # Each is one number, and they follow each other; sensors of the walker may come after them.
    return slice(begin, begin + len(own))


def _compile(
    root: mjcf.RootElement, assets: dict[str, bytes], walker_first: bool = False
) -> mujoco.MjModel:
    xml = root.to_xml_string()
    if walker_first:
        tree = ElementTree.fromstring(xml)
        for world in tree.iter("worldbody"):
            for body in world.findall("body"):
                if body.get("name") != WALKER:
                    world.remove(body)
                    world.append(body)
        xml = ElementTree.tostring(tree, encoding="unicode")
    return mujoco.MjModel.from_xml_string(xml, assets)


def entries(model: mujoco.MjModel) -> tuple[list[str], list[str]]:
    """Return names of the entries of `qpos` and of `qvel`: that of the joint, without the walker's
    prefix, and the coordinate of a joint that has several."""
    free, ball = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
    moves, turns, quaternion = list("xyz"), ["turn_x", "turn_y", "turn_z"], ["qw", "qx", "qy", "qz"]
    several = {free: (moves + quaternion, moves + turns), ball: (quaternion, turns)}
    positions: list[str] = []
    velocities: list[str] = []
    for j in range(model.njnt):
        name = model.joint(j).name.removeprefix(WALKER).strip("/") or "root"
        parts = several.get(int(model.jnt_type[j]), ([], []))
        for names, own in zip((positions, velocities), parts, strict=True):
            names += [f"{name}.{part}" for part in own] or [name]
    return positions, velocities
