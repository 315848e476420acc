"""Choose a GL library that works here, before MuJoCo is imported and reads the choice."""

import os
import subprocess
import sys
from collections.abc import Sequence


def choose_gl(candidates: Sequence[str] = ("egl", "osmesa")) -> str:
    """Set MUJOCO_GL to the first library that works, unless it is set; return its value.

    Raises:
        SystemExit: no library works.
    """
    if chosen := os.environ.get("MUJOCO_GL"):
        os.environ.setdefault("PYOPENGL_PLATFORM", chosen)
        return chosen
    probe = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    for gl in candidates:
        env = os.environ | {"MUJOCO_GL": gl, "PYOPENGL_PLATFORM": gl}
        if subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True).returncode:
            continue
        os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = gl
        return gl
    raise SystemExit(
        "MuJoCo's renderer, which this measures against, needs EGL or OSMesa; on Debian: "
        "apt-get install libosmesa6."
    )


GL = choose_gl()
