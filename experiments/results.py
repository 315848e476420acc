"""Show and write results: tables, numbers and figures."""

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH = 250
"""Number of columns if the output is no terminal, so that nothing is cut."""


def show(table: Table) -> None:
    """Print a table, in a file or a pipe at its full width."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)


def write_numbers(numbers: Any, path: Path) -> None:
    """Write numbers as JSON, with null for those that are not finite; the file appears, or replaces
    an older one, when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    part.write_text(json.dumps(_of_json(numbers), indent=1, allow_nan=False) + "\n")
    part.replace(path)


def _of_json(numbers: Any) -> Any:
    if isinstance(numbers, dict):
        return {name: _of_json(x) for name, x in numbers.items()}
    if isinstance(numbers, list | tuple):
        return [_of_json(x) for x in numbers]
    return None if isinstance(numbers, float) and not math.isfinite(numbers) else numbers


def refuse_existing(numbers: Path) -> None:
    """Raise a ValueError if there are numbers already, which are not to be replaced."""
    if numbers.exists():
        raise ValueError(f"{numbers} exists already; name another folder with --output")


def pyplot() -> Any:
    """Return `matplotlib.pyplot`, which draws to files; None, with a message, without it."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("no figure: it takes matplotlib (pip install -e '.[analysis]')")
        return None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(drawn: Any, path: Path) -> None:
    """Write a figure of pyplot's, its axes without a frame, as `write_figure` does; close it."""
    from matplotlib import pyplot

    for axes in drawn.axes:
        axes.spines[["top", "right"]].set_visible(False)
    drawn.tight_layout()
    write_figure(drawn, path)
    pyplot.close(drawn)


def write_figure(drawn: Any, path: Path) -> None:
    """Write a figure as it is; the file appears, or replaces an older one, when it is complete."""
    part = path.with_name(f".part-{path.name}")
    drawn.savefig(part, dpi=150)
    part.replace(path)
