"""A preview for a terminal: a table, and a plot with one line a window. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from scaler.schedule.preview import Preview, as_local

_BLOCKS = " ▁▂▃▄▅▆▇█"
_OPEN, _SHUT, _CHANGE = "█", "·", "▲"
HEADINGS = ("from", "until", "for", "at least", "at most", "windows")


def rows(preview: Preview) -> list[tuple[str, ...]]:
    """One for each stretch in which the same holds. The zone's name is written where it is not the one before."""
    table: list[tuple[str, ...]] = []
    zone_name = ""
    for period in preview.periods:
        begin, end = (as_local(at, preview.tz) for at in (period.begin_unix_s, period.end_unix_s))
        limits = period.limits
        table.append(
            (
                _moment(begin, zone_name),
                _moment(end, begin.tzname() or ""),
                _length(period.end_unix_s - period.begin_unix_s),
                str(limits.floor) if limits.windows else "-",
                "-" if limits.ceiling is None else str(limits.ceiling),
                " + ".join(limits.windows) or "none",
            )
        )
        zone_name = end.tzname() or ""
    return table


def notes(preview: Preview) -> list[str]:
    return [f"{as_local(note.unix_s, preview.tz):%a %Y-%m-%d %H:%M}  {note.text}" for note in preview.notes]


def plot(preview: Preview, width: int = 72) -> list[str]:
    """A character stands for the beginning of its part of the time."""
    begin_s, whole_s = preview.begin_unix_s, preview.end_unix_s - preview.begin_unix_s
    # The middle of each part, so that a window of exactly one part is seen.
    middles = [begin_s + whole_s * (number + 0.5) / width for number in range(width)]
    labels = ["", "at least", "at most", *preview.spans]
    margin = max(len(label) for label in labels) + 2

    def line(label: str, characters: str, after: str = "") -> str:
        return f"{label:<{margin}}{characters}{after}".rstrip()

    most = max(1, preview.most)
    limits = [next(one.limits for one in preview.periods if at < one.end_unix_s) for at in middles]
    floors = "".join(_height(one.floor, most) for one in limits)
    ceilings = "".join(_ceiling(one.ceiling, most) for one in limits)
    lines = [line("", _days(preview, width))]
    for name, spans in preview.spans.items():
        lines.append(line(name, "".join(_OPEN if any(a <= at < b for a, b in spans) else _SHUT for at in middles)))
    lines.append(line("at least", floors, f" 0 to {most}"))
    if any(one.ceiling is not None for one in limits):
        lines.append(line("at most", ceilings, " ╌ none, _ zero"))
    if preview.clock_changes:
        marks = [" "] * width
        for change in preview.clock_changes:
            marks[min(width - 1, int((change.unix_s - begin_s) / whole_s * width))] = _CHANGE
        lines.append(line("", "".join(marks), " clocks change"))
    return lines


def as_json(preview: Preview) -> dict[str, Any]:
    def iso(unix_s: float, tz: str = preview.tz) -> str:
        return as_local(unix_s, tz).isoformat()

    return {
        "tz": preview.tz,
        "from": iso(preview.begin_unix_s),
        "to": iso(preview.end_unix_s),
        "periods": [
            {
                "from": iso(one.begin_unix_s),
                "to": iso(one.end_unix_s),
                "hours": round((one.end_unix_s - one.begin_unix_s) / 3600, 4),
                "floor": one.limits.floor,
                "ceiling": one.limits.ceiling,
                "windows": list(one.limits.windows),
            }
            for one in preview.periods
        ],
        "clock_changes": [
            {"at": iso(one.unix_s, one.tz), "tz": one.tz, "before": one.before, "after": one.after}
            for one in preview.clock_changes
        ],
        "notes": [{"at": iso(one.unix_s), "text": one.text} for one in preview.notes],
    }


def _moment(at: datetime, zone_name: str) -> str:
    known = "" if at.tzname() == zone_name else f" {at.tzname()}"
    return f"{at:%a %Y-%m-%d %H:%M}{known}"


def _length(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h" if not minutes else f"{hours} h {minutes:02} min"


def _height(value: int, most: int) -> str:
    return _BLOCKS[min(8, -(-value * 8 // most))]


def _ceiling(value: int | None, most: int) -> str:
    if value is None:
        return "╌"
    return _height(value, most) if value else "_"


def _days(preview: Preview, width: int) -> str:
    """Names where a day begins, as many as fit."""
    characters = [" "] * width
    whole_s = preview.end_unix_s - preview.begin_unix_s
    free_from = 0
    for at_s in midnights(preview):
        place = int((at_s - preview.begin_unix_s) / whole_s * width)
        label = f"|{as_local(at_s, preview.tz):%a %d}"
        if place < free_from or place + len(label) > width:
            continue
        characters[place : place + len(label)] = label
        free_from = place + len(label) + 1
    return "".join(characters)


def midnights(preview: Preview) -> list[float]:
    zone = ZoneInfo(preview.tz)
    found: list[float] = []
    day = as_local(preview.begin_unix_s, preview.tz).date().toordinal()
    while True:
        midnight = datetime.fromordinal(day).replace(tzinfo=zone).timestamp()
        if midnight >= preview.end_unix_s:
            return found
        if midnight >= preview.begin_unix_s:
            found.append(midnight)
        day += 1
