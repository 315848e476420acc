"""A lesion changes what the policy observes, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import lesions
from experiments.lesions import KINDS, Lesion, lesioned
from tests.probes import Probe
from vnl_ppo.evaluation import Actor, run_episodes
from vnl_ppo.rollout import Decision

ENV = Probe(lambda x, action: x * action, picture=True)
EPISODES, LENGTH = 64, 20


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
    actor = actor if kind is None else lesioned(actor, Lesion(leaf, kind), ENV)
    run = jax.jit(lambda key: run_episodes(ENV, actor, key, EPISODES, LENGTH)[0]["episode_reward"])
    return np.asarray(run(jax.random.key(0))) / LENGTH


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "shuffled"])
def test_an_animal_that_needs_its_eyes_falls_to_chance(kind):
    assert (rewards(LOOKS) == 1).all()
    # Chance has mean 0 and deviation 1 / sqrt(64 * 20) = 0.03, or 1 / sqrt(64) = 0.13 where one
    # picture stands for a whole episode.
    assert abs(rewards(LOOKS, kind).mean()) < 0.35


def test_shuffling_a_picture_of_one_colour_changes_nothing():
    np.testing.assert_array_equal(rewards(LOOKS, "shuffled"), rewards(LOOKS))


@pytest.mark.parametrize("kind", KINDS)
def test_an_animal_that_does_not_look_is_as_before(kind):
    np.testing.assert_array_equal(rewards(BLIND, kind), rewards(BLIND))


def test_each_kind_gives_what_it_says():
    images = jax.random.bits(jax.random.key(1), (2, 5, 4, 4, 3), jnp.uint8)  # [T, N, H, W, C]

    def seen(kind):
        shown = []

        def act(obs, key, memory):
            shown.append(np.asarray(obs["vision"]))
            return BLIND.act(obs, key, memory)

        actor = lesioned(Actor(act), Lesion("vision", kind), ENV)
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
        lesions.from_text(text)


def test_a_leaf_that_is_not_there_and_a_single_episode_are_refused():
    with pytest.raises(ValueError, match="no leaf 'visoin'; the observation has proprio, vision"):
        lesioned(LOOKS, Lesion("visoin", "blank"), ENV)
    with pytest.raises(ValueError, match="at least two episodes"):
        lesions.other(jnp.zeros((1, 3)), jax.random.key(0))
