"""Film an animal beside the pixels that its action, or the value of its state, depends on.

    python experiments/saliency.py runs/mine --output film.mp4
    python experiments/saliency.py runs/mine@0 --of value --samples 0

The map is the gradient with respect to the image (Simonyan et al. 2013, arXiv:1312.6034), averaged
over copies of it with noise (SmoothGrad, Smilkov et al. 2017, arXiv:1706.03825): for a number s of
the network, image x with pixels from 0 to 1, and N copies,

    m = max over channels | 1/N sum_i ds/dx (x + sigma e_i) |,    e_i standard normal.

It is drawn in red over the image, 0 transparent and the 99th percentile of the film opaque. How
much a pixel matters to a small change is not what happens without it: see `--lesion` of render.py.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from envs.film import check_path, film, filmed, frame_indices, side_by_side, write
from experiments.players import RANDOM, Options, load_policy, parse
from experiments.render import camera_name
from vnl_ppo import distributions, run_folder
from vnl_ppo.env import Env
from vnl_ppo.evaluation import Actor
from vnl_ppo.loading import Policy
from vnl_ppo.observations import flatten
from vnl_ppo.policy import Weights, apply
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.rollout import advance, is_broken, select, start_episodes
from vnl_ppo.run_folder import split_name
from vnl_ppo.runtime import keep_compilations


@dataclasses.dataclass(frozen=True)
class SaliencyOptions(Options):
    """Options of `saliency.py`, which films one run."""

    output: Path | None = None
    """Path of the .mp4 or .gif to write, which must not exist; None for one in videos/."""
    of: Literal["action", "value"] = "action"
    """Number of the network: the norm of the action, or the value."""
    leaf: str = ""
    """Image of the observation; empty for the first."""
    samples: int = 16
    """N, copies of the image with noise; 0 for the gradient at the image itself."""
    noise: float = 0.1
    """Sigma, the standard deviation of the noise; pixels are from 0 to 1."""
    camera: str = ""
    """Name or number of the camera that films; empty for the environment's default."""
    seconds: float = 10.0
    """Maximum length of the filmed episode, seconds."""
    speed: float = 1.0
    """Speed of the video: 1 for real time, 0.5 for half as fast."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the film of the animal, pixels; multiples of 16."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        if len(self.policies) != 1 or self.policies[0] == RANDOM or self.lesions:
            raise ValueError("name one run, without lesions")
        if self.samples < 0:
            raise ValueError(f"--samples is {self.samples}; it has to be 0 or more")
        for name in ("noise", "seconds", "speed"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} is {getattr(self, name)}; it has to be above 0")
        if min(self.size) < 16 or any(x % 16 for x in self.size):
            raise ValueError(f"--size is {self.size}; both have to be multiples of 16 pixels")


def main() -> None:
    """Film and print the path of the video."""
    try:
        options, world = parse(SaliencyOptions, sys.argv[1:], __doc__)
        policy = load_policy(options.policies[0], world)
        path = options.output or default_output(options, policy.step)
        check_path(path)
        leaf = image_of(policy, options.leaf)
        keep_compilations()
        write(frames(policy, leaf, options), path)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"saliency of {options.of}: {path}")


def default_output(options: SaliencyOptions, step: int) -> Path:
    """Return where the film of a run goes."""
    folder, _ = run_folder.split_agent(split_name(options.policies[0])[0])
    return folder / run_folder.VIDEOS / f"{step}-saliency-{options.of}-seed{options.seed}.mp4"


def image_of(policy: Policy, leaf: str) -> str:
    """Return the name of an image of the observation.

    Raises:
        ValueError: there is no such image.
    """
    spec = flatten(policy.env.observation_spec)
    images = [name for name, x in spec.items() if x.dtype == jnp.uint8 and len(x.shape) == 3]
    if not images:
        raise ValueError(f"the policy is blind: its observation has {', '.join(spec)}")
    if leaf not in ("", *images):
        raise ValueError(f"--leaf is {leaf!r}, which is no image; there are {', '.join(images)}")
    return leaf or images[0]


def saliency(
    network: nn.Module,
    weights: Weights,
    of: str,
    leaf: str,
    obs: Any,
    memory: Any,
    key: jax.Array,
    samples: int,
    noise: float,
    white: float = 1.0,
) -> jax.Array:
    """Return the map float32[H, W] of one observation; see the module.

    Args:
        network, weights: of the policy.
        of: action or value.
        leaf: name of the image uint8[H, W, C].
        obs: leaves by name, without batch axes.
        memory: of the policy, leaves [1, ...].
        key: of the noise.
        samples: N; 0 for no noise.
        noise: its standard deviation.
        white: see `white_of`.
    """
    number = lambda image: number_of(network, weights, of, {**obs, leaf: white * image}, memory)
    image = obs[leaf].astype(jnp.float32) / 255
    if samples:
        images = image + noise * jax.random.normal(key, (samples, *image.shape))
        gradient = jax.lax.map(jax.grad(number), images).mean(axis=0)
    else:
        gradient = jax.grad(number)(image)
    return jnp.abs(gradient).max(axis=-1)


def number_of(network: nn.Module, weights: Weights, of: str, obs: Any, memory: Any) -> jax.Array:
    """Return the norm of the action, or the value, of one observation, float32[]."""
    batch = {k: x[None] for k, x in obs.items()}
    logits, value, _ = apply(network, weights, batch, memory)
    if of == "value":
        return value[0]
    action = distributions.of(network).squash(distributions.normal(logits).mode())
    # A norm of 0 has no gradient.
    return jnp.sqrt(jnp.square(action).sum() + 1e-12)


def white_of(network: nn.Module, weights: Weights, leaf: str, obs: Any, memory: Any) -> float:
    """Return which number the network takes for white in an image of floats: 1 or 255.

    Gradients need floats, while a policy is trained on bytes. This project's encoders take floats
    from 0 to 1; one of a user's may divide whatever it gets by 255.

    Args:
        network, weights: of the policy.
        leaf: name of the image uint8[H, W, C].
        obs: leaves by name, without batch axes.
        memory: of the policy, leaves [1, ...].

    Raises:
        ValueError: neither gives the value and the action of the same image in bytes.
    """
    # Of noise, which has every brightness.
    image = np.random.default_rng(0).integers(0, 256, obs[leaf].shape, np.uint8)
    numbers = lambda x: np.array(
        [number_of(network, weights, of, {**obs, leaf: x}, memory) for of in ("action", "value")]
    )
    wanted = numbers(jnp.asarray(image))
    for white in (1.0, 255.0):
        if np.allclose(numbers(jnp.asarray(image / 255 * white, jnp.float32)), wanted, 1e-3, 1e-4):
            return white
    raise ValueError(
        f"the encoder of {leaf} makes other features of floats than of bytes; let it take floats "
        f"from 0 to 1, or to 255, as what they are"
    )


def act(env: Env, actor: Actor, key: jax.Array, length: int) -> tuple[Any, Any, Any, jax.Array]:
    """Let a policy act for at most T steps.

    Returns:
        of T states the environment's `data`, the observations by name, the policy's memory (leaves
        [T, ...], [T, ...], [T, 1, ...]), and bool[T], which of them belong to the episode.
    """
    first = start_episodes(env, jax.random.split(key, 1), actor.memory(1))

    def take_step(carry: Any, key: jax.Array) -> Any:
        episodes, over = carry
        state, memory = episodes.state, episodes.memory
        action, decision = actor.act(state.obs, key, memory)
        acted = dataclasses.replace(episodes, memory=decision.memory)
        moved, faults = advance(env, acted, action)
        ends = (moved.state.done > 0) | is_broken(faults)
        now = (state.data, flatten(state.obs)), memory, ~over
        return (select(over, episodes, moved), over | ends), now

    _, ((data, obs), memory, alive) = jax.lax.scan(
        take_step, (first, jnp.zeros(1, bool)), jax.random.split(key, length)
    )
    data, obs = jax.tree.map(lambda x: x[:, 0], (data, obs))
    return data, obs, memory, alive[:, 0]


def frames(policy: Policy, leaf: str, options: SaliencyOptions) -> Iterator[np.ndarray]:
    """Return the frames of the film: the animal, and what it sees with the map."""
    env = filmed(policy.env)
    camera = camera_name(env, options.camera)
    length = max(1, round(options.seconds / env.dt))
    key = jax.random.key(options.seed)
    walk = lambda actor, key: act(policy.env, actor, key, length)
    data, obs, memory, alive = jax.jit(walk)(policy.actor(), key)
    network, weights = policy.network, policy.weights
    empty = initial_memory(network, 1)
    white = white_of(network, weights, leaf, jax.tree.map(lambda x: x[0], obs), empty)
    one: Callable[..., jax.Array] = jax.jit(
        lambda weights, white, obs, memory, key: saliency(
            network, weights, options.of, leaf, obs, memory, key,
            options.samples, options.noise, white,
        )
    )  # fmt: skip
    memory = memory if jax.tree.leaves(memory) else empty
    maps, images = [], []
    for i in frame_indices(alive, env.dt, options.speed):
        here = lambda x, i=i: x[i]
        held = jax.tree.map(here, memory) if jax.tree.leaves(memory) else memory
        drawn = jax.random.fold_in(key, int(i))
        maps.append(np.asarray(one(weights, white, jax.tree.map(here, obs), held, drawn)))
        images.append(np.asarray(obs[leaf][i]))
    strongest = float(np.percentile(maps, 99))
    shown = (
        painted(image, x / strongest if strongest > 0 else x, options.size[0])
        for image, x in zip(images, maps, strict=True)
    )
    outside = film(env, data, alive, camera, options.size, 0, options.speed)
    return side_by_side(outside, shown)


def painted(image: np.ndarray, strength: np.ndarray, height: int) -> np.ndarray:
    """Return an image with a map in red over it, enlarged: uint8[height, width, 3], the width a
    multiple of 16.

    Args:
        image: uint8[H, W, C], of which the last channels are the newest image.
        strength: float[H, W], 0 for nothing to 1 for pure red, and above.
        height: pixels.
    """
    newest = image[..., -3:] if image.shape[-1] % 3 == 0 else image[..., -1:]
    grey = newest.mean(axis=-1, keepdims=True) * np.ones(3)
    share = np.clip(strength, 0, 1)[..., None]
    mixed = (1 - share) * grey + share * np.array([255, 0, 0])
    width = max(16, 16 * round(height * image.shape[1] / image.shape[0] / 16))
    rows = np.arange(height) * image.shape[0] // height
    columns = np.arange(width) * image.shape[1] // width
    return np.round(mixed[rows][:, columns]).astype(np.uint8)


if __name__ == "__main__":
    main()
