"""Print tables."""

from rich.console import Console
from rich.table import Table

_WIDTH = 250
"""Columns where the output is no terminal, so that nothing is cut."""


def show(table: Table) -> None:
    """Print a table, in a file or a pipe at its full width."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)
