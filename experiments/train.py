"""Train in an environment of Brax or of MuJoCo Playground.

python experiments/train.py --env brax:ant
python experiments/train.py --env playground:CartpoleBalance --num-envs 128
python experiments/train.py --env brax:ant --physics spring --num-envs 4096
python experiments/train.py --resume runs/brax_ant-20260101-120000
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from envs import foreign
from envs.foreign import Foreign
from experiments import command_line
from experiments.command_line import Experiment, RunSettings
from experiments.network_settings import NetworkConfig, make_network
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.serialization import check_numbers

BUILDER = "experiments.train:build_from"
"""How a run's config.json names what builds its environment and network."""

DEFAULT = PPOConfig(num_timesteps=2_000_000, episode_length=1000, reward_scaling=1.0)


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Everything about a run; kept in its config.json."""

    env: str = ""
    """`brax:NAME` or `playground:NAME`, of the extras `brax` and `playground`."""
    physics: str = foreign.MJX
    """mjx; or, of Brax, spring, positional or generalized."""
    network: NetworkConfig = NetworkConfig()
    encoder: str = "nature_cnn"
    """What turns images, where there are any, into features: a registered name or
    `package.module:Class`."""
    features: int | None = None
    """Features that the encoder makes of an image, where it has such a setting; else its own
    default."""


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from the command line."""
    return command_line.parse(arguments, lambda _: Settings(ppo=DEFAULT), __doc__)


def build(settings: Settings) -> tuple[Foreign, ActorCritic]:
    """The environment and the network; nothing is compiled.

    Raises:
        ValueError: a setting cannot be; one sentence says which and why.
    """
    check_numbers(settings, large=("ppo.num_timesteps",))
    env = foreign.make(settings.env, settings.physics)
    network = make_network(env, settings.network, settings.encoder, settings.features)
    return env, network


def build_from(plain: dict[str, Any]) -> tuple[Foreign, ActorCritic, PPOConfig]:
    """As `build`, from the settings of a config.json: a `vnl_ppo.loading.Builder`."""
    settings = command_line.from_dict(Settings, plain)
    return *build(settings), settings.ppo


FOREIGN = Experiment(
    builder=BUILDER,
    parse=parse,
    build=build,
    title=lambda settings: settings.env.replace(":", "_"),
    simulator=lambda settings, env: settings.physics,
)

if __name__ == "__main__":
    command_line.main(FOREIGN)
