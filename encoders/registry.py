"""Find encoders and stages by name: registered ones, or any class as `package.module:Class`."""

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import flax.linen as nn

_Module = TypeVar("_Module", bound=type[nn.Module])
_REGISTRY: dict[str, type[nn.Module]] = {}
_SOURCES: dict[str, str] = {}
_MARKS = ":|(),="
"""Characters that mean something in a spec, see `encoders.specification`."""


def register(name: str, source: str = "") -> Callable[[_Module], _Module]:
    """Return a class decorator that registers an encoder or a stage under a name.

    Args:
        name: how a spec names it.
        source: the publication it is taken from, for tables.

    Raises:
        ValueError: the name is empty, contains a space or one of `:|(),=`, or belongs to another
            class.
    """
    if not name or set(name) & set(_MARKS + " "):
        raise ValueError(
            f"an encoder's name must not be empty nor contain a space or one of '{_MARKS}', "
            f"got {name!r}"
        )

    def add(cls: _Module) -> _Module:
        known = _REGISTRY.get(name)
        if known is not None and _path(known) != _path(cls):
            raise ValueError(
                f"the encoder name {name!r} belongs to {_path(known)}; register {_path(cls)} "
                f"under another name"
            )
        _REGISTRY[name], _SOURCES[name] = cls, source
        return cls

    return add


def registered() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(_REGISTRY))


def source_of(name: str) -> str:
    """Return the publication that a registered encoder is taken from; empty if there is none."""
    return _SOURCES[name]


def find(name: str) -> type[nn.Module]:
    """Return the class of a registered name, or of `package.module:Class`.

    Raises:
        ValueError: the name is unknown, the module cannot be imported or has no such class, or the
            class is no `flax.linen.Module`.
    """
    return _imported_class(name) if ":" in name else _registered_class(name)


def settings_of(cls: type[nn.Module]) -> dict[str, dataclasses.Field]:
    """Return the settings of a module: its fields by name, without Flax's own."""
    fields: Any = dataclasses.fields(cls)
    return {f.name: f for f in fields if f.init and f.name not in ("parent", "name")}


def check_settings(name: str, cls: type[nn.Module], settings: Mapping[str, Any]) -> None:
    """Raise a ValueError if a setting is unknown, missing, or not of the type of its field."""
    fields = settings_of(cls)
    for key in settings:
        if key not in fields:
            takes = f"it takes {', '.join(fields) or 'none'}"
            raise ValueError(f"{name!r} has no setting {key!r};{nearest(key, fields)} {takes}")
    missing = [k for k, f in fields.items() if _is_required(f) and k not in settings]
    if missing:
        raise ValueError(f"{name!r} needs a value for {', '.join(map(repr, missing))}")
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError):  # names that only a type checker can resolve
        return
    for key, value in settings.items():
        if not _fits(value, hints.get(key, Any)):
            raise ValueError(f"{name!r}: {key} is {value!r}; it has to be {_readable(hints[key])}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known names that are nearest to a misspelt one; empty if none is."""
    close = difflib.get_close_matches(name, list(known))
    return f" did you mean {' or '.join(map(repr, close))}?" if close else ""


def _registered_class(name: str) -> type[nn.Module]:
    if name in _REGISTRY:
        return _REGISTRY[name]
    raise ValueError(
        f"unknown encoder {name!r};{nearest(name, registered())} registered encoders and stages: "
        f"{', '.join(registered())}; your own is named 'package.module:Class'"
    )


def _imported_class(spec: str) -> type[nn.Module]:
    module_name, _, class_name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise ValueError(f"{spec!r} does not have the form 'package.module:Class'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"{spec!r}: cannot import the module {module_name!r} ({error}); it must be "
            f"installed or lie on PYTHONPATH"
        ) from error
    cls = getattr(module, class_name, None)
    if cls is None:
        modules = [n for n, v in vars(module).items() if _is_encoder_class(v)]
        close = difflib.get_close_matches(class_name, modules) or modules
        found = f"; it has {', '.join(close)}" if close else ""
        raise ValueError(f"{spec!r}: {module_name!r} has no class {class_name!r}{found}")
    if not _is_encoder_class(cls):
        raise ValueError(
            f"{spec!r}: expected a subclass of flax.linen.Module, found {cls!r}; write "
            f"'class {class_name}(nn.Module)'"
        )
    return cls


def _is_encoder_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type; of types that no spec can express, any value is."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, kind) for kind in inner)
    if origin is typing.Literal:
        return any(value == x and type(value) is type(x) for x in inner)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (hint is float and isinstance(value, float))
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if origin is Callable:
        return callable(value)
    return True


def _readable(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a name"}
    return names.get(hint, str(hint).replace("typing.", "").replace("collections.abc.", ""))


def _path(cls: type[nn.Module]) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
