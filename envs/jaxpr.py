"""Find which inputs a JAX program reads, by JAX's own elimination of dead code.

Only this module uses `jax.interpreters.partial_eval`, which JAX does not document.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def program_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return a function as a `jax.core.Jaxpr`; `arguments` are arrays, or their shapes."""
    return jax.make_jaxpr(function)(*arguments).jaxpr


def inputs_read(program: Any, outputs: Sequence[bool]) -> list[bool]:
    """Return which inputs of a program are read to compute the outputs that are wanted.

    Args:
        program: a result of `program_of`.
        outputs: for each output, whether it is wanted.

    Raises:
        RuntimeError: this version of JAX no longer has the function used here.
    """
    try:
        from jax.interpreters.partial_eval import dce_jaxpr

        _, inputs = dce_jaxpr(program, list(outputs))
    except (ImportError, TypeError, ValueError) as error:
        raise RuntimeError(
            f"jax {jax.__version__} no longer has jax.interpreters.partial_eval.dce_jaxpr as it "
            f"was: envs/jaxpr.py has to be adapted ({error})"
        ) from error
    return list(inputs)
