"""Help with names that are not known."""

import difflib
from collections.abc import Iterable


def known_names(name: str, known: Iterable[str]) -> str:
    """Return the end of a message on an unknown name: the nearest of the known ones, and all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"{f'did you mean {close[0]}? There' if close else 'there'} are {', '.join(known)}"
