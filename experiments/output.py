"""Keep a long run going when nobody reads its output any more."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class _Lasting:
    """A standard stream that drops what cannot be written.

    Args:
        stream: the stream.
        told: takes a sentence when the stream fails.
    """

    def __init__(self, stream: TextIO, told: Callable[[str], Any]) -> None:
        self._stream, self._told = stream, told

    def write(self, text: str) -> int:
        self._last(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._last(self._stream.flush)

    def _last(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            # What the stream still holds, and all that follows, goes nowhere.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            self._told(f"warning: the output ends here, the run goes on: {error.strerror}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Keep printing inside this context from raising errors.

    What cannot be printed, because a pipe was closed, a terminal was lost or a disk is full, is
    dropped with a warning; a letter that the terminal does not have is printed with an escape.
    """
    out, err = sys.stdout, sys.stderr
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Without a standard stream Python has None in its place, and prints nothing.
    errors = err and _Lasting(err, lambda _: None)
    tell = lambda text: print(text, file=errors) if errors else None
    sys.stdout, sys.stderr = out and _Lasting(out, tell), errors  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = out, err
