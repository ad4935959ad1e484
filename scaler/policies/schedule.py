"""Windows of time that set floors and ceilings: cron with a time zone, a calendar of exceptions, and a preview.

A window opens when its `cron` fires in its own time zone and stays open for `hours` of real time, so one that spans a
change of the clocks is neither longer nor shorter. Times that a clock skips or repeats fire once (Debian's rule). Of
windows that are open together the highest floor and the lowest ceiling count; a floor above the ceiling loses.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from scaler.cron import Cron
from scaler.observation import Observation
from scaler.policies.days import Days
from scaler.policies.port import Target
from schemas.errors import ConfigError

_HOURS_MAX = 8784


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`target` is a floor and a ceiling in one. Local dates: on those in `except_on` it does not open, and where there
    are any in `only_on`, on no others; so a day is replaced by another window that opens only on it.
    """

    name: str
    cron: str
    tz: str = "UTC"
    hours: float
    floor: int = 0
    ceiling: int | None = None
    target: int | None = None
    except_on: list[str] = []
    only_on: list[str] = []

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


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a window's cron fires. `skipped_for` says which entry of its calendar keeps it shut; `is_shifted`
    that the clock skipped the time that was meant.
    """

    window: Window
    begin_unix_s: float
    end_unix_s: float
    skipped_for: str = ""
    is_shifted: bool = False


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
        spans = [list(window.open_spans(begin_unix_s, end_unix_s)) for window in self._windows]
        edges = {begin_unix_s, end_unix_s}
        edges.update(edge for one in spans for span in one for edge in span if begin_unix_s < edge < end_unix_s)
        rows: list[Period] = []
        for begin, end in pairwise(sorted(edges)):
            opened: list[Window] = []
            for window, left in zip(self._windows, spans, strict=True):
                while left and left[0][1] <= begin:
                    left.pop(0)
                if left and left[0][0] <= begin:
                    opened.append(window.window)
            limits = _together(opened)
            if rows and rows[-1].limits == limits:
                rows[-1] = Period(begin_unix_s=rows[-1].begin_unix_s, end_unix_s=end, limits=limits)
            else:
                rows.append(Period(begin_unix_s=begin, end_unix_s=end, limits=limits))
        return rows

    def openings(self, begin_unix_s: float, end_unix_s: float) -> list[Opening]:
        """Every time a window opens, or would but for its calendar, in order; those that began earlier and still hold
        are among them.
        """
        found = [one for window in self._windows for one in window.openings(begin_unix_s, end_unix_s)]
        return sorted(found, key=lambda one: one.begin_unix_s)

    def _at(self, unix_s: float) -> Limits:
        return _together([one.window for one in self._windows if one.is_open(unix_s)])


def _together(opened: list[Window]) -> Limits:
    floor = max((window.least for window in opened), default=0)
    ceilings = [window.most for window in opened if window.most is not None]
    ceiling = min(ceilings) if ceilings else None
    if ceiling is not None:
        floor = min(floor, ceiling)
    return Limits(floor=floor, ceiling=ceiling, windows=tuple(window.name for window in opened))


class _Checked:
    """A window whose cron, zone, numbers and dates are known to be good."""

    def __init__(self, window: Window) -> None:
        self._where = f"schedule.{window.name}"
        self.window = window
        self._cron = self._checked_cron(self._checked_zone())
        self._check_numbers()
        self._except_on = self._checked_days("except_on", window.except_on)
        self._only_on = self._checked_days("only_on", window.only_on)
        self._length_s = window.hours * 3600
        # The open spans around the last question; questions come in order of time.
        self._known: tuple[float, float, list[tuple[float, float]]] = (0.0, 0.0, [])

    def is_open(self, unix_s: float) -> bool:
        begin, end, spans = self._known
        if not begin <= unix_s < end:
            begin, end = unix_s, unix_s + 86400
            spans = list(self.open_spans(begin, end))
            self._known = (begin, end, spans)
        return any(opened <= unix_s < closed for opened, closed in spans)

    def open_spans(self, begin_unix_s: float, end_unix_s: float) -> Iterator[tuple[float, float]]:
        """When it is open in the time given; openings that touch are one span."""
        now: tuple[float, float] | None = None
        for one in self.openings(begin_unix_s, end_unix_s):
            if one.skipped_for:
                continue
            if now and one.begin_unix_s <= now[1]:
                now = (now[0], max(now[1], one.end_unix_s))
                continue
            if now:
                yield now
            now = (one.begin_unix_s, one.end_unix_s)
        if now:
            yield now

    def openings(self, begin_unix_s: float, end_unix_s: float) -> Iterator[Opening]:
        """All that touch the time given."""
        for fired in self._cron.firings(begin_unix_s - self._length_s, end_unix_s):
            closes_unix_s = fired.unix_s + self._length_s
            if closes_unix_s > begin_unix_s:
                yield Opening(
                    window=self.window,
                    begin_unix_s=fired.unix_s,
                    end_unix_s=closes_unix_s,
                    skipped_for=self._skipped_for(fired.day),
                    is_shifted=fired.is_shifted,
                )

    def _skipped_for(self, day: date) -> str:
        if self._only_on and day not in self._only_on:
            return "not in only_on"
        entry = self._except_on.named_by(day)
        return "" if entry is None else f"except_on {entry}"

    def _checked_zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.window.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            message = f"no time zone {self.window.tz!r}: write one of the tz database, like Europe/Berlin or UTC"
            raise self._refused("tz", message) from error

    def _checked_cron(self, zone: ZoneInfo) -> Cron:
        try:
            return Cron(self.window.cron, zone)
        except ValueError as error:
            raise self._refused("cron", str(error)) from error

    def _check_numbers(self) -> None:
        window, most = self.window, self.window.most
        if not 0 < window.hours <= _HOURS_MAX:
            message = f"{window.hours:g} is not between 0 and {_HOURS_MAX} (a year): how long it stays open"
            raise self._refused("hours", message)
        if window.target is not None and (window.floor or window.ceiling is not None):
            message = f"{window.target} is a floor and a ceiling in one: leave out floor and ceiling, or target"
            raise self._refused("target", message)
        if window.target is not None and window.target < 0:
            raise self._refused("target", f"{window.target} is below 0")
        if window.least < 0 or (most is not None and most < window.least):
            raise self._refused("floor", f"{window.least} does not lie between 0 and the ceiling {most}")

    def _checked_days(self, field: str, entries: list[str]) -> Days:
        try:
            return Days(entries)
        except ValueError as error:
            raise self._refused(field, str(error)) from error

    def _refused(self, field: str, message: str) -> ConfigError:
        return ConfigError(f"{self._where}.{field}: {message}", param=f"{self._where}.{field}")
