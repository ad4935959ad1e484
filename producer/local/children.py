"""One program of ours as a child process: started, listened to, asked to stop, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from infra.children import LogLine, parsed

# A consumer's own message before it gave up is among its last lines.
LAST_LINES = 40
LINE_BYTES_MAX = 1024 * 1024


class Program(NamedTuple):
    """What `python -m` is told, and the event by which it says that it works."""

    words: tuple[str, ...]
    ready_event: str


CONSUMER = Program(("consumer", "--with-parent"), "consumer.ready")
GATEWAY = Program(("producer.gateway", "--with-parent"), "gateway.ready")
# It takes its consumers with it: nothing is left behind.
SCALER = Program(("scaler", "scaler", "--with-parent", "--drain-at-stop"), "scaler.ready")
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
