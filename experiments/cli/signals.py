"""SIGTERM, which job schedulers send, ends a command as Ctrl-C does: finished results are kept."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""Exit status after Ctrl-C."""
TERMINATED = 128 + signal.SIGTERM


@contextmanager
def ended_by_sigterm() -> Iterator[Callable[[], bool]]:
    """Raise KeyboardInterrupt on SIGTERM; yield a function that says whether that happened."""
    happened = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal happened
        happened = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield lambda: happened
    finally:
        signal.signal(signal.SIGTERM, before)
