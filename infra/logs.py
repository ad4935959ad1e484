"""Log lines: JSON for machines, short text for a terminal. Only a `main()` calls `configure`."""

from __future__ import annotations

import datetime as dt
import json
import logging
import traceback
from typing import IO, Any

import msgspec

from schemas.config import LogSection

# What every LogRecord has; anything else came through `extra`.
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = ("consumer", "producer", "scaler", "infra")


def configure(cfg: LogSection, stream: IO[str]) -> None:
    """Our loggers at `cfg.level`, everybody else's at warning, all to `stream`."""
    wants_text = cfg.format == "text" or (cfg.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if wants_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(cfg.level.upper())


class JsonFormatter(logging.Formatter):
    """One object a line: `ts`, `level`, `event`, `logger`, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": _stamp(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        try:
            return msgspec.json.encode(line, enc_hook=repr).decode()
        except (TypeError, ValueError):
            # A lone surrogate, or a dict whose keys are no texts: a line that is lost helps nobody.
            return json.dumps({key: str(value) for key, value in line.items()})


class TextFormatter(logging.Formatter):
    """`12:03:04 job.finished job_id=… verdict=completed`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_shown(value)}" for key, value in _fields(record).items() if value not in ("", None))
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{_stamp(record)[11:19]} {level}{record.getMessage()} {fields}".rstrip()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return text


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    # vLLM stamps every record of the process with a name of its own.
    return {k: v for k, v in vars(record).items() if k not in _STANDARD and not k.startswith("vllm_")}


def _shown(value: object) -> str:
    """On one line, whatever it holds."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _stamp(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
