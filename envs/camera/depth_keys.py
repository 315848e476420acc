"""Pack the depth of a hit and what it shows into one 32-bit number, a depth key.

The high bits of a key are those of the depth (positive floats have the order of their bits); the
low bits are a payload: the surface and its shade, or the geom's label. The nearest of several hits
is then the one with the least key, so a loop over geoms carries one array, and colours are computed
once per pixel, after the loop.

No depth lies before the camera's near plane. So a key counts from there: 64 doublings need two bits
fewer than a float's exponent has, and the mantissa keeps 13. Of two surfaces the nearer is seen if
their depths differ by 1/8192 or more.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.lights import LightPoses
from envs.camera.primitives import FAR, Hit, Rays

# Bits of a key that are not depth, and their mask.
PAYLOAD_BITS = 12
PAYLOAD = (1 << PAYLOAD_BITS) - 1
_SHIFT = 2
# 64 doublings below the greatest depth.
_NEAREST = FAR * np.float32(2.0**-63)


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


@dataclasses.dataclass(frozen=True)
class DepthKeys:
    """Makes and reads the depth keys of one camera.

    Attributes:
        near: depth of the camera's near plane, metres; all depths lie behind it.
    """

    near: float

    @property
    def _least(self) -> np.int32:
        return max(np.float32(self.near), _NEAREST).view(np.int32)

    def of(self, depth: jax.Array) -> jax.Array:
        """Return keys int32[...] of `depth` float32[...], metres, without loss and payload."""
        return (jax.lax.bitcast_convert_type(depth, jnp.int32) - self._least) << _SHIFT

    def pack(self, depth: jax.Array, payload: jax.Array) -> jax.Array:
        """Return keys int32[...] of `depth` float32[...], metres, and `payload` int32[...]."""
        return (self.of(depth) & np.int32(~PAYLOAD)) | payload

    def depth(self, keys: jax.Array) -> jax.Array:
        """Return the depths float32[...] of keys without payload, metres."""
        return jax.lax.bitcast_convert_type((keys >> _SHIFT) + self._least, jnp.float32)

    def packed_depth(self, keys: jax.Array) -> jax.Array:
        """Return the depths float32[...] of packed keys, metres, rounded down to their bits."""
        return self.depth(keys & np.int32(~PAYLOAD))

    def bound(self, depth: float) -> np.int32:
        """Return the least packed key of a depth, metres: of a ray that hits nothing before it."""
        key = int(np.float32(depth).view(np.int32) - self._least) << _SHIFT
        return np.int32(key & ~PAYLOAD)
