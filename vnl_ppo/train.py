"""Train: iterations, evaluations and checkpoints, until the steps are done."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from vnl_ppo import checkpoint, run
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env
from vnl_ppo.evaluation import make_evaluate
from vnl_ppo.ppo import DEVICES, PPO, Metrics, TrainingState, Weights, make_ppo
from vnl_ppo.reporting import Reporter


def train(
    env: Env, network: nn.Module, config: PPOConfig, folder: Path, resume: bool = False
) -> Weights:
    """Train a network in an environment and leave everything in the run's folder.

    Every evaluation is followed by a checkpoint. A run that is resumed goes on from its newest
    checkpoint, or begins again if it was broken off before the first, and ends with the same
    parameters as one that was never broken, bit for bit.

    Args:
        env: one environment, without a batch axis.
        network: obs -> (logits, value).
        config: the settings.
        folder: of the run, made by `vnl_ppo.run.create`.
        resume: whether to go on from the folder's newest checkpoint.

    Returns:
        the trained weights.

    Raises:
        ValueError: a setting cannot be, or the checkpoint is of another network.
    """
    ppo = check_training(env, network, config, folder if resume else None)
    evaluate = make_evaluate(env, network, config)
    checkpoints = folder / run.CHECKPOINTS
    state, done = _begin(ppo, config, checkpoints if resume else None)
    stops = evaluation_iterations(config)
    # Evaluations draw their episodes from a key of their own: the same corridors every time, and
    # training does not depend on when they happen.
    eval_key = jax.random.fold_in(jax.random.key(config.seed), 1)
    total = config.num_iterations * config.steps_per_iteration

    with Reporter(folder, total, done * config.steps_per_iteration) as report:
        if done:
            report.line(f"resuming {folder} at step {done * config.steps_per_iteration:,}")

        def evaluate_and_save() -> None:
            step = done * config.steps_per_iteration
            metrics, seconds = _timed(lambda: evaluate(weights_of(state), eval_key))
            metrics = {f"eval/{k}": v for k, v in metrics.items()}
            report.evaluation(step, metrics | {"perf/eval_seconds": seconds})
            if step not in checkpoint.steps(checkpoints):
                checkpoint.save(checkpoints, step, state)

        if done == 0 and 0 in stops:
            report.status("compiling the evaluation")
            evaluate_and_save()
        report.status("compiling the training step")
        trained_seconds, first = 0.0, done
        while done < config.num_iterations:
            (state, metrics), seconds = _timed_step(ppo, state)
            done += 1
            step = done * config.steps_per_iteration
            metrics = {f"train/{k}": v for k, v in metrics.items()}
            if done == first + 1:
                # It contains the compilation, and tells nothing of the speed.
                report.scalars(step, metrics | {"perf/first_update_seconds": seconds})
                report.status("training")
            else:
                metrics["perf/env_steps_per_second"] = config.steps_per_iteration / seconds
                trained_seconds += seconds
                pace = trained_seconds / (done - first - 1)
                report.training(step, metrics, pace * (config.num_iterations - done))
            if done in stops:
                evaluate_and_save()
    return weights_of(state)


def check_training(
    env: Env, network: nn.Module, config: PPOConfig, resumed: Path | None = None
) -> PPO:
    """Raise a ValueError where `train` would, without compiling anything.

    Args:
        env, network, config: as for `train`.
        resumed: the run folder to go on from, if any.
    """
    ppo = make_ppo(env, network, config)
    state = jax.eval_shape(ppo.init, config.seed)
    if resumed and (saved := checkpoint.steps(resumed / run.CHECKPOINTS)):
        checkpoint.check(resumed / run.CHECKPOINTS, saved[-1], state)
    return ppo


def evaluation_iterations(config: PPOConfig) -> set[int]:
    """The iterations after which to evaluate: `num_evals`, evenly spread, the last too.

    With one evaluation there is only the last.
    """
    spread = np.linspace(config.num_iterations, 0, config.num_evals)
    return {round(iteration) for iteration in spread}


def weights_of(state: TrainingState) -> Weights:
    """The weights of a training state, which every device holds alike, from the first."""
    return jax.tree.map(lambda x: x[0], state.weights)


def _begin(ppo: PPO, config: PPOConfig, checkpoints: Path | None) -> tuple[TrainingState, int]:
    """The state to train from and the iterations it has behind it."""
    state = ppo.init(config.seed)
    saved = checkpoint.steps(checkpoints) if checkpoints else []
    if not saved:
        return state, 0
    state = checkpoint.restore(checkpoints, saved[-1], state, DEVICES)
    return state, int(state.iteration[0])


def _timed_step(ppo: PPO, state: TrainingState):
    start = time.perf_counter()
    state, metrics = ppo.step(state)
    metrics = {k: float(v[0]) for k, v in jax.device_get(metrics).items()}
    return (state, metrics), time.perf_counter() - start


def _timed(function: Callable[[], Metrics]) -> tuple[dict[str, float], float]:
    start = time.perf_counter()
    metrics = {k: float(v) for k, v in jax.device_get(function()).items()}
    return metrics, time.perf_counter() - start
