"""What windows do between two times: rows without gaps, changes of the clocks, and whatever surprises. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from scaler.policies.schedule import Opening, Period, Schedule, Window

_MINUTE_S = 60


class Note(msgspec.Struct, frozen=True, kw_only=True):
    unix_s: float
    text: str


class ClockChange(msgspec.Struct, frozen=True, kw_only=True):
    """`before` and `after` are what the wall shows at that moment."""

    unix_s: float
    tz: str
    before: str
    after: str
    shift_s: float


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """`spans`: by window, when it is open, clipped to the time looked at."""

    tz: str
    begin_unix_s: float
    end_unix_s: float
    periods: list[Period]
    spans: dict[str, list[tuple[float, float]]]
    clock_changes: list[ClockChange]
    notes: list[Note]

    @property
    def most(self) -> int:
        """The highest number in it."""
        numbers = [one.limits.floor for one in self.periods]
        return max([*numbers, *(one.limits.ceiling or 0 for one in self.periods)], default=0)


def preview_of(windows: list[Window], begin_unix_s: float, end_unix_s: float, tz: str) -> Preview:
    """
    Raises:
        ConfigError: a window is wrong; names its field.
    """
    schedule = Schedule(windows)
    periods = schedule.preview(begin_unix_s, end_unix_s)
    openings = schedule.openings(begin_unix_s, end_unix_s)
    zones = dict.fromkeys((tz, *(window.tz for window in windows)))
    changes = [change for zone in zones for change in clock_changes(zone, begin_unix_s, end_unix_s)]
    notes = [Note(unix_s=one.unix_s, text=_words(one)) for one in changes]
    notes += [note for one in openings for note in _of_opening(one) if begin_unix_s <= note.unix_s < end_unix_s]
    notes += _of_overlaps(periods, {window.name: window for window in windows})
    for window in windows:
        if not any(one.window.name == window.name and not one.skipped_for for one in openings):
            notes.append(Note(unix_s=begin_unix_s, text=f"{window.name} does not open in this time"))
    return Preview(
        tz=tz,
        begin_unix_s=begin_unix_s,
        end_unix_s=end_unix_s,
        periods=periods,
        spans={window.name: _spans(periods, window.name) for window in windows},
        clock_changes=changes,
        notes=sorted(notes, key=lambda note: note.unix_s),
    )


def clock_changes(tz: str, begin_unix_s: float, end_unix_s: float) -> Iterator[ClockChange]:
    """Found by looking at every hour, then at its minutes; clocks change at whole minutes."""
    zone = ZoneInfo(tz)
    begin = int(begin_unix_s // _MINUTE_S) * _MINUTE_S
    for hour_s in range(begin, int(end_unix_s), 3600):
        if _offset_s(zone, hour_s) == _offset_s(zone, hour_s + 3600):
            continue
        for at_s in range(hour_s + _MINUTE_S, min(hour_s + 3600, int(end_unix_s)) + _MINUTE_S, _MINUTE_S):
            shift_s = _offset_s(zone, at_s) - _offset_s(zone, at_s - _MINUTE_S)
            if shift_s and at_s < end_unix_s:
                after = datetime.fromtimestamp(at_s, zone)
                before = (after.replace(tzinfo=None) - timedelta(seconds=shift_s)).strftime("%H:%M")
                yield ClockChange(
                    unix_s=float(at_s), tz=tz, before=before, after=after.strftime("%H:%M"), shift_s=shift_s
                )


def _offset_s(zone: ZoneInfo, unix_s: float) -> float:
    offset = datetime.fromtimestamp(unix_s, zone).utcoffset()
    return offset.total_seconds() if offset else 0.0


def _words(change: ClockChange) -> str:
    direction = "forward" if change.shift_s > 0 else "back"
    return f"clocks of {change.tz} go {direction} from {change.before} to {change.after}"


def _of_opening(opening: Opening) -> Iterator[Note]:
    name, zone = opening.window.name, ZoneInfo(opening.window.tz)
    opened, closed = (datetime.fromtimestamp(at, zone) for at in (opening.begin_unix_s, opening.end_unix_s))
    if opening.skipped_for:
        text = f"{name} does not open at {opened:%H:%M} on {opened:%Y-%m-%d}: {opening.skipped_for}"
        yield Note(unix_s=opening.begin_unix_s, text=text)
        return
    if opening.is_shifted:
        text = f"{name} opens at {opened:%H:%M}: the clock skips the time that was meant"
        yield Note(unix_s=opening.begin_unix_s, text=text)
    elif opened.fold == 0 and opened.utcoffset() != opened.replace(fold=1).utcoffset():
        text = f"{name} opens at {opened:%H:%M}, which comes twice, the first time"
        yield Note(unix_s=opening.begin_unix_s, text=text)
    if opened.utcoffset() != closed.utcoffset():
        text = (
            f"{name} holds for {opening.window.hours:g} h of real time, {opened:%H:%M} to {closed:%H:%M} by the clock"
        )
        yield Note(unix_s=opening.begin_unix_s, text=text)


def _of_overlaps(periods: list[Period], windows: dict[str, Window]) -> Iterator[Note]:
    for period in periods:
        limits = period.limits
        opened = [windows[name] for name in limits.windows]
        loser = max(opened, key=lambda one: one.least, default=None)
        if loser is None or limits.ceiling is None or loser.least <= limits.ceiling:
            continue
        winner = min((one for one in opened if one.most is not None), key=lambda one: one.most or 0)
        text = f"the floor {loser.least} of {loser.name} loses to the ceiling {limits.ceiling} of {winner.name}"
        yield Note(unix_s=period.begin_unix_s, text=text)


def _spans(periods: list[Period], name: str) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    for period in periods:
        if name not in period.limits.windows:
            continue
        if spans and spans[-1][1] == period.begin_unix_s:
            spans[-1] = (spans[-1][0], period.end_unix_s)
        else:
            spans.append((period.begin_unix_s, period.end_unix_s))
    return spans


def as_local(unix_s: float, tz: str) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC).astimezone(ZoneInfo(tz))
