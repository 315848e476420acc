"""Train a network: run iterations, evaluations, the caller's hook and checkpoints."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vnl_ppo import borrowing, checkpoint, distributed, run_folder
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env, renamed_leaves, shown
from vnl_ppo.evaluation import make_evaluate
from vnl_ppo.health import HealthOfAll, NotFiniteError
from vnl_ppo.interruption import Interrupted, Interruption, catch_signals
from vnl_ppo.ppo import PPO, TrainingState, Weights, make_ppo, over_agents
from vnl_ppo.program_cache import ProgramCache, as_it_is
from vnl_ppo.reporting import Log, Metrics, Reporter, over_all_agents
from vnl_ppo.runtime import check_jax, seconds_since_start
from vnl_ppo.teaching import Teacher

Hook = Callable[[int, Mapping[str, float], TrainingState], Metrics | None]
"""(step, metrics, state) -> more metrics to log, floats or float[num_seeds] by name; or None.

`step` counts environment steps. `metrics` are those logged at this step, as floats: the mean of
several seeds, NaN without a value. Do not keep `state` after the call: its memory is reused.
"""


class StopTraining(Exception):
    """Raise it in a hook to end the training after this iteration; see `train`.

    Args:
        reason: text to print.
        metrics: metrics to log, as those that a hook returns.
    """

    def __init__(self, reason: str = "", metrics: Metrics | None = None) -> None:
        super().__init__(reason)
        self.metrics = metrics


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
    on_iteration: Hook | None = None,
    initial: Mapping[str, np.ndarray] | None = None,
    teacher: Teacher | None = None,
) -> Weights:
    """Train a network in an environment and write everything into the run's folder.

    Every evaluation is followed by a checkpoint, and there are others in between. A resumed run
    continues from the newest intact checkpoint, or begins again if there is none, and ends with the
    same parameters as an uninterrupted one, bit for bit.

    An error between iterations (in an evaluation, a log, the hook) ends the run too, and what was
    learned until then is saved, unless there are several processes.

    A first SIGINT or SIGTERM ends the run after its iteration, with a checkpoint; a second one ends
    it at once.

    A hook can log further metrics and end the training, which saves a checkpoint:

        def probe(step, metrics, state):
            if "eval/episode_reward" not in metrics:
                return None
            error = decoding_error(weights_of(state))
            if error < 0.1:
                raise StopTraining("it sees the gap", {"probe/error": error})
            return {"probe/error": error}

        weights = train(env, network, config, folder, on_iteration=probe)

    Processes connected by `vnl_ppo.distributed.join` train as one run: each calls this, and only
    process 0 writes and prints. To resume, all need access to the run's folder.

    Args:
        env: one environment, without a batch axis.
        network: obs -> (logits, value).
        config: the settings.
        folder: the run's folder, made by `vnl_ppo.run_folder.create`.
        resume: whether to continue from the folder's newest checkpoint.
        checkpoint_config: when checkpoints are saved and which are kept; None for the defaults.
        quiet: whether to print plain lines on a terminal too.
        logs: destinations of metrics besides TensorBoard.
        programs: the cache of compiled programs; None for no cache.
        on_iteration: a `Hook`, called after each iteration and its evaluation, if there is one, and
            after the evaluation before the first iteration. Every process calls it, and if one
            stops, all stop. An exception other than `StopTraining` passes through.
        initial: arrays that the weights of a new run begin with instead of drawn ones, by name, see
            `vnl_ppo.borrowing`; None for none. A run that continues from a checkpoint ignores it.
        teacher: a policy to learn from besides, see `vnl_ppo.teaching`; None for none.

    Returns:
        the trained weights; of several seeds those of the first.

    Raises:
        ValueError: a setting is invalid, the checkpoint is of another network, or another process
            trains in the folder.
        PeerLostError: another process ended.
        Interrupted: a signal came.
        NotFiniteError: the run keeps producing numbers that are not finite; a checkpoint is saved.
        OSError: a checkpoint or the events cannot be written. Earlier checkpoints are unchanged.
    """
    check_jax()
    keep = programs.keep if programs else as_it_is
    ppo = make_ppo(env, network, config, keep=keep, teacher=teacher)
    evaluate = over_agents(make_evaluate(env, network, config), config.num_seeds)
    evaluate = keep("evaluate", jax.jit(evaluate))
    first_process, checkpoints = distributed.is_first(), folder / run_folder.CHECKPOINTS
    warnings: list[str] = []
    hook = _CallersHook(on_iteration)
    # A run that another process trains is left alone before its checkpoints are read.
    with run_folder.alone_in(folder if first_process else None), distributed.watching():
        fresh = not (resume and checkpoint.steps(checkpoints))
        state, done = _begin(
            ppo, env, config, checkpoints if resume else None, warnings.append, initial or {}
        )
        step, total = (n * config.steps_per_iteration for n in (done, config.num_iterations))
        scored = not fresh and checkpoint.is_scored(checkpoints, step)
        distributed.check_same("the checkpoints to go on from", f"{fresh} {done} {scored}")
        if resume and first_process:
            checkpoint.tidy(checkpoints, after=step)
        with (
            _telling_what_is_left(checkpoints, hook),
            Reporter(
                folder if first_process else None,
                total,
                step,
                # A checkpoint is made after what was reported up to its step, which stays.
                purge_step=(0 if fresh else step + 1) if resume else None,
                quiet=quiet,
                logs=logs,
                agents=_agents(config),
                shown=tuple(shown(env)),
            ) as report,
            catch_signals(report.line) as signals,
        ):
            for text in warnings:
                report.warning(text)
            if resume:
                report.line(f"resuming {folder} at step {step:,}")
            if fresh:
                report.settings(run_folder.read_settings(folder) if first_process else {})
            run = _Run(
                ppo, evaluate, config, checkpoints, checkpoint_config or CheckpointConfig(), hook,
                report, signals, state, done,
            )  # fmt: skip
            try:
                # Before the first iteration, or because an error ended the last start before it.
                if done in run.evaluations and not scored:
                    run.finish({})
                while run.goes_on:
                    run.finish(run.iterate())
            except Exception:
                run.rescue()
                raise
    if run.signal:
        raise Interrupted(f"stopped at step {run.step:,} of {total:,}", run.signal)
    return weights_of(run.state)


def check_training(
    env: Env,
    network: nn.Module,
    config: PPOConfig,
    resumed: Path | None = None,
    teacher: Teacher | None = None,
) -> PPO:
    """Raise a ValueError if `train` would, without compiling anything; else return the `PPO`.

    Args:
        env, network, config, teacher: as for `train`.
        resumed: the folder of the run to resume; None for a new run.
    """
    ppo = make_ppo(env, network, config, teacher=teacher)
    if resumed:
        _newest(ppo, env, config, resumed / run_folder.CHECKPOINTS, lambda _: None)
    else:
        jax.eval_shape(ppo.init, config.seed)
    return ppo


def evaluation_iterations(config: PPOConfig) -> set[int]:
    """Return the iterations after which to evaluate: `num_evals`, evenly spread from 0 to the last.

    With one evaluation it is the last.
    """
    spread = np.linspace(config.num_iterations, 0, config.num_evals)
    return {round(iteration) for iteration in spread}


def weights_of(state: TrainingState, agent: int = 0) -> Weights:
    """Return the weights of one agent in a training state."""
    return jax.tree.map(lambda x: x[agent], _on_one_device(state.weights))


class _CallersHook:
    """Calls the caller's hook, and remembers its error, to tell it from errors of `train`."""

    def __init__(self, function: Hook | None) -> None:
        self.function = function
        self.error: Exception | None = None

    def __call__(
        self, step: int, metrics: Metrics, state: TrainingState
    ) -> tuple[dict[str, Any], str | None]:
        """Return metrics to log, and the reason to stop; None to go on."""
        if self.function is None:
            return {}, None
        reason = None
        try:
            found = self.function(step, over_all_agents(metrics), state)
        except StopTraining as stop:
            found, reason = stop.metrics, str(stop)
        except Exception as error:
            self.error = error
            raise
        own = {k: np.asarray(x) if np.ndim(x) else float(x) for k, x in (found or {}).items()}
        return own, reason


@dataclasses.dataclass
class _Run:
    """The state and the tools of a run in progress."""

    ppo: PPO
    evaluate: Callable[..., Any]
    config: PPOConfig
    checkpoints: Path
    keep: CheckpointConfig
    hook: _CallersHook
    report: Reporter
    signals: Interruption
    state: TrainingState
    done: int
    """Number of iterations done, including those before the run was resumed."""

    def __post_init__(self) -> None:
        # Of the evaluation at this step, if there was one.
        self.score: float | None = None
        self.evaluations = evaluation_iterations(self.config)
        # Evaluations draw their episodes from a key of their own: the same episodes every time, and
        # training does not depend on when they happen.
        keys = [jax.random.fold_in(jax.random.key(seed), 1) for seed in _seeds(self.config)]
        self.eval_keys = jnp.stack(keys)
        self.health = HealthOfAll(self.config.steps_per_iteration, _agents(self.config))
        self.first = self.done
        self.last_saved = self.steady_since = time.monotonic()
        self.trained_seconds = 0.0
        self.listen()

    @property
    def step(self) -> int:
        """Environment steps so far."""
        return self.done * self.config.steps_per_iteration

    @property
    def goes_on(self) -> bool:
        """Whether iterations are left, and neither a signal nor a hook has stopped the run."""
        return self.done < self.config.num_iterations and not (self.signal or self.stopped)

    def listen(self, stop: bool = False, due: bool = False) -> bool:
        """Set `signal` and `stopped` from all processes; return whether process 0 has to save."""
        signals, stops, dues = distributed.everyone([self.signals.number, stop, due]).T
        self.signal, self.stopped = int(signals.max()), bool(stops.any())
        return bool(dues[0])

    def iterate(self) -> dict[str, Any]:
        """Train for one iteration, report it and check its numbers."""
        compiles = self.done == self.first
        what = "compiling the training step"
        with self.report.activity(what) if compiles else contextlib.nullcontext():
            start = time.perf_counter()
            self.state, found = self.ppo.step(self.state)
            metrics: dict[str, Any] = {f"train/{k}": x for k, x in jax.device_get(found).items()}
            seconds = time.perf_counter() - start
        self.done += 1
        self.score = None
        if compiles:
            # It contains the compilation, and tells nothing of the speed.
            metrics["perf/first_update_seconds"] = seconds_since_start()
            self.report.scalars(self.step, metrics)
            self.steady_since = time.monotonic()
        else:
            steps = self.config.num_seeds * self.config.steps_per_iteration
            metrics["perf/env_steps_per_second"] = steps / seconds
            self.trained_seconds += seconds
            pace = self.trained_seconds / (self.done - 1 - self.first)
            left = pace * (self.config.num_iterations - self.done)
            self.report.training(self.step, metrics, left)
        try:
            self.health.check(self.step, metrics, self.report.warning)
        except NotFiniteError:
            self.save()
            raise
        return metrics

    def finish(self, metrics: Metrics) -> None:
        """Evaluate if due, call the hook, and save if due, after an iteration."""
        if self.done in self.evaluations:
            what = "compiling the evaluation"
            with self.report.activity(what) if not self.done else contextlib.nullcontext():
                evaluated = self.evaluated()
            self.score = float(evaluated["eval/episode_reward"].mean())
            metrics = {**metrics, **evaluated}
        own, reason = self.hook(self.step, metrics, self.state)
        if own:
            self.report.scalars(self.step, own)
        # A signal or a hook of one process stops all, and the clock of the first counts.
        due = time.monotonic() - self.last_saved > 60 * (self.keep.minutes or 1e9)
        due = self.listen(reason is not None, due)
        if self.stopped:
            why = "by the hook of another process" if reason is None else reason
            self.report.line(f"stopped early at step {self.step:,}: {why}")
        if self.score is not None or self.signal or self.stopped or due:
            self.save()

    def evaluated(self) -> dict[str, Any]:
        """Evaluate, report it and return the metrics."""
        start = time.perf_counter()
        weights = _on_one_device(self.state.weights)
        found, watched = jax.device_get(self.evaluate(weights, self.eval_keys))
        metrics: dict[str, Any] = {f"eval/{k}": x for k, x in found.items()}
        metrics["perf/eval_seconds"] = time.perf_counter() - start
        self.report.evaluation(self.step, metrics, watched)
        return metrics

    def save(self) -> None:
        """Save a checkpoint, unless there is one of this step."""
        start = time.monotonic()
        whole = distributed.whole(self.state)
        if distributed.is_first() and self.step not in checkpoint.steps(self.checkpoints):
            # What a checkpoint says has happened, the events say too.
            self.report.flush()
            checkpoint.save(self.checkpoints, self.step, whole, self.score)
            checkpoint.prune(self.checkpoints, self.keep)
        distributed.wait_for_all()
        self.last_saved = time.monotonic()
        metrics = {"perf/checkpoint_seconds": self.last_saved - start}
        if self.trained_seconds:
            # What evaluations, checkpoints, hooks and logging cost, once all is compiled.
            passed = self.last_saved - self.steady_since
            metrics["perf/overhead"] = 1 - self.trained_seconds / passed
        self.report.scalars(self.step, metrics)

    def rescue(self) -> None:
        """Save what was learned since the last checkpoint, after an error, if that is possible.

        An error inside an iteration leaves no state to save, and several processes could not be
        sure to save the same.
        """
        gone = any(x.is_deleted() for x in jax.tree.leaves(self.state))
        if gone or self.done == self.first or jax.process_count() > 1:
            return
        # The error that ended the run is the one to tell.
        with contextlib.suppress(Exception):
            if self.step not in checkpoint.steps(self.checkpoints):
                state = distributed.whole(self.state)
                checkpoint.save(self.checkpoints, self.step, state, self.score)


def _seeds(config: PPOConfig) -> range:
    return range(config.seed, config.seed + config.num_seeds)


def _agents(config: PPOConfig) -> list[str]:
    """Return the agents' names if there are several, else an empty list."""
    names = [run_folder.agent_folder(seed) for seed in _seeds(config)]
    return names if len(names) > 1 else []


def _on_one_device(weights: Weights) -> Weights:
    """Return the weights on the first device of this process; all devices have the same."""
    return jax.tree.map(lambda x: x.addressable_data(0), weights)


def _begin(
    ppo: PPO,
    env: Env,
    config: PPOConfig,
    checkpoints: Path | None,
    warn: Callable[[str], None],
    initial: Mapping[str, np.ndarray],
) -> tuple[TrainingState, int]:
    """Return the state to train from and its number of iterations done."""
    saved = _newest(ppo, env, config, checkpoints, warn) if checkpoints else None
    if checkpoints is None or saved is None:
        if checkpoints:
            warn(f"{checkpoints} holds no checkpoint: beginning again")
        state = ppo.init(config.seed)
        weights = borrowing.replaced(state.weights, initial, ppo.layout.weights)
        return dataclasses.replace(state, weights=weights), 0
    _, leaves, like = saved
    state = checkpoint.restore(leaves, like, ppo.layout)
    return state, int(state.iteration[0])


def _newest(
    ppo: PPO, env: Env, config: PPOConfig, checkpoints: Path, warn: Callable[[str], None]
) -> tuple[int, checkpoint.Leaves, TrainingState] | None:
    """Return step and checked arrays of the newest intact checkpoint, and the shapes of a state."""
    like = jax.eval_shape(ppo.init, config.seed)
    saved = checkpoint.read_last(checkpoints, warn)
    if saved is None:
        return None
    step, leaves = saved
    leaves = checkpoint.adapt(leaves, like, renamed_leaves(env))
    checkpoint.check(leaves, like, str(checkpoints / str(step)))
    iterations = int(leaves["iteration"][0])
    if step != iterations * config.steps_per_iteration:
        before = step // max(iterations, 1)
        raise ValueError(
            f"an iteration of the run in {checkpoints.parent} takes {before:,} steps, and with "
            f"these settings {config.steps_per_iteration:,}; resume it with its own batch_size, "
            f"num_minibatches and unroll_length, or begin another run from its parameters with "
            f"--init-from"
        )
    return step, leaves, like


@contextlib.contextmanager
def _telling_what_is_left(checkpoints: Path, hook: _CallersHook) -> Iterator[None]:
    """Add to an OSError, unless it is the caller's own, which checkpoint is left to go on from."""
    try:
        yield
    except OSError as error:
        if error is hook.error:
            raise
        saved = checkpoint.steps(checkpoints)
        kept = f"the checkpoint of step {saved[-1]:,} is left" if saved else "no checkpoint exists"
        raise OSError(f"{_of_system(error)}; {kept} to go on from") from error


def _of_system(error: OSError) -> str:
    """Return the system's message, without its error number."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}" if error.strerror else str(error)
