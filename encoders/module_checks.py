"""Check that a module can turn arrays into features, by shapes alone; nothing is compiled."""

import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import AssignSubModuleError, InvalidRngError

from encoders.randomness import takes_key

SOWN = {"losses", "metrics", "intermediates"}
"""Collections that hold what a module reports, not what it has to remember."""


class Unfit(ValueError):
    """Tells what is wrong with a module; an error of a user's own module is passed on as it is."""


def is_ours(module: nn.Module) -> bool:
    """Return whether a module is one of this package's."""
    return type(module).__module__.split(".")[0] == __name__.split(".")[0]


def described(x: Any) -> str:
    """Return the dtype and shape of an array, such as float32[2, 3]."""
    return f"{x.dtype}{list(x.shape)}"


def output_of(
    name: str, module: nn.Module, x: Any, leading: tuple[int, ...]
) -> tuple[jax.ShapeDtypeStruct, Any]:
    """Return shape and dtype of a module's output, and those of its parameters as text.

    Args:
        name: what the module is called in messages.
        module: the module, which is not bound.
        x: shape and dtype of its input, [*leading, ...].
        leading: the leading axes.

    Raises:
        Unfit: the module does not fit, needs a key, has a state or parameters that are no floats,
            or returns no single array.
    """
    try:
        y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
        state = sorted(set(variables) - SOWN - {"params"})
        if not state:
            # Flax gives the key of `init` to random layers too.
            jax.eval_shape(module.apply, variables, x)
            if takes_key(module):
                keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), leading))
                drawn = jax.eval_shape(module.apply, variables, x, keys)
                with_key, without = (jax.tree.map(described, z) for z in (drawn, y))
                if with_key != without:
                    raise Unfit(
                        f"{name!r} returns {with_key} with keys and {without} without; they "
                        f"have to be alike",
                    )
    except InvalidRngError as error:
        raise Unfit(
            f"{name!r} needs a random key from flax, as nn.Dropout does, which encoders do "
            f"not get; take an argument key=None, as encoders.Dropout does, or use that",
        ) from error
    except AssignSubModuleError as error:
        raise Unfit(f"{name!r} makes layers in a method without @nn.compact above") from error
    except Unfit:
        raise
    except ValueError as error:
        if why := _undecided(error):
            raise Unfit(f"{name!r} {why}") from error
        if not is_ours(module):
            raise
        raise Unfit(str(error)) from error
    if state:
        raise Unfit(
            f"{name!r} keeps the state {', '.join(state)}, as nn.BatchNorm does, which "
            f"encoders cannot; use nn.LayerNorm or nn.GroupNorm",
        )
    if not isinstance(y, jax.ShapeDtypeStruct):
        raise Unfit(
            f"{name!r} returns {type(y).__name__!r}; it has to return one array [..., F]",
        )
    params = jax.tree.map(described, variables.get("params", {}))
    for path, x in jax.tree_util.tree_leaves_with_path(variables.get("params", {})):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            parameter = jax.tree_util.keystr(path, simple=True, separator="/")
            raise Unfit(
                f"{name!r} has the parameter {parameter} of {x.dtype}; parameters have to be "
                f"float to be trained",
            )
    return y, params


def check_callable(name: str, module: nn.Module) -> None:
    """Raise an `Unfit` unless a module can be called with one array."""
    cls = type(module)
    if not any("__call__" in vars(x) for x in cls.__mro__):
        raise Unfit(f"{name!r} has no method __call__; write def __call__(self, x)")
    _, *taken = inspect.signature(cls.__call__).parameters.values()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [x.name for x in taken if x.default is x.empty and x.kind not in several]
    if len(needed) > 1:
        raise Unfit(
            f"{name!r} takes {needed[1]!r} besides its input, which it is not given; give it a "
            f"default value, such as {needed[1]}=None"
        )
    if not taken:
        raise Unfit(f"{name!r} takes no input; write def __call__(self, x)")


def _undecided(error: ValueError) -> str:
    """Return what is wrong if a layer of Flax's was not told whether this is training."""
    # Flax has no type of its own for this error.
    if '"use_running_average" must be passed' in str(error):
        return (
            "has nn.BatchNorm, whose state encoders cannot keep; use nn.LayerNorm or nn.GroupNorm"
        )
    if '"deterministic" must be passed' in str(error):
        return "has nn.Dropout, which needs a random key; use encoders.Dropout"
    return ""
