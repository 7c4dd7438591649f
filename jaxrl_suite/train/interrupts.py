"""Signals that ask a run to stop: noted at once, obeyed between chunks, when the state can be saved."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

RESUMABLE = 75  # the exit code of a run that was stopped and can go on (EX_TEMPFAIL: try again)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTICE = b"\nstopping after this chunk, the state will be saved; press Ctrl-C again to stop at once without saving\n"


def resumes(fresh: bool = False) -> str:
    """Which command goes on with a run that was stopped; with --fresh (`fresh`) it would begin another."""
    return "the same command without --fresh resumes" if fresh else "the same command resumes"


class Interrupts:
    """Within this context SIGTERM and SIGINT only set `requested`; a second SIGINT raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, it does nothing. Signals that the process was told to
    ignore (`nohup`, a background job) stay ignored.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not set from Python, and that Python cannot set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self.requested = True
        if number == signal.SIGINT:
            self._interrupted = True
            os.write(2, NOTICE)  # not print: a handler may run in the middle of another print
