"""The gap ant's settings, and what they describe: an environment, a network, a policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro

from encoders import make_encoder
from envs.corridor import CorridorConfig
from envs.frame_stack import FrameStack
from envs.gap_ant import GapAnt, GapAntConfig, VisionConfig
from vnl_ppo import run
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import Act, acting, acting_at_random
from vnl_ppo.networks import ActorCritic, check_encoders
from vnl_ppo.policy import load_into
from vnl_ppo.settings import from_plain, to_plain

BLIND = "none"
RANDOM = "random"
BUILDER = "experiments.gap_ant:build_from"
"""How a run's config.json names what builds its environment and network."""

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

    def __post_init__(self) -> None:
        for name in ("policy_hidden", "value_hidden"):
            if any(width < 1 for width in getattr(self, name)):
                raise ValueError(
                    f"network.{name} is {getattr(self, name)}; widths have to be at least 1"
                )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything about a run; kept in its config.json."""

    ppo: Annotated[PPOConfig, tyro.conf.arg(name="")]
    env: Annotated[GapAntConfig, tyro.conf.arg(name="")] = GapAntConfig()
    vision: VisionConfig = VisionConfig()
    network: NetworkConfig = NetworkConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
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
    if settings.features is not None and settings.features < 1:
        raise ValueError(f"features is {settings.features}; it has to be at least 1")
    width = {} if settings.features is None else {"features": settings.features}
    env: Any = GapAnt(settings.env, settings.vision if seeing else None, settings.physics)
    if seeing and settings.frames != 1:
        env = FrameStack(env, settings.frames)
    images = [name for name, leaf in env.observation_spec.items() if leaf.dtype == jnp.uint8]
    encoders = {name: make_encoder(settings.encoder, **width) for name in images}
    check_encoders(env.observation_spec, encoders)
    network = ActorCritic(
        env.action_size,
        encoders,
        settings.network.policy_hidden,
        settings.network.value_hidden,
        settings.network.share_encoders,
    )
    return env, network


def build_from(plain: dict[str, Any]) -> tuple[GapAnt, ActorCritic, PPOConfig]:
    """As `build`, from the settings of a config.json: a `vnl_ppo.policy.Builder`."""
    settings = from_dict(plain)
    return *build(settings), settings.ppo


def to_dict(settings: Settings) -> dict[str, Any]:
    """Plain data for config.json, without what says where it lies and what to do with it."""
    return {k: v for k, v in to_plain(settings).items() if k not in _OF_THE_COMMAND}


def from_dict(data: Any, source: str = "config.json") -> Settings:
    """The settings that `to_dict` put down.

    Raises:
        ValueError: a field is unknown, of the wrong type, or has no default and is missing.
    """
    return from_plain(Settings, data, source)


_OF_THE_COMMAND = ("run_dir", "resume", "config", "dump_config", "quiet")


class Player(NamedTuple):
    """Somebody to look at: a policy in its environment.

    Attributes:
        name: to show.
        env: where it acts.
        act: what it does; traceable.
        settings: of its run, or the defaults.
    """

    name: str
    env: GapAnt
    act: Act
    settings: Settings


def load_player(
    name: str, corridor: CorridorConfig | None = None, deterministic: bool = True
) -> Player:
    """The policy of a run, or one that acts at random.

    Args:
        name: the folder of a run, with `@STEP` behind it for a checkpoint that is not the newest,
            or `random`.
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
    path, _, step = name.rpartition("@") if "@" in Path(name).name else (name, "", "")
    if step and not step.isdigit():
        raise ValueError(f"{name}: {step!r} is no checkpoint's step; write RUN@STEP")
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"there is no run folder {folder}; name one, or random")
    chosen = _with_corridor(from_dict(run.read_settings(folder), str(folder)), corridor)
    env, network = build(chosen)
    policy = load_into(env, network, chosen.ppo, folder, int(step) if step else None)
    act = acting(network, policy.weights, deterministic)
    return Player(f"{folder.name}@{policy.step}", env, act, chosen)


def _with_corridor(chosen: Settings, corridor: CorridorConfig | None) -> Settings:
    if corridor is None:
        return chosen
    return dataclasses.replace(chosen, env=dataclasses.replace(chosen.env, corridor=corridor))
