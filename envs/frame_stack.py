"""Stack the last few images along their channels, so that an encoder of one image sees motion."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vnl_ppo.env import Env, Observation, ObservationSpec, State


class FrameStack(Env):
    """An environment whose images are its last K images, stacked along the channels, oldest first.

    Images are the observation's uint8 leaves, at any depth; they stay uint8. At the start of an
    episode all K show the first state. The frames are kept in the observation itself. All other
    attributes are those of the wrapped environment; if another of its methods, such as `at`,
    returns a `State`, its images are repeated K times, as after a reset.

    Args:
        env: any environment.
        number: K, the number of images, 1 or more.

    Raises:
        ValueError: `number` is below 1, or the observation has no image.
    """

    def __init__(self, env: Env, number: int) -> None:
        if number < 1:
            raise ValueError(f"frames is {number}; it has to be 1 or more")
        self.env, self.number = env, number
        if not any(_is_image(spec) for spec in jax.tree.leaves(env.observation_spec)):
            paths = jax.tree_util.tree_leaves_with_path(env.observation_spec)
            names = (jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths)
            raise ValueError(
                f"there is no image to stack among {', '.join(names)}; images are uint8 leaves"
            )

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # a copy is being made, which has no attributes yet
            raise AttributeError(name)
        found = getattr(self.env, name)
        if not inspect.ismethod(found):
            return found

        @functools.wraps(found)
        def stacked(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            return self._repeated(result) if isinstance(result, State) else result

        return stacked

    @property
    def observation_spec(self) -> ObservationSpec:
        """Shape and dtype of every leaf of an observation."""

        def stacked(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            if not _is_image(spec):
                return spec
            *size, channels = spec.shape
            return jax.ShapeDtypeStruct((*size, channels * self.number), spec.dtype)

        return jax.tree.map(stacked, self.env.observation_spec)

    @property
    def action_size(self) -> int:
        """Number of entries of an action."""
        return self.env.action_size

    def reset(self, key: jax.Array) -> State:
        """Start an episode; see `Env.reset`."""
        return self._repeated(self.env.reset(key))

    def step(self, state: State, action: jax.Array) -> State:
        """Advance one control step; see `Env.step`."""
        newest = self._on_images(lambda spec, x: x[..., -spec.shape[-1] :], state.obs)
        after = self.env.step(dataclasses.replace(state, obs=newest), action)
        append = lambda spec, old, new: jnp.concatenate([old[..., spec.shape[-1] :], new], axis=-1)
        stacked = self._on_images(append, state.obs, after.obs)
        return dataclasses.replace(after, obs=stacked)

    def _repeated(self, state: State) -> State:
        """Return a state of the wrapped environment with its images repeated K times."""
        obs = self._on_images(lambda _, x: jnp.tile(x, self.number), state.obs)
        return dataclasses.replace(state, obs=obs)

    def _on_images(self, function: Callable[..., jax.Array], *obs: Observation) -> Observation:
        """Apply (spec, images...) -> image to every image; other leaves are of the last `obs`."""
        on_leaf = lambda spec, *x: function(spec, *x) if _is_image(spec) else x[-1]
        return jax.tree.map(on_leaf, self.env.observation_spec, *obs)


def _is_image(spec: jax.ShapeDtypeStruct) -> bool:
    return spec.dtype == jnp.uint8
