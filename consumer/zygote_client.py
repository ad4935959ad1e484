"""The process that stands for a consumer which a zygote forked. Imports little: it is to be there at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from consumer.zygote import STREAMS, Answer, Ask

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def stand_in(path: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """The consumer's exit code at its end; None where no zygote answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    pid = 0
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        else:
            early.append(number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    ask = Ask(arguments=list(arguments), environment=dict(environment), folder=str(Path.cwd()))
    with connection, connection.makefile("rb") as answers:
        line = msgspec.json.encode(ask) + b"\n"
        try:
            sent = socket.send_fds(connection, [line], list(range(STREAMS)))
            connection.sendall(line[sent:])
            pid = _next(answers.readline).pid
        except (OSError, EOFError):
            return None
        for number in early:
            pass_on(number, None)
        try:
            code = _next(answers.readline).code
        except (OSError, EOFError):
            # The zygote is gone; the connection lasts as long as the consumer, and how that ended nobody knows.
            return 1
    return _ended(code if code is not None else 1)


def _next(readline: Callable[[], bytes]) -> Answer:
    line = readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return msgspec.json.decode(line, type=Answer)


def _ended(code: int) -> int:
    """A death by signal is died again, so that who waits for us sees the same."""
    if code >= 0:
        return code
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
    return 128 - code
