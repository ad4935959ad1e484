"""Dates as a calendar names them: `2026-12-25`, `2026-12-24..2027-01-01`, `12-25` of every year. No I/O."""

from __future__ import annotations

import re
from datetime import date

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_EVERY_YEAR = re.compile(r"\d{2}-\d{2}")
# A leap year, so that 29 February can be named.
_ANY_YEAR = 2024


class Days:
    """A set of dates that remembers which of its entries named one."""

    def __init__(self, entries: list[str]) -> None:
        """Raises:
        ValueError: an entry is none of these; says which.
        """
        self._spans: list[tuple[date, date, str]] = []
        self._every_year: dict[tuple[int, int], str] = {}
        for entry in entries:
            self._add(entry)

    def named_by(self, day: date) -> str | None:
        """The entry that holds this date."""
        for first, last, entry in self._spans:
            if first <= day <= last:
                return entry
        return self._every_year.get((day.month, day.day))

    def __contains__(self, day: date) -> bool:
        return self.named_by(day) is not None

    def __bool__(self) -> bool:
        return bool(self._spans or self._every_year)

    def _add(self, entry: str) -> None:
        begin, dots, end = entry.strip().partition("..")
        if not dots and _EVERY_YEAR.fullmatch(begin):
            day = _date(f"{_ANY_YEAR}-{begin}", entry)
            self._every_year[day.month, day.day] = entry
            return
        first = _date(begin, entry)
        last = _date(end, entry) if dots else first
        if last < first:
            raise ValueError(f"{entry!r} ends before it begins")
        self._spans.append((first, last, entry))


def _date(text: str, entry: str) -> date:
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(
        f"{entry!r} is no date: write 2026-12-25, 2026-12-24..2027-01-01 for a span, or 12-25 for every year"
    )
