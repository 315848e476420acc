"""Define an environment of 64x64 pixels without physics or a camera, so that it costs nothing.

It has Brax's interface and runs on both sides. Both get the same images; each has its own dtype.
"""

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State

SIZE = 64
IMAGE = "pixels/view_0"
"""Brax's vision networks look for leaves whose names begin so."""


class Pixels(Env):
    """A bright spot on a slope of grey, moved by the action, rewarded for being in the middle.

    Observes the image [64, 64, 3] and, as `state`, where the spot is, float32[2] in [-1, 1].

    Args:
        dtype: of pixels: uint8 in 0 to 255, or float32 in 0 to 1.
    """

    action_size = 2
    observation_size = {IMAGE: (SIZE, SIZE, 3), "state": (2,)}
    backend = "none"

    def __init__(self, dtype: str) -> None:
        self.dtype = jnp.dtype(dtype)

    def reset(self, rng: jax.Array) -> State:
        """The spot anywhere."""
        place = jax.random.uniform(rng, (2,), minval=-1, maxval=1)
        zero = jnp.zeros(())
        return State(place, self._observe(place), zero, zero)

    def step(self, state: State, action: jax.Array) -> State:
        """Move the spot by a tenth of the action."""
        place = jnp.clip(state.pipeline_state + 0.1 * action, -1, 1)
        return state.replace(
            pipeline_state=place, obs=self._observe(place), reward=1 - jnp.abs(place).mean()
        )

    def _observe(self, place: jax.Array) -> dict[str, jax.Array]:
        line = jnp.linspace(-1, 1, SIZE)
        spot = jnp.exp(-20 * ((line[:, None] - place[0]) ** 2 + (line - place[1]) ** 2))
        slope = jnp.broadcast_to((line + 1) / 2, spot.shape)
        image = jnp.stack([spot, slope, slope.T], axis=-1)
        if jnp.issubdtype(self.dtype, jnp.integer):
            image = jnp.round(255 * image)
        return {IMAGE: image.astype(self.dtype), "state": place}
