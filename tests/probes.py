"""Environments small enough that the right answer is known by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vnl_ppo.env import State

# Of NumPy: no device is to be used before processes are joined.
SIGNS = np.array([-1.0, 1.0], np.float32)


@dataclasses.dataclass(frozen=True)
class Probe:
    """An environment that shows a sign `x`, drawn anew in every step, and rewards the action.

    reward: (x float32[], action float32[]) -> float32[].
    steps: after how many the episode fails; 0 for never.
    picture: whether x is shown as the brightness of an image instead of as a number.
    cut: whether the environment cuts itself short instead of failing.
    """

    reward: object
    steps: int = 0
    picture: bool = False
    cut: bool = False
    action_size: int = 1
    metric_reductions = {"x": "last", "action": "sum"}

    @property
    def observation_spec(self):
        vector = {"proprio": jax.ShapeDtypeStruct((2,), jnp.float32)}
        image = {"vision": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8)}
        return vector | (image if self.picture else {})

    def reset(self, key):
        key, x_key = jax.random.split(key)
        x = jax.random.choice(x_key, SIGNS)
        zero = jnp.zeros(())
        data = {"key": key, "x": x, "step": jnp.zeros((), jnp.int32)}
        info = {"truncation": zero}
        return State(data, self._see(x), zero, zero, {"x": zero, "action": zero}, info)

    def step(self, state, action):
        key, x_key = jax.random.split(state.data["key"])
        reward = self.reward(state.data["x"], action[0])
        x = jax.random.choice(x_key, SIGNS)
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
            return {"proprio": jnp.stack([x, jnp.zeros(())])}
        return {"proprio": jnp.zeros(2), "vision": picture_of(x)}


def picture_of(x):
    """uint8[4, 4, 3], as bright as x in [-1, 1] is large."""
    return jnp.full((4, 4, 3), 127 + 100 * x).astype(jnp.uint8)


class Pixels(nn.Module):
    """Flattened pixels through one layer."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:-3], -1).astype(jnp.float32) / 255
        return nn.relu(nn.Dense(8)(x))


@dataclasses.dataclass(frozen=True)
class Senses:
    """Three signs to be added up, each shown by one leaf alone; everything else is constant.

    `faint` and `loud` are numbers a million times apart; of two images only the right one varies.
    The reward is -(action - target)^2; see `target`.
    """

    action_size: int = 1

    @property
    def observation_spec(self):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.see(jnp.ones(3)))

    @staticmethod
    def see(signs):
        return {
            "eye_left": picture_of(0.0),
            "eye_right": picture_of(signs[2]),
            "faint": signs[:1] * 1e-3,
            "loud": 500 + signs[1:2] * 1e3,
        }

    @staticmethod
    def target(signs):
        return 0.2 * signs.sum()

    def reset(self, key):
        key, draw = jax.random.split(key)
        signs = jax.random.choice(draw, SIGNS, (3,))
        zero = jnp.zeros(())
        return State({"key": key, "signs": signs}, self.see(signs), zero, zero, {}, {})

    def step(self, state, action):
        reward = -jnp.square(action[0] - self.target(state.data["signs"]))
        return self.reset(state.data["key"]).replace(reward=reward)


@dataclasses.dataclass(frozen=True)
class Worlds:
    """Six worlds in one, drawn at each reset and named in the observation; each step earns 1.

    The value with discount d is 1 / (1 - d) in a world that goes on, whether it is cut short from
    outside ("endless") or by itself in its fifth step ("stops"); 1 where it fails in its first
    step; and 0 where its first step breaks down.
    """

    action_size: int = 1
    kinds = ("endless", "stops", "fails", "blinded", "priceless", "exploded")

    @property
    def observation_spec(self):
        return {"kind": jax.ShapeDtypeStruct((len(self.kinds),), jnp.float32)}

    @classmethod
    def see(cls, kind):
        return {"kind": jax.nn.one_hot(kind, len(cls.kinds))}

    def reset(self, key):
        key, draw = jax.random.split(key)
        kind = jax.random.randint(draw, (), 0, len(self.kinds))
        zero, step = jnp.zeros(()), jnp.zeros((), jnp.int32)
        data = {"key": key, "kind": kind, "step": step}
        info = {"truncation": zero, "failed": jnp.zeros((), bool)}
        return State(data, self.see(kind), zero, zero, {"speed": zero}, info)

    def step(self, state, action):
        kind, step = state.data["kind"], state.data["step"] + 1
        is_a = lambda name: kind == self.kinds.index(name)
        stops = is_a("stops") & (step == 5)
        obs = jax.tree.map(lambda x: jnp.where(is_a("blinded"), jnp.nan, x), self.see(kind))
        reward = jnp.where(is_a("priceless"), jnp.inf, 1.0)
        return State(
            {"key": state.data["key"], "kind": kind, "step": step},
            obs,
            jnp.where(is_a("exploded"), 7.0, reward),
            jnp.float32(stops | is_a("fails")),
            {"speed": reward},
            {"truncation": jnp.float32(stops), "failed": is_a("exploded")},
        )


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Ends when and as its data say; observations and rewards are noise.

    A fresh episode fails at a step drawn from 1 to 8. `data["last"]` (int32[], 0 for never) and
    `data["cut"]` (bool[]) can be set to anything else.
    """

    action_size: int = 1

    @property
    def observation_spec(self):
        return {"noise": jax.ShapeDtypeStruct((2,), jnp.float32)}

    def reset(self, key):
        key, draw, see = jax.random.split(key, 3)
        zero = jnp.zeros(())
        data = {
            "key": key,
            "step": jnp.zeros((), jnp.int32),
            "last": jax.random.randint(draw, (), 1, 9),
            "cut": jnp.zeros((), bool),
        }
        obs = {"noise": jax.random.normal(see, (2,))}
        return State(data, obs, zero, zero, {}, {"truncation": zero})

    def step(self, state, action):
        key, see, earn = jax.random.split(state.data["key"], 3)
        step = state.data["step"] + 1
        over = step == state.data["last"]
        return State(
            state.data | {"key": key, "step": step},
            {"noise": jax.random.normal(see, (2,))},
            jax.random.normal(earn),
            jnp.float32(over),
            {},
            {"truncation": jnp.float32(over & state.data["cut"])},
        )


@dataclasses.dataclass(frozen=True)
class Recall:
    """A sign is shown in the first step of an episode only, and has to be repeated in every step.

    The reward is -(action - sign / 2)^2. Without memory the best action is 0, for -1/4 a step.
    """

    steps: int = 6
    action_size: int = 1

    @property
    def observation_spec(self):
        return {"cue": jax.ShapeDtypeStruct((1,), jnp.float32)}

    def reset(self, key):
        sign = jax.random.choice(key, SIGNS)
        zero = jnp.zeros(())
        data = {"sign": sign, "step": jnp.zeros((), jnp.int32)}
        return State(data, {"cue": sign[None]}, zero, zero, {}, {})

    def step(self, state, action):
        reward = -jnp.square(action[0] - state.data["sign"] / 2)
        step = state.data["step"] + 1
        data = state.data | {"step": step}
        done = jnp.float32(step == self.steps)
        return State(data, {"cue": jnp.zeros(1)}, reward, done, {}, {})


@dataclasses.dataclass(frozen=True)
class Shown:
    """Show two numbers in [-1, 1], drawn anew in every step, as the brightness of two halves of an
    image and, as the leaf `truth`, as they are. Rewards are 0."""

    action_size: int = 1
    observation_spec = {
        "vision": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8),
        "truth": jax.ShapeDtypeStruct((2,), jnp.float32),
    }

    def reset(self, key):
        key, draw = jax.random.split(key)
        truth = jax.random.uniform(draw, (2,), minval=-1.0)
        halves = [picture_of(x)[:2] for x in truth]
        obs = {"vision": jnp.concatenate(halves), "truth": truth}
        return State(key, obs, jnp.zeros(()), jnp.zeros(()), {}, {})

    def step(self, state, action):
        return self.reset(state.data)


SHOWN = Shown()


@dataclasses.dataclass(frozen=True)
class Spot:
    """Show a bright spot on noise, somewhere else in every step, and its place in [-1, 1]^2 as the
    leaf `place`. The reward is -|action - place|^2, on average -2/3 for an action of 0."""

    action_size: int = 2
    observation_spec = {
        "vision": jax.ShapeDtypeStruct((24, 24, 3), jnp.uint8),
        "place": jax.ShapeDtypeStruct((2,), jnp.float32),
    }

    def reset(self, key):
        key, draw, noise = jax.random.split(key, 3)
        place = jax.random.uniform(draw, (2,), minval=-1.0)
        rows = jnp.linspace(-1, 1, 24)
        near = jnp.exp(
            -sum((x / 0.15) ** 2 for x in jnp.meshgrid(*(rows - place[:, None]), indexing="ij"))
        )
        image = 120 * near[..., None] + jax.random.uniform(noise, (24, 24, 3), maxval=120.0)
        obs = {"vision": image.astype(jnp.uint8), "place": place}
        return State((key, place), obs, jnp.zeros(()), jnp.zeros(()), {}, {})

    def step(self, state, action):
        key, place = state.data
        return self.reset(key).replace(reward=-jnp.square(action - place).sum())


SPOT = Spot()
"""For `sweep.py`, as `--env tests.probes:SPOT` (docs/encoders.md)."""


SIGNS_ENV = Probe(lambda x, action: -((action - x) ** 2), steps=8)
"""An environment for command lines, as `--env tests.probes:SIGNS_ENV`."""


@dataclasses.dataclass(frozen=True)
class ShownToAnother(Shown):
    """The same for a body with one more action, which smells besides."""

    action_size: int = 2
    observation_spec = Shown.observation_spec | {"smell": jax.ShapeDtypeStruct((3,), jnp.float32)}

    def reset(self, key):
        state = super().reset(key)
        return state.replace(obs={**state.obs, "smell": jnp.full(3, 5.0)})


SHOWN_TO_ANOTHER = ShownToAnother()
