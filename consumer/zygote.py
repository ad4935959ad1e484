"""A process that has imported all a consumer needs and forks one when asked: a start costs a fork, not the imports.

Asked by `zygote_client`, whose process stands for the consumer's: it lends its standard streams, environment and
folder, passes signals on, and ends as the consumer ends. A stand-in that is killed takes its consumer with it; a zygote
that is killed does not.

It forks before any loop, connection or engine exists, and with no thread but the main one: what threads hold at a fork
is held for ever in the child.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from consumer.engine.vllm_plugin import FORKED
from schemas.errors import ConfigError

_ASK_BYTES_MAX = 1 << 20
# Who connects and says nothing must not keep others waiting.
_ASK_WITHIN_S = 5.0
STREAMS = 3


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One line of JSON; standard input, output and error come with it."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """First the consumer's pid, at its end its exit code (negative: the signal), each one line."""

    pid: int = 0
    code: int | None = None


class Zygote:
    """`serve` returns in every child, with what was asked; in the zygote itself when it is told to stop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, socket.socket] = {}
        self._is_stopping = False

    def serve(self, on_ready: Callable[[], None]) -> Ask | None:
        """
        Raises:
            ConfigError: the socket cannot be made, or another zygote answers there.
        """
        listener = _listener(self._path)
        self._selector.register(listener, selectors.EVENT_READ)
        woken, wake = socket.socketpair()
        for one in (woken, wake):
            one.setblocking(False)
        self._selector.register(woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, _wake)
        on_ready()
        while not self._is_stopping:
            for key, _ in self._selector.select():
                if key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    self._bury()
                elif (ask := self._take(listener)) is not None:
                    for one in (listener, woken, wake):
                        one.close()
                    return ask
        self._path.unlink(missing_ok=True)
        return None

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _take(self, listener: socket.socket) -> Ask | None:
        """In the child, what it is to be."""
        stand_in, _ = listener.accept()
        stand_in.settimeout(_ASK_WITHIN_S)
        try:
            ask, streams = _read(stand_in)
        except (OSError, EOFError, msgspec.DecodeError):
            stand_in.close()
            return None
        stand_in.settimeout(None)
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            self._children[pid] = stand_in
            _tell(stand_in, Answer(pid=pid))
            return None
        self._become(ask, streams, stand_in)
        return ask

    def _become(self, ask: Ask, streams: list[int], stand_in: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for other in self._children.values():
            other.close()
        os.setsid()
        for stream, standard in zip(streams, range(STREAMS), strict=True):
            os.dup2(stream, standard)
            os.close(stream)
        os.chdir(ask.folder)
        os.environ.clear()  # noqa: TID251 - the stand-in's is ours now
        os.environ.update(ask.environment)  # noqa: TID251
        os.environ[FORKED] = "1"  # noqa: TID251 - the engine's own processes may be forked as well
        threading.Thread(target=_end_with, args=(stand_in,), name="end-with-stand-in", daemon=True).start()

    def _bury(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            stand_in = self._children.pop(pid, None)
            if stand_in is not None:
                _tell(stand_in, Answer(code=os.waitstatus_to_exitcode(status)))
                stand_in.close()


def main(path: str, preload: Callable[[], object], run: Callable[[], int]) -> int:
    """`run` is a consumer's whole life, in the child."""
    preload()
    # What is alive stays alive: a child that collects garbage would copy all of it.
    gc.collect()
    gc.freeze()
    zygote = Zygote(Path(path))
    ask = zygote.serve(lambda: _say(f"penstock zygote: ready at {path}"))
    if ask is None:
        return 0
    sys.argv = ["penstock consumer", *ask.arguments]
    return run()


def _wake(number: int, frame: FrameType | None) -> None:
    """The wake-up socket is what counts; without a handler Python would not write to it."""
    del number, frame


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if path.exists() and probe.connect_ex(str(path)) == 0:
            raise ConfigError(f"--serve-zygote {path}: another one answers there", param="--serve-zygote")
    before = os.umask(0o177)
    try:
        # Left by one that was killed.
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        message = f"--serve-zygote {path}: {error.strerror or error}; a socket's path has at most 107 bytes"
        raise ConfigError(message, param="--serve-zygote") from error
    finally:
        os.umask(before)
    listener.listen()
    return listener


def _read(stand_in: socket.socket) -> tuple[Ask, list[int]]:
    """
    Raises:
        EOFError: it ended, or too much or too few came.
    """
    data, streams, _, _ = socket.recv_fds(stand_in, 65536, STREAMS)
    while not data.endswith(b"\n"):
        more = stand_in.recv(65536)
        if not more or len(data) > _ASK_BYTES_MAX:
            _close(streams)
            raise EOFError
        data += more
    if len(streams) != STREAMS:
        _close(streams)
        raise EOFError
    try:
        return msgspec.json.decode(data, type=Ask), streams
    except msgspec.DecodeError:
        _close(streams)
        raise


def _close(streams: list[int]) -> None:
    for stream in streams:
        os.close(stream)


def _tell(stand_in: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):
        stand_in.sendall(msgspec.json.encode(answer) + b"\n")


def _end_with(stand_in: socket.socket) -> None:
    with contextlib.suppress(OSError):
        stand_in.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)
