"""`penstock schedule test`: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from infra import settings
from scaler.policies.schedule import Window
from scaler.schedule import drawing, text
from scaler.schedule.preview import Preview, preview_of
from scaler.schedule.times import span_of
from scaler.schedule.windows import add_options, windows_of
from schemas.errors import ConfigError

_EPILOG = """\
examples:
  penstock schedule test --cron '0 8 * * 1-5' --tz Europe/Berlin --hours 9 --floor 3
  penstock schedule test --windows windows.toml --from 2026-03-28 --to 2026-03-30 --svg windows.svg
  penstock schedule test --pool big

windows.toml:
  [windows.office]
  cron = "0 8 * * 1-5"
  tz = "Europe/Berlin"
  hours = 9
  floor = 3
  except_on = ["12-25", "2026-12-28..2026-12-31"]   # holidays: every year, and a span
  [windows.holiday]                                 # instead of it
  cron = "0 10 * * *"
  tz = "Europe/Berlin"
  hours = 4
  target = 1
  only_on = ["12-25", "2026-12-28..2026-12-31"]
"""


def main(arguments: list[str], environment: Mapping[str, str], now_unix_s: float) -> int:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.pool:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    windows = windows_of(options, _pools(options.config, rest, environment) if options.pool else {})
    tz = _shown_in(options.shown_in, windows)
    begin_unix_s, end_unix_s = span_of(options.begin, options.end, tz, now_unix_s)
    preview = preview_of(windows, begin_unix_s, end_unix_s, tz)
    if options.svg:
        write_text(options.svg, drawing.svg(preview), "--svg")
    if options.json:
        sys.stdout.write(msgspec.json.encode(text.as_json(preview)).decode() + "\n")
    else:
        _show(preview)
    return 0


def write_text(path: str, content: str, option: str) -> None:
    """
    Raises:
        ConfigError: it cannot be written.
    """
    try:
        Path(path).write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}", param=option) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock schedule",
        description="What windows of time do to a pool: floors and ceilings, changes of the clocks, exceptions.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("program", choices=["test"], help="preview them")
    parser.add_argument("--from", dest="begin", default="", metavar="TIME", help="a date or a time (default: today)")
    parser.add_argument("--to", dest="end", default="", metavar="TIME", help="a date, with it, or a time (a week)")
    parser.add_argument("--in", dest="shown_in", default="", metavar="TZ", help="by whose clock to show it all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--svg", default="", metavar="FILE", help="write a picture, too")
    add_options(parser)
    settings.add_config_options(parser)
    return parser


def _shown_in(asked: str, windows: list[Window]) -> str:
    """What was asked for, or the windows' own zone where they have one, or UTC."""
    own = {window.tz for window in windows}
    if not asked:
        return own.pop() if len(own) == 1 and _is_zone(next(iter(own))) else "UTC"
    if not _is_zone(asked):
        raise ConfigError(f"--in {asked}: no such time zone: write Europe/Berlin or UTC", param="--in")
    return asked


def _is_zone(tz: str) -> bool:
    try:
        ZoneInfo(tz)
    # Whatever is wrong with a window's own is said with the window's name, later.
    except (KeyError, ValueError, OSError):
        return False
    return True


def _show(preview: Preview) -> None:
    from rich.console import Console  # noqa: PLC0415 - the JSON needs none
    from rich.table import Table  # noqa: PLC0415

    console = Console(width=max(100, Console().width))
    table = Table(title=f"by the clock of {preview.tz}", title_justify="left")
    for heading in text.HEADINGS:
        table.add_column(heading, justify="right" if heading in {"for", "at least", "at most"} else "left")
    for row in text.rows(preview):
        table.add_row(*row)
    console.print(table)
    for line in [*text.plot(preview), "", *text.notes(preview)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _pools(config_file: str, rest: list[str], environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The windows of every pool of the configuration, as tables by name."""
    tree: dict[str, Any] = msgspec.to_builtins(settings.load_config(config_file, rest, environment))
    pools: dict[str, Any] = tree.get("scaler", {}).get("pools", {})
    return {name: pool.get("windows", {}) for name, pool in pools.items()}
