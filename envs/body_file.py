"""Take one body out of an MJCF file, whatever else is in the file.

MuJoCo reads the file with all that it includes, since what a number means depends on the file's
`compiler` (degrees, order of Euler angles, total mass), of which a composed model has only one.
What it writes says the same in radians and quaternions, with six digits. dm_control's MJCF tree of
that is then cut down to one tree of bodies and to what refers to nothing else.
"""

import dataclasses
import functools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import mujoco
from dm_control import mjcf
from lxml import etree

from envs import body_names
from envs.body_names import Wanted
from envs.mjcf_defaults import collides

_SECTIONS = ("contact", "tendon", "equality", "actuator", "sensor")
"""Sections of a file whose elements refer to parts of bodies."""
_UNNAMED = "(without a name)"
_MOST_NAMES = 8
"""Number of names of one kind that a note lists."""


@dataclasses.dataclass(frozen=True)
class BodyOfFile:
    """A body from a file, and the names that were found for its parts.

    Attributes:
        xml: its MJCF model, in radians, without a free joint.
        assets: the contents of the files that `xml` names.
        free_joint: attributes of the file's own free joint, for the one that the walker gets.
        root, eye, film_camera, feet: names of parts, as in `envs.walkers.mjcf_file.MjcfWalker`.
        end_effectors: names of the bodies that `feet` belong to.
        notes: what was left behind or added, a sentence each.
    """

    xml: str
    assets: Mapping[str, bytes]
    free_joint: Mapping[str, Any]
    root: str
    eye: str
    film_camera: str
    feet: tuple[str, ...]
    end_effectors: tuple[str, ...]
    notes: tuple[str, ...]


def read_body(path: str, wanted: Wanted) -> BodyOfFile:
    """Read a body from a file; the same file is read once.

    Args:
        path: path of an MJCF file.
        wanted: names that the user gave, empty for those to find.

    Raises:
        ValueError: there is no such file, it cannot be read, or it leaves open which part is meant;
            the message names the setting that tells.
    """
    if not os.path.isfile(path):
        raise ValueError(
            f"walker.path is {path!r}, but there is no such file; give the path of an MJCF file "
            f"(--walker.path FILE), from {os.getcwd()} or absolute"
        )
    status = os.stat(path)
    return _read(os.path.abspath(path), path, wanted, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _read(path: str, shown: str, wanted: Wanted, *version: int) -> BodyOfFile:
    """Read a body; `shown` is what messages call the file, and `version` tells of changes to it."""
    try:
        spec = mujoco.MjSpec.from_file(path)
        _name_all(spec)
        model = spec.compile()
        root = mjcf.from_xml_string(spec.to_xml(), model_dir=os.path.dirname(path))
    except Exception as error:
        # MuJoCo and dm_control raise whatever their parsers meet.
        reason = ", ".join((str(error).strip() or repr(error)).splitlines())
        raise ValueError(f"walker.path {shown} cannot be read: {reason}") from error
    top = root.find("body", body_names.tree_of(model, wanted.tree, shown))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    left, free_joint = _cut(root, top, shown)
    solid = [geom.name for geom in top.find_all("geom") if collides(geom)]
    found = body_names.find_parts(model, data, top, solid, wanted, shown)
    _keep_masses(model, top)
    for body, camera in found.cameras:
        root.find("body", body).add("camera", **camera)
    notes = [f"{shown}: left behind {_listed(left)}"] if left else []
    notes += [f"{shown}: {text}" for text in found.notes]
    return BodyOfFile(
        _written(root),
        root.get_assets(),
        free_joint,
        found.root,
        found.eye,
        found.film_camera,
        found.feet,
        found.end_effectors,
        tuple(notes),
    )


def _name_all(spec: mujoco.MjSpec) -> None:
    """Give names to the bodies, geoms and joints that have none: parts are known by names."""
    for kind, parts in (("body", spec.bodies), ("geom", spec.geoms), ("joint", spec.joints)):
        taken = {part.name for part in parts}
        number = 0
        for part in parts:
            if part.name or part == spec.worldbody:
                continue
            of = "" if kind == "body" else f"{part.parent.name}_"
            while (name := f"{of}{kind}_{number}") in taken:
                number += 1
            part.name = name
            taken.add(name)


def _cut(
    root: mjcf.RootElement, top: mjcf.Element, path: str
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Remove all but the tree of `top` and what belongs to it.

    Returns:
        names of what was left behind by kind; attributes of the tree's free joint.

    Raises:
        ValueError: nothing is left that acts, or the tree hangs on the world.
    """
    free_joint: dict[str, Any] = {"tag": "freejoint"}
    gone = {x: None for child in root.worldbody.all_children() if child != top for x in _all(child)}
    own = [*root.find_all("light"), *root.keyframe.key, *_skins(root)]
    gone.update(dict.fromkeys(own))
    held = []
    for joint in [joint for joint in top.all_children() if joint.tag in ("joint", "freejoint")]:
        gone[joint] = None
        if joint.tag == "freejoint":
            free_joint = {"tag": "freejoint", "group": joint.group}
        elif joint.type == "free":
            names = ("armature", "damping", "frictionloss", "stiffness", "group")
            free_joint = {"tag": "joint", "type": "free"}
            free_joint |= {name: getattr(joint, name) for name in names}
        else:
            held.append(joint)
    for pair in root.contact.pair:
        # What met the file's floor meets every arena, and still nothing of its own body.
        for geom, other in ((pair.geom1, pair.geom2), (pair.geom2, pair.geom1)):
            if other in gone and geom not in gone and not collides(geom):
                geom.set_attributes(contype=0, conaffinity=1)
    # Cameras may look at what is gone; a tendon that is gone takes its actuators with it.
    parts = [x for name in _SECTIONS for x in getattr(root, name).all_children()]
    parts += root.find_all("camera")
    while more := [x for x in parts if x not in gone and _refers_to(x, gone)]:
        gone.update((x, None) for part in more for x in _all(part))
    if used := [x for x in parts if any(joint in _references(x) for joint in held)]:
        raise ValueError(
            f"{path}: the joints {', '.join(x.name for x in held)} hold the body {top.name} to the "
            f"world, and the {_kind(used[0])} {used[0].name or _UNNAMED} uses them; take both out, "
            f"since a walker moves freely"
        )
    if all(x in gone for x in root.actuator.all_children()):
        raise ValueError(
            f"{path} has no actuator on the body {top.name}, so nothing could act; add one, or "
            f"name another body with --walker.tree"
        )
    if any(x in gone for x in _skins(root)):
        # Cameras draw geoms only: what a skin covers is not to be seen otherwise.
        for geom in top.find_all("geom"):
            if collides(geom):
                geom.group = 0
    left: dict[str, list[str]] = defaultdict(list)
    whole = [x for x in gone if x.parent not in gone]
    for part in whole:
        # The tree's free joint is used.
        if part.tag not in ("joint", "freejoint") or part in held:
            left[_kind(part)].append(getattr(part, "name", None) or _UNNAMED)
    for part in whole:
        part.remove()
    if top.pos is not None:
        # It is the arena that places it, so that it turns about itself; the height is its own.
        top.pos = 0, 0, top.pos[2]
    # These are the world's.
    for name in ("compiler", "visual", "statistic", "size"):
        getattr(root, name).remove()
    _remove_unused_assets(root)
    return dict(left), {k: x for k, x in free_joint.items() if x is not None}


def _all(element: mjcf.Element) -> list[mjcf.Element]:
    """Return an element and everything in it."""
    return [element, *(x for child in element.all_children() for x in _all(child))]


def _skins(root: mjcf.RootElement) -> list[mjcf.Element]:
    found = [*root.asset.all_children(), *root.deformable.all_children()]
    return [x for x in found if x.tag in ("skin", "flex")]


def _kind(element: mjcf.Element) -> str:
    """Return what an element is called in a note, such as `sensor`, whatever sensor it is."""
    section = element.parent.tag
    return section if section in _SECTIONS else element.tag


def _references(element: mjcf.Element) -> list[mjcf.Element]:
    """Return the elements that an element, or one inside it, refers to."""
    values = (x for part in _all(element) for x in part.get_attributes().values())
    return [x for x in values if isinstance(x, mjcf.Element)]


def _refers_to(element: mjcf.Element, gone: Mapping[mjcf.Element, None]) -> bool:
    return any(x in gone for x in _references(element))


def _remove_unused_assets(root: mjcf.RootElement) -> None:
    """Remove what only others used, and the sky, which is the arena's."""
    users = [root.default, root.worldbody, *(getattr(root, name) for name in _SECTIONS)]
    used = {x for part in users for x in _references(part)}
    used |= {x for asset in used if asset.parent == root.asset for x in _references(asset)}
    for asset in root.asset.all_children():
        if asset not in used:
            asset.remove()


def _keep_masses(model: mujoco.MjModel, top: mjcf.Element) -> None:
    """Write down the masses that MuJoCo found, which may depend on the file's `compiler`."""
    for body in [top, *top.find_all("body")]:
        own = model.body(body.name)
        if body.inertial is not None:
            body.inertial.remove()
        if own.mass[0] > 0:
            body.add(
                "inertial", mass=own.mass[0], pos=own.ipos, quat=own.iquat, diaginertia=own.inertia
            )
            continue
        for geom in body.geom:
            geom.mass = 0


def _written(root: mjcf.RootElement) -> str:
    """Return the XML text of a model, which dm_control can read again."""
    xml = root.to_xml(precision=17)
    # dm_control writes the class of defaults that has no name as `/`, inside another.
    for defaults in xml.findall("default/default[@class='/']"):
        place = defaults.getparent()
        place.remove(defaults)
        place.extend(list(defaults))
    for element in xml.iterfind(".//*[@class='/']"):
        del element.attrib["class"]
    # Nor does it read the names that it gives to what has none.
    return etree.tostring(xml, encoding="unicode").replace('"//unnamed_', '"unnamed_')


def _listed(left: Mapping[str, Iterable[str]]) -> str:
    parts = []
    for kind, names in left.items():
        known = [name for name in names if name != _UNNAMED]
        unnamed = len(list(names)) - len(known)
        names = [*known, *([f"{unnamed} without a name"] if unnamed else [])]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        parts.append(f"{kind} {', '.join(names[:_MOST_NAMES])}{more}")
    return "; ".join(parts)
