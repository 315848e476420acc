"""Save a policy as plain arrays, so that one program can evaluate the policies of both sides."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def save(
    folder: Path,
    step: int,
    mean: np.ndarray,
    deviation: np.ndarray,
    layers: Sequence[Mapping[str, np.ndarray]],
) -> None:
    """Write `folder`/STEP.npz.

    Args:
        folder: made if it is not there.
        step: environment steps learned for.
        mean, deviation: float32[P], by which observations are normalised.
        layers: kernel [I, O] and bias [O] of each dense layer, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"mean": mean, "deviation": deviation}
    for i, layer in enumerate(layers):
        arrays |= {f"kernel_{i}": layer["kernel"], f"bias_{i}": layer["bias"]}
    np.savez(folder / f"{step}.npz", **{k: np.asarray(x) for k, x in arrays.items()})
