"""Write TensorBoard's event files, without a thread.

tensorboardX's `SummaryWriter` writes from a thread. If the disk is full, that thread dies, its
queue fills up, and training waits for ever; if the process is killed, up to two minutes of events
are lost. Only the summaries and the file format of tensorboardX are used here.
"""

import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

_BINS = 64


class EventFile:
    """A new event file; each start of a run has its own.

    Every method raises OSError if the file cannot be written.

    Args:
        folder: the run's folder, or one in it; made if missing.
        purge_step: TensorBoard drops the events of this step and later ones from the folder's older
            files; None to keep all.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.mkdir(exist_ok=True)
        # tensorboardX names files by whole seconds: two starts within one would share a file.
        self._writer = EventsWriter(os.fspath(folder / "events"), f".{time.time_ns()}")
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(session_log=start), purge_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars by name."""
        for name, value in values.items():
            self._add(step, summary.scalar(name, value))

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """Write a histogram of the finite entries of `values`, any shape."""
        finite = values[np.isfinite(values)]
        if finite.size:
            self._add(step, summary.histogram(name, finite, _BINS))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write uint8[H, W, C], C of 1 or 3."""
        self._add(step, summary.image(name, image, dataformats="HWC"))

    def film(self, step: int, name: str, frames: Sequence[np.ndarray], fps: float) -> None:
        """Write frames uint8[H, W, 3] as an animated GIF of `fps` frames per second."""
        content = io.BytesIO()
        imageio.mimwrite(content, frames, format="gif", duration=1000 / fps, loop=0)  # type: ignore[call-overload]
        height, width, _ = frames[0].shape
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=content.getvalue()
        )
        self._add(step, Summary(value=[Summary.Value(tag=name, image=image)]))

    def text(self, step: int, name: str, markdown: str) -> None:
        """Write a text in Markdown."""
        self._add(step, summary.text(name, markdown))

    def settings(self, settings: Mapping[str, Any], metrics: list[str]) -> None:
        """Write settings to TensorBoard's table of hyper-parameters.

        Args:
            settings: a nested dictionary of plain values and lists.
            metrics: names of the scalars to show beside them.
        """
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in flat(settings).items()
        }
        for part in summary.hparams(plain, dict.fromkeys(metrics, 0.0)):
            self._add(0, part)

    def flush(self) -> None:
        """Write everything to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _add(self, step: int, part: Summary) -> None:
        self._write(Event(summary=part), step)

    def _write(self, event: Event, step: int) -> None:
        event.step = step
        event.wall_time = time.time()
        self._writer.write_event(event)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to one dictionary with dotted names."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result
