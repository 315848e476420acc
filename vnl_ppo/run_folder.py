"""Create and read the folder of a run: settings, TensorBoard events, checkpoints, videos.

config.json  events.out.tfevents.*  checkpoints/<step>/  videos/<step>.mp4
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows.
    fcntl = None  # type: ignore[assignment]

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
VIDEOS = "videos"
_OURS = ("vnl_ppo", "envs", "encoders", "experiments")
_told: set[str] = set()
_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "distrax", "orbax-checkpoint", "numpy", "mujoco",
    "mujoco-mjx", "dm_control",
)  # fmt: skip


def create(folder: Path, settings: Mapping[str, Any], builder: str = "") -> Path:
    """Make the folder of a new run and write its settings.

    Args:
        folder: the run's folder.
        settings: everything that the run depends on, as data that JSON can hold.
        builder: `package.module:function` that builds environment and network from `settings`, see
            `vnl_ppo.loading.load`; empty for none.

    Raises:
        FileExistsError: the folder exists and is not empty; nothing is changed.
    """
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Written under another name first: a run that is killed here leaves no half of a config.
    part = folder / (CONFIG + ".part")
    part.write_text(describe(settings, builder))
    os.replace(part, folder / CONFIG)
    return folder


def describe(settings: Mapping[str, Any], builder: str = "") -> str:
    """Return the text of a config.json: settings, builder, versions of packages, git commit."""
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _PACKAGES}
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["warp-lang"] = metadata.version("warp-lang")
    content = {"settings": settings, "builder": builder, "versions": versions, "git": git_commit()}
    return json.dumps(content, indent=2) + "\n"


def git_commit() -> str | None:
    """Return the commit of this code, with `-dirty` if files were changed; None without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    # An installed copy may lie in another repository.
    ours = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
    commit = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        for command in (ours, commit):
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def check_free(folder: Path) -> None:
    """Raise a FileExistsError unless `folder` is missing or empty, as a new run's has to be.

    Raises:
        ValueError: its name has letters that Python cannot read in this locale.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"run folder {str(folder)!r} has letters that this locale does not know, and no "
            f"checkpoint could be written there; name another, or set LC_ALL=C.UTF-8"
        ) from error
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"run folder {folder} exists and is not empty; name another with --run-dir, or resume "
            f"that run with --resume {folder}"
        )


@contextlib.contextmanager
def alone_in(folder: Path | None) -> Iterator[None]:
    """Keep other processes from training in a run's folder inside this context.

    The operating system ends the hold with the process, however that ends. Where a file system
    knows no locks, nothing is kept.

    Args:
        folder: the run's folder; None for nothing to hold.

    Raises:
        ValueError: another process trains there.
    """
    with contextlib.ExitStack() as held:
        if fcntl and folder:
            # Over NFS an exclusive lock takes a file that is open for writing.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                config = held.enter_context((folder / CONFIG).open("r+"))
                try:
                    fcntl.flock(config, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise ValueError(
                        f"another process is training in {folder}; wait until it ends, or stop it "
                        f"first"
                    ) from error
                except OSError:
                    pass
        yield


def make_unused(folder: Path) -> Path:
    """Make a folder that nobody else has, and return it: `folder`, or with -2, -3, ... at its end.

    Of two runs that start in the same second each gets its own.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    made, number = folder, 1
    while True:
        try:
            made.mkdir()
        except FileExistsError:
            number += 1
            made = folder.with_name(f"{folder.name}-{number}")
        else:
            return made


def agent_folder(seed: int) -> str:
    """Return the name of one agent's folder, which lies in the folder of a run of several seeds."""
    return f"seed_{seed}"


def split_agent(path: Path) -> tuple[Path, int | None]:
    """Split RUN/seed_3 into the run's folder and the seed, which is None for any other path."""
    name, _, seed = path.name.partition("_")
    if name == "seed" and seed.isdigit() and (path.parent / CONFIG).is_file():
        return path.parent, int(seed)
    return path, None


def split_name(name: str) -> tuple[Path, str]:
    """Return the folder and the step of RUN@STEP; the step is empty if none is named."""
    path = Path(name).expanduser()
    own, _, step = path.name.rpartition("@")
    return (path.with_name(own), step) if own and step and not path.is_dir() else (path, "")


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings that `create` wrote.

    Args:
        path: the run's folder, or its config.json or a copy of that.

    Raises:
        ValueError: `path` is none of these, or it holds no settings.
    """
    return _read(path)["settings"]


def read_builder(path: Path) -> str:
    """Read the `package.module:function` that `create` wrote; see `read_settings`."""
    return _read(path).get("builder", "")


def tell_of_code(names: Iterable[str], source: str | Path) -> None:
    """Say on stderr which code is about to be imported because a run folder names it.

    Whoever wrote the folder has chosen that code, and importing it runs it. This project's own is
    not mentioned, and nothing is mentioned twice.

    Args:
        names: each `package.module:object`.
        source: the folder or file that names them.
    """
    for name in names:
        if name.split(".")[0].split(":")[0] not in _OURS and name not in _told:
            _told.add(name)
            print(f"note: {source} names code that is imported now: {name}", file=sys.stderr)


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise ValueError(f"{path} is not a run folder: it has no {CONFIG}")
        path = path / CONFIG
    if not path.is_file():
        raise ValueError(f"there is no run folder and no {CONFIG} at {path}")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not hold the settings of a run: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise ValueError(
            f'{path} does not hold the settings of a run: it has to be {{"settings": {{...}}}}, '
            f"as --dump-config prints it"
        )
    return content
