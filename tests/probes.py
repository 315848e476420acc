"""Environments small enough that the right answer is known by hand."""

import dataclasses

import jax
import jax.numpy as jnp

from vnl_ppo.env import State


@dataclasses.dataclass(frozen=True)
class Probe:
    """One agent that sees `x` (and perhaps a picture) and is rewarded for its action.

    reward: (x float32[], action float32[]) -> float32[].
    steps: after how many the episode fails; 0 for never.
    picture: whether x is shown as the brightness of an image instead of as a number.
    cut: whether the environment cuts itself short instead of failing.
    scale: by which the number that the agent sees is blown up.
    """

    reward: object
    steps: int = 0
    picture: bool = False
    cut: bool = False
    scale: float = 1.0
    action_size: int = 1
    metric_reductions = {"x": "last", "action": "sum"}

    @property
    def observation_spec(self):
        vector = {"proprio": jax.ShapeDtypeStruct((2,), jnp.float32)}
        image = {"vision": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8)}
        return vector | (image if self.picture else {})

    def reset(self, key):
        key, x_key = jax.random.split(key)
        x = jax.random.choice(x_key, jnp.array([-1.0, 1.0]))
        zero = jnp.zeros(())
        data = {"key": key, "x": x, "step": jnp.zeros((), jnp.int32)}
        info = {"truncation": zero}
        return State(data, self._see(x), zero, zero, {"x": zero, "action": zero}, info)

    def step(self, state, action):
        key, x_key = jax.random.split(state.data["key"])
        reward = self.reward(state.data["x"], action[0])
        x = jax.random.choice(x_key, jnp.array([-1.0, 1.0]))
        step = state.data["step"] + 1
        over = jnp.float32(step == self.steps)
        return State(
            {"key": key, "x": x, "step": step},
            self._see(x),
            reward,
            over,
            {"x": x, "action": action[0]},
            {"truncation": over * self.cut},
        )

    def _see(self, x):
        if not self.picture:
            return {"proprio": jnp.stack([x * self.scale, jnp.zeros(())])}
        image = jnp.full((4, 4, 3), 127 + 100 * x).astype(jnp.uint8)
        return {"proprio": jnp.zeros(2), "vision": image}
