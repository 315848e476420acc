"""The experiment's command line: what it takes, and what it refuses before any work."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from experiments import command_line, run_film
from experiments.settings import BUILDER, CPU_BLIND, CPU_SEEING, build, from_dict, to_dict
from vnl_ppo import run_folder
from vnl_ppo.events import EventFile


def parse(arguments):
    return command_line.parse(arguments, None, "gap_ant")


def test_flags_reach_their_settings(tmp_path):
    arguments = (
        f"--num-timesteps 1000 --run-dir {tmp_path / 'run'} --encoder none --physics mjx --seed 3 "
        "--arena.gap-length 0.1 0.3 --walker.reach 1.2 --simulation.iterations 8 --task.forward 2.5"
    )
    settings = parse(arguments.split())
    assert settings.ppo.num_timesteps == 1000
    assert settings.ppo.seed == 3
    assert settings.physics == "mjx"
    assert settings.run_dir == tmp_path / "run"
    assert settings.arena.gap_length == (0.1, 0.3)
    assert settings.walker.reach == 1.2
    assert settings.simulation.iterations == 8
    assert settings.task.forward == 2.5


def test_a_blind_ant_has_its_own_defaults():
    assert parse([]).ppo == CPU_SEEING
    assert parse(["--encoder", "none"]).ppo == CPU_BLIND


@pytest.mark.parametrize(
    "encoder", [pytest.param("mlp", marks=pytest.mark.slow), "nature_cnn --features 32"]
)
def test_every_registered_encoder_of_images_can_be_chosen(tmp_path, encoder):
    folder = tmp_path / "run"
    command_line.prepare(parse(f"--encoder {encoder} --run-dir {folder}".split()))
    assert run_folder.read_settings(folder)["encoder"] == encoder.split()[0]


@pytest.mark.parametrize(
    "options",
    [
        "--network.memory 8 --network.distribution clipped_normal",
        pytest.param(
            "--network.policy-leaves vision --network.encoder-dtype bfloat16",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "--network.no-state-dependent-std --learning-rate-schedule adaptive_kl --max-kl 0.1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_kind_of_network_can_be_built(tmp_path, options):
    folder = tmp_path / "run"
    settings = parse([*options.split(), "--run-dir", str(folder)])
    command_line.prepare(settings)
    assert from_dict(run_folder.read_settings(folder)).network == settings.network


def test_a_dry_run_tells_its_memory_and_leaves_nothing_behind(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = "--encoder none --num-envs 8 --batch-size 8 --num-minibatches 1 --dry-run"
    settings = parse(arguments.split())
    command_line.show_memory(*build(settings), settings)
    table = capsys.readouterr().out
    assert "rollout: observation proprio" in table
    assert "peak of a training iteration" in table
    assert list(tmp_path.iterdir()) == []


def test_settings_survive_their_file(tmp_path):
    settings = parse(["--seed", "5", "--vision.height", "48"])
    folder = run_folder.create(tmp_path / "run", to_dict(settings))
    assert from_dict(run_folder.read_settings(folder)) == settings
    resumed = parse(["--resume", str(folder), "--num-timesteps", "7"])
    assert resumed.ppo == dataclasses.replace(settings.ppo, num_timesteps=7)
    assert resumed.vision.height == 48


def test_a_dumped_config_repeats_a_run(tmp_path, capsys, monkeypatch):
    arguments = ["--encoder", "none", "--seed", "9", "--arena.gap-length", "0.2", "0.4"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--dump-config"])
    command_line.main(None, env="gap_ant")
    path = tmp_path / "mine.json"
    path.write_text(capsys.readouterr().out)
    content = json.loads(path.read_text())
    assert content["builder"] == BUILDER
    assert content["versions"]["jax"] and content["versions"]["python"]
    settings = parse(["--config", str(path), "--num-evals", "3"])
    expected = parse([*arguments, "--num-evals", "3"])
    assert dataclasses.replace(settings, config=None) == expected
    # A run's folder does as well, and its settings are all that a new run needs.
    folder = run_folder.create(tmp_path / "run", to_dict(settings), BUILDER)
    again = parse(["--config", str(folder)])
    assert to_dict(again) == to_dict(settings)


def test_a_config_of_another_version_is_refused_by_field():
    data = to_dict(parse([]))
    data["smell"] = 1
    with pytest.raises(ValueError, match="no setting smell; the nearest is"):
        from_dict(json.loads(json.dumps(data)))
    del data["smell"]
    # A field that it did not know yet takes its default.
    del data["checkpoints"], data["ppo"]["env_chunk_size"]
    assert from_dict(data) == parse([])


@pytest.mark.parametrize("name, value", [("distributed", True), ("processes", {"timeout": 1})])
def test_what_only_the_command_line_may_say_is_refused_in_a_file(name, value):
    data = to_dict(parse([])) | {name: value}
    with pytest.raises(ValueError, match=f"mine.json: {name} can only be set on the comm"):
        from_dict(data, "mine.json")


def test_the_command_to_go_on_repeats_what_was_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["experiments/gap_ant_vision.py", "--seed", "3"])
    assert command_line.how_to_go_on(tmp_path).endswith(
        f"experiments/gap_ant_vision.py --resume {tmp_path}"
    )
    resumed = ["--resume", str(tmp_path), "--num-timesteps", "7"]
    monkeypatch.setattr(sys, "argv", ["experiments/gap_ant_vision.py", *resumed])
    assert command_line.how_to_go_on(tmp_path).endswith(f"--resume {tmp_path} --num-timesteps 7")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--encoder nature_cn", "nature_cn.*nature_cnn"),
        ("--encoder identity", "identity: got an image"),
        ("--network.value-leaves smell", "value_leaves has.*smell.*proprio"),
        ("--encoder mlp --features 8", "'mlp' has no setting 'features'"),
        ("--physics havok --encoder none", "havok.*mujoco"),
        ("--encoder none --num-envs 100", "num_envs = 100 does not divide"),
        ("--encoder none --simulation.control-timestep 0.012", "0.012"),
        ("--vision.camera nose", "no camera 'nose'.*egocentric"),
        ("--encoder none --physics mjx --simulation.noslip-iterations 3", "noslip"),
        ("--encoder none --arena.platform-length 0.1 0.2", "reach"),
        ("--encoder none --video-seconds nan", "video_seconds is nan"),
    ],
)
def test_bad_input_is_one_clear_sentence_before_any_work(tmp_path, arguments, message):
    folder = tmp_path / "run"
    settings = parse([*arguments.split(), "--run-dir", str(folder)])
    with pytest.raises(ValueError, match=f"(?s){message}"):
        command_line.prepare(settings)
    assert not folder.exists()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "precious").write_text("x")
    settings = parse(["--encoder", "none", "--run-dir", str(tmp_path)])
    with pytest.raises(FileExistsError, match="not empty"):
        command_line.prepare(settings)


def test_a_video_that_fails_loses_nothing(monkeypatch, capsys, tmp_path):
    def fail(*_):
        raise MemoryError("no room for frames")

    monkeypatch.setattr(command_line, "train", lambda *_, **__: None)
    monkeypatch.setattr(command_line.checkpoint, "steps", lambda _: [640])
    monkeypatch.setattr(command_line, "film_episodes", fail)
    settings = parse(["--encoder", "none"])
    prepared = command_line.Prepared(None, None, tmp_path, None, {}, None)
    command_line.work(settings, prepared)
    shown = capsys.readouterr()
    assert "warning: no video: no room for frames" in shown.err
    assert "done: checkpoints in" in shown.out


@pytest.mark.parametrize(
    "lasts, expected",
    [
        # 0.75 s are 30 states; an episode has at most the 11 of 10 steps.
        ([11, 11, 11], [(3, 11), (4, 11), (5, 8)]),
        ([4, 1, 11, 11, 11], [(3, 4), (4, 1), (5, 11), (6, 11), (7, 3)]),
        # An animal that falls at once, in 20 episodes and not in 30.
        ([1] * 20, [(3 + i, 1) for i in range(20)]),
    ],
)
def test_episodes_follow_each_other_in_the_video(lasts, expected, monkeypatch, tmp_path):
    flags = "--encoder none --episode-length 10 --video-seconds 0.75 --seed 3"
    settings = parse(flags.split())
    env, network = build(settings)
    seeds = []

    def recorder(env, network, config, length):
        def record(weights, key):
            seeds.append(int(jax.random.key_data(key)[-1]))
            seed = jax.numpy.full(length + 1, seeds[-1])
            return {"seed": seed}, jax.numpy.arange(length + 1) < lasts[len(seeds) - 1]

        return record

    given = []
    draw = lambda view, data, alive, *_, **__: given.append((data["seed"], alive)) or []
    monkeypatch.setattr(run_film, "make_record", recorder)
    monkeypatch.setattr(run_film, "film", draw)
    monkeypatch.setattr(run_film, "write", lambda frames, path: path)
    monkeypatch.setattr(EventFile, "film", lambda *_: None)
    path = run_film.film_episodes(settings, env, network, None, tmp_path, 640)
    assert path == tmp_path / "videos" / "640.mp4"
    ((shown, alive),) = given
    np.testing.assert_array_equal(shown, np.repeat(*zip(*expected, strict=True)))
    assert alive.shape == shown.shape and alive.all()
    assert seeds == [seed for seed, _ in expected]


def test_a_home_folder_is_written_as_in_a_shell(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = parse(["--run-dir=~/mine"])
    assert settings.run_dir == tmp_path / "mine"


def test_two_runs_of_the_same_second_have_folders_of_their_own(tmp_path):
    made = [run_folder.make_unused(tmp_path / "runs" / "mine") for _ in range(3)]
    assert [path.name for path in made] == ["mine", "mine-2", "mine-3"]
    assert all(path.is_dir() for path in made)
