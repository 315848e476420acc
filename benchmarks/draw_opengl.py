"""Draw with MuJoCo's renderer what is asked for on the standard input, see `renderers.opengl`."""

import json
import sys
import time

import mujoco


def serve(model: mujoco.MjModel, camera: str, size: tuple[int, int]) -> None:
    """Draw one state at a time, without shadows and reflections."""
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
