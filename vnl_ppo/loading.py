"""Load a trained policy.

    import vnl_ppo
    policy = vnl_ppo.load("runs/mine")
    action = policy(obs)

With a recurrent policy, whose memory starts empty in each episode:

    action, memory = policy.act(obs)
    action, memory = policy.act(obs, memory)

This package imports no environments. A run's config.json names the function that builds its
environment and network, as `package.module:function`; it is imported by that name. Do not load
another person's run without a look at the names in its config.json, or give `load` a builder.
"""

import functools
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vnl_ppo import checkpoint, normalization, run_folder
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env, Observation
from vnl_ppo.evaluation import Actor, acting
from vnl_ppo.observations import flatten
from vnl_ppo.policy import Weights, apply_and_capture, init_params, make_policy
from vnl_ppo.recurrence import initial_memory, remembers

Builder = Callable[[dict[str, Any]], tuple[Env, nn.Module, PPOConfig]]
"""Settings of a config.json -> environment, network, hyper-parameters. Raises a ValueError if the
settings are invalid."""


class Policy:
    """A trained network with its weights and the environment that it was trained in.

    Args:
        env: the environment.
        network: obs -> (logits, value).
        config: the settings of its training.
        weights: the network's parameters and the moments of observations.
        step: environment steps that it was trained for.
    """

    def __init__(
        self, env: Env, network: nn.Module, config: PPOConfig, weights: Weights, step: int
    ) -> None:
        self.env = env
        self.network = network
        self.config = config
        self.weights = weights
        self.step = step

        @functools.partial(jax.jit, static_argnames="deterministic")
        def decide(weights, obs, memory, key, deterministic):
            action, decision = make_policy(network, weights, deterministic)[0](obs, key, memory)
            return action, decision.value, decision.memory

        self._jitted = decide

    def __call__(self, obs: Observation, key: jax.Array | None = None) -> jax.Array:
        """Return the action of a policy without memory.

        Args:
            obs: an observation of the environment, with any leading axes [...]. Leaves that the
                policy does not use, such as `ahead`, may be missing.
            key: PRNG key to sample the action; None to take the policy's mode.

        Returns:
            float32[..., A] in [-1, 1].

        Raises:
            ValueError: the observation's leaves do not fit, or the policy has a memory.
        """
        if self.remembers:
            raise ValueError(
                "this policy has a memory, which has to be carried from step to step: "
                "action, memory = policy.act(obs) begins an episode, "
                "action, memory = policy.act(obs, memory) goes on"
            )
        return self._decide(obs, None, key)[0]

    def act(
        self, obs: Observation, memory: Any = None, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Return the action, and the memory for the next step.

        Args:
            obs: an observation of the environment, with any leading axes [...].
            memory: what the step before returned, leaves [..., M]; None at the start of episodes.
                If only some episodes of a batch start, set their rows to 0.
            key: PRNG key to sample the action; None to take the policy's mode.

        Returns:
            float32[..., A] in [-1, 1], and the memory afterwards: `()` if the policy has none.
        """
        action, _, memory = self._decide(obs, memory, key)
        return action, memory

    def value(self, obs: Observation, memory: Any = None) -> jax.Array:
        """Return the value float32[...], in units of scaled rewards; arguments as for `act`."""
        return self._decide(obs, memory, None, "value")[1]

    def actor(self, deterministic: bool = True) -> Actor:
        """Return an `Actor` for `vnl_ppo.evaluation`, which takes the mode if `deterministic`."""
        return acting(self.network, self.weights, deterministic)

    @property
    def remembers(self) -> bool:
        """Whether the policy has a memory."""
        return remembers(initial_memory(self.network, 1))

    @functools.cached_property
    def modules(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of the outputs of the network's modules by path, for a batch of one."""
        spec = flatten(self.env.observation_spec)
        obs = {k: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for k, x in spec.items()}
        outputs = lambda obs: apply_and_capture(
            self.network, self.weights, obs, initial_memory(self.network, 1)
        )[1]
        return dict(sorted(jax.eval_shape(outputs, obs).items()))

    def _decide(
        self, obs: Observation, memory: Any, key: jax.Array | None, head: str = "policy"
    ) -> tuple[jax.Array, jax.Array, Any]:
        flat, spec = flatten(obs), flatten(self.env.observation_spec)
        # A memory is made of what either head looks at.
        heads = ("policy", "value") if self.remembers else (head,)
        leaves = [getattr(self.network, f"{x}_leaves", None) for x in heads]
        needed = {k for named in leaves for k in (spec if named is None else named)}
        if not needed <= set(flat) <= set(spec):
            raise ValueError(
                f"the observation has leaves {sorted(flat)}; this {head} was trained on "
                f"{sorted(needed)}; pass these, and no leaves that its environment does not have"
            )
        for name, x in flat.items():
            if spec[name].dtype == jnp.uint8 and jnp.result_type(x) != jnp.uint8:
                raise ValueError(
                    f"the observation's leaf {name!r} is {jnp.result_type(x)}; images have to be "
                    f"uint8 from 0 to 255, as the environment gives them"
                )
        first = min(flat)
        axes = jnp.shape(flat[first])[: jnp.ndim(flat[first]) - len(spec[first].shape)]
        for name, x in flat.items():
            # A vector of another length would be broadcast.
            if jnp.shape(x) != (*axes, *spec[name].shape):
                raise ValueError(
                    f"the observation's leaf {name!r} has the shape {jnp.shape(x)}; that of one "
                    f"observation is {spec[name].shape}, behind leading axes that are the same for "
                    f"all leaves"
                )
        missing = {
            k: jnp.zeros((*axes, *spec[k].shape), spec[k].dtype) for k in set(spec) - set(flat)
        }
        flat = {**flat, **missing}
        if memory is None:
            empty = initial_memory(self.network, math.prod(axes))
            memory = jax.tree.map(lambda x: x.reshape(*axes, *x.shape[1:]), empty)
        drawn = jax.random.key(0) if key is None else key
        return self._jitted(self.weights, flat, memory, drawn, key is None)


def load(run_dir: str | Path, step: int | None = None, builder: Builder | None = None) -> Policy:
    """Load the policy of a run, with its environment, on any device.

    Args:
        run_dir: the run's folder, for the agent of its first seed; RUN/seed_3 for that of seed 3.
        step: environment step of the checkpoint; None for the newest intact one.
        builder: builds environment and network from the run's settings; None to import the one
            that its config.json names, which runs code that whoever wrote the folder has chosen.
            What is not this project's is named on stderr before.

    Raises:
        ValueError: there is no such run or checkpoint, it is torn, or its settings are no longer
            valid.
    """
    folder, _ = run_folder.split_agent(Path(run_dir))
    builder = builder or _builder(run_folder.read_builder(folder), folder)
    env, network, config = builder(run_folder.read_settings(folder))
    return load_into(env, network, config, Path(run_dir), step)


def load_into(
    env: Env, network: nn.Module, config: PPOConfig, folder: Path, step: int | None = None
) -> Policy:
    """Load the policy of a run into a given environment and network; see `load`."""
    step, leaves = read_weights(folder, config, step)
    like = jax.eval_shape(lambda: initial_weights(env, network))
    checkpoint.check(leaves, like, str(run_folder.split_agent(folder)[0]))
    weights = jax.tree.map(jnp.asarray, checkpoint.fill(leaves, like))
    return Policy(env, network, config, weights, step)


def read_weights(
    folder: Path, config: PPOConfig, step: int | None = None
) -> tuple[int, checkpoint.Leaves]:
    """Read step and weights of a run's checkpoint; see `load` for arguments and errors.

    Returns:
        the checkpoint's step; arrays by name, such as params.params.policy.Dense_0.kernel.
    """
    folder, seed = run_folder.split_agent(folder)
    agent = 0 if seed is None else seed - config.seed
    if not 0 <= agent < config.num_seeds:
        last = config.seed + config.num_seeds - 1
        raise ValueError(f"{folder} has no seed {seed}; it has {config.seed} to {last}")
    checkpoints = folder / run_folder.CHECKPOINTS
    saved = checkpoint.steps(checkpoints)
    if not saved:
        raise ValueError(f"{folder} has no checkpoint yet")
    if step is None:
        found = checkpoint.read_last(checkpoints, lambda text: print(f"warning: {text}"))
        assert found is not None
        step, leaves = found
    elif step in saved:
        leaves = checkpoint.read(checkpoints, step)
    else:
        known = ", ".join(map(str, saved))
        raise ValueError(f"{folder} has no checkpoint of step {step}; it has {known}")
    prefix = "weights."
    own = {k: x[agent] for k, x in leaves.items() if k.startswith(prefix)}
    return step, {k.removeprefix(prefix): x for k, x in own.items()}


def initial_weights(env: Env, network: nn.Module) -> Weights:
    """Return a network's weights before training, of seed 0."""
    params = init_params(network, env.observation_spec, jax.random.key(0))
    return Weights(params, normalization.init_moments(env.observation_spec))


def _builder(name: str, folder: Path) -> Builder:
    module, _, function = name.partition(":")
    if not function:
        raise ValueError(
            f"{folder}'s config.json names no builder (it says {name!r}), so its environment is "
            f"unknown; build environment and network, and call vnl_ppo.loading.load_into"
        )
    run_folder.tell_of_code([name], folder)
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{folder} was built by {name}, which cannot be found: {error}; install its package or "
            f"set PYTHONPATH"
        ) from error
