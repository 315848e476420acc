"""docs/your_own_world.md is run as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "your_own_world.md").read_text()
FILES = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
    for line in block.splitlines()
]
LOADING = re.search(r"^```python\n(import vnl_ppo\n.*?)^```$", PAGE, re.M | re.S)
STEPS = """
import sys
import jax, jax.numpy as jnp, mujoco, numpy as np
import envs
for name in sys.argv[1:]:
    env = envs.make(name)
    state = jax.jit(env.reset)(jax.random.key(0))
    spec = {k: (x.shape, x.dtype) for k, x in env.observation_spec.items()}
    assert {k: (x.shape, x.dtype) for k, x in state.obs.items()} == spec
    step = jax.jit(env.step)
    for i in range(20):
        state = step(state, jnp.sin(jnp.arange(env.action_size) + i))
    assert np.isfinite(state.reward)
    if hasattr(env, "whole"):
        assert state.obs["vision"].std() > 10, "it sees nothing"
        assert env.whole(state.data).nq == len(env.joints(state.data)[0])
    print(name, "is fine")
"""


@pytest.fixture
def folder(tmp_path):
    """A user's own folder: the files of the page, and the experiments of the repository."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    return tmp_path


def run(folder, *command):
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_worlds_of_the_page_are_made_and_step(folder):
    assert set(FILES) == {
        "beetle.xml", "my_lab.py", "my_corridor.py", "my_maze.py", "my_point.py"
    }  # fmt: skip
    (folder / "steps.py").write_text(STEPS)
    names = ["my_lab:WORLD", "my_corridor:GAPS", "my_maze:WORLD", "my_point:Point"]
    assert run(folder, sys.executable, "steps.py", *names).count("is fine") == 4


@pytest.mark.slow
def test_the_commands_of_the_page_run(folder):
    assert len(COMMANDS) == 7
    python = {"python": sys.executable}
    for command in COMMANDS:
        run(folder, *(python.get(word, word) for word in command.split()))
    assert list((folder / "runs" / "beetle" / "videos").glob("*random*.mp4"))
    assert LOADING is not None
    run(folder, sys.executable, "-c", LOADING[1] + "print(policy.step)")
