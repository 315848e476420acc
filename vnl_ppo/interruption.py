"""Stop a run on a signal: after its iteration, or at once on a second signal."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A run was stopped by a signal; the message says at which step."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number
        """The exit status that shells give a program ended by this signal: 130 or 143."""


class Interruption:
    """Holds the signal that a run received, if any.

    Attributes:
        number: the signal's number; 0 for none.
    """

    number: int = 0


@contextlib.contextmanager
def catch_signals(tell: Callable[[str], None]) -> Iterator[Interruption]:
    """Record a first SIGINT or SIGTERM; end the process at once on a second one.

    Python runs signal handlers only between its own instructions, and one call into XLA can take
    minutes. So a thread handles the signals, even during such a call. Outside the main thread,
    where Python handles no signals, this does nothing.

    Args:
        tell: called with a message of one line when the first signal comes.
    """
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while received := reader.recv(1):
            number = received[0]
            if number not in SIGNALS:
                continue
            if asked.number:
                os._exit(128 + number)
            asked.number = number
            tell(
                f"{signal.Signals(number).name}: stopping after this iteration, with a checkpoint; "
                f"a second signal stops at once"
            )

    watcher = threading.Thread(target=watch, daemon=True)
    # The handlers do nothing; with them Python writes the signal to the socket.
    old = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield asked
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in old.items():
            # None stands for a handler that was not Python's, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        writer.close()
        watcher.join()
        reader.close()
