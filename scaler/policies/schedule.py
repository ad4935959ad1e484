"""Windows of time that set floors and ceilings: cron with a time zone, a calendar of exceptions, and a preview.

A window opens when its `cron` fires in its own time zone and stays open for `hours` of real time, so one that spans a
change of the clocks is neither longer nor shorter. Times that a clock skips or repeats fire once (Debian's rule). Of
windows that are open together the highest floor and the lowest ceiling count; a floor above the ceiling loses.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from scaler.observation import Observation
from scaler.policies.port import Target
from schemas.errors import ConfigError


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """`target` is a floor and a ceiling in one. `except_on`: local dates (ISO) on which it does not open."""

    name: str
    cron: str
    tz: str = "UTC"
    hours: float
    floor: int = 0
    ceiling: int | None = None
    target: int | None = None
    except_on: list[str] = []

    @property
    def least(self) -> int:
        return self.floor if self.target is None else self.target

    @property
    def most(self) -> int | None:
        return self.ceiling if self.target is None else self.target


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    floor: int = 0
    ceiling: int | None = None
    windows: tuple[str, ...] = ()


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a preview; from `begin` until `end`, in Unix seconds."""

    begin_unix_s: float
    end_unix_s: float
    limits: Limits


class Schedule:
    """Checked windows. Looks only into the observation's time; asks one cold start ahead for floors."""

    name = "schedule"

    def __init__(self, windows: list[Window]) -> None:
        self._windows = [_Checked(window) for window in windows]

    def decide(self, observation: Observation) -> Target:
        """The floor that will hold when a replica started now is ready; `None` where no window is open."""
        limits = self.limits(observation.unix_s, ahead_s=observation.cold_start_s)
        if not limits.windows:
            return Target(replicas=None, reason="no window of the schedule is open")
        most = "" if limits.ceiling is None else f" and no more than {limits.ceiling}"
        return Target(
            replicas=limits.floor,
            reason=f"schedule: at least {limits.floor}{most} ({', '.join(limits.windows)})",
        )

    def limits(self, unix_s: float, ahead_s: float = 0.0) -> Limits:
        """The ceiling of now with the floor of `ahead_s` from now, or of now if that is higher."""
        now = self._at(unix_s)
        if ahead_s <= 0:
            return now
        ahead = self._at(unix_s + ahead_s)
        floor = max(now.floor, ahead.floor)
        # A ceiling that ends before the replica is ready must not hold up its start.
        ceiling = now.ceiling
        if ceiling is not None and ahead.floor > ceiling and (ahead.ceiling is None or ahead.ceiling >= ahead.floor):
            ceiling = ahead.floor
        if ceiling is not None:
            floor = min(floor, ceiling)
        names = tuple(dict.fromkeys((*now.windows, *ahead.windows)))
        return Limits(floor=floor, ceiling=ceiling, windows=names)

    def clip(self, replicas: int, unix_s: float, cold_start_s: float) -> int:
        limits = self.limits(unix_s, cold_start_s)
        clipped = max(replicas, limits.floor)
        return clipped if limits.ceiling is None else min(clipped, limits.ceiling)

    def preview(self, begin_unix_s: float, end_unix_s: float) -> list[Period]:
        """What holds when, without gaps; neighbours that are alike are one row."""
        edges = {begin_unix_s, end_unix_s}
        for window in self._windows:
            for opened, closed in window.openings(begin_unix_s, end_unix_s):
                edges.update(edge for edge in (opened, closed) if begin_unix_s < edge < end_unix_s)
        ordered = sorted(edges)
        rows: list[Period] = []
        for begin, end in pairwise(ordered):
            limits = self._at(begin)
            if rows and rows[-1].limits == limits:
                rows[-1] = Period(begin_unix_s=rows[-1].begin_unix_s, end_unix_s=end, limits=limits)
            else:
                rows.append(Period(begin_unix_s=begin, end_unix_s=end, limits=limits))
        return rows

    def _at(self, unix_s: float) -> Limits:
        opened = [one.window for one in self._windows if one.is_open(unix_s)]
        floor = max((window.least for window in opened), default=0)
        ceilings = [window.most for window in opened if window.most is not None]
        ceiling = min(ceilings) if ceilings else None
        if ceiling is not None:
            floor = min(floor, ceiling)
        return Limits(floor=floor, ceiling=ceiling, windows=tuple(window.name for window in opened))


class _Checked:
    """A window whose cron and zone are known to be good."""

    def __init__(self, window: Window) -> None:
        where = f"schedule.{window.name}"
        try:
            self._zone = ZoneInfo(window.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(f"{where}.tz: no time zone {window.tz!r}", param=f"{where}.tz") from error
        try:
            CronSim(window.cron, datetime(2024, 1, 1, tzinfo=self._zone))
        except CronSimError as error:
            message = f"{where}.cron: {window.cron!r} is not minute, hour, day, month, weekday: {error}"
            raise ConfigError(message, param=f"{where}.cron") from error
        if not 0 < window.hours <= 24 * 366:
            raise ConfigError(f"{where}.hours: {window.hours:g} is not between 0 and a year", param=f"{where}.hours")
        most = window.most
        if window.least < 0 or (most is not None and most < window.least):
            message = f"{where}.floor: {window.least} does not lie between 0 and the ceiling {most}"
            raise ConfigError(message, param=f"{where}.floor")
        try:
            self._except_on = {date.fromisoformat(text) for text in window.except_on}
        except ValueError as error:
            raise ConfigError(f"{where}.except_on: {error}", param=f"{where}.except_on") from error
        self.window = window
        self._length_s = window.hours * 3600
        # The openings around the last question; questions come in order of time.
        self._known: tuple[float, float, list[tuple[float, float]]] = (0.0, 0.0, [])

    def is_open(self, unix_s: float) -> bool:
        begin, end, openings = self._known
        if not begin <= unix_s < end:
            begin, end = unix_s, unix_s + 86400
            openings = list(self.openings(begin, end))
            self._known = (begin, end, openings)
        return any(opened <= unix_s < closed for opened, closed in openings)

    def openings(self, begin_unix_s: float, end_unix_s: float) -> Iterator[tuple[float, float]]:
        """When it opens and closes, for all openings that touch the time given."""
        # cronsim answers strictly after its start; a minute earlier includes the edge.
        first = begin_unix_s - self._length_s - 60
        # In UTC first: a local time alone would be ambiguous for an hour each autumn.
        start = datetime.fromtimestamp(first, UTC).astimezone(self._zone)
        for fired in CronSim(self.window.cron, start):
            opened = fired.timestamp()
            if opened >= end_unix_s:
                return
            if fired.date() not in self._except_on and opened + self._length_s > begin_unix_s:
                yield opened, opened + self._length_s
