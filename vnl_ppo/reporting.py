"""Report a run: metrics to logs, progress to the terminal."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vnl_ppo.evaluation import Watched
from vnl_ppo.events import EventFile
from vnl_ppo.intervals import over_seeds
from vnl_ppo.observations import flatten

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_FLUSHES = 5.0
Metrics = Mapping[str, Any]
"""Metrics by name: a float, or float[S] with a value for each of S agents."""
_COMPARED = ["eval/episode_reward", "eval/episode_length"]


class Log(Protocol):
    """A destination of metrics; for its methods see `vnl_ppo.events.EventFile`."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...  # noqa: D102
    def histogram(self, step: int, name: str, values: np.ndarray) -> None: ...  # noqa: D102
    def image(self, step: int, name: str, image: np.ndarray) -> None: ...  # noqa: D102
    def text(self, step: int, name: str, markdown: str) -> None: ...  # noqa: D102
    def settings(self, settings: Mapping[str, Any], metrics: list[str]) -> None: ...  # noqa: D102
    def flush(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Reporter:
    """Writes metrics to the logs and shows progress: a live bar on a terminal, else plain lines.

    Methods raise OSError if TensorBoard's file cannot be written.

    Args:
        folder: the run's folder; None for a process that reports nothing.
        total_steps: environment steps that the run will take.
        first_step: environment steps taken before this start.
        purge_step: see `EventFile`.
        quiet: whether to print plain lines on a terminal too.
        logs: destinations of metrics besides TensorBoard.
        console: where to print; None for the standard output.
        agents: the agents' names if there are several. An agent's metrics go to a file in a folder
            of its name, so that TensorBoard overlays their curves; means and their 95 % intervals
            go to the file of the run itself.
        shown: evaluation metrics to print besides return and length.
    """

    def __init__(
        self,
        folder: Path | None,
        total_steps: int,
        first_step: int = 0,
        purge_step: int | None = None,
        quiet: bool = False,
        logs: Sequence[Log] = (),
        console: Console | None = None,
        agents: Sequence[str] = (),
        shown: Sequence[str] = (),
    ) -> None:
        self._console = console or Console(quiet=folder is None)
        self._live = self._console.is_terminal and not quiet
        self._logs: list[Log] = [EventFile(folder, purge_step), *logs] if folder else []
        agents = agents if folder else ()
        self._agents = [EventFile(folder / name, purge_step) for name in agents]  # type: ignore[operator]
        self._progress = Progress(
            _Activity(),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[returns]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task(
            "starting", total=total_steps, completed=first_step, rate="", returns="", since=None
        )
        self._total = total_steps
        self._shown = ("episode_reward", "episode_length", *shown)
        self._last_line = self._last_flush = -math.inf

    def __enter__(self) -> "Reporter":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        for log in [*self._logs, *self._agents]:
            # The error that ended the run is not to be replaced by one of closing.
            with contextlib.suppress(OSError) if error else contextlib.nullcontext():
                log.close()

    @contextlib.contextmanager
    def activity(self, what: str) -> Iterator[None]:
        """Show what the program does inside this context, such as compiling, and for how long."""
        start = time.monotonic()
        self._progress.update(self._task, description=what, since=start)
        if not self._live:
            self.line(f"{what} ...")
        yield
        self._progress.update(self._task, description="training", since=None)
        self.line(f"{what}: {time.monotonic() - start:.1f} s")

    def line(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warning(self, text: str) -> None:
        """Print a warning."""
        self._console.print(f"warning: {text}", style="bold yellow", markup=False, soft_wrap=True)

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Log the settings: as a text, and in TensorBoard's table of hyper-parameters."""
        for log in self._logs:
            log.text(0, "config", f"```json\n{json.dumps(settings, indent=2)}\n```")
            log.settings(settings, _COMPARED)

    def scalars(self, step: int, metrics: Metrics) -> None:
        """Log the metrics at an environment step, without those that are NaN."""
        for log in self._logs:
            log.scalars(step, _known(over_all_agents(metrics)))
        for i, log in enumerate(self._agents):
            own = {k: float(x[i]) for k, x in metrics.items() if isinstance(x, np.ndarray)}
            log.scalars(step, _known(own))
        if time.monotonic() - self._last_flush > _SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log an image uint8[H, W, C], C of 1 or 3."""
        for log in self._logs:
            log.image(step, name, image)

    def flush(self) -> None:
        """Write everything to disk."""
        for log in [*self._logs, *self._agents]:
            log.flush()
        self._last_flush = time.monotonic()

    def training(self, step: int, metrics: Metrics, seconds_left: float) -> None:
        """Report a training iteration."""
        self.scalars(step, metrics)
        metrics = over_all_agents(metrics)
        pace = metrics.get("perf/env_steps_per_second", metrics.get("perf/steps_per_second"))
        rate = f"{pace:,.0f} steps/s"
        self._progress.update(self._task, completed=step, rate=rate)
        if not math.isnan(reward := metrics.get("train/episode_reward", math.nan)):
            self._progress.update(self._task, returns=f"return {reward:.1f}")
        now = time.monotonic()
        if not self._live and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            minutes, seconds = divmod(round(seconds_left), 60)
            left = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
            self.line(f"{step:>11,} of {self._total:,} steps  {rate}  {left} left")

    def evaluation(self, step: int, metrics: Metrics, watched: Watched) -> None:
        """Report an evaluation; `watched` has a leading axis of agents."""
        layers = {f"encoder/{k}": np.asarray(x) for k, x in watched.activations.items()}
        self.scalars(step, {**metrics, **layers})
        metrics = over_all_agents(metrics)
        logs: Sequence[Sequence[Log]] = [[log] for log in self._agents] or [self._logs]
        for i, of_agent in enumerate(logs):
            own = jax.tree.map(lambda x: x[i], watched)  # noqa: B023
            for log in of_agent:
                _show(log, step, own)
        values = "  ".join(
            f"{name} {metrics[f'eval/{name}']:.2f}"
            for name in self._shown
            if f"eval/{name}" in metrics
        )
        self.line(f"{step:>11,} steps  evaluation: {values}")


def over_all_agents(metrics: Metrics) -> dict[str, float]:
    """Return metrics as floats; arrays become means and 95 % intervals (see `over_seeds`)."""
    of_agents = {k: x for k, x in metrics.items() if isinstance(x, np.ndarray)}
    return {k: x for k, x in metrics.items() if not isinstance(x, np.ndarray)} | over_seeds(
        of_agents
    )


def _known(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _show(log: Log, step: int, watched: Watched) -> None:
    """Log an agent's actions, values and images in its evaluation."""
    alive = np.asarray(watched.alive)
    log.histogram(step, "eval/action", np.asarray(watched.action)[alive])
    log.histogram(step, "eval/value", np.asarray(watched.value)[alive])
    for name, image in own_views(watched).items():
        log.image(step, f"eval/{name}", image)


def own_views(watched: Watched) -> dict[str, np.ndarray]:
    """Return the images observed in the first episode, its V moments side by side.

    Returns:
        uint8[H, V * W, C] by leaf. Of stacked images the newest is shown: C is 3 if 3 divides the
        number of channels, else 1.
    """
    views = {}
    for name, leaf in flatten(watched.obs).items():
        if leaf.dtype == np.uint8 and leaf.ndim == 5:
            shown = 3 if leaf.shape[-1] % 3 == 0 else 1
            views[name] = np.concatenate(np.asarray(leaf)[:, 0, :, :, -shown:], axis=1)
    return views


class _Activity(ProgressColumn):
    """Shows what the program does now, with a timer while it is not training."""

    def render(self, task: Task) -> Text:
        since = task.fields["since"]
        timer = f" {time.monotonic() - since:.0f} s" if since is not None else ""
        return Text(task.description + timer)
