"""An ant learns, from its own eyes, to run a corridor with gaps.

python experiments/gap_ant_vision.py
python experiments/gap_ant_vision.py --encoder none            # a blind ant
python experiments/gap_ant_vision.py --encoder my_lab.eyes:Retina
python experiments/gap_ant_vision.py --resume runs/gap_ant_vision-20260101-120000
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cattrs
import jax
import tyro

from encoders import make_encoder
from envs.gap_ant import GapAnt, GapAntConfig, VisionConfig
from envs.video import write_episode
from vnl_ppo import run
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import make_record
from vnl_ppo.networks import ActorCritic, check_encoders
from vnl_ppo.runtime import keep_compilations
from vnl_ppo.train import check_training, train

BLIND = "none"

# On two cores a seeing ant gets through a tenth of the steps of a blind one in the same time, so it
# takes larger steps and fewer passes over its data. An accelerator is filled by more environments.
CPU_BLIND = PPOConfig(num_timesteps=3_000_000)
CPU_SEEING = PPOConfig(
    num_timesteps=300_000,
    num_envs=128,
    batch_size=16,
    num_updates_per_batch=2,
    learning_rate=1e-3,
    episode_length=200,
    num_evals=4,
    num_eval_envs=16,
)
ACCELERATOR = PPOConfig(num_timesteps=50_000_000, num_envs=2048, batch_size=256, num_minibatches=32)


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The heads on top of the encoders."""

    policy_hidden: tuple[int, ...] = (128, 128)
    """Widths of the policy's hidden layers."""
    value_hidden: tuple[int, ...] = (128, 128)
    """Widths of the value function's hidden layers."""
    share_encoders: bool = True
    """Whether policy and value see the same features, or each its own."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything about a run; kept in its config.json."""

    ppo: Annotated[PPOConfig, tyro.conf.arg(name="")]
    env: Annotated[GapAntConfig, tyro.conf.arg(name="")] = GapAntConfig()
    vision: VisionConfig = VisionConfig()
    network: NetworkConfig = NetworkConfig()
    encoder: str = "nature_cnn"
    """What turns the image into features: a registered name, `package.module:Class`, or none for
    a blind ant."""
    features: int | None = None
    """Features that the encoder makes of an image, where it has such a setting; else its own
    default."""
    physics: str = "auto"
    """mujoco (C, on CPU cores), mjx (JAX, on any device), or auto: mujoco on CPU, else mjx."""
    video_seconds: float = 10.0
    """Length of the video at the end; 0 for none."""
    run_dir: Path | None = None
    """Where everything goes; by default a new folder in runs/. One that exists is never touched."""
    resume: Path | None = None
    """The folder of a run to go on with, under its own settings unless others are given here."""


def main() -> None:
    """Train, then film an episode."""
    try:
        settings = parse(sys.argv[1:])
        env, network, folder = prepare(settings)
    except (ValueError, FileExistsError) as error:
        sys.exit(f"error: {error}")

    print(f"run folder: {folder}", flush=True)
    weights = train(env, network, settings.ppo, folder, resume=settings.resume is not None)

    video = None
    if settings.video_seconds > 0:
        step = settings.ppo.num_iterations * settings.ppo.steps_per_iteration
        length = min(round(settings.video_seconds / env.dt), settings.ppo.episode_length)
        record = make_record(env, network, settings.ppo, length)
        data, alive = record(weights, jax.random.key(settings.ppo.seed))
        video = write_episode(env, data, alive, folder / run.VIDEOS / f"{step}.mp4")
    film = f", video in {video}" if video else ""
    print(f"done: checkpoints in {folder / run.CHECKPOINTS}{film}; tensorboard --logdir {folder}")


def parse(arguments: list[str]) -> Settings:
    """Settings from the command line.

    What they default to depends on two of them: a run that is resumed has its own, and a blind ant
    needs less than one that sees. So these two are read first.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume", type=Path)
    first.add_argument("--encoder", default=Settings.encoder)
    known, _ = first.parse_known_args(arguments)
    if known.resume:
        defaults = from_dict(run.read_settings(known.resume))
    else:
        defaults = Settings(ppo=default_ppo(jax.default_backend(), known.encoder != BLIND))
    return tyro.cli(Settings, args=arguments, default=defaults, description=__doc__)


def default_ppo(back_end: str, seeing: bool) -> PPOConfig:
    """Hyper-parameters for the hardware that was found."""
    if back_end != "cpu":
        return ACCELERATOR
    return CPU_SEEING if seeing else CPU_BLIND


def prepare(settings: Settings) -> tuple[GapAnt, ActorCritic, Path]:
    """Build everything and check everything, before anything is compiled.

    Raises:
        ValueError, FileExistsError: a setting cannot be; one sentence says which and why.
    """
    seeing = settings.encoder != BLIND
    width = {} if settings.features is None else {"features": settings.features}
    encoders = {"vision": make_encoder(settings.encoder, **width)} if seeing else {}
    env = GapAnt(settings.env, settings.vision if seeing else None, settings.physics)
    check_encoders(env.observation_spec, encoders)
    network = ActorCritic(
        env.action_size,
        encoders,
        settings.network.policy_hidden,
        settings.network.value_hidden,
        settings.network.share_encoders,
    )
    name = f"gap_ant_{'vision' if seeing else 'blind'}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = settings.resume or settings.run_dir or Path("runs") / name
    if settings.resume is None:
        run.check_free(folder)
    check_training(env, network, settings.ppo, folder if settings.resume else None)
    keep_compilations()
    devices = jax.local_devices()
    print(
        f"{len(devices)} {devices[0].platform} device(s), {devices[0].device_kind}; "
        f"physics by {env.back_end}; {settings.ppo.num_envs} environments, "
        f"{settings.ppo.num_timesteps:,} steps (defaults for this hardware unless you set others)"
    )
    if settings.resume is None:
        run.create(folder, to_dict(settings))
    return env, network, folder


def to_dict(settings: Settings) -> dict[str, Any]:
    """Plain data for config.json, without the two settings that say where it lies."""
    return cattrs.unstructure(dataclasses.replace(settings, run_dir=None, resume=None))


def from_dict(data: dict[str, Any]) -> Settings:
    """The settings that `to_dict` put down.

    Raises:
        ValueError: a field is missing, unknown or of the wrong type.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    try:
        return converter.structure(data, Settings)
    except cattrs.BaseValidationError as error:
        reasons = "; ".join(cattrs.transform_error(error))
        raise ValueError(f"config.json was written by another version: {reasons}") from error


if __name__ == "__main__":
    main()
