"""Processes that outlive whoever started them: started, recognised, watched for their end, and asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Where there is no pidfd (not Linux), ends are looked for this often.
_POLL_S = 0.5


def spawn(command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> int:
    """Its pid. It has a session of its own, no pipe to us that could break, and does not die with us.

    Raises:
        OSError: it cannot be started.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log_path), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], list(command), dict(environment), file_actions=actions, setsid=True)


def start_ticks_of(pid: int) -> int:
    """When it started, in ticks since boot. 0: that cannot be told here; -1: there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0 if not Path("/proc/self/stat").exists() and _exists(pid) else -1
    state, *fields = stat.rpartition(")")[2].split()
    # A zombie has ended; only its parent has not asked yet.
    return -1 if state in {"Z", "X"} else int(fields[18])


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether it is that process and not a later one of the same number."""
    return pid > 0 and start_ticks >= 0 and start_ticks_of(pid) == start_ticks


def found_by_environment(variable: str) -> int:
    """The process of ours with `NAME=value` in its environment; 0 where there is none, or no way to look."""
    wanted = variable.encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
    return 0


def ask_to_stop(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def sweep(pid: int) -> None:
    """Kills what the process, which has ended, left behind in its group: an engine's own children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def reaped(pid: int) -> int | None:
    """Its exit code (negative: the signal); None where it was somebody else's child and nobody can know."""
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)


class Watch:
    """Calls `on_end` once when a process has ended. `close` to hear no more."""

    def __init__(self, pid: int, on_end: Callable[[], None]) -> None:
        self._pid = pid
        self._on_end = on_end
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        try:
            self._fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._timer = loop.call_later(_POLL_S, self._look)
        else:
            loop.add_reader(self._fd, self._ended)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        if start_ticks_of(self._pid) >= 0:
            self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._look)
        else:
            self._ended()

    def _ended(self) -> None:
        self.close()
        self._on_end()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
