"""A program of ours as a child: its lines, its end, and when it is started again. No I/O."""

from __future__ import annotations

import contextlib
import re
from typing import Any, cast

import msgspec

FIRST_RESTART_S = 1.0
RESTART_MAX_S = 30.0
# A consumer that lived this long had started well; its next failure counts as the first.
WELL_AFTER_S = 60.0
# One that never became ready will not the next time either.
STARTS_MAX = 3
OPERATOR_ERROR = 2
_WHO = re.compile(r"^penstock (consumer|dispatcher|gateway|scaler): ")


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a child's output: ours, with its event and fields, or somebody else's text."""

    text: str
    event: str = ""
    level: str = ""
    fields: dict[str, Any] = {}


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer ended, and when it is started again; None for never."""

    exit_code: int
    restart_in_s: float | None
    reason: str


def death_of(exit_code: int, *, lived_s: float, deaths_before: int, was_ready: bool) -> Death:
    """Whether to start a consumer again that ended unasked, having died `deaths_before` times in a row."""
    if exit_code == OPERATOR_ERROR:
        return Death(exit_code=exit_code, restart_in_s=None, reason="a person must change something first")
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    reason = f"{how} after {lived_s:.0f} s"
    if not was_ready and deaths_before + 1 >= STARTS_MAX:
        return Death(exit_code=exit_code, restart_in_s=None, reason=f"{reason}, and never ready in {STARTS_MAX} starts")
    wait_s = min(RESTART_MAX_S, FIRST_RESTART_S * 2**deaths_before)
    return Death(exit_code=exit_code, restart_in_s=wait_s, reason=reason)


def parsed(line: bytes) -> LogLine:
    text = line.decode("utf-8", "replace").rstrip()
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            entry: Any = msgspec.json.decode(text)
            if isinstance(entry, dict) and isinstance(event := cast("dict[str, Any]", entry).get("event"), str):
                fields = cast("dict[str, Any]", entry)
                rest = {key: value for key, value in fields.items() if key not in {"ts", "level", "event", "logger"}}
                return LogLine(text=text, event=event, level=str(fields.get("level", "")), fields=rest)
    return LogLine(text=text)


def last_words(lines: list[str]) -> str:
    """What a consumer said before it gave up: its last line that is no log record of an ordinary event."""
    for line in reversed(lines):
        if line.strip() and not line.startswith("{"):
            return _WHO.sub("", line.strip())
    return lines[-1] if lines else ""
