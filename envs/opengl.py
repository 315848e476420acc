"""Import MuJoCo where OpenGL is asked for and not installed."""

import ctypes
import os
import warnings

VARIABLE = "MUJOCO_GL"
_LIBRARIES = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6")}
_WITHOUT = ("disable", "disabled", "off", "false", "0")
_KNOWN = ("", "on", "enable", "enabled", "true", "1", "glfw", "glx", "wgl", "cgl", *_WITHOUT)


def forgo_what_is_missing() -> None:
    """Turn off the OpenGL back end that MUJOCO_GL names if it cannot work, and warn.

    MuJoCo and dm_control read the variable as they are imported, and fail where its library is
    missing. Nothing here needs OpenGL but videos with marks.
    """
    name = os.environ.get(VARIABLE, "").strip().lower()
    if name in _KNOWN or any(_loads(library) for library in _LIBRARIES.get(name, ())):
        return
    reason = (
        f"{_LIBRARIES[name][0]} is not installed"
        if name in _LIBRARIES
        else f"there is no such back end (glfw, {', '.join(_LIBRARIES)})"
    )
    warnings.warn(
        f"{VARIABLE} is {name}, but {reason}; going on without OpenGL, which only videos with "
        f"marks need",
        stacklevel=2,
    )
    os.environ[VARIABLE] = "disabled"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
