import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.probes import Probe, Scripted, Worlds
from vnl_ppo.config import PPOConfig
from vnl_ppo.rollout import (
    Decision,
    collect,
    select,
    some_steps_later,
    start_episodes,
    unroll,
)

CONFIG = PPOConfig(
    num_envs=3,
    unroll_length=7,
    batch_size=3,
    num_minibatches=1,
    episode_length=100,
    discounting=0.5,
    gae_lambda=0.0,
    reward_scaling=1.0,
)


def keys(seed, n):
    return jax.random.split(jax.random.key(seed), n)


def act(obs, key, memory):
    batch = obs["proprio"].shape[:-1]
    nothing = jnp.zeros(batch)
    decision = Decision(jnp.zeros((*batch, 1)), nothing, judge(obs))
    return jnp.zeros((*batch, 1)), decision


def judge(obs, memory=()):
    return 100.0 + obs["proprio"][..., 0]


@functools.cache
def one_unroll(env, config=CONFIG):
    episodes = start_episodes(env, keys(0, config.num_envs))
    return jax.jit(lambda e: unroll(env, act, judge, e, keys(1, config.num_envs), config))(episodes)


def ones(x, action):
    return jnp.ones(())


def test_a_failure_is_worth_nothing_afterwards():
    _, experience, _ = one_unroll(Probe(ones, steps=3))
    # With lambda 0 the advantage is the temporal difference; V is 99 or 101.
    target = experience.advantage + experience.decision.value
    np.testing.assert_allclose(target[jnp.array([2, 5])], 1.0)
    assert (target[jnp.array([0, 1, 3, 4, 6])] > 50).all()


@pytest.mark.parametrize(
    "env, config",
    [
        (Probe(ones, steps=5, cut=True), CONFIG),
        (Probe(ones), dataclasses.replace(CONFIG, episode_length=5, unroll_length=5)),
    ],
    ids=["cut short by the environment", "time limit"],
)
def test_a_time_out_is_worth_its_own_last_observation(env, config):
    episodes = start_episodes(env, keys(0, config.num_envs))
    _, experience, _ = unroll(env, act, judge, episodes, keys(1, config.num_envs), config)
    # Step the same environments by hand to see what they saw last.
    state = episodes.state
    for _ in range(5):
        state = jax.vmap(env.step)(state, jnp.zeros((config.num_envs, 1)))
    target = experience.advantage + experience.decision.value
    np.testing.assert_allclose(target[4], 1 + 0.5 * judge(state.obs), rtol=1e-6)


def test_episodes_restart_with_fresh_draws_and_are_counted():
    env = Probe(ones, steps=3)
    episodes, _, totals = one_unroll(env)
    np.testing.assert_array_equal(episodes.length, [1, 1, 1])
    np.testing.assert_array_equal(totals["episodes"], [0, 0, 3, 0, 0, 3, 0])
    np.testing.assert_array_equal(totals["episode_reward"], [0, 0, 9, 0, 0, 9, 0])
    np.testing.assert_array_equal(totals["episode_length"], [0, 0, 9, 0, 0, 9, 0])
    many = dataclasses.replace(CONFIG, num_envs=64)
    first = start_episodes(env, keys(0, 64)).state.data["x"]
    again = one_unroll(env, many)[1].obs["proprio"][3, :, 0]
    assert (first != again).any()


def test_the_observation_stored_is_the_one_acted_on():
    _, experience, _ = one_unroll(Probe(ones, steps=3))
    np.testing.assert_allclose(experience.decision.value, judge(experience.obs))


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_collect_covers_every_environment_and_unroll(chunk):
    config = dataclasses.replace(
        CONFIG, num_envs=4, batch_size=4, num_minibatches=2, env_chunk_size=chunk
    )
    env = Probe(lambda x, a: x, picture=True)
    episodes = start_episodes(env, keys(0, 4))
    episodes, experience, totals = collect(env, act, judge, episodes, keys(1, 4), config)
    assert experience.advantage.shape == (config.steps_per_iteration,)
    assert experience.obs["vision"].shape == (config.steps_per_iteration, 4, 4, 3)
    assert experience.obs["vision"].dtype == jnp.uint8
    np.testing.assert_array_equal(episodes.length, [14, 14, 14, 14])
    # The metric x of the probe is what its next observation shows.
    assert abs(totals["step/x"]) <= config.steps_per_iteration
    assert totals["episodes"] == 0


def test_select_broadcasts_over_trailing_axes_and_takes_keys():
    mask = jnp.array([True, False])
    a = {"x": jnp.ones((2, 3)), "key": jax.random.split(jax.random.key(0), 2)}
    b = {"x": jnp.zeros((2, 3)), "key": jax.random.split(jax.random.key(1), 2)}
    chosen = select(mask, a, b)
    np.testing.assert_array_equal(chosen["x"], [[1, 1, 1], [0, 0, 0]])
    assert (chosen["key"] == jnp.stack([a["key"][0], b["key"][1]])).all()


T = 6
SCRIPT = dataclasses.replace(
    CONFIG, unroll_length=T, episode_length=50, discounting=0.9, gae_lambda=0.8, reward_scaling=0.1
)


def scripted_episodes(env):
    """First episodes that end at every position, in every way; many of each.

    None at all, or at step 1 to T by failure, by the environment's own limit or by ours.
    """
    last, kind = (np.ravel(x) for x in np.meshgrid(np.arange(1, T + 1), np.arange(3)))
    last, kind = np.tile(np.append(last, 0), 8), np.tile(np.append(kind, 0), 8)
    episodes = start_episodes(env, keys(0, len(last)))
    length = np.where(kind == 2, SCRIPT.episode_length - last, 0)
    data = episodes.state.data | {
        "last": jnp.asarray(np.where(kind == 2, 0, last)),
        "cut": jnp.asarray(kind == 1),
    }
    return episodes.replace(
        state=episodes.state.replace(data=data), length=jnp.asarray(length, jnp.int32)
    )


def remember(noise, memory):
    """Return the memory after an observation: it, and half of the memory before."""
    return 0.5 * memory + noise[..., 0]


def value_of(noise, memory):
    return 3 + 2 * noise[..., 1] + remember(noise, memory)


def remembering_act(obs, key, memory):
    value = value_of(obs["noise"], memory)
    nothing = jnp.zeros((*value.shape, 1))
    after = remember(obs["noise"], memory)
    return nothing, Decision(nothing, jnp.zeros_like(value), value, after)


def remembering_judge(obs, memory):
    return value_of(obs["noise"], memory)


def test_an_unroll_equals_a_plain_loop_in_float64():
    # Every first end at every position, and further failures of fresh episodes after it; values
    # that depend on all that was seen in the episode.
    env = Scripted()
    episodes = scripted_episodes(env)
    num_envs = len(episodes.length)
    env_keys = keys(1, num_envs)
    memory = np.random.default_rng(0).normal(size=num_envs)
    episodes = episodes.replace(memory=jnp.asarray(memory, jnp.float32))
    after, experience, _ = jax.jit(
        lambda e: unroll(env, remembering_act, remembering_judge, e, env_keys, SCRIPT)
    )(episodes)

    step, restart = jax.jit(jax.vmap(env.step)), jax.jit(select)
    noise = lambda state: np.asarray(state.obs["noise"], np.float64)
    fresh = start_episodes(env, jax.vmap(jax.random.split)(env_keys)[:, 0]).state
    state, length, rows = episodes.state, np.array(episodes.length), []
    for _ in range(T):
        v, memory = value_of(noise(state), memory), remember(noise(state), memory)
        state = step(state, jnp.zeros((num_envs, 1)))
        length += 1
        done, cut = np.asarray(state.done) == 1, np.asarray(state.info["truncation"]) == 1
        termination, timeout = done & ~cut, done & cut | (length == SCRIPT.episode_length)
        end = termination | timeout
        reward = 0.1 * np.asarray(state.reward, np.float64)
        rows.append((reward, v, value_of(noise(state), memory), termination, end))
        length[end], memory[end] = 0, 0
        state = restart(jnp.asarray(end), fresh, state)
    r, v, v_next, termination, end = map(np.stack, zip(*rows, strict=True))
    for ended in (termination, end & ~termination):
        assert ended.any(1).all(), "each kind of end happens at every position"
    assert (termination.sum(0) > 1).any()

    expected = reference.advantages(r, v, v_next, termination, end, 0.9, 0.8)
    np.testing.assert_allclose(experience.decision.value, v, rtol=1e-5)
    np.testing.assert_allclose(experience.advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(experience.end, end)
    np.testing.assert_array_equal(after.length, length)
    np.testing.assert_allclose(after.memory, memory, rtol=1e-5, atol=1e-6)


def test_a_leaf_of_later_is_that_of_the_same_episode():
    leaf = jnp.arange(10.0).reshape(5, 2, 1)  # of an unroll of 4 steps in 2 environments
    end = jnp.array([[0, 0], [1, 0], [0, 0], [0, 1]], bool)
    n = np.nan
    for steps, expected in {
        1: [[2, 3], [n, 5], [6, 7], [8, n]],
        2: [[n, 5], [n, 7], [8, n], [n, n]],
        4: [[n, n]] * 4,
    }.items():
        np.testing.assert_array_equal(some_steps_later(leaf, end, steps)[..., 0], expected)
    np.testing.assert_array_equal(some_steps_later(leaf, 0 * end, 4)[0, :, 0], [8, 9])


def test_an_unroll_comes_with_what_is_observed_later():
    env, env_keys = Scripted(), keys(1, len(scripted_episodes(Scripted()).length))
    episodes = scripted_episodes(env).replace(memory=jnp.zeros(len(env_keys)))
    after, experience, _ = jax.jit(
        lambda e: unroll(env, remembering_act, remembering_judge, e, env_keys, SCRIPT, {"noise": 2})
    )(episodes)
    noise = np.concatenate([experience.obs["noise"], after.state.obs["noise"][None]])
    for t, n in np.ndindex(T, len(env_keys)):
        ended = t + 2 > T or experience.end[t : t + 2, n].any()
        expected = np.full(2, np.nan) if ended else noise[t + 2, n]
        np.testing.assert_array_equal(experience.later["noise"][t, n], expected)


@pytest.mark.parametrize("chunk", [0, 2])
def test_unrolls_come_with_the_memory_that_they_began_with(chunk):
    config = dataclasses.replace(
        SCRIPT, num_envs=4, batch_size=4, num_minibatches=3, env_chunk_size=chunk
    )
    episodes = start_episodes(Scripted(), keys(0, 4), jnp.zeros(4))
    arguments = (remembering_act, remembering_judge, episodes, keys(1, 4), config)
    experience = jax.jit(lambda: collect(Scripted(), *arguments)[1])()
    assert experience.obs["noise"].shape == (12, T, 2)
    assert experience.memory.shape == (12,)
    # Replayed from there, each row's observations give the values that were noted.
    memory = experience.memory
    assert (memory != 0).any()
    for t in range(T):
        noise = experience.obs["noise"][:, t]
        np.testing.assert_allclose(
            experience.decision.value[:, t], value_of(noise, memory), rtol=1e-5
        )
        memory = jnp.where(experience.end[:, t], 0, remember(noise, memory))


@pytest.fixture(scope="module")
def broken_worlds():
    """An unroll of 5 in each world, 8 of each; world k is in column k, k + 6 and so on."""
    env, n = Worlds(), 8 * len(Worlds.kinds)
    config = dataclasses.replace(CONFIG, unroll_length=5, discounting=0.5, gae_lambda=1.0)
    episodes = start_episodes(env, keys(0, n))
    kind = jnp.arange(n) % len(Worlds.kinds)
    state = episodes.state
    state = state.replace(data=state.data | {"kind": kind}, obs=jax.vmap(env.see)(kind))
    see = lambda obs, memory=(): 10 * obs["kind"].sum(-1)

    def act(obs, key, memory):
        nothing = jnp.zeros((n, 1))
        return nothing, Decision(nothing, jnp.zeros(n), see(obs))

    return unroll(env, act, see, episodes.replace(state=state), keys(1, n), config)


def test_bad_numbers_end_their_episode_and_reach_nothing(broken_worlds):
    episodes, experience, totals = broken_worlds
    for tree in (episodes.state.obs, episodes.state.metrics, episodes.reward, experience, totals):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(tree))
    first = experience.decision.value[0] + experience.advantage[0]
    for kind, name in enumerate(Worlds.kinds):
        # 1 + 1/2 + .. + 1/16 and 10/32 for what follows; one reward; none.
        expected = {"endless": 2.25, "stops": 2.25, "fails": 1.0}.get(name, 0.0)
        np.testing.assert_allclose(first[kind :: len(Worlds.kinds)], expected, err_msg=name)


def test_bad_numbers_are_counted_by_what_broke(broken_worlds):
    _, _, totals = broken_worlds
    # In the first step, 8 environments of each world; later more, as fresh ones are drawn.
    assert totals["nonfinite_episodes"][0] == 24
    for what in ("observation", "reward", "simulation"):
        assert totals[f"nonfinite_{what}"][0] == 8
    assert totals["episodes"][0] == 32
    assert totals["step/speed"][0] == 8 * 5


def test_an_environment_that_begins_broken_is_found_out():
    @dataclasses.dataclass(frozen=True)
    class StillBorn(Scripted):
        def reset(self, key):
            return super().reset(key).replace(obs={"noise": jnp.array([jnp.nan, 1.0])})

        def step(self, state, action):
            return super().step(state, action).replace(obs={"noise": jnp.full(2, jnp.inf)})

    env = StillBorn()
    see = lambda obs, memory=(): obs["noise"].sum(-1)
    act = lambda obs, key, memory: (
        jnp.zeros((3, 1)),
        Decision(jnp.zeros((3, 1)), jnp.zeros(3), see(obs)),
    )
    episodes = start_episodes(env, keys(0, 3))
    _, experience, totals = unroll(env, act, see, episodes, keys(1, 3), CONFIG)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(experience))
    np.testing.assert_array_equal(totals["nonfinite_observation"], np.full(CONFIG.unroll_length, 3))


@pytest.mark.parametrize("last, lost", [(2, 2), (T, 0)])
def test_truncations_beyond_one_in_an_unroll_are_counted(last, lost):
    class Hasty(Scripted):
        """Truncates every episode after `last` steps."""

        def reset(self, key):
            state = super().reset(key)
            data = state.data | {"last": jnp.int32(last), "cut": jnp.ones((), bool)}
            return state.replace(data=data)

    env = Hasty()
    episodes = start_episodes(env, keys(0, 3), jnp.zeros(3))
    totals = jax.jit(lambda: unroll(
        env, remembering_act, remembering_judge, episodes, keys(1, 3), SCRIPT
    )[2])()  # fmt: skip
    # Of T // last truncations in each of 3 environments, the last one is valued.
    assert lost == max(T // last - 1, 0) and totals["lost_truncations"].sum() == 3 * lost
