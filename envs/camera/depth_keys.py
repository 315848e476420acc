"""Pack the depth of a hit and what it shows into one 32-bit number, a depth key.

The high bits of a key are those of the depth (positive floats have the order of their bits); the
low bits are a payload: the surface and its shade, or the geom's label. The nearest of several hits
is then the one with the least key, so a loop over geoms carries one array, and colours are computed
once per pixel, after the loop.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.lights import LightPoses
from envs.camera.primitives import Hit, Rays

# Bits of a key that are not depth, and their mask.
PAYLOAD_BITS = 12
PAYLOAD = (1 << PAYLOAD_BITS) - 1


class Payload(NamedTuple):
    """The data of a hit of one geom besides its depth.

    Attributes:
        surface: int32[], index of the surface in the atlas.
        label: int32[], the geom's id.
        limit: float32[], the shade above which the surface gets no brighter.
    """

    surface: jax.Array
    label: jax.Array
    limit: jax.Array


Encode = Callable[[Rays, Hit, Payload, LightPoses], jax.Array]
"""(rays, hit, payload, lights) -> keys int32[R] of the hits."""


def pack(depth: jax.Array, payload: jax.Array) -> jax.Array:
    """Return keys int32[...] of `depth` float32[...], metres, and `payload` int32[...]."""
    bits = jax.lax.bitcast_convert_type(depth, jnp.int32)
    return (bits & np.int32(~PAYLOAD)) | payload


def depth_of(keys: jax.Array) -> jax.Array:
    """Return the depths float32[...] of packed keys, metres, rounded down to the bits they keep."""
    return jax.lax.bitcast_convert_type(keys & np.int32(~PAYLOAD), jnp.float32)
