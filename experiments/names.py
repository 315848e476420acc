"""Name the entries of arrays, and help with names that are not known."""

import difflib
from collections.abc import Iterable, Sequence


def known_names(name: str, known: Iterable[str]) -> str:
    """Return the end of a message on an unknown name: the nearest of the known ones, and all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"{f'did you mean {close[0]}? There' if close else 'there'} are {', '.join(known)}"


def entry_names(named: Sequence[str], number: int) -> list[str]:
    """Return the names of an array's entries, or their numbers if there is not a name for each."""
    return [str(name) for name in (named if len(named) == number else range(number))]
