from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator
from typing import Any

import pytest

from infra import logs
from schemas.config import LogSection


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Generator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("consumer", "producer", "scaler", "infra"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def written(cfg: LogSection, event: str, *, logger: str = "consumer.test", **extra: Any) -> str:
    stream = io.StringIO()
    logs.configure(cfg, stream)
    logging.getLogger(logger).info(event, extra=extra)
    return stream.getvalue()


def test_a_pipe_gets_one_json_object_a_line() -> None:
    text = written(LogSection(), "job.finished", job_id="j", verdict="completed", ttft_s=0.25)

    line = json.loads(text)
    assert text.count("\n") == 1
    assert line["event"] == "job.finished"
    assert (line["job_id"], line["verdict"], line["ttft_s"]) == ("j", "completed", 0.25)
    assert line["level"] == "info"
    assert line["ts"].endswith("Z")


def test_a_line_break_in_a_field_never_makes_a_second_line() -> None:
    for cfg in (LogSection(format="json"), LogSection(format="text")):
        text = written(cfg, "job.failed", reason="one\ntwo\x1b[31m")

        assert text.count("\n") == 1
        assert "\x1b" not in text


def test_a_field_that_json_cannot_hold_costs_no_line() -> None:
    text = written(LogSection(format="json"), "file.read", name_="\ud800", path=io.StringIO, pairs={(1, 2): object()})

    assert json.loads(text)["event"] == "file.read"


def test_an_exception_is_in_its_line() -> None:
    stream = io.StringIO()
    logs.configure(LogSection(format="json"), stream)

    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("infra.test").exception("thing.failed")

    line = json.loads(stream.getvalue())
    assert "ValueError: boom" in line["exception"]


def test_foreign_loggers_are_heard_from_warning_on() -> None:
    assert written(LogSection(level="debug"), "chatter", logger="nats.aio") == ""


def test_the_level_is_the_one_asked_for() -> None:
    assert written(LogSection(level="warning"), "job.finished") == ""


def test_a_terminal_gets_short_text() -> None:
    text = written(LogSection(format="text"), "consumer.ready", pool="default", nothing="", model="a b")

    assert text[8:] == " consumer.ready pool=default model=a b\n"
