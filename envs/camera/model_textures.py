"""Read textures from a compiled model."""

import mujoco
import numpy as np


def is_flat(model: mujoco.MjModel, texture: int) -> bool:
    """Return whether a texture is a flat image, not a cube of six faces."""
    return model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_2D


def texture_2d(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """Return the linear colours of a texture, float64[H, W, 3] in [0, 1]."""
    colours = _read(model, texture)
    # OpenGL converts images in sRGB to linear colours, and MuJoCo shows those unconverted.
    if is_flat(model, texture) and (
        model.tex_colorspace[texture] == mujoco.mjtColorSpace.mjCOLORSPACE_SRGB
    ):
        dark = colours / 12.92
        colours = np.where(colours <= 0.04045, dark, ((colours + 0.055) / 1.055) ** 2.4)
    return colours


def cube_texture(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """Return the faces right, left, up, down, front, back, float64[6, N, N, 3] in [0, 1]."""
    colours = _read(model, texture)
    size = colours.shape[1]
    faces = colours.reshape(-1, size, size, 3)
    # A cube with one face repeats it on all six.
    return faces if len(faces) == 6 else np.broadcast_to(faces[:1], (6, size, size, 3))


def _read(model: mujoco.MjModel, texture: int) -> np.ndarray:
    height, width = model.tex_height[texture], model.tex_width[texture]
    channels, start = model.tex_nchannel[texture], model.tex_adr[texture]
    data = model.tex_data[start : start + height * width * channels]
    image = data.reshape(height, width, channels)[..., :3] / 255.0
    return np.broadcast_to(image, (height, width, 3))
