"""A recording is what happened: replayed by hand, its numbers come out again."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import envs
from experiments import analyse, record
from experiments.players import load_policy, settings_of
from experiments.recording_store import Store
from tests.experiments.test_players import run
from vnl_ppo.policy import apply_and_capture
from vnl_ppo.recurrence import initial_memory

EPISODES, LENGTH = 5, 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("record")
    flags = "--env walls_ball --vision.height 36 --vision.width 36 --network.memory 4"
    run(path / "mine", f"{flags} --network.policy-hidden 8 --network.value-hidden 8")
    return path


def call(monkeypatch, program, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    program.main()


@pytest.fixture(scope="module")
def recording(folder):
    with pytest.MonkeyPatch.context() as monkeypatch:
        flags = ["--episodes", EPISODES, "--episode-length", LENGTH]
        call(monkeypatch, record, folder / "mine", *flags)
    return xarray.open_zarr(folder / "mine" / "recordings" / "0.zarr", consolidated=False)


@pytest.fixture(scope="module")
def policy(folder):
    name = str(folder / "mine")
    return load_policy(name, settings_of(name))


def test_every_array_has_episodes_and_steps(recording):
    assert recording.sizes["episode"] == EPISODES and recording.sizes["time"] == LENGTH
    for name in ("alive", "action", "value", "reward", "observation.vision", "truth.ahead",
                 "truth.qpos", "metric.obstacles_passed", "module.encoders_vision.Conv_0",
                 "module.core", "module.policy"):  # fmt: skip
        assert recording[name].dims[:2] == ("episode", "time"), name
    assert recording.attrs["step"] == 0 and recording.attrs["lesion"] == ""
    assert recording.alive.values.all()


def test_modules_compute_what_was_recorded(recording, policy):
    memory = initial_memory(policy.network, EPISODES)
    step = jax.jit(lambda obs, memory: apply_and_capture(
        policy.network, policy.weights, obs, memory))  # fmt: skip
    for t in range(4):
        obs = {k: jnp.asarray(recording[f"observation.{k}"].values[:, t])
               for k in ("vision", "proprio")}  # fmt: skip
        (_, value, memory), found = step(obs, memory)
        np.testing.assert_allclose(recording.value.values[:, t], value, rtol=1e-4, atol=1e-5)
        for name, x in found.items():
            kept = recording["module." + name.replace("/", ".")].values[:, t]
            np.testing.assert_allclose(kept, x, rtol=1e-3, atol=1e-4, err_msg=name)


def test_arrays_tell_what_they_are(recording, policy):
    assert recording.time.attrs["units"] == "s"
    np.testing.assert_allclose(recording.time, policy.env.dt * np.arange(LENGTH))
    about = recording["truth.qpos"].attrs
    assert about["entries"] == ["root_x", "root_y", "root_z", "steer", "kick", "roll"]
    assert recording["truth.velocity"].attrs["units"] == "m/s"
    # The velocity is that of the step that begins: it leads to the next position.
    position = recording["truth.position"].values
    moved = position[:, :-1] + policy.env.dt * recording["truth.velocity"].values[:, :-1]
    np.testing.assert_allclose(position[:, 1:], moved, atol=1e-5)


def test_entries_of_joints_that_have_several_are_named():
    env = envs.make("gap_ant", seeing=False)
    positions, velocities = (env.truth_attributes[k]["entries"] for k in ("qpos", "qvel"))
    assert positions[:8] == [*(f"root.{x}" for x in ("x", "y", "z", "qw", "qx", "qy", "qz")),
                             "front_left_hip"]  # fmt: skip
    assert velocities[3:7] == ["root.turn_x", "root.turn_y", "root.turn_z", "front_left_hip"]
    assert (len(positions), len(velocities)) == (env.model.nq, env.model.nv)


def test_the_layout_of_each_episode_is_that_of_its_walls(recording):
    x, ahead = recording["layout.x"].values, recording["truth.ahead"].values
    assert recording["layout.x"].dims[0] == "episode" and x.shape[0] == EPISODES
    assert len(np.unique(x[:, 0])) == EPISODES
    # At first the next wall is the first one, whose near face is 0.08 m before its centre.
    np.testing.assert_allclose(
        ahead[:, 0, 0], (x[:, 0] - 0.08 - recording["truth.position"].values[:, 0, 0]).clip(-1, 5),
        atol=1e-4,
    )  # fmt: skip


def test_an_environment_and_an_encoder_of_ones_own(tmp_path, monkeypatch):
    run(tmp_path / "mine", "--env tests.probes:Shown --encoder tests.probes:Pixels")
    flags = ["--episodes", 6, "--episode-length", 40, "--output", tmp_path / "x.zarr"]
    call(monkeypatch, record, tmp_path / "mine", *flags)
    recording = xarray.open_zarr(tmp_path / "x.zarr", consolidated=False)
    assert "module.encoders_vision.Dense_0" in recording and "time" not in recording.coords
    # What it shows as brightness is read from its features, and not from the action's mode.
    call(monkeypatch, analyse, tmp_path / "x.zarr", "--variables", "observation.truth",
         "--folds", 3, "--permutations", 20, "--modules", "encoders_vision.Dense_0")  # fmt: skip
    found = json.loads((tmp_path / "x.analysis.json").read_text())
    scores = found["recordings"][0]["modules"]["encoders_vision.Dense_0"]["r2"]
    assert scores["observation.truth[0]"]["mean"] > 0.99
    with pytest.raises(SystemExit, match="reward are constant.*there are action, obs"):
        call(monkeypatch, analyse, tmp_path / "x.zarr", "--folds", 3, "--output", tmp_path / "y")
    # Noise is another one at each step of a replay too.
    call(monkeypatch, record, tmp_path / "mine", "--replay", tmp_path / "x.zarr",
         "--lesion", "vision=noise", "--output", tmp_path / "noise.zarr")  # fmt: skip
    noisy = xarray.open_zarr(tmp_path / "noise.zarr", consolidated=False)
    features = noisy["module.encoders_vision.Dense_0"].values
    assert (features[:, 1:] != features[:, :-1]).any(axis=-1).all()


def test_random_actions_are_others_in_each_group_of_episodes(tmp_path, monkeypatch):
    flags = ["--env", "tests.probes:Shown"]
    call(monkeypatch, record, "random", *flags, "--episodes", 33, "--episode-length", 3,
         "--output", tmp_path / "x.zarr")  # fmt: skip
    actions = xarray.open_zarr(tmp_path / "x.zarr", consolidated=False)["action"].values
    assert len(np.unique(actions)) == actions.size


def test_after_the_last_episode_come_the_first():
    array = np.arange(5)[:, None] * np.ones((5, record.BLOCK + 3))
    block = record.block_of(array, 3, 4, record.BLOCK)
    assert block.shape == (record.BLOCK, 4)
    assert block[:4].tolist() == [[3, 4, 0, 1]] * 3 + [[0, 0, 0, 0]]


def test_the_truth_is_that_of_the_states(recording, policy):
    env = policy.env
    qpos = recording["truth.qpos"].values
    # The ball's first two positions are those along x and y, from where it starts.
    np.testing.assert_allclose(
        recording["truth.position"].values[..., :2] - np.asarray(env.arena.start[:2]),
        qpos[..., :2], atol=1e-4,
    )  # fmt: skip
    rotation = recording["truth.rotation"].values
    np.testing.assert_allclose(
        # The ball faces along its y axis.
        recording["truth.heading"].values,
        np.arctan2(rotation[..., 1, 1], rotation[..., 0, 1]),
        atol=1e-6,
    )
    np.testing.assert_allclose(recording["truth.heading"].values[:, 0], 0, atol=0.1)
    # Rewards follow from metrics of the same step.
    total = sum(
        recording[f"metric.{k}"]
        for k in (
            "forward_reward",
            "reward_quadctrl",
            "reward_alive",
            "train_reward",
            "distance_reward",
        )
    )
    np.testing.assert_allclose(recording.reward, total, rtol=1e-5, atol=1e-5)  # fmt: skip


def test_a_replay_sees_the_same_and_a_lesion_does_not(folder, recording, monkeypatch):
    source = folder / "mine" / "recordings" / "0.zarr"
    again, dark = folder / "again.zarr", folder / "dark.zarr"
    call(monkeypatch, record, folder / "mine", "--replay", source, "--output", again)
    replayed = xarray.open_zarr(again, consolidated=False)
    assert set(replayed) == set(recording)
    for name in recording:
        np.testing.assert_allclose(
            np.asarray(replayed[name], float), np.asarray(recording[name], float),
            rtol=1e-3, atol=1e-4, err_msg=name,
        )  # fmt: skip
    flags = ["--episodes", 2, "--episode-length", 3, "--lesion", "vision=blank"]
    call(monkeypatch, record, folder / "mine", *flags, "--output", dark, "--half",
         "--modules", "encoders_vision*")  # fmt: skip
    blind = xarray.open_zarr(dark, consolidated=False)
    features = blind["module.encoders_vision"]
    assert features.dtype == np.float16 and "module.policy" not in blind
    # In a replay too, the policy gets a black picture.
    replayed = folder / "dark_replay.zarr"
    call(monkeypatch, record, folder / "mine", "--replay", source, "--lesion", "vision=blank",
         "--output", replayed, "--modules", "encoders_vision")  # fmt: skip
    again = xarray.open_zarr(replayed, consolidated=False)["module.encoders_vision"]
    assert (again == again[0, 0]).all() and again.shape[:2] == (EPISODES, LENGTH)
    # A black picture is the same at every step.
    assert (features == features[0, 0]).all()
    assert (recording["module.encoders_vision"] != recording["module.encoders_vision"][0, 0]).any()


def test_analyses_of_recordings(folder, recording, monkeypatch, capsys):
    source = folder / "mine" / "recordings" / "0.zarr"
    call(monkeypatch, analyse, source, "--modules", "encoders_vision", "policy/Dense_0",
         "--variables", "truth.qvel", "--folds", "2", "--permutations", "20")  # fmt: skip
    assert "encoders_vision" in capsys.readouterr().out
    for name in ("0.analysis.json", "0.figures/decoding.png", "0.figures/similarity.png"):
        assert (source.parent / name).stat().st_size > 100
    found = json.loads((source.parent / "0.analysis.json").read_text())
    assert "truth.qvel[root_x]" in found["variables"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--modules", "encoders_visoin", "--output", "x.zarr"],
            "'encoders_visoin', which is no module; did you mean encoders_vision.*Con",
        ),
        (["--episodes", "0"], "--episodes is 0"),
        (["--lesion", "vision=blank", "vision=noise"], "record them one by one"),
        (["--replay", "nothing.zarr", "--output", "x.zarr"], "no recording nothing.zarr"),
        ([], "0.zarr exists already"),
    ],
)
def test_what_cannot_be_recorded_is_refused(folder, recording, flags, message, monkeypatch):
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, record, folder / "mine", *flags)


def test_an_interrupted_recording_opens(tmp_path):
    store = Store(tmp_path / "x.zarr", 3, 60, False, {})
    block = {"value": np.ones((25, 2)), "alive": np.ones((25, 2), bool)}
    store.write(0, 0, block)
    # Killed before all of a block is written: its steps are not alive.
    store.write(0, 25, {"value": block["value"]})
    assert not (tmp_path / "x.zarr").exists()
    half = xarray.open_zarr(tmp_path / "x.zarr.part", consolidated=False)
    assert half.alive.values.sum() == 50 and not half.alive.values[:, 25:].any()
    with pytest.raises(ValueError, match="interrupted recording has left; rename or remove it"):
        Store(tmp_path / "x.zarr", 3, 60, False, {})


def test_random_actions_are_recorded_with_what_they_see_and_touch(tmp_path, monkeypatch, capsys):
    path = tmp_path / "random.zarr"
    flags = ["--env", "walls_ball", "--episodes", 2, "--episode-length", 25, "--contacts"]
    call(monkeypatch, record, "random", *flags, "--output", path)
    found = xarray.open_zarr(path, consolidated=False)
    assert found["observation.vision"].shape == (2, 25, 64, 64, 3)
    assert not [name for name in found if str(name).startswith("module.")]
    assert np.abs(found.action.values).max() <= 1 and found.action.values.std() > 0.3
    touched = found["truth.contacts"]
    assert touched.dtype == bool and len(touched.attrs["entries"]) == touched.shape[2]
    # The ball kicks itself off the ground: root_z - kick is how high it is above where it began.
    height = found["truth.qpos"].values[..., 2] - found["truth.qpos"].values[..., 4]
    touches = touched.values.any(axis=-1)
    assert touches.any() and not touches.all()
    assert height[touches].max() <= 0 < height[~touches].min()
    for more, why in [([], "with --output"), (["--replay", "x", "--output", "y"], "no network")]:
        with pytest.raises(SystemExit, match=why):
            call(monkeypatch, record, "random", *flags, *more)
