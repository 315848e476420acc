"""Run renderers in processes of their own, in turns with the process that starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from peers.processes import PEERS, python_of


class Renderer:
    """A process that draws states, on demand."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Starts it and waits until it is ready.

        Raises:
            RuntimeError: it does not work here; the message begins with its name.
        """
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=os.environ | env, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        if self._answer() != "ready":
            self.process.kill()
            said = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(f"{name} does not work here: {(said or ['killed'])[-1]}")

    def draw(self, qpos: list, seconds: float) -> int:
        """Draws states for so long, and returns how many pictures it made."""
        assert self.process.stdin
        print(json.dumps({"qpos": qpos, "seconds": seconds}), file=self.process.stdin, flush=True)
        return int(self._answer())

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def opengl(gl: str, model: Path, camera: str, size: tuple[int, int]) -> Renderer:
    """Starts `mujoco.Renderer` on a saved model with a GL library, which MuJoCo chooses when it is
    imported. It draws one state, float[nq]."""
    script = Path(__file__).parent / "draw_opengl.py"
    command = [sys.executable, str(script), str(model), camera, *map(str, size)]
    return Renderer(gl, command, {"MUJOCO_GL": gl, "PYOPENGL_PLATFORM": gl})


def mjwarp(model: Path, camera: str, size: tuple[int, int], number: int) -> Renderer:
    """Starts MJWarp's renderer on the CPU, in a virtual environment of its own. It draws `number`
    states at a time, float[number, nq]."""
    script = str(PEERS / "draw_mjwarp.py")
    command = [python_of("mjwarp"), script, str(model), camera, *map(str, (*size, number))]
    return Renderer("mjwarp", command, {})
