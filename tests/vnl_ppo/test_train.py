"""A run's folder, and what resuming it promises."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.probes import Probe
from vnl_ppo import checkpoint, run
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.train import check_training, train

CONFIG = PPOConfig(
    num_timesteps=128 * 4,
    num_envs=8,
    unroll_length=4,
    batch_size=8,
    num_minibatches=4,
    episode_length=10,
    num_evals=3,
    num_eval_envs=4,
)
STEPS = [0, 256, 512]


def chase(x, action):
    return -((action - 0.5 * x) ** 2)


ENV = Probe(chase, steps=7)


def network(width=8):
    return ActorCritic(1, {}, (width,), (8,))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = run.create(tmp_path_factory.mktemp("runs") / "finished", {"name": "value"})
    return folder, train(ENV, network(), CONFIG, folder)


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def test_a_run_leaves_settings_scalars_and_checkpoints(finished):
    folder, _ = finished
    assert run.read_settings(folder) == {"name": "value"}
    assert checkpoint.steps(folder / run.CHECKPOINTS) == STEPS
    events = EventAccumulator(str(folder)).Reload()
    names = set(events.Tags()["scalars"])
    assert {
        "eval/episode_reward", "eval/x", "train/policy_loss", "train/x",
        "perf/env_steps_per_second", "perf/first_update_seconds", "perf/eval_seconds",
    } <= names  # fmt: skip
    assert [e.step for e in events.Scalars("eval/episode_reward")] == STEPS
    assert [e.step for e in events.Scalars("train/policy_loss")] == [128, 256, 384, 512]


@pytest.mark.parametrize("kept", STEPS[:2])
def test_a_resumed_run_equals_an_unbroken_one(finished, tmp_path, kept):
    folder, weights = finished
    broken = run.create(tmp_path / "broken", {})
    shutil.copytree(folder / run.CHECKPOINTS / str(kept), broken / run.CHECKPOINTS / str(kept))
    assert same(weights, train(ENV, network(), CONFIG, broken, resume=True))
    assert checkpoint.steps(broken / run.CHECKPOINTS) == [s for s in STEPS if s >= kept]


def test_a_run_broken_off_before_its_first_checkpoint_begins_again(finished, tmp_path):
    _, weights = finished
    broken = run.create(tmp_path / "broken", {})
    assert same(weights, train(ENV, network(), CONFIG, broken, resume=True))


def test_an_unfinished_checkpoint_is_not_taken_for_one(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder / run.CHECKPOINTS, copy)
    (copy / "512").rename(copy / "512.orbax-checkpoint-tmp")
    (copy / "notes").mkdir()
    assert checkpoint.steps(copy) == [0, 256]
    assert checkpoint.steps(tmp_path / "nowhere") == []


def test_a_checkpoint_of_another_network_is_refused_by_name(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"policy.Dense_0.*\[1, 8\] there and .*\[1, 16\] here"):
        check_training(ENV, network(16), CONFIG, folder)
    more = dataclasses.replace(CONFIG, num_envs=16)
    with pytest.raises(ValueError, match="other settings"):
        check_training(ENV, network(), more, folder)


def test_a_folder_in_use_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not empty.*--run-dir.*--resume"):
        run.create(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match=r"not a run folder: it has no config\.json"):
        run.read_settings(tmp_path)


def test_a_torn_config_is_named(tmp_path):
    (tmp_path / run.CONFIG).write_text('{"settings": ')
    with pytest.raises(ValueError, match="does not hold the settings of a run"):
        run.read_settings(tmp_path)
