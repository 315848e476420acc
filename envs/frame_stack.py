"""The last few pictures side by side: motion for an eye that sees one picture at a time."""

from typing import Any

import jax
import jax.numpy as jnp

from vnl_ppo.env import Env, Observation


class FrameStack:
    """An environment whose images are the last K ones, along their channels, oldest first.

    Images are the observation's uint8 leaves; they stay uint8. After a reset all K show the first
    state. The frames are kept in the observation itself, and nowhere else. Whatever else the
    environment offers, this offers too.

    Args:
        env: any environment.
        number: K, 1 or more.

    Raises:
        ValueError: `number` is below 1, or there is no image to stack.
    """

    def __init__(self, env: Env, number: int) -> None:
        if number < 1:
            raise ValueError(f"frames is {number}; it has to be 1 or more")
        self.env, self.number = env, number
        self._images = [k for k, s in env.observation_spec.items() if s.dtype == jnp.uint8]
        if not self._images:
            leaves = ", ".join(env.observation_spec)
            raise ValueError(f"there is no image to stack among {leaves}; images are uint8 leaves")

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not there yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.env, name)

    @property
    def observation_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every leaf of an observation."""
        spec = dict(self.env.observation_spec)
        for name in self._images:
            *size, channels = spec[name].shape
            shape = (*size, channels * self.number)
            spec[name] = jax.ShapeDtypeStruct(shape, spec[name].dtype)
        return spec

    @property
    def action_size(self) -> int:
        """Number of entries of an action."""
        return self.env.action_size

    def reset(self, key: jax.Array) -> Any:
        """Begin an episode; see `Env.reset`."""
        state = self.env.reset(key)
        first = {name: jnp.tile(state.obs[name], self.number) for name in self._images}
        return state.replace(obs={**state.obs, **first})

    def step(self, state: Any, action: jax.Array) -> Any:
        """Advance one control step; see `Env.step`."""
        after = self.env.step(state.replace(obs=self._newest(state.obs)), action)
        stacked = {}
        for name in self._images:
            channels = after.obs[name].shape[-1]
            older = state.obs[name][..., channels:]
            stacked[name] = jnp.concatenate([older, after.obs[name]], axis=-1)
        return after.replace(obs={**after.obs, **stacked})

    def _newest(self, obs: Observation) -> dict[str, jax.Array]:
        newest = dict(obs)
        for name in self._images:
            channels = self.env.observation_spec[name].shape[-1]
            newest[name] = obs[name][..., -channels:]
        return newest
