"""Store recordings: Zarr stores that are written block by block, and named when they are whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

try:
    import zarr
except ModuleNotFoundError as missing:
    raise SystemExit("error: recordings need Zarr: pip install -e '.[analysis]'") from missing

BLOCK = 25
"""Steps that are held in memory before they are written."""


class Store:
    """A recording that is being written.

    It lies beside its place until it is whole: what was interrupted is called `<name>.part`, and
    opens as a recording whose later steps are not alive.

    Args:
        path: where it goes.
        num_episodes: E.
        length: T, steps of an episode.
        half: whether modules' outputs are float16.
        about: attributes.
        attributes: those of arrays, by name.

    Raises:
        ValueError: there is a part of an earlier recording.
    """

    def __init__(
        self,
        path: Path,
        num_episodes: int,
        length: int,
        half: bool,
        about: Mapping[str, Any],
        attributes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.num_episodes, self.length, self.half = num_episodes, length, half
        self.attributes = dict(attributes or {})
        self.arrays: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.part.exists():
            raise ValueError(
                f"{self.part} exists, what an interrupted recording has left; rename or remove it"
            )
        self.group: Any = zarr.open_group(self.part, mode="w", attributes=dict(about))

    def write(self, episode: int, time: int, block: Mapping[str, Any]) -> None:
        """Write arrays [T, N, ...] of N episodes from `episode` on and T steps from `time` on, in
        their order; arrays without entries are left out."""
        for name, x in block.items():
            x = np.swapaxes(np.asarray(x), 0, 1)
            x = x[: self.num_episodes - episode, : self.length - time]
            if name.startswith("module.") and self.half:
                x = x.astype(np.float16)
            self._put(name, x, (episode, time), (self.num_episodes, self.length), (len(x), BLOCK))

    def write_layouts(self, episode: int, layouts: Mapping[str, np.ndarray]) -> None:
        """Write arrays [N, ...] of N episodes from `episode` on, what differs between episodes."""
        for name, x in layouts.items():
            x = x[: self.num_episodes - episode]
            self._put(f"layout.{name}", x, (episode,), (self.num_episodes,), (len(x),))

    def write_times(self, dt: float) -> None:
        """Write the coordinate `time`, of steps of `dt` seconds."""
        times = dt * np.arange(self.length)
        array = self.group.create_array("time", data=times, dimension_names=["time"])
        array.attrs["units"] = "s"

    def _put(
        self,
        name: str,
        x: np.ndarray,
        first: tuple[int, ...],
        sizes: tuple[int, ...],
        chunks: tuple[int, ...],
    ) -> None:
        """Write x from `first` on, into an array whose first axes have these sizes and chunks."""
        if not x.size:
            return
        name, known = name.replace("/", "."), len(sizes)
        if name not in self.arrays:
            self.arrays[name] = self.group.create_array(
                name,
                shape=(*sizes, *x.shape[known:]),
                chunks=(*chunks, *x.shape[known:]),
                dtype=x.dtype,
                fill_value=np.zeros((), x.dtype)[()],
                attributes=dict(self.attributes.get(name, {})),
                dimension_names=[
                    *("episode", "time")[:known],
                    *(f"{name}_{i}" for i in range(x.ndim - known)),
                ],
            )
        where = (slice(i, i + n) for i, n in zip(first, x.shape, strict=False))
        self.arrays[name][tuple(where)] = x

    def close(self) -> None:
        """Give it its name."""
        self.part.rename(self.path)


def copied(item: Any, target: Any, name: str) -> None:
    """Copy an array into another store."""
    array = target.create_array(
        name,
        shape=item.shape,
        chunks=item.chunks,
        dtype=item.dtype,
        attributes=dict(item.attrs),
        dimension_names=item.metadata.dimension_names,
    )
    for first in range(0, item.shape[0], item.chunks[0]):
        array[first : first + item.chunks[0]] = item[first : first + item.chunks[0]]


def open_arrays(path: Path) -> Any:
    """Open a recording to read its arrays, without xarray."""
    return zarr.open_group(path, mode="r")
