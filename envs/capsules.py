"""Put capsules in place of a walker's ellipsoids and cylinders.

MJX has no collisions of ellipsoids and cylinders with boxes, meshes and height fields.
"""

import mujoco
import numpy as np
from dm_control import mjcf

from envs.postures import Z_TO

REPLACED = ("ellipsoid", "cylinder")
"""MJCF's names of the types of geoms that capsules replace."""


def put_capsules(root: mjcf.RootElement) -> None:
    """Turn each ellipsoid and cylinder of a model that can collide into a capsule, in place.

    The capsule has the geom's centre. Of an ellipsoid it has the longest axis, both ends, and the
    mean (geometric) radius; of a cylinder the axis, the radius and, unless it is flatter than a
    ball, the length. Masses and inertias of all bodies stay what they were: they are written down
    before the geoms change.

    Args:
        root: the model of a walker, not attached to another.
    """
    model = mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())
    for geom in root.find_all("geom"):
        compiled = model.geom(geom.full_identifier)
        kind = mujoco.mjtGeom(int(compiled.type[0])).name.removeprefix("mjGEOM_").lower()
        if kind not in REPLACED or not (compiled.contype[0] or compiled.conaffinity[0]):
            continue
        _keep_inertia(geom.parent, model)
        if kind == "cylinder":
            longest, (radius, half) = 2, compiled.size[:2]
        else:
            longest = int(np.argmax(compiled.size))
            radius = float(np.sqrt(np.prod(np.delete(compiled.size, longest))))
            half = compiled.size[longest]
        turned = np.zeros(4)
        mujoco.mju_mulQuat(turned, compiled.quat, Z_TO[longest])
        for other in ("fromto", "axisangle", "xyaxes", "zaxis", "euler"):
            delattr(geom, other)
        # A capsule of no length would be refused.
        length = max(half - radius, 1e-3 * radius)
        geom.set_attributes(type="capsule", size=(radius, length), pos=compiled.pos, quat=turned)


def _keep_inertia(body: mjcf.Element, model: mujoco.MjModel) -> None:
    """Write a body's mass and inertia down, so that they no longer follow from its geoms."""
    compiled = model.body(body.full_identifier)
    inertial = body.get_children("inertial")
    if inertial is None or inertial.mass is None:
        body.add(
            "inertial",
            mass=float(compiled.mass[0]),
            pos=compiled.ipos,
            quat=compiled.iquat,
            diaginertia=compiled.inertia,
        )
