"""OpenGL that is asked for and not installed does not stop what needs none."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name, why", [("bogus", "there is no such back end"), ("egl", None)])
def test_opengl_that_is_not_there_is_no_reason_to_stop(name, why):
    code = """
import ctypes
real = ctypes.CDLL
def without_gl(library, *rest, **named):
    if library and "GL" in str(library):
        raise OSError(library)
    return real(library, *rest, **named)
ctypes.CDLL = without_gl
import envs, os
ctypes.CDLL = real
from envs.presets import PRESETS
print(os.environ["MUJOCO_GL"], len(PRESETS))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("disabled")
    assert f"MUJOCO_GL is {name}, but {why or 'libEGL.so.1 is not installed'}" in done.stderr
