"""SIGTERM, which job schedulers send, ends a command as Ctrl-C does: finished results are kept."""

import signal
import threading
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT
"""Exit status after Ctrl-C."""
TERMINATED = 128 + signal.SIGTERM


class SigtermEnds:
    """A context in which SIGTERM raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._happened = False
        self._before: Any = None

    @property
    def status(self) -> int:
        """Exit status of a command that KeyboardInterrupt ended."""
        return TERMINATED if self._happened else INTERRUPTED

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self._before = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._happened = True
        raise KeyboardInterrupt
