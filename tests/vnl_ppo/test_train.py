"""A run's folder, and what resuming it promises."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.probes import Probe
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.config import PPOConfig
from vnl_ppo.health import PATIENCE, NotFiniteError
from vnl_ppo.interruption import Interrupted
from vnl_ppo.loading import load_into
from vnl_ppo.networks import ActorCritic
from vnl_ppo.program_cache import ProgramCache
from vnl_ppo.runtime import Compilations
from vnl_ppo.train import StopTraining, check_training, train, weights_of

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


pytestmark = pytest.mark.usefixtures("shared_compilations")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = run_folder.create(tmp_path_factory.mktemp("runs") / "finished", {"name": "value"})
    return folder, train(ENV, network(), CONFIG, folder)


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def read_events(folder):
    return EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()


def test_a_run_leaves_settings_scalars_and_checkpoints(finished):
    folder, _ = finished
    assert run_folder.read_settings(folder) == {"name": "value"}
    assert checkpoint.steps(folder / run_folder.CHECKPOINTS) == STEPS
    events = read_events(folder)
    names = set(events.Tags()["scalars"])
    assert {
        "eval/episode_reward", "eval/x", "train/policy_loss", "train/x",
        "perf/env_steps_per_second", "perf/first_update_seconds", "perf/eval_seconds",
    } <= names  # fmt: skip
    assert [e.step for e in events.Scalars("eval/episode_reward")] == STEPS
    actions = events.Histograms("eval/action")
    assert [e.step for e in actions] == STEPS
    # Every action of every watched episode, and each in (-1, 1).
    assert actions[0].histogram_value.num == 7 * CONFIG.num_eval_envs
    assert -1 <= actions[0].histogram_value.min < actions[0].histogram_value.max <= 1
    assert "config/text_summary" in events.Tags()["tensors"]
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    assert [e.step for e in events.Scalars("train/policy_loss")] == [128, 256, 384, 512]


@pytest.mark.parametrize("kept", STEPS[:2])
def test_a_resumed_run_equals_an_unbroken_one(finished, tmp_path, kept):
    folder, weights = finished
    broken = run_folder.create(tmp_path / "broken", {})
    shutil.copytree(
        folder / run_folder.CHECKPOINTS / str(kept), broken / run_folder.CHECKPOINTS / str(kept)
    )
    assert same(weights, train(ENV, network(), CONFIG, broken, resume=True))
    assert checkpoint.steps(broken / run_folder.CHECKPOINTS) == [s for s in STEPS if s >= kept]


@pytest.fixture
def without_jax_cache():
    """JAX's own cache holds this module's programs, and what was read from it cannot be kept."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


def test_kept_programs_train_and_resume_to_the_same_bits(finished, tmp_path, without_jax_cache):
    folder, weights = finished
    for name in ("compiles", "reads"):
        programs = ProgramCache(Compilations(tmp_path / "cache"), b"probe")
        path = run_folder.create(tmp_path / name, {})
        assert same(weights, train(ENV, network(), CONFIG, path, programs=programs))
        assert programs.compilations.found == (3 if name == "reads" else 0)
    broken = run_folder.create(tmp_path / "broken", {})
    shutil.copytree(
        folder / run_folder.CHECKPOINTS / "256", broken / run_folder.CHECKPOINTS / "256"
    )
    programs = ProgramCache(Compilations(tmp_path / "cache"), b"probe")
    assert same(weights, train(ENV, network(), CONFIG, broken, resume=True, programs=programs))
    assert programs.compilations.found == 2  # nothing to initialise


class Interrupting:
    """A log that sends this process a signal when step 128 is reported."""

    def __init__(self, number):
        self.number = number

    def scalars(self, step, values):
        if step == 128 and self.number:
            os.kill(os.getpid(), self.number)
            self.number = 0
            # Another thread hears it.
            time.sleep(0.5)

    def __getattr__(self, name):
        return lambda *_: None


def test_a_signal_ends_the_run_with_a_checkpoint_to_go_on_from(finished, tmp_path, capfd):
    _, weights = finished
    broken = run_folder.create(tmp_path / "broken", {})
    with pytest.raises(Interrupted, match="stopped at step 128 of 512") as info:
        train(ENV, network(), CONFIG, broken, logs=[Interrupting(signal.SIGTERM)])
    assert info.value.status == 143
    assert "SIGTERM: stopping after this iteration" in capfd.readouterr().out
    assert checkpoint.steps(broken / run_folder.CHECKPOINTS) == [0, 128]
    assert same(weights, train(ENV, network(), CONFIG, broken, resume=True))


class Watching:
    """A hook that looks at the weights, and stops at a step."""

    def __init__(self, stop_at=None):
        self.stop_at, self.seen = stop_at, {}

    def __call__(self, step, metrics, state):
        assert all(isinstance(x, float) for x in metrics.values())
        self.seen[step] = metrics
        bias = weights_of(state).params["params"]["policy"]["Dense_1"]["bias"]
        mine = {"mine/bias": jnp.abs(bias).max(), "mine/step": step}
        if step == self.stop_at:
            raise StopTraining("enough", mine)
        return mine if step else None


def test_a_hook_sees_every_iteration_and_its_metrics_are_logged(finished, tmp_path):
    _, weights = finished
    folder, hook = run_folder.create(tmp_path / "run", {}), Watching()
    assert same(weights, train(ENV, network(), CONFIG, folder, on_iteration=hook))
    assert list(hook.seen) == [0, 128, 256, 384, 512]
    assert [step for step, m in hook.seen.items() if "eval/episode_reward" in m] == STEPS
    assert [step for step, m in hook.seen.items() if "train/policy_loss" in m] == [
        128, 256, 384, 512
    ]  # fmt: skip
    events = read_events(folder)
    assert [(e.step, e.value) for e in events.Scalars("mine/step")] == [
        (step, step) for step in (128, 256, 384, 512)
    ]
    bias = np.abs(weights.params["params"]["policy"]["Dense_1"]["bias"]).max()
    assert events.Scalars("mine/bias")[-1].value == pytest.approx(bias)
    logged = {e.step: e.value for e in events.Scalars("eval/episode_reward")}
    seen = {step: hook.seen[step]["eval/episode_reward"] for step in STEPS}
    assert seen == pytest.approx(logged)


@pytest.mark.parametrize("stop_at", [0, 128, 256])
def test_a_hook_that_stops_leaves_a_checkpoint_to_go_on_from(finished, tmp_path, capfd, stop_at):
    _, weights = finished
    folder = run_folder.create(tmp_path / "run", {})
    early = train(ENV, network(), CONFIG, folder, on_iteration=Watching(stop_at))
    assert checkpoint.steps(folder / run_folder.CHECKPOINTS) == sorted({0, stop_at, stop_at & 256})
    assert f"stopped early at step {stop_at}: enough" in capfd.readouterr().out
    assert read_events(folder).Scalars("mine/step")[-1].step == stop_at
    assert same(early, load_into(ENV, network(), CONFIG, folder).weights)
    assert not same(early, weights)
    assert same(weights, train(ENV, network(), CONFIG, folder, resume=True))


@pytest.mark.parametrize("error", [KeyError("mistyped"), FileNotFoundError(2, "gone", "my.csv")])
def test_an_error_in_a_hook_is_told_as_it_is(finished, tmp_path, error):
    """Tell it with its traceback, whatever its kind, and lose nothing that was learned."""
    _, weights = finished

    def careless(step, metrics, state):
        if step == 384:
            raise error

    folder = run_folder.create(tmp_path / "run", {})
    with pytest.raises(type(error)) as info:
        train(ENV, network(), CONFIG, folder, on_iteration=careless)
    assert info.value is error and info.traceback[-1].name == "careless"
    assert checkpoint.read_last(folder / run_folder.CHECKPOINTS, pytest.fail)[0] == 384
    assert same(weights, train(ENV, network(), CONFIG, folder, resume=True))


def test_an_evaluation_before_an_error_is_not_made_again(tmp_path):
    def careless(step, metrics, state):
        if step == 256:
            raise KeyError("mistyped")

    folder = run_folder.create(tmp_path / "run", {})
    with pytest.raises(KeyError):
        train(ENV, network(), CONFIG, folder, on_iteration=careless)
    assert checkpoint.is_scored(folder / run_folder.CHECKPOINTS, 256)
    # The hook would fail there once more.
    train(ENV, network(), CONFIG, folder, resume=True, on_iteration=careless)
    assert [e.step for e in read_events(folder).Scalars("eval/episode_reward")] == STEPS


class Failing:
    """A log whose service is gone when step 384 is reported."""

    def __init__(self, error):
        self.error = error

    def scalars(self, step, values):
        if step == 384:
            raise self.error

    def __getattr__(self, name):
        return lambda *_: None


@pytest.mark.parametrize("error", [RuntimeError("the service is gone"), OSError(28, "full")])
def test_an_error_in_a_log_loses_nothing_that_was_learned(finished, tmp_path, error):
    _, weights = finished
    folder = run_folder.create(tmp_path / "run", {})
    with pytest.raises(type(error), match=str(error.args[-1])):
        train(ENV, network(), CONFIG, folder, logs=[Failing(error)])
    assert checkpoint.read_last(folder / run_folder.CHECKPOINTS, pytest.fail)[0] == 384
    assert same(weights, train(ENV, network(), CONFIG, folder, resume=True))


@dataclasses.dataclass(frozen=True)
class Fragile(Probe):
    """A probe whose second evaluation fails."""

    counted: typing.ClassVar[int] = 0

    def step(self, state, action):
        def count(x):
            if len(x) == CONFIG.num_eval_envs:
                type(self).counted += 1
                # After those of the first evaluation, one for each step of an episode.
                if type(self).counted > CONFIG.episode_length:
                    raise RuntimeError("the simulation broke")
            return x

        shape = jax.ShapeDtypeStruct(state.data["x"].shape, state.data["x"].dtype)
        x = jax.pure_callback(count, shape, state.data["x"], vmap_method="broadcast_all")
        return super().step(dataclasses.replace(state, data=state.data | {"x": x}), action)


def test_an_error_in_an_evaluation_loses_nothing_that_was_learned(tmp_path):
    folder = run_folder.create(tmp_path / "run", {})
    Fragile.counted = 0
    with pytest.raises(Exception, match="the simulation broke"):
        train(Fragile(chase, steps=7), network(), CONFIG, folder)
    assert checkpoint.read_last(folder / run_folder.CHECKPOINTS, pytest.fail)[0] == 256
    # The evaluation that failed is made up for.
    assert [e.step for e in read_events(folder).Scalars("eval/episode_reward")] == [0]
    train(ENV, network(), CONFIG, folder, resume=True)
    assert [e.step for e in read_events(folder).Scalars("eval/episode_reward")] == STEPS


@dataclasses.dataclass(frozen=True)
class Later(Probe):
    """A later release of the probe: other metrics, and a name that changed."""

    renamed_leaves = {"x": "shown"}

    def reset(self, key):
        return self._as_now(super().reset(key))

    def step(self, state, action):
        data = state.data | {"x": state.data["shown"]}
        return self._as_now(super().step(dataclasses.replace(state, data=data), action))

    def _as_now(self, state):
        data = {k: x for k, x in state.data.items() if k != "x"} | {"shown": state.data["x"]}
        metrics = {"x": state.metrics["x"], "twice": 2 * state.metrics["x"]}
        return dataclasses.replace(state, data=data, metrics=metrics)


def test_a_run_of_an_earlier_release_of_its_environment_goes_on(finished, tmp_path):
    folder, weights = finished
    broken = run_folder.create(tmp_path / "broken", {})
    shutil.copytree(
        folder / run_folder.CHECKPOINTS / "256", broken / run_folder.CHECKPOINTS / "256"
    )
    later = Later(chase, steps=7)
    check_training(later, network(), CONFIG, broken)
    close(weights, train(later, network(), CONFIG, broken, resume=True))
    assert read_events(broken).Scalars("eval/twice")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_goes_on_from_the_last_checkpoint_that_is_whole(finished, tmp_path, capfd):
    folder, weights = finished
    broken = shutil.copytree(folder, tmp_path / "broken")
    for path in (broken / run_folder.CHECKPOINTS / "512").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:-7])
    assert same(weights, train(ENV, network(), CONFIG, broken, resume=True))
    told = capfd.readouterr().out
    assert f"warning: checkpoint {broken / run_folder.CHECKPOINTS / '512'}" in told.replace(
        "\n", ""
    )
    assert checkpoint.steps(broken / run_folder.CHECKPOINTS) == STEPS
    assert (broken / run_folder.CHECKPOINTS / "512.torn-0").is_dir()


def test_what_cannot_be_written_is_told_with_what_is_left(finished, tmp_path, monkeypatch):
    """A disk that is full when the second checkpoint comes."""
    save = checkpoint.save

    def full(folder, step, *rest):
        if step:
            raise OSError(f"checkpoint {folder / str(step)} could not be written: no space")
        return save(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "save", full)
    broken = run_folder.create(tmp_path / "broken", {})
    with pytest.raises(
        OSError, match="256 could not be written: no space; the checkpoint of step 0"
    ):
        train(ENV, network(), CONFIG, broken)
    assert checkpoint.steps(broken / run_folder.CHECKPOINTS) == [0]


def test_a_run_of_nothing_but_broken_numbers_is_given_up(tmp_path):
    env = Probe(lambda x, action: x * jnp.nan, steps=7)
    longer = dataclasses.replace(CONFIG, num_timesteps=128 * 50, num_evals=2)
    folder = run_folder.create(tmp_path / "run", {})
    with pytest.raises(NotFiniteError, match=r"the first was the reward .* at step 128;"):
        train(env, network(), longer, folder)
    assert checkpoint.steps(folder / run_folder.CHECKPOINTS) == [0, 128 * PATIENCE]


def test_checkpoints_between_evaluations_and_their_retention(finished, tmp_path):
    _, weights = finished
    often = CheckpointConfig(minutes=1e-9, keep_last=2, keep_best=1)
    folder = run_folder.create(tmp_path / "often", {})
    assert same(weights, train(ENV, network(), CONFIG, folder, checkpoint_config=often))
    kept = checkpoint.steps(folder / run_folder.CHECKPOINTS)
    assert kept[-2:] == [384, 512]
    assert kept[0] == 0 and len(kept) <= 4


@pytest.mark.parametrize("kept", [[], STEPS[:1], STEPS[:2]])
def test_the_curves_of_a_resumed_run_are_those_of_an_unbroken_one(finished, tmp_path, kept):
    """Every point once, whatever had been reported after the checkpoint to go on from."""
    folder, _ = finished
    broken = shutil.copytree(folder, tmp_path / "broken")
    for step in set(STEPS) - set(kept):
        shutil.rmtree(broken / run_folder.CHECKPOINTS / str(step))
    train(ENV, network(), CONFIG, broken, resume=True)
    found, expected = read_events(broken), read_events(folder)
    for name in ("eval/episode_reward", "train/policy_loss"):
        points = lambda events, name=name: [(e.step, e.value) for e in events.Scalars(name)]
        assert points(found) == points(expected)
    assert [e.step for e in found.Histograms("eval/action")] == STEPS
    assert "config/text_summary" in found.Tags()["tensors"]


def test_a_run_broken_off_before_its_first_checkpoint_begins_again(finished, tmp_path):
    _, weights = finished
    broken = run_folder.create(tmp_path / "broken", {})
    assert same(weights, train(ENV, network(), CONFIG, broken, resume=True))


def test_an_unfinished_checkpoint_is_not_taken_for_one(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder / run_folder.CHECKPOINTS, copy)
    (copy / "512").rename(copy / "512.orbax-checkpoint-tmp")
    (copy / "notes").mkdir()
    assert checkpoint.steps(copy) == [0, 256]
    assert checkpoint.steps(tmp_path / "nowhere") == []


def test_a_checkpoint_of_another_network_is_refused_by_name(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"policy.Dense_0.*\[1, 8\] in the .*\[1, 16\] in this"):
        check_training(ENV, network(16), CONFIG, folder)
    more = dataclasses.replace(CONFIG, num_envs=16)
    with pytest.raises(ValueError, match="other settings"):
        check_training(ENV, network(), more, folder)
    # Steps are counted in iterations, so that each has to take as many.
    shorter = dataclasses.replace(CONFIG, unroll_length=2)
    with pytest.raises(ValueError, match="takes 128 steps, and with these settings 64; resume it"):
        check_training(ENV, network(), shorter, folder)


def test_a_folder_in_use_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="has letters that this locale does not know.*LC_ALL"):
        run_folder.check_free(Path("l\udcc3ufe"))
    with pytest.raises(FileExistsError, match="not empty.*--run-dir.*--resume"):
        run_folder.create(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match=r"not a run folder: it has no config\.json"):
        run_folder.read_settings(tmp_path)


def test_two_processes_do_not_train_in_one_folder(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    for path in (folder / run_folder.CHECKPOINTS / "512").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:-7])
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    # A process of its own, as a process may open what it holds itself.
    holding = (
        "import sys; from pathlib import Path; from vnl_ppo.run_folder import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('holds', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holding, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"holds\n"
        with pytest.raises(ValueError, match="another process is training in"):
            train(ENV, network(), CONFIG, folder, resume=True, quiet=True)
        assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
        # A process that is killed holds nothing.
        other.kill()
    train(ENV, network(), CONFIG, folder, resume=True, quiet=True)


def test_a_torn_config_is_named(tmp_path):
    (tmp_path / run_folder.CONFIG).write_text('{"settings": ')
    with pytest.raises(ValueError, match="does not hold the settings of a run"):
        run_folder.read_settings(tmp_path)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """A finished run of three."""
    config = dataclasses.replace(CONFIG, num_seeds=3)
    folder = run_folder.create(tmp_path_factory.mktemp("runs") / "seeds", {"name": "value"})
    hook = lambda step, metrics, state: {"mine/seed": np.arange(3), "mine/step": step}
    return config, folder, train(ENV, network(), config, folder, on_iteration=hook)


def close(a, b):
    """Within float32's rounding of 32 transitions in each of 16 updates in each of 4 iterations."""
    limit = float(np.finfo(np.float32).eps) * 32 * 16 * 4
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=limit), a, b)


def test_each_of_many_seeds_is_what_it_would_be_alone(finished, seeds, tmp_path):
    config, folder, weights = seeds
    close(weights, finished[1])
    alone = run_folder.create(tmp_path / "alone", {})
    last = train(ENV, network(), dataclasses.replace(CONFIG, seed=2), alone)
    found = load_into(ENV, network(), config, folder / "seed_2")
    close(found.weights, last)
    assert not np.allclose(*(jax.tree.leaves(w.params)[1] for w in (found.weights, weights)))
    score = lambda path: read_events(path).Scalars("eval/episode_reward")[-1].value
    assert score(folder / "seed_2") == pytest.approx(score(alone), abs=1e-3)


def test_many_seeds_have_curves_of_their_own_and_a_mean_with_its_interval(seeds):
    _, folder, _ = seeds
    each = [read_events(folder / f"seed_{seed}") for seed in range(3)]
    together = EventAccumulator(str(folder)).Reload()
    for name in ("eval/episode_reward", "train/policy_loss"):
        values = np.array([[e.value for e in events.Scalars(name)] for events in each])
        found = {
            k: [e.value for e in together.Scalars(k + name)] for k in ("", "low95/", "high95/")
        }
        np.testing.assert_allclose(found[""], values.mean(0), rtol=1e-5)
        # Student's t of two degrees of freedom: 4.303.
        half = 4.3027 * values.std(0, ddof=1) / np.sqrt(3)
        np.testing.assert_allclose(found["high95/"], values.mean(0) + half, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["low95/"], values.mean(0) - half, rtol=1e-4, atol=1e-5)
    # A hook may give a number of each.
    assert [events.Scalars("mine/seed")[-1].value for events in each] == [0, 1, 2]
    assert together.Scalars("mine/seed")[-1].value == 1
    assert {"mine/step", "low95/mine/seed"} <= set(together.Tags()["scalars"])
    assert "eval/action" in each[1].Tags()["histograms"]
    assert "perf/env_steps_per_second" in together.Tags()["scalars"]


def test_many_seeds_resume_as_one_does(seeds, tmp_path):
    config, folder, weights = seeds
    broken = run_folder.create(tmp_path / "broken", {})
    shutil.copytree(
        folder / run_folder.CHECKPOINTS / "256", broken / run_folder.CHECKPOINTS / "256"
    )
    assert same(weights, train(ENV, network(), config, broken, resume=True))
    with pytest.raises(ValueError, match="has no seed 7; it has 0 to 2"):
        load_into(ENV, network(), config, folder / "seed_7")
