"""Make encoders by name: a registered one, or any class as `package.module:Class`."""

import dataclasses
import difflib
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn

_Module = TypeVar("_Module", bound=type[nn.Module])
_REGISTRY: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[_Module], _Module]:
    """Return a class decorator that registers an encoder class under a name.

    Raises:
        ValueError: the name is empty, contains ':' (which marks `package.module:Class`), or belongs
            to another class.
    """
    if not name or ":" in name:
        raise ValueError(f"an encoder's name must not be empty nor contain ':', got {name!r}")

    def add(cls: _Module) -> _Module:
        known = _REGISTRY.get(name)
        if known is not None and _path(known) != _path(cls):
            raise ValueError(
                f"the encoder name {name!r} belongs to {_path(known)}; register {_path(cls)} "
                f"under another name"
            )
        _REGISTRY[name] = cls
        return cls

    return add


def registered() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(_REGISTRY))


def make_encoder(spec: str, **settings: Any) -> nn.Module:
    """Build an encoder.

    Args:
        spec: a registered name, or `package.module:Class` of any importable `flax.linen.Module`.
        settings: the module's attributes, for instance `features=64`.

    Raises:
        ValueError: the name is unknown, the module cannot be imported or has no such class, the
            class is no `flax.linen.Module`, or a setting is unknown or missing.
    """
    cls = _import_class(spec) if ":" in spec else _registered_class(spec)
    _check_settings(spec, cls, settings)
    return cls(**settings)


def _registered_class(name: str) -> type[nn.Module]:
    if name in _REGISTRY:
        return _REGISTRY[name]
    close = difflib.get_close_matches(name, registered())
    hint = f" did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(
        f"unknown encoder {name!r};{hint} registered encoders: {', '.join(registered())}; your own "
        f"is named 'package.module:Class'"
    )


def _import_class(spec: str) -> type[nn.Module]:
    module_name, _, class_name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise ValueError(f"encoder {spec!r} does not have the form 'package.module:Class'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"encoder {spec!r}: cannot import the module {module_name!r} ({error}); it must be "
            f"installed or lie on PYTHONPATH"
        ) from error
    cls = getattr(module, class_name, None)
    if cls is None:
        modules = [n for n, v in vars(module).items() if _is_encoder_class(v)]
        close = difflib.get_close_matches(class_name, modules) or modules
        found = f"; it has {', '.join(close)}" if close else ""
        raise ValueError(f"encoder {spec!r}: {module_name!r} has no class {class_name!r}{found}")
    if not _is_encoder_class(cls):
        raise ValueError(
            f"encoder {spec!r}: expected a subclass of flax.linen.Module, found {cls!r}; write "
            f"'class {class_name}(nn.Module)'"
        )
    return cls


def _is_encoder_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _check_settings(spec: str, cls: type[nn.Module], settings: dict[str, Any]) -> None:
    fields = [f for f in dataclasses.fields(cls) if f.init and f.name not in ("parent", "name")]
    names = [f.name for f in fields]
    missing = [
        f.name
        for f in fields
        if f.default is f.default_factory is dataclasses.MISSING and f.name not in settings
    ]
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise ValueError(
            f"encoder {spec!r} has no setting {', '.join(map(repr, unknown))}; it takes "
            f"{', '.join(names) or 'none'}"
        )
    if missing:
        raise ValueError(f"encoder {spec!r} needs a value for {', '.join(map(repr, missing))}")


def _path(cls: type[nn.Module]) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
