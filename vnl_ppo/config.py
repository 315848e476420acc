"""The hyper-parameters of PPO, with Brax's names and meanings."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Settings of a PPO run.

    One training iteration collects `batch_size * num_minibatches` unrolls of `unroll_length` steps
    from `num_envs` environments, then takes `num_updates_per_batch * num_minibatches` gradient
    steps on minibatches of `batch_size * unroll_length` transitions.
    """

    num_timesteps: int = 1_000_000
    """Environment steps to train for, rounded up to whole iterations."""
    num_envs: int = 256
    """Number of parallel environments, over all devices."""
    episode_length: int = 400
    """Steps after which an episode is truncated; its last value is then bootstrapped."""
    unroll_length: int = 20
    """Steps of an unroll, at whose end the value is bootstrapped."""
    batch_size: int = 32
    """Number of unrolls in a minibatch."""
    num_minibatches: int = 8
    """Number of minibatches that the data of an iteration are split into."""
    num_updates_per_batch: int = 4
    """Passes (epochs) over the data of an iteration."""
    learning_rate: float = 3e-4
    """Adam's learning rate at the start of the run."""
    learning_rates: tuple[str, ...] = ()
    """PART=FACTOR, such as vision=0.1: learning rates relative to learning_rate. A part is a leaf
    with an encoder, policy, value, core or predictor; 0 freezes it. Empty for 1 everywhere."""
    learning_rate_schedule: Literal["constant", "linear", "adaptive_kl"] = "constant"
    """constant, linear (falls to 0 over the run) or adaptive_kl (keeps the KL near desired_kl)."""
    learning_rate_schedule_min_lr: float = 1e-5
    """Lower bound of the learning rate under adaptive_kl."""
    learning_rate_schedule_max_lr: float = 1e-2
    """Upper bound of the learning rate under adaptive_kl."""
    desired_kl: float = 0.01
    """Target of adaptive_kl for the KL from the policy that acted to the updated one, nats."""
    max_kl: float | None = None
    """KL above which the remaining updates of an iteration are skipped, nats; None for no limit."""
    discounting: float = 0.97
    """Discount factor per step, from 0 to 1."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation, from 0 to 1."""
    clipping_epsilon: float = 0.2
    """The ratio of new to old policy is clipped to within this distance of 1."""
    clipping_epsilon_value: float | None = None
    """The value in the value loss is clipped to within this distance of the old value; None for no
    clipping."""
    entropy_cost: float = 1e-2
    """Weight of the policy's entropy in the loss."""
    entropy_cost_final: float | None = None
    """Entropy weight at the end of the run, approached linearly; None for a constant weight."""
    vf_loss_coefficient: float = 0.5
    """Weight of half the value function's mean squared error in the loss."""
    max_grad_norm: float = 1.0
    """Maximum global norm of the gradient; a larger gradient is scaled down to it."""
    reward_scaling: float = 0.1
    """Factor on rewards for learning; logged returns are unscaled."""
    normalize_observations: bool = True
    """Whether float observations are normalised to mean 0 and variance 1 by running statistics.
    Without, a run that begins from another one (--init-from) keeps that one's statistics, and
    others take observations as they are; either way they are clipped at +-10."""
    normalize_advantage: bool = True
    """Whether the advantages of a minibatch are normalised to mean 0 and variance 1."""
    teacher_weight: float = 1.0
    """Weight of the distance to a teacher (--teacher) in the loss, at the start of the run."""
    teacher_until: float = 0.5
    """Share of the run at which that weight has fallen to 0, linearly; more than 0, up to 1."""
    image_shift: int = 0
    """Largest random shift of images while learning (data augmentation), pixels; 0 for none."""
    image_brightness: float = 0.0
    """Largest random change of images' brightness while learning, as a share of white, 0 to 1."""
    image_contrast: float = 0.0
    """Largest random change of images' contrast while learning, as a share of it, 0 to 1."""
    image_hue: float = 0.0
    """Largest random turn of images' hues while learning, as a share of the circle, 0 to 0.5."""
    image_cutout: int = 0
    """Side of a square that is covered in images while learning, pixels; 0 for none."""
    num_evals: int = 6
    """Number of evaluations, each followed by a checkpoint: the first before and the last after
    training; 1 for the last only."""
    num_eval_envs: int = 32
    """Number of episodes in an evaluation."""
    deterministic_eval: bool = True
    """Whether evaluations use the mode of the policy's distribution instead of samples."""
    env_chunk_size: int = 0
    """Environments of a device that are stepped and rendered at once; 0 for all. Smaller chunks
    need less temporary memory."""
    seed: int = 0
    """Random seed of the run, 0 or more."""
    num_seeds: int = 1
    """Number of independent agents trained together, with the seeds seed, seed + 1, and so on.
    Numbers of environments and steps are per agent."""

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one training iteration."""
        return self.batch_size * self.num_minibatches * self.unroll_length

    @property
    def rate_factors(self) -> dict[str, float]:
        """Factors of `learning_rates` by part; raises a ValueError for one written wrongly."""
        factors: dict[str, float] = {}
        for text in self.learning_rates:
            part, _, number = text.rpartition("=")
            try:
                factor = float(number)
            except ValueError:
                factor = math.nan
            if not part or not 0 <= factor < math.inf:
                raise ValueError(
                    f"learning_rates has {text!r}; write PART=FACTOR with a factor of 0 or more, "
                    f"such as vision=0.1"
                )
            if part in factors:
                raise ValueError(f"learning_rates has {part} twice; give it one factor")
            factors[part] = factor
        return factors

    @property
    def num_unrolls(self) -> int:
        """Number of unrolls of each environment in a training iteration."""
        return self.batch_size * self.num_minibatches // self.num_envs

    @property
    def num_groups(self) -> int:
        """Number of groups of environments, as many as possible. Each gives an equal share to every
        minibatch, so minibatches are the same on any number of devices."""
        return math.gcd(self.num_envs, self.batch_size)

    @property
    def num_iterations(self) -> int:
        """Training iterations of the whole run."""
        return -(-self.num_timesteps // self.steps_per_iteration)


def check(config: PPOConfig, num_devices: int = 1) -> None:
    """Raise a ValueError that names the first invalid setting.

    Args:
        config: the settings.
        num_devices: number of devices that share the environments and each minibatch.
    """
    for name, least in {
        "num_timesteps": 1,
        "num_envs": 1,
        "episode_length": 1,
        "unroll_length": 1,
        "batch_size": 1,
        "num_minibatches": 1,
        "num_updates_per_batch": 1,
        "num_evals": 1,
        "num_eval_envs": 1,
        "image_shift": 0,
        "image_cutout": 0,
        "env_chunk_size": 0,
        "seed": 0,
        "num_seeds": 1,
    }.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} is {getattr(config, name)}; it has to be at least {least}")
    for name in (
        "learning_rate",
        "learning_rate_schedule_min_lr",
        "learning_rate_schedule_max_lr",
        "desired_kl",
        "max_kl",
        "max_grad_norm",
        "clipping_epsilon",
        "clipping_epsilon_value",
        "reward_scaling",
    ):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} is {getattr(config, name)}; it has to be positive and finite")
    for name in ("entropy_cost", "entropy_cost_final", "vf_loss_coefficient", "teacher_weight"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {getattr(config, name)}; it has to be 0 or more")
    for name in ("discounting", "gae_lambda"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it has to lie in [0, 1]")
    if not 0 < config.teacher_until <= 1:
        raise ValueError(f"teacher_until is {config.teacher_until}; it has to lie in (0, 1]")
    for name, most in {"image_brightness": 1, "image_contrast": 1, "image_hue": 0.5}.items():
        if not 0 <= getattr(config, name) <= most:
            raise ValueError(f"{name} is {getattr(config, name)}; it has to lie in [0, {most}]")
    _check_schedule(config)
    _ = config.rate_factors
    if config.unroll_length > config.episode_length:
        raise ValueError(
            f"unroll_length is {config.unroll_length} and episode_length {config.episode_length}; "
            f"an unroll may not be longer than an episode"
        )
    unrolls = config.batch_size * config.num_minibatches
    if unrolls % config.num_envs:
        raise ValueError(
            f"batch_size * num_minibatches is {config.batch_size} * {config.num_minibatches} = "
            f"{unrolls} unrolls, which num_envs = {config.num_envs} does not divide; set "
            f"batch_size to a multiple of num_envs / num_minibatches"
        )
    for name in ("num_envs", "batch_size"):
        if getattr(config, name) % num_devices:
            raise ValueError(
                f"{name} is {getattr(config, name)}, which does not divide over {num_devices} "
                f"devices; make it a multiple of {num_devices}"
            )
    if config.env_chunk_size and (config.num_envs // num_devices) % config.env_chunk_size:
        raise ValueError(
            f"env_chunk_size is {config.env_chunk_size}, which does not divide the "
            f"{config.num_envs // num_devices} environments of a device; use a divisor, or 0"
        )


def _check_schedule(config: PPOConfig) -> None:
    schedule, schedules = config.learning_rate_schedule, ("constant", "linear", "adaptive_kl")
    if schedule not in schedules:
        raise ValueError(
            f"learning_rate_schedule is {schedule!r}; it has to be one of {', '.join(schedules)}"
        )
    lowest, highest = config.learning_rate_schedule_min_lr, config.learning_rate_schedule_max_lr
    if schedule == "adaptive_kl" and not lowest <= config.learning_rate <= highest:
        raise ValueError(
            f"learning_rate is {config.learning_rate}; the adaptive schedule keeps it within "
            f"{lowest} and {highest}; choose a learning_rate within these, or change "
            f"learning_rate_schedule_min_lr and learning_rate_schedule_max_lr"
        )
