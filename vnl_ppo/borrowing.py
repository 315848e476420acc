"""Begin a run with parameters that were learned elsewhere.

Arrays are named as `vnl_ppo.loading.read_weights` names them: `params.params.encoders_LEAF.PATH` is
a parameter of the encoder of a leaf, and `moments.*` are the statistics of observations.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vnl_ppo.checkpoint import name_of, named_leaves

Tree = TypeVar("Tree")
Specs = Mapping[str, Any]
"""Arrays, or their shapes and dtypes, by name."""

OWN = "params.params.encoders_"
"""Prefix of the parameters of the encoders of the policy, or of both policy and value function."""
VALUES = "params.params.value_encoders_"
"""Prefix of the parameters of the value function's own encoders."""
STANDS_FOR = 1000.0
"""Number of observations that borrowed statistics count as, beside others that begin anew."""
_COUNT, _MEAN, _VARIANCE = "moments.count", "moments.mean.", "moments.variance."


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Map names of parameters in a network to those in the source that they are borrowed from.

    Attributes:
        names: the name there, by the name in the network.
        leaves: the leaf there, by the leaf of the network.
    """

    names: Mapping[str, str]
    leaves: Mapping[str, str]


def check_all(found: Specs, weights: Any, source: str) -> None:
    """Raise a ValueError that names every difference between arrays and a network's weights.

    Args:
        found: the arrays or their specs.
        weights: the network's weights, or their shapes (`jax.eval_shape`).
        source: where the arrays come from, for the message.
    """
    _check(found, named_leaves(weights), source)


def take_fitting(found: Specs, weights: Any, source: str) -> tuple[dict[str, Any], list[str]]:
    """Return the parts of other weights that fit a network, for a walker with another body.

    A part is a layer, with its kernel and bias, or the statistics of a leaf of observations; it
    fits if all its arrays have the same names, shapes and dtypes. The statistics of all leaves have
    one number of observations in common. Where a leaf's begin anew, it becomes at most
    `STANDS_FOR`, so that they are soon those of what is observed.

    Args:
        found: the arrays.
        weights: the network's weights, or their shapes (`jax.eval_shape`).
        source: where the arrays come from, for the message.

    Returns:
        the arrays that fit, by name; a line for each part that is only there, is only here, or does
        not fit, with both shapes.

    Raises:
        ValueError: no layer fits.
    """
    wanted = named_leaves(weights)
    parts: dict[str, list[str]] = {}
    for name in sorted({*found, *wanted} - {_COUNT}):
        parts.setdefault(_part_of(name), []).append(name)
    taken: dict[str, Any] = {}
    others = []
    for part, names in parts.items():
        differences = _differences({k: x for k, x in found.items() if k in names},
                                   {k: x for k, x in wanted.items() if k in names})  # fmt: skip
        if differences:
            others.append(f"{part}: {', '.join(differences)}")
        else:
            taken |= {name: found[name] for name in names}
    if not any(name.startswith("params.") for name in taken):
        raise ValueError(f"{source} has no part that fits this network: {'; '.join(others)}")
    statistics = [name for name in wanted if name.startswith(_MEAN)]
    known = [name for name in statistics if name in taken]
    if known and _COUNT in found:
        count = np.asarray(found[_COUNT])
        few = np.minimum(count, np.asarray(STANDS_FOR, count.dtype))
        taken[_COUNT] = count if len(known) == len(statistics) else few
    return taken, others


def _part_of(name: str) -> str:
    """Return the layer, or `statistics of LEAF`, that an array belongs to."""
    for prefix in (_MEAN, _VARIANCE):
        if name.startswith(prefix):
            return f"statistics of {name.removeprefix(prefix)}"
    layer, _, array = _short(name).rpartition(".")
    return layer or array


def match_encoders(found: Specs, weights: Any, images: Sequence[str], source: str) -> Encoders:
    """Find the encoders of a network whose parameters were found elsewhere, and check them.

    Encoders go to leaves of the same name. A single one goes to the network's only image, whatever
    its name. Where policy and value function have encoders of their own, and there is only one set,
    both begin with it.

    Args:
        found: arrays, or their specs, of whole weights; names other than of encoders are ignored.
        weights: the network's weights, or their shapes.
        images: leaves of the network that have an encoder and are images.
        source: where the arrays come from, for the message.

    Raises:
        ValueError: the network has no encoder, there is none to borrow, an encoder belongs to no
            leaf, or its parameters have other names, shapes or dtypes; each difference is named.
    """
    wanted = named_leaves(weights)
    here = _encoded(weights)
    if not here:
        raise ValueError(
            f"{source} has nothing to lend: this network's encoders have no parameters"
        )
    there = leaves_of(found, here)
    if not there:
        raise ValueError(f"{source} has no encoder with parameters to borrow")
    if len(there) == len(images) == 1 and there[0] not in here:
        leaves = {images[0]: there[0]}
    else:
        leaves = {leaf: leaf for leaf in there}
    if unknown := sorted(set(leaves) - set(here)):
        raise ValueError(
            f"{source} has an encoder for {', '.join(unknown)}, and this network has them for "
            f"{', '.join(here)}; borrow a file that has only these (export_encoder.py --leaves)"
        )
    names, expected = {}, {}
    for leaf, lent in leaves.items():
        for prefix in (OWN, VALUES):
            own = {k: x for k, x in wanted.items() if k.startswith(f"{prefix}{leaf}.")}
            begin = f"{prefix}{lent}."
            if not any(k.startswith(begin) for k in found):
                begin = f"{OWN}{lent}."
            for name, spec in own.items():
                path = name.removeprefix(f"{prefix}{leaf}.")
                names[name] = begin + path
                expected[begin + path] = spec
    begins = tuple(f"{OWN}{lent}." for lent in leaves.values())
    _check(
        {k: x for k, x in found.items() if k in expected or k.startswith(begins)}, expected, source
    )
    return Encoders(names, leaves)


def of_another_body(found: Specs, weights: Any) -> bool:
    """Whether arrays are of a policy that observes or does something else than a network.

    That is so if vectors of its observations, or its actions, have another size or another name.
    """
    wanted = named_leaves(weights)
    bodies = []
    for arrays in (found, wanted):
        vectors = {k: x.shape for k, x in arrays.items() if k.startswith(_MEAN)}
        head = "params.params.policy.Dense_"
        biases = [k for k in arrays if k.startswith(head) and k.endswith(".bias")]
        last = max(biases, key=lambda k: int(k.removeprefix(head).partition(".")[0]), default="")
        bodies.append((vectors, arrays[last].shape if last else None))
    return bodies[0] != bodies[1]


def check_finite(arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Raise a ValueError that names the arrays with numbers that are infinite or NaN."""
    if bad := [name for name, x in sorted(arrays.items()) if not np.isfinite(x).all()]:
        raise ValueError(
            f"{source} has numbers that are not finite in {', '.join(map(_short, bad))}; take an "
            f"earlier checkpoint, or another file"
        )


def replaced(weights: Tree, initial: Mapping[str, np.ndarray], layout: Any) -> Tree:
    """Return weights in which arrays are replaced.

    Args:
        weights: of all agents, leaves [num_seeds, ...].
        initial: arrays [...] by name; every agent begins with the same.
        layout: the sharding of the weights.

    Raises:
        ValueError: an array has a name, shape or dtype that the weights do not have.
    """
    if not initial:
        return weights
    single = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), weights)
    wanted = named_leaves(single)
    _check(initial, {k: wanted[k] for k in initial if k in wanted}, "initial")

    def new(path: tuple[Any, ...], x: jax.Array) -> Any:
        name = name_of(path)
        return np.broadcast_to(initial[name], x.shape) if name in initial else x

    # A copy, since the training step reuses the memory of what it is given.
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=layout)
    return copy(jax.tree_util.tree_map_with_path(new, weights))


def _encoded(weights: Any) -> list[str]:
    """Return the leaves whose encoders have parameters in a network's weights."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(weights)]
    modules = {str(path[2].key) for path in paths if name_of(path).startswith(OWN)}
    return sorted(name.removeprefix("encoders_") for name in modules)


def leaves_of(specs: Specs, known: Sequence[str] = ()) -> list[str]:
    """Return the leaves whose encoders have parameters; those of `known` may have dots."""
    found = set()
    for name in specs:
        if name.startswith(OWN):
            path = name.removeprefix(OWN)
            own = [leaf for leaf in known if path.startswith(leaf + ".")]
            found.add(max(own, key=len) if own else path.partition(".")[0])
    return sorted(found)


def _check(found: Specs, wanted: Specs, source: str) -> None:
    if differences := _differences(found, wanted):
        raise ValueError(
            f"{source} does not fit this network: {'; '.join(differences)}; use the settings of "
            f"the network that it was made with"
        )


def _differences(found: Specs, wanted: Specs) -> list[str]:
    """Name each difference between arrays that were found and those of this network."""
    there, here = ({k: _described(x) for k, x in specs.items()} for specs in (found, wanted))
    differences = []
    for name in sorted(there.keys() | here.keys()):
        if name not in there:
            differences.append(f"{_short(name)} ({here[name]}) is missing there")
        elif name not in here:
            differences.append(f"{_short(name)} ({there[name]}) is only there")
        elif there[name] != here[name]:
            differences.append(f"{_short(name)} is {there[name]} there and {here[name]} here")
    return differences


def _described(x: Any) -> str:
    return f"{np.dtype(x.dtype).name}{list(x.shape)}"


def _short(name: str) -> str:
    return name.removeprefix("params.params.")
