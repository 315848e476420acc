"""Collect images of an environment in files, as bytes, and draw batches of them.

A folder holds four arrays of NumPy, of T steps of N environments that act at once:

    images.npy   uint8[T, N, H, W, C]
    actions.npy  float32[T, N, A], the action after each image
    targets.npy  float32[T, N, D], the leaves of the observation that a network is to tell, or D = 0
    goes_on.npy  bool[T, N], whether the image of the next step is of the same episode
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vnl_ppo.env import Env
from vnl_ppo.evaluation import Actor
from vnl_ppo.observations import flatten
from vnl_ppo.rollout import advance, is_broken, select, start_episodes

ARRAYS = ("images.npy", "actions.npy", "targets.npy", "goes_on.npy")
_BLOCK = 20
"""Steps that are in memory at a time."""


class Batch(NamedTuple):
    """A batch of images uint8[B, H, W, C], the actions after them float32[B, A], what came then,
    uint8[B, H, W, C], and what is to be told of the images, float32[B, D] of mean 0 and standard
    deviation 1."""

    images: Any
    actions: Any
    after: Any
    targets: Any


def collect(
    env: Env,
    actor: Actor,
    leaf: str,
    folder: Path,
    num_images: int,
    num_envs: int,
    episode_length: int,
    seed: int,
    tracked: Callable[[Iterable[int]], Iterable[int]] = lambda x: x,
    targets: Sequence[str] = (),
) -> None:
    """Let a policy act and write what one leaf of its observations shows.

    The folder gets its name when it is complete; `<name>.part`, which an interrupted collection
    leaves, is begun again.

    Args:
        env: one environment.
        actor: the policy.
        leaf: name of an image of the observation.
        folder: where to write; it must not exist.
        num_images: rounded up to whole blocks of 20 steps of all environments.
        num_envs: N.
        episode_length: steps after which an episode begins anew.
        seed: of episodes and actions.
        tracked: shows the progress of an iteration, such as `rich.progress.track`.
        targets: names of leaves, vectors, to write beside the images.

    Raises:
        FileExistsError: the folder exists.
        OSError: it cannot be written.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists and is never overwritten")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    blocks = -(-num_images // (_BLOCK * num_envs))
    files: dict[str, np.ndarray] = {}
    episodes, step = _stepper(env, actor, leaf, targets, num_envs, episode_length, seed)
    for number in tracked(range(blocks)):
        episodes, found = step(episodes, number)
        for name, x in zip(ARRAYS, jax.device_get(found), strict=True):
            if name not in files:
                files[name] = np.lib.format.open_memmap(
                    part / name, mode="w+", dtype=x.dtype, shape=(blocks * _BLOCK, *x.shape[1:])
                )
            files[name][number * _BLOCK : (number + 1) * _BLOCK] = x
    for x in files.values():
        x.flush()  # type: ignore[attr-defined]
    part.rename(folder)


def _stepper(
    env: Env,
    actor: Actor,
    leaf: str,
    targets: Sequence[str],
    num_envs: int,
    episode_length: int,
    seed: int,
) -> tuple[Any, Callable[[Any, int], tuple[Any, Any]]]:
    """Return first episodes, and a function (episodes, number) -> episodes, arrays [T, N, ...]."""
    key = jax.random.key(seed)
    begin = lambda key: start_episodes(env, jax.random.split(key, num_envs), actor.memory(num_envs))

    @jax.jit
    def block(actor: Actor, episodes: Any, now: jax.Array) -> Any:
        # One new episode for each environment and block, as when training (`vnl_ppo.rollout`).
        fresh = begin(jax.random.fold_in(now, _BLOCK))

        def take_step(episodes: Any, time: jax.Array) -> Any:
            obs = episodes.state.obs
            action, decision = actor.act(obs, jax.random.fold_in(now, time), episodes.memory)
            acted = dataclasses.replace(episodes, memory=decision.memory)
            moved, faults = advance(env, acted, action)
            ends = (moved.state.done > 0) | is_broken(faults) | (moved.length >= episode_length)
            seen = flatten(obs)
            vectors = [jnp.zeros((num_envs, 0)), *(seen[k] for k in targets)]
            found = seen[leaf], action, jnp.concatenate(vectors, axis=-1), ~ends
            return select(ends, fresh, moved), found

        return jax.lax.scan(take_step, episodes, jnp.arange(_BLOCK))

    first = jax.jit(begin)(jax.random.fold_in(key, 2**31 - 1))
    return first, lambda episodes, number: block(actor, episodes, jax.random.fold_in(key, number))


class FrameFiles:
    """Images that `collect` wrote, which stay on disk.

    Every tenth episode is held out: of fewer than ten the last, and of a single one its last tenth.

    Args:
        folder: the folder.

    Raises:
        ValueError: a file is missing or torn, or no two images follow each other.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._images, self._actions, targets, goes_on = (
                np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in ARRAYS
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder} cannot be read ({error}); remove it, and the frames are collected again"
            ) from error
        if len({x.shape[:2] for x in (self._images, self._actions, targets, goes_on)}) > 1:
            raise ValueError(f"{folder}: the files do not belong together; remove the folder")
        times, envs = np.nonzero(goes_on[:-1])
        held_out = _held_out(goes_on, times, envs)
        if not held_out.any() or held_out.all():
            raise ValueError(
                f"{folder} has too few images that follow each other; collect more of them"
            )
        self._kept = {
            kind: (times[here], envs[here]) for kind, here in ((True, held_out), (False, ~held_out))
        }
        known = targets[self._kept[False]]
        # An entry that never changes is 0 then, and not a division by 0.
        self._targets = (targets - known.mean(0)) / np.maximum(known.std(0), 1e-6)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image."""
        return self._images.shape[2:]

    @property
    def action_size(self) -> int:
        """Number of entries of an action."""
        return self._actions.shape[-1]

    def batch(self, seed: tuple[int, ...], size: int, held_out: bool = False) -> Batch:
        """Draw a batch, which depends on the seed alone, with replacement."""
        times, envs = self._kept[held_out]
        chosen = np.random.default_rng(seed).integers(0, len(times), size)
        t, n = times[chosen], envs[chosen]
        return Batch(
            self._images[t, n], self._actions[t, n], self._images[t + 1, n], self._targets[t, n]
        )


def _held_out(goes_on: np.ndarray, times: np.ndarray, envs: np.ndarray) -> np.ndarray:
    """Return bool[n], which of n steps are held out; see `FrameFiles`."""
    before = np.pad(np.cumsum(~goes_on[:-1], axis=0), ((1, 0), (0, 0)))[times, envs]
    _, episodes = np.unique(np.stack([envs, before]), axis=1, return_inverse=True)
    number = episodes.max(initial=-1) + 1
    if number == 1:
        return times >= 0.9 * len(goes_on)
    return episodes % 10 == 9 if number >= 10 else episodes == number - 1
