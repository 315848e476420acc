"""Step walkers in a bare Python loop over `mujoco.rollout`, the peer of our C back end."""

from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from mujoco import rollout

from envs.physics.mujoco import usable_cores


def bare_rollout(
    model: mujoco.MjModel, data: mujoco.MjData, ctrl: np.ndarray, num_substeps: int
) -> Callable[[], int]:
    """Return a run that steps all walkers, one call of `rollout` for each control step, and tells
    how many physics steps it made.

    Args:
        model: the model.
        data: the state from which all walkers start.
        ctrl: float64[T, N, nu], controls of each control step.
        num_substeps: physics steps in a control step.
    """
    num_steps, n, _ = ctrl.shape
    full = mujoco.mjtState.mjSTATE_FULLPHYSICS
    datas = [mujoco.MjData(model) for _ in range(usable_cores())]
    start = np.zeros((n, mujoco.mj_stateSize(model, full)))
    mujoco.mj_getState(model, data, start[0], full)
    start[:] = start[0]
    pool = rollout.Rollout(nthread=len(datas))

    def run() -> int:
        state = start
        for action in ctrl:
            held = np.repeat(action[:, None], num_substeps, axis=1)
            states, _ = pool.rollout(model, datas, state, held)
            state = states[:, -1]
        return n * num_steps * num_substeps

    return run


def place_slots(
    model: mujoco.MjModel, names: Sequence[str], position: np.ndarray, size: np.ndarray
) -> None:
    """Move and size the slots of a model, in place.

    Args:
        model: the model.
        names: of the slots; bodies and geoms share them.
        position, size: float[K, 3], centres and half sizes, metres.
    """
    for i, name in enumerate(names):
        body, geom = model.body(name).id, model.geom(name).id
        model.body_pos[body] = position[i]
        model.geom_size[geom] = size[i]
        model.geom_rbound[geom] = np.linalg.norm(size[i])
        model.geom_aabb[geom, 3:] = size[i]
