"""Draw docs/stages.png: what each stage makes of what an ant between walls sees.

python docs/stages.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import envs
from encoders import make_encoder
from encoders.randomness import takes_key
from envs.vision import VisionConfig

SPECS = (
    "gray", "edges", "gray | edges", "dog", "gray | dog(center=2, surround=6)",
    "gray | gabor(cells=complex)", "blur(sigma=2)", "downsample(factor=4)",
    "crop(height=48, width=48)", "fovea", "fovea | gray", "motion", "noise", "dropout(rate=0.3)",
)  # fmt: skip
STEPS = 12
"""Control steps before the frame, under random actions, so that something moves."""


def frames() -> np.ndarray:
    """Return two consecutive frames, uint8[96, 96, 6]."""
    vision = VisionConfig(height=96, width=96, supersample=2)
    env = envs.make("walls_ant", vision=vision, frames=2)
    step, state = jax.jit(env.step), jax.jit(env.reset)(jax.random.key(0))
    for key in jax.random.split(jax.random.key(1), STEPS):
        state = step(state, jax.random.uniform(key, (env.action_size,), minval=-1))
    return np.asarray(state.obs["vision"])


def shown(image: np.ndarray) -> np.ndarray:
    """Return an image of 1 or 3 channels as it is, of more channels as tiles, four to a row."""
    if image.shape[-1] in (1, 3):
        return image
    tiles = np.moveaxis(image, -1, 0).reshape(-1, 4, *image.shape[:2])
    return np.concatenate([np.concatenate(list(row), 1) for row in tiles / tiles.max()], 0)[
        ..., None
    ]


def main() -> None:
    """Draw the picture."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    both = frames()
    figure, axes = pyplot.subplots(3, 5, figsize=(15, 9.6), layout="constrained")
    pictures = {"the frame, 96x96x3": both[..., 3:]}
    for spec in SPECS:
        image = both if spec == "motion" else both[..., 3:]
        encoder = make_encoder(spec)
        keys = [jax.random.key(0)] if takes_key(encoder) else []
        made = np.asarray(encoder.apply({}, jnp.asarray(image), *keys))
        pictures[f"{spec}\n{'x'.join(map(str, made.shape))}"] = shown(made)
    for axis, (name, image) in zip(axes.flat, pictures.items(), strict=True):
        pixels = image / 255 if image.dtype == np.uint8 else image
        axis.imshow(pixels.clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.axis("off")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
