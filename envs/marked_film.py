"""Films by MuJoCo's own renderer, which can mark contacts, joints and centres of mass.

It needs OpenGL, without which `envs.video` films too.
"""

from collections.abc import Collection, Iterator

import jax
import mujoco
import numpy as np

from envs import world
from envs.gap_ant import GapAnt, GapAntData
from envs.video import FRAMES_PER_SECOND

MARKS = {
    "contacts": mujoco.mjtVisFlag.mjVIS_CONTACTPOINT,
    "joints": mujoco.mjtVisFlag.mjVIS_JOINT,
    "com": mujoco.mjtVisFlag.mjVIS_COM,
}
_MARK_SIZE = 0.5
"""Metres, about that of an ant."""


def marked_film(
    env: GapAnt,
    data: GapAntData,
    alive: jax.Array,
    camera: str,
    size: tuple[int, int],
    marks: Collection[str],
    speed: float = 1.0,
) -> Iterator[np.ndarray]:
    """As `envs.video.film`, in the whole corridor as dm_control builds it, without an inset.

    Args:
        env, data, alive, camera, size, speed: see there.
        marks: of `MARKS`. The body is drawn transparent, so that what is inside it shows.

    Raises:
        ValueError: a mark is unknown, or there is no OpenGL.
    """
    if unknown := sorted(set(marks) - set(MARKS)):
        raise ValueError(f"there is no mark {unknown[0]!r}; there are {', '.join(MARKS)}")
    first = jax.tree.map(lambda x: x[0], data.layout)
    model = world.arena_model(first, env.config.corridor, env.config.simulation)
    model.vis.global_.offheight, model.vis.global_.offwidth = size
    # MuJoCo scales marks by the mean size of all bodies, which here is that of the platforms.
    model.stat.meansize = _MARK_SIZE
    options = mujoco.MjvOption()
    options.flags[mujoco.mjtVisFlag.mjVIS_TRANSPARENT] = True
    for mark in marks:
        options.flags[MARKS[mark]] = True
    try:
        renderer = mujoco.Renderer(model, *size)
    except Exception as error:
        # Each of EGL, OSMesa and GLFW fails with a class of its own.
        raise ValueError(
            f"marks are drawn by OpenGL, which does not work here ({error!r}); set MUJOCO_GL to "
            f"egl or osmesa where that is installed, or film without marks"
        ) from error
    qpos, qvel = np.asarray(data.physics.qpos), np.asarray(data.physics.qvel)
    state = mujoco.MjData(model)
    states = int(np.asarray(alive).sum())
    every = speed / (FRAMES_PER_SECOND * env.dt)
    with renderer:
        for index in np.arange(0, states, every).astype(int):
            state.qpos[:], state.qvel[:] = qpos[index], qvel[index]
            mujoco.mj_forward(model, state)
            renderer.update_scene(state, world.WALKER + camera, options)
            yield renderer.render()
