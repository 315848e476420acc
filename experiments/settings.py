"""Define the settings of a run, which depend on its environment, and build what they describe."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import tyro

from encoders import specification
from envs import catalogue, physics
from envs.locomotion import Locomotion
from envs.physics.mujoco import content
from envs.presets import Preset
from experiments.network_settings import NetworkConfig, make_network
from vnl_ppo import run_folder
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.config import PPOConfig
from vnl_ppo.distributed import DistributedConfig
from vnl_ppo.env import Env
from vnl_ppo.networks import ActorCritic
from vnl_ppo.serialization import check_numbers, from_plain, to_plain

BLIND = "none"
"""The encoder's name in the settings of a blind walker."""
BUILDER = "experiments.settings:build_from"
"""The function that a run's config.json names, which builds its environment and network."""
AHEAD = (
    "Also observe the leaf ahead: the exact positions of the next obstacles or the target. The "
    "policy gets it only if --network.policy-leaves names it."
)
PARTS = ("arena", "walker", "task", "vision", "simulation")
"""Names of the settings that are fields of a preset."""

# On two cores a seeing ant takes a tenth of the steps of a blind one in the same time. So it learns
# more from each, with a larger learning rate and small minibatches of fresh data, and comes to rest
# by the end: the learning rate and the entropy cost fall to 0. An accelerator needs more
# environments.
CPU_BLIND = PPOConfig(num_timesteps=3_000_000)
CPU_SEEING = PPOConfig(
    num_timesteps=300_000,
    num_envs=64,
    batch_size=4,
    num_minibatches=16,
    num_updates_per_batch=2,
    learning_rate=1e-3,
    learning_rate_schedule="linear",
    entropy_cost_final=0.0,
    episode_length=200,
    num_evals=4,
    num_eval_envs=16,
)
ACCELERATOR = PPOConfig(num_timesteps=50_000_000, num_envs=2048, batch_size=256, num_minibatches=32)
FOREIGN = PPOConfig(num_timesteps=2_000_000, episode_length=1000, reward_scaling=1.0)


OF_LEAVES = tyro.constructors.PrimitiveConstructorSpec[str](
    nargs="*",
    metavar="SPEC",
    instance_from_str=", ".join,
    is_instance=lambda value: isinstance(value, str),
    str_from_instance=lambda value: [value],
)
"""Reads several arguments, each the spec of one leaf, as one spec."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run of any environment."""

    ppo: Annotated[PPOConfig, tyro.conf.arg(name="")] = PPOConfig()
    env: str = "gap_ant"
    """Environment: a preset, `package.module:OBJECT`, `brax:NAME` or `playground:NAME`."""
    network: NetworkConfig = NetworkConfig()
    encoder: Annotated[str, OF_LEAVES] = "nature_cnn"
    """Encoder that turns images into features, such as nature_cnn, "gray | impala(features=64)" or
    my_lab.eyes:Retina; one for each leaf is "LEFT=gray | nature_cnn" "RIGHT=mlp". none is for a
    blind walker. See --list-encoders."""
    features: int | None = None
    """Number of features of every encoder that has this setting; None for its own default."""
    frames: int = 1
    """Number of latest images stacked along the channels in an observation; 1 for no stacking."""
    physics: str = "auto"
    """The physics back end: mujoco (C, on CPU cores), mjx (JAX, on any device), warp (for NVIDIA
    GPUs, with the extra `warp`), or auto: mujoco on CPU, else mjx; a run keeps the one it begins
    with. For Brax: auto (mjx), mjx, spring, positional or generalized."""
    video_seconds: float = 10.0
    """Length of the video that is made after training, seconds: as many episodes one after
    another as that takes, at most 20; 0 for none."""
    init_from: str = ""
    """RUN or RUN@STEP: begin a new run with the parameters and the statistics of observations of
    another, and a new optimiser; empty for drawn ones. From another walker, or another world, the
    layers whose shapes fit are taken, and the others are named."""
    encoder_from: str = ""
    """RUN, RUN@STEP or FILE.safetensors: begin a new run with the parameters of the encoders of
    another; empty for drawn ones. With --network.freeze they stay as they are."""
    teacher: str = ""
    """RUN or RUN@STEP: learn to act like the policy of another run too, by its own observations,
    such as `ahead` (see --teacher-weight and --teacher-until); empty for no teacher."""
    until: str = ""
    """METRIC>=NUMBER, such as "success>=0.8": end the training when this was so in three
    evaluations in a row (see --num-evals); empty to train for all steps."""
    record_every: int = 0
    """Evaluations from one recording to the next, of 10 episodes, from which variables are decoded
    for TensorBoard (experiments/recordings.py); 0 for none. Needs the extra `analysis`."""
    record_variables: tuple[str, ...] = ()
    """Arrays to decode from these recordings; empty for those of analyse.py."""
    checkpoints: CheckpointConfig = CheckpointConfig()
    wandb: str = ""
    """Project of Weights & Biases to log to as well, with the extra `wandb`; empty for none.
    Without internet access, set WANDB_MODE=offline."""
    quiet: bool = False
    """Print plain lines instead of a live progress bar."""
    run_dir: Path | None = None
    """Folder of the run, which must be new or empty; None for a new folder in runs/."""
    resume: Path | None = None
    """Folder of a run to resume, with its own settings except for those given here."""
    config: Path | None = None
    """A run's config.json or folder: start a new run with its settings, except for those given
    here."""
    list_encoders: bool = False
    """Print a table of the encoders and stages that a spec can name, and exit."""
    dump_config: bool = False
    """Print the config.json of a run with these settings, and exit."""
    distributed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train as one of several processes, each of which is started with this command."""
    processes: Annotated[DistributedConfig, tyro.conf.arg(name="distributed")] = DistributedConfig()
    dry_run: bool = False
    """Compile the training step, print the memory that it needs, and exit without training."""

    @property
    def seeing(self) -> bool:
        """Whether the observations have images."""
        return self.encoder != BLIND

    @property
    def modality(self) -> str:
        """Modality of the images, such as rgb; of an environment without this setting, rgb."""
        return self.vision.modality if hasattr(self, "vision") else "rgb"


OF_THE_COMMAND = (
    "run_dir", "resume", "config", "list_encoders", "dump_config", "dry_run", "quiet",
    "distributed", "processes",
)  # fmt: skip
"""Names of the settings that are only for the command line; no config.json has them."""

AnySettings = TypeVar("AnySettings", bound=Settings)


@functools.cache
def _type_for(parts: tuple[type, ...]) -> type[Settings]:
    """Return a subclass of `Settings` with the fields of a preset, of the types of `parts`."""
    fields: list[Any] = [(name, kind) for name, kind in zip(PARTS, parts, strict=True)]
    fields = [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in fields]
    fields.append(("ahead", Annotated[bool, tyro.conf.arg(help=AHEAD)], False))
    made = dataclasses.make_dataclass("Settings", fields, bases=(Settings,), frozen=True)
    made.__doc__ = Settings.__doc__
    return made


def type_for(name: str) -> type[Settings]:
    """Return the class of an environment's settings; see `envs.catalogue.find` for errors."""
    preset = catalogue.find(name)
    if not isinstance(preset, Preset):
        return Settings
    return _type_for(tuple(type(getattr(preset, part)) for part in PARTS))


def defaults_for(name: str, seeing: bool = True) -> Settings:
    """Return the default settings of an environment on this hardware."""
    preset = catalogue.find(name)
    if not isinstance(preset, Preset):
        return Settings(env=name, ppo=FOREIGN)
    parts = {part: getattr(preset, part) for part in PARTS}
    ppo = ACCELERATOR
    if jax.default_backend() == "cpu":
        ppo = CPU_SEEING if seeing else CPU_BLIND
    encoder = Settings.encoder if seeing else BLIND
    return with_physics_named(type_for(name)(env=name, ppo=ppo, encoder=encoder, **parts))


def with_physics_named(settings: Settings) -> Settings:
    """Return the settings with the back end that `auto` is on this machine, instead of `auto`.

    So a run's config.json names it, and its policy is evaluated in the physics it was trained in,
    on any machine. What is no preset decides for itself what `auto` is.
    """
    if settings.physics != "auto" or not isinstance(catalogue.find(settings.env), Preset):
        return settings
    return dataclasses.replace(settings, physics=physics.choose("auto"))


def build(settings: Settings) -> tuple[Env, ActorCritic]:
    """Build the environment and the network; nothing is compiled.

    Raises:
        ValueError: a setting is invalid; one sentence says which and why.
    """
    env = build_env(settings)
    network = make_network(
        env, settings.network, settings.encoder, settings.features, settings.frames
    )
    return env, network


def build_env(settings: Settings) -> Env:
    """Build the environment alone, for what acts without a network.

    Raises:
        ValueError: a setting is invalid; one sentence says which and why.
    """
    check_numbers(settings, large=("ppo.num_timesteps",))
    if settings.video_seconds < 0:
        raise ValueError(f"video_seconds is {settings.video_seconds}; it has to be 0 or more")
    if settings.ppo.image_hue and settings.modality != "rgb":
        # Three stacked images of one channel would be taken for the colours of one.
        raise ValueError(
            f"image_hue is {settings.ppo.image_hue}, but vision.modality is {settings.modality}, "
            f"which has no colours; set it to 0, or use --vision.modality rgb"
        )
    given = {name: getattr(settings, name) for name in (*PARTS, "ahead") if hasattr(settings, name)}
    return catalogue.make(
        settings.env,
        seeing=settings.seeing,
        frames=settings.frames,
        physics=settings.physics,
        **given,
    )


def build_from(plain: Mapping[str, Any]) -> tuple[Env, ActorCritic, PPOConfig]:
    """Build environment, network and `PPOConfig` from a config.json's settings; a `Builder`."""
    settings = from_dict(plain)
    return *build(settings), settings.ppo


def traced_from(settings: Settings, env: Env) -> Sequence[bytes] | None:
    """Return what compiled programs depend on besides settings and code; None if unknown.

    It is unknown with the user's own code, which may read anything while it is traced. And what
    Warp needs to run a program is made in Python while the program is traced.
    """
    inner = getattr(env, "env", env)
    if ":" in settings.encoder or ":" in settings.env or not isinstance(inner, Locomotion):
        return None
    if inner.back_end == "warp":
        return None
    return content(inner.model), content(inner.looks)


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain data for config.json, without `OF_THE_COMMAND`."""
    return {k: v for k, v in to_plain(settings).items() if k not in OF_THE_COMMAND}


def from_dict(data: Any, source: str = "config.json") -> Settings:
    """Return the settings from the result of `to_dict`, including that of release 0.1.

    Raises:
        ValueError: a field is unknown, of the wrong type, or only for the command line.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{source}: settings are {data!r}; they have to be an object with fields")
    if astray := [k for k in OF_THE_COMMAND if k in data]:
        raise ValueError(
            f"{source}: {astray[0]} can only be set on the command line; take it out of the file"
        )
    if isinstance(data.get("env", {}), Mapping):
        data = of_release_0_1(data, source)
    if not isinstance(data["env"], str):
        raise ValueError(f"{source}: env: {data['env']!r} is not a text")
    run_folder.tell_of_code(own_code(data), source)
    return with_physics_named(from_plain(type_for(data["env"]), _completed(data), source))


def differing(one: Mapping[str, Any], two: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the names of the settings that differ, such as ppo.num_timesteps."""
    names = []
    for name in sorted({*one, *two}):
        x, y = one.get(name), two.get(name)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            names += differing(x, y, f"{prefix}{name}.")
        elif x != y:
            names.append(prefix + name)
    return names


def own_code(data: Mapping[str, Any]) -> list[str]:
    """Return the `package.module:object` of environment and encoders that plain settings name."""
    env, encoder = data["env"], data.get("encoder", "")
    names = [env] if env.partition(":")[0] not in catalogue.MAKERS else []
    # A spec that cannot be parsed is refused later, with its position.
    with contextlib.suppress(ValueError):
        chains = specification.parse(encoder).values() if isinstance(encoder, str) else ()
        names += [stage.name for chain in chains for stage in chain]
    return [name for name in names if ":" in name]


def settings_of(name: str) -> Settings:
    """Return the settings of the run that RUN, RUN@STEP or RUN/seed_3 names.

    Raises:
        ValueError: there is no such run, or its settings cannot be read.
    """
    folder, step = run_folder.split_name(name)
    if step and not step.isdigit():
        raise ValueError(f"{name}: {step!r} is no checkpoint's step; write RUN@STEP")
    path, _ = run_folder.split_agent(folder)
    if not path.is_dir():
        raise ValueError(f"there is no run folder {path}; name one, or random")
    return from_dict(run_folder.read_settings(path), str(path))


def _completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain settings whose missing fields are taken from the preset."""
    preset = catalogue.find(data["env"])
    if not isinstance(preset, Preset):
        return dict(data)
    parts = {part: to_plain(getattr(preset, part)) for part in PARTS}
    given = {part: data.get(part, {}) for part in PARTS}
    merged = {k: {**parts[k], **x} if isinstance(x, Mapping) else x for k, x in given.items()}
    return {**data, **merged}


def of_release_0_1(data: Mapping[str, Any], source: str = "config.json") -> dict[str, Any]:
    """Return the settings of a gap ant of release 0.1 under today's names.

    Raises:
        ValueError: a group of settings has no fields.
    """
    new = dict(data)
    old = dict(new.pop("env", {}))
    for name in ("corridor", "reward"):
        if not isinstance(group := old.setdefault(name, {}), Mapping):
            raise ValueError(f"{source}: env.{name}: {group!r} is not an object with fields")
    arena, task = dict(old.pop("corridor")), dict(old.pop("reward"))
    walker = {}
    for place, name in ((arena, "reach"), (old, "reset_noise")):
        if name in place:
            walker[name] = place.pop(name)
    if "healthy_height" in old:
        task["healthy_height"] = old.pop("healthy_height")
    # What is left of `old` was unknown then too, and is named as such.
    return {"env": "gap_ant", "arena": arena, "walker": walker, "task": task, **old, **new}
