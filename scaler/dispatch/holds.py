"""What must not start yet: jobs held until a time, and off-peak windows that open and close. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from schemas.config import WindowSection
from schemas.errors import ConfigError

# A cron that never comes ("0 0 30 2 *").
_NEVER_UNIX_MS = 2**53
# Windows that are not configured share a number beyond this many: none of them opens anyway.
_NAMES_MAX = 1000


class OffPeak:
    """One window. Opens when its cron says so, by the wall clock of its time zone, for its hours as they pass."""

    def __init__(self, name: str, cfg: WindowSection) -> None:
        """Raises:
        ConfigError: the cron or the time zone is not one.
        """
        self._cfg = cfg
        try:
            self._zone = ZoneInfo(cfg.tz)
            CronSim(cfg.cron, datetime(2026, 1, 1, tzinfo=self._zone))
        except (CronSimError, ZoneInfoNotFoundError, ValueError) as error:
            raise ConfigError(f"$.dispatcher.windows.{name}: {error}") from error
        self._looked_unix_ms = -1
        self._changes_unix_ms = -1
        self._is_open = False

    def is_open(self, now_unix_ms: int) -> bool:
        if not self._looked_unix_ms <= now_unix_ms < self._changes_unix_ms:
            self._look(now_unix_ms)
        return self._is_open

    def opens_unix_ms(self, now_unix_ms: int) -> int:
        """Now, where it is open."""
        return now_unix_ms if self.is_open(now_unix_ms) else self._changes_unix_ms

    def _look(self, now_unix_ms: int) -> None:
        now = datetime.fromtimestamp(now_unix_ms / 1000, UTC).astimezone(self._zone)
        length = timedelta(hours=self._cfg.hours)
        try:
            # cronsim's "before" leaves out the moment itself; it must have opened at that.
            last = next(CronSim(self._cfg.cron, now + timedelta(minutes=1), reverse=True)).astimezone(UTC)
            while last > now:
                last = next(CronSim(self._cfg.cron, last.astimezone(self._zone), reverse=True)).astimezone(UTC)
            closes = last + length
        except StopIteration:
            closes = datetime.fromtimestamp(0, UTC)
        self._is_open = now < closes
        if self._is_open:
            changes = _unix_ms(closes)
        else:
            coming = next(CronSim(self._cfg.cron, now), None)
            changes = _NEVER_UNIX_MS if coming is None else _unix_ms(coming)
        self._looked_unix_ms, self._changes_unix_ms = now_unix_ms, max(changes, now_unix_ms + 1)


def _unix_ms(time: datetime) -> int:
    return round(time.astimezone(UTC).timestamp() * 1000)


class Windows:
    """All of a configuration's, by number: 0 is "no window", and one that is not configured never opens."""

    def __init__(self, cfg: Mapping[str, WindowSection]) -> None:
        self._windows = [OffPeak(name, window) for name, window in cfg.items()]
        self._names = ["", *cfg]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._are_open: list[bool] = [True] + [False] * len(cfg)

    def number_of(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None and len(self._names) >= _NAMES_MAX:
            return len(self._names) - 1
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
            self._are_open.append(False)
        return number

    def name_of(self, number: int) -> str:
        return self._names[number]

    def is_open(self, number: int) -> bool:
        """As of the last `turn`."""
        return self._are_open[number]

    def closed(self) -> list[int]:
        """The numbers of the others."""
        return [number for number, is_open in enumerate(self._are_open) if not is_open]

    def turn(self, now_unix_ms: int) -> list[int]:
        """The numbers of those that opened or closed since."""
        turned: list[int] = []
        for number, window in enumerate(self._windows, 1):
            if window.is_open(now_unix_ms) != self._are_open[number]:
                self._are_open[number] = not self._are_open[number]
                turned.append(number)
        return turned

    def opens_unix_ms(self, name: str, now_unix_ms: int) -> int | None:
        """None: there is no such window, or it never opens."""
        if not name:
            return now_unix_ms
        number = self._numbers.get(name, 0)
        if not 0 < number <= len(self._windows):
            return None
        opens = self._windows[number - 1].opens_unix_ms(now_unix_ms)
        return None if opens >= _NEVER_UNIX_MS else opens


class Alarms:
    """Sequence numbers by the time at which somebody must look at them again."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        # Time and sequence number in one integer: half the memory of a pair.
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, unix_ms: int, seq: int) -> None:
        heapq.heappush(self._heap, (unix_ms << 64) | seq)

    def due(self, now_unix_ms: int) -> list[int]:
        limit, heap, seqs = (now_unix_ms + 1) << 64, self._heap, list[int]()
        while heap and heap[0] < limit:
            seqs.append(heapq.heappop(heap) & (2**64 - 1))
        return seqs
