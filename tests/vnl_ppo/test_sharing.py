"""One device or four, one process or two: the same training."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.sharing import CASES, CONFIG, ITERATIONS
from vnl_ppo import checkpoint, run_folder

ROOT = Path(__file__).parents[2]
EPS = float(np.finfo(np.float32).eps)
STEPS = CONFIG.steps_per_iteration


def tolerance(config, iterations):
    """Return what the order of sums may change in a parameter of about 1.

    Each update adds up as many terms as a minibatch has transitions, each rounded to EPS of the
    sum's size; the errors of updates add up at worst.
    """
    updates = iterations * config.num_updates_per_batch * config.num_minibatches
    return EPS * config.batch_size * config.unroll_length * updates


def start(*arguments, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    # They compile for longer than they run.
    flags += " --xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sharing", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    out = tmp_path_factory.mktemp("devices") / "out.npz"
    process = start("devices", out, devices=4)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    with np.load(out) as found:
        return {name: found[name] for name in found.files}


def part(found, prefix):
    return {k.removeprefix(prefix): x for k, x in found.items() if k.startswith(prefix)}


@pytest.mark.parametrize(
    "case, devices", [pytest.param("seeing", 4, marks=pytest.mark.slow), ("remembering", 2)]
)
def test_devices_change_nothing_but_rounding(on_devices, case, devices):
    config = CASES[case][2]
    one, many = (part(on_devices, f"{case}/{n}/") for n in (1, devices))
    assert one.keys() == many.keys()
    limit = tolerance(config, ITERATIONS)
    # What learning rates near this could have moved: the test has to be able to fail.
    assert limit < 0.1 * ITERATIONS * config.num_updates_per_batch * config.learning_rate
    for name, x in one.items():
        if "predictor/" in name:
            # An error and an R^2 of each device's own part; parameters do not depend on them.
            continue
        if np.issubdtype(x.dtype, np.floating):
            scale = max(1.0, np.abs(x).max())
            np.testing.assert_allclose(many[name], x, atol=limit * scale, err_msg=name)
        else:
            # Keys, lengths of episodes, pixels, how many updates Adam counted.
            np.testing.assert_array_equal(many[name], x, err_msg=name)


def test_a_checkpoint_goes_on_with_other_devices(on_devices):
    unbroken, four, one = (
        part(on_devices, prefix) for prefix in ("unbroken/", "resumed/4/", "resumed/1/")
    )
    limit = tolerance(CONFIG, 1)
    for name, x in unbroken.items():
        np.testing.assert_array_equal(four[name], x, err_msg=name)
        np.testing.assert_allclose(one[name], x, atol=limit * max(1, np.abs(x).max()))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_processes(folder, steps, what="train", *more):
    address = f"127.0.0.1:{free_port()}"
    return [start(what, folder, steps, *more, address, 2, i) for i in range(2)]


def end_of(folder):
    """The last checkpoint's step and arrays."""
    return checkpoint.read_last(folder / run_folder.CHECKPOINTS, pytest.fail)


def wait_for_training(process):
    for line in process.stdout:
        if re.match(r"compiling the training step: .* s$", line):
            return
    pytest.fail("it ended before it trained")


def alone(folder, steps, what="train", *more):
    process = start(what, folder, steps, *more)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def assert_close(found, expected, iterations):
    (step, leaves), (last, wanted) = found, expected
    assert step == last and leaves.keys() == wanted.keys()
    for name, x in wanted.items():
        limit = tolerance(CONFIG, iterations) * max(1, np.abs(x).max())
        np.testing.assert_allclose(leaves[name], x, atol=limit, err_msg=name)


def test_two_processes_train_as_one(tmp_path):
    processes = two_processes(tmp_path / "two", 4 * STEPS)
    outputs = [p.communicate()[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert "evaluation" in outputs[0]
    assert "evaluation" not in outputs[1], "the second process has nothing to tell"
    alone(tmp_path / "one", 4 * STEPS)
    assert_close(end_of(tmp_path / "two"), end_of(tmp_path / "one"), 4)


@pytest.mark.slow
def test_two_processes_begin_with_what_was_learned_elsewhere(tmp_path):
    source = tmp_path / "source"
    alone(source, 2 * STEPS)
    processes = two_processes(tmp_path / "two", 2 * STEPS, "borrow", source)
    outputs = [p.communicate()[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    first = checkpoint.read(tmp_path / "two" / run_folder.CHECKPOINTS, 0)
    _, learned = end_of(source)
    weights = [name for name in learned if name.startswith("weights.")]
    for name in weights:
        np.testing.assert_array_equal(first[name], learned[name], err_msg=name)
    assert any((first[name] != end_of(tmp_path / "two")[1][name]).any() for name in weights)
    alone(tmp_path / "one", 2 * STEPS, "borrow", source)
    assert_close(end_of(tmp_path / "two"), end_of(tmp_path / "one"), 2)


LONG = 40_000 * STEPS


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_within_a_minute(victim, tmp_path):
    folder = tmp_path / "run"
    processes = two_processes(folder, LONG)
    wait_for_training(processes[0])
    processes[victim].kill()
    killed = time.monotonic()
    output, _ = processes[1 - victim].communicate(timeout=60)
    print(f"ended {time.monotonic() - killed:.1f} s after")
    assert processes[1 - victim].returncode not in (0, None)
    assert "lost another" in output or "another task died" in output
    # Its last checkpoint is that of the evaluation before training; one process takes it up.
    assert end_of(folder)[0] == 0
    process = start("train", folder, LONG)
    wait_for_training(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 143, output


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_process_stops_all(asked, tmp_path):
    folder = tmp_path / "run"
    processes = two_processes(folder, LONG)
    wait_for_training(processes[0])
    processes[asked].send_signal(signal.SIGTERM)
    outputs = [p.communicate(timeout=60)[0] for p in processes]
    assert [p.returncode for p in processes] == [143, 143], outputs
    steps = {re.search(r"stopped at step ([\d,]+)", o).group(1) for o in outputs}
    assert {int(s.replace(",", "")) for s in steps} == {end_of(folder)[0]}


@pytest.mark.slow
def test_a_hook_of_one_process_stops_all(tmp_path):
    processes = two_processes(tmp_path / "run", LONG, "stop")
    outputs = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert f"stopped early at step {2 * STEPS}: by the hook of another process" in outputs[0]
    assert end_of(tmp_path / "run")[0] == 2 * STEPS


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["127.0.0.1:1", 2, 2], "process_id is 2 and distributed.num_processes 2"),
        (["127.0.0.1", 2, 1], "has to be HOST:PORT"),
        (["127.0.0.1:99999", 2, 1], "a port from 1 to 65535"),
        (["..:1", 2, 1], "'..:1', which cannot be resolved"),
        (["127.0.0.1:1", -5, None], "num_processes is -5; it has to be at least 1"),
        (["127.0.0.1:1", None, -1], "process_id is -1"),
        # A timer in another thread would die of it, with a traceback.
        (["127.0.0.1:1", 2, 1, 10**12], "timeout is 1000000000000 s"),
    ],
)
def test_a_wrong_setting_is_named(arguments, message):
    from vnl_ppo.distributed import DistributedConfig, join

    with pytest.raises(ValueError, match=message):
        join(DistributedConfig(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("process_id", [0, 1])
def test_missing_processes_are_told_of_in_time(process_id):
    code = (
        "from vnl_ppo.distributed import *; "
        f"join(DistributedConfig('127.0.0.1:{free_port()}', 2, {process_id}, 3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"process {process_id} waited 3 s at 127.0.0.1" in done.stderr
