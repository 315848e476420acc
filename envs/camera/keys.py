"""Keys: what a ray meets first, as one number.

The nearest hit is a minimum over primitives of a 32-bit key whose high bits are the depth (a
positive float orders as its bits do) and whose low bits are what has to be known about the winner:
its surface and shade, or its label. So one running minimum of one array is all that a loop over
primitives carries, and colours are mixed once per pixel, after it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.lights import LightPoses
from envs.camera.primitives import Hit, Rays

# Bits of a key that are not depth.
PAYLOAD_BITS = 12
PAYLOAD = (1 << PAYLOAD_BITS) - 1


class Payload(NamedTuple):
    """What a hit has to tell, besides where it is.

    Attributes:
        surface: int32[], of the palette.
        label: int32[].
        limit: float32[], the shade above which it gets no brighter.
    """

    surface: jax.Array
    label: jax.Array
    limit: jax.Array


Encode = Callable[[Rays, Hit, Payload, LightPoses], jax.Array]
"""Keys int32[R] of what rays hit."""


def pack(depth: jax.Array, payload: jax.Array) -> jax.Array:
    """Keys of hits at `depth` float32[...], metres, with PAYLOAD_BITS of `payload` int32[...]."""
    bits = jax.lax.bitcast_convert_type(depth, jnp.int32)
    return (bits & np.int32(~PAYLOAD)) | payload


def depth_of(keys: jax.Array) -> jax.Array:
    """float32[...], metres, rounded down to what a packed key holds of it."""
    return jax.lax.bitcast_convert_type(keys & np.int32(~PAYLOAD), jnp.float32)
