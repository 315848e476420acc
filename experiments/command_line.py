"""What the command line of every experiment does: settings, checks, errors, a dry run, going on."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

import jax
import tyro
from rich.console import Console
from rich.table import Column, Table

from vnl_ppo import run_folder
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.config import PPOConfig, check
from vnl_ppo.distributed import (
    DistributedConfig,
    PeerLostError,
    check_same,
    is_first,
    join,
    leave,
    wait_for_all,
    watching,
)
from vnl_ppo.env import Env
from vnl_ppo.footprint import (
    available_bytes,
    check_fits,
    compile_step,
    memory_table,
    peak_bytes,
)
from vnl_ppo.health import NotFiniteError
from vnl_ppo.interruption import Interrupted
from vnl_ppo.networks import ActorCritic
from vnl_ppo.policy import Weights
from vnl_ppo.program_cache import ProgramCache
from vnl_ppo.reporting import Log
from vnl_ppo.runtime import Compilations, keep_compilations
from vnl_ppo.serialization import from_plain, to_plain
from vnl_ppo.train import check_training, train
from vnl_ppo.wandb_log import WandbLog, check_installed


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What there is to say about any run; an experiment adds its own."""

    ppo: Annotated[PPOConfig, tyro.conf.arg(name="")]
    checkpoints: CheckpointConfig = CheckpointConfig()
    wandb: str = ""
    """A project of Weights & Biases to log to as well; needs the extra `wandb`. Without a network,
    set WANDB_MODE=offline."""
    quiet: bool = False
    """Plain lines instead of a live view."""
    run_dir: Path | None = None
    """Where everything goes; by default a new folder in runs/. One that exists is never touched."""
    resume: Path | None = None
    """The folder of a run to go on with, under its own settings unless others are given here."""
    config: Path | None = None
    """A run's config.json, or its folder: begin a new run with its settings, unless others are
    given here."""
    dump_config: bool = False
    """Print the config.json of a run with these settings, and do nothing."""
    distributed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train as one of several processes, each of which is started with this command."""
    processes: Annotated[DistributedConfig, tyro.conf.arg(name="distributed")] = DistributedConfig()
    dry_run: bool = False
    """Compile the training step, print what it will hold in memory, and leave nothing behind."""


_OF_THE_COMMAND = (
    "run_dir", "resume", "config", "dump_config", "dry_run", "quiet", "distributed", "processes",
)  # fmt: skip

AnySettings = TypeVar("AnySettings", bound=RunSettings)
Finish = Callable[[Any, Any, ActorCritic, Weights, Path], Sequence[str]]
"""(settings, environment, network, weights, run folder) -> what it made, in words."""


class Experiment(NamedTuple):
    """What an experiment brings along.

    Attributes:
        builder: `package.module:function`, by which its runs are built again, see
            `vnl_ppo.loading.load`.
        parse: the command line's arguments -> its settings, a `RunSettings`.
        build: settings -> environment and network. Raises a ValueError where they cannot be.
        title: settings -> what its run folders are called, before the time.
        simulator: (settings, environment) -> what simulates, to be shown.
        finish: what is left to do after training.
        traced_from: (settings, environment) -> all that the compiled programs depend on besides
            settings and code, so that they may be kept whole; None where that is not known.
    """

    builder: str
    parse: Callable[[Sequence[str]], Any]
    build: Callable[[Any], tuple[Any, ActorCritic]]
    title: Callable[[Any], str]
    simulator: Callable[[Any, Any], str]
    finish: Finish = lambda *_: ()
    traced_from: Callable[[Any, Any], Sequence[bytes] | None] = lambda *_: None


def main(experiment: Experiment) -> None:
    """Do what the command line says."""
    folder = None
    try:
        join_others(sys.argv[1:])
        settings = experiment.parse(sys.argv[1:])
        if settings.dump_config:
            print(run_folder.describe(to_dict(settings), experiment.builder), end="")
            return
        if settings.dry_run:
            show_memory(*experiment.build(settings), settings.ppo)
            return
        compilations = keep_compilations()
        with watching():
            env, network, folder, programs = prepare(experiment, settings, compilations)
        if is_first():
            print(f"run folder: {folder}", flush=True)
        work(experiment, settings, env, network, folder, programs)
        if is_first():
            print(compilations)
    except (ValueError, OSError, NotFiniteError, PeerLostError) as error:
        stop(1, f"error: {error}", folder)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        stop(
            1,
            f"error: this takes more memory than there is ({str(error).splitlines()[0]}); use a "
            f"smaller --num-envs, or --env-chunk-size, or a smaller picture",
        )
    except Interrupted as interrupted:
        stop(interrupted.status, str(interrupted), folder)
    except KeyboardInterrupt:
        stop(130, "stopped", folder)


def stop(status: int, message: str, folder: Path | None = None) -> NoReturn:
    """End the program with a message, and the command that goes on with the run if there is one."""
    more = f"\n{how_to_go_on(folder)}" if folder and is_first() else ""
    print(message + more, file=sys.stderr)
    leave(status)
    sys.exit(status)


def join_others(arguments: Sequence[str]) -> None:
    """Join the other processes if the command line says so.

    That has to be done before anything uses a device, as the settings' defaults do; so the flags
    for it are read first.

    Raises:
        ValueError: they cannot be joined.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--distributed", action="store_true")
    for field in dataclasses.fields(DistributedConfig):
        name, kind = field.name, str if field.name == "coordinator" else int
        spellings = {f"--distributed.{name}", f"--distributed.{name.replace('_', '-')}"}
        first.add_argument(*spellings, dest=name, type=kind, default=field.default)
    given = vars(first.parse_known_args(arguments)[0])
    if given.pop("distributed") or DistributedConfig(**given) != DistributedConfig():
        join(DistributedConfig(**given))


def parse(
    arguments: Sequence[str],
    defaults: Callable[[Sequence[str]], AnySettings],
    description: str | None,
) -> AnySettings:
    """Settings from the command line.

    A run that is resumed has its own to begin from, so has a file; so these are read first.

    Args:
        arguments: of the command line.
        defaults: what they begin from where neither is given.
        description: of the experiment, for `--help`.

    Raises:
        ValueError: the settings to begin from cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume", type=Path)
    first.add_argument("--config", type=Path)
    known, _ = first.parse_known_args(arguments)
    if known.resume and known.config:
        raise ValueError("--resume and --config are both given; a run that is resumed has its own")
    begin = defaults(arguments)
    if source := known.resume or known.config:
        begin = from_dict(type(begin), run_folder.read_settings(source), str(source))
    return tyro.cli(type(begin), args=arguments, default=begin, description=description)


def option(arguments: Sequence[str], name: str, default: str) -> str:
    """One option of a command line, on which the defaults of the others depend."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(name, dest="value", default=default)
    return first.parse_known_args(arguments)[0].value


def prepare(
    experiment: Experiment, settings: Any, compilations: Compilations | None = None
) -> tuple[Any, ActorCritic, Path, ProgramCache | None]:
    """Build everything and check everything, before anything is compiled.

    What was compiled under the same settings before was checked then, and is not traced again.

    Raises:
        ValueError, OSError: a setting cannot be; one sentence says which and why.
    """
    check_installed(settings.wandb)
    check(settings.ppo, jax.device_count())
    env, network = experiment.build(settings)
    name = f"{experiment.title(settings)}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = settings.resume or settings.run_dir or Path("runs") / name
    if settings.resume is None and is_first():
        run_folder.check_free(folder)
    programs = kept_programs(experiment, settings, env, compilations)
    if settings.resume or programs is None or not programs.has("init", "step"):
        check_training(env, network, settings.ppo, settings.resume)
    check_same("the settings", json.dumps(to_dict(settings)))
    devices = jax.devices()
    if available := available_bytes(jax.local_devices()[0]):
        rows = memory_table(env, network, settings.ppo, len(devices))
        check_fits(rows, sum(row.num_bytes for row in rows), available)
    if is_first():
        of_seeds = f" for each of {n} seeds" if (n := settings.ppo.num_seeds) > 1 else ""
        of_processes = f" of {n} processes" if (n := jax.process_count()) > 1 else ""
        print(
            f"{len(devices)} {devices[0].platform} device(s){of_processes}, "
            f"{devices[0].device_kind}; physics by {experiment.simulator(settings, env)}; "
            f"{settings.ppo.num_envs} environments, {settings.ppo.num_timesteps:,} steps{of_seeds} "
            f"(defaults for this hardware unless you set others)"
        )
        if settings.resume is None:
            run_folder.create(folder, to_dict(settings), experiment.builder)
    return env, network, folder, programs


_NOT_TRACED = ("checkpoints", "video_seconds", "wandb")


def kept_programs(
    experiment: Experiment, settings: Any, env: Env, compilations: Compilations | None
) -> ProgramCache | None:
    """Where the compiled programs of such runs are kept whole, if they may be.

    Of several processes each compiles a part, which is nothing to keep.
    """
    parts = experiment.traced_from(settings, env)
    if compilations is None or parts is None or jax.process_count() > 1:
        return None
    # Seeds are arguments of the programs.
    ppo = dataclasses.replace(settings.ppo, seed=0, num_evals=1)
    plain = to_dict(dataclasses.replace(settings, ppo=ppo))
    plain = {name: value for name, value in plain.items() if name not in _NOT_TRACED}
    return ProgramCache(compilations, json.dumps(plain, sort_keys=True).encode(), *parts)


def work(
    experiment: Experiment,
    settings: Any,
    env: Env,
    network: ActorCritic,
    folder: Path,
    programs: ProgramCache | None = None,
) -> None:
    """What takes long."""
    weights = train(
        env,
        network,
        settings.ppo,
        folder,
        resume=settings.resume is not None,
        checkpoint_config=settings.checkpoints,
        quiet=settings.quiet,
        logs=other_logs(settings, folder) if is_first() else (),
        programs=programs,
    )
    if is_first():
        made = experiment.finish(settings, env, network, weights, folder)
        made = ", ".join([f"checkpoints in {folder / run_folder.CHECKPOINTS}", *made])
        print(f"done: {made}; tensorboard --logdir {folder}")
    wait_for_all()


def show_memory(env: Env, network: ActorCritic, config: PPOConfig) -> None:
    """Print what a run with these settings will hold on each device.

    Raises:
        ValueError: a setting cannot be, or the device has not as much.
    """
    ppo = check_training(env, network, config)
    rows = memory_table(env, network, config, jax.device_count())
    keep_compilations()
    peak, available = peak_bytes(compile_step(ppo)), available_bytes(jax.local_devices()[0])
    table = Table("on each device", Column("MiB", justify="right"))
    for row in rows:
        table.add_row(row.name, f"{row.num_bytes / 2**20:,.1f}")
    table.add_section()
    table.add_row("peak of a training iteration (XLA)", f"{peak / 2**20:,.1f}")
    table.add_row("the device has", f"{available / 2**20:,.1f}" if available else "not told")
    Console().print(table)
    check_fits(rows, peak, available)


def how_to_go_on(folder: Path | None) -> str:
    """The command that resumes this run, under the settings that it has now."""
    given = sys.argv[1:]
    # Settings given to a run that was resumed are not in its config.json.
    more = given if "--resume" in given else ["--resume", str(folder)]
    return "go on with: " + shlex.join([Path(sys.executable).name, sys.argv[0], *more])


def to_dict(settings: RunSettings) -> dict[str, Any]:
    """Plain data for config.json, without what says where it lies and what to do with it."""
    return {k: v for k, v in to_plain(settings).items() if k not in _OF_THE_COMMAND}


def from_dict(kind: type[AnySettings], data: Any, source: str = "config.json") -> AnySettings:
    """The settings that `to_dict` put down.

    Raises:
        ValueError: a field is unknown, of the wrong type, has no default and is missing, or can
            only be said on the command line.
    """
    if isinstance(data, Mapping) and (astray := [k for k in _OF_THE_COMMAND if k in data]):
        raise ValueError(
            f"{source}: {astray[0]} is said on the command line, not in a file; leave it out there"
        )
    return from_plain(kind, data, source)


def other_logs(settings: RunSettings, folder: Path) -> list[Log]:
    """Where metrics go besides TensorBoard."""
    return [WandbLog(settings.wandb, folder)] if settings.wandb else []
