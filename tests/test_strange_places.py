"""The main job, in a short form, in strange places: it works, or says in a sentence why not.

`python -m pytest -m slow tests/test_strange_places.py`. Where a second interpreter has the packages
installed, name it in `OTHER_PYTHON` (a path; several separated by `:`).
"""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from vnl_ppo import checkpoint, run_folder

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "gap_ant_vision.py"
SHORT = """
    --num-timesteps 64 --num-envs 4 --batch-size 4 --num-minibatches 2 --num-updates-per-batch 1
    --unroll-length 8 --num-evals 2 --num-eval-envs 2 --episode-length 20 --vision.height 36
    --vision.width 36 --features 4 --video-seconds 0.5
""".split()  # noqa: SIM905
LAST = 64
NOT_INHERITED = ("JAX_", "XLA_", "MUJOCO_", "PYTHON", "LC_", "TMP")

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Place:
    """Surroundings of a run."""

    env: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Environment variables; None for one that is not set. `{tmp}` is a folder of the test's."""
    shell: str = "{run}"
    """Command of bash, in which `{run}` is the run's; `{quoted}` is the same as one word."""
    folder: str = "run"
    """The run's folder, below `{tmp}` if it is relative."""
    cwd: str = "{tmp}"
    """Working directory."""
    says: str = ""
    """Text that the run has to print; empty for none."""
    refused: bool = False
    """Whether the run may not begin."""
    silent: bool = False
    """Whether what it says cannot be seen."""


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
PLACES = {
    "ordinary": Place(),
    # Paths.
    "spaces": Place(folder="my runs/the first one"),
    "brackets": Place(folder="[a]{b}*?/lr=[0.1]"),
    "backslash_and_quotes": Place(folder="a\\b'c\"d$HOME"),
    "unicode": Place(folder="läufe/走る蟻🐜"),
    "colon_and_at": Place(folder="a:b/me@lab"),
    "percent_and_hash": Place(folder="50%#1&2"),
    "tilde": Place(folder="~/mine", env={"HOME": "{tmp}"}),
    "newline": Place(folder="two\nlines"),
    "leading_dash": Place(folder="-run"),
    "link": Place(folder="link/run", shell="mkdir there; ln -s there link; {run}"),
    "dangling_link": Place(
        folder="link", shell="ln -s nowhere link; {run}", says="link", refused=True
    ),
    "long_name": Place(folder="x" * 300, says="File name too long", refused=True),
    "file_in_place": Place(folder="f", shell="touch f; {run}", says="not empty", refused=True),
    "below_a_file": Place(folder="f/run", shell="touch f; {run}", says="f", refused=True),
    "not_writable": Place(folder="/proc/run", says="/proc", refused=True),
    "full_device": Place(folder="/dev/full", says="/dev/full", refused=True),
    # Home and caches.
    "no_home": Place(env={"HOME": None}),
    "home_is_a_file": Place(env={"HOME": "{tmp}/f"}, shell="touch f; {run}", says="not kept"),
    "home_cannot_be": Place(env={"HOME": "/proc/nowhere"}, says="not kept"),
    "relative_home": Place(env={"HOME": "."}),
    "cache_is_a_file": Place(
        env={"JAX_COMPILATION_CACHE_DIR": "{tmp}/f"}, shell="touch f; {run}", says="not kept"
    ),
    "cache_of_others": Place(
        env={"JAX_COMPILATION_CACHE_DIR": "{tmp}/c"},
        shell="mkdir -m 777 c; {run}",
        says="others may write",
    ),
    "cache_is_full": Place(
        env={"JAX_COMPILATION_CACHE_DIR": "{tmp}/c"},
        shell="mkdir c && mount -t tmpfs -o size=64k,mode=700 tmpfs c || exit 77; {run}; "
        "status=$?; umount c; exit $status",
    ),
    "no_cache": Place(env={"JAX_ENABLE_COMPILATION_CACHE": "0"}),
    "no_tmp": Place(env={"TMPDIR": "/nowhere"}),
    # Locale and terminal.
    "locale_c": Place(env={"LC_ALL": "C", "LANG": None}),
    "ascii": Place(env=ASCII),
    "letters_in_ascii": Place(env=ASCII, folder="läufe", says="LC_ALL=C.UTF-8", refused=True),
    "locale_unknown": Place(env={"LC_ALL": "xx_YY.nonsense"}),
    "dumb_terminal": Place(env={"TERM": "dumb"}),
    "narrow_terminal": Place(
        env={"COLUMNS": "12", "TERM": "xterm"}, shell="script -qec {quoted} /dev/null"
    ),
    "terminal": Place(env={"TERM": "xterm"}, shell="script -qec {quoted} /dev/null"),
    "no_standard_input": Place(shell="{run} <&-"),
    "no_standard_output": Place(shell="{run} >&-", silent=True),
    "no_standard_error": Place(shell="{run} 2>&-"),
    "closed_pipe": Place(shell="set -o pipefail; {run} 2>&1 | head -n 1", silent=True),
    "full_output": Place(shell="{run} >/dev/full", says="the run goes on"),
    # Working directories.
    "other_folder": Place(cwd="/", folder="{tmp}/run"),
    "folder_with_names_of_ours": Place(
        shell="mkdir envs encoders; touch envs/__init__.py jax.py numpy.py random.py; {run}"
    ),
    "removed_folder": Place(
        shell="mkdir d; cd d; rmdir ../d; {run}", says="working directory", refused=True
    ),
    # Variables that people set.
    "gl_unknown": Place(env={"MUJOCO_GL": "bogus"}),
    "gl_osmesa": Place(env={"MUJOCO_GL": "osmesa"}),
    "gl_egl": Place(env={"MUJOCO_GL": "egl"}),
    "gl_disabled": Place(env={"MUJOCO_GL": "disabled", "DISPLAY": ":99"}),
    "x64": Place(env={"JAX_ENABLE_X64": "1"}, says="JAX_ENABLE_X64", refused=True),
    "debug_nans": Place(env={"JAX_DEBUG_NANS": "1"}, says="JAX_DEBUG_NANS"),
    "no_jit": Place(env={"JAX_DISABLE_JIT": "1"}, says="JAX_DISABLE_JIT", refused=True),
    "no_such_device": Place(env={"JAX_PLATFORMS": "cuda"}, says="JAX_PLATFORMS", refused=True),
    "unknown_device": Place(env={"JAX_PLATFORMS": "abacus"}, says="JAX_PLATFORMS", refused=True),
    "strict_types": Place(env={"JAX_NUMPY_DTYPE_PROMOTION": "strict"}, says="is turned off"),
    "strict_ranks": Place(env={"JAX_NUMPY_RANK_PROMOTION": "raise"}, says="is turned off"),
    "other_random_numbers": Place(env={"JAX_DEFAULT_PRNG_IMPL": "rbg"}),
    "low_precision": Place(env={"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"}),
    "checked_tracers": Place(env={"JAX_CHECK_TRACER_LEAKS": "1"}, says="is turned off"),
    "no_transfers": Place(env={"JAX_TRANSFER_GUARD": "disallow"}, says="is turned off"),
    "talkative": Place(env={"JAX_LOG_COMPILES": "1", "JAX_TRACEBACK_FILTERING": "off"}),
    "four_devices": Place(env={"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}),
    "unknown_flag_of_xla": Place(
        env={"XLA_FLAGS": "--xla_bogus=1"}, says="--xla_bogus", refused=True
    ),
    "no_gpu_memory": Place(env={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.01"}),
    "optimised_python": Place(env={"PYTHONOPTIMIZE": "1"}),
    "no_docstrings": Place(env={"PYTHONOPTIMIZE": "2"}, says="PYTHONOPTIMIZE", refused=True),
    "python_in_development": Place(env={"PYTHONDEVMODE": "1", "PYTHONTRACEMALLOC": "1"}),
    "python_safe_path": Place(env={"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}),
    "python_without_files": Place(env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}),
    # Limits.
    "one_core": Place(shell="taskset -c 0 {run}"),
    "one_thread": Place(env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
    "few_open_files": Place(shell="ulimit -n 128; {run}"),
    "strict_mask": Place(shell="umask 077; {run}"),
    "no_mask": Place(shell="umask 0; {run}"),
    "no_path": Place(env={"PATH": ""}),
    "strange_time_zone": Place(env={"TZ": "Mars/Olympus"}),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_main_job_works_or_says_why_not(name, tmp_path):
    check(PLACES[name], tmp_path, sys.executable)


@pytest.mark.parametrize("python", [x for x in os.environ.get("OTHER_PYTHON", "").split(":") if x])
def test_another_python(python, tmp_path):
    check(Place(env={"PYTHONPATH": str(ROOT)}), tmp_path, python)


def check(place, tmp_path, python):
    done, folder = start(place, tmp_path, python)
    if done.returncode == 77:
        pytest.skip("only the administrator may mount a small disk")
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert place.says in said, said
    if place.refused:
        assert done.returncode != 0, said
        # XLA ends the process itself.
        assert "error: " in said or "Unknown flag in XLA_FLAGS" in said, said
        assert not (os.path.isdir(folder) and os.listdir(folder))
        return
    assert done.returncode == 0 or place.silent, said
    assert checkpoint.steps(folder / run_folder.CHECKPOINTS)[-1] == LAST, said
    assert place.silent or (folder / "videos" / f"{LAST}.mp4").stat().st_size > 0, said


def start(place, tmp_path, python):
    within = lambda text: text.replace("{tmp}", str(tmp_path))
    folder = within(place.folder)
    command = shlex.join([python, str(SCRIPT), *SHORT, f"--run-dir={folder}"])
    shell = within(place.shell).replace("{quoted}", shlex.quote(command)).replace("{run}", command)
    env = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
    for key, value in place.env.items():
        env.pop(key, None)
        if value is not None:
            env[key] = within(value)
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "-c", shell],
        env=env,
        cwd=within(place.cwd),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=580,
    )
    if folder.startswith("~/"):
        folder = folder.replace("~", str(tmp_path), 1)
    return done, tmp_path / folder
