"""A run goes on when nobody reads what it prints."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from experiments.output import lasting_output
with lasting_output():
    for i in range(200_000):
        print(i, flush=i % 100 == 0)
    open("done", "w").write("yes")
"""


@pytest.mark.parametrize("reader", ["head -n 1 >&2", "cat > /dev/full"])
def test_a_program_goes_on_after_its_reader_is_gone(reader, tmp_path):
    command = f'set -o pipefail; "{sys.executable}" -c "$PROGRAM" | {reader}'
    env = os.environ | {"PROGRAM": PROGRAM, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (tmp_path / "done").read_text() == "yes"
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert "warning: the output ends here, the run goes on: Broken pipe" in done.stderr


def test_a_full_disk_does_not_end_a_program(tmp_path):
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=tmp_path,
            env=env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 0 and (tmp_path / "done").exists()
    assert done.stderr.splitlines() == [
        "warning: the output ends here, the run goes on: No space left on device"
    ]


def test_a_lost_terminal_does_not_end_a_program(tmp_path):
    ours, theirs = os.openpty()
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=env,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    assert os.read(ours, 1) == b"0"
    os.close(ours)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and (tmp_path / "done").exists()
    assert errors == "warning: the output ends here, the run goes on: Input/output error\n"
