"""Films: an episode seen from outside, with what the animal itself saw in a corner."""

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import imageio.v2 as imageio
import jax
import jax.numpy as jnp
import numpy as np

from envs.gap_ant import GapAnt, GapAntData

# imageio starts ffmpeg by fork and exec at once: nothing of JAX's threads is used in between.
warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", module="subprocess")

FRAMES_PER_SECOND = 20
FORMATS = (".mp4", ".gif")
_SUPERSAMPLING = 2
_BORDER = 2


def write_episode(
    env: GapAnt,
    data: GapAntData,
    alive: jax.Array,
    path: Path,
    camera: str = "floating",
    size: tuple[int, int] = (480, 640),
    inset: int = 160,
) -> Path:
    """Film an episode, in real time.

    Args:
        env: where it happened.
        data: leaves [T, ...], the states lived through.
        alive: bool[T], which of them belong to the episode.
        path: the film to write, see `write`.
        camera: the walker's camera that films, by name.
        size: height and width, pixels, multiples of 16 for players' sake.
        inset: height of the animal's own view, pixels; 0 for none.

    Returns:
        `path`.

    Raises:
        FileExistsError: there is such a file.
        ValueError: there is no such camera.
    """
    return write(film(env, data, alive, camera, size, inset), path)


def write(frames: Iterable[np.ndarray], path: Path) -> Path:
    """Write frames uint8[H, W, 3], `FRAMES_PER_SECOND` of them a second.

    Args:
        frames: the film.
        path: an mp4 or a gif. It appears when it is complete; one that exists is not touched.

    Raises:
        FileExistsError: there is such a file.
        ValueError: its name has another ending.
    """
    check_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    if path.suffix == ".mp4":
        writer = imageio.get_writer(part, fps=FRAMES_PER_SECOND, codec="libx264", quality=6)
    else:
        writer = imageio.get_writer(part, duration=1000 / FRAMES_PER_SECOND, loop=0)
    with writer:
        for frame in frames:
            writer.append_data(frame)
    os.replace(part, path)
    return path


def check_path(path: Path) -> None:
    """Raise where `write` would refuse to write to `path`."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path} is no film's name; it has to end in {' or '.join(FORMATS)}")
    if path.exists():
        raise FileExistsError(f"{path} exists; films are never overwritten")


def film(
    env: GapAnt,
    data: GapAntData,
    alive: jax.Array,
    camera: str,
    size: tuple[int, int],
    inset: int,
    speed: float = 1.0,
) -> Iterator[np.ndarray]:
    """Frames uint8[H, W, 3], `FRAMES_PER_SECOND / speed` of them per second of the episode."""
    outside = env.camera(camera, size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING)
    inside = env.eye or env.camera("egocentric", 64, 64)

    @jax.jit
    def pictures(state: GapAntData) -> tuple[jax.Array, jax.Array]:
        return _average(env.draw(state, outside)), env.draw(state, inside)

    states = int(np.asarray(alive).sum())
    every = speed / (FRAMES_PER_SECOND * env.dt)
    for index in np.arange(0, states, every).astype(int):
        frame, eye = pictures(jax.tree.map(lambda x, i=index: x[i], data))
        frame = np.array(frame)
        if inset:
            _paste(frame, np.asarray(eye), inset)
        yield frame


def side_by_side(left: Iterable[np.ndarray], right: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Two films of one height as one; the shorter stands still at its end."""
    last: list[np.ndarray | None] = [None, None]
    for pair in itertools.zip_longest(left, right):
        last = [frame if frame is not None else old for frame, old in zip(pair, last, strict=True)]
        yield np.concatenate([frame for frame in last if frame is not None], axis=1)


def _average(image: jax.Array) -> jax.Array:
    """Each pixel the mean of `_SUPERSAMPLING`^2: edges are smooth."""
    k = _SUPERSAMPLING
    h, w = image.shape[0] // k, image.shape[1] // k
    blocks = image.reshape(h, k, w, k, 3).astype(jnp.float32)
    return jnp.round(blocks.mean((1, 3))).astype(jnp.uint8)


def _paste(frame: np.ndarray, eye: np.ndarray, height: int) -> None:
    """Put the animal's view, enlarged without smoothing, into the upper right corner."""
    rows = np.arange(height) * eye.shape[0] // height
    width = height * eye.shape[1] // eye.shape[0]
    columns = np.arange(width) * eye.shape[1] // width
    top, right = 16, frame.shape[1] - 16
    frame[top - _BORDER : top + height + _BORDER, right - width - _BORDER : right + _BORDER] = 255
    frame[top : top + height, right - width : right] = eye[rows][:, columns]
