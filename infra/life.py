"""A process's beginning and end: the wall clock, signals, and dying with one's parent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1


def unix_ms() -> int:
    """The wall clock, in milliseconds; the one place that reads it."""
    return time.time_ns() // 1_000_000


class Stop:
    """What a person or an orchestrator has asked for. A second signal skips the grace."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.skip_grace = asyncio.Event()

    def request(self) -> None:
        if self.requested.is_set():
            self.skip_grace.set()
        self.requested.set()


def on_signals(loop: asyncio.AbstractEventLoop) -> Stop:
    """A `Stop` that SIGTERM and SIGINT request."""
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.request)
    return stop


def exit_with_parent(check_every_s: float = 0.5) -> None:
    """Ends this process, from a thread, once its parent is gone.

    For children started from a thread: Linux's own death signal comes when that *thread* ends.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(check_every_s)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Asks Linux to send us `number` when our parent dies, however it dies. Elsewhere it does nothing."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number))
    # It may have died before we asked.
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
