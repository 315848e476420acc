"""Tell a person how a run goes: TensorBoard for later, the terminal for now."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

_SECONDS_BETWEEN_LINES = 30.0


class Reporter:
    """Writes scalars to TensorBoard and shows progress: a live bar, or plain lines in a log file.

    Args:
        folder: of the run.
        total_steps: environment steps that the run will take.
        first_step: where a resumed run begins; events of later steps, written before it was
            broken off, are withdrawn.
        console: where to write.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        first_step: int = 0,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console()
        self._writer = SummaryWriter(str(folder), purge_step=first_step or None, write_to_disk=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            "starting", total=total_steps, completed=first_step, rate=""
        )
        self._total = total_steps
        self._last_line = -math.inf

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
        self._writer.close()

    def status(self, text: str) -> None:
        """Say what the program does now, such as compiling."""
        self._progress.update(self._task, description=text)
        if not self._console.is_terminal:
            self.line(text)

    def line(self, text: str) -> None:
        """Leave a line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def scalars(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics that have a value to TensorBoard at environment step `step`."""
        for name, value in metrics.items():
            if not math.isnan(value):
                self._writer.add_scalar(name, value, step)

    def training(self, step: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        """Report a training iteration."""
        self.scalars(step, metrics)
        rate = f"{metrics['perf/env_steps_per_second']:,.0f} steps/s"
        self._progress.update(self._task, completed=step, rate=rate)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = time.strftime("%H:%M:%S", time.gmtime(seconds_left))
            self.line(f"{step:>11,} of {self._total:,} steps  {rate}  {left} left")

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report an evaluation."""
        self.scalars(step, metrics)
        shown = ("episode_reward", "episode_length", "x_velocity", "gaps_crossed")
        values = "  ".join(
            f"{name} {metrics[f'eval/{name}']:.2f}" for name in shown if f"eval/{name}" in metrics
        )
        self.line(f"{step:>11,} steps  evaluation: {values}")
