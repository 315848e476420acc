"""Kill, stop and starve runs, and compare what is left with an unbroken run.

Processes are killed, stopped and starved of disk; checkpoints are torn. Each case has to end in the
same bits as an unbroken run, or in a message and an untouched checkpoint. `FAULT_KILLS` sets how
many times each kind of run is killed (docs/faults.md says how often it has been).
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vnl_ppo import checkpoint, run_folder

_ROOT = Path(__file__).parents[2]
_SHORT = """
    --num-timesteps 20000 --num-envs 16 --batch-size 16 --num-minibatches 4 --num-evals 6
    --num-eval-envs 4 --episode-length 100 --video-seconds 0 --checkpoints.minutes 0.02
""".split()  # noqa: SIM905
_SEEING = ["--vision.height", "36", "--vision.width", "36"]
# MJX is slow on a CPU: fewer steps, and fewer iterations of its solver.
_MJX = """
    --physics mjx --num-timesteps 3000 --num-envs 8 --batch-size 8 --num-minibatches 2
    --simulation.iterations 2
""".split()  # noqa: SIM905
_KINDS = {
    "blind": ["--encoder", "none", "--physics", "mujoco"],
    "seeing": [*_SEEING, "--physics", "mujoco"],
    "blind-mjx": ["--encoder", "none", *_MJX],
    "seeing-mjx": [*_SEEING, *_MJX],
}
KILLS = int(os.environ.get("FAULT_KILLS", "4"))

pytestmark = pytest.mark.slow


def start(*options):
    command = [sys.executable, str(_ROOT / "experiments" / "gap_ant_vision.py"), *map(str, options)]
    # A group of its own, so that nothing which the program started survives it.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )


def finish(*options, status=0):
    process = start(*options)
    output, _ = process.communicate()
    assert process.returncode == status, output
    assert "Traceback" not in output
    return output


def assert_same_end(found, expected):
    """The last checkpoints of two runs hold the same bits."""
    ends = [
        checkpoint.read_last(f / run_folder.CHECKPOINTS, pytest.fail) for f in (found, expected)
    ]
    (last, leaves), (step, wanted) = ends
    assert last == step
    assert leaves.keys() == wanted.keys()
    assert any("params" in name for name in wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(leaves[name], value, err_msg=name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder of an unbroken run of a kind, and how long it took once all was compiled."""
    done = {}

    def of(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp("unbroken")
            finish(*_SHORT, *_KINDS[kind], "--run-dir", folder / "first")
            began = time.monotonic()
            finish(*_SHORT, *_KINDS[kind], "--run-dir", folder / "second")
            assert_same_end(folder / "second", folder / "first")
            done[kind] = folder / "second", time.monotonic() - began
        return done[kind]

    return of


@pytest.mark.parametrize("kind", _KINDS)
def test_a_killed_run_ends_as_an_unbroken_one(kind, unbroken, tmp_path):
    expected, duration = unbroken(kind)
    # Drawn from the system: another moment each time the test runs. A failure prints them.
    moments = [random.SystemRandom().uniform(0.1, 0.9) * duration for _ in range(KILLS)]
    broken, attempt, killed = None, 0, 0
    for moment in [*moments, None]:
        if broken is None:
            broken = tmp_path / f"broken-{attempt}"
        resumable = (broken / run_folder.CONFIG).is_file()
        how = ["--resume"] if resumable else [*_SHORT, *_KINDS[kind], "--run-dir"]
        process = start(*how, broken)
        try:
            output, _ = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
            continue
        # It came to its end: the next one begins anew.
        assert process.returncode == 0, (moments, output)
        assert_same_end(broken, expected)
        if moment is not None:
            broken, attempt = None, attempt + 1
    print(f"{kind}: {killed} kills in {attempt + 1} runs, each bit-exact at its end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_how_to_go_on_and_does(number, unbroken, tmp_path):
    expected, duration = unbroken("blind")
    process = start(*_SHORT, *_KINDS["blind"], "--run-dir", tmp_path / "run")
    # In the middle of training: it says when that begins.
    for line in process.stdout:
        if line.startswith("compiling the training step") and line.endswith("s\n"):
            break
    process.send_signal(number)
    output, _ = process.communicate(timeout=duration + 60)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert f"{number.name}: stopping after this iteration" in output
    assert f"--resume {tmp_path / 'run'}" in output.splitlines()[-1]
    finish("--resume", tmp_path / "run")
    assert_same_end(tmp_path / "run", expected)


@pytest.mark.parametrize("harm", ["cut", "empty", "lost", "flipped"])
def test_a_torn_checkpoint_is_named_and_the_run_ends_the_same(harm, unbroken, tmp_path):
    expected, _ = unbroken("blind")
    broken = shutil.copytree(expected, tmp_path / "run")
    steps = checkpoint.steps(broken / run_folder.CHECKPOINTS)
    torn = broken / run_folder.CHECKPOINTS / str(steps[-1])
    largest = max((p for p in torn.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = largest.read_bytes()
    middle = len(content) // 2
    changed = {
        "cut": content[:middle],
        "empty": b"",
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }
    largest.unlink()
    if harm != "lost":
        largest.write_bytes(changed[harm])
    output = finish("--resume", broken)
    assert f"warning: checkpoint {torn}" in output
    assert f"resuming {broken} at step {steps[-2]:,}" in output
    assert_same_end(broken, expected)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only the administrator may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_the_last_checkpoint_is_whole(small_disk, unbroken):
    folder = small_disk / "run"
    keep_all = ["--checkpoints.keep-last", "0"]
    output = finish(*_SHORT, *_KINDS["blind"], *keep_all, "--run-dir", folder, status=1)
    assert "error: " in output and "to go on from" in output
    assert f"--resume {folder}" in output.splitlines()[-1]
    kept = checkpoint.read_last(folder / run_folder.CHECKPOINTS, pytest.fail)
    assert kept is not None
    # With room again, it goes on.
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    finish("--resume", folder)
    assert_same_end(folder, unbroken("blind")[0])


def test_a_read_only_folder_is_told(small_disk, unbroken):
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    folder = shutil.copytree(unbroken("blind")[0], small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "Read-only" in finish("--resume", folder, status=1)
    assert "Read-only" in finish(*_KINDS["blind"], "--run-dir", small_disk / "new", status=1)


def test_a_run_whose_checkpoints_are_deleted_makes_new_ones(unbroken, tmp_path):
    expected, _ = unbroken("blind")
    process = start(*_SHORT, *_KINDS["blind"], "--run-dir", tmp_path / "run")
    for line in process.stdout:
        if line.startswith("compiling the training step") and line.endswith("s\n"):
            break
    # At once, as another hand would: it might be writing just now.
    (tmp_path / "run" / run_folder.CHECKPOINTS).rename(tmp_path / "gone")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert_same_end(tmp_path / "run", expected)
