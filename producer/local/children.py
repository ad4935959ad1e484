"""One program of ours as a child process: started, listened to, asked to stop, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import msgspec

# A consumer's own message before it gave up is among its last lines.
LAST_LINES = 40
LINE_BYTES_MAX = 1024 * 1024
FIRST_RESTART_S = 1.0
RESTART_MAX_S = 30.0
# A consumer that lived this long had started well; its next failure counts as the first.
WELL_AFTER_S = 60.0
# One that never became ready will not the next time either.
STARTS_MAX = 3
OPERATOR_ERROR = 2


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a child's output: ours, with its event and fields, or somebody else's text."""

    text: str
    event: str = ""
    level: str = ""
    fields: dict[str, Any] = {}


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer ended, and when it is started again; None for never."""

    exit_code: int
    restart_in_s: float | None
    reason: str


def death_of(exit_code: int, *, lived_s: float, deaths_before: int, was_ready: bool) -> Death:
    """Whether to start a consumer again that ended unasked, having died `deaths_before` times in a row."""
    if exit_code == OPERATOR_ERROR:
        return Death(exit_code=exit_code, restart_in_s=None, reason="a person must change something first")
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    reason = f"{how} after {lived_s:.0f} s"
    if not was_ready and deaths_before + 1 >= STARTS_MAX:
        return Death(exit_code=exit_code, restart_in_s=None, reason=f"{reason}, and never ready in {STARTS_MAX} starts")
    wait_s = min(RESTART_MAX_S, FIRST_RESTART_S * 2**deaths_before)
    return Death(exit_code=exit_code, restart_in_s=wait_s, reason=reason)


def parsed(line: bytes) -> LogLine:
    text = line.decode("utf-8", "replace").rstrip()
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            entry: Any = msgspec.json.decode(text)
            if isinstance(entry, dict) and isinstance(event := cast("dict[str, Any]", entry).get("event"), str):
                fields = cast("dict[str, Any]", entry)
                rest = {key: value for key, value in fields.items() if key not in {"ts", "level", "event", "logger"}}
                return LogLine(text=text, event=event, level=str(fields.get("level", "")), fields=rest)
    return LogLine(text=text)


class Program(NamedTuple):
    """What `python -m` is told, and the event by which it says that it works."""

    words: tuple[str, ...]
    ready_event: str


CONSUMER = Program(("consumer", "--with-parent"), "consumer.ready")
GATEWAY = Program(("producer.gateway", "--with-parent"), "gateway.ready")
DISPATCHER = Program(("scaler", "dispatcher", "--with-parent"), "dispatcher.ready")


class Child:
    """One of them, in a process group of its own: Ctrl-C reaches only us, and we choose the order."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        environment: Mapping[str, str],
        on_line: Callable[[str, LogLine], None],
        program: Program = CONSUMER,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.program = program
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.is_ready = asyncio.Event()
        self._arguments = arguments
        self._environment = environment
        self._on_line = on_line
        self._pass_fds = pass_fds
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def run(self) -> int:
        """Lives as long as the process does; returns its exit code."""
        self.is_ready.clear()
        self.last_lines.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Not from the current directory, where a folder named `consumer` may be somebody else's.
            "-P",
            "-m",
            *self.program.words,
            *self._arguments,
            env=dict(self._environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
            pass_fds=self._pass_fds,
        )
        try:
            await self._read_lines(self._process)
            return await self._process.wait()
        finally:
            self._sweep()

    def ask_to_stop(self) -> None:
        """The first time it drains, the second time it skips its grace."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._sweep()

    async def _read_lines(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:
                # A line beyond the limit: the reader has dropped it.
                continue
            if not raw:
                return
            line = parsed(raw)
            if line.event == self.program.ready_event:
                self.is_ready.set()
            self.last_lines.append(line.text)
            self._on_line(self.name, line)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _sweep(self) -> None:
        """An engine's own child processes outlive a consumer that was killed; the group does not."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
