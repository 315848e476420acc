"""Find which parts of an animal touch something, from the positions of its joints."""

from collections.abc import Sequence

import mujoco
import numpy as np


class Contacts:
    """Tells which bodies of an animal touch something that is not the animal.

    Contacts follow from positions alone, by MuJoCo's collision detection in C: two geoms touch
    where their distance is 0 or less.

    Args:
        model: the whole model of an episode, such as `Locomotion.whole` makes it.
        root: id of the animal's root body.
    """

    def __init__(self, model: mujoco.MjModel, root: int) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self.bodies: Sequence[int] = np.flatnonzero(
            model.body_rootid == model.body_rootid[root]
        ).tolist()

    @property
    def names(self) -> list[str]:
        """Names of the bodies, the number of one that has none."""
        return [self._model.body(i).name or str(i) for i in self.bodies]

    def __call__(self, qpos: np.ndarray) -> np.ndarray:
        """Return bool[..., bodies] for positions float[..., nq]."""
        flat = qpos.reshape(-1, qpos.shape[-1])
        touches = np.zeros((len(flat), self._model.nbody), bool)
        for i, positions in enumerate(flat):
            self._data.qpos[:] = positions
            mujoco.mj_fwdPosition(self._model, self._data)
            contact = self._data.contact
            pairs = self._model.geom_bodyid[contact.geom[contact.dist <= 0]]
            ours = np.isin(pairs, self.bodies)
            outside = ours.sum(axis=1) == 1
            touches[i, pairs[outside][ours[outside]]] = True
        return touches[:, self.bodies].reshape(*qpos.shape[:-1], -1)
