"""A policy learns to act like a teacher, which observes what it does not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.probes import Pixels, Shown
from vnl_ppo import schedules
from vnl_ppo.config import PPOConfig, check
from vnl_ppo.distributions import MIN_SCALE
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, apply, init_params
from vnl_ppo.ppo import make_ppo
from vnl_ppo.recurrence import GRU
from vnl_ppo.teaching import check_teacher, make_teacher
from vnl_ppo.train import weights_of

TOLD = ActorCritic(1, {}, (8,), (8,), policy_leaves=("truth",), value_leaves=("truth",))
SEEING = ActorCritic(1, {"vision": Pixels()}, (8,), (8,), policy_leaves=("vision",))
CONFIG = PPOConfig(
    num_timesteps=1024 * 40,
    num_envs=64,
    unroll_length=4,
    batch_size=64,
    num_minibatches=4,
    learning_rate=1e-2,
    entropy_cost=0.0,
    episode_length=50,
    teacher_until=1.0,
)


def weights_for(network, seed=0):
    spec = Shown.observation_spec
    return Weights(init_params(network, spec, jax.random.key(seed)), init_moments(spec))


def obs_of(n):
    return jax.vmap(Shown().reset)(jax.random.split(jax.random.key(3), n)).obs


def mean_and_scale(logits):
    mean, raw = np.split(np.asarray(logits), 2, axis=-1)
    return mean, np.log1p(np.exp(raw)) + MIN_SCALE


def test_the_distance_is_the_divergence_by_its_formula():
    weights, obs = weights_for(TOLD), obs_of(7)
    teacher = make_teacher(TOLD, weights, Shown.observation_spec)
    assert list(teacher.spec) == ["truth"]
    logits = jax.random.normal(jax.random.key(5), (7, 2))
    told = apply(TOLD, weights, obs)[0]
    (m, s), (n, t) = mean_and_scale(told), mean_and_scale(logits)
    expected = np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5
    np.testing.assert_allclose(teacher.distance(obs, logits), expected.sum(-1).mean(), rtol=1e-4)
    np.testing.assert_allclose(teacher.distance(obs, told), 0, atol=1e-6)


def test_a_seeing_policy_learns_from_a_told_one_without_any_reward():
    weights = weights_for(TOLD)
    teacher = make_teacher(TOLD, weights, Shown.observation_spec)
    # A teacher with an opinion: freshly drawn, its actions are nearly 0.
    kernel = weights.params["params"]["policy"]["Dense_1"]["kernel"]
    weights.params["params"]["policy"]["Dense_1"]["kernel"] = kernel * 100
    obs = obs_of(64)
    means = lambda network, w: mean_and_scale(apply(network, w, obs)[0])[0]
    ppo = make_ppo(Shown(), SEEING, CONFIG, teacher=teacher)
    state = ppo.init(0)
    for _ in range(40):
        state, metrics = ppo.step(state)
    wanted = means(TOLD, weights)
    learned = means(SEEING, weights_of(state))
    assert wanted.std() > 0.1
    assert np.corrcoef(wanted[:, 0], learned[:, 0])[0, 1] > 0.9
    assert metrics["teacher_kl"][0] < 0.05
    assert metrics["teacher_weight"][0] == pytest.approx(1 / 40)


def test_its_weight_falls_to_zero():
    config = PPOConfig(num_timesteps=5120 * 10, teacher_weight=2.0, teacher_until=0.5)
    weights = [float(schedules.teacher_weight(jnp.int32(i), config)) for i in (0, 2, 4, 5, 9)]
    iterations = config.num_iterations
    assert weights == pytest.approx([2 * max(0, 1 - i / iterations / 0.5) for i in (0, 2, 4, 5, 9)])
    for name, value in {"teacher_until": 0.0, "teacher_weight": -1.0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}; it has to"):
            check(dataclasses.replace(config, **{name: value}))


@pytest.mark.parametrize(
    ("network", "changes", "why"),
    [
        (TOLD.clone(core=GRU(4)), {}, "has a memory"),
        (TOLD.clone(action_size=3), {}, "has 3 actions and this environment 1"),
        (TOLD.clone(distribution="clipped_normal"), {}, "has another --network.distribution"),
        (TOLD, {"truth": None}, "observes 'truth', which is not observed here"),
        (TOLD, {"truth": (5,)}, r"observes 'truth' as float32\[\d\]; here it is float32\[5\]"),
    ],
)
def test_a_teacher_that_does_not_fit_is_named(network, changes, why):
    teacher = make_teacher(network, weights_for(network), Shown.observation_spec)
    spec = dict(Shown.observation_spec)
    for name, shape in changes.items():
        spec.pop(name)
        if shape:
            spec[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match=f"^runs/told {why}"):
        check_teacher(teacher, SEEING, spec, "runs/told")
