"""Environments of Brax and Playground: a toy of the same shape, and theirs where installed.

pip install -e ".[dev,brax,playground]" && python -m pytest tests/envs/test_foreign.py -m ""
"""

import subprocess
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from envs import foreign
from envs.foreign import Foreign
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import make_evaluate
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo
from vnl_ppo.rollout import advance, is_broken, start_episodes
from vnl_ppo.train import weights_of

SHORT = PPOConfig(
    num_envs=64, unroll_length=10, batch_size=16, num_minibatches=4, episode_length=20,
    learning_rate=3e-3, num_eval_envs=16, discounting=0.5, entropy_cost=1e-3, reward_scaling=1.0,
)  # fmt: skip


@struct.dataclass
class BraxState:
    """Brax's own: the physics are called `pipeline_state`, and info is empty without wrappers."""

    pipeline_state: Any
    obs: Any
    reward: jax.Array
    done: jax.Array
    metrics: dict = struct.field(default_factory=dict)
    info: dict = struct.field(default_factory=dict)


class Target:
    """Rewards the action that equals the observation; written as Brax's environments are, with raw
    keys, and metrics and info changed in place."""

    action_size = 1
    observation_size = 1

    def __init__(self, privileged=False):
        self.privileged = privileged

    def observe(self, target):
        if not self.privileged:
            return target[None]
        # Playground's asymmetric observations: the actor's is noise here.
        return {"state": 0 * target[None], "privileged_state": target[None]}

    def reset(self, rng):
        assert rng.dtype == jnp.uint32 and rng.shape == (2,)
        rng, key = jax.random.split(rng)
        target = jax.random.uniform(key, minval=-0.5, maxval=0.5)
        zero = jnp.zeros(())
        return BraxState(target, self.observe(target), zero, zero, {"miss": zero}, {"rng": rng})

    def step(self, state, action):
        miss = jnp.abs(action[0] - state.pipeline_state)
        rng, key = jax.random.split(state.info["rng"])
        target = jax.random.uniform(key, minval=-0.5, maxval=0.5)
        state.info.update(rng=rng)
        state.metrics.update(miss=miss)
        return state.replace(
            pipeline_state=target,
            obs=self.observe(target),
            reward=1 - miss,
            done=jnp.zeros(()),
        )


class VmapWrapper:
    """Vectorise an environment as Brax's wrapper of this name does."""

    def __init__(self, env):
        self.env = env

    def reset(self, rng):
        return jax.vmap(self.env.reset)(rng)


def learn(env, network, config, iterations):
    ppo = make_ppo(env, network, config)
    state = ppo.init(0)
    metrics = {}
    for _ in range(iterations):
        state, metrics = ppo.step(state)
    evaluate = make_evaluate(env, network, config)
    return metrics, evaluate(weights_of(state), jax.random.key(1))[0]


def test_a_bare_observation_is_learned_from():
    env = Foreign(Target())
    assert env.observation_spec["state"].shape == (1,)
    metrics, found = learn(env, ActorCritic(1, {}, (32,), (32,)), SHORT, 60)
    # To do nothing misses by 1/4 on average.
    assert found["miss"] < 0.1
    assert float(found["episode_reward"]) == pytest.approx(
        20 * (1 - float(found["miss"])), rel=1e-4
    )
    # It never ends by itself; the learner cuts it short.
    assert metrics["episode_length"][0] == 20


def test_a_critic_may_see_what_the_actor_does_not():
    env = Foreign(Target(privileged=True))
    assert sorted(env.observation_spec) == ["privileged_state", "state"]
    network = ActorCritic(
        1, {}, (32,), (32,), policy_leaves=["state"], value_leaves=["privileged_state"]
    )
    _, found = learn(env, network, SHORT, 20)
    # The best it can do unseeing is the middle, which misses by 1/4.
    assert 0.2 < found["miss"] < 0.4


def test_steps_are_those_of_the_environment():
    theirs, ours = Target(), Foreign(Target())
    key = jax.random.key(3)
    state, same = theirs.reset(jax.random.PRNGKey(3)), ours.reset(key)
    for _ in range(3):
        np.testing.assert_array_equal(state.obs, same.obs["state"])
        action = 0.3 * jnp.ones(1)
        state, same = theirs.step(state, action), ours.step(same, action)
        assert state.reward == same.reward


class Pendulum:
    """Has a physics state of which most is computed anew in each step, as `mjx.Data`'s is."""

    action_size = 1

    def reset(self, rng):
        angle = jax.random.uniform(rng)
        zero = jnp.zeros(())
        physics = {"angle": angle, "speed": zero, "lag": zero, "before": zero, "matrix": zero}
        return BraxState(self.fill(physics, zero), angle[None], zero, zero, {}, {})

    def fill(self, physics, force):
        # `matrix` is read by nobody, `before` only by itself.
        return physics | {
            "matrix": jnp.outer(jnp.ones(9), physics["angle"] * jnp.ones(9)),
            "before": physics["before"] + force,
        }

    def step(self, state, action):
        def substep(_, physics):
            # What is read only by what is read in turn, a step later.
            speed = physics["speed"] - 0.1 * jnp.sin(physics["angle"]) + physics["lag"]
            moved = {"angle": physics["angle"] + speed, "speed": speed, "lag": 0.1 * action[0]}
            return self.fill(physics | moved, action[0])

        physics = jax.lax.fori_loop(0, 3, substep, state.pipeline_state)
        angle = physics["angle"]
        return state.replace(pipeline_state=physics, obs=angle[None], reward=-jnp.square(angle))


def test_only_what_a_step_reads_is_carried():
    theirs, ours = Pendulum(), Foreign(Pendulum())
    state, same = theirs.reset(jax.random.PRNGKey(0)), ours.reset(jax.random.key(0))
    step, same_step = jax.jit(theirs.step), jax.jit(ours.step)
    for force in (1.0, -0.5, 0.3, 0.0):
        state = step(state, jnp.array([force]))
        same = same_step(same, jnp.array([force]))
        np.testing.assert_allclose(same.obs["state"], state.obs, rtol=1e-5)
        np.testing.assert_allclose(same.reward, state.reward, rtol=1e-5)
    kept = [state.pipeline_state[k] for k in ("angle", "lag", "speed")]
    np.testing.assert_allclose(same.data, kept, rtol=1e-5)


def test_wrappers_that_train_are_taken_off():
    inner = Target()
    assert Foreign(VmapWrapper(inner)).env is inner


def test_a_batch_is_refused():
    class Batch(VmapWrapper):
        def reset(self, rng):
            return super().reset(jax.random.split(rng, 4))

    with pytest.raises(ValueError, match=r"Batch is a batch of environments .* \[4\]"):
        Foreign(Batch(Target()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ant", "env is 'ant'; it has to be brax:NAME or playground:NAME"),
        ("gym:ant", "env is 'gym:ant'; it has to be"),
        ("brax:", "env is 'brax:'; it has to be"),
    ],
)
def test_a_name_of_no_maker_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        foreign.make(name)


@pytest.mark.parametrize("extra", ["brax", "playground"])
def test_a_missing_package_is_named_with_its_extra(extra, monkeypatch):
    for package in ("brax", "brax.envs", "mujoco_playground"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"pip install -e '.\[{extra}\]'"):
        foreign.make(f"{extra}:ant")


def test_brax_names_and_physics_are_checked():
    pytest.importorskip("brax")
    with pytest.raises(ValueError, match="no environment brax:ants; did you mean brax:ant"):
        foreign.make("brax:ants")
    with pytest.raises(ValueError, match="physics is 'mujoco'; Brax trains here with mjx, spring"):
        foreign.make("brax:ant", "mujoco")


def test_playground_names_are_checked():
    pytest.importorskip("mujoco_playground")
    with pytest.raises(ValueError, match="did you mean .*playground:CartpoleBalance"):
        foreign.make("playground:cartpolebalance")
    with pytest.raises(ValueError, match="physics is 'warp'; .* trains here with mjx$"):
        foreign.make("playground:CartpoleBalance", "warp")


def test_models_that_cannot_be_downloaded_are_told_of(monkeypatch):
    def load(name, config_overrides):
        raise subprocess.CalledProcessError(128, ["git", "clone"])

    registry = types.SimpleNamespace(ALL_ENVS=("Go1Handstand",), load=load)
    package = types.SimpleNamespace(registry=registry)
    monkeypatch.setitem(sys.modules, "mujoco_playground", package)
    with pytest.raises(ValueError, match="could not make Go1Handstand .*git.* it needs git and a"):
        foreign.make("playground:Go1Handstand")


@pytest.mark.slow
def test_little_of_brax_physics_is_carried():
    pytest.importorskip("brax")
    ours = foreign.make("brax:ant")
    theirs = ours.env
    state = jax.jit(theirs.reset)(jax.random.PRNGKey(0))
    same = jax.jit(ours.reset)(jax.random.key(0))
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    assert size(same.data) < size(state.pipeline_state) / 10
    step, same_step = jax.jit(theirs.step), jax.jit(ours.step)
    for force in (0.5, -1.0):
        action = jnp.full(8, force)
        state, same = step(state, action), same_step(same, action)
        np.testing.assert_allclose(same.obs["state"], state.obs, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_brax_pendulum_is_learned():
    pytest.importorskip("brax")
    env = foreign.make("brax:inverted_pendulum", "generalized")
    config = PPOConfig(
        num_envs=256, unroll_length=10, batch_size=64, num_minibatches=4, episode_length=200,
        reward_scaling=1.0, num_eval_envs=32, learning_rate=1e-3,
    )  # fmt: skip
    _, found = learn(env, ActorCritic(1, {}, (32, 32), (32, 32)), config, 60)
    # Untrained, it falls after 25 steps. Fewer iterations leave seeds that have not got there.
    assert found["episode_length"] > 100


@pytest.mark.slow
def test_playground_cartpole_is_balanced_longer():
    pytest.importorskip("mujoco_playground")
    env = foreign.make("playground:CartpoleBalance")
    config = PPOConfig(
        num_envs=128, unroll_length=10, batch_size=32, num_minibatches=4, episode_length=200,
        reward_scaling=1.0, num_eval_envs=32, learning_rate=1e-3,
    )  # fmt: skip
    network = ActorCritic(1, {}, (64, 64), (64, 64))
    _, before = learn(env, network, config, 0)
    _, after = learn(env, network, config, 60)
    assert after["episode_reward"] > before["episode_reward"] + 20


class Failing(Target):
    """A Brax environment that says in `info` whether a step failed, by numbers of its own."""

    def reset(self, rng):
        state = super().reset(rng)
        return state.replace(info={**state.info, "failed": jnp.ones(())})

    def step(self, state, action):
        after = super().step(state, action)
        return after.replace(info={**after.info, "failed": state.info["failed"] + 1})


def test_what_an_environment_calls_failed_is_no_breakdown():
    env = Foreign(Failing())
    keys = jax.random.split(jax.random.key(0), 4)
    episodes = start_episodes(env, keys, ())
    for number in (2, 3):
        episodes, faults = jax.jit(lambda e: advance(env, e, jnp.zeros((4, 1))))(episodes)
        assert not is_broken(faults).any()
        # The environment itself gets it back.
        assert (episodes.state.info["failed_of_the_environment"] == number).all()
