"""Where everything is, at a state: forward kinematics, the same for both physics back ends."""

import copy

import jax
import jax.numpy as jnp
import mujoco
from flax import struct
from mujoco import mjx


@struct.dataclass
class Poses:
    """Poses in the world frame, in metres; names are `mujoco.MjData`'s.

    Matrices have the frame's axes as their columns; a camera looks along its negative z axis.

    Attributes:
        xpos: float32[nbody, 3], origins of the bodies.
        xmat: float32[nbody, 3, 3].
        geom_xpos: float32[ngeom, 3].
        geom_xmat: float32[ngeom, 3, 3].
        cam_xpos: float32[ncam, 3].
        cam_xmat: float32[ncam, 3, 3].
        subtree_com: float32[nbody, 3], centre of mass of each body and its descendants.
    """

    xpos: jax.Array
    xmat: jax.Array
    geom_xpos: jax.Array
    geom_xmat: jax.Array
    cam_xpos: jax.Array
    cam_xmat: jax.Array
    subtree_com: jax.Array


class Kinematics:
    """Forward kinematics of a model, as a function.

    `mujoco.MjData` after `mj_step` lags its own positions by one physics step; this does not.

    Args:
        model: any model, also one that MJX cannot simulate.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        still = copy.copy(model)
        # Neither contacts nor the solver matter here, and MJX would refuse some of them.
        still.geom_contype[:] = still.geom_conaffinity[:] = 0
        still.opt.noslip_iterations = 0
        self._model = mjx.put_model(still, impl="jax")
        self._data = mjx.make_data(still, impl="jax")

    def __call__(self, qpos: jax.Array, mocap_pos: jax.Array | None = None) -> Poses:
        """Poses at `qpos`, float32[nq], with mocap bodies at `mocap_pos`, float32[nmocap, 3], or
        where the model has them."""
        data = self._data.replace(qpos=jnp.asarray(qpos, jnp.float32))
        if mocap_pos is not None:
            data = data.replace(mocap_pos=mocap_pos)
        data = mjx.kinematics(self._model, data)
        data = mjx.com_pos(self._model, data)
        data = mjx.camlight(self._model, data)
        return Poses(
            xpos=data.xpos,
            xmat=data.xmat,
            geom_xpos=data.geom_xpos,
            geom_xmat=data.geom_xmat,
            cam_xpos=data.cam_xpos,
            cam_xmat=data.cam_xmat,
            subtree_com=data.subtree_com,
        )
