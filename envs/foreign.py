"""Wrap environments of Brax and of MuJoCo Playground as a `vnl_ppo.env.Env`, by name.

Three things are converted: PRNG keys, which are raw uint32 words there; observations that are bare
arrays; and sizes instead of specs. Physics, rewards and ends of episodes are unchanged.

Most of a state, such as `mjx.Data`, is computed anew in each step. Only the leaves that a step
reads are carried from one step to the next; they are found in the step's jaxpr.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import subprocess
import warnings
from collections.abc import Mapping
from importlib import metadata
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from envs import jaxpr
from envs.model_view import ModelView
from vnl_ppo.env import Env, ObservationSpec, State

MJX = "mjx"
_TRAINING_WRAPPERS = ("VmapWrapper", "EpisodeWrapper", "AutoResetWrapper", "BraxAutoResetWrapper")
"""Wrappers that batch environments, count steps and restart episodes, as `vnl_ppo` does itself."""
_SHARED = ("obs", "reward", "done", "metrics", "info")
_THEIR_FAILED = "failed_of_the_environment"


class Foreign(Env):
    """One environment of Brax or of MuJoCo Playground.

    Brax's training wrappers are removed, since `vnl_ppo` batches, truncates and restarts.

    Args:
        env: an object with Brax's or Playground's `reset`, `step` and `action_size`, whose
            observation is an array or a dictionary of arrays.

    Raises:
        ValueError: it is a batch of environments, or draws a model for each environment.
    """

    def __init__(self, env: Any) -> None:
        while type(env).__name__ in _TRAINING_WRAPPERS:
            env = env.env
        self.env = env
        if "DomainRandomization" in type(env).__name__:
            raise ValueError(
                f"{type(env).__name__} draws a model for each environment of a batch, which is not "
                f"supported; pass the environment inside it"
            )
        first = jax.eval_shape(env.reset, jax.eval_shape(lambda: _raw(jax.random.key(0))))
        if first.reward.shape:
            raise ValueError(
                f"{type(env).__name__} is a batch of environments (its reward has shape "
                f"{list(first.reward.shape)}); pass a single one"
            )
        self._bare = not isinstance(first.obs, Mapping)
        self._first = first
        self._specs, self._tree = jax.tree.flatten(_without_shared(first))

    @property
    def action_size(self) -> int:
        """Number of entries of an action, each in [-1, 1]."""
        return self.env.action_size

    @functools.cached_property
    def observation_spec(self) -> ObservationSpec:
        """Shape and dtype of every leaf; a bare array becomes the leaf "state"."""
        return jax.eval_shape(self.reset, jax.random.key(0)).obs

    def reset(self, key: jax.Array) -> State:
        """Start an episode; `key` is a typed PRNG key. `data` holds the leaves that steps read."""
        return self._carried(self.env.reset(_raw(key)))

    def step(self, state: State, action: jax.Array) -> State:
        """Advance one control step under `action`, float32[action_size]."""
        return self._carried(self.env.step(self._theirs(state), action))

    @functools.cached_property
    def view(self) -> ModelView | None:
        """The view for videos, if the environment steps a MuJoCo model by MJX; else None."""
        model = getattr(self.env, "mj_model", None)
        model = model or getattr(getattr(self.env, "sys", None), "mj_model", None)
        if model is None or not hasattr(_simulation(self._first), "qpos"):
            return None

        def joints(data: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
            simulation = _simulation(self._unread(data))
            return simulation.qpos, simulation.qvel, simulation.mocap_pos

        return ModelView(model, self.env.dt, joints)

    @functools.cached_property
    def _read(self) -> list[bool]:
        """Mask of the leaves of the wrapped state, without `_SHARED`, that a later step reads."""

        def step(leaves: list[jax.Array], shared: dict[str, Any], action: jax.Array) -> Any:
            state = jax.tree.unflatten(self._tree, leaves).replace(**shared)
            after = self.env.step(state, action)
            return jax.tree.leaves(_without_shared(after)), _shared(after)

        action = jax.ShapeDtypeStruct((self.action_size,), jnp.float32)
        program = jaxpr.program_of(step, self._specs, _shared(self._first), action)
        count = len(self._specs)
        # Keys are carried in any case: `_theirs` cannot replace them by zeros.
        read = [jnp.issubdtype(spec.dtype, jax.dtypes.extended) for spec in self._specs]
        while True:
            wanted = read + [True] * (len(program.outvars) - count)
            inputs = jaxpr.inputs_read(program, wanted)[:count]
            more = [old or new for old, new in zip(read, inputs, strict=True)]
            if more == read:
                return read
            read = more

    def _carried(self, state: Any) -> State:
        """Return a `vnl_ppo.env.State` for a state of the wrapped environment."""
        leaves = zip(jax.tree.leaves(_without_shared(state)), self._read, strict=True)
        shared = _shared(state)
        # Ours means a breakdown of the simulation (`vnl_ppo.env.State`), theirs anything.
        shared["info"] = _renamed(shared["info"], {"failed": _THEIR_FAILED})
        if self._bare:
            shared["obs"] = {"state": state.obs}
        return State(data=[leaf for leaf, read in leaves if read], **shared)

    def _theirs(self, state: State) -> Any:
        """Return the wrapped environment's state, with zeros for leaves that no step reads."""
        shared = _shared(state)
        shared["info"] = _renamed(shared["info"], {_THEIR_FAILED: "failed"})
        if self._bare:
            shared["obs"] = state.obs["state"]
        return self._unread(state.data).replace(**shared)

    def _unread(self, data: Any) -> Any:
        """Return it without the fields of `_SHARED`, with zeros for leaves that no step reads."""
        carried = iter(data)
        leaves = [
            next(carried) if read else jnp.zeros(spec.shape, spec.dtype)
            for spec, read in zip(self._specs, self._read, strict=True)
        ]
        return jax.tree.unflatten(self._tree, leaves)


def _renamed(info: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): x for name, x in info.items()}


def _shared(state: Any) -> dict[str, Any]:
    """Return the fields that both kinds of state have under the same name."""
    return {name: getattr(state, name) for name in _SHARED}


def _simulation(state: Any) -> Any:
    """Return the state of the physics: Brax's `pipeline_state`, Playground's `data`."""
    return getattr(state, "pipeline_state", None) or getattr(state, "data", None)


def _without_shared(state: Any) -> Any:
    return state.replace(**dict.fromkeys(_SHARED))


def make(name: str, physics: str = MJX) -> Foreign:
    """Make an environment by name, such as `brax:ant`.

    Args:
        name: `brax:NAME` or `playground:NAME`.
        physics: the back end: mjx or, for Brax, also spring, positional or generalized.

    Raises:
        ValueError: there is no environment of this name, its package is not installed (the message
            names the extra to install), or the back end is not supported.
    """
    maker, _, own = name.partition(":")
    if maker not in _MAKERS or not own:
        raise ValueError(
            f"env is {name!r}; it has to be {' or '.join(f'{m}:NAME' for m in _MAKERS)}, for "
            f"instance brax:ant"
        )
    return Foreign(_MAKERS[maker](own, physics))


def _brax(name: str, physics: str) -> Any:
    # Brax reads what MJX is about to move, and JAX says so in every step that is traced.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"brax\.")
    envs = _module("brax.envs", "brax")
    if not hasattr(envs, "_envs"):
        raise RuntimeError(
            f"brax {metadata.version('brax')} no longer has brax.envs._envs: envs/foreign.py has "
            f"to be adapted"
        )
    _check_choice("brax", name, envs._envs)
    _check_physics("Brax", physics, (MJX, "spring", "positional", "generalized"))
    try:
        return envs.get_environment(name, backend=physics)
    except TypeError as error:
        if "backend" not in str(error):
            raise
        # An environment without physics takes no back end.
        return envs.get_environment(name)


def _playground(name: str, physics: str) -> Any:
    registry = _module("mujoco_playground", "playground").registry
    _check_choice("playground", name, registry.ALL_ENVS)
    # Warp's states hold arrays without a batch axis, which cannot be split over devices.
    _check_physics("MuJoCo Playground", physics, (MJX,))
    try:
        return registry.load(name, config_overrides={"impl": "jax"})
    except (subprocess.CalledProcessError, OSError) as error:
        # Playground clones the models of robots and hands at first use.
        raise ValueError(
            f"MuJoCo Playground could not make {name} ({error}); if it says above that it "
            f"downloads mujoco_menagerie, it needs git and a network once"
        ) from error


_MAKERS = {"brax": _brax, "playground": _playground}


def _module(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"environments of {extra} need a package that is not here ({error}); install the "
            f"extra: pip install -e '.[{extra}]'"
        ) from error


def _check_choice(maker: str, name: str, known: Any) -> None:
    if name in known:
        return
    # Names differ in case as often as in letters.
    lower = {k.lower(): k for k in known}
    close = [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = "did you mean " + " or ".join(f"{maker}:{k}" for k in close) + "?" if close else ""
    raise ValueError(
        f"there is no environment {maker}:{name}; {hint or 'it has ' + ', '.join(sorted(known))}"
    )


def _check_physics(maker: str, physics: str, known: tuple[str, ...]) -> None:
    if physics not in known:
        raise ValueError(f"physics is {physics!r}; {maker} trains here with {', '.join(known)}")


def _raw(key: jax.Array) -> jax.Array:
    """Return a typed key as uint32[2], as of `jax.random.PRNGKey`."""
    return jax.random.key_data(key)
