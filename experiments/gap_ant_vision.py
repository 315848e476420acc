"""An ant learns, from its own eyes, to run a corridor with gaps.

python experiments/gap_ant_vision.py
python experiments/gap_ant_vision.py --encoder none            # a blind ant
python experiments/gap_ant_vision.py --encoder my_lab.eyes:Retina
python experiments/gap_ant_vision.py --resume runs/gap_ant_vision-20260101-120000
python experiments/gap_ant_vision.py --config runs/gap_ant_vision-20260101-120000/config.json
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import jax
import tyro
from rich.console import Console
from rich.table import Column, Table

from envs.gap_ant import GapAnt
from envs.video import FRAMES_PER_SECOND, film, write
from experiments.gap_ant import (
    BLIND,
    BUILDER,
    Settings,
    build,
    default_settings,
    from_dict,
    to_dict,
)
from vnl_ppo import run
from vnl_ppo.config import check
from vnl_ppo.evaluation import make_record
from vnl_ppo.events import EventFile
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
from vnl_ppo.reporting import Log
from vnl_ppo.runtime import keep_compilations
from vnl_ppo.train import check_training, train
from vnl_ppo.wandb_log import WandbLog, check_installed


def main() -> None:
    """Train, then film an episode."""
    folder = None
    try:
        settings = parse(sys.argv[1:])
        if settings.dump_config:
            print(run.describe(to_dict(settings), BUILDER), end="")
            return
        if settings.dry_run:
            show_memory(settings)
            return
        env, network, folder = prepare(settings)
        work(settings, env, network, folder)
    except (ValueError, OSError, NotFiniteError) as error:
        sys.exit(f"error: {error}" + (f"\n{how_to_go_on(folder)}" if folder else ""))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sys.exit(
            f"error: this takes more memory than there is ({str(error).splitlines()[0]}); use a "
            f"smaller --num-envs, or --env-chunk-size, or a smaller picture"
        )
    except Interrupted as stop:
        print(f"{stop}\n{how_to_go_on(folder)}", file=sys.stderr)
        sys.exit(stop.status)
    except KeyboardInterrupt:
        print("stopped" + (f"\n{how_to_go_on(folder)}" if folder else ""), file=sys.stderr)
        sys.exit(130)


def work(settings: Settings, env: GapAnt, network: ActorCritic, folder: Path) -> None:
    """What takes long."""
    compilations = keep_compilations()
    print(f"run folder: {folder}", flush=True)
    weights = train(
        env,
        network,
        settings.ppo,
        folder,
        resume=settings.resume is not None,
        checkpoint_config=settings.checkpoints,
        quiet=settings.quiet,
        logs=other_logs(settings, folder),
    )
    print(compilations)
    step = settings.ppo.num_iterations * settings.ppo.steps_per_iteration
    path = folder / run.VIDEOS / f"{step}.mp4"
    # A run that is resumed after its end has its film already.
    if settings.video_seconds > 0 and not path.exists():
        length = min(round(settings.video_seconds / env.dt), settings.ppo.episode_length)
        record = make_record(env, network, settings.ppo, length)
        data, alive = record(weights, jax.random.key(settings.ppo.seed))
        frames = list(film(env, data, alive, "floating", (480, 640), inset=160))
        write(frames, path)
        # Every second pixel and frame: TensorBoard shows it as a gif, which is large.
        log = EventFile(folder)
        log.film(step, "eval/video", [x[::2, ::2] for x in frames[::2]], FRAMES_PER_SECOND / 2)
        log.close()
    video = f", video in {path}" if path.exists() else ""
    print(f"done: checkpoints in {folder / run.CHECKPOINTS}{video}; tensorboard --logdir {folder}")


def show_memory(settings: Settings) -> None:
    """Print what a run with these settings will hold on each device.

    Raises:
        ValueError: a setting cannot be, or the device has not as much.
    """
    env, network = build(settings)
    ppo = check_training(env, network, settings.ppo)
    devices = jax.local_devices()
    rows = memory_table(env, network, settings.ppo, len(devices))
    keep_compilations()
    peak, available = peak_bytes(compile_step(ppo)), available_bytes(devices[0])
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


def parse(arguments: list[str]) -> Settings:
    """Settings from the command line.

    What they default to depends on three of them: a run that is resumed has its own, so has a
    file, and a blind ant needs less than one that sees. So these three are read first.

    Raises:
        ValueError: the settings to begin from cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume", type=Path)
    first.add_argument("--config", type=Path)
    first.add_argument("--encoder", default=Settings.encoder)
    known, _ = first.parse_known_args(arguments)
    if known.resume and known.config:
        raise ValueError("--resume and --config are both given; a run that is resumed has its own")
    if source := known.resume or known.config:
        defaults = from_dict(run.read_settings(source), str(source))
    else:
        defaults = default_settings(known.encoder != BLIND)
    return tyro.cli(Settings, args=arguments, default=defaults, description=__doc__)


def prepare(settings: Settings) -> tuple[GapAnt, ActorCritic, Path]:
    """Build everything and check everything, before anything is compiled.

    Raises:
        ValueError, OSError: a setting cannot be; one sentence says which and why.
    """
    if not 0 <= settings.video_seconds < float("inf"):
        raise ValueError(f"video_seconds is {settings.video_seconds}; it has to be 0 or more")
    check_installed(settings.wandb)
    check(settings.ppo, jax.local_device_count())
    env, network = build(settings)
    eyes = "blind" if settings.encoder == BLIND else "vision"
    name = f"gap_ant_{eyes}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = settings.resume or settings.run_dir or Path("runs") / name
    if settings.resume is None:
        run.check_free(folder)
    check_training(env, network, settings.ppo, folder if settings.resume else None)
    devices = jax.local_devices()
    rows = memory_table(env, network, settings.ppo, len(devices))
    check_fits(rows, sum(row.num_bytes for row in rows), available_bytes(devices[0]))
    print(
        f"{len(devices)} {devices[0].platform} device(s), {devices[0].device_kind}; "
        f"physics by {env.back_end}; {settings.ppo.num_envs} environments, "
        f"{settings.ppo.num_timesteps:,} steps (defaults for this hardware unless you set others)"
    )
    if settings.resume is None:
        run.create(folder, to_dict(settings), BUILDER)
    return env, network, folder


def other_logs(settings: Settings, folder: Path) -> list[Log]:
    """Where metrics go besides TensorBoard."""
    return [WandbLog(settings.wandb, folder)] if settings.wandb else []


if __name__ == "__main__":
    main()
