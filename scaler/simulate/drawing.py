"""A run as a picture: the replicas of each way of scaling over time, and what the clairvoyant would have had."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from scaler.simulate.figures import Case, Row
from scaler.svg import COLOURS, Picture, Point, steps
from schemas.errors import ConfigError

_WIDTH, _LEFT, _RIGHT, _TOP, _CHART, _LINE = 960.0, 56.0, 20.0, 40.0, 260.0, 16.0
_POINTS_MAX = 800
_GREY = "#d0d0d0"
_UNITS = ((172_800.0, 86_400.0, "days"), (7200.0, 3600.0, "hours"), (0.0, 60.0, "minutes"))


def write_svg(path: str, case: Case, rows: list[Row]) -> None:
    """
    Raises:
        ConfigError: it cannot be written.
    """
    try:
        Path(path).write_text(svg(case, rows), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--svg {path}: {error.strerror}", param="--svg") from error


def svg(case: Case, rows: list[Row]) -> str:
    end_s = max([at for row in rows for at, _ in row.course], default=60.0) or 60.0
    most = max([number for row in rows for _, number in row.course], default=1) or 1
    picture = Picture(_WIDTH, _TOP + _CHART + 40 + _LINE * (len(rows) + 1))

    def at(time_s: float, replicas: float) -> Point:
        x = _LEFT + time_s / end_s * (_WIDTH - _LEFT - _RIGHT)
        return x, _TOP + _CHART * (1 - replicas / (most * 1.05))

    title = f"{case.workload.name}: {case.workload.jobs:,} jobs, cold start {case.setup.cold_start_s:g} s"
    picture.text(_LEFT, 20, title, size=14)
    for replicas in range(0, most + 1, max(1, most // 6)):
        picture.line([at(0, replicas), at(end_s, replicas)], colour=_GREY)
        picture.text(_LEFT - 6, at(0, replicas)[1] + 4, str(replicas), anchor="end")
    _, unit_s, unit = next(one for one in _UNITS if end_s >= one[0])
    for number in range(7):
        x, y = at(end_s * number / 6, 0)
        picture.text(x, y + 16, f"{end_s * number / 6 / unit_s:.3g}", anchor="middle")
    picture.text(_WIDTH - _RIGHT, _TOP + _CHART + 32, unit, anchor="end")
    legend = _TOP + _CHART + 48
    bound = [(number * case.bound.bin_s, float(one)) for number, one in enumerate(case.bound.replicas)]
    bound = [(time_s, min(most * 1.05, max(0.0, one))) for time_s, one in bound if time_s <= end_s]
    picture.line(steps([at(*point) for point in _fewer(bound)]), colour="#000000", dashes="3 3")
    picture.text(_LEFT, legend, f"- - clairvoyant bound: {case.bound.gpu_s / 3600:.2f} GPU-hours")
    for number, row in enumerate(rows):
        colour = COLOURS[number % len(COLOURS)]
        course = [(time_s, float(replicas)) for time_s, replicas in row.course]
        picture.line(steps([at(*point) for point in _fewer(course)]), colour=colour, width=1.5)
        name = row.scaler if row.setting is None else f"{row.scaler} {row.setting:g}"
        words = f"—— {name}: {row.gpu_hours:.2f} GPU-hours, {row.vs_bound:.3f} × bound, {row.late_share:.2%} late"
        picture.text(_LEFT, legend + _LINE * (number + 1), words, colour=colour)
    return picture.rendered()


def _fewer(points: list[Point]) -> list[Point]:
    """As many as a picture can show; of each stretch the highest, for peaks are what one looks for."""
    if len(points) <= _POINTS_MAX:
        return points
    edges = np.linspace(0, len(points), _POINTS_MAX + 1).astype(int)
    return [
        (points[begin][0], max(one[1] for one in points[begin:end]))
        for begin, end in pairwise(edges.tolist())
        if end > begin
    ]
