"""Read attributes of MJCF elements that may come from default classes."""

from typing import Any

from dm_control import mjcf


def collides(geom: mjcf.Element) -> bool:
    """Return whether a geom collides, by its own attributes or those of its classes."""
    return any(with_defaults(geom, name, 1) for name in ("contype", "conaffinity"))


def with_defaults(element: mjcf.Element, name: str, otherwise: Any) -> Any:
    """Return an attribute, taken from the element's default classes if it does not have it.

    Args:
        element: an element of a model, such as a geom.
        name: name of the attribute.
        otherwise: what MuJoCo takes if no class has it.
    """
    if (value := getattr(element, name)) is not None:
        return value
    default = element.dclass
    parent = element.parent
    while default is None and parent is not None and parent.tag == "body":
        default, parent = parent.childclass, parent.parent
    if isinstance(default, str):
        # A class that was given by its name.
        default = element.root.find("default", default)
    default = default or element.root.default
    while default is not None and default.tag == "default":
        if (value := getattr(getattr(default, element.tag), name)) is not None:
            return value
        default = default.parent
    return otherwise
