"""Pretraining: frames on disk, objectives that teach, files that `--encoder-from` takes."""

import dataclasses
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import command_line, pretrain_encoder
from experiments.frame_files import Batch, FrameFiles, collect
from experiments.objectives import OBJECTIVES, info_nce, small
from experiments.pretrain_encoder import parse, pretrain
from tests.probes import Pixels, Shown, picture_of
from vnl_ppo import checkpoint, encoder_file, run_folder
from vnl_ppo.evaluation import acting_at_random
from vnl_ppo.interruption import Interrupted
from vnl_ppo.loading import initial_weights

SPEC = "mlp(hidden_layer_sizes=(6,))"
SMALL = f"""
    --env tests.probes:SHOWN --encoder {SPEC} --images 400 --envs 4 --batch-size 16 --steps 40
    --every 20 --learning-rate 0.003 --quiet
"""


@dataclasses.dataclass(frozen=True)
class Counting(Shown):
    """Shows the number of the step and of the episode as brightness; ends after 5 steps."""

    def reset(self, key):
        return self._shown(super().reset(key), jnp.zeros(()))

    def step(self, state, action):
        step = state.info["step"] + 1
        state = self._shown(super().step(state, action), step)
        return dataclasses.replace(state, done=jnp.float32(step == 5))

    def _shown(self, state, step):
        obs = {**state.obs, "vision": jnp.full((4, 4, 3), 40 * step).astype(jnp.uint8)}
        return dataclasses.replace(state, obs=obs, info={"step": step})


def test_frames_are_bytes_on_disk_in_order(tmp_path):
    folder = tmp_path / "frames"
    collect(Counting(), acting_at_random(1), "vision", folder, 150, 2, 1000, 0)
    images = np.load(folder / "images.npy", mmap_mode="r")
    actions, goes_on = (np.load(folder / f"{name}.npy") for name in ("actions", "goes_on"))
    # 150 in whole blocks of 20 steps of 2 environments.
    assert images.shape == (80, 2, 4, 4, 3) and images.dtype == np.uint8
    assert (folder / "images.npy").stat().st_size < images.size + 200
    steps = images[:, 0, 0, 0, 0] // 40
    np.testing.assert_array_equal(steps, np.arange(80) % 5)
    np.testing.assert_array_equal(goes_on[:, 0], steps != 4)
    assert actions.shape == (80, 2, 1) and (np.abs(actions) <= 1).all()
    frames = FrameFiles(folder)
    batch = frames.batch((0, 1), 500)
    assert (batch.after[:, 0, 0, 0].astype(int) - batch.images[:, 0, 0, 0] == 40).all()
    again = frames.batch((0, 1), 500)
    np.testing.assert_array_equal(batch.images, again.images)
    assert len(frames.batch((0,), 3, held_out=True).images) == 3
    with pytest.raises(FileExistsError, match="never overwritten"):
        collect(Counting(), acting_at_random(1), "vision", folder, 150, 2, 1000, 0)
    (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        FrameFiles(folder)


@pytest.mark.parametrize(
    "steps, held_out",
    [
        # Episodes of 5 steps of two environments, of which the last step is followed by none: the
        # tenth is the tenth of the first environment, the twentieth the eighth of the second.
        (60, {(0, t) for t in range(45, 49)} | {(1, t) for t in range(35, 39)}),
        # Of eight episodes the last, which has no more than the recording.
        (20, {(1, t) for t in range(15, 19)}),
    ],
)
def test_whole_episodes_are_held_out(tmp_path, steps, held_out):
    folder = tmp_path / "frames"
    collect(
        Counting(), acting_at_random(1), "vision", folder, 2 * steps, 2, 99, 0, targets=["truth"]
    )
    targets = np.load(folder / "targets.npy")
    assert targets.shape == (steps, 2, 2) and np.abs(targets).max() <= 1
    # Make each image tell its environment and step.
    images = np.load(folder / "images.npy", mmap_mode="r+")
    images[:] = (np.arange(steps)[:, None] + 100 * np.arange(2))[..., None, None, None]
    images.flush()
    frames = FrameFiles(folder)
    shown = lambda held_out: frames.batch((0,), 5000, held_out)
    told = lambda batch: {divmod(int(x), 100) for x in batch.images[:, 0, 0, 0]}
    assert told(shown(True)) == held_out
    everything = {(n, t) for n in range(2) for t in range(steps) if t % 5 != 4}
    assert told(shown(False)) == everything - held_out
    np.testing.assert_allclose(shown(False).targets.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(shown(False).targets.std(0), 1, atol=0.05)


def test_supervised_tells_what_the_image_shows(tmp_path):
    more = "--objective supervised --targets truth --steps 800 --every 800 --images 2000"
    given = [*SMALL.split(), "--run-dir", str(tmp_path / "run"), *more.split()]
    options, world = parse(given)
    pretrain(options, world)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    found = {k: events.Scalars(f"eval/r2{k}")[-1].value for k in ("", "/truth/0", "/truth/1")}
    assert min(found.values()) > 0.95
    np.testing.assert_allclose(found[""], (found["/truth/0"] + found["/truth/1"]) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    "given, message",
    [
        ("--objective supervised", "supervised needs --targets"),
        ("--targets truth", "no other objective takes them"),
        ("--objective supervised --targets ahead", "has 'ahead'; .* are truth; --ahead adds ahead"),
        ("--objective supervised --targets vision", "has 'vision'; .* are truth$"),
    ],
)
def test_targets_that_cannot_be_told_are_refused(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        options, world = parse([*SMALL.split(), "--run-dir", str(tmp_path / "run"), *given.split()])
        pretrain(options, world)
    assert not (tmp_path / "run").exists()


def test_info_nce_is_that_of_its_formula():
    u = jnp.eye(4)
    loss, accuracy = info_nce(3 * u, u, 0.5)
    np.testing.assert_allclose(loss, np.log(1 + 3 * np.exp(-2)), rtol=1e-5)
    assert accuracy == 1
    loss, accuracy = info_nce(u, jnp.roll(u, 1, 0), 0.5)
    np.testing.assert_allclose(loss, np.log(np.exp(2) + 3), rtol=1e-5)
    assert accuracy == 0


def test_small_images_are_averages():
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    got = small(jnp.asarray(image))
    assert got.shape == (2, 32, 32, 3)
    # A linear filter, whose weights differ at the edge.
    np.testing.assert_allclose(got.mean((1, 2)), image.mean((1, 2)) / 255, atol=0.01)
    assert got.std() < 0.6 * (image / 255).std()
    tiny = image[:, :8, :8]
    np.testing.assert_allclose(small(jnp.asarray(tiny)), tiny / 255, rtol=1e-6)


@pytest.mark.parametrize("in_colour", [True, False])
def test_hues_are_turned_only_where_channels_are_colours(in_colour):
    images = jnp.zeros((8, 16, 16, 3), jnp.uint8).at[..., 0].set(200)
    key, batch = jax.random.key(0), Batch(images, None, None, None)
    model = OBJECTIVES["contrastive"](Pixels(), in_colour)
    (_, _, pairs), _ = model.init_with_output(key, batch, key)
    # Brightness and contrast leave green and blue alike.
    assert (jnp.abs(pairs[..., 1] - pairs[..., 2]).max() > 0.01) == in_colour


def test_predict_paints_what_the_action_does():
    """An action that decides on the next image alone."""
    action = np.random.default_rng(0).uniform(-1, 1, (64, 1)).astype(np.float32)
    after = jax.vmap(picture_of)(jnp.asarray(action[:, 0]))
    batch = Batch(jnp.zeros((64, 4, 4, 3), jnp.uint8), action, after, None)
    model = OBJECTIVES["predict"](Pixels())
    key = jax.random.key(0)
    params = model.init(key, batch, key)
    error = jax.jit(jax.value_and_grad(lambda p: model.apply(p, batch, key)[0]))
    first, _ = error(params)
    for _ in range(200):
        loss, gradient = error(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    assert loss < 0.05 * first
    assert set(params["params"]) == {"encoder", "head_0", "head_1"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "auto"
    options, world = parse([*SMALL.split(), "--run-dir", str(folder)])
    return folder, pretrain(options, world)


def test_a_run_leaves_its_encoder_checkpoints_and_events(finished):
    folder, file = finished
    assert file == folder / "encoder.safetensors"
    found = encoder_file.read(file)
    assert {k: x.shape for k, x in found.items()} == {
        "params.params.encoders_vision.Dense_0.kernel": (48, 6),
        "params.params.encoders_vision.Dense_0.bias": (6,),
    }
    assert checkpoint.steps(folder / run_folder.CHECKPOINTS) == [40]
    events = EventAccumulator(str(folder)).Reload()
    losses = [e.value for e in events.Scalars("eval/loss")]
    assert [e.step for e in events.Scalars("eval/loss")] == [20, 40] and losses[1] < losses[0]
    assert {"train/loss", "eval/r2", "perf/steps_per_second"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Images("eval/pairs")] == [20, 40]
    with pytest.raises(ValueError, match="the run is complete"):
        pretrain(*parse(["--resume", str(folder)]))


def test_a_run_that_was_stopped_ends_with_the_same_bits(finished, tmp_path, monkeypatch):
    _, file = finished
    folder = tmp_path / "stopped"
    options, world = parse([*SMALL.split(), "--run-dir", str(folder)])
    batch = FrameFiles.batch

    def interrupting(self, seed, *rest, **more):
        if seed == (0, 1, 11):
            signal.raise_signal(signal.SIGINT)
        return batch(self, seed, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(FrameFiles, "batch", interrupting)
        with pytest.raises(Interrupted, match="--resume"):
            pretrain(options, world)
    (step,) = checkpoint.steps(folder / run_folder.CHECKPOINTS)
    assert 11 <= step < 40 and not (folder / "encoder.safetensors").exists()
    with (
        run_folder.alone_in(folder),
        pytest.raises(ValueError, match="another process is training in"),
    ):
        pretrain(*parse(["--resume", str(folder)]))
    again = pretrain(*parse(["--resume", str(folder)]))
    first, second = encoder_file.read(file), encoder_file.read(again)
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize(
    "objective", ["contrastive", pytest.param("predict", marks=pytest.mark.slow)]
)
def test_every_objective_runs_from_a_noisy_encoder_to_its_file(tmp_path, objective):
    folder = tmp_path / objective
    own = ["--objective", objective, "--encoder", f"noise | flatten | {SPEC}", "--steps", "4"]
    options, world = parse([*SMALL.split(), "--run-dir", str(folder), *own])
    assert set(encoder_file.read(pretrain(options, world))) == {
        f"params.params.encoders_vision.stages_2.Dense_0.{k}" for k in ("kernel", "bias")
    }


def test_training_takes_the_file(finished, tmp_path):
    _, file = finished
    more = f"--env tests.probes:SHOWN --encoder {SPEC} --encoder-from {file}".split()
    settings = command_line.parse([*more, "--run-dir", str(tmp_path / "run")], None)
    initial = command_line.prepare(settings).initial
    for name, x in encoder_file.read(file).items():
        np.testing.assert_array_equal(initial[name], x)


def test_the_policy_of_a_run_may_act(tmp_path):
    more = f"--env tests.probes:SHOWN --encoder {SPEC}".split()
    settings = command_line.parse([*more, "--run-dir", str(tmp_path / "run")], None)
    env, network, folder, *_ = command_line.prepare(settings)
    weights = jax.tree.map(lambda x: x[None], initial_weights(env, network))
    checkpoint.save(folder / run_folder.CHECKPOINTS, 0, {"weights": weights})
    own = f"--from {folder} --images 300 --envs 2 --steps 1 --encoder mlp --quiet"
    options, world = parse([*own.split(), "--run-dir", str(tmp_path / "pretrained")])
    assert world.env == "tests.probes:SHOWN" and world.encoder == "mlp"
    pretrain(options, world)
    # An untrained policy's actions are not uniform.
    actions = np.load(tmp_path / "pretrained" / "frames" / "actions.npy")
    assert abs(actions.std() - 1 / np.sqrt(3)) > 0.02
    with pytest.raises(ValueError, match="--env is gap_ant, but .* leave --env out"):
        parse([*own.split(), "--env", "gap_ant"])


def test_options_of_the_world_reach_it(tmp_path):
    arguments = ["--env", "walls_ant", "--vision.height", "24", "--frames", "2", "--features", "7"]
    _, world = parse([*arguments, "--encoder", "vit"])
    assert (world.vision.height, world.frames, world.features) == (24, 2, 7)
    assert world.encoder == "vit"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("--env tests.probes:SHOWN --steps 0", "steps is 0"),
        ("--env tests.probes:SHOWN --objective contrastive --batch-size 1", "batch_size is 1"),
        ("--env tests.probes:SHOWN --encoder flatten", "'flatten' has no parameters to train"),
        ("--env tests.probes:SHOWN --encoder natur_cnn", "did you mean 'nature_cnn'"),
        ("--env tests.probes:SHOWN --encoder mlp --leaf smell", "--leaf is 'smell'; .*vision"),
        ("--env tests.probes:SHOWN --encoder truth=mlp", "'vision' .* has no encoder"),
        ("--env nowhere", "nowhere"),
        ("--steps 3", "name an environment or a run"),
        ("--from nowhere", "there is no run folder nowhere"),
        ("--resume nowhere", "no run folder"),
    ],
)
def test_what_is_wrong_is_told_before_a_folder_is_made(tmp_path, more, why):
    with pytest.raises(ValueError, match=why):
        pretrain(*parse([*more.split(), "--run-dir", str(tmp_path / "run")]))
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_settings(finished, tmp_path, monkeypatch, capsys):
    folder, _ = finished
    for more in ("--batch-size 3", "--env tests.probes:SHOWN --seed 4", "--objective predict"):
        with pytest.raises(ValueError, match="is changed"):
            parse(["--resume", str(folder), *more.split()])
    plain = run_folder.create(tmp_path / "other", {"env": "gap_ant"})
    monkeypatch.setattr(sys, "argv", ["pretrain_encoder.py", "--resume", str(plain)])
    with pytest.raises(SystemExit, match="error: .* no run of pretrain_encoder.py"):
        pretrain_encoder.main()
