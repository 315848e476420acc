"""A lesion changes what the policy observes, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import lesions
from experiments.lesions import SENSES, SenseLesion, sense_lesion, unit_lesion
from tests.probes import Pixels, Probe
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import Actor, run_episodes
from vnl_ppo.loading import Policy
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, init_params
from vnl_ppo.recurrence import GRU
from vnl_ppo.rollout import Decision

ENV = Probe(lambda x, action: x * action, picture=True)
EPISODES, LENGTH = 64, 20


def policy_of(network, change=lambda params: params):
    params = init_params(network, ENV.observation_spec, jax.random.key(0))
    # A policy begins close to its prior; here it is to depend on every unit.
    noise = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )
    weights = Weights(change(noise), init_moments(ENV.observation_spec))
    return Policy(ENV, network, PPOConfig(), weights, step=0)


NETWORK = ActorCritic(1, {"vision": Pixels()}, (6,), (6,))
POLICY = policy_of(NETWORK)


def acts(choose):
    def act(obs, key, memory):
        n = len(obs["vision"])
        return choose(obs), Decision(jnp.zeros((n, 1)), jnp.zeros(n), jnp.zeros(n), memory)

    return Actor(act)


# The answer is the brightness: it earns 1 in each step.
LOOKS = acts(lambda obs: jnp.sign(obs["vision"][:, 0, 0, :1].astype(jnp.float32) - 127))
# It earns what chance gives.
BLIND = acts(lambda obs: jnp.ones((len(obs["vision"]), 1)) + 0 * obs["proprio"][:, :1])


def rewards(actor, kind=None, leaf="vision"):
    actor = actor if kind is None else SenseLesion(leaf, kind).of(actor, POLICY)
    run = jax.jit(lambda key: run_episodes(ENV, actor, key, EPISODES, LENGTH)[0]["episode_reward"])
    return np.asarray(run(jax.random.key(0))) / LENGTH


@pytest.mark.parametrize("kind", [kind for kind in SENSES if kind != "shuffled"])
def test_an_animal_that_needs_its_eyes_falls_to_chance(kind):
    assert (rewards(LOOKS) == 1).all()
    # Chance has mean 0 and deviation 1 / sqrt(64 * 20) = 0.03, or 1 / sqrt(64) = 0.13 where one
    # picture stands for a whole episode.
    assert abs(rewards(LOOKS, kind).mean()) < 0.35


def test_shuffling_a_picture_of_one_colour_changes_nothing():
    np.testing.assert_array_equal(rewards(LOOKS, "shuffled"), rewards(LOOKS))


@pytest.mark.parametrize("kind", SENSES)
def test_an_animal_that_does_not_look_is_as_before(kind):
    np.testing.assert_array_equal(rewards(BLIND, kind), rewards(BLIND))


def test_each_kind_gives_what_it_says():
    images = jax.random.bits(jax.random.key(1), (2, 5, 4, 4, 3), jnp.uint8)  # [T, N, H, W, C]

    def seen(kind):
        shown = []

        def act(obs, key, memory):
            shown.append(np.asarray(obs["vision"]))
            return BLIND.act(obs, key, memory)

        actor = SenseLesion("vision", kind).of(Actor(act), POLICY)
        memory = actor.memory(5)
        for t, x in enumerate(images):
            obs = {"vision": x, "proprio": jnp.zeros((5, 2))}
            memory = actor.act(obs, jax.random.key(t), memory)[1].memory
        return shown

    images = np.asarray(images)
    assert not np.any(seen("blank"))
    np.testing.assert_array_equal(seen("frozen"), [images[0], images[0]])
    np.testing.assert_array_equal(seen("other"), np.roll(images, 1, axis=1))
    noise, again = seen("noise"), seen("noise")
    np.testing.assert_array_equal(noise, again)
    assert (noise[0] != noise[1]).mean() > 0.9
    for mixed, own in zip(seen("shuffled"), images, strict=True):
        assert (mixed != own).any()
        for one, two in zip(mixed, own, strict=True):
            # Pixels move, and keep their colours.
            rows = lambda x: sorted(map(tuple, x.reshape(-1, 3).tolist()))
            assert rows(one) == rows(two)


@pytest.mark.parametrize("text", ["vision", "vision=blnk", "=blank", ""])
def test_what_is_no_lesion_is_refused(text):
    with pytest.raises(ValueError, match=r"write LEAF=KIND.*blank, frozen, shuffled, noise, other"):
        sense_lesion(text)


def test_a_leaf_that_is_not_there_and_a_single_episode_are_refused():
    with pytest.raises(ValueError, match="no leaf 'visoin'; the observation has proprio, vision"):
        SenseLesion("visoin", "blank").of(LOOKS, POLICY)
    with pytest.raises(ValueError, match="at least two episodes"):
        lesions.other(jnp.zeros((1, 3)), jax.random.key(0))


def acted(policy, *lesions, n=7):
    obs = jax.vmap(ENV.reset)(jax.random.split(jax.random.key(4), n)).obs
    obs |= {"vision": jax.random.bits(jax.random.key(5), obs["vision"].shape, jnp.uint8)}
    actor = policy.actor()
    for lesion in lesions:
        actor = lesion.of(actor, policy)
    action, decision = jax.jit(actor.act)(obs, jax.random.key(0), actor.memory(n))
    return np.asarray(action), np.asarray(decision.value)


def test_a_silenced_unit_is_one_whose_outgoing_weights_are_zero():
    def cut(params):
        kernel = params["params"]["policy"]["Dense_0"]["kernel"]
        # Features are proprio (2), then vision (8): units 1, 4 and 5 of the encoder.
        params["params"]["policy"]["Dense_0"]["kernel"] = kernel.at[jnp.array([3, 6, 7])].set(0)
        value = params["params"]["value"]["Dense_0"]["kernel"]
        params["params"]["value"]["Dense_0"]["kernel"] = value.at[jnp.array([3, 6, 7])].set(0)
        return params

    silenced = acted(POLICY, unit_lesion("silence", "encoders_vision: 1, 4-5"))
    for x, y, intact in zip(silenced, acted(policy_of(NETWORK, cut)), acted(POLICY), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        assert np.abs(x - intact).max() > 1e-3


def test_clamping_and_scaling_do_what_they_say():
    def doubled(params):
        kernel = params["params"]["policy"]["Dense_1"]["kernel"]
        params["params"]["policy"]["Dense_1"]["kernel"] = kernel * 2
        bias = params["params"]["policy"]["Dense_1"]["bias"]
        params["params"]["policy"]["Dense_1"]["bias"] = bias * 2
        return params

    scaled = acted(POLICY, unit_lesion("scale", "policy/Dense_1: * = 2"))
    for x, y in zip(scaled, acted(policy_of(NETWORK, doubled)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    action, value = acted(POLICY, unit_lesion("clamp", "policy: 0 = 0.7"))
    np.testing.assert_allclose(action, np.tanh(0.7), rtol=1e-6)
    np.testing.assert_array_equal(value, acted(POLICY)[1])


def test_units_of_a_recurrent_core_are_silenced_in_what_it_passes_on():
    policy = policy_of(ActorCritic(1, {"vision": Pixels()}, (6,), (6,), core=GRU(4)))
    action, _ = acted(policy, unit_lesion("silence", "core: *"))
    assert (action == action[0]).all()
    assert len(np.unique(acted(policy)[0])) > 1
    # Of its cell, in what it passes on and in what it remembers.
    (cell,) = [name for name in policy.modules if name.endswith("GRUCell_0")]
    np.testing.assert_array_equal(acted(policy, unit_lesion("silence", f"{cell}: *"))[0], action)


@pytest.mark.parametrize(
    "how, text, message",
    [
        ("silence", "encoders_vision", "write MODULE: UNITS, such as"),
        ("silence", "encoders_vision: x", "'x' is no unit"),
        ("silence", "encoders_vision: 3 = 1", "write MODULE: UNITS, such as"),
        ("clamp", "encoders_vision: 3", "write MODULE: UNITS = NUMBER"),
        ("scale", "policy: 1 = e", "'e' is no number"),
        ("silence", "policy: 5-3", "no unit is named"),
    ],
)
def test_what_names_no_units_is_refused(how, text, message):
    with pytest.raises(ValueError, match=message):
        unit_lesion(how, text)


def test_modules_and_units_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="mean encoders_vision\\? There are .*policy/Dense"):
        acted(POLICY, unit_lesion("silence", "encoders_visoin: 1"))
    with pytest.raises(ValueError, match="names unit 8; encoders_vision has 0 to 7"):
        acted(POLICY, unit_lesion("silence", "encoders_vision: 2,8"))


@pytest.mark.parametrize(
    "lesion", [None, SenseLesion("vision", "frozen"), unit_lesion("silence", "encoders_vision: 1")]
)
def test_policies_of_one_network_are_one_program(lesion):
    """A program that has the weights in it would be compiled for each policy anew."""
    run = lambda actor, key: run_episodes(ENV, actor, key, 4, 3)[0]

    def program(change):
        policy = policy_of(NETWORK, change)
        actor = policy.actor() if lesion is None else lesion.of(policy.actor(), policy)
        return jax.jit(run).lower(actor, jax.random.key(0)).as_text()

    assert program(lambda params: params) == program(
        lambda params: jax.tree.map(jnp.negative, params)
    )
