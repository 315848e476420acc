"""Signals end a run in order, or at once when they are repeated."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
    import hashlib, signal, threading, time

    # A shell lets programs in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from vnl_ppo.interruption import catch_signals

    told = threading.Event()

    def tell(text):
        print(text, flush=True)
        told.set()

    with catch_signals(tell) as asked:
        print("ready", flush=True)
        if {deaf}:
            # A call that lasts for minutes and that no signal breaks into, as a call to XLA is.
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        told.wait(30)
        print("number", asked.number, flush=True)
    print("outside", flush=True)
    time.sleep(90)
"""


def start(deaf):
    script = textwrap.dedent(SCRIPT.format(deaf=deaf))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_is_noted_and_later_ones_work_as_ever(number):
    process = start(deaf=False)
    process.send_signal(number)
    line = process.stdout.readline()
    assert signal.Signals(number).name in line and "a second signal stops at once" in line
    assert process.stdout.readline() == f"number {int(number)}\n"
    assert process.stdout.readline() == "outside\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    # Ctrl-C is Python's own again, and SIGTERM the system's.
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


def test_a_second_signal_ends_the_process_even_in_a_call_that_lasts():
    process = start(deaf=True)
    try:
        # It is in the call by then, or will be: either way the first signal must be heard.
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        process.kill()
