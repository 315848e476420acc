"""The experiment's command line: what it takes, and what it refuses before any work."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from vnl_ppo import run

_PATH = Path(__file__).parents[2] / "experiments" / "gap_ant_vision.py"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("gap_ant_vision", _PATH)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["gap_ant_vision"] = module
    spec.loader.exec_module(module)
    return module


def test_flags_reach_their_settings(experiment, tmp_path):
    arguments = (
        f"--num-timesteps 1000 --run-dir {tmp_path / 'run'} --encoder none --physics mjx --seed 3 "
        "--corridor.gap-length 0.1 0.3 --simulation.iterations 8 --reward.forward 2.5"
    )
    settings = experiment.parse(arguments.split())
    assert settings.ppo.num_timesteps == 1000
    assert settings.ppo.seed == 3
    assert settings.physics == "mjx"
    assert settings.run_dir == tmp_path / "run"
    assert settings.env.corridor.gap_length == (0.1, 0.3)
    assert settings.env.simulation.iterations == 8
    assert settings.env.reward.forward == 2.5


def test_a_blind_ant_has_its_own_defaults(experiment):
    assert experiment.parse([]).ppo == experiment.CPU_SEEING
    assert experiment.parse(["--encoder", "none"]).ppo == experiment.CPU_BLIND


@pytest.mark.parametrize("encoder", ["mlp", "nature_cnn --features 32"])
def test_every_registered_encoder_of_images_can_be_chosen(experiment, tmp_path, encoder):
    folder = tmp_path / "run"
    experiment.prepare(experiment.parse(f"--encoder {encoder} --run-dir {folder}".split()))
    assert run.read_settings(folder)["encoder"] == encoder.split()[0]


def test_settings_survive_their_file(experiment, tmp_path):
    settings = experiment.parse(["--seed", "5", "--vision.height", "48"])
    folder = run.create(tmp_path / "run", experiment.to_dict(settings))
    assert experiment.from_dict(run.read_settings(folder)) == settings
    resumed = experiment.parse(["--resume", str(folder), "--num-timesteps", "7"])
    assert resumed.ppo == dataclasses.replace(settings.ppo, num_timesteps=7)
    assert resumed.vision.height == 48


def test_a_config_of_another_version_is_refused_by_field(experiment, tmp_path):
    data = experiment.to_dict(experiment.parse([]))
    data["smell"] = 1
    with pytest.raises(ValueError, match="another version.*smell"):
        experiment.from_dict(json.loads(json.dumps(data)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--encoder nature_cn", "nature_cn.*nature_cnn"),
        ("--encoder identity", "identity: got an image"),
        ("--encoder mlp --features 8", "'mlp' has no setting 'features'"),
        ("--physics havok --encoder none", "havok.*mujoco"),
        ("--encoder none --num-envs 100", "num_envs = 100 does not divide"),
        ("--encoder none --simulation.control-timestep 0.012", "0.012"),
        ("--vision.camera nose", "no camera 'nose'.*egocentric"),
        ("--encoder none --physics mjx --simulation.noslip-iterations 3", "noslip"),
        ("--encoder none --corridor.platform-length 0.1 0.2", "reach"),
    ],
)
def test_bad_input_is_one_clear_sentence_before_any_work(experiment, tmp_path, arguments, message):
    folder = tmp_path / "run"
    settings = experiment.parse([*arguments.split(), "--run-dir", str(folder)])
    with pytest.raises(ValueError, match=f"(?s){message}"):
        experiment.prepare(settings)
    assert not folder.exists()


def test_a_folder_in_use_is_refused(experiment, tmp_path):
    (tmp_path / "precious").write_text("x")
    settings = experiment.parse(["--encoder", "none", "--run-dir", str(tmp_path)])
    with pytest.raises(FileExistsError, match="not empty"):
        experiment.prepare(settings)
