"""SIGTERM, which job schedulers send, ends a command as Ctrl-C does: finished results are kept."""

import signal
import threading
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT
"""Exit status after Ctrl-C."""


class SignalsEnd:
    """A context in which SIGINT (Ctrl-C) and SIGTERM raise KeyboardInterrupt.

    The exception may not arrive as such: a library that is being imported can turn it into an
    exception of its own. So the context remembers that a signal came.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def happened(self) -> bool:
        """Whether one of the signals came."""
        return self._number is not None

    @property
    def status(self) -> int:
        """Exit status of a command that KeyboardInterrupt ended."""
        return 128 + (self._number or signal.SIGINT)

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # others get no signals
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as for a background job
                self._before[number] = signal.signal(number, self._interrupt)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        raise KeyboardInterrupt
