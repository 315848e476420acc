"""Compute how bright a surface is: Lambert shading by a model's lights, as MuJoCo's renderer does.

MuJoCo uses OpenGL's fixed-function lighting. The headlight shines along the optical axis, not away
from a point; spots fade with the angle to their axis. Shadows, highlights and emission are absent.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.primitives import Hit, Rays

# The ambient light of a model without any light (initLights, render_gl3.c).
_UNLIT = 0.3


@dataclasses.dataclass(frozen=True)
class Light:
    """One light of a model.

    Attributes:
        index: its id in the model, or -1 for the headlight.
        weight: its share in the diffuse light of all lights.
        directional: whether its rays are parallel; otherwise it is a spot.
        attenuation: coefficients of attenuation, constant, linear and quadratic in the distance
            (1, 1/m, 1/m^2).
        cosine: cosine of half the opening angle of the spot's cone.
        exponent: exponent of the cosine of the angle to the spot's axis.
    """

    index: int
    weight: float
    directional: bool = True
    attenuation: tuple[float, float, float] = (1.0, 0.0, 0.0)
    cosine: float = -1.0
    exponent: float = 0.0


class LightPoses(NamedTuple):
    """Poses of the lights `Lighting.model_ids` in the camera's frame.

    Attributes:
        position: float32[L, 3], metres.
        direction: float32[L, 3], unit vectors along which they shine.
    """

    position: jax.Array
    direction: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Lighting:
    """All lights of a model. A surface of colour c and shade s shows c (ambient + s diffuse).

    The shade, in [0, 1], is the share of the diffuse light that falls on the surface. One number
    serves all three colours, so lights of different hues shine in their mean hue.

    Attributes:
        ambient: float32[3].
        diffuse: float32[3], the sum over all lights.
        lights: those with diffuse light.
    """

    ambient: np.ndarray
    diffuse: np.ndarray
    lights: tuple[Light, ...]

    @property
    def model_ids(self) -> tuple[int, ...]:
        """Model ids of the lights whose poses `shade` needs: all but the headlight."""
        return tuple(light.index for light in self.lights if light.index >= 0)

    @classmethod
    def from_model(cls, model: mujoco.MjModel) -> "Lighting":
        """Read the headlight, spots and directional lights that are on, as MuJoCo draws them."""
        ambient, diffuse = np.zeros(3), np.zeros(3)
        found: list[tuple[Light, np.ndarray]] = []
        headlight = model.vis.headlight
        if headlight.active:
            found.append((Light(-1, 0.0), np.asarray(headlight.diffuse)))
            ambient += headlight.ambient
        for i in np.flatnonzero(model.light_active):
            kind = model.light_type[i]
            directional = kind == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
            if not directional and kind != mujoco.mjtLightType.mjLIGHT_SPOT:
                continue
            ambient += model.light_ambient[i]
            light = Light(int(i), 0.0)
            if not directional:
                constant, linear, quadratic = (float(x) for x in model.light_attenuation[i])
                cone = np.cos(np.deg2rad(min(180.0, float(model.light_cutoff[i]))))
                light = dataclasses.replace(
                    light,
                    directional=False,
                    attenuation=(constant, linear, quadratic),
                    cosine=float(cone),
                    exponent=float(model.light_exponent[i]),
                )
            found.append((light, model.light_diffuse[i]))
        if not found:
            ambient += _UNLIT
        diffuse = sum((colour for _, colour in found), diffuse)
        total = max(float(diffuse.mean()), 1e-9)
        lights = tuple(
            dataclasses.replace(light, weight=float(colour.mean()) / total)
            for light, colour in found
            if colour.any()
        )
        return cls(ambient.astype(np.float32), diffuse.astype(np.float32), lights)

    def limit(self) -> float:
        """Return the shade at which a white surface reaches full brightness."""
        brightest = self.diffuse.max()
        dark = float(1 - self.ambient.max())
        return max(0.0, dark / float(brightest)) if brightest > 0 else 0.0

    def shade(self, rays: Rays, hit: Hit, poses: LightPoses) -> jax.Array:
        """Return the shades of hits, float32[R] or float32[], in [0, 1]."""
        total = jnp.float32(0)
        place = 0
        for light in self.lights:
            if light.index < 0:
                total += light.weight * jnp.maximum(hit.normal[2], 0)
                continue
            direction = poses.direction[place]
            if light.directional:
                facing = -sum(n * direction[i] for i, n in enumerate(hit.normal))
                total += light.weight * jnp.maximum(facing, 0)
            else:
                total += light.weight * _spot(light, rays, hit, poses.position[place], direction)
            place += 1
        return total


def _spot(
    light: Light, rays: Rays, hit: Hit, position: jax.Array, direction: jax.Array
) -> jax.Array:
    """Return the light of a spot on hits, float32[R] in [0, 1]."""
    towards = [position[i] - p for i, p in enumerate(rays.at(hit.depth))]
    inverse = jax.lax.rsqrt(sum(x * x for x in towards))
    facing = sum(n * x for n, x in zip(hit.normal, towards, strict=True)) * inverse
    cosine = -sum(x * direction[i] for i, x in enumerate(towards)) * inverse
    bright = jnp.maximum(facing, 0)
    if light.exponent:
        whole = light.exponent == int(light.exponent)
        axial = jnp.maximum(cosine, 0)
        bright *= axial ** (int(light.exponent) if whole else light.exponent)
    constant, linear, quadratic = light.attenuation
    if linear or quadratic or constant != 1:
        distance = 1 / inverse
        bright *= 1 / (constant + distance * (linear + distance * quadratic))
    return jnp.where(cosine >= light.cosine, bright, 0)
