"""Find environments by name: presets, the user's own, and those of Brax and Playground."""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from typing import Any

from envs import foreign
from envs.foreign import Foreign
from envs.frame_stack import FrameStack
from envs.presets import PRESETS, Preset
from vnl_ppo.env import Env

MAKERS = ("brax", "playground")


def find(name: str) -> Preset | Any | None:
    """Return the preset, or the user's own object, that a name stands for.

    Args:
        name: a preset, or `package.module:OBJECT`, where the object is a preset, an environment, or
            a function without arguments that returns one of them.

    Returns:
        a preset or an environment; None if the name has the form of Brax's or Playground's.

    Raises:
        ValueError: there is no such environment; the message names the nearest.
    """
    module, _, own = name.partition(":")
    if module in MAKERS and own:
        return None
    if own:
        return _import(name, module, own)
    if name not in PRESETS:
        if name.isidentifier() and _is_module(name):
            raise ValueError(
                f"env is {name!r}, a module; name one of its objects too, as {name}:OBJECT"
            )
        close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise ValueError(
            f"there is no environment {name!r}{hint} There are {', '.join(PRESETS)}, "
            f"package.module:OBJECT, brax:NAME and playground:NAME"
        )
    return PRESETS[name]


def make(
    name: str,
    *,
    seeing: bool = True,
    frames: int = 1,
    physics: str = "auto",
    ahead: bool = False,
    **parts: Any,
) -> Env:
    """Make an environment.

    Args:
        name: a preset (`envs.names()`), `package.module:OBJECT`, `brax:NAME` or `playground:NAME`.
        seeing: whether the observations of a preset have the images of the walker's cameras.
        frames: number of the last images that an observation stacks; 1 for no stacking.
        physics: a preset's back end: mujoco (C, on CPU cores), mjx (JAX, on any device), warp
            (for NVIDIA GPUs, with the extra `warp`), or auto: mujoco on CPU, else mjx. For Brax:
            auto (mjx), mjx, spring, positional or generalized.
        ahead: whether a preset observes `ahead` too; see `envs.locomotion.Locomotion`.
        parts: replacements for fields of a preset: `arena`, `walker`, `task`, `vision`,
            `simulation`.

    Raises:
        ValueError: there is no such environment, or a setting is invalid. Nothing has been compiled
            yet.
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}; it has to be 1 or more")
    found = find(name)
    if isinstance(found, Preset):
        preset = dataclasses.replace(found, **parts)
        env: Env = preset.make(seeing=seeing, back_end=physics, ahead=ahead)
    elif parts or ahead:
        asked = ", ".join([*parts, *(["ahead"] if ahead else [])])
        raise ValueError(f"{name} is not a preset, so {asked} cannot be set")
    elif found is None:
        env = foreign.make(name, foreign.MJX if physics == "auto" else physics)
    else:
        env = found if hasattr(found, "observation_spec") else Foreign(found)
    return env if frames == 1 or not seeing else FrameStack(env, frames)


def _is_module(name: str) -> bool:
    _look_here()
    return importlib.util.find_spec(name) is not None


def _look_here() -> None:
    """Let Python import modules from the working directory, as `python -m` does."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _import(name: str, module: str, own: str) -> Any:
    if not all(part.isidentifier() for part in [*module.split("."), own]):
        raise ValueError(f"env is {name!r}; write a name of your own as package.module:OBJECT")
    _look_here()
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"env is {name!r}, but there is no module {error.name!r}; name a module that Python "
            f"finds from here ({os.getcwd()}), or set PYTHONPATH"
        ) from error
    if not hasattr(imported, own):
        close = difflib.get_close_matches(own, vars(imported), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"env is {name!r}, but {module} has no {own}{hint}")
    found = getattr(imported, own)
    is_environment = lambda x: all(hasattr(x, part) for part in ("reset", "step", "action_size"))
    if isinstance(found, type) or not (isinstance(found, Preset) or is_environment(found)):
        if not callable(found):
            raise ValueError(
                f"env is {name!r}, of type {type(found).__name__}; it has to be a preset, an "
                f"environment with reset, step and action_size, or a function that makes one"
            )
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise ValueError(
                f"env is {name!r}, which needs arguments ({error}); name a function without "
                f"arguments that returns the environment"
            ) from error
        found = found()
    if not (isinstance(found, Preset) or is_environment(found)):
        raise ValueError(
            f"env is {name!r}, which makes something of type {type(found).__name__}; it has to be "
            f"a preset, or an environment with reset, step and action_size"
        )
    return found
