"""Draw docs/animals.png: every preset at the start of an episode, from outside and by its eye.

python docs/animals.py
"""

from pathlib import Path

import jax
import matplotlib
import numpy as np

import envs
from envs.film import film
from envs.presets import NEED_A_FILE, PRESETS
from envs.vision import VisionConfig

SIZE, EYE = (192, 256), 64
COLUMNS = 3


def picture(name: str) -> np.ndarray:
    """Return uint8[192, 452, 3], the picture from outside and, beside it, that of the eye."""
    vision = VisionConfig(height=EYE, width=EYE)
    env = envs.make(name, vision=vision)
    state = jax.jit(env.reset)(jax.random.key(2))
    data, alive = jax.tree.map(lambda x: x[None], state.data), np.ones(1, bool)
    outside = next(film(env, data, alive, env.film_camera, SIZE, inset=0))
    seen = np.asarray(state.obs[next(iter(env.eyes))])
    seen = np.kron(seen, np.ones((SIZE[0] // EYE, SIZE[0] // EYE, 1), np.uint8))
    return np.concatenate([outside, np.full((SIZE[0], 4, 3), 255, np.uint8), seen], axis=1)


def main() -> None:
    """Draw the picture."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in PRESETS if name not in NEED_A_FILE]
    rows = -(-len(names) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(14, 2.25 * rows), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        axis.imshow(picture(name), interpolation="nearest")
        axis.set_title(name, fontsize=10)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
