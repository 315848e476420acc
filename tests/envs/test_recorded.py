"""The gap ant of release 0.1, recorded: what it lived through under given actions has not changed.

`tests/recorded/gap_ant_{blind,seeing}.npz` hold every second state of the first 40 control steps
under seed 0, of both back ends, as the last commit before environments were composed of parts
computed them (2002084). On the machine that recorded them, today's are equal bit for bit.

Another CPU rounds otherwise. A state whose entries are moved by a unit in their last place, 5e-7 m
at x = 5 m, is 3e-6 (positions) and 1.4e-5 (velocities) away after these 40 steps in MJX, which
computes in float32, and less in C; both measured over 32 such states. Contacts make that grow: the
ground acts as a spring with a time constant of 0.02 s, so an error of a penetration becomes one of
an acceleration, and after 100 steps it is a hundred times as much. So the recording ends at 40
steps, and the tolerances, 30 and 70 times those distances, leave room for rounding at every one of
the 200 physics steps. Velocities of the centre of mass, and with them rewards, are differences of
positions: 5e-7 m in 0.025 s is 2e-5 m/s, and five times that in the reward. What a change of code
can do wrong is far larger: another key for the noise of the reset moves joints by 1e-2.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs

RECORDED = Path(__file__).parents[1] / "recorded"
STEPS, EVERY = 40, 2
PICTURES = (0, 20, 40)
POSITION, VELOCITY, REWARD = 1e-4, 1e-3, 2e-3


def replay(back_end, seeing):
    """States 0, 1, ... of an episode: leaves [STEPS + 1, ...]."""
    env = envs.make("gap_ant", seeing=seeing, physics=back_end)
    key = jax.random.key(0)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    draw = lambda i: jax.random.uniform(jax.random.fold_in(key, i), (8,), minval=-1, maxval=1)
    actions = jax.vmap(draw)(jnp.arange(STEPS))
    states = [reset(key)]
    for action in actions:
        states.append(step(states[-1], action))
    return jax.tree.map(lambda *x: np.stack(x), *states)


@pytest.mark.parametrize("back_end", ["mujoco", "mjx"])
def test_a_blind_episode_is_as_recorded(back_end):
    recorded = np.load(RECORDED / "gap_ant_blind.npz")
    states = replay(back_end, seeing=False)
    # Lengths are sums of numbers drawn: another CPU may add them up otherwise.
    for name in ("starts", "ends"):
        found = getattr(states.data.layout, name)[0]
        np.testing.assert_allclose(found, recorded[name], rtol=1e-6, err_msg=name)
    some = jax.tree.map(lambda x: x[::EVERY], states)
    of = lambda name: recorded[f"{back_end}.{name}"]
    qpos, qvel = of("qpos"), of("qvel")
    assert len(qpos) == len(some.reward) == STEPS // EVERY + 1
    np.testing.assert_allclose(some.data.physics.qpos, qpos, atol=POSITION, rtol=0)
    np.testing.assert_allclose(some.data.physics.qvel, qvel, atol=VELOCITY, rtol=0)
    felt = np.concatenate([qpos[:, 2:], qvel], axis=1)
    np.testing.assert_allclose(some.obs["proprio"], felt, atol=VELOCITY, rtol=0)
    np.testing.assert_allclose(some.reward, of("reward"), atol=REWARD, rtol=0)
    names = recorded["metrics"].tolist()
    assert len(names) == 12
    for name, values in zip(names, of("metrics").T, strict=True):
        np.testing.assert_allclose(some.metrics[name], values, atol=REWARD, rtol=0, err_msg=name)
    assert not states.done.any() and not states.info["failed"].any()
    # It says something: the ant moved, and so did its limbs.
    assert np.ptp(qpos[:, 0]) > 0.1 and np.abs(qvel).max() > 3


@pytest.mark.parametrize("back_end", ["mujoco", pytest.param("mjx", marks=pytest.mark.slow)])
def test_what_was_seen_is_as_recorded(back_end):
    """An edge may fall on the other side of a pixel: after a move of 1e-4 m, of 0.5 % of them."""
    recorded = np.load(RECORDED / "gap_ant_seeing.npz")["vision"].astype(int)
    seen = replay(back_end, seeing=True).obs["vision"][list(PICTURES)]
    assert seen.shape == recorded.shape and seen.dtype == np.uint8
    difference = np.abs(seen - recorded)
    assert (difference > 8).any(-1).mean((1, 2)).max() < 0.01
    assert difference.mean((1, 2, 3)).max() < 0.3
    # Pictures of one episode differ by more than that among themselves.
    assert min(np.abs(recorded[i] - recorded[i + 1]).mean() for i in (0, 1)) > 3
