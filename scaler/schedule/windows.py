"""Which windows are looked at: those of the options, of a file, or of a pool in the configuration."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any, cast

import msgspec

from scaler.policies.schedule import Window
from schemas.errors import ConfigError

_FLAGS = ("cron", "tz", "hours", "floor", "ceiling", "target")


def add_options(parser: argparse.ArgumentParser) -> None:
    one = parser.add_argument_group("one window")
    one.add_argument("--cron", metavar="CRON", help="when it opens: minute hour day month weekday, '0 8 * * 1-5'")
    one.add_argument("--tz", metavar="TZ", help="by whose clock: Europe/Berlin (default: UTC)")
    one.add_argument("--hours", type=float, metavar="H", help="how long it stays open (default: 1)")
    one.add_argument("--floor", type=int, metavar="N", help="at least so many consumers")
    one.add_argument("--ceiling", type=int, metavar="N", help="at most so many")
    one.add_argument("--target", type=int, metavar="N", help="exactly so many")
    dates = "a date, 2026-12-24..2027-01-01, or 12-25 for every year; may be repeated"
    one.add_argument("--except-on", action="append", default=[], metavar="DATE", help=f"it does not open on {dates}")
    one.add_argument("--only-on", action="append", default=[], metavar="DATE", help="it opens on no other days")
    many = parser.add_argument_group("several windows")
    many.add_argument("--windows", metavar="FILE", help="TOML: [windows.NAME] with cron, tz, hours, floor, …")
    many.add_argument("--pool", metavar="NAME", help="those of [scaler.pools.NAME.windows] in the configuration")


def windows_of(options: argparse.Namespace, pools: dict[str, dict[str, Any]]) -> list[Window]:
    """`pools`: the windows of each pool of the configuration, as tables by name.

    Raises:
        ConfigError: none or several of the ways to name them are used, or one is wrong.
    """
    ways = [name for name in ("cron", "windows", "pool") if getattr(options, name)]
    if not ways:
        message = "which windows? Give --cron '0 8 * * 1-5' --hours 9 --floor 2, --windows FILE, or --pool NAME"
        raise ConfigError(message, param="--cron")
    if len(ways) > 1:
        raise ConfigError(f"--{ways[0]} and --{ways[1]} together: give one of them", param=f"--{ways[1]}")
    if options.cron:
        return [_of_flags(options)]
    if options.windows:
        return _of_file(options.windows)
    if options.pool not in pools:
        there = f"there is {', '.join(sorted(pools))}" if pools else "the configuration has none"
        raise ConfigError(f"--pool {options.pool}: no such pool; {there}", param="--pool")
    found = pools[options.pool]
    if not found:
        where = f"[scaler.pools.{options.pool}.windows.NAME]"
        raise ConfigError(f"--pool {options.pool} has no windows: write a table {where}", param="--pool")
    return [window_of(name, table) for name, table in found.items()]


def window_of(name: str, table: dict[str, Any]) -> Window:
    """
    Raises:
        ConfigError: a key is missing, unknown or of another type.
    """
    try:
        return msgspec.convert({**table, "name": name}, Window)
    except msgspec.ValidationError as error:
        known = ", ".join(field for field in Window.__struct_fields__ if field != "name")
        message = f"schedule.{name}: {error}; a window has {known}"
        raise ConfigError(message, param=f"schedule.{name}") from error


def _of_flags(options: argparse.Namespace) -> Window:
    given = {name: getattr(options, name) for name in _FLAGS if getattr(options, name) is not None}
    return window_of("window", {"hours": 1.0, "except_on": options.except_on, "only_on": options.only_on, **given})


def _of_file(path: str) -> list[Window]:
    try:
        found: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--windows {path}: {error.strerror}", param="--windows") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--windows {path}: not UTF-8 at byte {error.start}", param="--windows") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--windows {path} is not TOML: {error}", param="--windows") from error
    tables: object = found.get("windows")
    if not isinstance(tables, dict) or not tables:
        message = (
            f'--windows {path}: no table in it: write [windows.office], cron = "0 8 * * 1-5", hours = 9, floor = 2'
        )
        raise ConfigError(message, param="--windows")
    windows: list[Window] = []
    for name, table in cast("dict[str, object]", tables).items():
        if not isinstance(table, dict):
            raise ConfigError(f"--windows {path}: windows.{name} is no table", param="--windows")
        windows.append(window_of(name, cast("dict[str, Any]", table)))
    return windows
