"""Draw with MJWarp's renderer on the CPU what is asked for on the standard input.

It draws as MuJoCo's renderer without shadows does, with textures and sky. One thread does it: Warp
has no other way on a CPU.
"""

import json
import sys
import time
from functools import partial

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp


def serve(model: mujoco.MjModel, camera: str, size: tuple[int, int], number: int) -> None:
    """Draw `number` states at a time, each time from their bodies' known poses."""
    answer = partial(print, file=sys.stdout, flush=True)
    sys.stdout = sys.stderr  # where Warp may say what it compiles
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    m, d = mjw.put_model(model), mjw.put_data(model, data, nworld=number)
    height, width = size
    context = mjw.create_render_context(
        model,
        nworld=number,
        cam_res=(width, height),
        render_rgb=True,
        render_depth=False,
        cam_active=[camera],
        render_skybox=True,
    )
    draw(m, d, context)
    answer("ready")
    for line in sys.stdin:
        order = json.loads(line)
        d.qpos.assign(np.asarray(order["qpos"], np.float32))
        mjw.kinematics(m, d)
        mjw.camlight(m, d)
        end, pictures = time.perf_counter() + order["seconds"], 0
        while time.perf_counter() < end:
            draw(m, d, context)
            pictures += number
        answer(pictures)


def draw(m: mjw.Model, d: mjw.Data, context: mjw.RenderContext) -> None:
    """Draw all worlds once."""
    mjw.refit_bvh(m, d, context)
    mjw.render(m, d, context)
    wp.synchronize()


if __name__ == "__main__":
    serve(
        mujoco.MjModel.from_binary_path(sys.argv[1]),
        sys.argv[2],
        (int(sys.argv[3]), int(sys.argv[4])),
        int(sys.argv[5]),
    )
