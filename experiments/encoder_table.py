"""List the encoders and stages that a spec can name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from rich.table import Column, Table

from encoders import make_encoder, registered
from encoders.registry import find, settings_of, source_of

IMAGE = (64, 64, 3)
"""Shape of the image of which the table tells the parameters."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Properties of an encoder or a stage."""

    name: str
    settings: str
    """Names and default values, as a spec gives them."""
    gives: str
    """Shape of what it makes of an image of shape `IMAGE`; empty if it takes none."""
    parameters: int | None
    """Their number for such an image; None if it takes none."""
    source: str


def rows() -> list[Row]:
    """Return a row for each registered name: what gives features first, then stages."""
    found = [_row(name) for name in registered()]
    return sorted(found, key=lambda row: "x" in row.gives)


def table_of_encoders() -> Table:
    """Return the table that `--list-encoders` prints."""
    title = f"of an image of {'x'.join(map(str, IMAGE))}"
    number = Column(f"parameters {title}", justify="right")
    table = Table("name", "settings", f"output {title}", number, "source")
    for row in rows():
        count = "" if row.parameters is None else f"{row.parameters:,}"
        table.add_row(row.name, row.settings, row.gives, count, row.source)
    return table


def _row(name: str) -> Row:
    settings = ", ".join(_default(field) for field in settings_of(find(name)).values())
    gives, parameters = _measured(name)
    return Row(name, settings, gives, parameters, source_of(name))


def _default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return field.name
    return f"{field.name}={field.default}"


def _measured(name: str) -> tuple[str, int | None]:
    """Return the output's shape and the number of parameters for an image of shape `IMAGE`."""
    image = jax.ShapeDtypeStruct(IMAGE, jnp.uint8)
    try:
        y, variables = jax.eval_shape(make_encoder(name).init_with_output, jax.random.key(0), image)
    except ValueError:  # it is for vectors, or for several frames
        return "", None
    leaves: list[Any] = jax.tree.leaves(variables.get("params", {}))
    return "x".join(map(str, y.shape)), sum(math.prod(x.shape) for x in leaves)
