"""A picture as SVG text: rectangles, lines and words; what they show is for others to say. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

# Blue, orange, green, red, violet, brown, grey: told apart by those who do not see red and green alike, too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#8c6d31", "#7f7f7f")
Point = tuple[float, float]


class Picture:
    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = width, height
        self._parts: list[str] = []

    def rectangle(self, x: float, y: float, width: float, height: float, *, fill: str, says: str = "") -> None:
        """`says` is shown to whoever points at it."""
        title = f"<title>{escape(says)}</title>" if says else ""
        box = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.5, width):.1f}" height="{max(0.5, height):.1f}"'
        self._parts.append(f'<rect {box} fill="{fill}">{title}</rect>')

    def line(self, points: Iterable[Point], *, colour: str, width: float = 1.0, dashes: str = "") -> None:
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self._parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>')

    def text(self, x: float, y: float, words: str, *, size: int = 11, anchor: str = "start", colour: str = "") -> None:
        fill = f' fill="{colour}"' if colour else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{fill}>{escape(words)}</text>'
        )

    def rendered(self) -> str:
        size = (
            f'width="{self._width:.0f}" height="{self._height:.0f}" viewBox="0 0 {self._width:.0f} {self._height:.0f}"'
        )
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
        )


def steps(points: Sequence[Point]) -> list[Point]:
    """A line that keeps its height until the next point, and then jumps."""
    way: list[Point] = []
    for x, y in points:
        if way:
            way.append((x, way[-1][1]))
        way.append((x, y))
    return way
