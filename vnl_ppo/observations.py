"""Flatten nested observations to dictionaries of named leaves."""

from collections.abc import Mapping
from typing import Any

import jax

Leaves = Mapping[str, jax.Array]
"""A flat observation, see `flatten`."""


def flatten(obs: Any) -> dict[str, Any]:
    """Return a dictionary of the leaves by path: `{"eyes": {"left": x}}` gives `{"eyes.left": x}`.

    Args:
        obs: a pytree of arrays, or of their specs; a bare array is named "obs".

    Raises:
        ValueError: two leaves get the same name.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(obs):
        name = name_of(path)
        if name in named:
            raise ValueError(
                f"two leaves of the observation are named {name!r}; rename a key that has a dot"
            )
        named[name] = leaf
    return named


def name_of(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf with the given path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator=".") or "obs"
