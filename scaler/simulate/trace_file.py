"""A trace file as it comes: CSV with one of the usual headings or none, or JSON lines; plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from scaler.simulate.workload import Trace
from schemas.errors import ConfigError

# What the columns are called in Azure's, BurstGPT's, Mooncake's and vLLM's files, without case, spaces and underscores.
_NAMES = {
    "time": ("timestamp", "time", "arrival", "arrivaltime", "arrivedat", "arrivals", "starttime", "relativetimestamp"),
    "prompt tokens": (
        "contexttokens",
        "prompttokens",
        "inputtokens",
        "requesttokens",
        "inputlength",
        "promptlen",
        "promptlength",
        "numprefilltokens",
        "prompt",
    ),
    "output tokens": (
        "generatedtokens",
        "outputtokens",
        "completiontokens",
        "responsetokens",
        "outputlength",
        "outputlen",
        "numdecodetokens",
        "output",
    ),
}
_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# Numbers this large count from 1970, in milliseconds and less; no clock of seconds reaches them.
_SINCE_1970 = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"))
_TIME_FORMATS = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S")
# More is a wrong date in one line, or a wrong unit; and would take hours.
_DAYS_MAX = 400.0
Row = tuple[float, float, float]


def read_trace(path: str, unit: str = "") -> Trace:
    """`unit`: what a plain number in the column of times counts; seconds, unless it is too large for them.

    Raises:
        ConfigError: it cannot be read, or is no trace; names the line and the remedy.
    """
    file = Path(path)
    try:
        open_it = gzip.open if file.suffix == ".gz" else open
        with open_it(file, "rt", encoding="utf-8-sig") as lines:
            return parsed(lines, file.name.split(".")[0], unit)
    except UnicodeDecodeError as error:
        message = f"trace {path}: not UTF-8 at byte {error.start}; save it as UTF-8"
        raise ConfigError(message, param="--trace") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise ConfigError(f"trace {path}: {error}", param="--trace") from error
    except OSError as error:
        raise ConfigError(f"trace {path}: {error.strerror}", param="--trace") from error


def parsed(lines: Iterable[str], name: str, unit: str = "") -> Trace:
    """
    Raises:
        ConfigError: as `read_trace`.
    """
    if unit and unit not in _UNITS_S:
        raise ConfigError(f"--time-unit {unit}: there is {', '.join(_UNITS_S)}", param="--time-unit")
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise _no_requests(name)
    whole = chain([first], numbered)
    rows = list(_of_json(whole, name, unit) if first[1].lstrip().startswith("{") else _of_csv(whole, name, unit))
    if not rows:
        raise _no_requests(name)
    table = np.array(rows)
    table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
    arrival_s = table[:, 0] - table[0, 0]
    if (days := float(arrival_s[-1]) / 86400) > _DAYS_MAX:
        message = (
            f"{name}: {days:,.0f} days between the first and the last request, more than {_DAYS_MAX:g}: "
            f"a wrong date in a line, or times in another unit (--time-unit ms)"
        )
        raise ConfigError(message, param="--trace")
    return Trace(name=name, arrival_s=arrival_s, prompt=table[:, 1], output=table[:, 2])


def _no_requests(name: str) -> ConfigError:
    return ConfigError(f"{name}: no requests in it; a line is `time,prompt tokens,output tokens`", param="--trace")


def _of_csv(lines: Iterator[tuple[int, str]], name: str, unit: str) -> Iterator[Row]:
    number, heading = next(lines)
    delimiter = max(",;\t", key=heading.count)
    cells = _cells(heading, delimiter, f"{name}, line {number}")
    columns = _columns(cells, name)
    if columns is None:
        columns = {what: place for place, what in enumerate(_NAMES)}
        lines = chain([(number, heading)], lines)
    for number, line in lines:
        row = _cells(line, delimiter, f"{name}, line {number}")
        try:
            found = [row[columns[what]] for what in _NAMES]
        except IndexError:
            message = f"{name}, line {number}: {len(row)} columns, {max(columns.values()) + 1} are needed"
            raise ConfigError(message, param="--trace") from None
        yield _row(found, f"{name}, line {number}", unit)


def _cells(line: str, delimiter: str, where: str) -> list[str]:
    try:
        return next(iter(csv.reader([line], delimiter=delimiter)))
    except csv.Error as error:
        raise ConfigError(f"{where}: no line of CSV: {error}", param="--trace") from error


def _columns(cells: list[str], name: str) -> dict[str, int] | None:
    """Where time, prompt and output tokens stand; None where the first line is a request already."""
    plain = ["".join(letter for letter in cell.lower() if letter.isalnum()) for cell in cells]
    found: dict[str, int] = {}
    for what, names in _NAMES.items():
        place = next((plain.index(one) for one in names if one in plain), None)
        if place is not None:
            found[what] = place
    if len(found) == len(_NAMES):
        return found
    if not found and len(cells) >= len(_NAMES) and _is_number(cells[1]) and _is_number(cells[2]):
        return None
    missing = ", ".join(f"{what} (such as {_NAMES[what][0]})" for what in _NAMES if what not in found)
    message = f"{name}: no column for {missing}; its columns are {', '.join(cells)[:200]}"
    raise ConfigError(message, param="--trace")


def _of_json(lines: Iterator[tuple[int, str]], name: str, unit: str) -> Iterator[Row]:
    columns: list[str] | None = None
    for number, line in lines:
        where = f"{name}, line {number}"
        try:
            found = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ConfigError(f"{where}: no JSON object: {error}", param="--trace") from error
        if columns is None:
            keys = list(found)
            places = _columns(keys, name)
            columns = [keys[places[what]] for what in _NAMES] if places else keys[: len(_NAMES)]
        yield _row([str(found.get(key, "")) for key in columns], where, unit)


def _row(found: list[str], where: str, unit: str) -> Row:
    """
    Raises:
        ConfigError: a time or a number is none.
    """
    try:
        at_s = _seconds(found[0].strip(), unit)
    except (ValueError, OverflowError):
        message = f"{where}: {found[0]!r} is no time: write seconds, or 2023-11-16 18:17:03.97"
        raise ConfigError(message, param="--trace") from None
    amounts: list[float] = []
    for what, text in zip(("prompt tokens", "output tokens"), found[1:], strict=True):
        if not _is_number(text) or not 0 <= float(text) < 1e9:
            message = f"{where}: {text!r} is no number of {what}: not `time,prompt tokens,output tokens`"
            raise ConfigError(message, param="--trace")
        amounts.append(float(text))
    return at_s, amounts[0], amounts[1]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _seconds(text: str, unit: str) -> float:
    if _is_number(text):
        value = float(text)
        found = unit or next((name for least, name in _SINCE_1970 if value >= least), "s")
        return value * _UNITS_S[found]
    return _moment(text).timestamp()


def _moment(text: str) -> datetime:
    """Without a zone it is UTC: this machine's own would fold an hour of the trace onto another in autumn."""
    for layout in ("", *_TIME_FORMATS):
        try:
            # ISO first: seven digits after the point, which Azure's have, are cut to six.
            plain = text.removesuffix(" UTC")
            moment = datetime.strptime(plain, layout) if layout else datetime.fromisoformat(plain)  # noqa: DTZ007
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise ValueError(text)
