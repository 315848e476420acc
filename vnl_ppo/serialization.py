"""Turn settings into plain data and back, with strict types and messages that name the field."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import cattrs

Settings = TypeVar("Settings")
_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def to_plain(settings: Any) -> dict[str, Any]:
    """Turn a dataclass, and those inside it, into data that JSON can hold."""
    return cattrs.unstructure(settings)


def from_plain(kind: type[Settings], data: Any, source: str) -> Settings:
    """Build a dataclass from what `to_plain` returned; missing fields take their defaults.

    Args:
        kind: the class.
        data: plain data, as JSON gives it.
        source: where the data come from, for messages.

    Raises:
        ValueError: a field is unknown (the message names the nearest one), or its value has the
            wrong type or is not allowed.
    """
    _check_names(kind, data, source)
    converter = cattrs.Converter(forbid_extra_keys=True)
    for plain in _WANTED:
        converter.register_structure_hook(plain, _as_it_is)
    try:
        return converter.structure(data, kind)
    except cattrs.BaseValidationError as error:
        reasons = cattrs.transform_error(error, path="", format_exception=lambda e, _: str(e))
        raise ValueError(f"{source}: {'; '.join(_readable(r) for r in reasons)}") from error


def check_numbers(settings: Any, large: tuple[str, ...] = (), prefix: str = "") -> None:
    """Raise a ValueError that names the first infinite number, NaN or integer beyond 32 bits.

    Args:
        settings: a dataclass, with others and tuples inside it.
        large: dotted names of integers that may exceed 32 bits, as no device uses them.
        prefix: prefix of the names in messages.
    """
    for field in dataclasses.fields(settings):
        name, value = prefix + field.name, getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            check_numbers(value, large, f"{name}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name} is {value}; it has to be finite")
            if isinstance(number, int) and abs(number) >= 2**31 and name not in large:
                raise ValueError(f"{name} is {value}; it has to be below 2^31 = {2**31:,}")


def _as_it_is(value: Any, kind: Any) -> Any:
    """Return `value` if it has that type; only an integer may stand for a float."""
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is not {_WANTED[kind]}")


def _readable(reason: str) -> str:
    """Return cattrs' message `what @ .path.to.field` as `path.to.field: what`."""
    what, _, where = reason.rpartition(" @ ")
    return f"{where.lstrip('.') or 'settings'}: {what}"


def _check_names(kind: Any, data: Any, source: str, prefix: str = "", root: Any = None) -> None:
    """Raise a ValueError for unknown names, and strings in place of lists, which cattrs takes."""
    if typing.get_origin(kind) is tuple and not isinstance(data, list | tuple):
        raise ValueError(f"{source}: {prefix.rstrip('.')}: {data!r} is not a list")
    if not dataclasses.is_dataclass(kind):
        return
    root = root or kind
    if not isinstance(data, Mapping):
        place = prefix.rstrip(".") or "settings"
        raise ValueError(f"{source}: {place} is {data!r}; it has to be an object with fields")
    hints = typing.get_type_hints(kind)
    for name, value in data.items():
        if name not in hints:
            raise ValueError(f"{source}: there is no setting {prefix}{name}; {_hint(name, root)}")
        _check_names(hints[name], value, source, f"{prefix}{name}.", root)


def _hint(name: str, root: Any) -> str:
    """Return a hint at the settings, anywhere in `root`, whose names are nearest."""
    last = lambda path: path.rpartition(".")[2]
    paths = list(_paths(root))
    close = difflib.get_close_matches(name, {last(p) for p in paths}, n=3, cutoff=0.0)[:1]
    return "the nearest is " + " or ".join(p for p in paths if last(p) in close)


def _paths(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in typing.get_type_hints(kind).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield from _paths(hint, f"{prefix}{name}.")
