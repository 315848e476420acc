"""Test that what is reported reaches all logs alike, and the terminal."""

import io
import sys
import time

import imageio.v2 as imageio
import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vnl_ppo.evaluation import Watched
from vnl_ppo.events import EventFile, flat
from vnl_ppo.reporting import Reporter
from vnl_ppo.wandb_log import WandbLog, check_installed

SETTINGS = {"ppo": {"seed": 3, "learning_rate": 1e-3}, "encoder": "mlp", "hidden": [1, 2]}


def watched(value=0.5):
    return Watched(
        action=np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 4, 2, 3),
        value=np.full((1, 4, 2), value, np.float32),
        alive=np.array([[[1, 1], [1, 1], [1, 0], [1, 0]]], bool),
        obs={
            "vision": np.arange(768, dtype=np.uint16).astype(np.uint8).reshape(1, 2, 2, 4, 4, 12),
            "depth": np.zeros((1, 2, 2, 4, 5, 4), np.uint8),
            "proprio": np.zeros((1, 2, 2, 27), np.float32),
        },
        seen=np.ones((1, 2, 2), bool),
        activations={"vision/Conv_0/dead": np.array([0.25], np.float32)},
    )


def report(folder, logs=(), terminal=False, quiet=False):
    folder.mkdir(exist_ok=True)
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200)
    with Reporter(folder, 100, 0, None, quiet, logs, console) as reporter:
        reporter.settings(SETTINGS)
        with reporter.activity("compiling"):
            pass
        reporter.evaluation(10, {"eval/episode_reward": 2.0}, watched())
        reporter.training(20, {"perf/env_steps_per_second": 5.0, "train/loss": 1.0}, 108_005.0)
        reporter.scalars(20, {"train/missing": float("nan")})
        reporter.warning("something")
    return text.getvalue()


def events(folder):
    every = {"histograms": 0, "images": 0, "scalars": 0}
    return EventAccumulator(str(folder), size_guidance=every).Reload()


def test_tensorboard_has_everything(tmp_path):
    report(tmp_path)
    found = events(tmp_path)
    tags = found.Tags()
    assert set(tags["scalars"]) == {
        "eval/episode_reward", "encoder/vision/Conv_0/dead", "perf/env_steps_per_second",
        "train/loss",
    }  # fmt: skip
    # 2 of 2, 2 of 2, 1 of 2, 1 of 2 episodes alive: 6 steps of 3 actions.
    (histogram,) = found.Histograms("eval/action")
    assert histogram.histogram_value.num == 18
    (image,) = found.Images("eval/vision")
    assert (image.width, image.height) == (8, 4)
    (depth,) = found.Images("eval/depth")
    assert (depth.width, depth.height) == (10, 4)
    # Of four stacked frames of three colours, the newest of both moments of the first episode.
    newest = watched().obs["vision"][0, :, 0, :, :, 9:]
    np.testing.assert_array_equal(
        imageio.imread(image.encoded_image_string), np.concatenate(newest, axis=1)
    )
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"learning_rate": 0.001' in text
    assert "_hparams_/session_start_info" in found.PluginTagToContent("hparams")


def test_numbers_that_are_none_do_not_spoil_a_histogram(tmp_path):
    log = EventFile(tmp_path)
    log.histogram(0, "x", np.array([np.nan, 1.0, np.inf, 2.0]))
    log.histogram(0, "nothing", np.array([np.nan]))
    log.close()
    found = events(tmp_path)
    assert found.Tags()["histograms"] == ["x"]
    assert found.Histograms("x")[0].histogram_value.num == 2


def test_a_film_moves_in_tensorboard(tmp_path):
    log = EventFile(tmp_path)
    frames = [np.full((8, 12, 3), value, np.uint8) for value in (0, 100, 200)]
    log.film(7, "eval/video", frames, fps=10)
    log.close()
    (image,) = events(tmp_path).Images("eval/video")
    assert (image.step, image.width, image.height) == (7, 12, 8)
    shown = imageio.mimread(image.encoded_image_string, format="gif")
    assert [int(np.asarray(x)[0, 0, 0]) for x in shown] == [0, 100, 200]


def test_events_after_the_step_to_go_on_from_are_withdrawn(tmp_path):
    report(tmp_path)
    log = EventFile(tmp_path, purge_step=15)
    log.scalars(30, {"train/loss": 3.0})
    log.close()
    found = events(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(30, 3.0)]
    assert [e.step for e in found.Scalars("eval/episode_reward")] == [10]


def test_what_was_flushed_is_on_the_disk(tmp_path):
    log = EventFile(tmp_path)
    log.scalars(1, {"x": 1.0})
    log.flush()
    # Not closed: the process might be killed here.
    assert [e.value for e in events(tmp_path).Scalars("x")] == [1.0]
    log.close()


def test_a_log_file_has_plain_lines_and_a_terminal_a_live_one(tmp_path):
    plain = report(tmp_path / "a")
    assert "\x1b" not in plain
    assert "compiling ...\n" in plain and "compiling: 0.0 s\n" in plain
    assert "10 steps  evaluation: episode_reward 2.00" in plain
    assert "20 of 100 steps  5 steps/s  30:00:05 left" in plain
    assert "warning: something" in plain
    live = report(tmp_path / "b", terminal=True)
    assert "\x1b" in live and "20/100 steps" in live
    quiet = report(tmp_path / "c", terminal=True, quiet=True)
    assert "20 of 100 steps  5 steps/s" in quiet and "20/100 steps" not in quiet


def test_settings_are_named_by_their_path():
    assert flat(SETTINGS) == {
        "ppo.seed": 3,
        "ppo.learning_rate": 1e-3,
        "encoder": "mlp",
        "hidden": [1, 2],
    }


def test_weights_and_biases_has_to_be_there_to_be_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_installed("")
    with pytest.raises(ValueError, match="wandb is 'lab', but .* not installed; install the extra"):
        check_installed("lab")


def records(path):
    """The records of a W&B file: 7 bytes of header, then LevelDB's log format."""
    content, place, whole = path.read_bytes(), 7, b""
    while place < len(content):
        block = place - place % 2**15 + 2**15
        if block - place < 7:
            place = block
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def test_weights_and_biases_offline_has_the_same(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "mine"
    folder.mkdir()
    report(folder, [WandbLog("lab", folder)])
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    tags = events(folder).Tags()
    wanted = {*tags["scalars"], *tags["histograms"], *tags["images"]}
    names, config, ids = set(), set(), set()
    # A process of its own writes the file, and may be late.
    end = time.monotonic() + 60
    while not wanted <= names and time.monotonic() < end:
        for content in records(path):
            record = Record()
            record.ParseFromString(content)
            names |= {item.key or item.nested_key[0] for item in record.history.item}
            ids |= {record.run.run_id} - {""}
            for change in (record.run.config, record.config):
                config |= {item.key or item.nested_key[0] for item in change.update}
        time.sleep(0.1)
    assert wanted <= names
    assert set(SETTINGS) <= config
    # The folder's name is that of many runs, such as seed_0.
    assert ids == {(folder / "wandb_id").read_text()} and len(min(ids)) == 32
