"""The notebooks in docs/ run as they stand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["load_a_run", "representations"])
def test_every_cell_of_the_notebook_runs(tmp_path, name):
    notebook = json.loads((ROOT / "docs" / f"{name}.ipynb").read_text())
    cells = ["".join(x["source"]) for x in notebook["cells"] if x["cell_type"] == "code"]
    assert cells
    program = tmp_path / "cells.py"
    program.write_text("\n\n".join(cells))
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # A notebook leaves no run behind.
    assert [x.name for x in tmp_path.iterdir() if x.is_dir()] == []
