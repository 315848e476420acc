"""Run MuJoCo's renderer in its own process, in turns with the process that starts it.

MuJoCo reads the name of its GL library when it is imported, so EGL and OSMesa need a process each.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mujoco


class Renderer:
    """A process that draws, with one GL library, one picture at a time on demand."""

    def __init__(self, gl: str, model: Path, camera: str, size: tuple[int, int]) -> None:
        """Starts it on a saved model and waits until it is ready.

        Raises:
            RuntimeError: the GL library does not work here.
        """
        command = [sys.executable, __file__, str(model), camera, *map(str, size)]
        env = os.environ | {"MUJOCO_GL": gl, "PYOPENGL_PLATFORM": gl}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        if self._answer() != "ready":
            assert self.process.stderr
            reason = (self.process.stderr.read().strip().splitlines() or ["killed"])[-1]
            raise RuntimeError(f"{gl} does not work here: {reason}")

    def draw(self, qpos: list[float], seconds: float) -> int:
        """Draws one state for so long, and returns how often."""
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


def serve(model: mujoco.MjModel, camera: str, size: tuple[int, int]) -> None:
    """Draws what is asked for on the standard input, without shadows and reflections."""
    data = mujoco.MjData(model)
    with mujoco.Renderer(model, *size) as renderer:
        print("ready", flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            data.qpos[:] = order["qpos"]
            mujoco.mj_forward(model, data)
            end, number = time.perf_counter() + order["seconds"], 0
            while time.perf_counter() < end:
                renderer.update_scene(data, camera)
                for flag in ("SHADOW", "REFLECTION"):
                    renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
                renderer.render()
                number += 1
            print(number, flush=True)


if __name__ == "__main__":
    serve(
        mujoco.MjModel.from_binary_path(sys.argv[1]),
        sys.argv[2],
        (int(sys.argv[3]), int(sys.argv[4])),
    )
