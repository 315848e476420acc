"""Make videos of episodes from outside, with an inset of what the walker saw."""

import itertools
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import imageio.v2 as imageio
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera import Camera

# imageio starts ffmpeg by fork and exec at once: nothing of JAX's threads is used in between.
warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", module="subprocess")

FRAMES_PER_SECOND = 20
FORMATS = (".mp4", ".gif")
MARKS = {
    "contacts": mujoco.mjtVisFlag.mjVIS_CONTACTPOINT,
    "joints": mujoco.mjtVisFlag.mjVIS_JOINT,
    "com": mujoco.mjtVisFlag.mjVIS_COM,
}
_MARK_SIZE = 0.5
"""MuJoCo's `meansize`, by which it scales marks, metres: about the size of an ant."""
_SUPERSAMPLING = 2
_BORDER = 2
_MARGIN = 16
"""Pixels between the inset and the edges of the frame."""


class Filmed(Protocol):
    """An environment that can be filmed. `data` is the `vnl_ppo.env.State.data` of its states.

    Attributes:
        dt: duration of a control step, seconds.
        cameras: names of the cameras.
        film_camera: name of the camera that films by default.
    """

    dt: float
    cameras: tuple[str, ...]
    film_camera: str

    @property
    def eyes(self) -> Mapping[str, Camera]:
        """The cameras that the policy sees through, by leaf of the observation."""
        ...

    def camera(self, name: str, height: int, width: int) -> Camera:
        """Return one of `cameras`, with images of `height` x `width` pixels."""
        ...

    def draw(self, data: Any, camera: Camera) -> jax.Array:
        """Draw the image uint8[H, W, 3] that `camera` takes of one state."""
        ...

    def whole(self, data: Any) -> mujoco.MjModel:
        """Return the model of everything in the episode of one state."""
        ...

    def arrange(self, model: mujoco.MjModel, data: Any) -> None:
        """Move what moves without joints, in a model from `whole`, to where it is in a state; may
        be left out if nothing does."""
        ...

    def tracked(self, model: mujoco.MjModel) -> int:
        """Return the id of the body that a viewer follows, in a model from `whole`."""
        ...

    def joints(self, data: Any) -> tuple[jax.Array, jax.Array]:
        """Return `qpos` and `qvel` of states, float32[..., nq] and float32[..., nv]."""
        ...


def view_of(env: Any) -> Filmed | None:
    """Return the environment itself if it is a `Filmed`, else its attribute `view`, or None."""
    if all(hasattr(env, name) for name in ("camera", "draw", "whole", "joints")):
        return env
    return getattr(env, "view", None)


def filmed(env: Any) -> Filmed:
    """Return the `Filmed` of an environment; see `view_of`.

    Raises:
        ValueError: it has none.
    """
    if (view := view_of(env)) is None:
        raise ValueError(
            f"{type(env).__name__} cannot be filmed: it has no MuJoCo model; give it the methods "
            f"of envs.film.Filmed, or an attribute `view` that has them"
        )
    return view


def arrange(env: Filmed, model: mujoco.MjModel, data: Any) -> None:
    """Call `Filmed.arrange`, if the environment has it."""
    if hasattr(env, "arrange"):
        env.arrange(model, data)


def write(frames: Iterable[np.ndarray], path: Path) -> Path:
    """Write a video of frames uint8[H, W, 3], `FRAMES_PER_SECOND` per second; return `path`.

    Args:
        frames: the frames in order, all of one size.
        path: an .mp4 or .gif, which appears when it is complete.

    Raises:
        FileExistsError: the file exists; it is not changed.
        ValueError: the file name has another ending.
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
    """Raise the exception with which `write` would refuse to write to `path`, if any."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path} is no video file; its name has to end in {' or '.join(FORMATS)}")
    if path.exists():
        raise FileExistsError(f"{path} exists; videos are never overwritten; name another file")


def film(
    env: Filmed,
    data: Any,
    alive: jax.Array,
    camera: str,
    size: tuple[int, int],
    inset: int,
    speed: float = 1.0,
) -> Iterator[np.ndarray]:
    """Draw the frames of a video of an episode, with an inset of what the walker saw.

    Args:
        env: the environment of the episode.
        data: `State.data` of T states in a row, leaves [T, ...].
        alive: bool[T], which of them belong to the episode.
        camera: name of the camera that films.
        size: height and width, pixels; multiples of 16, which some video players need.
        inset: height of the inset, the image of the first eye, pixels; 0 for none.
        speed: 1 for real time, 0.5 for half as fast.

    Yields:
        uint8[H, W, 3], `FRAMES_PER_SECOND / speed` for each second of the episode.

    Raises:
        ValueError: there is no such camera.
    """
    outside = env.camera(camera, size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING)
    inside = next(iter(env.eyes.values()), None)

    @jax.jit
    def pictures(state: Any) -> list[jax.Array]:
        seen = [] if inside is None or not inset else [env.draw(state, inside)]
        return [_average(env.draw(state, outside)), *seen]

    for index in frame_indices(alive, env.dt, speed):
        frame, *eye = map(np.array, pictures(jax.tree.map(lambda x, i=index: x[i], data)))
        if eye:
            _paste(frame, eye[0], inset)
        yield frame


def marked_film(
    env: Filmed,
    data: Any,
    alive: jax.Array,
    camera: str,
    size: tuple[int, int],
    marks: Collection[str],
    speed: float = 1.0,
) -> Iterator[np.ndarray]:
    """Draw frames by MuJoCo's own renderer, which can mark contacts, joints and centres of mass.

    Args:
        env, data, alive, camera, size, speed: as for `film`.
        marks: names in `MARKS`. Bodies are drawn transparent, so that marks inside them show.

    Yields:
        frames as from `film`, of the whole layout, without an inset.

    Raises:
        ValueError: a mark is unknown, or OpenGL does not work here.
    """
    if unknown := sorted(set(marks) - set(MARKS)):
        raise ValueError(f"there is no mark {unknown[0]!r}; there are {', '.join(MARKS)}")
    model = env.whole(jax.tree.map(lambda x: x[0], data))
    seen = env.camera(camera, *size)
    model.vis.global_.offheight, model.vis.global_.offwidth = size
    # MuJoCo scales marks by the mean size of all bodies, platforms among them.
    model.stat.meansize = _MARK_SIZE
    options = mujoco.MjvOption()
    options.flags[mujoco.mjtVisFlag.mjVIS_TRANSPARENT] = True
    for mark in marks:
        options.flags[MARKS[mark]] = True
    try:
        renderer = mujoco.Renderer(model, *size)
    except Exception as error:
        # Each of EGL, OSMesa and GLFW fails with a class of its own.
        raise ValueError(
            f"marks are drawn by OpenGL, which does not work here ({error!r}); set MUJOCO_GL to "
            f"egl or osmesa if that is installed, or film without marks"
        ) from error
    qpos, qvel = map(np.asarray, env.joints(data))
    state = mujoco.MjData(model)
    with renderer:
        for index in frame_indices(alive, env.dt, speed):
            arrange(env, model, jax.tree.map(lambda x, i=index: x[i], data))
            state.qpos[:], state.qvel[:] = qpos[index], qvel[index]
            mujoco.mj_forward(model, state)
            renderer.update_scene(state, seen.name or seen.number, options)
            yield renderer.render()


def frame_indices(alive: jax.Array, dt: float, speed: float) -> np.ndarray:
    """Return the indices of the states to draw as frames, int[K]."""
    return np.arange(0, int(np.asarray(alive).sum()), speed / (FRAMES_PER_SECOND * dt)).astype(int)


def side_by_side(left: Iterable[np.ndarray], right: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Join the frames of two videos of one height; the shorter one repeats its last frame."""
    last: list[np.ndarray | None] = [None, None]
    for pair in itertools.zip_longest(left, right):
        last = [frame if frame is not None else old for frame, old in zip(pair, last, strict=True)]
        yield np.concatenate([frame for frame in last if frame is not None], axis=1)


def _average(image: jax.Array) -> jax.Array:
    """Average blocks of `_SUPERSAMPLING`^2 pixels, for smooth edges."""
    k = _SUPERSAMPLING
    h, w = image.shape[0] // k, image.shape[1] // k
    blocks = image.reshape(h, k, w, k, 3).astype(jnp.float32)
    return jnp.round(blocks.mean((1, 3))).astype(jnp.uint8)


def _paste(frame: np.ndarray, eye: np.ndarray, height: int) -> None:
    """Put the image `eye`, enlarged without smoothing, into the upper right corner of `frame`.

    A wide image is less than `height` high where the frame has no room for it.
    """
    room = frame.shape[1] - 2 * _MARGIN
    width = min(room, max(1, height * eye.shape[1] // eye.shape[0]))
    height = min(height, max(1, width * eye.shape[0] // eye.shape[1]))
    rows = np.arange(height) * eye.shape[0] // height
    columns = np.arange(width) * eye.shape[1] // width
    top, right = _MARGIN, frame.shape[1] - _MARGIN
    frame[top - _BORDER : top + height + _BORDER, right - width - _BORDER : right + _BORDER] = 255
    frame[top : top + height, right - width : right] = eye[rows][:, columns]
