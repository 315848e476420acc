"""The gap ant's settings, and what they describe: an environment, a network, a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import tyro

from envs.corridor import CorridorConfig
from envs.frame_stack import FrameStack
from envs.gap_ant import GapAnt, GapAntConfig, VisionConfig
from envs.physics.mujoco import content
from experiments import command_line
from experiments.command_line import RunSettings
from experiments.network_settings import NetworkConfig, make_network
from vnl_ppo import run_folder
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import Actor, acting, acting_at_random
from vnl_ppo.loading import load_into
from vnl_ppo.networks import ActorCritic
from vnl_ppo.serialization import check_numbers

BLIND = "none"
RANDOM = "random"
BUILDER = "experiments.gap_ant:build_from"
"""How a run's config.json names what builds its environment and network."""

MAX_PIXELS = 1024
MAX_PLATFORMS = 1000

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
class Settings(RunSettings):
    """Everything about a run; kept in its config.json."""

    env: Annotated[GapAntConfig, tyro.conf.arg(name="")] = GapAntConfig()
    vision: VisionConfig = VisionConfig()
    network: NetworkConfig = NetworkConfig()
    encoder: str = "nature_cnn"
    """What turns the image into features: a registered name, `package.module:Class`, or none for
    a blind ant."""
    features: int | None = None
    """Features that the encoder makes of an image, where it has such a setting; else its own
    default."""
    frames: int = 1
    """How many of the last pictures an encoder sees at once, one behind the other in channels."""
    physics: str = "auto"
    """mujoco (C, on CPU cores), mjx (JAX, on any device), or auto: mujoco on CPU, else mjx."""
    video_seconds: float = 10.0
    """Length of the video at the end; 0 for none."""


def default_ppo(back_end: str, seeing: bool) -> PPOConfig:
    """Hyper-parameters for the hardware that was found."""
    if back_end != "cpu":
        return ACCELERATOR
    return CPU_SEEING if seeing else CPU_BLIND


def default_settings(seeing: bool) -> Settings:
    """What a run is like where nothing is said."""
    return Settings(
        ppo=default_ppo(jax.default_backend(), seeing), encoder="nature_cnn" if seeing else BLIND
    )


def build(settings: Settings) -> tuple[GapAnt, ActorCritic]:
    """The environment and the network; nothing is compiled.

    Raises:
        ValueError: a setting cannot be; one sentence says which and why.
    """
    seeing = settings.encoder != BLIND
    check_numbers(settings, large=("ppo.num_timesteps",))
    _check_sizes(settings)
    if settings.video_seconds < 0:
        raise ValueError(f"video_seconds is {settings.video_seconds}; it has to be 0 or more")
    env: Any = GapAnt(settings.env, settings.vision if seeing else None, settings.physics)
    if seeing and settings.frames != 1:
        env = FrameStack(env, settings.frames)
    network = make_network(env, settings.network, settings.encoder, settings.features)
    return env, network


def _check_sizes(settings: Settings) -> None:
    """What would fill the memory while it is built, before anything else could refuse it."""
    for name in ("height", "width"):
        if (pixels := getattr(settings.vision, name)) > MAX_PIXELS:
            raise ValueError(f"vision.{name} is {pixels}; it has to be at most {MAX_PIXELS} pixels")
    corridor = settings.env.corridor
    # Lengths that cannot be at all are told of where the corridor is built.
    pitch = corridor.platform_length[0] + corridor.gap_length[0]
    if pitch > 0 and (platforms := corridor.length / pitch) > MAX_PLATFORMS:
        raise ValueError(
            f"corridor.length is {corridor.length} m, which takes up to {platforms:,.0f} "
            f"platforms; it has to be below {MAX_PLATFORMS * pitch:g} m"
        )


def build_from(plain: dict[str, Any]) -> tuple[GapAnt, ActorCritic, PPOConfig]:
    """As `build`, from the settings of a config.json: a `vnl_ppo.loading.Builder`."""
    settings = from_dict(plain)
    return *build(settings), settings.ppo


def traced_from(settings: Settings, env: GapAnt) -> Sequence[bytes] | None:
    """What compiled programs depend on besides settings and code; see `command_line.Experiment`.

    An encoder of the user's may read files or anything else while it is traced.
    """
    if ":" in settings.encoder:
        return None
    return content(env.model), content(env.looks)


def from_dict(data: Any, source: str = "config.json") -> Settings:
    """The settings that `command_line.to_dict` put down; see `command_line.from_dict`."""
    return command_line.from_dict(Settings, data, source)


class Player(NamedTuple):
    """Somebody to look at: a policy in its environment.

    Attributes:
        name: to show.
        env: where it acts.
        actor: what it does; traceable.
        settings: of its run, or the defaults.
    """

    name: str
    env: GapAnt
    actor: Actor
    settings: Settings


def split_name(name: str) -> tuple[Path, str]:
    """The folder and the step of RUN@STEP, the step empty where none is named. A folder above the
    run's own may have an @ in its name."""
    path = Path(name)
    own, _, step = path.name.rpartition("@")
    return (path.with_name(own), step) if own and step else (path, "")


def load_player(
    name: str, corridor: CorridorConfig | None = None, deterministic: bool = True
) -> Player:
    """The policy of a run, or one that acts at random.

    Args:
        name: the folder of a run, with `@STEP` behind it for a checkpoint that is not the newest,
            or `random`. Where many seeds were trained together, RUN/seed_3 is the agent of one.
        corridor: the corridors to run in, so that several policies can be compared; by default
            those of its training.
        deterministic: whether a run's policy takes its mode instead of a sample.

    Raises:
        ValueError: there is no such run, or it cannot be read.
    """
    if name == RANDOM:
        chosen = _with_corridor(default_settings(seeing=False), corridor)
        env, _ = build(chosen)
        return Player(RANDOM, env, acting_at_random(env.action_size), chosen)
    folder, step = split_name(name)
    if step and not step.isdigit():
        raise ValueError(f"{name}: {step!r} is no checkpoint's step; write RUN@STEP")
    path, seed = run_folder.split_agent(folder)
    if not path.is_dir():
        raise ValueError(f"there is no run folder {path}; name one, or random")
    chosen = _with_corridor(from_dict(run_folder.read_settings(path), str(path)), corridor)
    env, network = build(chosen)
    policy = load_into(env, network, chosen.ppo, folder, int(step) if step else None)
    actor = acting(network, policy.weights, deterministic)
    name = folder.name if seed is None else f"{path.name}/{folder.name}"
    return Player(f"{name}@{policy.step}", env, actor, chosen)


def _with_corridor(chosen: Settings, corridor: CorridorConfig | None) -> Settings:
    if corridor is None:
        return chosen
    return dataclasses.replace(chosen, env=dataclasses.replace(chosen.env, corridor=corridor))
