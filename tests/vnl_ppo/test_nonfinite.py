"""Runs survive numbers that are not finite, count them, and learn nothing from them.

A broken step has to count as a failure that earns nothing. So each run has a twin whose environment
ends the same episodes at the same steps by such failures, and both have to end with the same bits.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import envs
from envs.arenas.gaps import Gaps
from envs.locomotion import Locomotion
from envs.tasks.run_through_corridor import RunThroughCorridor
from tests.probes import Probe
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.train import train

# Each run compiles for longer than it trains.
pytestmark = pytest.mark.slow

CONFIG = PPOConfig(
    num_timesteps=128 * 6,
    num_envs=8,
    unroll_length=4,
    batch_size=8,
    num_minibatches=4,
    num_updates_per_batch=2,
    episode_length=10,
    num_evals=2,
    num_eval_envs=4,
)
FAULTS = ("observation", "reward", "simulation")
# The last is finite, but its square is not.
VALUES = np.array([np.nan, np.inf, -np.inf, 1e20], np.float32)


class Around:
    """Pass on what an environment around `self.env` has in common with it."""

    @property
    def observation_spec(self):
        return self.env.observation_spec

    @property
    def action_size(self):
        return self.env.action_size

    @property
    def metric_reductions(self):
        return dict(self.env.metric_reductions)


@dataclasses.dataclass(frozen=True)
class Struck(Around):
    """Half of an environment's episodes break at one step.

    what: one of `FAULTS`, or "any", drawn for each episode.
    when: at which step of the episode; 0 to draw it from 1 to 8.
    cleanly: whether the step is a failure that earns nothing instead; that is the twin.
    """

    env: object
    what: str = "any"
    when: int = 0
    cleanly: bool = False

    def reset(self, key):
        key, strike, kind, value, when = jax.random.split(key, 5)
        state = self.env.reset(key)
        drawn = jax.random.randint(kind, (), 0, len(FAULTS))
        data = {
            "inner": state.data,
            "step": jnp.zeros((), jnp.int32),
            "struck": jax.random.bernoulli(strike),
            "when": jax.random.randint(when, (), 1, 9) if self.when == 0 else jnp.int32(self.when),
            "kind": drawn if self.what == "any" else jnp.int32(FAULTS.index(self.what)),
            "value": jax.random.randint(value, (), 0, len(VALUES)),
        }
        metrics = state.metrics | {f"struck_{name}": jnp.zeros(()) for name in FAULTS}
        info = state.info | {"failed": jnp.zeros((), bool)}
        return state.replace(data=data, metrics=metrics, info=info)

    def step(self, state, action):
        data = state.data | {"step": state.data["step"] + 1}
        now = data["struck"] & (data["step"] == data["when"])
        after = self.env.step(state.replace(data=data["inner"]), action)
        is_a = [now & (data["kind"] == i) for i in range(len(FAULTS))]
        metrics = {f"struck_{f}": jnp.float32(x) for f, x in zip(FAULTS, is_a, strict=True)}
        after = after.replace(data=data | {"inner": after.data}, metrics=after.metrics | metrics)
        if self.cleanly:
            return failed_cleanly(after, now)
        value = jnp.asarray(VALUES)[data["value"]]
        return after.replace(
            obs=jax.tree.map(lambda x: jnp.where(is_a[0], value, x), after.obs),
            reward=jnp.where(is_a[1], value, after.reward),
            info=after.info | {"failed": is_a[2]},
        )


def failed_cleanly(state, now):
    """A failure that earns nothing, where it is to come now."""
    return state.replace(
        reward=jnp.where(now, 0, state.reward),
        done=jnp.where(now, 1, state.done),
        info={
            "truncation": jnp.where(now, 0, state.info["truncation"]),
            "failed": jnp.zeros((), bool),
        },
    )


PROBE = Probe(lambda x, action: -((action - 0.5 * x) ** 2), steps=7)


def trained(env, network, config, folder):
    """The arrays of the last checkpoint, and every curve as float64[points]."""
    train(env, network, config, run_folder.create(folder, {}))
    step, leaves = checkpoint.read_last(folder / run_folder.CHECKPOINTS, pytest.fail)
    assert step == config.num_timesteps
    events = EventAccumulator(str(folder)).Reload()
    curves = {
        name: np.array([e.value for e in events.Scalars(name)]) for name in events.Tags()["scalars"]
    }
    return leaves, curves


def total(curves, name, config):
    """Return how often something happened in training, from its mean per step."""
    return round(float(curves[f"train/{name}"].sum()) * config.steps_per_iteration)


def assert_all_finite(leaves, curves):
    for name, x in [*leaves.items(), *curves.items()]:
        if np.issubdtype(x.dtype, np.floating):
            assert np.isfinite(x).all(), name


def learned(leaves):
    """Parameters, statistics, the optimiser's state: what may not know of any fault."""
    found = {k: x for k, x in leaves.items() if "weights" in k or "optimizer" in k}
    assert any("params" in k for k in found) and any("variance" in k for k in found)
    return found


def assert_as_its_twin(struck, twin):
    found, expected = learned(struck[0]), learned(twin[0])
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)


def check_struck(what, when, tmp_path):
    network = ActorCritic(1, {}, (8,), (8,))
    env = Struck(PROBE, what, when)
    struck = trained(env, network, CONFIG, tmp_path / "struck")
    twin = trained(dataclasses.replace(env, cleanly=True), network, CONFIG, tmp_path / "twin")
    assert_all_finite(*struck)
    assert_as_its_twin(struck, twin)
    curves, counts = struck[1], {}
    for fault in FAULTS:
        counts[fault] = total(curves, f"struck_{fault}", CONFIG)
        assert curves[f"train/nonfinite_{fault}"].sum() == counts[fault]
        assert (counts[fault] > 5) == (what in ("any", fault))
    assert curves["train/nonfinite_episodes"].sum() == sum(counts.values())
    assert curves["train/skipped_updates"].sum() == 0
    assert twin[1]["train/nonfinite_episodes"].sum() == 0
    print(f"{what} at step {when or 'drawn'}: {counts}")


def test_broken_steps_are_counted_and_taught_as_failures(tmp_path):
    check_struck("any", 0, tmp_path)


@pytest.mark.parametrize("what", FAULTS)
# The first step; the last of an unroll of fresh episodes; the one that fails anyway; drawn.
@pytest.mark.parametrize("when", [1, 4, 7, 0])
def test_each_fault_at_each_moment(what, when, tmp_path):
    check_struck(what, when, tmp_path)


@dataclasses.dataclass(frozen=True)
class Exploding(Around):
    """Gap ants, of which some break MuJoCo itself in one of their first steps.

    what: "position" or "velocity" become NaN, "speed" is 1e12, "action" is NaN; "cleanly" for the
        twin.
    """

    env: Locomotion
    what: str

    def reset(self, key):
        key, strike, when = jax.random.split(key, 3)
        state = self.env.reset(key)
        at = jnp.where(jax.random.bernoulli(strike), jax.random.randint(when, (), 1, 9), 0)
        data = {"inner": state.data, "step": jnp.zeros((), jnp.int32), "at": at}
        return state.replace(data=data, metrics=state.metrics | {"struck": jnp.zeros(())})

    def step(self, state, action):
        inner, step = state.data["inner"], state.data["step"] + 1
        now = step == state.data["at"]
        broken = lambda x, i, bad: x.at[i].set(jnp.where(now, bad, x[i]))
        qpos, qvel = inner.physics.qpos, inner.physics.qvel
        if self.what == "position":
            qpos = broken(qpos, 2, jnp.nan)
        elif self.what in ("velocity", "speed"):
            qvel = broken(qvel, 3, jnp.nan if self.what == "velocity" else 1e12)
        elif self.what == "action":
            action = broken(action, 0, jnp.nan)
        # The C engine goes on from its own bits, not from these copies of them.
        put = self.env.at(qpos, qvel, inner.layout).data.physics
        physics = jax.tree.map(lambda x, y: jnp.where(now, x, y), put, inner.physics)
        after = self.env.step(state.replace(data=inner.replace(physics=physics)), action)
        after = after.replace(
            data=state.data | {"inner": after.data, "step": step},
            metrics=after.metrics | {"struck": jnp.float32(now)},
        )
        return failed_cleanly(after, now) if self.what == "cleanly" else after


@pytest.mark.parametrize("back_end", ["mujoco"])
def test_a_simulation_that_breaks_teaches_as_a_failure(back_end, tmp_path):
    task = RunThroughCorridor(healthy_height=(-1e3, 1e3))
    ant = envs.make("gap_ant", seeing=False, physics=back_end, arena=Gaps(length=20), task=task)
    network = ActorCritic(ant.action_size, {}, (8,), (8,))
    config = dataclasses.replace(CONFIG, num_timesteps=128 * 4)
    twin = trained(Exploding(ant, "cleanly"), network, config, tmp_path / "twin")
    assert twin[1]["train/nonfinite_episodes"].sum() == 0
    for what in ("position", "velocity", "speed", "action"):
        struck = trained(Exploding(ant, what), network, config, tmp_path / what)
        assert_all_finite(*struck)
        curves = struck[1]
        count = total(curves, "struck", config)
        assert count > 10
        assert curves["train/nonfinite_simulation"].sum() == count
        assert curves["train/nonfinite_episodes"].sum() == count
        assert_as_its_twin(struck, twin)
        print(f"{back_end}, {what}: {count}")


class Contrast(nn.Module):
    """An encoder of a usual mistake: a norm has no gradient at 0, so a black picture gives NaN."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:-3], -1).astype(jnp.float32) / 255
        x = nn.Dense(8, use_bias=False)(x)
        return x / (1 + jnp.linalg.norm(x, axis=-1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class Dark(Around):
    """Pictures that are black at some steps; nothing else is wrong.

    share: of the steps.
    """

    env: object
    share: float

    def reset(self, key):
        state = self.env.reset(key)
        return state.replace(metrics=state.metrics | {"dark": jnp.zeros(())})

    def step(self, state, action):
        after = self.env.step(state, action)
        dark = jax.random.bernoulli(jax.random.fold_in(after.data["key"], 1), self.share)
        picture = jnp.where(dark, 0, after.obs["vision"]).astype(jnp.uint8)
        return after.replace(
            obs=after.obs | {"vision": picture},
            metrics=after.metrics | {"dark": jnp.float32(dark)},
        )


SEEING = ActorCritic(1, {"vision": Contrast()}, (8,), (8,))


@pytest.mark.parametrize("share", [0.002, 0.02, 1.0])
def test_updates_with_a_bad_gradient_are_skipped(share, tmp_path):
    env = Dark(dataclasses.replace(PROBE, picture=True), share)
    leaves, curves = trained(env, SEEING, CONFIG, tmp_path / "run")
    assert_all_finite(leaves, curves)
    skipped, made = curves["train/skipped_updates"].sum(), curves["train/updates"].sum()
    all_updates = CONFIG.num_iterations * CONFIG.num_updates_per_batch * CONFIG.num_minibatches
    assert skipped + made == all_updates
    # A picture spoils no more than its own minibatch, once in each pass over the data.
    dark = total(curves, "dark", CONFIG)
    assert 0 < skipped <= dark * CONFIG.num_updates_per_batch
    assert curves["train/nonfinite_episodes"].sum() == 0
    (count,) = (x for k, x in leaves.items() if k.startswith("optimizer") and k.endswith("count"))
    assert count == made, "Adam counts the updates that were made"
    if share == 1.0:
        # Episodes begin with a picture, yet every minibatch has a black one: nothing may move.
        first = checkpoint.read(tmp_path / "run" / run_folder.CHECKPOINTS, 0)
        assert made == 0
        for name, x in leaves.items():
            if "params" in name or name.startswith("optimizer"):
                np.testing.assert_array_equal(x, first[name], err_msg=name)
    print(f"{share:.1%} of the pictures: {dark:.0f} black, {skipped:.0f} of {all_updates} skipped")
