"""Ctrl-C between two steps, never inside one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """While entered, the first SIGINT only sets `asked`; a second one interrupts as usual.

    An exception in the midst of a step could leave it half done, and one in the midst of writing a
    checkpoint reaches Python as an error of the writer. Outside the main thread, which alone
    receives signals, this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before)

    def _take(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
