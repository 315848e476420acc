"""Train: iterations, evaluations and checkpoints, until the steps are done."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vnl_ppo import checkpoint, distributed, run_folder
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env
from vnl_ppo.evaluation import make_watched_evaluate
from vnl_ppo.health import HealthOfAll, NotFiniteError
from vnl_ppo.interruption import Interrupted, catch_signals
from vnl_ppo.ppo import PPO, TrainingState, Weights, make_ppo, over_agents
from vnl_ppo.program_cache import ProgramCache, as_it_is
from vnl_ppo.reporting import Log, Reporter
from vnl_ppo.runtime import seconds_since_start


def train(
    env: Env,
    network: nn.Module,
    config: PPOConfig,
    folder: Path,
    resume: bool = False,
    checkpoint_config: CheckpointConfig | None = None,
    quiet: bool = False,
    logs: Sequence[Log] = (),
    programs: ProgramCache | None = None,
) -> Weights:
    """Train a network in an environment and leave everything in the run's folder.

    Every evaluation is followed by a checkpoint, and there are others in between. A run that is
    resumed goes on from the newest one that is whole, or begins again if it was broken off before
    the first, and ends with the same parameters as one that was never broken, bit for bit.

    A first SIGINT or SIGTERM ends the run after its iteration, with a checkpoint; a second one at
    once.

    Several processes joined by `vnl_ppo.distributed.join` train as one: each calls this, and the
    first alone writes and prints. To resume, all have to see the run's folder.

    Args:
        env: one environment, without a batch axis.
        network: obs -> (logits, value).
        config: the settings.
        folder: of the run, made by `vnl_ppo.run_folder.create`.
        resume: whether to go on from the folder's newest checkpoint.
        checkpoint_config: when checkpoints are made and which are kept.
        quiet: whether to give plain lines on a terminal too.
        logs: where metrics go besides TensorBoard.
        programs: where compiled programs are kept whole; by default they are not.

    Returns:
        the trained weights; of many seeds those of the first.

    Raises:
        ValueError: a setting cannot be, or the checkpoint is of another network.
        PeerLostError: another process ended.
        Interrupted: a signal came.
        NotFiniteError: the run only produces numbers that are not finite; a checkpoint is made.
        OSError: a checkpoint or the events cannot be written. The last checkpoint is as it was.
    """
    keep_program = programs.keep if programs else as_it_is
    ppo = make_ppo(env, network, config, keep=keep_program)
    evaluate = over_agents(make_watched_evaluate(env, network, config), config.num_seeds)
    evaluate = keep_program("evaluate", jax.jit(evaluate))
    keep = checkpoint_config or CheckpointConfig()
    seeds = range(config.seed, config.seed + config.num_seeds)
    agents = [run_folder.agent_folder(seed) for seed in seeds] if config.num_seeds > 1 else []
    first_process = distributed.is_first()
    checkpoints = folder / run_folder.CHECKPOINTS
    stops = evaluation_iterations(config)
    # Evaluations draw their episodes from a key of their own: the same corridors every time, and
    # training does not depend on when they happen.
    eval_keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds])
    size = config.steps_per_iteration
    total = config.num_iterations * size
    health = HealthOfAll(size, agents)
    warnings: list[str] = []
    fresh = not (resume and checkpoint.steps(checkpoints))
    state, done = _begin(ppo, config, checkpoints if resume else None, warnings.append)
    distributed.check_same("the checkpoints to go on from", f"{fresh} {done}")
    # What was reported up to its checkpoint stays, a checkpoint being made after its evaluation.
    purge = (0 if fresh else done * size + 1) if resume else None

    try:
        with (
            Reporter(
                folder if first_process else None,
                total,
                done * size,
                purge,
                quiet,
                logs,
                agents=agents,
            ) as report,
            catch_signals(report.line) as asked,
            distributed.watching(),
        ):
            for text in warnings:
                report.warning(text)
            if resume:
                report.line(f"resuming {folder} at step {done * size:,}")
            if fresh:
                report.settings(run_folder.read_settings(folder) if first_process else {})
            last_saved = steady_since = time.monotonic()
            trained_seconds, first = 0.0, done

            def save(score: float | None = None) -> None:
                nonlocal last_saved
                start = time.monotonic()
                whole = distributed.whole(state)
                if first_process and done * size not in checkpoint.steps(checkpoints):
                    # What a checkpoint says has happened, the events say too.
                    report.flush()
                    checkpoint.save(checkpoints, done * size, whole, score)
                    checkpoint.prune(checkpoints, keep)
                distributed.wait_for_all()
                last_saved = time.monotonic()
                metrics = {"perf/checkpoint_seconds": last_saved - start}
                if trained_seconds:
                    # What evaluations, checkpoints and logging cost, once all is compiled.
                    metrics["perf/overhead"] = 1 - trained_seconds / (last_saved - steady_since)
                report.scalars(done * size, metrics)

            def evaluate_and_save() -> None:
                start = time.perf_counter()
                found, watched = jax.device_get(evaluate(_on_one_device(state.weights), eval_keys))
                metrics: dict[str, Any] = {f"eval/{k}": v for k, v in found.items()}
                metrics["perf/eval_seconds"] = time.perf_counter() - start
                report.evaluation(done * size, metrics, watched)
                save(float(metrics["eval/episode_reward"].mean()))

            if fresh and 0 in stops:
                with report.activity("compiling the evaluation"):
                    evaluate_and_save()
            stop = int(distributed.everyone([asked.number]).max())
            while done < config.num_iterations and not stop:
                if done == first:
                    # It contains the compilation, and tells nothing of the speed.
                    with report.activity("compiling the training step"):
                        (state, metrics), _ = _timed_step(ppo.step, state)
                    metrics["perf/first_update_seconds"] = seconds_since_start()
                    report.scalars((done + 1) * size, metrics)
                    steady_since = time.monotonic()
                else:
                    (state, metrics), seconds = _timed_step(ppo.step, state)
                    metrics["perf/env_steps_per_second"] = config.num_seeds * size / seconds
                    trained_seconds += seconds
                    pace = trained_seconds / (done - first)
                    left = pace * (config.num_iterations - done - 1)
                    report.training((done + 1) * size, metrics, left)
                done += 1
                try:
                    health.check(done * size, metrics, report.warning)
                except NotFiniteError:
                    save()
                    raise
                # A signal that came to one process stops all, and the clock of the first counts.
                due = time.monotonic() - last_saved > 60 * (keep.minutes or 1e9)
                asked_of, due_in = distributed.everyone([asked.number, due]).T
                stop = int(asked_of.max())
                if done in stops:
                    evaluate_and_save()
                elif stop or due_in[0]:
                    save()
    except OSError as error:
        saved = checkpoint.steps(checkpoints)
        kept = f"the checkpoint of step {saved[-1]:,} is there" if saved else "no checkpoint is"
        raise OSError(f"{_of_system(error)}; {kept} to go on from") from error
    if stop:
        raise Interrupted(f"stopped at step {done * size:,} of {total:,}", stop)
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
    if resumed and (
        saved := checkpoint.read_last(resumed / run_folder.CHECKPOINTS, lambda _: None)
    ):
        step, leaves = saved
        checkpoint.check(leaves, state, str(resumed / run_folder.CHECKPOINTS / str(step)))
    return ppo


def evaluation_iterations(config: PPOConfig) -> set[int]:
    """The iterations after which to evaluate: `num_evals`, evenly spread, the last too.

    With one evaluation there is only the last.
    """
    spread = np.linspace(config.num_iterations, 0, config.num_evals)
    return {round(iteration) for iteration in spread}


def weights_of(state: TrainingState, agent: int = 0) -> Weights:
    """The weights of one agent in a training state."""
    return jax.tree.map(lambda x: x[agent], _on_one_device(state.weights))


def _on_one_device(weights: Weights) -> Weights:
    """Weights as the first device of this process has them; all have the same."""
    return jax.tree.map(lambda x: x.addressable_data(0), weights)


def _begin(
    ppo: PPO, config: PPOConfig, checkpoints: Path | None, warn: Callable[[str], None]
) -> tuple[TrainingState, int]:
    """The state to train from and the iterations it has behind it."""
    if checkpoints is None:
        return ppo.init(config.seed), 0
    saved = checkpoint.read_last(checkpoints, warn)
    if saved is None:
        warn(f"{checkpoints} holds no checkpoint: beginning again")
        return ppo.init(config.seed), 0
    step, leaves = saved
    like = jax.eval_shape(ppo.init, config.seed)
    checkpoint.check(leaves, like, str(checkpoints / str(step)))
    checkpoint.set_aside(checkpoints, after=step)
    state = checkpoint.restore(leaves, like, ppo.layout)
    return state, int(state.iteration[0])


def _timed_step(
    step: Callable[..., Any], state: TrainingState
) -> tuple[tuple[TrainingState, dict[str, Any]], float]:
    start = time.perf_counter()
    state, metrics = step(state)
    numbers = {f"train/{k}": v for k, v in jax.device_get(metrics).items()}
    return (state, numbers), time.perf_counter() - start


def _of_system(error: OSError) -> str:
    """What the system says, without its number."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}" if error.strerror else str(error)
