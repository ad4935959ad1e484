"""A preview as a picture: what holds over time, a bar for each window, and where clocks change. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from scaler.schedule.preview import Preview, as_local
from scaler.schedule.text import midnights
from scaler.svg import COLOURS, Picture, steps

_WIDTH, _LEFT, _RIGHT, _TOP = 960.0, 110.0, 20.0, 46.0
_CHART, _BAR, _GAP = 180.0, 16.0, 8.0
_GREY = "#d0d0d0"
_LABELS_MAX = 14
_Scale = Callable[[float], float]


def svg(preview: Preview) -> str:
    bars_top = _TOP + _CHART + 30
    height = bars_top + len(preview.spans) * (_BAR + _GAP) + 24
    picture = Picture(_WIDTH, height)
    whole_s = preview.end_unix_s - preview.begin_unix_s
    most = max(1, preview.most)

    def x(unix_s: float) -> float:
        return _LEFT + (unix_s - preview.begin_unix_s) / whole_s * (_WIDTH - _LEFT - _RIGHT)

    def y(replicas: float) -> float:
        return _TOP + _CHART * (1 - replicas / (most * 1.05))

    begin, end = (f"{as_local(at, preview.tz):%Y-%m-%d %H:%M}" for at in (preview.begin_unix_s, preview.end_unix_s))
    picture.text(_LEFT, 20, f"Consumers from {begin} to {end} ({preview.tz})", size=14)
    _axes(picture, preview, x, y, bars_top)
    for period in preview.periods:
        left, right, limits = x(period.begin_unix_s), x(period.end_unix_s), period.limits
        says = f"{as_local(period.begin_unix_s, preview.tz):%a %d %H:%M}: at least {limits.floor}"
        says += "" if limits.ceiling is None else f", at most {limits.ceiling}"
        picture.rectangle(left, y(limits.floor), right - left, y(0) - y(limits.floor), fill="#9cc9e3", says=says)
    floors = [(x(one.begin_unix_s), y(one.limits.floor)) for one in preview.periods]
    picture.line(steps([*floors, (x(preview.end_unix_s), floors[-1][1])]), colour=COLOURS[0], width=1.5)
    for period in preview.periods:
        if period.limits.ceiling is not None:
            level = y(period.limits.ceiling)
            ends = [(x(period.begin_unix_s), level), (x(period.end_unix_s), level)]
            picture.line(ends, colour=COLOURS[3], width=2, dashes="5 3")
    picture.text(_WIDTH - _RIGHT, 20, "at least", anchor="end", colour=COLOURS[0])
    picture.text(_WIDTH - _RIGHT, 36, "at most", anchor="end", colour=COLOURS[3])
    for number, (name, spans) in enumerate(preview.spans.items()):
        top = bars_top + number * (_BAR + _GAP)
        picture.text(_LEFT - 8, top + _BAR - 4, name, anchor="end")
        for opened, closed in spans:
            says = f"{name}: {as_local(opened, preview.tz):%a %d %H:%M} to {as_local(closed, preview.tz):%a %d %H:%M}"
            colour = COLOURS[(number + 1) % len(COLOURS)]
            picture.rectangle(x(opened), top, x(closed) - x(opened), _BAR, fill=colour, says=says)
    return picture.rendered()


def _axes(picture: Picture, preview: Preview, x: _Scale, y: _Scale, bars_top: float) -> None:
    bottom = bars_top + len(preview.spans) * (_BAR + _GAP)
    most = max(1, preview.most)
    for replicas in range(0, most + 1, max(1, most // 5)):
        picture.line([(_LEFT, y(replicas)), (_WIDTH - _RIGHT, y(replicas))], colour=_GREY)
        picture.text(_LEFT - 8, y(replicas) + 4, str(replicas), anchor="end")
    days = midnights(preview)
    every = max(1, -(-len(days) // _LABELS_MAX))
    for number, midnight in enumerate(days):
        picture.line([(x(midnight), _TOP), (x(midnight), bottom)], colour=_GREY)
        if number % every == 0:
            picture.text(x(midnight) + 3, _TOP + _CHART + 16, f"{as_local(midnight, preview.tz):%a %d %b}", size=10)
    for change in preview.clock_changes:
        at = x(change.unix_s)
        picture.line([(at, _TOP - 6), (at, bottom)], colour=COLOURS[4], width=1.5, dashes="2 2")
        picture.text(at, _TOP - 10, f"{change.tz} {change.before} → {change.after}", size=10, anchor="middle")
