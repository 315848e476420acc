"""Run the sides of a comparison in separate processes, peers in their own virtual environments."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).parent
VENVS = Path.home() / ".cache" / "vnl_ppo" / "peers"


def python_of(peer: str, venvs: Path = VENVS) -> str:
    """The interpreter of a peer's environment, which is made if it is not there.

    Args:
        peer: such as "brax", whose versions are in NAME.txt here; or "ours", which is this one.
        venvs: the folder that holds the environments by name.

    Raises:
        SystemExit: pip failed.
    """
    if peer == "ours":
        return sys.executable
    pins = PEERS / f"{peer}.txt"
    folder = venvs / peer
    python = str(folder / "bin" / "python")
    # Written last: what was broken off on the way, or has other versions, is installed again.
    whole = folder / "whole"
    if not whole.exists() or whole.read_text() != pins.read_text():
        print(f"making the virtual environment of {peer} in {folder}", file=sys.stderr, flush=True)
        whole.unlink(missing_ok=True)
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "-q", "--no-deps", "-r", str(pins)]
        if subprocess.run(pip, stdout=sys.stderr).returncode:
            raise SystemExit(
                f"error: pip could not install {pins.name} into {folder}, see above; it is tried "
                f"again next time"
            )
        whole.write_text(pins.read_text())
    return python


def start(python: str, script: str, *arguments: object) -> subprocess.Popen[str]:
    """Begin a script of this folder; dictionaries go to it as JSON."""
    words = [json.dumps(x) if isinstance(x, dict) else str(x) for x in arguments]
    # All with as many threads: on few cores, XLA's pool needs more of them (see vnl_ppo).
    given = os.environ | {"PYTHONPATH": str(PEERS.parents[1]), "PJRT_NPROC": "8"}
    command = [python, "-W", "ignore", str(PEERS / script), *words]
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True)


def finish(run: subprocess.Popen[str]) -> str:
    """Wait for a process to end, and return what it printed.

    Raises:
        SystemExit: it failed.
    """
    printed, _ = run.communicate()
    if run.returncode:
        raise SystemExit(f"error: {run.args} failed with {run.returncode}; see above")
    return printed
