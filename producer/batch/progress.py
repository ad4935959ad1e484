"""How a run looks while it goes: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from producer.batch.stats import Stats

REFRESH_S = 0.2
LINE_EVERY_S = 10.0


@contextlib.asynccontextmanager
async def shown(
    stats: Callable[[], Stats], lines: int, clock_s: Callable[[], float], console: Console
) -> AsyncGenerator[None]:
    """Shows `stats` until left, and once more at the end."""
    show = _Bar(lines, clock_s, console) if console.is_terminal else _Lines(lines, clock_s, console)
    task = asyncio.create_task(_refresh(show, stats))
    try:
        with show:
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                show.update(stats(), is_last=True)
    finally:
        task.cancel()


async def _refresh(show: _Bar | _Lines, stats: Callable[[], Stats]) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        show.update(stats(), is_last=False)


class _Bar:
    def __init__(self, lines: int, clock_s: Callable[[], float], console: Console) -> None:
        self._clock_s = clock_s
        self._lines = lines
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("[green]{task.fields[done]} done[/] [red]{task.fields[failed]} failed[/]"),
            TextColumn("{task.fields[rate]} tok/s"),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            console=console,
        )
        self._task = self._progress.add_task("", total=lines, done=0, failed=0, rate="–", eta="–")

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, stats: Stats, *, is_last: bool) -> None:
        now = self._clock_s()
        self._progress.update(
            self._task,
            completed=stats.answered,
            done=stats.done + stats.skipped - stats.failed_before,
            failed=stats.failed.total() + stats.failed_before,
            rate=f"{stats.tokens_per_s(now):,.0f}",
            eta="done" if is_last else eta_of(stats, self._lines, now),
        )


class _Lines:
    def __init__(self, lines: int, clock_s: Callable[[], float], console: Console) -> None:
        self._clock_s = clock_s
        self._lines = lines
        self._console = console
        self._next_s = clock_s() + LINE_EVERY_S

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def update(self, stats: Stats, *, is_last: bool) -> None:
        now = self._clock_s()
        if not is_last and now < self._next_s:
            return
        self._next_s = now + LINE_EVERY_S
        self._console.print(
            f"{stats.answered}/{self._lines} answered, {stats.failed.total() + stats.failed_before} failed, "
            f"{stats.tokens_per_s(now):,.0f} tok/s, ETA {eta_of(stats, self._lines, now)}",
            highlight=False,
        )


def eta_of(stats: Stats, lines: int, now_s: float) -> str:
    """From the mean pace of this run; resumed lines were not its work."""
    worked = stats.answered - stats.skipped
    left = lines - stats.answered
    if left <= 0:
        return "0:00"
    if not worked:
        return "–"
    seconds = round(stats.seconds(now_s) / worked * left)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
