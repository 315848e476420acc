"""Train one run of several to its end, in a process of its own, however often it is broken off."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.command_line import parse
from experiments.settings import differing, settings_of, to_dict
from experiments.until import evaluations_of, parse_goal
from vnl_ppo import checkpoint, run_folder

SCRIPT = Path(__file__).with_name("train.py")
LENT = ("init_from", "encoder_from", "teacher")
"""Settings that name another run, RUN; a run's config.json has RUN@STEP, the step that it took."""


def is_finished(flags: Sequence[str], run: Path) -> bool:
    """Return whether the run that `flags` of `train.py` describe has been trained to its end, or to
    the goal of --until.

    Raises:
        ValueError: the folder `run` holds a run with other settings, or something else.
    """
    if not run.is_dir() or not any(run.iterdir()):
        return False
    own = settings_of(str(run))
    found, wanted = to_dict(own), to_dict(parse(flags, None))
    taken = {name: found[name] for name in LENT if found[name].startswith(f"{wanted[name]}@")}
    check_same(run, found, wanted | taken)
    if own.until:
        goal = parse_goal(own.until)
        if goal.reached(list(evaluations_of(run, goal.metric).values())):
            return True
    last = own.ppo.num_iterations * own.ppo.steps_per_iteration
    return last in checkpoint.steps(run / run_folder.CHECKPOINTS)


def check_same(run: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise a ValueError if the settings that are found in a run are not those wanted."""
    if other := differing(found, wanted):
        raise ValueError(
            f"{run} is a run with other settings ({', '.join(other)}); give another --output"
        )


def train_to_end(flags: Sequence[str], run: Path, title: str = "", log: Path | None = None) -> None:
    """Begin a run, or go on with one that was broken off; one at its end is left as it is.

    Args:
        flags: flags of `train.py` that describe the run, all but its folder.
        run: the run's folder.
        title: what the run is, to be printed.
        log: a file that the output is appended to; None to show it.

    Raises:
        ValueError: it failed, or there is a run with other settings in its place.
    """
    if is_finished(flags, run):
        return
    begun = (run / run_folder.CONFIG).is_file()
    arguments = ["--resume", str(run)] if begun else [*flags, "--run-dir", str(run)]
    arguments.append("--quiet")
    command = f"python experiments/train.py {shlex.join(arguments)}"
    print(f"{title}: {command}" if title else command, flush=True)
    whole = [sys.executable, str(SCRIPT), *arguments]
    if log is None:
        status = subprocess.run(whole, check=False).returncode
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            status = subprocess.run(whole, check=False, stdout=output, stderr=output).returncode
    if status:
        where = f"{log}: {last_line(log.read_text(errors='replace'))}" if log else "see above"
        raise ValueError(f"training {run} ended with status {status}; {where}")


def split_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after the first --, which begins flags of `train.py`."""
    arguments = list(arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def refuse_flags(flags: Sequence[str], reasons: Mapping[str, str]) -> None:
    """Raise a ValueError if `flags` of `train.py` have one that `reasons` names.

    Args:
        flags: flags and their values.
        reasons: why a flag may not be given, by flag or group of flags, without dashes in front.
    """
    for flag in flags:
        name = flag.removeprefix("--").partition("=")[0].replace("_", "-")
        if flag.startswith("--") and (group := name.partition(".")[0]) in reasons:
            raise ValueError(f"--{name} is given for train.py, but {reasons[group]}; leave it out")


def last_line(text: str) -> str:
    """Return the last line of a text that is not blank; empty if all are."""
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")
